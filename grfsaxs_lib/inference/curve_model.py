r"""The model of a measured curve that fits and posteriors share, prepared from an emulator.

The log intensity y, averaged over some q values and divided by its own invariant, is taken as normal,

.. math:: y \sim N\big(\mu(a e^u, \epsilon, \nu),\; S R S + J Q J^T + N\big), \qquad u \sim N(0, \sigma_u^2),

with the mean :math:`\mu` of the emulator, the residual of a box (deviations S and correlations R of similar structures)
and the measurement noise N. Tables hold all of it, so that a value takes microseconds.

**Offsets.** What the emulated mean gets wrong varies slowly with the parameters. It looks like other parameters, in
directions along which S R S is small. Q is the covariance of these offsets, and J holds the derivatives of
:math:`\mu`. Without `calibrated`, which learns Q from curves that the emulator has not seen, it is 0. It is relative
to the covariance of the parameters that the box leaves,

.. math:: Q = K\, (J^T (S R S)^{-1} J)^{-1} K, \qquad K = \mathrm{diag}(k_a, k_\epsilon, k_d),

with a polynomial of the coordinates for the logarithm of each :math:`k^2`.
"""

from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import minimize

from ..emulator.coordinates import coordinate_ends, from_coordinates, layer_nanometres, prior_limits, to_coordinates
from ..emulator.residuals import polynomials_at
from ..grid import PAPER_Q
from ..measurement.preprocess import average, porod_invariant
from ..parameters import check
from .optimise import covariance_factors, informations
from .settings import Settings
from .spline import collocation_matrix, collocation_points, look_up

_AT_A_TIME = 1024  # points whose curves are held in memory
_LARGEST = 8.0  # coefficient of the offsets; a bound that keeps their exponentials finite
_NEIGHBOURS_AT_A_TIME = 32  # points of which all q of their neighbours are


