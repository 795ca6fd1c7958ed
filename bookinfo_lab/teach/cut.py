"""Cuts the learner's notebooks from the solutions: `python -m bookinfo_lab.teach.cut [--check] [FOLDER]`.

Edge: files.  In a code cell tagged ``solution`` the source becomes what the cell's metadata says under ``blank``; a
cell of another kind tagged so goes.  Outputs, execution counts, widget state, attachments and all metadata but the
kernel's name go, and cells are numbered anew, so that nothing of a solution is left.  The same solutions give the same
bytes; a learner's copy that somebody edited is overwritten, and `--check` says which ones differ.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bookinfo_lab.errors import LabError

TAG, BLANK = "solution", "blank"
Notebook = dict[str, Any]
_KEPT = {"kernelspec": ("display_name", "language", "name"), "language_info": ("name",)}


def main(argv: Sequence[str] | None = None) -> int:
    """Cut every notebook of FOLDER/solutions into FOLDER; 1 where ``--check`` finds a difference, 2 for an error."""
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
    """The learner's notebooks that differ from what the solutions give; they are written where ``write`` says so.

    Nothing is written where any solution cannot be cut.
    """
    solutions = sorted((folder / "solutions").glob("*.ipynb"))
    if not solutions:
        raise LabError(f"no notebooks in {folder / 'solutions'}")
    made = {folder / path.name: as_text(cut(read(path), path.name)).encode() for path in solutions}
    different = [path for path, raw in made.items() if not path.is_file() or path.read_bytes() != raw]
    try:
        for path in different if write else ():
            path.write_bytes(made[path])
    except OSError as error:
        raise LabError(f"cannot write {error.filename}: {error.strerror}") from None
    return different


def read(path: Path) -> Notebook:
    """The notebook at ``path``; LabError where it is none, with the first cell that is at fault."""
    try:
        notebook: Any = json.loads(path.read_text(encoding="utf-8"))
        json.dumps(notebook, ensure_ascii=False).encode()  # half a surrogate pair can be read and not written
    except (OSError, ValueError, RecursionError) as error:
        raise LabError(f"{path} is no notebook: {error}") from None
    if not isinstance(notebook, dict) or notebook.get("nbformat") != 4 or not _is_sound(notebook):
        raise LabError(f"{path} is no notebook of format 4; save it once with JupyterLab")
    checked: Notebook = notebook
    for number, cell in enumerate(checked["cells"], 1):
        if not _is_cell(cell):
            raise LabError(f"{path}, cell {number}: not a cell of notebook format 4; save it once with JupyterLab")
    return checked


def cut(solution: Notebook, name: str = "notebook") -> Notebook:
    """The learner's notebook; LabError where a code cell tagged ``solution`` has no ``blank``, or gives itself away."""
    cells: list[dict[str, Any]] = []
    for number, cell in enumerate(solution["cells"], 1):
        source = source_of(cell)
        if is_solution(cell):
            if cell["cell_type"] != "code":
                continue
            source = _blank(cell, f"{name}, cell {number}")
        cells.append(_cell(cell["cell_type"], source, len(cells)))
    return _notebook(solution, cells)


def stripped(notebook: Notebook) -> Notebook:
    """A notebook as it is kept: without outputs, counts and widget state, its cells numbered."""
    cells: list[dict[str, Any]] = []
    for cell in notebook["cells"]:
        kept = {key: value for key, value in cell["metadata"].items() if key in ("tags", BLANK)}
        cells.append(_cell(cell["cell_type"], source_of(cell), len(cells)) | {"metadata": kept})
    return _notebook(notebook, cells)


def is_solution(cell: Mapping[str, Any]) -> bool:
    """Whether a cell is tagged as (part of) a solution."""
    return TAG in cell["metadata"].get("tags", ())


def source_of(cell: Mapping[str, Any]) -> str:
    """A cell's text, which notebooks keep as one string or as lines."""
    source = cell["source"]
    return source if isinstance(source, str) else "".join(source)


def as_text(notebook: Notebook) -> str:
    """The notebook's file, in nbformat's own layout."""
    return json.dumps(notebook, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _blank(cell: Mapping[str, Any], where: str) -> str:
    blank = cell["metadata"].get(BLANK)
    if not isinstance(blank, str):
        raise LabError(f"{where}: tagged {TAG!r} without a text under {BLANK!r} in its metadata")
    if blank.strip() == source_of(cell).strip():
        raise LabError(f"{where}: the text under {BLANK!r} is the solution itself")
    return blank


def _is_sound(notebook: dict[str, Any]) -> bool:
    return isinstance(notebook.get("cells"), list) and isinstance(notebook.get("metadata"), dict)


def _is_cell(cell: Any) -> bool:
    if not isinstance(cell, dict) or not isinstance(cell.get("metadata"), dict):
        return False
    source, tags = cell.get("source"), cell["metadata"].get("tags", [])
    lines = [source] if isinstance(source, str) else source
    is_text = isinstance(lines, list) and all(isinstance(line, str) for line in lines)
    return is_text and isinstance(tags, list) and cell.get("cell_type") in ("code", "markdown", "raw")


def _cell(kind: str, source: str, number: int) -> dict[str, Any]:
    cell = {"cell_type": kind, "id": f"cell-{number:02}", "metadata": {}, "source": source.splitlines(keepends=True)}
    return cell | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def _notebook(original: Notebook, cells: list[dict[str, Any]]) -> Notebook:
    """Only the names in the kernel's metadata: its version is that of whoever ran the notebook last."""
    metadata = {
        key: {name: value for name, value in given.items() if name in names and isinstance(value, str)}
        for key, names in _KEPT.items()
        if isinstance(given := original["metadata"].get(key), dict)
    }
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


if __name__ == "__main__":
    sys.exit(main())
