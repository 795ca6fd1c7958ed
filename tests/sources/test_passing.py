"""The named packets of a mesh: each has a sender and a receiver here, and the kernel does with it what is predicted."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError, NotShown, RecordingError
from bookinfo_lab.lab import Lab
from bookinfo_lab.netfilter import ruleset
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.show.walk import Walk
from bookinfo_lab.sources import passing, recording
from bookinfo_lab.sources.base import Evidence, FrontDoor, Query
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource

ON_THE_NODE = {"client to front door", "pod to Service", "pod to front door"}
IN_THE_POD = {
    *("into the pod", "application out", "proxy out", "proxy with a wrong uid"),
    *("application as the proxy's user", "proxy to application"),
}
SOURCES = [
    pytest.param("sandbox sidecar", marks=pytest.mark.sandbox),
    pytest.param("sandbox article", marks=pytest.mark.sandbox),
    "recording sidecar",
    "recording article",
]


@pytest.fixture(scope="module", params=SOURCES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    kind, scenario = request.param.split()
    if kind == "recording":
        yield Lab(RecordingSource(recording.bundled(scenario)))
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        mesh = sandbox.up(scenarios.scenario(scenario), "passing", keep=False)
        try:
            yield Lab(SandboxSource(mesh))
        finally:
            mesh.down()


def test_each_has_a_name_a_place_and_a_source_port_of_its_own(lab: Lab) -> None:
    packets = lab.packets()
    assert set(packets) == ON_THE_NODE | IN_THE_POD
    assert {item.place.kind for name, item in packets.items() if name in ON_THE_NODE} == {"node"}
    assert {item.place.kind for name, item in packets.items() if name in IN_THE_POD} == {"pod"}
    assert len({item.packet.sport for item in packets.values()}) == len(packets)


def test_the_kernel_does_with_each_what_the_walk_says(lab: Lab) -> None:
    for name, item in lab.packets().items():
        walk = lab.rules(str(item.place)).walk(item.packet)
        assert {outcome.verdict for outcome in walk.outcomes} == {"accept"}, name
        assert not any(outcome.depends_on for outcome in walk.outcomes), name
        proof = lab.prove(walk)
        assert proof.verdict == "agree", f"{name}: {proof!r}"


def test_the_front_door_masquerades_and_a_pod_keeps_its_address(lab: Lab) -> None:
    packets = lab.packets()
    walks = {name: lab.rules(str(packets[name].place)).walk(packets[name].packet) for name in ON_THE_NODE}
    door = packets["client to front door"].packet
    assert {(item.source, item.seen_as) for item in walks["client to front door"].outcomes} == {
        ("masqueraded", str(door.dst))
    }
    assert {item.source for item in walks["pod to Service"].outcomes} == {"kept"}
    assert sum(item.probability for item in walks["pod to Service"].outcomes) == pytest.approx(1)


def test_only_a_walk_of_this_labs_rules_is_proven(lab: Lab) -> None:
    packet = Packet("10.1.2.3", 1, "10.4.5.6", 80, iif="eth0")
    rules = ruleset.parse("*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
    walk = rules.walk(packet)
    for other in (walk, Walk(walk, rules), packet, None):
        with pytest.raises(LabError, match=r"lab\.rules\(TARGET\)\.walk"):
            lab.prove(other)  # type: ignore[arg-type]


@pytest.mark.parametrize("scenario", ["sidecar", "article"])
def test_a_recording_names_the_packets_that_it_has_proofs_of(scenario: str) -> None:
    lab = Lab(RecordingSource(recording.bundled(scenario)))
    item = lab.packets()["pod to Service"]
    packet = Packet(item.packet.src, 4242, item.packet.dst, item.packet.dport, iif=item.packet.iif)
    with pytest.raises(RecordingError, match=r"it holds.*sport=2000"):
        lab.prove(lab.rules(str(item.place)).walk(packet))


class Namespaced(RecordingSource):
    """What a user sees who may not list nodes."""

    def fetch(self, query: Query) -> Evidence:
        found = super().fetch(query)
        if query.arguments == ("nodes",):
            return replace(
                found, raw=b'{"kind": "List", "apiVersion": "v1", "items": []}', missing=("no nodes for you",)
            )
        return found

    def front_door(self) -> FrontDoor:
        return replace(super().front_door(), address="10.96.7.7", node_port=9080, no_node="no node of the door")


def test_without_the_nodes_those_past_a_node_say_why_they_are_not_there() -> None:
    packets = passing.packets(Namespaced(recording.bundled("sidecar")))
    assert set(packets) == IN_THE_POD
    for name in ("pod to Service", "pod to front door"):
        with pytest.raises(NotShown, match=r"^no nodes for you$"):
            _ = packets[name]
    with pytest.raises(LabError, match=r"^this lab has no packet 'client to front door'; it has: into the pod, "):
        _ = packets["client to front door"]
    with pytest.raises(LabError, match="no packet 'of nobody'"):
        _ = packets["of nobody"]


def test_a_front_door_without_a_nodes_port_says_so_for_its_packet_alone() -> None:
    class Closed(RecordingSource):
        def front_door(self) -> FrontDoor:
            return replace(super().front_door(), address="10.96.7.7", node_port=9080, no_node="no node of the door")

    packets = passing.packets(Closed(recording.bundled("sidecar")))
    assert set(packets) == IN_THE_POD | {"pod to Service"}
    with pytest.raises(NotShown, match=r"^no node of the door$"):
        _ = packets["pod to front door"]
