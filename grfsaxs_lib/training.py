r"""Regression by gradient-boosted trees (XGBoost): fit, search, predict, save, load.

Section 2.4: one model for each output, trained on the squared error, Eq. (13), with
early stopping on the validation set; the best of several runs is kept. XGBoost is
imported where it is needed, because that takes a second.
"""

import hashlib
import json
import operator
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from .grid import check_q
from .preprocess import Preprocessing
from .provenance import moved_into_place, package_version

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

# For about 1500 curves instead of half a million. The paper's subsample would leave a tree 225 of
# them: 0.5 lowers the validation MSE by 7 to 10 %. Beyond depth 6 such trees gain nothing but size.
# A run takes 3 to 10 s on one core.
LAPTOP_HYPERPARAMETERS = PAPER_HYPERPARAMETERS | {
    "learning_rate": 0.03,
    "max_depth": 6,
    "subsample": 0.5,
    "max_bin": 64,
}

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
_FORMAT = "grfsaxs model"
_FORMAT_VERSION = 1
_DESCRIPTION = "preprocessing.json"


class OutsideTrainingDomainWarning(UserWarning):
    """Curves differ from all that the model was trained on; their predictions mean little."""


@dataclass(frozen=True, eq=False)
class Fit:
    """The best of several training runs of one output.

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
    runs : pandas.DataFrame
        One row a run: seed, best_iteration, n_tree, validation_mse, seconds.
    seconds : float
        Wall time of all runs.
    """

    booster: object
    best_iteration: int
    validation_mse: float
    history: np.ndarray
    runs: object
    seconds: float


