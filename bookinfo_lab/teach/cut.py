"""Cuts the learner's notebooks from the solutions: `python -m bookinfo_lab.teach.cut [--check] [FOLDER]`.

Edge: files.  In a code cell tagged ``solution`` the source becomes what the cell's metadata says
under ``blank``; a markdown cell tagged so goes.  Outputs, execution counts, widget state, attachments and all metadata
but the kernel's go, and cells are numbered anew, so that nothing of a solution is left.  The same solutions give the
same bytes.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bookinfo_lab.errors import LabError

TAG, BLANK = "solution", "blank"
Notebook = dict[str, Any]
_KEPT = ("kernelspec", "language_info")


def main(argv: Sequence[str] | None = None) -> int:
    """Cut every notebook of FOLDER/solutions into FOLDER; 1 where ``--check`` finds one that is another."""
    parser = argparse.ArgumentParser(prog="python -m bookinfo_lab.teach.cut", description="cut the learner's notebooks")
    parser.add_argument("--check", action="store_true", help="say which copies differ; write nothing")
    parser.add_argument("folder", nargs="?", default="notebooks", type=Path, metavar="FOLDER")
    arguments = parser.parse_args(argv)
    try:
        different = cut_all(arguments.folder, write=not arguments.check)
    except LabError as error:
        sys.stderr.write(f"cut: {error}\n")
        return 2
    for path in different:
        sys.stderr.write(f"cut: {path} {'is not what its solution gives' if arguments.check else 'written'}\n")
    return 1 if arguments.check and different else 0


def cut_all(folder: Path, *, write: bool) -> list[Path]:
    """The learner's notebooks that differ from what the solutions give; they are written where ``write`` says so."""
    solutions = sorted((folder / "solutions").glob("*.ipynb"))
    if not solutions:
        raise LabError(f"no notebooks in {folder / 'solutions'}")
    different = []
    for path in solutions:
        text = as_text(cut(read(path), path.name))
        copy = folder / path.name
        if not copy.is_file() or copy.read_text(encoding="utf-8") != text:
            different.append(copy)
            if write:
                copy.write_text(text, encoding="utf-8")
    return different


def read(path: Path) -> Notebook:
    """The notebook at ``path``; LabError where it is none."""
    try:
        notebook: Notebook = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise LabError(f"{path} is no notebook: {error}") from None
    if notebook.get("nbformat") != 4 or not isinstance(notebook.get("cells"), list):
        raise LabError(f"{path} is no notebook of format 4; save it once with JupyterLab")
    return notebook


def cut(solution: Notebook, name: str = "notebook") -> Notebook:
    """The learner's notebook; LabError where a code cell tagged ``solution`` has no ``blank``."""
    cells = []
    for number, cell in enumerate(solution["cells"], 1):
        is_solution = TAG in cell["metadata"].get("tags", ())
        if is_solution and cell["cell_type"] != "code":
            continue
        source = source_of(cell)
        if is_solution:
            blank = cell["metadata"].get(BLANK)
            if not isinstance(blank, str):
                raise LabError(f"{name}, cell {number}: tagged {TAG!r} without a text under {BLANK!r} in its metadata")
            source = blank
        cells.append(_cell(cell["cell_type"], source, len(cells)))
    metadata = {key: value for key, value in solution["metadata"].items() if key in _KEPT}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def stripped(notebook: Notebook) -> Notebook:
    """A notebook as it is kept: without outputs, counts and widget state, its cells numbered."""
    cells = []
    for cell in notebook["cells"]:
        kept = {key: value for key, value in cell["metadata"].items() if key in ("tags", BLANK)}
        cells.append(_cell(cell["cell_type"], source_of(cell), len(cells)) | {"metadata": kept})
    metadata = {key: value for key, value in notebook["metadata"].items() if key in _KEPT}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def source_of(cell: dict[str, Any]) -> str:
    """A cell's text, which notebooks keep as one string or as lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def as_text(notebook: Notebook) -> str:
    """The notebook's file, in nbformat's own layout."""
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _cell(kind: str, source: str, number: int) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": f"cell-{number:02}", "metadata": {}, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


if __name__ == "__main__":
    sys.exit(main())
