"""Cases run: rules loaded, packets sent, the walk asked, the two compared.

Edge.  The only module that calls the package under test: `parse`, `facts`, `Ruleset.walk`.  Whatever the walk raises is
a disagreement, since every case here is one that the kernel takes.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from differential import surroundings
from differential.case import Case, Probe, Surroundings
from differential.comparison import difference, reply_difference
from differential.prediction import Prediction, packet_of, predictions
from differential.rule_lines import Chains, chains, examined
from differential.tally import Tally
from kernel.flow import LoadError, Observation, Refused
from kernel.room import Room

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter.facts import Facts, facts
from bookinfo_lab.netfilter.ruleset import Ruleset, parse


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A probe for which the walk and the kernel differ, with everything needed to see it again."""

    case: Case
    probe: Probe
    said: str
    predicted: tuple[Prediction, ...]
    seen: Observation | None


@dataclass(slots=True)
class Report:
    """Counts of a run; ``open_flows`` are those in whose way chance or state decides."""

    flows: int = 0
    cases: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    incomplete: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    outcomes: int = 0
    open_flows: int = 0
    open_outcomes: int = 0
    unasked: int = 0
    unknown: int = 0
    unknown_why: Counter[str] = field(default_factory=Counter)
    disagreements: list[Disagreement] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    def merge(self, other: "Report") -> None:
        """Add what another part of the same run found."""
        for name in ("flows", "cases", "outcomes", "open_flows", "open_outcomes", "unasked", "unknown"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in ("refused", "incomplete", "kinds", "verdicts", "unknown_why"):
            getattr(self, name).update(getattr(other, name))
        self.disagreements += other.disagreements
        self.tally.merge(other.tally)


class Stand:
    """A room with what stands in it, and what the walk is told of it."""

    def __init__(self, room: Room) -> None:
        self.room = room
        self._present: Surroundings = surroundings.PLAIN
        self._facts: dict[tuple[Surroundings, int], Facts] = {}

    def load(self, case: Case) -> Ruleset:
        """Load the case's rules; the ruleset that the walk reads."""
        surroundings.settle(self.room, case.surroundings, self._present)
        self._present = case.surroundings
        self.room.load(case.text, case.family)
        text = case.text
        if case.is_saved:
            tool = "iptables-nft-save" if case.family == 4 else "ip6tables-nft-save"
            text = self.room.run(tool, "-c")
        key = case.surroundings, case.family
        if key not in self._facts:
            self._facts[key] = facts(**surroundings.described(self.room, case.family))
        return parse(text, facts=self._facts[key])

    def judge(self, case: Case, rules: Ruleset, lines: Chains, probe: Probe) -> "Judged":
        """Send the probe and ask the walk.  Raises `Refused` for what cannot be sent."""
        seen = self.room.send(probe.flow, probe.direction)
        return judged(rules, lines, probe, seen, surroundings.own(case.surroundings))


@dataclass(frozen=True, slots=True)
class Judged:
    """A probe's observation, the predictions, what is wrong with them, and the rules that the packet met."""

    seen: Observation
    predicted: tuple[Prediction, ...]
    wrong: str
    is_open: bool
    met: list[tuple[str, str, int, bool]]
    is_asked: bool = True


def judged(
    rules: Ruleset,
    lines: Chains,
    probe: Probe,
    seen: Observation,
    own: Collection[str],
    *,
    is_any_open: bool | None = None,
    absent: Collection[tuple[str, str]] = (),
) -> Judged:
    """What the walk through ``rules`` says of a probe, beside what the kernel did with it.

    ``lines`` are the same rules' words, ``own`` the device's addresses; ``is_any_open`` says whether one of the rules
    stands open, where that is known already.  ``absent`` are base chains that iptables-save prints although the kernel
    has none of that name, since no rule was ever in it: their policies are not seen.
    """
    asked = packet_of(probe.flow, seen, probe.direction)
    met = examined(seen.visits, lines) if seen.complete else []
    if asked is None or not seen.complete:
        return Judged(seen, (), "", False, met, is_asked=False)
    try:
        said = tuple(_without(absent, item) for item in predictions(rules.walk(asked)))
    except Exception as error:  # noqa: BLE001 - whatever the walk raises is what this test is there to find
        return Judged(seen, (), f"the walk raised {type(error).__name__}: {error}", False, met)
    on_its_way = [lines[table, chain][number - 1] for table, chain, number, _ in met]
    is_open = any(line.is_open for line in on_its_way)
    if asked.ct_state != "new":  # a walk is not told what flags such a packet carries
        is_open = is_open or any(line.is_undecided(("--tcp-flags", "--syn")) for line in on_its_way)
    if probe.direction != "first" and not is_open:
        is_open = any_open(lines) if is_any_open is None else is_any_open
    return Judged(seen, said, _wrong(probe, seen, said, is_open, own), is_open, met)


def _without(absent: Collection[tuple[str, str]], given: Prediction) -> Prediction:
    passed = (item for item in given.passed if item.place[0] != "policy" or item.place[1:3] not in absent)
    return replace(given, passed=tuple(passed)) if absent else given


def any_open(lines: Chains) -> bool:
    """Whether one of the rules stands open."""
    return any(line.is_open for chain in lines.values() for line in chain)


def _wrong(
    probe: Probe, seen: Observation, predicted: tuple[Prediction, ...], is_open: bool, own: Collection[str]
) -> str:
    compare = reply_difference if probe.direction == "reply" else difference
    differences = [compare(item, seen, own) for item in predicted]
    if all(differences):
        return " | ".join(dict.fromkeys(differences)) or "no outcome is predicted"
    total = sum(item.probability for item in predicted)
    if not is_open and len(predicted) != 1:
        depends = {text for item in predicted for text in item.outcome.depends_on}
        return f"{len(predicted)} outcomes where nothing is open: {'; '.join(sorted(depends))}"
    if not any(item.outcome.depends_on for item in predicted) and abs(total - 1) > 1e-6:
        return f"probabilities add up to {total}"
    return ""


def run(
    stand: Stand,
    cases: Iterable[Case],
    report: Report,
    *,
    flows: int,
    most: int = 1,
) -> Report:
    """Run cases until ``flows`` packets were compared or ``most`` disagreements found."""
    for case in cases:
        if report.flows >= flows or len(report.disagreements) >= most:
            return report
        report.cases += 1
        lines = chains(case.text)
        rules = stand.load(case)
        for probe in case.probes:
            try:
                judged = stand.judge(case, rules, lines, probe)
            except Refused as refused:
                report.refused[str(refused).partition(":")[0]] += 1
                continue
            if not judged.seen.complete:
                report.incomplete[judged.seen.why] += 1
                continue
            if not judged.is_asked:
                report.unasked += 1
                continue
            _count(report, case, probe, judged, lines)
            if judged.wrong:
                said = Disagreement(case, probe, judged.wrong, judged.predicted, judged.seen)
                report.disagreements.append(said)
                break
    return report


def _count(report: Report, case: Case, probe: Probe, judged: Judged, lines: Chains) -> None:
    report.flows += 1
    report.kinds[f"{case.name.split('/')[0]} {probe.direction}"] += 1
    report.verdicts[judged.seen.verdict] += 1
    if judged.is_open:
        report.open_flows += 1
        report.open_outcomes += len(judged.predicted)
    report.outcomes += len(judged.predicted)
    if any(item.verdict == "unknown" for item in judged.predicted):
        report.unknown += 1
        report.unknown_why[next(item.outcome.why for item in judged.predicted if item.verdict == "unknown")] += 1
    if probe.direction != "reply":
        report.tally.add(judged.met, lines, probe.flow)


def shrink(stand: Stand, found: Disagreement, *, rounds: int = 300) -> Disagreement:
    """The same kind of disagreement with as few rules as it takes; chance is given three tries each time."""
    text = found.case.text
    best = replace(found, case=replace(found.case, probes=(found.probe,)))
    kept = [number for number, line in enumerate(text.splitlines()) if line.startswith("-A ")]
    size = max(len(kept) // 2, 1)
    while rounds > 0:
        start, dropped = 0, False
        while start < len(kept) and rounds > 0:
            rounds -= 1
            fewer = kept[:start] + kept[start + size :]
            smaller = _still(stand, found, _only(text, fewer))
            if smaller is None:
                start += size
            else:
                best, kept, dropped = smaller, fewer, True
        if size == 1 and not dropped:
            break
        size = max(size // 2, 1)
    return best


def _still(stand: Stand, found: Disagreement, text: str) -> Disagreement | None:
    case = replace(found.case, text=text, probes=(found.probe,))
    try:
        rules = stand.load(case)
    except (LoadError, LabError):  # what does not load is no smaller case of the same
        return None
    lines = chains(case.text)
    for _ in range(3):
        try:
            judged = stand.judge(case, rules, lines, found.probe)
        except Refused:
            return None
        if judged.seen.complete and kind(judged.wrong) == kind(found.said):
            return Disagreement(case, found.probe, judged.wrong, judged.predicted, judged.seen)
    return None


def kind(said: str) -> str:
    """What kind of disagreement it is: its words without names and numbers."""
    first = said.partition(" | ")[0]
    return re.sub(r"\b(?:rule|policy) \S+ \S+(?: \d+)?|\S*\d\S*", "#", first)


def _only(text: str, kept: Sequence[int]) -> str:
    """``text`` with those rules alone, and without the tables and user chains that this leaves of no use."""
    there = set(kept)
    lines = [line for at, line in enumerate(text.splitlines()) if not line.startswith("-A ") or at in there]
    rules = [line for line in lines if line.startswith("-A ")]
    named = {word for line in rules for word in line.split()}
    lines = [line for line in lines if not line.endswith(" - [0:0]") or line[1:].split()[0] in named]
    parts = "".join(f"{line}\n" for line in lines).split("COMMIT\n")
    return "".join(f"{part}COMMIT\n" for part in parts if "\n-A " in part or " DROP " in part)
