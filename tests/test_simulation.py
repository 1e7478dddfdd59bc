"""Parameters to curve: identities of Gaussian fields, a textbook simulator, and the interface."""

import itertools
import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage, stats

from grfsaxs_lib.grid import Grid, SmallBoxWarning
from grfsaxs_lib.physics import backend
from grfsaxs_lib.physics.field import gaussian_random_field, mode_amplitudes, spectral_density
from grfsaxs_lib.physics.scattering import orientation_average, scattering_intensity
from grfsaxs_lib.physics.simulation import plane_and_curve, simulate
from grfsaxs_lib.physics.structure import phase_map


def shell_index(size):
    """n = i^2 + j^2 + k^2 of each mode of the full cube, in FFT order."""
    square = np.fft.fftfreq(size, 1 / size).astype(int) ** 2
    return square[:, None, None] + square[:, None] + square


# Against theory -------------------------------------------------------------------------------------


def expected_level_cut(grid, a, porosity, q):
    r"""Expected I(q) of the field cut at a fixed threshold T.

    The autocovariance of the indicator is (1 / 2 pi) int_0^{arcsin g} exp(-T^2 / (1 + sin t)) dt, with g the
    autocorrelation of the field; its discrete transform is the mean |F|^2, aliasing included.
    """
    n = shell_index(grid.size)
    amplitude = mode_amplitudes(grid, a)
    power = np.pad(amplitude**2, (0, grid.shell_counts.size - amplitude.size))[n]
    angle = np.arcsin(np.clip(np.fft.ifftn(power).real * grid.size**3, -1, 1))
    threshold = stats.norm.ppf(porosity)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    covariance = sum(
        weight / 2 * np.exp(-(threshold**2) / (1 + np.sin(angle * (node + 1) / 2)))
        for node, weight in zip(nodes, weights, strict=True)
    )
    covariance *= angle / (2 * np.pi)
    assert covariance[0, 0, 0] == pytest.approx(porosity * (1 - porosity), rel=1e-9)
    power = np.fft.fftn(covariance).real * grid.size**3
    return orientation_average(grid, q)(np.bincount(n.ravel(), power.ravel()))


@pytest.mark.parametrize("porosity", [0.3, 0.9])
def test_level_cut_of_a_gaussian_field(device, porosity):
    # A box of 48 a and shells from the third on: the bias from cutting at the sample's own quantile is small.
    grid, a, n_sample = Grid(48, 1.0), 1.0, 300
    q = grid.q_spacing * np.arange(3, 20)
    curves = simulate(
        grid, scaling_parameter=a, porosity=porosity, seed=np.arange(n_sample), q=q, device=device, smoothing_sigma=0
    )
    ratio = curves / expected_level_cut(grid, a, porosity, q)
    error = ratio.std(axis=0, ddof=1) / np.sqrt(n_sample)
    # Two standard errors are 1.2 % on the third shell, less than 0.5 % from the sixth.
    assert np.abs(ratio.mean(axis=0) - 1).max() < 0.0125
    assert np.abs(ratio.mean(axis=0)[3:] - 1).max() < 0.01
    assert abs(ratio.mean() - 1) < 0.002
    # 17 values of q, hardly correlated: a mean square of 3 is beyond the 0.01 % point.
    assert np.mean(((ratio.mean(axis=0) - 1) / error) ** 2) < 3


def textbook_curve(grid, a, porosity, layer_fraction, sigma, densities, q, rng):
    """Eqs. (1)-(10) with NumPy and SciPy in float64, step by step and from other random numbers."""
    axis = grid.wave_numbers
    q_mode = np.sqrt(axis[:, None, None] ** 2 + axis[:, None] ** 2 + axis**2)
    noise = np.fft.fftn(rng.normal(size=q_mode.shape))
    field = np.fft.ifftn(noise / (1 + (a * q_mode) ** 8)).real  # Gamma^1/2
    binary = (field > np.quantile(field, porosity)).astype(float)
    smoothed = ndimage.gaussian_filter(binary, sigma, mode="wrap", truncate=12)
    lower, upper = np.quantile(smoothed, [porosity * (1 - layer_fraction), porosity])
    rho = np.asarray(densities)[(smoothed > lower).astype(int) + (smoothed > upper)]
    power = np.abs(np.fft.fftn(rho)) ** 2
    power[0, 0, 0], q_mode[0, 0, 0] = 0, np.inf  # w_q(0) = 0
    curve = []
    for one in q:
        weight = np.exp(-2 * ((q_mode - one) / grid.q_spacing) ** 2) / q_mode**2
        curve.append(np.sum(weight * power) / np.sum(weight))
    return grid.intensity_scale * np.array(curve)


