r"""New curves without new structures, from a thousand real ones.

A box of finite size shows an infinite material imperfectly, so the curve of a structure is

.. math:: \ln I(q) = \mu(q; \theta) + r(q),

a smooth mean over the parameters :math:`\theta = (a, \epsilon, \nu)` and a residual of its own. Both are learned here.

**Mean.** With :math:`s = aq` a curve changes little with a: :math:`\mu = 3 \ln a + \ln A(q) + f(s; a, \epsilon, \nu)`,
where A is what sampling on voxels adds (`aliasing`). In three phases f oscillates with the phase :math:`s d`, for the
waves from both faces of a layer of thickness :math:`a d` interfere; with d (`layer_thickness`) in the place of
:math:`\nu`, f is smooth. At each of some hundred s a Gaussian process interpolates f. It also sees
neighbouring s, moved to the same phase, which is what supports the end of the range, where few curves reach. The
processes are then tabulated, so that a curve takes microseconds.

**Residual.** Most of it looks like other parameters: a box holds more or less interface than it should. So each
residual is split into a shift of the parameters and a rest. A new curve takes a random combination, of unit length,
of the shifts and rests of the nearest real structures. Residuals are raised to the size that they have where a curve
had no part in the fit, by cross-validation.
"""

from dataclasses import dataclass, field

import numpy as np
from scipy import sparse
from scipy.interpolate import BSpline, CubicSpline, make_interp_spline
from scipy.linalg import cho_factor, cho_solve, lapack
from scipy.optimize import minimize
from scipy.spatial import KDTree
from scipy.special import ndtri
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from .grid import PAPER_GRID, PAPER_Q
from .parameters import Case, check, get_case

_STEP = 0.06  # between nodes, in units of `_position`
_WINDOW = (-0.2, -0.13, -0.065, 0.0, 0.06)  # ln s of the neighbours that a node sees too, three phases
_WINDOW_FROM = 2.5  # s; below, curves are smooth, and enough of them reach every node
_TABLE = (10, 14, 48)  # points of the table along ln a, porosity, thickness
_FINER = 4  # rows of the finer table, for linear interpolation, per node
_SEARCHED = 12  # nodes at which the kernel is optimised; in between its logarithms are interpolated
_CURVES_OF_SEARCH = 600  # most data in that search
_NEIGHBOURS = 20  # real structures combined in a residual
_SHIFT = 0.02  # expected shift of a parameter, as a part of its range
_FEWEST = 12  # curves at a node; with fewer it takes the value of its neighbour


