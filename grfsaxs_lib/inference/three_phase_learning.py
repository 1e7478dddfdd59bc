r"""How the mean curves of three phases are learned from shell sums (`datasets.shell_sums`).

The mean of what boxes show is found by penalised least squares, for each shell of q by itself, in two steps:

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

from ..datasets import shell_sums
from ..emulator.coordinates import layer_thickness
from ..grid import PAPER_GRID
from . import level_cut
from .spline import spline
from .three_phase_model import FILE, LIMITS, coordinates

SHAPE = (9, 7, 7)
"""Coefficients along ln a, porosity and the root of the layer fraction."""
GROUPS = 16
"""Groups of structures that are left out in turn."""

_PENALTIES = 10.0 ** np.arange(-7.0, -1)  # relative to weights of mean one
_EVERY = 4  # shells have the same penalty
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
    group : (n,) ndarray of int
    """

    theta: np.ndarray
    y: np.ndarray
    regressors: np.ndarray
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


def expected(theta, coefficients):
    """(n, 3, n_shell) ndarray: y from the coefficients of the four functions, (4, n_coefficient, n_shell)."""
    basis = design(theta)
    values = np.einsum("np,tps->nts", basis, coefficients, optimize=True)
    phases = np.stack([waves(theta, shell) for shell in range(values.shape[-1])], axis=-1)
    return np.concatenate([values[:, :2], np.sum(values[:, 2:] * phases, axis=1, keepdims=True)], axis=1)


def regress(sample, target, weights, subsets, penalties=None):
    """Coefficients of the four functions from several subsets of the structures.

    Parameters
    ----------
    sample : Sample
    target : (n, 3, n_shell) ndarray
    weights : (n, 3) ndarray
    subsets : list of list of int
        Groups to use.
    penalties : (3, n_shell) ndarray, optional
        Of roughness. By default those that predict one half of the groups best from the other.

    Returns
    -------
    coefficients : (n_subset, 4, n_coefficient, n_shell) ndarray
    penalties : (3, n_shell) ndarray
    residuals : (n, 3, n_shell) ndarray
        Of the first subset.
    """
    basis, n_shell = design(sample.theta), target.shape[-1]
    coefficients = np.empty((len(subsets), 4, basis.shape[1], n_shell))
    chosen = np.empty((3, n_shell)) if penalties is None else penalties
    residuals = np.empty_like(target)
    for term, rows in enumerate((slice(0, 1), slice(1, 2), slice(2, 4))):
        ruling = linalg.block_diag(*[roughness()] * (rows.stop - rows.start))
        fixed = _normal(basis, basis, weights[:, term], sample.group) if term < 2 else None
        for shell in range(n_shell):
            columns = basis
            if term == 2:
                columns = np.concatenate([basis * wave[:, np.newaxis] for wave in waves(sample.theta, shell).T], axis=1)
                fixed = _normal(columns, columns, weights[:, term], sample.group)
            one = _Problem(
                columns, sample.regressors[..., shell], target[:, term, shell], weights[:, term], sample.group, fixed
            )
            if penalties is None:
                known = shell % _EVERY
                chosen[term, shell] = chosen[term, shell - known] if known else one.best_penalty(ruling)
            for n, subset in enumerate(subsets):
                found = one.solve(subset, chosen[term, shell] * ruling)
                coefficients[n, rows, :, shell] = found[: len(ruling)].reshape(rows.stop - rows.start, -1)
                if n == 0:
                    residuals[:, term, shell] = one.residuals(found)
    return coefficients, chosen, residuals


def _normal(left, right, weights, group):
    """Products of columns summed over each group: (n_group, n_left, n_right) ndarray."""
    chosen = [group == number for number in range(GROUPS)]
    return np.array([left[use].T @ (right[use] * weights[use, np.newaxis]) for use in chosen])


class _Problem:
    """Weighted least squares of one target by smooth columns, whose coefficients are penalised, and regressors."""

    def __init__(self, columns, regressors, target, weights, group, fixed):
        self.columns, self.regressors, self.target = columns, regressors, target
        self.weights, self.group, self.fixed = weights, group, fixed
        self.mixed = _normal(columns, regressors, weights, group)
        self.last = _normal(regressors, regressors, weights, group)
        both = (_normal(one, target[:, np.newaxis], weights, group) for one in (columns, regressors))
        self.right = np.concatenate(list(both), axis=1)[..., 0]

    def solve(self, subset, ruling):
        """Coefficients of columns and regressors, from some groups."""
        fixed, mixed, last = (part[subset].sum(axis=0) for part in (self.fixed, self.mixed, self.last))
        left = np.block([[fixed + ruling, mixed], [mixed.T, last]])
        left[np.diag_indices_from(left)] += 1e-10 * np.trace(fixed) / len(fixed)
        return linalg.solve(left, self.right[subset].sum(axis=0), assume_a="pos", overwrite_a=True)

    def residuals(self, found):
        n = self.columns.shape[1]
        return self.target - self.columns @ found[:n] - self.regressors @ found[n:]

    def best_penalty(self, ruling):
        """The penalty with which one half of the groups predicts the other best."""
        halves = [list(range(first, GROUPS, 2)) for first in (0, 1)]
        errors = []
        for penalty in _PENALTIES:
            error = 0.0
            for use, judge in (halves, halves[::-1]):
                judged = np.isin(self.group, judge)
                rest = self.residuals(self.solve(use, penalty * ruling))[judged]
                error += np.sum(self.weights[judged] * rest**2)
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
    mixed = np.sqrt(smooth[:, 0] * smooth[:, 1])

    def relative(sums):
        layer, solid, both = np.moveaxis(sums, 1, 0)
        cross = (both + solid - layer) / 2
        return np.stack([both / mean[:, 0], solid / mean[:, 1], cross / mixed], axis=1)

    regressors = np.zeros((len(theta), 0, mean.shape[-1]))
    if "control" in data:
        known = np.stack([np.ones_like(mixed), np.ones_like(mixed), mean[:, 2] / mixed], axis=1)
        regressors = varied(theta, relative(data["control"]) - known)
    index = data["index"].astype(int) * len(shell_sums.CASE_NAMES) + data["case"].astype(int)
    return Sample(theta, relative(data["structure"]), regressors, data["index"].astype(int) % GROUPS), index


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
    weights = np.ones((len(coarse.theta), 3)) / (coarse.theta[:, :1] ** 3 + 10)
    *_, rest = regress(coarse, coarse.y, weights, subsets[:1])
    weights = scatter_weights(coarse.theta, rest)
    first, *_ = regress(coarse, coarse.y, weights, subsets)
    position = {number: n for n, number in enumerate(coarse_index)}
    partner = np.array([position[number] for number in fine_index])
    found, penalties = [], None
    for coefficients, subset in zip(first, subsets, strict=True):
        off = coarse.y[partner] - expected(fine.theta, coefficients)
        regressors = np.concatenate([varied(fine.theta, off), coarse.regressors[partner]], axis=1)
        sample = Sample(fine.theta, fine.y, regressors, fine.group)
        target = fine.y - expected(fine.theta, coefficients)
        if penalties is None:
            weights = weights[partner]
        second, penalties, _ = regress(sample, target, weights, [subset], penalties)
        found.append(coefficients + second[0])
        report(f"learned from groups {subset}")
    return np.array(found)


def to_tables(coefficients):
    """Coefficients as `three_phase_model.Tables` has them: (*SHAPE, 4 n_shell) ndarray."""
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
