"""Measured curves of known truth: parameters, intervals, invariances, and what must not be trusted."""

import csv
import re
import warnings
from concurrent.futures import Future

import netCDF4
import numpy as np
import pytest

import grfsaxs_lib as gx
from grfsaxs_lib import commands, results
from grfsaxs_lib.datasets import reference
from grfsaxs_lib.inference import analyse, level_cut_model, marginal_fit

Q = np.geomspace(0.1, 2.5, 120)


def smeared(q, dq, **parameters):
    """The closed form seen by a pinhole, by a sum of its own over 41 points."""
    x = np.linspace(-4, 4, 41)
    weights = np.exp(-(x**2) / 2)
    values = gx.level_cut_intensity(np.abs(q[:, np.newaxis] + np.multiply.outer(dq, x)), **parameters)
    return values @ weights / weights.sum()


def measurement(rng, a, porosity, prefactor=1.0, error=0.01, q=Q):
    """3 % resolution, a background as strong as the curve at 1.5 nm^-1, normal noise."""
    clean = smeared(q, 0.03 * q, scaling_parameter=a, porosity=porosity)
    clean = prefactor * (clean + gx.level_cut_intensity(1.5, scaling_parameter=a, porosity=porosity))
    sigma = error * clean
    return gx.Curve(q, clean + sigma * rng.standard_normal(q.size), sigma, 0.03 * q, name="simulated")


@pytest.fixture(scope="module")
def many():
    """Analyses of sixty measurements, with their true parameters; a from 0.9 to 9, even in the logarithm."""
    rng, found = np.random.default_rng(3), []
    for seed in range(60):
        a, porosity = np.exp(rng.uniform(np.log(0.9), np.log(9))), rng.uniform(0.05, 0.48)
        curve = measurement(rng, a, porosity, prefactor=10 ** rng.uniform(-8, 2))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", gx.AnalysisWarning)
            found.append((gx.analyse(curve, seed=seed), {"scaling_parameter": a, "porosity": porosity}))
    return found


@pytest.mark.parametrize("name", ["scaling_parameter", "porosity"])
def test_intervals_hold_the_truth(many, name):
    """Three binomial standard errors about 0.68 and 0.95; z has mean 0 within four."""
    shares = {"16 %": 0.68, "2.5 %": 0.95}
    for (low, level), high in zip(shares.items(), ("84 %", "97.5 %"), strict=True):
        inside = [one.table.loc[name, low] <= true[name] <= one.table.loc[name, high] for one, true in many]
        assert abs(np.mean(inside) - level) < 3.5 * np.sqrt(level * (1 - level) / len(many))
    z = [(one.table.loc[name, "median"] - true[name]) / one.table.loc[name, "sd"] for one, true in many]
    assert abs(np.mean(z)) < 4 / np.sqrt(len(many)) and 0.7 < np.std(z) < 1.35


def test_good_curves_are_trusted(many):
    assert np.mean([one.reliable for one, _ in many]) > 0.95
    assert all(one.effective_samples > 500 for one, _ in many)
    reduced = [one.chi_square / one.degrees_of_freedom for one, _ in many]
    assert np.mean(reduced) == pytest.approx(1, abs=4 * np.sqrt(2 / 116 / len(many)))


def test_the_size_of_the_errors():
    """Standard deviations of the porosity at 1 % noise, from a prototype of its own: .0010, .0021."""
    rng = np.random.default_rng(0)
    for porosity, expected in ((0.12, 0.0010), (0.3, 0.0021)):
        found = gx.analyse(measurement(rng, 4.0, porosity))
        assert found.table.loc["porosity", "sd"] == pytest.approx(expected, rel=0.35)


