"""The paper's numbers as typed, the places of results, and the book-keeping of claims."""

import json
import subprocess
import sys
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image

from grfsaxs_lib import results, tiers
from grfsaxs_lib.paper import claims, numbers
from grfsaxs_lib.parameters import CASES

QUICK, LAPTOP, PAPER = tiers.TIERS


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("GRFSAXS_ROOT", str(tmp_path))
    return tmp_path


# ------------------------------------------------------------------ the paper's numbers


def table_2(**keys):
    """The values of Table 2 that match, as a Series over what is left of the labels."""
    table = numbers.TABLE_2
    for column, value in keys.items():
        table = table[table[column] == value].drop(columns=column)
    return table.set_index([c for c in table if c != "value"])["value"]


def test_table_2_has_every_output_error_and_split_once():
    labels = ["case", "output", "error", "split"]
    expected = {
        (case.name, output, error, split)
        for case in CASES.values()
        for output in case.outputs
        for error in ("mse", "mape")
        for split in ("train", "validation", "test")
    }
    assert set(numbers.TABLE_2[labels].itertuples(index=False, name=None)) == expected
    assert len(numbers.TABLE_2) == len(expected) == 60


def test_table_2_validation_and_test_agree():
    # The test set's sampling scatter is below 2 %; a misread digit or exponent is not.
    ratio = table_2(split="validation") / table_2(split="test")
    assert ratio.between(0.98, 1.02).all()


def test_table_2_mirror_images_agree():
    # Babinet: the same problem twice; 2 % is twice the scatter of two test sets.
    ratio = table_2(case="two_phase_low", split="test", error="mse") / table_2(
        case="two_phase_high", split="test", error="mse"
    )
    assert ratio.between(0.98, 1.02).all()
    # In MAPE, eps is divided by values of [0.1, 0.5] in one case and of [0.5, 0.9] in the other.
    mape = table_2(output="porosity", split="test", error="mape")
    assert mape["two_phase_low"] / mape["two_phase_high"] == pytest.approx(2.07, rel=0.01)


def test_table_2_training_error_is_lower():
    assert (table_2(split="train") < table_2(split="test")).all()


def test_table_2_both_errors_tell_the_same():
    # Relative rms over mean absolute percentage: near sqrt(pi/2) times a factor for the spread of y.
    table = numbers.TABLE_2.pivot(index=["case", "output", "split"], columns="error", values="value")
    middle = {"scaling_parameter": 4.4, "layer_fraction": 0.275}
    for (case, output, _), row in table.iterrows():
        y = middle.get(output, np.mean(CASES[case].ranges["porosity"]))
        ratio = 100 * np.sqrt(row["mse"]) / y / row["mape"]
        assert 0.8 < ratio < 2.2  # a wrong exponent moves it by sqrt(10) or more


def test_words_of_section_2_4_against_table_2():
    mape = table_2(split="test", error="mape").unstack("output")
    assert (mape.idxmin(axis="columns") == "scaling_parameter").all()
    hardest = mape.idxmax(axis="columns")
    # "consistently the most difficult": true for three of the four.
    assert hardest[hardest != "porosity"].to_dict() == {"three_phase_high": "layer_fraction"}
    assert (mape.max(axis="columns") < 5).all()


def test_case_study_lies_in_the_prior():
    ranges = CASES["three_phase_high"].ranges
    for point in (numbers.CASE_STUDY, numbers.CASE_STUDY_MEAN, numbers.FIGURE_7_PREDICTION):
        assert all(lower < point[name] < upper for name, (lower, upper) in ranges.items())
    for name, truth in numbers.CASE_STUDY.items():
        assert abs(numbers.CASE_STUDY_MEAN[name] - truth) < numbers.CASE_STUDY_SD[name]
        assert abs(numbers.FIGURE_7_PREDICTION[name] - truth) < 2 * numbers.CASE_STUDY_SD[name]


# ------------------------------------------------------------------ places


def test_root_is_the_repository(monkeypatch):
    monkeypatch.delenv("GRFSAXS_ROOT", raising=False)
    assert results.root_directory() == Path(__file__).resolve().parent.parent
    assert results.data_directory(LAPTOP) == results.root_directory() / "data" / "laptop"


