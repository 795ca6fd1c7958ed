"""The chains behind one entry of a Service, read by what their rules do: who is sent where, marked or not.

Pure.  The rules that dispatch an entry come in; ways, refusals and the chains and rules that were read come out.  Marks
are followed to the rules that act on them: a mark that nothing masquerades is said to be one.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from .mark_actions import dropped_bits, masqueraded_bits
from .rule import Match, Option, Rule
from .ruleset import Ruleset
from .service_ways import Entry, PathEndpoint, Reading, Refusal, Way

_DEPTH = 16  # the kernel refuses rules whose jumps nest deeper


class ChainReader:
    """Reads entries of one ruleset, and each chain of table nat once."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._ruleset = ruleset
        self._chains = frozenset(ruleset.chains("nat")) if "nat" in ruleset.tables else frozenset()
        self._rules: dict[str, tuple[Rule, ...]] = {}
        self.masqueraded_bits, self.dropped_bits = masqueraded_bits(ruleset), dropped_bits(ruleset)

    def rules(self, chain: str) -> tuple[Rule, ...]:
        """The rules of a chain of table nat; none for a chain that is not there."""
        if chain not in self._rules:
            self._rules[chain] = self._ruleset.rules("nat", chain) if chain in self._chains else ()
        return self._rules[chain]

    def is_chain(self, name: str) -> bool:
        """Whether table nat has a chain of that name."""
        return name in self._chains

    def marked_bits(self, chain: str) -> int:
        """The bits that every packet through ``chain`` has set, where it does nothing else; 0 where it does."""
        bits = 0
        for rule in self.rules(chain):
            set_to = rule.target_option("--set-xmark")
            if rule.target != "MARK" or set_to is None or any(match.module != "comment" for match in rule.matches):
                return 0
            bits |= int(set_to.values[0].value & set_to.values[0].mask)
        return bits

    def read(self, entry: Entry, dispatching: Iterable[Rule]) -> Reading:
        """All that the rules say of ``entry``, from the ``dispatching`` rules of one chain on."""
        walk = _Walk(self, entry)
        rules = tuple(dispatching)
        told: list[tuple[str, set[str]]] = []
        for rule in rules[::-1]:
            # kube-proxy counts node ports on loopback by a rule that leads where the next one leads anyway.
            conditions = walk.conditions(rule)
            if conditions is None:
                continue
            when = set(conditions)
            if any(rule.target == target and wider <= when for target, wider in told):
                walk.repeated.add(rule.where)
            told.append((rule.target, when))
        walk.enter("", rules, (), 0)
        return walk.reading()


