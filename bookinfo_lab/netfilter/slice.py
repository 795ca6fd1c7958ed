"""The slice of a walk: only the rules that one packet meets, in order, each branch after the other.

Pure.  A Trace and the Ruleset that was walked come in; a flat tuple of Lines goes out, which table, text tree and
drawing are made from.  A chain that is jumped to is one deeper than the rule that jumps.  Rules that did not match are
counted, and chains without rules are left out where they let the packet pass.  Where the walk branches, what follows
from each answer but the last is one deeper, and the last goes on below the word "otherwise".  Nothing is escaped here.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bookinfo_lab.trace import Step, Trace

from . import explain
from .outcome_words import chance, on_condition, outcome_line
from .ruleset import Ruleset
from .tables import BASE_CHAINS

Kind = Literal["chain", "rule", "open", "skipped", "policy", "place", "otherwise", "outcome"]
_NUMBER = re.compile(r"(\d+)(?:–(\d+))?")
_GOES_ON = ("jump ", "goto ", "continue", "return")  # any other verdict ends the hook
_Role = Literal["only", "first", "last"]
_Frames = tuple[tuple[str, str], ...]  # the chains that the packet is in, the outermost first


@dataclass(frozen=True, slots=True)
class Line:
    """One line of a slice.

    ``kind`` is ``chain`` (a chain is entered, or gone back to), ``rule`` (it matched), ``open`` (it cannot be told
    whether it matches), ``skipped`` (``count`` rules that did not match), ``policy``, ``place`` (routing, conntrack and
    the like), ``otherwise`` or ``outcome``.  ``where`` is the step's, of a chain ``TABLE CHAIN``.  ``text`` is the rule
    as it was read, ``says`` the sentence.  ``changes`` are what it did to the packet, ``condition`` what this branch
    depends on here.  ``step`` is the id of the (last) step, ``source`` the number of the line that led here, -1 for
    none.  ``branches`` are the numbers, from 1, of the outcomes that this leads to.
    """

    kind: Kind
    depth: int
    where: str
    says: str = ""
    text: str = ""
    changes: str = ""
    condition: str = ""
    verdict: str = ""
    step: int = -1
    source: int = -1
    branches: tuple[int, ...] = ()
    count: int = 0


@dataclass(frozen=True, slots=True)
class Slice:
    """The lines of a walk; ``of`` is its number of outcomes."""

    lines: tuple[Line, ...]
    of: int

    @property
    def chains(self) -> tuple[tuple[str, str], ...]:
        """(table, chain) of each chain that was entered, once, in order."""
        places = [line.where.split() for line in self.lines if line.kind == "chain"]
        return tuple(dict.fromkeys((table, chain) for table, chain in places))

    def leads_to(self, line: Line) -> str:
        """The branches that a line is in, as words: "" for all of them, ``1``, ``2–4, 7``."""
        return "" if len(line.branches) == self.of else in_runs(line.branches)


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a branch stands: ``base`` is its depth, ``floor`` the number of frames above it, None until it is known."""

    base: int = 0
    floor: int | None = None
    frames: _Frames = ()
    source: int = -1
    verdict: str = ""
    is_fresh: bool = False

    def below(self, depth: int) -> "_Way":
        """The same way, a branch of its own from here on."""
        return replace(self, base=depth, floor=None, is_fresh=True)

    @property
    def chain_depth(self) -> int:
        return self.base + max(0, len(self.frames) - 1 - (self.floor or 0))


@dataclass(frozen=True, slots=True)
class _Turn:
    """A step to come: ``role`` is ``only``, or ``first`` or ``last`` of several answers."""

    step: Step
    way: _Way
    role: _Role
    condition: str


def slice_of(trace: Trace, ruleset: Ruleset) -> Slice:
    """The slice of ``trace``, a walk of ``ruleset``; no lines for a trace without steps."""
    return Slice(tuple(_Slicer(trace, ruleset).lines()), len(trace.outcomes))


