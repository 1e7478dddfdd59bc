"""How the book is laid out. tests/browser looks at its pages."""

import importlib.util
import re
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from test_run_all import Repository

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def build(tmp_path, monkeypatch):
    """The program, for a repository with nothing in it."""
    specification = importlib.util.spec_from_file_location("build", ROOT / "docs" / "book" / "build.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "SOURCE", tmp_path / "source")
    return module


def write(path, *cells):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(cells)), path)
    return path


def run(tier, code, text, **options):
    """The cells that papermill leaves."""
    injected = new_code_cell(f'tier = "{tier}"', metadata={"tags": ["injected-parameters"]}, execution_count=1)
    output = new_output("stream", text=text)
    return injected, new_code_cell(code, outputs=[output], **({"execution_count": 2} | options))


def test_a_lesson_has_the_results_of_the_largest_tier_that_ran_its_code(build, tmp_path):
    lesson = write(tmp_path / "notebooks" / "01.ipynb", new_markdown_cell("# Today"), new_code_cell("print(2)"))
    assert build.executed(lesson) is None
    write(tmp_path / "data/quick/executed/01.ipynb", new_markdown_cell("# Earlier"), *run("quick", "print(2)", "q"))
    for other in (
        run("laptop", "print(1)", "another code"),
        run("laptop", "print(2)", "cut off", execution_count=None),
    ):
        write(tmp_path / "data/laptop/executed/01.ipynb", *other)
        notebook, tier = build.executed(lesson)
        assert (tier, notebook.cells[0].source, notebook.cells[1].outputs[0].text) == ("quick", "# Today", "q")
    write(tmp_path / "data/laptop/executed/01.ipynb", *run("laptop", "print(2)", "l"))
    notebook, tier = build.executed(lesson)
    assert (tier, len(notebook.cells), notebook.cells[1].outputs[0].text) == ("laptop", 2, "l")


def drawn(name):
    return new_code_cell(id=name, outputs=[new_output("display_data", {"image/png": ""})])


CAPTION = "*Curves, $\\epsilon$ = 0.3, **A** at\n$q_{max}$.*\n\nThe text goes on."


def test_a_figure_has_its_caption_as_text(build):
    first = drawn("first"), new_markdown_cell("A remark."), new_code_cell("1"), new_markdown_cell(CAPTION)
    second = drawn("second"), new_markdown_cell("***A** A slice. **B** Its curve.*")
    notebook = new_notebook(cells=[*first, *second])
    build.describe_figures(notebook, "01.ipynb")
    texts = {cell.id: cell.metadata["mystnb"]["image"]["alt"] for cell in notebook.cells if cell.metadata}
    assert texts == {"first": "Curves, epsilon = 0.3, A at q_max.", "second": "A A slice. B Its curve."}


@pytest.mark.parametrize(
    "after",
    [
        [],
        [drawn("second"), new_markdown_cell(CAPTION)],
        [new_markdown_cell("## Another section"), new_markdown_cell(CAPTION)],
        [new_markdown_cell("**A sphere** of radius R is no caption.")],
        [new_markdown_cell("* an item of a list")],
    ],
    ids=["nothing", "next figure", "section", "bold", "list"],
)
def test_a_figure_without_a_caption_of_its_own_raises_an_error(build, after):
    notebook = new_notebook(cells=[new_markdown_cell(CAPTION), drawn("first"), *after])
    with pytest.raises(SystemExit, match=r"no caption in italics after the figure of cell 1 \(first\) of 02.ipynb"):
        build.describe_figures(notebook, "02.ipynb")


def test_pages_go_with_what_they_link_to(build, tmp_path):
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("# Home\n")
    (tmp_path / "docs" / "one.md").write_text("# One\n[home](../README.md) [two](two.md#end) [code](../code.py)\n")
    (tmp_path / "docs" / "two.md").write_text("| a table |\n[back](one.md) [far](https://example.org/)\n")
    (tmp_path / "code.py").write_text("1\n")
    build.lay_out_text(tmp_path / "docs" / "one.md")
    laid_out = {str(path.relative_to(build.SOURCE)) for path in build.SOURCE.rglob("*") if path.is_file()}
    assert laid_out == {"index.md", "docs/one.md", "docs/two.md", "code.py"}
    assert "[home](../index.md)" in (build.SOURCE / "docs" / "one.md").read_text()
    assert (build.SOURCE / "docs" / "two.md").read_text().startswith("# Two\n\n| a table |")


def test_the_packages_of_the_book_are_pinned_once():
    name = r"^([\w.-]+)"
    lines = (ROOT / "docs" / "book" / "requirements.txt").read_text().splitlines()[1:]
    locked = set(re.findall(name + "==", (ROOT / "requirements.lock").read_text(), flags=re.M))
    for line in lines:
        assert re.fullmatch(r"[\w.-]+(==[\w.]+)?", line)
        assert ("==" in line) != (re.match(name, line)[1] in locked), line


def test_the_book_has_an_environment_of_its_own(tmp_path):
    repository = Repository(tmp_path / "repository", tmp_path / "fake")
    pins = repository.folder / "docs" / "book" / "requirements.txt"
    pins.parent.mkdir(parents=True)
    pins.write_text("furo==1\n")
    made = ["venv", "pip", "uv", "other"]
    for steps in (made, ["other"]):
        assert repository.call("book")[0] == 0
        assert repository.steps() == steps
    pins.write_text("furo==2\n")
    assert repository.call("book")[0] == 0
    assert repository.steps() == made
    assert (repository.folder / ".venv-book" / "made-from.txt").exists() and not repository.venv.exists()
    assert repository.call("book", "--device", "gpu")[0] == 1
