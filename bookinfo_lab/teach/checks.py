"""Whether an answer solves an exercise, recomputed from the learner's own lab.

A check is a generator ``(lab, answer) → Steps``: each Step is a claim that the answer must meet, looked up in the lab's
evidence as it is now.  The first that does not hold is what the learner reads, with where to look; nothing holds or
shows the right answer.  A LabError while looking is told as what stood in the way, not as a wrong answer; any other
exception is a bug of the check.  Checks read answers with the ``as_…`` functions, which give None where one is another.
"""

import math
import pkgutil
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address, ip_interface
from numbers import Real
from typing import TYPE_CHECKING, Any

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError
from bookinfo_lab.teach import exercises, progress

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab

RIGHT, WRONG, OPEN, STOPPED = "right", "not yet", "not answered yet", "cannot be checked"
_ID = re.compile(r"([0-9]{2})-[0-9]+")


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that a right answer meets: ``claim`` in words, whether it ``holds``, ``hint`` where it does not."""

    claim: str
    holds: bool
    hint: str = ""


Check = Callable[["Lab", Any], Iterator[Step]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of an answer: ``outcome`` is one of RIGHT, WRONG, OPEN, STOPPED; true only where it is RIGHT."""

    exercise: str
    outcome: str
    message: str
    steps: tuple[Step, ...] = ()

    def __bool__(self) -> bool:
        return self.outcome == RIGHT

    def __repr__(self) -> str:
        return escape.text(f"{self.exercise}: {self.outcome}. {self.message}")

    def _repr_html_(self) -> str:
        sign = {RIGHT: "✔", WRONG: "✘", OPEN: "…", STOPPED: "!"}[self.outcome]
        passed = "".join(f"<li>{escape.html(step.claim)}</li>" for step in self.steps if step.holds)
        listed = f'<ul style="margin: 0.2em 0 0 1.2em">{passed}</ul>' if passed else ""
        return (
            '<div role="status" style="padding: 0.4em 0.8em; border: 1px solid #6e7781; border-left-width: 5px">'
            f'<strong><span aria-hidden="true">{sign}</span> {escape.html(self.exercise)}: {self.outcome}.</strong> '
            f"{escape.html(self.message)}{listed}</div>"
        )


def check(lab: "Lab", exercise: str, answer: Any) -> Verdict:
    """Whether ``answer`` solves ``exercise`` on this lab; a right one is kept as progress.

    ``...`` and None are no answer.  Raises LabError where there is no such exercise, with those there are.
    """
    found = _check(exercise)
    if answer is None or answer is ...:
        return Verdict(exercise, OPEN, "Put your answer in the place of the three dots, and run the cell again.")
    steps: list[Step] = []
    try:
        for step in found(lab, answer):
            steps.append(step)
            if not step.holds:
                message = f"It does not hold that {step.claim}. {step.hint}".strip()
                return Verdict(exercise, WRONG, message, tuple(steps))
    except LabError as error:
        return Verdict(exercise, STOPPED, f"The evidence for it could not be read: {error}", tuple(steps))
    if not steps:
        raise AssertionError(f"the check of {exercise} looked at nothing")
    note = progress.keep(exercise, lab.source.description)
    return Verdict(exercise, RIGHT, f"Every step holds in your lab.{' ' + note if note else ''}", tuple(steps))


def _check(exercise: object) -> Check:
    """The check of an exercise."""
    if not isinstance(exercise, str):
        raise LabError(f"an exercise is named by text such as '01-2', and this is of type {type(exercise).__name__}")
    named = _ID.fullmatch(exercise)
    notebooks = sorted(item.name[2:] for item in pkgutil.iter_modules(exercises.__path__) if item.name[:2] == "nb")
    if not named or named[1] not in notebooks:
        raise LabError(
            f"no exercise '{escape.text(exercise[:40])}'; ids are notebook and exercise, as in '01-2'; "
            f"notebooks with exercises: {', '.join(notebooks)}"
        )
    checks: Mapping[str, Check] = import_module(f"{exercises.__name__}.nb{named[1]}").CHECKS
    if exercise not in checks:
        raise LabError(f"no exercise '{exercise[:40]}'; notebook {named[1]} has: {', '.join(checks)}")
    return checks[exercise]


def as_number(answer: Any) -> int | None:
    """The whole number that an answer says (31380, "31380", " 31380 ", 31380.0); None where it says none."""
    if isinstance(answer, bool) or not isinstance(answer, str | Real):
        return None
    try:
        whole: Any = answer if isinstance(answer, str) else math.floor(answer)
        number = int(whole)
    except (ValueError, OverflowError):
        return None
    return number if isinstance(answer, str) or number == answer else None


def as_fraction(answer: Any) -> float | None:
    """The finite number that an answer says (0.5, "0.5", "1/2", "50 %"); None where it says none."""
    if isinstance(answer, bool) or not isinstance(answer, str | Real):
        return None
    percent, over, under = False, answer, "1"
    if isinstance(answer, str):
        text = answer.strip().replace(",", ".")
        percent = text.endswith("%")
        over, slash, under = text.removesuffix("%").partition("/")
        under = under if slash else "1"
    try:
        number = float(over) / float(under) / (100 if percent else 1)
    except (ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def as_address(answer: Any) -> IPv4Address | IPv6Address | None:
    """The IP address that an answer says, whatever prefix length follows it; None where it says none."""
    if isinstance(answer, IPv4Address | IPv6Address):
        return getattr(answer, "ip", answer)  # an interface is an address with a prefix length
    try:
        return ip_interface(answer.strip()).ip if isinstance(answer, str) else None
    except ValueError:
        return None


def as_name(answer: Any) -> str | None:
    """The name that an answer says, without blanks around it and without a namespace before it; None for no text."""
    return (answer.strip().rpartition("/")[2] or None) if isinstance(answer, str) else None
