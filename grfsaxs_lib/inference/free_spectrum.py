r"""The spectral density of any form that a curve of two phases asks for.

The logarithm of :math:`\Gamma(k)` is a natural cubic spline u of :math:`\ln k`, so that the density is positive. Its
knots begin at a third of the smallest q, where the density must be nearly flat, and end at 0.8 of the largest;
beyond, it goes on as a power of k. Its prior is that of a smoothing spline,

.. math:: -2 \ln p(u) = \frac{1}{\tau^2} \int u''(\ln k)^2\, d\ln k + \text{ends},

where the ends say that the slope is 0 ± 1 at the first knot and about -8 ± 4 in the last 0.8 decades of q, for a
density that is flat up to the largest q would imitate a background. At the last knot it is -5 - y, where ln y is
ln 4 ± 0.7: the interfaces have a finite area only if y > 0, and what lies beyond the knot adds to it as 1/y. A curve is
compared as in `marginal_fit`,

.. math:: y_i = A\,(RF)_i(u, \epsilon) + B + n_i ,

with the closed form F of `level_cut`, at a porosity :math:`\epsilon` that is given; `free_fit` has what is found.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares
from scipy.special import logsumexp

from . import level_cut
from .smearing import smearing

POROSITY_LIMITS = (0.01, 0.5)
"""Ends of the uniform prior of the porosity where it comes from the absolute intensity."""

SPACING = 0.12
"""Distance of the knots in ln k."""
_FIRST_KNOT, _LAST_KNOT = 0.3, 0.8  # over the smallest and the largest q
_CENTRE = 10**-0.5  # of the closed form's nodes, which reach from 1e-3 to 1e2
_LONGEST = 10**4.5  # largest over smallest q
_LOW_END = 0.0, 1.0  # slope of ln density over ln k at the first knot: mean and standard deviation
_FALL = -8.0, 4.0, 0.12  # slope where the density falls: mean, standard deviation, and over which length in ln k
_FALL_FROM = 0.15  # over the largest q
_LAST_SLOPE = -5.0, 4.0, 0.7  # below the first by a factor with this median, and standard deviation of its logarithm
_ANY_PREFACTOR = 20.0  # standard deviation of its logarithm; without one, a fit could lose the signal altogether
_LEAST_FACTOR = 0.05  # from here on the logarithm goes straight on, also to slopes of an infinite area
_INVARIANT_UNIT = 0.1  # (1e10 cm^-2)^2 nm^3 in cm^-1


@dataclass(frozen=True)
class Settings:
    """What an analysis with a free spectral density assumes.

    Attributes
    ----------
    porosity : (float, float) or None
        Mean and standard deviation of a normal prior; None for a uniform one.
    contrast : (float, float) or None
        Difference of the scattering length densities, mean and standard deviation [1e10 cm^-2]. With it the intensity
        is absolute [cm^-1].
    """

    porosity: tuple | None
    contrast: tuple | None
    spectral_density: str = field(default="free", init=False)
    smoothing_length: float = field(default=0.0, init=False)

    @property
    def limits_by_name(self):
        """Ends of the priors that are uniform."""
        return {} if self.porosity else {"porosity": POROSITY_LIMITS}

    @property
    def log_prefactor(self):
        """ln A of the contrast, where it is known, and its standard deviation."""
        mean, sd = self.contrast
        return np.log(_INVARIANT_UNIT * mean**2), 2 * sd / mean


def settings_of(porosity, contrast):
    """The `Settings` of the arguments of an analysis; ValueError if they do not make sense."""
    if porosity is None and contrast is None:
        raise ValueError(
            "a free spectral density needs porosity=, a number or (mean, standard deviation), or contrast= in "
            "1e10 cm^-2 with the intensity in cm^-1: the shape of a curve hardly tells the porosity, as many have a "
            "spectral density that fits"
        )
    pairs = {}
    for name, value in (("porosity", porosity), ("contrast", contrast)):
        if value is None:
            pairs[name] = None
            continue
        pair = np.atleast_1d(np.asarray(value, dtype=np.float64))
        if pair.shape not in ((1,), (2,)) or not np.isfinite(pair).all() or (pair < 0).any() or pair[0] == 0:
            raise ValueError(f"{name} must be a positive number or (mean, standard deviation); got {value!r}")
        pairs[name] = float(pair[0]), float(pair[1]) if pair.size == 2 else 0.0
    if porosity is not None:
        mean, sd = pairs["porosity"]
        if not (0.01 <= mean - 4 * sd and mean + 4 * sd <= 0.99):
            raise ValueError(f"porosity must lie in [0.01, 0.99] within four standard deviations; got {porosity!r}")
    if contrast is not None and pairs["contrast"][1] > 0.25 * pairs["contrast"][0]:
        raise ValueError(f"contrast must be known within 25 %; got {contrast!r}")
    return Settings(**pairs)


class Spectrum:
    """Natural cubic splines for the logarithm of a spectral density.

    Parameters
    ----------
    low, high : float
        The first and the last knot [nm^-1].
    spacing : float
        The largest distance of the knots in ln k.

    Attributes
    ----------
    knots : (n,) ndarray
        ln k [nm^-1].
    """

    def __init__(self, low, high, spacing=SPACING):
        low, high = np.log(low), np.log(high)
        self.knots = np.linspace(low, high, int(np.ceil((high - low) / spacing)) + 1)
        self._splines = CubicSpline(self.knots, np.eye(self.knots.size), bc_type="natural")

    def basis(self, k):
        """(n_k, n) ndarray: takes values at the knots to values at k [nm^-1]; beyond the knots straight on in ln k."""
        ends = self.knots[[0, -1]]
        inside = np.clip(np.log(k), *ends)
        beyond = (np.log(k) - inside)[:, np.newaxis]
        return self._splines(inside) + beyond * np.where(beyond < 0, *self.end_slopes)

    @cached_property
    def end_slopes(self):
        """(2, n) ndarray: from values at the knots to the slopes at both ends."""
        return self._splines(self.knots[[0, -1]], 1)

    @cached_property
    def roughness(self):
        """(n, n) ndarray: the squares of its product with the values add up to the integral of u'' squared."""
        n, step = self.knots.size, self.knots[1] - self.knots[0]
        gram = step / 3 * np.diag(np.r_[1, np.full(n - 2, 2), 1]) + step / 6 * (np.eye(n, k=1) + np.eye(n, k=-1))
        return np.linalg.cholesky(gram).T @ self._splines(self.knots, 2)


class Model:
    """Smeared closed form of a free spectral density at the points of a curve.

    Lengths inside are in units of `unit` [nm], which puts the measured q where the tables of `level_cut` are best.
    """

    def __init__(self, curve, spacing=SPACING):
        q = curve.q
        if q[-1] > _LONGEST * q[0]:
            raise ValueError(
                f"q reaches from {q[0]:.3g} to {q[-1]:.3g} nm^-1, more than {np.log10(_LONGEST):g} decades, which a "
                "free spectral density cannot span; give a q_range"
            )
        self.unit = _CENTRE / np.sqrt(q[0] * q[-1])
        self.spectrum = Spectrum(_FIRST_KNOT * q[0], _LAST_KNOT * q[-1], spacing)
        self.basis = self.spectrum.basis(level_cut.K / self.unit)
        points, weights = smearing(q, curve.dq, curve.slit_length)
        places = np.clip(np.log(points * self.unit), *level_cut.LOG_S[[0, -1]])
        tables = CubicSpline(level_cut.LOG_S, np.eye(level_cut.LOG_S.size))(places)
        self.average = self.unit**3 * np.einsum("qp,qps->qs", weights, tables)

    def weights(self, u):
        """(..., n_k) ndarray: shares of the field's variance of the waves of the grid; u is (..., n_knot)."""
        log = u @ self.basis.T + 3 * np.log(level_cut.K)
        weights = np.exp(log - log.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)

    def log_norm(self, u):
        r"""Logarithm of the integral of :math:`k^2 \Gamma(k)\, dk` [nm^-1], where :math:`\Gamma = e^u`."""
        log = u @ self.basis.T + 3 * np.log(level_cut.K / self.unit)
        return logsumexp(log, axis=-1) + np.log(level_cut.LOG_STEP)

    def __call__(self, u, porosity):
        """Signal (..., n_q) [nm^3], and 1 - g and the covariance at the distances of `level_cut`; porosity is (...)."""
        loss = np.clip(level_cut.loss_of_weights(self.weights(u)), 0.0, 2.0)  # but for rounding it is
        covariance = level_cut.autocovariance(loss, np.expand_dims(porosity, -1))
        return level_cut.transform(covariance) @ self.average.T, loss, covariance

    def slopes(self, u, porosity):
        """Signal, and its derivatives by u, (n_q, n_knot)."""
        weights = self.weights(u)
        signal, loss, _ = self(u, porosity)
        changes = (self.basis - weights @ self.basis).T * weights
        changes = -level_cut.covariance_slope(loss, porosity) * level_cut.loss_of_weights(changes)
        return signal, self.average @ level_cut.transform(changes).T


