r"""Reference curves: structures at the paper's own 512³ voxels, kept with the repository.

They are the first samples of the paper-tier data sets, by the same keys, in parts of at most 256 curves that are
never rewritten. Intensities are rounded to 16 significant bits, a relative error of at most
:math:`2^{-17} = 8\times10^{-6}`: a thousandth of the weakest measurement noise, in two thirds of the space.

``SHA256SUMS`` in their folder lists the parts with their digests, in the format of ``sha256sum --check``. What
is not listed, or not as listed, is not read.

By Babinet's principle the two two-phase cases are one problem: two-phase low porosity serves both, as
:math:`\epsilon` and :math:`1-\epsilon`. The replicates of the case study (section 2.5) are a case of their own.

    python -m grfsaxs_lib.datasets.reference                 # make the parts that are missing; hours, resumable
    python -m grfsaxs_lib.datasets.reference --device gpu    # minutes
"""

import hashlib
import re
import warnings
from dataclasses import dataclass

import netCDF4
import numpy as np
import xarray as xr

from .. import results
from ..files import moved_into_place
from ..grid import PAPER_GRID, PAPER_Q, SmallBoxWarning
from ..paper import numbers
from ..parameters import CASES
from ..physics import simulation
from . import block
from .block import DamagedError
from .keys import PARAMETERS, check_choice, keys, sample_parameters
from .measure import as_measured, measure

COUNTS = {
    "two_phase_low": {"train": 8192, "validation": 128, "test": 2048, "holdout": 512},
    "three_phase_low": {"train": 2560, "validation": 128, "test": 2048, "holdout": 512},
    "three_phase_high": {"train": 2560, "validation": 128, "test": 2048, "holdout": 512},
    "case_study": {"test": 500},
    "two_phase_point": {"test": 256},
    "three_phase_point": {"test": 256},
}
"""Curves aimed at, by case and split. A larger number adds parts; those that are there stay."""

REPLICATED = {
    "case_study": ("three_phase_high", numbers.CASE_STUDY),
    "two_phase_point": ("two_phase_low", {"scaling_parameter": 6.0, "porosity": 0.35, "layer_fraction": 0.0}),
    "three_phase_point": ("three_phase_low", {"scaling_parameter": 6.0, "porosity": 0.35, "layer_fraction": 0.3}),
}
"""Points of a prior of which there are replicates, that is different structures of the same parameters."""

SMOOTHING_SIGMA = 2.0  # voxels, section 2.2
ROUNDING = 2.0**-17
"""Largest relative error of a stored intensity."""

_PART = 256
_SIGNIFICANT_BITS = 16
_MANIFEST = "SHA256SUMS"
_REMEDY = "git checkout -- data/reference restores it"


@dataclass(frozen=True)
class Part:
    """A block of consecutive reference curves, and a file.

    Attributes
    ----------
    case, split : str
    first, stop : int
        Positions in the split, `stop` excluded.
    """

    case: str
    split: str
    first: int
    stop: int

    @classmethod
    def of_name(cls, name):
        """The part that a file's name stands for, or None."""
        match = re.fullmatch(r"(\w+)_([a-z]+)_(\d{5})-(\d{5})\.nc", name, re.ASCII)
        if not match or match[2] not in COUNTS.get(match[1], ()) or int(match[3]) > int(match[4]):
            return None
        return cls(match[1], match[2], int(match[3]), int(match[4]) + 1)

    @property
    def path(self):
        """The file, ``data/reference/<case>_<split>_<first>-<last>.nc``."""
        return directory() / f"{self.case}_{self.split}_{self.first:05d}-{self.stop - 1:05d}.nc"

    @property
    def indices(self):
        return np.arange(self.first, self.stop)

    @property
    def seeds(self):
        return keys(self.case, self.split, self.indices, "structure")

    @property
    def make(self):
        """Global attributes of the file that say what its curves are."""
        return {
            "case": self.case,
            "split": self.split,
            "grid_size": PAPER_GRID.size,
            "voxel_size": PAPER_GRID.voxel_size,
            "smoothing_sigma": SMOOTHING_SIGMA,
            "densities": simulation.DENSITIES,
            "simulation_version": block.SIMULATION_VERSION,
        }

    @property
    def arrays(self):
        """All arrays of the file but the intensity, by name."""
        return {"q": PAPER_Q, "index": self.indices, **self.parameters, "structure_seed": self.seeds}

    @property
    def parameters(self):
        """Parameters of the curves, as `keys.sample_parameters` returns them."""
        if self.case in REPLICATED:
            _, point = REPLICATED[self.case]
            return {name: np.full(self.indices.size, point[name]) for name in PARAMETERS}
        return sample_parameters(self.case, self.split, self.indices)


