"""Where the curves of training come from: emulated, reference or simulated structures, measured and preprocessed.

A source says what its curves are made from (`recipe`) and yields measured curves of a split, block by block, so that
four hundred thousand of them need no room but that of their inputs.
"""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from .. import evaluation
from ..datasets import keys, reference, store
from ..datasets.measure import measure
from ..emulator import emulator
from ..grid import PAPER_Q
from ..measurement.preprocess import Preprocessing, log_intensity, window_edges
from ..parameters import get_case
from ..results import data_directory
from ..tasks import available_cores
from ..tiers import TIERS, check_tier

# Raise it whenever the same emulator or data set would give other measured curves.
MEASUREMENT_VERSION = 1
_NOISE_REPLICATE = 0  # each curve is measured once; a repeated measurement would be another replicate
_STOPPING_REPLICATES = 4  # noise alone then adds little to the scatter of the validation error
_BLOCK = 2000  # emulated curves drawn at a time; part of what decides them
_AHEAD = 8  # blocks that are drawn before they are asked for
# Two-phase structures and their negatives scatter alike (Babinet): one case serves both.
_LEARNED_AS = {"two_phase_high": "two_phase_low"}


@dataclass(frozen=True)
class Emulated:
    """Curves drawn from an emulator, uniform in its prior, to train on; real structures to stop the training.

    Nothing of the emulated curves is stored. An emulator has errors of its own, which deep trees learn in the end: in
    two phases the error on real structures rises again while that on emulated curves still falls. So the validation
    curves are those of real structures (the split ``validation``, and the test structures that had a part in choices).

    Attributes
    ----------
    case : str
        That of high porosity in two phases takes the curves of low porosity for those of the negatives.
    path : Path
        File of the emulator, from notebook 06.
    n_train : int
        Training curves. More of them leave the first ones as they are.
    """

    case: str
    path: Path
    n_train: int

    @property
    def q(self):
        return PAPER_Q

    def count(self, split):
        """Number of curves of a split."""
        return self.n_train if split == "train" else len(_stopping_structures(self.case)[0])

    @property
    def recipe(self):
        """What decides the curves, as JSON holds it."""
        digest = hashlib.sha256(self._file.read_bytes()).hexdigest()
        version = {"measurement_version": MEASUREMENT_VERSION}
        return {"kind": "emulated", "emulator": digest, "n_train": self.n_train, **version}

    @property
    def _file(self):
        if not Path(self.path).exists():
            raise FileNotFoundError(f"{self.path} does not exist; run the notebook 06_emulator first")
        return Path(self.path)

    def measured(self, split):
        """Yield (noisy intensity, parameters) of one block of curves after another."""
        if split == "validation":
            yield _stopping_structures(self.case)
            return
        learned = emulator.load(self._file)
        case, namespace = learned.case.name, f"emulated_{learned.case.name}"

        def block(start):
            # A block is drawn whole, so that its curves do not depend on how many are wanted.
            indices = np.arange(start, start + _BLOCK)
            parameters = keys.sample_parameters(case, split, indices, namespace)
            seed = int(keys.keys(namespace, split, indices[:1], "structure")[0])
            intensity = learned.draw(parameters, np.random.default_rng(seed))
            noisy, _ = measure(intensity, namespace, split, indices, _NOISE_REPLICATE)
            wanted = slice(self.count(split) - start)
            return noisy[wanted], _as_case(self.case, case, {k: values[wanted] for k, values in parameters.items()})

        starts = range(0, self.count(split), _BLOCK)
        with ThreadPoolExecutor(available_cores()) as pool:
            for first in range(0, len(starts), _AHEAD):
                yield from pool.map(block, starts[first : first + _AHEAD])


@dataclass(frozen=True)
class Reference:
    """The committed curves of real structures at the paper's grid (`reference`).

    Attributes
    ----------
    case : str
    n_train : int
        The first so many of the training structures.
    """

    case: str
    n_train: int

    @property
    def q(self):
        return PAPER_Q

    def count(self, split):
        """Number of curves of a split."""
        if split == "validation":
            return len(_stopping_structures(self.case)[0])
        there = reference.COUNTS[_learned_as(self.case)][split]
        return min(self.n_train, there) if split == "train" else there

    @property
    def recipe(self):
        """What decides the curves, as JSON holds it."""
        return {"kind": "reference", "n_train": self.count("train"), "measurement_version": MEASUREMENT_VERSION}

    def measured(self, split):
        """Yield (noisy intensity, parameters), all curves at once."""
        if split == "validation":
            yield _stopping_structures(self.case)
        else:
            yield _structures(self.case, split, slice(self.count(split)))


