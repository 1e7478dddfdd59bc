r"""A block of curves: consecutive samples of a split, and the NetCDF file that holds them.

What a block holds depends on its samples alone (`keys`), so it can be made anywhere, at any time, and made again;
further blocks let a split grow. A file appears under its name only when it is complete and on the disk, and carries
what it was made from.
"""

import datetime
import hashlib
import json
import platform
import re
import sys
import threading
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import netCDF4
import numpy as np
import xarray as xr

from ..files import git_commit, moved_into_place, package_version, versions
from ..grid import Grid, SmallBoxWarning
from ..paper.numbers import PAPER_DOI
from ..parameters import VARIABLES, Case
from ..physics import simulation
from .keys import PARAMETERS, keys, sample_parameters

# Raise it whenever the same key and parameters would give another curve.
SIMULATION_VERSION = 1
REMEDY = "run the notebook 04_datasets, or ./run_all.sh generate"

_ANOTHER_ORIGIN = "delete it, use another directory, or overwrite it"
_NETCDF = threading.Lock()  # netCDF-C is not thread-safe
ARRAYS = ("q", "index", *PARAMETERS, "structure_seed", "intensity")
HEAD = ARRAYS[:-1]
# Attributes of a data set's file; the checksum is over the others and all arrays. See `Block.origin`.
_REQUIRED = (
    "case", "split", "prior", "n_sample", "grid_size", "voxel_size", "smoothing_sigma", "densities",
    "simulation_version", "checksum",
)  # fmt: skip
_EARLIER = ("shard", "n_shards")  # files that were written before splits could grow have these, too


class DamagedError(ValueError):
    """A file is truncated, or does not hold what its checksum promises."""


@dataclass(frozen=True, eq=False)
class Block:
    """Consecutive samples of one split: all that is needed to make their file.

    Attributes
    ----------
    path : Path
        The file, see `file_name`.
    case : Case
    split : str
    first, stop : int
        Positions in the split, `stop` excluded.
    grid : Grid
    q : (n_q,) ndarray of float64
        [nm^-1]
    smoothing_sigma : float
        [voxel]
    densities : (float, float, float)
    n_sample : int, optional
        Samples that the split is to have in the end.
    device : str
        What simulates.
    simulation_version : int
        `SIMULATION_VERSION` of the process that has planned it.
    """

    path: Path
    case: Case
    split: str
    first: int
    stop: int
    grid: Grid
    q: np.ndarray
    smoothing_sigma: float
    densities: tuple
    n_sample: int | None = None
    device: str = "cpu"
    simulation_version: int = SIMULATION_VERSION

    @property
    def indices(self):
        """Positions of the samples in the split, an ndarray."""
        return np.arange(self.first, self.stop)

    @property
    def origin(self):
        """What, beside q and the samples' keys, decides the curves; global attributes of the file."""
        return {
            "case": self.case.name,
            "split": self.split,
            "prior": json.dumps(self.case.ranges),
            "grid_size": self.grid.size,
            "voxel_size": self.grid.voxel_size,
            "smoothing_sigma": self.smoothing_sigma,
            "densities": self.densities,
            "simulation_version": self.simulation_version,
        }

    @property
    def head(self):
        """All arrays of the file but the intensity, by name: q, positions, parameters and keys of the samples."""
        parameters = sample_parameters(self.case, self.split, self.indices)
        seeds = keys(self.case.name, self.split, self.indices, "structure")
        return {"q": self.q, "index": self.indices, **parameters, "structure_seed": seeds}

    def __str__(self):
        return self.path.name


# -------------------------------------------------------------------------- names


def file_name(case, split, first, stop):
    """Name of a block's file, by the name of the case: ``<case>_<split>_<first>-<last>.nc``."""
    return f"{case}_{split}_{first:05d}-{stop - 1:05d}.nc"


