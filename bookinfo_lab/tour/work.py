"""The notebooks of one source, executed one after the other in a thread of its own; a page for each as it ends.

Edge: threads and files.  What a thread meets is heard by whoever waits in `Workers.ended`.
"""

import queue
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import nbformat

from bookinfo_lab.errors import LabError
from bookinfo_lab.tour import pages
from bookinfo_lab.tour.execute import Execution, Stop, Stopped, execute
from bookinfo_lab.tour.report import Run

_VERDICT = re.compile(r"(\d\d-\d+): (right|not yet|not answered yet|cannot be checked)\.")  # teach.checks.Verdict


@dataclass(frozen=True, slots=True)
class Place:
    """A source to run on: its name in the report, its word in BOOKINFO_LAB_SOURCE, a state home of its own."""

    source: str
    word: str
    home: Path


@dataclass(frozen=True, slots=True)
class Order:
    """What is done at every place: the notebooks (name, text), where their pages go, how long a cell may take."""

    notebooks: tuple[tuple[str, str], ...]
    out: Path
    cell_timeout_s: float


class Workers:
    """A thread for each place that `begin` is called with; the end of the block stops them and waits for them."""

    def __init__(self, order: Order) -> None:
        self._order, self._stop = order, Stop()
        self._heard: queue.SimpleQueue[Run | BaseException | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Workers":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.throw()
        for thread in self._threads:
            thread.join()

    def begin(self, place: Place) -> None:
        """Start on a place."""
        thread = threading.Thread(target=self._work, args=(place,), daemon=True)
        self._threads.append(thread)
        thread.start()

    def ended(self) -> Iterator[Run]:
        """Each notebook's Run as it ends, until none is left; what a thread could not do is raised here."""
        for _ in self._threads:
            while (heard := self._heard.get()) is not None:
                if isinstance(heard, BaseException):
                    raise heard
                yield heard

    def _work(self, place: Place) -> None:
        try:
            for number, (name, text) in enumerate(self._order.notebooks):
                self._heard.put(self._one(place, place.home / str(number), name, text))
        except Stopped:
            pass  # whoever stopped us waits for nothing more
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self._heard.put(error)
        self._heard.put(None)

    def _one(self, place: Place, folder: Path, name: str, text: str) -> Run:
        began = time.time()
        environment = {"BOOKINFO_LAB_SOURCE": place.word, "BOOKINFO_LAB_STATE": str(place.home / "state")}
        notebook = nbformat.reads(text, as_version=4)  # type: ignore[no-untyped-call]
        done = execute(notebook, folder, environment, self._stop, self._order.cell_timeout_s)
        page = f"{file_name(place.source)}/{name}.html"
        verdicts = _verdicts(done)
        right = sum(outcome == "right" for outcome in verdicts.values())
        run = Run(name, place.source, page, began, done.seconds, done.cells, right, len(verdicts), done.error)
        write(self._order.out / page, pages.page(done.notebook, run))
        return run


def file_name(source: str) -> str:
    """A source's name as that of a folder."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-.") or "source"


def write(path: Path, text: str) -> None:
    """Write a page, its folder made where it is absent; LabError names what could not be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(f"cannot write {error.filename or path}: {error.strerror}; name another folder") from None


def _verdicts(done: Execution) -> dict[str, str]:
    """The outcome of each exercise that the notebook had checked, the last one where it was checked again."""
    found = {}
    for cell in done.notebook.cells:
        for output in cell.get("outputs", ()):
            shown = _VERDICT.match(output.get("data", {}).get("text/plain", ""))
            if shown:
                found[shown[1]] = shown[2]
    return found