@dataclass(frozen=True, eq=False)
class CurveModel:
    """Tables of the mean, the deviations and the correlations of averaged curves, from `build`.

    Attributes
    ----------
    emulator : Emulator
    settings : Settings
    edges : (n_bin,) ndarray
        First q value of each average.
    table : (n_a, n_porosity, n_thickness, n_bin) ndarray of float32
        Spline coefficients of the averaged mean curves; axes that a case does not have are of length 1.
    deviation : (n_a, n_porosity, n_thickness, n_bin) ndarray
        S, on fewer points.
    correlations : (n_knot, n_bin, n_bin) ndarray
        R, see `knot_positions`.
    thickness : (2, n) ndarray
        Least and largest coordinate of the layer, on even porosities.
    shift_scale : float
        Standard deviation of the scale shift relative to that of the emulated box.
    offsets : (n_output, n_term) ndarray or None
        Coefficients of ln k^2, from `calibrated`.
    """

    emulator: object
    settings: Settings
    edges: np.ndarray
    table: np.ndarray
    deviation: np.ndarray
    correlations: np.ndarray
    thickness: np.ndarray
    shift_scale: float = 1.0
    offsets: np.ndarray | None = None

    @property
    def case(self):
        return self.emulator.case

    @property
    def n_output(self):
        return len(self.case.outputs)

    def average_variance(self, variance):
        """Variance (n_sample, n_bin) of averages over independent values of variance (n_sample, n_q)."""
        return average(variance, self.edges) / np.diff(self.edges, append=PAPER_Q.size)

    def invariant_shares(self, curves):
        """(n_sample, n_bin) ndarray: shares of the averages in the invariant."""
        shares = np.exp(curves) * np.add.reduceat(PAPER_Q**2 * np.gradient(PAPER_Q), self.edges)
        return shares / shares.sum(axis=1, keepdims=True)

    def expected(self, theta):
        """Averaged mean curves and deviations S, (n_sample, n_bin) ndarrays, at parameters (n_sample, n_output)."""
        return look_up(padded(to_coordinates(self.case, theta)), self.table, self.deviation)

    def factors(self, curves, variance, points):
        """(n_sample, n_bin, n_bin) ndarray: Cholesky factors of S R S + J Q J^T + N for structures at points."""
        return self._factors(points, variance, self.invariant_shares(curves), self.offset_covariance(points))

    def offset_covariance(self, points):
        """Q (n_sample, 3, 3), of coordinates, at points (n_sample, 3)."""
        p = self.n_output
        Q = np.zeros((len(points), 3, 3))
        if self.offsets is not None:
            k = np.exp(polynomials_at(points[:, :p], self.settings.offset_degree) @ self.offsets.T / 2)
            Q[:, :p, :p] = self.box_covariance(points) * k[:, :, np.newaxis] * k[:, np.newaxis]
        return Q

    def box_covariance(self, points):
        """(n_sample, n_output, n_output) ndarray: covariance of the coordinates that S R S alone leaves at points."""
        none = np.zeros((len(points), self.edges.size))
        factors = self._factors(points, none, none, np.zeros((len(points), 3, 3)))
        return np.linalg.inv(informations(points, factors, self.table)[:, : self.n_output, : self.n_output])

    def _factors(self, points, variance, shares, Q):
        knots = knot_positions(self.case, points, self.settings)
        return covariance_factors(points, variance, shares, self.deviation, self.correlations, knots, Q, self.table)

    def scale_shift_sd(self, theta):
        """(n_sample,) ndarray: standard deviation of the scale shift; positive in an infinite box too."""
        return np.maximum(self.shift_scale * self.emulator.scale_shift_sd(theta), 1e-12)

    def log_prior(self, x):
        """Log density of coordinates (..., n_output) under the uniform prior of the parameters, less a constant."""
        h = 1e-4
        x = np.clip(x, -1, 1)
        theta = from_coordinates(self.case, x)
        result = np.log(theta[..., 0])
        if self.n_output == 3:
            shift = np.array([0, 0, h])
            above, below = (from_coordinates(self.case, x + sign * shift)[..., 2] for sign in (1, -1))
            result += np.log(np.maximum(above - below, 1e-12))
        return result

    def draw(self, parameters, noise_level, rng):
        """Draw averaged curves from this model, see `Likelihood.draw`."""
        intensity = np.exp(self.emulator.mean(parameters))
        columns = [parameters[output] for output in self.case.outputs]
        theta = np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), axis=1).astype(np.float64)
        noise_level = np.broadcast_to(check("noise_level", noise_level), len(theta))
        variance = self.average_variance(np.log1p(noise_level[:, np.newaxis] / intensity))
        theta[:, 0] *= np.exp(self.scale_shift_sd(theta) * rng.standard_normal(len(theta)))
        points = padded(to_coordinates(self.case, theta))
        _, deviation = look_up(points, self.table, self.deviation)
        residual = deviation * self.correlated(points, rng)
        if self.offsets is not None:
            p = self.n_output
            factors = np.linalg.cholesky(self.offset_covariance(points)[:, :p, :p])
            points[:, :p] += np.einsum("nij,nj->ni", factors, rng.standard_normal((len(points), p)))
        curves, _ = look_up(np.clip(points, -1, 1), self.table, self.deviation)
        noise = np.sqrt(variance) * rng.standard_normal(curves.shape)
        noise -= np.sum(self.invariant_shares(curves) * noise, axis=1, keepdims=True)
        return curves + residual + noise, variance

    def correlated(self, points, rng):
        """(n_sample, n_bin) ndarray: normal numbers with the correlations R at points."""
        position = knot_positions(self.case, points, self.settings)
        total = np.zeros((len(points), self.edges.size))
        for n, factor in enumerate(np.linalg.cholesky(self.correlations)):
            share = np.maximum(1 - np.abs(position - n), 0)  # at most two knots have a share in R
            mine = share > 0
            normal = rng.standard_normal((mine.sum(), self.edges.size))
            total[mine] += np.sqrt(share[mine, np.newaxis]) * (normal @ factor.T)
        return total

    def in_volume(self, volume):
        """The model of curves of another box, see `Likelihood.in_volume`."""
        shrunk = 1 / np.sqrt(volume)
        offsets = self.offsets if np.isfinite(volume) else None  # relative to S R S, which leaves nothing
        return replace(self, deviation=shrunk * self.deviation, shift_scale=shrunk * self.shift_scale, offsets=offsets)


