"""What doctor passes between its parts: a Finding is what one attempt met, a Check what it means for the lab.

Pure.  Findings come from `inside` (namespaces) and `machine` (this process); `judge` turns them into Checks.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Finding:
    """One attempt: whether it went well, what it met in its own words, and the errno where a system call refused."""

    name: str
    ok: bool
    text: str = ""
    errno: int = 0


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the report.

    ``mend`` is what to type or do about a no, ``without`` what works until then.  ``needed``: the sandbox cannot
    run while this is a no.  ``tried`` is False where an earlier no left nothing to try.
    """

    name: str
    ok: bool
    found: str
    mend: str = ""
    without: str = ""
    needed: bool = True
    tried: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """Everything doctor looked at, in the order in which it would be mended."""

    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What this process is and what the machine allows it, as read from /proc, /etc and the environment.

    ``settings`` holds the sysctls that exist here.  ``capabilities`` is the effective set as a bit mask.
    ``distribution`` holds ID and ID_LIKE of os-release.  ``covered`` names what is mounted below /proc.
    ``seccomp``: some filter is on this process; ``filtered``: one was seen to refuse a harmless call.
    ``next_subordinate`` is the first id from which 65,536 are in nobody's range.
    """

    uid: int = 0
    user: str = ""
    distribution: tuple[str, ...] = ()
    release: str = ""
    capabilities: int = 0
    no_new_privs: bool = False
    seccomp: bool = False
    filtered: bool = False
    container: str = ""
    settings: Mapping[str, int] = field(default_factory=dict)
    covered: tuple[str, ...] = ()
    next_subordinate: int = 100000

    @property
    def sudo(self) -> str:
        """What stands before a command that root must run."""
        return "sudo " if self.uid else ""


def is_fit(report: Report) -> bool:
    """Whether the sandbox can run here; a missing optional feature does not make it False."""
    return all(check.ok for check in report.checks if check.needed)


def as_document(report: Report) -> dict[str, Any]:
    """The report for ``--json``: ``{"ok", "checks": [{"name", "ok", "found", "mend", "without"}]}``."""
    return {"ok": is_fit(report), "checks": [_row(check) for check in report.checks]}


def _row(check: Check) -> dict[str, Any]:
    mend, without = ("", "") if check.ok else (check.mend, check.without)
    return {"name": check.name, "ok": check.ok, "found": check.found, "mend": mend, "without": without}
