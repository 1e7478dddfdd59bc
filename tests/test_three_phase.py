"""Three phases in a macroscopic sample: what is known in closed form, what was learned, and analyses with it."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import grfsaxs_lib as gx
from grfsaxs_lib import commands
from grfsaxs_lib.datasets import block, reference, shell_sums
from grfsaxs_lib.emulator.coordinates import layer_thickness
from grfsaxs_lib.inference import level_cut, marginal_fit, three_phase_learning, three_phase_model
from grfsaxs_lib.inference.level_cut import PAPER_SCALE

POINT = {"scaling_parameter": 6.0, "porosity": 0.35, "layer_fraction": 0.3}  # of the replicates
PRIOR = tuple(three_phase_model.LIMITS.values())


def model(curve, contrast=0.65, length=1.0):
    limits = [tuple(length * end for end in PRIOR[0]), *PRIOR[1:]]
    return three_phase_model.Settings(*limits, contrast, length).model(curve)


def coordinates(a, porosity, layer_fraction):
    return np.array([[np.log(a), porosity, layer_fraction]])


def measurement(a, porosity, layer_fraction, seed, *, contrast=0.65, length=1.0, error=0.01):
    """The model's own curve with pinhole resolution, background and noise."""
    q = np.geomspace(0.05, 2.9, 120) / length
    empty = gx.Curve(q, np.ones(q.size), None, 0.03 * q)
    clean = model(empty, contrast, length)(coordinates(a, porosity, layer_fraction))[0]
    clean = 30 * clean / clean[0] + 0.01
    sigma = error * clean
    noise = sigma * np.random.default_rng(seed).standard_normal(q.size)
    return gx.Curve(q, clean + noise, sigma, 0.03 * q, name="simulated")


@pytest.mark.parametrize("g", [0.9, 0.3, -0.1])
def test_cross_covariance(g):
    """Of two cuts of one field, against the normal distribution of two variables."""
    porosity, other = 0.2, 0.45
    t, u = stats.norm.ppf([porosity, other])
    together = stats.multivariate_normal([0, 0], [[1, g], [g, 1]]).cdf([t, u])
    found = level_cut.cross_covariance(np.array([1 - g]), porosity, other)[0]
    assert found == pytest.approx(together - porosity * other, abs=1e-6)


def test_cross_covariance_of_equal_cuts():
    loss = np.array([0.01, 0.3, 0.9, 1.1])
    np.testing.assert_allclose(
        level_cut.cross_covariance(loss, 0.3, 0.3), level_cut.autocovariance(loss, 0.3), rtol=1e-4, atol=1e-7
    )


def test_control_has_the_mean_of_its_closed_form():
    """Sharp cuts on voxels of 1 nm of both cases: 0.1 % and 4.5 standard errors, 0.4 % or less beyond q = 0.3 nm^-1.

    All 8192 structures are off by 0.03 to 0.11 ± 0.01 % beyond q = 0.5 nm^-1.
    """
    data = {name: values[::8] for name, values in shell_sums.load("coarse").items()}
    theta = np.column_stack([data[name] for name in three_phase_model.LIMITS])
    mean = three_phase_learning.closed_forms(*theta.T) @ three_phase_learning.sampling(1.0)
    layer, solid, both = np.moveaxis(data["control"], 1, 0)
    scale = np.sqrt(mean[:, 0] * mean[:, 1])
    for off in (both / mean[:, 0] - 1, solid / mean[:, 1] - 1, ((both + solid - layer) / 2 - mean[:, 2]) / scale):
        error = off.std(axis=0) / np.sqrt(len(off))
        assert (np.abs(off.mean(axis=0)) < 1e-3 + 4.5 * error).all()
        assert error[10:].max() < 0.004  # so that the test can fail


def test_one_layer_structure_again():
    """A coarse structure of the first file, made again."""
    found = shell_sums.simulate("three_phase_low", "coarse", np.arange(2, 3))
    there = shell_sums.load("coarse")
    row = np.flatnonzero((there["index"] == 2) & (there["case"] == 0))[0]
    for kind, values in found.items():
        np.testing.assert_allclose(values[0], there[kind][row], rtol=1e-3)


def test_damaged_file(tmp_path, monkeypatch):
    monkeypatch.setattr(shell_sums, "directory", lambda: tmp_path)
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  three_phase_low_coarse_00000-00255.nc\n")
    with pytest.raises(block.DamagedError, match="three_phase_low_coarse"):
        shell_sums.load("coarse")
    with pytest.raises(FileNotFoundError, match="fine"):
        shell_sums.load("fine")


def test_a_layer_without_contrast_is_two_phases():
    """With the density of the pore, the curve is that of the solid: the filtered level cut, learned from other data."""
    q = np.geomspace(0.1, 2.5, 60)
    for a, porosity in ((2.0, 0.7), (4.0, 0.3), (6.0, 0.5)):
        known = gx.level_cut_intensity(q, scaling_parameter=a, porosity=porosity, smoothing_length=1.0)
        found = PAPER_SCALE * model(gx.Curve(q, known), 0.0)(coordinates(a, porosity, 0.2))[0]
        np.testing.assert_allclose(found, known, rtol=0.015)


