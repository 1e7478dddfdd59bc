"""The paper's own numbers, the places of results, and the book-keeping of claims.

Röding et al. (2022) state some two hundred numbers and words that a computation can
contradict. ``claims.csv``, beside this module, lists them, one a row. (What the paper
chose and we copied, such as its grid, is no claim but a setting: see `settings`.)

=====================  ==============================================================
``id``                 name used by `record_claim`
``where_in_paper``     section, equation, table or figure
``statement``          what the paper says, in short
``paper_value``        its number; for words, the bound that they amount to
``unit``               unit of both numbers
``notebook``           the notebook that measures ours
``tier``               the lowest tier at which the two can be compared honestly
``tolerance``          how our number must relate to the paper's, see `accepted`
``why_this_tolerance`` the reason for it
``expected``           ``holds``, ``fails: reason`` or ``undecided: reason``
``measure``            what our number is
=====================  ==============================================================

Notebooks measure and call `record_claim`; `claims_table` puts both numbers side by
side; `check_claims` raises where the outcome contradicts the expected one.

**The verdict.** The paper's number and the tolerance make a set of accepted numbers.
A number that is exact is inside (*holds*) or outside (*fails*). One that is a statistic
of a sample has a 95 % interval, and the claim holds if the whole interval is inside,
fails if all of it is outside, and is *undecided* otherwise. A wider interval can thus
never turn a verdict into *holds* or *fails*: fewer curves make no claim easier.
"""

import difflib
import json
import math
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from .files import git_commit, moved_into_place, versions
from .parameters import VARIABLES, refuse_masked

PAPER_DOI = "10.3389/fmats.2022.956839"
DATA_DOI = "10.5281/zenodo.5948941"
CITATION = (
    "Röding M, Tomaszewski P, Yu S, Borg M and Rönnols J (2022), Machine learning-accelerated "
    "small-angle X-ray scattering analysis of disordered two- and three-phase materials, "
    f"Front. Mater. 9:956839, doi:{PAPER_DOI}"
)
DATA_CITATION = f"Data and code of the paper, Zenodo, doi:{DATA_DOI}"

TIERS = ("smoke", "laptop", "paper")

AXES = {name: variable.label for name, variable in VARIABLES.items()}
"""Axis label of each variable of the model."""

N_SAMPLES = {"train": 2**19, "validation": 2**18, "test": 2**17}
"""Curves of each case, section 2.3."""

FIGURE_1 = {"scaling_parameter": 4.0, "porosity": 0.60, "layer_fraction": 0.50}
"""Parameters of the structure in figures 1 and 2."""

CASE_STUDY = {"scaling_parameter": 4.0, "porosity": 0.70, "layer_fraction": 0.20}
"""Parameters of the case study, section 2.5; it has `CASE_STUDY_CURVES` curves."""

CASE_STUDY_CURVES = 500
CASE_STUDY_MEAN = {"scaling_parameter": 4.004, "porosity": 0.701, "layer_fraction": 0.201}
CASE_STUDY_SD = {"scaling_parameter": 0.025, "porosity": 0.009, "layer_fraction": 0.005}
FIGURE_7_PREDICTION = {"scaling_parameter": 3.982, "porosity": 0.706, "layer_fraction": 0.195}

TABLE_1 = {
    "learning_rate": (0.001, 0.05),
    "max_depth": (10, 20),
    "min_child_weight": (1, 10),
    "subsample": (0.1, 0.5),
    "colsample_bytree": (0.1, 0.3),
    "reg_lambda": (0.1, 10),
    "max_bin": (256, 512, 1024),
    "n_estimators": (1, 50_000),
}
"""Ranges of the hyperparameters, Table 1; `max_bin` is one of three values."""

# MSE and MAPE [%] on the training, validation and test sets.
_TABLE_2 = """
two_phase_low    scaling_parameter  7.452e-4 4.172e-3 4.215e-3  0.389 0.701 0.707
two_phase_low    porosity           2.624e-6 3.729e-4 3.766e-4  0.485 4.180 4.190
two_phase_high   scaling_parameter  3.750e-4 4.185e-3 4.195e-3  0.306 0.702 0.702
two_phase_high   porosity           2.434e-6 3.735e-4 3.736e-4  0.168 2.023 2.026
three_phase_low  scaling_parameter  6.248e-5 4.374e-3 4.324e-3  0.158 0.731 0.727
three_phase_low  porosity           3.163e-7 1.175e-4 1.171e-4  0.171 2.811 2.793
three_phase_low  layer_fraction     2.106e-7 1.328e-5 1.317e-5  0.189 1.292 1.280
three_phase_high scaling_parameter  5.249e-5 3.160e-3 3.199e-3  0.144 0.614 0.617
three_phase_high porosity           4.084e-7 2.601e-4 2.606e-4  0.070 1.582 1.583
three_phase_high layer_fraction     2.674e-7 8.150e-5 8.144e-5  0.211 2.882 2.879
"""

