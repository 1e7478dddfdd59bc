"""Measurement noise: its moments, its prior, and what it refuses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grfsaxs_lib.datasets import reference
from grfsaxs_lib.grid import PAPER_Q
from grfsaxs_lib.measurement.noise import NOISE_LEVEL_RANGE, add_noise, is_noise_strange, sample_noise_level

intensities = hnp.arrays(
    np.float64, hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), elements=st.floats(1e-2, 1e16)
)


@pytest.mark.parametrize("ratio", [1e-3, 0.1, 1.0])
def test_mean_and_variance(ratio):
    """Mean I and variance alpha I, within five standard errors of the estimates."""
    n, I = 200_000, 2e5  # noqa: E741
    alpha = ratio * I
    noisy = add_noise(np.full(n, I), alpha, np.random.default_rng(1))
    assert abs(noisy.mean() - I) < 5 * np.sqrt(alpha * I / n)
    squares = (noisy - noisy.mean()) ** 2
    assert abs(squares.mean() - alpha * I) < 5 * squares.std() / np.sqrt(n)


def test_logarithm_is_normal():
    """log(noisy) has mean ln I - s^2/2 and variance s^2 = ln(1 + alpha/I), within five standard errors."""
    n, I, alpha = 200_000, 50.0, 20.0  # noqa: E741
    logs = np.log(add_noise(np.full(n, I), alpha, np.random.default_rng(2)))
    s2 = np.log(1 + alpha / I)
    assert abs(logs.mean() - (np.log(I) - s2 / 2)) < 5 * np.sqrt(s2 / n)
    assert abs(logs.var() - s2) < 5 * s2 * np.sqrt(2 / n)
    z = (logs - logs.mean()) / logs.std()
    assert abs((z**3).mean()) < 5 * np.sqrt(6 / n)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(24 / n)


def test_noise_is_independent_between_q_and_curves():
    """No correlation between columns or rows, within five standard errors 1/sqrt(n)."""
    noisy = add_noise(np.full((10_000, 4), 1e3), 10.0, np.random.default_rng(3))
    correlation = np.corrcoef(noisy.T)[np.triu_indices(4, 1)]
    neighbours = np.corrcoef(noisy[:-1, 0], noisy[1:, 0])[0, 1]
    assert np.abs([*correlation, neighbours]).max() < 5 / np.sqrt(10_000)


def test_a_level_for_each_curve_is_that_level_on_that_curve():
    intensity = np.geomspace(1e8, 1e4, 50) * np.ones((2, 3, 1))
    levels = np.array([[0.0, 1e2, 1e3], [1e4, 1e5, 1e6]])
    together = add_noise(intensity, levels, np.random.default_rng(4))
    for index in np.ndindex(2, 3):
        alone = add_noise(intensity, levels[index], np.random.default_rng(4))
        np.testing.assert_array_equal(together[index], alone[index])


def test_prior_is_log_uniform():
    """Kolmogorov-Smirnov distance to the uniform below 1.63/sqrt(n), its 1 % point."""
    levels = sample_noise_level(np.random.default_rng(5), 20_000)
    assert NOISE_LEVEL_RANGE[0] <= levels.min() and levels.max() <= NOISE_LEVEL_RANGE[1]
    uniform = np.sort((np.log10(levels) - 2) / 3.5)
    assert np.abs(uniform - (np.arange(20_000) + 0.5) / 20_000).max() < 1.63 / np.sqrt(20_000)
    assert np.ndim(sample_noise_level(np.random.default_rng(5))) == 0


@given(intensities, st.floats(0, 1e8), st.integers(0, 2**32))
def test_noisy_curves_stay_positive_and_reproducible(intensity, level, seed):
    before = intensity.copy()
    noisy = add_noise(intensity, level, np.random.default_rng(seed))
    assert noisy.shape == intensity.shape and (noisy > 0).all() and np.isfinite(noisy).all()
    np.testing.assert_array_equal(noisy, add_noise(intensity, level, np.random.default_rng(seed)))
    np.testing.assert_array_equal(intensity, before)


@given(intensities)
def test_no_noise_at_level_zero(intensity):
    result = add_noise(intensity, 0, np.random.default_rng(0))
    np.testing.assert_array_equal(result, intensity)
    assert not np.shares_memory(result, intensity)


@given(intensities, st.sampled_from([np.nan, np.inf, -np.inf, 0.0, -1.0, -1e-300]), st.data())
def test_one_bad_intensity_is_refused(intensity, bad, data):
    intensity.flat[data.draw(st.integers(0, intensity.size - 1))] = bad
    with pytest.raises(ValueError, match=r"intensity must lie in \(0, inf\)"):
        add_noise(intensity, 1.0, np.random.default_rng(0))


@given(st.one_of(st.floats(max_value=0, exclude_max=True), st.sampled_from([np.nan, np.inf])))
def test_a_bad_noise_level_is_refused(level):
    with pytest.raises(ValueError, match=r"noise_level must lie in \[0, inf\)"):
        add_noise(np.ones(3), level, np.random.default_rng(0))


def test_shapes_that_do_not_fit_are_refused():
    rng = np.random.default_rng(0)
    for shape in [(3,), (4, 1), (2, 4), (4, 5)]:
        with pytest.raises(ValueError, match="one a curve"):
            add_noise(np.ones((4, 5)), np.ones(shape), rng)
    with pytest.raises(ValueError, match="last axis"):
        add_noise(1.0, 1.0, rng)


@pytest.mark.parametrize("rng", [None, 0, np.random.RandomState(0)])
def test_only_a_generator_is_a_source_of_randomness(rng):
    with pytest.raises(TypeError, match="Generator"):
        add_noise(np.ones(3), 1.0, rng)


@pytest.mark.parametrize("intensity", [1e-310, 1e-200, 1e-290])
def test_noise_that_no_float_holds_is_refused(intensity):
    """Its lognormal underflows to 0, or overflows to NaN."""
    with pytest.raises(ValueError, match="paper's scale"):
        add_noise(np.full(1000, intensity), 1e3, np.random.default_rng(0))


def test_a_strange_noise_is_found_and_a_usual_one_is_not():
    rng = np.random.default_rng(0)
    clean = reference.load("two_phase_low", "test")["intensity"].values[:300].astype(np.float64)
    curves = add_noise(clean, sample_noise_level(rng, 300), rng)
    assert not is_noise_strange(curves, PAPER_Q).any() and not is_noise_strange(clean, PAPER_Q).any()
    hot = curves.copy()
    hot[np.arange(300), rng.integers(220, 490, 300)] *= 100
    assert is_noise_strange(hot, PAPER_Q).mean() > 0.97
    assert is_noise_strange(1e6 * curves, PAPER_Q).mean() > 0.97
