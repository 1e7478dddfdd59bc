r"""What a curve says of a free spectral density: the search, and draws from the posterior of `free_spectrum`.

The smoothness :math:`\tau` is the one with the largest evidence in Laplace's approximation; draws around its maxima are
weighted by the exact posterior.

The shape of a curve tells little of the porosity :math:`\epsilon`: many have a density that fits, and which of them
would have the largest evidence follows from the prior of the density, wrongly for two bumps. So all porosities count
alike that have a density with a good chi-square. They come from a prior, or, where the contrast :math:`\Delta\rho` of
the phases is known, from the invariant :math:`2\pi^2 \Delta\rho^2 \epsilon (1 - \epsilon)`, with :math:`A =
\Delta\rho^2`. A draw has a porosity, and a density of the posterior at this porosity. (Inference in modules, one of
which gives the other no feedback: Plummer, 2015, Stat. Comput. 25, 37.)
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import stats

from ..compiled import share_out
from . import level_cut
from .free_spectrum import POROSITY_LIMITS, SPACING, Posterior
from .judgement import is_misfit

_SMOOTHNESS = 2.0 ** np.arange(-1, 6)
_FIRST = 3  # of these: where the search begins
_STARTS, _KEPT, _SOFT = 8, 3, 10.0  # first descents, how many of them go on, factor of the standard deviations
_GIVE_UP = 15.0  # loss of log evidence at which a search goes no further
_DROPS, _STEEP = (5.0, 7.0, 9.0, 11.0), -12.0  # of restarts: where ln density falls off below its top, and how steeply
_HOPELESS = 20.0  # chi-square over degrees of freedom from which on a search goes no further
_LEAST_SHARE = 0.05  # of the proposals, around a maximum that matters
_DRAWS = 1000
_BLOCK = 20  # proposals that are evaluated at once
_BATCH, _ENOUGH, _MOST = 400, 200.0, 2400  # proposals are made in batches until they are worth enough draws, or so many
_WINDOW = 0.25  # in ln k, of `sensitivity`
_START = 0.35  # porosity at which a search begins where the invariant tells it
_CLOSE, _SEARCHES = 0.01, 3  # of porosities, and how many searches bring it so close to its median
_PARTS = 17  # of the distribution of the porosity; a porosity stands for each
_TAIL = 0.005  # of this distribution, at each end, where it is not looked for a density
_FITS = 0.01, 9.0  # probability of a chi-square as large, or how much larger it may be, for a porosity that is possible
_STEEP_ENOUGH = -1.5  # residual of the slope at the last knot of a porosity that is possible
_STEPS, _SHORTEST = 8, 5e-4  # to the end of the possible porosities, and the last step


@dataclass(frozen=True)
class Maximum:
    """A maximum of the posterior at a porosity.

    Attributes
    ----------
    x : (n_x,) ndarray
    porosity : float
    smoothness : float
        The standard deviation tau of the curvature.
    chi_square, cost : float
        Sum of the squares of the curve's residuals, and half of that of all residuals.
    slopes : (n, n_x) ndarray
        Derivatives of all residuals.
    log_evidence : float
        In Laplace's approximation.
    used : float
        Parameters that the data determine.
    triangle : (n_x, n_x) ndarray
        Its product with its transpose on the left is the curvature of the cost.
    """

    x: np.ndarray
    porosity: float
    smoothness: float
    chi_square: float
    cost: float
    slopes: np.ndarray
    log_evidence: float
    used: float

    @cached_property
    def triangle(self):
        return np.linalg.qr(self.slopes, mode="r")

    def square(self, x):
        """Sum of squares of the residuals of its normal approximation, but for those at the maximum; x is (n, n_x)."""
        return np.sum(((x - self.x) @ self.triangle.T) ** 2, axis=1)

    @property
    def log_volume(self):
        """Logarithm of the normalisation of exp(-square/2)."""
        return self.x.size / 2 * np.log(2 * np.pi) - np.log(np.abs(np.diag(self.triangle))).sum()

    @property
    def log_prefactor(self):
        """ln A, and its standard deviation."""
        return self.x[-2], np.linalg.norm(np.linalg.solve(self.triangle.T, np.eye(self.x.size)[-2]))


def maximum(posterior, x, porosity, smoothness, tolerance=1e-5):
    """The `Maximum` near x."""
    found = posterior.descend(x, porosity, smoothness, tolerance)
    data = posterior.data_slopes(found.x, porosity)
    slopes = np.vstack([data, posterior.prior_slopes(found.x, smoothness)])
    rows, _ = posterior.prior_rows(smoothness)
    rows = rows[:, : posterior.n]
    log_evidence = -found.cost + (np.linalg.slogdet(rows.T @ rows)[1] - np.linalg.slogdet(slopes.T @ slopes)[1]) / 2
    used = np.trace(np.linalg.solve(slopes.T @ slopes, data.T @ data))
    chi_square = float(np.sum(posterior.data(found.x, porosity) ** 2))
    return Maximum(found.x, porosity, smoothness, chi_square, found.cost, slopes, log_evidence, used)


def likeliest(maxima):
    """The `Maximum` with the largest evidence."""
    return max(maxima, key=lambda one: one.log_evidence)


def degrees_of_freedom(curve, found):
    """Of a `Maximum`: points less parameters that they determine, one or more."""
    return max(1, round(curve.q.size - found.used))


def quantiles(settings, found, probabilities, limits=(0.0, 1.0)):
    """Quantiles of the porosity, (n,) ndarray, and the share of its distribution between limits, to which it is cut.

    It follows from the prior, and from the invariant of a `Maximum` where the contrast is known.
    """
    if settings.porosity and settings.porosity[1] == 0:
        return np.full(len(probabilities), settings.porosity[0]), 1.0
    low, high = POROSITY_LIMITS
    if settings.porosity:
        mean, sd = settings.porosity
        low, high = mean - 4 * sd, mean + 4 * sd
    values = np.linspace(low, high, 20_001)
    square = contradiction(settings, found, values)
    probability = np.exp((square.min() - square) / 2)
    kept = np.where((values >= limits[0]) & (values <= limits[1]), probability, 0.0)
    share = kept.sum() / probability.sum()
    return np.interp(probabilities, (np.cumsum(kept) - kept / 2) / max(kept.sum(), 1e-300), values), share


def contradiction(settings, found, porosity):
    """Sum of the squares of the deviations, over their own, of a porosity and of its prefactor from what is given.

    The prefactor is that of the invariant of a `Maximum`, 2 pi^2 A porosity (1 - porosity).
    """
    square = np.zeros(np.shape(porosity))
    if settings.porosity and settings.porosity[1] > 0:
        mean, sd = settings.porosity
        square += ((porosity - mean) / sd) ** 2
    if settings.contrast:
        (prefactor, fit_sd), (expected, sd) = found.log_prefactor, settings.log_prefactor
        prefactor += np.log(found.porosity * (1 - found.porosity)) - np.log(porosity * (1 - porosity))
        square += (prefactor - expected) ** 2 / (sd**2 + fit_sd**2)
    return square


@dataclass(frozen=True)
class Found:
    """Maxima of the posterior of a curve over its porosities.

    Attributes
    ----------
    posterior : Posterior
    maxima : list of lists of Maximum
        Those of each of some porosities that count alike, in increasing order.
    possible : float
        Share of the distribution of the porosity for which there is a density that describes the curve.
    """

    posterior: Posterior
    maxima: list
    possible: float

    @property
    def central(self):
        """The best `Maximum` at the median porosity."""
        return likeliest(self.maxima[len(self.maxima) // 2])


def find(curve, settings):
    """The `Found` of a curve."""
    porosity = settings.porosity[0] if settings.porosity else _START
    for _ in range(_SEARCHES):
        posterior, best = _search(curve, porosity)
        (low, median, high), _ = quantiles(settings, best, (_TAIL, 0.5, 1 - _TAIL))
        if abs(median - porosity) < _CLOSE:
            break
        porosity = median
    if low < high and _misses(curve, best):  # a porosity that is too far from 1/2 would need negative densities
        other = _search(curve, high if median < 0.5 else low)
        posterior, best = max((posterior, best), other, key=lambda pair: pair[1].log_evidence)
    if _misses(curve, best):
        posterior, best = _search_longer(posterior, best)
    if _misses(curve, best):
        return Found(posterior, [[best]], 1.0)
    maxima = _with_restarts(posterior, best)
    if low == high:
        return Found(posterior, [maxima], 1.0)
    limits = [_last_possible(posterior, best, end) for end in (low, high)]
    middles = (np.arange(_PARTS) + 0.5) / _PARTS
    porosities, possible = quantiles(settings, best, middles, limits)
    if possible < _TAIL:
        return Found(posterior, [maxima], possible)
    likely = [one for one in maxima if one.log_evidence > best.log_evidence - _GIVE_UP / 2]
    tracks = [_follow(posterior, one, porosities) for one in likely]
    return Found(posterior, [list(group) for group in zip(*tracks, strict=True)], possible)


def _last_possible(posterior, found, end):
    """The last porosity that is possible on the way from a `Maximum` to an end.

    There a density describes the curve, and falls off towards the largest q: close to the porosities for which it
    would have to be negative, it gets waves far beyond the measured ones, and interfaces of any area.
    """
    freedom = degrees_of_freedom(posterior.curve, found)
    most = max(found.chi_square + _FITS[1], stats.chi2.isf(_FITS[0], freedom))
    least = min(_STEEP_ENOUGH, posterior.prior(found.x, found.smoothness)[-1] - 0.5)
    last, step = found, (end - found.porosity) / _STEPS
    while abs(last.porosity - end) > _SHORTEST and abs(step) > _SHORTEST:
        porosity = np.clip(last.porosity + step, *sorted((found.porosity, end)))
        one = maximum(posterior, last.x, porosity, found.smoothness)
        if one.chi_square < most and posterior.prior(one.x, one.smoothness)[-1] > least:
            last = one
        else:
            step /= 2
    return last.porosity


def _follow(posterior, found, porosities):
    """A `Maximum` at porosities, a list of `Maximum`, from the nearest on to both sides."""
    first = np.abs(porosities - found.porosity).argmin()
    maxima = {first: maximum(posterior, found.x, porosities[first], found.smoothness, 1e-8)}
    for number in [*range(first + 1, porosities.size), *range(first - 1, -1, -1)]:
        last = maxima[number - 1 if number > first else number + 1]
        maxima[number] = maximum(posterior, last.x, porosities[number], found.smoothness, 1e-8)
    return [maxima[number] for number in range(porosities.size)]


def _search(curve, porosity):
    """The `Posterior` of a curve and its `Maximum` at a porosity."""
    posterior = Posterior(curve)
    return posterior, _smoothest(posterior, porosity, _starts(posterior, porosity)[:_KEPT])


def _search_longer(posterior, best):
    """Where no density describes a curve: from all starts, and with knots at half the distance."""
    curve, porosity = posterior.curve, best.porosity
    starts = _starts(posterior, porosity)[_KEPT:]
    other = likeliest(maximum(posterior, x, porosity, best.smoothness) for x in starts)
    if other.log_evidence > best.log_evidence:
        best = _smoothest(posterior, porosity, [other.x])
    if not _misses(curve, best):
        return posterior, best
    fine = Posterior(curve, SPACING / 2)
    values = posterior.model.spectrum.basis(np.exp(fine.model.spectrum.knots)) @ best.x[: posterior.n]
    other = maximum(fine, np.append(values, best.x[posterior.n :]), porosity, best.smoothness)
    if other.log_evidence < best.log_evidence:
        return posterior, best
    return fine, other if _is_hopeless(curve, other) else _smoothest(fine, porosity, [other.x])


def _with_restarts(posterior, best):
    """Maxima at the smoothness of the best and at its porosity, the best first.

    A density that goes on level imitates a background, so one that ends sooner may be likely, too.
    """
    found = [best]
    for start in _shortened(posterior, best.x):
        one = maximum(posterior, start, best.porosity, best.smoothness, 1e-8)
        if (
            one.log_evidence > best.log_evidence - _GIVE_UP / 2
            and min(two.square(one.x[np.newaxis]) for two in found) > 4
        ):
            found.append(one)
    return sorted(found, key=lambda one: -one.log_evidence)


def _misses(curve, found):
    return is_misfit(found.chi_square, degrees_of_freedom(curve, found))


def _is_hopeless(curve, found):
    return found.chi_square > _HOPELESS * degrees_of_freedom(curve, found)


def _starts(posterior, porosity):
    """Coordinates whose densities bend at different k, after a descent with soft data, the best first."""
    curve, knots, scale = posterior.curve, posterior.model.spectrum.knots, posterior.scale
    found = []
    for bend in np.linspace(np.log(curve.q[0]), knots[-1], _STARTS):
        x = np.zeros(posterior.n + 2)
        x[: posterior.n] = -2 * np.logaddexp(0, 4 * (knots - bend))
        x[: posterior.n] -= x[: posterior.n].mean()
        signal = posterior.model(x[: posterior.n], porosity)[0]
        matrix = np.column_stack([signal, np.full(signal.size, scale)]) / curve.sigma[:, np.newaxis]
        prefactor, x[-1] = np.linalg.lstsq(matrix, curve.intensity / curve.sigma)[0]
        x[-2] = np.log(np.maximum(prefactor, 1e-3 * scale / signal.max()))
        found.append(posterior.descend(x, porosity, _SMOOTHNESS[_FIRST], 1e-3, 15, soft=_SOFT))
    return [one.x for one in sorted(found, key=lambda one: one.cost)]


def _smoothest(posterior, porosity, starts):
    """The `Maximum` at the smoothness with the largest evidence, from starts that are smooth."""
    first = likeliest(maximum(posterior, x, porosity, _SMOOTHNESS[_FIRST]) for x in starts)
    found = [first]
    for values in (_SMOOTHNESS[_FIRST + 1 :], _SMOOTHNESS[:_FIRST][::-1]):
        last = first
        for smoothness in values:
            last = maximum(posterior, last.x, porosity, smoothness)
            found.append(last)
            if last.log_evidence < likeliest(found).log_evidence - _GIVE_UP:
                break
    best = likeliest(found)
    near = [maximum(posterior, best.x, porosity, best.smoothness * factor, 1e-8) for factor in (2**-0.5, 1, 2**0.5)]
    return likeliest(near)


def _shortened(posterior, x):
    """Coordinates whose densities fall off where that of x has dropped far below its top."""
    u, knots = x[: posterior.n], posterior.model.spectrum.knots
    found = []
    for drop in _DROPS:
        end = np.flatnonzero(u > u.max() - drop)[-1]
        one = x.copy()
        one[end : posterior.n] = u[end] + _STEEP * (knots[end:] - knots[end])
        found.append(one)
    return found


def sensitivity(posterior, found, k):
    """Standard deviations by which the curve would change, to first order, if the density near k went to zero.

    Near is within 0.25 in ln k, fading out; what prefactor and background make good for does not count.

    Parameters
    ----------
    posterior : Posterior
    found : Maximum
    k : (n_k,) ndarray
        [nm^-1]

    Returns
    -------
    (n_k,) ndarray
    """
    slopes = found.slopes[: posterior.curve.q.size]
    near = np.maximum(0, 1 - np.abs(posterior.model.spectrum.knots[:, np.newaxis] - np.log(k)) / _WINDOW)
    change = slopes[:, : posterior.n] @ near
    linear = np.linalg.qr(slopes[:, -2:])[0]
    return np.linalg.norm(change - linear @ (linear.T @ change), axis=0)


@dataclass(frozen=True)
class Draws:
    """Draws from the posterior, n of them.

    Attributes
    ----------
    x : (n, n_x) ndarray
        Coordinates.
    porosity, prefactor, background, surface : (n,) ndarray
        The prefactor is of the intensity of a unit volume; surface is the area of the interfaces in a volume [1/nm].
    log_density : (n, n_k) ndarray
        Logarithm of the spectral density [nm^3], where the integral of k^2 times it is one.
    correlation, two_point : (n, n_r) ndarray
        Of the field; and the probability that two points at a distance are both in the pores.
    effective : float
        Number of independent draws that they are worth.
    log_evidence : float
        Of the mean of the evidence over the porosities.
    """

    x: np.ndarray
    porosity: np.ndarray
    prefactor: np.ndarray
    background: np.ndarray
    surface: np.ndarray
    log_density: np.ndarray
    correlation: np.ndarray
    two_point: np.ndarray
    effective: float
    log_evidence: float


def draw(found, k, r, rng):
    """`Draws` from a `Found`, with densities at k [nm^-1] and correlations at r [nm]."""
    posterior, groups, best = found.posterior, found.maxima, found.central
    basis, count = posterior.model.spectrum.basis(k), -(-_BATCH // len(groups))
    porosity = np.repeat([group[0].porosity for group in groups], count)
    # The evidence of a maximum is that of its normal approximation times this constant.
    constant = best.log_evidence + best.cost - best.log_volume
    columns, evidence, effective = [], np.empty((len(groups), 0)), 0.0
    while effective < _ENOUGH and evidence.size < _MOST:
        x, log_density = (
            np.concatenate(one) for one in zip(*(_propose(group, count, rng) for group in groups), strict=True)
        )
        *new, square = _evaluate(posterior, x, porosity, best.smoothness, basis, r)
        columns.append([column.reshape(len(groups), count, *column.shape[1:]) for column in new])
        more = np.nan_to_num(constant - square / 2 - log_density, nan=-np.inf)
        evidence = np.hstack([evidence, more.reshape(len(groups), count)])
        weights = np.exp(evidence - evidence.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)  # all porosities count alike, whatever the evidence for them
        effective = weights.sum() ** 2 / np.sum(weights**2)
    chosen = rng.choice(weights.size, _DRAWS, p=weights.ravel() / len(groups))
    columns = [np.concatenate(column, axis=1) for column in zip(*columns, strict=True)]
    columns = [column.reshape(weights.size, *column.shape[2:])[chosen] for column in columns]
    log_evidence = (
        np.logaddexp.reduce(evidence, axis=None) - np.log(evidence.size) + np.log(max(found.possible, 1e-300))
    )
    return Draws(*columns, effective, log_evidence)


def _propose(maxima, count, rng):
    """Coordinates around maxima, (n, n_x) ndarray, and the logarithm of their density."""
    shares = np.exp([one.log_evidence - likeliest(maxima).log_evidence for one in maxima])
    shares = np.maximum(shares / shares.sum(), _LEAST_SHARE)
    shares /= shares.sum()
    normal = rng.standard_normal((count, maxima[0].x.size))
    chosen = rng.choice(len(maxima), count, p=shares)
    x = np.array([maxima[i].x + np.linalg.solve(maxima[i].triangle, z) for i, z in zip(chosen, normal, strict=True)])
    density = [np.log(a) - one.square(x) / 2 - one.log_volume for a, one in zip(shares, maxima, strict=True)]
    return x, np.logaddexp.reduce(density, axis=0)


def _evaluate(posterior, x, porosity, smoothness, basis, r):
    """What `Draws` holds of each x, in its order; and the sums of the squares of all residuals."""
    blocks = {}

    def work(slices):
        for block in slices:
            blocks[block.start] = _evaluate_block(posterior, x[block], porosity[block], smoothness, basis, r)

    share_out(work, len(x), _BLOCK)
    *columns, square = (np.concatenate(column) for column in zip(*(blocks[i] for i in sorted(blocks)), strict=True))
    return *columns, square


def _evaluate_block(posterior, x, porosity, smoothness, basis, r):
    model = posterior.model
    u, prefactor, background = posterior.parts(x)
    signal, loss, covariance = model(u, porosity)
    residuals = (posterior.curve_of(signal, x) - posterior.curve.intensity) / posterior.curve.sigma
    square = np.sum(residuals**2, axis=1) + np.sum(posterior.prior(x, smoothness) ** 2, axis=1)
    g = 1 - level_cut.at_distance(loss, r / model.unit)
    two_point = porosity[:, np.newaxis] ** 2 + level_cut.at_distance(covariance, r / model.unit)
    surface = level_cut.specific_surface(loss, porosity) / model.unit
    log_density = u @ basis.T - model.log_norm(u)[:, np.newaxis]
    return x, porosity, prefactor, background, surface, log_density, g, two_point, square