@dataclass(frozen=True, eq=False)
class Emulator:
    """Mean and residuals of the curves of a case, from `fit`.

    Attributes
    ----------
    case : Case
    q : (n_q,) ndarray of float64
        Scattering vector [nm^-1].
    """

    case: Case
    q: np.ndarray
    _offset: np.ndarray  # (n_q,): ln A
    _knots: list
    _table: np.ndarray  # (points of the table, fine nodes)
    _nodes: np.ndarray  # fine nodes, in units of `_position`
    _tree: KDTree | None = field(default=None)
    _shifts: np.ndarray | None = field(default=None)
    _rests: np.ndarray | None = field(default=None)

    def mean(self, parameters):
        """Mean log intensity of structures.

        Parameters
        ----------
        parameters : dict of str to (n_sample,) array_like
            For each output of the case, inside its prior; more are ignored.

        Returns
        -------
        (n_sample, n_q) ndarray of float64

        Raises
        ------
        ValueError
            If a parameter is missing or outside the prior: an emulator does not extrapolate.
        """
        return self._mean(_theta(self.case, parameters))

    def draw(self, parameters, rng):
        """Draw a clean curve for each set of parameters; every call gives other structures.

        Parameters
        ----------
        parameters
            As in `mean`.
        rng : numpy.random.Generator

        Returns
        -------
        (n_sample, n_q) ndarray of float64
            Intensity on the paper's scale, for `add_noise`.
        """
        theta = _theta(self.case, parameters)
        _, nearest = self._tree.query(_place(self.case, theta), _NEIGHBOURS)
        weights = rng.standard_normal(nearest.shape)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        rest = np.einsum("nk,nkq->nq", weights, self._rests[nearest])
        shift = np.einsum("nk,nkp->np", weights, self._shifts[nearest])
        return np.exp(self._mean(theta) + rest + np.einsum("np,npq->nq", shift, self._derivative(theta)))

    def _mean(self, theta):
        coordinates = _scaled(self.case, theta)
        position = np.zeros((len(theta), 1), dtype=np.int64)
        weight = np.ones((len(theta), 1))
        for values, knots in zip(coordinates.T, self._knots, strict=True):
            basis = BSpline.design_matrix(values, knots, 3)  # four entries a row
            columns, entries = basis.indices.reshape(-1, 1, 4), basis.data.reshape(-1, 1, 4)
            position = (position[:, :, np.newaxis] * basis.shape[1] + columns).reshape(len(theta), -1)
            weight = (weight[:, :, np.newaxis] * entries).reshape(len(theta), -1)
        ends = np.arange(0, weight.size + 1, weight.shape[1])
        rows = sparse.csr_matrix((weight.ravel(), position.ravel(), ends), (len(theta), len(self._table))) @ self._table
        curves = [np.interp(_position(a * self.q), self._nodes, row) for a, row in zip(theta[:, 0], rows, strict=True)]
        return np.array(curves).reshape(len(theta), -1) + self._offset + 3 * np.log(theta[:, :1])

    def _derivative(self, theta):
        """(n_sample, n_parameter, n_q) ndarray: of the mean, by differences inside the prior."""
        lower, upper = _limits(self.case)
        result = np.empty((*theta.shape, self.q.size))
        for i, step in enumerate(0.01 * (upper - lower)):
            above, below = theta.copy(), theta.copy()
            above[:, i] = np.minimum(theta[:, i] + step, upper[i])
            below[:, i] = np.maximum(theta[:, i] - step, lower[i])
            result[:, i] = (self._mean(above) - self._mean(below)) / (above - below)[:, i, np.newaxis]
        return result


def aliasing(q, voxel_size):
    r"""What sampling on voxels adds to a Porod tail: :math:`A(q) = 1 + (q \Delta x / 2\pi)^4 \sum_{n \neq 0} |n|^{-4}`.

    The copies of the tail :math:`q^{-4}` at the reciprocal lattice vectors :math:`2\pi n/\Delta x`, to lowest order in
    q: 5 % at q = 3 nm\ :sup:`-1` on the paper's grid. The sum over the cubic lattice is 16.5323.

    Parameters
    ----------
    q : (n_q,) array_like
        Scattering vector [nm^-1].
    voxel_size : float
        [nm]

    Returns
    -------
    (n_q,) ndarray of float64
    """
    return 1 + 16.5323 * (np.asarray(q) * voxel_size / (2 * np.pi)) ** 4


def layer_thickness(porosity, layer_fraction):
    r"""Thickness of the layer in units of a, roughly: a coordinate, not a measurement.

    A layer that fills the share :math:`\nu` of the pores reaches as far from the solid as a share :math:`\nu` of them
    lies. For level sets of the field, distances to the solid follow :math:`-\ln(1-\nu) = A d + B d^2` within 1 % (edt
    of two structures of 160³ voxels, :math:`\epsilon` from 0.1 to 0.9), with :math:`A \propto
    e^{-\Phi^{-1}(\epsilon)^2/2}/\epsilon`, the specific surface of a level set, and B nearly linear.

    Parameters
    ----------
    porosity, layer_fraction : array_like

    Returns
    -------
    ndarray of float64
    """
    porosity, layer_fraction = np.asarray(porosity), np.asarray(layer_fraction)
    surface = 0.285 * np.exp(-(ndtri(porosity) ** 2) / 2) / porosity
    curvature = 0.26 - 0.16 * porosity
    return (np.sqrt(surface**2 - 4 * curvature * np.log1p(-layer_fraction)) - surface) / (2 * curvature)


