r"""New curves without new structures, from a thousand real ones.

The curve of a structure of length scale a is, in terms of :math:`s = aq` and of an effective scale :math:`a e^u`,

.. math:: \ln I(q) = 3 \ln (a e^u) + \ln A(q) + f(s e^u; a e^u, \epsilon, \nu) + r(q).

**Mean.** A is what sampling on voxels adds (`aliasing`). With s as variable f changes little with a. In three phases it
oscillates with the phase :math:`s d`, for the waves from both faces of a layer of thickness :math:`a d` interfere; with
d (`layer_thickness`) in the place of :math:`\nu`, f is smooth. At each of some hundred s a Gaussian process
interpolates it, where it oscillates its exponential: a sum of two waves has sharp minima in the logarithm alone. The
process is the sum of such waves, with coefficients that are polynomials of the parameters, and of a stationary one. The
processes are then tabulated, so that a curve takes microseconds.

**What a finite box does.** The thresholds fix :math:`\epsilon` and :math:`\nu` exactly, but the modes of a box are a
sample of the spectrum, and its structure is that of a slightly different a. This *stretch* u makes 88 to 98 % of the
variance of ln I above q = 1.2 nm\ :sup:`-1` (replicates of three points of a = 4 and 6 nm). Modes count as
:math:`(L/a)^3`, so the variances of u and of the rest r are proportional to :math:`a^3`.

**Fit.** The processes take curves at their a first, which gives a stretch for each (least squares, normal prior), then
at their stretched a, which leaves a tenth of the scatter. What the stretches have in common at nearby parameters
belongs to the mean: a polynomial of the parameters, the *drift*. A new curve takes a random combination, of unit
length, of the stretches and rests of the nearest real structures. Rests are those of a curve that had no part in the
fit, by cross-validation.
"""

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

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
from .provenance import moved_into_place

_STEP = 0.06  # between nodes, in units of `_position`
_WINDOW = (-0.1, 0.0)  # ln s of the neighbours that a node sees too: they support the end of the range
_TAIL = 2.5  # s; above it curves oscillate and neighbours are seen; below, enough curves reach every node
_WAVES_FROM = 1.0  # s
_MARGIN = 0.06  # of ln a beyond the prior, where stretched structures lie
_TABLE = (10, 14, 96)  # points of the table along ln a, porosity, thickness
_FINER = 4  # rows of the finer table, for linear interpolation, per node
_SEARCHED = 12  # nodes at which the kernel is optimised; in between its logarithms are interpolated
_CURVES_OF_SEARCH = 600  # most data in that search
_PASSES = 3  # the last alone sees neighbours; the second has the kernels of the first
_STRETCH = 0.0065  # standard deviation of u at a = 4 nm in the paper's box
_DEGREE = 4  # of the drift
_NEIGHBOURS = 20  # real structures combined in a residual
_FEWEST = 12  # curves at a node; with fewer it takes the value of its neighbour
_LARGEST_INFLATION = 5.0  # of a fitted rest
_FILE_VERSION = 1
_LEAST = 0.5  # of the smallest value at a node: a process that oscillates may not fall below


