"""The slice of a walk holds what the packet met and nothing else, in each branch's own order."""

import ipaddress
from collections.abc import Callable

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.outcome_words import chance, outcome_line, summary
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import Ruleset, parse
from bookinfo_lab.netfilter.slice import Line, Slice, in_runs, place_of, slice_of
from bookinfo_lab.trace import Outcome, Step, Trace

NODE = ipaddress.ip_address("10.0.0.1")
HOST = Facts(owned=frozenset([NODE]))
PACKET = Packet("192.0.2.7", 40000, NODE, 80, iif="eth0")
TREE = """*filter
:INPUT DROP [0:0]
:A - [0:0]
:B - [0:0]
-A INPUT -s 198.51.100.0/24 -j DROP
-A INPUT -p udp -j DROP
-A INPUT -p tcp -j A
-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT
-A A -p tcp -j B
-A A -j MARK --set-xmark 0x1/0x1
-A B -p udp -j DROP
COMMIT
"""
LOTS = """*nat
:PREROUTING ACCEPT [0:0]
:SVC - [0:0]
:E1 - [0:0]
:E2 - [0:0]
:E3 - [0:0]
-A PREROUTING -p tcp -m tcp --dport 80 -j SVC
-A SVC -m statistic --mode random --probability 0.33333333349 -j E1
-A SVC -m statistic --mode random --probability 0.50000000000 -j E2
-A SVC -j E3
-A E1 -p tcp -j DNAT --to-destination 10.0.1.1:8080
-A E2 -p tcp -j DNAT --to-destination 10.0.1.2:8080
-A E3 -p tcp -j DNAT --to-destination 10.0.1.3:8080
COMMIT
"""
UNKNOWN = """*filter
:INPUT ACCEPT [0:0]
:OUT - [0:0]
-A INPUT -m set --match-set bad src -j OUT
-A OUT -j REJECT --reject-with tcp-reset
COMMIT
"""


def sliced(text: str, packet: Packet = PACKET, facts: Facts = HOST) -> Slice:
    ruleset = parse(text, facts=facts)
    return slice_of(ruleset.walk(packet), ruleset)


def shape(lines: tuple[Line, ...]) -> list[tuple[int, str, str]]:
    return [(line.depth, line.kind, line.where) for line in lines]


def test_a_chain_is_one_deeper_than_the_rule_that_jumps_and_failed_rules_are_counted() -> None:
    lines = sliced(TREE).lines
    assert shape(lines) == [
        (0, "place", "routing"),
        (0, "chain", "filter INPUT"),
        (1, "skipped", "filter INPUT"),
        (1, "rule", "filter INPUT 3"),
        (1, "chain", "filter A"),
        (2, "rule", "filter A 1"),
        (2, "chain", "filter B"),
        (3, "skipped", "filter B"),
        (1, "chain", "filter A"),
        (2, "rule", "filter A 2"),
        (0, "chain", "filter INPUT"),
        (1, "rule", "filter INPUT 4"),
        (0, "place", "delivered"),
        (0, "outcome", "1"),
    ]
    assert [line.count for line in lines if line.kind == "skipped"] == [2, 1]
    assert [line.says for line in lines if line.kind == "chain"] == [
        "entered",
        "jumped to",
        "jumped to",
        "goes on",
        "goes on",
    ]
    assert [line.changes for line in lines if line.changes] == ["mark 0x0 → 0x1"]
    assert [line.text for line in lines if line.where == "filter A 1"] == ["-p tcp -j B"]


def test_a_policy_that_drops_is_the_last_line_of_its_chain() -> None:
    lines = sliced(TREE, Packet("192.0.2.7", 40000, NODE, 81, iif="eth0")).lines
    assert shape(lines)[-2:] == [(1, "policy", "policy filter INPUT"), (0, "outcome", "1")]
    assert lines[-1].verdict == "drop"


def test_chains_without_rules_that_let_the_packet_pass_are_left_out() -> None:
    text = "*mangle\n:PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
    assert [line.kind for line in sliced(text).lines] == ["place", "place", "outcome"]
    dropped = sliced(text.replace("INPUT ACCEPT", "INPUT DROP")).lines
    assert shape(dropped)[1:] == [
        (0, "chain", "mangle INPUT"),
        (1, "policy", "policy mangle INPUT"),
        (0, "outcome", "1"),
    ]


