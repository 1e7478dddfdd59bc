r"""The posterior of a measured curve under a model of its shape.

The measured intensity is taken for

.. math:: y_i = A\,(RF)_i(\theta) + B + n_i ,

with the intensity F of a model (`level_cut_model`, `three_phase_model`), the resolution R of the instrument
(`smearing`), an unknown prefactor A, a flat background B and normal noise of known standard deviation. A and B enter
linearly. B is integrated out with a flat prior, A with the prior 1/A, taken at its best value: right where A is known
to a few per cent. With :math:`X = (RF, 1)`, weights :math:`C^{-1} = \mathrm{diag}\,\sigma^{-2}` and the
least-squares :math:`\hat A`,

.. math:: \ln L(\theta) = -\tfrac12 \chi^2_{\min} - \tfrac12 \ln\det X^T C^{-1} X - \ln |\hat A| .

The posterior of :math:`\theta` has a prior uniform in :math:`\ln a`, in the porosity and in the logarithms of shape
parameters. It is drawn by importance sampling: a starting grid, least squares from its best points, and three rounds of
t distributions around what has been found.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import least_squares

_DRAWS = (400, 400, 1500)  # of each round
_FREEDOM = 5  # of the t distributions


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


def marginalise(signal, intensity, sigma):
    """Integrate prefactor and background out.

    Parameters
    ----------
    signal : (n, n_q) ndarray
        Smeared model.
    intensity, sigma : (n_q,) ndarray

    Returns
    -------
    Linear
    """
    scale = np.abs(intensity).max()  # whatever the unit of the intensity
    intensity, weights = intensity / scale, (sigma / scale) ** -2.0
    total = weights.sum()
    mean_intensity = weights @ intensity / total
    mean_signal = signal @ weights / total
    away, rest = signal - mean_signal[:, np.newaxis], intensity - mean_intensity
    square, product = away**2 @ weights, away @ (weights * rest)
    with np.errstate(divide="ignore", invalid="ignore"):
        prefactor = product / square
        chi_square = np.sum(weights * (rest - prefactor[:, np.newaxis] * away) ** 2, axis=1)
        log_likelihood = -chi_square / 2 - np.log(total * square) / 2 - np.log(np.abs(prefactor))
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
        The most likely of all.
    log_evidence, effective : float
        The integral of the likelihood over the prior, and the effective sample size of the last round.
    """
    limits = model.settings.limits
    width = np.diff(limits, axis=1).ravel()

    def log_posterior(x):
        inside = ((x >= limits[:, 0]) & (x <= limits[:, 1])).all(axis=1)
        values = np.full(len(x), -np.inf)
        for some in np.array_split(np.flatnonzero(inside), max(1, inside.sum() * model.points.size // 400_000)):
            if some.size:
                linear = marginalise(model(x[some]), intensity, sigma)
                values[some] = np.where(linear.prefactor * sign > 0, linear.log_likelihood, -np.inf)
        return values

    def residuals(x):
        linear = marginalise(model(x[np.newaxis]), intensity, sigma)
        fitted = linear.mean_intensity + linear.prefactor[0] * (model(x[np.newaxis])[0] - linear.mean_signal[0])
        return (intensity - fitted) / sigma

    counts = [80, 9, *[4] * (len(limits) - 2)]
    middles = [low + (np.arange(n) + 0.5) / n * (high - low) for (low, high), n in zip(limits, counts, strict=True)]
    grid = np.stack(np.meshgrid(*middles, indexing="ij"), axis=-1).reshape(-1, len(limits))
    sign = 1
    values = log_posterior(grid)
    if not np.isfinite(values).any():  # a curve that rises with q: no result, but one can look at it
        sign = -1
        values = log_posterior(grid)
    maxima = []
    for start in _separate(grid[np.argsort(-values)[:60]], width / np.array(counts))[:5]:
        found = least_squares(residuals, start, bounds=limits.T, x_scale=width, diff_step=1e-4, max_nfev=40)
        maxima.append((found.x, found.jac.T @ found.jac))
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
