r"""The four data sets of section 2.3 as CF-style NetCDF files.

A *case* (`grfsaxs_lib.parameters.CASES`) is a uniform prior on the parameters; a
*split* is training, validation or test; each split lies in one or more *shards*.
`plan` lists them, `generate` makes those that are missing or damaged, `open` and
`load` read them.

Files hold *clean* curves. Measurement noise costs microseconds where a structure
costs seconds, and is added at reading, from its own key.
"""

import hashlib
import json
import re
import warnings
from contextlib import suppress
from pathlib import Path

import numpy as np

from .. import tasks
from ..files import remove_leftovers
from ..grid import PAPER_Q, SmallBoxWarning, check_grid, check_q
from ..parameters import CASES, Case, check, get_case
from ..physics import backend, simulation
from . import block
from .block import DamagedError, Shard
from .keys import PARAMETERS, SPLITS, check_choice, check_whole_number
from .measure import as_measured, measure


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
        Most samples in a shard. One is lost at most when a worker dies.

    Returns
    -------
    list of Shard
        The large splits first, all cases of a split together.

    Raises
    ------
    ValueError
        If an argument is wrong.

    Warns
    -----
    SmallBoxWarning
        If the box is short against the largest scaling parameter.
    """
    q = check_q(q, check_grid(grid))
    shard_size = check_whole_number("shard_size", shard_size, 1, 2**32)
    common = {
        "directory": Path(directory),
        "grid": grid,
        "q": q,
        "smoothing_sigma": float(check("smoothing_sigma", smoothing_sigma)),
        "densities": simulation.check_densities(densities),
        "device": device,
    }
    backend.check_device(device)
    cases = [_check_case(case) for case in cases]
    longest = 8 * np.pi * max(case.ranges["scaling_parameter"][1] for case in cases)
    if grid.box_length < longest:
        warnings.warn(
            f"the box of {grid.box_length:g} nm is shorter than 8*pi*scaling_parameter = {longest:.4g} nm "
            f"at the upper end of the prior; curves of single structures will scatter widely",
            SmallBoxWarning,
            stacklevel=2,
        )
    shards = []
    for split, n in n_sample.items():
        check_choice("split", split, SPLITS)
        n = check_whole_number("n_sample", n, 1, 2**32)
        count = -(-n // shard_size)
        shards += [
            Shard(case=case, split=split, n_sample=n, number=number + 1, count=count, **common)
            for case in cases
            for number in range(count)
        ]
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
    shards : list of Shard
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
    _clear_other_partitions(shards, overwrite)
    if not overwrite:
        for shard in shards:
            with suppress(FileNotFoundError, DamagedError):  # those are made
                block.check(shard)
    work = tasks.run(
        block.overwrite if overwrite else block.complete,
        shards,
        [shard.indices.size for shard in shards],
        client=client,
        directory=shards[0].directory,
        label="data sets",
        unit="curve",
        progress=progress,
    )
    made = {shard.path: checksum for shard, checksum in work}
    remove_leftovers([shard.path for shard in shards])
    return {shard.path: made[shard.path] for shard in shards}


def status(shards):
    """What is there of the data sets that a plan lists, by a look at the heads of the files.

    Parameters
    ----------
    shards : list of Shard

    Returns
    -------
    pandas.DataFrame
        One row for each case and split: shards and curves there and planned, size [MB], `seconds` a curve
        where that was measured, and in `trouble` files that are damaged or of another make.
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
            attrs = block.check(shard)
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


