"""Who may import whom, and what importing the package must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "grfsaxs_lib"
NAME = PACKAGE.name

# Data flow one way; only `simulation` composes the physics; the leaves are open to all, the kernels know one.
LEAVES = {"parameters", "provenance", "compiled"}
PHYSICS = {"kernels", "backend", "field", "structure", "scattering", "simulation"}
PHYSICS |= {"shardfile", "dataset", "reference"}
PHYSICS |= {"coordinates", "gaussian_process", "emulator", "tables", "climbs", "likelihood"}
AFTER_PHYSICS = {"instrument", "noise", "preprocess", "training", "model", "evaluation", "plotting", "paper"}
MANY = {"sampling", "cluster", "campaign", "pipeline", "settings"}  # samples, tasks, and their composition
ALLOWED = {
    "kernels": {"compiled"},
    **{module: set() for module in LEAVES},
    "backend": {"kernels"},
    "grid": set(),
    "field": {"backend", "grid"},
    "structure": {"backend", "grid"},
    "scattering": {"backend", "grid"},
    "simulation": {"backend", "grid", "field", "structure", "scattering"},
    "sampling": set(),
    "cluster": set(),
    "shardfile": {"simulation", "grid", "paper", "sampling"},
    "dataset": {"backend", "cluster", "grid", "noise", "sampling", "shardfile", "simulation"},
    "reference": {"grid", "paper", "sampling", "shardfile", "simulation"},
    "coordinates": {"grid"},
    "gaussian_process": {"coordinates"},
    "lattice": set(),
    "emulator": {"coordinates", "gaussian_process", "grid", "lattice"},
    "tables": set(),
    "climbs": {"tables"},
    "likelihood": {"climbs", "coordinates", "emulator", "grid", "noise", "preprocess", "tables"},
    "campaign": {"cluster", "dataset", "preprocess", "training"},
    "pipeline": {"backend", "campaign", "cluster", "dataset", "grid", "paper", "training"},
    "settings": {"grid", "noise", "paper", "pipeline", "scattering", "structure", "training"},
    **{module: AFTER_PHYSICS - {module} | {"grid"} for module in AFTER_PHYSICS},
    "__init__": PHYSICS | AFTER_PHYSICS | LEAVES | MANY | {"grid"},
}
HEAVY = {"cupy", "xgboost", "dask", "distributed", "matplotlib", "ducc0", "netCDF4", "h5netcdf"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    """First part of a file's dotted name inside the package: ``kernels/cpu.py`` -> ``kernels``."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(source, path):
    """Yield the absolute dotted names that a source file imports anywhere in it, functions included.

    ``from a import b`` yields ``a.b``, whether b is a module or not.
    """
    here = (NAME, *path.relative_to(PACKAGE).parts[:-1])
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            stem = ".".join(filter(None, (base, node.module)))
            yield from (f"{stem}.{alias.name}" for alias in node.names)


def own_imports(source, path):
    """Modules of the package that a file imports, its own folder and the version number aside."""
    names = (name.split(".") for name in imported(source, path))
    modules = {(parts + ["__init__"])[1] for parts in names if parts[0] == NAME}
    return modules - {module_of(path), "__version__"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_design(path):
    module = module_of(path)
    assert module in ALLOWED, f"say in ALLOWED what {module} may import"
    leaves = set() if module == "kernels" else LEAVES
    assert own_imports(path.read_text(), path) - ALLOWED[module] - leaves == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_cupy_stays_behind_the_backend(path):
    roots = {name.split(".")[0] for name in imported(path.read_text(), path)}
    assert "cupy" not in roots or module_of(path) in {"backend", "kernels"}


@pytest.mark.parametrize(
    "line, found",
    [
        ("from .field import x", {"field"}),
        ("from . import scattering", {"scattering"}),
        ("from .. import grid", set()),  # beyond the package: not ours
        ("def f():\n    from grfsaxs_lib.kernels.cpu import philox", {"kernels"}),
        ("import grfsaxs_lib.paper as p", {"paper"}),
        ("import grfsaxs_lib", {"__init__"}),
        ("import numpy.fft", set()),
    ],
)
def test_the_reader_of_imports(line, found):
    assert own_imports(line, PACKAGE / "noise.py") == found


def test_the_reader_of_imports_inside_the_kernels():
    path = PACKAGE / "kernels" / "cpu.py"
    assert own_imports("from .. import grid", path) == {"grid"}
    assert own_imports("from . import gpu\nfrom .gpu import f", path) == set()


def test_import_loads_nothing_heavy():
    code = f"import {NAME}, sys; print(*({HEAVY!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
