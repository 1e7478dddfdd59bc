r"""Time the simulation on a CPU: against two rivals, against its own floor, stage by stage.

    python benchmarks/cpu.py                        # the rivals at 256^3 voxels, three rounds
    python benchmarks/cpu.py --grid 512 --repeats 0 --prior 24 --memory

* The rivals are `textbook` and `careful` beside this file. All run in turn, round after round, so that what
  disturbs the machine disturbs all of them; the ratios are those of the medians of one run.
* The floor is one Fourier transform: a real one of the whole cube in single precision by ducc0. The time
  of a curve is averaged over the paper's prior, all four cases alike, and a transform is timed beside
  every curve.
* Peak memory is measured in a process of its own.

Absolute seconds hold for one machine on one day; quote the ratios.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
import types
import warnings
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import careful
import ducc0.fft
import numba
import numpy as np
import pandas as pd
import textbook
from prior import draw_prior
from tqdm import tqdm

import grfsaxs_lib as gx
from grfsaxs_lib.paper import numbers
from grfsaxs_lib.physics.kernels import cpu as kernels

THREADS = 2
FIGURE_1 = numbers.FIGURE_1  # the structure of the rivals
SLOWEST = (  # for the memory: the most modes, and the deepest layer
    dict(scaling_parameter=0.8, porosity=0.5, layer_fraction=0.0),
    dict(scaling_parameter=8.0, porosity=0.9, layer_fraction=0.5),
)


def default_voxel_size(size):
    """Voxel edge [nm]: the paper's box of 256 nm, or voxels of 1 nm where that resolves more."""
    return min(1.0, 256 / size)


def simulate(size, voxel_size, *, seed, **structure):
    """One curve of the package, smoothed over 1 nm as in the paper."""
    grid = gx.Grid(size, voxel_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gx.SmallBoxWarning)  # a small box takes as long as a good one
        return gx.simulate(grid, seed=seed, smoothing_sigma=1 / voxel_size, **structure)


def warm_up(threads=THREADS):
    """Compile the kernels and fix the number of threads, in ours and in the Fourier transforms."""
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
    grid = gx.Grid(32, 1.0)
    field = gx.gaussian_random_field(grid, scaling_parameter=1.0, seed=0)
    q = gx.PAPER_Q[50:]  # which the box resolves
    gx.scattering_intensity(gx.phase_map(field, porosity=0.4, layer_fraction=0.2), grid, q=q)
    gx.phase_map(field, porosity=0.9, layer_fraction=0.5, smoothing_sigma=0.25)  # deep: double precision


