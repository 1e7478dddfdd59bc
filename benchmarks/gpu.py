r"""Time the simulation on a GPU: stage by stage against the memory's speed, and against four rivals.

    python benchmarks/gpu.py                                    # the paper's size and prior, all rivals
    python benchmarks/gpu.py --prior 8 --repeats 0 --json FILE  # the stages alone

* The bytes of a stage are those it must move: each array it is given read once, each it returns written once. Its
  share of the copy bandwidth is what a copy of as many bytes would take, over what the stage took. The copy is timed
  in the same run.
* A time is the median of several runs after a first one, between events on the device. Waiting for the host counts.
* The total of a curve is that of a whole call of `simulate`, with nothing timed in between.
* The rivals are the equations typed into CuPy (`textbook` with CuPy in NumPy's place), careful CuPy
  (`careful_cupy`), and the package on this machine's CPU where its libraries are installed. All run in turn, and the
  ratios are those of medians of one run.

Absolute times hold for one card, which is named; quote shares and ratios with it.
"""

import argparse
import functools
import importlib.util
import json
import sys
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
from prior import draw_prior
from tqdm import tqdm

import grfsaxs_lib as gx
from grfsaxs_lib.paper import numbers
from grfsaxs_lib.physics import backend

COPY = 2**29  # bytes of each of the two arrays of the copy


def bytes_of(name, result, values, *arguments, **options):
    """Bytes that a call of a kernel must move: what it is given and what it returns, tables of shells aside.

    Parameters
    ----------
    name : str
        A function of `grfsaxs_lib.physics.kernels`.
    result : array or list
        What it returned.
    values : array or int
        Its first argument.
    arguments, options
        The others.
    """
    if name == "gaussian_random_field":
        return result.nbytes
    if name in ("order_statistics", "shell_sums"):
        return values.nbytes
    if name == "smooth":
        taps, planes = (*arguments, None)[:2] if "planes" not in options else (arguments[0], options["planes"])
        planes = np.arange(len(values)) if planes is None else np.asarray(planes)
        in_reach = np.unique((planes[:, None] + np.arange(1 - taps.size, taps.size)) % len(values))
        return values.nbytes // len(values) * in_reach.size + result.nbytes
    return values.nbytes + result.nbytes  # binarise, classify


@contextmanager
def recorded(kernels, event):
    """Yield a list that gets (stage, bytes, event before, event after) of each call of a kernel.

    The order statistics of the field and those of the smoothed structure are kept apart, by their order; what one
    kernel does in another counts for the outer one.
    """
    calls, running = [], []

    def timed(name, function):
        @functools.wraps(function)
        def wrapper(*arguments, **options):
            before = None if running else event()
            running.append(name)
            try:
                result = function(*arguments, **options)
            finally:
                running.pop()
            if before is not None:
                smoothed = name == "order_statistics" and any(call[0] == "smooth" for call in calls)
                stage = f"{name} (smoothed)" if smoothed else name
                calls.append((stage, bytes_of(name, result, *arguments, **options), before, event()))
            return result

        return wrapper

    names = ("gaussian_random_field", "order_statistics", "binarise", "smooth", "classify", "shell_sums")
    with mock.patch.multiple(kernels, **{name: timed(name, getattr(kernels, name)) for name in names}):
        yield calls


def simulate(size, voxel_size, structures, device="gpu"):
    """Curves of the package, smoothed over 1 nm as in the paper."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gx.SmallBoxWarning)  # a small box takes as long as a good one
        return gx.simulate(gx.Grid(size, voxel_size), **structures, smoothing_sigma=1 / voxel_size, device=device)


def _event():
    import cupy

    event = cupy.cuda.Event()
    event.record()
    return event


def seconds(function):
    """Time between the events before and after a call, on the device."""
    before = _event()
    function()
    after = _event()
    after.synchronize()
    return _elapsed(before, after)


def _elapsed(before, after):
    import cupy

    return cupy.cuda.get_elapsed_time(before, after) / 1000  # it is in ms


def copy_bandwidth(repeats=20):
    """Bytes per second, read and written, of a copy on the device: the median."""
    import cupy

    source = cupy.asarray(np.random.default_rng(0).integers(0, 256, COPY, np.uint8))
    target = cupy.empty_like(source)
    times = [seconds(lambda: cupy.copyto(target, source)) for _ in range(repeats + 1)]
    return 2 * COPY / float(np.median(times[1:]))


def time_prior(size, voxel_size, sample, *, rounds, progress=True):
    """Time the stages of each structure of the sample, then all structures in one call.

    Returns
    -------
    pandas.DataFrame
        One row a structure and stage: number of the structure, stage, bytes and seconds (the median of the rounds).
    float
        Seconds a curve in one call for the whole sample, by the host's clock: the median of the rounds.
    """
    kernels = backend.get_kernels("gpu")
    structures = sample.drop(columns="case")
    rows = []
    for number, row in enumerate(tqdm(structures.to_dict("records"), "stages", unit="curve", disable=not progress)):
        simulate(size, voxel_size, row)
        for one_round in range(rounds):
            with recorded(kernels, _event) as calls:
                simulate(size, voxel_size, row)
            calls[-1][3].synchronize()
            rows += [
                (number, one_round, stage, n_byte, _elapsed(before, after)) for stage, n_byte, before, after in calls
            ]
    calls = pd.DataFrame(rows, columns=["structure", "round", "stage", "bytes", "seconds"])
    # A stage may be called several times for one curve, such as a filter that was too narrow at first.
    curves = calls.groupby(["structure", "round", "stage"], sort=False)[["bytes", "seconds"]].sum()
    stages = curves.groupby(["structure", "stage"], sort=False).median().reset_index()
    whole = []
    for _ in range(rounds):
        start = time.perf_counter()
        simulate(size, voxel_size, structures.to_dict("series"))
        whole.append((time.perf_counter() - start) / len(sample))
    return stages, float(np.median(whole))


def stage_table(stages, per_curve, bandwidth):
    """Mean bytes [GB] and time [ms] a curve of each stage, and its share of the copy bandwidth."""
    n = stages["structure"].nunique()
    table = stages.groupby("stage", sort=False)[["bytes", "seconds"]].sum() / n
    table.loc["total"] = [table["bytes"].sum(), per_curve]
    share = table["bytes"] / table["seconds"] / bandwidth
    return pd.DataFrame({"GB": table["bytes"] / 1e9, "ms": 1e3 * table["seconds"], "share": share})


def textbook_on_cupy():
    """The module `textbook` with CuPy in NumPy's place: the same lines, run on the GPU."""
    import cupy
    import cupyx.scipy.ndimage

    path = Path(__file__).with_name("textbook.py")
    spec = importlib.util.spec_from_file_location("textbook_on_cupy", path)
    module = importlib.util.module_from_spec(spec)
    with mock.patch.dict(sys.modules, {"numpy": cupy, "scipy.ndimage": cupyx.scipy.ndimage}):
        spec.loader.exec_module(module)
    return module


