"""Tables of curves along up to three coordinates: uniform cubic B-splines, with derivatives, and linear ones.

Coordinates go from -1 to 1. An axis that is not needed has length 1.
"""

import numpy as np

from .. import compiled

jit = compiled.serial("contract", "reassoc")
_SAMPLES = 8  # that a thread takes at a time


def over_samples(kernel, n, *arguments):
    """Call a compiled ``kernel(first, last, *arguments)`` for n samples, a few at a time, on several threads."""

    def work(slices):
        for samples in slices:
            kernel(samples.start, samples.stop, *arguments)

    compiled.share_out(work, n, _SAMPLES)


def nodes(n):
    """Nodes of a spline of n coefficients on [-1, 1]; one coefficient is a constant."""
    return np.linspace(-1, 1, n - 2) if n > 1 else np.zeros(1)


def collocation_points(n):
    """n points that fix n coefficients: the nodes, and the middles of the outermost intervals."""
    even = nodes(n)
    return np.sort(np.append(even, [even[:2].mean(), even[-2:].mean()])) if n > 1 else even


def collocation_matrix(n):
    """(n, n) ndarray: values at the collocation points are this times the coefficients."""
    matrix, weights, slopes = np.zeros((n, n)), np.empty(4), np.empty(4)
    for row, x in zip(matrix, collocation_points(n), strict=True):
        first = spline(x, n, weights, slopes)
        row[first : first + 4] = weights[: min(n, 4)]
    return matrix


@jit
def spline(x, n, weights, slopes):
    """First of the coefficients that matter at x; their weights, and the derivatives of those."""
    if n == 1:
        weights[0], slopes[0] = 1.0, 0.0
        return 0
    scale = (n - 3) / 2.0
    x = (x + 1.0) * scale
    first = min(max(int(x), 0), n - 4)
    x -= first
    y = 1.0 - x
    weights[0], weights[3] = y * y * y / 6, x * x * x / 6
    weights[1] = (4 - 6 * x * x + 3 * x * x * x) / 6
    weights[2] = 1 - weights[0] - weights[1] - weights[3]
    slopes[0], slopes[3] = -y * y / 2 * scale, x * x / 2 * scale
    slopes[1] = (1.5 * x * x - 2 * x) * scale
    slopes[2] = -slopes[0] - slopes[1] - slopes[3]
    return first


@jit
def _line(x, n, weights):
    """As `spline`, for linear interpolation."""
    if n == 1:
        weights[0] = 1.0
        return 0
    x = (x + 1.0) * (n - 1) / 2.0
    first = min(max(int(x), 0), n - 2)
    weights[1] = x - first
    weights[0] = 1.0 - weights[1]
    return first


@jit
def evaluate(table, x, weights, slopes, value):
    """Value (row 0) and derivatives along the axes (rows 1 to 3) at x."""
    n0, n1, n2, n_bin = table.shape
    i, j, k = (
        spline(x[0], n0, weights[0], slopes[0]),
        spline(x[1], n1, weights[1], slopes[1]),
        spline(x[2], n2, weights[2], slopes[2]),
    )
    value[:] = 0.0
    for p in range(min(4, n0)):
        for q in range(min(4, n1)):
            for r in range(min(4, n2)):
                w = weights[0, p] * weights[1, q] * weights[2, r]
                d0 = slopes[0, p] * weights[1, q] * weights[2, r]
                d1 = weights[0, p] * slopes[1, q] * weights[2, r]
                d2 = weights[0, p] * weights[1, q] * slopes[2, r]
                row = table[i + p, j + q, k + r]
                for b in range(n_bin):
                    value[0, b] += w * row[b]
                    value[1, b] += d0 * row[b]
                    value[2, b] += d1 * row[b]
                    value[3, b] += d2 * row[b]


@jit
def evaluate_alone(table, x, weights, slopes, value):
    """Value (n_bin,) at x, without the derivatives of `evaluate`."""
    n0, n1, n2, n_bin = table.shape
    i, j, k = (
        spline(x[0], n0, weights[0], slopes[0]),
        spline(x[1], n1, weights[1], slopes[1]),
        spline(x[2], n2, weights[2], slopes[2]),
    )
    value[:] = 0.0
    for p in range(min(4, n0)):
        for q in range(min(4, n1)):
            for r in range(min(4, n2)):
                w = weights[0, p] * weights[1, q] * weights[2, r]
                row = table[i + p, j + q, k + r]
                for b in range(n_bin):
                    value[b] += w * row[b]


@jit
def interpolate(table, x, weights, value):
    """Linear interpolation of the values of a table at x."""
    n0, n1, n2, n_bin = table.shape
    i, j, k = _line(x[0], n0, weights[0]), _line(x[1], n1, weights[1]), _line(x[2], n2, weights[2])
    value[:] = 0.0
    for p in range(min(2, n0)):
        for q in range(min(2, n1)):
            for r in range(min(2, n2)):
                w = weights[0, p] * weights[1, q] * weights[2, r]
                for b in range(n_bin):
                    value[b] += w * table[i + p, j + q, k + r, b]


def look_up(points, table, deviation):
    """(n, n_bin) ndarrays: averaged curves and deviations at points (n, 3)."""
    curves, deviations = np.empty((2, len(points), table.shape[3]))
    over_samples(_look_up, len(points), points, table, deviation, curves, deviations)
    return curves, deviations


@jit
def _look_up(first, last, points, table, deviation, curves, deviations):
    for i in range(first, last):
        weights, slopes = np.empty((3, 4)), np.empty((3, 4))
        evaluate_alone(table, points[i], weights, slopes, curves[i])
        interpolate(deviation, points[i], weights, deviations[i])