def test_scale_and_background_do_not_matter():
    curve = measurement(np.random.default_rng(1), 3.0, 0.25)
    table = gx.analyse(curve).table
    others = {
        "bright": gx.Curve(curve.q, 1e6 * curve.intensity, 1e6 * curve.sigma, curve.dq),
        "dim": gx.Curve(curve.q, 1e-6 * curve.intensity, 1e-6 * curve.sigma, curve.dq),
        "very dim": gx.Curve(curve.q, 1e-180 * curve.intensity, 1e-180 * curve.sigma, curve.dq),
        "very bright": gx.Curve(curve.q, 1e150 * curve.intensity, 1e150 * curve.sigma, curve.dq),
        "background": gx.Curve(curve.q, curve.intensity + curve.intensity.max() / 100, curve.sigma, curve.dq),
        "angstrom": gx.Curve(curve.q / 10, curve.intensity, curve.sigma, curve.dq / 10, unit="1/A"),
    }
    for name, other in others.items():
        found = gx.analyse(other).table
        assert (np.abs(found["median"] - table["median"]) < 0.15 * table["sd"]).all(), name
    twice = gx.analyse(gx.Curve(curve.q / 2, curve.intensity, curve.sigma, curve.dq / 2)).table
    ratio = twice["median"] / table["median"]
    assert ratio["porosity"] == pytest.approx(1, abs=2e-3) and ratio["scaling_parameter"] == pytest.approx(2, abs=1e-3)


def test_prefactor_background_and_surface():
    """True values within four standard deviations; the surface from the derivative of the closed form's Porod law."""
    a, porosity = 3.0, 0.25
    curve = measurement(np.random.default_rng(2), a, porosity, prefactor=1e-6)
    found = gx.analyse(curve)
    background = 1e-6 * gx.level_cut_intensity(1.5, scaling_parameter=a, porosity=porosity)
    for draws, true in ((found.prefactor, 1e-6), (found.background, background)):
        assert abs(np.median(draws) - true) < 4 * draws.std()
    porod = gx.level_cut_intensity(60.0, scaling_parameter=a, porosity=porosity) * 60.0**4 * (0.5 / 512) ** 3
    surface = found.samples["specific_surface"]
    assert abs(np.median(surface) - porod / (2 * np.pi)) < 4 * surface.std() + 1e-3 * porod
    assert (found.samples["mirror_porosity"] == 1 - found.samples["porosity"]).all()


def test_mean_of_simulated_boxes():
    """256 boxes, a = 6 nm, porosity .35: an infinite sample but for Eq. (4), which the resolution describes."""
    curves = reference.load("two_phase_point", "test")["intensity"].values.astype(float)[:, ::4]
    q, sigma = gx.PAPER_Q[::4], curves.std(axis=0, ddof=1) / 16
    curve = gx.Curve(q, curves.mean(axis=0), sigma, np.full(q.size, gx.PAPER_GRID.q_spacing / 2))
    found = gx.analyse(curve, smoothing_length=1.0)
    assert abs(found.table.loc["scaling_parameter", "median"] - 6) < 0.02
    assert abs(found.table.loc["porosity", "median"] - 0.35) < 0.005
    assert found.reliable and found.chi_square / found.degrees_of_freedom < 1.3
    with pytest.warns(gx.AnalysisWarning):  # without the resolution the answer is wrong, and says so
        wrong = gx.analyse(gx.Curve(q, curve.intensity, sigma), smoothing_length=1.0)
    assert not wrong.reliable and wrong.table.loc["scaling_parameter", "median"] < 5.95


def sphere(q, radius):
    x = np.multiply.outer(radius, q)
    return (3 * (np.sin(x) - x * np.cos(x)) / x**3) ** 2 * np.asarray(radius)[..., np.newaxis] ** 6


RADII = np.linspace(1, 12, 300)
THREE_PHASES = reference.load("three_phase_low", "validation")
FOREIGN = {
    "spheres": sphere(Q, 5.0),
    "spheres of many sizes": np.exp(-(((RADII - 5) / 1.5) ** 2) / 2) @ sphere(Q, RADII),
    "power law": Q**-2.5,
    "Porod": Q**-4.0,
    "Guinier": np.exp(-(Q**2) * 3),
    "narrow peak": 1 + 50 * np.exp(-(((Q - 0.8) / 0.03) ** 2) / 2),
    "constant": np.ones_like(Q),
    "line": 3 - Q,
    "rising": 1 + Q**2,
    "exponential correlation": (1 + (4 * Q) ** 2) ** -2.0,
}


