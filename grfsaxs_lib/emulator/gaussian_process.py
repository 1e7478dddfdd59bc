r"""Gaussian processes that learn the mean curves of an emulator, one at each node of :math:`s = aq`.

Where curves oscillate a process learns intensities, below logarithms. In two phases it is stationary. In three, a layer
of thickness :math:`ad` makes waves of phase :math:`sd`: to the stationary covariance is added that of a wave,
:math:`\cos s(d - d')`, and of its overtone, :math:`\cos 2s(d - d')`, with amplitudes and phases that change with the
parameters over lengths of their own.
"""

from concurrent.futures import ThreadPoolExecutor
from functools import reduce

import numpy as np
from numba import get_num_threads
from scipy.interpolate import CubicSpline, make_interp_spline, make_lsq_spline
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import minimize

from .. import compiled
from .coordinates import coordinate_ends, to_coordinates
from .settings import DEFAULT

# Logarithms of the hyperparameters, in the order of `_unpack`; of two phases the first five.
_BOUNDS = [(-14, 0.5), (-16, 0.5), (-7, 7), (-1, 2.5), (-1, 2.5), (-3.5, 2)]
_BOUNDS += [(-12, 5), (-14, 5), (-1, 2.5), (-1, 2.5), (-3.5, 2)]
_STARTS = [  # one with little of a wave, one with much
    [-4, -6, 1, 1, 0.5, 0, -6, -8, 1, 0.5, 0.5],
    [-6, -6, -3, 1, 0.5, -1, 0, -2, 1, 0.5, 0.5],
]


def position(s):
    """Even steps of it are even in ln s where s is small, and even in s, as oscillations are, where it is large."""
    return np.log(s) + s / 4


def node_positions(case, q, settings=DEFAULT):
    """Positions and s of the nodes."""
    ends = q[[0, -1]] * np.exp(coordinate_ends(case)[:, 0])
    low, high = map(position, ends)
    nodes = np.linspace(low, high, int(np.ceil((high - low) / settings.node_step)) + 1)
    s = np.geomspace(*ends, 20_000)
    return nodes, np.interp(nodes, position(s), s)


def _on_nodes(log_intensity, theta, q, nodes, step):
    """(n_sample, n_node) ndarray of ln I - 3 ln a; NaN at the nodes that a curve does not reach."""
    result = np.full((len(theta), len(nodes)), np.nan)
    for row, curve, a in zip(result, log_intensity, theta[:, 0], strict=True):
        positions = position(a * q)
        there = (nodes >= positions[0]) & (nodes <= positions[-1])
        row[there] = _spline(positions, curve - 3 * np.log(a), nodes, step)(nodes[there])
    return result


def _spline(x, y, nodes, step):
    """Cubic spline: through all values where the x are sparse, at small x, and with the nodes as knots beyond."""
    spacing = np.diff(x)
    if spacing[-1] > step / 2:  # sparse everywhere, or at large x
        return CubicSpline(x, y)
    sparse = x[:-1][spacing > step]
    first = sparse[-1] if sparse.size else x[0]
    middle = nodes[(nodes > first + step) & (nodes < x[-1] - step / 2)]
    return make_lsq_spline(x, y, np.concatenate([[x[0]] * 4, sparse[2:], middle, [x[-1]] * 4]))


class Nodes:
    """Curves on nodes of s, and what the Gaussian process of a node sees of them."""

    def __init__(self, case, log_intensity, theta, scatter, q, settings=DEFAULT):
        self.settings = settings
        self.nodes, self.s = node_positions(case, q, settings)
        self.a, self.coordinates = theta[:, 0], to_coordinates(case, theta)
        self.curves = _on_nodes(log_intensity, theta, q, self.nodes, settings.node_step)
        reached = np.isfinite(self.curves)
        self.level = np.sum(self.curves, axis=0, where=reached) / np.maximum(reached.sum(axis=0), 1)
        self.scatter = scatter  # variance, in terms of that at a = 4 nm
        self.half_range = np.ptp(coordinate_ends(case)[:, 2:], axis=0) / 2  # of the thickness

    def __call__(self, j):
        """(curves, coordinates, values, variances) at node j: the variances are those that `noise` scales."""
        (there,) = np.nonzero(np.isfinite(self.curves[:, j]))
        values, size = self.curves[there, j], np.ones(there.size)
        if self.oscillates(j):
            values = np.exp(values - self.level[j])
            size = values**2
        return there, self.coordinates[there], values, np.stack([self.scatter[there] * size, size])

    def oscillates(self, j):
        return self.s[j] > self.settings.tail

    def logarithms(self, j, values, smallest):
        """ln I - 3 ln a for values of the process of node j."""
        if not self.oscillates(j):
            return values
        return np.log(np.maximum(values, self.settings.least_share * smallest)) + self.level[j]

    def wave_number(self, j):
        """Phase at node j per unit of the last coordinate, that of the thickness; 0 in two phases."""
        return self.s[j] * self.half_range.sum()