def in_runs(numbers: Sequence[int]) -> str:
    """``1–3, 5`` for 1, 2, 3, 5."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}–{last}" for first, last in runs)


def place_of(where: str) -> tuple[str, str, range] | None:
    """(table, chain, numbers) of a step at a rule, or at a run of rules; None for any other step."""
    words = where.split()
    if len(words) != 3 or words[0] not in BASE_CHAINS or not (found := _NUMBER.fullmatch(words[2])):
        return None
    return words[0], words[1], range(int(found[1]), int(found[2] or found[1]) + 1)


def branches_of(trace: Trace) -> dict[int, list[int]]:
    """The numbers, from 1, of the outcomes that each step leads to."""
    found: dict[int, list[int]] = {}
    for number, outcome in enumerate(trace.outcomes, 1):
        for step in trace.branch(outcome):
            found.setdefault(step.id, []).append(number)
    return found


def changes(step: Step) -> str:
    """What a step changed of the packet: ``mark 0x0 → 0x4000``."""
    before = dict(step.before)
    found = [f"{name} {before.get(name, 'none')} → {value}" for name, value in step.after if before.get(name) != value]
    return ", ".join(found)


class _Slicer:
    def __init__(self, trace: Trace, ruleset: Ruleset) -> None:
        self._trace, self._ruleset = trace, ruleset
        self._children: dict[int, list[Step]] = {}
        for step in trace.steps:
            self._children.setdefault(step.parent, []).append(step)
        self._ends: dict[int, list[int]] = {}
        self._depends: dict[int, frozenset[str]] = {}
        self._branches = branches_of(trace)
        for number, outcome in enumerate(trace.outcomes, 1):
            self._ends.setdefault(outcome.step, []).append(number)
            depends = frozenset(outcome.depends_on)
            for step in trace.branch(outcome):
                self._depends[step.id] = self._depends.get(step.id, depends) & depends
        self._sentences: dict[str, str] = {}
        self._lines: list[Line] = []

    def lines(self) -> list[Line]:
        """Depth first without recursion: a Service with a thousand endpoints branches a thousand deep."""
        for number in self._ends.get(-1, ()):
            self._outcome(number, _Way())
        todo = [*self._alternatives(-1, _Way())][::-1]
        while todo:
            turn = todo.pop()
            way = self._step(turn)
            for number in self._ends.get(turn.step.id, ()):
                self._outcome(number, way)
            todo += [*self._alternatives(turn.step.id, way)][::-1]
        return self._lines

    def _alternatives(self, parent: int, way: _Way) -> Iterator[_Turn]:
        """The steps that follow ``parent``: one, or one for each answer to a question, "no" the last."""
        found = sorted(self._children.get(parent, []), key=lambda step: step.matched is False)
        given = self._depends.get(parent, frozenset())
        chains = {place[:2] if (place := place_of(step.where)) else None for step in found}
        if len(found) > 1 and len(chains) == 1 and (chain := chains.pop()):
            way = self._enter(found, way, chain)
        for step in found:
            role: _Role = "only" if len(found) == 1 else "last" if step is found[-1] else "first"
            yield _Turn(step, way, role, "" if role == "only" else self._condition(step, given))

    def _condition(self, step: Step, given: frozenset[str]) -> str:
        parts = [on_condition(item) for item in sorted(self._depends.get(step.id, frozenset()) - given)]
        place = place_of(step.where)
        if place is not None and len(place[2]) == 1 and step.matched is not None:
            option = self._ruleset.rule(step.where).option("--probability")
            if option is not None:
                probability = float(option.values[0])
                parts.insert(0, chance(probability if step.matched else 1 - probability))
        return ", ".join(parts)

    def _step(self, turn: _Turn) -> _Way:
        """Add a step's lines; where its branch goes on."""
        step, way, condition = turn.step, turn.way, turn.condition
        place = place_of(step.where)
        is_no = step.matched is False and turn.role != "only"
        if is_no or turn.role == "last":
            way = self._otherwise(step, way, condition)
            condition, depth = "", self._lines[-1].depth
            if is_no:
                way = replace(way, verdict=step.verdict)
                return way.below(depth + 1) if turn.role == "first" else way
        if place is None:
            way, depth = self._elsewhere(step, way, condition)
        else:
            way = self._enter([step], way, (place[0], place[1]))
            if step.matched is False:
                return self._skipped(step, way, len(place[2]))
            depth = way.chain_depth + 1
            kind: Kind = "open" if step.matched is None else "rule"
            way = self._add(way, self._line(kind, depth, step, condition))
            if not step.verdict.startswith(_GOES_ON):
                way = replace(way, frames=())
        return way.below(depth + 1) if turn.role == "first" else way

    def _line(self, kind: Kind, depth: int, step: Step, condition: str) -> Line:
        says = self._sentence(step)
        return Line(kind, depth, step.where, says, step.what, changes(step), condition, step.verdict, step.id)

    def _otherwise(self, step: Step, way: _Way, condition: str) -> _Way:
        inside = bool(way.frames) and (
            place_of(step.where) is not None or step.where.startswith(("policy ", "return "))
        )
        depth, where = (way.chain_depth + 1, " ".join(way.frames[-1])) if inside else (way.base, "")
        says = f"otherwise ({condition})" if condition else "otherwise"
        return self._add(way, Line("otherwise", depth, where, says, condition=condition, step=step.id))

    def _enter(self, steps: Sequence[Step], way: _Way, chain: tuple[str, str]) -> _Way:
        frames, is_jump = way.frames, way.verdict.startswith("jump ")
        if frames and frames[-1] == chain and not is_jump and not way.is_fresh:
            return way
        says = "entered"
        if is_jump:
            frames, says = (*frames, chain), "jumped to"
        elif way.verdict.startswith("goto "):
            frames, says = (*frames[:-1], chain), "gone to"
        elif chain in frames:
            frames, says = frames[: frames.index(chain) + 1], "goes on"
        else:
            frames = (chain,)
        floor = len(frames) - 1 if way.floor is None and way.is_fresh else min(way.floor or 0, len(frames) - 1)
        way = replace(way, frames=frames, floor=floor, is_fresh=False, verdict="")
        branches = sorted({number for step in steps for number in self._branches.get(step.id, ())})
        line = Line("chain", way.chain_depth, " ".join(chain), says, step=steps[0].id, branches=tuple(branches))
        return self._add(way, line)

    def _skipped(self, step: Step, way: _Way, count: int) -> _Way:
        way = replace(way, verdict=step.verdict)
        last = self._lines[way.source]
        if last.kind == "skipped" and way.source == len(self._lines) - 1:
            count += last.count
            self._lines.pop()
            way = replace(way, source=last.source)
        says = f"{count:,} {'rule' if count == 1 else 'rules'} did not match"
        where = " ".join(way.frames[-1])
        return self._add(way, Line("skipped", way.chain_depth + 1, where, says, step=step.id, count=count))

    def _elsewhere(self, step: Step, way: _Way, condition: str) -> tuple[_Way, int]:
        """Where a branch goes on after a step that is at no rule, and the depth of its line."""
        kind, *chain = step.where.split()
        if kind == "return" and len(chain) == 2:
            return replace(way, verdict=step.verdict), way.chain_depth + 1
        if kind == "policy" and len(chain) == 2:
            if step.verdict == "accept" and not way.frames and not condition:
                return replace(way, verdict=step.verdict), way.base
            way = self._enter([step], way, (chain[0], chain[1]))
            depth = way.chain_depth + 1
            way = self._add(way, self._line("policy", depth, step, condition))
            return replace(way, frames=()), depth
        way = self._add(way, self._line("place", way.base, step, condition))
        return replace(way, frames=()), way.base

    def _outcome(self, number: int, way: _Way) -> None:
        outcome = self._trace.outcomes[number - 1]
        says = outcome_line(outcome)
        line = Line("outcome", way.base, str(number), says, verdict=outcome.verdict, step=outcome.step)
        self._add(way, replace(line, branches=(number,)))

    def _add(self, way: _Way, line: Line) -> _Way:
        branches = line.branches or tuple(self._branches.get(line.step, ()))
        self._lines.append(replace(line, source=way.source, branches=branches))
        moved = replace(way, source=len(self._lines) - 1)
        return replace(moved, verdict=line.verdict) if line.kind in ("rule", "open", "policy", "place") else moved

    def _sentence(self, step: Step) -> str:
        if step.where.startswith("policy "):
            return explain.step(step, self._ruleset)
        if place_of(step.where) is None:
            parts = dict.fromkeys(part for part in (step.what, step.why) if part and part != step.where)
            return f"{step.where.capitalize()}: {', '.join(parts) or step.verdict}."
        if step.where not in self._sentences:
            self._sentences[step.where] = explain.rule(self._ruleset.rule(step.where), self._ruleset)
        return self._sentences[step.where]
