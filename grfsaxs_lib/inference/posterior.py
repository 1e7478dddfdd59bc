"""Draws from the posterior of a curve under the uniform prior, by importance sampling.

Draws come first from t distributions at the maxima that the optimisation reaches, then twice from a kernel estimate of
the posterior so far. The covariance of the curve is that at the best of the maxima. What is drawn is the effective
scale of the box; the scale shift is taken off at the end.
"""

import numpy as np
from scipy.special import log_ndtr, ndtri_exp

from ..emulator.coordinates import from_coordinates
from .curve_model import padded
from .optimise import log_likelihoods
from .spline import jit, over_samples

_FREEDOM = 6  # degrees of the t distributions: tails that are heavier than those of a posterior


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


def sample(model, curves, variance, maxima, factors, rng, n_draws):
    """Draw parameters from the posteriors of curves.

    Parameters
    ----------
    model : CurveModel
    curves, variance : (n_sample, n_bin) ndarray
    maxima : optimise.Maxima
        All that were found, with the covariance at the best of them.
    factors : (n_sample, n_bin, n_bin) ndarray
        Of that covariance.
    rng : numpy.random.Generator
    n_draws : int

    Returns
    -------
    (n_sample, n_draws, n_output) ndarray of float64
    """
    settings, n, p, each = model.settings, len(curves), model.n_output, np.arange(len(curves))[:, np.newaxis]
    centres, value = maxima.points[..., :p], maxima.values
    laplace = np.linalg.inv(maxima.information[..., :p, :p] + 3 * np.eye(p))  # 3: of the range from -1 to 1
    spread = 2 * laplace
    shares = (value > value.max(axis=1, keepdims=True) - settings.worth_sampling).astype(float)
    least = settings.least_width * laplace[each[:, 0], value.argmax(axis=1)][:, np.newaxis]
    for width in (*settings.widths, None):
        shares /= shares.sum(axis=1, keepdims=True)
        kernels = np.broadcast_to(np.linalg.cholesky(spread), (n, centres.shape[1], p, p))
        chosen = _choose(shares, n_draws, rng)
        draws = rng.standard_normal((n, n_draws, p))
        draws /= np.sqrt(rng.chisquare(_FREEDOM, (n, n_draws, 1)) / _FREEDOM)
        x = centres[each, chosen] + np.einsum("nkij,nkj->nki", kernels[each, chosen], draws)
        weights = log_likelihoods(curves, factors, padded(x), model.table, model.thickness)
        weights += model.log_prior(x) - _log_mixture(x, centres, np.linalg.inv(kernels), shares)
        lost = np.isneginf(weights).all(axis=1)  # all draws outside the prior: keep a point inside
        x[lost, 0], weights[lost, 0] = centres[lost, shares[lost].argmax(axis=1)], 0
        if width is not None:
            weights = _shares(weights)
            mean = np.einsum("nk,nki->ni", weights, x)
            away = x - mean[:, np.newaxis]
            covariance = np.einsum("nk,nki,nkj->nij", weights, away, away)[:, np.newaxis]
            spread = width**2 * covariance + least + 1e-10 * np.eye(p)
            centres = x[each, _choose(weights, settings.kernels, rng)]
            shares = np.ones(centres.shape[:2])
    theta = from_coordinates(model.case, np.clip(x, -1, 1)).reshape(-1, p)
    theta, log_ratio = remove_scale_shift(model, theta, rng)
    chosen = _choose(_shares(weights + log_ratio.reshape(n, n_draws)), n_draws, rng)
    return theta.reshape(n, n_draws, p)[each, rng.permuted(chosen, axis=1)]


def remove_scale_shift(model, theta, rng):
    """Parameters of the prior for parameters with an effective scale b, and the log weights of these draws.

    For b the density of ln a is that of a uniform a times that of the scale shift, whose size is that at a; drawn are
    normal numbers with the size at b, between the ends of the prior.

    Parameters
    ----------
    model : CurveModel
    theta : (n, n_output) ndarray
    rng : numpy.random.Generator

    Returns
    -------
    theta : (n, n_output) ndarray
    log_weights : (n,) ndarray
    """
    limits, sd = model.case.ranges["scaling_parameter"], model.scale_shift_sd(theta)
    ends = np.log(np.divide.outer(limits, theta[:, 0])) / sd
    # Draws are in the lower tail, by logarithms: it holds its precision however far away the prior is.
    side = np.where(ends[0] > 0, -1, 1)
    low, high = log_ndtr(np.sort(side * ends, axis=0))
    share = 1 - rng.random(len(theta))  # never 0
    shift = side * ndtri_exp(high + np.log(share + (1 - share) * np.exp(low - high)))
    shift = sd * np.clip(shift, *ends)
    theta = np.column_stack([np.clip(theta[:, 0] * np.exp(shift), *limits), theta[:, 1:]])
    true_sd = model.scale_shift_sd(theta)
    log_ratio = shift + np.log(sd / true_sd) + shift**2 / 2 * (sd**-2 - true_sd**-2)
    return theta, high + np.log1p(-np.exp(low - high)) + log_ratio


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
    """Log density, less a constant, of t distributions around the centres; the inverses are lower triangular."""
    heights = shares * np.abs(np.prod(np.diagonal(inverses, axis1=2, axis2=3), axis=2))
    density = np.zeros(x.shape[:2])
    over_samples(_add_mixture, len(x), x, centres, np.ascontiguousarray(inverses), heights, density)
    return np.log(density + 1e-300)


@jit
def _add_mixture(first, last, x, centres, inverses, heights, density):
    n_draw, p = x.shape[1:]
    for m in range(first, last):
        for k in range(centres.shape[1]):
            for d in range(n_draw):
                square = 0.0
                for i in range(p):
                    z = 0.0
                    for j in range(i + 1):
                        z += inverses[m, k, i, j] * (x[m, d, j] - centres[m, k, j])
                    square += z * z
                density[m, d] += heights[m, k] * (1 + square / _FREEDOM) ** (-(_FREEDOM + p) / 2)
