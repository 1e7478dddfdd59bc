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

with the closed form F of `level_cut`. The smoothness :math:`\tau` is the one with the largest evidence in Laplace's
approximation; draws around its maximum are weighted by the exact posterior.

The shape of a curve hardly tells :math:`\epsilon`, for many porosities have a density that fits, and
:math:`\Gamma \ge 0` gives no more than a bound. It comes from its prior, or, where the contrast :math:`\Delta\rho` of
the phases is known, from the absolute intensity: then :math:`A = \Delta\rho^2`, and the invariant is
:math:`2\pi^2 \Delta\rho^2 \epsilon (1 - \epsilon)`.
"""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.optimize import least_squares
from scipy.special import logsumexp, ndtr

from ..compiled import share_out
from . import level_cut
from .smearing import smearing

POROSITY_LIMITS = (0.01, 0.5)
"""Ends of the uniform prior of the porosity where it comes from the absolute intensity."""

_SPACING = 0.12  # of the knots in ln k
_FIRST_KNOT, _LAST_KNOT = 0.3, 0.8  # over the smallest and the largest q
_CENTRE = 10**-0.5  # of the closed form's nodes, which reach from 1e-3 to 1e2
_LONGEST = 10**4.5  # largest over smallest q
_LOW_END = 0.0, 1.0  # slope of ln density over ln k at the first knot: mean and standard deviation
_FALL = -8.0, 4.0, 0.12  # slope where the density falls: mean, standard deviation, and over which length in ln k
_FALL_FROM = 0.15  # over the largest q
_LAST_SLOPE = -5.0, 4.0, 0.7  # below the first by a factor with this median, and standard deviation of its logarithm
_ANY_PREFACTOR = 20.0  # standard deviation of its logarithm; without one, a fit could lose the signal altogether
_LEAST_FACTOR = 0.05  # from here on the logarithm goes straight on, also to slopes of an infinite area
_SMOOTHNESS = 2.0 ** np.arange(-1, 6)
_FIRST = 3  # of these: where the search begins
_STARTS, _KEPT, _SOFT = 8, 3, 10.0  # first descents, how many of them go on, factor of the standard deviations
_GIVE_UP = 15.0  # loss of log evidence at which a search goes no further
_DROPS, _STEEP = (5.0, 7.0, 9.0, 11.0), -12.0  # of restarts: where ln density falls off below its top, and how steeply
_LEAST_SHARE = 0.05  # of the proposals, around a maximum that matters
_DRAWS = 1000
_BLOCK = 20  # proposals that are evaluated at once
_BATCH, _ENOUGH, _MOST = 400, 200.0, 4800  # proposals are made in batches until they are worth enough draws, or so many
_WINDOW = 0.25  # in ln k, of `sensitivity`
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

    def porosity_of(self, z):
        """Porosity of a coordinate with a standard normal prior."""
        if self.porosity:
            return self.porosity[0] + self.porosity[1] * z
        low, high = POROSITY_LIMITS
        return low + (high - low) * ndtr(z)

    def log_prefactor_of(self, z):
        """ln A of a coordinate, which has a standard normal prior where the contrast is known, else a flat one."""
        if self.contrast is None:
            return z
        mean, sd = self.contrast
        return np.log(_INVARIANT_UNIT * mean**2) + 2 * sd / mean * z


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

    Attributes
    ----------
    knots : (n,) ndarray
        ln k [nm^-1].
    """

    def __init__(self, low, high):
        low, high = np.log(low), np.log(high)
        self.knots = np.linspace(low, high, int(np.ceil((high - low) / _SPACING)) + 1)
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

    def __init__(self, curve):
        q = curve.q
        if q[-1] > _LONGEST * q[0]:
            raise ValueError(
                f"q reaches from {q[0]:.3g} to {q[-1]:.3g} nm^-1, more than {np.log10(_LONGEST):g} decades, which a "
                "free spectral density cannot span; give a q_range"
            )
        self.unit = _CENTRE / np.sqrt(q[0] * q[-1])
        self.spectrum = Spectrum(_FIRST_KNOT * q[0], _LAST_KNOT * q[-1])
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
        """Signal, and its derivatives: (n_q, n_knot) by u, (n_q,) by the porosity."""
        weights = self.weights(u)
        signal, loss, covariance = self(u, porosity)
        changes = (self.basis - weights @ self.basis).T * weights
        changes = -level_cut.covariance_slope(loss, porosity) * level_cut.loss_of_weights(changes)
        step = 1e-5 if porosity < 0.5 else -1e-5
        moved = (level_cut.autocovariance(loss, porosity + step) - covariance) / step
        return signal, self.average @ level_cut.transform(changes).T, self.average @ level_cut.transform(moved)