def test_places_do_not_follow_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.delenv("GRFSAXS_ROOT", raising=False)
    before = results.figure_directory(LAPTOP)
    monkeypatch.chdir(tmp_path)
    assert results.figure_directory(LAPTOP) == before


def test_root_from_the_environment(root):
    assert results.data_directory(QUICK) == root / "data" / "quick"
    assert results.figure_directory(QUICK) == root / "figures" / "quick"
    assert results.figure_directory(PAPER) == root / "figures"


def test_root_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("GRFSAXS_ROOT", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="GRFSAXS_ROOT.*nowhere"):
        results.root_directory()


def test_package_outside_its_repository(monkeypatch, tmp_path):
    monkeypatch.delenv("GRFSAXS_ROOT", raising=False)
    monkeypatch.setattr(results, "__file__", str(tmp_path / "site-packages" / "grfsaxs_lib" / "results.py"))
    with pytest.raises(FileNotFoundError, match="set the environment variable GRFSAXS_ROOT"):
        results.data_directory(QUICK)


@pytest.mark.parametrize("function", [results.data_directory, results.figure_directory, claims.claims_table])
def test_unknown_tier(function):
    with pytest.raises(ValueError, match="quick, laptop, paper; got 'desktop'"):
        function("desktop")


def test_figures_are_the_same_from_run_to_run(root):
    def draw(name, tier):
        fig = Figure(figsize=(2, 2))
        fig.subplots().plot([0, 1], label="a")
        return [path.read_bytes() for path in results.save_figure(fig, name, tier=tier)]

    pdf, png = first = draw("curve", PAPER)
    assert first == draw("curve", PAPER)
    assert pdf.startswith(b"%PDF") and png.startswith(b"\x89PNG") and b"paper tier" in png
    (png,) = draw("curve", QUICK)  # for a look, a picture will do
    assert png.startswith(b"\x89PNG") and b"quick tier" in png
    assert sorted(p.name for p in (root / "figures").rglob("*.*")) == ["curve.pdf", "curve.png", "curve.png"]


def test_text_that_cannot_be_read_is_found():
    fig = Figure(figsize=(2, 2))
    fig.text(0.5, 0.5, "one")
    assert results.find_unreadable(fig) == []
    other = fig.text(0.52, 0.5, "two")
    assert results.find_unreadable(fig) == ["'one' overlaps 'two'"]
    other.set_position((0.95, 0.1))
    assert results.find_unreadable(fig) == ["'two' leaves the figure"]
    other.set_visible(False)
    assert results.find_unreadable(fig) == []


def test_only_drawn_ticks_count():
    fig = Figure(figsize=(2, 2), layout="constrained")
    ax = fig.subplots()
    ax.set_xticks([1.0, 1.01], ["one", "two"])
    ax.set(xlim=(0, 2), yticks=[])
    assert results.find_unreadable(fig) == ["'one' overlaps 'two'"]
    ax.set_xlim(0, 1.005)
    assert [words for words, _ in results.drawn_texts(fig)] == ["one"]
    ax.set_xlim(0, 2)
    ax.set_axis_off()
    assert results.drawn_texts(fig) == []
    ax.set_axis_on()
    ax.set_visible(False)
    assert results.drawn_texts(fig) == []


def test_a_figure_that_cannot_be_read_says_so(root):
    fig = Figure(figsize=(2, 2))
    fig.text(0.95, 0.5, "beyond the edge")
    for tier in (QUICK, PAPER):
        png = results.save_figure(fig, "curve", tier=tier)[-1]
        assert warning_of(png) == "'beyond the edge' leaves the figure"
    fig.texts[0].set_position((0.1, 0.5))
    assert warning_of(results.save_figure(fig, "curve", tier=QUICK)[0]) is None


def warning_of(png):
    with Image.open(png) as picture:
        return picture.text.get("Warning")


@pytest.mark.parametrize("tier", [QUICK, PAPER])
def test_all_text_of_the_figures_can_be_read(tier):
    """The figures of the last run of each kind, which the notebooks wrote."""
    files = sorted(results.figure_directory(tier).glob("*.png"))
    if not files:
        pytest.skip("run ./run_all.sh quick first: it draws them")
    assert {file.stem: text for file in files if (text := warning_of(file))} == {}


