"""A finished run beside the committed claims: what counts as the same, and what a reader is told."""

import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
import yaml

import grfsaxs_lib
from grfsaxs_lib import cli, results
from grfsaxs_lib.paper import claims, verify

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = pd.DataFrame(
    [
        ("08_evaluate_models", "with_interval", 4.0, "+50%", 5.0, 3.0, 7.0, "%", "holds"),
        ("03_scattering", "near_zero", 0.0, "±1e-4", 1e-8, np.nan, np.nan, "1", "holds"),
        ("03_scattering", "exact", 0.0, "=", 0.0, np.nan, np.nan, "voxel", "holds"),
        ("09_case_study", "plain", 1.0, ">", 10.0, np.nan, np.nan, "1", "holds"),
        ("07_train_models", "hours", 3.0, "<=", 0.05, np.nan, np.nan, "h", "not comparable"),
        ("14_performance", "faster", 10.0, ">", 100.0, np.nan, np.nan, "1", "holds"),
        ("14_performance", "no_gpu", 10.0, ">=", np.nan, np.nan, np.nan, "1", "not comparable"),
        ("10_side_experiments", "not_measured", 0.9, ">=", np.nan, np.nan, np.nan, "1", "not comparable"),
    ],
    columns=["notebook", "id", "paper", "tolerance", "ours", "95 % from", "to", "unit", "verdict"],
).set_index("id")


def a_run(**changed):
    """Claims as `claims_table` returns them, equal to the committed ones but for (value, verdict) of some."""
    table = COMMITTED.reset_index().rename(columns={"ours": "value"})[["id", "value", "unit", "verdict"]].copy()
    for id, (value, verdict) in changed.items():
        table.loc[table["id"] == id, ["value", "verdict"]] = value, verdict
    return table


def outcomes(run):
    return dict(verify.compare_claims(run, COMMITTED)[["id", "outcome"]].itertuples(index=False))


def test_an_equal_run_agrees():
    found = outcomes(a_run())
    times = {"hours", "faster", "no_gpu"}
    assert found == {id: "time" if id in times else "agrees" for id in COMMITTED.index}


@pytest.mark.parametrize("id, allowed", [("with_interval", 1.0), ("near_zero", 1e-5), ("exact", 0.0), ("plain", 1.0)])
def test_numbers_agree_within_the_allowed_difference(id, allowed):
    committed = COMMITTED.loc[id]
    assert verify.allowed_difference(committed) == pytest.approx(allowed, abs=1e-12)
    for sign in (-1, 1):
        inside, outside = sign * 0.99 * allowed, sign * (1.01 * allowed + 1e-12)
        assert outcomes(a_run(**{id: (committed["ours"] + inside, "holds")}))[id] == "agrees"
        assert outcomes(a_run(**{id: (committed["ours"] + outside, "holds")}))[id] == "number"


def test_an_infinite_interval_allows_no_more_than_none():
    without = COMMITTED.loc["plain"]
    assert verify.allowed_difference({**without, "95 % from": 9.0, "to": np.inf}) == verify.allowed_difference(without)


@pytest.mark.parametrize(
    "id, now, outcome",
    [
        ("plain", (10.0, "undecided"), "verdict"),
        ("plain", (1.0, "fails"), "verdict and number"),
        ("plain", (np.nan, "missing"), "verdict and number"),
        ("not_measured", (1.0, "not comparable"), "number"),
        ("faster", (1.0, "fails"), "time"),
        ("hours", (70.0, "not comparable"), "time"),
    ],
)
def test_what_differs(id, now, outcome):
    found = outcomes(a_run(**{id: now}))
    assert found[id] == outcome
    assert found | {id: ""} == outcomes(a_run()) | {id: ""}


def test_a_record_without_a_committed_claim():
    extra = pd.DataFrame([{"id": "new", "value": 1.0, "unit": "1", "verdict": "holds"}])
    assert outcomes(pd.concat([a_run(), extra]))["new"] == "not committed"


# ------------------------------------------------------------------ the committed numbers


def test_the_committed_claims_are_those_of_claims_csv():
    assert list(verify.read_committed("laptop").index) == list(claims.read_claims()["id"])


def test_the_figures_agree_with_the_committed_claims():
    """After a laptop run whose results are to be committed, figures/claims.csv has to be copied."""
    folder = results.figure_directory("laptop")
    if not (folder / "claims.md").read_text(encoding="utf-8").endswith("*laptop tier*\n"):
        pytest.skip("figures/claims.csv is of another tier")
    shown = pd.read_csv(folder / "claims.csv").rename(columns={"ours": "value"})
    found = verify.compare_claims(shown, verify.read_committed("laptop"))
    assert list(found.loc[~found["outcome"].isin(["agrees", "time"]), "id"]) == []


def test_a_tier_without_committed_claims():
    with pytest.raises(FileNotFoundError, match="no claims of the quick tier are committed .* only those of: laptop"):
        verify.read_committed("quick")


