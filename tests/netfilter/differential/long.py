"""Chains of many rules that differ in ``-d`` or ``--dport``, and look alike in every way that could mislead an index.

Pure.  A node with many Services has such chains; whoever sorts them by address and port must not lose a rule.
"""

from random import Random

from differential import packets, surroundings
from differential.arbitrary import BASE
from differential.case import Case
from differential.draw import Draw
from differential.packets import DPORTS, POOLS

_RULES = (66, 130)


def case(random: Random, name: str, *, maps_owners: bool = True, probes: int = 24) -> Case:
    """One or two long chains, of a base chain and of a user's."""
    family = random.choice((4, 4, 6))
    parts = []
    for table, base in (("nat", ("PREROUTING", "OUTPUT")), ("filter", ("INPUT", "FORWARD", "OUTPUT"))):
        if table == "filter" and random.random() < 0.5:
            continue
        lines = [f":{chain} ACCEPT [0:0]" for chain in BASE[table]] + [":LONG - [0:0]", ":TAKEN - [0:0]"]
        lines += [f"-A {chain} -j LONG" for chain in base]
        lines += [f"-A LONG {_rule(random, family, table)}" for _ in range(random.randint(*_RULES))]
        lines += ["-A TAKEN -p tcp", f"-A TAKEN {'-p udp ' if random.random() < 0.5 else ''}-j RETURN"]
        parts.append("".join(f"{line}\n" for line in (f"*{table}", *lines, "COMMIT")))
    sent = tuple(packets.probe(random, family, maps_owners=maps_owners) for _ in range(probes))
    return Case(name, family, "".join(parts), sent, surroundings.PLAIN, is_saved=random.random() < 0.5)


def _rule(random: Random, family: int, table: str) -> str:
    proto = random.choice(("tcp", "tcp", "udp", "sctp"))
    draw = Draw(random, family, proto)
    one = 32 if family == 4 else 128
    port = random.choice((*DPORTS, *range(100, 130)))
    address = draw.address() if random.random() < 0.6 else _another(random, family)
    words = []
    if random.random() < 0.12:
        words.append(f"{draw.negation()}-s {draw.network()}")
    kind = random.random()
    if kind < 0.55:
        words.append(f"-d {address}/{one}")
    elif kind < 0.6:
        words.append(f"! -d {address}/{one}")
    elif kind < 0.65:
        words.append(f"-d {draw.network()}")
    words.append(f"-p {proto}")
    if random.random() < 0.3:
        words.append(
            f'-m comment --comment "{draw.one("web --dport 80 ", "-d 10.2.0.2/32 ", "! --dport 53", "it is")}"'
        )
    kind = random.random()
    if kind < 0.7:
        words.append(f"-m {proto} --dport {port}")
    elif kind < 0.75:
        words.append(f"-m {proto} ! --dport {port}")
    elif kind < 0.8:
        words.append(f"-m {proto} --dport {draw.ports()}")
    elif kind < 0.85:
        words.append(f"-m multiport --dports {port},{random.choice(DPORTS)}")
    elif kind < 0.9:
        words.append(f"-m {proto} --sport {draw.source_port()} --dport {port}")
    words.append(_target(draw, table))
    return " ".join(word for word in words if word)


def _another(random: Random, family: int) -> str:
    return f"10.96.0.{random.randint(1, 250)}" if family == 4 else f"fd00:96::{random.randint(1, 9999):x}"


def _target(draw: Draw, table: str) -> str:
    kinds = ["", "", "", "-j TAKEN", "-j TAKEN", "-g TAKEN", "-j MARK --set-xmark 0x1/0x1", "-j RETURN"]
    kinds += ["-j DROP", "-j REJECT"] if table == "filter" else ["-j ACCEPT"]
    if table == "nat" and draw.random.random() < 0.15:
        return f"-j DNAT --to-destination {draw.random.choice(POOLS[draw.family].far[:3])}"
    return draw.one(*kinds)
