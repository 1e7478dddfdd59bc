"""claims.csv: well-formed, in step with the paper's tables, and true at the smoke tier once that has run."""

import re

import pytest

from grfsaxs_lib import paper, training
from grfsaxs_lib.grid import PAPER_GRID, PAPER_Q
from grfsaxs_lib.parameters import CASES

CLAIMS = paper.read_claims()
BY_ID = CLAIMS.set_index("id")
NOTEBOOKS = {
    "01_gaussian_random_field",
    "02_microstructure",
    "03_scattering",
    "04_generate_datasets",
    "05_noise_and_preprocessing",
    "06_train_models",
    "07_evaluate_models",
    "08_case_study",
    "09_side_experiments",
    "10_performance",
    "11_emulator",
}
COLUMNS = [
    *("id", "where_in_paper", "statement", "paper_value", "unit", "notebook", "tier", "tolerance"),
    *("why_this_tolerance", "expected", "measure"),
]


def test_columns_are_complete_and_nothing_is_empty():
    assert list(CLAIMS.columns) == COLUMNS
    assert not (CLAIMS.astype(str) == "").any(axis=None)
    assert CLAIMS["paper_value"].notna().all()


def test_ids_are_unique_snake_case():
    assert CLAIMS["id"].is_unique
    assert CLAIMS["id"].map(lambda id: re.fullmatch(r"[a-z][a-z0-9_]*", id) is not None).all()


def test_words_come_from_the_known_lists():
    assert set(CLAIMS["notebook"]) == NOTEBOOKS
    assert set(CLAIMS["tier"]) == set(paper.TIERS)
    assert CLAIMS["expected"].map(lambda text: re.fullmatch(r"holds|fails: .+", text) is not None).all()
    assert CLAIMS["where_in_paper"].str.match(r"(§|Eq|Table|Fig|abstract)").all()


def test_claims_stand_together_by_notebook_in_order():
    assert CLAIMS["notebook"].is_monotonic_increasing


@pytest.mark.parametrize("claim", CLAIMS.to_dict("records"), ids=CLAIMS["id"])
def test_every_claim_can_fail_and_can_hold(claim):
    theirs, far = claim["paper_value"], 10 * (abs(claim["paper_value"]) + 1)
    near = 1e-3 * (abs(theirs) + 1)
    outcomes = {
        paper.meets(value, theirs, claim["tolerance"])
        for value in (theirs, theirs + near, theirs - near, theirs + far, theirs - far)
    }
    assert outcomes == {True, False}


def test_table_2_is_in_the_claims():
    for row in paper.TABLE_2.itertuples():
        claim = BY_ID.loc[f"{row.error}_{row.split}_{row.case}_{row.output}"]
        assert claim["paper_value"] == row.value
        unit = "nm2" if row.output == "scaling_parameter" else "1"
        assert claim["unit"] == ("%" if row.error == "mape" else unit)
        if row.split == "test":  # once more, from structures of the paper's own size
            again = BY_ID.loc[f"emulated_{row.error}_test_{row.case}_{row.output}"]
            assert (again["paper_value"], again["unit"]) == (claim["paper_value"], claim["unit"])


def test_case_study_is_in_the_claims():
    for name in paper.CASE_STUDY:
        for way in ("", "emulated_"):
            assert BY_ID.loc[f"{way}case_study_mean_{name}", "paper_value"] == paper.CASE_STUDY_MEAN[name]
            assert BY_ID.loc[f"{way}case_study_sd_{name}", "paper_value"] == paper.CASE_STUDY_SD[name]
            assert BY_ID.loc[f"{way}fig7_prediction_{name}", "paper_value"] == paper.FIGURE_7_PREDICTION[name]
    assert BY_ID.loc["case_study_curves", "paper_value"] == paper.CASE_STUDY_CURVES


def test_counts_and_ranges_are_in_the_claims():
    for split, count in paper.N_SAMPLES.items():
        assert BY_ID.loc[f"n_{split}", "paper_value"] == count
    for case in CASES.values():
        for name, (lower, upper) in case.ranges.items():
            key = f"{name}_{case.name.rpartition('_')[2]}" if name == "porosity" else name
            assert BY_ID.loc[[f"{key}_min", f"{key}_max"], "paper_value"].tolist() == [lower, upper]
    assert BY_ID.loc["q_count", "paper_value"] == len(PAPER_Q)
    assert BY_ID.loc["paper_grid_size", "paper_value"] == PAPER_GRID.size


def test_hyperparameters_are_in_the_claims_and_in_table_1():
    settings = training.PAPER_HYPERPARAMETERS | {"n_estimators": training.PAPER_SCHEDULE["n_estimators"]}
    assert settings.keys() == paper.TABLE_1.keys() == training.SEARCH_SPACE.keys()
    for name, value in settings.items():
        allowed = paper.TABLE_1[name]
        assert BY_ID.loc[f"final_{name}", "paper_value"] == value
        assert value in allowed if len(allowed) == 3 else allowed[0] <= value <= allowed[1]
        assert tuple(training.SEARCH_SPACE[name]["range"]) == allowed


@pytest.mark.skipif(
    not (paper.data_directory("smoke") / "claims").is_dir(), reason="run ./run_all.sh smoke first: it records them"
)
def test_the_smoke_tier_turns_out_as_expected():
    paper.check_claims("smoke")
