"""The mean curve of an emulator, tabulated: log intensities of effective parameters in microseconds."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import NdBSpline

from ..grid import PAPER_Q
from ..parameters import Case
from . import voxel_correction
from .coordinates import layer_voxels, to_coordinates
from .gaussian_process import position
from .settings import Settings


@dataclass(frozen=True, eq=False)
class Mean:
    """Tables of the mean log intensity, from the Gaussian processes and the voxel effect.

    Attributes
    ----------
    case : Case
    settings : Settings
    offset : (n_q,) ndarray
        ln A, see `aliasing`.
    knots : list of ndarray
        Of cubic splines along the coordinates.
    table : (n_coefficient, n_node) ndarray
        Spline coefficients of ln I - 3 ln a at the fine nodes.
    nodes : (n_node,) ndarray
        The fine nodes, in units of `gaussian_process.position`.
    voxel_table : (n_thickness, n_q) ndarray, optional
        Of `voxel_correction.look_up`; three phases have one.
    """

    case: Case
    settings: Settings
    offset: np.ndarray
    knots: list
    table: np.ndarray
    nodes: np.ndarray
    voxel_table: np.ndarray | None = None

    def __call__(self, theta):
        """(n_sample, n_q) ndarray: log intensity at effective parameters (n_sample, n_output)."""
        return self.at(to_coordinates(self.case, theta), theta[:, 0])

    def at(self, coordinates, a):
        """(n_sample, n_q) ndarray: log intensity at coordinates (n_sample, n_output), of length scales a [nm]."""
        basis = NdBSpline.design_matrix(np.clip(coordinates, -1, 1), tuple(self.knots), 3)
        basis.resize(len(a), len(self.table))  # columns behind the last entry are left out
        rows = basis @ self.table
        curves = [np.interp(position(x * PAPER_Q), self.nodes, row) for x, row in zip(a, rows, strict=True)]
        curves = np.array(curves).reshape(len(a), -1) + self.offset + 3 * np.log(a)[:, np.newaxis]
        if self.voxel_table is not None:
            curves += self.voxel_effect(layer_voxels(self.case, coordinates))
        return curves

    def voxel_effect(self, thickness):
        """(n_sample, n_q) ndarray: what voxels add at thicknesses of the layer (n_sample,) [voxel]; 0 without one."""
        thickness = np.asarray(thickness, dtype=np.float64)
        if self.voxel_table is None:
            return np.zeros((thickness.size, PAPER_Q.size))
        return voxel_correction.look_up(self.voxel_table, thickness, self.settings)


def aliasing(q, voxel_size):
    r"""What sampling on voxels adds to a Porod tail: :math:`A(q) = 1 + (q \Delta x / 2\pi)^4 \sum_{n \neq 0} |n|^{-4}`.

    The copies of the tail :math:`q^{-4}` at the reciprocal lattice vectors :math:`2\pi n/\Delta x`, to lowest order in
    q: 5 % at q = 3 nm\ :sup:`-1` on the paper's grid. The sum over the cubic lattice is 16.5323.

    Parameters
    ----------
    q : (n_q,) array_like
        Scattering vector [nm^-1].
    voxel_size : float
        [nm]

    Returns
    -------
    (n_q,) ndarray of float64
    """
    return 1 + 16.5323 * (np.asarray(q) * voxel_size / (2 * np.pi)) ** 4