def test_a_failed_figure_leaves_no_file(root):
    class Broken(Figure):
        def savefig(self, path, **_):
            path.write_bytes(b"half")
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        results.save_figure(Broken(), "curve", tier=QUICK)
    assert list((root / "figures" / "quick").iterdir()) == []


@pytest.mark.parametrize("name", ["fig.pdf", "../fig", "", "a b"])
def test_names_of_figures(root, name):
    with pytest.raises(ValueError, match="name must be letters"):
        results.save_table(pd.DataFrame({"a": [1]}), name, tier=QUICK)


def test_tables_are_written_twice(root):
    frame = pd.DataFrame({"output": ["a|b", "c"], "MSE": [1.23456789e-4, np.nan], "n": [524288, 2]})
    csv, md = results.save_table(frame, "table2", tier=LAPTOP)
    assert csv == root / "figures" / "table2.csv" and md.suffix == ".md"
    assert csv.read_text() == "output,MSE,n\na|b,0.000123457,524288\nc,,2\n"
    cells = [[cell.strip() for cell in line.strip("| ").split(" | ")] for line in md.read_text().splitlines()]
    assert cells[0] == ["output", "MSE", "n"]
    assert cells[2] == [r"a\|b", "0.0001235", "524288"]


def test_tables_with_labelled_rows_and_columns(root):
    index = pd.MultiIndex.from_product([["low"], ["a", "eps"]], names=["case", "output"])
    columns = pd.MultiIndex.from_product([["MSE"], ["train", "test"]])
    frame = pd.DataFrame(np.arange(4).reshape(2, 2), index=index, columns=columns)
    csv, _ = results.save_table(frame, "table2", tier=QUICK)
    assert csv.read_text().splitlines()[0] == "case,output,MSE train,MSE test"
    assert pd.read_csv(csv)["MSE test"].tolist() == [1, 3]


# ------------------------------------------------------------------ tolerances


@pytest.mark.parametrize(
    "value, paper_value, tolerance, expected",
    [
        (5, 5, "=", True),
        (5, 6, "=", False),
        (True, 1, "=", True),
        (0, 0, ">", False),
        (1e-9, 0, ">", True),
        (1, 1, "<", False),
        (0.9, 1, "<", True),
        (1, 1, ">=", True),
        (0.999, 1, ">=", False),
        (1, 1, "<=", True),
        (1.001, 1, "<=", False),
        (0.70, 0.69, "±0.01", True),  # 0.70 - 0.69 exceeds 0.01 by round-off
        (0.7001, 0.69, "±0.01", False),
        (0.68, 0.69, "±0.01", True),
        (-3e-7, 0, "±1e-6", True),
        (-3e-6, 0, "±1e-6", False),
        (1.1, 1, "±10%", True),
        (0.89, 1, "±10%", False),
        (-1.05, -1, "±10%", True),
        (-1.2, -1, "±10%", False),
        (1, 1, "±0.001%", True),
        (1e-9, 0, "±10%", False),  # ten per cent of nothing is nothing
        (0, 0, "±10%", True),
        (1.15, 1, "+15%", True),
        (1.16, 1, "+15%", False),
        (0.1, 1, "+15%", True),
        (-0.8, -1, "+10%", False),
        (2, 1, "×2", True),
        (0.5, 1, "×2", True),
        (2.01, 1, "×2", False),
        (0.49, 1, "×2", False),
        (-1, 1, "×2", False),
        (0, 1, "×3", False),
    ],
)
def test_tolerances(value, paper_value, tolerance, expected):
    assert claims.meets(value, paper_value, tolerance) is expected


@pytest.mark.parametrize("tolerance", ["", "0.01", "+-0.01", "±", "±-1", "±%", "×0.5", "×50%", "==", "±1 %", "~"])
def test_tolerances_that_are_none(tolerance):
    with pytest.raises(ValueError, match="tolerance must be one of"):
        claims.meets(1.0, 1.0, tolerance)


def test_a_factor_needs_a_positive_number():
    with pytest.raises(ValueError, match="factor of a positive number"):
        claims.accepted(0.0, "×2")


