"""The Gaussian random field, Eqs. (6) and (7)."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from grfsaxs_lib.grid import Grid, SmallBoxWarning
from grfsaxs_lib.physics.field import (
    AMPLITUDE_CUTOFF,
    MINIMUM_BOX,
    check_seed,
    gaussian_random_field,
    mode_amplitudes,
    spectral_density,
)
from grfsaxs_lib.physics.simulation import simulate

SINGLE = float(np.finfo(np.float32).eps)


def shell_index(size):
    """n = i^2 + j^2 + k^2 of each mode of the full cube, in FFT order."""
    square = np.fft.fftfreq(size, 1 / size).astype(int) ** 2
    return square[:, None, None] + square[:, None] + square


def amplitudes_in_the_cube(grid, a, **more):
    """A(q) of each mode; zero where `mode_amplitudes` stops."""
    amplitude = mode_amplitudes(grid, a, **more)
    return np.pad(amplitude, (0, grid.shell_counts.size - amplitude.size))[shell_index(grid.size)]


# Spectral density -----------------------------------------------------------------------------------


def test_spectral_density_is_eq_7():
    # Values by hand: (1 + x^8)^-2 at x = 0, 1 and 2.
    np.testing.assert_allclose(spectral_density(np.array([0.0, 0.25, 0.5]), 4.0), [1, 1 / 4, 257**-2], rtol=1e-15)


@given(st.floats(0.8, 8.0), st.floats(0.0, 10.0))
def test_spectral_density_depends_on_a_times_q(a, q):
    # x^8 multiplies a relative rounding of x by 8, the square by 2 again.
    assert math.isclose(spectral_density(q, a), spectral_density(a * q, 1.0), rel_tol=64 * np.finfo(float).eps)


@pytest.mark.parametrize(("size", "voxel_size", "a"), [(32, 1.0, 1.2), (64, 0.5, 1.2), (64, 0.5, 3.0), (16, 1.0, 0.3)])
def test_amplitudes_follow_the_density_and_add_up_to_one(size, voxel_size, a):
    grid = Grid(size, voxel_size)
    amplitude = mode_amplitudes(grid, a)
    n = np.arange(amplitude.size)
    assert amplitude[0] == 0
    assert grid.shell_counts[: n.size] @ amplitude**2 == pytest.approx(1, rel=1e-13)  # sum of 1e4 numbers
    np.testing.assert_allclose(
        (amplitude[1:] / amplitude[1]) ** 2,
        spectral_density(grid.q_spacing * np.sqrt(n[1:]), a) / spectral_density(grid.q_spacing, a),
        rtol=1e-12,  # a few tens of roundings, eight-fold by the power
    )


@pytest.mark.parametrize("a", [0.8, 2.0, 8.0])
def test_modes_that_are_left_out_do_not_matter(a):
    grid = Grid(256, 0.5)
    n = np.arange(1, grid.shell_counts.size)
    variance = grid.shell_counts[1:] * spectral_density(grid.q_spacing * np.sqrt(n), a)
    n_kept = mode_amplitudes(grid, a).size - 1
    # In the continuum: beyond x = a q, where x^-8 is the cutoff, of the integral of x^2 (1 + x^8)^-2; a
    # quarter more for the sum over the lattice.
    x = AMPLITUDE_CUTOFF ** (-1 / 8)
    share = x**-13 / 13 / integrate.quad(lambda x: x**2 * spectral_density(x, 1.0), 0, np.inf)[0]
    assert share < 3e-9
    assert variance[n_kept:].sum() < 1.25 * share * variance.sum()
    assert n_kept < n.size / (a / 0.8) ** 2  # the larger a, the more are left out


# The modes of a field -------------------------------------------------------------------------------


def test_spectrum_of_the_modes(device, to_host):
    # |z|^2 of a mode is exponential with mean one, and all modes with 0 < k < N/2 are independent.
    grid, a = Grid(32, 1.0), 1.2
    amplitude = amplitudes_in_the_cube(grid, a)
    independent = np.zeros(amplitude.shape, bool)
    independent[:, :, 1 : grid.size // 2] = amplitude[:, :, 1 : grid.size // 2] > 1e-5 * amplitude.max()
    shells = shell_index(grid.size)[independent]
    z = []
    for seed in range(8):
        field = to_host(gaussian_random_field(grid, scaling_parameter=a, seed=seed, device=device))
        z.append((np.fft.fftn(field.astype(float), norm="forward")[independent]) / amplitude[independent])
    z = np.array(z)
    number = z.size
    assert number > 8 * 2500
    # Chi-square over all modes and shell by shell; seeds are fixed, and one chance in 10^5 is allowed.
    power = np.abs(z) ** 2
    assert stats.chi2.sf(2 * power.sum(), 2 * number) > 1e-5
    assert stats.chi2.cdf(2 * power.sum(), 2 * number) > 1e-5
    per_shell = np.bincount(shells, 2 * power.sum(axis=0))
    n_per_shell = 2 * len(power) * np.bincount(shells)
    found = n_per_shell > 0
    p = stats.chi2.sf(per_shell[found], n_per_shell[found])
    assert stats.kstest(p, "uniform").pvalue > 1e-5
    assert stats.kstest(power.ravel(), "expon").pvalue > 1e-5
    assert stats.kstest(np.angle(z).ravel(), "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-5


def test_zero_mean_and_unit_variance(device, to_host):
    grid, a, n_seed = Grid(32, 1.0), 1.2, 100
    fields = [
        to_host(gaussian_random_field(grid, scaling_parameter=a, seed=seed, device=device)).astype(float)
        for seed in range(n_seed)
    ]
    # Without the zero mode the mean is zero but for rounding.
    assert max(abs(field.mean()) for field in fields) < 10 * SINGLE
    variances = [np.mean(field**2) for field in fields]
    # Var of the mean square is 2 sum(A^4) over all modes: pairs of conjugates and real modes alike.
    standard_error = math.sqrt(2 * np.sum(amplitudes_in_the_cube(grid, a) ** 4) / n_seed)
    assert abs(np.mean(variances) - 1) < 4 * standard_error < 0.04


@pytest.mark.parametrize(("size", "voxel_size", "a"), [(24, 2.0, 2.8), (48, 2.0, 3.6), (32, 1.0, 1.4)])
def test_one_seed_is_one_field_at_any_resolution(device, to_host, size, voxel_size, a):
    # No mode that matters reaches the edge of the coarse grid.
    coarse, fine = Grid(size, voxel_size), Grid(2 * size, voxel_size / 2)
    assert a * coarse.q_nyquist > AMPLITUDE_CUTOFF ** (-1 / 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        one, other = (
            to_host(gaussian_random_field(grid, scaling_parameter=a, seed=5, device=device)) for grid in (coarse, fine)
        )
    # Values of a few units from two FFTs in float32.
    np.testing.assert_allclose(one, other[::2, ::2, ::2], atol=20 * SINGLE, rtol=0)


def test_same_seed_same_field_other_seed_other_field(device, to_host):
    grid, a = Grid(32, 1.0), 1.2
    seeds = [0, 1, 2, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
    fields = [to_host(gaussian_random_field(grid, scaling_parameter=a, seed=seed, device=device)) for seed in seeds]
    again = to_host(gaussian_random_field(grid, scaling_parameter=a, seed=seeds[-1], device=device))
    np.testing.assert_array_equal(fields[-1], again)
    correlation = np.corrcoef([field.ravel() for field in fields])
    # Two independent fields correlate with variance sum(A^4) over the modes.
    limit = 5 * math.sqrt(np.sum(amplitudes_in_the_cube(grid, a) ** 4))
    assert np.abs(correlation - np.eye(len(seeds))).max() < limit < 0.3


def test_a_density_of_ones_own(device, to_host):
    # One shell, n = 5 = 0 + 1 + 4: nothing else may hold power.
    grid = Grid(16, 1.0)

    def ring(q, a):
        assert a == 0.5
        return np.isclose(q, grid.q_spacing * math.sqrt(5)).astype(float)

    field = to_host(gaussian_random_field(grid, scaling_parameter=0.5, seed=3, device=device, spectral_density=ring))
    power = np.abs(np.fft.fftn(field.astype(float), norm="forward")) ** 2
    on_shell = shell_index(16) == 5
    assert power[on_shell].min() > 0
    assert power[~on_shell].sum() < SINGLE**2 * power.sum()  # the rounding of each voxel
    assert power.sum() == pytest.approx(np.mean(field.astype(float) ** 2), rel=1e-12)


# Boundaries -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1))
def test_good_seeds(seed):
    assert check_seed(seed) == check_seed(np.uint64(seed)) == seed


@given(
    st.one_of(
        st.integers(max_value=-1),
        st.integers(min_value=2**64),
        st.floats(),
        st.booleans(),
        st.sampled_from([None, "7", [7], np.bool_(True), np.float64(7)]),
    )
)
def test_bad_seeds(seed):
    with pytest.raises(ValueError, match=r"^seed must be an integer in \[0, 2\*\*64\); got "):
        gaussian_random_field(Grid(8, 1.0), scaling_parameter=0.3, seed=seed)


@given(st.floats(max_value=0) | st.sampled_from([math.nan, math.inf]))
def test_bad_scaling_parameters(a):
    with pytest.raises(ValueError, match=r"^scaling_parameter must lie in \(0, inf\) nm; got "):
        gaussian_random_field(Grid(8, 1.0), scaling_parameter=a, seed=1)


@pytest.mark.parametrize(
    "density",
    [
        lambda q, a: 0 * q,
        lambda q, a: -spectral_density(q, a),
        lambda q, a: np.full_like(q, np.nan),
        lambda q, a: np.where(q > 1, np.inf, 1.0),
        lambda q, a: spectral_density(q, a)[1:],
        lambda q, a: 1.0,
        lambda q, a: None,
    ],
    ids=["zero", "negative", "nan", "infinite", "short", "scalar", "none"],
)
def test_bad_densities(density):
    with pytest.raises(ValueError, match="^spectral_density.* one finite, non-negative value per q"):
        gaussian_random_field(Grid(8, 1.0), scaling_parameter=0.3, seed=1, spectral_density=density)


def test_a_short_box_is_warned_of():
    grid = Grid(8, 1.0)
    longest = grid.box_length / MINIMUM_BOX
    assert MINIMUM_BOX == 8 * math.pi
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gaussian_random_field(grid, scaling_parameter=longest * 0.999, seed=1)
    with pytest.warns(SmallBoxWarning, match=r"the box of 8 nm is shorter than 8\*pi\*scaling_parameter = "):
        gaussian_random_field(grid, scaling_parameter=longest * 1.001, seed=1)


def test_a_scale_far_below_a_voxel_is_warned_of():
    with pytest.warns(UserWarning, match="voxels of 1 nm are too large for scaling_parameter = 0.1 nm"):
        noise = gaussian_random_field(Grid(32, 1.0), scaling_parameter=0.1, seed=1)
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.03  # neighbours know nothing of each other
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gaussian_random_field(Grid(32, 1.0), scaling_parameter=0.8, seed=1)  # the smallest a on the coarsest tier


@pytest.mark.parametrize(
    "density",
    [
        lambda q, a: np.where(np.abs(q / q[0] - 7**0.5) < 1e-9, 1.0, 0.0),  # 7 is no sum of three squares
        lambda q, a: np.full(q.shape, "1"),
        lambda q, a: np.ones(3),
        lambda q, a: 1 + 0j * q,
        lambda q, a: np.ma.masked_less(q, 1.0),
    ],
    ids=["no mode", "text", "another shape", "complex", "masked"],
)
def test_a_density_without_use_is_named(density):
    with pytest.raises(ValueError, match="^spectral_density"):
        gaussian_random_field(Grid(32, 1.0), scaling_parameter=1.0, seed=1, spectral_density=density)


@pytest.mark.parametrize("factor", [1e300, 1e-300])
def test_the_size_of_a_density_does_not_matter(factor):
    fields = [
        gaussian_random_field(
            Grid(16, 1.0), scaling_parameter=0.6, seed=1, spectral_density=lambda q, a, f=f: f * spectral_density(q, a)
        )
        for f in (1.0, factor)
    ]
    np.testing.assert_allclose(*fields, rtol=1e-5, atol=1e-6)  # a factor that is no power of two rounds


def test_memory_is_compared_before_any_work():
    for huge in (4096, 8192):
        with pytest.raises(MemoryError, match=rf"{huge}\^3 voxels need about \d+.*GiB are free; use a grid of at most"):
            gaussian_random_field(Grid(huge, 0.5), scaling_parameter=4.0, seed=1)
        with pytest.raises(MemoryError, match="are free"):
            simulate(Grid(huge, 0.5), scaling_parameter=4.0, porosity=0.5, seed=1)
