r"""One file of a data set: a shard, made from its samples' keys alone.

A shard is a block of consecutive samples of a split. What it holds depends on its samples
alone (`keys`), so it can be made anywhere, at any time, and made again. A file appears
under its name only when it is complete and on the disk, and carries what it was made from
and a checksum over that and all of its arrays.
"""

import datetime
import hashlib
import json
import platform
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

_ANOTHER_MAKE = "delete it, use another directory, or overwrite it"
_BATCH = 256  # curves a call; bounds the float64 ones to 1 MB
_NETCDF = threading.Lock()  # netCDF-C is not thread-safe
# What, beside q and the keys, decides a file's content; see `Shard.make`.
MAKE = (
    "case", "split", "prior", "n_sample", "shard", "n_shards", "grid_size", "voxel_size",
    "smoothing_sigma", "densities", "simulation_version",
)  # fmt: skip
ARRAYS = ("q", "index", *PARAMETERS, "structure_seed", "intensity")
HEAD = ARRAYS[:-1]


class DamagedError(ValueError):
    """A file is truncated, or does not hold what its checksum promises."""


@dataclass(frozen=True, eq=False)
class Shard:
    """A block of consecutive samples of one split: all that is needed to make its file.

    Attributes
    ----------
    directory : Path
        Where the file goes.
    case : Case
    split : str
    n_sample : int
        Samples of the whole split.
    number, count : int
        This is the `number`-th of `count` shards, counted from 1.
    grid : Grid
    q : (n_q,) ndarray of float64
        [nm^-1]
    smoothing_sigma : float
        [voxel]
    densities : (float, float, float)
    device : str
    simulation_version : int
        `SIMULATION_VERSION` of the process that made the plan.
    """

    directory: Path
    case: Case
    split: str
    n_sample: int
    number: int
    count: int
    grid: Grid
    q: np.ndarray
    smoothing_sigma: float
    densities: tuple
    device: str
    simulation_version: int = SIMULATION_VERSION

    @property
    def indices(self):
        """Positions of the samples in the split, an ndarray."""
        return np.asarray(sample_range(self.number, self.count, self.n_sample))

    @property
    def path(self):
        """The file, ``<case>_<split>_shard-003-of-028.nc`` or, if it is the only one, ``<case>_<split>.nc``."""
        return self.directory / file_name(self.case.name, self.split, self.number, self.count)

    @property
    def make(self):
        """What, beside q and the samples' keys, decides the content; global attributes of the file."""
        return {
            "case": self.case.name,
            "split": self.split,
            "prior": json.dumps(self.case.ranges),
            "n_sample": self.n_sample,
            "shard": self.number,
            "n_shards": self.count,
            "grid_size": self.grid.size,
            "voxel_size": self.grid.voxel_size,
            "smoothing_sigma": self.smoothing_sigma,
            "densities": self.densities,
            "simulation_version": self.simulation_version,
        }

    def __str__(self):
        return self.path.name


def sample_range(number, count, n_sample):
    """Samples of the `number`-th of `count` shards, counted from 1: a range.

    Shards differ by at most one in length, and together hold each sample once.
    """
    return range((number - 1) * n_sample // count, number * n_sample // count)


def file_name(case, split, number, count):
    """Name of the file of a shard."""
    shard = f"_shard-{number:03d}-of-{count:03d}" if count > 1 else ""
    return f"{case}_{split}{shard}.nc"


def complete(shard, report):
    """Make a shard unless it is there and whole; return its checksum."""
    if shard.path.exists():
        try:
            attrs, arrays = verify(shard.path)
        except DamagedError as error:
            print(f"{error}: made again", file=sys.stderr)
        else:
            _check_shard(shard, attrs, arrays)
            return attrs["checksum"]
    return overwrite(shard, report)


def overwrite(shard, report):
    """Simulate a shard and write its file; return the checksum."""
    if shard.simulation_version != SIMULATION_VERSION:
        raise RuntimeError(
            f"{shard} was planned for simulation version {shard.simulation_version}, and this worker has version "
            f"{SIMULATION_VERSION}: start it again with the same code"
        )
    indices = shard.indices
    parameters = sample_parameters(shard.case, shard.split, indices)
    seeds = keys(shard.case.name, shard.split, indices, "structure")
    intensity = np.empty((indices.size, shard.q.size), dtype=np.float32)
    times = []

    def tick(n_curve):
        report(n_curve)
        times.append(time.perf_counter())

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallBoxWarning)  # `plan` has said it
        for start in range(0, indices.size, _BATCH):
            part = slice(start, start + _BATCH)
            intensity[part] = simulation.simulate(
                shard.grid,
                **{name: values[part] for name, values in parameters.items()},
                seed=seeds[part],
                q=shard.q,
                device=shard.device,
                densities=shard.densities,
                smoothing_sigma=shard.smoothing_sigma,
                progress=tick,
            )
    if not (np.isfinite(intensity) & (intensity > 0)).all():
        raise RuntimeError(f"{shard} would hold intensities that are not positive numbers; nothing was written")
    dataset = assemble(shard.case, indices, shard.q, intensity, parameters, seeds)
    checksum = _checksum(shard.make, {name: dataset[name].values for name in ARRAYS})
    dataset.attrs = {
        "Conventions": "CF-1.11",
        "title": f"Simulated small-angle X-ray scattering: {shard.case.title}, {shard.split}",
        **shard.make,
        "checksum": checksum,
        "voxel_size_unit": "nm",
        "smoothing_sigma_unit": VARIABLES["smoothing_sigma"].unit,
        "box_length": shard.grid.box_length,
        "densities_order": "pore, layer, solid",
        **provenance(shard.device),
        # Without the first curve, which may include compilation; NaN if there is no other.
        "seconds_per_curve": float(np.diff(times).mean()) if len(times) > 1 else np.nan,
    }
    chunk = (min(indices.size, 256), shard.q.size)
    encoding = {name: {"_FillValue": None} for name in dataset.variables}
    # Level 1 takes a quarter off the file at 0.05 ms a curve; higher levels gain nothing more.
    encoding["intensity"] |= {"zlib": True, "complevel": 1, "fletcher32": True, "chunksizes": chunk}
    try:
        with moved_into_place(shard.path) as temporary:
            # A disk without room for it is a plain error here; inside HDF5 it is an obscure one.
            temporary.write_bytes(bytes(dataset.nbytes + 2**16))
            # Not `to_netcdf`: on a Dask worker it asks the scheduler for a lock at every variable.
            try:
                with _NETCDF, netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
                    dataset.dump_to_store(xr.backends.NetCDF4DataStore(file), encoding=encoding)
            except PermissionError:  # what netCDF calls it if the file vanishes while it is opened
                temporary.stat()  # raises FileNotFoundError if it has
                raise
    except FileNotFoundError:
        # Another run has finished this shard, and taken our temporary file for a leftover.
        attrs, arrays = verify(shard.path)
        _check_shard(shard, attrs, arrays)
        return attrs["checksum"]
    except RuntimeError as error:
        raise OSError(f"{shard.path} could not be written; is the disk full? ({error})") from error
    return checksum


def _checksum(make, arrays):
    """SHA-256 over what a shard was made from and all of its arrays."""
    digest = hashlib.sha256(json.dumps(make, sort_keys=True).encode())
    for name in ARRAYS:
        digest.update(np.ascontiguousarray(arrays[name]))
    return digest.hexdigest()


def variable_attrs(name):
    """NetCDF attributes of a variable of the model."""
    variable = VARIABLES[name]
    return {"long_name": variable.long_name, "units": variable.unit}


def assemble(case, indices, q, intensity, parameters, seeds):
    """The xarray.Dataset of a file, without its global attributes."""
    variables = {
        "intensity": (
            ("sample", "q"),
            intensity,
            variable_attrs("intensity")
            | {"comment": "clean; squared modulus of the unnormalised DFT, on the scale of the paper's grid"},
        ),
        **{
            name: ("sample", values, variable_attrs(name) | _sampled_range(case, name))
            for name, values in parameters.items()
        },
        "structure_seed": ("sample", seeds, {"long_name": "key of the random field", "units": "1"}),
    }
    coords = {
        "q": ("q", q, variable_attrs("q")),
        "index": ("sample", indices.astype(np.int64), {"long_name": "position in the split", "units": "1"}),
    }
    return xr.Dataset(variables, coords)