class Posterior:
    """The posterior of a curve in coordinates x: values at the knots, and one each for porosity, prefactor, background.

    Several x along leading axes are evaluated at once, but for derivatives.

    Parameters
    ----------
    curve : Curve
        With standard deviations.
    settings : Settings
    """

    def __init__(self, curve, settings):
        self.curve, self.settings, self.model = curve, settings, Model(curve)
        self.n = self.model.spectrum.knots.size
        self.scale = np.abs(curve.intensity).max()  # of the background, whatever the unit of the intensity

    def parts(self, x):
        """Values at the knots, porosity, prefactor, background."""
        prefactor = np.exp(np.minimum(self.settings.log_prefactor_of(x[..., -2]), 600.0))
        return x[..., : self.n], self.settings.porosity_of(x[..., -3]), prefactor, self.scale * x[..., -1]

    def weights(self, x):
        """(..., n_k) ndarray: shares of the field's variance of the waves `level_cut.K`, in units of 1/`Model.unit`."""
        return self.model.weights(x[..., : self.n])

    def fitted(self, x):
        """The curve at x, (..., n_q) ndarray."""
        u, porosity, prefactor, background = self.parts(x)
        return self._curve(self.model(u, porosity)[0], prefactor, background)

    @staticmethod
    def _curve(signal, prefactor, background):
        return prefactor[..., np.newaxis] * signal + background[..., np.newaxis]

    def data(self, x):
        """Residuals of the curve in standard deviations."""
        return (self.fitted(x) - self.curve.intensity) / self.curve.sigma

    def prior(self, x, smoothness):
        """Residuals of the prior; the last is that of the slope at the last knot."""
        rows, means = self._prior_rows(smoothness)
        factor = _LAST_SLOPE[0] - x[..., : self.n] @ self.model.spectrum.end_slopes[1]
        kept = np.maximum(factor, _LEAST_FACTOR)
        last = (np.log(kept / _LAST_SLOPE[1]) + (factor - kept) / kept) / _LAST_SLOPE[2]
        return np.concatenate([x @ rows.T - means, last[..., np.newaxis]], axis=-1)

    def _prior_rows(self, smoothness):
        spectrum, n = self.model.spectrum, self.n
        start = spectrum.end_slopes[:1] / _LOW_END[1]
        step = spectrum.knots[1] - spectrum.knots[0]
        width = _FALL[1] / np.sqrt(step / _FALL[2])
        fall = np.diff(np.eye(n), axis=0)[spectrum.knots[1:] > np.log(_FALL_FROM * self.curve.q[-1])] / step / width
        level = np.full((1, n), 0.1 / n)  # of a density that is not normalised: any will do
        rows = np.vstack([spectrum.roughness / smoothness, start, level, fall])
        means = np.zeros(len(rows) + 2)
        means[n] = _LOW_END[0] / _LOW_END[1]
        means[n + 2 : len(rows)] = _FALL[0] / width
        normal = np.eye(n + 3)[n : n + 2]  # of porosity and prefactor
        if self.settings.contrast is None:
            normal[1] /= _ANY_PREFACTOR
            means[-1] = np.log(self.scale / self.model.unit**3) / _ANY_PREFACTOR
        return np.vstack([np.pad(rows, ((0, 0), (0, 3))), normal]), means

    def data_slopes(self, x):
        """(n_q, n_x) ndarray: derivatives of `data`."""
        u, porosity, prefactor, _ = self.parts(x)
        signal, by_u, by_porosity = self.model.slopes(u, porosity)
        h = 1e-6
        porosity_slope = (self.settings.porosity_of(x[-3] + h) - porosity) / h
        prefactor_slope = self.settings.log_prefactor_of(x[-2] + 1) - self.settings.log_prefactor_of(x[-2])
        columns = prefactor * np.column_stack([by_u, porosity_slope * by_porosity, prefactor_slope * signal])
        return np.column_stack([columns, np.full(signal.size, self.scale)]) / self.curve.sigma[:, np.newaxis]

    def prior_slopes(self, x, smoothness):
        """Derivatives of `prior`."""
        rows, _ = self._prior_rows(smoothness)
        slope = self.model.spectrum.end_slopes[1]
        last = -slope / _LAST_SLOPE[2] / max(_LAST_SLOPE[0] - slope @ x[: self.n], _LEAST_FACTOR)
        return np.vstack([rows, np.pad(last, (0, 3))])

    def descend(self, x, smoothness, tolerance=1e-5, evaluations=60, soft=1.0):
        """Least squares from x on, with the standard deviations of the curve times `soft`."""
        return least_squares(
            lambda x: np.concatenate([self.data(x) / soft, self.prior(x, smoothness)]),
            x,
            lambda x: np.vstack([self.data_slopes(x) / soft, self.prior_slopes(x, smoothness)]),
            x_scale="jac", max_nfev=evaluations, ftol=tolerance, xtol=1e-9, gtol=1e-7,
        )  # fmt: skip

    def maximum(self, x, smoothness, tolerance=1e-5):
        """The `Maximum` near x."""
        found = self.descend(x, smoothness, tolerance)
        data = self.data_slopes(found.x)
        slopes = np.vstack([data, self.prior_slopes(found.x, smoothness)])
        rows, _ = self._prior_rows(smoothness)
        rows = rows[:, : self.n]
        log_evidence = -found.cost + (np.linalg.slogdet(rows.T @ rows)[1] - np.linalg.slogdet(slopes.T @ slopes)[1]) / 2
        used = np.trace(np.linalg.solve(slopes.T @ slopes, data.T @ data))
        return Maximum(found.x, smoothness, found.cost, slopes, log_evidence, used)

    def shortened(self, x):
        """Coordinates whose densities fall off where that of x has dropped far below its top."""
        u, knots = x[: self.n], self.model.spectrum.knots
        found = []
        for drop in _DROPS:
            end = np.flatnonzero(u > u.max() - drop)[-1]
            one = x.copy()
            one[end : self.n] = u[end] + _STEEP * (knots[end:] - knots[end])
            found.append(one)
        return found

    def starts(self):
        """Coordinates whose densities bend at different k, after a descent with soft data, the best first."""
        q, knots = self.curve.q, self.model.spectrum.knots
        found = []
        for bend in np.linspace(np.log(q[0]), knots[-1], _STARTS):
            x = np.zeros(self.n + 3)
            x[: self.n] = -2 * np.logaddexp(0, 4 * (knots - bend))
            x[: self.n] -= x[: self.n].mean()
            u, porosity, *_ = self.parts(x)
            signal = self.model(u, porosity)[0]
            matrix = np.column_stack([signal, np.full(q.size, self.scale)]) / self.curve.sigma[:, np.newaxis]
            prefactor, x[-1] = np.linalg.lstsq(matrix, self.curve.intensity / self.curve.sigma)[0]
            if self.settings.contrast is None:
                x[-2] = np.log(np.maximum(prefactor, 1e-3 * self.scale / signal.max()))
            found.append(self.descend(x, _SMOOTHNESS[_FIRST], 1e-3, 15, soft=_SOFT))
        return [one.x for one in sorted(found, key=lambda one: one.cost)]


