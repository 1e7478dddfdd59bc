r"""The four data sets of section 2.3 as CF-style NetCDF files.

A *case* (`grfsaxs_lib.parameters.CASES`) is a uniform prior on the parameters; a
*split* is training, validation or test. Sample `index` of a split owns its 64-bit
keys, one a purpose, and nothing else decides its content. So it is the same curve
in a whole file or in a shard, made first or last, beside few others or many.

Files hold *clean* curves. Measurement noise costs microseconds where a structure
costs seconds, and is added at reading by `add_measurement_noise`, from its own key.
"""

import datetime
import json
import operator
import platform
import re
import sys
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import xarray as xr
from tqdm import tqdm

from . import simulation
from .grid import PAPER_Q, check_grid, check_q
from .noise import add_noise, sample_noise_level
from .paper import PAPER_DOI
from .parameters import VARIABLES, Case, check, get_case
from .provenance import git_commit, moved_into_place, package_version, versions

SPLITS = ("train", "validation", "test")
PURPOSES = ("structure", "parameters", "noise")

# Raise it whenever the same key and parameters would give another curve.
SIMULATION_VERSION = 1

_PARAMETERS = ("scaling_parameter", "porosity", "layer_fraction")
_NOTEBOOK = "04_generate_datasets"
_BATCH = 256  # curves a call; bounds the float64 ones to 1 MB


def keys(case, split, indices, purpose, replicate=0):
    r"""64-bit keys of some samples of a split, for one purpose.

    Each key is the first word that ``numpy.random.SeedSequence`` makes of (case,
    split, purpose, index, replicate): it depends on nothing else, and its
    neighbours tell nothing about it.

    Parameters
    ----------
    case : str or Case
        Key of `CASES`, or a `Case` of one's own. Its name enters, its ranges do not.
    split : {"train", "validation", "test"}
    indices : int or (n_sample,) array_like of int
        Positions in the split, each in [0, 2^32).
    purpose : {"structure", "parameters", "noise"}
        What the key is for: random field, parameters or measurement noise.
    replicate : int, optional
        Which of several independent draws, in [0, 2^32).

    Returns
    -------
    (n_sample,) ndarray of uint64

    Raises
    ------
    ValueError
        If an argument is not one of the above.
    """
    return _random_words(case, split, indices, purpose, replicate, 1)[:, 0]


def sample_parameters(case, split, indices):
    """Parameters of some samples of a split, uniform on the ranges of the case.

    Parameters
    ----------
    case, split, indices
        As in `keys`.

    Returns
    -------
    dict of str to (n_sample,) ndarray of float64
        Scaling parameter [nm], porosity and layer fraction; the last is 0 in a
        case of two phases.

    Raises
    ------
    ValueError
        If an argument is not one of the above.
    """
    case = get_case(case)
    words = _random_words(case, split, indices, "parameters", 0, len(_PARAMETERS))
    # The upper 53 bits, as NumPy makes a double; straight from the seed sequence, whose
    # words are fixed for good, where the stream of a Generator may change with NumPy.
    uniforms = (words >> np.uint64(11)) * 2.0**-53
    lower, upper = np.transpose([case.ranges.get(name, (0.0, 0.0)) for name in _PARAMETERS])
    return dict(zip(_PARAMETERS, (lower + (upper - lower) * uniforms).T, strict=True))


