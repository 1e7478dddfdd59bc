r"""How the mean curves of three phases are learned from shell sums (`datasets.shell_sums`).

The mean of what boxes show is found by penalised least squares, for each shell of q by itself, and its coefficients are
then smoothed along ln q. There are two steps:

1. of the coarse structures. The deviations of their control (the sharp cuts of the same field) from its mean, which is
   known in closed form, are regressors: they take most of the scatter from box to box away;
2. of the difference between fine structures and the mean of step 1. Regressors are the deviations of the coarse
   structures of the same seeds, and of their control.

Every regression is linear in the intensities, so that it aims at the mean, not at the mean logarithm. To learn again:

    python -m grfsaxs_lib.inference.three_phase_learning
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np
from scipy import linalg
from scipy.interpolate import make_smoothing_spline

from ..datasets import shell_sums
from ..emulator.coordinates import layer_thickness
from ..grid import PAPER_GRID
from . import level_cut
from .spline import spline
from .three_phase_model import FILE, LIMITS, coordinates

SHAPE = (13, 5, 5)
"""Coefficients along ln a, porosity and the root of the layer fraction."""
GROUPS = 16
"""Groups of structures that are left out in turn."""

_HALVES = [list(range(first, GROUPS, 2)) for first in (0, 1)]  # groups that predict each other
_FUNCTIONS = (slice(0, 1), slice(1, 2), slice(2, 4))  # of TT, SS and TS
_PENALTIES = 10.0 ** np.arange(-6.0, 0)  # relative to weights of mean one
_STIFFNESSES = 10.0 ** np.arange(-5, -1.5, 0.5)  # of smoothing splines along ln q
_EVERY = 4  # shells have the same penalty
_POROD = 1.0  # beyond it a curve shows the area of the surface [nm^-1]
_LATTICE_SUM = 16.5323  # of |n|^-4 over the cubic lattice
_COPIES = 3  # of the spectrum on either side are added one by one, those beyond with the power law
_LOG_Q = np.linspace(np.log(0.02), np.log(60), 400)  # [nm^-1]


# ------------------------------------------------------- what is known in closed form


def closed_forms(a, porosity, layer_fraction):
    """(n, 3, n_node) ndarray: mean intensities TT, SS and TS of sharp cuts, on the paper's scale."""
    loss = level_cut.correlation_loss("paper")
    found = np.empty((len(a), 3, _LOG_Q.size))
    for n, (length, solid, pore) in enumerate(zip(a, porosity, porosity * (1 - layer_fraction), strict=True)):
        covariances = (
            level_cut.autocovariance(loss, pore),
            level_cut.autocovariance(loss, solid),
            level_cut.cross_covariance(loss, pore, solid),
        )
        log_s = np.log(length) + _LOG_Q
        for k, covariance in enumerate(covariances):
            f = level_cut.transform(covariance)
            steady = np.interp(log_s, level_cut.LOG_S, f * np.exp(4 * level_cut.LOG_S))  # times s^4
            values = np.where(log_s < level_cut.LOG_S[0], f[0], steady * np.exp(-4 * log_s))
            found[n, k] = level_cut.PAPER_SCALE * length**3 * values
    return found


@lru_cache(maxsize=4)
def sampling(voxel_size):
    r"""(n_node, n_shell) ndarray: mean over the modes of each shell of what voxels show of a curve at the nodes.

    Sampling on a lattice adds the copies of the spectrum at its reciprocal vectors,
    :math:`\sum_\mathbf{G} I(|\mathbf{q} + \mathbf{G}|)`. A voxel size of 0 is the curve itself.
    """
    shells, spacing = shell_sums.shells(), PAPER_GRID.q_spacing
    period = round(2 * np.pi / (voxel_size * spacing)) if voxel_size else 0
    lattice = np.array(list(product(range(-_COPIES, _COPIES + 1), repeat=3))) if period else np.zeros((1, 3), int)
    squares = np.sum(lattice**2, axis=1)
    beyond = _LATTICE_SUM - np.sum(1.0 / squares[squares > 0] ** 2) if period else 0.0
    matrix, step = np.zeros((_LOG_Q.size, shells.q.size)), _LOG_Q[1] - _LOG_Q[0]
    for shell in range(shells.q.size):
        modes, shares = _modes(*shells.edges[shell : shell + 2])
        q = spacing * np.sqrt(np.sum((modes[:, np.newaxis] + period * lattice) ** 2, axis=-1))
        place = np.clip((np.log(q) - _LOG_Q[0]) / step, 0, _LOG_Q.size - 1.001)
        node = place.astype(int)
        for at, weight in ((node, 1 - place + node), (node + 1, place - node)):
            steady = (np.exp(_LOG_Q[at]) / q) ** 4  # what is interpolated is q^4 I
            np.add.at(matrix[:, shell], at, weight * steady * shares[:, np.newaxis])
        if period:
            matrix[-1, shell] += beyond * (np.exp(_LOG_Q[-1]) / (period * spacing)) ** 4
    return matrix


