r"""Scattering of an infinite two-phase sample in closed form.

A Gaussian field of unit variance with correlation g(r), cut at :math:`t = \Phi^{-1}(\epsilon)`, makes two phases. The
probability that two points at distance r lie in the same phase gives the autocovariance of the density,

.. math:: C(r) = \frac{1}{2\pi} \int_0^{\arcsin g(r)} \exp\left(-\frac{t^2}{1 + \sin\varphi}\right) d\varphi ,

and its Fourier transform the mean intensity (Berk, 1987, Phys. Rev. Lett. 58, 2718; Teubner, 1991, Europhys. Lett. 14,
403),

.. math:: I(q) = K\,4\pi \int_0^\infty C(r)\, \frac{\sin qr}{qr}\, r^2\,dr ,
   \qquad g(r) = \frac{\int k^2 \Gamma(k)\, \frac{\sin kr}{kr}\, dk}{\int k^2 \Gamma(k)\,dk} ,

with :math:`K = 512^3/(0.5\,\mathrm{nm})^3`, which puts it on the paper's scale. Both transforms are taken on
logarithmic grids (FFTLog; Hamilton, 2000, MNRAS 312, 257), so that many decades of q cost a few thousand points.
Lengths are in units of the scaling parameter a: :math:`I(q) = K a^3 f(aq)`.
"""

from functools import lru_cache

import numpy as np
from scipy.fft import fht, fhtoffset, irfft, rfft
from scipy.interpolate import CubicSpline
from scipy.special import ndtri

from ..grid import PAPER_GRID
from ..parameters import check, check_scalar
from ..physics.spectra import FAMILIES, check_shape, density_of
from .filter_ratio import log_filter_ratio

PAPER_SCALE = PAPER_GRID.size**3 / PAPER_GRID.voxel_size**3
"""Intensity on the paper's scale over that of a unit volume [nm^-3]."""

_N = 4096
LOG_STEP = np.log(1e9) / (_N - 1)
"""Step of the logarithmic grids."""
_SPHERICAL = 0.5  # order of the Hankel transform that is the spherical Fourier transform
K = 1e-4 * np.exp(LOG_STEP * np.arange(_N))
"""Wave numbers of the grid [1/a], to 1e5."""
_OFFSET = fhtoffset(LOG_STEP, mu=_SPHERICAL)
R = np.exp(_OFFSET) / K[::-1]
"""Distances of the grid [a]."""
_S = np.exp(_OFFSET) / R[::-1]
_NEAR = 0.3  # below, 1 - g is integrated directly, for g alone would lose its digits
_FEW, _MANY = (np.polynomial.legendre.leggauss(n) for n in (12, 48))  # nodes and weights
_THINNED = slice(*np.searchsorted(_S, (1e-3, 1e2)), 4)  # the ends of the grid feel that it is periodic
LOG_S = np.log(_S[_THINNED])
"""Nodes of ln(aq) of a tabulated curve."""


def level_cut_intensity(q, *, scaling_parameter, porosity, spectral_density="paper", shape=None, smoothing_length=0.0):
    """Mean intensity of an infinite sample of two phases: a level cut of a Gaussian random field.

    Parameters
    ----------
    q : array_like
        Scattering vector [nm^-1].
    scaling_parameter : float
        Scaling parameter a [nm].
    porosity : float
        Volume fraction of the pores; a porosity and 1 - porosity give the same curve.
    spectral_density : str or callable
        A family of `physics.spectra` by its name, or a callable of (q, a).
    shape : dict of str to float, optional
        Shape parameters of the family, if not the defaults.
    smoothing_length : float
        Width of the Gaussian filter between the two cuts of the paper's model [nm], which has 1 nm; 0 is a sharp cut.
        What the filter does was learned with the paper's spectral density (`filter_ratio`).

    Returns
    -------
    ndarray of float64
        Intensity on the paper's scale, of the shape of q.

    Raises
    ------
    ValueError
        If a parameter is out of range, or the spectral density has no interfaces of finite area and no formula.
    """
    q = check("q", q)
    a, porosity = check_scalar("scaling_parameter", scaling_parameter), check_scalar("porosity", porosity)
    if not 0 < porosity < 1:
        raise ValueError(f"porosity must lie in (0, 1); got {porosity:g}")
    log_f = log_transform(correlation_loss(spectral_density, shape, a), porosity)
    log_f = interpolate(log_f, np.log(a * q))
    if check_smoothing(smoothing_length, spectral_density):
        log_f += log_filter_ratio(a * q, porosity, smoothing_length / a)
    return PAPER_SCALE * a**3 * np.exp(log_f)