def parse_shard(shards, n_sample):
    """Sample indices of one shard of a split.

    Parameters
    ----------
    shards : str
        ``"3/28"`` is the third of 28 shards; ``"1/1"`` is everything.
    n_sample : int
        Number of samples of the whole split.

    Returns
    -------
    range
        Shards differ by at most one in length, and together hold each index once.

    Raises
    ------
    ValueError
        If the text is not of that form, or there are more shards than samples.
    """
    n_sample = _whole_number("n_sample", n_sample, 1, 2**32)
    match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", shards) if isinstance(shards, str) else None
    number, count = map(int, match.groups()) if match else (0, 0)
    if not 1 <= number <= count:
        raise ValueError(f"shards must read 'k/n' with 1 <= k <= n, like '3/28'; got {shards!r}")
    if count > n_sample:
        raise ValueError(f"shards={shards!r} asks for {count} shards of only {n_sample} samples")
    return range((number - 1) * n_sample // count, number * n_sample // count)


def generate(
    case,
    split,
    n_sample,
    *,
    directory,
    grid,
    q=PAPER_Q,
    smoothing_sigma,
    densities=simulation.DENSITIES,
    device="cpu",
    shards="1/1",
    overwrite=False,
    progress=True,
):
    """Simulate one split of a case, or one shard of it, into a NetCDF file.

    The file is ``<case>_<split>.nc``, or ``<case>_<split>_shard-003-of-028.nc``. It
    appears under that name only when it is complete and on the disk. If it is
    there already and holds what is asked for, nothing is done.

    Parameters
    ----------
    case : str or Case
    split : {"train", "validation", "test"}
    n_sample : int
        Number of samples of the whole split, not of the shard.
    directory : path
        Where the file goes; made if it does not exist.
    grid : Grid
    q : (n_q,) array_like, optional
        Magnitudes of the scattering vector [nm^-1].
    smoothing_sigma : float
        Width of the Gaussian filter [voxel].
    densities : (3,) sequence of float, optional
        Electron densities of pore, layer and solid.
    device : {"cpu", "gpu"}, optional
    shards : str, optional
        Which shard of how many, as in `parse_shard`.
    overwrite : bool, optional
        Replace whatever bears the name of the file.
    progress : bool, optional
        Show a progress bar, rate and time left on the standard error stream.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ValueError
        If an argument is wrong, or the file exists and holds something else or is
        damaged; before any simulation.
    DeviceError
        If the device is not there.

    Notes
    -----
    Intensities are float32: its relative precision of 6e-8 holds over all the decades
    of a curve, and the weakest measurement noise of the paper is 1e4 times coarser.
    They carry a checksum, so that a flipped bit is an error at reading.
    """
    case = _check_case(case)
    q = check_q(q, check_grid(grid))
    indices = np.asarray(parse_shard(shards, n_sample))
    densities = simulation.check_densities(densities)
    simulation.get_kernels(device)
    seeds = keys(case, split, indices, "structure")
    number, count = (int(part) for part in shards.split("/"))
    make = {
        "case": case.name,
        "split": split,
        "prior": json.dumps(case.ranges),
        "n_sample": int(n_sample),
        "shard": number,
        "n_shards": count,
        "grid_size": grid.size,
        "voxel_size": grid.voxel_size,
        "smoothing_sigma": float(check("smoothing_sigma", smoothing_sigma)),
        "densities": densities,
        "simulation_version": SIMULATION_VERSION,
    }
    path = Path(directory) / _file_name(case.name, split, number, count)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not overwrite:
        remedy = "delete it, use another directory, or pass overwrite=True"
        _check_same_make(path, _read(path, remedy), make, q, remedy)
        if progress:
            print(f"{path.name}: complete, kept", file=sys.stderr)
        return path

    longest = 8 * np.pi * case.ranges["scaling_parameter"][1]
    if grid.box_length < longest:
        warnings.warn(
            f"the box of {grid.box_length:g} nm is shorter than 8*pi*scaling_parameter = {longest:.4g} nm "
            f"at the upper end of {case.name}; curves of single structures will scatter widely",
            stacklevel=2,
        )
    parameters = sample_parameters(case, split, indices)
    intensity = np.empty((indices.size, q.size), dtype=np.float32)
    times = []
    bar = tqdm(total=indices.size, desc=path.stem, unit="curve", disable=not progress)

    def tick(n_curve):
        bar.update(n_curve)
        times.append(time.perf_counter())

    with bar, warnings.catch_warnings():
        # Said once above, not once a structure.
        warnings.filterwarnings("ignore", "the box of")
        for start in range(0, indices.size, _BATCH):
            part = slice(start, start + _BATCH)
            intensity[part] = simulation.simulate(
                grid,
                **{name: values[part] for name, values in parameters.items()},
                seed=seeds[part],
                q=q,
                device=device,
                densities=densities,
                smoothing_sigma=make["smoothing_sigma"],
                progress=tick,
            )

    dataset = _assemble(case, indices, q, intensity, parameters, seeds)
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "title": f"Simulated small-angle X-ray scattering: {case.title}, {split}",
        **make,
        "voxel_size_unit": "nm",
        "smoothing_sigma_unit": VARIABLES["smoothing_sigma"].unit,
        "box_length": grid.box_length,
        "densities_order": "pore, layer, solid",
        **_provenance(device, times),
    }
    with moved_into_place(path) as temporary:
        chunk = (min(indices.size, 256), q.size)
        encoding = {name: {"_FillValue": None} for name in dataset.variables}
        # Level 1 takes a quarter off the file at 0.05 ms a curve; higher levels gain nothing more.
        encoding["intensity"] |= {"zlib": True, "complevel": 1, "fletcher32": True, "chunksizes": chunk}
        dataset.to_netcdf(temporary, engine="netcdf4", format="NETCDF4", encoding=encoding)
    return path


