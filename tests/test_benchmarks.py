"""The rivals are right, the comparison with them is one of like with like."""

import itertools
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.fft
import scipy.ndimage

import grfsaxs_lib as gx
from grfsaxs_lib.physics import backend
from grfsaxs_lib.physics.kernels import cpu as cpu_kernels

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


# On a GPU: what can be checked without one -------------------------------------------------------------


@pytest.fixture
def numpy_for_cupy(monkeypatch):
    """NumPy and SciPy under the names of CuPy, for rivals that ask no more of it."""
    monkeypatch.setitem(sys.modules, "cupy", np)
    monkeypatch.setitem(sys.modules, "cupyx", SimpleNamespace(scipy=scipy))
    monkeypatch.setitem(sys.modules, "cupyx.scipy", scipy)
    monkeypatch.setitem(sys.modules, "cupyx.scipy.ndimage", scipy.ndimage)
    monkeypatch.delitem(sys.modules, "careful_cupy", raising=False)
    yield
    sys.modules.pop("careful_cupy", None)


def test_rivals_on_cupy_are_right(numpy_for_cupy, field):
    import careful_cupy
    import gpu
    import textbook

    # The paper's filter of 2 voxels: a narrower one as a multiplication of the spectrum is not quite the sampled one.
    cut = CUT | {"smoothing_sigma": 2.0}
    phases = gx.phase_map(field, **cut)
    # float32 at the cut: single voxels may differ.
    assert np.count_nonzero(careful_cupy.phase_map(field, **cut) != phases) <= 3
    expected = textbook.scattering_intensity(phases, GRID.voxel_size, q=Q, densities=DENSITIES)
    theirs = careful_cupy.scattering_intensity(phases, GRID.voxel_size, q=Q, densities=DENSITIES)
    np.testing.assert_allclose(theirs, expected, rtol=1e-5)
    given = dict(scaling_parameter=1.2, q=Q, **CUT)
    on_cupy = gpu.textbook_on_cupy()
    assert on_cupy is not textbook
    curves = [module.simulate(32, 1.0, rng=np.random.default_rng(1), **given) for module in (textbook, on_cupy)]
    np.testing.assert_array_equal(*curves)
    ours = careful_cupy.simulate(32, 1.0, rng=np.random.default_rng(1), **given)
    assert ours.shape == Q.shape and (ours > 0).all()


def test_bytes_that_stages_must_move():
    import gpu

    n = GRID.size**3
    structure = dict(scaling_parameter=1.2, porosity=0.45, layer_fraction=0.3, seed=5)
    with gpu.recorded(cpu_kernels, itertools.count().__next__) as calls:
        gx.simulate(GRID, **structure, smoothing_sigma=1.0)
    # Probes of the layer's depth on 16 of 32 planes: a filter of 12 sigma reaches all of the indicator.
    expected = {
        "gaussian_random_field": 4 * n,
        "order_statistics": 4 * n,
        "binarise": 5 * n,
        "smooth": 5 * n,
        "order_statistics (smoothed)": 4 * n,
        "classify": 5 * n,
        "shell_sums": n,
    }
    probe = {"smooth": 3 * n, "order_statistics (smoothed)": 2 * n}
    stages = [name for name, *_ in calls]
    assert stages[:3] == list(expected)[:3] and set(stages) == set(expected)
    assert stages.count("smooth") == stages.count("order_statistics (smoothed)") == 2
    for number, (name, n_byte, before, after) in enumerate(calls):
        assert n_byte == (probe if number in (3, 4) else expected)[name]
        assert after == before + 1  # nothing else was timed in between
    assert cpu_kernels.smooth.__module__ == cpu_kernels.__name__  # as it was


def test_bytes_of_a_filter_on_some_planes():
    import gpu

    binary, result = np.zeros((64, 64, 64), np.uint8), np.zeros((2, 64, 64), np.float64)
    # Planes 62 to 2 and 8 to 12, of 64^2 bytes.
    assert gpu.bytes_of("smooth", result, binary, np.ones(3), np.array([0, 10])) == 10 * 64**2 + result.nbytes


def test_table_of_stages():
    import gpu

    stages = pd.DataFrame(
        [(0, "smooth", 4e9, 2e-3), (0, "classify", 1e9, 1e-3), (1, "smooth", 2e9, 4e-3)],
        columns=["structure", "stage", "bytes", "seconds"],
    )
    table = gpu.stage_table(stages, per_curve=5e-3, bandwidth=2e12)
    assert table.loc["smooth"].to_list() == pytest.approx([3, 3, 0.5])
    assert table.loc["classify"].to_list() == pytest.approx([0.5, 0.5, 0.5])
    assert table.loc["total"].to_list() == pytest.approx([3.5, 5, 0.35])


def test_rivals_take_turns_after_a_first_run():
    import gpu

    seen = []

    def seconds(rival):
        seen.append(rival)
        return {"a": 2.0, "b": 6.0}[rival] + len(seen)

    table = gpu.compare_rivals({"ours": "a", "theirs": "b"}, repeats=3, seconds=seconds, progress=False)
    assert seen == ["a", "b"] * 4
    assert table.loc["ours"].to_list() == [7, 5, 9, 3, 1]  # the first run of each is left out
    assert table.loc["theirs"].to_list() == [12, 10, 14, 3, 12 / 7]


def test_command_line_without_a_gpu(tmp_path):
    try:
        backend.get_kernels("gpu")
    except backend.DeviceError as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU")
    command = [sys.executable, BENCHMARKS / "gpu.py", "--json", tmp_path / "gpu.json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip() == f"nothing to time: {reason}"
    assert not any(tmp_path.iterdir())
