r"""Maxima of the likelihood: Levenberg-Marquardt steps from the closest curves of a starting grid.

In three phases the likelihood has side maxima, for porosity and layer fraction can change together at almost the same
layer, and waves fit again after a period. So the optimisation starts at several porosities, from the closest there of
curves that fill the prior.

Points are (..., 3) coordinates from -1 to 1; tables are those of `spline`. The first part is compiled.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from .spline import evaluate, evaluate_alone, interpolate, jit, look_up, nodes, over_samples

_STEPS = 15  # at most
_LONGEST = 0.3  # step


class Maxima(NamedTuple):
    """Where optimisations ended.

    Attributes
    ----------
    points : (n_sample, n_start, 3) ndarray
    values : (n_sample, n_start) ndarray
        Log likelihoods, less what the covariance alone sets.
    information : (n_sample, n_start, 3, 3) ndarray
        Gauss-Newton curvature.
    gradients : (n_sample, n_start, 3) ndarray
    """

    points: np.ndarray
    values: np.ndarray
    information: np.ndarray
    gradients: np.ndarray

    def best(self):
        """That of the largest value for each sample; arrays lose their second axis."""
        rows = np.arange(len(self.values)), self.values.argmax(axis=1)
        return Maxima(*(array[rows] for array in self))


def covariance_factors(points, variance, shares, deviation, correlations, positions, offsets, table):
    """(n_sample, n_bin, n_bin) ndarray: lower triangular L, S R S + J Q J^T + N = L L^T at the points.

    R is interpolated between the `correlations` (n_knot, n_bin, n_bin), at `positions` among them. Curves are
    divided by their invariant, to which the averages contribute `shares` w, so noise of diagonal variance D becomes
    N = (1 - 1 w^T) D (1 - w 1^T). That leaves no noise along w; what the invariant has is added once more. The
    `offsets` Q (n_sample, 3, 3) are a covariance of coordinates, and J the derivatives of the `table` along these.
    """
    factors = np.zeros((*variance.shape, variance.shape[1]))
    tables = points, variance, shares, deviation, correlations, positions, offsets, table, factors
    over_samples(_covariance_factors, len(variance), *tables)
    return factors


def informations(points, factors, table):
    """(n_sample, 3, 3) ndarray: J^T C^-1 J at points (n_sample, 3), with the `covariance_factors` of C.

    J are the derivatives of the averaged curves of the `table` along the coordinates.
    """
    result = np.empty((len(points), 3, 3))
    over_samples(_informations, len(points), points, factors, table, result)
    return result


@jit
def _dot(one, other):
    total = 0.0
    for i in range(one.size):
        total += one[i] * other[i]
    return total


@jit
def _covariance_factors(
    first, last, points, variance, shares, deviation, correlations, positions, offsets, table, factors
):
    n_bin = variance.shape[1]
    for m in range(first, last):
        S, weights, slopes, L = np.empty(n_bin), np.empty((3, 4)), np.empty((3, 4)), factors[m]
        J, QJ = np.zeros((4, n_bin)), np.zeros((3, n_bin))
        if offsets[m, 0, 0] > 0:
            evaluate(table, points[m], weights, slopes, J)
            for p in range(3):
                for q in range(3):
                    for i in range(n_bin):
                        QJ[p, i] += offsets[m, p, q] * J[q + 1, i]
        common = shares[m] * variance[m]
        invariant = _dot(shares[m], common)
        interpolate(deviation, points[m], weights, S)
        low = min(int(positions[m]), len(correlations) - 2)
        share = positions[m] - low
        below, above = correlations[low], correlations[low + 1]
        for i in range(n_bin):
            for j in range(i + 1):
                R = (1 - share) * below[i, j] + share * above[i, j]
                total = S[i] * S[j] * R - common[i] - common[j] + 2 * invariant
                total += J[1, i] * QJ[0, j] + J[2, i] * QJ[1, j] + J[3, i] * QJ[2, j]
                for k in range(j):
                    total -= L[i, k] * L[j, k]
                if i == j:
                    L[i, i] = np.sqrt(total + variance[m, i])
                else:
                    L[i, j] = total / L[j, j]


@jit
def _whiten(L, rows):
    """Replace rows by their solutions of L z = row."""
    for i in range(L.shape[0]):
        for r in range(rows.shape[0]):
            total = rows[r, i]
            for k in range(i):
                total -= L[i, k] * rows[r, k]
            rows[r, i] = total / L[i, i]


@jit
def _informations(first, last, points, factors, table, informations):
    for m in range(first, last):
        weights, slopes, value = np.empty((3, 4)), np.empty((3, 4)), np.empty((4, factors.shape[1]))
        evaluate(table, points[m], weights, slopes, value)
        _whiten(factors[m], value)
        for p in range(3):
            for q in range(3):
                informations[m, p, q] = _dot(value[p + 1], value[q + 1])


@jit
def _inside(x, thickness):
    """Bounds of the third coordinate at the porosity of x, which is moved inside all bounds."""
    x[0], x[1] = min(max(x[0], -1.0), 1.0), min(max(x[1], -1.0), 1.0)
    n = thickness.shape[1]
    position = (x[1] + 1) * (n - 1) / 2
    i = min(int(position), n - 2)
    position -= i
    low = thickness[0, i] * (1 - position) + thickness[0, i + 1] * position
    high = thickness[1, i] * (1 - position) + thickness[1, i + 1] * position
    x[2] = min(max(x[2], low), high)
    return low, high


@jit
def _measure(curve, L, x, table, weights, slopes, value, information, gradient):
    """Log likelihood at x, less what the covariance alone sets; writes information and gradient."""
    evaluate(table, x, weights, slopes, value)
    for b in range(curve.size):
        value[0, b] = curve[b] - value[0, b]
    _whiten(L, value)
    for p in range(3):
        gradient[p] = _dot(value[p + 1], value[0])
        for q in range(3):
            information[p, q] = _dot(value[p + 1], value[q + 1])
    return -_dot(value[0], value[0]) / 2


@jit
def _solve(matrix, right):
    """Replace `right` by the solution of a positive definite system; NumPy's solver takes seconds to compile."""
    n = right.size
    for k in range(n):
        for i in range(k + 1, n):
            factor = matrix[i, k] / matrix[k, k]
            for j in range(k, n):
                matrix[i, j] -= factor * matrix[k, j]
            right[i] -= factor * right[k]
    for k in range(n - 1, -1, -1):
        for j in range(k + 1, n):
            right[k] -= matrix[k, j] * right[j]
        right[k] /= matrix[k, k]


