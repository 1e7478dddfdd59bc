r"""New curves without new structures, from a thousand real ones.

The curve of a structure of length scale a is, in terms of :math:`s = aq` and of an effective scale :math:`a e^u`,

.. math:: \ln I(q) = 3 \ln (a e^u) + \ln A(q) + f(s e^u; a e^u, \epsilon, \nu) + r(q).

**Mean.** A is what sampling on voxels adds (`aliasing`). With s as variable f changes little with a. In three phases it
oscillates with the phase :math:`s d`, for the waves from both faces of a layer of thickness :math:`a d` interfere; with
d (`coordinates.layer_thickness`) in the place of :math:`\nu`, f is smooth. At each of two hundred s a Gaussian process
interpolates it, where it oscillates its exponential: a sum of two waves has sharp minima in the logarithm alone. Such
waves are part of the process (`gaussian_process`). The processes are then tabulated, so that a curve takes
microseconds. What voxels do to a thin layer is not smooth and is learned by itself (`voxel_correction`).

**What a finite box does.** The thresholds fix :math:`\epsilon` and :math:`\nu` exactly, but the modes of a box are a
sample of the spectrum, and its structure is that of a slightly different a. This *stretch* u makes 88 to 98 % of the
variance of ln I above q = 1.2 nm\ :sup:`-1` (replicates of three points of a = 4 and 6 nm). Modes count as
:math:`(L/a)^3`, so the variances of u and of the rest r are proportional to :math:`a^3`.

**Fit.** The processes take curves at their a first, which gives a stretch for each (least squares, normal prior), then
at their stretched a, which leaves a tenth of the scatter. What the stretches have in common at nearby parameters
belongs to the mean: a polynomial of the parameters, the *drift*. Their variance, in units of :math:`a^3`, is the
exponential of another. A new curve takes a random combination, of unit length, of the stretches and rests of the
nearest real structures. Rests are those of a curve that had no part in its Gaussian processes: as they are, or by
cross-validation.
"""

import hashlib
import itertools
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.interpolate import NdBSpline
from scipy.spatial import KDTree
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ..files import moved_into_place
from ..grid import PAPER_GRID, PAPER_Q
from ..parameters import Case, check, get_case
from . import voxel_correction
from .coordinates import coordinate_ends, from_coordinates, layer_nanometres, layer_voxels, prior_limits, to_coordinates
from .gaussian_process import Nodes, interpolate, place_nodes, position, search_kernels

_PASSES = 3  # the second has the hyperparameters of the first
_CURVES_AT_FIRST = 1024  # most curves of the Gaussian processes, in all passes but the last
CURVES_OF_MEAN = 2560
"""Most curves of the Gaussian processes; all have a part in drift, lattice and residuals."""
_STRETCH = 0.0065  # standard deviation of u at a = 4 nm in the paper's box
_DEGREE = 4  # of the drift
_SPREAD_DEGREE = 2  # of the log variance of the stretches
_NEIGHBOURS = 20  # real structures combined in a residual
_NEAR_POROSITY = 4.0  # difference that counts as much as half the range of ln a in looking for them; in half ranges
_NEAR_THICKNESS = 2.0  # the same, of the layer [nm]
_LARGEST_INFLATION = 5.0  # of a fitted rest
_FILE_VERSION = 5


@dataclass(frozen=True, eq=False)
class Emulator:
    """Mean and residuals of the curves of a case at `PAPER_Q`, from `fit`.

    Attributes
    ----------
    case : Case
        With the prior that the emulator was fitted to.
    structures : (n_structure, n_output) ndarray of float64
        Parameters of the real structures that it has learned from.
    """

    case: Case
    _offset: np.ndarray  # (n_q,): ln A
    _knots: list
    _table: np.ndarray  # (points of the table, fine nodes)
    _nodes: np.ndarray  # fine nodes, in units of `gaussian_process.position`
    _lattice: np.ndarray | None = None  # table of `voxel_correction.look_up`; of three phases
    _drift: np.ndarray | None = None
    _spread: np.ndarray | None = None  # of the log variance of stretches in units of `_usual_stretch`
    structures: np.ndarray | None = None
    _tree: KDTree | None = None
    _stretches: np.ndarray | None = None  # (n_structure,): in units of `stretch_sd`
    _rests: np.ndarray | None = None  # (n_structure, n_q): in units of `_usual_stretch`

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
        return self._manifold(_stretched(theta, self._drift_at(theta)))

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
        stretch = np.sum(weights * stretches, axis=1) + self._drift_at(theta)
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
        stretches = self._stretches[nearest] * self.stretch_sd(theta)[:, np.newaxis]
        return stretches, self._rests[nearest] * _usual_stretch(theta)[:, np.newaxis, np.newaxis]

    def stretch_sd(self, theta):
        """(n_sample,) ndarray: standard deviation of the stretches at parameters (n_sample, n_output)."""
        return _usual_stretch(theta) * np.exp(_polynomials(self.case, theta, _SPREAD_DEGREE) @ self._spread / 2)

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
        theta = from_coordinates(self.case, coordinates)
        a = theta[:, 0] * np.exp(self._drift_at(np.clip(theta, *prior_limits(self.case))))
        low, high = coordinate_ends(self.case)[:, 0]
        return self._at(np.column_stack([2 * (np.log(a) - low) / (high - low) - 1, coordinates[:, 1:]]), a)

    def of_lattice(self, thickness):
        """What voxels add to the mean log intensity, see `voxel_correction`; nothing without a layer.

        Parameters
        ----------
        thickness : (n_sample,) array_like
            Of the layer [voxel].

        Returns
        -------
        (n_sample, n_q) ndarray of float64
        """
        thickness = np.asarray(thickness, dtype=np.float64)
        if self._lattice is None:
            return np.zeros((thickness.size, PAPER_Q.size))
        return voxel_correction.look_up(self._lattice, thickness)

    def _drift_at(self, theta):
        return _polynomials(self.case, theta, _DEGREE) @ self._drift

    def _manifold(self, theta):
        """(n_sample, n_q) ndarray: log intensity without drift and rest."""
        return self._at(to_coordinates(self.case, theta), theta[:, 0])

    def _at(self, coordinates, a):
        basis = NdBSpline.design_matrix(np.clip(coordinates, -1, 1), tuple(self._knots), 3)
        basis.resize(len(a), len(self._table))  # columns behind the last entry are left out
        rows = basis @ self._table
        curves = [np.interp(position(x * PAPER_Q), self._nodes, row) for x, row in zip(a, rows, strict=True)]
        curves = np.array(curves).reshape(len(a), -1) + self._offset + 3 * np.log(a)[:, np.newaxis]
        if self._lattice is not None:
            curves += self.of_lattice(layer_voxels(self.case, coordinates))
        return curves


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


