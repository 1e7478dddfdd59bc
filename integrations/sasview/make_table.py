"""Write the tables of the plug-ins for SasView: python integrations/sasview/make_table.py"""

from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.stats import norm

from grfsaxs_lib.inference import level_cut, three_phase_model

FOLDER = Path(__file__).parent
T = np.linspace(0, 2.4, 17)
LOG_Q = np.linspace(np.log(0.03), np.log(3.06), 140)  # for a filter of 1 nm


def table():
    """(1 + n_s, 1 + n_t) ndarray: thresholds in the first row, ln(aq) in the first column, ln f."""
    log_s = np.concatenate([np.arange(np.log(5e-3), -1.5, 0.1), np.arange(-1.5, np.log(80), 0.02)])
    loss = level_cut.correlation_loss("paper")
    columns = [level_cut.interpolate(level_cut.log_transform(loss, norm.cdf(-t)), log_s) for t in T]
    return np.block([[np.zeros((1, 1)), T[np.newaxis]], [log_s[:, np.newaxis], np.transpose(columns)]])


def splines():
    """(n_a, n_porosity, n_layer, 4, n_q) ndarray of float32: coefficients of three phases at even steps of ln q."""
    known = three_phase_model.tables()
    values = known.coefficients.reshape(*known.coefficients.shape[:3], len(three_phase_model.TERMS), -1)
    inside = np.clip(LOG_Q, *np.log(known.q[[0, -1]]))
    return CubicSpline(np.log(known.q), values, axis=-1)(inside).astype(np.float32)


if __name__ == "__main__":
    header = "made by make_table.py: t in the first row, ln(a q) in the first column"
    np.savetxt(FOLDER / "grfsaxs_level_cut.txt", table(), fmt="%.5f", header=header)
    np.savez_compressed(FOLDER / "grfsaxs_three_phase.npz", log_q=LOG_Q, splines=splines())
