r"""Gaussian processes that learn the mean curves of an emulator, one at each node of :math:`s = aq`.

A process is the sum of a stationary one and, in three phases, of waves with coefficients that are polynomials of the
parameters (`Nodes.waves`). Where curves oscillate it learns intensities, below logarithms.
"""

import numpy as np
from scipy.interpolate import CubicSpline, make_interp_spline
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import minimize

from .coordinates import coordinate_ends, to_coordinates

WINDOW = (-0.1, 0.0)
"""ln s of the neighbours that a node can see too: they support the end of the range."""

_STEP = 0.06  # between nodes, in units of `position`
_TAIL = 2.5  # s; above it curves oscillate and neighbours are seen; below, enough curves reach every node
_WAVES_FROM = 1.0  # s
_TABLE = (10, 14, 96)  # points of the table along ln a, porosity, thickness
_FINER = 4  # rows of the finer table, for linear interpolation, per node
_SEARCHED = 12  # nodes at which the kernel is optimised; in between its logarithms are interpolated
_CURVES_OF_SEARCH = 600  # most data in that search
_FEWEST = 12  # curves at a node; with fewer it takes the value of its neighbour
_LEAST = 0.5  # of the smallest value at a node: a process that oscillates may not fall below


def position(s):
    """Even steps of it are even in ln s where s is small, and even in s, as oscillations are, where it is large."""
    return np.log(s) + s / 4


def place_nodes(case, q):
    """Positions and s of the nodes."""
    ends = q[[0, -1]] * np.exp(coordinate_ends(case)[:, 0])
    low, high = map(position, ends)
    nodes = np.linspace(low, high, int(np.ceil((high - low) / _STEP)) + 1)
    s = np.geomspace(*ends, 20_000)
    return nodes, np.interp(nodes, position(s), s)


def _on_nodes(log_intensity, theta, q, nodes):
    """(n_sample, n_node) ndarray of ln I - 3 ln a; NaN at the nodes that a curve does not reach."""
    result = np.full((len(theta), len(nodes)), np.nan)
    for row, curve, a in zip(result, log_intensity, theta[:, 0], strict=True):
        positions = position(a * q)
        there = (nodes >= positions[0]) & (nodes <= positions[-1])
        row[there] = CubicSpline(positions, curve - 3 * np.log(a))(nodes[there])
    return result


class Nodes:
    """Curves on nodes of s, and what the Gaussian process of a node sees of them."""

    def __init__(self, case, log_intensity, theta, scatter, q, window):
        self.window = window
        self.nodes, self.s = place_nodes(case, q)
        self.a, self.coordinates = theta[:, 0], to_coordinates(case, theta)
        self.curves = _on_nodes(log_intensity, theta, q, self.nodes)
        reached = np.isfinite(self.curves)
        self.level = np.sum(self.curves, axis=0, where=reached) / np.maximum(reached.sum(axis=0), 1)
        self.scatter = scatter  # variance, in terms of that at a = 4 nm
        self.thickness = coordinate_ends(case)[:, 2] if theta.shape[1] == 3 else None

    def __call__(self, j):
        """(coordinates and 5 ln(s'/s), values, curves, scatter, size of noise, which are at s itself) of node j."""
        x, z, curves, own = [], [], [], []
        for offset in self.window if self.s[j] > _TAIL else (0.0,):
            k = int(np.argmin(np.abs(self.s - self.s[j] * np.exp(offset))))
            there = np.flatnonzero(np.isfinite(self.curves[:, k]))
            ratio = self.s[k] / self.s[j]
            points = np.column_stack([self.coordinates[there], np.full(there.size, 5 * np.log(ratio))])
            if self.thickness is not None:  # the thickness that has the same phase at s
                low, high = self.thickness
                points[:, 2] = 2 * (ratio * ((points[:, 2] + 1) / 2 * (high - low) + low) - low) / (high - low) - 1
            x.append(points)
            z.append(self.curves[there, k] + (4 * np.log(ratio) if self.s[j] > _TAIL else 0))  # Porod
            curves.append(there)
            own.append(np.full(there.size, offset == 0))
        curves, z = np.concatenate(curves), self.transform(j, np.concatenate(z))
        size = z**2 if self.oscillates(j) else np.ones(len(z))
        return np.concatenate(x), z, curves, self.scatter[curves], size, np.concatenate(own)

    def waves(self, j, x):
        """(n, n_term) ndarray: 1, d, cos and sin of sd and 2sd, d cos sd, d sin sd, at the s of node j.

        Each times powers of ln a (to 2) and porosity (to 4); x are coordinates from -1 to 1. In two phases there are
        none: there the polynomials alone made the errors of the porosity larger.
        """
        if self.s[j] < _WAVES_FROM or self.thickness is None:
            return np.zeros((len(x), 0))
        low, high = self.thickness
        d, phase = x[:, 2], self.s[j] * (low + (x[:, 2] + 1) / 2 * (high - low))
        terms = [np.ones(len(x)), d, np.cos(phase), np.sin(phase), np.cos(2 * phase), np.sin(2 * phase)]
        terms += [d * np.cos(phase), d * np.sin(phase)]
        powers = np.polynomial.polynomial.polyvander2d(x[:, 0], x[:, 1], [2, 4])
        return np.concatenate([term[:, np.newaxis] * powers for term in terms], axis=1)

    def oscillates(self, j):
        return self.s[j] > _TAIL

    def transform(self, j, logarithms):
        """Values of the process of node j."""
        return np.exp(logarithms - self.level[j]) if self.oscillates(j) else logarithms

    def logarithms(self, j, values, smallest):
        """The inverse of `transform`."""
        return np.log(np.maximum(values, _LEAST * smallest)) + self.level[j] if self.oscillates(j) else values


