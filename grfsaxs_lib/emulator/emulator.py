r"""New curves without new structures, from a thousand real ones.

The curve of a structure of length scale a is, in terms of :math:`s = aq` and of an effective scale :math:`a e^u`,

.. math:: \ln I(q) = 3 \ln (a e^u) + \ln A(q) + f(s e^u; a e^u, \epsilon, \nu) + r(q).

**Mean.** A is what sampling on voxels adds (`mean.aliasing`). With s as variable f changes little with a. In three
phases it oscillates with the phase :math:`s d`, for the waves from both faces of a layer of thickness :math:`a d`
interfere; with d (`coordinates.layer_thickness`) in place of :math:`\nu`, f is smooth. At each of two hundred s a
Gaussian process interpolates it, or its exponential where it oscillates: a sum of two waves has sharp minima in the
logarithm alone. Such waves are part of the process (`gaussian_process`). The processes are then tabulated (`mean`), so
that a curve takes microseconds. What voxels do to a thin layer is not smooth and is learned by itself
(`voxel_correction`).

**What a finite box does.** The thresholds fix :math:`\epsilon` and :math:`\nu` exactly, but the modes of a box are a
sample of the spectrum, and its structure is that of a slightly different a. This *scale shift of one realisation*, u,
makes 88 to 98 % of the variance of ln I above q = 1.2 nm\ :sup:`-1` (replicates of three points of a = 4 and 6 nm).
What remains is the *residual* r (`residuals`).

**Fit.** The processes first take curves at their own a, which gives a scale shift for each (least squares, normal
prior), then at their shifted a, which leaves a tenth of the scatter. What the scale shifts have in common at nearby
parameters belongs to the mean. A new curve takes a random combination, of unit length, of the scale shifts and
residuals of the nearest real structures. Residuals are those of a curve that had no part in its Gaussian processes:
as they are, or by cross-validation.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from ..files import moved_into_place
from ..grid import PAPER_GRID, PAPER_Q
from ..parameters import Case, check, get_case
from . import residuals, voxel_correction
from .coordinates import coordinate_ends, from_coordinates, layer_voxels, prior_limits, to_coordinates
from .gaussian_process import Nodes, interpolate, node_positions, search_kernels
from .mean import Mean, aliasing
from .residuals import Residuals, shifted, usual_sd
from .settings import DEFAULT, Settings

_FILE_VERSION = 6


@dataclass(frozen=True, eq=False)
class Emulator:
    """Mean and residuals of the curves of a case at `PAPER_Q`, from `fit`.

    Attributes
    ----------
    case : Case
        With the prior that the emulator was fitted to.
    settings : Settings
    """

    case: Case
    settings: Settings
    _mean: Mean
    _residuals: Residuals

    @property
    def structures(self):
        """(n_structure, n_output) ndarray of float64: parameters of the real structures learned from."""
        return self._residuals.structures

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
        theta = _as_array(self.case, parameters)
        return self._mean(shifted(theta, self._residuals.drift(theta)))

    def mean_at(self, coordinates):
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
        a = theta[:, 0] * np.exp(self._residuals.drift(np.clip(theta, *prior_limits(self.case))))
        low, high = coordinate_ends(self.case)[:, 0]
        return self._mean.at(np.column_stack([2 * (np.log(a) - low) / (high - low) - 1, coordinates[:, 1:]]), a)

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
        theta = _as_array(self.case, parameters)
        shift, residual = self._residuals.draw(theta, rng)
        return np.exp(self._mean(shifted(theta, shift)) + residual)

    def residuals(self, parameters, count):
        """Scale shifts and residuals of the nearest real structures, at the size that they have at the parameters.

        Parameters
        ----------
        parameters
            As in `mean`.
        count : int
            How many, two or more.

        Returns
        -------
        scale_shifts : (n_sample, count) ndarray of float64
        residuals : (n_sample, count, n_q) ndarray of float64
        """
        return self._residuals.nearest(_as_array(self.case, parameters), count)

    def scale_shift_sd(self, theta):
        """(n_sample,) ndarray: standard deviation of the scale shifts at parameters (n_sample, n_output)."""
        return self._residuals.scale_shift_sd(theta)

    def voxel_effect(self, thickness):
        """What voxels add to the mean log intensity, see `voxel_correction`; nothing without a layer.

        Parameters
        ----------
        thickness : (n_sample,) array_like
            Of the layer [voxel].

        Returns
        -------
        (n_sample, n_q) ndarray of float64
        """
        return self._mean.voxel_effect(thickness)


def fit(case, intensity, parameters, *, settings=DEFAULT, progress=False):
    """Learn the curves of a case, on the paper's grid and at its q values.

    Parameters
    ----------
    case : str or Case
    intensity : (n_sample, 500) array_like
        Clean curves at `PAPER_Q` of different structures, spread over the prior; a few hundred for two phases, a
        thousand for three.
    parameters : dict of str to (n_sample,) array_like
        Theirs.
    settings : Settings
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
    case = get_case(case)
    theta, intensity = _as_array(case, parameters), check("intensity", intensity)
    if intensity.shape != (len(theta), PAPER_Q.size) or len(theta) < 60:
        raise ValueError(
            f"intensity must hold 60 curves or more of {PAPER_Q.size} values each, got shape {intensity.shape}"
        )
    log_intensity = np.log(intensity)
    total = settings.passes * len(node_positions(case, PAPER_Q, settings)[0])
    bar = tqdm(total=total, desc=f"emulator of {case.name}", unit="node", mininterval=5, disable=not progress)
    # Threads of the linear algebra that wait for each other on shared cores took thirty times as long as one.
    with bar, threadpool_limits(1, user_api="blas"):
        mean, shift, precision, inflation = _fit_mean(case, log_intensity, theta, settings, bar.update)
    rest = log_intensity - mean(shifted(theta, shift))
    rest[: len(inflation)] *= np.clip(inflation, 1, settings.largest_inflation)
    return Emulator(case, settings, mean, residuals.learn(case, theta, shift, precision, rest, settings))