@pytest.mark.parametrize(
    "tolerance, interval, expected",
    [
        ("±10%", (0.95, 1.05), "holds"),
        ("±10%", (0.9, 1.1), "holds"),  # the bound counts as inside
        ("±10%", (0.85, 1.05), "undecided"),
        ("±10%", (0.5, 2.0), "undecided"),  # wider than what is accepted, on both sides
        ("±10%", (1.2, 1.3), "fails"),
        ("+15%", (0.2, 1.1), "holds"),
        ("+15%", (1.1, 1.2), "undecided"),  # its lower end alone would hold
        ("+15%", (1.2, 1.4), "fails"),
        (">", (1.0, 2.0), "undecided"),  # 1 itself is not above 1
        (">", (1.1, np.inf), "holds"),
        (">", (-np.inf, 1.0), "fails"),
        (">=", (-np.inf, 1.0), "undecided"),
        ("<", (0.5, 1.0), "undecided"),
        ("<", (1.0, 2.0), "fails"),
        ("=", (1.0, 1.0), "holds"),
        ("=", (0.0, 1.0), "undecided"),
        ("×2", (0.6, 1.9), "holds"),
        ("×2", (0.6, 2.1), "undecided"),
    ],
)
def test_the_whole_interval_decides(tolerance, interval, expected):
    claim = {"paper_value": 1.0, "tolerance": tolerance, "tier": QUICK}
    assert claims.verdict(claim, float(np.clip(1.05, *interval)), QUICK, interval) == expected


@given(
    st.sampled_from(["=", "<", ">", "<=", ">=", "±0.5", "±10%", "+15%", "×2"]),
    st.floats(0.01, 5),
    *[st.floats(0, 5)] * 4,
)
def test_no_wider_interval_makes_a_claim_easier(tolerance, value, below, above, more_below, more_above):
    """Fewer curves widen an interval: that may leave a verdict as it is or make it undecided, no more."""
    claim = {"paper_value": 1.0, "tolerance": tolerance, "tier": QUICK}
    narrow = value - below, value + above
    wide = narrow[0] - more_below, narrow[1] + more_above
    before, after = (claims.verdict(claim, value, QUICK, interval) for interval in (narrow, wide))
    assert after in (before, "undecided")
    # A number without an interval is one of no width.
    assert claims.verdict(claim, value, QUICK) == claims.verdict(claim, value, QUICK, (value, value)) != "undecided"


def test_verdict_waits_for_the_tier():
    claim = {"paper_value": 1.0, "tolerance": "±10%", "tier": LAPTOP}
    assert claims.verdict(claim, 1.0, QUICK) == "not comparable"
    assert claims.verdict(claim, 1.0, LAPTOP) == "holds"
    assert claims.verdict(claim, 2.0, PAPER) == "fails"
    assert claims.verdict(claim, None, PAPER) == "not comparable"


# ------------------------------------------------------------------ records


def test_record_of_a_claim(root):
    line = claims.record_claim("weights_width", np.float32(0.5), tier=QUICK, seed=np.int64(7), device="cpu")
    assert line == "weights_width: paper 0.5 (±5%), here 0.5: holds"
    (path,) = (root / "data" / "quick" / "claims").iterdir()
    record = json.loads(path.read_text())
    assert path.name == "weights_width.json"
    assert record["value"] == 0.5 and record["interval"] is None and record["seed"] == 7 and record["unit"] == "1"
    assert record["versions"]["numpy"] == np.__version__
    assert {"tier", "device", "commit", "time"} <= record.keys()


def test_record_of_a_claim_with_its_interval(root):
    line = claims.record_claim("weights_width", 0.5, interval=np.array([0.49, 0.6]), tier=QUICK)
    assert line == "weights_width: paper 0.5 (±5%), here 0.5 [0.49, 0.6]: undecided"
    claims.record_claim("weights_sum", 1, interval=(1, np.inf), tier=QUICK)
    table = claims.claims_table(QUICK).set_index("id")
    assert table.loc["weights_width", ["value", "low", "high"]].tolist() == [0.5, 0.49, 0.6]
    assert table.loc["weights_width", ["verdict", "as_expected"]].tolist() == ["undecided", False]
    assert table.loc["weights_sum", ["low", "high"]].tolist() == [1, np.inf]
    assert table.loc["weights_sum", "verdict"] == "undecided"


