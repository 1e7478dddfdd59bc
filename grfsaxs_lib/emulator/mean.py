"""The mean curve of an emulator, tabulated: log intensities of effective parameters in microseconds."""

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import NdBSpline

from .. import compiled
from ..grid import PAPER_Q
from ..parameters import Case
from . import voxel_correction
from .coordinates import layer_voxels, to_coordinates
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
        weights, columns = (values.reshape(len(a), -1) for values in (basis.data, basis.indices))
        curves = np.empty((len(a), PAPER_Q.size))
        _interpolate(weights, columns, self.table, self.nodes[[0, -1]], a, PAPER_Q, curves)
        curves += self.offset + 3 * np.log(a)[:, np.newaxis]
        if self.voxel_table is not None:
            curves += self.voxel_effect(layer_voxels(self.case, coordinates))
        return curves

    def voxel_effect(self, thickness):
        """(n_sample, n_q) ndarray: what voxels add at thicknesses of the layer (n_sample,) [voxel]; 0 without one."""
        thickness = np.asarray(thickness, dtype=np.float64)
        if self.voxel_table is None:
            return np.zeros((thickness.size, PAPER_Q.size))
        return voxel_correction.look_up(self.voxel_table, thickness, self.settings)


@compiled.serial("contract", "reassoc")
def _interpolate(weights, columns, table, ends, a, q, curves):
    """Write curves: combinations of rows of the table, interpolated between its even nodes from ends[0] to ends[1].

    Positions among the nodes are `gaussian_process.position`. Only nodes between those of q[0] and q[-1] are combined.
    """
    n_node = table.shape[1]
    step, log_q = (ends[1] - ends[0]) / (n_node - 1), np.log(q)
    row, positions = np.empty(n_node), np.empty(q.size)
    for i in range(a.size):
        log_a = np.log(a[i])
        for b in range(q.size):
            position = (log_q[b] + log_a + a[i] * q[b] / 4 - ends[0]) / step
            positions[b] = min(max(position, 0.0), n_node - 1.0)
        first, last = min(int(positions[0]), n_node - 2), min(int(positions[-1]), n_node - 2) + 2
        part = row[first:last]
        part[:] = 0
        for k in range(0, weights.shape[1], 4):  # there are 16 or 64; four at a time are four times as fast
            w0, w1, w2, w3 = weights[i, k], weights[i, k + 1], weights[i, k + 2], weights[i, k + 3]
            t0, t1 = table[columns[i, k], first:last], table[columns[i, k + 1], first:last]
            t2, t3 = table[columns[i, k + 2], first:last], table[columns[i, k + 3], first:last]
            for node in range(part.size):
                part[node] += w0 * t0[node] + w1 * t1[node] + w2 * t2[node] + w3 * t3[node]
        for b in range(q.size):
            node = min(int(positions[b]), n_node - 2)
            share = positions[b] - node
            curves[i, b] = (1 - share) * row[node] + share * row[node + 1]


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