def fit(
    x_train, y_train, x_val, y_val, *, hyperparameters, n_estimators, patience, repeats=1, seed,
    device="cpu", n_jobs=None, progress=True,
):  # fmt: skip
    """Train one output several times and keep the run with the lowest validation error.

    Parameters
    ----------
    x_train, x_val : (n_sample, n_feature) array_like
        Inputs, from `Preprocessing.transform`.
    y_train, y_val : (n_sample,) array_like
        Target values.
    hyperparameters : dict
        Such as `LAPTOP_HYPERPARAMETERS`; keys from `SEARCH_SPACE`.
    n_estimators : int
        Most trees in a run.
    patience : int
        A run stops after this many trees without improvement on the validation set.
    repeats : int
        Number of runs, which differ in the random subsamples.
    seed : int
        Seed of the runs. Results are a function of it and `n_jobs`.
    device : {"cpu", "gpu"}
        Where to train. The booster returned predicts on the CPU.
    n_jobs : int, optional
        Threads; all by default. On cores that others use too, one can be many times faster.
    progress : bool or str
        Whether to show a text bar; a string is its label.

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
    import pandas as pd
    from tqdm import tqdm
    from xgboost import QuantileDMatrix

    x_train, y_train = _check_samples(x_train, y_train, "train")
    x_val, y_val = _check_samples(x_val, y_val, "val")
    if x_train.shape[1] != x_val.shape[1]:
        raise ValueError(f"x_train has {x_train.shape[1]} features, x_val {x_val.shape[1]}")
    for name, value in {"n_estimators": n_estimators, "patience": patience, "repeats": repeats}.items():
        _check_integer(name, value, 1)
    # XGBoost's seed is a signed 32-bit integer.
    seeds = np.random.SeedSequence(_check_integer("seed", seed, 0)).generate_state(repeats) >> 1
    parameters = _booster_parameters(hyperparameters, device, n_jobs)

    start = time.perf_counter()
    bins = {"max_bin": parameters["max_bin"], "nthread": parameters["nthread"]}
    train = QuantileDMatrix(x_train, y_train, **bins)
    validation = QuantileDMatrix(x_val, y_val, ref=train, **bins)
    best, rows = None, []
    label = progress if isinstance(progress, str) else "training"
    with tqdm(total=n_estimators * repeats, desc=label, unit="tree", disable=not progress) as bar:
        for run_seed in seeds.tolist():
            begun = time.perf_counter()
            parameters["seed"] = run_seed
            booster, history = _train(parameters, train, validation, n_estimators, patience, bar)
            iteration = int(history.argmin())
            mse = float(history[iteration])
            rows.append((run_seed, iteration, history.size, mse, time.perf_counter() - begun))
            if best is None or mse < best[2]:
                best = booster[: iteration + 1], iteration, mse, history
    best[0].set_param({"device": "cpu"})
    runs = pd.DataFrame(rows, columns=["seed", "best_iteration", "n_tree", "validation_mse", "seconds"])
    return Fit(*best, runs, time.perf_counter() - start)


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


def search(
    x_train, y_train, x_val, y_val, *, n_draws, n_estimators, patience, seed, device="cpu", n_jobs=None,
    progress=True,
):  # fmt: skip
    """Random search over Table 1: train once at each of `n_draws` points.

    Arguments and errors are those of `fit`. Draw i is the same for any `n_draws`.

    Returns
    -------
    pandas.DataFrame
        One row a draw, in the order drawn: the hyperparameters, best_iteration,
        n_tree, validation_mse, seconds.
    """
    import pandas as pd

    rows = []
    for i in range(_check_integer("n_draws", n_draws, 1)):
        rng = np.random.default_rng([_check_integer("seed", seed, 0), i])
        hyperparameters = draw_hyperparameters(rng)
        label = f"draw {i + 1}/{n_draws}" if progress else False
        result = fit(
            x_train, y_train, x_val, y_val, hyperparameters=hyperparameters, n_estimators=n_estimators,
            patience=patience, seed=int(rng.integers(2**32)), device=device, n_jobs=n_jobs, progress=label,
        )  # fmt: skip
        rows.append(hyperparameters | result.runs.drop(columns="seed").iloc[0].to_dict())
    return pd.DataFrame(rows).astype({"best_iteration": int, "n_tree": int})


@dataclass(frozen=True, eq=False)
class Model:
    """What turns measured curves of one case into parameters.

    Attributes
    ----------
    case : str
        Name of the case, as in `CASES`.
    preprocessing : Preprocessing
        Fixed by the training set.
    boosters : dict of str to xgboost.Booster
        One for each output.
    meta : dict
        Anything that JSON can hold: how the model was trained.
    """

    case: str
    preprocessing: Preprocessing
    boosters: dict
    meta: dict = field(default_factory=dict)

    def __post_init__(self):
        for output, booster in self.boosters.items():
            if not output.isidentifier():
                raise ValueError(f"an output is named like a variable; got {output!r}")
            if booster.num_features() != self.preprocessing.q.size:
                raise ValueError(
                    f"the booster of {output} takes {booster.num_features()} inputs, but the preprocessing "
                    f"has {self.preprocessing.q.size} q values"
                )

    def predict(self, intensity, q=None):
        """Predict the parameters of one curve or many.

        Parameters
        ----------
        intensity : (..., n_q) array_like
            Measured intensity, in any unit.
        q : (n_q,) array_like, optional
            The curves' scattering vector [nm^-1], checked against the model's.

        Returns
        -------
        dict of str to (...) ndarray of float64
            One entry for each output; a number for a single curve.

        Raises
        ------
        ValueError
            If an intensity is not positive and finite, the shape does not fit, or q
            differs from the model's.

        Warns
        -----
        OutsideTrainingDomainWarning
            If curves lie outside the training domain (`Preprocessing.outside_domain`).
        """
        if q is not None:
            _check_same_q(q, self.preprocessing.q)
        features = self.preprocessing.transform(intensity)
        outside = np.count_nonzero(self.preprocessing.outside_domain(features))
        if outside:
            warnings.warn(
                f"{outside} of {features[..., 0].size} curves lie outside the training domain of the model "
                f"for {self.case}; it cannot extrapolate, so do not trust their predictions",
                OutsideTrainingDomainWarning,
                stacklevel=2,
            )
        shape, rows = features.shape[:-1], features.reshape(-1, features.shape[-1])
        return {
            output: booster.inplace_predict(rows).astype(np.float64).reshape(shape)[()]
            for output, booster in self.boosters.items()
        }


def save_model(model, directory):
    """Write a model: ``<output>.ubj`` by XGBoost, and ``preprocessing.json``.

    Each file is written under a temporary name and moved into place, the JSON last.
    It holds the digests of the others, so `load_model` notices a save cut short.

    Parameters
    ----------
    model : Model
        What to save.
    directory : path-like
        Made if it is not there; a model in it is replaced.

    Returns
    -------
    pathlib.Path
        The directory.
    """
    import xgboost

    directory = Path(directory)
    trees = {output: bytes(booster.save_raw("ubj")) for output, booster in model.boosters.items()}
    description = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION,
        "package_version": package_version(),
        "xgboost_version": xgboost.__version__,
        "case": model.case,
        "files": {output: hashlib.sha256(content).hexdigest() for output, content in trees.items()},
        "preprocessing": model.preprocessing.to_json(),
        "meta": model.meta,
    }
    text = json.dumps(description, indent=1, allow_nan=False)
    for output, content in trees.items():
        with moved_into_place(directory / f"{output}.ubj") as temporary:
            temporary.write_bytes(content)
    with moved_into_place(directory / _DESCRIPTION) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return directory


def load_model(directory, case=None, q=None):
    """Read a model that `save_model` wrote.

    Parameters
    ----------
    directory : path-like
        Where the model is.
    case : str, optional
        The case that the model must be for.
    q : (n_q,) array_like, optional
        The scattering vector [nm^-1] that the model must be for.

    Returns
    -------
    Model

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If a file is truncated, foreign or of another format version, or the model is
        for another case or other q values.
    """
    from xgboost import Booster
    from xgboost.core import XGBoostError

    path = Path(directory) / _DESCRIPTION
    description = _read_description(path)
    try:
        preprocessing = Preprocessing.from_json(description["preprocessing"])
        trained_for, files, meta = description["case"], dict(description["files"]), description["meta"]
        if not all(output.isidentifier() for output in files):
            raise ValueError(f"outputs are named like variables; got {', '.join(files)}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if case is not None and trained_for != case:
        raise ValueError(f"the model in {directory} is for case {trained_for!r}, not {case!r}")
    if q is not None:
        _check_same_q(q, preprocessing.q)

    boosters = {}
    for output, digest in files.items():
        file = path.with_name(f"{output}.ubj")
        content = _read(file)
        # First: XGBoost does not survive every damaged file.
        if hashlib.sha256(content).hexdigest() != digest:
            raise ValueError(f"{file} is truncated, or not of one save with {path.name}: train again")
        boosters[output] = Booster()
        try:
            boosters[output].load_model(bytearray(content))
        except XGBoostError:
            writer = description.get("xgboost_version")
            raise ValueError(f"{file} was written by XGBoost {writer}, and this one cannot read it") from None
    return Model(trained_for, preprocessing, boosters, meta)


def _train(parameters, train, validation, n_estimators, patience, bar):
    """Grow one booster; return it whole, and its validation MSE after each tree."""
    import xgboost

    class Progress(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            bar.update()
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
    rmse = np.array(history["validation"]["rmse"])
    bar.total -= n_estimators - rmse.size  # what early stopping saved
    bar.refresh()
    return booster, rmse**2


def _booster_parameters(hyperparameters, device, n_jobs):
    """Merge all of XGBoost's parameters but the seed, after checks that XGBoost itself leaves out."""
    for name in hyperparameters:
        if name not in PAPER_HYPERPARAMETERS:
            raise ValueError(f"a hyperparameter is one of {', '.join(PAPER_HYPERPARAMETERS)}; got {name!r}")
    if device not in _DEVICES:
        raise ValueError(f"device must be one of {', '.join(_DEVICES)}; got {device!r}")
    parameters = {
        "objective": "reg:squarederror",
        "eval_metric": "rmse",
        "tree_method": "hist",
        "max_bin": 256,
        "device": _DEVICES[device],
        "nthread": 0 if n_jobs is None else _check_integer("n_jobs", n_jobs, 1),
        **hyperparameters,
    }
    if device == "gpu":
        _require_gpu()
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
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or x.size == 0:
        raise ValueError(
            f"x_{name} must be (n_sample, n_feature) and y_{name} (n_sample,), not empty; "
            f"got shapes {x.shape} and {y.shape}"
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):  # XGBoost would take NaN for a missing value
        raise ValueError(f"x_{name} and y_{name} must hold finite numbers only")
    return x, y


