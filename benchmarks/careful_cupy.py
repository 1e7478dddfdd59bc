r"""The careful rival on a GPU: what a careful programmer gets out of CuPy alone.

As `careful` beside this file: real transforms in single precision, selection instead of sorting, lookup tables
over the integer shells and one matrix for the 500 averages. Its filter multiplies the spectrum, the natural choice
where transforms are fast, and wrong for deep layers (see notebook 15).
"""

from functools import lru_cache

import cupy as cp
import numpy as np
from cupyx.scipy import fft


@lru_cache(maxsize=2)
def shells(size):
    """(N, N, N/2+1) array of int32: the integer shell of every mode of the half spectrum."""
    squares = cp.asarray(np.rint(np.fft.fftfreq(size, 1 / size)).astype(np.int32) ** 2)
    return squares[:, None, None] + squares[:, None] + squares[: size // 2 + 1]


@lru_cache(maxsize=2)
def average_matrix(size, voxel_size, q):
    """Occupied shells near q, and the (n_q, n_shell) matrix of Eqs. (3) and (4) for sums over them."""
    q_spacing = 2 * np.pi / (size * voxel_size)
    copies = cp.full((size, size, size // 2 + 1), 2.0)  # the half spectrum stands for k and -k ...
    copies[:, :, 0] = copies[:, :, -1] = 1  # ... but for two planes
    counts = cp.bincount(shells(size).ravel(), copies.ravel())
    near = cp.flatnonzero(counts)[1:]
    near = near[near <= (q[-1] / q_spacing + 4) ** 2]
    q_shell = q_spacing * cp.sqrt(near)
    weights = cp.exp(-2 * ((q_shell - cp.asarray(q)[:, None]) / q_spacing) ** 2) / q_shell**2
    return near, weights / (weights @ counts[near])[:, None]


def gaussian_random_field(size, voxel_size, *, scaling_parameter, rng):
    """Filter white noise with the root of the spectral density, Eqs. (6) and (7)."""
    spectrum = fft.rfftn(rng.standard_normal((size, size, size), dtype=np.float32))
    shell = cp.arange(3 * (size // 2) ** 2 + 1)
    root_density = 1 / (1 + (2 * np.pi * scaling_parameter / (size * voxel_size)) ** 8 * shell**4.0)
    spectrum *= root_density.astype(np.float32)[shells(size)]
    return fft.irfftn(spectrum, (size, size, size), overwrite_x=True)


def gaussian_filter(values, sigma):
    """Periodic Gaussian filter by its transform."""
    size = len(values)
    transfer = cp.exp(-2 * (np.pi * sigma / size) ** 2 * cp.arange(3 * (size // 2) ** 2 + 1)).astype(np.float32)
    return fft.irfftn(fft.rfftn(values) * transfer[shells(size)], values.shape, overwrite_x=True)


def phase_map(field, *, porosity, layer_fraction, smoothing_sigma):
    """Threshold, smooth, threshold, Eqs. (8) to (10): 0 pore, 1 layer, 2 solid."""
    n_pore_and_layer = round(porosity * field.size)
    n_pore = round(porosity * (1 - layer_fraction) * field.size)
    binary = field > cp.partition(field, n_pore_and_layer - 1, axis=None)[n_pore_and_layer - 1]
    smoothed = gaussian_filter(binary.astype(np.float32), smoothing_sigma)
    lower, upper = cp.partition(smoothed, [n_pore - 1, n_pore_and_layer - 1], axis=None)[
        [n_pore - 1, n_pore_and_layer - 1]
    ]
    return (smoothed > lower).astype(np.uint8) + (smoothed > upper)


def scattering_intensity(phases, voxel_size, *, q, densities):
    """Sum the power over the integer shells, then apply the matrix of the averages, Eqs. (1) to (4)."""
    size = len(phases)
    near, matrix = average_matrix(size, voxel_size, tuple(q))
    density = cp.asarray(densities, dtype=np.float32)[phases]
    density -= density.mean(dtype=np.float64).astype(np.float32)
    spectrum = fft.rfftn(density)
    power = spectrum.real**2 + spectrum.imag**2
    power[..., 1:-1] *= 2
    sums = cp.bincount(shells(size).ravel(), power.ravel())
    return matrix @ sums[near] * (512 / size) ** 3 * (voxel_size / 0.5) ** 3


def simulate(
    size,
    voxel_size,
    *,
    scaling_parameter,
    porosity,
    layer_fraction,
    rng,
    q,
    smoothing_sigma,
    densities=(0.0, 0.65, 1.0),
):
    """Simulate one curve; arguments as in `textbook.simulate`. -> (n_q,) array on the device"""
    field = gaussian_random_field(size, voxel_size, scaling_parameter=scaling_parameter, rng=rng)
    phases = phase_map(field, porosity=porosity, layer_fraction=layer_fraction, smoothing_sigma=smoothing_sigma)
    return scattering_intensity(phases, voxel_size, q=q, densities=densities)
