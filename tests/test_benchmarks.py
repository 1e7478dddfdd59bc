"""The rivals are right, the comparison with them is one of like with like."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import grfsaxs_lib as gx

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
GRID = gx.Grid(32, 1.0)
Q = np.linspace(0.2, 3.0, 15)
# A thin layer: SciPy's default filter reaches 4 sigma only.
CUT = dict(porosity=0.45, layer_fraction=0.3, smoothing_sigma=1.0)
DENSITIES = (0.0, 0.65, 1.0)


@pytest.fixture(autouse=True)
def benchmarks_on_path(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))


@pytest.fixture
def field():
    return gx.gaussian_random_field(GRID, scaling_parameter=1.2, seed=5)


def test_same_field_same_phases(field):
    import careful
    import textbook

    phases = gx.phase_map(field, **CUT)
    # float32 against float64 at the cut, and quantiles that interpolate: single voxels may differ.
    assert np.count_nonzero(textbook.phase_map(field, **CUT) != phases) <= 3
    assert np.count_nonzero(careful.phase_map(field, **CUT) != phases) <= 3


def test_same_phases_same_curve(field):
    import careful
    import textbook

    phases = gx.phase_map(field, **CUT)
    expected = textbook.scattering_intensity(phases, GRID.voxel_size, q=Q, densities=DENSITIES)
    # float32 transforms of 32^3 values: round-off of some 1e-7, summed over many modes.
    ours = gx.scattering_intensity(phases, GRID, q=Q, densities=DENSITIES)
    np.testing.assert_allclose(ours, expected, rtol=1e-5)
    theirs = careful.scattering_intensity(phases, GRID.voxel_size, q=Q, densities=DENSITIES, workers=1)
    np.testing.assert_allclose(theirs, expected, rtol=1e-5)


def test_three_simulators_agree_in_the_mean():
    import careful
    import textbook

    n, given = 100, dict(scaling_parameter=1.2, q=Q, **CUT)
    curves = {"package": gx.simulate(GRID, seed=np.arange(n), **given)}
    for rival in (textbook, careful):
        rng = np.random.default_rng(1)
        curves[rival.__name__] = np.array(
            [rival.simulate(GRID.size, GRID.voxel_size, rng=rng, **given) for _ in range(n)]
        )
    # In the logarithm the scatter is nearly normal. 30 comparisons: 4.5 standard errors happen once in 5000.
    mean = {name: np.log(values).mean(axis=0) for name, values in curves.items()}
    variance = {name: np.log(values).var(axis=0, ddof=1) / n for name, values in curves.items()}
    for rival in ("textbook", "careful"):
        error = np.sqrt(variance["package"] + variance[rival])
        assert np.abs((mean["package"] - mean[rival]) / error).max() < 4.5
        assert error.max() < 0.06  # so that a factor of 1.3 could not hide anywhere
        assert error[Q > 1].max() < 0.015


def test_textbook_folding_keeps_all_that_is_there():
    import textbook

    power = np.random.default_rng(0).random((8, 8, 8))
    folded = textbook.fold(power)
    assert folded.shape == (5, 5, 5)
    assert folded.sum() == pytest.approx(power.sum(), rel=1e-14)
    assert folded[2, 0, 4] == power[2, 0, 4] + power[-2, 0, 4]
    assert folded[1, 2, 3] == pytest.approx(power[np.ix_([1, -1], [2, -2], [3, -3])].sum(), rel=1e-14)


def test_prior_sample_is_stratified():
    import cpu

    sample = cpu.draw_prior(8, seed=3)
    assert sample["case"].tolist() == [name for name in gx.CASES for _ in range(2)]
    assert (sample["layer_fraction"] == 0).sum() == 4
    for name, rows in sample.groupby("case"):
        for output, (lower, upper) in gx.CASES[name].ranges.items():
            share = (rows[output] - lower) / (upper - lower)
            assert sorted(np.floor(2 * share)) == [0, 1]
    assert sample.equals(cpu.draw_prior(8, seed=3))


@pytest.mark.parametrize("n", [0, 3, 6, -4])
def test_prior_sample_needs_all_cases_alike(n):
    import cpu

    with pytest.raises(ValueError, match="multiple of 4"):
        cpu.draw_prior(n, seed=3)


def test_command_line(tmp_path):
    options = ["--grid", "32", "--repeats", "1", "--prior", "4", "--memory"]
    command = [sys.executable, BENCHMARKS / "cpu.py", *options]
    report = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    for expected in ("textbook", "careful", "package", "smooth", "order_statistics", "GiB", "transform"):
        assert expected in report
    assert not any(tmp_path.iterdir())