@dataclass(frozen=True)
class Simulated:
    """The data sets of a folder, simulated by `store.generate`: what the paper trained on.

    Attributes
    ----------
    case : str
    directory : Path
    """

    case: str
    directory: Path

    @property
    def q(self):
        return self._open("train")["q"].values

    def count(self, split):
        """Number of curves of a split."""
        return self._open(split).sizes["sample"]

    def _open(self, split):
        return store.open_dataset(self.case, split, self.directory)

    @property
    def recipe(self):
        """What decides the curves, as JSON holds it."""
        checksums = {split: self._open(split).attrs["checksum"] for split in ("train", "validation")}
        return {"kind": "simulated", **checksums, "measurement_version": MEASUREMENT_VERSION}

    def measured(self, split):
        """Yield (noisy intensity, parameters), all curves at once."""
        data = store.load(self.case, split, self.directory, noise_replicate=_NOISE_REPLICATE)
        yield data["intensity"].values, {name: data[name].values for name in get_case(self.case).outputs}


def source_of(tier, case, n_train=None):
    """What the models of a tier learn from: emulated curves, and at the paper tier simulated structures.

    Parameters
    ----------
    tier, case : str
    n_train : int, optional
        Emulated training curves, by default those of the tier's final models.

    Returns
    -------
    Emulated or Simulated
    """
    sizes, folder = TIERS[check_tier(tier)], data_directory(tier)
    if sizes["n_train"]:
        return Simulated(case, folder / "datasets")
    path = folder / "emulators" / f"{_learned_as(case)}.npz"
    return Emulated(case, path, n_train or sizes["n_training_curves"])


def structures_of(tier, case):
    """Where a tier's models are judged: real structures, at the paper tier those of its own data sets.

    Returns
    -------
    Reference or Simulated
        Its splits ``test`` and, of the reference curves, ``holdout``.
    """
    if TIERS[check_tier(tier)]["n_train"]:
        return Simulated(case, data_directory(tier) / "datasets")
    return Reference(case, 0)


def _structures(case, split, rows, noise_replicate=_NOISE_REPLICATE):
    """Measured curves of real structures, and their parameters as those of a case."""
    learned = _learned_as(case)
    data = reference.load(learned, split, noise_replicate=noise_replicate).isel(sample=rows)
    parameters = {name: data[name].values for name in get_case(learned).outputs}
    return data["intensity"].values, _as_case(case, learned, parameters)


@lru_cache(maxsize=2)
def _stopping_structures(case):
    """Curves of the real structures that decide when a training run stops, each with several measurements."""
    parts = [
        _structures(case, split, rows, replicate)
        for split, rows in (("validation", slice(None)), ("test", evaluation.HAD_A_PART))
        for replicate in range(_STOPPING_REPLICATES)
    ]
    outputs = get_case(case).outputs
    intensity = np.concatenate([part[0] for part in parts])
    return intensity, {name: np.concatenate([part[1][name] for part in parts]) for name in outputs}


def _learned_as(case):
    return _LEARNED_AS.get(case, case)


def _as_case(wanted, case, parameters):
    """The parameters of the same curves, read as those of another case."""
    return parameters if wanted == case else parameters | {"porosity": 1 - parameters["porosity"]}


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs and targets of one case.

    Attributes
    ----------
    preprocessing : Preprocessing
        Of the training set.
    x_train, x_val : (n_sample, n_feature) ndarray of float32
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


def read_samples(source, pooling=(1, 0.0)):
    """Measured curves of a source, preprocessed.

    Parameters
    ----------
    source : Emulated, Reference or Simulated
    pooling : (int, float)
        Inputs are averages over so many q values, or over that share of q, whichever is more (`window_edges`).

    Returns
    -------
    Samples

    Raises
    ------
    FileNotFoundError, ValueError
        If the source's files are not there or damaged, or `pooling` does not suit its q values.
    """
    edges = window_edges(source.q, *pooling)
    x_train, y_train = _logs_and_targets(source, "train", edges)
    x_val, y_val = _logs_and_targets(source, "validation", edges)
    preprocessing = Preprocessing.from_logs(x_train, source.q, edges)
    return Samples(preprocessing, preprocessing.standardise(x_train), y_train, preprocessing.standardise(x_val), y_val)


def _logs_and_targets(source, split, edges):
    outputs, count, start = get_case(source.case).outputs, source.count(split), 0
    targets = {output: np.empty(count) for output in outputs}
    x = None
    for intensity, parameters in source.measured(split):
        logs = log_intensity(intensity, source.q, edges)
        x = np.empty((count, logs.shape[1]), dtype=np.float32) if x is None else x
        rows = slice(start, start + len(logs))
        x[rows], start = logs, rows.stop
        for output in outputs:
            targets[output][rows] = parameters[output]
    return x, targets
