"""Which rules of a chain a walk met, in words.  Leaf, standard library alone."""

from bookinfo_lab.netfilter.slice import branches_of, in_runs, place_of
from bookinfo_lab.trace import Trace

_WORDS = {True: "matched", None: "may have matched", False: "did not match"}


class Met:
    """The rules that a walk met; its steps are sorted by chain once."""

    def __init__(self, trace: Trace) -> None:
        self._of = len(trace.outcomes)
        self._chains: dict[tuple[str, str], list[tuple[range, bool | None, int]]] = {}
        for step in trace.steps:
            if place := place_of(step.where):
                self._chains.setdefault(place[:2], []).append((place[2], step.matched, step.id))
        self._branches = branches_of(trace)

    @property
    def chains(self) -> tuple[tuple[str, str], ...]:
        """(table, chain) of each chain with a rule that was met, in order."""
        return tuple(self._chains)

    def words(self, table: str, chain: str, number: int) -> str:
        """What became of one rule: ``matched``, ``matched in branch 1–2, did not match in branch 3``, ``not met``."""
        found: dict[bool | None, set[int]] = {}
        for numbers, matched, step in self._chains.get((table, chain), ()):
            if number in numbers:
                found.setdefault(matched, set()).update(self._branches.get(step, ()))
        said = [self._said(matched, found[matched]) for matched in (True, None, False) if matched in found]
        return ", ".join(said) or "not met"

    def matched(self, table: str, chain: str) -> tuple[int, ...]:
        """The numbers of the rules that matched in some branch, or may have."""
        met = self._chains.get((table, chain), ())
        return tuple(sorted({number for numbers, matched, _ in met if matched is not False for number in numbers}))

    def _said(self, matched: bool | None, branches: set[int]) -> str:
        all_of_them = len(branches) == self._of or not branches
        return _WORDS[matched] + ("" if all_of_them else f" in branch {in_runs(sorted(branches))}")
