"""Maximum-likelihood fits: against curves of known parameters, and against a general optimiser."""

import numpy as np
import pytest
from scipy.optimize import least_squares

import grfsaxs_lib as gx
from grfsaxs_lib import emulator, likelihood, noise, reference

CASE = gx.CASES["two_phase_low"]


@pytest.fixture(scope="module")
def prepared():
    curves = reference.load(CASE.name, "train").isel(sample=slice(256))
    parameters = {name: curves[name].values for name in CASE.outputs}
    return likelihood.prepare(emulator.fit(CASE, curves["intensity"].values, parameters), n_bank=2**13)


@pytest.fixture(scope="module")
def measured(prepared):
    rng = np.random.default_rng(3)
    theta = {name: rng.uniform(*CASE.ranges[name], 600) for name in CASE.outputs}
    levels = noise.sample_noise_level(rng, 600)
    return theta, gx.add_noise(prepared.emulator.draw(theta, rng), levels, rng)


def test_errors_are_those_stated(prepared, measured):
    theta, intensity = measured
    estimates, errors = prepared.fit(intensity)
    for name in CASE.outputs:
        z = (estimates[name] - theta[name]) / errors[name]
        # The robust deviation of 600 has a standard error of 5 %; near the prior's ends errors are not normal.
        assert 0.8 < np.median(np.abs(z)) / 0.6745 < 1.3, name
        assert abs(np.median(z)) < 0.2, name


def test_a_general_optimiser_finds_the_same_maximum(prepared, measured):
    _, intensity = measured
    intensity = intensity[:200]
    estimates, errors = prepared.fit(intensity)
    low, high = prepared._limits
    theta = np.stack(list(estimates.values()), axis=1)
    inputs = prepared.inputs(intensity)
    curves = inputs[:, 2 * len(low) + 1 :]
    level = np.abs(inputs[:, 2 * len(low), np.newaxis] - np.log(likelihood._LEVELS)).argmin(axis=1)
    _, near = prepared._tree.query((theta - low) / (high - low))
    apart = []
    for i in range(200):  # the same weights: gain = covariance of the estimate times weighted slopes

        def residual(point, i=i):
            mean = prepared._averages(likelihood._normalised(prepared.emulator, point[np.newaxis])[0])
            return prepared._gain[level[i], near[i]] @ (curves[i] - mean)

        error = np.array([values[i] for values in errors.values()])
        start = np.clip(theta[i] + 0.3 * error, low + 1e-6, high - 1e-6)
        found = least_squares(residual, start, bounds=(low, high))
        apart.append((found.x - theta[i]) / error)
    # Two steps end within a part of the standard error of where many end: 95 % of 200 do (standard error 1.6 %).
    assert np.median(np.abs(apart)) < 0.1
    assert np.mean(np.abs(apart) < 0.5) > 0.9


def test_inputs_hold_fit_errors_noise_and_curve(prepared, measured):
    inputs = prepared.inputs(measured[1][:5])
    estimates, errors = prepared.fit(measured[1][:5])
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[:, 0], estimates["scaling_parameter"], rtol=1e-6)
    np.testing.assert_allclose(inputs[:, 3], errors["porosity"], rtol=1e-6)
    # The rebinned, normalised log intensity of a noiseless curve, against plain means.
    clean = prepared.emulator.draw(
        {name: [np.mean(CASE.ranges[name])] for name in CASE.outputs}, np.random.default_rng(0)
    )
    logs = np.log(gx.normalise_intensity(clean, gx.PAPER_Q))[0]
    assert prepared.inputs(clean)[0, 5] == pytest.approx(logs[:4].mean(), abs=1e-4)


@pytest.mark.parametrize("level", [1e2, 1e4, 3e5])
def test_noise_level_is_found(level):
    rng = np.random.default_rng(1)
    clean = reference.load("three_phase_high", "test")["intensity"].values[:200]
    found = noise.estimate_noise_level(gx.add_noise(clean, level, rng), gx.PAPER_Q)
    assert np.std(np.log(found)) < 0.25
    assert np.median(found) / level == pytest.approx(1, abs=0.12)


def test_bad_arguments_are_refused(prepared):
    with pytest.raises(ValueError, match="power of two"):
        likelihood.prepare(prepared.emulator, n_bank=100)
    with pytest.raises(ValueError, match=r"\(n_sample, 500\)"):
        prepared.fit(np.ones(500))
    with pytest.raises(ValueError, match="above 1.2"):
        noise.estimate_noise_level(np.ones(5), gx.PAPER_Q[:5])
