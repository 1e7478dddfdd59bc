r"""What a curve says of its structure, through an emulator: maximum-likelihood fits and posteriors.

The fit that the paper set out to beat needs a simulation for each step. With an emulated mean a step takes
microseconds. The log intensity y, averaged over some q values, is taken as normal,

.. math:: y \sim N\big(\mu(a e^u, \epsilon, \nu),\; S R S + N\big), \qquad u \sim N(0, \sigma_u^2),

with the rest of a box (deviations S and correlations R of similar structures) and the measurement noise N, of curves
that are divided by their own invariant. The *effective* scale :math:`a e^u` of the box, porosity and layer fraction are
fitted by Levenberg-Marquardt steps. What the stretch u of the box leaves open of a is not in the curve; it widens the
result.

In three phases the likelihood has side maxima, for porosity and layer fraction can change together at almost the same
layer, and waves fit again after a period. So climbs start at several porosities, from the closest there of a *bank* of
curves that fill the prior.
"""

import warnings
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from scipy.special import log_ndtr, ndtri_exp
from threadpoolctl import threadpool_limits

from ..emulator.coordinates import coordinate_ends, from_coordinates, layer_nanometres, prior_limits, to_coordinates
from ..grid import PAPER_Q
from ..measurement.noise import estimate_noise_level, is_noise_strange
from ..measurement.preprocess import log_intensity
from ..parameters import check, numbers
from .optimise import climb, covariance_factors, log_likelihoods
from .spline import collocation, look_up, nodes, sites

_TABLE = (120, 14, 140)  # coefficients of the averaged curves along ln a, porosity, thickness
_COARSE = (24, 6, 24)  # points of the deviations S
_BANK = (5, 1, 5)  # every so many nodes of the table are in the bank
_LOCAL = {2: 0.1, 3: 0.025}  # share of the structures, the nearest, that give S at a place, for two and three outputs
_LEAST_LOCAL = 25  # of them
_PLACES = 32  # at a time, of S: each takes all q of its structures
_BANDS = 17  # correlations R, see `_bands`
_LAYERS = (0.3, 8.0)  # thinnest and thickest layer of a band [nm]
_IN_BAND = {2: 800, 3: 400}  # nearest structures of a band, for two and three outputs
_OF_BAND = 0.7  # their share in R; the rest is that of all structures
_SHRINKAGE = 0.1  # of R towards none
_CLIP = 4.0  # deviations, of a rest that enters R
_STARTS = 6  # of a fit; a posterior starts at all porosities of the bank
_BLOCK = 256  # curves at a time
# Chi-square per degree of freedom of curves that fit. Of 1024 real ones a case that an emulator had not seen, 1.2 % lay
# above if it had learned from 128 structures, at most 0.1 % if from thousands; none lay below.
_CHI_SQUARE = (0.2, 2.5)
_BEYOND = 4.0  # deviations beyond the prior; of the same curves one in 4096 had more


class MisfitWarning(UserWarning):
    """Curves that the model does not describe, or only beyond its prior; what was read off them means little."""


class Fit(NamedTuple):
    """Most likely parameters of measured curves, from `Likelihood.fit`.

    Attributes
    ----------
    estimates, errors : dict of str to (n_sample,) ndarray of float64
        For each output, inside the prior; and standard errors, from the curvature of the likelihood.
    chi_square : (n_sample,) ndarray of float64
        Per degree of freedom, under the noise and the scatter that the likelihood states: about 1 where it is right.
    """

    estimates: dict
    errors: dict
    chi_square: np.ndarray