@dataclass(slots=True)
class _Walk:
    reader: ChainReader
    entry: Entry
    repeated: set[str] = field(default_factory=set)
    _ways: list[Way] = field(default_factory=list)
    _complete: list[set[str]] = field(default_factory=list)
    _refusals: list[Refusal] = field(default_factory=list)
    _chains: dict[str, None] = field(default_factory=dict)
    _rules: dict[str, Rule] = field(default_factory=dict)
    _ranges: dict[str, None] = field(default_factory=dict)
    _unclear: dict[str, None] = field(default_factory=dict)
    _marks: list[tuple[tuple[str, ...], int]] = field(default_factory=list)

    def reading(self) -> Reading:
        return Reading(
            tuple(self._ways),
            tuple(self._refusals),
            tuple(self._chains),
            tuple(self._rules.values()),
            tuple(self._ranges),
            tuple(self._unclear),
        )

    def enter(self, chain: str, rules: Iterable[Rule], held: tuple[str, ...], depth: int) -> None:
        """Follow ``rules`` of ``chain`` for packets for which all of ``held`` holds."""
        if chain:
            self._chains[chain] = None
        choosing: dict[tuple[str, ...], _Choice] = {}
        for rule in rules:
            own = self.conditions(rule)
            if own is None or rule.where in self.repeated:
                continue
            self._rules[rule.where] = rule
            when = held + tuple(item for item in own if item not in held)
            if chain.startswith("KUBE-FW-") and rule.target:
                self._ranges |= dict.fromkeys(item for item in when if item not in held)
            begun = choosing.get(held)
            if begun and begun.endpoints and (begun.left == 0.0 or when != held):
                # Nothing gets past a last endpoint; who is told from others only then has no way of his own.
                if begun.left and rule.target:
                    self._unclear[rule.where] = None
                continue
            choice = choosing.setdefault(when, _Choice())
            if not choice.endpoints:
                choosing[when] = choosing.pop(when)  # ways stand in the order of their first endpoints
            if not self._take(rule, choice):
                if choice.endpoints and rule.target:
                    self._unclear[rule.where] = None
                else:
                    self._follow(rule, when, depth)
        for when, choice in choosing.items():
            if choice.endpoints and not self._is_over(when):
                self._ways.append(
                    Way(when, self._masquerade(when, choice), chain, tuple(choice.endpoints), choice.affinity_s)
                )
                self._complete.append(set(when))
                if choice.left:
                    self._unclear[choice.last] = None

    def _take(self, rule: Rule, choice: "_Choice") -> bool:
        """Whether ``rule`` chooses an endpoint."""
        endpoint = self._endpoint(rule)
        if endpoint is None:
            return False
        self._chains[endpoint.chain] = None
        affinity, share = rule.option("--rcheck"), rule.option("--probability")
        if affinity:
            seconds = rule.option("--seconds")
            choice.affinity_s = int(seconds.values[0]) if seconds else 0
        else:
            part = float(share.values[0]) if share else 1.0
            taken = choice.left * (1.0 - part if share and share.negated else part)
            choice.left = choice.left - taken if share else 0.0
            ip, port, chain, hairpin = endpoint.ip, endpoint.port, endpoint.chain, endpoint.hairpin
            choice.endpoints.append(PathEndpoint(ip, port, taken, chain, hairpin))
            choice.last = rule.where
        return True

    def _endpoint(self, rule: Rule) -> PathEndpoint | None:
        """The endpoint to which ``rule`` leads by itself or by a chain that has nothing but one."""
        if any(match.module == "statistic" and not match.option("--probability") for match in rule.matches):
            return None
        rules, chain = ((rule,), rule.chain) if rule.target == "DNAT" else (self.reader.rules(rule.target), rule.target)
        translation = rules[-1] if rules and rules[-1].target == "DNAT" else None
        if translation is None or not all(self.reader.marked_bits(item.target) for item in rules[:-1]):
            return None
        if translation is not rule and self.conditions(translation) != ():
            return None
        option = translation.target_option("--to-destination")
        to = option.values[0] if option else None
        if to is None or to.first is None or to.first != (to.last or to.first):
            self._unclear[translation.where] = None
            return None
        hairpin = False
        for item in rules:
            self._rules[item.where] = item
            source = item.option("-s")
            if self.reader.marked_bits(item.target) & self.reader.masqueraded_bits and source:
                hairpin = not source.negated and to.first in source.values[0]
        port = to.ports.first if to.ports else self.entry.port
        return PathEndpoint(str(to.first), port, 0.0, chain, hairpin)

    def _follow(self, rule: Rule, when: tuple[str, ...], depth: int) -> None:
        bits = self.reader.marked_bits(rule.target)
        if rule.target == "" or self._is_over(when):
            return
        if any(match.module in ("statistic", "recent") for match in rule.matches) or rule.target == "RETURN":
            self._unclear[rule.where] = None
        elif bits & self.reader.dropped_bits:
            self._refuse(rule, "DROP", when)
        elif bits:
            self._chains[rule.target] = None
            self._rules |= {item.where: item for item in self.reader.rules(rule.target)}
            self._marks.append((when, bits))
        elif rule.target in ("DROP", "REJECT"):
            self._refuse(rule, rule.target, when)
        elif self.reader.is_chain(rule.target) and depth < _DEPTH:
            self.enter(rule.target, self.reader.rules(rule.target), when, depth + 1)
        else:
            self._unclear[rule.where] = None

    def _refuse(self, rule: Rule, verdict: str, when: tuple[str, ...]) -> None:
        answer = rule.target_option("--reject-with")
        self._refusals.append(Refusal(verdict, str(answer.values[0]) if answer else "", rule.comment, rule.where))
        self._complete.append(set(when))

    def _is_over(self, when: tuple[str, ...]) -> bool:
        """Whether every packet for which ``when`` holds has been sent its way before."""
        return any(taken <= set(when) for taken in self._complete)

    def _masquerade(self, when: tuple[str, ...], choice: "_Choice") -> str:
        hairpin = all(item.hairpin for item in choice.endpoints)
        told = []
        for marked, bits in self._marks:
            rest = [item for item in marked if item not in when]
            taken = any(way <= set(marked) for way in self._complete)
            if taken or any(_opposite(item) in when for item in rest):
                continue
            if not bits & self.reader.masqueraded_bits:
                told.append(f"marked {bits:#x}, which nothing masquerades")
            elif not rest:
                return "always"
            else:
                told.append(" and ".join(_from(item) for item in rest))
        return ", or ".join(told) or ("hairpin only" if hairpin else "never")

    def conditions(self, rule: Rule) -> tuple[str, ...] | None:
        """What ``rule`` asks beyond what the entry has; None where the entry's packets never match it."""
        found: list[str] = []
        for match in rule.matches:
            for option in match.options:
                fits = self._fits(option)
                if fits is False:
                    return None
                if fits is None:
                    found += _words(match, option)
        return tuple(found)

    def _fits(self, option: Option) -> bool | None:
        """Whether the entry decides an option; None where it does not."""
        if option.name == "-p":
            return (str(option.values[0]) in (self.entry.protocol, "all")) != option.negated
        if option.name in ("--dport", "--dports"):
            return any(item.first <= self.entry.port <= item.last for item in option.values) != option.negated
        if option.name == "-d":
            network = option.values[0]
            if self.entry.address is not None:
                return (self.entry.address in network) != option.negated
            # A Service's own address is not one of the node's.
            return option.negated if network.prefixlen == network.max_prefixlen else None
        if option.name == "--dst-type" and self.entry.address is None and not option.negated:
            return True if "LOCAL" in _flat(option) else None
        return None