@pytest.mark.parametrize("noisy", [True, False])
@pytest.mark.parametrize("kind", [*FOREIGN, "noise"])
def test_foreign_curves_are_not_trusted(kind, noisy):
    rng = np.random.default_rng(5)
    clean = FOREIGN.get(kind, np.zeros_like(Q))
    sigma = np.ones_like(Q) if kind == "noise" else 0.01 * clean
    curve = gx.Curve(Q, clean + (noisy or kind == "noise") * sigma * rng.standard_normal(Q.size), sigma, 0.03 * Q)
    with pytest.warns(gx.AnalysisWarning, match="do not trust this result"):
        found = gx.analyse(curve)
    assert not found.reliable and found.warnings


def test_three_phases_are_not_two():
    nu = THREE_PHASES["layer_fraction"].values
    rows = np.flatnonzero((nu > 0.25) & (nu < 0.4) & (THREE_PHASES["scaling_parameter"].values > 1.5))[:6]
    rng = np.random.default_rng(6)
    for row in rows:
        clean = np.interp(Q, gx.PAPER_Q, THREE_PHASES["intensity"].values[row].astype(float))
        with pytest.warns(gx.AnalysisWarning):
            assert not gx.analyse(gx.Curve(Q, clean * (1 + 0.01 * rng.standard_normal(Q.size)), 0.01 * clean)).reliable


def test_warnings_name_the_reason():
    def reasons(curve, **more):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", gx.AnalysisWarning)
            found = gx.analyse(curve, **more)
        return " ".join(found.warnings), found.reliable

    rng = np.random.default_rng(7)
    curve = measurement(rng, 4.0, 0.3)
    assert reasons(curve) == ("", True)
    text, reliable = reasons(curve, q_range=(0.4, 2.5))
    assert "The knee of the curve lies below the measured range" in text and not reliable
    text, reliable = reasons(curve, scaling_parameter=(0.2, 3.0))
    assert "scaling_parameter is at an end of its prior, 0.2 to 3" in text and not reliable
    text, reliable = reasons(measurement(rng, 4.0, 0.5))
    assert "The porosity is close to 1/2" in text and reliable
    bare = gx.Curve(curve.q, curve.intensity, None, curve.dq)
    text, reliable = reasons(bare)
    assert "estimated from its roughness" in text and reliable
    contradicted = gx.Curve(curve.q, curve.intensity, curve.sigma, curve.dq, notes=["the file contradicts"])
    text, reliable = reasons(contradicted)
    assert "contradicts" in text and not reliable
    pinned = curve.sigma.copy()
    pinned[60] = 1e-9 * curve.intensity[60]
    text, reliable = reasons(gx.Curve(curve.q, curve.intensity, pinned, curve.dq))
    assert "so precise that it decides the fit" in text and not reliable
    loud = gx.Curve(curve.q, curve.intensity + 1e6 * curve.intensity.max(), curve.sigma, curve.dq)
    assert not reasons(loud)[1]


def test_overstated_uncertainties_hide_no_misfit():
    """A curve of another material whose sigma is ten times too large: chi-square is content, the pattern is not."""
    rng = np.random.default_rng(13)
    for kind in ("spheres of many sizes", "exponential correlation"):
        clean = FOREIGN[kind]
        curve = gx.Curve(Q, clean * (1 + 0.01 * rng.standard_normal(Q.size)), 0.1 * clean, 0.03 * Q)
        with pytest.warns(gx.AnalysisWarning):
            assert not gx.analyse(curve).reliable


