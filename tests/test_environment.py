"""pyproject.toml, environment.yml, requirements.lock and CITATION.cff say the same."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import grfsaxs_lib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCK = (ROOT / "requirements.lock").read_text()

# Names of conda packages that differ.
CONDA_NAMES = {
    "dask": "dask-core",
    "matplotlib": "matplotlib-base",
    "nvidia-cuda-nvrtc": "cuda-nvrtc",
    "xgboost-cpu": "py-xgboost-cpu",
}


def lower_bounds(lines):
    """Map each requirement's canonical name to its specifier, as text."""
    requirements = [Requirement(line) for line in lines]
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements}


@pytest.fixture(scope="module")
def required():
    """What the CPU environment asks for: the library and all extras but `gpu` and `sasview`."""
    extras = PROJECT["optional-dependencies"]
    return lower_bounds(
        PROJECT["dependencies"] + [line for name in extras if name not in ("gpu", "sasview") for line in extras[name]]
    )


@pytest.fixture(scope="module")
def locked():
    """Canonical name -> the locked versions (one for each Python that the lock tells apart)."""
    versions = {}
    for line in re.findall(r"^[\w.-]+==.*(?= \\$)", LOCK, flags=re.M):
        requirement = Requirement(line)
        (pin,) = requirement.specifier
        versions.setdefault(canonicalize_name(requirement.name), []).append(pin.version)
    return versions


def test_every_requirement_has_a_lower_bound_and_no_other(required):
    assert {name: bound for name, bound in required.items() if not re.fullmatch(r">=[\d.]+", bound)} == {}


def test_conda_environment_equals_pyproject(required):
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text())["dependencies"]
    conda = lower_bounds(line for line in dependencies if isinstance(line, str))
    assert conda.pop("python") == PROJECT["requires-python"]
    assert conda.pop("pip") == ""
    assert conda == {CONDA_NAMES.get(name, name): bound for name, bound in required.items()}
    assert {"pip": ["-e ."]} in dependencies


def test_lock_satisfies_every_requirement(required, locked):
    assert set(required) <= set(locked)
    for name, bound in required.items():
        specifier = Requirement(name + bound).specifier
        assert all(specifier.contains(version) for version in locked[name]), (name, bound, locked[name])


def test_lock_pins_and_hashes_every_package(locked):
    packages = re.split(r"^(?=[\w.-])", LOCK, flags=re.M)[1:]
    assert len(packages) == sum(map(len, locked.values()))
    assert [package for package in packages if not re.search(r"--hash=sha256:[0-9a-f]{64}", package)] == []


def test_lock_names_no_index_and_no_folder():
    """Each line is a pin, a hash, or who asks for the package."""
    name = r"[\w.-]+"
    pin = rf"{name}==[\w.+!]+( ; [\w.'<>=! *()]+)? \\"
    line = rf"{pin}|    --hash=sha256:[0-9a-f]{{64}}( \\)?|    #( via)?( +{name}( \(pyproject\.toml\))?)?"
    assert [other for other in LOCK.splitlines() if not re.fullmatch(line, other)] == []


def test_the_two_builds_of_xgboost_exclude_each_other(locked):
    extras = PROJECT["optional-dependencies"]
    assert "xgboost" in lower_bounds(extras["gpu"]) and "xgboost-cpu" in lower_bounds(extras["cpu"])
    assert "xgboost" not in locked and "xgboost-cpu" in locked


def test_citation_and_package_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == grfsaxs_lib.__version__ == importlib.metadata.version("grfsaxs")
    assert citation["license"] == PROJECT["license"]
    dois = {reference["doi"] for reference in citation["references"]}
    assert dois == {"10.3389/fmats.2022.956839", "10.5281/zenodo.5948941"}
