"""A proof agrees only where the kernel was seen to do every predicted step and nothing else."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.errors import LabError, ParseError
from bookinfo_lab.netfilter import attempt, proof
from bookinfo_lab.netfilter.attempt import Attempt
from bookinfo_lab.netfilter.kernel_trace import Flow
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.proof import compare
from bookinfo_lab.netfilter.tables import Chain, parse_save
from bookinfo_lab.trace import Outcome, Step, Trace

TABLE = "bookinfo-lab-trace-1"
SAVE = """\
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
:OTHER - [0:0]
:SEP-A - [0:0]
:SEP-B - [0:0]
:SVC - [0:0]
-A PREROUTING -d 10.0.0.2/32 -p tcp -j SVC
-A OTHER -j ACCEPT
-A SEP-A -j MARK --set-xmark 0x4000/0x4000
-A SEP-A -p tcp -j DNAT --to-destination 10.0.0.11:8080
-A SEP-B -p tcp -j DNAT --to-destination 10.0.0.12:8080
-A SVC -s 10.0.0.9/32 -j OTHER
-A SVC -m statistic --mode random --probability 0.50000000000 -j SEP-A
-A SVC -j SEP-B
COMMIT
*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m conntrack --ctstate NEW
COMMIT
"""
HANDLES = {
    "nat PREROUTING 1": 20,
    "nat OTHER 1": 21,
    "nat SEP-A 1": 22,
    "nat SEP-A 2": 23,
    "nat SEP-B 1": 24,
    "nat SVC 1": 25,
    "nat SVC 2": 26,
    "nat SVC 3": 27,
    "filter FORWARD 1": 20,
}
PACKET = Packet("10.0.0.1", None, "10.0.0.2", 80, iif="eth0")
FLOW = Flow("tcp", ip_address("10.0.0.1"), 40000, ip_address("10.0.0.2"), 80)


@dataclass(frozen=True)
class Rules:
    """The part of a Ruleset that a comparison reads."""

    text: str

    def _chains(self, table: str) -> tuple[Chain, ...]:
        return next(item.chains for item in parse_save(self.text) if item.name == table)

    def _chain(self, table: str, chain: str) -> Chain:
        return next(item for item in self._chains(table) if item.name == chain)

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(item.name for item in parse_save(self.text))

    def chains(self, table: str) -> tuple[str, ...]:
        return tuple(item.name for item in self._chains(table))

    def policy(self, table: str, chain: str) -> str:
        return self._chain(table, chain).policy

    def lines(self, table: str, chain: str) -> tuple[tuple[int, str], ...]:
        return tuple(enumerate(self._chain(table, chain).rules, 1))


RULES = Rules(SAVE)


def listing(without: str = "") -> str:
    """What `nft -a list ruleset` prints; the kernel has no chain ``without``, as where nobody put a rule into it."""
    lines = []
    for table in parse_save(SAVE):
        lines.append(f"table ip {table.name} {{ # handle 1")
        for chain in table.chains:
            if f"{table.name} {chain.name}" == without:
                continue
            lines.append(f"\tchain {chain.name} {{ # handle 2")
            if chain.policy != "-":
                lines.append(f"\t\ttype filter hook {chain.name.lower()} priority 0; policy accept;")
            for number, _ in enumerate(chain.rules, 1):
                lines.append(f"\t\tcounter # handle {HANDLES[f'{table.name} {chain.name} {number}']}")
            lines.append("\t}")
        lines.append("}")
    return "".join(f"{line}\n" for line in lines)


A_LEFT = "IN=eth0 OUT=cali1 SRC=10.0.0.1 DST=10.0.0.11 SPORT=40000 DPORT=8080 MARK=0x4000"
B_LEFT = "IN=eth0 OUT=cali2 SRC=10.0.0.1 DST=10.0.0.12 SPORT=40000 DPORT=8080"
# One entry: where, the kernel's verdict, and the packet's header where a new one is printed before it.
Seen = tuple[str, str, str]
FIRST = "IN=eth0 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 SPORT=40000 DPORT=80 SYN"
BRANCHES: dict[str, list[Seen]] = {
    "a": [
        ("nat PREROUTING 1", "JUMP:SVC", FIRST),
        ("nat SVC 2", "JUMP:SEP-A", ""),
        ("nat SEP-A 1", "CONTINUE", ""),
        ("nat SEP-A 2", "ACCEPT", ""),
        ("filter FORWARD 1", "CONTINUE", A_LEFT),
        ("policy filter FORWARD", "ACCEPT", ""),
        ("policy nat POSTROUTING", "ACCEPT", A_LEFT),
    ],
    "b": [
        ("nat PREROUTING 1", "JUMP:SVC", FIRST),
        ("nat SVC 3", "JUMP:SEP-B", ""),
        ("nat SEP-B 1", "ACCEPT", ""),
        ("filter FORWARD 1", "CONTINUE", B_LEFT),
        ("policy filter FORWARD", "ACCEPT", ""),
        ("policy nat POSTROUTING", "ACCEPT", B_LEFT),
    ],
}


def lines_of(seen: Sequence[Seen]) -> list[str]:
    """What xtables-monitor prints of these events."""
    texts = {(t.name, c.name, n): rule for t in parse_save(SAVE) for c in t.chains for n, rule in enumerate(c.rules, 1)}
    lines = []
    for where, verdict, header in seen:
        if header:
            lines.append(f"PACKET: 2 aaaaaaaa {header} ")
        first, second, third = where.split()
        if first == "policy":
            lines.append(f" TRACE: 2 aaaaaaaa {second}:{third}:policy:{verdict} ")
        else:
            text = texts.get((first, second, int(third)), "-j GONE")
            handle = HANDLES.get(where, 99)
            lines.append(
                f" TRACE: 2 aaaaaaaa {first}:{second}:rule:{handle:#x}:{verdict}  -4 -t {first} -A {second} {text}"
            )
    return lines


def knock(chain: str) -> list[str]:
    return [
        f" TRACE: 1 bbbbbbbb {TABLE}:own:rule:0x4:JUMP:{chain}  ",
        f" TRACE: 1 bbbbbbbb {TABLE}:{chain}:rule:0x5:DROP  ",
    ]


CHOICE = f" TRACE: 1 aaaaaaaa {TABLE}:traced:rule:0x6:CONTINUE  "
CONNTRACK = (
    "ipv4     2 tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=40000 dport=80 "
    "src=10.0.0.{end} dst=10.0.0.1 sport=8080 dport=40000 [ASSURED] mark=0 zone=0 use=2"
)


def tried(seen: Sequence[Seen], **more: object) -> Attempt:
    lines = [*knock("listening"), CHOICE, *lines_of(seen), *knock("finished")]
    end = "11" if any("SEP-A" in where for where, _, _ in seen) else "12"
    fields = {"trace": "".join(f"{line}\n" for line in lines), "conntrack": (CONNTRACK.format(end=end),)} | more
    return Attempt("node/n", flow=FLOW, answer="connected", table=TABLE, rules=SAVE, handles=listing(), **fields)


def walked(*, marks: bool = True) -> Trace:
    """A walk of RULES, written by hand: two branches, with a step that did not match in the first chain."""
    start = (("src", "10.0.0.1"), ("dst", "10.0.0.2:80"), ("mark", "0x0"), ("in", "eth0"))

    def state(end: str, mark: str, out: str = "") -> tuple[tuple[str, str], ...]:
        pairs = [("src", "10.0.0.1"), ("dst", f"10.0.0.{end}:8080"), ("in", "eth0"), *([("out", out)] if out else [])]
        return (*pairs, *([("mark", mark)] if marks else []))

    marked = (*start[:2], ("mark", "0x4000"), start[3])
    rows = [
        (-1, "nat PREROUTING 1", True, start, start, "jump SVC"),
        (0, "nat SVC 1", False, start, start, "continue"),
        (1, "nat SVC 2", True, start, start, "jump SEP-A"),
        (2, "nat SEP-A 1", True, start, marked, "continue"),
        (3, "nat SEP-A 2", True, marked, state("11", "0x4000"), "dnat"),
        (4, "routing", True, (), (), "continue"),
        (5, "filter FORWARD 1", True, state("11", "0x4000", "cali1"), state("11", "0x4000", "cali1"), "continue"),
        (6, "policy filter FORWARD", True, state("11", "0x4000", "cali1"), state("11", "0x4000", "cali1"), "accept"),
        (7, "policy nat POSTROUTING", True, state("11", "0x4000", "cali1"), state("11", "0x4000", "cali1"), "accept"),
        (1, "nat SVC 2", False, start, start, "continue"),
        (9, "nat SVC 3", True, start, start, "jump SEP-B"),
        (10, "nat SEP-B 1", True, start, state("12", "0x0"), "dnat"),
        (11, "filter FORWARD 1", True, state("12", "0x0", "cali2"), state("12", "0x0", "cali2"), "continue"),
        (12, "return nat SVC", True, (), (), "return"),
        (13, "policy filter FORWARD", True, state("12", "0x0", "cali2"), state("12", "0x0", "cali2"), "accept"),
        (14, "policy nat POSTROUTING", True, state("12", "0x0", "cali2"), state("12", "0x0", "cali2"), "accept"),
    ]
    steps = tuple(
        Step(number, parent, where, "", matched, before=before, after=after, verdict=verdict)
        for number, (parent, where, matched, before, after, verdict) in enumerate(rows)
    )
    outcomes = tuple(
        Outcome("accept", f"10.0.0.{end}:8080", "kept", "10.0.0.1", mark, out, 0.5, (), "", "", last, "")
        for end, mark, out, last in (("11", 0x4000, "cali1", 8), ("12", 0, "cali2", 15))
    )
    return Trace("from 10.0.0.1 to 10.0.0.2:80", steps, outcomes, subject=PACKET)


WALK = walked()


@pytest.mark.parametrize(("taken", "number"), [("a", 1), ("b", 2)])
def test_each_branch_that_the_kernel_may_take_agrees_and_is_named(taken: str, number: int) -> None:
    found = compare(WALK, tried(BRANCHES[taken]), RULES)
    assert (found.verdict, found.branch) == ("agree", (number, 2)), found.as_text()
    assert found.headline == f"agree, branch {number} of 2"
    assert bool(found)
    assert {row.same for row in found.rows} == {True}
    assert [row.where for row in found.rows if row.is_rule] == [w for w, _, _ in BRANCHES[taken] if w[:6] != "policy"]
    assert len(found.rows) == len(BRANCHES[taken]) + 3  # the interface, and two ends of the conntrack entry


@pytest.mark.parametrize("taken", BRANCHES)
@pytest.mark.parametrize("marks", [True, False])
def test_a_trace_that_lacks_any_one_event_never_agrees(taken: str, marks: bool) -> None:
    for gone in range(len(BRANCHES[taken])):
        seen = list(BRANCHES[taken])
        where, _, header = seen.pop(gone)
        if header and gone < len(seen) and not seen[gone][2]:
            seen[gone] = (*seen[gone][:2], header)
        found = compare(walked(marks=marks), tried(seen), RULES)
        assert found.verdict == "not seen", (where, found.as_text())
        assert where in found.reason


@pytest.mark.parametrize("taken", BRANCHES)
def test_the_policy_of_a_chain_that_only_iptables_save_shows_is_not_waited_for(taken: str) -> None:
    seen = [item for item in BRANCHES[taken] if item[0] != "policy nat POSTROUTING"]
    made = replace(tried(seen), handles=listing("nat POSTROUTING"))
    found = compare(WALK, made, RULES)
    assert found.verdict == "agree", found.as_text()
    row = next(row for row in found.rows if row.where == "policy nat POSTROUTING")
    assert row.same is None
    assert "no such chain" in row.kernel
    assert compare(WALK, replace(made, handles=listing()), RULES).verdict == "not seen"
    assert compare(WALK, replace(made, handles=listing("filter FORWARD")), RULES).verdict != "agree"


@given(st.data())
def test_no_cut_line_of_the_kernels_text_leaves_an_agreement(data: st.DataObject) -> None:
    whole = tried(BRANCHES["a"])
    lines = whole.trace.splitlines(keepends=True)
    number = data.draw(st.integers(0, len(lines) - 1))
    size = data.draw(st.integers(0, len(lines[number]) - 1))
    cut = "".join([*lines[:number], lines[number][:size]])
    assert compare(WALK, replace(whole, trace=cut), RULES).verdict == "not seen"
    if lines[number].startswith(" TRACE: 2"):
        without = "".join([*lines[:number], *lines[number + 1 :]])
        assert compare(WALK, replace(whole, trace=without), RULES).verdict == "not seen"


@pytest.mark.parametrize("taken", BRANCHES)
def test_a_rule_that_was_not_predicted_differs(taken: str) -> None:
    for place in range(1, len(BRANCHES[taken])):
        seen = [*BRANCHES[taken][:place], ("nat SVC 1", "JUMP:OTHER", ""), *BRANCHES[taken][place:]]
        found = compare(WALK, tried(seen), RULES)
        assert found.verdict == "differ", found.as_text()
        assert "nat SVC 1" in found.reason
        assert "no such step" in found.reason


@pytest.mark.parametrize(
    ("where", "verdict"),
    [
        ("nat PREROUTING 1", "GOTO:SVC"),
        ("nat PREROUTING 1", "JUMP:SVCX"),
        ("nat SEP-A 1", "ACCEPT"),
        ("nat SEP-A 2", "DROP"),
        ("filter FORWARD 1", "0xfffffffb"),
        ("policy filter FORWARD", "DROP"),
    ],
)
def test_another_verdict_of_the_same_rule_differs(where: str, verdict: str) -> None:
    seen = [(place, verdict if place == where else own, header) for place, own, header in BRANCHES["a"]]
    found = compare(WALK, tried(seen), RULES)
    assert found.verdict == "differ"
    assert where in found.reason


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("MARK=0x4000", "MARK=0x8000", "mark 0x8000"),
        (" MARK=0x4000", "", "mark 0x0"),
        ("DST=10.0.0.11", "DST=10.0.0.13", "dst 10.0.0.13"),
        ("DPORT=8080", "DPORT=8081", "dst 10.0.0.11"),
        ("OUT=cali1", "OUT=cali2", "out cali2"),
        ("IN=eth0 SRC", "IN=eth1 SRC", "in eth1"),
        ("SRC=10.0.0.1", "SRC=10.0.0.7", "src 10.0.0.7"),
    ],
)
def test_a_packet_that_is_not_as_predicted_differs(old: str, new: str, named: str) -> None:
    seen = [(where, verdict, header.replace(old, new)) for where, verdict, header in BRANCHES["a"]]
    found = compare(WALK, tried(seen), RULES)
    assert found.verdict == "differ"
    assert named in found.reason


@pytest.mark.parametrize(
    ("old", "new"), [("src=10.0.0.11", "src=10.0.0.12"), ("dst=10.0.0.1 sport=8080", "dst=10.0.0.3 sport=8080")]
)
def test_a_conntrack_entry_that_says_otherwise_differs(old: str, new: str) -> None:
    line = CONNTRACK.format(end="11")
    assert old in line
    assert compare(WALK, tried(BRANCHES["a"], conntrack=(line.replace(old, new),)), RULES).verdict == "differ"


def test_a_kernel_that_shows_no_conntrack_entries_can_still_agree() -> None:
    assert compare(WALK, tried(BRANCHES["a"], conntrack=None), RULES)
    assert [row.same for row in compare(WALK, tried(BRANCHES["a"], conntrack=()), RULES).rows][-1] is None


@pytest.mark.parametrize(
    ("lines", "named"),
    [
        ([CHOICE, *lines_of(BRANCHES["a"]), *knock("finished")], "did not read"),
        ([*knock("listening"), CHOICE, *lines_of(BRANCHES["a"])], "did not read"),
        ([*knock("listening"), *knock("finished"), CHOICE, *lines_of(BRANCHES["a"])], "did not read"),
        ([*knock("listening"), *knock("finished")], "never came to the rules"),
        ([*knock("listening"), *lines_of(BRANCHES["a"]), *knock("finished")], "never came to the rules"),
        ([*knock("listening"), CHOICE, "?", *lines_of(BRANCHES["a"]), *knock("finished")], "line 4"),
        ([], "did not read"),
    ],
)
def test_a_monitor_that_was_dead_overrun_or_blind_has_not_seen(lines: list[str], named: str) -> None:
    found = compare(WALK, tried([], trace="".join(f"{line}\n" for line in lines)), RULES)
    assert found.verdict == "not seen"
    assert named in found.reason
    assert found.branch is None


def test_an_overrun_is_not_seen_even_where_all_steps_were() -> None:
    said = "cannot receive from nfnetlink socket: No buffer space available\n"
    found = compare(WALK, tried(BRANCHES["a"], trace_errors=said), RULES)
    assert (found.verdict, "No buffer space" in found.reason) == ("not seen", True)


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("--to-destination 10.0.0.11:8080", "--to-destination 10.0.0.11:8081", "nat SEP-A"),
        ("-A SVC -j SEP-B\n", "", "nat SVC"),
        ("-A FORWARD -m conntrack", "-A FORWARD -p udp\n-A FORWARD -m conntrack", "filter FORWARD"),
        (":FORWARD ACCEPT", ":FORWARD DROP", "filter FORWARD"),
        ("COMMIT\n*filter", "*filter", "can no longer be read"),
    ],
)
def test_rules_that_changed_since_the_walk_differ_and_are_named(old: str, new: str, named: str) -> None:
    assert old in SAVE
    found = compare(WALK, replace(tried(BRANCHES["a"]), rules=SAVE.replace(old, new)), RULES)
    assert found.verdict == "differ"
    assert "the rules changed" in found.reason
    assert named in found.reason


def test_a_chain_that_nobody_entered_may_change() -> None:
    found = compare(
        WALK, replace(tried(BRANCHES["a"]), rules=SAVE.replace("-A OTHER -j ACCEPT", "-A OTHER -j DROP")), RULES
    )
    assert found.verdict == "agree"


def test_a_rule_that_went_between_listing_and_packet_is_a_change() -> None:
    text = tried(BRANCHES["a"]).trace.replace(f"SVC:rule:{HANDLES['nat SVC 2']:#x}", "SVC:rule:0xff")
    found = compare(WALK, replace(tried(BRANCHES["a"]), trace=text), RULES)
    assert found.verdict == "differ"
    assert "nat SVC (handle 255)" in found.reason


def test_nothing_agrees_with_unknown() -> None:
    known = WALK.outcomes[0]
    cut = replace(known, verdict="unknown", step=3, why="-m mystery is not modelled", destination="", out="")
    found = compare(replace(WALK, outcomes=(cut,)), tried(BRANCHES["a"]), RULES)
    assert found.verdict == "not seen"
    assert "-m mystery is not modelled" in found.reason


def test_a_step_that_could_not_be_told_agrees_either_way() -> None:
    steps = tuple(replace(step, matched=None) if step.where == "nat SEP-A 1" else step for step in WALK.steps)
    walk = replace(walked(marks=False), steps=steps)
    without = [item for item in BRANCHES["a"] if item[0] != "nat SEP-A 1"]
    for seen in (BRANCHES["a"], without):
        assert compare(walk, tried(seen), RULES).verdict == "agree"


def test_a_packet_that_a_policy_drops_agrees_without_a_conntrack_entry() -> None:
    save = SAVE.replace(":FORWARD ACCEPT", ":FORWARD DROP")
    steps = tuple(replace(step, verdict="drop") if step.id == 7 else step for step in WALK.steps)
    dropped = replace(WALK.outcomes[0], verdict="drop", destination="", out="", seen_as="", step=7)
    seen = [*BRANCHES["a"][:5], ("policy filter FORWARD", "DROP", "")]
    made = replace(tried(seen, conntrack=()), rules=save, answer="no answer within 0.3 s")
    found = compare(replace(WALK, steps=steps, outcomes=(dropped,)), made, Rules(save))
    assert (found.verdict, found.headline) == ("agree", "agree"), found.as_text()


def test_a_policy_that_the_walk_does_not_mention_agrees_only_where_it_accepts() -> None:
    extra = ("policy mangle FORWARD", "ACCEPT", "")
    assert compare(WALK, tried([*BRANCHES["a"][:5], extra, *BRANCHES["a"][5:]]), RULES).verdict == "agree"
    dropped = ("policy mangle FORWARD", "DROP", "")
    assert compare(WALK, tried([*BRANCHES["a"][:5], dropped, *BRANCHES["a"][5:]]), RULES).verdict == "differ"


def test_what_was_not_run_keeps_its_reason() -> None:
    found = compare(WALK, Attempt("node/n", not_run="8.8.8.8 is nobody's address"), RULES)
    assert (found.verdict, found.reason, found.rows) == ("not run", "8.8.8.8 is nobody's address", ())
    assert not found


@pytest.mark.parametrize("given_trace", [None, "walk", replace(WALK, subject=None), replace(WALK, outcomes=())])
def test_what_is_no_walk_is_refused_in_one_line(given_trace: object) -> None:
    with pytest.raises(LabError, match=r"rules\.walk\(packet\)") as caught:
        compare(given_trace, tried(BRANCHES["a"]), RULES)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("other", [{"src": "10.0.0.7"}, {"dport": 81}, {"sport": 40001}, {"proto": "udp"}])
def test_another_packet_than_the_walks_proves_nothing(other: dict[str, object]) -> None:
    fields = {"src": "10.0.0.1", "sport": None, "dst": "10.0.0.2", "dport": 80} | other
    with pytest.raises(LabError, match="another packet"):
        compare(replace(WALK, subject=Packet(**fields)), tried(BRANCHES["a"]), RULES)


def test_the_text_and_the_document_say_the_same() -> None:
    found = compare(WALK, tried(BRANCHES["b"], notes=("sent from client",)), RULES)
    text = found.as_text().splitlines()
    assert text[0].startswith("agree, branch 2 of 2: 4 matching rules")
    assert "  sent from client" in text
    assert "  at the socket: connected" in text
    assert sum(line.startswith("=") for line in text) == len(found.rows)
    document = json.loads(json.dumps(found.as_document()))
    assert document["verdict"] == "agree"
    assert document["branch"] == {"number": 2, "of": 2}
    assert [row["where"] for row in document["rows"]] == [row.where for row in found.rows]


def test_rows_that_differ_are_marked_without_colour() -> None:
    seen = [*BRANCHES["a"][:3], ("nat SEP-A 2", "DROP", "")]
    marked = [line for line in compare(WALK, tried(seen), RULES).as_text().splitlines() if line.startswith("≠")]
    assert "nat SEP-A 2" in marked[0]
    assert "drop" in marked[0]


# The record of an attempt


def test_a_record_is_read_as_it_was_written() -> None:
    for made in (tried(BRANCHES["a"], notes=("é", "b")), Attempt("node/n", not_run="no"), tried([], conntrack=None)):
        assert attempt.read(attempt.write(made)) == made


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"format": 2}', b'{"format": 1}', b"\xff", b'{"format": 1, "flow": 3}']
)
def test_what_is_no_record_is_refused(raw: bytes) -> None:
    with pytest.raises(ParseError, match="no record of a proof"):
        attempt.read(raw)


@pytest.mark.parametrize(
    "packet",
    [
        PACKET,
        Packet("10.0.0.1", 4, "10.0.0.2", 80, local=True, uid=0, gid=1337, mark=5, ct_state="established"),
        Packet("fd00::1", None, "fd00::2", 53, proto="udp"),
        Packet("10.0.0.1", None, "10.0.0.2", None, proto="icmp", icmp_type=13, icmp_code=2),
    ],
)
def test_a_packet_is_the_same_after_being_a_querys_arguments(packet: Packet) -> None:
    assert attempt.packet(attempt.words(packet)) == packet


@pytest.mark.parametrize(
    "words",
    [
        ("a=b",),
        ("src=10.0.0.1",),
        ("src=x", "dst=10.0.0.1", "dport=1"),
        ("dport=x", "src=1.1.1.1", "dst=1.1.1.2"),
        ("src",),
    ],
)
def test_words_that_are_no_packet_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(LabError):
        attempt.packet(words)


def test_proof_is_the_module_that_refuses_before_anything_is_sent() -> None:
    assert proof.check(WALK) is PACKET
