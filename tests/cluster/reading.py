"""The guided notebooks, run in kernels of their own with an environment that names a cluster."""

import os
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nbformat
from bed import ROOT, Bed

FOLDER = ROOT / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
COPIES = [FOLDER / path.name for path in SOLUTIONS]
_RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], 4)
NotebookClient(notebook, timeout=100, kernel_name="python3", allow_errors=True).execute()
nbformat.write(notebook, sys.argv[2])
"""
LONGEST_S = 150


def environment(bed: Bed, kubeconfig: Path, namespace: str, leaves: Iterable[str], state: Path) -> dict[str, str]:
    """What a learner sets, and folders that are this test's."""
    return {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "BOOKINFO_LAB_SOURCE": "kubernetes",
        "BOOKINFO_LAB_NAMESPACE": namespace,
        "BOOKINFO_LAB_ALLOW": ",".join(leaves),
        "BOOKINFO_LAB_IMAGE": bed.image,
        "BOOKINFO_LAB_STATE": str(state),
        "JUPYTER_PATH": f"{sys.prefix}/share/jupyter",
        "JUPYTER_RUNTIME_DIR": str(state / "runtime"),
        "IPYTHONDIR": str(state / "ipython"),
    }


def read(paths: Iterable[Path], given: dict[str, str], state: Path) -> dict[str, Any]:
    """The notebooks after a run top to bottom, two at a time, by file name."""

    def one(path: Path) -> tuple[str, Any]:
        made = state / f"{len(path.parts)}-{path.name}"
        words = [sys.executable, "-c", _RUN, str(path), str(made)]
        done = subprocess.run(words, env=given, capture_output=True, text=True, errors="replace", timeout=LONGEST_S)
        assert done.returncode == 0, done.stderr[-2000:]
        return path.name, nbformat.read(made, 4)

    with ThreadPoolExecutor(2) as pool:
        return dict(pool.map(one, paths))


def errors(read: dict[str, Any]) -> list[str]:
    """What ended a cell and was not a box."""
    every = [(name, output) for name, item in read.items() for cell in item.cells for output in cell.get("outputs", ())]
    return [f"{name}: {item.ename}: {item.evalue}" for name, item in every if item.output_type == "error"]


def shown(notebook: Any, within: str = "") -> list[str]:
    """The texts that cells displayed, of those whose source has the words."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and within in cell.source]
    given = [output.data for cell in cells for output in cell.outputs if "data" in output]
    return [data.get("text/plain", "") for data in given]


def boxes(notebook: Any) -> list[str]:
    """Why cells were not shown."""
    return [text for text in shown(notebook) if text.startswith("Not shown: ")]
