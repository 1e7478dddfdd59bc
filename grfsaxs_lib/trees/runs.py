r"""Many training runs, each on the disk as soon as it is finished.

The paper trains 10 outputs 10 times each, hours a run, after a search over
hyperparameters. A `Run` says all that decides one of them; `execute` does those that are
not on the disk yet, in this process or on the workers of a cluster. A crash costs the
runs that were under way. Runs of other settings lie beside each other and are never mixed.
"""

import hashlib
import json
import threading
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .. import tasks
from ..datasets import store
from ..files import moved_into_place, remove_leftovers, versions
from ..measurement.preprocess import Preprocessing
from ..parameters import CASES, get_case
from . import training

# Raise it whenever noise, preprocessing or training would give other trees from the same data and settings.
TRAINING_VERSION = 1

# Measured once a curve for training and validation; a repeated measurement would be another replicate.
_NOISE_REPLICATE = 0


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and targets of one case.

    Attributes
    ----------
    preprocessing : Preprocessing
        Of the training set.
    x_train, x_val : (n_sample, n_q) ndarray of float32
    y_train, y_val : dict of str to (n_sample,) ndarray of float64
        For each output.
    """

    preprocessing: Preprocessing
    x_train: np.ndarray
    y_train: dict
    x_val: np.ndarray
    y_val: dict

    def of(self, output):
        """(x_train, y_train, x_val, y_val) of one output, as `training.fit` takes them."""
        return self.x_train, self.y_train[output], self.x_val, self.y_val[output]


def read_samples(case, datasets, pooling=1):
    """Measured curves of a case, preprocessed, without a second copy of them.

    Parameters
    ----------
    case : str or Case
    datasets : path
        Folder of the data sets.
    pooling : int
        So many neighbouring inputs are averaged into one.

    Returns
    -------
    Samples

    Raises
    ------
    FileNotFoundError, ValueError
        As `store.load`; or if the number of q values is no multiple of `pooling`.
    """
    train = store.load(case, "train", datasets, noise_replicate=_NOISE_REPLICATE)
    preprocessing = Preprocessing.fit(train["intensity"].values, train["q"].values)
    x_train, y_train = _inputs_and_targets(train, case, preprocessing, pooling)
    validation = store.load(case, "validation", datasets, noise_replicate=_NOISE_REPLICATE)
    x_val, y_val = _inputs_and_targets(validation, case, preprocessing, pooling)
    return Samples(preprocessing, x_train, y_train, x_val, y_val)


def _inputs_and_targets(measured, case, preprocessing, pooling):
    x = measured["intensity"].values
    x = preprocessing.transform(x, out=x)
    if pooling > 1:
        if x.shape[1] % pooling:
            raise ValueError(f"pooling must divide the {x.shape[1]} q values; got {pooling}")
        x = x.reshape(len(x), -1, pooling).mean(axis=-1)
    return x, {output: measured[output].values for output in get_case(case).outputs}


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: all that decides its trees, and where it is kept.

    Attributes
    ----------
    case, output : str
    label : str
        ``run-03`` or ``draw-03``, for people.
    hyperparameters : dict
    n_estimators, patience, seed, run
        As in `training.fit`.
    pooling : int
        As in `read_samples`.
    keep_trees : bool
        Whether the trees are kept; a search needs the errors only.
    data : str
        Checksum of the training and validation sets.
    device : {"cpu", "gpu"}
    datasets, directory : Path
        Where the data sets are, and where the runs go.
    n_jobs : int or None
    """

    case: str
    output: str
    label: str
    hyperparameters: dict
    n_estimators: int
    patience: int
    seed: int
    run: int
    pooling: int
    keep_trees: bool
    data: str
    device: str
    datasets: Path
    directory: Path
    n_jobs: int | None

    @property
    def recipe(self):
        """What decides the trees, as JSON holds it. Threads do not, but for the rounding of sums."""
        recipe = {name: value for name, value in asdict(self).items() if name not in _NOT_IN_RECIPE}
        recipe |= {"training_version": TRAINING_VERSION, "xgboost": training.xgboost_version()}
        return json.loads(json.dumps(recipe))

    @property
    def path(self):
        """The description of the finished run; the trees lie beside it, with the suffix ``.ubj``."""
        digest = hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:10]
        return self.directory / f"{self.case}_{self.output}_{self.label}_{digest}.json"

    def __str__(self):
        return f"{self.case} {self.output} {self.label}"


