"""Packets sent through the nodes' real rules, and each walk's prediction beside the kernel's own trace of its packet.

`observed` is the edge: it sends, and keeps what the kernel said.  `judge` is pure: it asks the walk and compares, with
the same comparison as the differential test, so that the same observations can be judged by other rules too.
"""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from random import Random

import judge_packets
from differential.case import Probe
from differential.rule_lines import Chains, Line, chains
from differential.running import any_open, judged
from differential.tally import BASES
from judge_cluster import World
from judge_packets import Sent
from judge_posts import Post, posts
from judge_services import LISTENING
from judge_watch import Seen
from kernel.flow import Observation

from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.show.listing import Rules

_HASH = re.compile(r"-[A-Z2-7]{16}$")


@dataclass(frozen=True, slots=True)
class Observed:
    """A packet of a connection and what the kernel of ``node`` did with it."""

    node: str
    origin: str
    probe: Probe
    seen: Observation


@dataclass(frozen=True, slots=True)
class Run:
    """Packets; each node's rules as iptables-save prints them, its facts, and the base chains that its kernel has."""

    packets: tuple[Observed, ...]
    texts: dict[str, str]
    facts: dict[str, Facts]
    base_chains: dict[str, set[tuple[str, str]]]


@dataclass(slots=True)
class Judgement:
    """Counts, and each wrong prediction in words; ``skipped`` are packets of which the kernel did not tell enough."""

    packets: int = 0
    directions: Counter[str] = field(default_factory=Counter)
    origins: Counter[str] = field(default_factory=Counter)
    protocols: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    unknown: Counter[str] = field(default_factory=Counter)
    open_packets: int = 0
    branches: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    @property
    def unknown_share(self) -> float:
        """Of all packets, those of which a walk says in some branch that it does not know."""
        return sum(self.unknown.values()) / max(self.packets, 1)

    def __str__(self) -> str:
        def words(counts: Counter[str]) -> str:
            return ", ".join(f"{count} {what}" for what, count in counts.most_common()) or "none"

        return (
            f"{self.packets} packets ({words(self.directions)}; {words(self.origins)}; {words(self.protocols)}): "
            f"{len(self.wrong)} wrong; {words(self.verdicts)}; "
            f"{self.kinds.total()} rules of {len(self.kinds)} kinds matched; "
            f"{self.open_packets} packets in {self.branches} branches; "
            f"unknown {self.unknown_share:.2%} ({words(self.unknown)}); not judged: {words(self.skipped)}"
        )


def observed(world: World, seed: str, count: int) -> Run:
    """What the kernel did with ``count`` packets, their connections' next packets, and their answers."""
    # Read before there is a table of the tests' own on the nodes, which a walk would have to know.
    read = {node: world.rules(node) for node in world.ground.nodes}
    texts = {node: item.text for node, item in read.items()}
    facts = {node: _facts(item) for node, item in read.items()}
    veths = {name: _way(facts[node], address) for name, (address, node) in world.pods.items()}
    every = judge_packets.targets(world.services, world.ground)
    sent = judge_packets.packets(Random(seed), count, every, world.ground, world.pods, veths)
    with posts(world) as (pods, nodes):
        before = {name: post("rule_numbers") for name, post in nodes.items()}
        macs = {name: post("interfaces") for name, post in nodes.items()}
        found = tuple(item for one in sent for item in _observed(one, {**pods, **nodes}, macs, world))
        base_chains = {name: post("base_chains") for name, post in nodes.items()}
        is_still = {name: post("rule_numbers") for name, post in nodes.items()} == before
    for node, numbers in before.items():
        counted = Counter((table, chain) for table, chain, _ in numbers)
        is_still = is_still and counted == Counter(
            {at: len(lines) for at, lines in chains(texts[node]).items() if lines}
        )
    assert is_still, "kube-proxy wrote rules meanwhile: the cluster is not at rest"
    return Run(found, texts, facts, base_chains)


def _facts(rules: Rules) -> Facts:
    found = rules.ruleset.facts
    assert found is not None
    return found


def _way(facts: Facts, address: str) -> str:
    """The interface to a pod of that node."""
    return next(item.interface for item in facts.routes or () if str(item.network) == f"{address}/32")


