"""Build the book: executed notebooks, the texts of the repository and the docstrings as a static site.

Sphinx reads one folder. It gets the pages at the same paths as in the repository, so that the links between them
hold; README.md becomes the first page, and files that a page links to go with it.
"""

import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BOOK = ROOT / "data" / "book"
SOURCE = BOOK / "source"
PACKAGE = ROOT / "grfsaxs_lib"
LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)\s#]+)")


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


# ------------------------------------------------------------------------------------------------------ notebooks


def code_cells(notebook):
    """Those of the lesson, without the parameters that a run has put in, which say the tier alone."""
    injected = "injected-parameters"
    return [c for c in notebook.cells if c.cell_type == "code" and injected not in c.metadata.get("tags", [])]


def executed(path):
    """The lesson with the results of the larger tier that has run it as it is now, and that tier; or None."""
    lesson = nbformat.read(path, as_version=4)
    for tier in ("laptop", "quick"):
        copy = ROOT / "data" / tier / "executed" / path.name
        if not copy.exists():
            continue
        ours, theirs = code_cells(lesson), code_cells(nbformat.read(copy, as_version=4))
        if [cell.source for cell in ours] == [cell.source for cell in theirs] and theirs[-1].execution_count:
            for cell, run in zip(ours, theirs, strict=True):
                cell.outputs = run.outputs
            return lesson, tier
    return None


def plain(caption):
    """A caption in Markdown as the text that stands for the figure."""
    text = re.sub(r"\\[,;!]|\s+", " ", caption)
    text = re.sub(r"\\(?:mathrm|mathbf|text)|[*$\\{}]", "", text)
    return text.strip()


def has_figure(cell):
    return any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


def find_caption(cells):
    """The caption of a figure, from the cells after it: before another figure and before the next heading; or None."""
    for cell in cells:
        text = cell.source if cell.cell_type == "markdown" else ""
        if re.match(r"\*(\*\*)?[^\s*]", text):  # italics, of which the first letter may be bold
            return plain(text.split("\n\n")[0])
        if has_figure(cell) or re.search("^#", text, flags=re.M):
            return None
    return None


def describe_figures(notebook, name):
    """Give each figure its caption, the paragraph in italics that follows, as the text for those who do not see it."""
    for number, cell in enumerate(notebook.cells):
        if has_figure(cell):
            caption = find_caption(notebook.cells[number + 1 :])
            if caption is None:
                raise SystemExit(f"book: no caption in italics after the figure of cell {number} ({cell.id}) of {name}")
            cell.metadata["mystnb"] = {"image": {"alt": caption}}


def lay_out_notebook(lesson):
    found = executed(lesson)
    if found is None:
        return False
    notebook, tier = found
    describe_figures(notebook, lesson.name)
    title, newline, rest = notebook.cells[0].source.partition("\n")
    download = f"{{download}}`Download this notebook <../lessons/{lesson.name}>`"
    notebook.cells[0].source = f"{title}\n\n{download}. The results on this page are those of the {tier} tier.\n{rest}"
    write(SOURCE / "notebooks" / lesson.name, nbformat.writes(notebook))
    (SOURCE / "lessons").mkdir(exist_ok=True)
    shutil.copy(lesson, SOURCE / "lessons")
    return True


# ---------------------------------------------------------------------------------------------------------- texts


def lay_out_text(path):
    """Lay out a page and, first to last, what it links to."""
    target = SOURCE / ("index.md" if path == ROOT / "README.md" else path.relative_to(ROOT))
    if target.exists():
        return
    if path.suffix != ".md":
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        return
    text = path.read_text(encoding="utf-8")
    links = {link: (path.parent / link).resolve() for link in LINK.findall(text)}
    if not text.startswith("# "):  # a table of a run
        text = f"# {path.stem.replace('_', ' ').capitalize()}\n\n{text}"
    if target == SOURCE / "index.md":
        text += (HERE / "contents.md").read_text(encoding="utf-8")
    for link in [link for link, linked in links.items() if linked == ROOT / "README.md"]:
        text = text.replace(f"]({link}", f"]({link.replace('README', 'index')}")
    write(target, text)
    for linked in links.values():
        if linked.suffix != ".ipynb":
            lay_out_text(linked)


def lay_out_api():
    """A page of the public names, and one for each folder of the package."""
    folders = sorted({path.parent for path in PACKAGE.rglob("*.py")})
    toctree = []
    for folder in folders:
        modules = [path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"]
        package = ".".join(folder.relative_to(ROOT).parts)
        toctree.append(f"{package}.rst")
        heading = f"{package}\n{'=' * len(package)}\n"
        for path in modules:
            module = f"{package}.{path.stem}"
            heading += f"\n{module}\n{'-' * len(module)}\n\n.. automodule:: {module}\n"
        write(SOURCE / "docs" / "book" / f"{package}.rst", heading)
    write(
        SOURCE / "docs" / "book" / "api.rst",
        "API reference\n=============\n\n.. automodule:: grfsaxs_lib\n   :imported-members:\n\n"
        ".. toctree::\n   :hidden:\n\n   " + "\n   ".join(toctree) + "\n",
    )


# ----------------------------------------------------------------------------------------------------------- build


def main():
    shutil.rmtree(BOOK, ignore_errors=True)
    lessons = sorted((ROOT / "notebooks").glob("*.ipynb"))
    missing = [lesson.stem for lesson in lessons if not lay_out_notebook(lesson)]
    if missing:
        raise SystemExit(
            f"book: no executed copy of {', '.join(missing)} as it is now.\n"
            f"Make them with ./run_all.sh quick --from {missing[0][:2]}, or with ./run_all.sh laptop"
        )
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "cluster" / "README.md"):
        lay_out_text(path)
    lay_out_api()
    mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax"
    (SOURCE / "_static").mkdir()
    for path in (mathjax / "tex-svg.js", HERE / "book.css", HERE / "icon.svg"):
        shutil.copy(path, SOURCE / "_static")
    shutil.copy(HERE / "conf.py", SOURCE)
    options = ["-d", BOOK / "doctrees", "-j", "2", "-W", "--keep-going", "--quiet"]
    from sphinx.cmd.build import main as sphinx  # only the environment of the book has it

    status = sphinx([str(word) for word in ("-b", "html", *options, SOURCE, BOOK / "html")])
    if status == 0:
        print(f"The book: {BOOK / 'html' / 'index.html'}")
    return status


if __name__ == "__main__":
    sys.exit(main())