@pytest.mark.parametrize(
    ("a", "porosity", "layer_fraction"), [(1.0, 0.6, 0.4), (1.2, 0.2, 0.0)], ids=["three phases", "two phases"]
)
def test_against_a_textbook_simulator(device, a, porosity, layer_fraction):
    grid, sigma, densities, n_sample = Grid(32, 1.0), 1.0, (0.0, 0.65, 1.0), 120
    q = grid.q_spacing * np.array([1, 2.5, 4, 5.5, 7, 8.5, 10, 11.5, 13, 14.5])
    textbook = np.array(
        [
            textbook_curve(grid, a, porosity, layer_fraction, sigma, densities, q, np.random.default_rng(n))
            for n in range(n_sample)
        ]
    )
    ours = simulate(
        grid,
        scaling_parameter=a,
        porosity=porosity,
        layer_fraction=layer_fraction,
        seed=np.arange(n_sample),
        q=q,
        device=device,
        densities=densities,
        smoothing_sigma=sigma,
    )
    difference = ours.mean(axis=0) - textbook.mean(axis=0)
    error = np.sqrt((ours.var(axis=0, ddof=1) + textbook.var(axis=0, ddof=1)) / n_sample)
    assert np.abs(difference / error).max() < 4  # of ten values; 0.06 % of all choices of the seeds
    assert (error < 0.012 * textbook.mean(axis=0))[2:].all()  # so what differs by 5 % is seen
    # The scatter of single curves is the same, too: F test, 0.1 % for ten values of q.
    spread = ours.var(axis=0, ddof=1) / textbook.var(axis=0, ddof=1)
    low, high = stats.f.ppf([5e-5, 1 - 5e-5], n_sample - 1, n_sample - 1)
    assert (low < spread).all() and (spread < high).all()


def test_babinet(device):
    # psi and -psi are equally likely: porosity and 1 - porosity give the same mean curve in two phases.
    grid, q, n_sample = Grid(32, 1.0), np.linspace(0.4, 2.8, 8), 100
    low, high = (
        simulate(
            grid,
            scaling_parameter=1.2,
            porosity=porosity,
            seed=first + np.arange(n_sample),
            q=q,
            device=device,
            smoothing_sigma=1.0,
        )
        for porosity, first in ((0.25, 0), (0.75, 1000))
    )
    z = low.mean(axis=0) - high.mean(axis=0)
    z /= np.sqrt((low.var(axis=0, ddof=1) + high.var(axis=0, ddof=1)) / n_sample)
    assert np.abs(z).max() < 4


def test_one_structure_on_a_finer_grid(device):
    # The same seed in the same box is the same structure: voxels of 0.5 nm instead of 1 nm, the filter 1 nm.
    q = np.linspace(0.16, 1.2, 12)
    curves = [
        simulate(
            Grid(size, 40 / size),
            scaling_parameter=1.35,
            porosity=0.4,
            layer_fraction=0.3,
            seed=3,
            q=q,
            device=device,
            smoothing_sigma=size / 40,
        )
        for size in (40, 80)
    ]
    # A voxel averages over its width, I(q) (1 - q^2 / 12), and aliasing adds about as much: 3 % at q = 0.6,
    # four times that at 1.2, of which the two cancel a part.
    np.testing.assert_allclose(curves[0][q < 0.6], curves[1][q < 0.6], rtol=0.03)
    np.testing.assert_allclose(curves[0], curves[1], rtol=0.1)