def test_mean_of_replicates():
    """256 boxes seen through Eq. (4), which no model learned from; less the constant that voxels add."""
    q = gx.PAPER_Q[10:]
    boxes = reference.load("three_phase_point", "test")["intensity"].values[:, 10:].astype(float)
    mean = boxes.mean(axis=0)
    curve = gx.Curve(q, mean, None, np.full(q.size, gx.PAPER_GRID.q_spacing / 2))
    found = PAPER_SCALE * model(curve)(coordinates(*POINT.values()))[0]
    constant = np.sum((mean - found) / found**2) / np.sum(found**-2.0)
    difference = (mean - constant) / found - 1
    assert np.sqrt(np.mean(difference**2)) < 0.01
    assert np.abs(difference[q < 1]).max() < 0.015


@pytest.mark.parametrize("truth", [(2.0, 0.7, 0.2), (5.0, 0.3, 0.3)])
def test_parameters_are_found(truth):
    found = gx.analyse(measurement(*truth, seed=3), phases=3)
    assert found.reliable
    for name, value in zip(POINT, truth, strict=True):
        median, sd = found.table.loc[name, ["median", "sd"]]
        assert abs(median - value) < 4 * sd and sd < 0.05 * value
    thickness = truth[0] * layer_thickness(*truth[1:])
    assert found.table.loc["layer_thickness", "median"] == pytest.approx(thickness, rel=0.02)


def test_contrast_may_be_free():
    found = gx.analyse(measurement(5.0, 0.4, 0.3, seed=4), phases=3, layer_contrast=(0.4, 0.9))
    assert found.reliable and 1e-3 < found.table.loc["layer_contrast", "sd"] < 0.05
    assert abs(found.table.loc["layer_contrast", "median"] - 0.65) < 4 * found.table.loc["layer_contrast", "sd"]


def test_lengths_scale():
    """A sample twice as coarse, its filter too: q halved, lengths doubled."""
    fine = gx.analyse(measurement(4.0, 0.4, 0.3, seed=5), phases=3)
    coarse = gx.analyse(measurement(8.0, 0.4, 0.3, seed=5, length=2.0), phases=3, smoothing_length=2.0)
    for name, factor in (("scaling_parameter", 2), ("porosity", 1), ("layer_thickness", 2), ("specific_surface", 0.5)):
        median, sd = fine.table.loc[name, ["median", "sd"]]
        assert coarse.table.loc[name, "median"] == pytest.approx(factor * median, abs=0.3 * factor * sd)


def test_the_right_number_of_phases(tmp_path):
    layered = gx.analyse(measurement(4.0, 0.4, 0.3, seed=6), phases="auto")
    assert "layer_fraction" in layered.samples and "As two phases" in layered.warnings[-1]
    q = np.geomspace(0.1, 2.5, 120)
    clean = gx.level_cut_intensity(q, scaling_parameter=4.0, porosity=0.3)
    sigma = 0.01 * clean
    plain = gx.Curve(q, clean + sigma * np.random.default_rng(7).standard_normal(q.size), sigma, 0.03 * q)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gx.AnalysisWarning)
        plain = gx.analyse(plain, phases="auto")
    assert "layer_fraction" not in plain.samples and "As three phases" in plain.warnings[-1]
    layered.to_netcdf(tmp_path / "layered.nc")
    assert layered.plot().axes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scaling_parameter": (0.5, 4.0)}, "scaling_parameter must be a range"),
        ({"porosity": (0.1, 0.95)}, "porosity must be a range"),
        ({"layer_fraction": 0.3}, "layer_fraction must be a range"),
        ({"layer_contrast": 1.2}, "layer_contrast must be"),
        ({"layer_contrast": (0.8, 0.5)}, "layer_contrast must be"),
        ({"smoothing_length": 0.0}, "smoothing_length must be positive"),
        ({"spectral_density": "peak"}, "paper's spectral density"),
        ({"phases": "auto", "spectral_density": "peak"}, "paper's spectral density"),
        ({"phases": "auto", "smoothing_length": 2.0}, "leave smoothing_length"),
        ({"phases": 2, "layer_fraction": (0.1, 0.2)}, "layer_fraction and layer_contrast"),
        ({"q_range": 0.5}, "q_range must be"),
        ({"q_range": (None, 2), "phases": "auto"}, "q_range must be"),
        ({"phases": "auto", "porosity": (0.1, 0.5)}, "leave smoothing_length and priors out"),
    ],
)
def test_errors(arguments, message):
    q = np.geomspace(0.1, 2.5, 50)
    with pytest.raises(ValueError, match=message):
        gx.analyse(gx.Curve(q, q**-2.0, 0.01 * q**-2.0), **{"phases": 3} | arguments)


def test_no_mirror_image_in_three_phases():
    """A porosity that ends at 1/2 is an end of a prior like any other."""
    with pytest.warns(gx.AnalysisWarning, match="porosity is at an end"):
        found = gx.analyse(measurement(4.0, 0.53, 0.3, seed=9), phases=3, porosity=(0.1, 0.5))
    assert not found.reliable


