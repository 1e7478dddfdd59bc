"""What voxels do to a layer, found in made-up curves. Notebook 06 compares two cases that share no structure."""

import numpy as np
import pytest

from grfsaxs_lib.emulator import voxel_correction
from grfsaxs_lib.emulator.settings import DEFAULT
from grfsaxs_lib.grid import PAPER_Q


def effect(thickness):
    """One that grows with q and repeats at each voxel."""
    return 0.004 * np.sin(2 * np.pi * thickness)[:, np.newaxis] * PAPER_Q / PAPER_Q[-1]


@pytest.fixture(scope="module")
def made_up():
    rng = np.random.default_rng(0)
    thickness, scatter = rng.uniform(0, 6, 1200), rng.uniform(0.1, 4, 1200)
    noise = 0.006 * np.sqrt(scatter)[:, np.newaxis] * rng.standard_normal((1200, PAPER_Q.size))
    return thickness, scatter, noise


def test_an_effect_is_found(made_up):
    thickness, scatter, noise = made_up
    table = voxel_correction.learn(thickness, effect(thickness) + noise, scatter, PAPER_Q)
    inside = np.linspace(0.3, 5.7, 109)
    found, true = voxel_correction.look_up(table, inside), effect(inside)
    # Some 60 curves within a length of 0.15 to 0.3 voxel and 25 q values each: 2e-4, twice that for light ones.
    assert np.sqrt(np.mean((found - true) ** 2)) < 6e-4
    high = PAPER_Q > 2
    assert np.corrcoef(found[:, high].ravel(), true[:, high].ravel())[0, 1] > 0.97


def test_noise_is_not_taken_for_an_effect(made_up):
    thickness, scatter, noise = made_up
    assert np.sqrt(np.mean(voxel_correction.learn(thickness, noise, scatter, PAPER_Q) ** 2)) < 3e-4


def test_outliers_do_not_count(made_up):
    thickness, scatter, noise = made_up
    residuals = effect(thickness) + noise
    residuals[::200] += 1.0
    table = voxel_correction.learn(thickness, residuals, scatter, PAPER_Q)
    inside = np.linspace(0.3, 5.7, 109)
    assert np.sqrt(np.mean((voxel_correction.look_up(table, inside) - effect(inside)) ** 2)) < 1e-3


def test_look_up_is_linear_and_ends():
    table = np.arange(4.0)[:, np.newaxis] * np.ones(3)
    step = voxel_correction._STEP * DEFAULT.voxel_length
    thickness = DEFAULT.voxel_growth * np.expm1(step * np.array([0, 0.5, 2.25, 99]))
    np.testing.assert_allclose(voxel_correction.look_up(table, thickness)[:, 0], [0, 0.5, 2.25, 3], atol=2e-3)


def test_the_length_grows_with_the_thickness():
    thickness, h = np.array([0.0, 6.0, 20.0]), 1e-4
    above, below = (voxel_correction._position(x, DEFAULT) for x in (thickness + h, thickness))
    np.testing.assert_allclose(DEFAULT.voxel_length / ((above - below) / h), 0.15 + thickness / 40, rtol=1e-4)  # voxels