@dataclass(frozen=True, eq=False)
class Emulator:
    """Mean and residuals of the curves of a case, from `fit`.

    Attributes
    ----------
    case : Case
    q : (n_q,) ndarray of float64
        Scattering vector [nm^-1].
    structures : (n_structure, n_output) ndarray of float64
        Parameters of the real structures that it has learned from.
    """

    case: Case
    q: np.ndarray
    _offset: np.ndarray  # (n_q,): ln A
    _knots: list
    _table: np.ndarray  # (points of the table, fine nodes)
    _nodes: np.ndarray  # fine nodes, in units of `_position`
    _drift: np.ndarray | None = None
    structures: np.ndarray | None = None  # (n_structure, n_output): their parameters
    _tree: KDTree | None = None
    _stretches: np.ndarray | None = None  # (n_structure,): in units of `stretch_sd`
    _rests: np.ndarray | None = None  # (n_structure, n_q): the same

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
        theta = _theta(self.case, parameters)
        return self._manifold(_stretched(theta, _drift_basis(self.case, theta) @ self._drift))

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
        stretches, rests = self.residuals(parameters)
        weights = rng.standard_normal(stretches.shape)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        stretch = np.sum(weights * stretches, axis=1) + _drift_basis(self.case, theta) @ self._drift
        return np.exp(self._manifold(_stretched(theta, stretch)) + np.einsum("nk,nkq->nq", weights, rests))

    def residuals(self, parameters, count=_NEIGHBOURS):
        """What `draw` combines: residuals of the nearest real structures, at the size that they have here.

        Parameters
        ----------
        parameters
            As in `mean`.
        count : int
            How many, two or more.

        Returns
        -------
        stretches : (n_sample, count) ndarray of float64
        rests : (n_sample, count, n_q) ndarray of float64
        """
        if not 2 <= count <= len(self.structures):
            raise ValueError(f"count must be from 2 to {len(self.structures)}, the structures learned; got {count}")
        theta = _theta(self.case, parameters)
        _, nearest = self._tree.query(_place(self.case, theta), count)
        sd = stretch_sd(theta)[:, np.newaxis]
        return self._stretches[nearest] * sd, self._rests[nearest] * sd[..., np.newaxis]

    @property
    def stretch_rms(self):
        """Root mean square of the stretches in units of `stretch_sd`."""
        return np.sqrt(np.mean(self._stretches**2))

    def curves(self, coordinates):
        """Mean log intensity at coordinates (`to_coordinates`), also where no structure of the prior lies.

        Parameters
        ----------
        coordinates : (n_sample, n_output) ndarray of float64
            From -1 to 1.

        Returns
        -------
        (n_sample, n_q) ndarray of float64
        """
        inside = from_coordinates(self.case, coordinates)
        inside = np.clip(inside, *_limits(self.case))
        a = from_coordinates(self.case, coordinates)[:, 0] * np.exp(_drift_basis(self.case, inside) @ self._drift)
        low, high = _ends(self.case)[:, 0]
        return self._at(np.column_stack([2 * (np.log(a) - low) / (high - low) - 1, coordinates[:, 1:]]), a)

    def _manifold(self, theta):
        """(n_sample, n_q) ndarray: log intensity without drift and rest."""
        return self._at(to_coordinates(self.case, theta), theta[:, 0])

    def _at(self, coordinates, a):
        position = np.zeros((len(a), 1), dtype=np.int64)
        weight = np.ones((len(a), 1))
        for values, knots in zip(np.clip(coordinates, -1, 1).T, self._knots, strict=True):
            basis = BSpline.design_matrix(values, knots, 3)  # four entries a row
            columns, entries = basis.indices.reshape(-1, 1, 4), basis.data.reshape(-1, 1, 4)
            position = (position[:, :, np.newaxis] * basis.shape[1] + columns).reshape(len(a), -1)
            weight = (weight[:, :, np.newaxis] * entries).reshape(len(a), -1)
        ends = np.arange(0, weight.size + 1, weight.shape[1])
        rows = sparse.csr_matrix((weight.ravel(), position.ravel(), ends), (len(a), len(self._table))) @ self._table
        curves = [np.interp(_position(x * self.q), self._nodes, row) for x, row in zip(a, rows, strict=True)]
        return np.array(curves).reshape(len(a), -1) + self._offset + 3 * np.log(a)[:, np.newaxis]


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
    surface, curvature = _distances(np.asarray(porosity))
    return (np.sqrt(surface**2 - 4 * curvature * np.log1p(-np.asarray(layer_fraction))) - surface) / (2 * curvature)


