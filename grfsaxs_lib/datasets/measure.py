"""Simulated measurements of clean curves: level and noise of each come from the key of its sample alone."""

import numpy as np
from numpy.random import PCG64, Generator
from numpy.random.bit_generator import ISeedSequence

from ..measurement.noise import lognormal, sample_noise_level
from ..parameters import check
from . import block
from .keys import keys, seed_words

_BLOCK = 16  # curves at a time: the temporary arrays of float64 stay in the cache


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

    Raises
    ------
    ValueError
        If an intensity is not a positive number, or as `keys.keys`.
    """
    noisy = np.empty_like(clean) if out is None else out
    noise_level = np.empty(len(clean))
    seeds = keys(namespace, split, indices, "noise", replicate)
    # A generator takes four words of the seed sequence of its key; all at once they cost a tenth.
    words = seed_words([seeds & np.uint64(2**32 - 1), seeds >> np.uint64(32), 0, 0], 4)
    for start in range(0, len(clean), _BLOCK):
        rows = slice(start, start + _BLOCK)
        intensity = check("intensity", clean[rows], first=start)
        normals = np.empty(intensity.shape)
        for i, seed in enumerate(words[rows]):
            rng = Generator(PCG64(_Words(seed)))  # default_rng(key)
            noise_level[start + i] = sample_noise_level(rng)
            rng.standard_normal(out=normals[i])
        noisy[rows] = lognormal(intensity, noise_level[rows], normals)
    return noisy, noise_level


class _Words(ISeedSequence):
    """A seed sequence whose words were made before."""

    def __init__(self, words):
        self.words = words

    def generate_state(self, n_words, dtype=np.uint32):
        return self.words


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