def _observed(sent: Sent, every: dict[str, Post], macs: dict[str, dict[str, str]], world: World) -> list[Observed]:
    watcher, sender = every[sent.node], every[sent.post]
    addresses = [address for pods in world.ground.pods for address in pods]
    answering = {(address, port, proto) for address in addresses for port in LISTENING for proto in ("tcp", "udp")}
    flow = sender("with_port", sent.flow)
    watcher("clear")
    error = ""
    try:
        if sent.origin == "frame":
            sender("send_frame", flow, "eth0", macs[sent.node]["eth0"])
        elif sent.origin == "node" or sent.goes_on:
            error = sender("send_socket", flow)
        else:
            sender("send_raw", flow)
        seen: Seen = watcher("seen", flow, False, error, answering)
        first = seen.first
        if flow.src is None and first.sent is not None:
            flow = replace(flow, src=first.sent.src)
        found = [Observed(sent.node, sent.origin, Probe(flow), first)]
        if seen.answer is not None:
            found.append(Observed(sent.node, sent.origin, Probe(flow, "reply"), seen.answer))
        is_there = seen.answer is not None and seen.answer.complete
        if sent.goes_on and is_there:
            watcher("clear")
            if not sender("go_on", flow):
                seen = watcher("seen", flow, True, "", ())
                found.append(Observed(sent.node, sent.origin, Probe(flow, "established"), seen.first))
    finally:
        sender("end")
    return found


def _absent(lines: Chains, there: Collection[tuple[str, str]]) -> set[tuple[str, str]]:
    """The base chains without a rule that the kernel does not have."""
    return {place for place, rules in lines.items() if place[1] in BASES and not rules} - set(there)


def _kind(table: str, chain: str, line: Line) -> str:
    """``TABLE CHAIN TARGET`` without the hashes, and what of chance or memory decides."""
    by = " by recent" if "--rcheck" in line.text else " by chance" if "--probability" in line.text else ""
    return f"{table} {_HASH.sub('', chain)} {_HASH.sub('', line.target)}{by}"


def judge(run: Run, texts: dict[str, str] | None = None, most: int | None = None) -> Judgement:
    """The walks through the nodes' rules, or through ``texts`` instead, beside what was observed.

    Ends after ``most`` wrong ones.
    """
    found = Judgement()
    texts = texts or run.texts
    rules = {node: parse(text, facts=run.facts[node]) for node, text in texts.items()}
    own = {node: {str(item.address) for item in facts.addresses or ()} for node, facts in run.facts.items()}
    lines = {node: chains(text) for node, text in texts.items()}
    is_open = {node: any_open(item) for node, item in lines.items()}
    absent = {node: _absent(item, run.base_chains[node]) for node, item in lines.items()}
    for one in run.packets:
        if not one.seen.complete:
            is_elsewhere = one.probe.direction == "reply" and not one.seen.visits
            found.skipped["an answer took another way" if is_elsewhere else one.seen.why] += 1
            continue
        said = judged(
            rules[one.node],
            lines[one.node],
            one.probe,
            one.seen,
            own[one.node],
            is_any_open=is_open[one.node],
            absent=absent[one.node],
        )
        if not said.is_asked:
            found.skipped["its source is not known"] += 1
            continue
        found.packets += 1
        found.directions[one.probe.direction] += 1
        found.origins[f"from a {one.origin}"] += 1
        found.protocols[one.probe.flow.proto] += 1
        found.verdicts[one.seen.verdict] += 1
        found.kinds.update(
            _kind(table, chain, lines[one.node][table, chain][number - 1]) for table, chain, number in one.seen.matched
        )
        if len(said.predicted) > 1:
            found.open_packets += 1
            found.branches += len(said.predicted)
        unknown = next((item.outcome.why for item in said.predicted if item.verdict == "unknown"), "")
        if unknown:
            found.unknown[unknown] += 1
        if said.wrong:
            found.wrong.append(f"{one.node}, {one.probe}: {said.wrong}; seen: {one.seen}")
            if len(found.wrong) == most:
                break
    return found
