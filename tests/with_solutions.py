"""Write copies of the notebooks that run their own solutions too.

    .venv/bin/python tests/with_solutions.py data/quick/with_solutions

Every fenced ``python`` block of a notebook's markdown, which are the solutions of its part "Try it", becomes a
code cell after the last cell of the copy, in order. nbval runs the copies: what a reader copies from a solution works.
"""

import re
import sys
import textwrap
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
# A fence may be indented, as under an item of a list; it ends at the next fence of the same indentation.
FENCED = re.compile(r"^(?P<indent> *)```python\n(?P<code>.*?)^(?P=indent)```[ ]*$", re.DOTALL | re.MULTILINE)


def find_solutions(notebook):
    """The code of the fenced blocks in the markdown of a notebook, in order.

    Parameters
    ----------
    notebook : nbformat.NotebookNode

    Returns
    -------
    list of str
    """
    texts = [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
    return [textwrap.dedent(match["code"]).rstrip() for text in texts for match in FENCED.finditer(text)]


def add_solutions(notebook):
    """Append each solution to a notebook, as a code cell of its own."""
    for number, code in enumerate(find_solutions(notebook), 1):
        notebook.cells.append(nbformat.v4.new_code_cell(code, id=f"solution-{number}"))
    return notebook


def write_copies(folder):
    """Write the copies of all notebooks, and remove copies of an earlier call.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    list of Path
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.ipynb"):
        old.unlink()
    copies = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        notebook = add_solutions(nbformat.read(path, as_version=4))
        copies.append(folder / path.name)
        nbformat.write(notebook, copies[-1])
    return copies


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/with_solutions.py OUTPUT_FOLDER")
    for copy in write_copies(Path(sys.argv[1])):
        print(copy)
