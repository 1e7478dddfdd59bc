r"""The four data sets of section 2.3 as CF-style NetCDF files.

A *case* (`grfsaxs_lib.parameters.CASES`) is a uniform prior on the parameters; a
*split* is training, validation or test; each split lies in one or more *shards*,
blocks of consecutive samples, each a file. `plan` lists them, `generate` makes those
that are missing or damaged, `open_dataset` and `load` read them. A larger number of
samples adds shards; those that are there stay.

Files hold *clean* curves. Measurement noise costs microseconds where a structure
costs seconds, and is added at reading, from its own key.
"""

import hashlib
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from .. import tasks
from ..files import remove_leftovers
from ..grid import PAPER_Q, Grid, check_grid, check_q
from ..parameters import CASES, check, get_case
from ..physics import backend, simulation
from ..physics.field import warn_of_small_box
from . import block
from .block import Block, DamagedError
from .keys import PARAMETERS, SPLITS, check_choice, check_whole_number
from .measure import add_measurement_noise


def plan(
    n_sample,
    *,
    directory,
    grid,
    smoothing_sigma,
    cases=tuple(CASES),
    q=PAPER_Q,
    densities=simulation.DENSITIES,
    device="cpu",
    shard_size=4096,
):
    """List the shards of some data sets.

    Parameters
    ----------
    n_sample : dict of str to int
        Samples of each split, for every case: ``{"train": 1500, "validation": 250}``.
    directory : path
        Where the files go.
    grid : Grid
    smoothing_sigma : float
        Width of the Gaussian filter [voxel].
    cases : sequence of str or Case, optional
    q : (n_q,) array_like, optional
        Magnitudes of the scattering vector [nm^-1].
    densities : (3,) sequence of float, optional
        Electron densities of pore, layer and solid.
    device : {"cpu", "gpu"}, optional
        What simulates.
    shard_size : int, optional
        Most samples in a new file. One shard is lost at most when a worker dies.

    Returns
    -------
    list of Block
        The large splits first, all cases of a split together. A file that is there is a shard, whatever its size.

    Raises
    ------
    ValueError
        If an argument is wrong, or a file there holds more samples.

    Warns
    -----
    SmallBoxWarning
        If the box is short against the largest scaling parameter.
    """
    q = check_q(q, check_grid(grid))
    shard_size = check_whole_number("shard_size", shard_size, 1, 2**32)
    backend.check_device(device)
    common = {
        "grid": grid,
        "q": q,
        "smoothing_sigma": float(check("smoothing_sigma", smoothing_sigma)),
        "densities": simulation.check_densities(densities),
        "device": device,
    }
    cases, directory = [_check_case(case) for case in cases], Path(directory)
    warn_of_small_box(grid, max(case.ranges["scaling_parameter"][1] for case in cases))
    shards = []
    for split, n in n_sample.items():
        check_choice("split", split, SPLITS)
        n = check_whole_number("n_sample", n, 1, 2**32)
        for case in cases:
            there = block.find(directory, case.name, split)
            for part in block.partition(there, n, shard_size):
                path = there.get(part) or directory / block.file_name(case.name, split, *part)
                shards.append(Block(path, case, split, *part, n_sample=n, **common))
    return sorted(shards, key=lambda shard: -shard.n_sample)


def share(shards, text):
    """The part of a list that is one of several processes' to do.

    Parameters
    ----------
    shards : list
    text : str
        ``"3/28"`` is the third of 28 shares, ``"1/1"`` everything.

    Returns
    -------
    list
        Every 28th, so that the shares are of about the same size. Empty if there are more shares than shards.

    Raises
    ------
    ValueError
        If the text is not of that form.
    """
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text) if isinstance(text, str) else None
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"shards must read 'k/n' with 1 <= k <= n, like '3/28'; got {text!r}")
    return shards[number - 1 :: count]


