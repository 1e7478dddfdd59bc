"""A free spectral density: derivatives, splines, and spectra that are known from elsewhere."""

import numpy as np
import pytest
import xarray as xr
from PIL import Image
from scipy import integrate

import grfsaxs_lib as gx
from grfsaxs_lib.inference import free_fit, free_spectrum, level_cut
from grfsaxs_lib.inference.smearing import smearing

A, POROSITY = 4.0, 0.3


def measure(intensity, *, noise=0.01, seed=0, background=1.0, limits=(0.03, 3.0)):
    """A measurement of an intensity, a callable of q: 150 points over two decades, smeared by 3 %."""
    q = np.geomspace(*limits, 150)
    points, weights = smearing(q, 0.03 * q)
    clean = np.sum(weights * intensity(points), axis=1)
    measured = clean + background * np.interp(1.5, q, clean)
    sigma = noise * measured
    noisy = measured + sigma * np.random.default_rng(seed).standard_normal(q.size)
    return gx.Curve(q, noisy, sigma, 0.03 * q, name="made"), clean


def matern(q, n=4):
    """The level cut of a field with the density (1 + (ak)²)^-n; for n = 4, g is exp(-r/a) (1 + r/a + r²/3a²)."""
    shape = {"m": 2, "n": n}
    return gx.level_cut_intensity(q, scaling_parameter=A, porosity=POROSITY, spectral_density="power", shape=shape)


@pytest.fixture(scope="module")
def curve():
    return measure(matern)[0]


@pytest.fixture(scope="module")
def found(curve):
    return gx.analyse(curve, spectral_density="free", porosity=POROSITY)


def test_roughness_is_the_integral_of_the_curvature():
    spectrum = free_spectrum.Spectrum(0.1, 1.0)
    u = np.random.default_rng(0).standard_normal(spectrum.knots.size)
    value = lambda x: spectrum.basis(np.exp(np.atleast_1d(x))) @ u  # noqa: E731
    curvature = lambda x: (value(x + 1e-4) - 2 * value(x) + value(x - 1e-4)).item() / 1e-8  # noqa: E731
    expected = sum(
        integrate.quad(lambda x: curvature(x) ** 2, low + 2e-4, high - 2e-4)[0]
        for low, high in zip(spectrum.knots[:-1], spectrum.knots[1:], strict=True)
    )
    assert np.sum((spectrum.roughness @ u) ** 2) == pytest.approx(expected, rel=1e-2)
    beyond = value(np.log([0.001, 0.01, 10.0, 100.0]))  # straight lines
    assert beyond[1] - beyond[0] == pytest.approx(np.log(10) * (spectrum.end_slopes[0] @ u))
    assert beyond[3] - beyond[2] == pytest.approx(np.log(10) * (spectrum.end_slopes[1] @ u))


