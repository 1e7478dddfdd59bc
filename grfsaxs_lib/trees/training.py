r"""Regression by gradient-boosted trees (XGBoost).

Section 2.4: one model for each output, trained on the squared error, Eq. (13), with
early stopping on the validation set; the best of several runs is kept. XGBoost is
imported where it is needed, because that takes a second.
"""

import json
import operator
import time
import warnings
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from ..files import versions
from ..parameters import refuse_masked
from ..tiers import check_tier

PAPER_HYPERPARAMETERS = {
    "learning_rate": 0.005,
    "max_depth": 15,
    "min_child_weight": 3,
    "subsample": 0.15,
    "colsample_bytree": 0.15,
    "reg_lambda": 0.2,
    "max_bin": 1024,
}
PAPER_SCHEDULE = {"n_estimators": 50_000, "patience": 1000, "repeats": 10}

FEW_CURVES_HYPERPARAMETERS = PAPER_HYPERPARAMETERS | {
    "learning_rate": 0.1,
    "max_depth": 6,
    "subsample": 0.5,
    "max_bin": 64,
}
"""For a few thousand curves: with the paper's subsample a tree would see a few hundred of them."""

EMULATED_HYPERPARAMETERS = PAPER_HYPERPARAMETERS | {
    "learning_rate": 0.1,
    "max_depth": 13,
    "subsample": 0.5,
    "colsample_bytree": 0.6,
    "max_bin": 256,
}
"""For a million curves on two cores: hundreds of trees take minutes where the paper's thousands take hours. Chosen on
real test structures that had a part in choices (docs/decisions/tree-settings.md)."""


def final_hyperparameters(tier):
    """Those of the final models of a tier."""
    return {"quick": FEW_CURVES_HYPERPARAMETERS, "laptop": EMULATED_HYPERPARAMETERS, "paper": PAPER_HYPERPARAMETERS}[
        check_tier(tier)
    ]


# Table 1. The paper gives the ranges but not the distributions; scales that span more than
# one decade are drawn evenly in the logarithm. Early stopping chooses the number of trees.
SEARCH_SPACE = {
    "learning_rate": {"meaning": "weight of each new tree", "range": (0.001, 0.05), "draw": "log"},
    "max_depth": {"meaning": "most splits from root to leaf", "range": (10, 20), "draw": "integer"},
    "min_child_weight": {"meaning": "fewest samples in a leaf", "range": (1, 10), "draw": "integer"},
    "subsample": {"meaning": "share of curves a tree sees", "range": (0.1, 0.5), "draw": "linear"},
    "colsample_bytree": {"meaning": "share of inputs a tree sees", "range": (0.1, 0.3), "draw": "linear"},
    "reg_lambda": {"meaning": "L2 penalty on leaf values", "range": (0.1, 10.0), "draw": "log"},
    "max_bin": {"meaning": "histogram bins of an input", "range": (256, 512, 1024), "draw": "choice"},
    "n_estimators": {"meaning": "number of trees", "range": (1, 50_000), "draw": "early stopping"},
}

_DEVICES = {"cpu": "cpu", "gpu": "cuda"}


@dataclass(frozen=True, eq=False)
class Fit:
    """A finished training run of one output.

    Attributes
    ----------
    booster : xgboost.Booster
        The trees up to and including the best iteration, and no more.
    best_iteration : int
        Index of the last tree kept.
    validation_mse : float
        Validation error of this booster, Eq. (13).
    history : (n_tree,) ndarray of float64
        Validation error after each tree grown, those after the best included.
    seconds : float
        Wall time.
    """

    booster: object
    best_iteration: int
    validation_mse: float
    history: np.ndarray
    seconds: float


def fit(
    x_train, y_train, x_val, y_val, *, hyperparameters, n_estimators, patience, seed, run=0,
    device="cpu", n_jobs=None, progress=True,
):  # fmt: skip
    """Train one output, and stop when the validation error no longer falls.

    Parameters
    ----------
    x_train, x_val : (n_sample, n_feature) array_like
        Inputs, from `Preprocessing.transform`.
    y_train, y_val : (n_sample,) array_like
        Target values.
    hyperparameters : dict
        Such as `PAPER_HYPERPARAMETERS`; keys from `SEARCH_SPACE`.
    n_estimators : int
        Most trees.
    patience : int
        The run stops after this many trees without improvement on the validation set.
    seed : int
        Of the random subsamples. Results are a function of it, `run` and `n_jobs`.
    run : int
        Another number is another run, independent of the first, with the same seed.
    device : {"cpu", "gpu"}
        Where to train. The booster returned predicts on the CPU.
    n_jobs : int, optional
        Threads; all by default. On cores that others use too, one can be many times faster.
    progress : bool, str or callable
        Whether to show a text bar; a string is its label; a callable is called with 1 after each tree.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError
        If arrays do not fit together or hold NaN or infinity, or an argument is
        outside its range.
    RuntimeError
        If XGBoost cannot use the device.
    """
    from xgboost import QuantileDMatrix

    x_train, y_train = _check_samples(x_train, y_train, "train")
    x_val, y_val = _check_samples(x_val, y_val, "val")
    if x_train.shape[1] != x_val.shape[1]:
        raise ValueError(f"x_train has {x_train.shape[1]} features, x_val {x_val.shape[1]}")
    parameters = check_settings(hyperparameters, n_estimators, patience, seed, device, n_jobs)
    check_integer("run", run, 0)
    if device == "gpu":
        _require_gpu()
    # XGBoost's seed is a signed 32-bit integer.
    parameters["seed"] = int(np.random.SeedSequence(seed).generate_state(run + 1)[run] >> 1)

    start = time.perf_counter()
    bins = {"max_bin": parameters["max_bin"], "nthread": parameters["nthread"]}
    train = QuantileDMatrix(x_train, y_train, **bins)
    validation = QuantileDMatrix(x_val, y_val, ref=train, **bins)
    label = progress if isinstance(progress, str) else "training"
    with tqdm(total=n_estimators, desc=label, unit="tree", disable=not progress or callable(progress)) as bar:
        report = progress if callable(progress) else bar.update
        booster, history = _train(parameters, train, validation, n_estimators, patience, report)
        bar.total = history.size  # the rest is what early stopping saved
    best = int(history.argmin())
    booster = booster[: best + 1]
    booster.set_param({"device": "cpu"})
    return Fit(booster, best, float(history[best]), history, time.perf_counter() - start)


