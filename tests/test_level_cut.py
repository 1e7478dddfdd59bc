"""The closed form of a level cut, against formulas and numbers that come from elsewhere."""

import numpy as np
import pytest
from scipy import integrate, special, stats
from scipy.interpolate import CubicSpline

import grfsaxs_lib as gx
from grfsaxs_lib.datasets import reference
from grfsaxs_lib.emulator.mean import aliasing
from grfsaxs_lib.inference import level_cut, smearing
from grfsaxs_lib.physics import spectra

POROSITIES = (0.02, 0.2, 0.35, 0.5, 0.9, 0.98)


def f(s, porosity, **more):
    return gx.level_cut_intensity(s, scaling_parameter=1.0, porosity=porosity, **more) / level_cut.PAPER_SCALE


@pytest.mark.parametrize("m, n", [(2, 3), (4, 2), (8, 2)])
def test_correlations_of_the_power_family(m, n):
    """(1 + k^2)^-3 has the correlation exp(-r) (1 + r); the others by quadrature."""
    loss = level_cut.correlation_loss("power", {"m": m, "n": n})
    density = lambda k: k**2 * (1 + k**m) ** -n  # noqa: E731
    total = integrate.quad(density, 0, np.inf)[0]
    for r in (0.01, 0.2, 1.0, 3.0, 10.0):
        expected = integrate.quad(lambda k: density(k) * np.sinc(k * r / np.pi), 0, 60, limit=2000)[0] / total  # noqa: B023
        if (m, n) == (2, 3):
            assert expected == pytest.approx(np.exp(-r) * (1 + r), abs=1e-5)  # of the cut at k = 60
        assert 1 - level_cut.at_distance(loss, r) == pytest.approx(expected, abs=5e-5)  # of linear interpolation


@pytest.mark.parametrize("porosity", (0.02, 0.35, 0.9))
def test_direct_quadrature(porosity):
    """∫ r² C(r) sinc(sr) dr with C by quadrature, for the correlation exp(-r) (1 + r); half of the bar of 3e-4."""
    t = stats.norm.ppf(porosity)

    def covariance(r):
        g = np.exp(-r) * (1 + r)
        return integrate.quad(lambda p: np.exp(-(t**2) / (1 + np.sin(p))), 0, np.arcsin(g), epsabs=1e-13)[0] / (
            2 * np.pi
        )

    r = np.append(np.linspace(0, 10, 500, endpoint=False), np.linspace(10, 45, 350))
    c = np.array([covariance(one) for one in r])
    fine = np.linspace(0, 45, 180_001)
    spline = CubicSpline(r, c)(fine)
    for s in (0.02, 0.3, 1.0, 3.0):
        expected = 4 * np.pi * integrate.simpson(spline * fine**2 * np.sinc(s * fine / np.pi), x=fine)
        assert f(s, porosity, spectral_density="power", shape={"m": 2, "n": 3}) == pytest.approx(expected, rel=1.5e-4)


@pytest.mark.parametrize("porosity", POROSITIES)
@pytest.mark.parametrize("family, shape", [("paper", None), ("power", {"m": 4, "n": 2}), ("power", {"m": 2, "n": 3})])
def test_invariant_and_porod(family, shape, porosity):
    """∫ s² f ds / 2π² is ε (1 - ε), the tail included; and s⁴ f tends to 2π times the area of the interfaces."""
    more = {"spectral_density": family, "shape": shape}
    area = level_cut.specific_surface(level_cut.correlation_loss(family, shape), porosity)
    s = np.geomspace(1e-4, 500, 60_001)
    invariant = (np.trapezoid(f(s, porosity, **more) * s**3, np.log(s)) + 2 * np.pi * area / s[-1]) / (2 * np.pi**2)
    assert invariant == pytest.approx(porosity * (1 - porosity), rel=2e-5)
    # The next order of the tail is 1/s^2 smaller, with a factor that grows for small porosities.
    assert f(100.0, porosity, **more) * 1e8 == pytest.approx(2 * np.pi * area, rel=2e-3)


def test_area_of_the_paper_s_interfaces():
    """-g''(0) is a third of the mean of k² over k² Γ, Eq. (7), by gamma functions."""
    mean = special.beta(5 / 8, 2 - 5 / 8) / special.beta(3 / 8, 2 - 3 / 8)
    assert level_cut.specific_surface(level_cut.correlation_loss("paper"), 0.5) == pytest.approx(
        2 / np.pi * np.sqrt(mean / 3), rel=1e-6
    )


