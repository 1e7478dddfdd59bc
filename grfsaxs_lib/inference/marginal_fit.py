r"""The posterior of a measured curve under a model of its shape.

The measured intensity is taken for

.. math:: y_i = A\,(RF)_i(\theta) + B + n_i ,

with the intensity F of a model (`level_cut_model`, `three_phase_model`), the resolution R of the instrument
(`smearing`), an unknown prefactor A, a flat background B and normal noise of known standard deviation. A and B enter
linearly. B is integrated out with a flat prior, A with the prior 1/A, taken at its best value: right where A is known
to a few per cent. With :math:`X = (RF, 1)`, weights :math:`C^{-1} = \mathrm{diag}\,\sigma^{-2}` and the
least-squares :math:`\hat A`,

.. math:: \ln L(\theta) = -\tfrac12 \chi^2_{\min} - \tfrac12 \ln\det X^T C^{-1} X - \ln |\hat A| .

A model may have errors of its own, correlated between q, whose relative covariance E it states at the best fit. Then
:math:`C = \mathrm{diag}\,\sigma^2 + (\hat A F) E (\hat A F)^T` from there on.

The posterior of :math:`\theta` has a prior uniform in :math:`\ln a`, in fractions of volume and in the logarithms of
shape parameters. It is drawn by importance sampling: a starting grid, least squares from its best points, and three
rounds of t distributions around what has been found.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import least_squares

_DRAWS = (400, 400, 1500)  # of each round
_FREEDOM = 5  # of the t distributions
_STARTS = 8  # of least squares


class Noise:
    """Normal errors of a curve: independent ones, and perhaps correlated ones of the model.

    Parameters
    ----------
    sigma : (n_q,) ndarray
        Standard deviations of the independent errors.
    columns : (n_q, n) ndarray, optional
        Their squares add up to the covariance of the others.
    """

    def __init__(self, sigma, columns=None):
        self.sigma, self.log_determinant = sigma, 0.0  # of the covariance over that of the independent errors
        self._axes = None
        if columns is not None:
            self._axes, sizes, _ = np.linalg.svd(columns / sigma[:, np.newaxis], full_matrices=False)
            self._losses = 1 - 1 / np.sqrt(1 + sizes**2)
            self.log_determinant = np.log1p(sizes**2).sum()

    def whiten(self, values):
        """(..., n_q) ndarray: values in standard deviations of independent errors."""
        values = values / self.sigma
        return values if self._axes is None else values - ((values @ self._axes) * self._losses) @ self._axes.T


@dataclass(frozen=True)
class Linear:
    """Prefactor and background at each of n parameters, by least squares, and the marginal likelihood."""

    prefactor: np.ndarray
    prefactor_sd: np.ndarray
    mean_signal: np.ndarray
    mean_intensity: float
    mean_sd: float
    chi_square: np.ndarray
    log_likelihood: np.ndarray


def marginalise(signal, intensity, noise):
    """Integrate prefactor and background out.

    Parameters
    ----------
    signal : (n, n_q) ndarray
        Smeared model.
    intensity : (n_q,) ndarray
    noise : Noise

    Returns
    -------
    Linear
    """
    scale = np.abs(intensity).max()  # whatever the unit of the intensity
    flat = noise.whiten(np.full(intensity.size, scale))
    intensity, signal = noise.whiten(intensity), noise.whiten(scale * signal)
    total = flat @ flat
    mean_intensity, mean_signal = intensity @ flat / total, signal @ flat / total
    away, rest = signal - mean_signal[:, np.newaxis] * flat, intensity - mean_intensity * flat
    square, product = np.sum(away**2, axis=1), away @ rest
    with np.errstate(divide="ignore", invalid="ignore"):
        prefactor = product / square
        chi_square = np.sum((rest - prefactor[:, np.newaxis] * away) ** 2, axis=1)
        log_likelihood = -(chi_square + np.log(total * square) + noise.log_determinant) / 2
        log_likelihood -= np.log(np.maximum(np.abs(prefactor), 1e-300))  # it is zero for a constant
    log_likelihood = np.where(np.isfinite(log_likelihood), log_likelihood, -np.inf)
    return Linear(
        scale * prefactor, scale * square**-0.5, mean_signal, scale * mean_intensity, scale * total**-0.5, chi_square,
        log_likelihood,
    )  # fmt: skip


def fit(model, intensity, sigma, rng):
    """Draws from the posterior of a curve.

    Returns
    -------
    x : (n, n_parameter) ndarray
        Coordinates.
    best : (n_parameter,) ndarray
        The most likely of the last round.
    log_evidence, effective : float
        The integral of the likelihood over the prior, and the effective sample size of the last round.
    noise : Noise
        With the error of the model at the most likely parameters.
    """
    limits, noise = model.settings.limits, Noise(sigma)
    width = np.diff(limits, axis=1).ravel()

    def log_posterior(x):
        inside = ((x >= limits[:, 0]) & (x <= limits[:, 1])).all(axis=1)
        values = np.full(len(x), -np.inf)
        for some in np.array_split(np.flatnonzero(inside), max(1, inside.sum() * model.points.size // 400_000)):
            if some.size:
                linear = marginalise(model(x[some]), intensity, noise)
                values[some] = np.where(linear.prefactor * sign >= 0, linear.log_likelihood, -np.inf)
        return values

    def residuals(x):
        signal = model(np.atleast_2d(x))
        linear = marginalise(signal, intensity, noise)
        fitted = linear.mean_intensity + linear.prefactor[:, np.newaxis] * (signal - linear.mean_signal[:, np.newaxis])
        return noise.whiten(intensity - fitted).reshape(*np.shape(x)[:-1], -1)

    def slopes(x):
        steps = np.where(x < limits.mean(axis=1), 1e-4, -1e-4) * width
        first, *others = residuals(x + np.vstack([np.zeros(x.size), np.diag(steps)]))
        return np.transpose((others - first) / steps[:, np.newaxis])

    def optimum(start, evaluations):
        bounds = limits + 1e-9 * width[:, np.newaxis] * [1, -1]  # a start must lie inside
        start = np.clip(start, *bounds.T)
        return least_squares(residuals, start, slopes, bounds=limits.T, x_scale=width, max_nfev=evaluations)

    counts = model.settings.starts
    middles = [low + (np.arange(n) + 0.5) / n * (high - low) for (low, high), n in zip(limits, counts, strict=True)]
    grid = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, len(limits))
    sign = 1
    values = log_posterior(grid)
    if not np.isfinite(values).any():  # a curve that rises with q: no result, but one can look at it
        sign = -1
        values = log_posterior(grid)
    starts = _separate(grid[np.argsort(-values)[:100]], width / np.array(counts))[:_STARTS]
    found = [optimum(start, 40) for start in starts]
    best = min(found, key=lambda one: one.cost).x
    error = model.error(best)
    if error is not None:
        signal = model(best[np.newaxis])
        size = marginalise(signal, intensity, noise).prefactor[0] * signal[0]
        noise = Noise(sigma, size[:, np.newaxis] * error)
        found = [optimum(one.x, 15) for one in found]
    maxima = [(one.x, one.jac.T @ one.jac) for one in found]
    return *_sample(log_posterior, maxima, width, rng), noise


def _sample(log_posterior, maxima, width, rng):
    """Draws, the best of them, evidence and effective sample size, by importance sampling around the maxima."""
    centres = np.array([point for point, _ in maxima])
    heights = log_posterior(centres)
    keep = heights > heights.max() - 12
    centres = centres[keep]
    floor = np.diag((width / 6) ** -2.0)
    covariances = np.array([np.linalg.inv(information + floor) for _, information in maxima])[keep] * 1.5
    shares = np.ones(len(centres))
    for last, count in zip((False, False, True), _DRAWS, strict=True):
        x, log_density = _draw(centres, covariances, shares / shares.sum(), count, rng)
        values = log_posterior(x)
        log_weights = values - log_density
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        if not last:
            mean = weights @ x
            covariance = np.cov(x.T, aweights=weights, ddof=0) + 1e-6 * np.diag(width**2) * (weights.max() > 0.5)
            chosen = rng.choice(count, 40, p=weights)
            centres = np.concatenate([x[chosen], mean[np.newaxis]])
            covariances = np.broadcast_to(0.35 * covariance + 1e-12 * np.diag(width**2), (41, *covariance.shape)).copy()
            covariances[-1] = 1.3 * covariance + 1e-12 * np.diag(width**2)
            shares = np.append(np.ones(40), 10)
    log_evidence = np.log(np.mean(np.exp(log_weights - log_weights.max()))) + log_weights.max() - np.log(width).sum()
    chosen = rng.choice(len(x), len(x), p=weights)
    return x[chosen], x[values.argmax()], log_evidence, 1 / np.sum(weights**2)


def _separate(points, distance):
    """Those of some points, the best first, that are farther from all before than one step of the grid."""
    kept = []
    for point in points:
        if all((np.abs(point - other) > 1.5 * distance).any() for other in kept):
            kept.append(point)
    return kept


def _draw(centres, covariances, shares, count, rng):
    """Draws from a mixture of t distributions, and their log density."""
    p = centres.shape[1]
    factors = np.linalg.cholesky(covariances)
    chosen = rng.choice(len(centres), count, p=shares)
    normal = rng.standard_normal((count, p)) / np.sqrt(rng.chisquare(_FREEDOM, (count, 1)) / _FREEDOM)
    x = centres[chosen] + np.einsum("nij,nj->ni", factors[chosen], normal)
    density = sum(
        share * stats.multivariate_t.pdf(x, centre, covariance, df=_FREEDOM)
        for share, centre, covariance in zip(shares, centres, covariances, strict=True)
    )
    return x, np.log(density)