@jit
def _optimise(first, last, curves, factors, table, thickness, n_output, points, values, informations, gradients):
    n_start = points.shape[1]
    for m in range(first, last):
        weights, slopes, value = np.empty((3, 4)), np.empty((3, 4)), np.empty((4, curves.shape[1]))
        tried, slope_tried = np.empty((3, 3)), np.empty(3)
        matrix, step, new = np.empty((3, 3)), np.empty(3), np.empty(3)
        low, high = np.empty(3), np.empty(3)
        low[:], high[:] = -1.0, 1.0
        for k in range(n_start):
            x, information, slope = points[m, k], informations[m, k], gradients[m, k]
            low[2], high[2] = _inside(x, thickness)
            best = _measure(curves[m], factors[m], x, table, weights, slopes, value, information, slope)
            damping = 1e-3
            for _ in range(_STEPS):
                for p in range(3):
                    step[p] = 0.0
                    for q in range(3):
                        matrix[p, q] = 1.0 if p == q else 0.0
                for p in range(n_output):
                    if (x[p] > low[p] or slope[p] > 0) and (x[p] < high[p] or slope[p] < 0):
                        step[p] = slope[p]
                        for q in range(n_output):
                            if (x[q] > low[q] or slope[q] > 0) and (x[q] < high[q] or slope[q] < 0):
                                matrix[p, q] = information[p, q]
                        matrix[p, p] = information[p, p] * (1 + damping)
                _solve(matrix, step)
                longest = max(abs(step[0]), abs(step[1]), abs(step[2]))
                for p in range(3):
                    new[p] = x[p] + step[p] * min(1.0, _LONGEST / (longest + 1e-300))
                bounds = _inside(new, thickness)
                found = _measure(curves[m], factors[m], new, table, weights, slopes, value, tried, slope_tried)
                if found >= best:
                    converged = found - best < 0.001 and damping < 0.1
                    x[:], information[:], slope[:] = new, tried, slope_tried
                    best, low[2], high[2] = found, bounds[0], bounds[1]
                    if converged:
                        break
                    damping *= 0.2
                else:
                    damping = max(10 * damping, 0.1)
                    if damping > 1e6:
                        break
            values[m, k] = best


