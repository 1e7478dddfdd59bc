"""Normalisation, logarithm, standardisation, and the training domain."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grfsaxs_lib.grid import PAPER_Q
from grfsaxs_lib.measurement.preprocess import (
    Preprocessing,
    log_intensity,
    normalise_intensity,
    porod_invariant,
    window_edges,
)

Q = np.linspace(0.04, 3.0, 80)


def two_phase_like(scaling_parameter, rng, q=Q):
    """Curves with the plateau, knee at q = 1/a, q^-4 tail and speckle of a random two-phase medium."""
    a = np.asarray(scaling_parameter)[:, np.newaxis]
    smooth = 1e9 * a**3 / (1 + (a * q) ** 4)
    return smooth * np.exp(0.05 / q * rng.standard_normal(smooth.shape) * np.minimum(q, 1))


@pytest.fixture(scope="module")
def training_curves():
    rng = np.random.default_rng(0)
    return two_phase_like(rng.uniform(0.8, 8, 500), rng)


def test_invariant_is_the_integral():
    """Eq. (12) is a Riemann sum of Eq. (11): for I = q^-2 it is exactly n_q times the step."""
    assert porod_invariant(PAPER_Q**-2, PAPER_Q) == pytest.approx(500 * (2.96 / 499), rel=1e-12)


def test_invariant_of_unequal_steps():
    """Half the distance between neighbours, by hand."""
    q = np.array([1.0, 2.0, 5.0])
    assert porod_invariant(1 / q**2, q) == pytest.approx(1 + 2 + 3, rel=1e-15)


@given(hnp.arrays(np.float64, (3, 4), elements=st.floats(1e-3, 1e12)), st.floats(1e-6, 1e6))
def test_normalised_curves_have_unit_total_and_forget_the_prefactor(intensity, prefactor):
    """Total intensity 1 by Eq. (12); I_0 cancels. Tolerances: rounding of a four-term sum."""
    q = np.array([0.1, 0.2, 0.3, 0.4])
    normalised = normalise_intensity(intensity, q)
    np.testing.assert_allclose(4 * np.pi * porod_invariant(normalised, q), 1, rtol=1e-14)
    np.testing.assert_allclose(normalise_intensity(prefactor * intensity, q), normalised, rtol=1e-14)


def test_one_curve_or_many_in_any_layout_is_the_same(training_curves):
    rescale = Preprocessing.fit(training_curves, Q)
    many = rescale.transform(training_curves)
    assert many.dtype == np.float32 and many.shape == training_curves.shape
    np.testing.assert_array_equal(rescale.transform(training_curves[7]), many[7])
    np.testing.assert_array_equal(rescale.transform(np.asfortranarray(training_curves)), many)
    stacked = rescale.transform(training_curves.reshape(5, 100, -1))
    np.testing.assert_array_equal(stacked.reshape(many.shape), many)


def test_blocks_leave_no_seam(training_curves, monkeypatch):
    whole = log_intensity(training_curves, Q)
    monkeypatch.setattr("grfsaxs_lib.measurement.preprocess._CURVES_AT_A_TIME", 7)
    np.testing.assert_array_equal(log_intensity(training_curves, Q), whole)


def test_pooling_averages_neighbouring_logarithms(training_curves):
    """By hand in float64; 1e-6 of logarithms that reach 10 is their rounding to float32."""
    logs = np.log(normalise_intensity(training_curves, Q))
    expected = logs.reshape(500, 16, 5).mean(axis=-1)
    edges = window_edges(Q, 5)
    np.testing.assert_array_equal(edges, range(0, 80, 5))
    np.testing.assert_allclose(log_intensity(training_curves, Q, edges), expected, rtol=1e-6, atol=1e-6)
    rescale = Preprocessing.fit(training_curves, Q, edges)
    assert (rescale.n_feature, rescale.mean.size) == (16, 16)
    np.testing.assert_allclose(rescale.transform(training_curves).mean(axis=0), 0, atol=1e-5)
    for bad in ([], [1, 2], [0, 80], [0, 5, 5], [0.0, 5.0], [[0, 5]]):
        with pytest.raises(ValueError, match="edges must be increasing indices of the 80 q values, from 0"):
            Preprocessing.fit(training_curves, Q, bad)


def test_windows_grow_with_q():
    edges = window_edges(PAPER_Q, 5, 0.06)
    widths = np.diff(edges, append=500)
    relative = widths * (PAPER_Q[1] - PAPER_Q[0]) / PAPER_Q[edges]
    assert (edges.size, edges[0], widths.min()) == (45, 0, 5)
    wide = slice(np.flatnonzero(widths > 5)[0], -1)
    assert (relative[wide] >= 0.06 - 1e-9).all() and (relative[wide] < 0.072).all()
    np.testing.assert_array_equal(window_edges(PAPER_Q), range(500))
    np.testing.assert_array_equal(window_edges(Q[:12], 5), [0, 5])  # the last window takes what is left
    for bad in ((0, 0), (81, 0), (2.5, 0), (5, -0.1), (5, 1.0)):
        with pytest.raises(ValueError, match="a window takes a whole number of the 80 q values and a share"):
            window_edges(Q, *bad)


def test_training_set_gets_zero_mean_and_unit_variance(training_curves):
    """To float32 rounding: the logs reach 10, their scale is at least 0.1, so 1e-7 * 10 / 0.1 = 1e-5."""
    features = Preprocessing.fit(training_curves, Q).transform(training_curves).astype(np.float64)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features.std(axis=0), 1, atol=1e-5)


def test_new_data_use_the_training_set_s_numbers(training_curves):
    rescale = Preprocessing.fit(training_curves, Q)
    new = training_curves[:3] ** 1.1
    expected = (np.log(normalise_intensity(new, Q)) - rescale.mean) / rescale.scale
    np.testing.assert_allclose(rescale.transform(new), expected, atol=1e-5)  # float32, as above


def test_json_round_trip_is_exact(training_curves):
    rescale = Preprocessing.fit(training_curves, Q, window_edges(Q, 4))
    again = Preprocessing.from_json(json.loads(json.dumps(rescale.to_json())))
    for name in ("q", "edges", "mean", "scale", "lower", "upper"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rescale, name))


def test_training_domain(training_curves):
    """No curve of the training range is outside; all far ones are, and so are foreign shapes."""
    rescale = Preprocessing.fit(training_curves, Q)
    outside = lambda curves: rescale.outside_domain(rescale.transform(curves))  # noqa: E731
    rng = np.random.default_rng(1)
    assert not outside(training_curves).any()
    assert not outside(two_phase_like(rng.uniform(0.8, 8, 500), rng)).any()
    assert outside(two_phase_like(np.full(50, 20.0), rng)).all()
    assert outside(two_phase_like(np.full(50, 0.2), rng)).all()
    assert outside(training_curves[:50, ::-1]).all()
    assert outside(Q**-2.0).shape == () and outside(Q**-2.0)


@pytest.mark.parametrize("function", [porod_invariant, normalise_intensity, log_intensity])
@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_bad_intensities_are_refused(function, bad):
    intensity = np.ones((2, 80))
    intensity[1, 5] = bad
    with pytest.raises(ValueError, match="intensity must lie in"):
        function(intensity, Q)


@pytest.mark.parametrize("function", [porod_invariant, normalise_intensity, log_intensity])
@pytest.mark.parametrize("shape", [(), (79,), (80, 2), (2, 1)])
def test_wrong_shapes_are_refused(function, shape):
    with pytest.raises(ValueError, match="last axis"):
        function(np.ones(shape), Q)


@pytest.mark.parametrize(
    "q", [[], [0.1], [0.2, 0.1], [0.1, 0.1], [0.0, 1.0], [-1.0, 1.0], [1.0, np.inf], [np.nan, 1.0], [[1, 2]]]
)
def test_bad_q_is_refused(q):
    with pytest.raises(ValueError, match=r"\bq\b"):
        porod_invariant(np.ones(np.size(q)), q)


def test_a_training_set_needs_different_curves():
    with pytest.raises(ValueError, match="n_sample >= 2"):
        Preprocessing.fit(np.ones(80), Q)
    with pytest.raises(ValueError, match="n_sample >= 2"):
        Preprocessing.fit(np.ones((1, 80)), Q)
    with pytest.raises(ValueError, match="differ at every q"):
        Preprocessing.fit(np.ones((5, 80)), Q)


@pytest.mark.parametrize("spoil", [{"mean": None}, {"scale": [1]}, {"upper": "x"}, {"lower": [np.nan] * 80}])
def test_damaged_descriptions_are_refused(training_curves, spoil):
    content = Preprocessing.fit(training_curves, Q).to_json()
    with pytest.raises(ValueError):
        Preprocessing.from_json(content | spoil)
    del content["scale"]
    with pytest.raises(ValueError, match="scale"):
        Preprocessing.from_json(content)


def test_the_index_of_a_bad_curve_is_that_in_the_batch(training_curves, monkeypatch):
    monkeypatch.setattr("grfsaxs_lib.measurement.preprocess._CURVES_AT_A_TIME", 2)
    spoilt = training_curves[:6].copy()
    spoilt[5, 3] = np.nan
    with pytest.raises(ValueError, match=r"first at index \[5, 3\]"):
        log_intensity(spoilt, Q)


@pytest.mark.parametrize("function", [porod_invariant, normalise_intensity, log_intensity])
@pytest.mark.parametrize("kind", ["masked", "complex", "text", "boolean"])
def test_what_is_no_plain_number_is_refused(training_curves, function, kind):
    curve = training_curves[0]
    bad = {
        "masked": np.ma.masked_equal(curve, curve[2]),
        "complex": curve + 0j,
        "text": curve.astype(str),
        "boolean": curve > 0,
    }[kind]
    with pytest.raises(ValueError, match="^intensity"):
        function(bad, Q)
