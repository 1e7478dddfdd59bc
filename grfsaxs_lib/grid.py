r"""The periodic cube, its reciprocal lattice and the scale of the intensity.

Conventions of the whole package:

* a cube of :math:`N^3` voxels of edge :math:`\Delta x` [nm], periodic, edge
  :math:`L = N\,\Delta x`;
* the unnormalised forward DFT,
  :math:`F(\mathbf{q}) = \sum_\mathbf{x} \rho(\mathbf{x})\, e^{-i\mathbf{q}\cdot\mathbf{x}}`,
  on :math:`\mathbf{q} = \Delta q\,(i, j, k)` with :math:`\Delta q = 2\pi/L`, Eq. (2);
* integer wave numbers run from :math:`-N/2` to :math:`N/2 - 1`;
* intensities are those of the paper's grid: :math:`|F|^2` times `Grid.intensity_scale`.
"""

import operator
import warnings
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .parameters import as_numbers


class SmallBoxWarning(UserWarning):
    """The box is small for the structure or for q: a curve is one of many that scatter widely about the mean."""


@dataclass(frozen=True)
class Grid:
    r"""A periodic cube of `size`\ :sup:`3` voxels.

    Parameters
    ----------
    size : int
        Voxels along an edge, :math:`N`; even, at least 8.
    voxel_size : float
        Voxel edge :math:`\Delta x` [nm].

    Raises
    ------
    ValueError
        If the size is not an even integer of at least 8, or the voxel size is
        not a positive finite number.
    """

    size: int
    voxel_size: float

    def __post_init__(self):
        try:
            size = operator.index(self.size)
        except TypeError:
            size = 0
        if size < 8 or size % 2 or isinstance(self.size, bool):
            raise ValueError(f"size must be an even integer of at least 8; got {self.size!r}")
        try:
            voxel_size = float(self.voxel_size)
        except (TypeError, ValueError):
            voxel_size = np.nan
        if not 0 < voxel_size < np.inf:
            raise ValueError(f"voxel_size must be a positive length in nm; got {self.voxel_size!r}")
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "voxel_size", voxel_size)

    @property
    def box_length(self):
        r"""Edge of the cube :math:`L = N\,\Delta x` [nm]."""
        return self.size * self.voxel_size

    @property
    def q_spacing(self):
        r"""Resolution in q space :math:`\Delta q = 2\pi/(N\,\Delta x)` [nm\ :sup:`-1`], Eq. (2)."""
        return 2 * np.pi / self.box_length

    @property
    def q_nyquist(self):
        r"""Largest q along an axis, :math:`\pi/\Delta x` [nm\ :sup:`-1`]."""
        return np.pi / self.voxel_size

    @property
    def wave_numbers(self):
        """(N,) ndarray of float64: q along one axis in FFT order [nm^-1], Eq. (2)."""
        return self.q_spacing * np.fft.fftfreq(self.size, 1 / self.size)

    @property
    def shell_counts(self):
        r"""(3 (N/2)\ :sup:`2` + 1,) ndarray of int64: modes of the cube on each shell :math:`n^2 = i^2 + j^2 + k^2`.

        Counted from the actual modes, so shells that leave the cube through its
        faces hold only what is inside.
        """
        return _shell_counts(self.size)

    @property
    def intensity_scale(self):
        r"""Factor :math:`(512/N)^3 (\Delta x / 0.5\,\mathrm{nm})^3` that puts :math:`|F|^2` on the paper's scale.

        The noise level :math:`\alpha` of the paper is tied to the unnormalised
        :math:`|F|^2` of its own grid. For one material :math:`|F|^2` grows as
        :math:`L^3/\Delta x^6`, so this factor gives :math:`I(q)` from any grid the
        same expected value.
        """
        return (PAPER_SIZE / self.size) ** 3 * (self.voxel_size / PAPER_VOXEL_SIZE) ** 3


@lru_cache(maxsize=16)  # not kept in the grid, which travels with every task of a cluster
def _shell_counts(size):
    squares = np.arange(-size // 2, size // 2) ** 2
    counts = np.zeros(3 * squares[0] + 1, dtype=np.int64)
    counts[0] = 1
    for _ in range(3):
        reach = np.flatnonzero(counts)[-1] + 1
        axis_added = np.zeros_like(counts)
        for square in squares:
            axis_added[square : square + reach] += counts[:reach]
        counts = axis_added
    counts.flags.writeable = False
    return counts


PAPER_SIZE = 512
PAPER_VOXEL_SIZE = 0.5  # nm
PAPER_GRID = Grid(PAPER_SIZE, PAPER_VOXEL_SIZE)
PAPER_Q = np.linspace(0.04, 3.00, 500)  # nm^-1, section 2.3
PAPER_Q.flags.writeable = False


def check_grid(grid):
    """Return `grid` if it is a `Grid`, or say what it should be."""
    if not isinstance(grid, Grid):
        raise ValueError(f"grid must be a Grid, such as Grid(size=512, voxel_size=0.5); got {grid!r}")
    return grid


def check_q(q, grid=None):
    r"""Return `q` as a float64 array, or say what is wrong with it.

    Parameters
    ----------
    q : (n_q,) array_like
        Magnitudes of the scattering vector [nm\ :sup:`-1`].
    grid : Grid, optional
        If given, q must not exceed its :math:`\pi/\Delta x`.

    Returns
    -------
    (n_q,) ndarray of float64

    Raises
    ------
    ValueError
        If q is empty, not one-dimensional, not finite, not positive, not
        strictly increasing, or beyond what the grid resolves.

    Warns
    -----
    SmallBoxWarning
        If q begins below the grid's smallest wave.
    """
    rule = "must be a one-dimensional, non-empty array of numbers [nm^-1]"
    q = as_numbers("q", q, "nm-1", rule)
    if q.ndim != 1 or q.size == 0:
        raise ValueError(f"q {rule}; got shape {q.shape}")
    bad = ~(np.isfinite(q) & (q > 0))
    if bad.any():
        raise ValueError(f"q must be finite and positive [nm^-1]; q[{bad.argmax()}] is {q[bad.argmax()]:g}")
    bad = np.diff(q) <= 0
    if bad.any():
        n = bad.argmax()
        raise ValueError(f"q must increase strictly [nm^-1]; q[{n + 1}] = {q[n + 1]:g} follows {q[n]:g}")
    if grid is not None and q[-1] > grid.q_nyquist:
        raise ValueError(
            f"q reaches {q[-1]:g} nm^-1, but a voxel of {grid.voxel_size:g} nm resolves only "
            f"q <= pi/voxel_size = {grid.q_nyquist:.4g} nm^-1; use smaller voxels or a shorter q"
        )
    if grid is not None and q[0] < grid.q_spacing:
        warnings.warn(
            f"the box of {grid.box_length:g} nm holds no wave below q = 2*pi/L = {grid.q_spacing:.4g} nm^-1; "
            f"at {np.count_nonzero(q < grid.q_spacing)} of {q.size} q values the average of Eq. (4) is only a plateau",
            SmallBoxWarning,
            stacklevel=3,
        )
    return q