def fit(case, intensity, parameters, *, progress=False):
    """Learn the curves of a case, on the paper's grid and at its q values.

    Parameters
    ----------
    case : str or Case
    intensity : (n_sample, 500) array_like
        Clean curves at `PAPER_Q` of different structures, spread over the prior; a few hundred for two phases, a
        thousand for three.
        Beyond `CURVES_OF_MEAN` they have no part in the Gaussian processes.
    parameters : dict of str to (n_sample,) array_like
        Theirs.
    progress : bool
        Whether to show a bar.

    Returns
    -------
    Emulator
        2560 curves take a minute in two phases and two to three in three, on two cores.

    Raises
    ------
    ValueError
        If there are fewer than 60 curves, an intensity is not positive, or a parameter is outside the prior.
    """
    case, q = get_case(case), PAPER_Q
    theta, intensity = _theta(case, parameters), check("intensity", intensity)
    if intensity.shape != (len(theta), q.size) or len(theta) < 60:
        raise ValueError(f"intensity must hold 60 curves or more of {q.size} values each, got shape {intensity.shape}")
    log_intensity, offset = np.log(intensity), np.log(aliasing(q, PAPER_GRID.voxel_size))
    sd = _usual_stretch(theta)
    # Scatter of ln I(q) at a known stretch, for weights: shells of few modes at low q, and the fit.
    scatter = 0.005 + 0.004 / q + 0.0003 / q**2
    independent = 4  # q values in a q spacing of the paper's box
    stretch, kernels, table = np.zeros(len(theta)), None, None
    total = _PASSES * len(place_nodes(case, q)[0])
    bar = tqdm(total=total, desc=f"emulator of {case.name}", unit="node", mininterval=5, disable=not progress)
    # Threads of the linear algebra that wait for each other on shared cores took thirty times as long as one.
    with bar, threadpool_limits(1, user_api="blas"):
        for step in range(_PASSES):
            last = step == _PASSES - 1
            some = slice(CURVES_OF_MEAN if last else _CURVES_AT_FIRST)
            moved = _stretched(theta, stretch)
            relative = (_usual_stretch(moved) / _STRETCH) ** 2
            smooth = log_intensity - offset
            if table is not None:
                smooth -= voxel_correction.look_up(table, layer_voxels(case, to_coordinates(case, moved)))
            data = Nodes(case, smooth[some], moved[some], relative[some], q)
            if step == 0 or last:
                kernels = search_kernels(data, kernels)
            *manifold, inflation = interpolate(data, kernels, q, bar.update, last)
            emulator = Emulator(case, offset, *manifold, _lattice=table)
            for _ in range(3):
                residual = (log_intensity - emulator._manifold(_stretched(theta, stretch))) / scatter
                above, below = (emulator._manifold(_stretched(theta, stretch + h)) for h in (0.002, -0.002))
                slope = (above - below) / 0.004 / scatter
                gradient = np.sum(slope * residual, axis=1) / independent - stretch / sd**2
                precision = np.sum(slope**2, axis=1) / independent + sd**-2
                stretch = stretch + gradient / precision
            if len(case.outputs) == 3:
                moved = _stretched(theta, stretch)
                rests = log_intensity - replace(emulator, _lattice=None)._manifold(moved)
                table = voxel_correction.learn(
                    layer_voxels(case, to_coordinates(case, moved)), rests, (sd / _STRETCH) ** 2, q
                )
                emulator = replace(emulator, _lattice=table)
    basis = _polynomials(case, theta, _DEGREE) / sd[:, np.newaxis]
    drift = np.linalg.lstsq(basis, stretch / sd)[0]
    leverage = np.sum(np.linalg.qr(basis)[0] ** 2, axis=1)
    scaled = (stretch / sd - basis @ drift) / np.sqrt(1 - leverage)
    scaled *= np.sqrt(1 + np.mean(1 / (precision * sd**2)) / np.mean(scaled**2))  # what the fit leaves open
    spread_basis = _polynomials(case, theta, _SPREAD_DEGREE)
    spread = _log_variance(spread_basis, scaled)
    rests = log_intensity - emulator._manifold(_stretched(theta, stretch))
    rests[: len(inflation)] *= np.clip(inflation, 1, _LARGEST_INFLATION)
    return replace(
        emulator,
        _drift=drift,
        _spread=spread,
        structures=theta,
        _tree=KDTree(_place(case, theta)),
        _stretches=scaled / np.exp(spread_basis @ spread / 2),
        _rests=rests / sd[:, np.newaxis],
    )


