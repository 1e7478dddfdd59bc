"""The plug-in for SasView: its numbers, and SasView's own tests of it where sasmodels is installed."""

import importlib.util
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import grfsaxs_lib as gx
from grfsaxs_lib.datasets import reference
from grfsaxs_lib.inference import three_phase_model
from grfsaxs_lib.inference.level_cut import PAPER_SCALE
from grfsaxs_lib.inference.smearing import smearing

FOLDER = Path(__file__).resolve().parent.parent / "integrations" / "sasview"
PLUGIN = FOLDER / "grfsaxs_level_cut.py"
LAYERED = FOLDER / "grfsaxs_three_phase.py"


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("a", [8.0, 40.0, 300.0])
@pytest.mark.parametrize("porosity", [0.02, 0.1, 0.3, 0.5, 0.77, 0.98])
def test_intensity(a, porosity):
    """Lengths in Å: contrast² a³ f(aq), with the contrast in 1e-6/Å² and the intensity in 1/cm."""
    q = np.geomspace(5e-4, 1, 500)
    clean = gx.level_cut_intensity(10 * q, scaling_parameter=a / 10, porosity=porosity) / PAPER_SCALE  # nm³
    expected = clean * 1e3 * (5.3e-6) ** 2 * 1e8  # Å³, Å^-4, and Å^-1 in cm^-1
    np.testing.assert_allclose(load(PLUGIN).Iq(q, a, porosity, 1.0, 6.3), expected, rtol=2e-3)


def test_invariant_in_absolute_units():
    """∫ q² I dq = 2π² contrast² ε (1 - ε): the definition of absolute units, without any code of this package."""
    q = np.geomspace(1e-5, 50, 20_001)
    invariant = np.trapezoid(load(PLUGIN).Iq(q, 40.0, 0.3, 1.0, 6.3) * q**3, np.log(q))
    assert invariant == pytest.approx(2 * np.pi**2 * (5.3e-6) ** 2 * 0.3 * 0.7 * 1e8, rel=2e-3)


@pytest.mark.parametrize(("case", "least"), [("three_phase_point", 256), ("case_study", 500)])
def test_three_phases(case, least):
    """Means of structures that no model learned from, seen through Eq. (4): 1 % rms; a in Å, I in 1/cm."""
    boxes = reference.load(case, "test")
    assert boxes.sizes["sample"] >= least
    sample = [float(boxes[name][0]) for name in ("scaling_parameter", "porosity", "layer_fraction")]
    q = gx.PAPER_Q[8::4]  # without the smallest, where Eq. (4) holds few modes
    points, weights = smearing(q, np.full(q.size, gx.PAPER_GRID.q_spacing / 2))
    found = load(LAYERED).Iq(points.ravel() / 10, 10 * sample[0], *sample[1:], 10.0, 1.0, 0.65, 0.0)
    found = np.sum(weights * found.reshape(points.shape), axis=1) / (1e3 * 1e-12 * 1e8) * PAPER_SCALE
    mean = boxes["intensity"].values[:, 8::4].astype(float).mean(axis=0)
    constant = np.sum((mean - found) / found**2) / np.sum(found**-2.0)  # what voxels add
    assert np.sqrt(np.mean(((mean - constant) / found - 1) ** 2)) < 0.01


def test_three_phases_are_those_of_the_library():
    q = np.geomspace(0.05, 2.9, 200)
    settings = three_phase_model.settings_of(dict.fromkeys(three_phase_model.LIMITS), 0.3, 1.0)
    model = settings.model(gx.Curve(q, np.ones(q.size)))
    for a, porosity, layer_fraction in ((2.0, 0.2, 0.1), (4.0, 0.7, 0.4), (7.0, 0.5, 0.25)):
        expected = model(np.array([[np.log(a), porosity, layer_fraction]]))[0] * 1e3 * 1e-12 * 1e8
        found = load(LAYERED).Iq(q / 10, 10 * a, porosity, layer_fraction, 10.0, 1.0, 0.3, 0.0)
        np.testing.assert_allclose(found, expected, rtol=0.006)


def test_three_phases_take_milliseconds():
    """At 500 q: the aim is one, a slow machine has ten."""
    plugin, q = load(LAYERED), np.geomspace(0.004, 0.3, 500)
    start = time.process_time()
    for _ in range(20):
        plugin.Iq(q)
    assert (time.process_time() - start) / 20 < 0.01


def test_table_of_three_phases():
    with np.load(FOLDER / "grfsaxs_three_phase.npz") as file:
        made = load(FOLDER / "make_table.py")
        np.testing.assert_allclose(file["splines"], made.splines(), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(file["log_q"], made.LOG_Q)


@pytest.mark.parametrize("path", [PLUGIN, LAYERED])
def test_values_for_the_tests_of_sasmodels(path):
    plugin = load(path)
    for parameters, q, value in plugin.tests:
        sample = {name: one for name, one in parameters.items() if name != "background"}
        assert plugin.Iq(np.array([q]), **{"sld": 1.0, "sld_solvent": 6.3 if path == PLUGIN else 0.0} | sample)[0] == (
            pytest.approx(value, rel=1e-5)
        )


def test_table():
    """The table is what its script makes; its last digit is 1e-5."""
    np.testing.assert_allclose(
        np.loadtxt(FOLDER / "grfsaxs_level_cut.txt"), load(FOLDER / "make_table.py").table(), atol=6e-6
    )


def test_numpy_alone():
    """SasView brings NumPy; nothing of this package may be needed."""
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import grfsaxs_level_cut, grfsaxs_three_phase; "
    code += "print(sorted({m.split('.')[0] for m in sys.modules} & {'grfsaxs_lib', 'scipy', 'numba'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sasmodels(tmp_path):
    pytest.importorskip("sasmodels", reason="sasmodels is not installed: pip install '.[sasview]'")
    from sasmodels.core import load_model
    from sasmodels.data import empty_data1D
    from sasmodels.direct_model import DirectModel

    for plugin in (PLUGIN, LAYERED):
        command = [sys.executable, "-m", "sasmodels.model_test", str(plugin)]
        ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert ran.returncode == 0 and "FAIL" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    q = np.geomspace(0.005, 0.3, 100)
    calculator = DirectModel(empty_data1D(q, resolution=0.0), load_model(str(PLUGIN)))
    found = calculator(scaling_parameter=40.0, porosity=0.3, sld=1.0, sld_solvent=6.3, background=0.5, scale=2.0)
    np.testing.assert_allclose(found - 0.5, 2 * load(PLUGIN).Iq(q, 40.0, 0.3, 1.0, 6.3), rtol=1e-6)
    wide = calculator(scaling_parameter=40.0, porosity=0.3, scaling_parameter_pd=0.2, scaling_parameter_pd_n=21)
    assert np.isfinite(wide).all() and (wide > 0).all()