def test_prior_scales_with_the_filter():
    settings = three_phase_model.settings_of(
        {"scaling_parameter": (2.4, 24), "porosity": None, "layer_fraction": None}, 0.5, 3.0
    )
    assert settings.scaling_parameter == (2.4, 24.0)


def test_correlated_noise():
    """Whitened products and the determinant are those of the whole covariance."""
    rng = np.random.default_rng(10)
    sigma, columns, values = rng.uniform(0.5, 2, 30), rng.standard_normal((30, 4)), rng.standard_normal((2, 30))
    noise, covariance = marginal_fit.Noise(sigma, columns), np.diag(sigma**2) + columns @ columns.T
    one, other = noise.whiten(values)
    assert one @ other == pytest.approx(values[0] @ np.linalg.solve(covariance, values[1]))
    expected = np.linalg.slogdet(covariance)[1] - 2 * np.log(sigma).sum()
    assert noise.log_determinant == pytest.approx(expected)


def test_stated_error_is_that_of_halves():
    """What the jackknife says of the mean is half of what two halves of the structures differ by, within a factor."""
    q = np.geomspace(0.05, 3.0, 40)
    rng = np.random.default_rng(11)
    theta = np.column_stack([rng.uniform(low, high, 60) for low, high in PRIOR])
    x = np.column_stack([np.log(theta[:, 0]), theta[:, 1:]])
    settings = three_phase_model.settings_of(dict.fromkeys(three_phase_model.LIMITS), 0.65, 1.0)
    curve = gx.Curve(q, np.ones(q.size))
    first, second, whole = (replace(settings, part=part).model(curve) for part in ("first", "second", "all"))
    halves = np.sqrt(np.mean((first(x) / second(x) - 1) ** 2)) / 2
    stated = np.sqrt(np.mean([np.sum(whole.error(one) ** 2, axis=1) for one in x]))
    assert 0.5 < stated / halves < 2
    assert np.median(np.abs(first(x) / second(x) - 1)[:, q > 0.2]) < 0.01


def test_command_line(tmp_path):
    curve = measurement(4.0, 0.4, 0.3, seed=12)
    columns = np.column_stack([curve.q, curve.intensity, curve.sigma, curve.dq])
    np.savetxt(tmp_path / "layer.dat", columns, header="q [1/nm] I sigma dq")
    arguments = ["--phases", "3", "--layer-contrast", "0.6,0.7", str(tmp_path / "layer.dat"), "--out", str(tmp_path)]
    with pytest.raises(SystemExit) as stopped:
        commands.main(["analyse", *arguments])
    table = pd.read_csv(tmp_path / "results.csv")
    assert stopped.value.code in (0, 3) and 0.25 < table["layer_fraction"][0] < 0.35


def test_points_beyond_the_simulations_are_left_out():
    q = np.geomspace(0.05, 5, 80)
    curve = gx.Curve(q, 1 / (1 + (5 * q) ** 4) + 1e-4, None, 0.03 * q)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", gx.AnalysisWarning)
        found = gx.analyse(curve, phases=3, relative_error=0.02)
    assert found.curve.q[-1] < 3.07
    assert any("left out" in note for note in found.warnings)


def test_regression_finds_a_smooth_function(monkeypatch):
    """Functions inside the space of the splines, noise of 1 %, a regressor that carries 5 % more."""
    known = shell_sums.shells()
    few = shell_sums.Shells(known.edges[20:27], known.q[20:26], known.n_mode[20:26], None)
    monkeypatch.setattr(shell_sums, "shells", lambda: few)
    rng = np.random.default_rng(8)
    n = 3000
    theta = np.column_stack([rng.uniform(low, high, n) for low, high in PRIOR])
    place = three_phase_model.coordinates(*theta.T)
    smooth = (1 + 0.3 * place[:, 0] - 0.2 * place[:, 1] * place[:, 2])[:, np.newaxis] * np.sqrt(few.q)
    waves = three_phase_learning.wave_factors(theta)[:, 2:]
    truth = np.stack([smooth, smooth**2, smooth * waves[:, 0] + 0.1 * waves[:, 1]], axis=1)
    control = rng.standard_normal((n, 1, 6))
    target = truth + 0.05 * control + 0.01 * rng.standard_normal((n, 3, 6))

    surface = rng.standard_normal((n, 2))
    target[:, 2] += 0.03 * surface[:, :1] * waves[:, 1]

    group = np.arange(n) % three_phase_learning.GROUPS
    sample = three_phase_learning.Sample(theta, target, control, surface, group)
    everything = [list(range(three_phase_learning.GROUPS))]
    found, (first, *_), residuals = three_phase_learning.regress(sample, target, np.ones((n, 3)), everything)
    error = three_phase_learning.expected(theta, found[0]) - truth
    penalties, smoothing = first
    assert smoothing.sum(axis=1) == pytest.approx(1) and np.abs(smoothing - np.eye(6)).max() > 0.05
    assert residuals.std() == pytest.approx(0.01, rel=0.1)
    assert error.std() < 0.003
