"""The plug-in for SasView: its numbers, and SasView's own tests of it where sasmodels is installed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import grfsaxs_lib as gx
from grfsaxs_lib.inference.level_cut import PAPER_SCALE

FOLDER = Path(__file__).resolve().parent.parent / "integrations" / "sasview"
PLUGIN = FOLDER / "grfsaxs_level_cut.py"


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


def test_table():
    """The table is what its script makes; its last digit is 1e-5."""
    np.testing.assert_allclose(
        np.loadtxt(FOLDER / "grfsaxs_level_cut.txt"), load(FOLDER / "make_table.py").table(), atol=6e-6
    )


def test_numpy_alone():
    """SasView brings NumPy; nothing of this package may be needed."""
    code = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import grfsaxs_level_cut; "
    code += "print(sorted({m.split('.')[0] for m in sys.modules} & {'grfsaxs_lib', 'scipy', 'numba'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_sasmodels(tmp_path):
    pytest.importorskip("sasmodels", reason="sasmodels is not installed: pip install '.[sasview]'")
    from sasmodels.core import load_model
    from sasmodels.data import empty_data1D
    from sasmodels.direct_model import DirectModel

    command = [sys.executable, "-m", "sasmodels.model_test", str(PLUGIN)]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 0 and "FAIL" not in ran.stdout + ran.stderr, ran.stdout + ran.stderr
    q = np.geomspace(0.005, 0.3, 100)
    calculator = DirectModel(empty_data1D(q, resolution=0.0), load_model(str(PLUGIN)))
    found = calculator(scaling_parameter=40.0, porosity=0.3, sld=1.0, sld_solvent=6.3, background=0.5, scale=2.0)
    np.testing.assert_allclose(found - 0.5, 2 * load(PLUGIN).Iq(q, 40.0, 0.3, 1.0, 6.3), rtol=1e-6)
    wide = calculator(scaling_parameter=40.0, porosity=0.3, scaling_parameter_pd=0.2, scaling_parameter_pd_n=21)
    assert np.isfinite(wide).all() and (wide > 0).all()
