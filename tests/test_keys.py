"""Keys and parameters of the samples: each depends on its own place alone."""

import itertools

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from grfsaxs_lib.datasets import keys
from grfsaxs_lib.parameters import CASES

cases = st.sampled_from(sorted(CASES))
splits = st.sampled_from(keys.SPLITS)
purposes = st.sampled_from(keys.PURPOSES)
indices = st.integers(0, 2**32 - 1)
owners = st.tuples(cases, splits, indices, purposes, st.integers(0, 2**32 - 1))


# -------------------------------------------------------------------------- keys


@given(owners, owners)
def test_different_samples_have_different_keys(one, other):
    assume(one != other)
    found = [keys.keys(*owner[:3], owner[3], owner[4]) for owner in (one, other)]
    assert found[0] != found[1]


def test_no_key_is_shared_in_a_large_enumeration():
    # 4 x 3 x 3 x 2 000; were the 64-bit words random, a collision would have probability 1e-10.
    everything = [
        keys.keys(case, split, np.arange(2000), purpose)
        for case, split, purpose in itertools.product(CASES, keys.SPLITS, keys.PURPOSES)
    ]
    assert np.unique(everything).size == 4 * 3 * 3 * 2000


@given(cases, splits, st.lists(indices, min_size=1, max_size=20), purposes)
def test_a_key_does_not_depend_on_its_company(case, split, some, purpose):
    together = keys.keys(case, split, some, purpose)
    alone = [keys.keys(case, split, index, purpose)[0] for index in some]
    np.testing.assert_array_equal(together, alone)


def test_keys_are_pinned():
    # Files of past runs rely on these numbers; computed by NumPy's SeedSequence, whose stream is frozen.
    np.testing.assert_array_equal(keys.keys("two_phase_low", "train", [0, 1], "structure"), PINNED_KEYS)
    parameters = keys.sample_parameters("three_phase_high", "test", [7])
    assert {name: values[0] for name, values in parameters.items()} == PINNED_PARAMETERS


@given(st.lists(st.lists(indices, min_size=4, max_size=7), min_size=1, max_size=5), st.integers(1, 6))
def test_words_are_those_of_numpy(entropies, n_word):
    length = min(map(len, entropies))
    entropies = [entropy[:length] for entropy in entropies]
    expected = [np.random.SeedSequence(entropy).generate_state(n_word, np.uint64) for entropy in entropies]
    np.testing.assert_array_equal(keys.seed_words(np.transpose(entropies), n_word), expected)


PINNED_KEYS = [15490652091137820046, 13188869407267639556]
PINNED_PARAMETERS = {
    "scaling_parameter": 0.8077246475196342,
    "porosity": 0.6188747125283663,
    "layer_fraction": 0.3499519436205834,
}


@pytest.mark.parametrize("arguments, message", [
    (("", "train", 0, "noise"), "namespace must be a name.*got ''"),
    ((CASES["two_phase_low"], "train", 0, "noise"), "namespace must be a name.*got Case"),
    (("two_phase_low", "training", 0, "noise"), "split must be one of train.*got 'training'"),
    (("two_phase_low", "train", 0, "luck"), "purpose must be one of.*got 'luck'"),
    (("two_phase_low", "train", -1, "noise"), "indices must lie in .*got -1"),
    (("two_phase_low", "train", 2**32, "noise"), "indices must lie in"),
    (("two_phase_low", "train", 0.5, "noise"), "indices must be"),
    (("two_phase_low", "train", True, "noise"), "indices must be"),
    (("two_phase_low", "train", [[1]], "noise"), "indices must be"),
    (("two_phase_low", "train", 0, "noise", -1), "replicate must be a whole number"),
    (("two_phase_low", "train", 0, "noise", 2**32), "replicate must be a whole number"),
])  # fmt: skip
def test_keys_refuse(arguments, message):
    with pytest.raises(ValueError, match=message):
        keys.keys(*arguments)


# -------------------------------------------------------------------- parameters


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_uniform_on_their_ranges(case):
    parameters = keys.sample_parameters(case, "train", np.arange(2000))
    for name, (lower, upper) in CASES[case].ranges.items():
        uniforms = (parameters[name] - lower) / (upper - lower)
        assert uniforms.min() >= 0 and uniforms.max() < 1
        # Fixed keys, so the outcome is fixed: a p-value below 1e-3 would be a fault of the sampler.
        assert stats.kstest(uniforms, "uniform").pvalue > 1e-3
    ranks = np.corrcoef([parameters[name] for name in CASES[case].outputs])
    # Standard error of a correlation of 2 000 independent pairs: 0.022; 4 of them.
    assert np.abs(ranks - np.eye(len(ranks))).max() < 4 * 2000**-0.5


def test_samples_of_another_namespace():
    theirs = keys.sample_parameters("two_phase_low", "train", np.arange(5), "others")
    ours = keys.sample_parameters("two_phase_low", "train", np.arange(5))
    assert not np.isin(theirs["porosity"], ours["porosity"]).any()
    same = keys.sample_parameters("two_phase_low", "train", np.arange(5), "two_phase_low")
    np.testing.assert_array_equal(same["porosity"], ours["porosity"])


def test_two_phases_have_no_layer():
    assert not keys.sample_parameters("two_phase_low", "test", np.arange(5))["layer_fraction"].any()