@dataclass(frozen=True)
class Maximum:
    """A maximum of the posterior.

    Attributes
    ----------
    x : (n_x,) ndarray
    smoothness : float
        The standard deviation tau of the curvature.
    cost : float
        Half the sum of the squares of all residuals.
    slopes : (n, n_x) ndarray
        Their derivatives.
    log_evidence : float
        In Laplace's approximation.
    used : float
        Parameters that the data determine.
    triangle : (n_x, n_x) ndarray
        Its product with its transpose on the left is the curvature of the cost.
    """

    x: np.ndarray
    smoothness: float
    cost: float
    slopes: np.ndarray
    log_evidence: float
    used: float

    @cached_property
    def triangle(self):
        return np.linalg.qr(self.slopes, mode="r")

    def square(self, x):
        """Sum of squares of the residuals of its normal approximation, but for those at the maximum; x is (n, n_x)."""
        return np.sum(((x - self.x) @ self.triangle.T) ** 2, axis=1)

    @property
    def log_volume(self):
        """Logarithm of the normalisation of exp(-square/2)."""
        return self.x.size / 2 * np.log(2 * np.pi) - np.log(np.abs(np.diag(self.triangle))).sum()


def find(posterior):
    """The maxima of the posterior at the smoothness with the largest evidence, the best first; a list of `Maximum`.

    A density that goes on level imitates a background, so one that ends sooner may be likely, too.
    """
    best = _smoothest(posterior)
    found = [best]
    for start in posterior.shortened(best.x):
        one = posterior.maximum(start, best.smoothness, 1e-8)
        if (
            one.log_evidence > best.log_evidence - _GIVE_UP / 2
            and min(two.square(one.x[np.newaxis]) for two in found) > 4
        ):
            found.append(one)
    return sorted(found, key=lambda one: -one.log_evidence)


