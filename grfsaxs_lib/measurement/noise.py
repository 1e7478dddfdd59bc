r"""Measurement noise: lognormal, with a variance in proportion to the intensity.

A photon count has the variance of its mean; on the intensity scale of the paper
(see `grid`) that would be far too weak a noise, and a normal distribution with a
realistic variance would produce negative intensities. The lognormal one of
section 2.3 has neither problem.
"""

import numpy as np

from ..parameters import check

NOISE_LEVEL_RANGE = (1e2, 10**5.5)
_LOG_RANGE = np.log10(NOISE_LEVEL_RANGE)


def sample_noise_level(rng, size=None):
    r"""Draw noise levels from the paper's prior: :math:`\log_{10}\alpha` uniform on [2, 5.5].

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.
    size : int or tuple of int, optional
        Shape of the result; a single number if not given.

    Returns
    -------
    float or ndarray of float64
        Noise levels :math:`\alpha`, one for each curve.
    """
    return 10.0 ** rng.uniform(*_LOG_RANGE, size)


def add_noise(intensity, noise_level, rng):
    r"""Draw a measured curve around a simulated one (section 2.3).

    The measured intensity is lognormal with mean :math:`I(q)` and variance
    :math:`\alpha I(q)`, independently for each q:

    .. math:: I \exp(s z - s^2/2), \quad s^2 = \ln(1 + \alpha/I), \quad z \sim \mathcal{N}(0, 1).

    Parameters
    ----------
    intensity : (..., n_q) array_like
        Simulated intensity :math:`I`, positive, on the paper's scale.
    noise_level : float or array_like
        :math:`\alpha`; a number, or one for each curve (broadcast against
        ``intensity.shape[:-1]``). Zero adds no noise.
    rng : numpy.random.Generator
        Source of randomness. It advances by one draw for each intensity, whatever the
        noise level, so that levels can be compared on the same random numbers.

    Returns
    -------
    (..., n_q) ndarray of float64
        Intensities with noise, all positive.

    Raises
    ------
    ValueError
        If an intensity is not positive and finite, a noise level negative or not
        finite, or the shapes do not fit.
    TypeError
        If `rng` is not a NumPy Generator.
    """
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng must be a numpy.random.Generator, e.g. np.random.default_rng(0); got {rng!r}")
    I = check("intensity", intensity)  # noqa: E741
    alpha = check("noise_level", noise_level)
    if I.ndim == 0:
        raise ValueError("intensity must have q as its last axis; got a single number")
    if not _broadcasts(alpha.shape, I.shape[:-1]):
        raise ValueError(
            f"noise_level must be one number or one a curve; got shape {alpha.shape} for curves of shape {I.shape[:-1]}"
        )
    return lognormal(I, alpha, rng.standard_normal(I.shape))


def lognormal(intensity, noise_level, normals):
    r"""Measured curves from given normal numbers: what `add_noise` does once its arguments are checked.

    Parameters
    ----------
    intensity : (..., n_q) ndarray of float64
    noise_level : (...) ndarray of float64
    normals : (..., n_q) ndarray of float64
        :math:`z` of `add_noise`.

    Returns
    -------
    (..., n_q) ndarray of float64

    Raises
    ------
    ValueError
        If a result is no positive float64.
    """
    I, alpha = intensity, noise_level  # noqa: E741
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        s2 = np.log1p(alpha[..., np.newaxis] / I)
        noisy = I * np.exp(np.sqrt(s2) * normals - s2 / 2)
    if not (np.isfinite(noisy) & (noisy > 0)).all():
        raise ValueError(
            f"intensity from {I.min():.3g} to {I.max():.3g} with noise_level up to {alpha.max():.3g} gives measured "
            "intensities that no float64 holds; is it on the paper's scale (Grid.intensity_scale)?"
        )
    return noisy


def estimate_noise_level(intensity, q):
    r"""Noise level of measured curves, from the roughness of their tails.

    Where q exceeds 1.2 nm\ :sup:`-1` a curve is smooth over three neighbouring q values, and the variance of
    :math:`\ln \tilde I`, a sixth of the mean square of second differences, is
    :math:`\ln(1 + \alpha/I)`. The result of 300 q values has a standard error of about 12 %.

    Parameters
    ----------
    intensity : (..., n_q) array_like
        Measured intensity on the paper's scale, positive.
    q : (n_q,) array_like
        Scattering vector [nm\ :sup:`-1`], closely and evenly spaced, with ten values or more above 1.2.

    Returns
    -------
    (...) ndarray of float64
        :math:`\alpha`, between half the least and 1.3 times the largest value of the paper's prior.

    Raises
    ------
    ValueError
        If an intensity is not positive and finite, or there are too few q values.
    """
    level, _ = _tail_noise(intensity, q)
    lower, upper = NOISE_LEVEL_RANGE
    return np.clip(level, lower / 2, 1.3 * upper)


def is_noise_strange(intensity, q):
    """Whether no noise level of the paper explains the roughness of a tail.

    Either its level is three times the largest of the prior or more, as it is where the intensity is not on the
    paper's scale; or half of the tail is more than five times smoother than its mean, as it is where single values are
    off, such as hot pixels.

    Parameters and errors are those of `estimate_noise_level`.

    Returns
    -------
    (...) ndarray of bool
    """
    level, typical = _tail_noise(intensity, q)
    lower, upper = NOISE_LEVEL_RANGE
    return (level > 3 * upper) | ((level > lower / 2) & (typical < 0.2 * level))


def _tail_noise(intensity, q):
    """(...) ndarrays: noise levels by the mean and by the median of the tail."""
    intensity, q = check("intensity", intensity), np.asarray(q)
    tail = q > 1.2
    if intensity.shape[-1:] != q.shape or tail.sum() < 10:
        raise ValueError(f"intensity {intensity.shape} must have q as last axis, with ten values or more above 1.2")
    tail = intensity[..., tail]
    variance = np.clip(np.diff(np.log(tail), 2, axis=-1) ** 2 / 6, 0, 2)
    levels = np.expm1(variance) * (tail[..., 2:] + tail[..., 1:-1] + tail[..., :-2]) / 3
    return np.mean(levels, axis=-1), np.median(levels, axis=-1) / 0.455  # the median of a chi-square of one degree


def _broadcasts(shape, target):
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False
