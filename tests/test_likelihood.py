"""Fits and posteriors through an emulator: against known parameters, a general optimiser, and sums over a grid."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import interpolate
from scipy.linalg import cho_factor, cho_solve
from scipy.optimize import least_squares

import grfsaxs_lib as gx
from grfsaxs_lib.datasets import reference
from grfsaxs_lib.emulator import coordinates, emulator, residuals
from grfsaxs_lib.inference import curve_model, likelihood, optimise, posterior, spline
from grfsaxs_lib.inference.settings import DEFAULT
from grfsaxs_lib.measurement import noise
from grfsaxs_lib.measurement.preprocess import average

CASE = gx.CASES["two_phase_low"]
RNG = 3


@pytest.fixture(scope="module")
def learned():
    curves = reference.load(CASE.name, "train").isel(sample=slice(256))
    return emulator.fit(CASE, curves["intensity"].values, {name: curves[name].values for name in CASE.outputs})


@pytest.fixture(scope="module")
def prepared(learned):
    return likelihood.prepare(learned)


@pytest.fixture(scope="module")
def three_phases():
    case = gx.CASES["three_phase_high"]
    curves = reference.load(case.name, "train").isel(sample=slice(128))
    learned = emulator.fit(case, curves["intensity"].values, {name: curves[name].values for name in case.outputs})
    return likelihood.prepare(learned)


@pytest.fixture(scope="module")
def measured(learned):
    rng = np.random.default_rng(RNG)
    theta = {name: rng.uniform(*CASE.ranges[name], 600) for name in CASE.outputs}
    levels = noise.sample_noise_level(rng, 600)
    return theta, gx.add_noise(learned.draw(theta, rng), levels, rng)


def mean_of(prepared, theta):
    """Averaged curves of the emulator itself, without tables of the likelihood."""
    outputs = prepared.emulator.case.outputs
    intensity = np.exp(prepared.emulator.mean(dict(zip(outputs, np.atleast_2d(theta).T, strict=True))))
    return average(np.log(gx.normalise_intensity(intensity, gx.PAPER_Q)), prepared.model.edges)


def tabulated(prepared, theta):
    """Averaged curves and deviations S from the tables of the likelihood."""
    points = curve_model.padded(coordinates.to_coordinates(prepared.emulator.case, theta))
    return spline.look_up(points, prepared.model.table, prepared.model.deviation)


def covariance_at(prepared, theta, variance, curve):
    _, (deviation,) = tabulated(prepared, theta[np.newaxis])
    (shares,) = prepared.model.invariant_shares(curve[np.newaxis])
    normalise = np.eye(curve.size) - shares
    noise_part = normalise @ np.diag(variance) @ normalise.T + np.sum(shares**2 * variance)
    case, correlations = prepared.emulator.case, prepared.model.correlations
    (knot,) = curve_model.knot_positions(case, coordinates.to_coordinates(case, theta[np.newaxis]), DEFAULT)
    correlation = interpolate.interp1d(np.arange(len(correlations)), correlations, axis=0)(knot)
    return correlation * deviation * deviation[:, np.newaxis] + noise_part


def test_errors_are_those_stated(prepared, measured):
    theta, intensity = measured
    estimates, errors, _ = prepared.fit(intensity)
    for name in CASE.outputs:
        z = (estimates[name] - theta[name]) / errors[name]
        # The robust deviation of 600 has a standard error of 5 %; near the prior's ends errors are not normal.
        assert 0.8 < np.median(np.abs(z)) / 0.6745 < 1.3, name
        assert abs(np.median(z)) < 0.2, name


def test_a_general_optimiser_finds_no_better_maximum(prepared, measured):
    theta, intensity = (np.stack(list(measured[0].values()), axis=1)[:60], measured[1][:60])
    curves, variance, _ = prepared.average(intensity)
    estimates = np.stack(list(prepared.fit(intensity)[0].values()), axis=1)
    low, high = np.transpose([CASE.ranges[name] for name in CASE.outputs])
    worse = []
    for curve, noise_variance, true, found in zip(curves, variance, theta, estimates, strict=True):
        factor = np.linalg.cholesky(covariance_at(prepared, found, noise_variance, curve))

        def residual(point, curve=curve, factor=factor):
            return np.linalg.solve(factor, curve - tabulated(prepared, point[np.newaxis])[0][0])

        start = np.clip(true, low + 1e-6, high - 1e-6)
        best = least_squares(residual, start, bounds=(low, high), x_scale=high - low)
        worse.append(np.sum(residual(found) ** 2) / 2 - best.cost)
    # An eighth in log likelihood is half a standard error. Where there are two maxima, the covariance that chooses
    # between them is not yet that of the better one.
    assert np.mean(np.array(worse) > 0.125) < 0.05


def test_tables_hold_the_curves_of_the_emulator(prepared, three_phases):
    for this in (prepared, three_phases):
        limits = coordinates.prior_limits(this.emulator.case)
        theta = np.random.default_rng(RNG).uniform(*limits, (200, limits.shape[1]))
        curves, deviations = tabulated(this, theta)
        errors = (curves - mean_of(this, theta)) / deviations
        # Of the scatter of a box; the roughness of processes at neighbouring nodes is smoothed.
        assert np.sqrt(np.mean(errors**2)) < 0.1, this.emulator.case.name


def test_posterior_is_that_of_a_sum_over_a_grid(prepared):
    rng = np.random.default_rng(RNG)
    theta = {"scaling_parameter": np.array([2.5, 4.0, 6.0, 7.0]), "porosity": np.array([0.2, 0.35, 0.3, 0.46])}
    curves, variance = prepared.draw(theta, np.full(4, 1e4), rng)
    draws = prepared.posterior(curves, variance, rng, 2000)["porosity"]
    porosity = np.linspace(0.1, 0.5, 161)
    for i, a in enumerate(theta["scaling_parameter"]):
        grid = np.stack(np.meshgrid(np.linspace(0.85, 1.15, 121) * a, porosity, indexing="ij"), axis=-1).reshape(-1, 2)
        grid[:, 0] = np.minimum(grid[:, 0], 8)
        point = np.array([a, theta["porosity"][i]])
        factor = cho_factor(covariance_at(prepared, point, variance[i], curves[i]))
        residual = curves[i] - mean_of(prepared, grid)
        value = -np.sum(residual.T * cho_solve(factor, residual.T), axis=0) / 2
        weight = np.exp(value - value.max()).reshape(121, 161).sum(axis=0)
        weight /= weight.sum()
        mean = weight @ porosity
        sd = np.sqrt(weight @ (porosity - mean) ** 2)
        # 2000 draws of an efficiency of a half: a standard error of 0.03 sd; the covariance is taken at other points.
        assert abs(draws[i].mean() - mean) < 0.25 * sd
        assert draws[i].std() == pytest.approx(sd, rel=0.25)


def test_posterior_covers_what_its_own_model_draws(prepared):
    rng = np.random.default_rng(RNG)
    theta = {name: rng.uniform(*CASE.ranges[name], 600) for name in CASE.outputs}
    curves, variance = prepared.draw(theta, noise.sample_noise_level(rng, 600), rng)
    draws = prepared.posterior(curves, variance, rng)
    for name in CASE.outputs:
        rank = np.mean(draws[name] < theta[name][:, np.newaxis], axis=1)
        assert rank.mean() == pytest.approx(0.5, abs=0.04)  # standard error 0.012
        assert np.mean(np.abs(rank - 0.5) < 0.4) == pytest.approx(0.8, abs=0.06)  # 0.016


def test_a_larger_box_says_more(prepared):
    rng = np.random.default_rng(RNG)
    theta = {name: rng.uniform(*CASE.ranges[name], 200) for name in CASE.outputs}
    spread = {}
    for volume in (1, 8, np.inf):
        this = prepared.in_volume(volume)
        draws = this.posterior(*this.draw(theta, np.full(200, 1e4), rng), rng)
        spread[volume] = np.median(draws["scaling_parameter"].std(axis=1))
    assert spread[8] == pytest.approx(spread[1] / np.sqrt(8), rel=0.3)  # the scale shift alone would make it exact
    assert spread[np.inf] < spread[8] / 3


def test_the_scale_shift_is_removed_inside_the_prior(prepared):
    for effective in (0.79, 0.801, 4.0, 7.95, 8.1):
        sd = prepared.emulator.scale_shift_sd(np.array([[effective, 0.3]])).item()
        theta = np.tile([effective, 0.3], (20_000, 1))
        drawn, log_weight = posterior.remove_scale_shift(prepared.model, theta, np.random.default_rng(RNG))
        weight = np.exp(log_weight)
        ends = np.clip(np.log(effective) + np.array([-6, 6]) * sd, *np.log(CASE.ranges["scaling_parameter"]))
        a = np.linspace(ends[0], max(ends[1], ends[0] + 2 * sd), 4001)
        size = prepared.emulator.scale_shift_sd(np.column_stack([np.exp(a), np.full(a.size, 0.3)]))
        logs = a - ((a - np.log(effective)) / size) ** 2 / 2 - np.log(size)
        density = np.exp(logs - logs.max())
        expected = density @ np.exp(a) / density.sum()
        assert drawn[:, 0].min() >= 0.8 and drawn[:, 0].max() <= 8
        # Shifted by a half to one and a half of sd at the end of the prior; 20 000 draws know a hundredth of it.
        assert weight @ drawn[:, 0] / weight.sum() == pytest.approx(expected, abs=0.03 * sd * effective)


@pytest.mark.parametrize("volume", [1.0, 64.0, np.inf])
@pytest.mark.parametrize("effective, end", [(1e-3, 0.8), (0.5, 0.8), (0.76, 0.8), (8.6, 8.0), (30.0, 8.0), (1e4, 8.0)])
def test_scales_outside_the_prior_come_from_its_nearest_end(prepared, effective, end, volume):
    """However small the tail of the scale shift is there: it underflows from 38 deviations on."""
    this = prepared.in_volume(volume)
    theta = np.tile([effective, 0.3], (2000, 1))
    drawn, log_weight = posterior.remove_scale_shift(this.model, theta, np.random.default_rng(RNG))
    assert np.isfinite(log_weight).all()
    # The tail beyond a distance d falls off over sd^2 / d at most, and over a deviation where d is small.
    sd = this.model.scale_shift_sd(theta[:1]).item()
    assert np.abs(drawn[:, 0] / end - 1).max() < 12 * sd
    assert ((drawn[:, 0] >= 0.8) & (drawn[:, 0] <= 8.0)).all()


@pytest.fixture(scope="module")
def outside_the_prior():
    """A real structure of a = 0.76 nm, which no uniform prior from 0.8 nm on holds."""
    curve = gx.simulate(gx.PAPER_GRID, scaling_parameter=0.76, porosity=0.3, seed=1)
    return gx.add_noise(curve[np.newaxis], 1e3, np.random.default_rng(0))


def test_a_structure_below_the_prior_is_put_at_its_lower_end_and_warned_of(prepared, outside_the_prior):
    with pytest.warns(likelihood.MisfitWarning, match="beyond the prior"):
        estimates, _, _ = prepared.fit(outside_the_prior)
    assert estimates["scaling_parameter"] == pytest.approx(0.8)
    for this in (prepared, prepared.in_volume(np.inf)):
        with pytest.warns(likelihood.MisfitWarning):
            draws = this.posterior(*this.average(outside_the_prior)[:2], np.random.default_rng(0))
        assert draws["scaling_parameter"].max() < 0.81


def bad_curves():
    """What is not of the model, by name."""
    q, rng = gx.PAPER_Q, np.random.default_rng(0)
    real = reference.load(CASE.name, "test")["intensity"].values[7].astype(np.float64)
    layered = reference.load("three_phase_high", "test").isel(sample=slice(64))
    layered = layered["intensity"].values[layered["layer_fraction"].values > 0.2][0].astype(np.float64)
    x = 5 * q
    return {
        "constant": np.full(q.size, 1e9),
        "noise": 1e8 * np.exp(rng.standard_normal(q.size)),
        "line": 1e9 * (4 - q),
        "spike at low q": real * np.where(np.arange(q.size) == 20, 1e3, 1),
        "hot pixel at high q": real * np.where(np.arange(q.size) == 400, 30, 1),
        "three phases": layered,
        "tiny": 1e-200 * real,
        "on another scale": 1e6 * gx.add_noise(real, 1e4, rng),
        "background": real + 1e6,
        "power law": 1e8 * q**-4,
        "spheres": 1e12 * (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2 + 10,
        "Guinier": 1e12 * np.exp(-((4 * q) ** 2) / 5) + 1e3,
    }


@pytest.mark.parametrize("name", bad_curves())
def test_curves_that_do_not_fit_are_warned_of(prepared, name):
    with pytest.warns(likelihood.MisfitWarning, match=r"1 of 1 curves \(index 0\)"):
        prepared.fit(bad_curves()[name][np.newaxis])


def warned_of(prepared, curves):
    """Share of curves that single fits warn of."""
    count = 0
    for curve in curves:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            prepared.fit(curve[np.newaxis])
        count += any(issubclass(warning.category, likelihood.MisfitWarning) for warning in caught)
    return count / len(curves)


def test_real_curves_are_hardly_ever_warned_of(prepared):
    real = reference.load(CASE.name, "test")["intensity"].values[:500]
    rng = np.random.default_rng(RNG)
    curves = gx.add_noise(real, noise.sample_noise_level(rng, len(real)), rng)
    assert warned_of(prepared, curves) <= 0.02
    # Of 79 to 80 numbers, a box's scatter that neighbours state to 10 %: 1 within a few per cent on the average.
    assert np.median(prepared.fit(curves).chi_square) == pytest.approx(1, abs=0.2)


def test_chi_square_is_that_of_the_stated_covariance(prepared, measured):
    intensity = measured[1][:40]
    curves, variance, _ = prepared.average(intensity)
    estimates, _, chi_square = prepared.fit(intensity)
    found = np.stack(list(estimates.values()), axis=1)
    expected = []
    for curve, noise_variance, point in zip(curves, variance, found, strict=True):
        covariance = covariance_at(prepared, point, noise_variance, curve)
        residual = curve - tabulated(prepared, point[np.newaxis])[0][0]
        expected.append(residual @ np.linalg.solve(covariance, residual) / (curve.size - 2))
    # The covariance is taken where the optimisation began, and estimates are moved inside the prior.
    np.testing.assert_allclose(np.median(chi_square / expected), 1, atol=0.02)
    draws = prepared.posterior(curves, variance, np.random.default_rng(0), 8)
    np.testing.assert_allclose(np.median(draws.chi_square / chi_square), 1, atol=0.02)


def test_no_curves_give_no_estimates(prepared):
    estimates, errors, chi_square = prepared.fit(np.empty((0, gx.PAPER_Q.size)))
    assert estimates["porosity"].shape == errors["porosity"].shape == chi_square.shape == (0,)
    draws = prepared.posterior(np.empty((0, 80)), np.empty((0, 80)), np.random.default_rng(0), 7)
    assert draws["porosity"].shape == (0, 7)


def test_the_prior_is_uniform_in_the_parameters():
    case = gx.CASES["three_phase_high"]
    empty = SimpleNamespace(case=case)
    flat = curve_model.CurveModel(empty, *[None] * 6)
    low, high = coordinates.prior_limits(case)
    theta = np.random.default_rng(RNG).uniform(low, high, (200, 3))
    x = coordinates.to_coordinates(case, theta)
    h = 1e-6 * np.eye(3)
    columns = [coordinates.from_coordinates(case, x + d) - coordinates.from_coordinates(case, x - d) for d in h]
    logs = np.log(np.abs(np.linalg.det(np.stack(columns, axis=-1) / 2e-6)))
    np.testing.assert_allclose(np.diff(flat.log_prior(x[np.newaxis])[0] - logs), 0, atol=1e-4)


def test_noise_of_normalised_curves_has_the_covariance_stated(prepared):
    rng, count = np.random.default_rng(RNG), 4000
    clean = prepared.emulator.draw({"scaling_parameter": [2.0], "porosity": [0.3]}, rng)
    curves, _, _ = prepared.average(gx.add_noise(np.repeat(clean, count, axis=0), np.full(count, 1e4), rng))
    found = np.cov(curves.T)
    variance = prepared.model.average_variance(np.log1p(1e4 / clean))
    average, _, _ = prepared.average(clean)
    shares = prepared.model.invariant_shares(average)
    none = np.zeros_like(prepared.model.deviation)
    tables = none, prepared.model.correlations, np.zeros(1), np.zeros((1, 3, 3)), prepared.model.table
    (factor,) = optimise.covariance_factors(np.zeros((1, 3)), variance, shares, *tables)
    expected = factor @ factor.T - np.sum(shares**2 * variance)  # what was added once more
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    # Each has a standard error of a sixtieth; without the invariant the off-diagonals are 0, here up to a half.
    assert np.abs((found - expected) / scale).max() < 0.1
    assert np.abs(expected - np.diag(np.diag(expected)))[:10, :10].max() > 0.2 * expected[0, 0]


def test_correlations_of_drawn_curves_are_those_between_two_knots(prepared):
    rng, n = np.random.default_rng(RNG), prepared.model.edges.size
    factors = rng.uniform(-0.2, 1, (17, n, 2 * n))
    factors /= np.linalg.norm(factors, axis=2, keepdims=True)
    correlations = factors @ np.swapaxes(factors, 1, 2)
    drawn = replace(prepared.model, correlations=correlations).correlated(np.full((20_000, 3), 0.03), rng)
    expected = interpolate.interp1d(np.linspace(-1, 1, 17), correlations, axis=0)(0.03)
    # A covariance of 20 000 has a standard error of at most 0.01; the largest of thousands.
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.05)
    assert np.abs(correlations[8] - expected).max() > 0.05  # another knot would be seen


def test_knots_of_three_phases_are_even_in_the_thickness_of_the_layer(three_phases):
    case, rng = three_phases.emulator.case, np.random.default_rng(RNG)
    theta = np.stack([rng.uniform(*case.ranges[name], 100) for name in case.outputs], axis=1)
    thickness = theta[:, 0] * coordinates.layer_thickness(*theta[:, 1:].T)
    expected = np.interp(np.log(thickness), np.log([0.3, 8.0]), [0, 16])
    np.testing.assert_allclose(
        curve_model.knot_positions(case, coordinates.to_coordinates(case, theta), DEFAULT), expected
    )


def test_three_phase_posteriors_cover_what_their_own_model_draws(three_phases):
    case, rng = three_phases.emulator.case, np.random.default_rng(RNG)
    theta = {name: rng.uniform(*case.ranges[name], 300) for name in case.outputs}
    draws = three_phases.posterior(*three_phases.draw(theta, noise.sample_noise_level(rng, 300), rng), rng)
    for name in case.outputs:
        rank = np.mean(draws[name] < theta[name][:, np.newaxis], axis=1)
        assert rank.mean() == pytest.approx(0.5, abs=0.06)  # standard error 0.017
        assert np.mean(np.abs(rank - 0.5) < 0.4) == pytest.approx(0.8, abs=0.08)  # 0.023


def test_inputs_hold_fit_errors_noise_and_curve(prepared, measured):
    inputs = prepared.inputs(measured[1][:5])
    estimates, errors, _ = prepared.fit(measured[1][:5])
    assert inputs.dtype == np.float32
    np.testing.assert_allclose(inputs[:, 0], estimates["scaling_parameter"], rtol=1e-6)
    np.testing.assert_allclose(inputs[:, 3], errors["porosity"], rtol=1e-6)
    # The rebinned, normalised log intensity of a noiseless curve, against plain means.
    clean = prepared.emulator.draw(
        {name: [np.mean(CASE.ranges[name])] for name in CASE.outputs}, np.random.default_rng(0)
    )
    logs = np.log(gx.normalise_intensity(clean, gx.PAPER_Q))[0]
    assert prepared.inputs(clean)[0, 5] == pytest.approx(logs[:4].mean(), abs=1e-4)


@pytest.fixture(scope="module")
def offset(three_phases):
    """A likelihood with known offsets: k^2 is 0.5 for the scale, 2 for the porosity, and grows for the layer."""
    offsets = np.zeros((3, 10))
    offsets[:, 0] = np.log([0.5, 2.0, 1.0])
    offsets[2, 2:4] = 0.7
    return replace(three_phases, model=replace(three_phases.model, offsets=offsets))


def test_offsets_enter_the_covariance_as_stated(three_phases, offset):
    case, rng = three_phases.emulator.case, np.random.default_rng(RNG)
    theta = np.stack([rng.uniform(*case.ranges[name], 5) for name in case.outputs], axis=1)
    curves, variance = three_phases.draw(dict(zip(case.outputs, theta.T, strict=True)), np.full(5, 1e3), rng)
    points, h = coordinates.to_coordinates(case, theta), 1e-4
    table, deviation = three_phases.model.table, three_phases.model.deviation
    slopes = [
        (spline.look_up(points + d, table, deviation)[0] - spline.look_up(points - d, table, deviation)[0]) / (2 * h)
        for d in h * np.eye(3)
    ]
    plain, widened = (
        factors @ np.swapaxes(factors, 1, 2)
        for factors in (this.model.factors(curves, variance, points) for this in (three_phases, offset))
    )
    J, k = np.stack(slopes, axis=-1), np.exp(residuals.polynomials(case, theta, 2) @ offset.model.offsets.T / 2)
    for i in range(5):
        box = covariance_at(three_phases, theta[i], np.zeros_like(variance[i]), curves[i])
        Q = k[i] * k[i][:, np.newaxis] * np.linalg.inv(J[i].T @ np.linalg.solve(box, J[i]))
        expected = J[i] @ Q @ J[i].T
        # The slopes are differences of tables in single precision.
        np.testing.assert_allclose(widened[i] - plain[i], expected, atol=2e-3 * np.abs(expected).max())


def test_calibration_finds_offsets_and_mends_posteriors(three_phases, offset):
    case, rng, n = three_phases.emulator.case, np.random.default_rng(RNG), 300
    truth = np.stack([rng.uniform(*case.ranges[name], n) for name in case.outputs], axis=1)
    curves, variance = offset.draw(dict(zip(case.outputs, truth.T, strict=True)), np.full(n, 1e3), rng)
    learned, judged = slice(n // 2), slice(n // 2, n)
    draws = three_phases.posterior(curves[learned], variance[learned], rng)
    drawn = np.stack([draws[name] for name in case.outputs], axis=-1)
    mended = replace(three_phases, model=curve_model.calibrated(three_phases.model, truth[learned], drawn))

    def covered(this):
        """Share of the true values in central 68 % intervals, by output."""
        found = this.posterior(curves[judged], variance[judged], np.random.default_rng(RNG))
        ranks = [np.mean(found[name] < truth[judged, i, np.newaxis], axis=1) for i, name in enumerate(case.outputs)]
        return np.mean(np.abs(np.array(ranks) - 0.5) < 0.34, axis=1)

    before, after, expected = (covered(this) for this in (three_phases, mended, offset))
    # Of the porosity and the layer fraction: variances are two to three times those stated.
    assert (before[1:] < expected[1:] - 0.1).all()
    # The same 150 curves. From as many others a deviation is known to 6 %: a standard error of 0.03 in the share.
    np.testing.assert_allclose(after, expected, atol=0.1)
    assert (after[1:] > before[1:] + 0.05).all()


def test_calibration_by_curves_of_the_emulator_itself_changes_little(prepared, measured):
    theta, intensity = measured
    this = prepared.calibrated(intensity[:300], {name: theta[name][:300] for name in theta}, np.random.default_rng(RNG))
    curves, variance, _ = prepared.average(intensity[300:])
    before, after = (fits.posterior(curves, variance, np.random.default_rng(RNG)) for fits in (prepared, this))
    for name in CASE.outputs:
        # 300 curves know a deviation to 4 %; offsets can only widen.
        assert np.median(after[name].std(axis=1) / before[name].std(axis=1)) == pytest.approx(1, abs=0.12), name
    points = np.zeros((300, 3))
    noise_alone = (fits.in_volume(np.inf).model.factors(curves, variance, points) for fits in (prepared, this))
    np.testing.assert_array_equal(*noise_alone)


@pytest.mark.parametrize("n", [1, 6, 20])
def test_splines_reproduce_cubics(n):
    points, weights, slopes = spline.collocation_points(n), np.empty(4), np.empty(4)
    cubic = np.polynomial.Polynomial([1.0, 2.0, -1.0, 0.5] if n > 1 else [1.0])
    coefficients = np.linalg.solve(spline.collocation_matrix(n), cubic(points))
    for x in np.linspace(-1, 1, 13) if n > 1 else [0.0]:
        first = spline.spline(x, n, weights, slopes)
        m = min(n, 4)
        assert weights[:m] @ coefficients[first : first + m] == pytest.approx(cubic(x), abs=1e-12)
        assert slopes[:m] @ coefficients[first : first + m] == pytest.approx(cubic.deriv()(x), abs=1e-11)


@pytest.mark.parametrize("level", [1e2, 1e4, 3e5])
def test_noise_level_is_found(level):
    rng = np.random.default_rng(1)
    clean = reference.load("three_phase_high", "test")["intensity"].values[:200]
    found = noise.estimate_noise_level(gx.add_noise(clean, level, rng), gx.PAPER_Q)
    assert np.std(np.log(found)) < 0.25
    assert np.median(found) / level == pytest.approx(1, abs=0.12)


def test_bad_arguments_are_refused(prepared):
    with pytest.raises(ValueError, match="volume must be 1 or more"):
        prepared.in_volume(0.5)
    with pytest.raises(ValueError, match=r"\(n_sample, 500\)"):
        prepared.fit(np.ones(500))
    with pytest.raises(ValueError, match="as average"):
        prepared.posterior(np.ones((2, 500)), np.ones((2, 500)), np.random.default_rng(0))
    curves, variance = np.zeros((3, 80)), np.ones((3, 80))
    for broken in (np.nan, -1.0, np.inf):
        spoilt = variance.copy()
        spoilt[1, 5] = broken
        with pytest.raises(ValueError, match="curve 1 is not"):
            prepared.posterior(curves, spoilt, np.random.default_rng(0))
    for n_draws in (0, -1, 2.5, None):
        with pytest.raises(ValueError, match="n_draws must be a positive integer"):
            prepared.posterior(curves, variance, np.random.default_rng(0), n_draws)
    batch = np.full((4, 500), 1e9)
    batch[2, 17] = np.nan
    with pytest.raises(ValueError, match=r"first at index \[2, 17\]"):
        prepared.fit(batch)
    with pytest.raises(ValueError, match="1 masked element"):
        prepared.fit(np.ma.masked_equal(np.where(np.isnan(batch), 7, batch), 7))
    with pytest.raises(ValueError, match="count must be from 2 to 256"):
        prepared.emulator.residuals({"scaling_parameter": [4.0], "porosity": [0.3]}, 1)
    with pytest.raises(ValueError, match="above 1.2"):
        noise.estimate_noise_level(np.ones(5), gx.PAPER_Q[:5])