def _unpack(hyperparameters, n):
    """(noise, amplitudes, lengths) for n coordinates.

    Noise has two variances, of what scales with the scatter of a box and a nugget. Amplitudes (3,) are those of the
    stationary process, the wave and its overtone; lengths (2, n) those of the stationary process and of the waves.
    Without waves their amplitudes are 0.
    """
    p = hyperparameters
    if n == 2:
        return p[:2], np.array([p[2], 0, 0]), np.stack([p[3:], np.ones(2)])
    return p[:2], np.array([p[2], *p[6:8]]), np.stack([p[3:6], p[8:]])


@compiled.serial("contract", "reassoc")
def _fill(x, amplitudes, precisions, wave_number, parts):
    """Write covariances of the stationary process, the wave and its overtone at points x (n, n_coordinate).

    Of `parts` (1 or 3, n, n) the upper triangles are written; precisions are lengths**-2.
    """
    n, n_axis = x.shape
    for i in range(n):
        for j in range(i, n):
            first = second = 0.0
            for axis in range(n_axis):
                square = (x[i, axis] - x[j, axis]) ** 2
                first += square * precisions[0, axis]
                second += square * precisions[1, axis]
            parts[0, i, j] = amplitudes[0] * np.exp(-first / 2)
            if len(parts) == 3:
                cosine, envelope = np.cos(wave_number * (x[i, -1] - x[j, -1])), np.exp(-second / 2)
                parts[1, i, j] = amplitudes[1] * envelope * cosine
                parts[2, i, j] = amplitudes[2] * envelope * (2 * cosine * cosine - 1)


@compiled.serial("contract", "reassoc")
def _differentiate(x, precisions, parts, inverse, alpha, slopes):
    """Add up the derivatives of -2 times the negative log likelihood, by log amplitudes and by log lengths.

    `inverse` is the upper triangle of that of the covariance, alpha its product with the values. In `slopes` are those
    by the three amplitudes, by the lengths of the stationary process and by those of the waves.
    """
    n, n_axis = x.shape
    for i in range(n):
        for j in range(i, n):
            weight = (alpha[i] * alpha[j] - inverse[i, j]) * (1.0 if i == j else 2.0)
            stationary, waves = weight * parts[0, i, j], 0.0
            slopes[0] += stationary
            if len(parts) == 3:
                wave, overtone = weight * parts[1, i, j], weight * parts[2, i, j]
                slopes[1] += wave
                slopes[2] += overtone
                waves = wave + overtone
            for axis in range(n_axis):
                square = (x[i, axis] - x[j, axis]) ** 2
                slopes[3 + axis] += square * precisions[0, axis] * stationary
                slopes[3 + n_axis + axis] += square * precisions[1, axis] * waves


def _factored(x, amplitudes, lengths, wave_number, noise):
    """Parts of the covariance of the signal (see `_fill`), and `cho_factor` of their sum with the noise (n,)."""
    parts = np.zeros((3 if wave_number else 1, len(x), len(x)))
    _fill(x, amplitudes, lengths**-2.0, wave_number, parts)
    covariance = parts.sum(axis=0)
    covariance[np.diag_indices(len(x))] += noise
    return parts, cho_factor(covariance.T, lower=True, overwrite_a=True)


def search_kernels(data, known=None):
    """(n_node, n_hyperparameter) ndarray, by maximum likelihood; a search from `known` ones is shorter."""
    n = data.coordinates.shape[1]
    count = 5 if n == 2 else 11
    (enough,) = np.nonzero(np.isfinite(data.curves).sum(axis=0) >= min(50, len(data.curves) / 3))
    settings = data.settings
    chosen = enough[np.linspace(0, len(enough) - 1, settings.searched_nodes).astype(int)]
    rng = np.random.default_rng(0)
    orders = [rng.permutation(np.isfinite(data.curves[:, j]).sum())[: settings.searched_curves] for j in chosen]
    options = {"jac": True, "bounds": _BOUNDS[:count], "method": "L-BFGS-B", "options": {"maxiter": 60}}

    def search(j, some):
        _, x, z, variances = data(j)
        x, z, variances = x[some], (z[some] - z.mean()) / z.std(), variances[:, some]
        arguments = z, variances, x, data.wave_number(j)
        starts = [start[:count] for start in _STARTS] if known is None else [np.log(known[j])]
        found = [minimize(_negative_log_likelihood, start, arguments, **options) for start in starts]
        return min(found, key=lambda result: result.fun).x

    with ThreadPoolExecutor(get_num_threads()) as pool:
        logs = list(pool.map(search, chosen, orders))
    positions = position(data.s)
    return np.exp([np.interp(positions, positions[chosen], column) for column in np.transpose(logs)]).T