@lru_cache(maxsize=1)
def _wedge():
    """Modes of one 48th of space to the last shell, by their distance, and how many of space each stands for."""
    i, j, k = (axis.ravel() for axis in np.indices(3 * (int(shell_sums.shells().edges[-1]) + 1,), dtype=np.int32))
    inside = (i >= j) & (j >= k)
    modes = np.column_stack([i, j, k])[inside]
    modes = modes[np.argsort(np.sum(modes**2, axis=1), kind="stable")]
    equal = (modes[:, 0] == modes[:, 1]).astype(int) + (modes[:, 1] == modes[:, 2])
    return modes, np.array([6, 3, 1])[equal] * 2.0 ** np.sum(modes > 0, axis=1)


def _modes(low, high):
    """Modes at distances from low to high in one 48th of space, with their shares of all."""
    modes, counts = _wedge()
    shell = slice(*np.searchsorted(np.sum(modes**2, axis=1), (low**2, high**2)))
    return modes[shell], counts[shell] / counts[shell].sum()


# -------------------------------------------------------------- penalised least squares


@dataclass(frozen=True, eq=False)
class Sample:
    """Structures of one level, ready for the regressions.

    Attributes
    ----------
    theta : (n, 3) ndarray
        Scaling parameter, porosity, layer fraction.
    y : (n, 3, n_shell) ndarray
        Intensities TT, SS and TS over those of sharp cuts; see `three_phase_model`.
    regressors : (n, n_regressor, n_shell) ndarray
        Of mean zero.
    surface : (n, 2) ndarray
        By how much the surfaces of T and S are too large in the control; of mean zero. Then the layer is thinner than
        it should be, and the waves of TS are shifted.
    group : (n,) ndarray of int
    """

    theta: np.ndarray
    y: np.ndarray
    regressors: np.ndarray
    surface: np.ndarray
    group: np.ndarray


def design(theta):
    """(n, n_coefficient) ndarray: products of the cubic splines along the coordinates."""
    rows = []
    for place, size in zip(coordinates(*theta.T).T, SHAPE, strict=True):
        row, weights, slopes = np.zeros((len(theta), size)), np.empty(4), np.empty(4)
        for n, x in enumerate(place):
            first = spline(x, size, weights, slopes)
            row[n, first : first + 4] = weights
        rows.append(row)
    return np.einsum("ni,nj,nk->nijk", *rows).reshape(len(theta), -1)


def roughness():
    """(n_coefficient, n_coefficient) ndarray: squared second differences of the coefficients along all axes."""
    total = 0
    for axis in range(3):
        second = np.diff(np.eye(SHAPE[axis]), 2, axis=0)
        factors = [second.T @ second if n == axis else np.eye(size) for n, size in enumerate(SHAPE)]
        total = total + np.kron(np.kron(factors[0], factors[1]), factors[2])
    return total


def waves(theta, shell):
    """(n, 2) ndarray: means of cos qd and sin qd over a shell, for layers of thickness d."""
    shells = shell_sums.shells()
    d = theta[:, 0] * layer_thickness(theta[:, 1], theta[:, 2])
    half = PAPER_GRID.q_spacing * np.diff(shells.edges)[shell] / 2
    phase = shells.q[shell] * d
    return np.sinc(half * d / np.pi)[:, np.newaxis] * np.column_stack([np.cos(phase), np.sin(phase)])


