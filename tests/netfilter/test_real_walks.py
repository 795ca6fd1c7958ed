"""Packets through rules that we did not write: each gets an answer, and next to none of the answers is unknown."""

import random
import re
from collections import Counter
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab.netfilter import facts, routing, ruleset
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import Ruleset

FIREWALLS = Path(__file__).resolve().parents[1] / "data" / "firewalls"
PACKETS = 400
MOST_UNKNOWN = 0.01


def packets(rules: Ruleset, text: str, known: facts.Facts | None) -> list[Packet]:
    """Packets between addresses, by interfaces and to ports that the rules name, or that nobody names."""
    draw = random.Random(7)
    version = rules.version or (6 if re.search(r"-d [0-9a-f]*:[0-9a-f:]*/", text) else 4)
    outside = ["203.0.113.9", "198.51.100.77"] if version == 4 else ["2001:db8::9", "2001:db8:1::77"]
    own = [str(item.address) for item in (known.addresses if known else None) or () if item.address.version == version]
    named = [str(net[draw.randrange(min(net.num_addresses, 1000))]) for net in _networks(text, version)]
    # A group, a broadcast and the unspecified address are nobody's to send from; whether a group was joined is unknown.
    usable = [item for item in named if not (ip_address(item).is_multicast or int(ip_address(item)) in (0, 2**32 - 1))]
    every = [*outside, *own, *usable]
    ports = [int(word) for word in re.findall(r"--dports? (\d+)", text)] or [80]
    interfaces = re.findall(r"-i ([\w-]+)(?: |$)", text) or ["eth0"]
    made = []
    for _ in range(PACKETS):
        proto = draw.choice(["tcp", "tcp", "tcp", "udp", "icmp" if version == 4 else "icmpv6"])
        is_local = draw.random() < 0.4
        has_ports = proto in ("tcp", "udp")
        origin: dict[str, Any] = {"local": True, "uid": draw.choice([0, 1000, 1337]), "gid": 0}
        made.append(
            Packet(
                ip_address(draw.choice(own or every) if is_local else draw.choice([*outside, *usable])),
                draw.randrange(1024, 65536) if has_ports else None,
                ip_address(draw.choice(every)),
                draw.choice([*ports, 80, 443]) if has_ports else None,
                proto,
                ct_state=draw.choice(["new", "new", "established"]),
                **(origin if is_local else {"iif": draw.choice(interfaces)}),
            )
        )
    return made


def _networks(text: str, version: int) -> list[Any]:
    words = set(re.findall(r"(?:-d|-s|--to-destination) ([0-9a-f.:]+(?:/\d+)?)", text))
    found = []
    for word in sorted(words):
        try:
            network = ip_network(word if version == 6 or "/" in word else word.partition(":")[0], strict=False)
        except ValueError:
            continue
        if network.version == version:
            found.append(network)
    return found


def answered(text: str, name: str, known: facts.Facts | None) -> Counter[str]:
    rules = ruleset.parse(text, name, known)
    verdicts: Counter[str] = Counter()
    why: Counter[str] = Counter()
    for packet in packets(rules, text, known):
        for outcome in rules.walk(packet).outcomes:
            verdicts[outcome.verdict] += 1
            why[outcome.why if outcome.verdict == "unknown" else ""] += 1
            assert 0 < outcome.probability <= 1
            assert outcome.why
    del why[""]
    assert verdicts["unknown"] <= MOST_UNKNOWN * verdicts.total(), f"{name}: {dict(verdicts)}, {dict(why)}"
    return verdicts


@pytest.mark.parametrize("path", sorted(FIREWALLS.glob("*.save")), ids=lambda path: path.stem)
def test_packets_through_a_distributions_rules(path: Path) -> None:
    name = path.stem.partition("-")[0]
    addresses, routes = ((FIREWALLS / f"{name}.{kind}.json").read_text() for kind in ("addr", "routes"))
    known = facts.facts(addresses, routes)
    assert known.addresses
    assert routing.address_kind(known, known.addresses[0].address) == "LOCAL"
    assert answered(path.read_text(), path.name, known)["accept"] > 0


@pytest.mark.data
def test_packets_through_rules_of_real_clusters(data_folder: Path) -> None:
    files = [*(data_folder / "iptables").iterdir(), *(data_folder / "cluster").glob("iptables/**/*-save")]
    seen = Counter[str]()
    for path in sorted(files):
        text = path.read_text()
        if "*nat" in text or "*filter" in text:
            seen.update(answered(text, path.name, None))
    assert len(files) > 5
    assert seen["accept"] > 100
