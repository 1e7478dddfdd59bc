r"""Mean scattering of a macroscopic sample of three phases: pore, layer and solid.

The layer has no closed form. With T the part of space that is layer or solid, S the solid, and :math:`\rho` the density
of the layer where the pore's is 0 and the solid's 1, the intensity is

.. math:: I = \rho^2 I_{TT} + (1-\rho)^2 I_{SS} + 2\rho(1-\rho) I_{TS} .

T and S nearly are level cuts of the field with porosities :math:`\epsilon(1-\nu)` and :math:`\epsilon`, and their
closed forms F carry most of the variation. What is left is smooth: their surfaces are parallel, at the distance d of
the layer's thickness, so that

.. math:: I_{TT} = y_T F_T, \quad I_{SS} = y_S F_S, \quad
          I_{TS} = \sqrt{F_T F_S}\, [y_c \cos qd + y_s \sin qd]

with four functions y of q and of :math:`(\ln a, \epsilon, \sqrt\nu)`, here cubic splines. They were learned from shell
sums of structures in boxes (`three_phase_learning`), with a filter 1 nm wide; lengths scale with it.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.ndimage import spline_filter1d

from ..emulator.coordinates import layer_thickness
from ..parameters import CASES
from . import level_cut, level_cut_model
from .filter_ratio import PAPER_LENGTH
from .smearing import smeared, smearing
from .spline import evaluate_alone, jit, over_samples

FILE = Path(__file__).with_name("three_phase_model.npz")
_LOW, _HIGH = (CASES[f"three_phase_{level}"].ranges for level in ("low", "high"))
LIMITS = {name: (_LOW[name][0], _HIGH[name][1]) for name in _LOW}
"""What was learned: ranges of the parameters [nm, 1, 1], for a filter of 1 nm."""
Q_LIMITS = (0.004, 3.06)
"""Of the curves that can be analysed, for a filter of 1 nm [nm^-1]; the plateau goes on below q = 0.03 nm^-1."""
_WIDENED = 1.2  # the error that the jackknife states, so that intervals hold what they should
CALIBRATED = 1.5
"""Scaling parameter over the filter below which the mean is not known well enough for intervals to be trusted."""
TERMS = ("T", "S", "cosine", "sine")

_STEP = 0.02
_COHERENT = 0.995  # most that the waves of T and S may have in common
_LOG_Q = np.arange(np.log(0.004), np.log(3.6), _STEP)  # nodes of a curve


@dataclass(frozen=True, eq=False)
class Tables:
    """What was learned.

    Attributes
    ----------
    q : (n_shell,) ndarray
        [nm^-1]
    coefficients : (n_a, n_porosity, n_layer, 4 n_shell) ndarray
        Of uniform cubic B-splines in the `coordinates`, for y of each of `TERMS`.
    deviations : (n_group, n_a, n_porosity, n_layer, 4 n_shell) ndarray
        The sum of their squares estimates the squared error of the coefficients (jackknife over groups of structures).
    """

    q: np.ndarray
    coefficients: np.ndarray
    deviations: np.ndarray

    @cached_property
    def to_nodes(self):
        """(n_shell, n_node) ndarray: cubic interpolation in ln q."""
        inside = np.clip(_LOG_Q, np.log(self.q[0]), np.log(self.q[-1]))
        return CubicSpline(np.log(self.q), np.eye(self.q.size))(inside).T


@lru_cache(maxsize=3)
def tables(part="all"):
    """The `Tables` learned from ``all`` structures, or from the ``first`` or ``second`` half of them alone."""
    with np.load(FILE) as file:
        q, coefficients, deviations, halves = (
            file[name].astype(np.float64) for name in ("q", "coefficients", "deviations", "halves")
        )
    if part == "all":
        return Tables(q, coefficients, deviations)
    return Tables(q, coefficients + halves[("first", "second").index(part)], np.sqrt(2) * deviations)


def coordinates(a, porosity, layer_fraction):
    """(n, 3) ndarray: coordinates of the tables, from -1 to 1, for a filter of 1 nm."""
    columns = []
    for values, (low, high), change in zip(
        (a, porosity, layer_fraction), LIMITS.values(), (np.log, np.asarray, np.sqrt), strict=True
    ):
        low, high = change(low), change(high)
        columns.append(np.clip(2 * (change(values) - low) / (high - low) - 1, -1, 1))
    return np.column_stack(columns)


def look_up(points, coefficients):
    """(n, n_value) ndarray: values of splines at `coordinates`."""
    values = np.empty((len(points), coefficients.shape[-1]))
    over_samples(_look_up, len(points), points, coefficients, values)
    return values


@jit
def _look_up(first, last, points, coefficients, values):
    weights, slopes = np.empty((3, 4)), np.empty((3, 4))
    for i in range(first, last):
        evaluate_alone(coefficients, points[i], weights, slopes, values[i])


def log_intensity(a, porosity, layer_fraction, layer_density, known, coefficients):
    """Logarithm of the mean intensity of a unit volume at the nodes of ln q, for a filter of 1 nm.

    Parameters
    ----------
    a : (n,) ndarray
        Scaling parameter [nm].
    porosity, layer_fraction, layer_density : (n,) ndarray
        The density in [0, 1].
    known : Tables
    coefficients : ndarray
        Those of `known`, or others like them.

    Returns
    -------
    (n, n_node) ndarray
    """
    values = look_up(coordinates(a, porosity, layer_fraction), coefficients)
    y = values.reshape(len(a), len(TERMS), -1) @ known.to_nodes
    first, second = (_closed_form(np.log(a), one) for one in (porosity * (1 - layer_fraction), porosity))
    phase = np.exp(_LOG_Q) * (a * layer_thickness(porosity, layer_fraction))[:, np.newaxis]
    both, solid = np.maximum(y[:, 0], 0.01) * first, np.maximum(y[:, 1], 0.01) * second
    cross = np.sqrt(first * second) * (y[:, 2] * np.cos(phase) + y[:, 3] * np.sin(phase))
    bound = _COHERENT * np.sqrt(both * solid)  # of Cauchy and Schwarz
    cross = np.clip(cross, -bound, bound)
    rho = layer_density[:, np.newaxis]
    return np.log(rho**2 * both + (1 - rho) ** 2 * solid + 2 * rho * (1 - rho) * cross) + 3 * np.log(a)[:, np.newaxis]


def _closed_form(log_a, porosity):
    """(n, n_node) ndarray: f of sharp level cuts at the nodes, for a field of the paper's spectral density."""
    rows = level_cut_model.rows_of(level_cut_model.table("paper"), porosity)
    first, step = level_cut.LOG_S[0], level_cut.LOG_S[1] - level_cut.LOG_S[0]
    return smeared(rows, first, step, log_a, _LOG_Q[:, np.newaxis], np.ones((_LOG_Q.size, 1)), -4.0)


