"""Fitting, on curves that a formula makes."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xgboost
from made_up_curves import Q, curves

from grfsaxs_lib import evaluation
from grfsaxs_lib.measurement.preprocess import Preprocessing
from grfsaxs_lib.trees import training

FAST = {"learning_rate": 0.2, "max_depth": 4, "subsample": 0.5, "colsample_bytree": 0.5, "max_bin": 32}
SHORT = {"n_estimators": 150, "patience": 5, "device": "cpu", "n_jobs": 1, "progress": False}


@pytest.fixture(scope="module")
def samples():
    (i_train, a_train), (i_val, a_val) = curves(400, 0), curves(150, 1)
    preprocessing = Preprocessing.fit(i_train, Q)
    return preprocessing.transform(i_train), a_train, preprocessing.transform(i_val), a_val


@pytest.fixture(scope="module")
def fitted(samples):
    return training.fit(*samples, hyperparameters=FAST, seed=5, **SHORT)


def test_booster_ends_at_the_best_iteration(samples, fitted):
    """Early stopping grew `patience` trees more; they are gone, and the error is that of the trees kept."""
    x_val, y_val = samples[2:]
    assert fitted.booster.num_boosted_rounds() == fitted.best_iteration + 1
    assert fitted.history.size == fitted.best_iteration + 1 + SHORT["patience"] < SHORT["n_estimators"]
    assert fitted.history.argmin() == fitted.best_iteration
    # XGBoost sums the same float32 predictions in another order
    mse = evaluation.mse(fitted.booster.inplace_predict(x_val), y_val)
    assert mse == pytest.approx(fitted.validation_mse, rel=1e-5)


def test_it_learns(fitted, samples):
    """The error is far below that of the best constant, the variance (8 - 0.8)^2 / 12."""
    assert fitted.validation_mse < 0.05 * samples[3].var()


def test_same_seed_and_run_same_trees(samples, fitted):
    again, other_seed, other_run = (
        training.fit(*samples, hyperparameters=FAST, seed=seed, run=run, **SHORT).booster.save_raw("ubj")
        for seed, run in ((5, 0), (6, 0), (5, 1))
    )
    assert again == fitted.booster.save_raw("ubj")
    assert len({bytes(again), bytes(other_seed), bytes(other_run)}) == 3


@pytest.mark.parametrize("max_bin", [2, 8])
def test_max_bin_is_honoured(samples, max_bin):
    """An input split into n bins offers at most n - 1 cuts inside and one at its end."""
    result = training.fit(*samples, hyperparameters=FAST | {"max_bin": max_bin}, seed=0, **SHORT)
    splits = result.booster.trees_to_dataframe().query("Feature != 'Leaf'")
    assert splits.groupby("Feature")["Split"].nunique().max() <= max_bin


def test_hyperparameters_reach_the_booster(samples):
    parameters = training.check_settings(training.PAPER_HYPERPARAMETERS, 1, 1, 0, "cpu", 1)
    short = parameters | {"seed": 0, "max_depth": 2}
    data = xgboost.QuantileDMatrix(samples[0], samples[1], max_bin=1024)
    config = json.loads(xgboost.train(short, data, 1).save_config())["learner"]
    tree = config["gradient_booster"]["tree_train_param"]
    wanted = training.PAPER_HYPERPARAMETERS | {"max_depth": 2}
    assert {name: float(tree[name]) for name in wanted} == pytest.approx(wanted, rel=1e-6)  # float32 there
    assert config["learner_train_param"]["objective"] == "reg:squarederror"


def test_draws_are_those_of_table_1():
    rng = np.random.default_rng(0)
    draws = [training.draw_hyperparameters(rng) for _ in range(500)]
    for name in training.PAPER_HYPERPARAMETERS:
        allowed, row = training.SEARCH_SPACE[name]["range"], {draw[name] for draw in draws}
        assert min(allowed) <= min(row) and max(row) <= max(allowed)
        if training.SEARCH_SPACE[name]["draw"] == "integer":
            assert row == set(range(allowed[0], allowed[1] + 1))
        elif training.SEARCH_SPACE[name]["draw"] == "choice":
            assert row == set(allowed)
        assert min(allowed) <= training.PAPER_HYPERPARAMETERS[name] <= max(allowed)


def test_progress_is_text_on_stderr(samples, capfd):
    training.fit(*samples, hyperparameters=FAST, seed=0, **(SHORT | {"progress": "porosity"}))
    captured = capfd.readouterr()
    assert captured.out == "" and "porosity: 100%" in captured.err and "tree/s" in captured.err


def test_progress_counts_trees(samples, fitted):
    trees = []
    training.fit(*samples, hyperparameters=FAST, seed=5, **(SHORT | {"progress": trees.append}))
    assert trees == [1] * fitted.history.size


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        ({"hyperparameters": {"depth": 3}}, "'depth'"),
        ({"hyperparameters": {"n_estimators": 3}}, "'n_estimators'"),
        ({"device": "tpu"}, "device must be one of cpu, gpu"),
        ({"n_estimators": 0}, "n_estimators must"),
        ({"patience": 1.5}, "patience must"),
        ({"run": -1}, "run must"),
        ({"seed": -1}, "seed must"),
        ({"seed": None}, "seed must"),
        ({"n_jobs": 0}, "n_jobs must"),
    ],
)
def test_bad_arguments_are_refused(samples, spoil, match):
    with pytest.raises(ValueError, match=match):
        training.fit(*samples, **({"hyperparameters": FAST, "seed": 0} | SHORT | spoil))


def test_bad_arrays_are_refused(samples):
    x, y, x_val, y_val = samples
    hole = x.copy()
    hole[3, 4] = np.nan
    for arrays, match in [
        ((x[0], y[:1], x_val, y_val), "x_train must be"),
        ((x, y[:-1], x_val, y_val), "x_train must be"),
        ((x, y, x_val[:0], y_val[:0]), "not empty"),
        ((x, y, x_val[:, 1:], y_val), "x_val 39"),
        ((hole, y, x_val, y_val), "finite"),
        ((x, y, x_val, y_val * np.inf), "finite"),
    ]:
        with pytest.raises(ValueError, match=match):
            training.fit(*arrays, hyperparameters=FAST, seed=0, **SHORT)


def test_gpu_that_is_not_there_is_an_error(samples):
    try:
        training._require_gpu()
    except RuntimeError:
        with pytest.raises(RuntimeError, match="needs an NVIDIA GPU"):
            training.fit(*samples, hyperparameters=FAST, seed=0, **(SHORT | {"device": "gpu"}))
    else:
        pytest.skip("XGBoost can use a GPU here")


def test_a_fall_back_after_the_check_is_an_error(samples, monkeypatch):
    monkeypatch.setattr(training, "_require_gpu", lambda: None)
    if xgboost.build_info()["USE_CUDA"]:
        pytest.skip("this XGBoost is built for a GPU")
    with pytest.raises(RuntimeError, match="trained on cpu"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        training.fit(*samples, hyperparameters=FAST, seed=0, **(SHORT | {"device": "gpu", "n_estimators": 1}))


def test_importing_the_package_does_not_import_xgboost():
    code = "import sys, grfsaxs_lib, grfsaxs_lib.trees.training; sys.exit('xgboost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_masked_samples_are_refused(samples):
    x_train, y_train, *validation = samples
    for x, y, name in (
        (np.ma.masked_less(x_train, -2), y_train, "x_train"),
        (x_train, np.ma.masked_less(y_train, 1), "y_train"),
    ):
        with pytest.raises(ValueError, match=rf"^{name} has \d+ masked elements"):
            training.fit(x, y, *validation, hyperparameters=FAST, seed=5, **SHORT)