def directory():
    """The folder of the parts, ``data/reference``."""
    return results.root_directory() / "data" / "reference"


def parts_there(case, split):
    """The parts of a case and split that are there, in order.

    Raises
    ------
    DamagedError
        If the list of the parts is damaged, or a file that it lists is missing.
    ValueError
        If a file is not listed, or parts overlap or leave a gap.
    """
    listed = {name for name in _digests() if name.startswith(f"{case}_{split}_")}
    found = {path.name for path in directory().glob(f"{case}_{split}_*.nc")}
    for name in sorted(listed - found):
        raise DamagedError(f"{directory() / name} is missing; {_REMEDY}")
    for name in sorted(found - listed):
        raise ValueError(
            f"{directory() / name} is not listed in {_MANIFEST}: remove it, or, if you have made it, let "
            "python -m grfsaxs_lib.datasets.reference check and list it"
        )
    parts = sorted(map(Part.of_name, listed), key=lambda part: part.first)
    for part, expected in zip(parts, [0, *(part.stop for part in parts)], strict=False):
        if part.first != expected:
            raise ValueError(
                f"{directory()} lacks the reference curves of {case} {split} from {expected} on, or has them twice"
            )
    return parts


def _digests():
    """SHA-256 of each part, by the name of its file."""
    path = directory() / _MANIFEST
    digests = {}
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        match = re.fullmatch(rb"([0-9a-f]{64})  (\w+-\d+\.nc)", line)
        if not match or Part.of_name(match[2].decode()) is None:
            raise DamagedError(f"line {number} of {path} is damaged; {_REMEDY}")
        digests[match[2].decode()] = match[1].decode()
    return digests


def _digest(path):
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add_to_list(part):
    digests = _digests() | {part.path.name: _digest(part.path)}
    with moved_into_place(directory() / _MANIFEST) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def list_parts():
    """List the parts that are there and not listed, after a check of all that their keys decide.

    Returns
    -------
    list of Part

    Raises
    ------
    DamagedError
        If one cannot be read, or does not hold what its name promises.
    """
    unlisted = sorted({path.name for path in directory().glob("*.nc")} - set(_digests()))
    parts = [part for part in map(Part.of_name, unlisted) if part is not None]
    for part in parts:
        _read(part, remedy="remove it, and it is made again")
        _add_to_list(part)
    return parts


def plan():
    """The parts that `COUNTS` asks for and that are not there, those of every case in turn."""
    parts = []
    for case, splits in COUNTS.items():
        for split, count in splits.items():
            there = parts_there(case, split)
            begin = there[-1].stop if there else 0
            parts += [Part(case, split, first, min(first + _PART, count)) for first in range(begin, count, _PART)]
    return sorted(parts, key=lambda part: part.first)