def open_dataset(case, split, directory):
    """Read one split of a case, from its file or from all of its shards.

    Parameters
    ----------
    case : str or Case
    split : {"train", "validation", "test"}
    directory : path
        Where `generate` wrote.

    Returns
    -------
    xarray.Dataset
        In memory, dimensions (sample, q): clean `intensity`, the three parameters,
        `structure_seed`; coordinates `q` [nm^-1] and `index`; provenance in `attrs`.

    Raises
    ------
    FileNotFoundError
        If the file, or any of the shards, is missing.
    ValueError
        If a file is truncated, damaged, not of this package or for another case,
        or if the shards do not belong together.
    """
    case, directory = _check_case(case), Path(directory)
    _check_choice("split", split, SPLITS)
    remedy = f"delete it and run the notebook {_NOTEBOOK}"
    whole = directory / _file_name(case.name, split, 1, 1)
    paths = sorted(directory.glob(f"{whole.stem}_shard-*-of-*.nc"))
    if whole.exists():
        if paths:
            raise ValueError(
                f"{directory} holds both {whole.name} and {len(paths)} shards of it; delete one of the two"
            )
        paths = [whole]
    if not paths:
        raise FileNotFoundError(f"{whole} does not exist; run the notebook {_NOTEBOOK} first")
    parts = {path: _read(path, remedy) for path in paths}
    first = parts[paths[0]]
    count = first.attrs["n_shards"]
    make = {"case": case.name, "split": split, "prior": json.dumps(case.ranges)}
    make |= {name: first.attrs[name] for name in _MAKE if name not in make and name != "shard"}
    for path, part in parts.items():
        _check_same_make(path, part, make, first["q"].values, remedy)
        expected = _file_name(case.name, split, int(part.attrs["shard"]), int(count))
        if path.name != expected:
            raise ValueError(f"{path} holds what belongs into {expected}; {remedy}")
    names = [_file_name(case.name, split, number + 1, int(count)) for number in range(count)]
    missing = [name for name in names if directory / name not in parts]
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {count} shards of {whole.stem} are missing in {directory} "
            f"(first: {missing[0]}); run the notebook {_NOTEBOOK} with shards='k/{count}' for each"
        )
    if count == 1:
        return first
    dataset = xr.concat(
        [parts[directory / name] for name in names],
        dim="sample",
        data_vars="minimal",
        coords="minimal",
        compat="override",
        join="exact",
        combine_attrs="override",
    )
    del dataset.attrs["shard"]
    return dataset


def add_measurement_noise(dataset, replicate=0):
    """Give each curve its own noise level and a lognormal measurement noise.

    Level and noise come from the sample's key alone, so that curve i is the same in
    any selection of the data set, and in any order.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `open_dataset`, or some of its samples.
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
    missing |= {"case", "split", "prior"} - set(dataset.attrs)
    if missing:
        raise ValueError(f"not a data set of open_dataset: it has no {', '.join(sorted(missing))}")
    if "noise_level" in dataset.variables:
        raise ValueError("the curves have measurement noise already; start from the clean ones")
    case = Case(dataset.attrs["case"], json.loads(dataset.attrs["prior"]))
    clean = dataset["intensity"].transpose("sample", "q")
    noisy, noise_level = np.empty_like(clean.values), np.empty(clean.sizes["sample"])
    seeds = keys(case, dataset.attrs["split"], dataset["index"].values, "noise", replicate)
    for i, seed in enumerate(seeds):
        rng = np.random.default_rng(int(seed))
        noise_level[i] = sample_noise_level(rng)
        noisy[i] = add_noise(clean.values[i].astype(np.float64), noise_level[i], rng)
    attrs = clean.attrs | {
        "long_name": "scattering intensity with measurement noise",
        "comment": "lognormal; mean: the clean intensity; variance: noise_level times the clean intensity",
        "noise_replicate": int(replicate),
    }
    return dataset.assign(
        intensity=(("sample", "q"), noisy, attrs), noise_level=("sample", noise_level, _variable_attrs("noise_level"))
    )


# --------------------------------------------------------------------------- keys


def _random_words(case, split, indices, purpose, replicate, n_word):
    """(n_sample, n_word) ndarray of uint64: what the seed sequence of each sample yields."""
    _check_choice("split", split, SPLITS)
    _check_choice("purpose", purpose, PURPOSES)
    replicate = _whole_number("replicate", replicate, 0, 2**32)
    indices = np.atleast_1d(indices)
    if indices.size == 0:
        return np.empty((0, n_word), dtype=np.uint64)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError(f"indices must be a list of whole numbers; got {indices.dtype} {indices.shape}")
    if indices.min() < 0 or indices.max() >= 2**32:
        raise ValueError(f"indices must lie in [0, 2^32); got {indices.min()} ... {indices.max()}")
    # Five words of 32 bits, always: SeedSequence pads with zeros, so that lists of
    # different lengths could mean the same. Names enter by their checksum, so that a
    # case keeps its samples whatever other cases come and go.
    case = _word(get_case(case).name)
    split, purpose = _word(split), _word(purpose)
    words = [[case, split, purpose, int(index), replicate] for index in indices]
    return np.stack([np.random.SeedSequence(entropy).generate_state(n_word, np.uint64) for entropy in words])


def _word(name):
    return zlib.crc32(name.encode())


# ------------------------------------------------------------------------- checks


def _check_choice(name, value, choices):
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def _whole_number(name, value, lower, upper):
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not lower <= number < upper:
        raise ValueError(f"{name} must be a whole number in [{lower}, {upper}); got {value!r}")
    return number


def _check_case(case):
    """A `Case` whose name can be a file's and whose ranges are physical."""
    case = get_case(case)
    if not re.fullmatch(r"\w+", case.name):
        raise ValueError(f"the name of a case must be letters, digits and underscores; got {case.name!r}")
    missing = {"scaling_parameter", "porosity"} - set(case.ranges)
    unknown = set(case.ranges) - set(_PARAMETERS)
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