def wave_factors(theta):
    """(n, 4, n_shell) ndarray: what the four functions are multiplied by; cosine and sine for TS."""
    both = np.stack([waves(theta, shell) for shell in range(shell_sums.shells().q.size)], axis=-1)
    return np.concatenate([np.ones_like(both), both], axis=1)


def expected(theta, coefficients):
    """(n, 3, n_shell) ndarray: y from the coefficients of the four functions, (4, n_coefficient, n_shell)."""
    values = wave_factors(theta) * np.einsum("np,tps->nts", design(theta), coefficients, optimize=True)
    return np.stack([np.sum(values[:, rows], axis=1) for rows in _FUNCTIONS], axis=1)


def regress(sample, target, weights, subsets, smoothness=None):
    """Coefficients of the four functions from several subsets of the structures.

    Parameters
    ----------
    sample : Sample
    target : (n, 3, n_shell) ndarray
    weights : (n, 3) ndarray
    subsets : list of list of int
        Groups to use.
    smoothness : list of tuple, optional
        Of each `_Term`. By default what predicts one half of the groups best from the other.

    Returns
    -------
    coefficients : (n_subset, 4, n_coefficient, n_shell) ndarray
    smoothness : list of tuple
    residuals : (n, 3, n_shell) ndarray
        Of the first subset.
    """
    basis, wave = design(sample.theta), wave_factors(sample.theta)
    shifts = np.einsum("nr,nfs->nrfs", sample.surface, wave[:, _FUNCTIONS[2]]).reshape(len(wave), -1, wave.shape[-1])
    of_waves = np.concatenate([sample.regressors, varied(sample.theta, shifts)], axis=1)
    coefficients, chosen, residuals = [], [], []
    for term, rows in enumerate(_FUNCTIONS):
        regressors = of_waves if rows == _FUNCTIONS[2] else sample.regressors
        one = _Term(basis, wave[:, rows], regressors, target[:, term], weights[:, term], sample.group)
        chosen.append(smoothness[term] if smoothness else one.best_smoothness())
        found = one.solve(subsets, chosen[-1])
        residuals.append(one.residuals(found[0]))
        smooth = found[:, : one.n_column]
        coefficients.append(smooth.reshape(len(subsets), -1, basis.shape[1], smooth.shape[-1]))
    return np.concatenate(coefficients, axis=1), chosen, np.stack(residuals, axis=1)


