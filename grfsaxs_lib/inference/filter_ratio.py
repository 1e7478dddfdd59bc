r"""What the Gaussian filter of the paper's two-phase model does to the closed form of a level cut.

The paper smooths the first cut by a Gaussian of width :math:`\sigma` and cuts again (section 2.2). There is no closed
form for this. It changes the logarithm of the intensity by

.. math:: \Delta\ln f(s) = \sum_{j=1}^{3} \sum_{k=0}^{3} c_{jk}(\ln s)\, (\sigma/a)^{2j}
   \left(\frac{\epsilon - 1/2}{0.4}\right)^{2k},

with s = aq and splines c that are learned from the reference curves of two phases, whose filter is 1 nm wide:

    python -m grfsaxs_lib.inference.filter_ratio
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy.interpolate import BSpline

PAPER_LENGTH = 1.0
"""Width of the paper's filter [nm]: two voxels."""
LARGEST_RATIO = 1.25
"""Of the width over the scaling parameter, up to which there were curves to learn from."""

_FILE = Path(__file__).with_name("filter_ratio.txt")
_INSIDE = np.linspace(np.log(0.03), np.log(22), 24)
_KNOTS = np.concatenate([np.repeat(_INSIDE[0], 3), _INSIDE, np.repeat(_INSIDE[-1], 3)])


def log_filter_ratio(s, porosity, relative_length):
    r""":math:`\Delta\ln f`; the arguments are broadcast, and s is cut to the range that was learned.

    Parameters
    ----------
    s : ndarray
        aq
    porosity : ndarray
    relative_length : ndarray
        Width of the filter over a.

    Returns
    -------
    ndarray of float64

    Raises
    ------
    ValueError
        If the filter is wider than any that was learned.
    """
    if np.max(relative_length) > 1.001 * LARGEST_RATIO:
        raise ValueError(
            f"smoothing_length must be at most {LARGEST_RATIO:g} times the scaling parameter; "
            f"got {np.max(relative_length):g} times"
        )
    s, porosity, relative_length = np.broadcast_arrays(s, porosity, relative_length)
    inside = np.clip(np.log(s), _INSIDE[0], _INSIDE[-1])
    return np.einsum("...k,...k", _splines()(inside), _powers(porosity, relative_length))


@lru_cache(maxsize=1)
def _splines():
    return BSpline(_KNOTS, np.loadtxt(_FILE), 3)


def _powers(porosity, relative_length):
    u, p = np.asarray(relative_length) ** 2, ((np.asarray(porosity) - 0.5) / 0.4) ** 2
    return np.stack([u**j * p**k for j in (1, 2, 3) for k in range(4)], axis=-1)


def learn(intensity, scaling_parameter, porosity):
    """Coefficients (n_spline, 12) from simulated boxes of the paper's grid; least squares.

    Parameters
    ----------
    intensity : (n_sample, 500) ndarray
        Clean curves of two phases at `PAPER_Q`.
    scaling_parameter, porosity : (n_sample,) ndarray
    """
    from ..emulator.mean import aliasing
    from ..grid import PAPER_GRID, PAPER_Q
    from .level_cut import level_cut_intensity
    from .smearing import smearing

    q = PAPER_Q[::4]  # the resolution of a box
    points, weights = smearing(q, np.full(q.size, PAPER_GRID.q_spacing / 2))
    voxels = aliasing(q, PAPER_GRID.voxel_size)
    n = (_KNOTS.size - 4) * 12
    matrix, right = 1e-6 * np.eye(n), np.zeros(n)
    for curve, a, eps in zip(intensity[:, ::4], scaling_parameter, porosity, strict=True):
        sharp = voxels * np.sum(weights * level_cut_intensity(points, scaling_parameter=a, porosity=eps), axis=1)
        inside = np.clip(np.log(a * q), _INSIDE[0], _INSIDE[-1])
        basis = BSpline.design_matrix(inside, _KNOTS, 3).toarray()
        rows = (basis[:, :, np.newaxis] * _powers(eps, PAPER_LENGTH / a)).reshape(q.size, n)
        certain = 1 / (
            a**3 * (1e-4 + (0.01 / q) ** 2)
        )  # the scatter of a box goes as a^3, and has fewer modes at low q
        matrix += rows.T @ (rows * certain[:, np.newaxis])
        right += rows.T @ (certain * np.log(curve / sharp))
    return np.linalg.solve(matrix, right).reshape(-1, 12)


def main():
    """Learn the coefficients from all training curves of two phases, and write them."""
    from ..datasets import reference

    curves = reference.load("two_phase_low", "train")
    names = ("scaling_parameter", "porosity")
    coefficients = learn(curves["intensity"].values.astype(float), *(curves[name].values for name in names))
    np.savetxt(
        _FILE, coefficients, fmt="%.6g", header="see filter_ratio.py: a row for each spline, a column for each power"
    )


if __name__ == "__main__":
    main()
