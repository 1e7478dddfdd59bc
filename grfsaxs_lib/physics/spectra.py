r"""Spectral densities of Gaussian random fields, as families with names.

Every family is a function of :math:`k = aq` alone, so that the scaling parameter a changes the scale of a structure and
nothing else.

=========  ==========================================================  =====================================
name       :math:`\Gamma(k)`, not normalised                           shape parameters
=========  ==========================================================  =====================================
paper      :math:`(1 + k^8)^{-2}`, Eq. (7)                             none
power      :math:`(1 + k^m)^{-n}`, with :math:`mn \ge 6`               m, n
peak       of the correlation :math:`e^{-r/\kappa} \sin(r)/r`          coherence :math:`\kappa`
=========  ==========================================================  =====================================

The second is smooth enough for interfaces of finite area if :math:`mn > 5`; below 6 the tables here do not resolve it.
The third is the correlation of Teubner and Strey (1987), J. Chem. Phys. 87, 3195, here that of the *field*: for
:math:`\kappa > 1` the density peaks at :math:`k = \sqrt{1 - \kappa^{-2}}`. Its interfaces are rough, without a finite
area, and the intensity falls as :math:`q^{-3.5}`.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from .field import spectral_density


@dataclass(frozen=True)
class Shape:
    """A shape parameter of a family: its value by default and the range in which it may be fitted."""

    default: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Family:
    """Spectral densities of one form.

    Attributes
    ----------
    density : callable
        :math:`\\Gamma(q, a)` with the shape parameters as keywords; not normalised.
    shape : dict of str to Shape
    correlation : callable, optional
        :math:`1 - g(r/a)` with the shape parameters as keywords, where there is a formula.
    """

    density: object
    shape: dict
    correlation: object = None


def power(q, scaling_parameter, *, m, n):
    """Spectral density :math:`(1 + (aq)^m)^{-n}` at q [nm^-1]; a in nm."""
    return (1 + (scaling_parameter * np.asarray(q)) ** m) ** -n


def peak(q, scaling_parameter, *, coherence):
    r"""Spectral density of the correlation :math:`e^{-r/\kappa a} \sin(r/a)/(r/a)` at q [nm^-1]; a in nm."""
    k, width = scaling_parameter * np.asarray(q), 1 / coherence
    return 1 / ((width**2 + (k - 1) ** 2) * (width**2 + (k + 1) ** 2))


def _peak_correlation(r, *, coherence):
    decay = np.exp(-r / coherence)
    with np.errstate(invalid="ignore", divide="ignore"):
        lost = np.where(r < 1e-2, r**2 / 6 - r**4 / 120, 1 - np.sin(r) / r)
    return -np.expm1(-r / coherence) + decay * lost


FAMILIES = {
    "paper": Family(spectral_density, {}),
    "power": Family(power, {"m": Shape(4.0, 1.5, 12.0), "n": Shape(2.0, 1.0, 6.0)}),
    "peak": Family(peak, {"coherence": Shape(2.0, 0.5, 8.0)}, _peak_correlation),
}


def check_shape(family, shape):
    """Shape parameters of a family as a dict of floats, those by default where there are none.

    Raises
    ------
    ValueError
        If the family has no such parameter, or a value is outside its range.
    """
    known = FAMILIES[family].shape
    shape = {} if shape is None else dict(shape)
    if unknown := set(shape) - set(known):
        there = f"has {', '.join(known)}" if known else "has no shape parameters"
        raise ValueError(f"the spectral density {family!r} {there}; got {', '.join(sorted(unknown))}")
    values = {name: float(shape.get(name, one.default)) for name, one in known.items()}
    for name, value in values.items():
        if not known[name].lower <= value <= known[name].upper:
            raise ValueError(f"{name} must lie in [{known[name].lower:g}, {known[name].upper:g}]; got {value:g}")
    if family == "power" and values["m"] * values["n"] < 6:
        raise ValueError(
            f"m n must be 6 or more (at 5 the interfaces have no finite area); got m n = {values['m'] * values['n']:g}"
        )
    return values


def density_of(spectral_density, shape=None):
    """A callable of (q, scaling_parameter) for a family's name with its shape, or for what is one already.

    Raises
    ------
    ValueError
        If there is no such family, or the shape does not suit it.
    """
    if callable(spectral_density):
        if shape:
            raise ValueError("shape belongs to a family by name; a callable has its shape inside")
        return spectral_density
    if spectral_density not in FAMILIES:
        raise ValueError(
            f"spectral_density must be {', '.join(map(repr, FAMILIES))} or a callable of (q, scaling_parameter); "
            f"got {spectral_density!r}"
        )
    return partial(FAMILIES[spectral_density].density, **check_shape(spectral_density, shape))
