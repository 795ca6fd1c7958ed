"""`steady`: two readings of a quiet sandbox, and of two sandboxes of one scenario, are equal; what is not, differs."""

from collections.abc import Iterator

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import contents
from bookinfo_lab.sources.base import KINDS, Query
from bookinfo_lab.sources.moving import MOVES, steady
from bookinfo_lab.sources.sandbox import SandboxSource

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module", params=["sidecar", "article"])
def two(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[SandboxSource]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        plan = scenarios.scenario(request.param)
        meshes = [sandbox.up(plan, name, keep=False) for name in ("one", "two")]
        try:
            yield [SandboxSource(mesh) for mesh in meshes]
        finally:
            for mesh in meshes:
                mesh.down()


def queries(source: SandboxSource) -> list[Query]:
    held = contents.planned(source.mesh.objects(), has_client=True)
    return [*held.queries, *held.requests, *(query for item in held.captures for query in item.requests)]


def test_two_readings_of_one_sandbox_are_equal_but_for_what_is_named(two: list[SandboxSource]) -> None:
    asked = [query for query in queries(two[0]) if can_be_read(two[0], query)]
    pairs = {query: (two[0].fetch(query).raw, two[0].fetch(query).raw) for query in asked}
    assert len(pairs) > 100
    assert [str(query) for query, (one, other) in pairs.items() if steady(query, one) != steady(query, other)] == []


def test_two_sandboxes_of_one_scenario_are_equal_but_for_what_is_named(two: list[SandboxSource]) -> None:
    asked = [query for query in queries(two[0]) if can_be_read(two[0], query)]
    first = {query: steady(query, two[0].fetch(query).raw, across_sandboxes=True) for query in asked}
    second = {query: steady(query, two[1].fetch(query).raw, across_sandboxes=True) for query in asked}
    assert [str(query) for query in first if first[query] != second[query]] == []
    assert sum(map(len, first.values())) > 100_000


def can_be_read(source: SandboxSource, query: Query) -> bool:
    return query.kind != "rules" or query.arguments[0] in ("iptables-nft-save", "nft")


def test_every_move_has_a_name_a_reason_and_a_kind() -> None:
    assert set(MOVES) <= set(KINDS)
    assert [move.name for moves in MOVES.values() for move in moves if not (move.name and move.why)] == []


@pytest.mark.parametrize(
    ("kind", "one", "other"),
    [
        ("rules", b"-A A -j ACCEPT\n", b"-A A -j DROP\n"),
        ("conntrack", b"ipv4 2 tcp 6 9 dst=10.0.0.1 dport=80\n", b"ipv4 2 tcp 6 9 dst=10.0.0.2 dport=80\n"),
        ("sockets", b"tcp LISTEN 0 1 0.0.0.0:80 0.0.0.0:*\n", b"tcp LISTEN 0 1 0.0.0.0:81 0.0.0.0:*\n"),
        ("processes", b"U 1 0 0 00:00 ? 0:0 envoy -c a\n", b"U 1 0 0 00:00 ? 0:0 envoy -c b\n"),
        ("get", b"HTTP/1.1 200 OK\r\n\r\nx", b"HTTP/1.1 404 Not Found\r\n\r\nx"),
        ("objects", b'"podIP": "10.0.0.1"', b'"podIP": "10.0.0.2"'),
    ],
)
def test_what_does_not_move_is_not_looked_past(kind: str, one: bytes, other: bytes) -> None:
    query = Query(kind)
    assert steady(query, one) != steady(query, other)
    if kind != "conntrack":
        head = b"UID PID PPID C STIME TTY TIME CMD\n" if kind == "processes" else b""
        assert steady(query, head + one, across_sandboxes=True) != steady(query, head + other, across_sandboxes=True)