def _sampled_range(case, name):
    if name not in case.ranges:
        return {"comment": "0 in two phases"}
    return {"comment": "uniform on sampled_range", "sampled_range": np.asarray(case.ranges[name])}


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


def read_arrays(path, names, remedy=REMEDY):
    """Global attributes, and those of some arrays that are there, of any NetCDF file of curves.

    Raises
    ------
    FileNotFoundError
        If it is not there.
    DamagedError
        If it cannot be read; the message ends with the remedy.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; {remedy}")
    try:
        # Straight through netCDF4: xarray takes five times as long to open a file, and there may be a thousand.
        with _NETCDF, netCDF4.Dataset(path) as file:
            file.set_auto_mask(False)
            attrs = {name: file.getncattr(name) for name in file.ncattrs()}
            return attrs, {name: file[name][:] for name in names if name in file.variables}
    except PermissionError:
        raise
    except (OSError, RuntimeError, ValueError, KeyError, AttributeError, IndexError) as error:
        raise DamagedError(f"{path} is truncated, damaged or not NetCDF ({error}); {remedy}") from error


def read(path, names=ARRAYS):
    """Global attributes and some arrays of a shard's file. No comparison with the checksum."""
    attrs, arrays = read_arrays(path, names)
    missing = [name for name in (*MAKE, "checksum") if name not in attrs]
    missing += [name for name in names if name not in arrays]
    if missing:
        # A file of ours that has lost a few names is damaged; one that has hardly any is somebody's else.
        kind = ValueError if not set(attrs) & {"checksum", "simulation_version"} else DamagedError
        raise kind(f"{path} is not a data set of this package: it has no {', '.join(missing)}; delete it")
    return attrs, arrays


def verify(path):
    """Attributes and arrays of a file, compared with its checksum."""
    attrs, arrays = read(path)
    make = {name: _plain(attrs[name]) for name in MAKE}
    if _checksum(make, arrays) != attrs["checksum"]:
        raise DamagedError(f"{path} is damaged: it does not hold what its checksum promises; {REMEDY}")
    return attrs, arrays


def _plain(value):
    """A NetCDF attribute as it was in `Shard.make`."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def check(shard):
    """Attributes of a shard's file, after a look at its head.

    Raises
    ------
    DamagedError
        If the file cannot be read, or its head is not what its checksum promises.
    ValueError
        If it was made from something else than the shard.
    """
    attrs, arrays = read(shard.path, names=("q", "structure_seed"))
    try:
        _check_shard(shard, attrs, arrays)
    except ValueError:
        verify(shard.path)  # else the head itself may be damaged
        raise
    return attrs


def _check_shard(shard, attrs, arrays):
    check_same_make(shard.path, attrs, arrays, shard.make, shard.q)
    key = keys(shard.case.name, shard.split, shard.indices[:1], "structure")
    if not np.array_equal(arrays["structure_seed"][:1], key):
        raise ValueError(f"{shard.path} was made from other seeds; {_ANOTHER_MAKE}")


def check_same_make(path, attrs, arrays, make, q):
    """Refuse a file that was made from something else than `make` and `q`."""
    for name, wanted in make.items():
        if not np.array_equal(attrs[name], wanted):
            raise ValueError(f"{path} was made with {name} = {attrs[name]}, wanted is {wanted}; {_ANOTHER_MAKE}")
    found = arrays["q"]
    if not np.array_equal(found, q):
        raise ValueError(
            f"{path} was made with {found.size} other q ({found[0]:g} ... {found[-1]:g} nm^-1), "
            f"wanted are {np.size(q)} ({q[0]:g} ... {q[-1]:g} nm^-1); {_ANOTHER_MAKE}"
        )