def contestants(size, voxel_size):
    """Functions that simulate one curve of the structure of Figure 1, by name; the package is the first."""
    import careful_cupy
    import cupy

    given = dict(q=gx.PAPER_Q, smoothing_sigma=1 / voxel_size, rng=cupy.random.default_rng(0), **numbers.FIGURE_1)
    textbook = textbook_on_cupy()
    found = {
        "package": lambda: simulate(size, voxel_size, numbers.FIGURE_1 | {"seed": 0}),
        "careful CuPy": lambda: careful_cupy.simulate(size, voxel_size, **given),
        "textbook CuPy": lambda: textbook.simulate(size, voxel_size, **given),
    }
    if importlib.util.find_spec("ducc0") and importlib.util.find_spec("numba"):
        found["package, CPU"] = lambda: simulate(size, voxel_size, numbers.FIGURE_1 | {"seed": 0}, device="cpu")
    return found


def compare_rivals(rivals, repeats, seconds=seconds, progress=True):
    """Time all in turn, after a run of each that compiles and fills tables.

    Returns
    -------
    pandas.DataFrame
        One row a simulator: median, fastest and slowest time [s], number of runs, median over the first one's.
    """
    turns = [(n, name) for n in range(repeats + 1) for name in rivals]
    bar = tqdm(turns, "rivals", unit="run", disable=not progress)
    rows = [(n, name, seconds(rivals[name])) for n, name in bar]
    times = pd.DataFrame(rows, columns=["round", "simulator", "seconds"]).query("round > 0")
    table = times.groupby("simulator", sort=False)["seconds"].agg(["median", "min", "max", "count"])
    table["ratio"] = table["median"] / table["median"].iloc[0]
    return table


def machine():
    """What was timed: card, driver, CUDA and CuPy."""
    import cupy

    runtime = cupy.cuda.runtime
    return {
        "card": runtime.getDeviceProperties(runtime.getDevice())["name"].decode(),
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "cupy": cupy.__version__,
        "package": gx.__version__,
    }


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Time the simulation on a GPU.")
    parser.add_argument("--grid", type=int, default=512, help="voxels along an edge (default: %(default)s)")
    parser.add_argument("--voxel-size", type=float, help="nm (default: a box of 256 nm, but at most 1 nm)")
    parser.add_argument("--prior", type=int, default=24, metavar="N", help="structures (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each structure (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="rounds of the rivals (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the prior sample (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="where to write all numbers")
    given = parser.parse_args(arguments)
    size, voxel_size = given.grid, given.voxel_size or min(1.0, 256 / given.grid)
    sample = draw_prior(given.prior, given.seed)
    try:
        backend.get_kernels("gpu")
    except backend.DeviceError as error:
        raise SystemExit(f"nothing to time: {error}") from None

    bandwidth = copy_bandwidth()
    report = machine() | {"grid": size, "voxel_size": voxel_size, "copy_bandwidth": bandwidth}
    print(f"{report['card']}: {size}^3 voxels of {voxel_size:g} nm, copies at {bandwidth / 1e12:.2f} TB/s\n")
    stages, per_curve = time_prior(size, voxel_size, sample, rounds=given.rounds)
    tables = {"stages": stage_table(stages, per_curve, bandwidth)}
    for case, rows in sample.groupby("case", sort=False).groups.items():
        mine = stages[stages["structure"].isin(rows)]
        report[f"ms of the stages, {case}"] = 1e3 * mine["seconds"].sum() / len(rows)
    if given.repeats:
        tables["rivals"] = compare_rivals(contestants(size, voxel_size), given.repeats)
    for table in tables.values():
        print(table.to_markdown(floatfmt=".3g"), end="\n\n")
    for name, value in report.items():
        if name.startswith("ms of"):
            print(f"{name}: {value:.3f}")
    print(f"mean over the prior: {1e3 * per_curve:.3f} ms a curve")
    if given.json:
        report |= {name: table.reset_index().to_dict("records") for name, table in tables.items()}
        given.json.write_text(json.dumps(report | {"ms_per_curve": 1e3 * per_curve}, indent=1))


if __name__ == "__main__":
    main()
