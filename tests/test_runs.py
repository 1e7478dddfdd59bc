"""Plans of training runs, and what is kept of them."""

import json

import numpy as np
import pytest

from grfsaxs_lib.datasets import store
from grfsaxs_lib.grid import Grid
from grfsaxs_lib.parameters import CASES
from grfsaxs_lib.trees import runs, samples, training

pytestmark = pytest.mark.filterwarnings("ignore::grfsaxs_lib.SmallBoxWarning")
FAST = {"learning_rate": 0.2, "max_depth": 3, "subsample": 0.5, "max_bin": 16}
Q = np.linspace(0.4, 3.0, 12)
SETTINGS = {"hyperparameters": FAST, "n_estimators": 12, "patience": 4, "seed": 3, "n_jobs": 1}


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """Real curves of tiny structures, two cases."""
    folder = tmp_path_factory.mktemp("datasets")
    plan = store.plan(
        {"train": 40, "validation": 12}, cases=["two_phase_low", "three_phase_low"], directory=folder,
        grid=Grid(12, 1.0), smoothing_sigma=1.0, q=Q, shard_size=15,
    )  # fmt: skip
    store.generate(plan, progress=False)
    return folder


@pytest.fixture
def plan(datasets, tmp_path):
    def make(**more):
        setting = SETTINGS | {"cases": ["two_phase_low", "three_phase_low"], "repeats": 2} | more
        sources = [samples.Simulated(case, datasets) for case in setting.pop("cases")]
        return runs.plan_models(sources, directory=tmp_path / "runs", **setting)

    return make


@pytest.fixture
def trained(monkeypatch):
    """Counts the calls of `training.fit`; the one in `fails_at` raises."""
    calls, fit = [], training.fit

    def counted(*args, **more):
        calls.append(more["run"])
        if len(calls) == counted.fails_at:
            raise RuntimeError("the machine stops here")
        return fit(*args, **more)

    counted.fails_at, counted.calls = None, calls
    monkeypatch.setattr(training, "fit", counted)
    return counted


def test_every_output_has_its_runs(plan, datasets):
    planned = plan()
    assert [(run.case, run.output, run.run) for run in planned] == [
        (case, output, number)
        for case in ("two_phase_low", "three_phase_low") for output in CASES[case].outputs for number in (0, 1)
    ]  # fmt: skip
    assert len({run.path for run in planned}) == len(planned)


def test_the_best_run_is_what_a_fit_by_hand_gives(plan, datasets):
    planned = plan(cases=["two_phase_low"])
    fits = runs.execute(planned, progress=False)
    best = runs.best_fits(planned, fits)
    read = samples.read_samples(samples.Simulated("two_phase_low", datasets))
    for output in ("scaling_parameter", "porosity"):
        by_hand = [training.fit(*read.of(output), **SETTINGS, run=run, progress=False) for run in (0, 1)]
        mine = [fit for run, fit in zip(planned, fits, strict=True) if run.output == output]
        for here, there in zip(by_hand, mine, strict=True):
            np.testing.assert_array_equal(here.history, there.history)
        expected = min(by_hand, key=lambda fit: fit.validation_mse)
        assert best["two_phase_low", output].booster.save_raw("ubj") == expected.booster.save_raw("ubj")


def test_models_of_the_best_runs(plan, datasets):
    """Their predictions are those of the boosters on inputs that are prepared by hand."""
    planned = plan(pooling=(3, 0.0))
    fits = runs.execute(planned, progress=False)
    best, models = runs.best_fits(planned, fits), runs.best_models(planned, fits, {"note": 1})
    assert list(models) == ["two_phase_low", "three_phase_low"] and models["three_phase_low"].meta == {"note": 1}
    read = samples.read_samples(samples.Simulated("three_phase_low", datasets), (3, 0.0))
    raw = store.load("three_phase_low", "validation", datasets, noise_replicate=0)["intensity"].values
    for output, values in models["three_phase_low"].predict(raw).items():
        np.testing.assert_array_equal(values, best["three_phase_low", output].booster.inplace_predict(read.x_val))


def test_only_some_outputs(plan):
    assert {run.output for run in plan(outputs=["porosity"])} == {"porosity"}


def test_finished_runs_are_kept(plan, trained):
    planned = plan()
    first = runs.execute(planned, progress=False)
    assert len(trained.calls) == 10 and runs.finished(planned) == planned
    again = runs.execute(plan(), threads=3, progress=False)
    assert len(trained.calls) == 10
    for one, other in zip(first, again, strict=True):
        assert one.validation_mse == other.validation_mse and one.seconds == other.seconds


def test_a_crash_costs_one_run(plan, trained):
    trained.fails_at = 4
    with pytest.raises(RuntimeError, match="the machine stops here"):
        runs.execute(plan(), progress=False)
    assert len(runs.finished(plan())) == 3
    runs.execute(plan(), progress=False)
    assert len(trained.calls) == 4 + 7