def log_likelihoods(curves, factors, points, table, thickness):
    """(n_sample, n_point) ndarray: log likelihoods at points (n_sample, n_point, 3), -inf outside the prior."""
    values = np.empty(points.shape[:2])
    over_samples(_log_likelihoods, len(points), curves, factors, points, table, thickness, values)
    return values


@jit
def _log_likelihoods(first, last, curves, factors, points, table, thickness, values):
    n_point = points.shape[1]
    for m in range(first, last):
        weights, slopes, value = np.empty((3, 4)), np.empty((3, 4)), np.empty((1, curves.shape[1]))
        x = np.empty(3)
        for k in range(n_point):
            x[:] = points[m, k]
            _inside(x, thickness)
            values[m, k] = -np.inf
            if x[0] == points[m, k, 0] and x[1] == points[m, k, 1] and x[2] == points[m, k, 2]:
                evaluate_alone(table, x, weights, slopes, value[0])
                value[0] = curves[m] - value[0]
                _whiten(factors[m], value)
                values[m, k] = -_dot(value[0], value[0]) / 2


# --------------------------------------------------------------------------------------------- with a curve model


@dataclass(frozen=True, eq=False)
class StartingGrid:
    """Averaged curves that fill the prior, from `starting_grid`.

    Attributes
    ----------
    points : (n_porosity, n_other, 3) ndarray
    features : (2 n_bin, n_porosity n_other) ndarray of float32
        Squares of the curves, and -2 times the curves: with weights, sums of squared differences.
    """

    points: np.ndarray
    features: np.ndarray


def starting_grid(model):
    """The starting grid of a `CurveModel`: every so many nodes of its table."""
    axes = [nodes(n)[::step] for n, step in zip(model.table.shape[:3], model.settings.start_steps, strict=True)]
    points = np.swapaxes(np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1), 0, 1)
    curves, _ = look_up(points.reshape(-1, 3), model.table, model.deviation)
    features = np.concatenate([curves**2, -2 * curves], axis=1).T.astype(np.float32)
    return StartingGrid(points.reshape(len(points), -1, 3), features)


def closest_starts(grid, model, curves, variance, count=None):
    """(n_sample, count, 3) ndarray: the closest point at each of the best porosities (None: all), closest first."""
    with threadpool_limits(1, user_api="blas"):
        weights = 1 / (variance + np.mean(model.deviation**2, axis=(0, 1, 2)))
        distances = np.concatenate([weights, weights * curves], axis=1).astype(np.float32) @ grid.features
    distances = distances.reshape(len(curves), len(grid.points), -1)
    closest = distances.argmin(axis=2)
    order = np.argsort(np.take_along_axis(distances, closest[..., np.newaxis], axis=2)[..., 0], axis=1)[:, :count]
    return grid.points[order, np.take_along_axis(closest, order, axis=1)]


def find_maxima(model, curves, variance, starts, there):
    """Optimise from starts (n_sample, n_start, 3), with the covariance at points `there` (n_sample, 3).

    Returns
    -------
    maxima : Maxima
    factors : (n_sample, n_bin, n_bin) ndarray
        Of the covariance.
    """
    n, n_start, _ = starts.shape
    factors = model.factors(curves, variance, there)
    found = Maxima(starts.copy(), np.empty((n, n_start)), np.empty((n, n_start, 3, 3)), np.empty((n, n_start, 3)))
    over_samples(_optimise, n, curves, factors, model.table, model.thickness, model.n_output, *found)
    return found, factors
