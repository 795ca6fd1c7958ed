"""The exception tree: every error that a learner's mistake or a machine's limit can cause.

A message is one line: what happened, the offending text or number, what to try.  The command
line prints it after ``bookinfo-lab:`` and ends with 2, a notebook's cell shows that line in place
of a traceback; nothing here is raised for a bug.
"""

from bookinfo_lab import escape


class LabError(Exception):
    """Something the user or the machine must change; the message says what and how."""

    def _render_traceback_(self) -> list[str]:
        # IPython asks an exception for this before it formats one itself.
        return [f"bookinfo-lab: {escape.text(self)}"]


class ParseError(LabError):
    """Text that cannot be read.

    ``source`` names the file or command, ``position`` the line (from 1), ``text`` the offending text.
    """

    def __init__(self, source: str, position: int, text: str, reason: str) -> None:
        shown = text if len(text) <= 80 else text[:77] + "..."
        super().__init__(f"{source}, line {position}: {reason}: {shown!r}")
        self.source, self.position, self.text = source, position, text


class Incomplete(LabError):
    """The evidence ends before the answer: a truncated file, a missing object."""


class Unsupported(LabError):
    """This machine or this input lacks something the request needs; the message names it."""


class NotShown(LabError):
    """What a source does not have or may not give: leave, a right or a part of the cluster is missing; says which."""


class SourceError(LabError):
    """A command that fetches evidence, or builds the sandbox, failed."""

    def __init__(self, command: str, status: int | None, stderr: str, advice: str = "") -> None:
        ended = "failed" if status is None else f"ended with {status}"
        detail = " ".join(stderr.split())[-300:]
        super().__init__(f"`{command}` {ended}" + (f": {detail}" if detail else "") + (f"; {advice}" if advice else ""))
        self.command, self.status, self.stderr = command, status, stderr


class RecordingError(LabError):
    """A recording does not hold what was asked, or is damaged."""
