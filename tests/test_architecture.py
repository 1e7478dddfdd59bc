"""Who may import whom, and what importing the package must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "grfsaxs_lib"
NAME = PACKAGE.name

# Data flow one way. A room is a folder; modules that stand by themselves are rooms of one.
LEAVES = {"parameters", "files", "compiled"}  # open to all; the kernels know the last one only
ALLOWED = {
    **{room: set() for room in LEAVES},
    "grid": set(),
    "tasks": set(),
    "physics": {"grid"},
    "measurement": {"grid"},
    "tiers": set(),
    "results": {"paper", "tiers"},
    "paper": {"results", "tiers"},
    "emulator": {"grid"},
    "datasets": {"grid", "paper", "results", "physics", "measurement", "tasks"},
    "inference": {"grid", "datasets", "measurement", "emulator", "physics", "plotting"},
    "evaluation": {"grid"},
    "plotting": {"grid", "evaluation", "measurement"},
    "trees": {"grid", "datasets", "emulator", "evaluation", "measurement", "results", "tasks", "tiers"},
    "settings": {"grid", "physics", "measurement", "datasets", "trees", "paper", "tiers"},
    "cli": {"grid", "physics", "datasets", "trees", "paper", "results", "tiers", "tasks"},
    "commands": {"grid", "inference", "measurement", "tasks"},
    "rendering": {"plotting"},
    "explorer": {"grid", "inference", "measurement", "physics", "plotting"},
    "__init__": {"grid", "physics", "measurement", "parameters"},
}
# Inside the rooms: only `simulation` composes the physics, and a device is known by `backend` alone.
INSIDE = {
    "physics": {
        "backend": {"kernels"},
        "field": {"backend"},
        "structure": {"backend"},
        "scattering": {"backend"},
        "simulation": {"backend", "field", "structure", "scattering"},
        "spectra": {"field"},
        "kernels": set(),
    },
    "paper": {"numbers": set(), "claims": set(), "verify": {"claims"}},
    "measurement": {"noise": set(), "preprocess": set(), "instrument": set(), "curve": set(), "reading": {"curve"}},
    "datasets": {
        "keys": set(),
        "block": {"keys"},
        "measure": {"keys", "block"},
        "store": {"keys", "block", "measure"},
        "reference": {"keys", "block", "measure"},
        "shell_sums": {"keys", "block"},
    },
    "trees": {"training": set(), "model": set(), "samples": set(), "runs": {"training", "model", "samples"}},
    "emulator": {
        "settings": set(),
        "coordinates": set(),
        "gaussian_process": {"coordinates", "settings"},
        "voxel_correction": {"settings"},
        "mean": {"coordinates", "gaussian_process", "voxel_correction", "settings"},
        "residuals": {"coordinates", "settings"},
        "emulator": {"coordinates", "gaussian_process", "voxel_correction", "mean", "residuals", "settings"},
    },
    "inference": {
        "settings": set(),
        "spline": set(),
        "optimise": {"spline"},
        "curve_model": {"spline", "optimise", "settings"},
        "posterior": {"curve_model", "optimise", "spline"},
        "likelihood": {"curve_model", "optimise", "posterior", "settings"},
        "smearing": {"spline"},
        "filter_ratio": {"level_cut", "smearing"},
        "level_cut": {"filter_ratio"},
        "level_cut_model": {"level_cut", "filter_ratio", "smearing"},
        "three_phase_model": {"filter_ratio", "level_cut", "level_cut_model", "smearing", "spline"},
        "three_phase_learning": {"level_cut", "three_phase_model", "spline"},
        "marginal_fit": set(),
        "judgement": {"three_phase_model"},
        "report": {"level_cut"},
        "free_spectrum": {"level_cut", "smearing"},
        "free_fit": {"free_spectrum", "level_cut", "judgement"},
        "free_analysis": {"free_fit", "free_spectrum", "level_cut", "judgement", "result", "report", "drawn_structure"},
        "drawn_structure": {"level_cut", "smearing", "report"},
        "result": {"level_cut_model", "three_phase_model", "report"},
        "analyse": {
            "level_cut",
            "level_cut_model",
            "three_phase_model",
            "marginal_fit",
            "judgement",
            "result",
            "free_spectrum",
            "free_analysis",
        },
    },
}
HEAVY = {"cupy", "xgboost", "dask", "distributed", "matplotlib", "ducc0", "netCDF4", "h5netcdf"}
SOURCES = sorted(PACKAGE.rglob("*.py"))


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
    """Modules of the package that a file imports, as tuples of names below the package, without the version number."""
    names = (tuple(name.split(".")) for name in imported(source, path))
    return {name[1:] or ("__init__",) for name in names if name[0] == NAME} - {("__version__",)}


def place_of(path):
    """A file's names below the package: ``physics/kernels/cpu.py`` -> ``(physics, kernels, cpu)``."""
    return path.relative_to(PACKAGE).with_suffix("").parts


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_design(path):
    room, *inner = place_of(path)
    assert room in ALLOWED, f"say in ALLOWED what {room} may import"
    imports = own_imports(path.read_text(), path)
    assert {name[0] for name in imports} - ALLOWED[room] - LEAVES - {room} == set()
    if inner and inner[0] != "__init__":
        near = {name[1] for name in imports if name[0] == room and len(name) > 1}
        assert near - INSIDE[room][inner[0]] - {inner[0]} == set()
    if "kernels" in inner:
        assert {name[0] for name in imports} <= {"compiled", room}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_cupy_stays_behind_the_backend(path):
    roots = {name.split(".")[0] for name in imported(path.read_text(), path)}
    assert "cupy" not in roots or {"backend", "kernels"} & set(place_of(path))


@pytest.mark.parametrize(
    "line, found",
    [
        ("from .field import x", {("physics", "field", "x")}),
        ("from . import scattering", {("physics", "scattering")}),
        ("from .. import grid", {("grid",)}),
        ("from ... import grid", set()),  # beyond the package: not ours
        ("def f():\n    from grfsaxs_lib.physics.kernels.cpu import philox", {("physics", "kernels", "cpu", "philox")}),
        ("import grfsaxs_lib.paper as p", {("paper",)}),
        ("import grfsaxs_lib", {("__init__",)}),
        ("import numpy.fft", set()),
    ],
)
def test_the_reader_of_imports(line, found):
    assert own_imports(line, PACKAGE / "physics" / "structure.py") == found


def test_import_loads_nothing_heavy():
    code = f"import {NAME}, sys; print(*({HEAVY!r} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