@dataclass(frozen=True)
class Settings:
    """What an analysis of three phases assumes.

    Attributes
    ----------
    scaling_parameter, porosity, layer_fraction : (float, float)
        Ranges of the prior [nm, 1, 1].
    layer_contrast : float or (float, float)
        Density of the layer, where the pore's is 0 and the solid's 1, or its range.
    smoothing_length : float
        Width of the filter [nm].
    part : str
        Of the structures that the model was learned from, see `tables`; halves are for tests.
    spectral_density : str
        Always that of the paper.
    """

    scaling_parameter: tuple
    porosity: tuple
    layer_fraction: tuple
    layer_contrast: object
    smoothing_length: float = PAPER_LENGTH
    part: str = "all"
    spectral_density: str = "paper"

    @property
    def starts(self):
        """Values of each parameter on the grid that a fit starts from."""
        return [32, 12, 8, *[4] * (len(self.limits_by_name) - 3)]

    @property
    def limits_by_name(self):
        """The prior's ends, in the units of the parameters."""
        names = ["scaling_parameter", "porosity", "layer_fraction"]
        names += ["layer_contrast"] if isinstance(self.layer_contrast, tuple) else []
        return {name: getattr(self, name) for name in names}

    @property
    def limits(self):
        """(n_parameter, 2) ndarray: the prior's ends in coordinates: ln a, the others as they are."""
        first, *others = self.limits_by_name.values()
        return np.array([np.log(first), *others])

    beyond_prior = (
        "Give a wider range if yours is narrower than that of the simulations, or another smoothing_length; else the "
        "sample is not what they know."
    )

    def model(self, curve):
        """The `Model` of a curve."""
        return Model(curve, self)

    def samples(self, x):
        """Dict of name to (n,) ndarray: parameters, thickness of the layer [nm] and area of the solid [1/nm]."""
        found = dict(zip(self.limits_by_name, [np.exp(x[:, 0]), *x[:, 1:].T], strict=True))
        a, porosity, layer_fraction = x[:, 0], x[:, 1], x[:, 2]
        a, length = np.exp(a), self.smoothing_length / PAPER_LENGTH
        found["layer_thickness"] = a * layer_thickness(porosity, layer_fraction)
        sharp = level_cut.specific_surface(level_cut.correlation_loss("paper"), porosity) / a
        y = look_up(coordinates(a / length, porosity, layer_fraction), tables(self.part).coefficients)
        found["specific_surface"] = sharp * y.reshape(len(x), len(TERMS), -1)[:, 1, -1]  # as Porod's law goes
        return found