def _distances(porosity):
    """A and B of `layer_thickness`."""
    return 0.285 * np.exp(-(ndtri(porosity) ** 2) / 2) / porosity, 0.26 - 0.16 * porosity


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
        768 curves of two phases and twice 1536 of three take five minutes together on two cores.

    Raises
    ------
    ValueError
        If there are fewer than 60 curves, an intensity is not positive, or a parameter is outside the prior.
    """
    case, q = get_case(case), np.asarray(q, dtype=np.float64)
    theta, intensity = _theta(case, parameters), check("intensity", intensity)
    if intensity.shape != (len(theta), q.size) or len(theta) < 60:
        raise ValueError(f"intensity must hold 60 curves or more of {q.size} values each, got shape {intensity.shape}")
    log_intensity = np.log(intensity)
    sd = stretch_sd(theta)
    # Scatter of ln I(q) at a known stretch, for weights: shells of few modes at low q, and the fit.
    scatter = 0.005 + 0.004 / q + 0.0003 / q**2
    independent = 4  # q values in a q spacing of the box
    stretch, kernels = np.zeros(len(theta)), None
    bar = tqdm(
        total=_PASSES * len(_nodes(case, q)[0]), desc=f"emulator of {case.name}", unit="node", disable=not progress
    )
    # Threads of the linear algebra that wait for each other on shared cores took thirty times as long as one.
    with bar, threadpool_limits(1, user_api="blas"):
        for step in range(_PASSES):
            last = step == _PASSES - 1
            data = _Data(case, log_intensity, _stretched(theta, stretch), q, grid, _WINDOW if last else (0.0,))
            if step == 0 or last:
                kernels = _search_kernels(data)
            emulator, inflation = _interpolate(case, data, kernels, q, grid, bar.update, last)
            for _ in range(3):
                residual = (log_intensity - emulator._manifold(_stretched(theta, stretch))) / scatter
                above, below = (emulator._manifold(_stretched(theta, stretch + h)) for h in (0.002, -0.002))
                slope = (above - below) / 0.004 / scatter
                gradient = np.sum(slope * residual, axis=1) / independent - stretch / sd**2
                precision = np.sum(slope**2, axis=1) / independent + sd**-2
                stretch = stretch + gradient / precision
    basis, scaled = _drift_basis(case, theta) / sd[:, np.newaxis], stretch / sd
    drift = np.linalg.lstsq(basis, scaled)[0]
    missing = np.mean(1 / (precision * sd**2)) / np.mean(scaled**2)  # variance of what the fit leaves open
    leverage = np.sum(np.linalg.qr(basis)[0] ** 2, axis=1)
    inflation = np.clip(inflation, 1, _LARGEST_INFLATION)
    rests = (log_intensity - emulator._manifold(_stretched(theta, stretch))) * inflation
    return replace(
        emulator,
        _drift=drift,
        structures=theta,
        _tree=KDTree(_place(case, theta)),
        _stretches=(scaled - basis @ drift) * np.sqrt((1 + missing) / (1 - leverage)),
        _rests=rests / sd[:, np.newaxis],
    )


_ARRAYS = ("q", "structures", "_offset", "_table", "_nodes", "_drift", "_stretches", "_rests")


def save(emulator, path):
    """Write an emulator to a file, for `load`.

    Parameters
    ----------
    emulator : Emulator
    path : path-like
        Ends with ``.npz``. A file that is there is replaced when the new one is complete.
    """
    arrays = {name: getattr(emulator, name) for name in _ARRAYS}
    arrays["_table"] = emulator._table.astype(np.float32)
    knots = {f"knots{axis}": values for axis, values in enumerate(emulator._knots)}
    with moved_into_place(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, case=emulator.case.name, version=_FILE_VERSION, **arrays, **knots)


def load(path):
    """Read an emulator that `save` has written.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Emulator

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no emulator of this version of the program.
    """
    with np.load(path, allow_pickle=False) as file:
        if "version" not in file or int(file["version"]) != _FILE_VERSION:
            raise ValueError(f"{path} holds no emulator of version {_FILE_VERSION}: fit one, notebook 11 does")
        case = get_case(str(file["case"]))
        knots = [file[f"knots{axis}"] for axis in range(len(case.outputs))]
        arrays = {name: file[name] for name in _ARRAYS}
    return Emulator(case, _knots=knots, _tree=KDTree(_place(case, arrays["structures"])), **arrays)


class _Data:
    """Curves on nodes of s, and what the Gaussian process of a node sees of them."""

    def __init__(self, case, log_intensity, theta, q, grid, window):
        self.window = window
        self.nodes, self.s = _nodes(case, q)
        self.a, self.coordinates = theta[:, 0], to_coordinates(case, theta)
        self.curves = _on_nodes(log_intensity - np.log(aliasing(q, grid.voxel_size)), theta, q, self.nodes)
        reached = np.isfinite(self.curves)
        self.level = np.sum(self.curves, axis=0, where=reached) / np.maximum(reached.sum(axis=0), 1)
        self.scatter = (stretch_sd(theta) / _STRETCH) ** 2  # variance, in terms of that at a = 4 nm
        self.thickness = _ends(case)[:, 2] if theta.shape[1] == 3 else None

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


def _search_kernels(data):
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
    positions = _position(data.s)
    return np.exp([np.interp(positions, positions[chosen], column) for column in np.transpose(logs)]).T


def _interpolate(case, data, kernels, q, grid, report, inflated):
    """Emulator of the manifold; and, if asked for, (n_sample, n_q) cross-validated residuals over fitted ones."""
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
    offset = np.log(aliasing(q, grid.voxel_size))
    emulator = Emulator(case, q, offset, knots, np.ascontiguousarray(table), fine)
    if not inflated:
        return emulator, None
    inflation = [
        np.interp(_position(a * q), data.nodes[there], row[there])
        for a, row, there in zip(data.a, inflation, np.isfinite(inflation), strict=True)
    ]
    return emulator, np.array(inflation)


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


# ---------------------------------------------------------------------- coordinates


def _position(s):
    """Even steps of it are even in ln s where s is small, and even in s, as oscillations are, where it is large."""
    return np.log(s) + s / 4


def _nodes(case, q):
    """Positions and s of the nodes."""
    ends = q[[0, -1]] * np.exp(_ends(case)[:, 0])
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


def _stretched(theta, stretch):
    return np.column_stack([theta[:, 0] * np.exp(stretch), theta[:, 1:]])


def stretch_sd(theta):
    """(n_sample,) ndarray: standard deviation of the stretches of structures in the paper's box."""
    return _STRETCH * (theta[:, 0] / 4) ** 1.5