def build(emulator, settings):
    """Tabulate what an emulator says of averaged curves.

    Parameters
    ----------
    emulator : Emulator
    settings : Settings

    Returns
    -------
    CurveModel
    """
    narrow = range(0, settings.narrow_until, settings.narrow)
    edges = np.array([*narrow, *range(settings.narrow_until, PAPER_Q.size, settings.wide)])
    thickness = _thickness_bounds(emulator.case)
    table = _tabulate(emulator, edges, settings)
    deviation, correlations = _scatter(emulator, edges, thickness, settings)
    return CurveModel(emulator, settings, edges, table, deviation, correlations, thickness)


def calibrated(model, theta, draws):
    """Learn the offsets, and the size of the scale shift, from posteriors of curves that the emulator has not seen.

    The covariance of a posterior and Q together should be that of its mean around the truth. The coefficients of Q and
    `shift_scale` make the true parameters most likely, under a normal prior of the change of its logarithm and of all
    coefficients but the constants.

    Parameters
    ----------
    model : CurveModel
        Without offsets.
    theta : (n_sample, n_output) ndarray
        True parameters.
    draws : (n_sample, n_draws, n_output) ndarray
        From their posteriors.

    Returns
    -------
    CurveModel
    """
    case, p, settings = model.case, model.n_output, model.settings
    drawn = to_coordinates(case, draws.reshape(-1, p)).reshape(draws.shape)
    means = drawn.mean(axis=1)
    away = drawn - means[:, np.newaxis]
    stated = np.einsum("nki,nkj->nij", away, away) / (drawn.shape[1] - 1)
    error = means - to_coordinates(case, theta)
    box, basis = model.box_covariance(padded(means)), polynomials_at(means, settings.offset_degree)
    low, high = coordinate_ends(case)[:, 0]
    shift = 2 / (high - low) * model.scale_shift_sd(draws.mean(axis=1))
    share = np.minimum(shift**2 / stated[:, 0, 0], 1)  # of the scale shift in the variance of ln a

    def cost(unknowns):
        """Negative log posterior of the coefficients and of the change of ln `shift_scale`, less a constant."""
        coefficients = unknowns[:-1].reshape(p, -1)
        k, grown = np.exp(basis @ coefficients.T / 2), np.ones((len(basis), p))
        grown[:, 0] = np.sqrt(1 + np.expm1(2 * unknowns[-1]) * share)
        total = stated * grown[:, :, np.newaxis] * grown[:, np.newaxis]
        total += box * k[:, :, np.newaxis] * k[:, np.newaxis]
        square = np.einsum("ni,ni->n", error, np.linalg.solve(total, error[..., np.newaxis])[..., 0])
        prior = np.sum(coefficients[:, 1:] ** 2) / settings.offset_variation**2
        prior += unknowns[-1] ** 2 / settings.shift_variation**2
        return (np.sum(np.log(np.linalg.det(total)) + square) + prior) / 2

    n = p * basis.shape[1] + 1
    best = minimize(cost, np.zeros(n), method="L-BFGS-B", bounds=[(-_LARGEST, _LARGEST)] * n).x
    return replace(model, offsets=best[:-1].reshape(p, -1), shift_scale=model.shift_scale * np.exp(best[-1]))


def padded(x):
    """Coordinates with a third axis, at 0 in two phases."""
    return np.concatenate([x, np.zeros((*x.shape[:-1], 3 - x.shape[-1]))], axis=-1)


def knot_positions(case, x, settings):
    """(n_sample,) ndarray: positions of coordinates among the knots of R, even in the length that residuals vary with.

    That is a in two phases. In three it is the thickness of the layer, whose waves make residuals oscillate along q; by
    a alone correlations are averages over their phases.
    """
    if len(case.outputs) == 2:
        share = (x[:, 0] + 1) / 2
    else:
        thin, thick = np.log(settings.layers)
        share = (np.log(layer_nanometres(case, x)) - thin) / (thick - thin)
    return np.clip(share, 0, 1) * (settings.correlation_knots - 1)