# ------------------------------------------------------------------------------- the command


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """A root with a finished laptop run of three notebooks, whose claims are the committed ones."""
    monkeypatch.setenv("GRFSAXS_ROOT", str(tmp_path))
    monkeypatch.setattr(verify, "read_committed", lambda tier: COMMITTED)
    monkeypatch.setattr(claims, "claims_table", lambda tier: a_run())
    sources = {
        "02_first": 'results.save_figure(fig, "fig01_slices", tier=tier)',
        "07_second": 'results.save_table(frame, "n07_models", tier=tier)',
        "99_last": 'results.save_table(table, "claims", tier=tier)',
    }
    executed = tmp_path / "data" / "laptop" / "executed"
    for folder in (tmp_path / "notebooks", tmp_path / "figures", executed):
        folder.mkdir(parents=True)
    for hour, (name, source) in enumerate(sources.items()):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
        nbformat.write(notebook, tmp_path / "notebooks" / f"{name}.ipynb")
        notebook.metadata["papermill"] = {"end_time": f"2026-01-01T0{hour}:00:00+00:00", "exception": None}
        nbformat.write(notebook, executed / f"{name}.ipynb")
    for name in ("fig01_slices.png", "n07_models.csv", "claims.csv"):
        (tmp_path / "figures" / name).touch()
    return tmp_path


def change(root, name, **about):
    """Change what papermill says of a notebook."""
    path = root / "data" / "laptop" / "executed" / f"{name}.ipynb"
    notebook = json.loads(path.read_text())
    notebook["metadata"]["papermill"] |= about
    path.write_text(json.dumps(notebook))


def test_a_run_that_agrees(finished, capsys):
    cli.main(["verify", "laptop"])
    out = capsys.readouterr().out
    assert "5 of 5 claims agree with the committed ones\n3 of 3 figures and tables are in " in out
    assert "faster" in out and "differ from" not in out and "missing" not in out


def test_a_run_that_differs(finished, monkeypatch, capsys):
    monkeypatch.setattr(claims, "claims_table", lambda tier: a_run(plain=(1.0, "fails"), faster=(1.0, "fails")))
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "laptop"])
    out = capsys.readouterr().out
    assert end.value.code == 1 and "4 of 5 claims agree" in out
    (line,) = (line for line in out.partition("Claims that differ")[2].splitlines() if line.startswith("plain"))
    assert "holds, here fails" in line and line.endswith("verdict and number")


def test_a_figure_that_is_missing(finished, capsys):
    (finished / "figures" / "fig01_slices.png").unlink()
    with pytest.raises(SystemExit) as end:
        cli.main(["verify", "laptop"])
    assert end.value.code == 1
    assert capsys.readouterr().out.endswith("; missing: fig01_slices\n")


def test_a_contradicted_claim_is_shown_and_not_taken_for_an_unfinished_run(finished, capsys):
    change(finished, "99_last", exception=True)
    cli.main(["verify", "laptop"])
    assert "5 of 5 claims agree" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name, about, due",
    [
        ("07_second", {"exception": True}, "07"),
        ("07_second", {"end_time": None}, "07"),
        ("99_last", {"end_time": None}, "99"),
        ("02_first", {"end_time": "2026-01-01T01:30:00+00:00"}, "07"),  # the later ones are of an earlier run
    ],
)
def test_an_unfinished_run_names_the_command_that_is_due(finished, name, about, due):
    change(finished, name, **about)
    with pytest.raises(SystemExit, match=f"run of the laptop tier is unfinished; .* ./run_all.sh laptop --from {due}$"):
        cli.main(["verify", "laptop"])


@pytest.mark.parametrize("text", [None, "", "{}"])
def test_an_executed_copy_that_is_not_there_or_damaged(finished, text):
    path = finished / "data" / "laptop" / "executed" / "07_second.ipynb"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(SystemExit, match="--from 07$"):
        cli.main(["verify", "laptop"])


def test_no_run_at_all(finished):
    (finished / "data").rename(finished / "elsewhere")
    with pytest.raises(
        SystemExit, match="there is no run of the laptop tier to verify; make it with: ./run_all.sh laptop$"
    ):
        cli.main(["verify", "laptop"])


def test_every_committed_figure_and_table_is_expected():
    """The names that are found in the notebooks, against the files in git."""
    committed = {path.stem for path in results.figure_directory("laptop").iterdir() if path.is_file()}
    assert committed - set(cli._figure_names()) == set()


# ---------------------------------------------------------------------- texts for reproducers


def text_of(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_checklist_counts_the_committed_claims():
    committed = verify.read_committed("laptop")["verdict"]
    count = committed.value_counts()
    assert (
        f"Of {len(committed)} claims of the paper, {count['holds']} hold, {count['fails']} fail, "
        f"{count['undecided']} are undecided and {count['not comparable']} are not comparable at this tier."
    ) in " ".join(text_of("docs/checklist.md").split())


def test_the_checklist_has_the_times_of_the_readme():
    tiers = r"^\| `(\w+)` \|(.*)\|$"
    readme = [(tier, row.partition("|")[2]) for tier, row in re.findall(tiers, text_of("README.md"), flags=re.M)]
    assert re.findall(tiers, text_of("docs/checklist.md"), flags=re.M) == readme and len(readme) == 3


def test_the_changelog_begins_with_the_version_of_the_package():
    assert re.search(r"^## \[([^]]+)\]", text_of("CHANGELOG.md"), flags=re.M)[1] == grfsaxs_lib.__version__


def test_the_citation_has_what_its_format_demands():
    """The required keys of the Citation File Format 1.2.0; an author is a person or an entity."""
    citation = yaml.safe_load(text_of("CITATION.cff"))
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["title"]
    for work in (citation, *citation["references"]):
        assert work["authors"] and all("name" in one or "family-names" in one for one in work["authors"])
    assert all({"type", "title"} <= work.keys() for work in citation["references"])