class Draws(dict):
    """Posterior draws by output, (n_sample, n_draws) ndarrays of float64, from `Likelihood.posterior`.

    Attributes
    ----------
    chi_square : (n_sample,) ndarray of float64
        At the most likely parameters, as in `Fit`.
    """

    def __init__(self, draws, chi_square):
        super().__init__(draws)
        self.chi_square = chi_square


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What fits need of an emulator, from `prepare`.

    Attributes
    ----------
    emulator : Emulator
    """

    emulator: object
    _edges: np.ndarray  # (n_bin,): first q value of each average
    _table: np.ndarray  # (n_a, n_porosity, n_thickness, n_bin): spline coefficients of the averaged curves
    _deviation: np.ndarray  # the same axes, coarser
    _correlations: np.ndarray  # (n_band, n_bin, n_bin), see `_bands`
    _stretch: float  # in units of that of the emulated box
    _thickness: np.ndarray  # (2, n): least and largest coordinate, on even porosities
    _places: np.ndarray  # (n_bank, 3)
    _bank: np.ndarray  # (2 n_bin, n_bank): squares of the averaged curves and -2 times them

    def fit(self, intensity):
        """Most likely parameters of measured curves.

        Parameters
        ----------
        intensity : (n_sample, n_q) array_like
            Measured intensity on the paper's scale, at the emulator's q.

        Returns
        -------
        Fit

        Raises
        ------
        ValueError
            If an intensity is not positive and finite, or the shape does not fit.

        Warns
        -----
        MisfitWarning
            If curves do not fit, or fit better beyond the prior, or have a noise that no level explains.
        """
        curves, variance, _ = self.average(intensity)
        theta, error, chi_square, beyond = self._fit(curves, variance)
        self._warn(chi_square, beyond, is_noise_strange(intensity, PAPER_Q))
        outputs = self.emulator.case.outputs
        return Fit(dict(zip(outputs, theta.T, strict=True)), dict(zip(outputs, error.T, strict=True)), chi_square)

    def inputs(self, intensity):
        """What a regression can learn from: the fit, its errors, the noise, and the averaged log intensity.

        Parameters and errors are those of `fit`.

        Returns
        -------
        (n_sample, n_input) ndarray of float32
        """
        curves, variance, noise_level = self.average(intensity)
        theta, error, _, _ = self._fit(curves, variance)
        return np.column_stack([theta, error, np.log(noise_level), curves]).astype(np.float32)

    def average(self, intensity):
        """Reduce measured curves to what the likelihood compares.

        Parameters and errors are those of `fit`.

        Returns
        -------
        curves, variance : (n_sample, n_bin) ndarray of float64
            Averages of the normalised log intensity, and their variance by measurement noise before normalisation.
        noise_level : (n_sample,) ndarray of float64
        """
        intensity = check("intensity", intensity)
        if intensity.ndim != 2 or intensity.shape[1] != PAPER_Q.size:
            raise ValueError(f"intensity must have shape (n_sample, {PAPER_Q.size}), got {intensity.shape}")
        noise_level = estimate_noise_level(intensity, PAPER_Q)
        # The logarithm of a lognormal variable lies half its variance below that of its mean.
        variance = np.log1p(noise_level[:, np.newaxis] / intensity)
        curves = _average(log_intensity(intensity, PAPER_Q) + variance / 2, self._edges)
        return curves, self._of_average(variance), noise_level

    def draw(self, parameters, noise_level, rng):
        """Draw averaged curves from the model of the likelihood itself.

        Parameters
        ----------
        parameters : dict of str to (n_sample,) array_like
        noise_level : (n_sample,) array_like
            0 for none, if the box is finite.
        rng : numpy.random.Generator

        Returns
        -------
        curves, variance : (n_sample, n_bin) ndarray of float64
            As from `average`, with the true noise level.
        """
        intensity = np.exp(self.emulator.mean(parameters))
        columns = [parameters[output] for output in self.emulator.case.outputs]
        theta = np.stack(np.broadcast_arrays(*map(np.atleast_1d, columns)), axis=1).astype(np.float64)
        noise_level = np.broadcast_to(check("noise_level", noise_level), len(theta))
        variance = self._of_average(np.log1p(noise_level[:, np.newaxis] / intensity))
        theta[:, 0] *= np.exp(self._stretch_sd(theta) * rng.standard_normal(len(theta)))
        place = _padded(to_coordinates(self.emulator.case, theta))
        curves, deviation = look_up(place, self._table, self._deviation)
        rest = deviation * self._correlated(place, rng)
        noise = np.sqrt(variance) * rng.standard_normal(curves.shape)
        noise -= np.sum(self._invariant_shares(curves) * noise, axis=1, keepdims=True)
        return curves + rest + noise, variance

    def posterior(self, curves, variance, rng, n_draws=256):
        """Draw from the posterior under the uniform prior.

        Importance sampling: first from t distributions at the maxima that climbs reach, then twice from a kernel
        estimate of the posterior so far. The covariance of the curve is that at the best of the maxima.

        Parameters
        ----------
        curves, variance : (n_sample, n_bin) array_like
            From `average` or `draw`.
        rng : numpy.random.Generator
        n_draws : int
            A curve.

        Returns
        -------
        Draws
            In random order.

        Raises
        ------
        ValueError
            If the shapes do not fit, a value is not finite, a variance is negative, or `n_draws` is not a positive
            integer.

        Warns
        -----
        MisfitWarning
            As `fit`, but for the noise.
        """
        curves, variance = numbers("curves", curves), numbers("variance", variance)
        if curves.shape != (len(curves), self._edges.size) or variance.shape != curves.shape:
            raise ValueError(
                f"curves and variance must have shape (n_sample, {self._edges.size}), as average() returns them; "
                f"got {curves.shape} and {variance.shape}"
            )
        bad = ~(np.isfinite(curves) & np.isfinite(variance) & (variance >= 0)).all(axis=1)
        if bad.any():
            raise ValueError(f"curves must be finite and variance finite and not negative; curve {bad.argmax()} is not")
        if not isinstance(n_draws, int | np.integer) or n_draws < 1:
            raise ValueError(f"n_draws must be a positive integer; got {n_draws!r}")
        draws, chi_square = np.empty((len(curves), n_draws, self._n_output)), np.empty(len(curves))
        beyond = np.empty(len(curves))
        with threadpool_limits(1, user_api="blas"):
            for start in range(0, len(curves), _BLOCK):
                block = slice(start, start + _BLOCK)
                draws[block], chi_square[block], beyond[block] = self._sample(
                    curves[block], variance[block], rng, n_draws
                )
        self._warn(chi_square, beyond)
        return Draws(zip(self.emulator.case.outputs, np.moveaxis(draws, -1, 0), strict=True), chi_square)

    def in_volume(self, volume):
        """The likelihood of curves of another box.

        Parameters
        ----------
        volume : float
            In units of that of the emulated curves, 1 or more: structures of a smaller box leave the tables. What a
            finite box scatters has a variance in inverse proportion. ``inf`` leaves the measurement noise alone.

        Returns
        -------
        Likelihood

        Raises
        ------
        ValueError
            If the volume is less than 1.
        """
        if not volume >= 1:
            raise ValueError(f"volume must be 1 or more, in units of that of the emulated curves; got {volume}")
        shrunk = 1 / np.sqrt(volume)
        return replace(self, _deviation=shrunk * self._deviation, _stretch=shrunk * self._stretch)

    def _fit(self, curves, variance):
        """(n_sample, n_output) ndarrays: estimates and standard errors; (n_sample,): what `_goodness` says of them."""
        theta, error = np.empty((2, len(curves), self._n_output))
        chi_square, beyond = np.empty((2, len(curves)))
        for start in range(0, len(curves), _BLOCK):
            block = slice(start, start + _BLOCK)
            place, value = self._climb(curves[block], variance[block], _STARTS)
            best = place[np.arange(len(place)), value.argmax(axis=1)][:, np.newaxis]
            (place, value, information, gradient), _ = self._climb_on(curves[block], variance[block], best[:, 0], best)
            theta[block], error[block] = self._describe(place[:, 0], information[:, 0])
            chi_square[block], beyond[block] = self._goodness(
                place[:, 0], value[:, 0], information[:, 0], gradient[:, 0]
            )
        return theta, error, chi_square, beyond

    def _goodness(self, place, value, information, gradient):
        """(n_sample,) ndarrays: chi-square per degree of freedom, and how many deviations beyond the prior the best is.

        Beyond a bound at which the optimisation ended lies what the score statistic says: the chi-square that one
        more step without bounds would take off. Effective scales may leave the prior of a a little; what that is in
        deviations tells the rest.
        """
        n = self._n_output
        information = information[:, :n, :n] + 3 * np.eye(n)  # 3: of the range from -1 to 1
        pull = np.einsum("ni,ni->n", gradient[:, :n], np.linalg.solve(information, gradient[:, :n, np.newaxis])[..., 0])
        low, high = coordinate_ends(self.emulator.case)[:, 0]
        scale = low + (place[:, 0] + 1) / 2 * (high - low)
        ends = np.log(self.emulator.case.ranges["scaling_parameter"])
        theta = np.clip(from_coordinates(self.emulator.case, place[:, :n]), *prior_limits(self.emulator.case))
        variance = self._stretch_sd(theta) ** 2 + np.linalg.inv(information)[:, 0, 0] * ((high - low) / 2) ** 2
        outside = np.maximum(0, np.maximum(ends[0] - scale, scale - ends[1]))
        chi_square = -2 * value / (self._edges.size - n)
        return chi_square, np.sqrt(np.maximum(pull, outside**2 / variance))

    def _warn(self, chi_square, beyond, strange=False):
        """Warn of curves that do not fit, of those that fit better beyond the prior, and of a strange noise."""
        low, high = _CHI_SQUARE
        reasons = {
            f"do not fit: chi-square per degree of freedom is outside [{low:g}, {high:g}]": (chi_square > high)
            | (chi_square < low),
            f"fit better beyond the prior, by {_BEYOND:g} deviations or more": beyond > _BEYOND,
            "have a noise that the model does not know: single values that are off, or another scale": strange,
        }
        for what, bad in reasons.items():
            if np.any(bad):
                first = ", ".join(map(str, np.flatnonzero(bad)[:5])) + (", ..." if np.sum(bad) > 5 else "")
                warnings.warn(
                    f"{np.sum(bad)} of {bad.size} curves (index {first}) {what}. Do not trust what was read off them "
                    f"for {self.emulator.case.name}; check the case, the unit of q, the scale of the intensity "
                    "(Grid.intensity_scale), background and hot pixels",
                    MisfitWarning,
                    stacklevel=3,
                )

    def _climb(self, curves, variance, count):
        """Maxima that are reached from the closest starts, (n_sample, n_start, 3), and their log likelihoods."""
        with threadpool_limits(1, user_api="blas"):
            weights = 1 / (variance + np.mean(self._deviation**2, axis=(0, 1, 2)))
            distances = np.concatenate([weights, weights * curves], axis=1).astype(np.float32) @ self._bank
        n_porosity = len(nodes(self._table.shape[1])[:: _BANK[1]])
        distances = distances.reshape(len(curves), n_porosity, -1)
        closest = distances.argmin(axis=2)
        order = np.argsort(np.take_along_axis(distances, closest[..., np.newaxis], axis=2)[..., 0], axis=1)[:, :count]
        starts = self._places.reshape(n_porosity, -1, 3)[order, np.take_along_axis(closest, order, axis=1)]
        return self._climb_on(curves, variance, starts[:, 0], starts)[0][:2]

    def _climb_on(self, curves, variance, there, starts):
        """What `climb` finds from the starts with the covariance at places `there`, and the factors of that."""
        shares = self._invariant_shares(curves)
        bands = _bands(self.emulator.case, there)
        factors = covariance_factors(there, variance, shares, self._deviation, self._correlations, bands)
        return climb(curves, factors, starts, self._table, self._thickness, self._n_output), factors

    def _describe(self, place, information):
        """Parameters of places, inside the prior, and their standard errors."""
        case, n = self.emulator.case, self._n_output
        low, high = prior_limits(case)
        theta = from_coordinates(case, place[:, :n])
        jacobian = np.empty((len(theta), n, n))
        for i in range(n):
            shift = 1e-4 * np.eye(n)[i]
            jacobian[:, :, i] = (
                from_coordinates(case, place[:, :n] + shift) - from_coordinates(case, place[:, :n] - shift)
            ) / 2e-4
        inverse = np.linalg.inv(jacobian)
        information = np.swapaxes(inverse, 1, 2) @ information[:, :n, :n] @ inverse
        theta = np.clip(theta, low, high)
        covariance = np.linalg.inv(information + np.diag(12 / (high - low) ** 2))  # the precision of the prior
        covariance[:, 0, 0] += (theta[:, 0] * self._stretch_sd(theta)) ** 2
        return theta, np.minimum(np.sqrt(np.diagonal(covariance, axis1=1, axis2=2)), (high - low) / np.sqrt(12))

    def _sample(self, curves, variance, rng, n_draws):
        """(n_sample, n_draws, n_output) ndarray, and the goodness of fit at the best of the maxima."""
        n, p, each = len(curves), self._n_output, np.arange(len(curves))[:, np.newaxis]
        place, value = self._climb(curves, variance, None)
        best = place[each[:, 0], value.argmax(axis=1)]
        (place, value, information, gradient), factor = self._climb_on(curves, variance, best, place)
        goodness = self._goodness(
            *(values[each[:, 0], value.argmax(axis=1)] for values in (place, value, information, gradient))
        )
        centres = place[..., :p]
        laplace = np.linalg.inv(information[..., :p, :p] + 3 * np.eye(p))  # 3: of the range from -1 to 1
        spread = 2 * laplace
        shares = (value > value.max(axis=1, keepdims=True) - 12).astype(float)
        least = 0.02 * laplace[each[:, 0], value.argmax(axis=1)][:, np.newaxis]
        for width in (0.5, 0.35, None):
            shares /= shares.sum(axis=1, keepdims=True)
            factors = np.broadcast_to(np.linalg.cholesky(spread), (n, centres.shape[1], p, p))
            chosen = _choose(shares, n_draws, rng)
            draws = rng.standard_normal((n, n_draws, p)) / np.sqrt(rng.chisquare(6, (n, n_draws, 1)) / 6)
            x = centres[each, chosen] + np.einsum("nkij,nkj->nki", factors[each, chosen], draws)
            weights = log_likelihoods(curves, factor, _padded(x), self._table, self._thickness)
            weights += self._log_prior(x) - _log_mixture(x, centres, np.linalg.inv(factors), shares)
            lost = np.isneginf(weights).all(axis=1)  # all draws outside the prior: keep a place inside
            x[lost, 0], weights[lost, 0] = centres[lost, shares[lost].argmax(axis=1)], 0
            if width is not None:
                weights = _shares(weights)
                mean = np.einsum("nk,nki->ni", weights, x)
                away = x - mean[:, np.newaxis]
                covariance = np.einsum("nk,nki,nkj->nij", weights, away, away)[:, np.newaxis]
                spread = width**2 * covariance + least + 1e-10 * np.eye(p)
                centres = x[each, _choose(weights, 48, rng)]
                shares = np.ones(centres.shape[:2])
        theta = from_coordinates(self.emulator.case, np.clip(x, -1, 1)).reshape(-1, p)
        theta, log_ratio = self._unstretch(theta, rng)
        chosen = _choose(_shares(weights + log_ratio.reshape(n, n_draws)), n_draws, rng)
        return theta.reshape(n, n_draws, p)[each, rng.permuted(chosen, axis=1)], *goodness

    def _unstretch(self, theta, rng):
        """Parameters of the prior for parameters with an effective scale b, and the log weights of these draws.

        For b the density of ln a is that of a uniform a times that of the stretch, whose size is that at a; drawn are
        normal numbers with the size at b, between the ends of the prior.
        """
        limits, sd = self.emulator.case.ranges["scaling_parameter"], self._stretch_sd(theta)
        ends = np.log(np.divide.outer(limits, theta[:, 0])) / sd
        # Draws are in the lower tail, by logarithms: it holds its precision however far away the prior is.
        side = np.where(ends[0] > 0, -1, 1)
        low, high = log_ndtr(np.sort(side * ends, axis=0))
        share = 1 - rng.random(len(theta))  # never 0
        shift = side * ndtri_exp(high + np.log(share + (1 - share) * np.exp(low - high)))
        shift = sd * np.clip(shift, *ends)
        theta = np.column_stack([np.clip(theta[:, 0] * np.exp(shift), *limits), theta[:, 1:]])
        true_sd = self._stretch_sd(theta)
        log_ratio = shift + np.log(sd / true_sd) + shift**2 / 2 * (sd**-2 - true_sd**-2)
        return theta, high + np.log1p(-np.exp(low - high)) + log_ratio

    def _correlated(self, places, rng):
        """(n_sample, n_bin) ndarray: normal numbers with the correlations R at places."""
        band = _bands(self.emulator.case, places)
        total = np.zeros((len(places), self._edges.size))
        for n, factor in enumerate(np.linalg.cholesky(self._correlations)):
            share = np.maximum(1 - np.abs(band - n), 0)  # of R at most two bands have a share
            mine = share > 0
            normal = rng.standard_normal((mine.sum(), self._edges.size))
            total[mine] += np.sqrt(share[mine, np.newaxis]) * (normal @ factor.T)
        return total

    def _stretch_sd(self, theta):
        return np.maximum(self._stretch * self.emulator.stretch_sd(theta), 1e-12)  # positive in an infinite box too

    def _log_prior(self, x):
        """Log density of the coordinates x under the uniform prior of the parameters, less a constant."""
        h = 1e-4
        x = np.clip(x, -1, 1)
        theta = from_coordinates(self.emulator.case, x)
        result = np.log(theta[..., 0])
        if self._n_output == 3:
            shift = np.array([0, 0, h])
            above, below = (from_coordinates(self.emulator.case, x + sign * shift)[..., 2] for sign in (1, -1))
            result += np.log(np.maximum(above - below, 1e-12))
        return result

    def _invariant_shares(self, curves):
        """(n_sample, n_bin) ndarray: shares of the averages in the invariant."""
        shares = np.exp(curves) * np.add.reduceat(PAPER_Q**2 * np.gradient(PAPER_Q), self._edges)
        return shares / shares.sum(axis=1, keepdims=True)

    def _of_average(self, variance):
        """Variance of averages over independent values."""
        return _average(variance, self._edges) / np.diff(self._edges, append=PAPER_Q.size)

    @property
    def _n_output(self):
        return len(self.emulator.case.outputs)


def prepare(emulator):
    """Prepare fits of the curves of an emulator.

    Parameters
    ----------
    emulator : Emulator

    Returns
    -------
    Likelihood
        After about 25 s on one core; it takes 80 MB for three phases.
    """
    # Averages over one q spacing of the paper's box (four values) where shells are few, over two above.
    edges = np.array([i for i in (*range(0, 80, 4), *range(80, PAPER_Q.size, 7))])
    thickness = _thickness_bounds(emulator.case)
    table = _tabulate(emulator, edges)
    deviation, correlations = _scatter(emulator, edges, thickness)
    axes = [nodes(n)[::step] for n, step in zip(table.shape[:3], _BANK, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    places = np.swapaxes(places, 0, 1).reshape(-1, 3)  # by porosity
    curves, _ = look_up(places, table, deviation)
    bank = np.concatenate([curves**2, -2 * curves], axis=1).T.astype(np.float32)
    return Likelihood(emulator, edges, table, deviation, correlations, 1.0, thickness, places, bank)


def _thickness_bounds(case):
    """(2, 65) ndarray: coordinates of the thinnest and the thickest layer of the prior, on even porosities."""
    if len(case.outputs) == 2:
        return np.array([np.full(65, -1.0), np.full(65, 1.0)])
    porosity = np.linspace(*case.ranges["porosity"], 65)
    ends = [np.column_stack([np.ones(65), porosity, np.full(65, end)]) for end in case.ranges["layer_fraction"]]
    return np.array([to_coordinates(case, theta)[:, 2] for theta in ends])


def _tabulate(emulator, edges):
    """Spline coefficients of the averaged curves; axes that a case does not have are of length 1."""
    n = len(emulator.case.outputs)

    def mean(x):
        return _average(log_intensity(np.exp(emulator.curves(x)), PAPER_Q).astype(np.float64), edges)

    size = (*_TABLE[:n], *[1] * (3 - n))
    table = _in_blocks(mean, _grid([sites(m) for m in size[:n]])).reshape(*size, -1)
    for axis, m in enumerate(size):
        table = np.moveaxis(np.tensordot(np.linalg.inv(collocation(m)), table, (1, axis)), 0, axis)
    return np.ascontiguousarray(table, dtype=np.float32)


def _scatter(emulator, edges, thickness):
    """Deviations S on a coarse grid, and the correlations R of rests in bands."""
    case, q, n = emulator.case, PAPER_Q, len(emulator.case.outputs)
    low, high = prior_limits(case)
    count = max(round(_LOCAL[n] * len(emulator.structures)), _LEAST_LOCAL)

    def local(x):
        """(n_place, n_near, n_bin) ndarray: averaged rests of the structures nearest to places."""
        theta = np.clip(from_coordinates(case, x), low, high)
        parameters = dict(zip(case.outputs, theta.T, strict=True))
        # Normalised to first order: what a rest adds to the invariant is common to all q.
        weights = np.exp(emulator.mean(parameters)) * q**2 * np.gradient(q)
        weights /= weights.sum(axis=1, keepdims=True)
        rests = emulator.residuals(parameters, count)[1]
        return _average(rests - np.einsum("nkq,nq->nk", rests, weights)[..., np.newaxis], edges)

    def rms(x):
        return np.sqrt(np.mean(local(x) ** 2, axis=1))

    def standardised(x):
        rests = local(x)
        return rests[:, 0] / np.sqrt(np.mean(rests**2, axis=1))  # the nearest is the structure's own

    coarse = (*_COARSE[:n], *[1] * (3 - n))
    grid = _grid([np.linspace(-1, 1, m) for m in coarse[:n]])
    if n == 3:
        even = np.linspace(-1, 1, thickness.shape[1])
        grid[:, 2] = np.clip(grid[:, 2], *(np.interp(grid[:, 1], even, bound) for bound in thickness))
    deviation = _in_blocks(rms, grid, _PLACES).reshape(*coarse, -1)
    places = to_coordinates(case, emulator.structures)
    rests = np.clip(_in_blocks(standardised, places, _PLACES), -_CLIP, _CLIP)
    bands = _bands(case, places)
    near = [np.argsort(np.abs(bands - band))[: _IN_BAND[n]] for band in range(_BANDS)]
    correlations = _OF_BAND * np.array([np.corrcoef(rests[band].T) for band in near])
    correlations += (1 - _OF_BAND) * np.corrcoef(rests.T)
    return deviation, (1 - _SHRINKAGE) * correlations + _SHRINKAGE * np.eye(len(edges))


def _bands(case, x):
    """(n_sample,) ndarray: positions of coordinates among the bands of R, even in the length that rests vary with.

    That is a in two phases. In three it is the thickness of the layer, whose waves make rests oscillate along q; by a
    alone correlations are averages over their phases.
    """
    if len(case.outputs) == 2:
        share = (x[:, 0] + 1) / 2
    else:
        thin, thick = np.log(_LAYERS)
        share = (np.log(layer_nanometres(case, x)) - thin) / (thick - thin)
    return np.clip(share, 0, 1) * (_BANDS - 1)


def _average(values, edges):
    """Averages along the last axis, from each edge to the next."""
    return np.add.reduceat(values, edges, axis=-1) / np.diff(edges, append=values.shape[-1])


def _grid(axes):
    """(n_place, n_axis) ndarray: all places of a grid."""
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(axes))


def _in_blocks(function, places, size=_BLOCK):
    return np.concatenate([function(places[start : start + size]) for start in range(0, len(places), size)])


# -------------------------------------------------------------------------------------------------- sampling


def _padded(x):
    """Coordinates with a third axis, at 0 in two phases."""
    return np.concatenate([x, np.zeros((*x.shape[:-1], 3 - x.shape[-1]))], axis=-1)


def _shares(log_weights):
    weights = np.exp(log_weights - log_weights.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True)


def _choose(shares, count, rng):
    """(n_sample, count) ndarray: positions drawn with probabilities `shares`, evenly (systematic sampling)."""
    points = (np.arange(count) + rng.random((len(shares), 1))) / count
    cumulative = np.cumsum(shares, axis=1)
    chosen = [np.searchsorted(row / row[-1], point) for row, point in zip(cumulative, points, strict=True)]
    return np.minimum(chosen, shares.shape[1] - 1)


def _log_mixture(x, centres, inverses, shares):
    """Log density, less a constant, of t distributions with six degrees of freedom around the centres."""
    p = x.shape[-1]
    total = np.zeros(x.shape[:2])
    for k in range(centres.shape[1]):
        z = np.einsum("nij,nmj->nmi", inverses[:, k], x - centres[:, k, np.newaxis])
        height = shares[:, k] * np.abs(np.prod(np.diagonal(inverses[:, k], axis1=1, axis2=2), axis=1))
        total += height[:, np.newaxis] * (1 + np.sum(z**2, axis=-1) / 6) ** (-(6 + p) / 2)
    return np.log(total + 1e-300)
