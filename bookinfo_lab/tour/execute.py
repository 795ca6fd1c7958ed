"""Execute one notebook, top to bottom, in a kernel of its own; what it showed, and where it stopped.

Edge: processes.  The kernel is the interpreter that runs this, whatever kernels and settings of Jupyter or IPython the
user has; it is reached by Unix sockets in the folder given, keeps no history, and is killed with its process group
when the notebook has ended, failed, hung or been stopped.  The kernel ends by itself where this process is killed.
"""

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_output

_START_TIMEOUT_S = 60
_LONGEST_SOCKET = 104  # of the 107 bytes that a socket's path may have, three are the kernel's
# What would lead the kernel to the user's own configuration, or run the user's code in it.
_PRIVATE = ("JUPYTER", "JPY_", "IPYTHON", "MPLBACKEND", "PYTHONSTARTUP", "PYTHONINSPECT")


@dataclass(frozen=True, slots=True)
class Execution:
    """A notebook with the outputs it gave.

    ``cells`` counts the code cells that were started.  ``error`` is one line, "" where all ran to their end; then
    ``cells`` is the number that stands before the failing one, as in ``In [5]``.
    """

    notebook: NotebookNode
    seconds: float
    cells: int
    error: str


class Stopped(Exception):
    """The tour ends before this notebook has."""


class Stop:
    """A switch that many notebooks share: once it is thrown, their kernels are dead and no other one starts."""

    def __init__(self) -> None:
        self._lock, self._groups, self.thrown = threading.Lock(), set[int](), False

    def throw(self) -> None:
        """Kill every kernel that runs."""
        with self._lock:
            self.thrown = True
            for group in self._groups:
                _kill(group)

    @contextmanager
    def over(self, group: int) -> Iterator[None]:
        """Put a process group under the switch as long as the block lasts; at its end the group is killed."""
        with self._lock:
            self._groups.add(group)
            if self.thrown:
                _kill(group)
        try:
            yield
        finally:
            with self._lock:
                self._groups.discard(group)
                _kill(group)


def execute(
    notebook: NotebookNode, folder: Path, environment: Mapping[str, str], stop: Stop, cell_timeout_s: float
) -> Execution:
    """Run every code cell of ``notebook``, whose outputs are replaced; the first error ends it.

    ``folder`` is new and becomes the kernel's working folder and the home of all its files; the caller deletes it.
    ``environment`` is added to this process's own.  Raises Stopped where ``stop`` was thrown meanwhile.
    """
    folder.mkdir(mode=0o700, parents=True)
    began = time.monotonic()
    try:
        cells, error = asyncio.run(_run(notebook, folder, dict(environment), stop, cell_timeout_s))
    except Exception:
        if stop.thrown:
            raise Stopped from None
        raise
    if stop.thrown:
        raise Stopped
    return Execution(notebook, time.monotonic() - began, cells, error)


async def _run(
    notebook: NotebookNode, folder: Path, environment: dict[str, str], stop: Stop, cell_timeout_s: float
) -> tuple[int, str]:
    sockets = str(folder / "k")
    manager = AsyncKernelManager(
        kernel_name="python3",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[]),  # without kernels of the user's: this interpreter's own
        connection_file=str(folder / "kernel.json"),
        **({"transport": "ipc", "ip": sockets} if os.name == "posix" and len(sockets) < _LONGEST_SOCKET else {}),
    )
    client = NotebookClient(
        notebook,
        km=manager,
        timeout=cell_timeout_s,
        startup_timeout=_START_TIMEOUT_S,
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
    )
    client.log.setLevel("CRITICAL")  # what fails is told by the outcome
    try:
        with open(folder / "kernel.log", "wb") as log:
            await manager.start_kernel(
                env=_environment(folder, environment),
                cwd=str(folder),
                stdout=log,
                stderr=log,
                extra_arguments=["--HistoryManager.enabled=False"],
            )
        with stop.over(manager.provisioner.pid):  # type: ignore[union-attr]
            await client.async_execute()
    except (CellExecutionError, CellTimeoutError, DeadKernelError, RuntimeError) as error:
        return client.code_cells_executed, _told(notebook, client.code_cells_executed, error, cell_timeout_s)
    finally:
        if client.kc is not None:
            client.kc.stop_channels()
        await manager.shutdown_kernel(now=True)
    return client.code_cells_executed, ""


def _environment(folder: Path, added: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_PRIVATE)}
    own = {"JUPYTER_NO_CONFIG": "1", "TMPDIR": str(folder), "PYTHONIOENCODING": "utf-8"}
    # The lines that evidence gives work as typed in a cell.
    own["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    own |= {f"JUPYTER_{name}_DIR": str(folder / "jupyter") for name in ("CONFIG", "DATA", "RUNTIME")}
    return kept | own | {"IPYTHONDIR": str(folder / "ipython")} | added


def _told(notebook: NotebookNode, number: int, error: Exception, cell_timeout_s: float) -> str:
    """The error in one line; where the cell itself shows none, the line is put below it."""
    if isinstance(error, CellExecutionError):
        return _line(f"{error.ename}: {error.evalue}" if error.evalue else error.ename)
    if isinstance(error, CellTimeoutError):
        line = f"no end after {cell_timeout_s:g} s"
    else:
        line = f"the kernel ended: {_line(str(error))}"
    started = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()][:number]
    if started:
        started[-1].execution_count = number
        started[-1].outputs.append(new_output("stream", name="stderr", text=line + "\n"))  # type: ignore[no-untyped-call]
    return line


def _line(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= 300 else words[:299] + "…"


def _kill(group: int) -> None:
    try:
        if sys.platform == "win32":
            os.kill(group, signal.SIGTERM)
        else:
            os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended
