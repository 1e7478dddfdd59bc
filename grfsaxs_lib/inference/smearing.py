r"""What an instrument makes of a curve: each point is an average over neighbouring q.

A *pinhole* instrument measures :math:`\int G(q' - q)\, I(q')\, dq'` with a normal distribution G of standard deviation
dq; a *slit* :math:`\frac{1}{l}\int_0^l I(\sqrt{q^2 + u^2})\, du` with half its length l.
"""

import numpy as np

from .spline import jit, over_samples

_PINHOLE = np.polynomial.hermite_e.hermegauss(9)
_SLIT = np.polynomial.legendre.leggauss(24)


def smearing(q, dq=None, slit_length=None):
    """Points and weights of the averages.

    Parameters
    ----------
    q : (n_q,) ndarray of float64
        Scattering vector [nm^-1].
    dq : (n_q,) ndarray of float64, optional
        Standard deviation of the resolution [nm^-1].
    slit_length : float, optional
        [nm^-1]

    Returns
    -------
    points : (n_q, n_point) ndarray of float64
        [nm^-1]
    weights : (n_q, n_point) ndarray of float64
        The average at q is the sum of weights times values at the points.
    """
    points, weights = q[:, np.newaxis], np.ones((q.size, 1))
    if dq is not None:
        nodes, shares = _PINHOLE
        # A curve has no sign of q: what a broad resolution takes from below zero is at |q|.
        points = np.abs(points + dq[:, np.newaxis] * nodes)
        points = np.maximum(points, 1e-3 * q[:, np.newaxis])
        weights = np.broadcast_to(shares / shares.sum(), points.shape)
    if slit_length:
        nodes, shares = _SLIT
        # u = q sinh(v) takes even steps in ln u where u is far above q.
        ends = np.arcsinh(slit_length / points)[..., np.newaxis]
        v = ends * (1 + nodes) / 2
        density = shares * ends / 2 * points[..., np.newaxis] * np.cosh(v) / slit_length
        weights = (weights[..., np.newaxis] * density).reshape(q.size, -1)
        points = (points[..., np.newaxis] * np.cosh(v)).reshape(q.size, -1)
    return points, weights


def smeared(coefficients, first_node, step, shift, log_points, weights, slope):
    r"""Averages of many curves whose logarithms are cubic splines of :math:`\ln q`.

    Parameters
    ----------
    coefficients : (n, n_node + 2) ndarray of float64
        Of uniform cubic B-splines, one beyond either end.
    first_node, step : float
        The nodes.
    shift : (n,) ndarray of float64
        Added to the points.
    log_points, weights : (n_q, n_point) ndarray of float64
        Logarithms of the points of `smearing`, and their weights.
    slope : float
        Of the logarithm beyond the last node; before the first one it is constant.

    Returns
    -------
    (n, n_q) ndarray of float64
    """
    out = np.empty((len(coefficients), len(log_points)))
    weights = np.ascontiguousarray(weights)
    over_samples(
        _smeared, len(out), coefficients, first_node, step, np.ascontiguousarray(shift), log_points, weights, slope, out
    )
    return out


@jit
def _smeared(first, last, coefficients, first_node, step, shift, log_points, weights, slope, out):
    end = coefficients.shape[1] - 3.0
    for n in range(first, last):
        row = coefficients[n]
        for i in range(log_points.shape[0]):
            total = 0.0
            for k in range(log_points.shape[1]):
                x = (shift[n] + log_points[i, k] - first_node) / step
                beyond = max(x - end, 0.0) * step
                x = min(max(x, 0.0), end)
                j = min(int(x), coefficients.shape[1] - 4)
                x -= j
                y = 1.0 - x
                value = (
                    y * y * y * row[j]
                    + (4 - 6 * x * x + 3 * x * x * x) * row[j + 1]
                    + (4 - 6 * y * y + 3 * y * y * y) * row[j + 2]
                    + x * x * x * row[j + 3]
                ) / 6
                total += weights[i, k] * np.exp(value + slope * beyond)
            out[n, i] = total
