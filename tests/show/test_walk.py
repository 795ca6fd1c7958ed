"""A walk, shown: how it ends comes first and in words, and every form of it holds the same rules."""

import importlib.util
import ipaddress
import json
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.show import slice_svg, slice_text
from bookinfo_lab.show.slice_svg import WIDTH
from bookinfo_lab.show.text_width import mono, sans, wrap
from bookinfo_lab.show.walk import MOST_LINES, MOST_OUTCOMES, Walk

HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
NODE = ipaddress.ip_address("10.0.0.1")
PACKET = Packet("192.0.2.7", 40000, NODE, 30080, iif="eth0")
HEAD = ["*nat", ":PREROUTING ACCEPT [0:0]", ":POSTROUTING ACCEPT [0:0]", ":SVC - [0:0]"]


def service(count: int) -> str:
    """A node port with so many endpoints, masqueraded."""
    names = [f":E{n} - [0:0]" for n in range(count)]
    lots = [f"-A SVC -m statistic --mode random --probability {1 / (count - n):.11f} -j E{n}" for n in range(count - 1)]
    ends = [f"-A E{n} -p tcp -j DNAT --to-destination 10.1.{n // 250}.{n % 250 + 1}:80" for n in range(count)]
    enter = ["-A PREROUTING -p udp -j SVC", "-A PREROUTING -p tcp -m tcp --dport 30080 -j SVC"]
    last = [f"-A SVC -j E{count - 1}", "-A POSTROUTING -j MASQUERADE", "COMMIT", ""]
    return "\n".join([*HEAD, *names, *enter, *lots, *ends, *last])


def walk(text: str = "", packet: Packet = PACKET, owned: tuple[ipaddress.IPv4Address, ...] = (NODE,)) -> Walk:
    ruleset = parse(text or service(3), facts=Facts(owned=frozenset(owned)))
    return Walk(ruleset.walk(packet), ruleset, "bookinfo-lab walk rules")


def hostile() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hostile", Path(__file__).with_name("hostile.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_ends_come_first_in_words_with_what_was_taken_for_granted() -> None:
    lines = repr(walk()).split("\n")
    assert lines[0] == "$ bookinfo-lab walk rules"
    assert lines[1] == "Where does this packet go: new tcp 192.0.2.7:40000 → 10.0.0.1:30080, in by eth0?"
    assert lines[2] == "3 ways it can end, decided by chance:"
    assert lines[3] == (
        "1. Sent on to 10.1.0.1:80, masqueraded: seen from the address of the interface that it leaves by, "
        "with a probability of 33.33 %."
    )
    assumed = [line for line in lines if line.startswith("Taken for granted: ")]
    assert assumed == [f"Taken for granted: {item}" for item in walk().assumes]
    assert assumed
    html = walk()._repr_html_()
    assert html.index("3 ways it can end") < html.index("Taken for granted") < html.index("<svg")


def test_one_end_is_the_summary_itself() -> None:
    shown = walk("*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j REJECT --reject-with icmp-port-unreachable\nCOMMIT\n")
    assert shown.summary == "Rejected on its way to 10.0.0.1:30080; the sender gets an ICMP error, port unreachable."
    assert f"<strong>{shown.summary}</strong>" in shown._repr_html_()


def test_a_walk_passes_its_trace_on() -> None:
    shown = walk()
    assert shown.question == shown.trace.question
    assert shown.steps is shown.trace.steps
    assert shown.outcomes is shown.trace.outcomes
    assert shown.branch(2) == shown.trace.branch(shown.outcomes[1])
    assert json.loads(json.dumps(shown.as_document()))["outcomes"][2]["destination"] == "10.1.0.3:80"