def test_babinet_and_scaling():
    q = np.geomspace(0.01, 20, 50)
    one = gx.level_cut_intensity(q, scaling_parameter=3.0, porosity=0.3)
    np.testing.assert_allclose(gx.level_cut_intensity(q, scaling_parameter=3.0, porosity=0.7), one, rtol=1e-9)
    np.testing.assert_allclose(gx.level_cut_intensity(q / 2, scaling_parameter=6.0, porosity=0.3), 8 * one, rtol=1e-9)
    # A callable of q and a is evaluated as it is; this one is Eq. (7).
    own = gx.level_cut_intensity(q, scaling_parameter=3.0, porosity=0.3, spectral_density=gx.spectral_density)
    np.testing.assert_allclose(own, one, rtol=1e-9)


def test_mean_of_simulated_boxes():
    """256 boxes at a = 6 nm, seen through Eq. (4) and voxels; what is left is the paper's filter, 0.3 % at q > 0.1."""
    q = gx.PAPER_Q[(gx.PAPER_Q > 0.1) & (gx.PAPER_Q < 2.5)]
    curves = reference.load("two_phase_point", "test")["intensity"].values.astype(float)
    mean = curves.mean(axis=0)[np.isin(gx.PAPER_Q, q)]
    points, weights = smearing.smearing(q, np.full(q.size, gx.PAPER_GRID.q_spacing / 2))
    expected = gx.level_cut_intensity(points, scaling_parameter=6.0, porosity=0.35)
    expected = np.sum(weights * expected, axis=1) * aliasing(q, gx.PAPER_GRID.voxel_size)
    ratio = mean / expected - 1
    # Means of 256 boxes scatter by 0.1 % at high q and 0.4 % at 0.1 nm^-1.
    assert abs(np.median(ratio)) < 0.004 and np.abs(ratio).max() < 0.015


def test_peak_family():
    s = np.geomspace(0.02, 30, 400)
    curve = f(s, 0.4, spectral_density="peak", shape={"coherence": 6.0})
    assert s[curve.argmax()] == pytest.approx(1.0, abs=0.1)
    # Rough interfaces: 1 - g falls as r, C as its root, the curve as s^-3.5.
    slope = np.polyfit(np.log(s[-40:]), np.log(curve[-40:]), 1)[0]
    assert slope == pytest.approx(-3.5, abs=0.1)
    # The spectral density is that of the correlation.
    loss = level_cut.correlation_loss("peak", {"coherence": 1.0})
    k = np.array([0.3, 1.0, 3.0])
    r = np.linspace(0, 40, 200_001)
    g = 1 - level_cut.at_distance(loss, r)
    density = np.array([integrate.simpson(r * g * np.sin(x * r) / x, x=r) for x in k])
    expected = spectra.peak(k, 1.0, coherence=1.0)
    np.testing.assert_allclose(density / density[0], expected / expected[0], rtol=2e-3)  # of linear interpolation


@pytest.mark.parametrize(
    "more, message",
    [
        ({"porosity": 0.0}, "porosity must lie in"),
        ({"porosity": 1.0}, "porosity must lie in"),
        ({"scaling_parameter": -1.0}, "scaling_parameter must lie"),
        ({"spectral_density": "gauss"}, "spectral_density must be 'paper', 'power', 'peak' or a callable"),
        ({"spectral_density": "power", "shape": {"m": 2, "n": 2}}, "m n must be 6 or more"),
        ({"spectral_density": "power", "shape": {"k": 2}}, "has m, n; got k"),
        ({"spectral_density": "paper", "shape": {"m": 2}}, "has no shape parameters; got m"),
        ({"spectral_density": "peak", "shape": {"coherence": 100}}, "coherence must lie in"),
        ({"spectral_density": "power", "smoothing_length": 1.0}, "for the paper's spectral density alone"),
        ({"spectral_density": lambda q, a: 1 / (1 + (a * q) ** 2) ** 2}, "falls too slowly"),
        ({"spectral_density": lambda q, a: -(q**2)}, "finite, not negative"),
        ({"spectral_density": gx.spectral_density, "shape": {"m": 2}}, "a callable has its shape inside"),
    ],
)
def test_errors(more, message):
    arguments = {"scaling_parameter": 3.0, "porosity": 0.3} | more
    with pytest.raises(ValueError, match=message):
        gx.level_cut_intensity([0.1, 1.0], **arguments)


def test_smearing_of_polynomials():
    """A pinhole turns q² into q² + dq²; a slit into q² + l²/3."""
    q = np.array([0.5, 1.0, 2.0])
    points, weights = smearing.smearing(q, 0.05 * q)
    np.testing.assert_allclose(np.sum(weights * points**2, axis=1), q**2 * 1.0025, rtol=1e-12)
    points, weights = smearing.smearing(q, slit_length=3.0)
    np.testing.assert_allclose(np.sum(weights * points**2, axis=1), q**2 + 3, rtol=1e-6)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-6)
    points, weights = smearing.smearing(q, 0.05 * q, slit_length=3.0)
    np.testing.assert_allclose(np.sum(weights * points**2, axis=1), q**2 * 1.0025 + 3, rtol=1e-6)
