r"""Shell sums of three-phase structures: what boxes say about a macroscopic sample.

A macroscopic sample shows the ensemble mean of the squared transform, without the average over neighbouring waves of
Eq. (4). So these files keep the mean square over the modes of narrow shells of q, and that for each phase, so that
any contrast of the layer is a linear combination. There are three kinds, of the same seeds:

* *fine*: structures at the paper's own 512³ voxels of 0.5 nm, the truth up to its scatter from box to box;
* *coarse*: the same boxes in 256³ voxels of 1 nm. They cost a seventh and scatter with the fine ones, to 0.2 % below
  q = 1.6 nm\ :sup:`-1`, so the mean is learned from many of them, and the difference from a few fine ones;
* *control*: the coarse field cut at the quantiles :math:`\epsilon(1-\nu)` and :math:`\epsilon` without any filter. Its
  mean over all fields is known in closed form. In each box it deviates from it nearly as the structures do from theirs.

Parameters are uniform on the ranges of the case, keys are those of a namespace of their own. Files are listed in
``SHA256SUMS`` and never rewritten. To make those that are missing::

    python -m grfsaxs_lib.datasets.shell_sums three_phase_low
"""

from dataclasses import dataclass
from functools import lru_cache

import netCDF4
import numpy as np
import xarray as xr

from .. import results
from ..files import moved_into_place, sha256
from ..grid import PAPER_GRID, Grid
from ..parameters import CASES
from ..physics import backend, field, structure
from . import block
from .keys import PARAMETERS, keys, sample_parameters