def settings_of(given, layer_contrast, smoothing_length):
    """The `Settings` of the arguments of an analysis; ValueError if they do not make sense."""
    length = PAPER_LENGTH if smoothing_length is None else float(smoothing_length)
    if not 0 < length < np.inf:
        raise ValueError(f"smoothing_length must be positive in three phases [nm]; got {smoothing_length!r}")
    ends = {}
    for name, known in LIMITS.items():
        if name == "scaling_parameter":
            known = tuple(length * end for end in known)
        ends[name] = known if given[name] is None else given[name]
        if np.shape(ends[name]) != (2,) or not _within(ends[name], known):
            raise ValueError(
                f"{name} must be a range (low, high) inside that of the simulations, {known[0]:g} to {known[1]:g}"
                + (" for this smoothing_length" if name == "scaling_parameter" else "")
                + f"; got {ends[name]!r}"
            )
        ends[name] = tuple(float(end) for end in ends[name])
    contrast = np.asarray(layer_contrast, dtype=float)
    inside = ((contrast >= 0) & (contrast <= 1)).all() and (np.diff(np.atleast_1d(contrast)) > 0).all()
    if contrast.shape not in {(), (2,)} or not inside:
        raise ValueError(
            f"layer_contrast must be a number in [0, 1], or a pair (low, high) in it; got {layer_contrast!r}"
        )
    contrast = tuple(contrast.tolist()) if contrast.shape else float(contrast)
    return Settings(**ends, layer_contrast=contrast, smoothing_length=length)


def _within(ends, known):
    """Whether a range lies in another, but for rounding."""
    return known[0] * (1 - 1e-9) <= ends[0] < ends[1] <= known[1] * (1 + 1e-9)


class Model:
    """Smeared mean intensity of three phases at the points of a curve."""

    def __init__(self, curve, settings):
        self.settings, self.q = settings, curve.q
        self.points, self.weights = smearing(curve.q, curve.dq, curve.slit_length)
        self.log_points = np.log(self.points * settings.smoothing_length / PAPER_LENGTH)
        self.known = tables(settings.part)

    def __call__(self, x, coefficients=None):
        """(n, n_q) ndarray: intensity of a unit volume at coordinates (n, n_parameter)."""
        scale = PAPER_LENGTH / self.settings.smoothing_length
        density = x[:, 3] if x.shape[1] > 3 else np.full(len(x), float(self.settings.layer_contrast))
        coefficients = self.known.coefficients if coefficients is None else coefficients
        curves = log_intensity(scale * np.exp(x[:, 0]), x[:, 1], x[:, 2], density, self.known, coefficients)
        rows = np.pad(spline_filter1d(curves, 3, axis=1, mode="mirror"), [(0, 0), (1, 1)], mode="reflect")
        signal = smeared(rows, _LOG_Q[0], _STEP, np.zeros(len(x)), self.log_points, self.weights, -4.0)
        return signal / scale**3

    def error(self, x):
        """(n_q, n_group) ndarray: columns whose squares add up to the relative error covariance of the model at x."""
        known, here = self.known, self(x[np.newaxis])[0]
        changed = [self(x[np.newaxis], known.coefficients + one)[0] / here - 1 for one in known.deviations]
        return _WIDENED * np.transpose(changed)
