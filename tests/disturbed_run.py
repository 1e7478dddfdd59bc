"""A run that the tests of the faults disturb: python disturbed_run.py FOLDER [SCHEDULER]."""

import sys
import warnings

import numpy as np

from grfsaxs_lib import cluster, dataset
from grfsaxs_lib.grid import Grid

SHARD_SIZE = 6


def plan(folder):
    """14 shards of tiny structures, a tenth of a second each."""
    warnings.filterwarnings("ignore", "the box of")
    return dataset.plan(
        {"train": 60, "test": 24},
        cases=["three_phase_high"],
        directory=folder,
        grid=Grid(32, 1.0),
        smoothing_sigma=1.0,
        q=np.linspace(0.2, 3.0, 60),
        shard_size=SHARD_SIZE,
    )


def main(folder, scheduler=""):
    with cluster.connect(scheduler) as client:
        dataset.generate(plan(folder), client=client, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
