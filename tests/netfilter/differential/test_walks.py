"""The rule walk against the Linux kernel, on rulesets and packets at random; `python -m differential` runs any number.

BOOKINFO_LAB_WALKS and BOOKINFO_LAB_WALKS_SEED set how many packets, and which.
"""

import os
import sys
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest
from differential import bugs, cases, chances, coverage, rule_lines, running, seeded, showing, together
from differential.case import Case, Probe
from differential.comparison import is_told
from differential.surroundings import PLAIN
from kernel.flow import Flow, Visit
from kernel.room import Room

from bookinfo_lab.netfilter.ruleset import parse

FLOWS = int(os.environ.get("BOOKINFO_LAB_WALKS", "10000"))
SEED = os.environ.get("BOOKINFO_LAB_WALKS_SEED", "1")
MOST_UNKNOWN = 0.01


@pytest.fixture(scope="module")
def stand() -> Iterator[running.Stand]:
    with Room() as room:
        yield running.Stand(room)


@pytest.mark.sandbox
@pytest.mark.timeout(600)
def test_the_walk_is_what_the_kernel_does() -> None:
    report = together.covering(SEED, FLOWS, jobs=min(2, os.cpu_count() or 1))
    sys.stdout.write(showing.summary(report) + "\n")
    assert not report.disagreements, "\n\n".join(showing.disagreement(found) for found in report.disagreements)
    assert report.flows >= FLOWS
    assert sum(report.incomplete.values()) <= report.flows / 1000, report.incomplete
    assert report.unknown <= MOST_UNKNOWN * report.flows, report.unknown_why
    assert report.flows - report.open_flows >= report.flows / 2, "too few packets are asked for exactly one outcome"
    assert not (missing := showing.lacking(report)), missing


@pytest.mark.sandbox
def test_chances_are_those_that_the_kernel_takes(stand: running.Stand) -> None:
    assert not (wrong := chances.wrong(stand, SEED, rulesets=6)), "\n".join(wrong)


# One of each kind; `python -m differential.bugs` shows all of them.
SHOWN = ("goto is a jump", "a policy is ignored", "CONNMARK does not save", "both branches have one chance")


@pytest.mark.sandbox
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", SHOWN)
def test_a_seeded_bug_is_seen(name: str) -> None:
    (bug,) = (item for item in seeded.BUGS if item.name == name)
    found = bugs.run(bug, flows=3000)
    assert found.is_caught, found.shown


def test_every_seeded_bug_still_has_its_place() -> None:
    assert len({bug.name for bug in seeded.BUGS}) == len(seeded.BUGS) >= 30
    for bug in seeded.BUGS:
        compile(bugs.source_with(bug), bug.module, "exec")


def test_a_bug_whose_text_is_gone_is_an_error() -> None:
    with pytest.raises(bugs.Stale, match="0 times"):
        bugs.source_with(seeded.Bug("none", "walk", "no such text", ""))


def test_a_case_is_made_again_of_its_name() -> None:
    for made in islice(cases.cases("again"), 14):
        assert cases.named(made.name) == made


