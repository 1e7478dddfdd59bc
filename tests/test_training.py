"""Fitting, searching, predicting, saving and loading, on curves that a formula makes."""

import json
import subprocess
import sys
import warnings

import numpy as np
import pytest
import xgboost

from grfsaxs_lib import evaluation, training
from grfsaxs_lib.preprocess import Preprocessing

Q = np.linspace(0.04, 3.0, 40)
FAST = {"learning_rate": 0.2, "max_depth": 4, "subsample": 0.5, "colsample_bytree": 0.5, "max_bin": 32}
SHORT = {"n_estimators": 150, "patience": 5, "device": "cpu", "n_jobs": 1, "progress": False}


def curves(n, seed, lower=0.8, upper=8.0):
    """Plateau, knee at q = 1/a, Porod tail, some speckle: curves that tell a well."""
    rng = np.random.default_rng(seed)
    a = rng.uniform(lower, upper, n)
    smooth = 1e9 * a[:, np.newaxis] ** 3 / (1 + (a[:, np.newaxis] * Q) ** 4)
    return smooth * np.exp(0.1 * rng.standard_normal(smooth.shape)), a


@pytest.fixture(scope="module")
def samples():
    (i_train, a_train), (i_val, a_val) = curves(400, 0), curves(150, 1)
    preprocessing = Preprocessing.fit(i_train, Q)
    return preprocessing.transform(i_train), a_train, preprocessing.transform(i_val), a_val


@pytest.fixture(scope="module")
def fitted(samples):
    return training.fit(*samples, hyperparameters=FAST, repeats=3, seed=5, **SHORT)


@pytest.fixture(scope="module")
def model(samples, fitted):
    preprocessing = Preprocessing.fit(curves(400, 0)[0], Q)
    boosters = {"scaling_parameter": fitted.booster, "porosity": fitted.booster[:3]}
    return training.Model("two_phase_low", preprocessing, boosters, {"seed": 5})


@pytest.fixture
def saved(model, tmp_path):
    return training.save_model(model, tmp_path / "model")


def test_booster_ends_at_the_best_iteration(samples, fitted):
    """Early stopping grew `patience` trees more; they are gone, and the error is that of the trees kept."""
    x_val, y_val = samples[2:]
    assert fitted.booster.num_boosted_rounds() == fitted.best_iteration + 1
    assert fitted.history.size == fitted.best_iteration + 1 + SHORT["patience"] < SHORT["n_estimators"]
    assert fitted.history.argmin() == fitted.best_iteration
    # XGBoost sums the same float32 predictions in another order
    mse = evaluation.mse(fitted.booster.inplace_predict(x_val), y_val)
    assert mse == pytest.approx(fitted.validation_mse, rel=1e-5)


def test_best_of_the_runs_is_kept(fitted):
    assert len(fitted.runs) == 3 and fitted.runs["seed"].is_unique and fitted.runs["validation_mse"].is_unique
    best = fitted.runs.loc[fitted.runs["validation_mse"].idxmin()]
    assert best["validation_mse"] == fitted.validation_mse and best["best_iteration"] == fitted.best_iteration


def test_it_learns(fitted, samples):
    """The error is far below that of the best constant, the variance (8 - 0.8)^2 / 12."""
    assert fitted.validation_mse < 0.05 * samples[3].var()


def test_same_seed_same_trees(samples, fitted):
    again, other = (training.fit(*samples, hyperparameters=FAST, repeats=3, seed=seed, **SHORT) for seed in (5, 6))
    assert again.booster.save_raw("ubj") == fitted.booster.save_raw("ubj")
    assert other.booster.save_raw("ubj") != fitted.booster.save_raw("ubj")


@pytest.mark.parametrize("max_bin", [2, 8])
def test_max_bin_is_honoured(samples, max_bin):
    """An input split into n bins offers at most n - 1 cuts inside and one at its end."""
    result = training.fit(*samples, hyperparameters=FAST | {"max_bin": max_bin}, seed=0, **SHORT)
    splits = result.booster.trees_to_dataframe().query("Feature != 'Leaf'")
    assert splits.groupby("Feature")["Split"].nunique().max() <= max_bin


def test_hyperparameters_reach_the_booster(samples):
    parameters = training._booster_parameters(training.PAPER_HYPERPARAMETERS, "cpu", 1)
    short = parameters | {"seed": 0, "max_depth": 2}
    data = xgboost.QuantileDMatrix(samples[0], samples[1], max_bin=1024)
    config = json.loads(xgboost.train(short, data, 1).save_config())["learner"]
    tree = config["gradient_booster"]["tree_train_param"]
    wanted = training.PAPER_HYPERPARAMETERS | {"max_depth": 2}
    assert {name: float(tree[name]) for name in wanted} == pytest.approx(wanted, rel=1e-6)  # float32 there
    assert config["learner_train_param"]["objective"] == "reg:squarederror"


