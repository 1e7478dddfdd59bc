r"""The model's variables and the paper's four cases.

Every name, symbol, unit and range is said here once; axis labels, NetCDF
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


def real_array(value):
    """Return `value` as a float64 array, or None if it is not made of real numbers."""
    try:
        array = np.asarray(value)
    except ValueError:  # nested lists of unequal lengths
        return None
    return array.astype(np.float64) if array.dtype.kind in "iuf" else None


def check(name, value):
    """Return `value` as a float64 array, or say why it cannot be the variable `name`.

    Parameters
    ----------
    name : str
        A key of `VARIABLES`.
    value : array_like
        Numbers to check.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueError
        If any element is not a finite number inside the physical range.
    """
    variable, array = VARIABLES[name], real_array(value)
    if array is None:
        raise ValueError(f"{name} must be a number in {variable.allowed}; got {value!r}")
    above = array >= variable.lower if variable.closed_lower else array > variable.lower
    good = np.isfinite(array) & above & (array < variable.upper)
    if not good.all():
        raise ValueError(
            f"{name} must lie in {variable.allowed}; got {array[~good].flat[0]:g}"
            + ("" if array.ndim == 0 else f" ({np.count_nonzero(~good)} of {array.size} values are outside)")
        )
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
