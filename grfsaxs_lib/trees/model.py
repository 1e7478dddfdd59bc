"""Trained models: boosters with the preprocessing of their training set; predict, save, load."""

import hashlib
import json
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..files import moved_into_place, package_version
from ..grid import check_q
from ..measurement.preprocess import Preprocessing

_FORMAT = "grfsaxs model"
_FORMAT_VERSION = 3
_DESCRIPTION = "preprocessing.json"


class OutsideTrainingDomainWarning(UserWarning):
    """Curves differ from all that the model was trained on; their predictions mean little."""


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
    complements : tuple of str
        Outputs whose boosters predict one minus the output, see `mirrored`.
    """

    case: str
    preprocessing: Preprocessing
    boosters: dict
    meta: dict = field(default_factory=dict)
    complements: tuple = ()

    def __post_init__(self):
        for output, booster in self.boosters.items():
            if not output.isidentifier():
                raise ValueError(f"an output is named like a variable; got {output!r}")
            if booster.num_features() != self.preprocessing.n_feature:
                raise ValueError(
                    f"the booster of {output} takes {booster.num_features()} inputs, but the preprocessing "
                    f"makes {self.preprocessing.n_feature}"
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
        predicted = {}
        for output, booster in self.boosters.items():
            values = booster.inplace_predict(rows).astype(np.float64).reshape(shape)[()]
            predicted[output] = 1 - values if output in self.complements else values
        return predicted

    def mirrored(self):
        """The model of the two-phase case at the other side of porosity 1/2.

        By Babinet's principle two phases that change places scatter alike, so that the same trees predict the scaling
        parameter and one minus the porosity.

        Raises
        ------
        ValueError
            If the case has three phases: those have no mirror image.
        """
        other = {"two_phase_low": "two_phase_high", "two_phase_high": "two_phase_low"}.get(self.case)
        if other is None:
            raise ValueError(f"only the two-phase cases mirror each other; got {self.case}")
        return replace(self, case=other, complements=tuple({"porosity"} - set(self.complements)))


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
        "complements": list(model.complements),
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
        complements = tuple(description["complements"])
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
    return Model(trained_for, preprocessing, boosters, meta, complements)


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
