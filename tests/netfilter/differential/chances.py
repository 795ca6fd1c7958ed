"""Frequencies of random branches, counted by the kernel over a thousand connections, beside the walk's probabilities.

Pearson's chi-square with the regularised incomplete gamma function for its tail; the bound is what one run in ten
thousand of a right walk would exceed.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from ipaddress import ip_address
from random import Random

from differential import surroundings
from differential.case import Case, Probe
from differential.running import Stand
from kernel.flow import Flow

from bookinfo_lab.netfilter.packet import Packet

CONNECTIONS = 1000
LEAST_P = 1e-4
_SERVERS = tuple(f"10.{2 + number % 2}.0.{20 + number}" for number in range(6))


def ruleset(random: Random, name: str) -> Case:
    """A service of two to six endpoints behind random rules, as kube-proxy balances or with arbitrary chances."""
    count = random.randint(2, 6)
    even = random.random() < 0.5
    lines = ["-A PREROUTING -d 10.96.0.1/32 -p tcp -j SVC", "-A OUTPUT -d 10.96.0.1/32 -p tcp -j SVC"]
    for index in range(count - 1):
        chance = 1 / (count - index) if even else random.choice((0.1, 0.25, 0.5, 0.8))
        negated = "! " if not even and random.random() < 0.2 else ""
        lines.append(f"-A SVC -m statistic --mode random {negated}--probability {chance:.11f} -j SEP-{index}")
    lines.append(f"-A SVC -j SEP-{count - 1}" if random.random() < 0.8 else "-A SVC -p tcp -j RETURN")
    lines += [
        f"-A SEP-{index} -p tcp -j DNAT --to-destination {_SERVERS[index]}:{8000 + index}" for index in range(count)
    ]
    chains = [
        ":PREROUTING ACCEPT [0:0]",
        ":INPUT ACCEPT [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        ":POSTROUTING ACCEPT [0:0]",
        ":SVC - [0:0]",
    ]
    chains += [f":SEP-{index} - [0:0]" for index in range(count)]
    local = random.random() < 0.5
    flow = Flow(None if local else "10.1.0.2", "10.96.0.1", 80, local=local)
    text = "".join(f"{line}\n" for line in ("*nat", *chains, *lines, "COMMIT"))
    return Case(name, 4, text, (Probe(flow),), surroundings.PLAIN)


def wrong(stand: Stand, seed: str, rulesets: int, connections: int = CONNECTIONS) -> list[str]:
    """What does not fit, as lines; empty where everything does."""
    found = []
    for number in range(rulesets):
        case = ruleset(Random(f"chances/{seed}/{number}"), f"chances/{seed}/{number}")
        rules = stand.load(case)
        (probe,) = case.probes
        flow = probe.flow
        source = ip_address(flow.src or "10.2.0.1")
        iif = None if flow.local else flow.iif
        packet = Packet(source, 33333, ip_address(flow.dst), flow.dport, "tcp", iif, flow.local)
        expected: defaultdict[str, float] = defaultdict(float)
        for outcome in rules.walk(packet).outcomes:
            expected[outcome.destination] += outcome.probability
        seen = {
            f"{address}:{port}": times for (address, port), times in stand.room.frequencies(flow, connections).items()
        }
        p = fit(seen, expected, connections)
        if p < LEAST_P:
            found.append(
                f"{case.name}: seen {dict(seen)}, expected {dict(expected)} of {connections}: p = {p:.2g}\n{case.text}"
            )
    return found


def fit(seen: Mapping[str, int], expected: Mapping[str, float], total: int) -> float:
    """The chance of a chi-square as large as this or larger; 0 where something was seen that is not expected.

    What was not seen at all although expected counts as 0 times.
    """
    if set(seen) - {name for name, chance in expected.items() if chance > 0} or sum(seen.values()) != total:
        return 0.0
    likely = {name: chance for name, chance in expected.items() if chance > 0}
    if abs(sum(likely.values()) - 1) > 1e-6:
        return 0.0
    value = sum((seen.get(name, 0) - total * chance) ** 2 / (total * chance) for name, chance in likely.items())
    return tail(value, len(likely) - 1)


def tail(value: float, freedom: int) -> float:
    """P(X ≥ value) of the chi-square distribution with ``freedom`` degrees of freedom.

    One minus the power series of the lower incomplete gamma function (Abramowitz and Stegun 6.5.29).
    """
    if freedom == 0:
        return 1.0 if value < 1e-9 else 0.0
    a, x = freedom / 2, value / 2
    if x <= 0:
        return 1.0
    term = total = 1 / a
    number = a
    while term > total * 1e-15:
        number += 1
        term *= x / number
        total += term
    return max(0.0, 1 - total * math.exp(-x + a * math.log(x) - math.lgamma(a)))