def _negative_log_likelihood(logarithms, z, variances, x, wave_number):
    """Less a constant, and its gradient."""
    n = x.shape[1]
    noise, amplitudes, lengths = _unpack(np.exp(logarithms), n)
    parts, factor = _factored(x, amplitudes, lengths, wave_number, noise @ variances)
    alpha = cho_solve(factor, z)
    inverse = lapack.dpotri(factor[0], lower=1)[0]
    slopes = np.zeros(3 + 2 * n)
    _differentiate(x, lengths**-2.0, parts, inverse.T, alpha, slopes)
    gradient = [*(noise * (variances @ (alpha**2 - np.diag(inverse)))), slopes[0], *slopes[3 : 3 + n]]
    if n == 3:
        gradient += [*slopes[1:3], *slopes[3 + n :]]
    return z @ alpha / 2 + np.log(np.diag(factor[0])).sum(), -np.array(gradient) / 2


def interpolate(data, kernels, q, report, inflated):
    """Tabulate the processes.

    Returns
    -------
    knots : list of ndarray
        Of cubic splines along the coordinates.
    table : (n_coefficient, n_node) ndarray
        Spline coefficients of ln I - 3 ln a at the fine nodes.
    nodes : (n_node,) ndarray
        The fine nodes, in units of `position`.
    inflation : (n_sample, n_q) ndarray or None
        Cross-validated residuals over fitted ones, if asked for.
    """
    axes = [np.linspace(-1, 1, n) for n in data.settings.table[: data.coordinates.shape[1]]]
    table = np.full((len(data.s), *map(len, axes)), np.nan)
    inflation = np.full(data.curves.shape, np.nan) if inflated else None

    def fill(j):
        if np.isfinite(data.curves[:, j]).sum() >= data.settings.fewest_curves:
            table[j] = _interpolate_node(data, j, kernels[j], axes, inflation)

    with ThreadPoolExecutor(get_num_threads()) as pool:
        for _ in pool.map(fill, range(len(data.s))):
            report()
    known = np.flatnonzero(np.isfinite(table.reshape(len(data.s), -1)[:, 0]))
    first, last = known[[0, -1]]
    table[:first] = table[first]  # aq below a tenth: the plateau
    decay = 4 * np.log(data.s[last + 1 :] / data.s[last])  # aq that only the largest a reach: Porod's law
    table[last + 1 :] = table[last] - decay.reshape(-1, *[1] * len(axes))
    knots = []
    for axis, points in enumerate(axes, 1):
        spline = make_interp_spline(points, np.moveaxis(table, axis, 0))
        knots.append(spline.t)
        table = np.moveaxis(spline.c, 0, axis)
    fine = np.linspace(data.nodes[0], data.nodes[-1], data.settings.finer * len(data.nodes))
    table = CubicSpline(data.nodes, table.reshape(len(data.s), -1))(fine).T
    table = np.ascontiguousarray(table)
    if not inflated:
        return knots, table, fine, None
    inflation = [
        np.interp(position(a * q), data.nodes[there], row[there])
        for a, row, there in zip(data.a, inflation, np.isfinite(inflation), strict=True)
    ]
    return knots, table, fine, np.array(inflation)


def _interpolate_node(data, j, hyperparameters, axes, inflation):
    """Table of one node's Gaussian process; writes the inflation of its curves, if asked for."""
    there, x, z, variances = data(j)
    mean, sd = z.mean(), z.std()
    noise, amplitudes, lengths = _unpack(hyperparameters, len(axes))
    noise, wave_number = noise @ variances, data.wave_number(j)
    _, factor = _factored(x, amplitudes, lengths, wave_number, noise)
    alpha = cho_solve(factor, (z - mean) / sd)
    if inflation is not None:  # residuals of processes without the curve: alpha / diagonal; those fitted: noise alpha
        diagonal = np.diag(lapack.dpotri(factor[0], lower=1)[0])
        inflation[there, j] = 1 / (diagonal * noise)
    heights = [amplitudes[0]]
    if wave_number:
        cosine = np.cos(wave_number * (axes[-1][:, np.newaxis] - x[:, -1]))
        heights.append(amplitudes[1] * cosine + amplitudes[2] * (2 * cosine**2 - 1))
    values = 0.0
    for height, scales in zip(heights, lengths[: len(heights)], strict=True):
        *others, last = [
            np.exp(-(((axis[:, np.newaxis] - column) / scale) ** 2) / 2)
            for axis, column, scale in zip(axes, x.T, scales, strict=True)
        ]
        first = reduce(lambda one, other: (one[:, np.newaxis] * other).reshape(-1, len(x)), others)
        values = values + first @ (height * last * alpha).T
    values = mean + sd * values.reshape([len(axis) for axis in axes])
    return data.logarithms(j, values, z.min())
