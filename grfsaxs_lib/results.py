"""Paths of the files of a run, and functions that write its figures, tables and results."""

import math
import os
import re
from pathlib import Path

import numpy as np
import pandas as pd

from .files import git_commit, moved_into_place, versions
from .paper.numbers import PAPER_DOI
from .tiers import check_tier


def root_directory():
    """Return the root of the repository, which holds data and figures.

    It is the folder that holds this package, or the environment variable
    ``GRFSAXS_ROOT`` where that is set (for a package installed elsewhere).

    Raises
    ------
    FileNotFoundError
        If ``GRFSAXS_ROOT`` does not name a folder, or the package is not inside its repository.
    """
    chosen = os.environ.get("GRFSAXS_ROOT")
    if chosen:
        if not Path(chosen).is_dir():
            raise FileNotFoundError(f"GRFSAXS_ROOT must name an existing folder; got {chosen!r}")
        return Path(chosen).resolve()
    root = Path(__file__).resolve().parent.parent
    if not (root / "notebooks").is_dir():
        raise FileNotFoundError(
            "the package is installed outside its repository, so it does not know where data and figures belong; "
            "set the environment variable GRFSAXS_ROOT to an existing folder"
        )
    return root


def data_directory(tier):
    """Return the folder of a tier's computed files, ``data/<tier>``; it need not exist."""
    return root_directory() / "data" / check_tier(tier)


def figure_directory(tier):
    """Return the folder of a tier's figures and tables; it need not exist.

    The quick tier has a folder of its own. The other two share ``figures``, which
    thus shows the last of them that ran.
    """
    figures = root_directory() / "figures"
    return figures / "quick" if check_tier(tier) == "quick" else figures


def require(path, notebook):
    """Return a path if it exists, or say which notebook makes it.

    Raises
    ------
    FileNotFoundError
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path} does not exist: run the notebook {notebook} at this tier first")
    return Path(path)


def check_name(name):
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"name must be letters, digits and underscores, without a suffix; got {name!r}")
    return name


def write_text(path, text):
    with moved_into_place(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_figure(fig, name, *, tier):
    """Write a figure as PNG and, but for the quick tier, as PDF; equal figures give equal files.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
    name : str
        File name without suffix, e.g. ``"fig03_saxs_curves"``.
    tier : str
        One of `TIERS`; it stands in the metadata of the files.

    Returns
    -------
    list of pathlib.Path
        The files.
    """
    stem = figure_directory(tier) / check_name(name)
    about = f"{tier} tier; after doi:{PAPER_DOI}"
    # Dates and program versions would make the files of each run differ.
    metadata = {
        "pdf": {"Title": name, "Subject": about, "CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Title": name, "Description": about, "Software": None},
    }
    if tier == "quick":  # for a look: a file of each figure takes a tenth of the tier's time
        del metadata["pdf"]
    # The layout converges at once, but for axes of a fixed aspect: they need three passes.
    for _ in range(1 if all(ax.get_aspect() == "auto" for ax in fig.axes) else 3):
        fig.draw_without_rendering()
    fig.set_layout_engine("none")  # it is found once: it would take half of the time of each file
    paths = [stem.with_suffix(f".{kind}") for kind in metadata]
    for path, (kind, about) in zip(paths, metadata.items(), strict=True):
        with moved_into_place(path) as temporary:
            fig.savefig(temporary, format=kind, dpi=150 if tier == "quick" else 300, metadata=about)
    return paths


def save_table(frame, name, *, tier):
    """Write a table as CSV (six digits) and as Markdown (four digits, whole numbers in full).

    Parameters
    ----------
    frame : pandas.DataFrame
        A named or labelled index becomes columns.
    name : str
        File name without suffix, e.g. ``"table2_errors"``.
    tier : str
        One of `TIERS`.

    Returns
    -------
    list of pathlib.Path
        The CSV and the Markdown file.
    """
    stem = figure_directory(tier) / check_name(name)
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    frame = frame.set_axis([_joined(label) for label in frame.columns], axis="columns")
    markdown = frame.map(_cell).to_markdown(index=False, disable_numparse=True) + f"\n\n*{tier} tier*\n"
    contents = {".csv": frame.to_csv(index=False, float_format="%.6g"), ".md": markdown}
    for suffix, text in contents.items():
        write_text(stem.with_suffix(suffix), text)
    return [stem.with_suffix(suffix) for suffix in contents]


def _joined(label):
    parts = label if isinstance(label, tuple) else (label,)
    return " ".join(str(part) for part in parts if str(part))


def _cell(value):
    if isinstance(value, (float, np.floating)):
        if math.isnan(value):
            return ""
        return f"{value:.0f}" if float(value).is_integer() and abs(value) < 1e9 else f"{value:.4g}"
    return "" if value is None else str(value).replace("|", r"\|")


def save_results(dataset, name, *, tier, device="cpu"):
    """Write a dataset as NetCDF with its provenance, for later notebooks and for readers.

    Parameters
    ----------
    dataset : xarray.Dataset
    name : str
        File name without suffix, e.g. ``"case_study"``.
    tier : str
        One of `TIERS`.
    device : str
        ``"cpu"`` or ``"gpu"``.

    Returns
    -------
    pathlib.Path
        ``data/<tier>/results/<name>.nc``.
    """
    path = data_directory(tier) / "results" / f"{check_name(name)}.nc"
    about = {"tier": tier, "device": device, "commit": git_commit(), "references": f"https://doi.org/{PAPER_DOI}"}
    about["libraries"] = ", ".join(f"{library} {version}" for library, version in versions().items())
    with moved_into_place(path) as temporary:
        dataset.assign_attrs(about).to_netcdf(temporary, engine="netcdf4")
    return path
