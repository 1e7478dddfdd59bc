"""A run that the tests of the faults disturb: python disturbed_run.py FOLDER SCHEDULER [READY GO]."""

import sys
import time
import warnings
from pathlib import Path

import numpy as np

from grfsaxs_lib import tasks
from grfsaxs_lib.datasets import store
from grfsaxs_lib.grid import Grid, SmallBoxWarning


def plan(folder):
    """14 shards of tiny structures, a tenth of a second each."""
    warnings.simplefilter("ignore", SmallBoxWarning)
    return store.plan(
        {"train": 60, "test": 24},
        cases=["three_phase_high"],
        directory=folder,
        grid=Grid(32, 1.0),
        smoothing_sigma=1.0,
        q=np.linspace(0.2, 3.0, 60),
        shard_size=6,
    )


def main(folder, scheduler, ready=None, go=None):
    with tasks.connect(scheduler) as client:
        if ready:  # read compiled code, tell that it is ready, and wait for the word
            store.generate(plan(f"{folder}-before")[:1], client=client, progress=False)
            Path(ready).touch()
            while not Path(go).exists():
                time.sleep(0.01)
        store.generate(plan(folder), client=client, progress=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