def search_kernels(data):
    """Of each node, by maximum likelihood: amplitudes of stationary process and waves, scatter, nugget, lengths."""
    chosen = np.linspace(0, len(data.s) - 1, _SEARCHED + 2).astype(int)[1:-1]
    rng, three = np.random.default_rng(0), data.thickness is not None
    logs = []
    for j in chosen:
        x, z, _, scatter, size, _ = data(j)
        some = rng.permutation(len(x))[:_CURVES_OF_SEARCH]
        x, z, scatter, size = x[some], (z[some] - z.mean()) / z.std(), scatter[some], size[some]
        squares = (x[:, np.newaxis] - x) ** 2
        waves = data.waves(j, x)
        waves = waves @ waves.T

        def negative_log_likelihood(p, z=z, scatter=scatter, size=size, squares=squares, waves=waves):
            amplitude, share, noise, nugget, *lengths = np.exp(p)
            stationary = amplitude * np.exp(-(squares / np.square(lengths)).sum(axis=-1) / 2)
            oscillating = share * waves * np.exp(-squares[..., -1] / lengths[-1] ** 2 / 2)
            signal = stationary + oscillating
            factor = cho_factor(signal + np.diag((noise * scatter + nugget) * size), lower=True)
            inverse = cho_solve(factor, np.eye(len(z)))
            alpha = inverse @ z
            slope = np.outer(alpha, alpha) - inverse
            diagonal = np.diag(slope) * size
            variances = [slope * stationary, slope * oscillating, diagonal * noise * scatter, diagonal * nugget]
            gradient = [-variance.sum() / 2 for variance in variances]
            parts = [stationary] * (len(lengths) - 1) + [signal]
            gradient += [
                -(slope * part * squares[..., i]).sum() / (2 * lengths[i] ** 2) for i, part in enumerate(parts)
            ]
            return z @ alpha / 2 + np.log(np.diag(factor[0])).sum(), np.array(gradient)

        # One start for a process of its own, one for a little of it beside the waves: much lies between them.
        bounds = [(-7, 7), (-16, 3), (-14, 0.5), (-16, 0.5), (-1, 2.5), (-1, 2.5), *[(-3.5, 2)] * three, (-2, 2.5)]
        starts = [[1, -9, -4, -6, 1, 0.5, *[0] * three, 1], [-3, -2, -6, -6, 1, 0.5, *[-1] * three, 1]]
        best = min(
            (
                minimize(
                    negative_log_likelihood, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 40}
                )
                for start in starts
            ),
            key=lambda result: result.fun,
        )
        logs.append(best.x)
    positions = position(data.s)
    return np.exp([np.interp(positions, positions[chosen], column) for column in np.transpose(logs)]).T


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
    axes = [np.linspace(-1, 1, n) for n in _TABLE[: data.coordinates.shape[1]]]
    table = np.full((len(data.s), *map(len, axes)), np.nan)
    inflation = np.full(data.curves.shape, np.nan) if inflated else None
    for j in range(len(data.s)):
        if np.isfinite(data.curves[:, j]).sum() >= _FEWEST:
            table[j] = _interpolate_node(data, j, kernels[j], axes, inflation)
        report()
    known = np.flatnonzero(np.isfinite(table.reshape(len(data.s), -1)[:, 0]))
    table[: known[0]], table[known[-1] + 1 :] = table[known[0]], table[known[-1]]  # aq below a tenth: the plateau
    knots = []
    for axis, points in enumerate(axes, 1):
        spline = make_interp_spline(points, np.moveaxis(table, axis, 0))
        knots.append(spline.t)
        table = np.moveaxis(spline.c, 0, axis)
    fine = np.linspace(data.nodes[0], data.nodes[-1], _FINER * len(data.nodes))
    table = CubicSpline(data.nodes, table.reshape(len(data.s), -1))(fine).T
    table = np.ascontiguousarray(table)
    if not inflated:
        return knots, table, fine, None
    inflation = [
        np.interp(position(a * q), data.nodes[there], row[there])
        for a, row, there in zip(data.a, inflation, np.isfinite(inflation), strict=True)
    ]
    return knots, table, fine, np.array(inflation)


