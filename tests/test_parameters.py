"""The table of variables and the paper's cases."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import assume, given
from hypothesis import strategies as st

from grfsaxs_lib.parameters import CASES, VARIABLES, Case, as_numbers, check, get_case

names = st.sampled_from(sorted(VARIABLES))
numbers = st.floats(allow_nan=True, allow_infinity=True)


def is_allowed(variable, value):
    """The range of a variable, said a second time."""
    if not np.isfinite(value) or value >= variable.upper:
        return False
    return value > variable.lower or (variable.closed_lower and value == variable.lower)


@given(names, numbers)
def test_check_accepts_the_physical_range_and_nothing_else(name, value):
    if is_allowed(VARIABLES[name], value):
        assert check(name, value) == value
    else:
        with pytest.raises(ValueError, match=f"^{name} must lie in "):
            check(name, value)


@given(names, st.lists(numbers, min_size=1, max_size=5), st.data())
def test_one_bad_element_is_enough(name, values, data):
    assume(not all(is_allowed(VARIABLES[name], value) for value in values))
    with pytest.raises(ValueError, match="values are outside"):
        check(name, values)


def test_messages_name_value_and_range():
    with pytest.raises(ValueError, match=r"^porosity must lie in \(0, 1\); got 1\.5$"):
        check("porosity", 1.5)
    with pytest.raises(ValueError, match=r"^layer_fraction must lie in \[0, 1\); got -0\.5 \(1 of 2 "):
        check("layer_fraction", [0.0, -0.5])
    with pytest.raises(ValueError, match=r"^scaling_parameter must lie in \(0, inf\) nm; got nan$"):
        check("scaling_parameter", np.nan)


@pytest.mark.parametrize("value", ["wide", [0.1, "x"], {}, object(), [[0.1], [0.2, 0.3]], 1j])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match=r"^porosity must be a number in \(0, 1\)"):
        check("porosity", value)


@pytest.mark.parametrize("value", [True, np.array([True]), 0.5 + 0j, np.array([1j]), "0.5", b"0.5", np.array(["0.5"])])
def test_booleans_complex_numbers_and_text_are_no_numbers(value):
    with pytest.raises(ValueError, match="^porosity must be a number"):
        check("porosity", value)


def test_masked_elements_are_refused_and_others_are_not():
    masked = np.ma.masked_greater([0.2, 0.9, 0.3], 0.5)
    with pytest.raises(ValueError, match="porosity has 1 masked element; leave"):
        check("porosity", masked)
    np.testing.assert_array_equal(check("porosity", np.ma.masked_greater([0.2, 0.3], 0.5)), [0.2, 0.3])


@pytest.mark.parametrize("name, units, given, expected", [
    ("scaling_parameter", "angstrom", 40.0, 4.0),
    ("scaling_parameter", "nm", 4.0, 4.0),
    ("q", "1/angstrom", 0.1, 1.0),
    ("q", "angstrom-1", 0.1, 1.0),
    ("q", "nm^-1", 0.1, 0.1),
    ("porosity", "%", 30.0, 0.3),
    ("porosity", "1", 0.3, 0.3),
])  # fmt: skip
def test_the_unit_of_labelled_data_is_honoured(name, units, given, expected):
    labelled = xr.DataArray([given, given], attrs={"units": units})
    np.testing.assert_allclose(check(name, labelled), [expected] * 2, rtol=1e-14)


@pytest.mark.parametrize(
    "name, units", [("scaling_parameter", "nm-1"), ("q", "nm"), ("q", "degree"), ("porosity", "nm")]
)
def test_a_unit_of_another_kind_is_refused(name, units):
    with pytest.raises(ValueError, match=f"{name} has units '{units}', but "):
        check(name, xr.DataArray([0.3], attrs={"units": units}))


def test_the_unit_of_an_intensity_matters_where_its_scale_does():
    absolute = xr.DataArray([5.0], attrs={"units": "cm-1"})
    assert check("intensity", absolute, any_unit=True) == 5.0
    with pytest.raises(ValueError, match="intensity has units 'cm-1'"):
        check("intensity", absolute)


def test_a_block_of_a_longer_array_names_the_index_in_it():
    with pytest.raises(ValueError, match=r"first at index \[17, 1\]"):
        check("intensity", [[1.0, 2.0], [3.0, np.nan]], first=16)


def test_numbers_name_the_rule_that_they_break():
    with pytest.raises(ValueError, match="^weights must be three numbers; got 'abc'$"):
        as_numbers("weights", "abc", rule="must be three numbers")


def test_check_keeps_the_shape_and_returns_float64():
    checked = check("porosity", np.full((2, 3), 0.5, np.float32))
    assert checked.shape == (2, 3)
    assert checked.dtype == np.float64


@pytest.mark.parametrize("name", VARIABLES)
def test_labels_carry_symbol_and_unit(name):
    variable = VARIABLES[name]
    assert variable.name == name
    assert f"${variable.symbol}$" in variable.label
    assert ("[" in variable.label) == (variable.unit != "1")


def test_an_axis_label_in_full():
    assert VARIABLES["q"].label == "scattering vector $q$ [nm$^{-1}$]"


def test_cases_are_those_of_section_2_3():
    low, high, layer, length = (0.1, 0.5), (0.5, 0.9), (0.05, 0.5), (0.8, 8.0)
    assert {name: case.ranges for name, case in CASES.items()} == {
        "two_phase_low": {"scaling_parameter": length, "porosity": low},
        "two_phase_high": {"scaling_parameter": length, "porosity": high},
        "three_phase_low": {"scaling_parameter": length, "porosity": low, "layer_fraction": layer},
        "three_phase_high": {"scaling_parameter": length, "porosity": high, "layer_fraction": layer},
    }


def test_titles_are_those_of_table_2():
    assert [case.title for case in CASES.values()] == [
        "Two-phase low porosity",
        "Two-phase high porosity",
        "Three-phase low porosity",
        "Three-phase high porosity",
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_ranges_of_a_case_are_physical(case):
    assert case.outputs == tuple(case.ranges)
    for output, ends in case.ranges.items():
        check(output, ends)


def test_get_case():
    case = Case("one_of_my_own", {"porosity": (0.2, 0.3)})
    assert get_case(case) is case
    assert get_case("two_phase_low") is CASES["two_phase_low"]
    with pytest.raises(ValueError, match="case must be one of two_phase_low, .*got 'four_phase'"):
        get_case("four_phase")