def test_every_form_has_every_rule_that_matched() -> None:
    shown = walk()
    matched = {step.where for step in shown.steps if step.matched and re.fullmatch(r"nat \S+ \d+", step.where)}
    assert len(matched) == 8
    table = shown.table()
    assert {row[1] for row in table.rows if row[2] == "yes"} == matched
    assert table.heads == slice_text.HEADS
    assert [row[0] for row in table.rows if row[1] == "nat E1 1"] == ["2"]
    assert [row[4] for row in table.rows if row[1] == "nat E1 1"] == ["dst 10.0.0.1:30080 → 10.1.0.2:80"]
    assert "-j MASQUERADE" in {row[6] for row in table.rows}
    for form in (shown.tree(), texts(shown.svg()), shown.dot()):
        flat = " ".join(form.replace("\\l", " ").split())
        assert flat.count("(DNAT)") == 3
        assert flat.count("dst 10.0.0.1:30080 → 10.1.0.2:80") == 1
        assert "1 rule did not match" in flat
        assert "otherwise (66.67 %)" in flat
        assert "33.33 %" in flat
        assert "3. Sent on to 10.1.0.3:80" in flat


def test_the_tree_indents_on_a_jump() -> None:
    lines = walk().tree().split("\n")
    at = lines.index("nat PREROUTING:")
    assert [line[: len(line) - len(line.lstrip())] for line in lines[at : at + 4]] == ["", "  ", "  ", "  "]
    assert lines[at + 3].strip() == "nat SVC:"
    assert lines[at + 1].strip() == "(1 rule did not match)"