def fit(case, intensity, parameters, *, q=PAPER_Q, grid=PAPER_GRID, progress=False):
    """Learn the curves of a case.

    Parameters
    ----------
    case : str or Case
    intensity : (n_sample, n_q) array_like
        Clean curves of different structures, spread over the prior; some hundred for two phases, a thousand for three.
    parameters : dict of str to (n_sample,) array_like
        Theirs.
    q : (n_q,) array_like
        Scattering vector [nm^-1].
    grid : Grid
        That of the curves.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Emulator
        After about 15 s for 768 curves of two phases on one core, minutes for 1024 of three.

    Raises
    ------
    ValueError
        If there are fewer than 60 curves, an intensity is not positive, or a parameter is outside the prior.
    """
    case, q = get_case(case), np.asarray(q, dtype=np.float64)
    theta, intensity = _theta(case, parameters), check("intensity", intensity)
    if intensity.shape != (len(theta), q.size) or len(theta) < 60:
        raise ValueError(f"intensity must hold 60 curves or more of {q.size} values each, got shape {intensity.shape}")
    offset = np.log(aliasing(q, grid.voxel_size))
    nodes, s = _nodes(case, q)
    scaled = _on_nodes(np.log(intensity) - offset, theta, q, nodes)
    data = _NodeData(case, theta, scaled, s)
    axes = [np.linspace(-1, 1, n) for n in _TABLE[: theta.shape[1]]]
    table = np.full((len(s), *map(len, axes)), np.nan)
    inflation = np.full(scaled.shape, np.nan)
    # Threads of the linear algebra that wait for each other on shared cores took thirty times as long as one.
    with threadpool_limits(1, user_api="blas"):
        kernels = _search_kernels(data)
        for j in tqdm(range(len(s)), desc=f"emulator of {case.name}", unit="node", disable=not progress):
            if np.isfinite(scaled[:, j]).sum() >= _FEWEST or s[j] > _WINDOW_FROM:
                table[j] = _interpolate(data, j, kernels[j], axes, inflation)
    known = np.flatnonzero(np.isfinite(table.reshape(len(s), -1)[:, 0]))
    table[: known[0]] = table[known[0]]  # aq below a tenth: the plateau

    knots = []
    for axis, points in enumerate(axes, 1):
        spline = make_interp_spline(points, np.moveaxis(table, axis, 0))
        knots.append(spline.t)
        table = np.moveaxis(spline.c, 0, axis)
    fine = np.linspace(nodes[0], nodes[-1], _FINER * len(nodes))
    table = CubicSpline(nodes, table.reshape(len(s), -1))(fine).T
    emulator = Emulator(case, q, offset, knots, np.ascontiguousarray(table), fine)
    inflation = np.array(
        [
            np.interp(_position(a * q), nodes[there], row[there])
            for a, row, there in zip(theta[:, 0], inflation, np.isfinite(inflation), strict=True)
        ]
    )
    residual = (np.log(intensity) - emulator.mean(parameters)) * np.clip(inflation, 1, 2.5)
    return _with_residuals(emulator, theta, residual)


def _with_residuals(emulator, theta, residual):
    """Split residuals into shifts of the parameters and rests: least squares with a prior on the shifts."""
    lower, upper = _limits(emulator.case)
    # Scatter of I(q) between structures, for weights: shells of few modes at low q.
    scatter = 0.012 + 0.004 / emulator.q + 0.0003 / emulator.q**2
    prior = np.diag((_SHIFT * (upper - lower)) ** -2.0)
    derivative = emulator._derivative(theta)
    scaled = derivative / scatter
    independent = 4  # q values in a q spacing of the box
    normal = np.einsum("npq,nrq->npr", scaled, scaled) / independent + prior
    right = np.einsum("npq,nq->np", scaled, residual / scatter) / independent
    shifts = np.linalg.solve(normal, right[..., np.newaxis])[..., 0]
    rests = residual - np.einsum("np,npq->nq", shifts, derivative)
    inner = emulator.case, emulator.q, emulator._offset, emulator._knots, emulator._table, emulator._nodes
    return Emulator(*inner, KDTree(_place(emulator.case, theta)), shifts, rests)