def _smoothest(posterior):
    """The `Maximum` at the smoothness with the largest evidence, from smooth starts."""
    first = max(
        (posterior.maximum(x, _SMOOTHNESS[_FIRST]) for x in posterior.starts()[:_KEPT]),
        key=lambda one: one.log_evidence,
    )
    found = [first]
    for values in (_SMOOTHNESS[_FIRST + 1 :], _SMOOTHNESS[:_FIRST][::-1]):
        last = first
        for smoothness in values:
            last = posterior.maximum(last.x, smoothness)
            found.append(last)
            if last.log_evidence < max(one.log_evidence for one in found) - _GIVE_UP:
                break
    best = max(found, key=lambda one: one.log_evidence)
    near = [posterior.maximum(best.x, best.smoothness * factor, 1e-8) for factor in (2**-0.5, 1, 2**0.5)]
    return max(near, key=lambda one: one.log_evidence)


def sensitivity(posterior, maximum, k):
    """Standard deviations by which the curve would change, to first order, if the density near k went to zero.

    Near is within 0.25 in ln k, fading out; what prefactor and background make good for does not count.

    Parameters
    ----------
    posterior : Posterior
    maximum : Maximum
    k : (n_k,) ndarray
        [nm^-1]

    Returns
    -------
    (n_k,) ndarray
    """
    slopes = maximum.slopes[: posterior.curve.q.size]
    near = np.maximum(0, 1 - np.abs(posterior.model.spectrum.knots[:, np.newaxis] - np.log(k)) / _WINDOW)
    change = slopes[:, : posterior.n] @ near
    linear = np.linalg.qr(slopes[:, -2:])[0]
    return np.linalg.norm(change - linear @ (linear.T @ change), axis=0)


