"""Compare the claims of a run with the committed ones: same verdicts, numbers within stated tolerances.

``claims_<tier>.csv``, beside this module, is the table ``claims`` of notebook 99 in the run whose results are
committed. A run writes its own table into ``figures``, so the numbers to compare with are kept here.

Seeds are fixed and nothing depends on the number of threads, so two runs on CPUs differ only in how processors and
libraries round, which trained trees amplify. `allowed_difference` says how much is accepted. Times, and ratios of
times, belong to one machine and are not compared.
"""

import math
from pathlib import Path

import pandas as pd

from ..tiers import check_tier
from .claims import accepted


def read_committed(tier):
    """Return the committed claims of a tier: the columns of ``figures/claims.csv``, with the id as index.

    Raises
    ------
    FileNotFoundError
        If no claims of this tier are committed.
    """
    path = Path(__file__).with_name(f"claims_{check_tier(tier)}.csv")
    if not path.exists():
        tiers = ", ".join(sorted(other.stem.removeprefix("claims_") for other in path.parent.glob("claims_*.csv")))
        raise FileNotFoundError(f"no claims of the {tier} tier are committed to compare with, only those of: {tiers}")
    return pd.read_csv(path, index_col="id")


def allowed_difference(committed):
    """How far a number may lie from the committed one: the largest of three differences.

    - A quarter of the width of the committed 95 % interval, about one standard error.
    - A tenth of the margin ``±`` of the claim.
    - A tenth of the committed number: other trees after a change of the training inputs in the last bit changed an MSE
      by 2 to 6 %, and a MAPE by 2 to 3 %.

    Parameters
    ----------
    committed : mapping
        A row of `read_committed`.

    Returns
    -------
    float
    """
    allowed = [0.1 * abs(committed["ours"])]
    width = committed["to"] - committed["95 % from"]
    if math.isfinite(width):
        allowed.append(width / 4)
    if committed["tolerance"].startswith("±"):
        allowed.append((accepted(committed["paper"], committed["tolerance"]).high - committed["paper"]) / 10)
    return max(allowed)


def compare_claims(claims, committed):
    """Put the claims of a run beside the committed ones.

    Parameters
    ----------
    claims : pandas.DataFrame
        What `claims.claims_table` returns.
    committed : pandas.DataFrame
        What `read_committed` returns.

    Returns
    -------
    pandas.DataFrame
        One row for each row of `claims`. Columns: id, committed, here, difference, allowed, unit, verdicts (the
        committed one, and ours where it is another) and outcome: ``agrees``, ``time``, or what differs.
    """
    rows = []
    for row in claims.to_dict("records"):
        one = {"id": row["id"], "here": row["value"], "unit": row["unit"], "verdicts": row["verdict"]}
        if row["id"] not in committed.index:
            rows.append(one | {"outcome": "not committed"})
            continue
        theirs = committed.loc[row["id"]]
        one |= {"committed": theirs["ours"], "difference": row["value"] - theirs["ours"]}
        one["allowed"] = allowed_difference(theirs)
        differs = []
        if row["verdict"] != theirs["verdict"]:
            differs.append("verdict")
            one["verdicts"] = f"{theirs['verdict']}, here {row['verdict']}"
        neither = math.isnan(row["value"]) and math.isnan(theirs["ours"])
        if not neither and not abs(one["difference"]) <= one["allowed"]:
            differs.append("number")
        rows.append(one | {"outcome": "time" if _is_time(theirs) else " and ".join(differs) or "agrees"})
    columns = ["id", "committed", "here", "difference", "allowed", "unit", "verdicts", "outcome"]
    return pd.DataFrame(rows, columns=columns)


def _is_time(committed):
    return committed["notebook"] == "14_performance" or committed["unit"] in ("s", "ms", "h")
