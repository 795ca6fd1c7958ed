"""Packets at random through every recorded ruleset: each walk answers, and says that it does not know hardly ever.

The packets are drawn from the addresses, ports, interfaces, marks and owners that the rules themselves name.
"""

import ipaddress
import re
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from bookinfo_lab.netfilter.facts import facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.values import AddressPattern, AddressRange, Masked, Numbers, PortRange, Translation

FIREWALLS = Path(__file__).parents[1] / "data" / "firewalls"
# A file of the recorded data, and where its netns's addresses and routes stand, if they do.
REAL = {
    **{f"cluster/{kind}/lab-{n}.iptables-save": f"cluster/{kind}/lab-{n}" for kind in ("iptables",) for n in (0, 1)},
    **{f"cluster/{kind}/lab-{n}.ip6tables-save": f"cluster/{kind}/lab-{n}" for kind in ("iptables",) for n in (0, 1)},
    **{f"cluster/nftables/lab-{n}.iptables-save": f"cluster/nftables/lab-{n}" for n in (0, 1)},
    **dict.fromkeys((f"cluster/istio/{name}.iptables-save" for name in ("lab-0", "lab-1", "productpage")), ""),
    **dict.fromkeys(("istio-sidecar-current.save", "istio-ambient-inpod.save"), ""),
    "real_kubeadm_flannel_worker1_20230202.rules": "",
}
COUNT = 100
MOST_UNKNOWN = 0.01


class Pool:
    """What a ruleset's rules name."""

    def __init__(self, rules, version, random):
        self.random, self.version = random, version
        self.addresses = ["10.9.8.7", "127.0.0.1"] if version == 4 else ["fd00:9::7", "::1"]
        self.ports, self.interfaces = [80, 31000], ["eth0"]
        self.marks, self.owners, self.protocols = [0, 0, 0], [None, 0, 1337], ["tcp", "tcp", "udp"]
        for rule in rules.every_rule():
            for option in (*(item for match in rule.matches for item in match.options), *rule.target_options):
                for value in option.values:
                    self._take(option.name, value)

    def _take(self, name, value):
        if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
            self._address(value.network_address + self.random.randrange(min(value.num_addresses, 2**16)))
        elif isinstance(value, AddressRange | Translation):
            self._address(value.first)
            self._address(value.last)
            if isinstance(value, Translation) and value.ports is not None:
                self.ports.append(value.ports.first)
        elif isinstance(value, AddressPattern):
            self._address(value.address)
        elif isinstance(value, PortRange):
            self.ports += [value.first, value.last]
        elif isinstance(value, Masked):
            self.marks.append(value.value)
        elif isinstance(value, Numbers) and name.endswith("-owner"):
            self.owners.append(value.first)
        elif name in ("-i", "-o"):
            self.interfaces.append(value.replace("+", "7"))
        elif name == "-p" and value in ("tcp", "udp", "sctp"):
            self.protocols.append(value)

    def _address(self, address):
        if address is not None and address.version == self.version:
            self.addresses.append(str(address))

    def packet(self):
        """One that the kernel could meet: from here or by an interface, new or established."""
        one = self.random.choice
        proto = one([*self.protocols, "icmp" if self.version == 4 else "icmpv6"])
        local = self.random.random() < 0.35
        who = (
            {"local": True, "uid": one(self.owners), "gid": one(self.owners)}
            if local
            else {"iif": one(self.interfaces)}
        )
        ports = not proto.startswith("icmp")
        return Packet(
            one(self.addresses),
            self.random.choice((None, one(self.ports), 40000)) if ports else None,
            one(self.addresses),
            one(self.ports) if ports else None,
            proto,
            mark=one(self.marks),
            ct_state=one(["new", "new", "new", "established"]),
            **who,
        )


def known(folder, name):
    """The facts that were recorded beside a file, None where there are none."""
    found = [folder / f"{name}.{what}.json" for what in ("addr", "routes")]
    if not name or not all(path.is_file() for path in found):
        return None
    return facts(*(path.read_text() for path in found), sysctls="/proc/sys/net/ipv4/ip_forward:1\n")


def walked(text, name, its_facts, version):
    """Walks ``COUNT`` packets with the facts and without; counts the outcomes by verdict."""
    rules, lines = parse(text, name, its_facts), text.splitlines()
    pool = Pool(rules, version, Random(name))
    verdicts, unknown = Counter(), Counter()
    for number in range(COUNT):
        if number == COUNT // 2:
            rules = parse(text, name)
        packet = pool.packet()
        trace = rules.walk(packet)
        check(trace, rules, lines)
        for outcome in trace.outcomes:
            verdicts[outcome.verdict] += 1 / len(trace.outcomes)
            if outcome.verdict == "unknown":
                unknown[outcome.why] += 1
    share = verdicts["unknown"] / COUNT
    counted = ", ".join(f"{verdict} {count:.1f}" for verdict, count in sorted(verdicts.items()))
    sys.stdout.write(f"{name}: of {COUNT} packets {counted}; unknown {share:.2%} {dict(unknown)}\n")
    return share


def check(trace, rules, lines):
    """A trace hangs together, and each rule that it names is the text's own."""
    assert trace.outcomes
    assert [step.id for step in trace.steps] == list(range(len(trace.steps)))
    assert all(-1 <= step.parent < step.id for step in trace.steps)
    if not any(outcome.depends_on for outcome in trace.outcomes):
        assert sum(outcome.probability for outcome in trace.outcomes) == pytest.approx(1)
    for outcome in trace.outcomes:
        assert 0 < outcome.probability <= 1
        assert trace.branch(outcome)[-1].id == outcome.step
    for step in trace.steps:
        if line := re.fullmatch(r"line (\d+)", step.evidence):
            _, chain, _ = step.where.split()
            assert lines[int(line[1]) - 1].endswith(f"-A {chain} {step.what}".rstrip())
            assert rules.rule(step.where).line == int(line[1])


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_every_packet_gets_an_answer_from_a_real_ruleset(data_folder, name):
    path = data_folder / name if "/" in name else data_folder / "iptables" / name
    share = walked(path.read_text(), name, known(data_folder, REAL[name]), 6 if "ip6tables" in name else 4)
    assert share <= MOST_UNKNOWN


@pytest.mark.parametrize("name", sorted(path.stem for path in FIREWALLS.glob("*.save")))
def test_every_packet_gets_an_answer_from_a_distributions_ruleset(name):
    text = (FIREWALLS / f"{name}.save").read_text()
    its_facts = known(FIREWALLS, name.partition("-")[0])
    assert its_facts is not None
    assert walked(text, name, its_facts, 6 if name.endswith("-ip6") else 4) <= MOST_UNKNOWN
