"""The claims of the paper: what it states, what we measured, and the verdicts.

Röding et al. (2022) make about two hundred statements that a computation can contradict.
``claims.csv``, beside this module, lists one in each row. (A value that the paper chose
and we copied, such as its grid, is a setting and not a claim: see `settings`.)

======================  ==============================================================
``id``                  name used by `record_claim`
``where_in_paper``      section, equation, table or figure
``statement``           what the paper says, in short
``paper_value``         its number; for a statement in words, the bound that it implies
``unit``                unit of both numbers
``notebook``            the notebook that measures ours
``tier``                the lowest tier at which the two can be compared honestly
``tolerance``           how our number must relate to the paper's, see `accepted`
``why_this_tolerance``  the reason for it
``expected``            ``holds``, ``fails: reason`` or ``undecided: reason``
``measure``             what our number is
======================  ==============================================================

Notebooks measure and call `record_claim`; `claims_table` puts both numbers side by
side; `check_claims` raises an error where the outcome contradicts the expected one.

**The verdict.** The paper's number and the tolerance make a set of accepted numbers.
A number that is exact is inside (*holds*) or outside (*fails*). One that is a statistic
of a sample has a 95 % interval, and the claim holds if the whole interval is inside,
fails if all of it is outside, and is *undecided* otherwise. A wider interval can thus
never turn a verdict into *holds* or *fails*: fewer curves make no verdict easier.
"""

import difflib
import json
import math
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ..files import git_commit, versions
from ..parameters import refuse_masked
from ..results import data_directory, write_text
from ..tiers import TIERS, check_tier

_TIERS = list(TIERS)  # in order of size


def read_claims():
    """Return ``claims.csv``: a DataFrame of strings, except for the float column ``paper_value``."""
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
    """The numbers that a tolerance accepts.

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
    """Whether our number is one that `accepted` contains; raises the same errors."""
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
    if value is None or _TIERS.index(check_tier(tier)) < _TIERS.index(claim["tier"]):
        return "not comparable"
    low, high = (value, value) if interval is None else interval
    allowed = accepted(claim["paper_value"], claim["tolerance"])
    if allowed.contains(low, high):
        return "holds"
    return "fails" if allowed.is_disjoint_from(low, high) else "undecided"


def record_claim(id, value, *, interval=None, tier, seed=None, device="cpu"):
    """Write our number for a claim, with its provenance, to ``data/<tier>/claims``.

    Parameters
    ----------
    id : str
        A row of ``claims.csv``.
    value : float, int, bool or None
        Our number in the unit of the claim, a point estimate; None if it cannot be measured on this machine.
    interval : (float, float), optional
        Its 95 % interval, where it is a statistic of a sample, such as an error over test curves. It must
        contain the value; its ends may be infinite. A number that is not sampled has no interval.
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
    write_text(path, text)
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
            raise ValueError(f"{path} is not a record of a claim; remove it and run its notebook again") from error
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
        One row for each claim, in the order of ``claims.csv``, then one for each record without
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
        above = record is not None and _TIERS.index(tier) < _TIERS.index(claim["tier"])
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
    """Raise an error unless every claim is recorded and none contradicts its expected verdict.

    It is a contradiction if a claim was expected to hold and fails, or was expected to fail and holds. A claim that
    is undecided, or was expected to be undecided, contradicts nothing; if outcome and expectation differ, the
    column ``as_expected`` of `claims_table` is False all the same.

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
