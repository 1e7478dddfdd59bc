r"""The model's variables and the paper's four cases.

Every name, symbol, unit and range is defined here once; axis labels, NetCDF
attributes, sampling ranges and error messages are read from this table.
This module imports nothing of the package.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Variable:
    """A named quantity of the model.

    Attributes
    ----------
    name : str
        Name in code and in NetCDF files.
    symbol : str
        Symbol in the paper, as mathtext without dollar signs.
    unit : str
        Unit in UDUNITS notation; ``"1"`` if dimensionless.
    long_name : str
        What it is, in words.
    lower, upper : float
        Physical bounds (not the range of the paper; see `CASES` for that).
    closed_lower : bool
        Whether the lower bound itself is allowed; the upper bound never is.
    """

    name: str
    symbol: str
    unit: str
    long_name: str
    lower: float
    upper: float
    closed_lower: bool = False

    @property
    def label(self):
        """Axis label with the unit in square brackets, as mathtext."""
        unit = "" if self.unit == "1" else f" [{_pretty_unit(self.unit)}]"
        return f"{self.long_name} ${self.symbol}${unit}"

    @property
    def allowed(self):
        """The physical range in interval notation, for error messages."""
        bracket = "[" if self.closed_lower else "("
        unit = "" if self.unit == "1" else f" {self.unit}"
        return f"{bracket}{self.lower:g}, {self.upper:g}){unit}"


def _pretty_unit(unit):
    return unit.replace("-1", "$^{-1}$")


VARIABLES = {
    variable.name: variable
    for variable in (
        Variable("scaling_parameter", "a", "nm", "scaling parameter", 0.0, np.inf),
        Variable("porosity", r"\epsilon", "1", "porosity", 0.0, 1.0),
        Variable("layer_fraction", r"\nu", "1", "layer fraction of the pore space", 0.0, 1.0, True),
        Variable("smoothing_sigma", r"\sigma", "voxel", "smoothing width", 0.0, np.inf, True),
        Variable("noise_level", r"\alpha", "1", "noise level", 0.0, np.inf, True),
        Variable("q", "q", "nm-1", "scattering vector", 0.0, np.inf),
        Variable("intensity", "I", "1", "scattering intensity", 0.0, np.inf),
    )
}


# What a unit is worth in the package's own; the spellings are those of UDUNITS, of xarray files and of beamlines.
_LENGTHS = {"nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "angstrom": 0.1, "a": 0.1, "å": 0.1, "um": 1e3, "m": 1e9}
_UNITS = {
    "nm": _LENGTHS,
    "nm-1": {form.format(name): 1 / size for name, size in _LENGTHS.items() for form in ("{}-1", "{}^-1", "1/{}")},
    "1": {"": 1.0, "1": 1.0, "dimensionless": 1.0, "%": 0.01, "percent": 0.01},
    "voxel": {"voxel": 1.0, "voxels": 1.0},
}


def as_numbers(name, value, unit=None, rule="must be real numbers"):
    """Return `value` as a float64 array of plain real numbers; nothing else decides what a number is.

    Parameters
    ----------
    name : str
        What the numbers are, for the message.
    value : array_like
        Integers or floating-point numbers. A ``units`` attribute, such as that of an `xarray.DataArray`, is honoured.
    unit : str, optional
        The unit of the result, a key of the package's own units; without it a ``units`` attribute is not looked at.
    rule : str
        What `name` must be, for the message.

    Returns
    -------
    ndarray of float64
        In `unit`, converted where the attribute names another unit of the same kind.

    Raises
    ------
    ValueError
        If an element is masked, complex, a boolean or no number at all, or the units contradict.
    """
    refuse_masked(name, value)
    try:
        array = np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "iuf":
        raise ValueError(f"{name} {rule}; got {_shortened(value)}")
    array = array.astype(np.float64)
    given = getattr(value, "attrs", {}).get("units") if unit else None
    if given is None:
        return array
    try:
        size = _UNITS[unit][str(given).strip().lower()]
    except KeyError:
        known = ", ".join(filter(None, _UNITS[unit]))
        raise ValueError(f"{name} has units {given!r}, but [{unit}] is needed; convert it (known: {known})") from None
    return array * size if size != 1 else array


def refuse_masked(name, value):
    """Raise ValueError if an element of `value` is masked: in a plain array it would look like a number."""
    if np.ma.is_masked(value):
        count = np.ma.count_masked(value)
        elements = "element" if count == 1 else "elements"
        raise ValueError(f"{name} has {count} masked {elements}; leave them out or fill them first")


def _shortened(value):
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def check(name, value, *, any_unit=False, first=0):
    """Return `value` as a float64 array, or say why it cannot be the variable `name`.

    Parameters
    ----------
    name : str
        A key of `VARIABLES`.
    value : array_like
        Numbers to check.
    any_unit : bool
        Whether the unit does not matter, as for an intensity that will be normalised.
    first : int
        Position of `value` in a longer array of which it is a block; for the message.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueError
        As `as_numbers`; or if any element is not a finite number inside the physical range.
    """
    variable = VARIABLES[name]
    array = as_numbers(name, value, None if any_unit else variable.unit, f"must be a number in {variable.allowed}")
    above = array >= variable.lower if variable.closed_lower else array > variable.lower
    bad = ~(np.isfinite(array) & above & (array < variable.upper))
    if bad.any():
        message = f"{name} must lie in {variable.allowed}; got {array[bad].flat[0]:g}"
        if array.ndim:
            position = np.argwhere(bad)[0]
            position[0] += first
            message += f" ({np.count_nonzero(bad)} of {array.size} values are outside, "
            message += f"the first at index [{', '.join(map(str, position))}])"
        raise ValueError(message)
    return array


def check_scalar(name, value):
    """Return `value` as one float, or say why it cannot be the variable `name`; see `check`."""
    array = check(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a single number here; got an array of shape {array.shape}")
    return float(array)


@dataclass(frozen=True)
class Case:
    """One of the paper's four data sets (section 2.3): a prior and its outputs.

    Attributes
    ----------
    name : str
        Key in `CASES`.
    ranges : dict of str to (float, float)
        Bounds of the uniform prior of each output.
    """

    name: str
    ranges: dict

    @property
    def outputs(self):
        """Names of the parameters to predict, in the order of Table 2."""
        return tuple(self.ranges)

    @property
    def title(self):
        """The case in words, as in Table 2: ``'Two-phase low porosity'``."""
        phases, _, level = self.name.partition("_phase_")
        return f"{phases.capitalize()}-phase {level} porosity"


def _case(name, porosity, **more):
    return Case(name, {"scaling_parameter": (0.8, 8.0), "porosity": porosity, **more})


CASES = {
    case.name: case
    for case in (
        _case("two_phase_low", (0.1, 0.5)),
        _case("two_phase_high", (0.5, 0.9)),
        _case("three_phase_low", (0.1, 0.5), layer_fraction=(0.05, 0.5)),
        _case("three_phase_high", (0.5, 0.9), layer_fraction=(0.05, 0.5)),
    )
}


def get_case(case):
    """Return the `Case` of that name (a `Case` passes through).

    Raises
    ------
    ValueError
        If there is no such case.
    """
    if isinstance(case, Case):
        return case
    if not isinstance(case, str) or case not in CASES:
        raise ValueError(f"case must be one of {', '.join(CASES)}; got {case!r}")
    return CASES[case]