def test_each_answer_but_the_last_is_one_deeper_and_says_how_likely_it_is() -> None:
    lots = sliced(LOTS)
    branching = [(line.depth, line.kind, line.where, line.condition) for line in lots.lines if line.condition]
    assert branching == [
        (2, "rule", "nat SVC 1", "33.33 %"),
        (2, "otherwise", "nat SVC", "66.67 %"),
        (2, "rule", "nat SVC 2", "50 %"),
        (2, "otherwise", "nat SVC", "50 %"),
    ]
    ends = [(line.depth, lots.leads_to(line)) for line in lots.lines if line.kind == "outcome"]
    assert ends == [(3, "1"), (3, "2"), (0, "3")]
    entered = [line.where for line in lots.lines if line.kind == "chain"]
    assert entered == ["nat PREROUTING", "nat SVC", "nat E1", "nat E2", "nat E3"]
    assert {line.where: lots.leads_to(line) for line in lots.lines if line.kind == "rule"} == {
        "nat PREROUTING 1": "",
        "nat SVC 1": "1",
        "nat SVC 2": "2",
        "nat SVC 3": "3",
        "nat E1 1": "1",
        "nat E2 1": "2",
        "nat E3 1": "3",
    }
    assert lots.chains == (("nat", "PREROUTING"), ("nat", "SVC"), ("nat", "E1"), ("nat", "E2"), ("nat", "E3"))


def test_a_fact_that_was_not_given_is_the_condition_of_both_branches() -> None:
    lines = sliced(UNKNOWN).lines
    conditions = [line.condition for line in lines if line.condition]
    assert len(conditions) == 2
    assert conditions[0].startswith("if ")
    assert conditions[1] == f"unless {conditions[0].removeprefix('if ')}"
    assert "in the set bad" in conditions[0]
    assert [line.verdict for line in lines if line.kind == "outcome"] == ["reject", "accept"]


def packets() -> list[Packet]:
    addresses = ("10.96.0.10", "10.97.121.82", "192.168.0.11", "10.244.1.19", "203.0.113.9", "127.0.0.1")
    found = []
    for address in addresses:
        for port in (53, 8080, 31455, 15001):
            found.append(Packet("192.168.0.77", 40000, address, port, iif="eth0"))
            found.append(Packet("10.244.1.19", None, address, port, iif="cni0"))
            found.append(Packet("10.244.1.19", 1000, address, port, local=True, uid=1337, gid=1337))
            found.append(Packet("10.244.1.19", 1000, address, port, "udp", local=True))
    return found


@pytest.mark.data
@pytest.mark.parametrize(
    "file",
    [
        "iptables/istio-ambient-inpod.save",
        "iptables/istio-sidecar-current.save",
        "iptables/real_kubeadm_flannel_worker1_20230202.rules",
        "cluster/iptables/lab-0.iptables-save",
    ],
)
def test_on_real_rules_each_outcome_has_just_the_rules_of_its_branch_in_their_order(
    recorded: Callable[[str], str], file: str
) -> None:
    ruleset, walked = parse(recorded(file)), 0
    for packet in packets():
        trace = ruleset.walk(packet)
        holds_its_branches(trace, ruleset)
        walked += len(trace.outcomes)
    assert walked > 100


@pytest.mark.parametrize("text", [TREE, LOTS, UNKNOWN])
@pytest.mark.parametrize("facts", [HOST, Facts()])
def test_each_outcome_has_just_the_rules_of_its_branch_in_their_order(text: str, facts: Facts) -> None:
    ruleset = parse(text, facts=facts)
    holds_its_branches(ruleset.walk(PACKET), ruleset)


def holds_its_branches(trace: Trace, ruleset: Ruleset) -> None:
    """From each outcome's line the sources lead back over the branch's own rules; failed ones are counted."""
    lines = slice_of(trace, ruleset).lines
    ends = {int(line.where): number for number, line in enumerate(lines) if line.kind == "outcome"}
    assert sorted(ends) == [*range(1, len(trace.outcomes) + 1)]
    for number, outcome in enumerate(trace.outcomes, 1):
        way, at = [], ends[number]
        while at >= 0:
            assert lines[at].source < at
            assert number in lines[at].branches
            way.append(lines[at])
            at = lines[at].source
        branch = [(step, place) for step in trace.branch(outcome) if (place := place_of(step.where))]
        met = [line.step for line in way[::-1] if line.kind in ("rule", "open")]
        assert met == [step.id for step, _ in branch if step.matched is not False]
        failed = sum(len(place[2]) for step, place in branch if step.matched is False)
        forks = sum(line.kind == "otherwise" and trace.steps[line.step].matched is False for line in way)
        assert sum(line.count for line in way) + forks == failed


def test_a_thousand_endpoints_are_a_flat_slice() -> None:
    count = 1_000
    rules = [
        f"-A SVC -m statistic --mode random --probability {1 / (count - n):.11f} -j E{n}" for n in range(count - 1)
    ]
    ends = [f"-A E{n} -p tcp -j DNAT --to-destination 10.1.{n // 250}.{n % 250 + 1}:80" for n in range(count)]
    names = [f":E{n} - [0:0]" for n in range(count)]
    head = ["*nat", ":PREROUTING ACCEPT [0:0]", ":SVC - [0:0]", *names, "-A PREROUTING -j SVC"]
    found = sliced("\n".join([*head, *rules, f"-A SVC -j E{count - 1}", *ends, "COMMIT", ""]))
    assert found.of == count
    assert max(line.depth for line in found.lines) == 4
    assert sum(line.kind == "outcome" for line in found.lines) == count