def _fit_mean(case, log_intensity, theta, settings, report):
    """Mean, and in turn the scale shifts of the structures.

    Returns
    -------
    mean : Mean
    shift, precision : (n_sample,) ndarray
        Scale shifts and their precision.
    inflation : (n_learned, n_q) ndarray
        Cross-validated residuals over fitted ones, of the curves that the Gaussian processes have learned from.
    """
    offset = np.log(aliasing(PAPER_Q, PAPER_GRID.voxel_size))
    shift, kernels, voxel_table = np.zeros(len(theta)), None, None
    for step in range(settings.passes):
        last = step == settings.passes - 1
        some = slice(settings.curves_of_mean if last else settings.curves_at_first)
        moved = shifted(theta, shift)
        smooth = log_intensity - offset
        if voxel_table is not None:
            thickness = layer_voxels(case, to_coordinates(case, moved))
            smooth -= voxel_correction.look_up(voxel_table, thickness, settings)
        relative = (usual_sd(moved, settings) / settings.scale_shift_sd) ** 2
        data = Nodes(case, smooth[some], moved[some], relative[some], PAPER_Q, settings)
        if step == 0 or last:
            kernels = search_kernels(data, kernels)
        *tables, inflation = interpolate(data, kernels, PAPER_Q, report, last)
        mean = Mean(case, settings, offset, *tables, voxel_table)
        for _ in range(3):
            shift, precision = _improved(mean, log_intensity, theta, shift)
        if len(case.outputs) == 3:
            voxel_table = _voxel_table(mean, log_intensity, theta, shift)
            mean = replace(mean, voxel_table=voxel_table)
    return mean, shift, precision, inflation