@pytest.mark.parametrize(
    "interval",
    [(0.51, 0.6), (0.4, 0.49), (0.6, 0.4), (np.nan, 1), (0, np.nan), (0.4,), (0.4, 0.5, 0.6), 0.5, ("0", "1"), (0, 1j)],
)
def test_intervals_that_are_none(root, interval):
    with pytest.raises(ValueError, match="interval of claim 'weights_width' must be"):
        claims.record_claim("weights_width", 0.5, interval=interval, tier=QUICK)
    assert not (root / "data").exists()


def test_an_interval_needs_a_value(root):
    with pytest.raises(ValueError, match="interval of claim 'weights_width' must be"):
        claims.record_claim("weights_width", None, interval=(0, 1), tier=QUICK)


@pytest.mark.parametrize("value", [np.ma.masked, np.ma.masked_array(0.5, mask=True), np.ma.masked_array([0.5], [True])])
def test_masked_values_are_refused(root, value):
    with pytest.raises(ValueError, match="value of claim 'weights_width' has 1 masked element"):
        claims.record_claim("weights_width", value, tier=QUICK)
    with pytest.raises(ValueError, match="interval of claim 'weights_width' has 1 masked element"):
        claims.record_claim("weights_width", 0.5, interval=np.ma.masked_array([0.4, 0.6], [True, False]), tier=QUICK)
    assert not (root / "data").exists()


def test_results_say_where_they_come_from(root):
    path = results.save_results(xr.Dataset({"a": ("sample", [1.0, 2.0])}), "numbers", tier=QUICK)
    assert path == root / "data" / "quick" / "results" / "numbers.nc"
    with xr.open_dataset(path) as found:
        assert found["a"].values.tolist() == [1.0, 2.0]
        assert found.attrs["tier"] == QUICK and numbers.PAPER_DOI in found.attrs["references"]
        assert {"device", "commit", "libraries"} <= found.attrs.keys()


@pytest.mark.parametrize("value", [np.nan, np.inf, "1", [1.0], np.ones(1), 1j])
def test_values_that_are_no_number(root, value):
    with pytest.raises(ValueError, match="claim 'weights_width' must be one finite number or None"):
        claims.record_claim("weights_width", value, tier=QUICK)
    assert not (root / "data").exists()


def test_unknown_claim_suggests_a_close_one(root):
    with pytest.raises(ValueError, match="no claim 'weight_width'.*weights_width"):
        claims.record_claim("weight_width", 0.5, tier=QUICK)


def write_all(tier, **changed):
    """Record every claim, each with a value that gives the expected verdict, but for the changed ones."""
    for claim in claims.read_claims().to_dict("records"):
        expected, theirs = claim["expected"].partition(":")[0], claim["paper_value"]
        candidates = (theirs + step * (abs(theirs) + 1) for step in (0, 1e-3, -1e-3, 9, -9))
        value = next(v for v in candidates if claims.meets(v, theirs, claim["tolerance"]) is (expected != "fails"))
        interval = (-np.inf, np.inf) if expected == "undecided" else None
        value = changed.get(claim["id"], value)
        if isinstance(value, tuple):
            value, interval = value
        if value != "leave out":
            claims.record_claim(claim["id"], value, interval=interval, tier=tier)


@pytest.fixture
def quick_records(monkeypatch):
    monkeypatch.setattr(claims, "versions", dict)
    table = claims.read_claims()
    monkeypatch.setattr(claims, "read_claims", lambda: table)


def expect_undecided(id):
    table = claims.read_claims()  # the one table of `quick_records`
    table.loc[table["id"] == id, "expected"] = "undecided: for this test"


def test_all_as_expected(root, quick_records):
    expect_undecided("weights_width")
    write_all(PAPER)
    claims.check_claims(PAPER)
    table = claims.claims_table(PAPER)
    assert table["as_expected"].all() and set(table["verdict"]) == {"holds", "fails", "undecided"}
    assert len(table) == len(claims.read_claims())