def parse_name(name):
    """(case, split, first, stop) of a file of that name, or None."""
    match = re.fullmatch(r"(\w+)_([a-z]+)_(\d{5,})-(\d{5,})\.nc", name, re.ASCII)
    found = match and (match[1], match[2], int(match[3]), int(match[4]) + 1)
    return found if found and found[2] < found[3] and file_name(*found) == name else None


def find(directory, case, split):
    """Files of a split that are there, in order: a dict of (first, stop) to Path.

    The names of files that were written before splits could grow do not tell these samples; their attributes do.
    """
    found = {}
    for path in directory.glob(f"{case}_{split}*.nc"):
        parsed = parse_name(path.name)
        if parsed and parsed[:2] == (case, split):
            found[parsed[2:]] = path
        elif re.fullmatch(rf"{case}_{split}(_shard-\d+-of-\d+)?\.nc", path.name):
            attrs, _ = read(path, (), required=(*_REQUIRED, *_EARLIER))
            number, count, n_sample = (int(attrs[name]) for name in (*_EARLIER, "n_sample"))
            found[(number - 1) * n_sample // count, number * n_sample // count] = path
    return dict(sorted(found.items()))


def partition(there, n_sample, block_size):
    """Divide the samples [0, n_sample) into blocks: those there, from `find`, and new ones; a list of (first, stop).

    New ones end where another begins or at a multiple of their size, so that the result stays while they are made.
    ValueError if a file holds samples beyond, or such as another one holds.
    """
    parts, first = [], 0
    while first < n_sample:
        fitting = [stop for begin, stop in there if begin == first]
        following = [begin for begin, _ in there if begin > first]
        stop = fitting[0] if fitting else min(n_sample, (first // block_size + 1) * block_size, *following)
        parts.append((first, stop))
        first = stop
    for (first, stop), path in there.items():
        if (first, stop) not in parts or stop > n_sample:
            raise ValueError(f"{path} does not fit among the {n_sample} samples and the other files; delete it")
    return parts


# ------------------------------------------------------------------------- making


def complete(block, report):
    """Make a block unless its file is there and whole; return its checksum. A task of `tasks.run`."""
    if block.path.exists():
        try:
            return read_whole(block)[0]["checksum"]
        except DamagedError as error:
            print(f"{error}: made again", file=sys.stderr)
    return make(block, report)


def make(block, report):
    """Simulate a block of a data set and write its file; return the checksum. A task of `tasks.run`."""
    if block.simulation_version != SIMULATION_VERSION:
        raise RuntimeError(
            f"{block} was planned for simulation version {block.simulation_version}, and this worker has version "
            f"{SIMULATION_VERSION}: start it again with the same code"
        )
    if parse_name(block.path.name) is None:
        raise ValueError(f"{block.path} is of an earlier version, and is not made again under its name; delete it")
    times = []

    def tick(n_curve):
        report(n_curve)
        times.append(time.perf_counter())

    intensity = simulate_block(block, progress=tick).astype(np.float32)
    decided = block.origin | {"n_sample": block.n_sample}
    attrs = {
        "title": f"Simulated small-angle X-ray scattering: {block.case.title}, {block.split}",
        **decided,
        "checksum": _checksum(decided, block.head | {"intensity": intensity}),
        "voxel_size_unit": "nm",
        "smoothing_sigma_unit": VARIABLES["smoothing_sigma"].unit,
        "box_length": block.grid.box_length,
        "densities_order": "pore, layer, solid",
        **provenance(block.device),
        # Without the first curve, which may include compilation; NaN if there is no other.
        "seconds_per_curve": float(np.diff(times).mean()) if len(times) > 1 else np.nan,
    }
    try:
        write_block(block, intensity, attrs)
    except FileNotFoundError:
        # Another run has finished this block, and taken our temporary file for a leftover.
        return read_whole(block)[0]["checksum"]
    return attrs["checksum"]


def simulate_block(block, rows=slice(None), progress=None):
    """Simulate the curves of a block, or some rows of them: an (n_curve, n_q) ndarray of float64."""
    head = block.head
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallBoxWarning)  # the plan has said it
        return simulation.simulate(
            block.grid,
            **{name: head[name][rows] for name in PARAMETERS},
            seed=head["structure_seed"][rows],
            q=block.q,
            device=block.device,
            densities=block.densities,
            smoothing_sigma=block.smoothing_sigma,
            progress=progress,
        )


def write_block(block, intensity, attrs, significant_bits=None):
    """Write the file of a block, with its (n_sample, n_q) intensities as float32.

    With `significant_bits` they are rounded to so many bits, and compressed as well as can be. ValueError if they have
    another shape or are not positive everywhere; OSError if the file cannot be written.
    """
    intensity = np.asarray(intensity, dtype=np.float32)
    if not are_curves(block, intensity):
        raise ValueError(f"{block} needs {block.indices.size} x {block.q.size} positive numbers; nothing was written")
    dataset = assemble(block.case, block.head | {"intensity": intensity})
    dataset.attrs = {"Conventions": "CF-1.11", **attrs}
    encoding = {name: {"_FillValue": None} for name in dataset.variables}
    # Level 1 takes a quarter off the file at 0.05 ms a curve; without rounding higher levels gain nothing more.
    chunks = (min(len(intensity), 256), block.q.size)
    encoding["intensity"] |= {"zlib": True, "complevel": 1, "fletcher32": True, "chunksizes": chunks}
    if significant_bits:
        rounding = {"quantize_mode": "BitRound", "significant_digits": significant_bits}
        encoding["intensity"] |= rounding | {"complevel": 9, "shuffle": True}
    try:
        with moved_into_place(block.path) as temporary:
            # A disk without room for it is a plain error here; inside HDF5 it is an obscure one.
            temporary.write_bytes(bytes(dataset.nbytes + 2**16))
            # Not `to_netcdf`: on a Dask worker it asks the scheduler for a lock at every variable.
            try:
                with _NETCDF, netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
                    dataset.dump_to_store(xr.backends.NetCDF4DataStore(file), encoding=encoding)
            except PermissionError:  # what netCDF calls it if the file vanishes while it is opened
                temporary.stat()  # raises FileNotFoundError if it has
                raise
    except RuntimeError as error:
        raise OSError(f"{block.path} could not be written; is the disk full? ({error})") from error


def are_curves(block, intensity):
    """Whether an array can be the intensities of a block: of its shape, finite and positive."""
    positive = np.isfinite(intensity) & (intensity > 0)
    return positive.shape == (block.indices.size, block.q.size) and positive.all()


def _checksum(decided, arrays):
    """SHA-256 over what a file was made from and all of its arrays."""
    digest = hashlib.sha256(json.dumps(decided, sort_keys=True).encode())
    for name in ARRAYS:
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def variable_attrs(name):
    """NetCDF attributes of a variable of the model."""
    variable = VARIABLES[name]
    return {"long_name": variable.long_name, "units": variable.unit}


def assemble(case, arrays):
    """The xarray.Dataset of some samples of a case, from its `ARRAYS` by name; without global attributes."""
    intensity = variable_attrs("intensity")
    intensity["comment"] = "clean; squared modulus of the unnormalised DFT, on the scale of the paper's grid"
    seed = {"long_name": "key of the random field", "units": "1"}
    index = {"long_name": "position in the split", "units": "1"}
    return xr.Dataset(
        {
            "intensity": (("sample", "q"), arrays["intensity"], intensity),
            **{name: ("sample", arrays[name], variable_attrs(name) | _range_attrs(case, name)) for name in PARAMETERS},
            "structure_seed": ("sample", arrays["structure_seed"], seed),
        },
        {"q": ("q", arrays["q"], variable_attrs("q")), "index": ("sample", arrays["index"].astype(np.int64), index)},
    )


def _range_attrs(case, name):
    lower, upper = case.ranges.get(name, (0.0, 0.0))
    if lower == upper:
        return {"comment": "the same in all samples"}
    return {"comment": "uniform on sampled_range", "sampled_range": np.array([lower, upper])}


def provenance(device):
    """Global attributes that tell where, when and with what curves were made."""
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
    }


# ------------------------------------------------------------------------ reading


def read(path, names=ARRAYS, required=_REQUIRED, remedy=REMEDY):
    """Global attributes and some arrays of a file. No comparison with the checksum.

    FileNotFoundError if it is not there; DamagedError if it cannot be read or lacks an array or required attribute.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    try:
        # Straight through netCDF4: xarray takes five times as long to open a file, and there may be a thousand.
        with _NETCDF, netCDF4.Dataset(path) as file:
            file.set_auto_mask(False)
            attrs = {name: file.getncattr(name) for name in file.ncattrs()}
            arrays = {name: file[name][:] for name in names if name in file.variables}
    except PermissionError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise DamagedError(f"{path} is truncated, damaged or not NetCDF ({error}); {remedy}") from error
    lacking = [name for name in required if name not in attrs] + [name for name in names if name not in arrays]
    if lacking:
        # A file of ours that has lost a few names is damaged; one that has hardly any is somebody else's.
        kind = ValueError if not set(attrs) & {"checksum", "simulation_version"} else DamagedError
        raise kind(f"{path} is not a data set of this package: it has no {', '.join(lacking)}; delete it")
    return attrs, arrays


def verify(path):
    """Attributes and arrays of a data set's file, compared with its checksum."""
    attrs, arrays = read(path)
    decided = {name: _plain(attrs[name]) for name in (*_REQUIRED[:-1], *_EARLIER) if name in attrs}
    if _checksum(decided, arrays) != attrs["checksum"]:
        raise DamagedError(f"{path} is damaged: it does not hold what its checksum promises; {REMEDY}")
    return attrs, arrays


def _plain(value):
    """A NetCDF attribute as it was in `Block.origin`."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def read_whole(block):
    """Attributes and arrays of the file of a data set's block, compared with its checksum and with the block.

    DamagedError if it is not what its checksum promises; ValueError if it was made from something else than the block.
    """
    attrs, arrays = verify(block.path)
    for name in differences(block, attrs, arrays):
        found = f"{name} = {attrs[name]}, wanted is {block.origin[name]}" if name in block.origin else f"other {name}"
        raise ValueError(f"{block.path} was made with {found}; {_ANOTHER_ORIGIN}")
    return attrs, arrays


def read_head(block):
    """As `read_whole`, but without the intensity, and without the checksum unless something else is wrong."""
    attrs, arrays = read(block.path, HEAD)
    if differences(block, attrs, arrays):
        read_whole(block)  # is it damaged, or another?
    return attrs, arrays


def differences(block, attrs, arrays):
    """Names of the attributes and arrays of a file that are not as the block decides them."""
    head = block.head
    found = [name for name, value in block.origin.items() if not np.array_equal(attrs.get(name), value)]
    return found + [name for name in HEAD if not np.array_equal(arrays.get(name), head[name])]


def join(blocks, heads, intensity):
    """The xarray.Dataset of neighbouring blocks, from the (attributes, arrays) of each and all (n_sample, n_q) curves.

    Its attributes are those that all files have in common, and what they were made with.
    """
    attrs, arrays = zip(*heads, strict=True)
    joined = {name: np.concatenate([part[name] for part in arrays]) for name in HEAD if name != "q"}
    dataset = assemble(blocks[0].case, joined | {"q": blocks[0].q, "intensity": intensity})
    common = {name: value for name, value in attrs[0].items() if all(np.array_equal(value, a.get(name)) for a in attrs)}
    for name in ("device", "machine", "libraries", "commit"):
        common[name] = " | ".join(sorted({str(part.get(name)) for part in attrs}))
    return dataset.assign_attrs(common)