@dataclass(slots=True)
class _Choice:
    endpoints: list[PathEndpoint] = field(default_factory=list)
    left: float = 1.0
    affinity_s: int = 0
    last: str = ""  # the last rule that chose


_SILENT = ("comment", "nfacct", "statistic", "recent")  # they tell no packet from another, or are followed elsewhere


def _words(match: Match, option: Option) -> Iterator[str]:
    if match.module in _SILENT:
        return
    no = "not " if option.negated else ""
    if option.name == "-s":
        yield f"{no}{option.values[0]}"
    elif option.name == "-d":
        yield f"{no}to {option.values[0]}"
    elif option.name == "--src-type" and _flat(option) == ("LOCAL",):
        yield f"{no}this node"
    elif option.name == "--dst-type" and _flat(option) == ("LOCAL",):
        yield f"{no}to an address of this node"
    elif option.name == "--physdev-is-in":
        yield f"{no}in by a bridge's port"
    else:
        yield f"{no}{match.module} {option.name} {' '.join(_flat(option))}".strip()


def _flat(option: Option) -> tuple[str, ...]:
    values = (item if isinstance(item, tuple) else (item,) for item in option.values)
    return tuple(str(item) for value in values for item in value)


def _opposite(condition: str) -> str:
    return condition.removeprefix("not ") if condition.startswith("not ") else f"not {condition}"


def _from(condition: str) -> str:
    return f"from outside {condition[4:]}" if condition.startswith("not ") else f"from {condition}"
