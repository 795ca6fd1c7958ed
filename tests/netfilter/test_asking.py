"""Where the answer hangs on what was not said the walk asks: a branch for yes and one for no, and never a guess."""

import pytest

from bookinfo_lab.netfilter import matching
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.trace import Trace

OPTIONS = {
    "limit": "--limit 5/sec",
    "hashlimit": "--hashlimit-upto 5/sec --hashlimit-name a",
    "connlimit": "--connlimit-upto 3 --connlimit-mask 32 --connlimit-saddr",
    "length": "--length 0:100",
    "ttl": "--ttl-eq 1",
    "hl": "--hl-eq 1",
    "dscp": "--dscp 0x08",
    "tos": "--tos 0x10/0xff",
    "mac": "--mac-source 02:00:00:00:00:01",
    "pkttype": "--pkt-type unicast",
    "rpfilter": "--loose",
    "socket": "--transparent",
    "helper": "--helper ftp",
    "policy": "--dir in --pol ipsec",
    "rt": "--rt-type 0",
}


def walked(rule: str) -> Trace:
    text = f"*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD {rule}\nCOMMIT\n"
    return parse(text).walk(Packet("192.0.2.1", 1000, "192.0.2.2", 80, iif="eth0"))


def forwarded(rule: str) -> list[tuple[str, tuple[str, ...]]]:
    """(verdict, what it depends on) of the branches in which the packet is not this host's own."""
    found = [(item.verdict, item.depends_on) for item in walked(rule).outcomes]
    own = "192.0.2.2 is an address of this host"
    return [(verdict, tuple(item for item in given if own not in item)) for verdict, given in found if own not in given]


@pytest.mark.parametrize("module", sorted(matching._NEEDS_STATE))
def test_a_match_on_what_the_packet_or_the_machine_holds_is_asked_about(module: str) -> None:
    (yes, asked), (no, denied) = forwarded(f"-m {module} {OPTIONS.get(module, '--some-option 1')} -j DROP")
    assert (yes, no) == ("drop", "accept")
    assert len(asked) == len(denied) == 1
    assert denied[0] == f"not: {asked[0]}"


def test_an_option_that_is_negated_is_asked_about_without_its_negation() -> None:
    assert forwarded("-m mac ! --mac-source 02:00:00:00:00:01 -j DROP") == [
        ("accept", ("the packet fits --mac-source 02:00:00:00:00:01",)),
        ("drop", ("not: the packet fits --mac-source 02:00:00:00:00:01",)),
    ]


def test_an_ipset_is_asked_about_once() -> None:
    branches = forwarded("-m set --match-set a src -j DROP\n-A FORWARD -m set --match-set a src -j DROP")
    assert branches == [
        ("drop", ("192.0.2.1:1000 is in the set a (src)",)),
        ("accept", ("not: 192.0.2.1:1000 is in the set a (src)",)),
    ]


def test_a_set_that_a_rule_changes_is_asked_about_again() -> None:
    asking = "-m set --match-set a src -j DROP"
    rule = f"{asking}\n-A FORWARD -j SET --add-set a src\n-A FORWARD {asking}"
    assert [verdict for verdict, _ in forwarded(rule)] == ["drop", "drop", "accept"]


@pytest.mark.parametrize("rule", ["-j NFQUEUE --queue-num 1", "-j QUEUE", "-j SOMETHING --else 1"])
def test_what_a_program_or_nobody_known_decides_is_unknown_with_the_rules_name(rule: str) -> None:
    ((verdict, _),) = forwarded(rule)
    assert verdict == "unknown"
    assert "filter FORWARD 1" in walked(rule).outcomes[-1].why


def test_a_match_that_is_not_modelled_is_unknown_where_nothing_else_rules_it_out() -> None:
    assert [verdict for verdict, _ in forwarded("-m mystery --deep 3 -j DROP")] == ["unknown"]
    assert [verdict for verdict, _ in forwarded("-s 10.0.0.0/8 -m mystery --deep 3 -j DROP")] == ["accept"]
    assert [verdict for verdict, _ in forwarded("-m mystery --deep 3 -j LOG")] == ["accept"]
