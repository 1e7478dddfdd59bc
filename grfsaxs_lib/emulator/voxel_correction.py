r"""What voxels do to a layer: a part of the mean curves of three phases that is not smooth in the parameters.

Where a facet of the solid lies along the voxel grid, the smoothed indicator of Eq. (9) takes only a few values, and the
layer on the facet gains whole planes of voxels as its threshold falls. Above q = 1 nm\ :sup:`-1` curves change by 0.1
to 1 % as it does, most between two and three voxels. This *voxel effect* hardly depends on a and porosity once the
thickness is given in voxels, so it can be learned from all structures of a case together: a Gaussian process of the
thickness, in each of some ranges of q, interpolates what the smooth part of the mean leaves. What that part misses of
the waves of a layer, a function of the product of q and the thickness, is learned along with it.
"""

import numpy as np
from scipy.interpolate import CubicSpline

from .settings import DEFAULT

_STEP = 0.25  # of the table, in correlation lengths
_VARIANCES = np.append(0, np.geomspace(1e-4, 3, 40))  # of a process, in terms of the noise: the likeliest is taken


def learn(thickness, residuals, scatter, q, settings=DEFAULT):
    """Learn what voxels add to log intensities.

    Parameters
    ----------
    thickness : (n_sample,) ndarray
        Of the layers [voxel].
    residuals : (n_sample, n_q) ndarray
        Log intensities less the smooth part of their mean.
    scatter : (n_sample,) ndarray
        Variances of the residuals, relative to that at a = 4 nm.
    q : (n_q,) ndarray
        [nm^-1]
    settings : Settings

    Returns
    -------
    (n_thickness, n_q) ndarray
        Table for `look_up`.
    """
    edges = np.arange(0, q.size, settings.voxel_range)
    counts = np.diff(edges, append=q.size)
    weights = 1 / np.sqrt(scatter + settings.voxel_speckle)
    position = _position(thickness, settings)
    values = np.add.reduceat(residuals, edges, axis=1) / counts * weights[:, np.newaxis]
    limits = settings.voxel_clip * np.median(np.abs(values), axis=0) / 0.6745
    values = np.clip(values, -limits, limits)
    # In the eigenvectors of its covariance a process of any variance is independent numbers.
    powers, vectors = np.linalg.eigh(_correlation(position, position, settings) * np.outer(weights, weights))
    gains = 1 + np.multiply.outer(_VARIANCES, np.maximum(powers, 0))
    numbers = vectors.T @ values
    noise = np.mean(numbers**2 / gains[..., np.newaxis], axis=1)
    log_likelihood = -len(powers) * np.log(noise) - np.log(gains).sum(axis=1)[:, np.newaxis]
    best = log_likelihood.argmax(axis=0)
    alpha = vectors @ (_VARIANCES[best] * numbers / gains[best].T)
    step = _STEP * settings.voxel_length
    nodes = np.arange(0, position.max() + step, step)
    table = (_correlation(nodes, position, settings) * weights) @ alpha
    centres = np.add.reduceat(q, edges) / counts
    return CubicSpline(centres, table, axis=1)(np.clip(q, *centres[[0, -1]]))


def look_up(table, thickness, settings=DEFAULT):
    """What voxels add to log intensities.

    Parameters
    ----------
    table : (n_thickness, n_q) ndarray
        From `learn`.
    thickness : (n_sample,) ndarray
        Of the layers [voxel].
    settings : Settings
        Those of `learn`.

    Returns
    -------
    (n_sample, n_q) ndarray
    """
    position = np.clip(_position(thickness, settings) / (_STEP * settings.voxel_length), 0, len(table) - 1.001)
    row = position.astype(int)
    share = (position - row)[:, np.newaxis]
    return (1 - share) * table[row] + share * table[row + 1]


def _position(thickness, settings):
    """Coordinate in which the processes are even: the surface of a thick layer is less sharply on a plane."""
    return np.log1p(thickness / settings.voxel_growth)


def _correlation(x, y, settings):
    return np.exp(-(((x[:, np.newaxis] - y) / settings.voxel_length) ** 2) / 2)
