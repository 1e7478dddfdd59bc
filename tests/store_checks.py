"""Store the outputs of the check cells, clear all others.

    ./run_all.sh quick && .venv/bin/python tests/store_checks.py [notebooks/08_evaluate_models.ipynb ...]

The outputs come from the executed copies of the quick tier. Look at the
difference before committing it: nbval holds every later run against it.
"""

import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
CHECK = "# NBVAL_CHECK_OUTPUT"


def store(path):
    """Rewrite one notebook with the check outputs of its executed copy.

    Raises
    ------
    SystemExit
        If there is no executed copy, or it belongs to another version of the notebook.
    """
    notebook = nbformat.read(path, as_version=4)
    copy = ROOT / "data" / "quick" / "executed" / path.name
    if not copy.exists():
        sys.exit(f"{path.name}: no executed copy; first run ./run_all.sh quick")
    executed = {cell.id: cell for cell in nbformat.read(copy, as_version=4).cells}
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, cell in enumerate(code, 1):
        cell.outputs, cell.execution_count = [], None
        if cell.source.startswith(CHECK):
            twin = executed.get(cell.id)
            if twin is None or twin.source != cell.source or twin.execution_count is None:
                sys.exit(f"{path.name}: the executed copy differs; first run ./run_all.sh quick")
            kept = [output for output in twin.outputs if output.get("name") != "stderr"]
            text = "".join(output.text for output in kept if output.output_type == "stream")
            # A slow kernel sends what one cell prints in several pieces.
            others = [output for output in kept if output.output_type != "stream"]
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=text), *others]
            cell.execution_count = number  # nbval rejects outputs without one
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for argument in sys.argv[1:] or sorted((ROOT / "notebooks").glob("*.ipynb")):
        store(Path(argument))