@dataclass(frozen=True)
class Draws:
    """Draws from the posterior, n of them.

    Attributes
    ----------
    x : (n, n_x) ndarray
        Coordinates.
    porosity, prefactor, background, surface : (n,) ndarray
        The prefactor is of the intensity of a unit volume; surface is the area of the interfaces in a volume [1/nm].
    log_density : (n, n_k) ndarray
        Logarithm of the spectral density [nm^3], where the integral of k^2 times it is one.
    correlation, two_point : (n, n_r) ndarray
        Of the field; and the probability that two points at a distance are both in the pores.
    effective : float
        Number of independent draws that they are worth.
    log_evidence : float
    """

    x: np.ndarray
    porosity: np.ndarray
    prefactor: np.ndarray
    background: np.ndarray
    surface: np.ndarray
    log_density: np.ndarray
    correlation: np.ndarray
    two_point: np.ndarray
    effective: float
    log_evidence: float


def draw(posterior, maxima, k, r, rng):
    """`Draws` from the posterior around its maxima, with densities at k [nm^-1] and correlations at r [nm]."""
    basis = posterior.model.spectrum.basis(k)
    shares = np.exp([one.log_evidence - maxima[0].log_evidence for one in maxima])
    shares = np.maximum(shares / shares.sum(), _LEAST_SHARE)
    shares /= shares.sum()
    found, log_weights, effective = [], np.empty(0), 0.0
    while effective < _ENOUGH and log_weights.size < _MOST:
        chosen = rng.choice(len(maxima), _BATCH, p=shares)
        normal = rng.standard_normal((_BATCH, maxima[0].x.size))
        x = np.array(
            [maxima[i].x + np.linalg.solve(maxima[i].triangle, z) for i, z in zip(chosen, normal, strict=True)]
        )
        log_density = np.array(
            [np.log(a) - b.square(x) / 2 - b.log_volume for a, b in zip(shares, maxima, strict=True)]
        )
        columns, square = _evaluate(posterior, x, maxima[0].smoothness, basis, r)
        found.append(columns)
        more = -square / 2 - np.logaddexp.reduce(log_density, axis=0)
        log_weights = np.append(log_weights, np.where(np.isfinite(more), more, -np.inf))
        weights = np.exp(log_weights - log_weights.max())
        effective = weights.sum() ** 2 / np.sum(weights**2)
    # Over the same constant as the evidence of a maximum.
    constant = maxima[0].log_evidence + maxima[0].cost - maxima[0].log_volume
    log_evidence = np.log(weights.mean()) + log_weights.max() + constant
    chosen = rng.choice(log_weights.size, _DRAWS, p=weights / weights.sum())
    return Draws(*(np.concatenate(column)[chosen] for column in zip(*found, strict=True)), effective, log_evidence)


def _evaluate(posterior, x, smoothness, basis, r):
    """What `Draws` holds of each x, in its order; and the sums of the squares of all residuals."""
    blocks = {}

    def work(slices):
        for block in slices:
            blocks[block.start] = _evaluate_block(posterior, x[block], smoothness, basis, r)

    share_out(work, len(x), _BLOCK)
    *columns, square = (np.concatenate(column) for column in zip(*(blocks[i] for i in sorted(blocks)), strict=True))
    return columns, square


def _evaluate_block(posterior, x, smoothness, basis, r):
    model = posterior.model
    u, porosity, prefactor, background = posterior.parts(x)
    signal, loss, covariance = model(u, porosity)
    residuals = (posterior._curve(signal, prefactor, background) - posterior.curve.intensity) / posterior.curve.sigma
    square = np.sum(residuals**2, axis=1) + np.sum(posterior.prior(x, smoothness) ** 2, axis=1)
    g = 1 - level_cut.at_distance(loss, r / model.unit)
    two_point = porosity[:, np.newaxis] ** 2 + level_cut.at_distance(covariance, r / model.unit)
    surface = level_cut.specific_surface(loss, porosity) / model.unit
    log_density = u @ basis.T - model.log_norm(u)[:, np.newaxis]
    return x, porosity, prefactor, background, surface, log_density, g, two_point, square
