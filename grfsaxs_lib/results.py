"""Paths of the files of a run, and functions that write its figures, tables and results."""

import itertools
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

    Notes
    -----
    Text that cannot be read (`find_unreadable`) does not stop a run: the metadata of the PNG name it under "Warning",
    and a test looks for such files.
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
    # The layout converges in two passes, but for axes of a fixed aspect: they need three.
    for _ in range(1 if all(ax.get_aspect() == "auto" for ax in fig.axes) else 2):
        fig.draw_without_rendering()
    if unreadable := find_unreadable(fig):  # the last pass
        metadata["png"]["Warning"] = "; ".join(unreadable)
    paths = [stem.with_suffix(f".{kind}") for kind in metadata]
    for path, (kind, about) in zip(paths, metadata.items(), strict=True):
        # The layout is found once: it would take half of the time of each file. `savefig` gives a figure without a
        # layout engine that of the style, so it is removed before each file.
        fig.set_layout_engine("none")
        with moved_into_place(path) as temporary:
            fig.savefig(temporary, format=kind, dpi=150 if tier == "quick" else 300, metadata=about)
    return paths


def drawn_texts(fig):
    """Return all text of a figure that a reader sees, in the order in which it is drawn.

    Parameters
    ----------
    fig : matplotlib.figure.Figure

    Returns
    -------
    list of (str, matplotlib.transforms.Bbox)
        Words, and the box around them [pixel].
    """
    from matplotlib.text import Text

    fig.draw_without_rendering()
    hidden = set()
    for ax in fig.findobj(lambda artist: hasattr(artist, "xaxis")):  # an Axes, or a secondary axis
        if not ax.get_visible():
            hidden.update(ax.findobj(Text))
        for axis in (ax.xaxis, ax.yaxis):
            if not ax.axison:
                hidden.update(axis.findobj(Text))
            low, high = sorted(axis.get_view_interval())
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not low <= tick.get_loc() <= high:  # it exists, but is not drawn
                    hidden.update((tick.label1, tick.label2))
    texts = [text for text in fig.findobj(Text) if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), text.get_window_extent()) for text in texts if text not in hidden]


def find_unreadable(fig):
    """Describe each text of a figure that leaves the figure or overlaps another text; none in a good figure.

    Parameters
    ----------
    fig : matplotlib.figure.Figure

    Returns
    -------
    list of str
    """
    texts, (width, height) = drawn_texts(fig), fig.bbox.size
    cut = [
        f"{words!r} leaves the figure"
        for words, box in texts
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height
    ]
    pairs = itertools.combinations(texts, 2)
    return cut + [f"{one!r} overlaps {other!r}" for (one, first), (other, second) in pairs if first.overlaps(second)]


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