TABLE_2 = pd.DataFrame(
    [
        {"case": case, "output": output, "error": error, "split": split, "value": float(value)}
        for case, output, *values in map(str.split, _TABLE_2.strip().splitlines())
        for (error, split), value in zip(
            [(error, split) for error in ("mse", "mape") for split in N_SAMPLES], values, strict=True
        )
    ]
)
"""Table 2 as tidy rows: case, output, error (``mse``, ``mape`` [%]), split, value."""

MODEL_RESULTS = {
    "n_estimators": (6060, 48841),  # of the final models, smallest and largest
    "training": 3 * 3600.0,  # s a run, A100 GPU
    "simulation": 1.0,  # s a curve, A40 GPU
    "prediction": 2.5e-3,  # s a curve, three outputs
}
"""Sizes of the final models and wall times [s], sections 2.3 to 2.5."""


# --------------------------------------------------------------------------- places


def root_directory():
    """Return the root of the repository, under which data and figures lie.

    It is the folder that holds this package, or the environment variable
    ``GRFSAXS_ROOT`` where that is set (for a package installed elsewhere).

    Raises
    ------
    FileNotFoundError
        If ``GRFSAXS_ROOT`` names no folder, or the package lies in no repository.
    """
    chosen = os.environ.get("GRFSAXS_ROOT")
    if chosen:
        if not Path(chosen).is_dir():
            raise FileNotFoundError(f"GRFSAXS_ROOT must name an existing folder; got {chosen!r}")
        return Path(chosen).resolve()
    root = Path(__file__).resolve().parent.parent
    if not (root / "notebooks").is_dir():
        raise FileNotFoundError(
            "the package is installed outside its repository, so it knows no place for data and figures; "
            "set the environment variable GRFSAXS_ROOT to an existing folder"
        )
    return root


def data_directory(tier):
    """Return the folder of a tier's computed files, ``data/<tier>``; it need not exist."""
    return root_directory() / "data" / _check_tier(tier)


def figure_directory(tier):
    """Return the folder of a tier's figures and tables; it need not exist.

    The smoke tier has a folder of its own. The other two share ``figures``, which
    thus shows the last of them that ran.
    """
    figures = root_directory() / "figures"
    return figures / "smoke" if _check_tier(tier) == "smoke" else figures


def _check_tier(tier):
    if tier not in TIERS:
        raise ValueError(f"tier must be one of {', '.join(TIERS)}; got {tier!r}")
    return tier


def _check_name(name):
    if not re.fullmatch(r"\w+", name):
        raise ValueError(f"name must be letters, digits and underscores, without a suffix; got {name!r}")
    return name


