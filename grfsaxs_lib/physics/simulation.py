"""Parameters to curve: the composition of field, structure and scattering."""

import numpy as np

from ..grid import PAPER_Q, check_grid, check_q
from ..parameters import check
from . import backend
from .field import check_seed, draw_field, gaussian_random_field, spectral_density, warn_of_small_box
from .scattering import DENSITIES, check_densities, orientation_average, scattering_intensity
from .structure import check_cut, cut, phase_map


def simulate(
    grid,
    *,
    scaling_parameter,
    porosity,
    layer_fraction=0.0,
    seed,
    q=PAPER_Q,
    device="cpu",
    densities=DENSITIES,
    smoothing_sigma=2.0,
    spectral_density=spectral_density,
    progress=None,
):
    r"""Simulate SAXS curves of random structures, Eqs. (1)-(10).

    The parameters and the seed broadcast against one another, one structure for each element.

    Parameters
    ----------
    grid : Grid
    scaling_parameter : array_like
        Scaling parameter :math:`a` [nm].
    porosity : array_like
        Volume fraction :math:`\epsilon` of pore and layer.
    layer_fraction : array_like
        Share :math:`\nu` of the pore space taken by the layer; 0 is the two-phase model.
    seed : array_like of int
        Key of each structure, in [0, 2\ :sup:`64`).
    q : (n_q,) array_like
        Scattering vectors [nm\ :sup:`-1`].
    device : {"cpu", "gpu"}
    densities : (float, float, float)
        Electron densities of pore, layer and solid.
    smoothing_sigma : float
        Width of the filter of Eqs. (9) and (10) [voxel].
    spectral_density : callable
        :math:`\Gamma(q, a)`; Eq. (7) by default.
    progress : callable, optional
        Called with 1 after each structure, such as ``tqdm(total=...).update``.

    Returns
    -------
    (..., n_q) ndarray of float64
        Noise-free intensities on the paper's scale.

    Raises
    ------
    ValueError, DeviceError
        Before any structure is made; but for a layer too deep for the filter (see `phase_map`) and a spectral
        density that is none, which show only when their structure is made.
    MemoryError
        If the grid needs more memory than is free.
    """
    kernels = backend.get_kernels(device)
    q = check_q(q, check_grid(grid))
    densities = check_densities(densities)
    porosity, layer_fraction, smoothing_sigma = check_cut(porosity, layer_fraction, smoothing_sigma, grid.size)
    seeds = np.asarray(seed, dtype=object)  # as integers of their own type: NumPy would turn large ones into floats
    seeds = np.array([check_seed(one) for one in seeds.flat], dtype=np.uint64).reshape(seeds.shape)
    scaling_parameter = check("scaling_parameter", scaling_parameter)
    structures = np.broadcast_arrays(scaling_parameter, porosity, layer_fraction, seeds)
    backend.check_memory(device, grid.size)
    warn_of_small_box(grid, scaling_parameter)
    intensity = np.empty((*structures[0].shape, q.size))
    average = orientation_average(grid, q)
    _simulate_each(
        intensity, kernels, grid, structures, spectral_density, smoothing_sigma, densities, average, progress
    )
    return intensity


def _simulate_each(
    intensity, kernels, grid, structures, spectral_density, smoothing_sigma, densities, average, progress
):
    """Fill `intensity` structure by structure: the work of `simulate`, after all checks."""
    field = last = read = None
    try:
        for index in np.ndindex(intensity.shape[:-1]):
            a, epsilon, nu, seed = (values[index] for values in structures)
            field = draw_field(kernels, grid, float(a), int(seed), spectral_density, field)
            if read is not None:  # while a GPU draws this field
                intensity[last] = average(read())
            phases = cut(kernels, field, epsilon, nu, smoothing_sigma, overwrite_field=True)
            last, read = index, kernels.shell_sums(phases, densities, average.last_shell)
            if progress is not None:
                progress(1)
    finally:  # also where a structure failed: a GPU may still be writing what is to be read
        if read is not None:
            intensity[last] = average(read())


def plane_and_curve(
    grid, *, scaling_parameter, porosity, layer_fraction=0.0, seed, q=PAPER_Q, device="cpu", smoothing_sigma=2.0
):
    """Simulate one structure, to be looked at.

    Parameters
    ----------
    grid, scaling_parameter, porosity, layer_fraction, seed, q, device, smoothing_sigma
        As in `simulate`, for one structure.

    Returns
    -------
    plane : (N, N) ndarray of uint8
        Phases at the first x; axes (z, y).
    intensity : (n_q,) ndarray of float64
        As `simulate` returns it.
    """
    field = gaussian_random_field(grid, scaling_parameter=scaling_parameter, seed=seed, device=device)
    given = {"porosity": porosity, "layer_fraction": layer_fraction, "smoothing_sigma": smoothing_sigma}
    phases = phase_map(field, **given, overwrite_field=True)
    plane = backend.get_kernels(device).to_host(phases[:, :, 0].copy())  # a view would keep the whole cube
    return plane, scattering_intensity(phases, grid, q)
