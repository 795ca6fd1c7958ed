"""The report as one page of plain text, fit to be mailed: one line for each check, more only for a no.

Pure.  Nothing that was read on the machine reaches the page with a control character in it.
"""

import textwrap
from collections.abc import Iterator

from bookinfo_lab.doctor.findings import Check, Report, is_fit

WIDTH = 100


def as_page(report: Report) -> str:
    """The page: what is there, each no with its mending line, the verdict last; no newline at its end."""
    lines = ["bookinfo-lab doctor", ""]
    checks = [check for check in report.checks if check.tried]
    while checks:
        alike = _alike(checks)
        lines += _entry(", ".join(check.name for check in alike), alike[0])
        checks = checks[len(alike) :]
    untried = [check for check in report.checks if not check.tried]
    for why in dict.fromkeys(check.found for check in untried):
        names = ", ".join(check.name for check in untried if check.found == why)
        lines += _wrapped(f"{why}: {names}", "--    ")
    return "\n".join([*lines, "", *_wrapped(verdict(report), "")])


def verdict(report: Report) -> str:
    """The last sentence: whether the sandbox can run here, and for want of what."""
    missing = [check.name for check in report.checks if not check.ok and check.tried and check.needed]
    optional = [check.name for check in report.checks if not check.ok and check.tried and not check.needed]
    if not is_fit(report):
        reasons = printable(", ".join(missing)) or "it could not be tried"
        return f"This machine cannot run the sandbox yet; to be mended first: {reasons}."
    if optional:
        return f"This machine can run the sandbox. Missing, and not needed for it: {printable(', '.join(optional))}."
    return "This machine can run the sandbox, with everything."


def printable(text: str) -> str:
    """The text on one line, with every character that a terminal could obey written as its escape."""
    spaced = " ".join(text.split(" "))
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in spaced)


def _alike(checks: list[Check]) -> list[Check]:
    """The checks at the start that went well with the very same answer: the page needs it once."""
    count = 1
    while count < len(checks) and checks[0].ok and checks[count].ok and checks[count].found == checks[0].found:
        count += 1
    return checks[:count]


def _entry(names: str, check: Check) -> Iterator[str]:
    yield from _wrapped(f"{names}: {check.found}", "ok    " if check.ok else "no    ")
    if check.ok:
        return
    if check.mend:
        # A command must come out as it is typed: it is never broken.
        yield f"      mend:    {printable(check.mend)}"
    if check.without:
        yield from _wrapped(f"without: {check.without}", " " * 6)


def _wrapped(text: str, first: str) -> list[str]:
    return textwrap.wrap(
        printable(text),
        WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )
