"""The chain explorer: it goes where it is told to, marks what a walk met in words, and parses only what is in view."""

import ipaddress
import re
from collections.abc import Callable
from typing import Any

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter import ruleset as rulesets
from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import Ruleset, parse
from bookinfo_lab.show.chain_view import PAGE
from bookinfo_lab.show.explorer import MOST_CHAINS, Explorer
from bookinfo_lab.show.walk import Walk

NODE = ipaddress.ip_address("10.0.0.1")
TEXT = """*filter
:INPUT DROP [0:0]
:FORWARD ACCEPT [0:0]
:GATE - [0:0]
:END - [0:0]
-A INPUT -p udp -j DROP
-A INPUT -p tcp -j GATE
-A INPUT -j LOG
-A GATE -p tcp -m statistic --mode random --probability 0.25000000000 -j ACCEPT
-A GATE -p tcp -g END
-A GATE -m nonsense
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:SVC - [0:0]
-A OUTPUT -p tcp -j SVC
COMMIT
"""


def rules(text: str = TEXT) -> Ruleset:
    return parse(text, facts=Facts(owned=frozenset([NODE])))


def walked() -> Walk:
    ruleset = rules(TEXT.replace("-A GATE -m nonsense\n", ""))
    return Walk(ruleset.walk(Packet("192.0.2.7", 40000, NODE, 80, iif="eth0")), ruleset)


def control(explorer: Explorer, name: str) -> Any:
    """The control that a learner sees under this name."""
    found = [item for box in explorer.widget.children[:2] for item in box.children if item.description == name]
    assert len(found) == 1, [item.description for box in explorer.widget.children[:2] for item in box.children]
    return found[0]


def test_it_begins_at_the_first_base_chain_with_rules_nat_before_others() -> None:
    assert Explorer(rules()).place == ("nat", "OUTPUT")
    assert Explorer(rules(), table="filter").place == ("filter", "INPUT")
    assert Explorer(rules(), table="filter", chain="GATE").place == ("filter", "GATE")


def test_with_a_walk_it_begins_where_the_walk_began() -> None:
    assert walked().explore().place == ("filter", "INPUT")


def test_jumps_and_gotos_are_followed_and_the_way_back_is_the_same() -> None:
    explorer = Explorer(rules(), table="filter")
    explorer.follow(2)
    assert explorer.place == ("filter", "GATE")
    explorer.follow(2)
    assert explorer.place == ("filter", "END")
    assert explorer.view.headline == "filter END: no rules"
    for place in (("filter", "GATE"), ("filter", "INPUT"), ("filter", "INPUT")):
        explorer.back()
        assert explorer.place == place
    with pytest.raises(LabError, match="rule 1 leads to no chain from this page; those that do: 2"):
        explorer.follow(1)
    with pytest.raises(LabError, match="no chain 'NONE'"):
        explorer.open("filter", "NONE")
    assert explorer.place == ("filter", "INPUT")


def test_a_table_a_chain_and_a_jump_are_chosen_by_the_controls() -> None:
    explorer = Explorer(rules())
    control(explorer, "Table:").value = "filter"
    assert explorer.place == ("filter", "INPUT")
    assert control(explorer, "Chain:").value == "INPUT"
    assert [name for _, name in control(explorer, "Chain:").options] == ["INPUT", "FORWARD", "GATE", "END"]
    assert control(explorer, "Jump:").options == (("rule 2 → GATE", 2),)
    control(explorer, "Follow the jump").click()
    assert explorer.place == ("filter", "GATE")
    control(explorer, "Chain:").value = "END"
    assert control(explorer, "Jump:").options == (("none on this page", 0),)
    control(explorer, "Follow the jump").click()
    assert explorer.place == ("filter", "END")
    for place in (("filter", "GATE"), ("filter", "INPUT"), ("nat", "OUTPUT")):
        control(explorer, "Back").click()
        assert explorer.place == place
    assert control(explorer, "Table:").value == "nat"


def test_every_control_has_a_name_and_none_is_ever_disabled() -> None:
    explorer = Explorer(rules())
    names = [item.description for box in explorer.widget.children[:2] for item in box.children]
    assert all(names)
    assert len(set(names)) == len(names)
    assert not any(getattr(item, "disabled", False) for box in explorer.widget.children[:2] for item in box.children)