_NOT_IN_RECIPE = {"label", "datasets", "directory", "n_jobs"}


def plan_models(
    *, datasets, directory, hyperparameters, n_estimators, patience, repeats, seed, cases=tuple(CASES),
    device="cpu", n_jobs=None,
):  # fmt: skip
    """List the runs for the models of some cases: every output, `repeats` times.

    Parameters
    ----------
    datasets, directory : path
        Where the data sets are, and where the runs go.
    hyperparameters, n_estimators, patience, seed, device, n_jobs
        As in `training.fit`.
    repeats : int
        Runs of each output, which differ in the random subsamples.
    cases : sequence of str, optional

    Returns
    -------
    list of Run
        All runs of a case one after another, so that a worker reads its data once.

    Raises
    ------
    FileNotFoundError, ValueError
        If a data set is not there or an argument is wrong.
    """
    common = _common(hyperparameters, n_estimators, patience, seed, device, n_jobs, datasets, directory)
    return [
        Run(case, output, f"run-{number + 1:02d}", run=number, pooling=1, keep_trees=True, data=data, **common)
        for case in cases
        for data in [_data_checksum(case, datasets)]
        for output in get_case(case).outputs
        for number in range(training.check_integer("repeats", repeats, 1))
    ]


def plan_search(
    case, output, *, datasets, directory, n_draws, n_estimators, patience, seed, pooling=1, device="cpu", n_jobs=None
):
    """List the runs of a random search over Table 1: one at each of `n_draws` points.

    Parameters are those of `plan_models` and `read_samples`. Draw i is the same for any `n_draws`.

    Returns
    -------
    list of Run
    """
    runs = []
    data = _data_checksum(case, datasets)
    for number in range(training.check_integer("n_draws", n_draws, 1)):
        rng = np.random.default_rng([training.check_integer("seed", seed, 0), number])
        drawn = training.draw_hyperparameters(rng)
        seed_of_draw = int(rng.integers(2**32))
        common = _common(drawn, n_estimators, patience, seed_of_draw, device, n_jobs, datasets, directory)
        label = f"draw-{number + 1:02d}"
        runs.append(Run(case, output, label, run=0, pooling=pooling, keep_trees=False, data=data, **common))
    return runs


def _common(hyperparameters, n_estimators, patience, seed, device, n_jobs, datasets, directory):
    training.check_settings(hyperparameters, n_estimators, patience, seed, device, n_jobs)
    return {
        "hyperparameters": dict(hyperparameters), "n_estimators": n_estimators, "patience": patience, "seed": seed,
        "device": device, "n_jobs": n_jobs, "datasets": Path(datasets), "directory": Path(directory),
    }  # fmt: skip


def _data_checksum(case, datasets):
    """One checksum of the training and the validation set, from the heads of their files."""
    sets = [store.open(case, split, datasets).attrs["checksum"] for split in ("train", "validation")]
    return hashlib.sha256("".join(sets).encode()).hexdigest()


def execute(runs, *, client=None, threads=1, label="training", progress=True):
    """Do the runs that are not on the disk yet.

    Parameters
    ----------
    runs : list of Run
        From `plan_models` or `plan_search`.
    client : distributed.Client, optional
        From `tasks.connect`: the runs are done on its workers. Without it, here.
    threads : int, optional
        Without a client, runs done at a time.
    label : str, optional
        Of the progress bar.
    progress : bool, optional

    Returns
    -------
    list of training.Fit
        One for each run, in their order, without the trees (`booster` is None): see `best_fits` and `load_fit`.

    Raises
    ------
    ValueError
        If the data sets have changed since the plan was made.
    RuntimeError
        If XGBoost cannot use the device.
    ClusterError
        See `tasks.run`.
    """
    if not runs:
        return []
    work = tasks.run(
        _complete,
        runs,
        [run.n_estimators for run in runs],
        client=client,
        threads=threads,
        directory=runs[0].directory,
        label=label,
        unit="tree",
        progress=progress,
    )
    for _ in work:
        pass
    _held.clear()
    remove_leftovers([path for run in runs for path in (run.path, run.path.with_suffix(".ubj"))])
    return [_fit(run, _describe(run)) for run in runs]


