"""What a tour found: a Run for each notebook on each source, and the Report of them all.  Values only, no I/O."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Run:
    """One notebook on one source.

    ``page`` is its HTML's path below the index.  ``began`` is Unix time.  ``cells`` code cells were started, the last
    of which failed where ``error`` is not "": its number is the one that stands before it, as in ``In [5]``.
    ``right`` of ``judged`` exercises were found right.
    """

    notebook: str
    source: str
    page: str
    began: float
    seconds: float
    cells: int
    right: int
    judged: int
    error: str

    def __str__(self) -> str:
        judged = f", {self.right} of {self.judged} exercises right" if self.judged else ""
        ended = f"stopped at cell {self.cells}: {self.error}" if self.error else f"{self.cells} cells{judged}"
        return f"{self.notebook} on {self.source}: {ended}, {self.seconds:.1f} s"


@dataclass(frozen=True, slots=True)
class Report:
    """What ran, by source and notebook.

    ``notes`` say what ran otherwise than asked.  ``journey`` is that of one request through the first sandbox, "" where
    there was none.  ``index`` is the path of the page that links all others.
    """

    began: float
    seconds: float
    versions: tuple[tuple[str, str], ...]
    runs: tuple[Run, ...]
    notes: tuple[str, ...]
    journey: str
    index: str

    @property
    def fault(self) -> str:
        """One line on what did not run to its end; "" where everything did."""
        failed = [run for run in self.runs if run.error]
        if not failed:
            return ""
        first, others = failed[0], f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return f"{first.notebook} on {first.source}, cell {first.cells}: {first.error}{others}; see {self.index}"


def as_document(report: Report) -> dict[str, Any]:
    """The report as JSON's types."""
    return {"ok": not report.fault, "fault": report.fault} | asdict(report) | {"versions": dict(report.versions)}