def _check_integer(name, value, lowest):
    try:
        number = operator.index(value)
    except TypeError:
        number = lowest - 1
    if number < lowest:
        raise ValueError(f"{name} must be an integer of at least {lowest}; got {value!r}")
    return number


def _check_same_q(q, expected):
    q = check_q(q)
    if q.shape != expected.shape or not np.allclose(q, expected, rtol=1e-6, atol=0):
        raise ValueError(
            f"the model is for {expected.size} q values from {expected[0]:g} to {expected[-1]:g} nm^-1; "
            f"got {q.size} from {q[0]:g} to {q[-1]:g} nm^-1: interpolate the curves, or train for this q"
        )


def _read_description(path):
    try:
        description = json.loads(_read(path))
        recognised = description["format"] == _FORMAT
    except (ValueError, KeyError, TypeError):
        recognised = False
    if not recognised:
        raise ValueError(f"{path} is truncated, or not the description of a model of this package")
    if description.get("format_version") != _FORMAT_VERSION:
        raise ValueError(
            f"{path} has format version {description.get('format_version')!r}, written by version "
            f"{description.get('package_version')} of this package; version {package_version()} reads "
            f"format version {_FORMAT_VERSION}: train the model again"
        )
    return description


def _read(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is not there; train and save the model first") from None
