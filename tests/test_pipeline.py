"""Tiers, data sets and status as `run_all.sh` asks for them."""

import re
import subprocess
from pathlib import Path

import pytest

from grfsaxs_lib import paper, pipeline

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.filterwarnings("ignore:the box of")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """A root whose data are this test's own."""
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    monkeypatch.setenv("GRFSAXS_ROOT", str(tmp_path))
    return tmp_path


def test_every_parameter_of_a_tier_is_some_notebooks():
    declared = {name: set() for name in pipeline.TIERS}
    for notebook in pipeline.find_notebooks():
        for tier, names in declared.items():
            names |= set(pipeline.notebook_parameters(notebook, tier))
    assert {tier: set(values) - declared[tier] for tier, values in pipeline.TIERS.items()} == dict.fromkeys(
        pipeline.TIERS, set()
    )


def test_the_smoke_tier_is_the_notebooks_defaults():
    """So that nbval, which knows no tiers, runs what the smoke tier runs."""
    for notebook in pipeline.find_notebooks():
        smoke = pipeline.notebook_parameters(notebook, "smoke")
        smoke.pop("overwrite", None)  # the files of an earlier version of the simulation are replaced
        assert smoke == {name: value for name, value in _defaults(notebook).items() if name in smoke}, notebook.name


def _defaults(notebook):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(pipeline.TIERS, "smoke", {})
        return pipeline.notebook_parameters(notebook, "smoke")


def test_the_paper_tier_is_the_papers():
    shards = pipeline.plan_shards("paper")
    assert len(shards) == 896
    assert sum(shard.indices.size for shard in shards) == 4 * sum(paper.N_SAMPLES.values()) == 3_670_016
    assert {(shard.grid.size, shard.grid.voxel_size, shard.smoothing_sigma) for shard in shards} == {(512, 0.5, 2.0)}
    parameters = pipeline.notebook_parameters(pipeline.find_notebooks()[6], "paper")
    assert (parameters["n_estimators"], parameters["patience"], parameters["repeats"]) == (50_000, 1000, 10)


def test_shares_and_status(elsewhere, capsys):
    pipeline.main(["status", "smoke"])
    assert "missing: 320 curves; no rate measured yet" in capsys.readouterr().out
    pipeline.main(["generate", "smoke", "--shards", "1/7"])
    assert "3 shards are complete in" in capsys.readouterr().out
    assert len(list((elsewhere / "data/smoke/datasets").iterdir())) == 3
    pipeline.main(["status", "smoke"])
    out = capsys.readouterr().out
    made = 16 + 16 + 16
    assert re.search(rf"missing: {320 - made} curves; [0-9.]+ min at the rate so far", out)
    assert re.search(r"two_phase_low +train +1 +3 +16 +48", out)


def test_status_of_the_training_runs(elsewhere, capsys, monkeypatch):
    for name, value in {"n_train": 20, "n_validation": 4, "n_test": 4, "grid_size": 16, "n_estimators": 3}.items():
        monkeypatch.setitem(pipeline.TIERS["smoke"], name, value)
    pipeline.main(["generate", "smoke"])
    runs = pipeline.plan_runs("smoke")
    pipeline.campaign.execute(runs[:4], progress=False)
    pipeline.main(["status", "smoke"])
    out = capsys.readouterr().out
    assert re.search(r"models: 4 of 10 training runs are finished; [0-9.]+ min for the rest", out)


@pytest.mark.parametrize(
    "words, message",
    [
        ("generate", "generate takes a tier"),
        ("status nothing", "cannot make sense of 'nothing'"),
        ("generate smoke --shards 3", "--shards takes k/n, as in 3/28; got '3'"),
        ("smoke --shards 1/2", "--shards goes with generate"),
        ("smoke --scheduler somewhere", "--scheduler takes local:N or an address like tcp://host:8786"),
        ("smoke --scheduler", "--scheduler takes local:N"),
        ("status smoke --scheduler local:2", "--scheduler goes with"),
        ("smoke --from 6", "--from takes the two digits"),
        ("generate smoke --from 06", "--from goes with"),
        ("--device tpu", "--device must be cpu or gpu"),
    ],
)
def test_bad_calls_are_refused_before_any_work(words, message):
    call = subprocess.run(["bash", ROOT / "run_all.sh", *words.split()], capture_output=True, text=True, timeout=10)
    assert call.returncode == 1 and call.stdout == ""
    assert call.stderr.startswith("run_all.sh: ") and message in call.stderr


def test_bad_values_end_without_a_traceback(elsewhere):
    with pytest.raises(SystemExit, match="run_all.sh: shards must read 'k/n' with 1 <= k <= n"):
        pipeline.main(["generate", "smoke", "--shards", "3/2"])
    with pytest.raises(SystemExit, match="run_all.sh: device='gpu' needs"):
        pipeline.main(["generate", "smoke", "--device", "gpu"])