def _transform(values):
    """`scipy.fft.fht`, which would work out its coefficients at each call."""
    return irfft(rfft(values) * _coefficients(), _N)[..., ::-1]


@lru_cache(maxsize=1)
def _coefficients():
    impulse = np.zeros(_N)
    impulse[0] = 1.0
    return rfft(fht(impulse, LOG_STEP, mu=_SPHERICAL, offset=_OFFSET)[::-1])


def check_smoothing(length, spectral_density):
    """Return the width of a filter as a float, or say why it cannot be one."""
    length = float(length)
    if length and spectral_density != "paper":
        raise ValueError("smoothing_length is known for the paper's spectral density alone")
    if not 0 <= length < np.inf:
        raise ValueError(f"smoothing_length must be a length in nm, 0 or more; got {length:g}")
    return length


def correlation_loss(spectral_density, shape=None, scaling_parameter=1.0):
    """:math:`1 - g` of a field at the distances of the grid, in units of a.

    Parameters
    ----------
    spectral_density : str or callable
    shape : dict of str to float, optional
    scaling_parameter : float
        At which a callable is evaluated [nm]; families do not depend on it.

    Returns
    -------
    (n_r,) ndarray of float64
    """
    density = density_of(spectral_density, shape)
    if spectral_density in FAMILIES:
        return _loss_of_family(spectral_density, tuple(check_shape(spectral_density, shape).items()))
    return _loss(density(K / scaling_parameter, scaling_parameter))


@lru_cache(maxsize=256)
def _loss_of_family(name, shape):
    family, shape = FAMILIES[name], dict(shape)
    if family.correlation is not None:
        return family.correlation(R, **shape)
    return _loss(family.density(K, 1.0, **shape))


