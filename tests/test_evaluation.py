"""Error measures against numbers worked out by hand, and intervals against their nominal coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from grfsaxs_lib import evaluation as ev

TRUE = np.array([1.0, 2.0, 4.0])
PREDICTED = np.array([1.5, 2.0, 3.0])
values = hnp.arrays(np.float64, st.integers(1, 20), elements=st.floats(0.1, 100))


def test_worked_example():
    """Exact in binary but for the divisions by three."""
    assert ev.mse(PREDICTED, TRUE) == pytest.approx((0.25 + 1) / 3, rel=1e-15)
    assert ev.mape(PREDICTED, TRUE) == pytest.approx(100 * (0.5 + 0.25) / 3, rel=1e-15)
    assert ev.bias(PREDICTED, TRUE) == pytest.approx((0.5 - 1) / 3, rel=1e-15)
    assert ev.standard_error([1.0, 3.0]) == pytest.approx(1.0, rel=1e-15)
    assert np.isnan(ev.standard_error([1.0]))


@given(values, st.floats(-0.5, 0.5))
def test_constant_shift_and_constant_ratio(true, shift):
    """A shift d has MSE d^2 and bias d; a ratio 1 + d has MAPE 100 |d|. Tolerance: rounding at 100."""
    assert ev.mse(true + shift, true) == pytest.approx(shift**2, abs=1e-12)
    assert ev.bias(true + shift, true) == pytest.approx(shift, abs=1e-12)
    assert ev.mape(true * (1 + shift), true) == pytest.approx(100 * abs(shift), abs=1e-10)


def test_variance_and_bias_make_the_mse():
    """MSE = bias^2 + variance of the errors, to rounding."""
    rng = np.random.default_rng(0)
    true = rng.uniform(size=100)
    predicted = true + 0.3 + rng.normal(size=100)
    assert ev.mse(predicted, true) == pytest.approx(ev.bias(predicted, true) ** 2 + (predicted - true).var())


def test_edge_bias_of_a_shrunken_prediction():
    """Shrinking by 10 % towards 0.5 biases [0, 0.1] by mean(0.1 (0.5 - y)) = 0.045, and mirrored."""
    true = np.linspace(0, 1, 10_001)
    result = ev.edge_bias(true + 0.1 * (0.5 - true), true, (0, 1))
    assert result["lower"] == pytest.approx(0.045, rel=1e-10)
    assert result["upper"] == pytest.approx(-0.045, rel=1e-10)
    # a uniform spread of width 0.01 over n = 1001 samples
    assert result["lower_error"] == pytest.approx(0.01 / np.sqrt(12 * 1001), rel=2e-3)


def test_edge_without_samples_is_nan():
    result = ev.edge_bias([0.5], [0.5], (0, 1))
    assert np.isnan(list(result.values())).all()


def test_bins():
    true = np.array([0.0, 0.5, 1.0, 2.0, 4.0])
    result = ev.binned(ev.bias, true + [1, 3, 5, 7, 9], true, [0, 1, 2, 3, 4])
    np.testing.assert_array_equal(result, [2, 5, 7, 9])
    assert np.isnan(ev.binned(ev.bias, true, true, [5, 6])).all()


def test_bootstrap_covers_at_its_nominal_rate():
    """A 90 % interval of a mean of 100, in 200 trials: within three binomial standard errors."""
    rng = np.random.default_rng(1)
    true = np.zeros(100)
    intervals = [
        ev.bootstrap_interval(ev.bias, rng.normal(size=100), true, level=0.9, n_resample=300, seed=trial)
        for trial in range(200)
    ]
    lower, upper = np.array(intervals).T
    assert abs(np.mean((lower <= 0) & (upper >= 0)) - 0.9) < 3 * np.sqrt(0.9 * 0.1 / 200)
    # its mean width is 2 * 1.645 / sqrt(100), less 1 % for the plug-in variance, plus or minus Monte Carlo
    assert (upper - lower).mean() == pytest.approx(0.329, rel=0.03)


def test_bootstrap_is_a_function_of_its_seed():
    noisy = np.random.default_rng(2).normal(size=50)
    one, same, other = (ev.bootstrap_interval(ev.mse, noisy, np.zeros(50), seed=seed) for seed in (3, 3, 4))
    assert one == same != other


def test_resampled_intervals_cover_and_keep_together_what_belongs_together():
    """A 90 % interval of a mean of 100, in 200 trials: within three binomial standard errors."""
    rng = np.random.default_rng(4)
    samples = rng.normal(size=(200, 100))
    intervals = [
        ev.resampled_intervals(
            lambda drawn: {"mean": drawn["x"].mean()}, {"x": sample}, level=0.9, n_resample=300, seed=trial
        )["mean"]
        for trial, sample in enumerate(samples)
    ]
    lower, upper = np.array(intervals).T
    assert abs(np.mean((lower <= 0) & (upper >= 0)) - 0.9) < 3 * np.sqrt(0.9 * 0.1 / 200)
    pair = np.stack([samples[0] ** 2, 2 * samples[0] ** 2], axis=1)  # a ratio of 2 on every curve
    ratio = ev.resampled_intervals(
        lambda drawn: {"ratio": drawn["pair"][:, 1].mean() / drawn["pair"][:, 0].mean()}, {"pair": pair}, seed=0
    )
    assert ratio["ratio"] == pytest.approx((2, 2))


def test_resampled_intervals_contain_the_statistic_itself():
    """The largest of a sample is above all resamples but those that draw it: an extreme is biased under resampling."""
    values = np.arange(100.0)

    def extremes(drawn):
        return {"max": drawn["x"].max(), "min": drawn["x"].min(), "range": np.ptp(drawn["x"])}

    for name, (low, high) in ev.resampled_intervals(extremes, {"x": values}, seed=1).items():
        assert low <= extremes({"x": values})[name] <= high


def test_what_is_not_defined_in_some_resamples_could_be_anything():
    """A ratio to a count that is 0 in a third of the resamples."""
    hits = np.array([1.0] + [0.0] * 19)

    def ratio(drawn):
        count = drawn["x"].sum()
        return {"it": 1 / count if count else np.nan}

    assert ev.resampled_intervals(ratio, {"x": hits}, seed=1)["it"] == (-np.inf, np.inf)


@pytest.mark.parametrize("samples", [{"x": []}, {"x": [np.nan]}])
def test_samples_that_have_no_statistic(samples):
    with pytest.raises(ValueError):
        ev.resampled_intervals(lambda drawn: {"mean": drawn["x"].mean()}, samples, seed=0)


def test_headline_and_choices_share_no_structure():
    indices = np.arange(4096)
    assert not np.intersect1d(indices[ev.HEADLINE], indices[ev.HAD_A_PART]).size
    assert ev.HEADLINE.start % 2 == 0  # every other structure of a slice is every other of all


def test_error_table_has_the_layout_of_table_2():
    both = ({"porosity": PREDICTED}, {"porosity": TRUE, "layer_fraction": TRUE})
    table = ev.error_table({"two_phase_low": {"test": both, "train": ({"porosity": TRUE}, both[1])}})
    assert list(table.columns) == ["train", "validation", "test"]
    assert list(table.index) == [("two_phase_low", "porosity", "MSE"), ("two_phase_low", "porosity", "MAPE")]
    assert table.loc[("two_phase_low", "porosity", "MAPE"), "test"] == ev.mape(PREDICTED, TRUE)
    assert table["train"].tolist() == [0, 0] and table["validation"].isna().all()
    with pytest.raises(ValueError, match="split must be one of"):
        ev.error_table({"two_phase_low": {"training": both}})


@pytest.mark.parametrize("function", [ev.mse, ev.mape, ev.bias])
@pytest.mark.parametrize("pair", [([], []), ([1], [1, 2]), ([[1]], [[1]]), ([np.nan], [1]), ([1], [np.inf])])
def test_bad_pairs_are_refused(function, pair):
    with pytest.raises(ValueError, match="predicted and true must"):
        function(*pair)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ev.mape([1], [0]),
        lambda: ev.edge_bias([1], [1], (1, 1)),
        lambda: ev.edge_bias([1], [1], (0, 1), share=0.6),
        lambda: ev.binned(ev.mse, [1], [1], [1]),
        lambda: ev.binned(ev.mse, [1], [1], [1, 1]),
        lambda: ev.bootstrap_interval(ev.mse, [1], [1], level=1.0, seed=0),
        lambda: ev.resampled_intervals(lambda drawn: {"n": len(drawn["x"])}, {"x": [1]}, level=1.0, seed=0),
        lambda: ev.compare_curves(np.ones(10), np.ones(9)),
        lambda: ev.compare_curves(np.ones(9), np.ones(9)),
        lambda: ev.compare_curves(np.ones(10), np.zeros(10)),
    ],
)
def test_bad_arguments_are_refused(call):
    with pytest.raises(ValueError):
        call()


def test_curves_are_compared_at_high_and_low_q():
    true = np.linspace(2.0, 1.0, 100)
    curve = true * np.where(np.arange(100) < 50, 2.0, 1.1)
    found = ev.compare_curves(curve, true)
    assert found["high_q_difference"] == pytest.approx(0.1)
    assert found["low_q_rms"] == pytest.approx(np.log(2)) and found["high_q_rms"] == pytest.approx(np.log(1.1))
    assert found["low_over_high_q"] == pytest.approx(np.log(2) / np.log(1.1))


def test_the_least_mape_is_that_of_the_best_estimate():
    draws = np.random.default_rng(0).lognormal(0, 0.5, (3, 101))
    tried = np.linspace(0.3, 2, 3401)
    errors = 100 * np.abs(tried[:, np.newaxis, np.newaxis] / draws - 1).mean(axis=2)
    np.testing.assert_allclose(ev.least_mape(draws), errors.min(axis=0), rtol=1e-3)  # the step tried


def test_an_interval_of_nine_draws_at_80_percent_has_the_outer_ones_as_ends():
    """Of ten equally probable gaps between and around nine draws, eight lie inside."""
    draws = np.random.default_rng(0).permuted(np.tile(np.arange(1.0, 10), (4, 1)), axis=1)
    inside = ev.contained(draws, np.array([0.99, 1.01, 8.99, 9.01]), [0.2, 0.8])
    np.testing.assert_array_equal(inside, [[False, False, False, False], [False, True, True, False]])


def test_draws_that_state_half_of_the_error():
    """Means are 2 from the truth, with deviations of 1."""
    draws = np.array([[-1.0, 1.0], [3.0, 5.0]])
    assert ev.error_over_stated(draws, np.array([2.0, 2.0])) == pytest.approx(2, rel=1e-15)


def test_tarp_sees_what_no_single_parameter_shows():
    """Two equal parameters, and draws that do not know it: the ranks of each are uniform, the shares are not."""
    rng = np.random.default_rng(0)
    limits = {"one": (0, 1), "other": (-5, 5)}
    x = rng.uniform(size=2000)
    true, apart = {"one": x, "other": 10 * x - 5}, {"one": rng.uniform(size=2000), "other": rng.uniform(-5, 5, 2000)}
    draws = {"one": rng.uniform(size=(2000, 200)), "other": rng.uniform(-5, 5, (2000, 200))}
    for name in limits:
        assert stats.kstest(np.mean(draws[name] < true[name][:, np.newaxis], axis=1), "uniform").pvalue > 1e-3
    right, wrong = (stats.kstest(ev.tarp_shares(draws, of, limits, seed=1), "uniform").pvalue for of in (apart, true))
    assert right > 1e-3 and wrong < 1e-6