class Posterior:
    """The posterior of a curve at a porosity, in coordinates x: values at the knots, ln A, and B.

    Several x along leading axes, with their porosities, are evaluated at once, but for derivatives.

    Parameters
    ----------
    curve : Curve
        With standard deviations.
    spacing : float
        Of the knots.
    """

    def __init__(self, curve, spacing=SPACING):
        self.curve, self.model = curve, Model(curve, spacing)
        self.n = self.model.spectrum.knots.size
        self.scale = np.abs(curve.intensity).max()  # of the background, whatever the unit of the intensity

    def parts(self, x):
        """Values at the knots, prefactor, background."""
        return x[..., : self.n], np.exp(np.minimum(x[..., -2], 600.0)), self.scale * x[..., -1]

    def weights(self, x):
        """(..., n_k) ndarray: shares of the field's variance of the waves `level_cut.K`, in units of 1/`Model.unit`."""
        return self.model.weights(x[..., : self.n])

    def fitted(self, x, porosity):
        """The curve at x, (..., n_q) ndarray."""
        return self.curve_of(self.model(x[..., : self.n], porosity)[0], x)

    def curve_of(self, signal, x):
        """The curve of a signal of `Model`."""
        _, prefactor, background = self.parts(x)
        return prefactor[..., np.newaxis] * signal + background[..., np.newaxis]

    def data(self, x, porosity):
        """Residuals of the curve in standard deviations."""
        return (self.fitted(x, porosity) - self.curve.intensity) / self.curve.sigma

    def prior(self, x, smoothness):
        """Residuals of the prior; the last is that of the slope at the last knot."""
        rows, means = self.prior_rows(smoothness)
        factor = _LAST_SLOPE[0] - x[..., : self.n] @ self.model.spectrum.end_slopes[1]
        kept = np.maximum(factor, _LEAST_FACTOR)
        last = (np.log(kept / _LAST_SLOPE[1]) + (factor - kept) / kept) / _LAST_SLOPE[2]
        return np.concatenate([x @ rows.T - means, last[..., np.newaxis]], axis=-1)

    def prior_rows(self, smoothness):
        """Of the residuals that are linear in x: a matrix, and what is taken off its product with x."""
        spectrum, n = self.model.spectrum, self.n
        start = spectrum.end_slopes[:1] / _LOW_END[1]
        step = spectrum.knots[1] - spectrum.knots[0]
        width = _FALL[1] / np.sqrt(step / _FALL[2])
        fall = np.diff(np.eye(n), axis=0)[spectrum.knots[1:] > np.log(_FALL_FROM * self.curve.q[-1])] / step / width
        level = np.full((1, n), 0.1 / n)  # of a density that is not normalised: any will do
        rows = np.vstack([spectrum.roughness / smoothness, start, level, fall])
        means = np.zeros(len(rows) + 1)
        means[n] = _LOW_END[0] / _LOW_END[1]
        means[n + 2 : -1] = _FALL[0] / width
        means[-1] = np.log(self.scale / self.model.unit**3) / _ANY_PREFACTOR
        return np.vstack([np.pad(rows, ((0, 0), (0, 2))), np.eye(n + 2)[n] / _ANY_PREFACTOR]), means

    def data_slopes(self, x, porosity):
        """(n_q, n_x) ndarray: derivatives of `data`."""
        u, prefactor, _ = self.parts(x)
        signal, by_u = self.model.slopes(u, porosity)
        columns = [prefactor * by_u, prefactor * signal, np.full(signal.size, self.scale)]
        return np.column_stack(columns) / self.curve.sigma[:, np.newaxis]

    def prior_slopes(self, x, smoothness):
        """Derivatives of `prior`."""
        rows, _ = self.prior_rows(smoothness)
        slope = self.model.spectrum.end_slopes[1]
        last = -slope / _LAST_SLOPE[2] / max(_LAST_SLOPE[0] - slope @ x[: self.n], _LEAST_FACTOR)
        return np.vstack([rows, np.pad(last, (0, 2))])

    def descend(self, x, porosity, smoothness, tolerance=1e-5, evaluations=60, soft=1.0):
        """Least squares from x on, with the standard deviations of the curve times `soft`."""
        with np.errstate(over="ignore"):  # of the square of a step that is far too long, which is then not made
            return least_squares(
                lambda x: np.concatenate([self.data(x, porosity) / soft, self.prior(x, smoothness)]),
                x,
                lambda x: np.vstack([self.data_slopes(x, porosity) / soft, self.prior_slopes(x, smoothness)]),
                x_scale="jac", max_nfev=evaluations, ftol=tolerance, xtol=1e-9, gtol=1e-7,
            )  # fmt: skip
