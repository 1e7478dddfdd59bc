r"""Maximum-likelihood fits through an emulator: the rival of regression, and inputs for it.

The fit that the paper set out to beat needs a simulation for each step. With an emulated mean a step takes
microseconds. The log intensity, averaged over some q values, is taken as normal with mean
:math:`\mu(\theta)` and covariance

.. math:: C(\theta) = J_a J_a^T \sigma_u^2 a^2 + S R S + N ,

for the stretch of a box, its rest (deviations S of nearby structures, correlations R of all) and the measurement noise.
Gauss-Newton steps :math:`\theta \leftarrow \theta + (J^T C^{-1} J)^{-1} J^T C^{-1} (y - \mu)` climb the likelihood;
those of a *bank* of parameters that fill the prior are prepared in advance. In three phases the likelihood has side
maxima, for :math:`\epsilon` and :math:`\nu` can change together at almost the same layer; so the steps of several
nearby members of the bank are compared.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree
from scipy.stats import qmc
from threadpoolctl import threadpool_limits

from .noise import estimate_noise_level
from .preprocess import log_intensity

_LEVELS = 10.0 ** np.array([2.0, 3.2, 4.3, 5.5])  # noise levels for which steps are prepared
_CANDIDATES = 8  # members of the bank whose steps are compared
_STEPS = 2  # after that
_LARGEST_STEP = 0.1  # of the width of the prior
_SHRINKAGE = 0.1  # of the correlations R towards none
_BLOCK = 256  # curves at a time


@dataclass(frozen=True, eq=False)
class Likelihood:
    """What fits need of an emulator, from `prepare`.

    Attributes
    ----------
    emulator : Emulator
    """

    emulator: object
    _edges: np.ndarray  # (n_bin,): first q value of each bin
    _limits: np.ndarray  # (2, n_parameter)
    _theta: np.ndarray  # (n_bank, n_parameter)
    _mean: np.ndarray  # (n_bank, n_bin)
    _slope: np.ndarray  # (n_bank, n_parameter, n_bin)
    _deviation: np.ndarray  # (n_bank, n_bin): of the rest
    _gain: np.ndarray  # (n_level, n_bank, n_parameter, n_bin)
    _error: np.ndarray  # (n_level, n_bank, n_parameter)
    _whitening: np.ndarray  # (n_level, n_bin, n_bin): of the scatter of the whole bank
    _whitened: np.ndarray  # (n_level, n_bank, n_bin): the means
    _decorrelation: np.ndarray  # (n_bin, n_bin)
    _tree: KDTree

    def fit(self, intensity):
        """Most likely parameters of measured curves.

        Parameters
        ----------
        intensity : (n_sample, n_q) array_like
            Measured intensity on the paper's scale, at the emulator's q.

        Returns
        -------
        estimates, errors : dict of str to (n_sample,) ndarray of float64
            For each output, inside the prior; and standard errors, from the curvature of the likelihood.

        Raises
        ------
        ValueError
            If an intensity is not positive and finite, or the shape does not fit.
        """
        theta, error, _, _ = self._fit(intensity)
        outputs = self.emulator.case.outputs
        return dict(zip(outputs, theta.T, strict=True)), dict(zip(outputs, error.T, strict=True))

    def inputs(self, intensity):
        """What a regression can learn from: the fit, its errors, the noise, and the averaged log intensity.

        Parameters and errors are those of `fit`.

        Returns
        -------
        (n_sample, n_input) ndarray of float32
        """
        theta, error, noise_level, curves = self._fit(intensity)
        return np.column_stack([theta, error, np.log(noise_level), curves]).astype(np.float32)

    def _fit(self, intensity):
        intensity, n_q = np.asarray(intensity, dtype=np.float64), self.emulator.q.size
        if intensity.ndim != 2 or intensity.shape[1] != n_q:
            raise ValueError(f"intensity must have shape (n_sample, {n_q}), got {intensity.shape}")
        blocks = [intensity[start : start + _BLOCK] for start in range(0, max(len(intensity), 1), _BLOCK)]
        with threadpool_limits(1, user_api="blas"):
            parts = [self._fit_block(block) for block in blocks]
        return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]

    def _fit_block(self, intensity):
        noise_level = estimate_noise_level(intensity, self.emulator.q)
        # The logarithm of a lognormal variable lies half its variance below that of its mean.
        variance = np.log1p(noise_level[:, np.newaxis] / intensity)
        curves = self._averages(log_intensity(intensity, self.emulator.q) + variance / 2)
        variance = self._averages(variance) / self._counts
        level = np.abs(np.log(noise_level)[:, np.newaxis] - np.log(_LEVELS)).argmin(axis=1)
        theta = self._start(curves, variance, level)
        low, high = self._limits
        for _ in range(_STEPS):
            _, near = self._tree.query((theta - low) / (high - low))
            mean = self._averages(_normalised(self.emulator, theta))
            step = np.einsum("npb,nb->np", self._gain[level, near], curves - mean)
            largest = _LARGEST_STEP * (high - low)
            theta = np.clip(theta + np.clip(step, -largest, largest), low, high)
        return theta, self._error[level, near], noise_level, curves

    def _start(self, curves, variance, level):
        """(n_sample, n_parameter) ndarray: the best of the first steps from the closest members of the bank."""
        candidates = np.empty((len(curves), min(_CANDIDATES, len(self._theta))), dtype=np.int64)
        for k, (whitening, bank) in enumerate(zip(self._whitening, self._whitened, strict=True)):
            these = np.flatnonzero(level == k)
            distances = np.sum(bank**2, axis=1) - 2 * (curves[these] @ whitening.T).astype(np.float32) @ bank.T
            candidates[these] = np.argpartition(distances, candidates.shape[1] - 1, axis=1)[:, : candidates.shape[1]]
        low, high = self._limits
        residual = (curves[:, np.newaxis] - self._mean[candidates]).astype(np.float32)
        step = np.einsum("nkpb,nkb->nkp", self._gain[level[:, np.newaxis], candidates], residual)
        theta = np.clip(self._theta[candidates] + step, low, high)
        step = (theta - self._theta[candidates]).astype(np.float32)
        left = residual - np.einsum("nkp,nkpb->nkb", step, self._slope[candidates])
        left /= np.sqrt(self._deviation[candidates] ** 2 + variance[:, np.newaxis])
        best = np.sum((left @ self._decorrelation) ** 2, axis=-1).argmin(axis=1)
        return theta[np.arange(len(theta)), best]

    @property
    def _counts(self):
        return np.diff(self._edges, append=self.emulator.q.size)

    def _averages(self, values):
        return np.add.reduceat(values, self._edges, axis=-1) / self._counts


def prepare(emulator, *, n_bank=2**14, seed=0):
    """Prepare fits of the curves of an emulator.

    Parameters
    ----------
    emulator : Emulator
    n_bank : int
        Parameters for which steps are prepared, a power of two.
    seed : int
        Of the bank.

    Returns
    -------
    Likelihood
        After about 10 s on one core; it takes 110 MB for three phases.

    Raises
    ------
    ValueError
        If `n_bank` is not a power of two of at least 64.
    """
    if n_bank < 64 or n_bank & (n_bank - 1):
        raise ValueError(f"n_bank must be a power of two of at least 64, got {n_bank}")
    case = emulator.case
    limits = low, high = np.transpose([case.ranges[name] for name in case.outputs])
    sobol = qmc.Sobol(len(low), rng=np.random.default_rng(seed)).random(n_bank)
    theta = low + (high - low) * (0.001 + 0.998 * sobol)
    # Averages over one q spacing of the paper's box (four values) where shells are few, over two above.
    edges = np.array([i for i in (*range(0, 80, 4), *range(80, emulator.q.size, 7)) if i < emulator.q.size])
    rng = np.random.default_rng(seed)
    blocks = [theta[start : start + _BLOCK] for start in range(0, n_bank, _BLOCK)]
    parts = [_describe(emulator, block, limits, edges, rng) for block in blocks]
    mean, slope, stretch, deviation, rest, scatter, noise = map(np.concatenate, zip(*parts, strict=True))

    correlation = np.corrcoef(np.clip(rest / deviation, -4, 4).T)
    correlation = (1 - _SHRINKAGE) * correlation + _SHRINKAGE * np.eye(len(edges))
    limit = 4 * np.median(np.abs(scatter), axis=0) / 0.6745
    pooled = np.cov(np.clip(scatter, -limit, limit).T)
    gain = np.empty((len(_LEVELS), *slope.shape), dtype=np.float32)
    error = np.empty((len(_LEVELS), *theta.shape))
    prior = np.diag(12 / (high - low) ** 2)  # the variance of the uniform one
    with threadpool_limits(1, user_api="blas"):
        for start in range(0, n_bank, _BLOCK):
            block = slice(start, start + _BLOCK)
            J, S, u = (
                slope[block],
                deviation[block],
                slope[block, 0] * (theta[block, 0] * stretch[block])[:, np.newaxis],
            )
            box = correlation * S[:, :, np.newaxis] * S[:, np.newaxis] + u[:, :, np.newaxis] * u[:, np.newaxis]
            for k in range(len(_LEVELS)):
                covariance = box + noise[block, k, np.newaxis] * np.eye(len(edges))
                weighted = np.linalg.solve(covariance, np.swapaxes(J, 1, 2))
                inverse = np.linalg.inv(J @ weighted + prior)
                gain[k, block] = inverse @ np.swapaxes(weighted, 1, 2)
                error[k, block] = np.sqrt(np.diagonal(inverse, axis1=1, axis2=2))
        noise = np.median(noise, axis=0)
        whitening = [np.linalg.inv(np.linalg.cholesky(pooled + np.diag(variance))) for variance in noise]
        decorrelation = np.linalg.inv(np.linalg.cholesky(correlation)).T
    mean, slope, deviation, whitening, decorrelation = (
        np.asarray(values, dtype=np.float32) for values in (mean, slope, deviation, whitening, decorrelation)
    )
    whitened = np.array([mean @ matrix.T for matrix in whitening])
    tree = KDTree((theta - low) / (high - low))
    return Likelihood(
        emulator, edges, limits, theta, mean, slope, deviation, gain, error, whitening, whitened, decorrelation, tree
    )


def _describe(emulator, theta, limits, edges, rng):
    """Averaged: mean, slope, sd of stretch and rest, a rest, a draw less the mean, variance by noise level."""
    parameters = dict(zip(emulator.case.outputs, theta.T, strict=True))
    counts = np.diff(edges, append=emulator.q.size)
    intensity = np.exp(emulator.mean(parameters))

    def averages(values):
        return np.add.reduceat(values, edges, axis=-1) / counts

    mean = averages(_normalised(emulator, theta))
    slope = np.empty((*theta.shape, len(edges)))
    low, high = limits
    for i, h in enumerate(0.01 * (high - low)):
        above, below = theta.copy(), theta.copy()
        above[:, i], below[:, i] = np.minimum(above[:, i] + h, high[i]), np.maximum(below[:, i] - h, low[i])
        difference = averages(_normalised(emulator, above) - _normalised(emulator, below))
        slope[:, i] = difference / (above - below)[:, i, np.newaxis]
    # Normalised to first order: what a rest adds to the invariant is common to all q.
    weights = intensity * emulator.q**2 * np.gradient(emulator.q)
    weights /= weights.sum(axis=1, keepdims=True)
    stretches, rests = emulator.residuals(parameters)
    rests = averages(rests - np.sum(rests * weights[:, np.newaxis], axis=-1, keepdims=True))
    scatter = averages(log_intensity(emulator.draw(parameters, rng), emulator.q)) - mean
    noise = averages(np.log1p(_LEVELS[:, np.newaxis] / intensity[:, np.newaxis])) / counts
    stretch, deviation = np.sqrt(np.mean(stretches**2, axis=1)), np.sqrt(np.mean(rests**2, axis=1))
    return mean, slope, stretch, deviation, rests[:, 0], scatter, noise


def _normalised(emulator, theta):
    """(n_sample, n_q) ndarray: normalised log intensity of the mean curves."""
    parameters = dict(zip(emulator.case.outputs, theta.T, strict=True))
    return log_intensity(np.exp(emulator.mean(parameters)), emulator.q).astype(np.float64)