def best_fits(runs, fits):
    """The fit with the lowest validation error of each case and output, with its trees.

    Returns
    -------
    dict of (str, str) to training.Fit
    """
    best = {}
    for run, fit in zip(runs, fits, strict=True):
        key = run.case, run.output
        if key not in best or fit.validation_mse < best[key][1].validation_mse:
            best[key] = run, fit
    return {key: load_fit(run) for key, (run, _) in best.items()}


def load_fit(run):
    """A finished run with its trees, compared with their digest.

    Returns
    -------
    training.Fit
    """
    import xgboost

    description = _describe(run)
    if description is None or not _trees_are_whole(run, description):
        raise ValueError(f"{run.path} or its trees are not there or damaged: execute the run again")
    booster = xgboost.Booster()
    booster.load_model(bytearray(run.path.with_suffix(".ubj").read_bytes()))
    return _fit(run, description, booster)


def finished(runs):
    """Those runs that are on the disk, by a look at the descriptions and the sizes of the trees."""
    return [run for run in runs if _describe(run) is not None]


def _complete(run, report):
    """Do a run unless it is there and whole."""
    description = _describe(run)
    if description is not None and _trees_are_whole(run, description):
        return
    if _data_checksum(run.case, run.datasets) != run.data:
        raise ValueError(f"the data sets of {run.case} in {run.datasets} have changed since {run} was planned")
    samples = _samples(run)
    fit = training.fit(
        *samples.of(run.output),
        hyperparameters=run.hyperparameters,
        n_estimators=run.n_estimators,
        patience=run.patience,
        seed=run.seed,
        run=run.run,
        device=run.device,
        n_jobs=run.n_jobs,
        progress=report,
    )
    trees = bytes(fit.booster.save_raw("ubj")) if run.keep_trees else b""
    description = {
        "recipe": run.recipe,
        "versions": versions(),
        "best_iteration": fit.best_iteration,
        "validation_mse": fit.validation_mse,
        "history": fit.history.tolist(),
        "seconds": fit.seconds,
        "trees": {"bytes": len(trees), "sha256": hashlib.sha256(trees).hexdigest()},
    }
    if run.keep_trees:
        with moved_into_place(run.path.with_suffix(".ubj")) as temporary:
            temporary.write_bytes(trees)
    with moved_into_place(run.path) as temporary:  # last: it vouches for the trees
        temporary.write_text(json.dumps(description, allow_nan=False), encoding="utf-8")


# The samples that the last run of this process has used: the next one mostly needs them too. One at a time, for they
# may take gigabytes.
_held = {}
_HOLD = threading.Lock()


def _samples(run):
    key = run.case, run.datasets, run.pooling, run.data
    with _HOLD:
        if key not in _held:
            _held.clear()
            _held[key] = read_samples(run.case, run.datasets, run.pooling)
        return _held[key]


def _describe(run):
    """The description of a finished run, or None if it is not there, damaged, or without trees of the right size."""
    try:
        description = json.loads(run.path.read_text(encoding="utf-8"))
        size = run.path.with_suffix(".ubj").stat().st_size if run.keep_trees else 0
        return description if (description["recipe"], description["trees"]["bytes"]) == (run.recipe, size) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _trees_are_whole(run, description):
    trees = run.path.with_suffix(".ubj").read_bytes() if run.keep_trees else b""
    return hashlib.sha256(trees).hexdigest() == description["trees"]["sha256"]


def _fit(run, description, booster=None):
    if description is None:
        raise FileNotFoundError(f"{run.path} does not appear on the disk, though the run is finished")
    return training.Fit(
        booster,
        description["best_iteration"],
        description["validation_mse"],
        np.array(description["history"]),
        description["seconds"],
    )


def default_threads(device, scheduler=""):
    """(runs at a time, threads a run): small trees do not keep several cores busy, several runs do.

    On the workers of a `scheduler`, and on a GPU, XGBoost takes what the process has (``OMP_NUM_THREADS``).
    """
    return (tasks.available_cores(), 1) if device == "cpu" and not scheduler else (1, None)