def test_every_part_of_a_run_has_cases_of_its_own() -> None:
    whole = [case.name for case in islice(cases.cases("x"), 12)]
    parts = [[case.name for case in islice(cases.cases("x", part=part, parts=2), 6)] for part in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(whole)
    assert not set(parts[0]) & set(parts[1])


@pytest.mark.sandbox
def test_a_wrong_prediction_is_found_and_shrunk(stand: running.Stand) -> None:
    """The walk is given other rules than the kernel: what differs is left, and nothing else."""
    noise = "".join(f"-A FORWARD -p udp -m udp --dport {port}\n" for port in range(1, 12))
    chains = "".join(f":{chain} ACCEPT [0:0]\n" for chain in ("INPUT", "FORWARD", "OUTPUT"))
    text = f"*filter\n{chains}{noise}-A FORWARD -p tcp -j DROP\n{noise}COMMIT\n"
    case = Case("x", 4, text, (Probe(Flow("10.1.0.2", "10.2.0.2", 80)),), PLAIN)

    class Misled(running.Stand):
        def load(self, case: Case):  # type: ignore[no-untyped-def]
            facts = super().load(case).facts
            return parse(case.text.replace("-j DROP", "-j ACCEPT"), facts=facts)

    misled, report = Misled(stand.room), running.Report()
    running.run(misled, [case], report, flows=10)
    (found,) = report.disagreements
    shrunk = running.shrink(misled, found)
    assert [line for line in shrunk.case.text.splitlines() if line.startswith("-A")] == ["-A FORWARD -p tcp -j DROP"]
    assert "10.1.0.2" in showing.disagreement(shrunk)


def test_rules_are_known_by_their_words() -> None:
    conditions = '! -s 10.0.0.0/8 -p tcp -m comment --comment "a -j b" -m tcp ! --dport 80'
    line = rule_lines.line(f"{conditions} -j DNAT --to-destination 1.2.3.4:5")
    assert line.conditions == (
        ("", "-s", True),
        ("", "-p", False),
        ("comment", "--comment", False),
        ("tcp", "--dport", True),
    )
    assert (line.proto, line.target, line.target_options, line.is_open) == ("tcp", "DNAT", ("--to-destination",), False)


@pytest.mark.parametrize(
    "text",
    [
        "-m statistic --mode nth --every 2 --packet 0 -j ACCEPT",
        "-m recent --rcheck --name A --rsource -j X",
        "-p tcp -j DNAT --to-destination 10.2.0.2-10.2.0.3",
        "-p tcp -j MASQUERADE --to-ports 1024-65535",
        "-j SNAT --to-source 10.2.0.2 --random-fully",
    ],
)
def test_what_chance_or_state_decides_is_open(text: str) -> None:
    assert rule_lines.line(text).is_open


def test_the_rules_that_were_met_are_those_before_and_between_the_ones_that_matched() -> None:
    text = (
        "*filter\n:FORWARD DROP [0:0]\n:A - [0:0]\n:B - [0:0]\n"
        "-A FORWARD -p udp\n-A FORWARD -j A\n-A FORWARD -p tcp\n-A FORWARD -g B\n-A FORWARD -p tcp\n"
        "-A A -p udp\n-A A -p tcp\n-A A -p udp\n-A B -p udp\nCOMMIT\n"
    )
    visits = [
        Visit("rule", "filter", "FORWARD", 2, "jump A", 0),
        Visit("rule", "filter", "A", 2, "continue", 0),
        Visit("end", "filter", "A", 0, "return", 0),
        Visit("rule", "filter", "FORWARD", 4, "goto B", 0),
        Visit("end", "filter", "B", 0, "return", 0),
        Visit("policy", "filter", "FORWARD", 0, "drop", 0),
    ]
    met = [
        (chain, number, matched) for _, chain, number, matched in rule_lines.examined(visits, rule_lines.chains(text))
    ]
    assert met == [
        ("FORWARD", 1, False),
        ("FORWARD", 2, True),
        ("A", 1, False),
        ("A", 2, True),
        ("A", 3, False),
        ("FORWARD", 3, False),
        ("FORWARD", 4, True),
        ("B", 1, False),
    ]


def test_nothing_modelled_is_left_out_but_what_is_listed_with_a_reason() -> None:
    required = coverage.required()
    assert len(required) == len(set(required)) > 120
    assert all(reason for reason in coverage.CANNOT.values())
    assert not [key for key in coverage.CANNOT if key in required]
    assert ("match", "tcp", "--dport", "!") in required
    assert ("target", "CONNMARK", "--save-mark") in required


@pytest.mark.parametrize(
    ("value", "freedom", "expected"), [(3.841, 1, 0.05), (9.488, 4, 0.05), (18.467, 4, 0.001), (0, 3, 1)]
)
def test_the_chi_square_tail_is_that_of_the_tables(value: float, freedom: int, expected: float) -> None:
    assert chances.tail(value, freedom) == pytest.approx(expected, rel=2e-3)


def test_frequencies_that_fit_are_told_from_those_that_do_not() -> None:
    even = {"a": 0.5, "b": 0.5}
    assert chances.fit({"a": 510, "b": 490}, even, 1000) > 0.1
    assert chances.fit({"a": 600, "b": 400}, even, 1000) < chances.LEAST_P
    assert chances.fit({"a": 500, "b": 499, "c": 1}, even, 1000) == 0
    assert chances.fit({"a": 500, "b": 400}, even, 1000) == 0
    assert chances.fit({"a": 500, "b": 500}, {"a": 0.5, "b": 0.6}, 1000) == 0
    rounds = sum(chances.fit(_drawn(number), even, 1000) > 0.05 for number in range(400))
    assert 360 <= rounds <= 398


def _drawn(seed: int) -> dict[str, int]:
    random = Random(seed)
    heads = sum(random.random() < 0.5 for _ in range(1000))
    return {"a": heads, "b": 1000 - heads}


@pytest.mark.parametrize(
    ("told", "actual", "fits"),
    [
        ("10.0.0.1:80", "10.0.0.1:80", True),
        ("10.0.0.1:80", "10.0.0.1:81", False),
        ("10.0.0.1", "10.0.0.1:81", True),
        ("fd00::1", "[fd00::1]:81", True),
        ("fd00::1", "[fd00::2]:81", False),
        ("", "10.0.0.1:80", True),
    ],
)
def test_an_address_that_is_told_in_part_fits_what_it_tells(told: str, actual: str, fits: bool) -> None:
    assert is_told(told, actual) is fits
