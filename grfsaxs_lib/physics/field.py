r"""The Gaussian random field, Eqs. (5)-(7).

Eq. (6) colours white noise, :math:`\psi = \mathcal{F}^{-1}\,\Gamma^{1/2}\,\mathcal{F}\,W`.
The transform of white noise is again independent Gaussian noise, so
:math:`\mathcal{F}W` is drawn directly, mode by mode:

.. math:: \psi(\mathbf{x}) = \sum_{\mathbf{q} \ne 0} A(q)\, z_\mathbf{q}\, e^{i \mathbf{q}\cdot\mathbf{x}},
          \qquad A^2 = \Gamma \big/ \textstyle\sum_{\mathbf{q} \ne 0} \Gamma .

The paper leaves the scale of :math:`\psi` open; here its expected variance is one
and, without the mode at zero, its mean is zero. A mode's number depends on the seed
and on (i, j, k) only: in one box, one seed gives the same field at every resolution that reaches the end of the
spectrum, for Eq. (7) :math:`a\pi/\Delta x > 4.2` (see `AMPLITUDE_CUTOFF`).
"""

import operator
import warnings

import numpy as np

from ..grid import SmallBoxWarning, check_grid
from ..parameters import as_numbers, check_scalar
from . import backend

# Modes whose amplitude is below this share of the largest are neither drawn nor transformed. For Eq. (7) they
# hold 2e-9 of the variance, and a cutoff of 1e-6 would more than double the modes.
AMPLITUDE_CUTOFF = 1e-5
# Eq. (7) needs a box of several wavelengths; in a shorter one a single structure is far from the ensemble average.
MINIMUM_BOX = 8 * np.pi
# A spectral density that still has this share of its maximum at the largest wave of the grid is cut off there.
_RESOLVED = 0.5


def spectral_density(q, scaling_parameter):
    r"""Spectral density :math:`\Gamma(q) = (1 + |aq|^8)^{-2}`, Eq. (7).

    Parameters
    ----------
    q : array_like
        Magnitude of the wave vector [nm\ :sup:`-1`].
    scaling_parameter : float
        Scaling parameter :math:`a` [nm].

    Returns
    -------
    ndarray
        Not normalised.
    """
    return 1 / (1 + (scaling_parameter * np.asarray(q)) ** 8) ** 2


_EQUATION_7 = spectral_density


def check_seed(seed):
    """Return `seed` as an int in [0, 2**64), or say what is wrong with it."""
    try:
        value = -1 if isinstance(seed, bool | np.bool_) else operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**64:
        raise ValueError(f"seed must be an integer in [0, 2**64); got {seed!r}")
    return value


def mode_amplitudes(grid, scaling_parameter, spectral_density=spectral_density):
    r"""Amplitude :math:`A(q)` of the modes on each integer shell.

    Parameters
    ----------
    grid : Grid
    scaling_parameter : float
        Scaling parameter :math:`a` [nm].
    spectral_density : callable
        :math:`\Gamma(q, a)`, Eq. (7) by default; not evaluated at q = 0.

    Returns
    -------
    (n_shell,) ndarray of float64
        :math:`A` at :math:`q = \Delta q \sqrt{n}` for n = 0, 1, ... up to the last shell that
        matters; sum of squares over the modes is one.

    Raises
    ------
    ValueError
        If the density is not finite, negative, or zero everywhere.
    """
    n_shell = grid.shell_counts.size
    if spectral_density is _EQUATION_7:  # its cutoff is known, and nothing beyond is needed
        with np.errstate(over="ignore", under="ignore"):
            first = np.float64(scaling_parameter * grid.q_spacing) ** -8
            n_shell = int(min(n_shell, ((first + 1) / AMPLITUDE_CUTOFF) ** (2 / 8) + 2))
    q = grid.q_spacing * np.sqrt(np.arange(1, n_shell))
    counts = grid.shell_counts[1:n_shell]
    rule = "must give one finite, non-negative value per q, not all zero at the waves of the box"
    density = as_numbers("spectral_density(q, a)", spectral_density(q, scaling_parameter), rule=rule)
    good = density.shape == q.shape and np.isfinite(density).all() and (density >= 0).all()
    if not good or not density[counts > 0].any():
        raise ValueError(
            f"spectral_density(q, a) {rule}; got shape {density.shape} for {q.size} q values from {q[0]:.4g} nm^-1 on"
            + (f", values from {density.min():g} to {density.max():g}" if density.size else "")
        )
    amplitude = np.sqrt(density)
    # Squares might overflow otherwise; a power of two causes no rounding.
    amplitude = np.ldexp(amplitude, -int(np.frexp(amplitude[counts > 0].max())[1]))
    n_kept = np.flatnonzero(amplitude > AMPLITUDE_CUTOFF * amplitude.max())[-1] + 1
    amplitude = np.concatenate([[0.0], amplitude[:n_kept]])
    return amplitude / np.sqrt(grid.shell_counts[: n_kept + 1] @ amplitude**2)