def _drift_basis(case, theta):
    """(n_sample, n_term) ndarray: products of Legendre polynomials of the scaled coordinates."""
    values = [np.polynomial.legendre.legvander(x, _DEGREE).T for x in to_coordinates(case, theta).T]
    powers = itertools.product(range(_DEGREE + 1), repeat=len(values))
    return np.stack(
        [np.prod([v[k] for v, k in zip(values, ks, strict=True)], 0) for ks in powers if sum(ks) <= _DEGREE], 1
    )


def _limits(case):
    return np.transpose([case.ranges[name] for name in case.outputs])


def _coordinates(theta):
    """ln a, porosity and, in three phases, the thickness of the layer."""
    thickness = [layer_thickness(theta[:, 1], layer_fraction) for layer_fraction in theta[:, 2:].T]
    return np.column_stack([np.log(theta[:, 0]), theta[:, 1], *thickness])


def _ends(case):
    """(2, n_coordinate) ndarray: smallest and largest coordinates, those of corners of the prior, and a margin."""
    corners = _coordinates(np.stack(np.meshgrid(*_limits(case).T), axis=-1).reshape(-1, len(case.outputs)))
    ends = np.stack([corners.min(axis=0), corners.max(axis=0)])
    ends[:, 0] += -_MARGIN, _MARGIN
    return ends


def to_coordinates(case, theta):
    """(n_sample, n_output) ndarray: ln a, porosity and thickness of the layer, from -1 to 1 where structures lie."""
    low, high = _ends(case)
    return 2 * (_coordinates(theta) - low) / (high - low) - 1


def from_coordinates(case, coordinates):
    """(..., n_output) ndarray: the parameters that `to_coordinates` was given."""
    low, high = _ends(case)
    logarithm, porosity, *thickness = np.moveaxis(low + (np.asarray(coordinates) + 1) / 2 * (high - low), -1, 0)
    surface, curvature = _distances(porosity)
    fractions = [-np.expm1(-surface * d - curvature * d**2) for d in thickness]
    return np.stack([np.exp(logarithm), porosity, *fractions], axis=-1)


def _place(case, theta):
    """Coordinates in which to look for neighbours: residuals change most with a."""
    return to_coordinates(case, theta) / np.array([1.0, 2.0, 1.5])[: theta.shape[1]]
