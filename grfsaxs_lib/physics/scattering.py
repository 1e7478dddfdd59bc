r"""From the phases to the curve, Eqs. (1)-(4).

Eq. (4) weights a mode by its :math:`|\mathbf{q}|` alone, so :math:`|F|^2` is summed once over
each integer shell :math:`n^2 = i^2+j^2+k^2`, and the average over all orientations at every q is
one small matrix applied to these sums.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import sparse

from ..grid import PAPER_Q, check_grid, check_q
from ..parameters import as_numbers
from .backend import kernels_of, plain_array

# Half width of the orientation average in units of q_spacing: beyond it a weight is below exp(-32).
_REACH = 4
DENSITIES = (0.0, 0.65, 1.0)  # pore, layer, solid; section 2.2


def orientation_weight(q_mode, q, q_spacing):
    r"""Weight of one mode in the average at q, Eq. (4), not normalised.

    .. math:: w_q(\mathbf{q}_{ijk}) = q_{ijk}^{-2} \exp[-2\,((q_{ijk} - q)/\Delta q)^2]

    Parameters
    ----------
    q_mode, q : array_like
        Magnitude of the mode (positive) and of the average [nm\ :sup:`-1`].
    q_spacing : float
        :math:`\Delta q` [nm\ :sup:`-1`].

    Returns
    -------
    ndarray
    """
    return np.exp(-2 * ((q_mode - q) / q_spacing) ** 2) / q_mode**2


@dataclass(frozen=True, eq=False)
class OrientationAverage:
    r"""The average over all orientations, Eq. (3), on one grid and at some q; from `orientation_average`.

    Attributes
    ----------
    weights : (n_shell, n_q) sparse array of float64
        What a mode on each integer shell counts for at each q, on the paper's scale (`Grid.intensity_scale`).
    """

    weights: sparse.csc_array

    @property
    def last_shell(self):
        """Largest integer shell that the average at the largest q touches."""
        return self.weights.shape[0] - 1

    def __call__(self, shell_sums):
        r"""Intensity from the sums of :math:`|F|^2` over the shells :math:`n = i^2+j^2+k^2`.

        Parameters
        ----------
        shell_sums : (..., n_shell) ndarray
            For n = 0, 1, ..., `last_shell` and perhaps more, which do not count.

        Returns
        -------
        (..., n_q) ndarray of float64
        """
        return shell_sums[..., : self.last_shell + 1] @ self.weights


def orientation_average(grid, q):
    r"""Prepare the `OrientationAverage` of a grid at some q, or take it from those that were prepared before.

    Parameters
    ----------
    grid : Grid
    q : (n_q,) ndarray of float64
        Increasing, as `grid.check_q` returns it [nm\ :sup:`-1`].
    """
    return _orientation_average(grid, q.tobytes())


@lru_cache(maxsize=16)
def _orientation_average(grid, q_bytes):
    q = np.frombuffer(q_bytes)
    last = min(int(((q[-1] / grid.q_spacing) + _REACH) ** 2), grid.shell_counts.size - 1)
    counts = grid.shell_counts[: last + 1]
    shells = np.flatnonzero(counts)[1:]  # w_q(0) = 0
    q_shell = grid.q_spacing * np.sqrt(shells)
    rows = []
    for q_value in q:
        near = slice(*np.searchsorted(q_shell, q_value + _REACH * grid.q_spacing * np.array([-1, 1])))
        weights = orientation_weight(q_shell[near], q_value, grid.q_spacing)
        weights /= weights @ counts[shells[near]]
        rows.append(sparse.csr_array((weights, shells[near], [0, weights.size]), shape=(1, last + 1)))
    return OrientationAverage((grid.intensity_scale * sparse.vstack(rows, format="csr")).T)


def check_densities(densities):
    """Return the electron densities of pore, layer and solid as three finite floats."""
    rule = "must be three finite numbers (pore, layer, solid)"
    array = as_numbers("densities", densities, rule=rule)
    if array.shape != (3,) or not np.isfinite(array).all():
        raise ValueError(f"densities {rule}; got {densities!r}")
    return tuple(map(float, array))


def scattering_intensity(phases, grid, q=PAPER_Q, densities=DENSITIES):
    r"""Scattering intensity of a phase map, Eqs. (1)-(4).

    Parameters
    ----------
    phases : (N, N, N) array of uint8
        0 pore, 1 layer, 2 solid; on any device.
    grid : Grid
    q : (n_q,) array_like
        Increasing magnitudes of the scattering vector, at most :math:`\pi/\Delta x` [nm\ :sup:`-1`].
    densities : (float, float, float)
        Electron densities of pore, layer and solid, relative to the solid's.

    Returns
    -------
    (n_q,) ndarray of float64
        I(q) on the paper's scale (see `Grid.intensity_scale`), on the host.

    Raises
    ------
    ValueError
        For a wrong shape or type, phases other than 0, 1, 2, or a q that the grid cannot give.
    """
    q = check_q(q, check_grid(grid))
    densities = check_densities(densities)
    phases = plain_array("phases", phases)
    if phases.shape != (grid.size,) * 3 or phases.dtype != np.uint8:
        raise ValueError(
            f"phases must be an array of uint8 of shape {(grid.size,) * 3}; got {phases.dtype} of shape {phases.shape}"
        )
    if int(phases.max()) > 2:
        raise ValueError(f"phases must be 0 (pore), 1 (layer) or 2 (solid); got {int(phases.max())}")
    average = orientation_average(grid, q)
    return average(kernels_of(phases).shell_sums(phases, densities, average.last_shell)())
