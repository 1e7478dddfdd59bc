r"""The closed form of a level cut at the points of a measured curve, for many parameters at once.

A table holds ln f over the threshold, the free shape parameters of the spectral density and ln(aq); one curve takes a
few microseconds.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import stats
from scipy.ndimage import spline_filter
from scipy.special import ndtri

from ..physics.spectra import FAMILIES, check_shape, density_of
from . import level_cut
from .filter_ratio import LARGEST_RATIO, log_filter_ratio
from .smearing import smeared, smearing

LIMITS = {"scaling_parameter": (0.2, 50.0), "porosity": (0.02, 0.5)}
"""Ranges of the prior by default [nm, 1]."""

_T = np.linspace(0, 2.6, 27)  # thresholds of a table; the curve is even in t
_N_SHAPE = 11  # values of a shape parameter in a table


@dataclass(frozen=True)
class Settings:
    """What an analysis assumes.

    Attributes
    ----------
    spectral_density : str or callable
    shape : dict of str to float or (float, float)
        A number fixes a shape parameter, a pair is the range in which it is fitted.
    scaling_parameter, porosity : (float, float)
        Ranges of the prior [nm, 1].
    smoothing_length : float
        Of the paper's filter [nm].
    """

    spectral_density: object
    shape: dict
    scaling_parameter: tuple
    porosity: tuple
    smoothing_length: float = 0.0

    @property
    def free(self):
        """Names of the shape parameters that are fitted."""
        return [name for name, value in self.shape.items() if isinstance(value, tuple)]

    @property
    def starts(self):
        """Values of each parameter on the grid that a fit starts from."""
        return [80, 9, *[4] * len(self.free)]

    @property
    def limits_by_name(self):
        """The prior's ends, in the units of the parameters."""
        ends = {"scaling_parameter": self.scaling_parameter, "porosity": self.porosity}
        return ends | {name: self.shape[name] for name in self.free}

    @property
    def limits(self):
        """(n_parameter, 2) ndarray: the prior's ends in coordinates: ln a, porosity, logarithms of shape parameters."""
        shapes = [np.log(self.shape[name]) for name in self.free]
        return np.array([np.log(self.scaling_parameter), self.porosity, *shapes])

    beyond_prior = "Give a wider range if such values are possible; else the model or the q range is wrong."

    def model(self, curve):
        """The `Model` of a curve."""
        return Model(curve, self)

    def samples(self, x):
        """Dict of name to (n,) ndarray from coordinates (n, n_parameter); with the area of a sharp cut [1/nm]."""
        a, porosity = np.exp(x[:, 0]), x[:, 1]
        found = {"scaling_parameter": a, "porosity": porosity, "mirror_porosity": 1 - porosity}
        found |= {name: np.exp(x[:, 2 + i]) for i, name in enumerate(self.free)}
        if not self.free and self.spectral_density != "peak" and not self.smoothing_length:
            loss = level_cut.correlation_loss(self.spectral_density, self.shape)
            found["specific_surface"] = level_cut.specific_surface(loss, porosity) / a
        return found


def settings_of(spectral_density, shape, scaling_parameter, porosity, smoothing_length):
    """The `Settings` of the arguments of an analysis; ValueError if they do not make sense."""
    density = density_of(spectral_density)
    shape = dict(shape or {})
    for name, value in shape.items():
        if isinstance(value, list | tuple):
            if len(value) != 2 or not value[0] < value[1]:
                raise ValueError(f"shape[{name!r}] must be a number or a pair (low, high); got {value!r}")
            shape[name] = tuple(float(end) for end in value)
    if isinstance(spectral_density, str):
        ends = [{name: np.max(value) if end else np.min(value) for name, value in shape.items()} for end in (0, 1)]
        checked = [check_shape(spectral_density, end) for end in ends]
        shape = {name: shape.get(name, checked[0][name]) for name in FAMILIES[spectral_density].shape}
    else:
        if shape:
            density_of(spectral_density, shape)  # says why not
        k = np.geomspace(0.05, 5, 20)
        one, other = np.asarray(density(k, 1.0)), np.asarray(density(k / 3, 3.0))
        if not np.allclose(one * other.sum(), other * one.sum(), rtol=1e-6):
            raise ValueError("a spectral density to be fitted must depend on the product of q and a alone")
    least = level_cut.check_smoothing(smoothing_length, spectral_density) / LARGEST_RATIO
    if scaling_parameter == LIMITS["scaling_parameter"]:
        scaling_parameter = max(scaling_parameter[0], least), scaling_parameter[1]
    limits = {"scaling_parameter": scaling_parameter, "porosity": porosity}
    for name, ends in limits.items():
        if np.shape(ends) != (2,):
            raise ValueError(f"{name} must be a range (low, high); got {ends!r}")
        low, high = ends
        top = np.inf if name == "scaling_parameter" else 0.99
        if not 0 < low < high < top or (name == "porosity" and low < 0.01):
            raise ValueError(f"{name} must be a range (low, high) inside its limits; got {limits[name]}")
    if porosity[0] < 0.5 < porosity[1]:
        raise ValueError("porosity must be a range on one side of 1/2: a porosity and 1 - porosity give the same curve")
    if scaling_parameter[0] < least:
        raise ValueError(f"with this smoothing_length scaling_parameter must begin at {least:g} nm or above")
    scaling_parameter, porosity = (tuple(map(float, ends)) for ends in (scaling_parameter, porosity))
    return Settings(spectral_density, shape, scaling_parameter, porosity, float(smoothing_length))


