"""Predicting, saving and loading, on curves that a formula makes."""

import json
import warnings

import numpy as np
import pytest
from made_up_curves import Q, curves

from grfsaxs_lib import evaluation
from grfsaxs_lib.measurement.preprocess import Preprocessing
from grfsaxs_lib.trees import training
from grfsaxs_lib.trees.model import Model, OutsideTrainingDomainWarning, load_model, save_model


@pytest.fixture(scope="module")
def model():
    (i_train, a_train), (i_val, a_val) = curves(400, 0), curves(150, 1)
    preprocessing = Preprocessing.fit(i_train, Q)
    booster = training.fit(
        preprocessing.transform(i_train), a_train, preprocessing.transform(i_val), a_val, n_estimators=40, patience=5,
        hyperparameters={"learning_rate": 0.2, "max_depth": 4, "max_bin": 32}, seed=5, n_jobs=1, progress=False,
    ).booster  # fmt: skip
    return Model("two_phase_low", preprocessing, {"scaling_parameter": booster, "porosity": booster[:3]}, {"seed": 5})


@pytest.fixture
def saved(model, tmp_path):
    return save_model(model, tmp_path / "model")


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


def test_the_mirrored_model_predicts_one_minus_the_porosity(model, tmp_path):
    intensity = curves(20, 7)[0]
    here, there = model.predict(intensity), model.mirrored().predict(intensity)
    np.testing.assert_array_equal(there["scaling_parameter"], here["scaling_parameter"])
    np.testing.assert_array_equal(there["porosity"], 1 - here["porosity"])
    again = load_model(save_model(model.mirrored(), tmp_path / "high"), case="two_phase_high")
    np.testing.assert_array_equal(again.predict(intensity)["porosity"], there["porosity"])
    assert again.mirrored().case == "two_phase_low"
    np.testing.assert_array_equal(again.mirrored().predict(intensity)["porosity"], here["porosity"])
    with pytest.raises(ValueError, match="only the two-phase cases"):
        Model("three_phase_low", model.preprocessing, model.boosters).mirrored()


def test_a_model_of_pooled_inputs(model):
    (i_train, a_train), (i_val, a_val) = curves(400, 0), curves(150, 1)
    preprocessing = Preprocessing.fit(i_train, Q, range(0, Q.size, 5))
    booster = training.fit(
        preprocessing.transform(i_train), a_train, preprocessing.transform(i_val), a_val, n_estimators=40, patience=5,
        hyperparameters={"learning_rate": 0.2, "max_depth": 4, "max_bin": 32}, seed=5, n_jobs=1, progress=False,
    ).booster  # fmt: skip
    pooled = Model("two_phase_low", preprocessing, {"scaling_parameter": booster})
    intensity, a = curves(60, 2)
    assert booster.num_features() == Q.size // 5
    assert evaluation.mape(pooled.predict(intensity, Q)["scaling_parameter"], a) < 20
    with pytest.raises(ValueError, match="takes 8 inputs, but the preprocessing makes 40"):
        Model("two_phase_low", model.preprocessing, {"scaling_parameter": booster})


def test_foreign_curves_warn(model):
    with pytest.warns(OutsideTrainingDomainWarning, match="5 of 5 curves"):
        model.predict(curves(5, 3, 20, 20.1)[0])
    with pytest.warns(OutsideTrainingDomainWarning, match="1 of 1 curves"):
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
    again = load_model(saved, case="two_phase_low", q=Q.astype(np.float32))
    assert (again.case, again.meta) == (model.case, model.meta)
    intensity = curves(50, 5)[0]
    for output, values in model.predict(intensity).items():
        np.testing.assert_array_equal(again.predict(intensity)[output], values)


def test_loading_checks_case_and_q(saved):
    with pytest.raises(ValueError, match="is for case 'two_phase_low', not 'two_phase_high'"):
        load_model(saved, case="two_phase_high")
    with pytest.raises(ValueError, match="the model is for 40 q values"):
        load_model(saved, q=Q[:-1])


def test_loading_checks_the_format_version(saved):
    path = saved / "preprocessing.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 99, "package_version": "7"}))
    with pytest.raises(ValueError, match=r"format version 99, written by version 7 "):
        load_model(saved)


@pytest.mark.parametrize("name", ["preprocessing.json", "porosity.ubj"])
def test_missing_files(saved, name):
    (saved / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        load_model(saved)


@pytest.mark.parametrize("name", ["preprocessing.json", "porosity.ubj"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.999])
def test_truncated_files(saved, name, keep):
    content = (saved / name).read_bytes()
    (saved / name).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(ValueError, match=rf"{name} is truncated"):
        load_model(saved)


def test_foreign_files(saved):
    path = saved / "preprocessing.json"
    description = json.loads(path.read_text())
    for foreign in ("[]", "3", "{}", '{"format": "other"}', "\x00", "null"):
        path.write_text(foreign)
        with pytest.raises(ValueError, match="not the description of a model"):
            load_model(saved)
    for spoil in ({"files": 3}, {"files": None}, {"preprocessing": {}}, {"files": {"../porosity": "0"}}):
        path.write_text(json.dumps(description | spoil))
        with pytest.raises(ValueError, match="is damaged"):
            load_model(saved)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="not the description of a model"):
        load_model(saved)


def test_files_of_two_saves_do_not_mix(saved):
    (saved / "porosity.ubj").write_bytes((saved / "scaling_parameter.ubj").read_bytes())
    with pytest.raises(ValueError, match="not of one save"):
        load_model(saved)


def test_a_save_that_fails_leaves_the_old_model(model, saved, monkeypatch):
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    broken = Model(model.case, model.preprocessing, model.boosters, {"not JSON": object()})
    with pytest.raises(TypeError):
        save_model(broken, saved)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.replace", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_model(model, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before


def test_a_model_needs_boosters_that_fit(model):
    other = Preprocessing.fit(curves(5, 6)[0][:, :30], Q[:30])
    with pytest.raises(ValueError, match="takes 40 inputs"):
        Model("two_phase_low", other, model.boosters)
    with pytest.raises(ValueError, match="named like a variable"):
        Model("two_phase_low", model.preprocessing, {"../a": model.boosters["porosity"]})
