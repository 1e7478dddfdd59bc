r"""The model of a measured curve that fits and posteriors share, prepared from an emulator.

The log intensity y, averaged over some q values and divided by its own invariant, is taken as normal,

.. math:: y \sim N\big(\mu(a e^u, \epsilon, \nu),\; S R S + N\big), \qquad u \sim N(0, \sigma_u^2),

with the mean :math:`\mu` of the emulator, the residual of a box (deviations S and correlations R of similar structures)
and the measurement noise N. Tables hold all of it, so that a value takes microseconds.
"""

from dataclasses import dataclass, replace

import numpy as np

from ..emulator.coordinates import from_coordinates, layer_nanometres, prior_limits, to_coordinates
from ..grid import PAPER_Q
from ..measurement.preprocess import average, porod_invariant
from ..parameters import check
from .optimise import covariance_factors
from .settings import Settings
from .spline import collocation_matrix, collocation_points, look_up

_AT_A_TIME = 1024  # points whose curves are held in memory
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
    """

    emulator: object
    settings: Settings
    edges: np.ndarray
    table: np.ndarray
    deviation: np.ndarray
    correlations: np.ndarray
    thickness: np.ndarray
    shift_scale: float = 1.0

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
        """(n_sample, n_bin, n_bin) ndarray: Cholesky factors of S R S + N for curves of structures at points."""
        knots = knot_positions(self.case, points, self.settings)
        shares = self.invariant_shares(curves)
        return covariance_factors(points, variance, shares, self.deviation, self.correlations, knots)

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
        curves, deviation = self.expected(theta)
        residual = deviation * self.correlated(to_coordinates(self.case, theta), rng)
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
        return replace(self, deviation=shrunk * self.deviation, shift_scale=shrunk * self.shift_scale)


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