_ARRAYS = ("structures", "_offset", "_table", "_nodes", "_lattice", "_drift", "_spread", "_stretches", "_rests")


def save(emulator, path):
    """Write an emulator to a file, for `load`, with the prior that it was fitted to and a checksum.

    Parameters
    ----------
    emulator : Emulator
    path : path-like
        Ends with ``.npz``. A file that is there is replaced when the new one is complete.
    """
    arrays = {name: getattr(emulator, name) for name in _ARRAYS if getattr(emulator, name) is not None}
    arrays["_table"] = emulator._table.astype(np.float32)
    arrays |= {f"knots{axis}": values for axis, values in enumerate(emulator._knots)}
    arrays |= {"q": PAPER_Q, "case": emulator.case.name, "prior": json.dumps(emulator.case.ranges)}
    arrays = {name: np.asarray(values) for name, values in arrays.items()}
    with moved_into_place(Path(path)) as temporary, temporary.open("wb") as file:
        np.savez(file, version=_FILE_VERSION, checksum=_checksum(arrays), **arrays)


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
        If it is damaged, or no emulator of this version of the program.
    """
    remedy = "remove it and fit the emulator again: notebook 11 does"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except FileNotFoundError:
        raise
    except Exception as error:  # NumPy and zipfile raise a dozen kinds, of which only some are of this file
        raise ValueError(f"{path} is damaged or not the file of an emulator ({error!r}); {remedy}") from None
    if "version" not in arrays or not np.array_equal(arrays.pop("version"), _FILE_VERSION):
        raise ValueError(f"{path} holds no emulator of version {_FILE_VERSION}; {remedy}")
    if not np.array_equal(arrays.pop("checksum", ""), _checksum(arrays)):
        raise ValueError(f"{path} is damaged: it does not hold what its checksum promises; {remedy}")
    if not np.array_equal(arrays.pop("q"), PAPER_Q):
        raise ValueError(f"{path} holds an emulator for other q values than PAPER_Q; {remedy}")
    ranges = {name: tuple(bounds) for name, bounds in json.loads(str(arrays.pop("prior"))).items()}
    case = Case(str(arrays.pop("case")), ranges)
    knots = [arrays.pop(f"knots{axis}") for axis in range(len(case.outputs))]
    return Emulator(case, _knots=knots, _tree=KDTree(_place(case, arrays["structures"])), **arrays)


def _checksum(arrays):
    """SHA-256 over names, types, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


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


def _usual_stretch(theta):
    """(n_sample,) ndarray: standard deviation of stretches in the paper's box by a alone, before `Emulator._spread`."""
    return _STRETCH * (theta[:, 0] / 4) ** 1.5


def _polynomials(case, theta, degree):
    """(n_sample, n_term) ndarray: products of Legendre polynomials of the scaled coordinates, the constant first."""
    values = [np.polynomial.legendre.legvander(x, degree).T for x in to_coordinates(case, theta).T]
    powers = itertools.product(range(degree + 1), repeat=len(values))
    return np.stack(
        [np.prod([v[k] for v, k in zip(values, ks, strict=True)], 0) for ks in powers if sum(ks) <= degree], 1
    )


def _log_variance(basis, values):
    """Coefficients of the log variance of normal values, by maximum likelihood (Fisher scoring)."""
    coefficients = np.append(np.log(np.mean(values**2)), np.zeros(basis.shape[1] - 1))
    for _ in range(20):
        coefficients += np.linalg.lstsq(basis, values**2 / np.exp(basis @ coefficients) - 1)[0]
    return coefficients


def _place(case, theta):
    """Coordinates in which to look for neighbours: rests are largest in minima, which layers of a thickness share."""
    coordinates = to_coordinates(case, theta)
    places = [coordinates[:, 0], coordinates[:, 1] / _NEAR_POROSITY]
    if len(case.outputs) == 3:
        places.append(layer_nanometres(case, coordinates) / _NEAR_THICKNESS)
    return np.column_stack(places)
