"""Whether an answer solves an exercise, recomputed from the learner's own lab.

A check is a generator ``(lab, answer) → Steps``: each Step is a claim that the answer must meet, looked up in the lab's
evidence as it is now.  The first that does not hold is what the learner reads, with where to look; nothing holds or
shows the right answer.  A LabError while looking is told as what stood in the way, not as a wrong answer.
"""

import html
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.teach import progress

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab

RIGHT, WRONG, OPEN, STOPPED = "right", "not yet", "not answered yet", "cannot be checked"
_ID = re.compile(r"(\d\d)-(\d+)")
_LONGEST = 300


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
        return visible(f"{self.exercise}: {self.outcome}. {self.message}")

    def _repr_html_(self) -> str:
        sign = {RIGHT: "✔", WRONG: "✘", OPEN: "…", STOPPED: "!"}[self.outcome]
        passed = "".join(f"<li>{html.escape(visible(step.claim))}</li>" for step in self.steps if step.holds)
        listed = f'<ul style="margin: 0.2em 0 0 1.2em">{passed}</ul>' if passed else ""
        return (
            '<div role="status" style="padding: 0.4em 0.8em; border: 1px solid #6e7781; border-left-width: 5px">'
            f'<strong><span aria-hidden="true">{sign}</span> {html.escape(self.exercise)}: {self.outcome}.</strong> '
            f"{html.escape(visible(self.message))}{listed}</div>"
        )


def check(lab: "Lab", exercise: str, answer: Any) -> Verdict:
    """Whether ``answer`` solves ``exercise`` on this lab; a right one is kept as progress.

    ``...`` and None are no answer.  Raises LabError for an exercise that there is none of, with those there are.
    """
    found = _checks(exercise).get(exercise)
    if found is None:
        raise LabError(f"no exercise {exercise!r}; this notebook has: {', '.join(_checks(exercise))}")
    if answer is None or answer is ...:
        return Verdict(exercise, OPEN, "Put your answer in the place of the three dots, and run the cell again.")
    steps: list[Step] = []
    try:
        for step in found(lab, answer):
            steps.append(step)
            if not step.holds:
                return Verdict(
                    exercise, WRONG, f"It does not hold that {step.claim}. {step.hint}".strip(), tuple(steps)
                )
    except LabError as error:
        return Verdict(exercise, STOPPED, str(error), tuple(steps))
    if not steps:
        raise AssertionError(f"the check of {exercise} looked at nothing")
    note = progress.keep(exercise, lab.source.description)
    return Verdict(exercise, RIGHT, f"Every step holds in your lab.{' ' + note if note else ''}", tuple(steps))


def _checks(exercise: str) -> Mapping[str, Check]:
    """The checks of the notebook that an exercise belongs to."""
    named = _ID.fullmatch(exercise) if isinstance(exercise, str) else None
    try:
        module = import_module(f"bookinfo_lab.teach.exercises.nb{named[1]}") if named else None
    except ModuleNotFoundError:
        module = None
    if module is None:
        raise LabError(f"no exercise {visible(str(exercise))!r}; ids are a notebook's number and its own, as in '01-2'")
    checks: Mapping[str, Check] = module.CHECKS
    return checks


def as_number(answer: Any) -> int | None:
    """The whole number that an answer says (31380, "31380", " 31380 "); None where it says none."""
    if isinstance(answer, bool):
        return None
    try:
        number = int(answer.strip() if isinstance(answer, str) else answer)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None
    return number if not isinstance(answer, float) or number == answer else None


def as_fraction(answer: Any) -> float | None:
    """The number that an answer says (0.5, "0.5", "1/2", "50 %"); None where it says none."""
    text = str(answer).strip().replace(",", ".") if isinstance(answer, str | int | float) else ""
    percent = text.endswith("%")
    over, _, under = text.removesuffix("%").strip().partition("/")
    try:
        number = float(over) / (float(under) if under else 1.0)
    except (ValueError, ZeroDivisionError):
        return None
    return number / 100 if percent else number


def as_address(answer: Any) -> IPv4Address | IPv6Address | None:
    """The IP address that an answer says; None where it says none."""
    try:
        return ip_address(answer.strip() if isinstance(answer, str) else answer)
    except (ValueError, TypeError):
        return None


def as_name(answer: Any) -> str | None:
    """The name that an answer says, without blanks around it and without a namespace before it; None for no text."""
    return answer.strip().rpartition("/")[2] if isinstance(answer, str) and answer.strip() else None


def visible(text: str) -> str:
    """``text`` with its control characters spelt out, and cut where it is long: messages may quote an answer."""
    shown = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in text[:_LONGEST])
    return shown + ("…" if len(text) > _LONGEST else "")