def _write_text(path, text):
    with moved_into_place(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_figure(fig, name, *, tier):
    """Write a figure, its tier in small type in the corner, as PDF and PNG; equal figures give equal files.

    Parameters
    ----------
    fig : matplotlib.figure.Figure
    name : str
        File name without suffix, e.g. ``"fig03_saxs_curves"``.
    tier : str
        One of `TIERS`; stands in the files' metadata too.

    Returns
    -------
    list of pathlib.Path
        The PDF and the PNG.
    """
    stem = figure_directory(tier) / _check_name(name)
    about = f"{tier} tier; after doi:{PAPER_DOI}"
    # Dates and program versions would make each run's file a different one.
    metadata = {
        "pdf": {"Title": name, "Subject": about, "CreationDate": None, "Creator": None, "Producer": None},
        "png": {"Title": name, "Description": about, "Software": None},
    }
    fig.text(0.997, 0.003, f"{tier} tier", ha="right", va="bottom", fontsize=5, color="0.5")
    paths = [stem.with_suffix(f".{kind}") for kind in metadata]
    for path, (kind, about) in zip(paths, metadata.items(), strict=True):
        with moved_into_place(path) as temporary:
            fig.savefig(temporary, format=kind, dpi=300, metadata=about)
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
    stem = figure_directory(tier) / _check_name(name)
    if not isinstance(frame.index, pd.RangeIndex):
        frame = frame.reset_index()
    frame = frame.set_axis([_joined(label) for label in frame.columns], axis="columns")
    markdown = frame.map(_cell).to_markdown(index=False, disable_numparse=True) + f"\n\n*{tier} tier*\n"
    contents = {".csv": frame.to_csv(index=False, float_format="%.6g"), ".md": markdown}
    for suffix, text in contents.items():
        _write_text(stem.with_suffix(suffix), text)
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


# --------------------------------------------------------------------------- claims


def read_claims():
    """Return ``claims.csv``: a DataFrame of strings, but for the float column ``paper_value``."""
    path = Path(__file__).with_name("claims.csv")
    return pd.read_csv(path, dtype=str, keep_default_na=False).astype({"paper_value": float})


class Accepted(NamedTuple):
    """An interval of numbers; `closed` tells whether its finite ends belong to it."""

    low: float
    high: float
    closed: bool

    def contains(self, low, high):
        """Whether all numbers from `low` to `high` lie inside; either may be infinite."""
        if self.closed:
            return bool(self.low <= low and high <= self.high)
        return bool((self.low < low or math.isinf(self.low)) and (high < self.high or math.isinf(self.high)))

    def is_disjoint_from(self, low, high):
        """Whether no number from `low` to `high` lies inside."""
        if self.closed:
            return bool(high < self.low or low > self.high)
        return bool(high <= self.low or low >= self.high)


_MARGIN = re.compile(r"(?P<sign>[±×+])(?P<size>\d+(\.\d*)?(e-?\d+)?)(?P<percent>%?)")


def accepted(paper_value, tolerance):
    """The numbers that relate to the paper's as the tolerance asks.

    ========== ====================================================
    ``=``      equal
    ``<``      smaller; likewise ``>``, ``<=``, ``>=``
    ``±0.01``  at most 0.01 apart, in the unit of the number
    ``±15%``   at most 15 % of the paper's number apart
    ``+15%``   at most that much larger
    ``×2``     within a factor 2 either way; both numbers positive
    ========== ====================================================

    The bound of a margin itself counts as inside, up to round-off.

    Returns
    -------
    Accepted

    Raises
    ------
    ValueError
        If the tolerance is none of these, or a factor of a number that is not positive.
    """
    relations = {
        "=": Accepted(paper_value, paper_value, True),
        "<": Accepted(-math.inf, paper_value, False),
        ">": Accepted(paper_value, math.inf, False),
        "<=": Accepted(-math.inf, paper_value, True),
        ">=": Accepted(paper_value, math.inf, True),
    }
    if tolerance in relations:
        return relations[tolerance]
    margin = _MARGIN.fullmatch(tolerance)
    if margin is None or (margin["sign"] == "×" and (margin["percent"] or float(margin["size"]) < 1)):
        known = "=, <, >, <=, >=, ±number, +number, ±number%, +number% or ×factor"
        raise ValueError(f"tolerance must be one of {known}; got {tolerance!r}")
    size = float(margin["size"])
    if margin["sign"] == "×":
        if not paper_value > 0:
            raise ValueError(f"tolerance {tolerance!r} is a factor of a positive number; got {paper_value!r}")
        size *= 1 + 1e-12
        return Accepted(paper_value / size, paper_value * size, True)
    if margin["percent"]:
        size *= abs(paper_value) / 100
    size *= 1 + 1e-9
    return Accepted(-math.inf if margin["sign"] == "+" else paper_value - size, paper_value + size, True)


def meets(value, paper_value, tolerance):
    """Whether our number is one of those `accepted`; errors as there."""
    return accepted(paper_value, tolerance).contains(value, value)


def verdict(claim, value, tier, interval=None):
    """Judge one claim.

    Parameters
    ----------
    claim : mapping
        A row of `read_claims`.
    value : float or None
        Our number; None if it cannot be measured on this machine.
    tier : str
        The tier at which it was measured.
    interval : (float, float), optional
        95 % interval of a number that is a statistic of a sample.

    Returns
    -------
    str
        ``not comparable`` below the claim's tier and without a number; otherwise ``holds`` if the
        whole interval (or the number, if it has none) is accepted, ``fails`` if none of it is,
        and else ``undecided``.
    """
    if value is None or TIERS.index(_check_tier(tier)) < TIERS.index(claim["tier"]):
        return "not comparable"
    low, high = (value, value) if interval is None else interval
    allowed = accepted(claim["paper_value"], claim["tolerance"])
    if allowed.contains(low, high):
        return "holds"
    return "fails" if allowed.is_disjoint_from(low, high) else "undecided"


def save_results(dataset, name, *, tier, device="cpu"):
    """Write what later notebooks or readers may want as NetCDF, with its provenance.

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
    path = data_directory(tier) / "results" / f"{_check_name(name)}.nc"
    about = {"tier": tier, "device": device, "commit": git_commit(), "references": f"https://doi.org/{PAPER_DOI}"}
    about["libraries"] = ", ".join(f"{library} {version}" for library, version in versions().items())
    with moved_into_place(path) as temporary:
        dataset.assign_attrs(about).to_netcdf(temporary, engine="netcdf4")
    return path


def record_claim(id, value, *, interval=None, tier, seed=None, device="cpu"):
    """Write our number for a claim, with what it came from, to ``data/<tier>/claims``.

    Parameters
    ----------
    id : str
        A row of ``claims.csv``.
    value : float, int, bool or None
        Our number in the unit of the claim, a point estimate; None if it cannot be measured on this machine.
    interval : (float, float), optional
        Its 95 % interval, where it is a statistic of a sample, such as an error over test curves. It must
        contain the value; its ends may be infinite. No interval for what is not sampled.
    tier : str
        One of `TIERS`.
    seed : int, optional
        Seed of the notebook.
    device : str
        ``"cpu"`` or ``"gpu"``.

    Returns
    -------
    str
        The claim, both numbers and the verdict, in one line.

    Raises
    ------
    ValueError
        If there is no such claim, the value is no finite number, or the interval does not contain it.
    """
    claims = read_claims().set_index("id")
    if id not in claims.index:
        close = difflib.get_close_matches(id, claims.index, n=3)
        raise ValueError(f"no claim {id!r} in claims.csv" + (f"; close: {', '.join(close)}" if close else ""))
    if value is not None:
        value = _number(id, value)
    if interval is not None:
        interval = _interval(id, value, interval)
    claim = claims.loc[id]
    outcome = verdict(claim, value, tier, interval)
    record = {
        "id": id,
        "value": value,
        # JSON has no infinity: null stands for it.
        "interval": None if interval is None else [end if math.isfinite(end) else None for end in interval],
        "unit": claim["unit"],
        "tier": tier,
        "seed": None if seed is None else int(seed),
        "device": device,
        "versions": versions(),
        "commit": git_commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = json.dumps(record, indent=1, allow_nan=False) + "\n"
    path = data_directory(tier) / "claims" / f"{id}.json"
    _write_text(path, text)
    ours = "not measured" if value is None else f"{value:.6g}"
    if interval is not None:
        ours += f" [{interval[0]:.6g}, {interval[1]:.6g}]"
    return f"{id}: paper {claim['paper_value']:.6g} ({claim['tolerance']}), here {ours}: {outcome}"


def _number(id, value):
    refuse_masked(f"the value of claim {id!r}", value)
    if np.ndim(value) == 0 and np.asarray(value).dtype.kind in "biuf":
        value = np.asarray(value).item()
        if math.isfinite(value):
            return int(value) if isinstance(value, bool) else value
    raise ValueError(f"the value of claim {id!r} must be one finite number or None; got {value!r}")


def _interval(id, value, interval):
    refuse_masked(f"the interval of claim {id!r}", interval)
    ends = np.asarray(interval)
    if ends.shape == (2,) and ends.dtype.kind in "iuf" and value is not None:
        low, high = ends.astype(float).tolist()
        if low <= value <= high:
            return low, high
    raise ValueError(
        f"the interval of claim {id!r} must be (low, high) with low <= value <= high; "
        f"got {interval!r} for the value {value!r}"
    )


def _read_records(tier):
    records = {}
    for path in sorted((data_directory(tier) / "claims").glob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            records[path.stem] = {key: record[key] for key in ("value", "seed", "device", "commit")}
            ends = record.get("interval")
            if ends is not None:
                low, high = ends
                ends = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
            records[path.stem]["interval"] = ends
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no record of a claim; remove it, run its notebook again") from error
    return records


def claims_table(tier):
    """Put the paper's numbers beside those recorded at a tier.

    Parameters
    ----------
    tier : str
        One of `TIERS`.

    Returns
    -------
    pandas.DataFrame
        One row a claim, in the order of ``claims.csv``, then one for each record without
        a claim. Columns: notebook, id, paper_value, tolerance, value, low, high (the ends of its 95 %
        interval, NaN where it has none), unit, verdict (that of `verdict`, or ``missing``, or
        ``unknown id``), expected (``holds``, ``fails`` or ``undecided``) and as_expected, which is
        also True for a claim of a higher tier.
    """
    records = _read_records(tier)
    rows = []
    for claim in read_claims().to_dict("records"):
        record = records.pop(claim["id"], None)
        outcome = "missing" if record is None else verdict(claim, record["value"], tier, record["interval"])
        expected = claim["expected"].partition(":")[0]
        above = record is not None and TIERS.index(tier) < TIERS.index(claim["tier"])
        rows.append(
            {key: claim[key] for key in ("notebook", "id", "paper_value", "tolerance")}
            | _measured(record)
            | {"unit": claim["unit"], "verdict": outcome, "expected": expected}
            | {"as_expected": above or outcome == expected}
        )
    for id, record in records.items():
        rows.append(dict.fromkeys(rows[0], "") | {"id": id, "paper_value": math.nan} | _measured(record))
        rows[-1] |= {"verdict": "unknown id", "as_expected": False}
    return pd.DataFrame(rows)


def _with_interval(row, form):
    interval = "" if math.isnan(row.low) else f" [{row.low:{form}}, {row.high:{form}}]"
    return f"{row.value:{form}}{interval}"


def _measured(record):
    if record is None or record["value"] is None:
        return dict.fromkeys(("value", "low", "high"), math.nan)
    low, high = record["interval"] or (math.nan, math.nan)
    return {"value": float(record["value"]), "low": low, "high": high}


def format_claims(tier):
    """The claims of a tier as text for a terminal: numbers with their intervals, verdicts, and their counts.

    Parameters
    ----------
    tier : str
        One of `TIERS`.

    Returns
    -------
    str
        Verdicts that are not the expected ones are marked.
    """
    claims = claims_table(tier)
    ours = ["" if math.isnan(row.value) else _with_interval(row, ".4g") for row in claims.itertuples()]
    verdicts = claims["verdict"].where(claims["as_expected"], claims["verdict"] + "  <- unexpected")
    table = claims[["notebook", "id", "paper_value", "tolerance"]].assign(ours=ours, unit=claims["unit"])
    table = table.assign(verdict=verdicts).rename(columns={"paper_value": "paper", "ours": "ours [95 %]"})
    text = table.astype(object).fillna("").to_markdown(index=False, tablefmt="simple", floatfmt=".4g")
    return text + "\n" + ", ".join(f"{count} {verdict}" for verdict, count in claims["verdict"].value_counts().items())


def check_claims(tier):
    """Raise unless every claim is recorded and none contradicts what is expected of it.

    A claim that was expected to hold and fails, or the other way round, is a contradiction. One that is
    undecided is not, whatever was expected; nor is one that was expected to be undecided and is not.
    Their rows have a False in the column ``as_expected`` of `claims_table`.

    Raises
    ------
    RuntimeError
        Listing the claims without a record, the records without a claim, and the
        verdicts that contradict the expected ones.
    """
    table = claims_table(tier)
    judged = table["verdict"].isin(["holds", "fails", "undecided"])
    open_question = judged & ((table["verdict"] == "undecided") | (table["expected"] == "undecided"))
    wrong = table[~table["as_expected"] & ~open_question]
    if wrong.empty:
        return
    lines = []
    for row in wrong.itertuples():
        lines.append(f"  {row.id}: {row.verdict}")
        if row.verdict == "missing":
            lines[-1] += f" ({row.notebook} records it)"
        elif row.verdict == "unknown id":
            lines[-1] += f" (a claim of another version? remove {data_directory(tier) / 'claims' / row.id}.json)"
        else:
            ours = _with_interval(row, ".6g")
            lines[-1] += f", expected {row.expected}: paper {row.paper_value:.6g} ({row.tolerance}), here {ours}"
    raise RuntimeError(f"{len(lines)} claims did not turn out as claims.csv expects:\n" + "\n".join(lines))