def texts(svg: str) -> str:
    """What the drawing says, line after line."""
    return "\n".join(item.text or "" for item in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text"))


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_the_drawing_is_xml_with_a_name_and_every_box_is_inside_it(count: int) -> None:
    root = ElementTree.fromstring(walk(service(count)).svg())
    width, height = float(root.attrib["width"]), float(root.attrib["height"])
    assert width == WIDTH
    assert root.attrib["role"] == "img"
    assert "192.0.2.7:40000" in root.attrib["aria-label"]
    end = 0.0
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        box = group.find("{http://www.w3.org/2000/svg}rect")
        assert box is not None
        x, y, w, h = (float(box.attrib[name]) for name in ("x", "y", "width", "height"))
        assert y > end  # boxes stand below each other
        end = y + h
        assert x >= 0
        assert x + w <= width
        for text in group.iter("{http://www.w3.org/2000/svg}text"):
            assert x < float(text.attrib["x"]) < x + w
            assert y < float(text.attrib["y"]) < end
    assert end < height


def test_arrows_go_down_from_a_box_into_the_next_one_of_their_branch() -> None:
    root = ElementTree.fromstring(walk().svg())
    space = "{http://www.w3.org/2000/svg}"
    boxes = [group.find(f"{space}rect") for group in root.iter(f"{space}g")]
    tops = {float(box.attrib["y"]) for box in boxes if box is not None}
    ends = {float(box.attrib["y"]) + float(box.attrib["height"]) for box in boxes if box is not None}
    lines = [path.attrib["d"] for path in root.findall(f"{space}path") if " V" in path.attrib["d"]]
    assert len(lines) == len(tops) - 1  # every box but the first is led to
    for line in lines:
        _, start, tip = re.fullmatch(r"M([\d.]+) ([\d.]+) V([\d.]+)", line).groups()  # type: ignore[union-attr]
        assert float(start) in ends
        assert float(tip) + 6 in tops


def test_drawings_of_the_same_walk_are_the_same() -> None:
    assert walk().svg() == walk().svg()
    assert walk().dot() == walk().dot()


def test_outcomes_are_told_apart_by_words_not_colours_alone() -> None:
    drawn = texts(walk("*filter\n:INPUT DROP [0:0]\nCOMMIT\n").svg())
    assert "1. Dropped on its way to" in drawn
    delivered = texts(walk("*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n").svg())
    assert "1. Delivered to a process here" in delivered


def test_what_is_shown_of_many_branches_is_shortened_and_says_by_how_much() -> None:
    shown = walk(service(200))
    html, text = shown._repr_html_(), repr(shown)
    assert len(html) < 250_000
    assert f"{200 - MOST_OUTCOMES} more outcomes" in html
    assert f"{200 - MOST_OUTCOMES} more outcomes" in text
    assert f"{len(shown.slice.lines) - MOST_LINES:,} more lines" in html
    assert f"{len(shown.slice.lines) - MOST_LINES:,} more lines" in text
    assert "more lines" not in shown.svg() + shown.tree()


def dot_statements(text: str) -> list[str]:
    """The statements of a graph with its strings taken out: what is left must be DOT's own words."""
    assert len(re.findall(r'"(?:[^"\\]|\\.)*"', text)) > 4
    return [line.strip() for line in re.sub(r'"(?:[^"\\\n]|\\.)*"', "STRING", text).splitlines()]


STATEMENT = re.compile(
    r"digraph walk \{|\}|(graph|node|edge|b\d+)( -> b\d+)? \[[a-z]+=STRING(, [a-z]+=STRING)*\];|b\d+ -> b\d+;"
)


def test_the_graph_is_dot_whatever_the_rules_say() -> None:
    for shown in (walk(), hostile().hostile_walk()):
        for line in dot_statements(shown.dot()):
            assert STATEMENT.fullmatch(line), line


def test_hostile_rules_are_harmless_in_every_form() -> None:
    shown = hostile().hostile_walk()
    forms = [shown.tree(), shown.dot(), shown.svg(), repr(shown), shown._repr_html_(), shown.as_text()]
    for form in forms:
        assert HIDDEN.search(form) is None
        assert "\\u202e" in form
        assert len(form) < 120_000
    for form in (shown.svg(), shown._repr_html_()):
        assert "<script" not in form.lower()
        assert "<img" not in form.lower()
    ElementTree.fromstring(shown.svg())


def test_a_walk_without_steps_is_shown_too() -> None:
    from bookinfo_lab.trace import Trace

    shown = Walk(Trace("What?", (), ()), parse(""))
    assert repr(shown) == "What?\nNo answer: the walk has no outcome."
    assert "<svg" not in shown._repr_html_()
    ElementTree.fromstring(shown.svg())
    assert len(shown.table()) == 0


@given(st.text(st.characters(codec="utf-8"), max_size=200), st.integers(20, 300))
def test_wrapped_lines_fit_and_lose_nothing_but_spaces(text: str, room: int) -> None:
    lines = wrap(text, room, lambda part: sans(part, 13))
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(sans(line, 13) <= room or len(line) == 1 for line in lines)


def test_wide_letters_count_for_more() -> None:
    assert sans("WWWW") > sans("iiii")
    assert sans("世界") > sans("ab")
    assert mono("世界") > mono("ab") == mono("WW")


@pytest.mark.data
def test_a_node_port_of_a_real_node_is_told_drawn_and_tabled(data_folder: Path) -> None:
    text = (data_folder / "iptables/real_kubeadm_flannel_worker1_20230202.rules").read_text()
    node = ipaddress.IPv4Address("192.168.0.11")
    shown = walk(text, Packet("192.168.0.77", 40000, node, 31455, iif="eth0"), (node,))
    assert [outcome.destination for outcome in shown.outcomes] == ["10.244.1.19:8080", "10.244.2.17:8080"]
    assert shown.summary.startswith(
        "2 ways it can end, decided by chance:\n1. Sent on to 10.244.1.19:8080, masqueraded"
    )
    assert "the node port of Service default/jtest" in shown.tree()
    assert "nat KUBE-SEP-FWCNVWTS6ZPOZ3BF" in texts(shown.svg())
    assert [row[0] for row in shown.table().rows if row[1] == "nat KUBE-MARK-MASQ 1"] == ["all"]
    assert slice_svg.svg(shown.slice, "x").count("<g>") > 10