def open(case, split, directory):
    """Look at one split of a case, over all of its shards, without reading the curves.

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

    heads, make, q = _read_heads(case, split, directory)
    intensity = dask.array.concatenate(
        [
            dask.array.from_delayed(
                dask.delayed(_read_intensity)(path), (arrays["index"].size, q.size), dtype=np.float32
            )
            for path, (_, arrays) in heads.items()
        ]
    )
    return _join(heads, make, q, intensity)


def load(case, split, directory, *, noise_replicate=None):
    """Read one split of a case into memory, one shard at a time, and compare it with its checksums.

    Parameters
    ----------
    case, split, directory
        As in `open`.
    noise_replicate : int, optional
        If given, add measurement noise as `add_measurement_noise` does. It needs no second copy of the curves.

    Returns
    -------
    xarray.Dataset
        As from `open`, in memory.

    Raises
    ------
    FileNotFoundError, ValueError
        As `open`; or if a file does not hold what its checksum promises.
    """
    heads, make, q = _read_heads(case, split, directory)
    intensity = np.empty((make["n_sample"], q.size), dtype=np.float32)
    noise_level = np.empty(len(intensity))
    start = 0
    for path in heads:
        _, arrays = block.verify(path)
        rows = slice(start, start + arrays["index"].size)
        intensity[rows] = arrays["intensity"]
        if noise_replicate is not None:
            noise_level[rows] = measure(
                intensity[rows], get_case(case).name, split, arrays["index"], noise_replicate, out=intensity[rows]
            )[1]
        start = rows.stop
    dataset = _join(heads, make, q, intensity)
    return dataset if noise_replicate is None else as_measured(dataset, intensity, noise_level, noise_replicate)


def add_measurement_noise(dataset, replicate=0):
    """Give each curve its own noise level and a lognormal measurement noise.

    Level and noise come from the sample's key alone, so that curve i is the same in
    any selection of the data set, and in any order.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `open` or `load`, or some of its samples.
    replicate : int, optional
        Another number is another, independent measurement of the same structures.

    Returns
    -------
    xarray.Dataset
        With the noisy `intensity` in place of the clean one, and `noise_level`.

    Raises
    ------
    ValueError
        If the data set is not one of clean curves, or an intensity is not a
        positive number.
    """
    missing = {"intensity", "index"} - set(dataset.variables)
    missing |= {"case", "split"} - set(dataset.attrs)
    if missing:
        raise ValueError(f"not a data set of `open` or `load`: it has no {', '.join(sorted(missing))}")
    if "noise_level" in dataset.variables:
        raise ValueError("the curves have measurement noise already; start from the clean ones")
    clean = dataset["intensity"].transpose("sample", "q").values
    owner = dataset.attrs["case"], dataset.attrs["split"], dataset["index"].values
    noisy, noise_level = measure(clean, *owner, replicate)
    return as_measured(dataset, noisy, noise_level, replicate)


# ------------------------------------------------------------------------- checks


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


# -------------------------------------------------------------------------- files


def _clear_other_partitions(shards, overwrite):
    """Refuse, or remove, files of the same splits in another number of shards."""
    for case, split, count in {(shard.case.name, shard.split, shard.count) for shard in shards}:
        whole = shards[0].directory / block.file_name(case, split, 1, 1)
        pattern = "" if count == 1 else f"_shard-*-of-{count:03d}"
        fitting = set(whole.parent.glob(f"{whole.stem}{pattern}.nc"))
        others = {*whole.parent.glob(whole.name), *whole.parent.glob(f"{whole.stem}_shard-*-of-*.nc")} - fitting
        for path in others:
            if not overwrite:
                raise ValueError(f"{path} is of another number of shards than {count}; delete it or overwrite it")
            path.unlink()


def _read_intensity(path):
    return block.read(path, names=("intensity",))[1]["intensity"]


def _read_heads(case, split, directory):
    """Heads of all shards of a split, in order, after a check that they belong together and none is missing."""
    case, directory = _check_case(case), Path(directory)
    check_choice("split", split, SPLITS)
    whole = directory / block.file_name(case.name, split, 1, 1)
    paths = sorted(directory.glob(f"{whole.stem}_shard-*-of-*.nc"))
    if whole.exists():
        if paths:
            raise ValueError(
                f"{directory} holds both {whole.name} and {len(paths)} shards of it; delete one of the two"
            )
        paths = [whole]
    if not paths:
        raise FileNotFoundError(f"{whole} does not exist; {block.REMEDY}")
    heads = {path: block.read(path, names=block.HEAD) for path in paths}
    first, arrays = heads[paths[0]]
    make = {"case": case.name, "split": split, "prior": json.dumps(case.ranges)}
    make |= {name: first[name] for name in block.MAKE if name not in make and name != "shard"}
    count, n_sample = int(first["n_shards"]), int(first["n_sample"])
    for path, (attrs, part) in heads.items():
        block.check_same_make(path, attrs, part, make, arrays["q"])
        expected = block.file_name(case.name, split, int(attrs["shard"]), count)
        if path.name != expected:
            raise ValueError(f"{path} holds what belongs into {expected}; delete it")
        if not np.array_equal(part["index"], block.sample_range(int(attrs["shard"]), count, n_sample)):
            raise DamagedError(f"{path} does not hold the samples that its attributes promise; {block.REMEDY}")
    names = [block.file_name(case.name, split, number + 1, count) for number in range(count)]
    missing = [name for name in names if directory / name not in heads]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {count} shards of {whole.stem} are missing in {directory} "
            f"(first: {missing[0]}); {block.REMEDY}"
        )
    return {directory / name: heads[directory / name] for name in names}, make | {"n_sample": n_sample}, arrays["q"]


def _join(heads, make, q, intensity):
    """One data set from the heads of the shards and all of their curves."""
    parts = [arrays for _, arrays in heads.values()]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in block.HEAD if name != "q"}
    dataset = block.assemble(
        Case(make["case"], {name: tuple(bounds) for name, bounds in json.loads(make["prior"]).items()}),
        joined["index"],
        q,
        intensity,
        {name: joined[name] for name in PARAMETERS},
        joined["structure_seed"],
    )
    attrs = [attrs for attrs, _ in heads.values()]
    dataset.attrs = {name: value for name, value in attrs[0].items() if name != "shard"}
    for name in ("device", "machine", "libraries", "commit"):  # shards may have been made in different places
        dataset.attrs[name] = " | ".join(sorted({part[name] for part in attrs}))
    dataset.attrs["seconds_per_curve"] = float(np.mean([part["seconds_per_curve"] for part in attrs]))
    dataset.attrs["checksum"] = hashlib.sha256("".join(part["checksum"] for part in attrs).encode()).hexdigest()
    return dataset