def test_porosities_above_one_half():
    curve = measurement(np.random.default_rng(14), 4.0, 0.3)
    low, high = (gx.analyse(curve, porosity=ends).table["median"] for ends in ((0.02, 0.5), (0.5, 0.98)))
    assert high["porosity"] == pytest.approx(low["mirror_porosity"], abs=1e-3)


def test_marginal_likelihood():
    """Prefactor and background by a sum over a grid, prior 1/A; their integral as the module approximates it."""
    curve = measurement(np.random.default_rng(15), 4.0, 0.3, prefactor=1e-8)
    settings = level_cut_model.Settings("paper", {}, (0.2, 50.0), (0.02, 0.5))
    signal = level_cut_model.Model(curve, settings)(np.array([[np.log(4.0), 0.3], [np.log(4.02), 0.305]]))
    linear = marginal_fit.marginalise(signal, curve.intensity, marginal_fit.Noise(curve.sigma))
    sums = []
    for one, best in zip(signal, linear.prefactor, strict=True):
        background = linear.mean_intensity - best * (curve.sigma**-2 @ one) / np.sum(curve.sigma**-2)
        a = best * np.linspace(0.97, 1.03, 601)
        b = background + np.linspace(-0.02, 0.02, 601) * curve.intensity.min()
        fit = a[:, np.newaxis, np.newaxis] * one[::7] + b[:, np.newaxis]
        chi = np.sum(((curve.intensity[::7] - fit) / curve.sigma[::7]) ** 2, axis=-1)
        sums.append(np.log(np.sum(np.exp(-(chi - chi.min()) / 2) / a[:, np.newaxis])) - chi.min() / 2)
    noise = marginal_fit.Noise(curve.sigma[::7])
    few = marginal_fit.marginalise(signal[:, ::7], curve.intensity[::7], noise).log_likelihood
    steps = np.log(linear.prefactor[1] / linear.prefactor[0])  # of the grid over A
    assert few[1] - few[0] == pytest.approx(sums[1] - sums[0] + steps, abs=0.02)


def test_estimated_uncertainty():
    """The roughness of a curve of 1 % noise: within a tenth."""
    rng = np.random.default_rng(8)
    estimates = []
    for _ in range(20):
        curve = measurement(rng, 4.0, 0.3)
        estimates.append(np.median(analyse._roughness(curve.intensity) / curve.intensity))
    assert np.mean(estimates) == pytest.approx(0.01, rel=0.1)


def test_slit():
    """Smeared by a slit of its own sum; a to four standard deviations."""
    q, length, rng = np.geomspace(0.05, 2.5, 100), 0.8, np.random.default_rng(9)
    u = (np.arange(4000) + 0.5) / 4000 * length
    clean = gx.level_cut_intensity(np.hypot(q[:, np.newaxis], u), scaling_parameter=4.0, porosity=0.3).mean(axis=1)
    curve = gx.Curve(q, clean * (1 + 0.01 * rng.standard_normal(q.size)), 0.01 * clean, slit_length=length)
    found = gx.analyse(curve)
    for name, true in (("scaling_parameter", 4.0), ("porosity", 0.3)):
        assert abs(found.table.loc[name, "median"] - true) < 4 * found.table.loc[name, "sd"]
    assert found.reliable


def test_other_families():
    """A curve of the family with a free exponent; the comparison prefers the model that made it."""
    rng, shape = np.random.default_rng(10), {"m": 4.0, "n": 2.0}
    clean = smeared(Q, 0.03 * Q, scaling_parameter=4.0, porosity=0.3, spectral_density="power", shape=shape)
    curve = gx.Curve(Q, clean * (1 + 0.01 * rng.standard_normal(Q.size)), 0.01 * clean, 0.03 * Q)
    models = {
        "paper": {},
        "power, m free": {"spectral_density": "power", "shape": {"m": (3.0, 8.0)}},
        "peak": {"spectral_density": "peak"},
        "own": {"spectral_density": lambda q, a: (1 + (a * q) ** 4) ** -2.0},
    }
    table, analyses = gx.compare(curve, models)
    assert table["bic"].idxmin() == "own" and table["log_evidence"].idxmax() == "own"
    assert list(table["reliable"]) == [False, True, False, True]
    free = analyses["power, m free"].table
    assert abs(free.loc["m", "median"] - 4) < 4 * free.loc["m", "sd"] and free.loc["m", "sd"] < 1
    assert abs(free.loc["porosity", "median"] - 0.3) < 4 * free.loc["porosity", "sd"]


