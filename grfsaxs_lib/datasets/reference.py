r"""Reference curves: structures at the paper's own 512³ voxels, kept with the repository.

They are the first samples of the paper-tier data sets, by the same keys, in blocks of at most 256 curves whose files
are never rewritten. Intensities are rounded to 16 significant bits, a relative error of at most
:math:`2^{-17} = 8\times10^{-6}`: a thousandth of the weakest measurement noise, in two thirds of the space.

``SHA256SUMS`` in their folder lists the files with their digests, in the format of ``sha256sum --check``. What
is not listed, or not as listed, is not read.

By Babinet's principle the two two-phase cases are one problem: two-phase low porosity serves both, as
:math:`\epsilon` and :math:`1-\epsilon`. The replicates of the case study (section 2.5) are a case of their own.

    python -m grfsaxs_lib.datasets.reference                 # make the files that are missing; hours, resumable
    python -m grfsaxs_lib.datasets.reference --device gpu    # minutes
"""

import re

import numpy as np

from .. import results
from ..files import moved_into_place, sha256
from ..grid import PAPER_GRID, PAPER_Q
from ..paper import numbers
from ..parameters import CASES, Case
from ..physics import simulation
from . import block
from .block import Block, DamagedError
from .keys import check_choice
from .measure import add_measurement_noise

COUNTS = {
    "two_phase_low": {"train": 8192, "validation": 128, "test": 2048, "holdout": 512},
    "three_phase_low": {"train": 2560, "validation": 128, "test": 2048, "holdout": 512},
    "three_phase_high": {"train": 2560, "validation": 128, "test": 2048, "holdout": 512},
    "case_study": {"test": 500},
    "two_phase_point": {"test": 256},
    "three_phase_point": {"test": 256},
}
"""Curves aimed at, by case and split. A larger number adds files; those that are there stay."""

REPLICATED = {
    "case_study": ("three_phase_high", numbers.CASE_STUDY),
    "two_phase_point": ("two_phase_low", {"scaling_parameter": 6.0, "porosity": 0.35, "layer_fraction": 0.0}),
    "three_phase_point": ("three_phase_low", {"scaling_parameter": 6.0, "porosity": 0.35, "layer_fraction": 0.3}),
}
"""Points of a prior of which there are replicates, that is different structures of the same parameters."""

SMOOTHING_SIGMA = 2.0  # voxels, section 2.2
ROUNDING = 2.0**-17
"""Largest relative error of a stored intensity."""

_BLOCK_SIZE = 256
_SIGNIFICANT_BITS = 16
_MANIFEST = "SHA256SUMS"
_REMEDY = "git checkout -- data/reference restores it"


def directory():
    """The folder of the files, ``data/reference``."""
    return results.root_directory() / "data" / "reference"


def block_of(case, split, first, stop, device="cpu"):
    """The `Block` of some reference curves, there or not."""
    if case in REPLICATED:
        prior = Case(case, {name: (value, value) for name, value in REPLICATED[case][1].items()})
    else:
        prior = CASES[case]
    path = directory() / block.file_name(case, split, first, stop)
    return Block(
        path, prior, split, first, stop, PAPER_GRID, PAPER_Q, SMOOTHING_SIGMA, simulation.DENSITIES, device=device
    )


def _block_of_name(name):
    parsed = block.parse_name(name)
    return block_of(*parsed) if parsed and parsed[1] in COUNTS.get(parsed[0], ()) else None