def test_one_material_in_a_larger_box(device):
    # Where the curve is smooth on the scale of q_spacing: the average over q_spacing / 2 makes q^-4 larger by
    # 10 (q_spacing / 2 q)^2, 2.4 % of it in the smaller box at q = 2 and a quarter of that in the larger.
    q, n_small = np.linspace(2.0, 3.0, 8), 80
    small, large = (
        simulate(
            Grid(size, 1.0),
            scaling_parameter=1.0,
            porosity=0.3,
            seed=np.arange(number),
            q=q,
            device=device,
            smoothing_sigma=1.0,
        )
        for size, number in ((32, n_small), (64, n_small // 8))
    )
    # As many voxels in either: the bands have standard errors of 0.5 %, four of their difference are 3 %.
    assert small.mean() == pytest.approx(large.mean(), rel=0.03 + 0.024)
    error = np.sqrt(small.mean(axis=1).var(ddof=1) / n_small + large.mean(axis=1).var(ddof=1) / (n_small // 8))
    assert error < 0.0075 * large.mean()


# Interface ------------------------------------------------------------------------------------------

GRID = Grid(24, 1.0)
Q = np.linspace(0.3, 3.0, 7)
GOOD = {"scaling_parameter": 0.9, "porosity": 0.5, "layer_fraction": 0.2, "seed": 1, "q": Q, "smoothing_sigma": 1.0}


def test_simulate_composes_the_three_steps(device, to_host):
    field = gaussian_random_field(GRID, scaling_parameter=0.9, seed=1, device=device)
    phases = phase_map(field, porosity=0.5, layer_fraction=0.2, smoothing_sigma=1.0)
    expected = scattering_intensity(phases, GRID, Q, (0.1, 0.4, 0.8))
    found = simulate(GRID, **GOOD, device=device, densities=(0.1, 0.4, 0.8))
    assert found.shape == (7,) and found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)
    plane, curve = plane_and_curve(GRID, **GOOD, device=device)
    np.testing.assert_array_equal(curve, simulate(GRID, **GOOD, device=device))
    np.testing.assert_array_equal(plane, to_host(phases)[:, :, 0])


def test_parameters_and_seeds_broadcast(device):
    a, porosity, seeds = (
        np.array([0.8, 0.9]),
        np.array([[0.3], [0.5], [0.8]]),
        np.array([[[4]], [[2**63]]], np.uint64),
    )
    curves = simulate(GRID, **GOOD | {"scaling_parameter": a, "porosity": porosity, "seed": seeds}, device=device)
    assert curves.shape == (2, 3, 2, 7)
    for n, p, s in itertools.product(range(2), range(3), range(2)):
        one = GOOD | {"scaling_parameter": a[n], "porosity": porosity[p, 0], "seed": int(seeds[s, 0, 0])}
        np.testing.assert_array_equal(curves[s, p, n], simulate(GRID, **one, device=device))


@settings(max_examples=10)
@given(st.permutations(range(6)))
def test_the_order_of_a_batch_does_not_matter(device, order):
    seeds, porosities = np.arange(6), np.linspace(0.2, 0.8, 6)
    ordered = simulate(GRID, **GOOD | {"seed": seeds, "porosity": porosities}, device=device)
    shuffled = simulate(GRID, **GOOD | {"seed": seeds[order], "porosity": porosities[order]}, device=device)
    np.testing.assert_array_equal(shuffled, ordered[order])  # bit by bit


@pytest.mark.parametrize("seed", [[2**63, 1], [2**64 - 1, 0], (7, np.uint64(2**64 - 1)), np.arange(2, dtype=np.uint8)])
def test_seeds_of_any_integer_type(device, seed):
    curves = simulate(GRID, **GOOD | {"seed": seed}, device=device)
    for one, curve in zip(seed, curves, strict=True):
        np.testing.assert_array_equal(simulate(GRID, **GOOD | {"seed": int(one)}, device=device), curve)


def test_no_structures_no_curves(device):
    assert simulate(GRID, **GOOD | {"seed": []}, device=device).shape == (0, 7)


def test_progress_counts_structures(device):
    steps = []
    simulate(GRID, **GOOD | {"seed": [1, 2, 3]}, device=device, progress=steps.append)
    assert steps == [1, 1, 1]


def test_another_spectral_density(device):
    def sharper(q, a):
        return spectral_density(q, a) ** 2

    field = gaussian_random_field(GRID, scaling_parameter=0.9, seed=1, device=device, spectral_density=sharper)
    expected = scattering_intensity(phase_map(field, porosity=0.5, layer_fraction=0.2, smoothing_sigma=1.0), GRID, Q)
    found = simulate(GRID, **GOOD, device=device, spectral_density=sharper)
    np.testing.assert_array_equal(found, expected)
    assert (found != simulate(GRID, **GOOD, device=device)).all()


def test_a_short_box_is_warned_of(device):
    with pytest.warns(SmallBoxWarning, match="shorter than 8") as said:
        simulate(GRID, **GOOD | {"scaling_parameter": [1.0, 0.9, 1.1]}, device=device)
    assert len(said) == 1 and said[0].filename == __file__  # once for all structures, at the line that asks for them
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        simulate(GRID, **GOOD, device=device)


# Boundaries -----------------------------------------------------------------------------------------

fractions_outside = st.floats(max_value=0, exclude_max=True) | st.floats(min_value=1) | st.just(np.nan)
BAD = {
    "scaling_parameter": st.floats(max_value=0) | st.sampled_from([np.nan, np.inf, "wide", 1j, [1.0, -1.0]]),
    "porosity": fractions_outside | st.sampled_from([0.0, [0.5, 1.5], "half", None, 1e-9, 1 - 1e-9]),
    "layer_fraction": fractions_outside | st.sampled_from([[0.1, 1.0], "some"]),
    "smoothing_sigma": st.floats(max_value=0, exclude_max=True) | st.sampled_from([np.nan, [1, 2], 1e9, 0.0]),
    "seed": st.one_of(
        st.integers(max_value=-1),
        st.integers(min_value=2**64),
        st.floats(),
        st.booleans(),
        st.sampled_from([None, "1", [1, -1], [1, 2.5]]),
    ),
    "q": st.sampled_from([[], 1.0, [[1.0]], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0], [-1.0], [np.nan], [1.0, 3.2], "q"]),
    "densities": st.sampled_from([(0, 1), (0, 1, np.nan), "abc", None, (0, 1, 1j)]),
    "device": st.sampled_from(["cuda", "GPU", "", None, 0]),
}


class TooLateError(AssertionError):
    """Work was started before the input was checked."""


@settings(max_examples=200)
@given(st.sampled_from(sorted(BAD)).flatmap(lambda name: st.tuples(st.just(name), BAD[name])))
def test_bad_input_is_refused_before_any_work(case):
    name, value = case
    with pytest.MonkeyPatch.context() as patch:

        def start(*_):
            raise TooLateError

        patch.setattr(backend.get_kernels("cpu"), "gaussian_random_field", start)
        with pytest.raises(ValueError) as caught:
            simulate(GRID, **GOOD | {name: value})
    # The message names the variable (a layer without smoothing is named by the layer).
    assert name in str(caught.value)


@pytest.mark.parametrize("grid", [24, None, (24, 1.0)])
def test_bad_grids(grid):
    with pytest.raises(ValueError, match="^grid must be a Grid"):
        simulate(grid, **GOOD)


def test_shapes_that_do_not_broadcast():
    with pytest.raises(ValueError, match="shape mismatch"):
        simulate(GRID, **GOOD | {"porosity": [0.2, 0.3], "seed": [1, 2, 3]})


def test_a_device_that_is_not_there(monkeypatch):
    # Even where there is a GPU: without CuPy nothing can use it.
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(backend.DeviceError, match="device='gpu' needs CuPy.*use device='cpu'"):
        simulate(GRID, **GOOD, device="gpu")


# Memory ---------------------------------------------------------------------------------------------

PEAK = """
import re, warnings
from pathlib import Path
from grfsaxs_lib.grid import Grid
from grfsaxs_lib.physics.simulation import simulate
warnings.simplefilter("ignore")
def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
def run(size):
    simulate(Grid(size, 0.5), scaling_parameter=8.0, porosity=0.9, layer_fraction=0.5, seed=1)
run(64)
Path("/proc/self/clear_refs").write_text("5")  # forget the peak of imports and compilation
before = memory("VmRSS")
run(192)
print(before, memory("VmHWM"))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are read from /proc")
def test_memory_of_the_paper_grid_stays_below_3_gib():
    # All 3-D arrays grow with N^3: what 192^3 adds to the process, times (512 / 192)^3, and the process
    # itself. The deepest layer of the prior, smoothed in float64, needs most.
    result = subprocess.run([sys.executable, "-c", PEAK], check=True, capture_output=True, text=True)
    before, peak = map(int, result.stdout.split())
    assert peak - before > 8 * 192**3  # the smoothed indicator in float64, at least
    assert before + (peak - before) * (512 / 192) ** 3 < 3 * 2**30


def test_memory_used_again_changes_nothing(device, to_host):
    grid, cut = Grid(48, 1.0), {"porosity": 0.6, "layer_fraction": 0.4}
    fresh = gaussian_random_field(grid, scaling_parameter=1.5, seed=2, device=device)
    again = gaussian_random_field(grid, scaling_parameter=0.9, seed=1, device=device)
    again = gaussian_random_field(grid, scaling_parameter=1.5, seed=2, device=device, out=again)
    assert np.array_equal(to_host(again), to_host(fresh))
    kept = to_host(fresh).copy()
    phases = phase_map(fresh, **cut)
    assert np.array_equal(to_host(fresh), kept)
    assert np.array_equal(to_host(phase_map(again, **cut, overwrite_field=True)), to_host(phases))
    with pytest.raises(ValueError, match="out must be a contiguous array of float32"):
        gaussian_random_field(Grid(16, 0.5), scaling_parameter=0.9, seed=1, device=device, out=fresh)