def _thickness_bounds(case):
    """(2, 65) ndarray: coordinates of the thinnest and the thickest layer of the prior, on even porosities."""
    if len(case.outputs) == 2:
        return np.array([np.full(65, -1.0), np.full(65, 1.0)])
    porosity = np.linspace(*case.ranges["porosity"], 65)
    ends = [np.column_stack([np.ones(65), porosity, np.full(65, end)]) for end in case.ranges["layer_fraction"]]
    return np.array([to_coordinates(case, theta)[:, 2] for theta in ends])


def _tabulate(emulator, edges, settings):
    """Spline coefficients of the averaged mean curves."""
    n = len(emulator.case.outputs)

    def mean(x):
        curves = emulator.mean_at(x)
        invariant = porod_invariant(np.exp(curves), PAPER_Q)
        return average(curves, edges) - np.log(4 * np.pi * invariant)[:, np.newaxis]

    size = (*settings.table[:n], *[1] * (3 - n))
    table = _in_blocks(mean, _grid([collocation_points(m) for m in size[:n]])).reshape(*size, -1)
    for axis, m in enumerate(size):
        table = np.moveaxis(np.tensordot(np.linalg.inv(collocation_matrix(m)), table, (1, axis)), 0, axis)
    return np.ascontiguousarray(table, dtype=np.float32)


def _scatter(emulator, edges, thickness, settings):
    """Deviations S on the grid of their table, and the correlations R of residuals at their knots."""
    case, q, n = emulator.case, PAPER_Q, len(emulator.case.outputs)
    low, high = prior_limits(case)
    count = max(round(settings.local_share[n - 2] * len(emulator.structures)), settings.least_local)

    def local(x):
        """(n_point, n_near, n_bin) ndarray: averaged residuals of the structures nearest to points."""
        theta = np.clip(from_coordinates(case, x), low, high)
        parameters = dict(zip(case.outputs, theta.T, strict=True))
        # Normalised to first order: what a residual adds to the invariant is common to all q.
        weights = np.exp(emulator.mean(parameters)) * q**2 * np.gradient(q)
        weights /= weights.sum(axis=1, keepdims=True)
        residuals = emulator.residuals(parameters, count)[1]
        return average(residuals - np.einsum("nkq,nq->nk", residuals, weights)[..., np.newaxis], edges)

    def rms(x):
        return np.sqrt(np.mean(local(x) ** 2, axis=1))

    def standardised(x):
        residuals = local(x)
        return residuals[:, 0] / np.sqrt(np.mean(residuals**2, axis=1))  # the nearest is the structure's own

    size = (*settings.deviation_table[:n], *[1] * (3 - n))
    grid = _grid([np.linspace(-1, 1, m) for m in size[:n]])
    if n == 3:
        even = np.linspace(-1, 1, thickness.shape[1])
        grid[:, 2] = np.clip(grid[:, 2], *(np.interp(grid[:, 1], even, bound) for bound in thickness))
    deviation = _in_blocks(rms, grid, _NEIGHBOURS_AT_A_TIME).reshape(*size, -1)
    points = to_coordinates(case, emulator.structures)
    residuals = np.clip(_in_blocks(standardised, points, _NEIGHBOURS_AT_A_TIME), -settings.clip, settings.clip)
    return deviation, _correlations(residuals, knot_positions(case, points, settings), n, settings)


def _correlations(residuals, positions, n_output, settings):
    """R at its knots, from standardised residuals (n_structure, n_bin) of structures at positions among them."""
    nearest = [
        np.argsort(np.abs(positions - knot))[: settings.near_knot[n_output - 2]]
        for knot in range(settings.correlation_knots)
    ]
    correlations = settings.local_weight * np.array([np.corrcoef(residuals[rows].T) for rows in nearest])
    correlations += (1 - settings.local_weight) * np.corrcoef(residuals.T)
    return (1 - settings.shrinkage) * correlations + settings.shrinkage * np.eye(residuals.shape[1])


def _grid(axes):
    """(n_point, n_axis) ndarray: all points of a grid."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _in_blocks(function, points, size=_AT_A_TIME):
    return np.concatenate([function(points[start : start + size]) for start in range(0, len(points), size)])