def blocks_there(case, split):
    """The blocks of a case and split that are there, in order.

    Raises
    ------
    DamagedError
        If the list of the files is damaged, or a file that it lists is missing.
    ValueError
        If a file is not listed, or blocks overlap or leave a gap.
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
    there = {(one.first, one.stop): one for one in map(_block_of_name, listed)}
    parts = block.partition(there, max((stop for _, stop in there), default=0), 2**32)
    for part in parts:
        if part not in there:
            raise ValueError(f"{directory()} lacks the reference curves of {case} {split} from {part[0]} on")
    return [there[part] for part in parts]


def _digests():
    """SHA-256 of each file, by its name."""
    path = directory() / _MANIFEST
    digests = {}
    for number, line in enumerate(path.read_bytes().splitlines() if path.exists() else [], start=1):
        match = re.fullmatch(rb"([0-9a-f]{64})  (\w+-\d+\.nc)", line)
        if not match or _block_of_name(match[2].decode()) is None:
            raise DamagedError(f"line {number} of {path} is damaged; {_REMEDY}")
        digests[match[2].decode()] = match[1].decode()
    return digests


def _add_to_list(path):
    digests = _digests() | {path.name: sha256(path)}
    with moved_into_place(directory() / _MANIFEST) as temporary:
        temporary.write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(digests.items())))


def list_unlisted():
    """List the files that are there and not listed, after a check of all that their keys decide.

    Returns
    -------
    list of Block

    Raises
    ------
    DamagedError
        If one cannot be read, or does not hold what its name promises.
    """
    unlisted = sorted({path.name for path in directory().glob("*.nc")} - set(_digests()))
    blocks = [one for one in map(_block_of_name, unlisted) if one is not None]
    for one in blocks:
        _read(one, remedy="remove it, and it is made again")
        _add_to_list(one.path)
    return blocks


def missing(device="cpu"):
    """The blocks that `COUNTS` asks for and that are not there, those of every case in turn."""
    blocks = []
    for case, splits in COUNTS.items():
        for split, count in splits.items():
            there = {(one.first, one.stop): one for one in blocks_there(case, split)}
            parts = block.partition(there, count, _BLOCK_SIZE)
            blocks += [block_of(case, split, *part, device) for part in parts if part not in there]
    return sorted(blocks, key=lambda one: one.first)


def write(one, intensity):
    """Write a block's file and list it, unless there is one: files are never rewritten.

    Parameters
    ----------
    one : Block
    intensity : (n_curve, 500) array_like

    Raises
    ------
    FileExistsError
        If the file is there.
    ValueError
        If the intensity has another shape, or is not positive everywhere.
    """
    if one.path.exists():
        raise FileExistsError(f"{one.path} is there, and reference curves are never rewritten")
    attrs = {
        "title": f"Reference curves at 512^3 voxels: {one.case.name}, {one.split}",
        **one.origin,
        "comment": f"intensities rounded to {_SIGNIFICANT_BITS} significant bits",
        **block.provenance(one.device),
    }
    block.write_block(one, intensity, attrs, _SIGNIFICANT_BITS)
    _add_to_list(one.path)


def _read(one, remedy=_REMEDY):
    """Attributes and arrays of a block's file, compared with all that its name and its keys decide."""
    attrs, arrays = block.read(one.path, required=(), remedy=remedy)
    wrong = block.differences(one, {"prior": one.origin["prior"]} | attrs, arrays)  # the first files do without it
    wrong += [] if block.are_curves(one, arrays["intensity"]) else ["intensity"]
    if wrong:
        raise DamagedError(f"{one.path} does not hold the {', '.join(wrong)} that its name promises; {remedy}")
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
        If given, add measurement noise, and `noise_level` (`measure.add_measurement_noise`).

    Returns
    -------
    xarray.Dataset
        As `store.load`: clean `intensity` (sample, q), parameters, `structure_seed`, `q` and `index`.

    Raises
    ------
    ValueError
        If there is no such case or split; if a file is not listed, or one between others is missing.
    FileNotFoundError
        If no curve of it is there.
    DamagedError
        If a file does not have the digest that is listed, or does not hold what its name promises.
    """
    check_choice("case", case, COUNTS)
    check_choice("split", split, COUNTS[case])
    blocks, digests = blocks_there(case, split), _digests()
    if not blocks:
        raise FileNotFoundError(f"no reference curves of {case} {split} in {directory()}: make them, see reference.py")
    for one in blocks:
        if sha256(one.path) != digests[one.path.name]:
            raise DamagedError(f"{one.path} is not the file that {_MANIFEST} lists; {_REMEDY}")
    heads = [_read(one) for one in blocks]
    dataset = block.join(blocks, heads, np.concatenate([arrays["intensity"] for _, arrays in heads]))
    return dataset if noise_replicate is None else add_measurement_noise(dataset, noise_replicate, overwrite=True)


def main():
    """List the files that are there, and make those that are missing, one after another."""
    import argparse

    from tqdm import tqdm

    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or gpu (default: %(default)s)")
    device = parser.parse_args().device
    for one in list_unlisted():
        print(f"{one} was not listed, and is now")
    blocks = missing(device)
    with tqdm(total=sum(one.indices.size for one in blocks), desc="reference curves", unit="curve") as bar:
        for one in blocks:
            write(one, block.simulate_block(one, progress=bar.update))


if __name__ == "__main__":
    main()