def test_a_trace_by_hand_is_sliced_too_and_an_empty_one_has_no_lines() -> None:
    ruleset = parse(TREE)
    assert slice_of(Trace("?", (), ()), ruleset).lines == ()
    step = Step(0, -1, "filter INPUT 4", "x", None, "not told", verdict="accept")
    outcome = Outcome("unknown", "", "kept", "", 0, "", 1.0, (), "", "", 0, "not told")
    (chain, rule, end) = slice_of(Trace("?", (step,), (outcome,)), ruleset).lines
    assert [chain.kind, rule.kind, end.kind] == ["chain", "open", "outcome"]
    assert end.says == "Cannot be told: not told."
    unknown = Step(0, -1, "filter INPUT 99", "x", True)
    with pytest.raises(LabError, match="99"):
        slice_of(Trace("?", (unknown,), ()), ruleset)


@pytest.mark.parametrize(
    ("numbers", "text"),
    [((), ""), ((3,), "3"), ((1, 2), "1–2"), ((1, 2, 3, 5, 7, 8), "1–3, 5, 7–8")],
)
def test_numbers_are_written_in_runs(numbers: tuple[int, ...], text: str) -> None:
    assert in_runs(numbers) == text


@pytest.mark.parametrize(
    ("where", "place"),
    [
        ("nat A 3", ("nat", "A", range(3, 4))),
        ("nat A 3–5", ("nat", "A", range(3, 6))),
        ("policy nat A", None),
        ("return nat 3", None),
        ("routing", None),
        ("nat A x", None),
        ("", None),
    ],
)
def test_places_of_steps_are_read(where: str, place: tuple[str, str, range] | None) -> None:
    assert place_of(where) == place


def outcome(**fields: object) -> Outcome:
    usual: dict[str, object] = {
        "verdict": "accept",
        "destination": "10.0.1.1:8080",
        "source": "kept",
        "seen_as": "192.0.2.7",
        "mark": 0,
        "out": "",
        "probability": 1.0,
        "depends_on": (),
        "answer": "",
        "reply": "",
        "step": 0,
        "why": "",
    }
    return Outcome(**usual | fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({}, "Sent on to 10.0.1.1:8080, seen from 192.0.2.7, its own source."),
        ({"out": "local"}, "Delivered to a process here at 10.0.1.1:8080, seen from 192.0.2.7, its own source."),
        (
            {"out": "cni0", "source": "masqueraded", "seen_as": "10.244.0.1", "mark": 0x4000},
            "Sent on to 10.0.1.1:8080 by cni0, masqueraded: seen from 10.244.0.1, with mark 0x4000.",
        ),
        (
            {"source": "masqueraded", "seen_as": ""},
            "Sent on to 10.0.1.1:8080, masqueraded: seen from the address of the interface that it leaves by.",
        ),
        (
            {"source": "10.9.9.9", "seen_as": "10.9.9.9", "probability": 0.5},
            "Sent on to 10.0.1.1:8080, seen from 10.9.9.9, the source that SNAT gave it, with a probability of 50 %.",
        ),
        (
            {"verdict": "drop", "why": "dropped by filter A 1", "depends_on": ("a is b", "not: c is d")},
            "Dropped on its way to 10.0.1.1:8080 (dropped by filter A 1), if a is b and unless c is d.",
        ),
        (
            {"verdict": "reject", "answer": "icmp-port-unreachable"},
            "Rejected on its way to 10.0.1.1:8080; the sender gets an ICMP error, port unreachable.",
        ),
        ({"verdict": "reject", "answer": "icmp-x"}, "Rejected on its way to 10.0.1.1:8080; the sender gets icmp-x."),
        ({"verdict": "unknown", "why": "filter A 1: -m bpf"}, "Cannot be told: filter A 1: -m bpf."),
    ],
)
def test_an_outcome_is_one_sentence(fields: dict[str, object], said: str) -> None:
    assert outcome_line(outcome(**fields)) == said


def test_several_outcomes_are_counted_with_what_decides_between_them() -> None:
    by_lot = [outcome(probability=0.5), outcome(probability=0.5)]
    assert summary(by_lot) == "2 ways it can end, decided by chance:"
    facts = [outcome(depends_on=("a is b",)), outcome(depends_on=("not: a is b",))]
    assert summary(facts) == "2 ways it can end, decided by one fact that was not given:"
    assert summary([]) == "No answer: the walk has no outcome."


@pytest.mark.parametrize(
    ("probability", "said"), [(1.0, "100 %"), (0.0, "0 %"), (1 / 3, "33.33 %"), (0.5, "50 %"), (1e-5, "0.001 %")]
)
def test_probabilities_are_percents(probability: float, said: str) -> None:
    assert chance(probability) == said
