"""Tables of many plain rules: each a single condition, or a single target under a port, so that all come up often.

Pure.  Where `arbitrary` looks for what rules do to each other, a drill sees to it that every option holds and fails,
and every target is reached and passed by, many times in a short run.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from typing import Any

from differential import conditions, packets, surroundings, targets
from differential.arbitrary import BASE, answerable, table_text
from differential.case import Case, Probe
from differential.draw import PORT_PROTOCOLS, SOCKET_HOOKS, Draw
from differential.packets import DPORTS
from differential.rule_lines import CHOICE

_PORT_RANGE = re.compile(r"(?::|--to-ports )\d+-\d+")
_PROTOS = {4: ("tcp", "udp", "sctp", "icmp"), 6: ("tcp", "udp", "sctp", "icmpv6")}


def case(random: Random, name: str, *, maps_owners: bool = True, probes: int = 26) -> Case:
    """A drill of conditions or of targets, for packets of one protocol mostly."""
    family = random.choice((4, 4, 6))
    proto = random.choice(_PROTOS[family])
    draw = Draw(random, family, proto, maps_owners)
    where = random.choice((surroundings.PLAIN, surroundings.WIDE, surroundings.MARKED, surroundings.MARKED))
    if random.random() < 0.55:
        text = _of_conditions(draw)
    else:
        text = _of_targets(draw, transparent=bool(where.listeners))
    sent: list[Probe] = []
    while len(sent) < probes:
        probe = packets.probe(random, family, maps_owners=maps_owners)
        if probe.flow.proto == proto or random.random() < 0.05:
            if random.random() < 0.5 and probe.flow.tcp_flags != "SYN":  # a walk is not told of others
                probe = Probe(replace(probe.flow, tcp_flags="SYN"))
            sent.append(probe)
    return Case(name, family, text, answerable(text, sent), where)


class _Deck:
    """Entries in an order at random, plain and negated, or without a flag and with; all come before any does again."""

    def __init__(self, random: Random, cards: list[tuple[Any, float]]) -> None:
        self._random, self._all, self._left = random, cards, list[tuple[Any, float]]()

    def draw(self, fits: Callable[[Any], bool]) -> tuple[Any, float]:
        """The next that fits."""
        for _ in range(2):
            for at, card in enumerate(self._left):
                if fits(card[0]):
                    return self._left.pop(at)
            self._left += self._random.sample(self._all, len(self._all))
        raise LookupError("nothing in the deck fits")


def _of_conditions(draw: Draw) -> str:
    random = draw.random
    deck = _Deck(random, [(entry, doubt) for entry in (*conditions.ENTRIES, None) for doubt in (0.0, 1.0)])
    parts: list[str] = []
    left = 2  # open conditions: each may double the outcomes
    for table, base in BASE.items():
        if random.random() < 0.35:
            continue
        rules = []
        for chain in base:
            for _ in range(random.randint(4, 9)):
                entry, doubt = deck.draw(partial(_fits, draw, chain, left))
                left -= entry is not None and entry.is_open
                rules.append(f"-A {chain} {_condition(replace(draw, doubt=doubt), entry)}")
        if table == "nat":  # something for --ctstate DNAT, SNAT and the ctorig options to tell apart
            for chain in ("PREROUTING", "OUTPUT", "POSTROUTING"):
                found = _target(draw, _targets(random), "nat", chain)
                while CHOICE.search(found):
                    found = _target(draw, _targets(random), "nat", chain)
                rules.append(f"-A {chain} -p {draw.proto}{f' -j {found}' if found else ''}")
        if table == "mangle" and random.random() < 0.7:
            mark = draw.one("0x1", "0x111", "0x4000")
            rules.insert(0, f"-A PREROUTING -p {draw.proto} -j CONNMARK --set-xmark {mark}/0xffffffff")
        if not parts:  # so that lists are not all empty further on
            rules[:0] = [f"-A {chain} {_seen(draw)}" for chain in ("PREROUTING", "OUTPUT") if chain in base]
        parts.append(_table(table, rules))
    return "".join(parts)


def _fits(draw: Draw, chain: str, left: int, entry: conditions.Entry | None) -> bool:
    if entry is None:
        return True
    return (
        (not entry.protos or draw.proto in entry.protos)
        and chain in entry.hooks
        and draw.family in entry.families
        and (draw.maps_owners or entry.hooks is not SOCKET_HOOKS)
        and (left > 0 or not entry.is_open)
    )


def _condition(draw: Draw, entry: conditions.Entry | None) -> str:
    if entry is None:
        return f"{draw.negation()}-p {draw.one(draw.proto, 'tcp', 'udp')}"
    module, option = entry.make(draw)
    proto = f"-p {draw.proto} " if entry.protos else ""
    return f"{proto}{f'-m {module} ' if module else ''}{option}"


def _seen(draw: Draw) -> str:
    mask = "255.255.255.255" if draw.family == 4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    return f"-m recent --set --name A --mask {mask} --rsource"


def _of_targets(draw: Draw, transparent: bool) -> str:
    random = draw.random
    deck = _targets(random)
    parts = []
    for table, base in BASE.items():
        if random.random() < 0.3:
            continue
        rules = []
        if table == "mangle" and transparent and draw.proto in ("tcp", "udp"):
            rules += [f"-A PREROUTING {_met_by_some(draw, '')} -j {targets.tproxy(draw)}" for _ in range(2)]
        for chain in base:
            for _ in range(random.randint(6, 12) if table in ("nat", "filter") else random.randint(2, 5)):
                found = _target(draw, deck, table, chain)
                if found.startswith("TPROXY") and not transparent:
                    continue
                if found in ("DROP", "ACCEPT") and table in ("raw", "mangle") and random.random() < 0.8:
                    continue  # a packet that is gone early tests nothing later
                rules.append(f"-A {chain} {_met_by_some(draw, found)}{f' -j {found}' if found else ''}")
        parts.append(_table(table, rules))
    return "".join(parts)


def _met_by_some(draw: Draw, found: str) -> str:
    syn = " -m tcp --tcp-flags SYN,RST SYN" if found.startswith("TCPMSS") else ""
    if draw.proto not in PORT_PROTOCOLS:
        return f"-p {draw.proto} -d {draw.network()}"
    ports = draw.random.sample(DPORTS, 4)
    return f"-p {draw.proto}{syn} -m multiport --dports {','.join(str(port) for port in ports)}"


def _targets(random: Random) -> _Deck:
    return _Deck(random, [(entry, flags) for entry in targets.ENTRIES for flags in (0.0, 1.0, 1.0)])


def _target(draw: Draw, deck: _Deck, table: str, chain: str) -> str:
    # In nat mostly what no other table has.
    tables = [("nat",)] if table == "nat" and draw.random.random() < 0.7 else []
    entry, flags = deck.draw(
        lambda entry: _has_place(draw, entry, table, chain) and (not tables or entry.tables in tables)
    )
    draw = replace(draw, flags=flags)
    text: str = entry.make(draw)
    while chain in ("PREROUTING", "OUTPUT") and _PORT_RANGE.search(text) and draw.random.random() < 0.95:
        text = entry.make(draw)  # a port that is not known meets every port condition further on
    return text.replace("TTL --ttl-set", "HL --hl-set") if draw.family == 6 else text


def _has_place(draw: Draw, entry: targets.Entry, table: str, chain: str) -> bool:
    return table in entry.tables and chain in entry.hooks and (not entry.protos or draw.proto in entry.protos)


def _table(name: str, rules: list[str]) -> str:
    return table_text(name, [*(f":{chain} ACCEPT [0:0]" for chain in BASE[name]), *rules])