def test_table_of_a_model():
    """Splines in the table against the closed form itself: 3e-4 and better."""
    settings = level_cut_model.Settings("power", {"m": (3.0, 8.0), "n": 2.0}, (0.2, 50.0), (0.02, 0.5))
    curve = gx.Curve(Q, np.ones_like(Q), np.ones_like(Q))
    model = level_cut_model.Model(curve, settings)
    for a, porosity, m in ((0.5, 0.03, 3.1), (4.0, 0.31, 5.0), (20.0, 0.49, 7.9)):
        found = model(np.array([[np.log(a), porosity, np.log(m)]]))[0]
        shape = {"spectral_density": "power", "shape": {"m": m, "n": 2.0}}
        expected = gx.level_cut_intensity(Q, scaling_parameter=a, porosity=porosity, **shape)
        np.testing.assert_allclose(found / found[0], expected / expected[0], rtol=3e-4)


@pytest.mark.parametrize(
    "more, message",
    [
        ({"phases": 4}, "phases must be 2, 3"),
        ({"q_range": (0.1, 0.11)}, "points lie in the q range; an analysis needs 12"),
        ({"relative_error": 2.0}, "relative_error must lie in"),
        ({"scaling_parameter": (5, 1)}, "scaling_parameter must be a range"),
        ({"porosity": (0.0, 0.5)}, "porosity must be a range"),
        ({"porosity": (0.1, 0.9)}, "porosity must be a range on one side of 1/2"),
        ({"scaling_parameter": 3.0}, "scaling_parameter must be a range"),
        ({"scaling_parameter": (0.3, 9), "smoothing_length": 1.0}, "must begin at 0.8 nm"),
        ({"q_range": (None, 2.0)}, "q_range must be two numbers"),
        ({"spectral_density": "gauss"}, "spectral_density must be"),
        ({"spectral_density": "power", "shape": {"m": (8, 3)}}, "must be a number or a pair"),
        ({"spectral_density": "power", "shape": {"m": (1.0, 3)}}, "m must lie in"),
        ({"spectral_density": lambda q, a: 1 / (1 + q**8 + (a * q) ** 4) ** 2}, "product of q and a alone"),
        ({"spectral_density": "peak", "smoothing_length": 1.0}, "for the paper's spectral density alone"),
    ],
)
def test_errors(more, message):
    with pytest.raises(ValueError, match=message):
        gx.analyse(measurement(np.random.default_rng(0), 4.0, 0.3), **more)


def test_results(tmp_path, many):
    found = many[0][0]
    assert list(found.table.columns) == ["median", "sd", "2.5 %", "16 %", "84 %", "97.5 %"]
    assert list(found.table.index) == ["scaling_parameter", "porosity", "mirror_porosity", "specific_surface"]
    found.to_netcdf(tmp_path / "one.nc")
    with netCDF4.Dataset(tmp_path / "one.nc") as file:
        assert (file["porosity"][:] == found.samples["porosity"]).all() and file["q"].units == "nm-1"
        assert file.reliable == found.reliable and file.spectral_density == "paper"
    figure = found.plot()
    value = re.search("scaling parameter a = (.*) ± .* nm, porosity ε = .* χ² = ", figure.get_suptitle())[1]
    assert len(figure.axes) == 3 and float(value) == pytest.approx(found.table.loc["scaling_parameter", "median"], 1e-3)
    assert results.find_unreadable(figure) == []
    (image,) = (image for ax in figure.axes for image in ax.images)
    plane = image.get_array()
    assert np.mean(plane == 0) == pytest.approx(np.median(found.samples["porosity"]), abs=1e-3)
    again = gx.analyse(found.curve, seed=0).table
    assert again.equals(gx.analyse(found.curve, seed=0).table)


