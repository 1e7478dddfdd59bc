r"""Random keys and parameters of the samples of section 2.3.

Sample `index` of a split owns its 64-bit keys, one a purpose, and nothing else decides
its content. So it is the same curve in a large data set or a small one, whenever and
wherever it is made, in one process or on a cluster.
"""

import operator
import zlib

import numpy as np

from ..parameters import get_case

SPLITS = ("train", "validation", "test")
HOLDOUT = "holdout"
"""Further structures of a prior that have no part in any choice: they are opened once, for a headline number."""
PURPOSES = ("structure", "parameters", "noise")
PARAMETERS = ("scaling_parameter", "porosity", "layer_fraction")


def keys(namespace, split, indices, purpose, replicate=0):
    r"""64-bit keys of some samples of a split, for one purpose.

    Each key is the first word that ``numpy.random.SeedSequence`` makes of (namespace,
    split, purpose, index, replicate): it depends on nothing else, and keys of
    different samples are independent.

    Parameters
    ----------
    namespace : str
        Whose samples they are: the name of a case, or any other name for samples of their own.
    split : {"train", "validation", "test", "holdout"}
    indices : int or (n_sample,) array_like of int
        Positions in the split, each in [0, 2^32).
    purpose : {"structure", "parameters", "noise"}
        What the key is for: random field, parameters or measurement noise.
    replicate : int, optional
        Which of several independent draws, in [0, 2^32).

    Returns
    -------
    (n_sample,) ndarray of uint64

    Raises
    ------
    ValueError
        If an argument is not one of the above.
    """
    return _random_words(namespace, split, indices, purpose, replicate, 1)[:, 0]


def sample_parameters(case, split, indices, namespace=None):
    """Parameters of some samples of a split, uniform on the ranges of the case.

    Parameters
    ----------
    case : str or Case
        Key of `CASES`, or a `Case` of one's own.
    split, indices
        As in `keys`.
    namespace : str, optional
        As in `keys`; the name of the case by default.

    Returns
    -------
    dict of str to (n_sample,) ndarray of float64
        Scaling parameter [nm], porosity and layer fraction; the last is 0 in a
        case of two phases.

    Raises
    ------
    ValueError
        If an argument is not one of the above.
    """
    case = get_case(case)
    namespace = case.name if namespace is None else namespace
    words = _random_words(namespace, split, indices, "parameters", 0, len(PARAMETERS))
    # The upper 53 bits, as NumPy makes a double; straight from the seed sequence, whose
    # words are fixed for good, where the stream of a Generator may change with NumPy.
    uniforms = (words >> np.uint64(11)) * 2.0**-53
    lower, upper = np.transpose([case.ranges.get(name, (0.0, 0.0)) for name in PARAMETERS])
    return dict(zip(PARAMETERS, (lower + (upper - lower) * uniforms).T, strict=True))


def _random_words(namespace, split, indices, purpose, replicate, n_word):
    """(n_sample, n_word) ndarray of uint64: what the seed sequence of each sample yields."""
    if not isinstance(namespace, str) or not namespace:
        raise ValueError(f"namespace must be a name, such as that of a case; got {namespace!r}")
    check_choice("split", split, (*SPLITS, HOLDOUT))
    check_choice("purpose", purpose, PURPOSES)
    replicate = check_whole_number("replicate", replicate, 0, 2**32)
    indices = np.atleast_1d(indices)
    if indices.size == 0:
        return np.empty((0, n_word), dtype=np.uint64)
    if indices.ndim != 1 or indices.dtype.kind not in "iu":
        raise ValueError(f"indices must be a list of whole numbers; got {indices.dtype} {indices.shape}")
    if indices.min() < 0 or indices.max() >= 2**32:
        raise ValueError(f"indices must lie in [0, 2^32); got {indices.min()} ... {indices.max()}")
    # Five words of 32 bits, always: SeedSequence pads with zeros, so that lists of
    # different lengths could give the same key. Names enter by their checksum, so that a
    # case keeps its samples when other cases are added or removed.
    names = [_word(name) for name in (namespace, split, purpose)]
    return seed_words([*names, indices, replicate], n_word)


def seed_words(entropy, n_word):
    """What ``numpy.random.SeedSequence`` makes of many entropies, a hundred times faster than one by one.

    Parameters
    ----------
    entropy : sequence of int or (n_sample,) array_like of int
        Their 32-bit words, four or more (zeros to fill up); one that all have in common as one number.

    Returns
    -------
    (n_sample, n_word) ndarray of uint64
        Row i is ``SeedSequence([word[i] for word in entropy]).generate_state(n_word, np.uint64)``.
    """
    entropy = np.array(np.broadcast_arrays(*entropy), dtype=np.uint32)
    constants = _constants(0x43B0D7E5, 0x931E8875)

    def mixed(word, other):
        word = np.uint32(0xCA01F9DD) * word - np.uint32(0x4973F715) * _hashed(other, constants)
        return word ^ word >> np.uint32(16)

    pool = [_hashed(word, constants) for word in entropy[:4]]
    for source in range(4):
        for i in range(4):
            if i != source:
                pool[i] = mixed(pool[i], pool[source])
    for word in entropy[4:]:
        pool = [mixed(old, word) for old in pool]
    constants = _constants(0x8B51F9DD, 0x58F38DED)
    halves = [_hashed(pool[i % 4], constants).astype(np.uint64) for i in range(2 * n_word)]
    return np.stack([low | high << np.uint64(32) for low, high in zip(halves[::2], halves[1::2], strict=True)], axis=1)


def _constants(value, factor):
    """The constants of the hash of a seed sequence, two for each word, of which neighbours share one."""
    while True:
        following = value * factor % 2**32
        yield np.uint32(value), np.uint32(following)
        value = following


def _hashed(word, constants):
    before, after = next(constants)
    word = (word ^ before) * after
    return word ^ word >> np.uint32(16)


def _word(name):
    return zlib.crc32(name.encode())


def check_choice(name, value, choices):
    """Raise unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r}")


def check_whole_number(name, value, lower, upper):
    """Return `value` as an int in [lower, upper), or say what is wrong with it."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool) or not lower <= number < upper:
        raise ValueError(f"{name} must be a whole number in [{lower}, {upper}); got {value!r}")
    return number