def seconds(function):
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def transform_of(size, threads):
    """A function that does one real transform of a cube, into memory that is already there."""
    values = np.random.default_rng(0).random((size, size, size), np.float32)
    spectrum = np.empty((size, size, size // 2 + 1), np.complex64)
    return lambda: ducc0.fft.r2c(values, out=spectrum, nthreads=threads)


def compare_rivals(size, voxel_size, *, repeats, textbook_repeats=None, threads=THREADS, progress=True):
    """Time the package and both rivals in turn.

    The slow rival runs in the first `textbook_repeats` rounds only, by default in all.

    Returns
    -------
    pandas.DataFrame
        One row a simulator: median, fastest and slowest time [s], number of runs, and its median over the
        package's.
    """
    warm_up(threads)
    rng = np.random.default_rng(0)
    given = dict(q=gx.PAPER_Q, smoothing_sigma=1 / voxel_size, rng=rng, **FIGURE_1)
    contestants = {
        "package": lambda: simulate(size, voxel_size, seed=0, **FIGURE_1),
        "careful": lambda: careful.simulate(size, voxel_size, workers=threads, **given),
        "textbook": lambda: textbook.simulate(size, voxel_size, **given),
    }
    contestants["package"](), contestants["careful"]()  # tables that depend on the grid alone
    slow = repeats if textbook_repeats is None else textbook_repeats
    turns = [name for n in range(repeats) for name in contestants if name != "textbook" or n < slow]
    bar = tqdm(turns, f"rivals at {size}^3", unit="run", disable=not progress)
    times = pd.DataFrame({"simulator": turns, "seconds": [seconds(contestants[name]) for name in bar]})
    table = times.groupby("simulator", sort=False)["seconds"].agg(["median", "min", "max", "count"])
    table["ratio"] = table["median"] / table.loc["package", "median"]
    return table


@contextmanager
def stage_times():
    """Yield a dict that adds up the seconds spent in each function of the kernels.

    The order statistics of the field and those of the smoothed structure are kept apart; what one
    kernel spends in another counts for the outer one.
    """
    spent, running = {}, []

    def timed(name, function):
        def wrapper(*args, **kwargs):
            running.append(name)
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                running.pop()
                smoothed = name == "order_statistics" and "binarise" in spent
                label = f"{name} (smoothed)" if smoothed else name
                if not running:
                    spent[label] = spent.get(label, 0.0) + time.perf_counter() - start

        return wrapper

    public = {n: f for n, f in vars(kernels).items() if isinstance(f, types.FunctionType) and n[0] != "_"}
    with mock.patch.multiple(kernels, **{name: timed(name, function) for name, function in public.items()}):
        yield spent


def time_prior(size, voxel_size, sample, *, threads=THREADS, progress=True):
    """Time each structure of the sample, and after it a Fourier transform of the same cube.

    All come from one call, as in a data set. A structure ahead of the sample takes the first tables and memory.

    Returns
    -------
    pandas.DataFrame
        The sample with the columns total and transform, and one more for each kernel [s].
    """
    warm_up(threads)
    transform = transform_of(size, threads)
    transform()
    rows = []
    bar = tqdm(total=len(sample) + 1, desc=f"prior at {size}^3", unit="curve", disable=not progress)
    with bar, stage_times() as stages:

        def after_each(_):
            nonlocal start
            total = time.perf_counter() - start
            rows.append({"total": total, "transform": seconds(transform)} | stages)
            bar.update()
            stages.clear()
            start = time.perf_counter()

        start = time.perf_counter()
        ahead = pd.concat([sample.iloc[:1], sample], ignore_index=True)
        given = {name: ahead[name].to_numpy() for name in ahead.columns.drop("case")}
        gx.simulate(gx.Grid(size, voxel_size), **given, smoothing_sigma=1 / voxel_size, progress=after_each)
    return pd.concat([sample, pd.DataFrame(rows[1:]).fillna(0.0)], axis=1)


def stage_table(times):
    """Mean time of each stage of `time_prior` [s], as a share and as a multiple of the transform."""
    stages = times.columns[times.columns.get_loc("transform") + 1 :]
    mean = times[stages].mean()
    mean["other"] = times["total"].mean() - mean.sum()
    mean["total"] = times["total"].mean()
    table = pd.DataFrame({"seconds": mean, "share": mean / mean["total"]})
    table["transforms"] = table["seconds"] / times["transform"].mean()
    return table.rename_axis("stage")


def peak_memory(size, voxel_size, *, threads=THREADS):
    """Largest resident memory [GiB] of a process that simulates the two most demanding structures."""
    command = [sys.executable, __file__, "--measure-memory", "--grid", str(size), "--threads", str(threads)]
    command += ["--voxel-size", str(voxel_size)]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)


def _own_peak():
    """Largest resident memory of this process so far [GiB]."""
    status = Path("/proc/self/status")
    if status.exists():  # unlike ru_maxrss, this starts anew with the process
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**20
    unit = 2**30 if sys.platform == "darwin" else 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time the simulation on a CPU.")
    parser.add_argument("--grid", type=int, default=256, help="voxels along an edge (default: %(default)s)")
    parser.add_argument("--voxel-size", type=float, help="nm (default: a box of 256 nm, but at most 1 nm)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the rivals (default: %(default)s)")
    parser.add_argument("--prior", type=int, default=0, metavar="N", help="average over N of the prior")
    parser.add_argument("--threads", type=int, default=THREADS, help="for all alike (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the prior sample (default: %(default)s)")
    parser.add_argument("--memory", action="store_true", help="measure the peak memory")
    parser.add_argument("--measure-memory", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    size, voxel_size = given.grid, given.voxel_size or default_voxel_size(given.grid)

    if given.measure_memory:
        warm_up(given.threads)
        before = _own_peak()
        for structure in SLOWEST:
            simulate(size, voxel_size, seed=1, **structure)
        print(json.dumps({"before": before, "peak": _own_peak()}))
        return
    print(f"{size}^3 voxels of {voxel_size:g} nm, {given.threads} threads\n")
    if given.repeats:
        table = compare_rivals(size, voxel_size, repeats=given.repeats, threads=given.threads)
        print(table.to_markdown(floatfmt=".3g"), end="\n\n")
    if given.prior:
        sample = draw_prior(given.prior, given.seed)
        times = time_prior(size, voxel_size, sample, threads=given.threads)
        print(stage_table(times).to_markdown(floatfmt=".3f"), end="\n\n")
        multiple = times["total"].mean() / times["transform"].mean()
        print(
            f"mean over the prior {times['total'].mean():.3f} s ({times['total'].min():.3f} to "
            f"{times['total'].max():.3f}), transform {times['transform'].mean():.3f} s: "
            f"one curve = {multiple:.2f} transforms\n"
        )
    if given.memory:
        memory = peak_memory(size, voxel_size, threads=given.threads)
        print(f"peak memory {memory['peak']:.2f} GiB ({memory['before']:.2f} GiB before the first curve)")


if __name__ == "__main__":
    main()