def test_derivatives(curve):
    posterior = free_spectrum.Posterior(curve)
    x = free_fit._starts(posterior, POROSITY)[0]
    x[: posterior.n] += 0.1 * np.random.default_rng(0).standard_normal(posterior.n)
    x[posterior.n - 1] += 5  # nearly level there
    residuals = lambda x: np.concatenate([posterior.data(x, POROSITY), posterior.prior(x, 3.0)])  # noqa: E731
    slopes = np.vstack([posterior.data_slopes(x, POROSITY), posterior.prior_slopes(x, 3.0)])
    for j in (2, posterior.n // 2, *range(posterior.n - 1, posterior.n + 2)):
        step = 1e-5 * np.eye(x.size)[j]
        numeric = (residuals(x + step) - residuals(x - step)) / 2e-5
        np.testing.assert_allclose(slopes[:, j], numeric, rtol=1e-5, atol=1e-8 + 1e-6 * np.abs(numeric).max())


def test_a_known_correlation(curve, found):
    """Against formulas: exp(-r/a) (1 + r/a + r²/3a²), (1 + (ak)²)^-4, and -g''(0) = 1/3a²."""
    assert found.reliable, found.warnings
    correlation = found.correlation
    r = correlation["r"].values
    inside = (r > np.pi / curve.q[-1]) & (r < 2 * np.pi / curve.q[0])
    g = np.exp(-r / A) * (1 + r / A + (r / A) ** 2 / 3)
    np.testing.assert_allclose(correlation["g"].values[inside], g[inside], rtol=0, atol=0.01)
    assert correlation["two_point"].values[0] == pytest.approx(POROSITY, abs=0.02)
    assert correlation["two_point"].values[-1] == pytest.approx(POROSITY**2, abs=1e-3)
    surface = 2 / np.pi / A / np.sqrt(3) * np.exp(-(level_cut.ndtri(POROSITY) ** 2) / 2)
    row = found.table.loc["specific_surface"]
    assert row["median"] == pytest.approx(surface, rel=0.02)
    assert abs(row["median"] - surface) < 3 * row["sd"]
    assert found.table.loc["pore_chord_length", "median"] == pytest.approx(4 * POROSITY / row["median"], rel=1e-3)
    spectrum = found.spectrum
    k = spectrum["k"].values
    truth = 32 * A**3 / np.pi / (1 + (A * k) ** 2) ** 4  # the integral of k² times it is one
    covered = (spectrum["lower_95"] <= truth) & (truth <= spectrum["upper_95"])
    seen = spectrum["from_data"].values
    assert covered.values[(k > curve.q[0]) & (k < curve.q[-1])].mean() > 0.9
    assert seen.sum() > 60 and not seen[k > curve.q[-1]].any() and not seen[k < curve.q[0]].any()
    assert (spectrum["lower_95"].values[~seen] == 0).all()


def test_an_area_that_is_extrapolated():
    """A density that falls as k^-6 has a tenth of -g''(0) beyond the largest q."""
    curve, _ = measure(lambda q: matern(q, 3))
    with pytest.warns(gx.AnalysisWarning, match="of the square of specific_surface come from waves beyond"):
        found = gx.analyse(curve, spectral_density="free", porosity=POROSITY)
    surface, row = 2 / np.pi / A * np.exp(-(level_cut.ndtri(POROSITY) ** 2) / 2), found.table.loc["specific_surface"]
    assert not found.reliable
    assert abs(row["median"] - surface) < 3 * row["sd"] < 0.2 * surface


def test_any_porosity_fits(curve, found):
    """The shape of a curve does not tell the porosity: another one fits as well, with another spectrum."""
    other = gx.analyse(curve, spectral_density="free", porosity=(0.15, 0.005))
    assert other.reliable
    assert abs(other.chi_square - found.chi_square) < 10
    assert other.table.loc["specific_surface", "median"] < 0.8 * found.table.loc["specific_surface", "median"]


def two_bumps(q):
    density = lambda k, _: sum(  # noqa: E731
        height * np.exp(-(np.log(k / centre) ** 2) / 2 / width**2)
        for height, centre, width in ((1.0, 0.15, 0.3), (0.03, 0.7, 0.2))
    )
    return gx.level_cut_intensity(q, scaling_parameter=A, porosity=POROSITY, spectral_density=density)


def test_the_shape_does_not_move_the_porosity():
    """Only porosities without a density that fits are left out: for two bumps those below the true one."""
    found = gx.analyse(measure(two_bumps)[0], spectral_density="free", porosity=(POROSITY, 0.03))
    values = found.samples["porosity"]
    half_normal = POROSITY + 0.03 * np.array([0.0, 0.674, 1.645])
    np.testing.assert_allclose(np.quantile(values, [0.0, 0.5, 0.9]), half_normal, rtol=0, atol=0.006)
    assert any("of the porosities that were given there is a spectral density" in text for text in found.warnings)


def absolute(contrast=5.0):
    """A curve in cm^-1 of the contrast, in 1e10 cm^-2."""
    return measure(lambda q: 0.1 * contrast**2 / level_cut.PAPER_SCALE * matern(q), background=0.05)[0]


def test_contrast_tells_the_porosity():
    found = gx.analyse(absolute(), spectral_density="free", contrast=(5.0, 0.01))
    row = found.table.loc["porosity"]
    assert found.reliable, found.warnings
    assert abs(row["median"] - POROSITY) < 3 * row["sd"] < 0.1
    assert found.table.loc["mirror_porosity", "median"] == pytest.approx(1 - row["median"], rel=1e-6)


@pytest.mark.parametrize(
    "factor, given",
    [(10.0, {"contrast": (5.0, 0.2)}), (1.0, {"contrast": 5.0, "porosity": 0.2}), (10.0, {"contrast": 5.0})],
)
def test_a_contradiction(factor, given):
    curve = absolute()
    curve = gx.Curve(curve.q, factor * curve.intensity, factor * curve.sigma, curve.dq)
    with pytest.warns(gx.AnalysisWarning, match="absolute intensity contradicts what was given"):
        assert not gx.analyse(curve, spectral_density="free", **given).reliable


def test_knots_are_as_close_as_the_curve_asks_for():
    curve, clean = measure(two_bumps, noise=0.001)
    found = gx.analyse(curve, spectral_density="free", porosity=POROSITY)
    assert np.diff(found.posterior.model.spectrum.knots).max() < 0.07
    assert found.reliable, found.warnings
    assert np.median(np.abs(np.log((found.fit - np.median(found.background)) / clean))) < 0.002


def test_a_curve_that_shows_nothing():
    """Noise as large as the curve: no error, no grey sentence that is empty, and a picture."""
    curve, _ = measure(matern, noise=2.0, background=100.0)
    with pytest.warns(gx.AnalysisWarning, match="determines the spectral density nowhere"):
        found = gx.analyse(curve, spectral_density="free", porosity=POROSITY)
    assert not found.reliable and not found.seen.any()
    found.plot()


def test_a_point_that_lies_off(curve):
    intensity = curve.intensity.copy()
    intensity[40] += 12 * curve.sigma[40]
    found = gx.analyse(gx.Curve(curve.q, intensity, curve.sigma, curve.dq), spectral_density="free", porosity=POROSITY)
    assert any(f"The point at q = {curve.q[40]:.4g} nm^-1 lies" in text for text in found.warnings)


def test_spheres_do_not_fit():
    """No cut field scatters like spheres of one size: their minima are too deep."""
    radius = 6.0
    form = lambda q: (3 * (np.sin(q * radius) - q * radius * np.cos(q * radius)) / (q * radius) ** 3) ** 2  # noqa: E731
    curve, _ = measure(form, background=1e-3)
    with pytest.warns(gx.AnalysisWarning, match="No cut of a Gaussian field"):
        found = gx.analyse(curve, spectral_density="free", porosity=0.1)
    assert not found.reliable


def test_a_structure_scatters_like_the_curve(found, tmp_path):
    grid = gx.Grid(128, np.pi / 3)
    structure = found.structure(grid, seed=5)
    assert np.count_nonzero(structure.phases == 0) == round(POROSITY * 128**3)
    far = structure.q > 4 * grid.q_spacing
    fit = np.interp(structure.q, found.curve.q, found.fit)
    assert np.median(np.abs(np.log(structure.intensity / fit))[far]) < 0.06
    structure.to_netcdf(tmp_path / "volume.nc")
    with xr.open_dataset(tmp_path / "volume.nc") as data:
        assert np.array_equal(data["phase"], structure.phases)
        assert data["x"].values[1] - data["x"].values[0] == pytest.approx(grid.voxel_size)
    structure.to_tiff(tmp_path / "volume.tif")
    with Image.open(tmp_path / "volume.tif") as stack:
        assert stack.n_frames == 128 and stack.tag_v2[282] == pytest.approx(1 / grid.voxel_size, rel=1e-4)
        assert "unit=nm" in stack.tag_v2[270] and f"spacing={grid.voxel_size:.8f}" in stack.tag_v2[270]
        stack.seek(7)
        assert np.array_equal(np.array(stack) == 255, structure.phases[7] == 2)
    with pytest.raises(ValueError, match="of the field's variance"):
        found.structure(gx.Grid(16, 0.5))


def test_file(found, tmp_path):
    found.to_netcdf(tmp_path / "found.nc")
    with xr.open_dataset(tmp_path / "found.nc") as data:
        np.testing.assert_array_equal(data["spectrum_median"], found.spectrum["median"])
        np.testing.assert_array_equal(data["g"], found.correlation["g"])
        assert data.attrs["spectral_density"] == "free" and data["pore_chord_length"].attrs["units"] == "nm"


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({}, "needs porosity="),
        ({"porosity": 1.2}, "porosity must lie in"),
        ({"porosity": (0.1, 0.05)}, "porosity must lie in"),
        ({"porosity": (0.1, 0.2, 0.3)}, "porosity must be a positive number"),
        ({"contrast": -1}, "contrast must be a positive number"),
        ({"contrast": (1.0, 0.5)}, "within 25 %"),
        ({"porosity": 0.3, "shape": {"m": 2}}, "has no shape"),
        ({"porosity": 0.3, "phases": 3}, "the paper's spectral density alone"),
        ({"porosity": (0.1, 0.4), "contrast": 1.0, "spectral_density": "paper"}, "free spectral density alone"),
    ],
)
def test_arguments(curve, arguments, words):
    with pytest.raises(ValueError, match=words):
        gx.analyse(curve, **{"spectral_density": "free"} | arguments)


def test_range_of_q():
    q = np.geomspace(1e-4, 10, 100)
    with pytest.raises(ValueError, match="decades"):
        gx.analyse(gx.Curve(q, 1 / (1 + q**4), 0.01 / (1 + q**4)), spectral_density="free", porosity=0.3)
