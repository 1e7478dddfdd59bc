r"""The cost of distributing the work: a Dask cluster of local processes against plain ones without it.

    python benchmarks/engine.py                # 256^3, one and two processes, five rounds
    python benchmarks/engine.py --many 1000    # that many shards of tiny curves: made, opened, resumed

* A plain process makes its half of the shards with `store.generate` and nothing else. All processes are
  started and warm before the clock starts, and both contestants take turns, round after round, with the
  same shards and as many threads a process.
* With one process the ratio is the overhead of the engine; with two it is the efficiency that counts.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from grfsaxs_lib import tasks
from grfsaxs_lib.datasets import store
from grfsaxs_lib.grid import Grid, SmallBoxWarning

# A box of 128 nm with 0.5 nm voxels: the time does not depend on the physics.
GRID = {"size": 256, "voxel_size": 0.5}


def plan(folder, size, voxel_size, n_sample, shard_size):
    warnings.simplefilter("ignore", SmallBoxWarning)
    return store.plan(
        {"train": n_sample},
        cases=["three_phase_low"],
        directory=folder,
        grid=Grid(size, voxel_size),
        smoothing_sigma=1 / voxel_size,
        shard_size=shard_size,
    )


def plain_process(folder, share, *sizes):
    """What a plain process does: warm up, report it, wait for the signal, make its share."""
    shards = plan(folder, GRID["size"], GRID["voxel_size"], *map(int, sizes))
    with tempfile.TemporaryDirectory() as scratch:
        store.generate(plan(scratch, GRID["size"], GRID["voxel_size"], 1, 1), progress=False)
    print("ready", flush=True)
    sys.stdin.readline()
    store.generate(store.share(shards, share), progress=False)
    print("done", flush=True)


def time_plain(folder, n_process, n_sample, shard_size):
    """Seconds that plain processes take for all shards together."""
    threads = str(max(1, os.cpu_count() // n_process))  # as `tasks.connect` gives its workers
    environment = os.environ | {"NUMBA_NUM_THREADS": threads, "OMP_NUM_THREADS": threads}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, "--plain", folder, f"{n + 1}/{n_process}", str(n_sample), str(shard_size)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for n in range(n_process)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    start = time.perf_counter()
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        assert process.stdout.readline() == "done\n"
    seconds = time.perf_counter() - start
    for process in processes:
        process.communicate()
    return seconds


def time_engine(client, folder, n_process, n_sample, shard_size):
    """Seconds that the workers of a cluster take for the same shards."""
    with tempfile.TemporaryDirectory() as scratch:  # one for each worker, to warm it up
        store.generate(plan(scratch, **GRID, n_sample=4 * n_process, shard_size=1), client=client, progress=False)
    shards = plan(folder, **GRID, n_sample=n_sample, shard_size=shard_size)
    start = time.perf_counter()
    store.generate(shards, client=client, progress=False)
    return time.perf_counter() - start


def compare(n_process, rounds, n_sample, shard_size):
    """Both contestants in turn; seconds of every round, and that their files are the same."""
    rows = []
    with tasks.connect(f"local:{n_process}") as client:
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
                plain = time_plain(one, n_process, n_sample, shard_size)
                engine = time_engine(client, other, n_process, n_sample, shard_size)
                checksums = [
                    list(store.generate(plan(folder, **GRID, n_sample=n_sample, shard_size=shard_size),
                                          progress=False).values())
                    for folder in (one, other)
                ]  # fmt: skip
                assert checksums[0] == checksums[1]
            rows.append({"processes": n_process, "curves": n_sample, "plain": plain, "engine": engine})
            print(f"  plain {plain:.2f} s, engine {engine:.2f} s, ratio {plain / engine:.3f}", file=sys.stderr)
    return pd.DataFrame(rows)


def do_nothing(task, report):
    return task


def time_many_shards(n_shard, n_process=2):
    """Seconds to make, open and resume a data set of very many tiny shards."""
    with tempfile.TemporaryDirectory() as folder, tasks.connect(f"local:{n_process}") as client:
        shards = plan(folder, 16, 1.0, 2 * n_shard, 2)
        setting = {"client": client, "directory": folder, "label": "", "unit": "", "progress": False}
        times, ones = {}, [1] * n_shard
        start = time.perf_counter()
        assert len(list(tasks.run(do_nothing, ones, ones, **setting))) == n_shard
        times["tasks that do nothing"] = time.perf_counter() - start
        start = time.perf_counter()
        made = store.generate(shards, client=client, progress=False)
        times["made"] = time.perf_counter() - start
        start = time.perf_counter()
        opened = store.open_dataset("three_phase_low", "train", folder)
        times["opened"] = time.perf_counter() - start
        start = time.perf_counter()
        again = store.generate(shards, client=client, progress=False)
        times["resumed"] = time.perf_counter() - start
    assert again == made and opened.sizes["sample"] == 2 * n_shard
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--curves", type=int, default=64, help="of a round")
    parser.add_argument("--shard-size", type=int, default=4)
    parser.add_argument("--many", type=int, help="time so many shards of tiny curves instead")
    parser.add_argument("--json", type=Path, help="write the numbers there too")
    parser.add_argument("--plain", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.plain:
        plain_process(*options.plain)
        return
    if options.many:
        result = time_many_shards(options.many)
        print(f"{options.many} shards of two tiny curves on 2 workers, seconds:")
        print(pd.Series(result).round(1).to_string())
    else:
        table = pd.concat(
            compare(n, options.rounds, options.curves, options.shard_size) for n in options.processes
        ).assign(ratio=lambda table: table["plain"] / table["engine"])
        summary = table.groupby("processes").agg(
            {"curves": "first", "plain": "median", "engine": "median", "ratio": ["median", "min", "max", "count"]}
        )
        print(summary.round(3).to_string())
        error = table.groupby("processes")["ratio"].std() / np.sqrt(options.rounds)
        print("standard error of the mean ratio:", error.round(4).to_dict())
        result = table.to_dict("records")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