def generate(shards, *, client=None, overwrite=False, progress=True):
    """Simulate the shards that are missing or damaged, each into its NetCDF file.

    A file appears under its name only when it is complete and on the disk. One that is
    there already, whole, and holds what is asked for is kept. A damaged one is made again.

    Parameters
    ----------
    shards : list of Block
        From `plan`, or some of them.
    client : distributed.Client, optional
        From `tasks.connect`: the shards are made on its workers. Without it, here.
    overwrite : bool, optional
        Make every shard, whatever bears the names of their files.
    progress : bool, optional
        Show a progress bar, rate and time left on the standard error stream.

    Returns
    -------
    dict of Path to str
        The checksum of each file, in the order of `shards`.

    Raises
    ------
    ValueError
        If a file exists and holds something else; before any simulation.
    DeviceError
        If the device is not there.
    ClusterError
        See `tasks.run`.

    Notes
    -----
    Intensities are float32: its relative precision of 6e-8 holds over all the decades
    of a curve, and the weakest measurement noise of the paper is 1e4 times coarser.
    The checksum is over all arrays and what they were made from. It does not depend on
    when, where or beside which other shards a file was made.
    """
    if not shards:
        return {}
    if client is None:
        backend.get_kernels(shards[0].device)
    if not overwrite:
        for shard in shards:
            with suppress(FileNotFoundError, DamagedError):  # those are made
                block.read_head(shard)
    work = tasks.run(
        block.make if overwrite else block.complete,
        shards,
        [shard.indices.size for shard in shards],
        client=client,
        directory=shards[0].path.parent,
        label="data sets",
        unit="curve",
        progress=progress,
    )
    made = {shard.path: checksum for shard, checksum in work}
    remove_leftovers([shard.path for shard in shards])
    return {shard.path: made[shard.path] for shard in shards}


def status(shards):
    """What is there of the data sets that a plan lists, from the heads of the files.

    Parameters
    ----------
    shards : list of Block

    Returns
    -------
    pandas.DataFrame
        One row for each case and split: shards and curves there and planned, size [MB], `seconds` a curve
        where that was measured, and in `trouble` files that are damaged or hold something else.
    """
    import pandas as pd

    rows = {}
    for shard in shards:
        row = rows.setdefault(
            (shard.case.name, shard.split),
            {"shards": 0, "of": 0, "curves": 0, "planned": 0, "MB": 0.0, "seconds": [], "trouble": []},
        )
        row["of"] += 1
        row["planned"] += shard.indices.size
        if not shard.path.exists():
            continue
        row["MB"] += shard.path.stat().st_size / 1e6
        try:
            attrs, _ = block.read_head(shard)
        except ValueError as error:
            row["trouble"].append(str(error))
            continue
        row["shards"] += 1
        row["curves"] += shard.indices.size
        if np.isfinite(attrs["seconds_per_curve"]):
            row["seconds"].append(attrs["seconds_per_curve"])
    for row in rows.values():
        row["seconds"] = float(np.mean(row["seconds"])) if row["seconds"] else np.nan
        row["trouble"] = "; ".join(row["trouble"])
    index = pd.MultiIndex.from_tuples(rows, names=("case", "split"))
    return pd.DataFrame(list(rows.values()), index=index)


def open_dataset(case, split, directory):
    """Open one split of a case, all of its shards, without reading the curves.

    Parameters
    ----------
    case : str or Case
    split : {"train", "validation", "test"}
    directory : path
        Where `generate` wrote.

    Returns
    -------
    xarray.Dataset
        Dimensions (sample, q): clean `intensity` as a Dask array, read from the files when it is needed;
        in memory the three parameters, `structure_seed`, the coordinates `q` [nm^-1] and `index`, and
        provenance in `attrs`. The checksum in `attrs` is one over those of the shards; curves that are read
        this way are not compared with it, those of `load` are.

    Raises
    ------
    FileNotFoundError
        If the file, or any of the shards, is missing.
    ValueError
        If a file is damaged, not of this package or for another case, or if the shards do not belong together.
    """
    import dask
    import dask.array

    shards = _blocks_there(case, split, directory)
    heads = [block.read_head(shard) for shard in shards]
    curves = [
        dask.array.from_delayed(
            dask.delayed(_read_intensity)(shard.path), (shard.indices.size, shard.q.size), np.float32
        )
        for shard in shards
    ]
    return _join(shards, heads, dask.array.concatenate(curves))


