"""Tables at random over everything the walk models: base and user chains, jumps, gotos, policies, all hooks.

Pure.  A user chain belongs to the hooks from which it may be reached, since the kernel checks every rule against them,
and is jumped to only from chains before it: no loops.
"""

import re
from random import Random

from differential import conditions, packets, surroundings, targets
from differential.case import Case, Probe
from differential.draw import Draw

BASE = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
_LIKELY = {"raw": 0.5, "mangle": 0.7, "nat": 0.75, "filter": 0.85, "security": 0.3}
_NAMES = ("A", "B", "CUSTOM", "KUBE-SERVICES", "a.b-c_d", "ISTIO_OUTPUT", "RETURNING", "ACCEPTED", "DOCKER-USER", "x")
_SURROUNDINGS = (
    *(surroundings.PLAIN,) * 4,
    *(surroundings.WIDE,) * 3,
    *(surroundings.MARKED,) * 3,
    surroundings.HOST,
)
_TEMPLATE = re.compile(r"CONNMARK|-m connmark|--ct(?:status|proto|dir|orig)")
_UNANSWERABLE = (" CT ", " NOTRACK", " CONNMARK ")
PROBES = 14


def case(random: Random, name: str, *, maps_owners: bool = True, probes: int = PROBES) -> Case:
    """A ruleset and packets; one in three has rules that chance or state decides."""
    family = random.choice((4, 4, 6))
    where = random.choice(_SURROUNDINGS)
    left = [4 if random.random() < 0.33 else 0]  # open conditions: each may double the outcomes
    parts = [
        _table(random, table, family, left, maps_owners, transparent=bool(where.listeners))
        for table in BASE
        if random.random() < _LIKELY[table]
    ]
    text = "".join(parts)
    if random.random() < 0.4:
        text = "".join(f"{line}\n" for line in text.splitlines() if not any(target in line for target in _UNANSWERABLE))
    sent = [packets.probe(random, family, maps_owners=maps_owners) for _ in range(probes)]
    return Case(name, family, text, answerable(text, sent), where, is_saved=random.random() < 0.3)


def answerable(text: str, sent: list[Probe]) -> tuple[Probe, ...]:
    """``sent``, first packets alone where an answer would be none to conntrack, or change the connection's mark."""
    if any(target in text for target in _UNANSWERABLE):
        return tuple(Probe(probe.flow) for probe in sent)
    return tuple(sent)


def _table(random: Random, table: str, family: int, left: list[int], maps_owners: bool, transparent: bool) -> str:
    base = BASE[table]
    names = random.sample(_NAMES, random.choice((0, 1, 2, 3, 4)))
    users = [(name, _hooks(random, base)) for name in names]
    chains = [(name, frozenset({name})) for name in base] + users
    lines = [f":{name} {_policy(random, table) if name in base else '-'} [0:0]" for name, _ in chains]
    for at, (name, hooks) in enumerate(chains):
        reachable = [
            user for user, its in users if its >= hooks and (name in base or names.index(user) > at - len(base))
        ]
        count = random.choice((0, 1, 2, 3, 4, 5)) if name in base else random.choice((0, 1, 2, 3, 4))
        for _ in range(count):
            proto = random.choice(("", "", "", "tcp", "tcp", "udp", "sctp", "icmp" if family == 4 else "icmpv6"))
            draw = Draw(random, family, proto, maps_owners)
            lines.append(f"-A {name} {_rule(draw, table, hooks, reachable, left, transparent)}".rstrip())
    return table_text(table, lines)


def table_text(table: str, lines: list[str]) -> str:
    """A table's text.

    After ``CT --zone`` and before tracking a packet has a template, which packets share: what CONNMARK, ``-m connmark``
    and ``-m conntrack`` write and read there, the state apart, is left out.
    """
    if table == "raw" and any("CT --zone" in line for line in lines):
        lines = [line for line in lines if not _TEMPLATE.search(line)]
    return f"*{table}\n" + "".join(f"{line}\n" for line in lines) + "COMMIT\n"


def _hooks(random: Random, base: tuple[str, ...]) -> frozenset[str]:
    return frozenset(random.sample(base, random.choice((1, 1, 2, min(3, len(base))))))


def _policy(random: Random, table: str) -> str:
    return (
        "DROP" if random.random() < {"filter": 0.25, "security": 0.12}.get(table, 0.02 * (table != "nat")) else "ACCEPT"
    )


def _rule(
    draw: Draw, table: str, hooks: frozenset[str], reachable: list[str], left: list[int], transparent: bool
) -> str:
    random = draw.random
    needs: dict[str, str] = {}
    if reachable and random.random() < 0.3:
        ends = f"{random.choice(('-j', '-j', '-g'))} {random.choice(reachable)}"
    else:
        found = targets.target(draw, table, hooks, needs)
        if found.startswith("TPROXY") and not transparent:
            found = ""
        ends = f"-j {found}" if found else ""
    if ends in ("-j DROP", "-j ACCEPT") and table in ("raw", "mangle"):
        count = random.choice((2, 3))
    else:
        count = random.choices((0, 1, 2, 3), (12, 55, 23, 10))[0]
    if needs:
        return f"-p {draw.proto} " + " ".join(f"-m {module} {text}" for module, text in needs.items()) + f" {ends}"
    met = conditions.conditions(draw, hooks, count, left=left)
    return f"{met} {ends}".strip()
