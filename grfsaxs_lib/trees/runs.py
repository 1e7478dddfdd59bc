r"""Many training runs, each on the disk as soon as it is finished.

The paper trains 10 outputs 10 times each, hours a run, after a search over
hyperparameters. A `Run` says all that decides one of them; `execute` does those that are
not on the disk yet, in this process or on the workers of a cluster. A crash costs the
runs that were under way. Runs of other settings lie beside each other and are never mixed.
"""

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import tasks
from ..files import moved_into_place, remove_leftovers, versions
from ..measurement.preprocess import Preprocessing
from ..parameters import get_case
from . import training
from .model import Model
from .samples import read_samples

# Raise it whenever noise, preprocessing or training would give other trees from the same data and settings.
TRAINING_VERSION = 3


@dataclass(frozen=True, eq=False)
class Run:
    """One training run: all that decides its trees, and where it is kept.

    Attributes
    ----------
    source : samples.Emulated, samples.Reference or samples.Simulated
        Where its curves come from.
    output : str
    label : str
        ``run-03`` or ``draw-03``, for people.
    hyperparameters : dict
    n_estimators, patience, seed, run
        As in `training.fit`.
    pooling : (int, float)
        As in `samples.read_samples`.
    keep_trees : bool
        Whether the trees are kept; a search needs the errors only.
    data : dict
        The recipe of the source when the run was planned.
    device : {"cpu", "gpu"}
    directory : Path
        Where the runs go.
    n_jobs : int or None
    """

    source: object
    output: str
    label: str
    hyperparameters: dict
    n_estimators: int
    patience: int
    seed: int
    run: int
    pooling: tuple
    keep_trees: bool
    data: dict
    device: str
    directory: Path
    n_jobs: int | None

    @property
    def case(self):
        return self.source.case

    @property
    def recipe(self):
        """What decides the trees, as JSON holds it. Threads do not, but for the rounding of sums."""
        recipe = {name: getattr(self, name) for name in ("case", *_IN_RECIPE)}
        recipe |= {"training_version": TRAINING_VERSION, "xgboost": training.xgboost_version()}
        return json.loads(json.dumps(recipe))

    @property
    def path(self):
        """The description of the finished run; the trees lie beside it, with the suffix ``.ubj``."""
        digest = hashlib.sha256(json.dumps(self.recipe, sort_keys=True).encode()).hexdigest()[:10]
        return self.directory / f"{self.case}_{self.output}_{self.label}_{digest}.json"

    def __str__(self):
        return f"{self.case} {self.output} {self.label}"


_IN_RECIPE = (
    "output", "hyperparameters", "n_estimators", "patience", "seed", "run", "pooling", "keep_trees", "data", "device",
)  # fmt: skip


def plan_models(
    sources, *, directory, hyperparameters, n_estimators, patience, repeats, seed, pooling=(1, 0.0), outputs=None,
    device="cpu", n_jobs=None,
):  # fmt: skip
    """List the runs for the models of some sources: every output, `repeats` times.

    Parameters
    ----------
    sources : sequence of samples.Emulated, samples.Reference or samples.Simulated
        One for each case.
    directory : path
        Where the runs go.
    hyperparameters, n_estimators, patience, seed, device, n_jobs
        As in `training.fit`.
    repeats : int
        Runs of each output, which differ in the random subsamples.
    pooling : (int, float), optional
        As in `samples.read_samples`.
    outputs : sequence of str, optional
        Only these; all outputs of a case by default.

    Returns
    -------
    list of Run
        All runs of a case one after another, so that a worker reads its data once.

    Raises
    ------
    FileNotFoundError, ValueError
        If a source's files are not there or an argument is wrong.
    """
    common = _common(hyperparameters, n_estimators, patience, seed, device, n_jobs, directory, pooling)
    return [
        Run(source, output, f"run-{number + 1:02d}", run=number, keep_trees=True, data=data, **common)
        for source in sources
        for data in [source.recipe]
        for output in get_case(source.case).outputs
        if outputs is None or output in outputs
        for number in range(training.check_integer("repeats", repeats, 1))
    ]


def plan_search(
    source, output, *, directory, n_draws, n_estimators, patience, seed, pooling=(1, 0.0), device="cpu", n_jobs=None
):
    """List the runs of a random search over Table 1: one at each of `n_draws` points.

    Parameters are those of `plan_models`. Draw i is the same for any `n_draws`.

    Returns
    -------
    list of Run
    """
    runs = []
    data = source.recipe
    for number in range(training.check_integer("n_draws", n_draws, 1)):
        rng = np.random.default_rng([training.check_integer("seed", seed, 0), number])
        drawn = training.draw_hyperparameters(rng)
        seed_of_draw = int(rng.integers(2**32))
        common = _common(drawn, n_estimators, patience, seed_of_draw, device, n_jobs, directory, pooling)
        runs.append(Run(source, output, f"draw-{number + 1:02d}", run=0, keep_trees=False, data=data, **common))
    return runs


def _common(hyperparameters, n_estimators, patience, seed, device, n_jobs, directory, pooling):
    training.check_settings(hyperparameters, n_estimators, patience, seed, device, n_jobs)
    return {
        "hyperparameters": dict(hyperparameters), "n_estimators": n_estimators, "patience": patience, "seed": seed,
        "device": device, "n_jobs": n_jobs, "directory": Path(directory), "pooling": pooling,
    }  # fmt: skip


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
        If a source's files have changed since the plan was made.
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


def best_models(runs, fits, meta=None):
    """The models of the best runs, one for each case.

    Parameters
    ----------
    runs, fits
        As in `best_fits`, from `plan_models` and `execute`.
    meta : dict, optional
        What the models shall say of themselves.

    Returns
    -------
    dict of str to model.Model
    """
    best = best_fits(runs, fits)
    preprocessing = {run.case: Preprocessing.from_json(_describe(run)["preprocessing"]) for run in runs}
    return {
        case: Model(case, one, {output: fit.booster for (of, output), fit in best.items() if of == case}, meta or {})
        for case, one in preprocessing.items()
    }


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
    if run.source.recipe != run.data:
        raise ValueError(f"the curves of {run.source} have changed since {run} was planned")
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
        "preprocessing": samples.preprocessing.to_json(),
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
    key = json.dumps([run.case, run.pooling, run.data], sort_keys=True)
    with _HOLD:
        if key not in _held:
            _held.clear()
            _held[key] = read_samples(run.source, run.pooling)
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
