"""A measured curve: q, intensity, their uncertainties, and what was put right in it."""

import re
from dataclasses import dataclass

import numpy as np

from ..parameters import as_numbers

# Of q: the factor to nm^-1, and how the length is written.
UNITS = {"1/nm": (1.0, r"nm|(?i:nanomet\w*)"), "1/A": (10.0, r"A|Å|Å|(?i:[aå]ng(str\w*)?)\.?")}
_INVERSE = (
    r"(1\s*/\s*\(?({0})\)?(?![\w^*])|\(?({0})\)?\s?(\^|\*\*)?\s?[({{]?[-−⁻][1¹](?!\d)[)}}]?"
    r"|(?i:inverse|reciprocal|per) ({0})(?!\w))"
)
_PATTERNS = {unit: _INVERSE.format(length) for unit, (_, length) in UNITS.items()}


def check_unit(unit):
    """Return the key of `UNITS` that a unit of q means, or say which there are."""
    text = str(unit).strip().strip("[]()").strip()
    for known, pattern in _PATTERNS.items():
        if re.fullmatch(pattern, text):
            return known
    raise ValueError(f"the unit of q must be {' or '.join(map(repr, UNITS))} (as 1/Å, nm^-1, ...); got {unit!r}")


def find_units(text):
    """The units of q that a header names, a set of keys of `UNITS`: in brackets, or behind q in the same line."""
    places = r"[\[(|<]\s*{0}\s*[\])|>]", r"(?i:\bq|momentum|vector)[^\n;|]{{0,25}}?(?<![A-Za-z]){0}", r"\bq_?{0}"
    return {
        unit for unit, pattern in _PATTERNS.items() if any(re.search(place.format(pattern), text) for place in places)
    }


@dataclass(frozen=True, eq=False, init=False)
class Curve:
    """A measured curve.

    Attributes
    ----------
    q : (n,) ndarray of float64
        Scattering vector [nm^-1], increasing.
    intensity : (n,) ndarray of float64
        As measured, background included, in any unit.
    sigma : (n,) ndarray of float64 or None
        Standard deviation of the intensity, in its unit.
    dq : (n,) ndarray of float64 or None
        Standard deviation (not full width) of the resolution [nm^-1].
    slit_length : float or None
        Half the length of the slit of an instrument that smears along it [nm^-1].
    name : str
    notes : tuple of str
        Corrections made, and remarks of the reader.
    """

    q: np.ndarray
    intensity: np.ndarray
    sigma: np.ndarray | None
    dq: np.ndarray | None
    slit_length: float | None
    name: str
    notes: tuple

    def __init__(self, q, intensity, sigma=None, dq=None, unit="1/nm", name="", *, slit_length=None, notes=()):
        """Check a curve and put it in order.

        Rows with NaN, infinity or q <= 0 are left out, and those with a standard deviation that is not positive;
        without `sigma` those whose intensity is not positive, too. Rows are sorted, and those of equal q averaged.
        `notes` says how many.

        Parameters
        ----------
        q, intensity : (n,) array_like
        sigma, dq : (n,) array_like, optional
            None if they were not measured; zeros everywhere mean the same.
        unit : str
            Of q, dq and slit_length: "1/nm" or "1/A".
        name : str
        slit_length : float, optional
        notes : sequence of str
            Remarks to begin with.

        Raises
        ------
        ValueError
            If arrays do not fit together, or fewer than five rows are left.
        """
        if slit_length is not None and not 0 <= slit_length < np.inf:
            raise ValueError(f"slit_length must be a finite number, 0 or more; got {slit_length!r}")
        factor, notes = UNITS[check_unit(unit)][0], list(notes)
        columns = {"q": q, "intensity": intensity, "sigma": sigma, "dq": dq}
        for column, values in columns.items():
            if values is not None:
                columns[column] = as_numbers(column, values)
                if columns[column].ndim != 1 or columns[column].shape != np.shape(columns["q"]):
                    raise ValueError(f"{column} must be one row of as many numbers as q; got shape {np.shape(values)}")
        for column in ("sigma", "dq"):
            if columns[column] is not None and not np.nan_to_num(columns[column]).any():
                columns[column] = None
        columns = {column: values for column, values in columns.items() if values is not None}
        for reason, good in _CONDITIONS:
            bad = ~good(columns)
            if bad.any():
                notes.append(f"{np.count_nonzero(bad)} of {bad.size} rows left out: {reason}")
                columns = {column: values[~bad] for column, values in columns.items()}
        columns = _in_order(columns, notes)
        if columns["q"].size < 5:
            raise ValueError(
                f"{name or 'a curve'} needs at least five good rows; got {columns['q'].size}. {'; '.join(notes)}"
            )
        fields = {"q": factor * columns["q"], "intensity": columns["intensity"], "sigma": columns.get("sigma")}
        fields["dq"] = factor * columns["dq"] if "dq" in columns else None
        fields["slit_length"] = None if slit_length is None else factor * float(slit_length)
        fields |= {"name": str(name), "notes": tuple(notes)}
        for field, value in fields.items():
            object.__setattr__(self, field, value)

    def __repr__(self):
        extras = [name for name in ("sigma", "dq", "slit_length") if getattr(self, name) is not None]
        words = f"Curve {self.name!r}: {self.q.size} points, q from {self.q[0]:.4g} to {self.q[-1]:.4g} nm^-1"
        return words + (f", with {', '.join(extras)}" if extras else "")


# What each row must fulfil, one after the other. A negative intensity with a standard deviation is information.
_CONDITIONS = (
    ("NaN or infinity", lambda row: np.logical_and.reduce([np.isfinite(values) for values in row.values()])),
    ("q is not positive", lambda row: row["q"] > 0),
    ("sigma is not positive", lambda row: row["sigma"] > 0 if "sigma" in row else row["q"] > 0),
    ("dq is negative", lambda row: row["dq"] >= 0 if "dq" in row else row["q"] > 0),
    (
        "the intensity is not positive, and no sigma tells its uncertainty",
        lambda row: row["q"] > 0 if "sigma" in row else row["intensity"] > 0,
    ),
)


def _in_order(columns, notes):
    """Rows sorted by q, those of equal q averaged."""
    q = columns["q"]
    if (np.diff(q) < 0).any():
        order = np.argsort(q, kind="stable")
        columns, q = {column: values[order] for column, values in columns.items()}, q[order]
        notes.append("rows sorted by q")
    first = np.flatnonzero(np.append(True, np.diff(q) > 0))
    if first.size < q.size:
        notes.append(f"{q.size - first.size} repeated values of q averaged")
        weights = columns["sigma"] ** -2.0 if "sigma" in columns else np.ones(q.size)
        total = np.add.reduceat(weights, first)
        columns = {column: np.add.reduceat(weights * values, first) / total for column, values in columns.items()}
        if "sigma" in columns:
            columns["sigma"] = total**-0.5
        columns["q"] = q[first]
    return columns
