"""The form of the notebooks; nbval runs their content."""

import ast
import json
import re
from pathlib import Path

import nbformat
import pytest
import with_solutions

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHECK = "# NBVAL_CHECK_OUTPUT"

# A machine's folder, the home folder, or one relative to the working directory.
FOLDER = re.compile(r"(~/|\.{1,2}/|/[\w.-]+/|[A-Za-z]:[\\/])")


class Notebook:
    """The cells of a notebook file, as the tests below ask for them."""

    def __init__(self, path):
        self.name = path.stem
        self.cells = json.loads(path.read_text())["cells"]
        self.code = [cell for cell in self.cells if cell["cell_type"] == "code"]
        self.headings = {
            line.lstrip("# ").strip()
            for cell in self.cells
            if cell["cell_type"] == "markdown"
            for line in cell["source"]
            if line.startswith("#")
        }

    def trees(self):
        """Syntax trees of the code cells: plain Python, so no magics."""
        return [ast.parse("".join(cell["source"])) for cell in self.code]

    def nodes(self, kind):
        return [node for tree in self.trees() for node in ast.walk(tree) if isinstance(node, kind)]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request):
    return Notebook(request.param)


def is_check(cell):
    return "".join(cell["source"]).startswith(CHECK)


def test_there_are_notebooks_numbered_once_each():
    numbers = [path.name[:3] for path in NOTEBOOKS]
    assert numbers and all(re.fullmatch(r"\d\d_", number) for number in numbers)
    assert len(set(numbers)) == len(numbers)


def test_title_comes_first(notebook):
    first = notebook.cells[0]
    assert first["cell_type"] == "markdown" and "".join(first["source"]).startswith("# ")


def test_one_parameters_cell_of_literals_at_the_quick_tier(notebook):
    tagged = [cell for cell in notebook.code if "parameters" in cell["metadata"].get("tags", [])]
    assert len(tagged) == 1
    values = {}
    for statement in ast.parse("".join(tagged[0]["source"])).body:
        assert isinstance(statement, ast.Assign), ast.unparse(statement)
        (target,) = statement.targets
        values[target.id] = ast.literal_eval(statement.value)
    assert values["tier"] == "quick" and values["device"] == "cpu"
    assert values.keys() <= {"tier", "device", "seed", "scheduler"}, "sizes come from the tier alone"
    assert isinstance(values["seed"], int)


def test_only_check_cells_store_outputs_and_only_text(notebook):
    for cell in notebook.code:
        kinds = {output["output_type"] for output in cell["outputs"]}
        if is_check(cell):
            assert kinds == {"stream"}, "store them with: python tests/store_checks.py"
            assert {output["name"] for output in cell["outputs"]} == {"stdout"}
        else:
            assert kinds == set() and cell["execution_count"] is None, "".join(cell["source"])[:60]


def test_code_cells_are_short_plain_python(notebook):
    for cell in notebook.code:
        assert len(cell["source"]) <= 25, "".join(cell["source"])[:60]
    assert notebook.trees()  # a magic or a shell escape does not parse; a failing one could exit 0


def test_no_notebook_imports_another(notebook):
    names = {alias.name for node in notebook.nodes((ast.Import, ast.ImportFrom)) for alias in node.names}
    names |= {node.module for node in notebook.nodes(ast.ImportFrom)}
    roots = {str(name).split(".")[0] for name in names}
    assert roots.isdisjoint({"notebooks", "papermill", "nbclient", "importnb", "import_ipynb", "nbimporter"})


def test_paths_come_from_the_library(notebook):
    texts = [node.value for node in notebook.nodes(ast.Constant) if isinstance(node.value, str)]
    assert [text for text in texts if FOLDER.match(text)] == []
    calls = [node.func for node in notebook.nodes(ast.Call)]
    assert {getattr(call, "attr", None) for call in calls}.isdisjoint({"cwd", "getcwd", "chdir"})


def test_sections_that_are_due(notebook):
    due = set()
    if not notebook.name.startswith("00"):
        due.add("Checks")
    if not notebook.name.startswith(("00", "99")):
        due.add("Try it")
    if any(getattr(node.func, "id", None) == "record_claim" for node in notebook.nodes(ast.Call)):
        due.add("Record")
    assert due - notebook.headings == set()
    assert "Checks" not in notebook.headings or any(map(is_check, notebook.code))


def test_every_fenced_solution_is_found_and_compiles(notebook):
    """The reader of fences against a count of their first lines."""
    markdown = "\n".join("".join(cell["source"]) for cell in notebook.cells if cell["cell_type"] == "markdown")
    found = with_solutions.find_solutions(nbformat.from_dict({"cells": with_text(notebook.cells)}))
    assert len(found) == len(re.findall(r"```python", markdown))
    for code in found:
        assert code and compile(code, notebook.name, "exec")
        tree = ast.parse(code)
        made = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
        calls = {getattr(call, "attr", getattr(call, "id", None)) for call in made}
        # A solution runs among the files of the tier: it may not replace what later notebooks read.
        assert calls.isdisjoint({"record_claim", "save_figure", "save_table", "save_results", "save_model", "save"})


def with_text(cells):
    return [cell | {"source": "".join(cell["source"])} for cell in cells]


def test_fences_under_a_list_are_found():
    text = "1. Do:\n\n   ```python\n   if x:\n       y\n   ```\n   Then:\n```python\nz\n```\n```bash\nls\n```\n"
    cells = [{"cell_type": "markdown", "source": text}, {"cell_type": "code", "source": "```python\nno\n```"}]
    assert with_solutions.find_solutions(nbformat.from_dict({"cells": cells})) == ["if x:\n    y", "z"]


def test_copies_end_with_the_solutions(tmp_path):
    (tmp_path / "00_old.ipynb").write_text("{}")
    copies = with_solutions.write_copies(tmp_path)
    assert sorted(tmp_path.iterdir()) == copies and [copy.name for copy in copies] == [path.name for path in NOTEBOOKS]
    for copy, original in zip(copies, NOTEBOOKS, strict=True):
        ours, theirs = (nbformat.read(path, as_version=4) for path in (copy, original))
        nbformat.validate(ours)
        count = len(theirs.cells)
        assert ours.cells[:count] == theirs.cells
        assert [cell.source for cell in ours.cells[count:]] == with_solutions.find_solutions(theirs)


def test_check_cells_print_what_is_computed(notebook):
    """Each line that is printed holds a name, so that it can differ; none repeats an assertion of its cell."""
    for cell in filter(is_check, notebook.code):
        tree = ast.parse("".join(cell["source"]))
        asserted = {ast.unparse(node.test) for node in ast.walk(tree) if isinstance(node, ast.Assert)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and getattr(node.func, "id", None) == "print":
                names = [part for part in ast.walk(node) if isinstance(part, ast.Name) and part.id != "print"]
                assert names, ast.unparse(node)
                parts = {ast.unparse(part) for part in ast.walk(node) if isinstance(part, ast.expr)}
                assert parts.isdisjoint(asserted), ast.unparse(node)
        for node in ast.walk(tree):
            if isinstance(node, ast.Assert):
                assert any(isinstance(part, ast.Name) for part in ast.walk(node.test)), ast.unparse(node)


def test_readme_table_lists_the_notebooks_in_order():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("|")]
    linked = [name for row in rows for name in re.findall(r"\(notebooks/(\w+)\.ipynb\)", row)]
    assert linked == [path.stem for path in NOTEBOOKS]
