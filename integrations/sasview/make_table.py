"""Write the table of grfsaxs_level_cut.py from the closed form: python integrations/sasview/make_table.py"""

from pathlib import Path

import numpy as np
from scipy.stats import norm

from grfsaxs_lib.inference import level_cut

T = np.linspace(0, 2.4, 17)


def table():
    """(1 + n_s, 1 + n_t) ndarray: thresholds in the first row, ln(aq) in the first column, ln f."""
    log_s = np.concatenate([np.arange(np.log(5e-3), -1.5, 0.1), np.arange(-1.5, np.log(80), 0.02)])
    loss = level_cut.correlation_loss("paper")
    columns = [level_cut.interpolate(level_cut.log_transform(loss, norm.cdf(-t)), log_s) for t in T]
    return np.block([[np.zeros((1, 1)), T[np.newaxis]], [log_s[:, np.newaxis], np.transpose(columns)]])


if __name__ == "__main__":
    target = Path(__file__).with_name("grfsaxs_level_cut.txt")
    np.savetxt(
        target, table(), fmt="%.5f", header="made by make_table.py: t in the first row, ln(a q) in the first column"
    )
