"""What ends or hangs a process that uses compiled code, each in a process of its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from grfsaxs_lib import compiled

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "grfsaxs_lib"
CURVE = "gx.simulate(gx.Grid(16, 1.0), scaling_parameter=1.0, porosity=0.5, layer_fraction=0.3, seed={seed})"


def run(code, *, folder=None, **environment):
    """Run code in another process; its standard output."""
    head = "import warnings; warnings.simplefilter('ignore'); import grfsaxs_lib as gx\n"
    done = subprocess.run(
        [sys.executable, "-c", head + code],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("kind", ["simulate", "fit"])
def test_an_interrupt_is_a_keyboard_interrupt(kind):
    command = [sys.executable, TESTS / "interrupted.py", kind, "40"]
    words = subprocess.check_output(command, text=True, timeout=300).split()
    raised = dict(zip(words[::2], map(int, words[1::2]), strict=True))
    # Python itself drops an interrupt that arrives in a finaliser, such as those of its pools of threads.
    assert raised.pop("lost", 0) <= 4
    assert set(raised) == {"KeyboardInterrupt"}


FORK = f"""
import multiprocessing
import numpy as np
from grfsaxs_lib.inference import spline

def fit(seed):
    return spline.look_up(np.zeros((3, 3)), np.ones((4, 4, 4, 5)), np.ones((4, 4, 4, 5)))[0].shape[1]

def simulate(seed):
    return {CURVE.format(seed="seed")}.shape[0]

{{first}}
with multiprocessing.get_context("fork").Pool(1) as pool:
    print(pool.apply_async({{then}}, (1,)).get(60))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
@pytest.mark.parametrize("first", ["", "simulate(0)", "fit(0)"])
@pytest.mark.parametrize("then, result", [("fit", "5"), ("simulate", "500")])
def test_forks_work(first, then, result):
    """Python's threads are gone when a kernel is done, so that a fork finds none to wait for."""
    assert run(FORK.format(first=first, then=then), NUMBA_NUM_THREADS="2") == [result]


def test_several_python_threads():
    code = """
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from grfsaxs_lib.inference import spline
points, table = np.zeros((100, 3)), np.ones((4, 4, 4, 50))
with ThreadPoolExecutor(4) as pool:
    curves = list(pool.map(lambda seed: spline.look_up(points, table, table)[0].sum(), range(400)))
print(len(curves), len(set(curves)))
"""
    assert run(code, NUMBA_NUM_THREADS="2") == ["400", "1"]


def test_a_read_only_package_and_home_do_without_a_cache(tmp_path):
    """Root may write anywhere: that Numba finds no place is caused by paths that cannot be folders."""
    copy = tmp_path / "elsewhere" / PACKAGE.name
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (copy, copy / "physics" / "kernels"):
        (folder / "__pycache__").write_text("no folder")
    (tmp_path / "home").write_text("no folder")
    home = str(tmp_path / "home")
    code = """
import numpy
from grfsaxs_lib.physics.kernels import cpu
print(gx.__file__, cpu.binarise(numpy.zeros((2, 2, 2), numpy.float32), -1).sum())
"""
    where = {"HOME": home, "XDG_CACHE_HOME": home, "LOCALAPPDATA": home}
    assert run(code, folder=copy.parent, **where) == [str(copy / "__init__.py"), "8"]


def test_a_full_disk_does_without_a_cache(monkeypatch):
    assert compiled._can_cache()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    assert not compiled._can_cache()