def draw_hyperparameters(rng):
    """Draw one point of `SEARCH_SPACE`, the number of trees aside (Table 1).

    Parameters
    ----------
    rng : numpy.random.Generator
        Source of randomness.

    Returns
    -------
    dict
        Hyperparameters for `fit`.
    """
    draws = {
        "log": lambda bounds: float(np.exp(rng.uniform(*np.log(bounds)))),
        "linear": lambda bounds: float(rng.uniform(*bounds)),
        "integer": lambda bounds: int(rng.integers(*bounds, endpoint=True)),
        "choice": lambda values: int(rng.choice(values)),
    }
    rows = {name: SEARCH_SPACE[name] for name in PAPER_HYPERPARAMETERS}
    return {name: draws[row["draw"]](row["range"]) for name, row in rows.items()}


def _train(parameters, train, validation, n_estimators, patience, report):
    """Grow one booster; return it whole, and its validation MSE after each tree."""
    import xgboost

    class Progress(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            report(1)
            return False

    history = {}
    booster = xgboost.train(
        parameters,
        train,
        n_estimators,
        evals=[(validation, "validation")],
        early_stopping_rounds=patience,
        evals_result=history,
        verbose_eval=False,
        callbacks=[Progress()],
    )
    device = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    if not device.startswith(parameters["device"]):
        raise RuntimeError(f"asked to train on {parameters['device']}, XGBoost trained on {device}")
    return booster, np.array(history["validation"]["rmse"]) ** 2


def check_settings(hyperparameters, n_estimators, patience, seed, device, n_jobs):
    """XGBoost's parameters for the settings of `fit`, after checks that XGBoost itself leaves out."""
    for name in hyperparameters:
        if name not in PAPER_HYPERPARAMETERS:
            raise ValueError(f"a hyperparameter is one of {', '.join(PAPER_HYPERPARAMETERS)}; got {name!r}")
    if device not in _DEVICES:
        raise ValueError(f"device must be one of {', '.join(_DEVICES)}; got {device!r}")
    check_integer("n_estimators", n_estimators, 1)
    check_integer("patience", patience, 1)
    check_integer("seed", seed, 0)
    parameters = {
        "objective": "reg:squarederror",
        "eval_metric": "rmse",
        "tree_method": "hist",
        "max_bin": 256,
        "device": _DEVICES[device],
        "nthread": 0 if n_jobs is None else check_integer("n_jobs", n_jobs, 1),
        **hyperparameters,
    }
    if device == "gpu":
        # A node's histogram of 500 inputs with 1024 bins takes 8 MB; the default keeps 65536 of them.
        parameters["max_cached_hist_node"] = 1024
    return parameters


def _require_gpu():
    """Train one stump there: XGBoost only warns when it falls back to the CPU."""
    import xgboost

    data = xgboost.DMatrix(np.zeros((2, 1), np.float32), np.zeros(2))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            booster = xgboost.train({"device": "cuda", "verbosity": 0}, data, 1)
        device = json.loads(booster.save_config())["learner"]["generic_param"]["device"]
    except xgboost.core.XGBoostError:
        device = "none"
    if not device.startswith("cuda"):
        raise RuntimeError(
            "device='gpu' needs an NVIDIA GPU and the package xgboost (extra 'gpu') in place of "
            "xgboost-cpu, and this XGBoost cannot use one; use device='cpu'"
        )


def _check_samples(x, y, name):
    for values, array in (("x", x), ("y", y)):
        refuse_masked(f"{values}_{name}", array)
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or x.size == 0:
        raise ValueError(
            f"x_{name} must be (n_sample, n_feature) and y_{name} (n_sample,), not empty; "
            f"got shapes {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # XGBoost would take NaN for a missing value
        raise ValueError(f"x_{name} and y_{name} must hold finite numbers only")
    return x, y


def xgboost_version():
    """Version of XGBoost, whichever build is installed."""
    found = versions()
    return found.get("xgboost") or found.get("xgboost-cpu")


def check_integer(name, value, lowest):
    """Return `value` as an int of at least `lowest`, or say what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest:
        raise ValueError(f"{name} must be an integer of at least {lowest}; got {value!r}")
    return number
