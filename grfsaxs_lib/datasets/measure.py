"""Simulated measurements of clean curves: level and noise of each come from the key of its sample alone."""

import numpy as np

from ..measurement.noise import add_noise, sample_noise_level
from . import block
from .keys import keys


def measure(clean, namespace, split, indices, replicate=0, out=None):
    """Give each curve its own noise level and a lognormal measurement noise.

    Parameters
    ----------
    clean : (n_sample, n_q) ndarray
        Clean intensities.
    namespace, split, indices
        Whose curves they are, as in `keys.keys`.
    replicate : int, optional
        Another number is another, independent measurement of the same structures.
    out : (n_sample, n_q) ndarray, optional
        Where to write the result; it may be the clean curves themselves.

    Returns
    -------
    noisy : (n_sample, n_q) ndarray of the type of `clean`
    noise_level : (n_sample,) ndarray of float64
    """
    noisy = np.empty_like(clean) if out is None else out
    noise_level = np.empty(len(clean))
    for i, seed in enumerate(keys(namespace, split, indices, "noise", replicate)):
        rng = np.random.default_rng(int(seed))
        noise_level[i] = sample_noise_level(rng)
        noisy[i] = add_noise(clean[i].astype(np.float64), noise_level[i], rng)
    return noisy, noise_level


def as_measured(dataset, noisy, noise_level, replicate):
    """A data set with noisy curves in the place of its clean ones, and their noise levels."""
    attrs = dataset["intensity"].attrs | {
        "long_name": "scattering intensity with measurement noise",
        "comment": "lognormal; mean: the clean intensity; variance: noise_level times the clean intensity",
        "noise_replicate": int(replicate),
    }
    return dataset.assign(
        intensity=(("sample", "q"), noisy, attrs),
        noise_level=("sample", noise_level, block.variable_attrs("noise_level")),
    )