def simulate(part, rows=slice(None), progress=None, device="cpu"):
    """Simulate curves of a part, whatever its file holds.

    Parameters
    ----------
    part : Part
    rows : slice, optional
        Which of its curves.
    progress : callable, optional
    device : {"cpu", "gpu"}
        As in `simulation.simulate`.

    Returns
    -------
    (n_curve, 500) ndarray of float64
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallBoxWarning)
        return simulation.simulate(
            PAPER_GRID,
            **{name: values[rows] for name, values in part.parameters.items()},
            seed=part.seeds[rows],
            q=PAPER_Q,
            smoothing_sigma=SMOOTHING_SIGMA,
            progress=progress,
            device=device,
        )


def write(part, intensity, provenance=None):
    """Write a part's file, unless there is one: parts are never rewritten.

    Parameters
    ----------
    part : Part
    intensity : (n_curve, 500) array_like
    provenance : dict, optional
        Global attributes that tell where the curves come from; by default from here and now.

    Raises
    ------
    FileExistsError
        If the part is there.
    ValueError
        If the intensity has another shape, or is not positive everywhere.
    """
    intensity = np.asarray(intensity)
    if intensity.shape != (part.indices.size, PAPER_Q.size) or not (np.isfinite(intensity) & (intensity > 0)).all():
        raise ValueError(f"{part.path.name} needs {part.indices.size} x {PAPER_Q.size} positive numbers")
    if part.path.exists():
        raise FileExistsError(f"{part.path} is there, and parts are never rewritten")
    attrs = {
        "Conventions": "CF-1.11",
        "title": f"Reference curves at 512^3 voxels: {part.case}, {part.split}",
        **part.make,
        "comment": f"intensities rounded to {_SIGNIFICANT_BITS} significant bits",
        **(provenance or block.provenance("cpu")),
    }
    arrays = part.arrays | {"intensity": intensity.astype(np.float32)}
    dataset = _assemble(part, arrays, attrs)
    encoding = {name: {"_FillValue": None} for name in dataset.variables}
    encoding["intensity"] |= {
        "zlib": True, "complevel": 9, "shuffle": True, "fletcher32": True, "chunksizes": intensity.shape,
        "quantize_mode": "BitRound", "significant_digits": _SIGNIFICANT_BITS,
    }  # fmt: skip
    with moved_into_place(part.path) as temporary, netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
        dataset.dump_to_store(xr.backends.NetCDF4DataStore(file), encoding=encoding)
    _add_to_list(part)


def _assemble(part, arrays, attrs):
    """The xarray.Dataset of some curves of the case and split of a part."""
    dataset = block.assemble(
        CASES[REPLICATED[part.case][0] if part.case in REPLICATED else part.case],
        arrays["index"],
        arrays["q"],
        arrays["intensity"],
        {name: arrays[name] for name in PARAMETERS},
        arrays["structure_seed"],
    )
    if part.case in REPLICATED:  # its parameters are no samples
        for name in PARAMETERS:
            dataset[name].attrs = block.variable_attrs(name)
    return dataset.assign_attrs(attrs)


def _read(part, remedy=_REMEDY):
    """Attributes and arrays of a part's file, compared with all that its name and its keys decide."""
    attrs, arrays = block.read_arrays(part.path, block.ARRAYS, remedy)
    wrong = [name for name, value in part.make.items() if not np.array_equal(attrs.get(name), value)]
    wrong += [name for name, values in part.arrays.items() if not np.array_equal(arrays.get(name), values)]
    intensity = arrays.get("intensity", np.zeros(0))
    if intensity.shape != (part.indices.size, PAPER_Q.size) or not (np.isfinite(intensity) & (intensity > 0)).all():
        wrong.append("intensity")
    if wrong:
        raise DamagedError(f"{part.path} does not hold the {', '.join(wrong)} that its name promises; {remedy}")
    return attrs, arrays


def load(case, split, *, noise_replicate=None):
    """Read the reference curves of a case and split that are there.

    Parameters
    ----------
    case : str
        A key of `COUNTS`.
    split : str
        One of its splits.
    noise_replicate : int, optional
        If given, add measurement noise (`measure`), and `noise_level`.

    Returns
    -------
    xarray.Dataset
        As `store.load`: clean `intensity` (sample, q), parameters, `structure_seed`, `q` and `index`.

    Raises
    ------
    ValueError
        If there is no such case or split.
    FileNotFoundError
        If no part of it is there.
    DamagedError
        If a part does not have the digest that is listed, or does not hold what its name promises.
    ValueError
        If a part is not listed, or one between others is missing.
    """
    check_choice("case", case, COUNTS)
    check_choice("split", split, COUNTS[case])
    parts = parts_there(case, split)
    if not parts:
        raise FileNotFoundError(f"no reference curves of {case} {split} in {directory()}: make them, see reference.py")
    digests = _digests()
    for part in parts:
        if _digest(part.path) != digests[part.path.name]:
            raise DamagedError(f"{part.path} is not the file that {_MANIFEST} lists; {_REMEDY}")
    attrs, arrays = zip(*map(_read, parts), strict=True)
    joined = {name: np.concatenate([part[name] for part in arrays]) for name in block.ARRAYS if name != "q"}
    common = {name: value for name, value in attrs[0].items() if all(np.array_equal(value, a[name]) for a in attrs)}
    dataset = _assemble(parts[0], joined | {"q": PAPER_Q}, common)
    if noise_replicate is None:
        return dataset
    noisy, noise_level = measure(dataset["intensity"].values, case, split, dataset["index"].values, noise_replicate)
    return as_measured(dataset, noisy, noise_level, noise_replicate)


def main():
    """List the parts that are there, and make those that are missing, one after another."""
    import argparse

    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or gpu (default: %(default)s)")
    device = parser.parse_args().device
    for part in list_parts():
        print(f"{part.path.name} was not listed, and is now")
    missing = plan()
    with tqdm(total=sum(part.indices.size for part in missing), desc="reference curves", unit="curve") as bar:
        for part in missing:
            write(part, simulate(part, progress=bar.update, device=device), block.provenance(device))


if __name__ == "__main__":
    main()