class _NodeData:
    """The data that the Gaussian process of a node sees."""

    def __init__(self, case, theta, scaled, s):
        self.three, self.scaled, self.s = theta.shape[1] == 3, scaled, s
        self.coordinates = _scaled(case, theta)
        self.ends = _ends(case)

    def __call__(self, j):
        """(coordinates and 5 ln(s'/s), values, curves, which are at s itself) of node j."""
        offsets = (0.0,)
        if self.s[j] > _WINDOW_FROM:
            offsets = _WINDOW if self.three else (-0.13, 0.0)
        found = {}
        for offset in offsets:
            k = int(np.argmin(np.abs(self.s - self.s[j] * np.exp(offset))))
            found[k] = np.flatnonzero(np.isfinite(self.scaled[:, k]))
        x, z = [], []
        for k, curves in found.items():
            ratio = self.s[k] / self.s[j]
            points = np.column_stack([self.coordinates[curves], np.full(curves.size, 5 * np.log(ratio))])
            if self.three:  # the thickness that has the same phase at s
                low, high = self.ends[:, 2]
                points[:, 2] = 2 * (ratio * ((points[:, 2] + 1) / 2 * (high - low) + low) - low) / (high - low) - 1
            x.append(points)
            z.append(self.scaled[curves, k] + (4 * np.log(ratio) if self.s[j] > _WINDOW_FROM else 0))  # Porod
        own = np.concatenate([np.full(curves.size, k == j) for k, curves in found.items()])
        return np.concatenate(x), np.concatenate(z), np.concatenate(list(found.values())), own


def _search_kernels(data):
    """(n_node, 2 + n_coordinate) ndarray: amplitude, noise and lengths of each node, by maximum likelihood."""
    chosen = np.linspace(0, len(data.s) - 1, _SEARCHED + 2).astype(int)[1:-1]
    rng = np.random.default_rng(0)
    logs = []
    for j in chosen:
        x, z, _, _ = data(j)
        some = rng.permutation(len(x))[:_CURVES_OF_SEARCH]
        x, z = x[some], (z[some] - z.mean()) / z.std()
        squares = (x[:, np.newaxis] - x) ** 2

        def negative_log_likelihood(p, z=z, squares=squares):
            amplitude, noise, *lengths = np.exp(p)
            signal = amplitude * np.exp(-(squares / np.square(lengths)).sum(axis=-1) / 2)
            factor = cho_factor(signal + noise * np.eye(len(z)), lower=True)
            inverse = cho_solve(factor, np.eye(len(z)))
            alpha = inverse @ z
            slope = np.outer(alpha, alpha) - inverse
            gradient = [-(slope * signal).sum() / 2, -noise * np.trace(slope) / 2]
            gradient += [-(slope * signal * squares[..., i]).sum() / (2 * lengths[i] ** 2) for i in range(len(lengths))]
            return z @ alpha / 2 + np.log(np.diag(factor[0])).sum(), np.array(gradient)

        # The thickness starts at a long and a short length: an oscillation hides the way from one to the other.
        bounds = [(-2, 7), (-14, 0.5), (-1, 2.5), (-1, 2.5), *[(-3.5, 2)] * data.three, (-1, 2.5)]
        starts = [[1, -4, 1, 0.5, *[length] * data.three, 1] for length in ((0, -2) if data.three else (0,))]
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
    positions = _position(data.s)
    return np.exp([np.interp(positions, positions[chosen], column) for column in np.transpose(logs)]).T


