"""The texts beside the code: their links, commands and files exist, and the README is short."""

import re
import subprocess
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import yaml

from grfsaxs_lib import CASES, tiers
from grfsaxs_lib.datasets import reference
from grfsaxs_lib.trees import model

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DECISIONS = sorted(set((ROOT / "docs" / "decisions").glob("*.md")) - {ROOT / "docs" / "decisions" / "README.md"})
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS += [ROOT / folder / "README.md" for folder in ("benchmarks", "cluster", "data/reference")]


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_links_lead_somewhere(path):
    links = re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", path.read_text(encoding="utf-8"))
    missing = [link for link in links if not (path.parent / link.partition("#")[0]).resolve().exists()]
    assert missing == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_files_that_are_named_exist(path):
    """Paths in backticks that begin with a folder of the repository, placeholders as in data/<tier> left out."""
    folders = "benchmarks|cluster|docs|figures|grfsaxs_lib|notebooks|tests"
    named = re.findall(rf"`((?:{folders})/[\w./-]*\w)`", path.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_commands_exist(path):
    help_text = subprocess.run(
        ["bash", ROOT / "run_all.sh", "--help"], capture_output=True, text=True, check=True
    ).stdout
    known = set(re.findall(r"--[a-z]+|\b[a-z]+\b", help_text.split("The table of tiers")[0]))
    places = r"\d+|k/n|local:\w+|tcp://\S+|\w+\.xml"
    for call in re.findall(r"\./run_all\.sh([^`#\n&]*)", path.read_text(encoding="utf-8")):
        assert [word for word in call.split() if word not in known and not re.fullmatch(places, word)] == [], call


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_scripts_that_are_called_exist(path):
    called = re.findall(r"\bpython (?:-m pytest (?:-s )?)?([\w./]+\.py)", path.read_text(encoding="utf-8"))
    assert [script for script in called if not (ROOT / script).exists()] == []


def test_the_readme_shows_its_commands():
    calls = [call.split() for call in re.findall(r"^\./run_all\.sh([^#\n]*)", README, flags=re.M)]
    assert [] in calls and ["test"] in calls and ["quick"] in calls


def test_the_readme_is_short():
    assert len([word for word in README.split() if re.search(r"\w", word)]) <= 700


def test_the_code_of_the_readme_runs(monkeypatch):
    simulate, predict = re.findall(r"```python\n(.*?)```", README, flags=re.S)
    names = {}
    exec(simulate.replace("gx.PAPER_GRID", "gx.Grid(160, 1.0)"), names)
    assert names["noisy"].shape == names["gx"].PAPER_Q.shape and np.isfinite(names["noisy"]).all()
    # No model is there before a run: stand-ins check the arguments.
    loaded = mock.create_autospec(model.Model, instance=True)
    monkeypatch.setattr(model, "load_model", mock.create_autospec(model.load_model, return_value=loaded))
    exec(predict, names)
    loaded.predict.assert_called_once_with(names["noisy"])


def test_the_readme_names_what_is_cited():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert all(reference["doi"] in README for reference in citation["references"])


def test_the_readme_has_the_training_curves_of_each_tier():
    rows = re.findall(r"^\| `(\w+)` \| ([\d ]+), (\w+) \|", README, flags=re.M)
    assert {tier: (int(count.replace(" ", "")), kind) for tier, count, kind in rows} == {
        tier: (sizes["n_train"], "simulated") if sizes["n_train"] else (sizes["n_training_curves"], "emulated")
        for tier, sizes in tiers.TIERS.items()
    }


def test_the_numbers_of_reference_structures():
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", (ROOT / "data/reference/README.md").read_text(), flags=re.M)
    counts = [splits for case, splits in reference.COUNTS.items() if case in CASES]
    assert {split: {int(number) for number in re.findall(r"\d+", text)} for split, text in rows} == {
        split: {splits[split] for splits in counts} for split in counts[0]
    }


def test_the_index_lists_each_decision_once():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[[^\]]+\]\(([\w-]+\.md)\) \|", index, flags=re.M)) == [p.name for p in DECISIONS]


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_how_to_measure_again(path):
    text = path.read_text(encoding="utf-8")
    heads = re.findall(r"^\*\*([^*]+)\.\*\*", text, flags=re.M)
    wanted = ["Question", "Decision", "Measured", "Alternatives that lost", "How to measure again"]
    assert [head for head in heads if head in wanted] == wanted
    again = text.partition("**How to measure again.**")[2]
    assert re.search(r"`[^`]*\.(?:py|ipynb)\b", again) or "kept" in again