def load(case, split, directory, *, noise_replicate=None):
    """Read one split of a case into memory, one shard at a time, and compare it with its checksums.

    Parameters
    ----------
    case, split, directory
        As in `open_dataset`.
    noise_replicate : int, optional
        If given, add measurement noise as `add_measurement_noise` does. It needs no second copy of the curves.

    Returns
    -------
    xarray.Dataset
        As from `open_dataset`, in memory.

    Raises
    ------
    FileNotFoundError, ValueError
        As `open_dataset`; or if a file does not hold what its checksum promises.
    """
    shards = _blocks_there(case, split, directory)
    intensity = np.empty((shards[-1].stop, shards[0].q.size), dtype=np.float32)
    heads = []
    for shard in shards:
        attrs, arrays = block.read_whole(shard)
        intensity[shard.indices] = arrays.pop("intensity")
        heads.append((attrs, arrays))
    dataset = _join(shards, heads, intensity)
    return dataset if noise_replicate is None else add_measurement_noise(dataset, noise_replicate, overwrite=True)


def _check_case(case):
    """A `Case` whose name can be a file's and whose ranges are physical."""
    case = get_case(case)
    if not re.fullmatch(r"\w+", case.name):
        raise ValueError(f"the name of a case must be letters, digits and underscores; got {case.name!r}")
    missing = {"scaling_parameter", "porosity"} - set(case.ranges)
    unknown = set(case.ranges) - set(PARAMETERS)
    if missing or unknown:
        raise ValueError(
            f"the case {case.name} must give ranges of scaling_parameter, porosity and perhaps "
            f"layer_fraction; got {', '.join(case.ranges)}"
        )
    for name, bounds in case.ranges.items():
        lower, upper = check(name, bounds)
        if not lower < upper:
            raise ValueError(f"the range of {name} in the case {case.name} must increase; got {bounds}")
    return case


def _blocks_there(case, split, directory):
    """All shards of a split, made as the first file was, after a check that none is missing."""
    case, directory = _check_case(case), Path(directory)
    check_choice("split", split, SPLITS)
    there = block.find(directory, case.name, split)
    if not there:
        raise FileNotFoundError(f"there is no data set {case.name} {split} in {directory}; {block.REMEDY}")
    try:
        heads = [block.read(path, ("q",)) for path in there.values()]
        n_sample = max(int(attrs["n_sample"]) for attrs, _ in heads)
        (attrs, arrays), *_ = heads
        like = Block(
            directory, case, split, 0, 0, Grid(attrs["grid_size"], attrs["voxel_size"]), arrays["q"],
            attrs["smoothing_sigma"], tuple(attrs["densities"]), simulation_version=attrs["simulation_version"],
        )  # fmt: skip
        for first, stop in block.partition(there, n_sample, n_sample):
            if (first, stop) not in there:
                raise FileNotFoundError(
                    f"samples {first} to {stop - 1} of the {n_sample} of {case.name} {split} are missing in "
                    f"{directory}; {block.REMEDY}"
                )
    except (TypeError, ValueError, FileNotFoundError):
        for path in there.values():
            block.verify(path)  # an attribute may be damaged
        raise
    return [replace(like, path=path, first=first, stop=stop) for (first, stop), path in there.items()]


def _read_intensity(path):
    return block.read(path, names=("intensity",))[1]["intensity"]


def _join(shards, heads, intensity):
    dataset = block.join(shards, heads, intensity)
    checksums = "".join(attrs["checksum"] for attrs, _ in heads)
    return dataset.assign_attrs(
        n_sample=len(intensity),
        seconds_per_curve=float(np.mean([attrs.get("seconds_per_curve", np.nan) for attrs, _ in heads])),
        checksum=hashlib.sha256(checksums.encode()).hexdigest(),
    )