@dataclass(frozen=True, eq=False)
class _Term:
    """The regression of one partial intensity: each shell by itself, then the coefficients are smoothed along ln q.

    Attributes
    ----------
    basis : (n, n_coefficient) ndarray
    wave : (n, n_function, n_shell) ndarray
    regressors : (n, n_regressor, n_shell) ndarray
    target : (n, n_shell) ndarray
    weights : (n,) ndarray
    group : (n,) ndarray of int
    """

    basis: np.ndarray
    wave: np.ndarray
    regressors: np.ndarray
    target: np.ndarray
    weights: np.ndarray
    group: np.ndarray

    def solve(self, subsets, smoothness):
        """(n_subset, n_unknown, n_shell) ndarray: coefficients of the columns, then of the regressors.

        `smoothness` has the penalty of roughness for each shell, and the matrix that smooths along ln q.
        """
        penalties, smoothing = smoothness
        found = []
        for shell, penalty in enumerate(penalties):
            one = self._problem(shell)
            found.append([one.solve(subset, penalty) for subset in subsets])
        return self._smooth(np.moveaxis(found, 0, -1), smoothing)

    def residuals(self, found):
        """(n, n_shell) ndarray"""
        smooth = found[: self.n_column].reshape(-1, self.basis.shape[1], found.shape[-1])
        of_columns = np.einsum("np,fps,nfs->ns", self.basis, smooth, self.wave, optimize=True)
        return self.target - of_columns - np.einsum("nrs,rs->ns", self.regressors, found[self.n_column :])

    def best_smoothness(self):
        """The smoothness with which one half of the groups predicts the other best."""
        n_shell = self.target.shape[-1]
        penalties = [self._problem(shell).best_penalty() for shell in range(0, n_shell, _EVERY)]
        penalties = np.repeat(penalties, _EVERY)[:n_shell]
        rough = self.solve(_HALVES, (penalties, np.eye(n_shell)))
        errors = self._errors(rough)
        log_q, certain = np.log(shell_sums.shells().q), errors.mean() / errors
        splines = [make_smoothing_spline(log_q, np.eye(n_shell), certain, stiffness) for stiffness in _STIFFNESSES]
        matrices = [np.eye(n_shell), *(spline(log_q) for spline in splines)]
        total = [np.sum(self._errors(self._smooth(rough, matrix)) / errors) for matrix in matrices]
        return penalties, matrices[np.argmin(total)]

    @property
    def n_column(self):
        return self.basis.shape[1] * self.wave.shape[1]

    def _problem(self, shell):
        columns = (self.wave[:, :, np.newaxis, shell] * self.basis[:, np.newaxis]).reshape(len(self.basis), -1)
        return _Problem(columns, self.regressors[..., shell], self.target[:, shell], self.weights, self.group)

    def _smooth(self, found, smoothing):
        smooth, others = np.split(found, [self.n_column], axis=1)
        return np.concatenate([smooth @ smoothing.T, others], axis=1)

    def _errors(self, halves):
        """(n_shell,) ndarray: weighted squared errors of each half in what the other one predicts."""
        judged = [np.isin(self.group, other) for other in reversed(_HALVES)]
        return sum(self.weights[j] @ self.residuals(half)[j] ** 2 for half, j in zip(halves, judged, strict=True))