def _improved(mean, log_intensity, theta, shift):
    """Scale shifts after a Gauss-Newton step of their least-squares fit with a normal prior, and their precision."""
    q, sd = PAPER_Q, usual_sd(theta, mean.settings)
    independent = 4  # q values in a q spacing of the paper's box
    constant, first, second = mean.settings.known_shift_scatter
    scatter = constant + first / q + second / q**2
    residual = (log_intensity - mean(shifted(theta, shift))) / scatter
    above, below = (mean(shifted(theta, shift + h)) for h in (0.002, -0.002))
    slope = (above - below) / 0.004 / scatter
    gradient = np.sum(slope * residual, axis=1) / independent - shift / sd**2
    precision = np.sum(slope**2, axis=1) / independent + sd**-2
    return shift + gradient / precision, precision


def _voxel_table(mean, log_intensity, theta, shift):
    """Table of the voxel effect, learned from what the smooth part of the mean leaves."""
    case, settings, moved = mean.case, mean.settings, shifted(theta, shift)
    rest = log_intensity - replace(mean, voxel_table=None)(moved)
    thickness = layer_voxels(case, to_coordinates(case, moved))
    relative = (usual_sd(theta, settings) / settings.scale_shift_sd) ** 2
    return voxel_correction.learn(thickness, rest, relative, PAPER_Q, settings)


_OF_MEAN = ("offset", "table", "nodes", "voxel_table")
_OF_RESIDUALS = ("structures", "drift_coefficients", "spread_coefficients", "shifts", "residuals")


def save(emulator, path):
    """Write an emulator to a file, for `load`, with its prior, its settings and a checksum.

    Parameters
    ----------
    emulator : Emulator
    path : path-like
        Ends with ``.npz``. A file that is there is replaced when the new one is complete.
    """
    arrays = {name: getattr(emulator._mean, name) for name in _OF_MEAN}
    arrays |= {name: getattr(emulator._residuals, name) for name in _OF_RESIDUALS}
    arrays["table"] = arrays["table"].astype(np.float32)
    arrays |= {f"knots{axis}": values for axis, values in enumerate(emulator._mean.knots)}
    arrays |= {"q": PAPER_Q, "case": emulator.case.name, "prior": json.dumps(emulator.case.ranges)}
    arrays |= {"settings": json.dumps(asdict(emulator.settings))}
    arrays = {name: np.asarray(values) for name, values in arrays.items() if values is not None}
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
    path, remedy = Path(path), "remove it and fit the emulator again: notebook 06 does"
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; run notebook 06 first, which fits the emulators of a tier")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except Exception as error:  # NumPy and zipfile raise a dozen kinds, of which only some are of this file
        raise ValueError(f"{path} is damaged or not the file of an emulator ({error!r}); {remedy}") from None
    if "version" not in arrays or not np.array_equal(arrays.pop("version"), _FILE_VERSION):
        raise ValueError(f"{path} holds no emulator of version {_FILE_VERSION}; {remedy}")
    if not np.array_equal(arrays.pop("checksum", ""), _checksum(arrays)):
        raise ValueError(f"{path} is damaged: it does not hold what its checksum promises; {remedy}")
    if not np.array_equal(arrays.pop("q"), PAPER_Q):
        raise ValueError(f"{path} holds an emulator for other q values than PAPER_Q; {remedy}")
    ranges = {name: tuple(bounds) for name, bounds in json.loads(str(arrays["prior"])).items()}
    case = Case(str(arrays["case"]), ranges)
    stored = json.loads(str(arrays["settings"]))
    settings = Settings(**{name: tuple(v) if isinstance(v, list) else v for name, v in stored.items()})
    knots = [arrays[f"knots{axis}"] for axis in range(len(case.outputs))]
    mean = Mean(case, settings, knots=knots, **{name: arrays.get(name) for name in _OF_MEAN})
    return Emulator(case, settings, mean, Residuals(case, settings, **{name: arrays[name] for name in _OF_RESIDUALS}))


def _checksum(arrays):
    """SHA-256 over names, types, shapes and contents of arrays."""
    digest = hashlib.sha256()
    for name, values in sorted(arrays.items()):
        digest.update(f"{name} {values.dtype.str} {values.shape}".encode())
        digest.update(values.tobytes())
    return digest.hexdigest()


def _as_array(case, parameters):
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
