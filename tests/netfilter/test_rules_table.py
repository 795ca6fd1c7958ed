"""docs/rules.md lists what the walk models, no more and no less, and each test that it names is there."""

import re
from pathlib import Path

import pytest

from bookinfo_lab.netfilter import matching, targets
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "rules.md").read_text(encoding="utf-8")


def rows(title: str) -> list[tuple[str, ...]]:
    part = TEXT.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]


def test_every_match_that_is_modelled_has_a_row_and_no_other_has() -> None:
    options = {f"`-m {module} {name}`" if module else f"`{name}`" for module, name in matching._MAKERS}
    whole = {f"`-m {module}`" for module in (*matching._WHOLE, *matching._NEEDS_STATE)}
    named = [row[0] for row in rows("Matches")]
    assert sorted(named) == sorted(options | whole)


def test_every_target_that_is_modelled_has_a_row_and_no_other_has() -> None:
    own = {"`-j ACCEPT`", "`-j DROP`", "`-j RETURN`", "`-j CHAIN`", "`-g CHAIN`", "no target"}
    known = {*targets._TRANSLATE, *targets._OTHERS, *targets.WITHOUT_EFFECT} - {""}
    named = [row[0] for row in rows("Targets")]
    assert sorted(named) == sorted(own | {f"`-j {name}`" for name in known})


def test_what_asks_is_said_to_ask() -> None:
    asking = {row[0] for row in rows("Matches") if row[1] == "asks"}
    assert asking == {f"`-m {module}`" for module in matching._NEEDS_STATE}


def test_each_test_that_is_named_is_there() -> None:
    for row in (*rows("Matches"), *rows("Targets")):
        path, _, name = row[2].partition("::")
        text = (ROOT / "tests" / "netfilter" / path).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.MULTILINE), row


# What no packet of the differential test shows: protocols and targets that many kernels do not have.


def forwarded(rules: str, packet: Packet) -> list[tuple[str, tuple[str, ...]]]:
    """(verdict, what it depends on) of the branches in which the packet is not this host's own."""
    found = parse(f"*filter\n:FORWARD ACCEPT [0:0]\n{rules}COMMIT\n").walk(packet).outcomes
    own = f"{packet.dst} is an address of this host"
    others = [(item.verdict, item.depends_on) for item in found if own not in item.depends_on]
    return [(verdict, tuple(item for item in given if own not in item)) for verdict, given in others]


@pytest.mark.parametrize("proto", ["dccp", "udplite"])
def test_a_rare_protocols_ports_are_those_of_the_packet(proto: str) -> None:
    def dropped(condition: str, sport: int | None = 1000) -> list[tuple[str, tuple[str, ...]]]:
        rule = f"-A FORWARD -p {proto} -m {proto} {condition} -j DROP\n"
        return forwarded(rule, Packet("192.0.2.1", sport, "198.51.100.2", 80, proto, iif="eth0"))

    assert dropped("--dport 80") == dropped("! --dport 81") == dropped("--sport 999:1001") == [("drop", ())]
    assert dropped("--dport 81") == dropped("! --dport 80") == dropped("--sport 1001") == [("accept", ())]
    asked = "its source port is 1000"
    assert dropped("--sport 1000", sport=None) == [("drop", (asked,)), ("accept", (f"not: {asked}",))]


@pytest.mark.parametrize("target", ["AUDIT --type accept", "RATEEST --rateest-name a", 'ULOG --ulog-prefix "a b"'])
def test_a_target_that_only_takes_note_leaves_the_way_as_it_is(target: str) -> None:
    packet = Packet("192.0.2.1", 1000, "198.51.100.2", 80, iif="eth0")
    assert forwarded(f"-A FORWARD -j {target}\n-A FORWARD -j DROP\n", packet) == [("drop", ())]
    assert forwarded(f"-A FORWARD -j {target}\n", packet) == [("accept", ())]
