r"""The first rival: the paper's equations, typed into NumPy and SciPy in the order in which they stand.

Nothing here is imported from the package, so the same lines serve as an independent truth in the tests.
The filter is SciPy's with its default radius of 4 sigma: right for the layers of low porosity, wrong for
deep ones (see notebook 15).
"""

import numpy as np
from scipy.ndimage import gaussian_filter


def wave_vector_lengths(size, voxel_size):
    """(N, N, N) ndarray: \\|q\\| of every mode [nm^-1], Eq. (2)."""
    q = 2 * np.pi * np.fft.fftfreq(size, voxel_size)
    qz, qy, qx = np.meshgrid(q, q, q, indexing="ij")
    return np.sqrt(qx**2 + qy**2 + qz**2)


def gaussian_random_field(size, voxel_size, *, scaling_parameter, rng):
    """Filter white noise with the root of the spectral density, Eqs. (6) and (7)."""
    noise = rng.standard_normal((size, size, size))
    spectral_density = (1 + (scaling_parameter * wave_vector_lengths(size, voxel_size)) ** 8) ** -2.0
    return np.fft.ifftn(np.sqrt(spectral_density) * np.fft.fftn(noise)).real


def phase_map(field, *, porosity, layer_fraction, smoothing_sigma):
    """Threshold, smooth, threshold, Eqs. (8) to (10): 0 pore, 1 layer, 2 solid."""
    binary = field > np.quantile(field, porosity)
    smoothed = gaussian_filter(binary.astype(float), smoothing_sigma, mode="wrap")
    lower, upper = np.quantile(smoothed, [porosity * (1 - layer_fraction), porosity])
    return np.where(smoothed > upper, 2, np.where(smoothed > lower, 1, 0))


def fold(power):
    """Fold (N, N, N) into (N/2+1, N/2+1, N/2+1) by adding up the mirror images along each axis."""
    for axis in range(3):
        power = np.moveaxis(power, axis, 0)
        half = len(power) // 2
        folded = power[: half + 1].copy()
        folded[1:half] += power[:half:-1]
        power = np.moveaxis(folded, 0, axis)
    return power


def scattering_intensity(phases, voxel_size, *, q, densities):
    """Average the folded intensity over all orientations, one q after the other, Eqs. (1) to (4)."""
    size = len(phases)
    q_spacing = 2 * np.pi / (size * voxel_size)
    folded = fold(np.abs(np.fft.fftn(np.asarray(densities)[phases])) ** 2)
    copies = fold(np.ones((size, size, size)))
    q_mode = wave_vector_lengths(size, voxel_size)[: size // 2 + 1, : size // 2 + 1, : size // 2 + 1]
    q_mode[0, 0, 0] = np.inf  # the weight of the zero mode is zero

    intensity = np.empty(len(q))
    for n, q_value in enumerate(q):
        weights = np.exp(-2 * ((q_mode - q_value) / q_spacing) ** 2) / q_mode**2
        intensity[n] = np.sum(weights * folded) / np.sum(weights * copies)
    return intensity * (512 / size) ** 3 * (voxel_size / 0.5) ** 3


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
    """Simulate one curve; arguments and units as in `grfsaxs_lib.simulate`. -> (n_q,) ndarray"""
    field = gaussian_random_field(size, voxel_size, scaling_parameter=scaling_parameter, rng=rng)
    phases = phase_map(field, porosity=porosity, layer_fraction=layer_fraction, smoothing_sigma=smoothing_sigma)
    return scattering_intensity(phases, voxel_size, q=q, densities=densities)