def test_what_the_walk_met_is_said_in_words() -> None:
    explorer = walked().explore()
    assert [entry.met for entry in explorer.view.entries] == [
        "did not match",
        "matched",
        "matched in branch 2",
    ]
    explorer.follow(2)
    assert [entry.met for entry in explorer.view.entries] == [
        "matched in branch 1, did not match in branch 2",
        "matched in branch 2",
    ]
    assert "the walk matched 1, 2" in explorer.view.headline
    html = explorer.view._repr_html_()
    assert "<strong>matched in branch 1, did not match in branch 2</strong>" in html
    assert '<th scope="col" style' in html
    assert [name for name, _ in control(explorer, "Chain:").options][:2] == ["INPUT (met)", "GATE (met)"]
    explorer.open("nat", "OUTPUT")
    assert [entry.met for entry in explorer.view.entries] == ["not met"]
    assert "the walk matched none of them" in explorer.view.headline


def test_the_list_of_jumps_begins_with_the_one_that_the_walk_took() -> None:
    text = TEXT.replace("-A INPUT -p udp -j DROP", "-A INPUT -p udp -j END").replace("-A GATE -m nonsense\n", "")
    ruleset = rules(text)
    packet = Packet("192.0.2.7", 40000, NODE, 80, iif="eth0")
    assert control(Explorer(ruleset, Walk(ruleset.walk(packet), ruleset)), "Jump:").value == 2
    assert control(Explorer(ruleset, table="filter"), "Jump:").value == 1


def test_a_rule_that_cannot_be_read_is_a_row_that_says_so() -> None:
    explorer = Explorer(rules(TEXT.replace("-m nonsense", "-s 300.1.1.1/32 -j ACCEPT")), table="filter", chain="GATE")
    says = [entry.says for entry in explorer.view.entries]
    assert says[2].startswith("This rule cannot be read: ")
    assert "300.1.1.1" in says[2]
    assert not says[1].startswith("This rule cannot be read")


def long(count: int) -> str:
    jumps = "".join(f"-A SVC -d 10.0.{n // 250}.{n % 250 + 1}/32 -j C{n}\n" for n in range(count))
    names = "".join(f":C{n} - [0:0]\n" for n in range(count))
    return f"*nat\n:PREROUTING ACCEPT [0:0]\n:SVC - [0:0]\n{names}-A PREROUTING -j SVC\n{jumps}COMMIT\n"


def test_a_long_chain_is_paged_and_only_the_pages_in_view_are_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[str] = []
    original: Callable[..., Any] = rulesets.parse_rule

    def noting(text: str, *others: Any) -> Any:
        parsed.append(text)
        return original(text, *others)

    monkeypatch.setattr(rulesets, "parse_rule", noting)
    explorer = Explorer(rules(long(10_000)))
    explorer.follow(1)
    assert [entry.number for entry in explorer.view.entries] == [*range(1, PAGE + 1)]
    assert f"10,000 rules, 1 to {PAGE} shown" in explorer.view.headline
    control(explorer, "Later rules").click()
    assert explorer.view.entries[0].number == PAGE + 1
    control(explorer, "Earlier rules").click()
    control(explorer, "Earlier rules").click()
    assert explorer.view.entries[0].number == 1
    control(explorer, "From rule:").value = 5_003
    assert explorer.view.entries[0].number == 5_003
    assert control(explorer, "Jump:").options[0] == ("rule 5003 → C5002", 5003)
    explorer.turn(10_000)
    assert explorer.view.entries[-1].number == 10_000
    assert len(parsed) <= 1 + 4 * PAGE


def test_of_many_chains_those_with_a_part_of_the_name_are_listed() -> None:
    explorer = Explorer(rules(long(1_000)))
    chains = explorer.widget.children[0].children[2]
    assert len(chains.options) == MOST_CHAINS
    assert chains.description == f"Chain ({1_002 - MOST_CHAINS} more not listed):"
    control(explorer, "Chain names with:").value = " c99 "
    assert [name for _, name in chains.options] == ["C99", *(f"C99{n}" for n in range(10)), "PREROUTING"]
    assert explorer.place == ("nat", "PREROUTING")
    control(explorer, "Chain:").value = "C995"
    assert explorer.place == ("nat", "C995")


def test_where_no_widgets_are_its_html_is_the_page_and_has_no_control() -> None:
    bundle = walked().explore()._repr_mimebundle_()
    assert bundle["text/html"].startswith("<div")
    assert "filter INPUT: 3 rules; policy DROP" in bundle["text/html"]
    assert re.search("<(input|select|button)", bundle["text/html"]) is None
    assert bundle["text/plain"].split("\n")[1].startswith("filter INPUT: 3 rules; policy DROP")
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"]


@pytest.mark.parametrize("text", ["", "*nat\nCOMMIT\n"])
def test_rules_without_a_chain_are_refused(text: str) -> None:
    with pytest.raises(LabError, match="no chain to show"):
        Explorer(rules(text))
