"""From field to phases, Eqs. (8)-(10): volumes, shapes, and the deep tail of the filter."""

import math
import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import fft, ndimage, special

from grfsaxs_lib.grid import Grid
from grfsaxs_lib.parameters import CASES
from grfsaxs_lib.physics.field import gaussian_random_field
from grfsaxs_lib.physics.structure import LAYER, PORE, SOLID, gaussian_taps, phase_map

DEEPEST = {"porosity": 0.9, "layer_fraction": 0.5}  # at a = 8 nm: the thickest layer of the paper's prior


def make_field(device, grid, a, seed):
    """A field in a box that may be far too short for its statistics: geometry is all that is asked for."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return gaussian_random_field(grid, scaling_parameter=a, seed=seed, device=device)


def cut(values, *fractions):
    """Phases from quantiles, by sorting."""
    ranks = [round(fraction * values.size) for fraction in fractions]
    ordered = np.sort(values, axis=None)
    return sum((values > ordered[rank - 1]).astype(np.uint8) for rank in ranks)


def log_smoothed(binary, sigma):
    """Logarithm of the periodic Gaussian filter, not normalised: nothing can underflow or be cut off."""
    shifts = np.arange(len(binary))
    log_weight = special.logsumexp([-0.5 * ((shifts + n * len(binary)) / sigma) ** 2 for n in range(-3, 4)], axis=0)
    log_sum = np.where(binary, 0.0, -np.inf)
    for axis in range(3):
        terms = (np.roll(log_sum, shift, axis) + log_weight[shift] for shift in shifts)
        total = np.full(binary.shape, -np.inf)
        for term in terms:
            np.logaddexp(total, term, out=total)
        log_sum = total
    return log_sum


def distance_to(solid):
    """Distance [voxel] to the nearest solid voxel of the periodic cube."""
    size = len(solid)
    return ndimage.distance_transform_edt(np.pad(~solid, size // 2, mode="wrap"))[(slice(size // 2, -size // 2),) * 3]


def is_shell(phases, distance, sigma):
    """Whether the layer can be that of a Gaussian filter, judged by the distance of each voxel to the solid.

    At a distance d from the solid, the filter holds at least its weight at d (a single solid voxel) and
    at most all its weight beyond d (solid everywhere beyond). Each layer voxel must hold more than each
    pore voxel.
    """
    deepest_layer, nearest_pore = distance[phases == LAYER].max(), distance[phases == PORE].min()
    # Of a Gaussian in three dimensions, beyond r sigma: erfc(r / sqrt 2) + sqrt(2 / pi) r exp(-r^2 / 2). A
    # sum over voxels exceeds the integral by at most moving each voxel inwards by half its diagonal.
    r = (deepest_layer - math.sqrt(3) / 2) / sigma
    most = math.log(special.erfcx(r / math.sqrt(2)) + math.sqrt(2 / math.pi) * r) - r**2 / 2
    least = 3 * math.log(gaussian_taps(sigma, math.ceil(37 * sigma), float)[0]) - 0.5 * (nearest_pore / sigma) ** 2
    return most >= least


# The filter -----------------------------------------------------------------------------------------


@given(st.floats(0.1, 10.0), st.floats(2.0, 12.0))
def test_taps_are_half_a_normalised_gaussian(sigma, reach):
    taps = gaussian_taps(sigma, math.ceil(reach * sigma), np.float64)
    assert taps[0] + 2 * taps[1:].sum() == pytest.approx(1, rel=1e-14)
    # Exponents of up to 200 multiply the rounding of their argument.
    np.testing.assert_allclose(taps, taps[0] * np.exp(-(np.arange(taps.size) ** 2) / (2 * sigma**2)), rtol=2e-13)


# Phases against a reference that cannot underflow ---------------------------------------------------


@pytest.mark.parametrize(
    ("a", "porosity", "layer_fraction", "log_threshold"),
    [
        (8.0, 0.9, 0.5, (-150, -80)),  # float64
        (8.0, 0.7, 0.5, (-60, -20)),
        (5.0, 0.85, 0.4, (-40, -15)),
        (4.0, 0.6, 0.5, (-15, -5)),
        (1.5, 0.9, 0.5, (-10, 0)),
        (0.8, 0.1, 0.05, (0, 3)),
        (8.0, 0.9, 0.0, (0, 3)),
        (0.8, 0.1, 0.0, (0, 3)),
    ],
)
def test_phases_are_those_of_an_exact_filter(device, to_host, a, porosity, layer_fraction, log_threshold):
    # Voxels of 1 nm and a filter of 1 nm: the physics of the paper in fewer voxels.
    field = make_field(device, Grid(64, 1.0), a, seed=1)
    phases = phase_map(field, porosity=porosity, layer_fraction=layer_fraction, smoothing_sigma=1.0)
    smoothed = log_smoothed(cut(to_host(field), porosity), 1.0)
    fractions = (porosity * (1 - layer_fraction), porosity)
    expected = cut(smoothed, *fractions)
    assert log_threshold[0] < smoothed[expected == PORE].max() < log_threshold[1]  # as deep as it should be
    # Rounding (3e-6) and truncation (1e-5) may exchange voxels that lie that close to a threshold: a share of
    # 1e-5 of the voxels per unit of the logarithm around it, three of 64^3 for one.
    assert np.count_nonzero(to_host(phases) != expected) <= 3


# Volumes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("corner", ["low", "high", "low a", "high a", "inside"])
def test_volumes_are_exact_over_the_prior(device, to_host, case, corner):
    ranges = CASES[case].ranges
    pick = {"low": (0, 0, 0), "high": (1, 1, 1), "low a": (0, 1, 1), "high a": (1, 0, 0), "inside": (0.4, 0.3, 0.7)}
    a, porosity, *layer = (
        low + t * (high - low) for t, (low, high) in zip(pick[corner], ranges.values(), strict=False)
    )
    nu = layer[0] if layer else 0.0
    field = make_field(device, Grid(48, 0.5), a, seed=11)
    phases = to_host(phase_map(field, porosity=porosity, layer_fraction=nu, smoothing_sigma=2.0))
    assert phases.dtype == np.uint8
    # Exact: floats of a random structure do not tie.
    counts = np.bincount(phases.ravel(), minlength=3)
    assert counts[PORE] == round(porosity * (1 - nu) * 48**3)
    assert counts[SOLID] == 48**3 - round(porosity * 48**3)


@settings(max_examples=40)
@given(st.floats(0.02, 0.98), st.floats(0.0, 0.95), st.floats(0.5, 3.0))
def test_volumes_are_exact_beyond_the_prior(device, to_host, porosity, layer_fraction, sigma):
    field = make_field(device, Grid(24, 1.0), 0.9, seed=2)
    phases = to_host(phase_map(field, porosity=porosity, layer_fraction=layer_fraction, smoothing_sigma=sigma))
    n_low = [np.count_nonzero(phases <= phase) for phase in (PORE, LAYER)]
    expected = [round(fraction * 24**3) for fraction in (porosity * (1 - layer_fraction), porosity)]
    # A pore or grain of a single voxel looks the same from up to 48 sides: those are true ties.
    assert all(0 <= found - n <= 48 for found, n in zip(n_low, expected, strict=True))


@settings(max_examples=40)
@given(st.floats(0.001, 0.999))
def test_without_a_filter_the_field_itself_is_cut(device, to_host, porosity):
    field = make_field(device, Grid(24, 1.0), 0.9, seed=4)
    phases = to_host(phase_map(field, porosity=porosity, smoothing_sigma=0))
    n_pore = round(porosity * 24**3)
    host = to_host(field)
    lowest = np.argsort(host, axis=None)[:n_pore]
    expected = np.full(host.size, SOLID)
    expected[lowest] = PORE
    np.testing.assert_array_equal(phases, expected.reshape(host.shape))


def test_ties_stay_together(to_device, to_host):
    # Eq. (8): all voxels equal to the threshold are pore.
    field = np.zeros((8, 8, 8), np.float32)
    field[0] = 1
    for porosity, n_pore in ((0.5, 448), (0.1, 448), (0.9, 512)):
        phases = to_host(phase_map(to_device(field), porosity=porosity, smoothing_sigma=0))
        assert np.count_nonzero(phases == PORE) == n_pore


# Shapes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "voxel_size", "seed"), [(96, 0.5, 2), (64, 1.0, 1), (64, 1.0, 2), (64, 1.0, 3)])
def test_the_deepest_layer_is_a_shell_and_needs_float64(device, kernels, to_host, monkeypatch, size, voxel_size, seed):
    used, smooth = [], kernels.smooth

    def spy(binary, taps, *planes):
        used.append(taps.dtype)
        return smooth(binary, taps, *planes)

    monkeypatch.setattr(kernels, "smooth", spy)
    sigma = 1.0 / voxel_size  # 1 nm
    field = make_field(device, Grid(size, voxel_size), 8.0, seed)
    phases = to_host(phase_map(field, **DEEPEST, smoothing_sigma=sigma))
    assert used[-1] == np.float64
    n_pore, n_solid = round(0.45 * size**3), size**3 - round(0.9 * size**3)
    np.testing.assert_array_equal(np.bincount(phases.ravel()), [n_pore, size**3 - n_pore - n_solid, n_solid])
    distance = distance_to(cut(to_host(field), 0.9) == 1)
    assert is_shell(phases, distance, sigma)
    # No speckle: the median pore voxel is deeper than every layer voxel, and the layer holds on to the solid
    # of the first threshold (the second one melts small grains). It is thinner than the half box around.
    assert np.median(distance[phases == PORE]) > distance[phases == LAYER].max()
    half = size // 2
    parts, _ = ndimage.label(np.pad(phases, half, mode="wrap") != PORE)
    holding = np.unique(parts[np.pad(distance, half, mode="wrap") == 0])
    middle = parts[half:-half, half:-half, half:-half]
    assert set(np.unique(middle[phases == LAYER])) <= set(holding)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_filter_by_fft_gives_no_shell(device, to_host, dtype):
    # The failure that the real-space filter is there for; and the test above can fail.
    solid = cut(to_host(make_field(device, Grid(64, 1.0), 8.0, seed=1)), 0.9) == 1
    transfer = np.exp(-0.5 * (2 * np.pi * np.fft.fftfreq(64)) ** 2).astype(dtype)
    transfer = transfer[:, None, None] * transfer[:, None] * transfer
    smoothed = fft.ifftn(fft.fftn(solid.astype(dtype)) * transfer).real
    assert smoothed.dtype == dtype
    assert not is_shell(cut(smoothed, 0.45, 0.9), distance_to(solid), 1.0)


@pytest.mark.parametrize(("a", "porosity"), [(0.8, 0.5), (2.0, 0.3), (4.0, 0.7)])
def test_the_layer_is_taken_from_the_pores(device, to_host, a, porosity):
    field = make_field(device, Grid(64, 0.5), a, seed=6)
    maps = [to_host(phase_map(field, porosity=porosity, layer_fraction=nu)) for nu in (0, 0.2, 0.5)]
    for thinner, thicker in zip(maps, maps[1:], strict=False):
        # Wider kernels sum in another order; a voxel in 1e5 may sit on the threshold.
        assert np.count_nonzero((thinner == SOLID) != (thicker == SOLID)) <= 3
        assert np.count_nonzero((thicker == PORE) & (thinner != PORE)) <= 3
    assert not (maps[0] == LAYER).any()


@pytest.mark.parametrize("porosity", [0.1, 0.25, 0.5])
def test_babinet_of_the_structure(device, to_host, porosity):
    # The filter is linear: the complement of the field gives the complement of the phases.
    field = make_field(device, Grid(64, 1.0), 1.5, seed=8)
    phases = to_host(phase_map(field, porosity=porosity, smoothing_sigma=1.0))
    mirrored = to_host(phase_map(-field, porosity=1 - porosity, smoothing_sigma=1.0))
    assert np.count_nonzero(phases != SOLID - mirrored) <= 3  # rounding of 1 - psi'' at the threshold


def test_the_filter_is_periodic(device, to_device, to_host):
    field = to_host(make_field(device, Grid(48, 1.0), 1.5, seed=9))
    shift = (5, 17, 40)
    parameters = {"porosity": 0.6, "layer_fraction": 0.3, "smoothing_sigma": 1.0}
    there = to_host(phase_map(to_device(np.roll(field, shift, (0, 1, 2))), **parameters))
    here = to_host(phase_map(to_device(field), **parameters))
    np.testing.assert_array_equal(there, np.roll(here, shift, (0, 1, 2)))


# Boundaries -----------------------------------------------------------------------------------------

outside_open = st.floats(max_value=0) | st.floats(min_value=1) | st.just(math.nan)
CUBE = np.zeros((8, 8, 8), np.float32)


@given(outside_open)
def test_bad_porosities(porosity):
    with pytest.raises(ValueError, match=r"^porosity must lie in \(0, 1\); got "):
        phase_map(CUBE, porosity=porosity)


@given(outside_open.filter(lambda fraction: fraction != 0))
def test_bad_layer_fractions(layer_fraction):
    with pytest.raises(ValueError, match=r"^layer_fraction must lie in \[0, 1\); got "):
        phase_map(CUBE, porosity=0.5, layer_fraction=layer_fraction)


@given(st.floats(max_value=0, exclude_max=True) | st.sampled_from([math.nan, math.inf]))
def test_bad_smoothing(sigma):
    with pytest.raises(ValueError, match=r"^smoothing_sigma must lie in \[0, inf\) voxel; got "):
        phase_map(CUBE, porosity=0.5, smoothing_sigma=sigma)


def test_the_filter_must_fit_the_box():
    field = np.random.default_rng(0).random(CUBE.shape, np.float32)
    phase_map(field, porosity=0.5, smoothing_sigma=1.0)
    with pytest.raises(ValueError, match="smoothing_sigma must be at most an eighth of the 8 voxels"):
        phase_map(field, porosity=0.5, smoothing_sigma=1.01)


@pytest.mark.parametrize("name", ["porosity", "layer_fraction", "smoothing_sigma"])
def test_one_structure_at_a_time(name):
    with pytest.raises(ValueError, match=rf"^{name} must be a single number here; got an array of shape \(2,\)"):
        phase_map(CUBE, **({"porosity": 0.5} | {name: [0.5, 0.6]}))


@pytest.mark.parametrize("porosity", [1e-4, 0.9999])
def test_a_phase_without_a_voxel(porosity):
    with pytest.raises(ValueError, match=f"^porosity {porosity:g} leaves no pore or no solid among 8"):
        phase_map(CUBE, porosity=porosity, smoothing_sigma=1.0)


def test_a_layer_needs_smoothing():
    with pytest.raises(ValueError, match="layer_fraction > 0 asks for smoothing_sigma > 0"):
        phase_map(CUBE, porosity=0.5, layer_fraction=0.1, smoothing_sigma=0)


@pytest.mark.parametrize(
    "field",
    [CUBE[0], CUBE[:, :4], CUBE.astype(float), CUBE.astype(int), CUBE.tolist(), None, CUBE[None]],
    ids=["square", "slab", "float64", "int", "list", "none", "four axes"],
)
def test_bad_fields(field):
    with pytest.raises(ValueError, match=r"^field must be a cubic \(N, N, N\) array of float32; got "):
        phase_map(field, porosity=0.5)


def test_a_layer_beyond_the_reach_of_the_filter(to_device):
    # One grain in a large pore, and a filter so narrow that float64 underflows before the layer ends.
    field = np.zeros((64, 64, 64), np.float32)
    field[0, 0, 0] = 1
    field[1:] -= 1  # no ties at the first threshold
    with pytest.raises(ValueError, match="layer_fraction 0.9 cuts deeper than 37 "):
        phase_map(to_device(field), porosity=1 - 1 / field.size, layer_fraction=0.9, smoothing_sigma=0.5)


@pytest.mark.parametrize("value, message", [(0.0, "it is 0 everywhere"), (2.5, "it is 2.5 everywhere")])
def test_a_constant_field_is_called_that(to_device, value, message):
    with pytest.raises(ValueError, match=message):
        phase_map(to_device(np.full((16, 16, 16), value, np.float32)), porosity=0.5, layer_fraction=0.2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_field_must_be_finite(to_device, value):
    field = np.random.default_rng(0).standard_normal((16, 16, 16), np.float32)
    field[3, 4, 5] = value
    with pytest.raises(ValueError, match="field must be finite"):
        phase_map(to_device(field), porosity=0.5, layer_fraction=0.2)


def test_labels_and_masks_of_a_field():
    field = gaussian_random_field(Grid(32, 1.0), scaling_parameter=1.2, seed=1)
    expected = phase_map(field, porosity=0.5, layer_fraction=0.2)
    for same in (xr.DataArray(field), np.ma.masked_greater(field, 1e3)):
        np.testing.assert_array_equal(phase_map(same, porosity=0.5, layer_fraction=0.2), expected)
    with pytest.raises(ValueError, match="field has 1 masked element"):
        phase_map(np.ma.masked_equal(field, field[1, 2, 3]), porosity=0.5, layer_fraction=0.2)