@pytest.mark.parametrize("suffix", [".json", ".ubj"])
@pytest.mark.parametrize("harm", ["truncate", "flip", "remove"])
def test_damaged_runs_are_done_again(plan, trained, suffix, harm):
    planned = plan(cases=["two_phase_low"], repeats=1)
    runs.execute(planned, progress=False)
    before = runs.load_fit(planned[0]).booster.save_raw("ubj")
    path = planned[0].path.with_suffix(suffix)
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2 if suffix == ".ubj" else content.index(b"recipe")] ^= 4
    path.write_bytes(content[:-10] if harm == "truncate" else content)
    if harm == "remove":
        path.unlink()
    with pytest.raises(ValueError, match="not there or damaged: execute the run again"):
        runs.load_fit(planned[0])
    runs.execute(planned, progress=False)
    assert len(trained.calls) == 3
    assert runs.load_fit(planned[0]).booster.save_raw("ubj") == before


@pytest.mark.parametrize(
    "other",
    [
        {"seed": 4},
        {"n_estimators": 13},
        {"patience": 5},
        {"pooling": (2, 0.0)},
        {"hyperparameters": FAST | {"max_depth": 2}},
    ],
    ids=lambda other: next(iter(other)),
)
def test_runs_of_other_settings_are_not_mixed(plan, trained, other):
    runs.execute(plan(cases=["two_phase_low"], repeats=1), progress=False)
    changed = plan(cases=["two_phase_low"], repeats=1, **other)
    assert runs.finished(changed) == []
    runs.execute(changed, progress=False)
    assert len(trained.calls) == 4
    assert len(runs.finished(plan(cases=["two_phase_low"], repeats=1))) == 2  # nothing was lost


def test_threads_are_no_part_of_the_recipe(plan, trained):
    runs.execute(plan(cases=["two_phase_low"]), progress=False)
    assert len(runs.finished(plan(cases=["two_phase_low"], n_jobs=2))) == 4


def test_runs_of_another_version_are_not_mixed(plan, monkeypatch):
    runs.execute(plan(cases=["two_phase_low"]), progress=False)
    for name, value in (("TRAINING_VERSION", 99), ("training.xgboost_version", lambda: "0.1")):
        with monkeypatch.context() as patch:
            patch.setattr(f"grfsaxs_lib.trees.runs.{name}", value)
            assert runs.finished(plan(cases=["two_phase_low"])) == []


def test_leftovers_of_killed_runs_are_removed(plan):
    planned = plan(cases=["two_phase_low"], repeats=1)
    planned[0].path.parent.mkdir()
    leftovers = [
        planned[0].path.with_name(f".{planned[0].path.stem}{suffix}.0badcafe.tmp") for suffix in (".ubj", ".json")
    ]
    for path in leftovers:
        path.write_bytes(b"half a file")
    runs.execute(planned, progress=False)
    assert sorted(path.suffix for path in planned[0].path.parent.iterdir()) == [".json", ".json", ".ubj", ".ubj"]


def test_the_samples_are_read_once_and_not_kept(plan, monkeypatch):
    reads, read = [], runs.read_samples
    monkeypatch.setattr(runs, "read_samples", lambda *args: (reads.append(args[0].case), read(*args))[1])
    runs.execute(plan(), threads=3, progress=False)
    assert reads[0] == "two_phase_low" and len(reads) <= 4  # three threads may cross the change of the case
    assert runs._held == {}


def test_changed_data_are_noticed(plan, datasets, tmp_path, monkeypatch):
    planned = plan(cases=["two_phase_low"])
    monkeypatch.setattr(samples, "MEASUREMENT_VERSION", 99)
    with pytest.raises(ValueError, match="curves of .*two_phase_low.* have changed since"):
        runs.execute(planned, progress=False)
    assert runs.finished(plan(cases=["two_phase_low"])) == []


def test_search(datasets, tmp_path, trained):
    setting = {name: SETTINGS[name] for name in ("n_estimators", "patience", "seed", "n_jobs")}
    source = samples.Simulated("two_phase_low", datasets)
    two, three = (
        runs.plan_search(source, "porosity", n_draws=n, pooling=(4, 0.0), directory=tmp_path, **setting) for n in (2, 3)
    )
    assert [run.path for run in two] == [run.path for run in three[:2]]  # a longer search goes on
    runs.execute(two, progress=False)
    fits = runs.execute(three, progress=False)
    assert len(trained.calls) == 3 and all(fit.booster is None for fit in fits)
    assert len(list(tmp_path.glob("*.json"))) == 3 and not list(tmp_path.glob("*.ubj"))
    assert set(three[0].hyperparameters) == set(training.PAPER_HYPERPARAMETERS)
    description = json.loads(three[0].path.read_text())
    assert description["recipe"]["pooling"] == [4, 0.0] and description["validation_mse"] == fits[0].validation_mse


def test_bad_plans_are_refused_before_any_work(plan, datasets, trained, tmp_path):
    for bad, message in (
        ({"repeats": 0}, "repeats must"),
        ({"n_estimators": 0}, "n_estimators must"),
        ({"hyperparameters": {"depth": 3}}, "'depth'"),
        ({"cases": ["four_phase"]}, "case must be one of"),
        ({"device": "tpu"}, "device must be one of"),
    ):
        with pytest.raises(ValueError, match=message):
            plan(**bad)
    with pytest.raises(FileNotFoundError, match="no data set two_phase_high train in .*04_datasets"):
        plan(cases=["two_phase_high"])
    assert trained.calls == [] and runs.execute([]) == []