# What decides a file's content, beside q and the simulation itself.
_MAKE = (
    "case", "split", "prior", "n_sample", "shard", "n_shards", "grid_size", "voxel_size",
    "smoothing_sigma", "densities", "simulation_version",
)  # fmt: skip


def _file_name(case, split, number, count):
    shard = f"_shard-{number:03d}-of-{count:03d}" if count > 1 else ""
    return f"{case}_{split}{shard}.nc"


def _variable_attrs(name):
    variable = VARIABLES[name]
    return {"long_name": variable.long_name, "units": variable.unit}


def _assemble(case, indices, q, intensity, parameters, seeds):
    """The xarray.Dataset of a file, without its global attributes."""
    variables = {
        "intensity": (
            ("sample", "q"),
            intensity,
            _variable_attrs("intensity")
            | {"comment": "clean; squared modulus of the unnormalised DFT, on the scale of the paper's grid"},
        ),
        **{
            name: ("sample", values, _variable_attrs(name) | _sampled_range(case, name))
            for name, values in parameters.items()
        },
        "structure_seed": ("sample", seeds, {"long_name": "key of the random field", "units": "1"}),
    }
    coords = {
        "q": ("q", q, _variable_attrs("q")),
        "index": ("sample", indices.astype(np.int64), {"long_name": "position in the split", "units": "1"}),
    }
    return xr.Dataset(variables, coords)


def _sampled_range(case, name):
    if name not in case.ranges:
        return {"comment": "0 in two phases"}
    return {"comment": "uniform on sampled_range", "sampled_range": np.asarray(case.ranges[name])}


def _provenance(device, times):
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    return {
        "source": f"grfsaxs_lib {package_version()}",
        "commit": git_commit(),
        "device": str(device),
        "machine": platform.machine(),
        "libraries": ", ".join(f"{name} {version}" for name, version in versions().items()),
        "references": f"https://doi.org/{PAPER_DOI}",
        "created": now,
        "history": f"{now}: simulated by grfsaxs_lib {package_version()}",
        # Without the first curve, which may include compilation; NaN if there is no other.
        "seconds_per_curve": float(np.diff(times).mean()) if len(times) > 1 else np.nan,
    }


def _read(path, remedy):
    """The content of one file in memory, or an error that says what to do."""
    try:
        with xr.open_dataset(path, engine="netcdf4") as file:
            dataset = file.load()
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise ValueError(f"{path} is truncated, damaged or not NetCDF ({error}); {remedy}") from error
    missing = {"intensity", "structure_seed", "q", "index", *_PARAMETERS} - set(dataset.variables)
    missing |= set(_MAKE) - set(dataset.attrs)
    if missing:
        raise ValueError(f"{path} is not a data set of this package: it has no {', '.join(sorted(missing))}; {remedy}")
    expected = parse_shard(f"{dataset.attrs['shard']}/{dataset.attrs['n_shards']}", dataset.attrs["n_sample"])
    if dataset["intensity"].dims != ("sample", "q") or not np.array_equal(dataset["index"], expected):
        raise ValueError(f"{path} does not hold the samples that its attributes promise; {remedy}")
    intensity = dataset["intensity"].values
    if not (np.isfinite(intensity) & (intensity > 0)).all():
        raise ValueError(f"{path} holds intensities that are not positive numbers; {remedy}")
    return dataset


def _check_same_make(path, dataset, make, q, remedy):
    """Refuse a file that was made from something else than `make` and `q`."""
    for name, wanted in make.items():
        found = dataset.attrs[name]
        if not np.array_equal(found, wanted):
            raise ValueError(f"{path} was made with {name} = {found}, wanted is {wanted}; {remedy}")
    if not np.array_equal(dataset["q"], q):
        found = dataset["q"].values
        raise ValueError(
            f"{path} was made with {found.size} other q ({found[0]:g} ... {found[-1]:g} nm^-1), "
            f"wanted are {np.size(q)} ({q[0]:g} ... {q[-1]:g} nm^-1); {remedy}"
        )


open = open_dataset  # read as dataset.open(case, split, directory)