class _Problem:
    """Weighted least squares of one target by smooth columns, whose coefficients are penalised, and regressors."""

    def __init__(self, columns, regressors, target, weights, group):
        self.unknowns = np.concatenate([columns, regressors], axis=1)
        self.target, self.weights, self.group = target, weights, group
        members = [group == number for number in range(GROUPS)]
        heavy = self.unknowns * weights[:, np.newaxis]
        self.left = np.array([self.unknowns[use].T @ heavy[use] for use in members])
        self.right = np.array([target[use] @ heavy[use] for use in members])
        self.ruling = np.zeros(self.left.shape[1:])
        n = columns.shape[1]
        self.ruling[:n, :n] = np.kron(np.eye(n // len(roughness())), roughness())

    def solve(self, subset, penalty):
        """Coefficients of columns and regressors, from some groups."""
        left = self.left[subset].sum(axis=0) + penalty * self.ruling
        left[np.diag_indices_from(left)] += 1e-10 * np.trace(left) / len(left)
        return linalg.solve(left, self.right[subset].sum(axis=0), assume_a="pos", overwrite_a=True)

    def best_penalty(self):
        """The penalty with which one half of the groups predicts the other best."""
        errors = []
        for penalty in _PENALTIES:
            error = 0.0
            for use, judge in (_HALVES, _HALVES[::-1]):
                judged = np.isin(self.group, judge)
                rest = self.target[judged] - self.unknowns[judged] @ self.solve(use, penalty)
                error += self.weights[judged] @ rest**2
            errors.append(error)
        return _PENALTIES[np.argmin(errors)]


def scatter_weights(theta, residuals):
    """(n, 3) ndarray: one over the variance of the residuals (n, 3, n_shell), as a smooth function of theta."""
    place = coordinates(*theta.T)
    quadratic = np.column_stack(
        [np.ones(len(theta)), place, place**2, place[:, :1] * place[:, 1:], place[:, 1:2] * place[:, 2:]]
    )
    scale = np.median(residuals**2, axis=0)
    size = np.log(np.mean(residuals**2 / scale, axis=-1))
    fitted = quadratic @ np.linalg.lstsq(quadratic, size, rcond=None)[0]
    return np.exp(np.clip(fitted.mean(axis=0) - fitted, -6, 6))


# ----------------------------------------------------------------------- both steps


def prepare(level):
    """The `Sample` of a level, its regressors those of the control where there is one, and the index of each."""
    data = shell_sums.load(level)
    theta = np.column_stack([data[name] for name in LIMITS])
    nodes = closed_forms(*theta.T)
    mean = nodes @ sampling(shell_sums.GRIDS[level].voxel_size)
    smooth = nodes @ sampling(0)
    mixed, copies = np.sqrt(smooth[:, 0] * smooth[:, 1]), mean[:, 2] - smooth[:, 2]

    def relative(sums):
        layer, solid, both = np.moveaxis(sums, 1, 0)
        cross = (both + solid - layer) / 2
        return np.stack([both / mean[:, 0], solid / mean[:, 1], (cross - copies) / mixed], axis=1)

    regressors, surface = np.zeros((len(theta), 0, mean.shape[-1])), np.zeros((len(theta), 2))
    if "control" in data:
        known = np.stack([np.ones_like(mixed), np.ones_like(mixed), smooth[:, 2] / mixed], axis=1)
        off = relative(data["control"]) - known
        regressors, surface = varied(theta, off), off[:, :2, shell_sums.shells().q > _POROD].mean(axis=-1)
    index = data["index"].astype(int) * len(shell_sums.CASE_NAMES) + data["case"].astype(int)
    group = data["index"].astype(int) % GROUPS
    return Sample(theta, relative(data["structure"]), regressors, surface, group), index


def varied(theta, regressors):
    """Regressors, and their products with the coordinates: (n, 4 m, n_shell) ndarray."""
    place = coordinates(*theta.T)[:, :, np.newaxis, np.newaxis]
    products = (regressors[:, np.newaxis] * place).reshape(len(theta), -1, regressors.shape[-1])
    return np.concatenate([regressors, products], axis=1)


def learn(subsets, report=print):
    """Coefficients from subsets of the groups: (n_subset, 4, n_coefficient, n_shell) ndarray; the first is of all."""
    coarse, coarse_index = prepare("coarse")
    fine, fine_index = prepare("fine")
    report(f"{len(coarse.theta)} coarse and {len(fine.theta)} fine structures")
    weights = np.repeat(20 / (coarse.theta[:, :1] ** 3 + 10), 3, axis=1)
    *_, rest = regress(coarse, coarse.y, weights, subsets[:1])
    weights = scatter_weights(coarse.theta, rest)
    first, *_ = regress(coarse, coarse.y, weights, subsets)
    position = {number: n for n, number in enumerate(coarse_index)}
    partner = np.array([position[number] for number in fine_index])
    found, smoothness = [], None
    for coefficients, subset in zip(first, subsets, strict=True):
        off = coarse.y[partner] - expected(fine.theta, coefficients)
        regressors = np.concatenate([varied(fine.theta, off), coarse.regressors[partner]], axis=1)
        sample = Sample(fine.theta, fine.y, regressors, coarse.surface[partner], fine.group)
        target = fine.y - expected(fine.theta, coefficients)
        second, smoothness, _ = regress(sample, target, weights[partner], [subset], smoothness)
        found.append(coefficients + second[0])
        report(f"learned from groups {subset}")
    return np.array(found)


def to_tables(coefficients):
    """Coefficients as `three_phase_model.Tables` has them: ``(*SHAPE, 4 n_shell)`` ndarray."""
    return np.moveaxis(coefficients, 1, 0).reshape(*SHAPE, -1)


def main():
    """Learn from all shell sums that are there, and write the tables of the package."""
    everything = list(range(GROUPS))
    others = [[group for group in everything if group != left_out] for left_out in everything]
    halves = [everything[: GROUPS // 2], everything[GROUPS // 2 :]]  # others than those that choose penalties
    whole, *parts = (to_tables(one) for one in learn([everything, *others, *halves]))
    deviations = np.sqrt((GROUPS - 1) / GROUPS) * (np.array(parts[:GROUPS]) - whole)
    halves = np.array(parts[GROUPS:]) - whole
    np.savez_compressed(
        FILE, made_from=shell_sums.digest(), q=shell_sums.shells().q, coefficients=whole.astype(np.float32),
        deviations=deviations.astype(np.float16), halves=halves.astype(np.float16),
    )  # fmt: skip


if __name__ == "__main__":
    main()
