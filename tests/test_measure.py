"""Simulated measurements: each curve's level and noise are those that its key gives by NumPy's own generator."""

import numpy as np
import pytest

from grfsaxs_lib.datasets import keys, measure
from grfsaxs_lib.measurement.noise import add_noise, sample_noise_level

CURVES = np.geomspace(1e10, 1e3, 100 * 9).reshape(100, 9)  # more than one block


def test_a_measurement_is_that_of_the_generator_of_its_key():
    indices = np.arange(7, 107)
    noisy, noise_level = measure.measure(CURVES, "anyone", "validation", indices, 3)
    for n, key in enumerate(keys.keys("anyone", "validation", indices, "noise", 3)):
        rng = np.random.default_rng(int(key))
        assert noise_level[n] == sample_noise_level(rng)
        np.testing.assert_array_equal(noisy[n], add_noise(CURVES[n], noise_level[n], rng))


def test_measurements_can_take_the_place_of_the_curves():
    clean = CURVES.astype(np.float32)
    noisy, _ = measure.measure(clean, "anyone", "train", np.arange(100))
    assert noisy.dtype == np.float32 and not np.shares_memory(noisy, clean)
    same, _ = measure.measure(clean, "anyone", "train", np.arange(100), out=clean)
    assert same is clean
    np.testing.assert_array_equal(same, noisy)


@pytest.mark.parametrize("bad", [0.0, -1.0, np.nan])
def test_what_is_no_curve_is_refused_by_its_position(bad):
    curves = CURVES.copy()
    curves[90, 4] = bad
    with pytest.raises(ValueError, match=r"intensity must lie in .*at index \[90, 4\]"):
        measure.measure(curves, "anyone", "train", np.arange(100))