def _loss(gamma):
    """1 - g at `R`, from the spectral density at `K`."""
    gamma = np.asarray(gamma, dtype=np.float64)
    if gamma.shape != K.shape or not np.isfinite(gamma).all() or (gamma < 0).any() or not gamma.any():
        raise ValueError("a spectral density must be finite, not negative and not zero everywhere")
    area, total = K**5 * gamma, K**3 * gamma  # integrands over ln k of k^4 and k^2 times gamma
    if area[-_N // 9 :].sum() > 1e-3 * area.sum():
        raise ValueError(
            "the spectral density falls too slowly: the integral of k^4 times it, and with it the area of the "
            "interfaces, is not finite; use one that falls faster than k^-5"
        )
    if total[: _N // 9].sum() > 1e-3 * total.sum():
        raise ValueError("the spectral density holds structures far larger than the scaling parameter")
    return loss_of_weights(total / total.sum())


def loss_of_weights(weights):
    """1 - g at `R` of a field whose variance is shared among the waves `K`: (..., n_k) to (..., n_r) ndarray.

    Linear in the weights, which need not add up to one: it also takes changes of weights to changes of 1 - g.
    """
    g = np.sqrt(np.pi / 2) / R**1.5 * _transform(weights / LOG_STEP / K**1.5)
    loss = weights.sum(axis=-1, keepdims=True) - g
    near, from_waves, from_some = _near()
    loss[..., near] = (weights @ from_waves) @ from_some
    return loss


@lru_cache(maxsize=1)
def _near():
    """Small distances, and two matrices: from weights to (1 - g) / r^2 at some of them, from there to 1 - g at all."""
    near = np.flatnonzero(R < _NEAR)
    some = near[::-16][::-1]  # nearly constant in r: few distances suffice
    x = np.outer(K, R[some])
    from_waves = np.where(x < 1e-2, x**2 / 6 - x**4 / 120, 1 - np.sinc(x / np.pi)) / R[some] ** 2
    from_some = CubicSpline(np.log(R[some]), np.eye(some.size))(np.log(R[near])).T * R[near] ** 2
    return near, from_waves, from_some


def autocovariance(loss, porosity):
    """C of the level cut of a field with correlation g, from 1 - g; ndarrays of any shape.

    Exact to rounding for g > -0.3, and no isotropic field goes below the least sin(x)/x, -0.22.
    """
    porosity, large = np.broadcast_to(porosity, loss.shape), loss < 0.5
    square = ndtri(porosity) ** 2

    def integral(end, square, function):
        """Of exp(-square / (1 + function)) from 0 to end, over 2 pi."""
        total, half = np.zeros_like(end), end / 2
        for node, weight in zip(*_FEW, strict=True):
            total += weight * np.exp(-square / (1 + function(half * (1 + node))))
        return total * half / (2 * np.pi)

    covariance = np.empty_like(loss)
    covariance[~large] = integral(np.arcsin(1 - loss[~large]), square[~large], np.sin)
    # Where g is near one, what C has lost is integrated from the other end, so that it keeps its digits.
    lost = integral(2 * np.arcsin(np.sqrt(np.maximum(loss[large], 0) / 2)), square[large], np.cos)
    covariance[large] = (porosity * (1 - porosity))[large] - lost
    return covariance


def covariance_slope(loss, porosity):
    """dC/dg of the level cut, from 1 - g, which is kept off 0 and 2, where it is infinite."""
    loss = np.clip(loss, 1e-30, 2 - 1e-12)
    return np.exp(-(ndtri(porosity) ** 2) / (2 - loss)) / (2 * np.pi * np.sqrt(loss * (2 - loss)))


def cross_covariance(loss, porosity, other):
    """Covariance of the solids of two level cuts of one field, of different porosities, from 1 - g.

    Where the thresholds are t and u, it is the integral of :math:`\\exp[-(t^2 + u^2 - 2tu \\sin\\varphi) /
    (2\\cos^2\\varphi)] / 2\\pi` from 0 to arcsin g.
    """
    t, u, half = ndtri(porosity), ndtri(other), np.arcsin(1 - loss) / 2
    total = np.zeros_like(loss)
    for node, weight in zip(*_MANY, strict=True):
        phi = half * (1 + node)
        total += weight * np.exp(-(t**2 + u**2 - 2 * t * u * np.sin(phi)) / (2 * np.cos(phi) ** 2))
    return total * half / (2 * np.pi)


def transform(covariance):
    """f at the nodes `LOG_S` of ln(aq), (..., n_s) ndarray, from covariances at the distances of the grid."""
    return ((2 * np.pi / _S) ** 1.5 * _transform(R**1.5 * covariance))[..., _THINNED]


def log_transform(loss, porosity):
    """ln f at the nodes `LOG_S` of ln(aq), (n_s,) ndarray, for 1 - g."""
    return np.log(transform(autocovariance(loss, porosity)))


def interpolate(log_f, log_s):
    """ln f at any ln(aq), from its values at `LOG_S`, the last axis: cubic, and straight beyond the ends.

    The straight lines are the plateau and Porod's law, or what takes its place for rough interfaces.
    """
    spline = CubicSpline(LOG_S, log_f, axis=-1)
    inside = np.clip(log_s, LOG_S[0], LOG_S[-1])
    return spline(inside) + np.where(log_s > inside, spline(LOG_S[-1], 1)[..., np.newaxis], 0) * (log_s - inside)


def at_distance(loss, distance):
    """1 - g at distances in units of a, from its values on the grid, the last axis."""
    place = np.minimum(np.log(np.maximum(distance, R[0]) / R[0]) / LOG_STEP, _N - 1)
    left = np.minimum(place.astype(int), _N - 2)
    return loss[..., left] + (place - left) * (loss[..., left + 1] - loss[..., left])


def specific_surface(loss, porosity):
    """Area of the interfaces in a volume [1/a], :math:`(2/\\pi) \\sqrt{-g''(0)} e^{-t^2/2}`, from 1 - g at `R`."""
    near = np.searchsorted(R, 1e-3)
    return 2 / np.pi * np.sqrt(2 * loss[..., near]) / R[near] * np.exp(-(ndtri(porosity) ** 2) / 2)