def test_search_draws_from_table_1_and_does_not_depend_on_its_length(samples):
    settings = SHORT | {"n_estimators": 3}
    two = training.search(*samples, n_draws=2, seed=1, **settings)
    one = training.search(*samples, n_draws=1, seed=1, **settings)
    assert two.iloc[:1].drop(columns="seconds").equals(one.drop(columns="seconds"))
    assert set(training.SEARCH_SPACE) - {"n_estimators"} | {"validation_mse", "best_iteration"} <= set(two)
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
    training.fit(*samples, hyperparameters=FAST, seed=0, repeats=2, **(SHORT | {"progress": "porosity"}))
    captured = capfd.readouterr()
    assert captured.out == "" and "porosity: 100%" in captured.err and "tree/s" in captured.err


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        ({"hyperparameters": {"depth": 3}}, "'depth'"),
        ({"hyperparameters": {"n_estimators": 3}}, "'n_estimators'"),
        ({"device": "tpu"}, "device must be one of cpu, gpu"),
        ({"n_estimators": 0}, "n_estimators must"),
        ({"patience": 1.5}, "patience must"),
        ({"repeats": -1}, "repeats must"),
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


def test_predict_one_curve_or_many(model):
    intensity, a = curves(60, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # curves like the training set do not warn
        many = model.predict(intensity, Q)
        one = model.predict(intensity[3])
        stacked = model.predict(1e-5 * intensity.reshape(3, 20, -1))
    assert list(many) == ["scaling_parameter", "porosity"]
    assert many["scaling_parameter"].dtype == np.float64 and many["scaling_parameter"].shape == (60,)
    assert one["scaling_parameter"] == many["scaling_parameter"][3] and np.ndim(one["scaling_parameter"]) == 0
    assert stacked["scaling_parameter"].shape == (3, 20)
    # MAPE below a third of the answer of a constant, 60 % over this prior
    assert evaluation.mape(many["scaling_parameter"], a) < 20


def test_foreign_curves_warn(model):
    with pytest.warns(training.OutsideTrainingDomainWarning, match="5 of 5 curves"):
        model.predict(curves(5, 3, 20, 20.1)[0])
    with pytest.warns(training.OutsideTrainingDomainWarning, match="1 of 1 curves"):
        model.predict(Q**-2.0)


def test_predict_refuses_other_q_and_bad_intensities(model):
    intensity = curves(2, 4)[0]
    for q in (Q[1:], Q * 1.01, 10 * Q):
        with pytest.raises(ValueError, match="the model is for 40 q values"):
            model.predict(intensity, q)
    for bad in (intensity[:, 1:], -intensity, intensity * np.nan):
        with pytest.raises(ValueError, match="intensity must"):
            model.predict(bad)


def test_round_trip_is_exact(model, saved):
    assert sorted(path.name for path in saved.iterdir()) == [
        "porosity.ubj", "preprocessing.json", "scaling_parameter.ubj",
    ]  # fmt: skip
    again = training.load_model(saved, case="two_phase_low", q=Q.astype(np.float32))
    assert (again.case, again.meta) == (model.case, model.meta)
    intensity = curves(50, 5)[0]
    for output, values in model.predict(intensity).items():
        np.testing.assert_array_equal(again.predict(intensity)[output], values)


def test_loading_checks_case_and_q(saved):
    with pytest.raises(ValueError, match="is for case 'two_phase_low', not 'two_phase_high'"):
        training.load_model(saved, case="two_phase_high")
    with pytest.raises(ValueError, match="the model is for 40 q values"):
        training.load_model(saved, q=Q[:-1])


def test_loading_checks_the_format_version(saved):
    path = saved / "preprocessing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99, "package_version": "7"}))
    with pytest.raises(ValueError, match=r"format version 99, written by version 7 "):
        training.load_model(saved)


@pytest.mark.parametrize("name", ["preprocessing.json", "porosity.ubj"])
def test_missing_files(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        training.load_model(saved)


@pytest.mark.parametrize("name", ["preprocessing.json", "porosity.ubj"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files(saved, name, keep):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"{name} is truncated"):
        training.load_model(saved)


def test_foreign_files(saved):
    path = saved / "preprocessing.json"
    description = json.loads(path.read_text())
    for foreign in ("[]", "3", "{}", '{"format": "other"}', "\x00", "null"):
        path.write_text(foreign)
        with pytest.raises(ValueError, match="not the description of a model"):
            training.load_model(saved)
    for spoil in ({"files": 3}, {"files": None}, {"preprocessing": {}}, {"files": {"../porosity": "0"}}):
        path.write_text(json.dumps(description | spoil))
        with pytest.raises(ValueError, match="is damaged"):
            training.load_model(saved)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not the description of a model"):
        training.load_model(saved)


def test_files_of_two_saves_do_not_mix(saved):
    (saved / "porosity.ubj").write_bytes((saved / "scaling_parameter.ubj").read_bytes())
    with pytest.raises(ValueError, match="not of one save"):
        training.load_model(saved)


def test_a_save_that_fails_leaves_the_old_model(model, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    broken = training.Model(model.case, model.preprocessing, model.boosters, {"not JSON": object()})
    with pytest.raises(TypeError):
        training.save_model(broken, saved)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        training.save_model(model, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_model_needs_boosters_that_fit(model):
    other = Preprocessing.fit(curves(5, 6)[0][:, :30], Q[:30])
    with pytest.raises(ValueError, match="takes 40 inputs"):
        training.Model("two_phase_low", other, model.boosters)
    with pytest.raises(ValueError, match="named like a variable"):
        training.Model("two_phase_low", model.preprocessing, {"../a": model.boosters["porosity"]})


def test_importing_the_package_does_not_import_xgboost():
    code = "import sys, grfsaxs_lib, grfsaxs_lib.training; sys.exit('xgboost' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