def write(path, curve):
    np.savetxt(path, np.column_stack([curve.q, curve.intensity, curve.sigma, curve.dq]), header="q [1/nm] I sigma dq")


class _InThisProcess:
    """In place of a pool of processes, which take seconds to start; `test_one_odd_file_ends_nothing` has a real one."""

    def __init__(self, *_):
        pass

    def submit(self, function, *args):
        done = Future()
        try:
            done.set_result(function(*args))
        except Exception as error:
            done.set_exception(error)
        return done

    def shutdown(self):
        pass


def test_command(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(commands, "ProcessPoolExecutor", _InThisProcess)
    rng = np.random.default_rng(11)
    for i, a in enumerate((2.0, 5.0)):
        write(tmp_path / f"good_{i}.dat", measurement(rng, a, 0.3))
    foreign = gx.Curve(Q, FOREIGN["spheres"], 0.01 * FOREIGN["spheres"], 0.03 * Q)
    write(tmp_path / "bad.dat", foreign)
    (tmp_path / "broken.dat").write_text("no numbers")
    out = tmp_path / "out"

    def run(*names):
        with pytest.raises(SystemExit) as status:
            commands.main(["analyse", *(str(tmp_path / name) for name in names), "--out", str(out)])
        return status.value.code, capsys.readouterr()

    code, printed = run("good_0.dat", "good_1.dat")
    assert code == 0 and "good_1" in printed.out
    files = {f"good_{i}.{kind}" for i in (0, 1) for kind in ("nc", "png")}
    assert {path.name for path in out.iterdir()} == files | {"results.csv"}
    before = (out / "good_0.nc").stat().st_mtime_ns
    code, printed = run("good_0.dat", "bad.dat")
    assert code == 3 and "does not describe the curve" in printed.out
    assert (out / "good_0.nc").stat().st_mtime_ns == before  # finished curves are kept
    code, printed = run("good_0.dat", "broken.dat")
    assert code == 1 and "broken.dat holds no table of five rows" in printed.err
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["curve"]: row["reliable"] for row in rows} == {"good_1": "True", "bad": "False", "good_0": "True"}
    (one,) = (row for row in rows if row["curve"] == "good_0")
    assert float(one["scaling_parameter"]) == pytest.approx(2.0, abs=0.02)


def test_names_of_results(tmp_path):
    """Points in a name, equal names in two folders: every file has results of its own."""
    names = ["a/x.dat", "b/x.dat", "s_1.5nm.dat", "s_1.7nm.dat", "y.dat", "y.txt", "c/a/x.dat"]
    labels = commands._labels([tmp_path / name for name in names])
    assert len(set(labels)) == len(names) and labels[2:4] == ["s_1.5nm", "s_1.7nm"]


def test_one_odd_file_ends_nothing(tmp_path, capsys):
    good = tmp_path / "good.dat"
    write(good, measurement(np.random.default_rng(12), 3.0, 0.3))
    np.savetxt(tmp_path / "flat.dat", np.column_stack([Q, np.ones_like(Q)]))
    np.savetxt(tmp_path / "zero.dat", np.column_stack([Q, 0 * Q, np.ones_like(Q)]))
    with pytest.raises(SystemExit) as status:
        commands.main(
            ["analyse", "--unit", "1/nm", "--out", str(tmp_path / "out"), str(good)]
            + [str(tmp_path / name) for name in ("flat.dat", "zero.dat")]
        )
    assert status.value.code == 1 and "zero.dat: all intensities are zero" in capsys.readouterr().err
    with (tmp_path / "out" / "results.csv").open() as file:
        assert [row["reliable"] for row in csv.DictReader(file)] == ["True", "False"]