def gaussian_random_field(grid, *, scaling_parameter, seed, device="cpu", spectral_density=spectral_density, out=None):
    r"""Draw a periodic Gaussian random field, Eq. (6).

    Parameters
    ----------
    grid : Grid
    scaling_parameter : float
        Scaling parameter :math:`a` [nm]; positive.
    seed : int
        Key of the random numbers, in [0, 2\ :sup:`64`).
    device : {"cpu", "gpu"}
        Where the field is made and stays.
    spectral_density : callable
        :math:`\Gamma(q, a)` of q [nm\ :sup:`-1`] and a [nm]; Eq. (7) by default.
    out : (N, N, N) array of float32, optional
        A field that is no longer needed, to be overwritten.

    Returns
    -------
    (N, N, N) array of float32
        Zero mean, unit expected variance; axes (z, y, x).

    Raises
    ------
    ValueError
        For values outside their range.
    DeviceError
        If the device is not there.
    MemoryError
        If the grid needs more memory than is free.

    Warns
    -----
    SmallBoxWarning
        If the box is shorter than :math:`8\pi a`.
    UserWarning
        If voxels are so large that they cut the spectrum off.
    """
    kernels = backend.get_kernels(device)
    if out is None:
        backend.check_memory(device, check_grid(grid).size)
    elif out.shape != (grid.size,) * 3 or out.dtype != np.float32 or not out.flags.c_contiguous:
        raise ValueError(f"out must be a contiguous array of float32 of the shape of {grid}; got shape {out.shape}")
    scaling_parameter = check_scalar("scaling_parameter", scaling_parameter)
    seed = check_seed(seed)
    warn_of_small_box(grid, scaling_parameter)
    return draw_field(kernels, grid, scaling_parameter, seed, spectral_density, out)


def warn_of_small_box(grid, scaling_parameter):
    """Warn the caller's caller if the box is too short for the largest scaling parameter."""
    longest = float(np.max(scaling_parameter, initial=0.0))
    if grid.box_length < MINIMUM_BOX * longest:
        warnings.warn(
            f"the box of {grid.box_length:g} nm is shorter than 8*pi*scaling_parameter = "
            f"{MINIMUM_BOX * longest:.4g} nm; curves of single structures will scatter widely",
            SmallBoxWarning,
            stacklevel=3,
        )


def draw_field(kernels, grid, scaling_parameter, seed, spectral_density, out=None):
    """What `gaussian_random_field` does once its arguments are checked."""
    amplitude = mode_amplitudes(grid, scaling_parameter, spectral_density)
    at_nyquist = amplitude[(grid.size // 2) ** 2 :][:1] ** 2 / (amplitude**2).max()
    if (at_nyquist > _RESOLVED).any():
        warnings.warn(
            f"voxels of {grid.voxel_size:g} nm are too large for scaling_parameter = {scaling_parameter:g} nm: at the "
            f"largest wave that they hold the spectral density still is {at_nyquist.item():.2g} of its maximum, "
            "so the field is rather noise of single voxels",
            stacklevel=3,
        )
    return kernels.gaussian_random_field(grid.size, amplitude.astype(np.float32), seed, out)