class Model:
    """Smeared closed form of a family at the points of a curve, from a table of ln f over t, ln s and shape."""

    def __init__(self, curve, settings):
        self.settings, self.q = settings, curve.q
        self.points, self.weights = smearing(curve.q, curve.dq, curve.slit_length)
        self.log_points = np.log(self.points)
        self.table = table(settings.spectral_density, tuple(settings.shape.items()))

    def __call__(self, x):
        """(n, n_q) ndarray: :math:`a^3 (Rf)` at coordinates (n, n_parameter)."""
        first, step = level_cut.LOG_S[0], level_cut.LOG_S[1] - level_cut.LOG_S[0]
        places = [
            np.arccos(np.clip(1 - 2 * (values - low) / (high - low), -1, 1)) / np.pi * (_N_SHAPE - 1)
            for values, (low, high) in zip(x.T[2:], self.settings.limits[2:], strict=True)
        ]
        rows = rows_of(self.table, x[:, 1], places)
        signal = smeared(rows, first, step, x[:, 0], self.log_points, self.weights, -self.porod)
        signal *= np.exp(3 * x[:, :1])
        if self.settings.smoothing_length:  # varies slowly with q, so that the resolution may be left out
            a = np.exp(x[:, :1])
            signal *= np.exp(log_filter_ratio(a * self.q, x[:, 1:2], self.settings.smoothing_length / a))
        return signal

    def error(self, x):
        """No correlated error worth mentioning; `three_phase_model.Model` has one."""
        return None

    @property
    def porod(self):
        """The exponent that takes over at high q."""
        return 3.5 if self.settings.spectral_density == "peak" else 4.0


@lru_cache(maxsize=8)
def table(spectral_density, shape=()):
    """Spline coefficients of ln f over t, the free shape parameters and ln s.

    Shape parameters go as a cosine from end to end of their range, so that the mirror images beyond the ends are
    smooth continuations; the curve is even in t by itself.
    """
    share = (1 - np.cos(np.pi * np.arange(_N_SHAPE) / (_N_SHAPE - 1))) / 2
    ends = [np.log(value) for _, value in shape if isinstance(value, tuple)]
    axes = [low + (high - low) * share for low, high in ends]
    values = np.empty((_T.size, *(axis.size for axis in axes), level_cut.LOG_S.size))
    for index in np.ndindex(values.shape[1:-1]):
        chosen, position = {}, iter(zip(axes, index, strict=True))
        for name, value in shape:
            if isinstance(value, tuple):
                axis, i = next(position)
                value = np.exp(axis[i])
            chosen[name] = value
        loss = level_cut.correlation_loss(spectral_density, chosen)
        for row, t in enumerate(_T):
            values[(row, *index)] = level_cut.log_transform(loss, stats.norm.cdf(-t))
    coefficients = spline_filter(values, order=3, mode="mirror")
    return np.pad(coefficients, [*[(0, 0)] * (values.ndim - 1), (1, 1)], mode="reflect")


def rows_of(coefficients, porosity, places=()):
    """(n, n_node + 2) ndarray: coefficients over ln s of a `table`, at porosities and places along other axes."""
    places = [np.abs(ndtri(porosity)) / (_T[1] - _T[0]), *places]
    taps = [_taps(place, size) for place, size in zip(places, coefficients.shape, strict=False)]
    rows = np.zeros((len(porosity), coefficients.shape[-1]))
    for chosen in product(*(zip(*each, strict=True) for each in taps)):
        indices, weights = zip(*chosen, strict=True)
        rows += np.prod(weights, axis=0)[:, np.newaxis] * coefficients[indices]
    return rows


def _taps(place, size):
    """Indices and weights, four of each, of the spline coefficients at some places of an axis with mirrored ends."""
    first = np.clip(place.astype(int), 0, size - 2)
    x = place - first
    y = 1 - x
    indices = np.abs(first + np.arange(-1, 3)[:, np.newaxis])
    indices = np.where(indices > size - 1, 2 * (size - 1) - indices, indices)
    return indices, np.array([y**3, 4 - 6 * x**2 + 3 * x**3, 4 - 6 * y**2 + 3 * y**3, x**3]) / 6