CASE_NAMES = ("three_phase_low", "three_phase_high")
TERMS = ("layer", "solid", "layer and solid")
"""Phases whose density is one, where that of all others is zero."""
SMOOTHING_LENGTH = 1.0  # nm, section 2.2
GRIDS = {"coarse": Grid(PAPER_GRID.size // 2, 2 * PAPER_GRID.voxel_size), "fine": PAPER_GRID}
COUNTS = {"coarse": 4096, "fine": 1024}
"""Structures aimed at in each case. A larger number adds files; those that are there stay."""

_DENSITIES = ((0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 1.0))
_PARTS = {"coarse": 256, "fine": 64}
_SIGNIFICANT_BITS = 14
_MANIFEST = "SHA256SUMS"


@dataclass(frozen=True, eq=False)
class Shells:
    """Shells of one wave number each up to 20, and 5 % wide beyond, to q = 3.1 nm^-1.

    Attributes
    ----------
    edges : (n_shell + 1,) ndarray
        Distances from the origin [wave numbers].
    q : (n_shell,) ndarray
        Mean over the modes [nm^-1].
    n_mode : (n_shell,) ndarray of int
    of_square : (n,) ndarray of int
        Shell of each integer i² + j² + k², n_shell for those in none.
    """

    edges: np.ndarray
    q: np.ndarray
    n_mode: np.ndarray
    of_square: np.ndarray

    def mean(self, sums):
        r"""Mean of :math:`|F|^2` over the modes of each shell, from the sums over integer squares."""
        return np.bincount(self.of_square, sums, minlength=self.q.size + 1)[:-1] / self.n_mode


@lru_cache(maxsize=1)
def shells():
    """The `Shells` of all files."""
    edges = np.unique(np.round([*range(1, 21), *20 * 1.05 ** np.arange(39)])) - 0.5
    squares = np.arange(int(edges[-1] ** 2) + 1)
    of_square = np.searchsorted(edges, np.sqrt(squares), side="right") - 1
    of_square[0] = edges.size - 1  # not a wave
    counts = PAPER_GRID.shell_counts[: squares.size]
    n_mode = np.bincount(of_square, counts)[:-1]
    q = PAPER_GRID.q_spacing * np.bincount(of_square, counts * np.sqrt(squares))[:-1] / n_mode
    return Shells(edges, q, n_mode.astype(int), of_square)


def simulate(case, level, indices, device="cpu", progress=None):
    """Shell sums of some structures of a case.

    Parameters
    ----------
    case : str
        One of `CASE_NAMES`.
    level : {"coarse", "fine"}
    indices : (n_sample,) ndarray of int

    Returns
    -------
    dict of str to (n_sample, 3, n_shell) ndarray of float64
        Mean of :math:`|F|^2` over each shell, on the paper's scale, for `TERMS`: of the ``structure`` and, of
        coarse ones, of the ``control``.
    """
    kernels, grid = backend.get_kernels(device), GRIDS[level]
    backend.check_memory(device, grid.size)
    parameters = sample_parameters(case, "train", indices, namespace=_namespace(case))
    seeds = keys(_namespace(case), "train", indices, "structure")
    kinds = ("structure", "control") if level == "coarse" else ("structure",)
    found, cube = {kind: [] for kind in kinds}, None
    for n, seed in enumerate(seeds.tolist()):
        a, porosity, layer_fraction = (float(parameters[name][n]) for name in PARAMETERS)
        cube = field.draw_field(kernels, grid, a, seed, field.spectral_density, cube)
        counts = structure.counts_of(porosity, layer_fraction, cube.size)
        thresholds = kernels.order_statistics(cube, counts)
        if "control" in kinds:
            found["control"].append(_means(kernels, kernels.classify(cube, *thresholds), grid))
        binary = kernels.binarise(cube, thresholds[1])
        phases = structure.second_cut(kernels, binary, *counts, SMOOTHING_LENGTH / grid.voxel_size, cube)
        found["structure"].append(_means(kernels, phases, grid))
        if progress is not None:
            progress(1)
    return {kind: np.array(values) for kind, values in found.items()}


def _means(kernels, phases, grid):
    sums = [kernels.shell_sums(phases, densities, shells().of_square.size - 1)() for densities in _DENSITIES]
    return grid.intensity_scale * np.array([shells().mean(one) for one in sums])


def _namespace(case):
    return f"shell_sums_{case}"


# -------------------------------------------------------------------------- files


def directory():
    """The folder of the files, ``data/reference/shell_sums``."""
    return results.root_directory() / "data" / "reference" / "shell_sums"


def write(case, level, first, found, device="cpu"):
    """Write the file of structures `first` and following, from `simulate`, unless there is one, and list it."""
    indices = np.arange(first, first + len(found["structure"]))
    path = directory() / block.file_name(case, level, first, indices[-1] + 1)
    if path.exists():
        raise FileExistsError(f"{path} is there, and shell sums are never rewritten")
    parameters = sample_parameters(case, "train", indices, namespace=_namespace(case))
    comment = {"comment": "mean of |F|^2 over the modes of a shell, on the scale of the paper's grid", "units": "1"}
    dataset = xr.Dataset(
        {
            **{kind: (("sample", "term", "shell"), values.astype("f4"), comment) for kind, values in found.items()},
            **{name: ("sample", parameters[name], block.variable_attrs(name)) for name in PARAMETERS},
            "structure_seed": ("sample", keys(_namespace(case), "train", indices, "structure")),
            "n_mode": ("shell", shells().n_mode),
        },
        {"q": ("shell", shells().q, block.variable_attrs("q")), "term": list(TERMS), "index": ("sample", indices)},
        {
            "title": f"Shell sums of structures at {GRIDS[level].size}^3 voxels: {CASES[case].title}",
            "comment": f"rounded to {_SIGNIFICANT_BITS} significant bits",
            "case": case,
            "grid_size": GRIDS[level].size,
            "voxel_size": GRIDS[level].voxel_size,
            "smoothing_length": SMOOTHING_LENGTH,
            "unit_of_lengths": "nm",
            **block.provenance(device),
        },
    )
    packed = {"zlib": True, "complevel": 9, "shuffle": True, "fletcher32": True, "_FillValue": None}
    packed |= {"quantize_mode": "BitRound", "significant_digits": _SIGNIFICANT_BITS}
    with moved_into_place(path) as temporary, netCDF4.Dataset(temporary, "w", format="NETCDF4") as file:
        dataset.dump_to_store(xr.backends.NetCDF4DataStore(file), encoding=dict.fromkeys(found, packed))
    _list_files()


def load(level):
    """All structures of a level that are listed, of both cases, those of each in the order of their indices.

    Returns
    -------
    dict of str to ndarray
        ``structure`` and, of coarse ones, ``control`` (n_sample, 3, n_shell) of `TERMS`; the parameters (n_sample,);
        ``index`` and ``case``, the position in `CASE_NAMES`.

    Raises
    ------
    FileNotFoundError
        If there is none.
    block.DamagedError
        If a file is missing or is not the one that is listed.
    """
    names = ["structure", *(["control"] if level == "coarse" else []), *PARAMETERS, "index"]
    parts = []
    for name, digest in sorted(_listed().items()):
        case, found, *_ = block.parse_name(name)
        if found == level:
            path = directory() / name
            if not path.exists() or sha256(path) != digest:
                raise block.DamagedError(f"{path} is not the file that {_MANIFEST} lists; restore it from git")
            _, arrays = block.read(path, names, required=())
            parts.append(arrays | {"case": np.full(len(arrays["index"]), CASE_NAMES.index(case))})
    if not parts:
        raise FileNotFoundError(f"no shell sums of {level} structures in {directory()}")
    return {name: np.concatenate([part[name].astype(float) for part in parts]) for name in parts[0]}


def digest():
    """SHA-256 of the list of all files: what was learned from them can say so."""
    return sha256(directory() / _MANIFEST)


def _listed():
    """SHA-256 of each file, by its name."""
    path = directory() / _MANIFEST
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(reversed(line.split("  ")) for line in lines)


def _list_files():
    digests = _listed()
    digests |= {path.name: sha256(path) for path in directory().glob("*.nc") if path.name not in digests}
    with moved_into_place(directory() / _MANIFEST) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def main():
    """Make what is missing up to `COUNTS`, part by part."""
    import argparse

    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("case", choices=CASE_NAMES)
    parser.add_argument("level", choices=GRIDS)
    parser.add_argument("--count", type=int, help="structures wanted (default: as in COUNTS)")
    parser.add_argument("--device", default="cpu", help="cpu or gpu (default: %(default)s)")
    given = parser.parse_args()
    size = _PARTS[given.level]
    there = {first for first, _ in block.find(directory(), given.case, given.level)}
    missing = [first for first in range(0, given.count or COUNTS[given.level], size) if first not in there]
    with tqdm(total=size * len(missing), desc=f"{given.case}, {given.level}", unit="structure") as bar:
        for first in missing:
            found = simulate(given.case, given.level, np.arange(first, first + size), given.device, bar.update)
            write(given.case, given.level, first, found, given.device)


if __name__ == "__main__":
    main()
