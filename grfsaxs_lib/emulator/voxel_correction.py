r"""What voxels do to a layer: a part of the mean curves of three phases that is not smooth in the parameters.

Where a facet of the solid lies along the lattice the smoothed indicator of Eq. (9) takes few values, so that the layer
on the facet gains whole planes of voxels as its threshold falls. Curves follow, above q = 1 nm\ :sup:`-1` by 0.1 to
1 %, most between two and three voxels. This hardly depends on a and porosity once the thickness is given in voxels, so
all structures of a case tell of it together: a Gaussian process of the thickness, in each of some ranges of q, is
learned from what the smooth part of the mean leaves. What that misses of the waves of a layer, a function of the
product of q and the thickness, is learned along with it.
"""

import numpy as np
from scipy.interpolate import CubicSpline

_GROWTH = 6.0  # thickness [voxel] at which the length of a process is twice that of none
_LENGTH = 0.025  # of the processes, in units of `_position`: 0.15 voxel and a fortieth of the thickness
_STEP = 0.25 * _LENGTH  # of the table
_RANGE = 25  # q values averaged
_SPECKLE = 0.15  # noise variance that does not grow with a, in terms of the scatter at a = 4 nm
_CLIP = 6.0  # typical deviations, of a curve that is learned from
_VARIANCES = np.append(0, np.geomspace(1e-4, 3, 40))  # of a process, in terms of the noise: the likeliest is taken


def learn(thickness, rests, scatter, q):
    """Learn what the lattice adds to log intensities.

    Parameters
    ----------
    thickness : (n_sample,) ndarray
        Of the layers [voxel].
    rests : (n_sample, n_q) ndarray
        Log intensities less the smooth part of their mean.
    scatter : (n_sample,) ndarray
        Variances of the rests, in terms of that at a = 4 nm.
    q : (n_q,) ndarray
        [nm^-1]

    Returns
    -------
    (n_thickness, n_q) ndarray
        Table for `look_up`.
    """
    edges = np.arange(0, q.size, _RANGE)
    counts = np.diff(edges, append=q.size)
    weights = 1 / np.sqrt(scatter + _SPECKLE)
    place = _position(thickness)
    values = np.add.reduceat(rests, edges, axis=1) / counts * weights[:, np.newaxis]
    limits = _CLIP * np.median(np.abs(values), axis=0) / 0.6745
    values = np.clip(values, -limits, limits)
    # In the eigenvectors of its covariance a process of any variance is independent numbers.
    powers, vectors = np.linalg.eigh(_correlation(place, place) * np.outer(weights, weights))
    gains = 1 + np.multiply.outer(_VARIANCES, np.maximum(powers, 0))
    numbers = vectors.T @ values
    noise = np.mean(numbers**2 / gains[..., np.newaxis], axis=1)
    log_likelihood = -len(powers) * np.log(noise) - np.log(gains).sum(axis=1)[:, np.newaxis]
    best = log_likelihood.argmax(axis=0)
    alpha = vectors @ (_VARIANCES[best] * numbers / gains[best].T)
    nodes = np.arange(0, place.max() + _STEP, _STEP)
    table = (_correlation(nodes, place) * weights) @ alpha
    centres = np.add.reduceat(q, edges) / counts
    return CubicSpline(centres, table, axis=1)(np.clip(q, *centres[[0, -1]]))


def look_up(table, thickness):
    """What the lattice adds to log intensities.

    Parameters
    ----------
    table : (n_thickness, n_q) ndarray
        From `learn`.
    thickness : (n_sample,) ndarray
        Of the layers [voxel].

    Returns
    -------
    (n_sample, n_q) ndarray
    """
    position = np.clip(_position(thickness) / _STEP, 0, len(table) - 1.001)
    row = position.astype(int)
    share = (position - row)[:, np.newaxis]
    return (1 - share) * table[row] + share * table[row + 1]


def _position(thickness):
    """Coordinate in which the processes are even: the surface of a thick layer is less sharply on a plane."""
    return np.log1p(thickness / _GROWTH)


def _correlation(x, y):
    return np.exp(-(((x[:, np.newaxis] - y) / _LENGTH) ** 2) / 2)