def _interpolate_node(data, j, kernel, axes, inflation):
    """Table of one node's Gaussian process; writes the inflation of its curves, if asked for."""
    x, z, curves, scatter, size, own = data(j)
    mean, sd = z.mean(), z.std()
    amplitude, share, noise, nugget, *lengths = kernel
    noise = (noise * scatter + nugget) * size
    points = x / lengths
    squares = (points**2).sum(axis=1)
    covariance = amplitude * np.exp(points @ points.T - squares / 2 - squares[:, np.newaxis] / 2)
    waves, near = data.waves(j, x), np.exp(-((x[:, -1] / lengths[-1]) ** 2) / 2)
    apart = (x[:, -1, np.newaxis] - x[:, -1]) / lengths[-1]
    covariance += share * (waves @ waves.T) * np.exp(-(apart**2) / 2)
    covariance[np.diag_indices(len(x))] += noise
    factor = cho_factor(covariance, lower=True, overwrite_a=True)
    alpha = cho_solve(factor, (z - mean) / sd)
    if inflation is not None:
        inverse = np.tril(lapack.dpotri(factor[0], lower=1)[0])
        inverse += np.tril(inverse, -1).T
        order = np.argsort(curves, kind="stable")
        for block in np.split(order, np.flatnonzero(np.diff(curves[order])) + 1):
            (centre,) = np.nonzero(own[block])
            if centre.size:  # standard deviation with the whole curve left out over that of the fitted residual
                left_out = np.linalg.inv(inverse[np.ix_(block, block)])[centre[0], centre[0]]
                entry = block[centre[0]]
                inflation[curves[entry], j] = np.sqrt(left_out / inverse[entry, entry]) / noise[entry]
    parts = [
        np.exp(-(((axis[:, np.newaxis] - x[:, i]) / length) ** 2) / 2)
        for i, (axis, length) in enumerate(zip(axes, lengths, strict=False))
    ]
    parts[-1] *= amplitude * alpha * near
    first = parts[0] if len(parts) == 2 else (parts[0][:, np.newaxis] * parts[1]).reshape(-1, len(x))
    values = (first @ parts[-1].T).ravel()
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))
    values += data.waves(j, grid) @ (share * (waves.T @ (alpha * near)))
    values = mean + sd * values.reshape([len(axis) for axis in axes])
    return data.logarithms(j, values, z.min())