def _interpolate(data, j, kernel, axes, inflation):
    """Table of one node's Gaussian process; writes how much smaller its residuals are than cross-validated ones."""
    x, z, curves, own = data(j)
    mean, sd = z.mean(), z.std()
    amplitude, noise, *lengths = kernel
    points = x / lengths
    squares = (points**2).sum(axis=1)
    covariance = amplitude * np.exp(points @ points.T - squares / 2 - squares[:, np.newaxis] / 2)
    covariance[np.diag_indices(len(x))] += noise
    factor = cho_factor(covariance, lower=True, overwrite_a=True)
    alpha = cho_solve(factor, (z - mean) / sd)
    inverse = np.tril(lapack.dpotri(factor[0], lower=1)[0])
    inverse += np.tril(inverse, -1).T
    order = np.argsort(curves, kind="stable")
    for block in np.split(order, np.flatnonzero(np.diff(curves[order])) + 1):
        (centre,) = np.nonzero(own[block])
        if centre.size:  # variance with the whole curve left out over that of the fitted residual
            left_out = np.linalg.inv(inverse[np.ix_(block, block)])[centre[0], centre[0]]
            fitted = noise**2 * inverse[block[centre[0]], block[centre[0]]]
            inflation[curves[block[0]], j] = np.sqrt(left_out / fitted)
    parts = [
        np.exp(-(((axis[:, np.newaxis] - x[:, i]) / length) ** 2) / 2)
        for i, (axis, length) in enumerate(zip(axes, lengths, strict=False))
    ]
    parts[-1] *= amplitude * alpha * np.exp(-((x[:, -1] / lengths[-1]) ** 2) / 2)
    first = parts[0] if len(parts) == 2 else (parts[0][:, np.newaxis] * parts[1]).reshape(-1, len(x))
    return mean + sd * (first @ parts[-1].T).reshape([len(axis) for axis in axes])


# ---------------------------------------------------------------------- coordinates


def _position(s):
    """Even steps of it are even in ln s where s is small, and even in s, as oscillations are, where it is large."""
    return np.log(s) + s / 4


def _nodes(case, q):
    """Positions and s of the nodes."""
    lower, upper = case.ranges["scaling_parameter"]
    ends = q[0] * lower, q[-1] * upper
    low, high = map(_position, ends)
    nodes = np.linspace(low, high, int(np.ceil((high - low) / _STEP)) + 1)
    s = np.geomspace(*ends, 20_000)
    return nodes, np.interp(nodes, _position(s), s)


def _on_nodes(log_intensity, theta, q, nodes):
    """(n_sample, n_node) ndarray of ln I - 3 ln a; NaN at the nodes that a curve does not reach."""
    result = np.full((len(theta), len(nodes)), np.nan)
    for row, curve, a in zip(result, log_intensity, theta[:, 0], strict=True):
        positions = _position(a * q)
        there = (nodes >= positions[0]) & (nodes <= positions[-1])
        row[there] = CubicSpline(positions, curve - 3 * np.log(a))(nodes[there])
    return result


def _theta(case, parameters):
    """(n_sample, n_output) ndarray of the parameters, inside the prior."""
    missing = set(case.outputs) - set(parameters)
    if missing:
        raise ValueError(f"parameters must hold {', '.join(case.outputs)}; {', '.join(missing)} is missing")
    theta = np.stack(np.broadcast_arrays(*(check(name, np.atleast_1d(parameters[name])) for name in case.outputs)), 1)
    for name, values in zip(case.outputs, theta.T, strict=True):
        lower, upper = case.ranges[name]
        if ((values < lower) | (values > upper)).any():
            raise ValueError(f"{name} must lie in [{lower:g}, {upper:g}], the prior of {case.name}: no extrapolation")
    return theta


def _limits(case):
    return np.transpose([case.ranges[name] for name in case.outputs])


def _coordinates(theta):
    """ln a, porosity and, in three phases, the thickness of the layer."""
    thickness = [layer_thickness(theta[:, 1], layer_fraction) for layer_fraction in theta[:, 2:].T]
    return np.column_stack([np.log(theta[:, 0]), theta[:, 1], *thickness])


def _ends(case):
    """(2, n_coordinate) ndarray: smallest and largest coordinates, those of corners of the prior."""
    corners = _coordinates(np.stack(np.meshgrid(*_limits(case).T), axis=-1).reshape(-1, len(case.outputs)))
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def _scaled(case, theta):
    """Coordinates from -1 to 1."""
    low, high = _ends(case)
    return np.clip(2 * (_coordinates(theta) - low) / (high - low) - 1, -1, 1)


def _place(case, theta):
    """Coordinates in which to look for neighbours: residuals change most with a."""
    return _scaled(case, theta) / np.array([1.0, 2.0, 1.5])[: theta.shape[1]]
