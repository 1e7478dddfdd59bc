"""From phases to the curve, Eqs. (1)-(4), against closed forms and a literal loop."""

import itertools
import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from grfsaxs_lib.grid import PAPER_Q, Grid, SmallBoxWarning
from grfsaxs_lib.physics.scattering import orientation_average, orientation_weight, scattering_intensity

SINGLE = float(np.finfo(np.float32).eps)
DENSITIES = (0.0, 0.65, 1.0)


def random_phases(size, seed=0):
    return np.random.default_rng(seed).integers(0, 3, (size,) * 3, dtype=np.uint8)


def sphere(size, radius):
    """Phases of a solid sphere around the middle of a voxel, radius in voxels."""
    square = (np.arange(size) - size // 2) ** 2
    return np.where(square[:, None, None] + square[:, None] + square <= radius**2, 2, 0).astype(np.uint8)


def sphere_power(q, radius):
    """|F|^2 of a solid sphere, [3 V (sin x - x cos x) / x^3]^2."""
    x = q * radius
    return (4 * np.pi * (np.sin(x) - x * np.cos(x)) / q**3) ** 2


def literal_average(rho, grid, q):
    """Eqs. (1)-(4) as they are printed: a sum over all modes, for one q after the other."""
    power = np.abs(np.fft.fftn(rho)) ** 2
    axis = grid.wave_numbers
    q_mode = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    intensity = []
    for one in q:
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.exp(-2 * ((q_mode - one) / grid.q_spacing) ** 2) / q_mode**2
        weight[0, 0, 0] = 0
        intensity.append(np.sum(weight * power) / np.sum(weight))
    return grid.intensity_scale * np.array(intensity)


# Orientation average --------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "voxel_size"), [(8, 1.0), (16, 0.5), (30, 1.5), (32, 1.0)])
def test_against_eqs_3_and_4_taken_literally(device, to_device, size, voxel_size):
    grid = Grid(size, voxel_size)
    q = np.linspace(0.1 * grid.q_spacing, grid.q_nyquist, 40)
    phases = random_phases(size)
    np.testing.assert_allclose(
        scattering_intensity(to_device(phases), grid, q, DENSITIES),
        literal_average(np.asarray(DENSITIES)[phases], grid, q),
        rtol=1e-6,  # float32 in the transform, ten units; weights below exp(-32) are left out
    )


@pytest.mark.parametrize("size", [8, 24, 64])
def test_weights_add_up_to_one(size):
    # If all modes hold the same power, so do all averages.
    grid = Grid(size, 1.0)
    q = np.linspace(0.01, grid.q_nyquist, 100)
    average, flat = orientation_average(grid, q), grid.shell_counts.astype(float)
    np.testing.assert_allclose(average(flat), grid.intensity_scale, rtol=1e-13)
    np.testing.assert_array_equal(average(flat), average(flat[: average.last_shell + 1]))
    # Batches go through the same matrix.
    batch = average(np.stack([flat, 3 * flat]))
    np.testing.assert_allclose(batch, grid.intensity_scale * np.array([[1.0], [3.0]]) * np.ones(100), rtol=1e-13)


def test_the_weight_is_eq_4():
    # A normal distribution in q of standard deviation q_spacing / 2, over q^2.
    assert orientation_weight(1.0, 1.0, 0.1) == 1
    assert orientation_weight(2.0, 2.0, 0.1) == 1 / 4
    assert orientation_weight(1.05, 1.0, 0.1) == pytest.approx(math.exp(-1 / 2) / 1.05**2, rel=1e-14)


def test_shells_that_the_paper_needs():
    # q up to 3 nm^-1 plus the reach of the average, four spacings.
    assert orientation_average(Grid(512, 0.5), PAPER_Q).last_shell == int((3 * 256 / (2 * np.pi) + 4) ** 2)


# Closed forms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_single_plane_wave(device, kernels, to_device, axis):
    # Phases 0, 1, 2, 1 of densities 0, 1/2, 1 are 1/2 - cos(2 pi x / 4) / 2: two modes, at N/4, of N^3 / 4.
    grid = Grid(16, 0.5)
    shape = [1, 1, 1]
    shape[axis] = 16
    phases = np.broadcast_to(np.tile(np.array([0, 1, 2, 1], np.uint8), 4).reshape(shape), (16,) * 3).copy()
    sums = kernels.shell_sums(to_device(phases), (0.0, 0.5, 1.0), 3 * 8**2)()
    expected = np.zeros(sums.size)
    expected[4**2] = 2 * (16**3 / 4) ** 2
    np.testing.assert_allclose(sums, expected, rtol=4 * SINGLE, atol=4 * SINGLE**2 * expected.max())

    q = np.linspace(0.2, 4.0, 50)
    squares = np.arange(1, 3 * 8**2 + 1)
    weights = orientation_weight(grid.q_spacing * np.sqrt(squares), q[:, None], grid.q_spacing)
    share = weights[:, 4**2 - 1] / (weights @ grid.shell_counts[1:])
    near = abs(q - 4 * grid.q_spacing) < 3.9 * grid.q_spacing  # within the reach of the average
    assert near.sum() > 30
    intensity = scattering_intensity(to_device(phases), grid, q, (0.0, 0.5, 1.0)) / grid.intensity_scale
    np.testing.assert_allclose(intensity[near], (share * expected[4**2])[near], rtol=1e-6)


@pytest.mark.parametrize("period", [8, 16, 32])
def test_flat_slabs(kernels, to_device, period):
    # Half solid, half pore: a geometric series, |F_n| = N^3 / period * |sin(pi n / 2) / sin(pi n / period)|.
    size = 32
    phases = np.zeros((size,) * 3, np.uint8)
    phases[np.arange(size) % period < period // 2] = 2
    sums = kernels.shell_sums(to_device(phases), DENSITIES, (size // 2) ** 2)()
    expected = np.zeros(sums.size)
    for n in range(1, period // 2 + 1):
        two_sides = 1 if n == period // 2 else 2
        wave_number = n * size // period
        amplitude = size**3 / period * math.sin(math.pi * n / 2) / math.sin(math.pi * n / period)
        expected[wave_number**2] = two_sides * amplitude**2
    np.testing.assert_allclose(sums, expected, rtol=4 * SINGLE, atol=16 * SINGLE**2 * expected.max())


def test_form_factor_of_a_sphere(device, to_device):
    grid, radius = Grid(96, 1.0), 16.4  # voxels of 1 nm; this radius holds 4 pi R^3 / 3 voxels to 0.1 %
    phases = sphere(grid.size, radius)
    volume = np.count_nonzero(phases) * grid.voxel_size**3
    radius = (volume / (4 / 3 * np.pi)) ** (1 / 3)
    q = np.linspace(0.1, 0.8, 60)
    average = orientation_average(grid, q)
    squares = np.arange(1, average.last_shell + 1)
    shells = np.concatenate([[0], grid.shell_counts[squares] * sphere_power(grid.q_spacing * np.sqrt(squares), radius)])
    expected = average(shells) / grid.intensity_scale
    found = scattering_intensity(to_device(phases), grid, q) / grid.intensity_scale
    # Each of 4 pi R^2 = 3300 surface voxels is misplaced by a variance of 1/12, which adds 280 to |F|^2 at
    # random and is 0.5 % of the envelope 8 pi^2 R^2 / q^4 at q = 0.8; in the minima, which the average
    # fills to a tenth of it or more, that is 5 % at the very most.
    assert (expected > 0.1 * 8 * np.pi**2 * radius**2 / q**4).all()
    np.testing.assert_allclose(found, expected, rtol=0.03)


def test_porod_of_a_sphere(device, to_device):
    # I(q) q^4 -> 2 pi S for |F|^2 of unit contrast, S = 4 pi R^2. Over whole periods of x = q R the mean of
    # the form factor is 1 + <1 / x^2> of that, and the average over a width s = q_spacing / 2 makes q^-4
    # larger by 10 (s / q)^2.
    grid, radius = Grid(96, 1.0), 24.2
    q = np.linspace(4 * np.pi, 10 * np.pi, 241)[:-1] / radius
    intensity = scattering_intensity(to_device(sphere(grid.size, radius)), grid, q) / grid.intensity_scale
    constant = intensity * q**4 / (2 * np.pi * 4 * np.pi * radius**2)
    expected = 1 + (q * radius) ** -2 + 10 * (grid.q_spacing / 2 / q) ** 2
    # 2 %: the stairs of the surface, of variance 1/12 voxel, add S / 12 to |F|^2: at q = 0.9 that is 0.9 %.
    assert np.mean(constant) == pytest.approx(np.mean(expected), rel=0.02)
    # The exponent, from three periods each: 2 % more or less in either over a factor 1.6 in q gives 0.08.
    lower, upper = (constant / expected).reshape(2, 120)
    q_lower, q_upper = np.exp(np.log(q.reshape(2, 120)).mean(axis=1))
    exponent = -4 + np.log(upper.mean() / lower.mean()) / np.log(q_upper / q_lower)
    assert exponent == pytest.approx(-4, abs=0.08)


# Symmetries -----------------------------------------------------------------------------------------


def test_babinet(device, to_device):
    # The mean does not scatter: exchanging the two phases leaves the curve as it is.
    grid, q = Grid(32, 1.0), np.linspace(0.2, 3.0, 40)
    phases = 2 * (random_phases(32) > 0).astype(np.uint8)
    one, other = (scattering_intensity(to_device(each), grid, q) for each in (phases, 2 - phases))
    np.testing.assert_allclose(one, other, rtol=20 * SINGLE)


def test_three_phases_mirror_only_at_half_density(device, to_device):
    grid, q = Grid(32, 1.0), np.linspace(0.2, 3.0, 40)
    # Not equally many of each phase, or the mirror image would be alike by symmetry.
    phases = np.digitize(np.random.default_rng(5).random((32, 32, 32)), [0.6, 0.9]).astype(np.uint8)
    curves = {
        layer: [scattering_intensity(to_device(each), grid, q, (0.0, layer, 1.0)) for each in (phases, 2 - phases)]
        for layer in (0.5, 0.65)
    }
    np.testing.assert_allclose(*curves[0.5], rtol=20 * SINGLE)
    assert (np.abs(curves[0.65][0] / curves[0.65][1] - 1) > 0.05).all()


@settings(max_examples=25)
@given(st.floats(-3, 3).filter(lambda factor: abs(factor) > 0.1), st.floats(-10, 10))
def test_only_density_differences_scatter(device, to_device, factor, offset):
    grid, q = Grid(16, 1.0), np.linspace(0.3, 3.0, 20)
    phases = to_device(random_phases(16))
    shifted = tuple(factor * density + offset for density in DENSITIES)
    np.testing.assert_allclose(
        scattering_intensity(phases, grid, q, shifted),
        factor**2 * scattering_intensity(phases, grid, q, DENSITIES),
        rtol=20 * SINGLE,
    )


def test_shifts_turns_and_mirrors_do_not_matter(device, to_device):
    grid, q = Grid(24, 1.0), np.linspace(0.2, 3.0, 40)
    phases = random_phases(24)
    phases[3:9, 5:20, 1:4] = 2  # no symmetry of its own
    reference = scattering_intensity(to_device(phases), grid, q)
    for axes in itertools.permutations(range(3)):
        moved = np.roll(phases.transpose(axes)[::-1, :, ::-1], (1, 7, 23), (0, 1, 2))
        np.testing.assert_allclose(
            scattering_intensity(to_device(np.ascontiguousarray(moved)), grid, q), reference, rtol=20 * SINGLE
        )


def test_views_are_as_good_as_arrays(device, to_device):
    grid, q = Grid(24, 1.0), np.linspace(0.2, 3.0, 40)
    phases = to_device(random_phases(24))[::-1].transpose(2, 0, 1)
    copy = to_device(phases.copy(order="C"))
    np.testing.assert_array_equal(scattering_intensity(phases, grid, q), scattering_intensity(copy, grid, q))


# Scale ----------------------------------------------------------------------------------------------


def test_intensity_scale_for_smaller_voxels(device, to_device):
    # Each voxel cut into 2^3 is the same density, so |F|^2 is the same but for the shape of a voxel, and
    # the scaled intensity tends to the same as q -> 0.
    coarse, fine = Grid(32, 1.0), Grid(64, 0.5)
    phases, q = random_phases(32), np.linspace(0.3, 0.8, 20)
    found = scattering_intensity(to_device(phases.repeat(2, 0).repeat(2, 1).repeat(2, 2)), fine, q)
    shape = np.cos(coarse.wave_numbers / 4)
    shape = shape[:, None, None] * shape[:, None] * shape
    smooth = np.fft.ifftn(np.fft.fftn(np.asarray(DENSITIES)[phases]) * shape)
    # Ten units of float32 in the transform.
    np.testing.assert_allclose(found, literal_average(smooth, coarse, q), rtol=10 * SINGLE)


def test_intensity_scale_for_larger_boxes(device, to_device):
    # Independent voxels: |F|^2 has the same mean at every q in any box; each average is over many modes.
    q = np.linspace(1.5, 3.0, 30)
    means = [
        scattering_intensity(to_device(random_phases(size, seed=3)), Grid(size, 1.0), q).mean() for size in (32, 64)
    ]
    # Half of about 1/2 of 32^3 modes are independent: a relative standard error of 1 %, four of them.
    variance = np.var(DENSITIES) * 512**3 / 0.5**3  # N^3 var, times intensity_scale
    np.testing.assert_allclose(means, variance, rtol=0.04)


# Boundaries -----------------------------------------------------------------------------------------

GRID = Grid(8, 1.0)
PHASES = random_phases(8)
GOOD_Q = [0.5, 1.0]


@pytest.mark.parametrize(
    "phases",
    [PHASES[0], PHASES[:, :4], PHASES.astype(float), PHASES.astype(int), PHASES.tolist(), None, random_phases(10)],
    ids=["square", "slab", "float64", "int", "list", "none", "another grid"],
)
def test_bad_phase_maps(phases):
    with pytest.raises(ValueError, match=r"^phases must be an array of uint8 of shape \(8, 8, 8\); got "):
        scattering_intensity(phases, GRID, GOOD_Q)


@given(st.integers(3, 255))
def test_unknown_phases(value):
    phases = PHASES.copy()
    phases[4, 0, 7] = value
    with pytest.raises(ValueError, match=rf"^phases must be 0 \(pore\), 1 \(layer\) or 2 \(solid\); got {value}$"):
        scattering_intensity(phases, GRID, GOOD_Q)


@pytest.mark.parametrize(
    "densities",
    [(0, 1), (0, 0.5, 1, 2), 1.0, None, "abc", (0, 0.5, np.nan), (0, np.inf, 1), (0, 1j, 1), [[0], [1], [2]], {}],
    ids=str,
)
def test_bad_densities(densities):
    with pytest.raises(ValueError, match=r"^densities must be three finite numbers \(pore, layer, solid\); got "):
        scattering_intensity(PHASES, GRID, GOOD_Q, densities)


@pytest.mark.parametrize("q", [[], 0.5, [1.0, 0.5], [0.0, 1.0], [0.5, np.nan], [1.0, 3.2], "q", [1, 2j]], ids=str)
def test_bad_q(q):
    with pytest.raises(ValueError, match="^q "):
        scattering_intensity(PHASES, GRID, q)


@pytest.mark.parametrize("grid", [8, None, (8, 1.0)])
def test_bad_grids(grid):
    with pytest.raises(ValueError, match="^grid must be a Grid"):
        scattering_intensity(PHASES, grid, GOOD_Q)


def test_a_masked_phase_is_refused():
    """Its number may lie outside the table of densities, of which the maximum of a masked array says nothing."""
    phases = np.random.default_rng(0).integers(0, 3, (16, 16, 16)).astype(np.uint8)
    phases[1, 2, 3] = 200
    with pytest.raises(ValueError, match="phases has 1 masked element"):
        scattering_intensity(np.ma.masked_greater(phases, 2), Grid(16, 1.0), [1.0])
    with pytest.raises(ValueError, match="got 200"):
        scattering_intensity(np.ma.masked_array(phases), Grid(16, 1.0), [1.0])


def test_q_below_the_smallest_wave_is_warned_of(to_device):
    grid, phases = Grid(16, 1.0), to_device(np.eye(16, dtype=np.uint8)[np.newaxis].repeat(16, axis=0))
    with pytest.warns(SmallBoxWarning, match=r"no wave below q = 2\*pi/L = 0.3927 nm\^-1; at 2 of 3 q values"):
        scattering_intensity(phases, grid, [0.1, 0.3, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scattering_intensity(phases, grid, [0.4, 1.0])


def test_an_average_is_prepared_once():
    one = orientation_average(Grid(32, 1.0), np.linspace(0.4, 3.0, 20))
    assert orientation_average(Grid(32, 1.0), np.linspace(0.4, 3.0, 20)) is one
    assert orientation_average(Grid(32, 1.0), np.linspace(0.4, 2.9, 20)) is not one
