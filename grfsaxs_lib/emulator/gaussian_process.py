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

    def waves(self, j, x, y):
        """Cosines of the phase differences at node j between thicknesses x and y, and of their doubles.

        None in two phases.
        """
        cosines = [np.cos(self.s[j] * half * (x[:, np.newaxis] - y)) for half in self.half_range]
        return [wave for cosine in cosines for wave in (cosine, 2 * cosine**2 - 1)]


def _unpack(hyperparameters, n):
    """(noise, amplitudes, lengths) for n coordinates.

    Noise has two variances, of what scales with the scatter of a box and a nugget. Amplitudes are those of the
    stationary process, the wave and its overtone; lengths those of the stationary process and of the waves.
    """
    p = hyperparameters
    if n == 2:
        return p[:2], p[2:3], [p[3:]]
    return p[:2], [p[2], *p[6:8]], [p[3:6], p[8:]]


def _covariances(amplitudes, lengths, squares, waves):
    """Of the stationary process, the wave and its overtone; `squares` are those of the differences of coordinates."""
    envelopes = [np.exp(-np.tensordot(length**-2.0, squares, 1) / 2) for length in lengths]
    first = amplitudes[0] * envelopes[0]
    return [first, *(a * envelopes[1] * wave for a, wave in zip(amplitudes[1:], waves, strict=True))]


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
        arguments = z, variances, _squares(x), data.waves(j, x[:, -1], x[:, -1])
        starts = [start[:count] for start in _STARTS] if known is None else [np.log(known[j])]
        found = [minimize(_negative_log_likelihood, start, arguments, **options) for start in starts]
        return min(found, key=lambda result: result.fun).x

    with ThreadPoolExecutor(get_num_threads()) as pool:
        logs = list(pool.map(search, chosen, orders))
    positions = position(data.s)
    return np.exp([np.interp(positions, positions[chosen], column) for column in np.transpose(logs)]).T


def _squares(x):
    """(n_coordinate, n, n) ndarray: squares of the differences of coordinates."""
    return (x.T[:, :, np.newaxis] - x.T[:, np.newaxis]) ** 2


def _negative_log_likelihood(logarithms, z, variances, squares, waves):
    """Less a constant, and its gradient."""
    noise, amplitudes, lengths = _unpack(np.exp(logarithms), len(squares))
    parts = _covariances(amplitudes, lengths, squares, waves)
    factor = cho_factor(sum(parts) + np.diag(noise @ variances), lower=True)
    lower = np.tril(lapack.dpotri(factor[0], lower=1)[0])
    inverse = lower + np.tril(lower, -1).T
    alpha = inverse @ z
    slope = np.outer(alpha, alpha) - inverse

    def along(parts, lengths):
        weighted = slope * sum(parts)
        return [np.sum(weighted * square) / length**2 for square, length in zip(squares, lengths, strict=True)]

    of_amplitudes = [np.sum(slope * part) for part in parts]
    gradient = [*(noise * (variances @ np.diag(slope))), of_amplitudes[0], *along(parts[:1], lengths[0])]
    if waves:
        gradient += [*of_amplitudes[1:], *along(parts[1:], lengths[1])]
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
    noise = noise @ variances
    covariance = sum(_covariances(amplitudes, lengths, _squares(x), data.waves(j, x[:, -1], x[:, -1])))
    covariance[np.diag_indices(len(x))] += noise
    factor = cho_factor(covariance, lower=True, overwrite_a=True)
    alpha = cho_solve(factor, (z - mean) / sd)
    if inflation is not None:  # residuals of processes without the curve: alpha / diagonal; those fitted: noise alpha
        diagonal = np.diag(lapack.dpotri(factor[0], lower=1)[0])
        inflation[there, j] = 1 / (diagonal * noise)
    heights = [amplitudes[0]]
    waves = data.waves(j, axes[-1], x[:, -1])
    if waves:
        heights.append(sum(a * wave for a, wave in zip(amplitudes[1:], waves, strict=True)))
    values = 0.0
    for height, scales in zip(heights, lengths, strict=True):
        *others, last = [
            np.exp(-(((axis[:, np.newaxis] - column) / scale) ** 2) / 2)
            for axis, column, scale in zip(axes, x.T, scales, strict=True)
        ]
        first = reduce(lambda one, other: (one[:, np.newaxis] * other).reshape(-1, len(x)), others)
        values = values + first @ (height * last * alpha).T
    values = mean + sd * values.reshape([len(axis) for axis in axes])
    return data.logarithms(j, values, z.min())