def test_lower_tiers_show_what_they_cannot_compare(root, quick_records):
    write_all(QUICK, trees_smallest=1)
    claims.check_claims(QUICK)
    row = claims.claims_table(QUICK).set_index("id").loc["trees_smallest"]
    assert row["verdict"] == "not comparable" and row["value"] == 1


def test_surprises_are_listed(root, quick_records):
    changes = {"weights_width": 0.6, "prior_uniform_p": "leave out", "density_water_carbon_lower": 0.69}
    write_all(QUICK, **changes, weights_sum=None)
    (root / "data" / "quick" / "claims" / "stranger.json").write_text(
        '{"value": 1, "seed": null, "device": "cpu", "commit": null}'
    )
    with pytest.raises(RuntimeError) as error:
        claims.check_claims(QUICK)
    text = str(error.value)
    assert text.startswith("5 claims")
    assert "weights_width: fails, expected holds: paper 0.5 (±5%), here 0.6" in text
    assert "prior_uniform_p: missing (04_datasets records it)" in text
    assert "density_water_carbon_lower: holds, expected fails" in text  # good news are news too
    assert "weights_sum: not comparable, expected holds" in text
    assert "stranger: unknown id" in text and "stranger.json" in text


def test_what_is_undecided_contradicts_nothing(root, quick_records):
    """An open question is listed, and stops no run; what is settled against the expectation does, interval or not."""
    expect_undecided("weights_width")
    open_questions = {
        "mse_test_two_phase_low_scaling_parameter": (4e-3, (1e-3, 1e-2)),  # expected to hold
        "porosity_hardest_cases": (3, (3, 4)),  # expected to fail
        "weights_width": (0.5, (0.49, 0.51)),  # expected to be undecided
    }
    write_all(PAPER, **open_questions)
    claims.check_claims(PAPER)
    table = claims.claims_table(PAPER).set_index("id")
    assert set(table.index[~table["as_expected"]]) == set(open_questions)
    assert table.loc["weights_width", "verdict"] == "holds"
    write_all(PAPER, mse_test_two_phase_low_scaling_parameter=(9e-3, (8e-3, 1e-2)), porosity_hardest_cases=(4, (4, 4)))
    with pytest.raises(RuntimeError) as error:
        claims.check_claims(PAPER)
    assert str(error.value).startswith("2 claims")
    assert "here 0.009 [0.008, 0.01]" in str(error.value)


def test_the_terminal_shows_intervals_and_marks_surprises(root, quick_records):
    write_all(PAPER, porosity_hardest_cases=(3, (3, 4)), weights_width=(0.5, (0.49, 0.51)), weights_sum=None)
    lines = {line.split()[1]: line for line in claims.format_claims(PAPER).splitlines() if line.count("  ") > 3}
    assert "0.5 [0.49, 0.51]" in lines["weights_width"] and lines["weights_width"].endswith("holds")
    assert "3 [3, 4]" in lines["porosity_hardest_cases"]
    assert lines["porosity_hardest_cases"].endswith("undecided  <- unexpected")
    assert lines["weights_sum"].endswith("not comparable  <- unexpected")
    counts = claims.format_claims(PAPER).splitlines()[-1]
    assert f"{(claims.claims_table(PAPER)['verdict'] == 'undecided').sum()} undecided" in counts


def test_what_should_be_undecided_must_be_measured(root, quick_records):
    expect_undecided("weights_width")
    write_all(PAPER, weights_width=(None, None))
    with pytest.raises(RuntimeError, match="not comparable, expected undecided"):
        claims.check_claims(PAPER)


def test_foreign_file_among_the_records(root, quick_records):
    write_all(QUICK)
    path = root / "data" / "quick" / "claims" / "weights_width.json"
    path.write_text('{"value": 0.0')
    with pytest.raises(ValueError, match=r"weights_width\.json is not a record"):
        claims.claims_table(QUICK)


def test_import_without_matplotlib():
    code = "import sys, grfsaxs_lib.paper.claims, grfsaxs_lib.plotting; print('matplotlib' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"
    assert matplotlib.__version__  # it is installed, so the answer above means something
