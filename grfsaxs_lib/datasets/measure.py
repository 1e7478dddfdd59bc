"""Simulated measurements of clean curves: level and noise of each come from the key of its sample alone."""

import numpy as np
from numpy.random import PCG64, Generator
from numpy.random.bit_generator import ISeedSequence

from ..measurement.noise import lognormal, sample_noise_level
from ..parameters import check
from .block import variable_attrs
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


def add_measurement_noise(dataset, replicate=0, *, overwrite=False):
    """Give each curve its own noise level and a lognormal measurement noise.

    Level and noise come from the sample's key alone, so that curve i is the same in
    any selection of the data set, and in any order.

    Parameters
    ----------
    dataset : xarray.Dataset
        From `store` or `reference`, or some of its samples.
    replicate : int, optional
        Another number is another, independent measurement of the same structures.
    overwrite : bool, optional
        Whether the clean curves may be lost, which saves a copy.

    Returns
    -------
    xarray.Dataset
        With the noisy `intensity` in place of the clean one, and `noise_level`.

    Raises
    ------
    ValueError
        If the data set is not one of clean curves, or an intensity is not a
        positive number.
    """
    missing = {"intensity", "index"} - set(dataset.variables)
    missing |= {"case", "split"} - set(dataset.attrs)
    if missing:
        raise ValueError(f"not a data set of this package: it has no {', '.join(sorted(missing))}")
    if "noise_level" in dataset.variables:
        raise ValueError("the curves have measurement noise already; start from the clean ones")
    clean = dataset["intensity"].transpose("sample", "q").values
    owner = dataset.attrs["case"], dataset.attrs["split"], dataset["index"].values
    noisy, noise_level = measure(clean, *owner, replicate, out=clean if overwrite else None)
    attrs = dataset["intensity"].attrs | {
        "long_name": "scattering intensity with measurement noise",
        "comment": "lognormal; mean: the clean intensity; variance: noise_level times the clean intensity",
        "noise_replicate": int(replicate),
    }
    return dataset.assign(
        intensity=(("sample", "q"), noisy, attrs), noise_level=("sample", noise_level, variable_attrs("noise_level"))
    )
