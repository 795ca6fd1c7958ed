"""`lab.prove` on a node and in a pod of a real cluster: the walk beside the kernel's own trace, and nothing left."""

import left
import pytest
from bed import Bed

from bookinfo_lab.lab import Lab
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.sources import passing

EIGHT = (
    "pod to Service",
    "pod to front door",
    "into the pod",
    "application out",
    "proxy out",
    "proxy with a wrong uid",
    "application as the proxy's user",
    "proxy to application",
)


def ruleset(lab: Lab, target: str) -> str:
    """What the kernel has there, by the product's own exec; counters and handles apart."""
    return "\n".join(
        " ".join(word for word in line.split() if not word.isdigit())
        for line in lab.exec(target, "nft", "list", "ruleset").evidence.text.splitlines()
    )


@pytest.fixture(scope="module")
def packets(bed: Bed, lab: Lab) -> "dict[str, passing.Passing]":
    left.at_rest(bed)
    return dict(lab.packets())


def test_each_named_packet_of_this_mesh_is_there(packets: "dict[str, passing.Passing]") -> None:
    assert tuple(packets) == EIGHT


@pytest.mark.parametrize("name", EIGHT)
def test_the_kernel_does_what_the_walk_says(lab: Lab, packets: "dict[str, passing.Passing]", name: str) -> None:
    item = packets[name]
    proof = lab.prove(lab.rules(str(item.place)).walk(item.packet))
    assert proof.verdict == "agree", repr(proof)
    assert sum(row.same is True for row in proof.rows) >= 3


def test_a_walk_that_is_wrong_is_contradicted(lab: Lab, packets: "dict[str, passing.Passing]") -> None:
    """The kernel has rules that the walked text has not."""
    item = packets["pod to front door"]
    rules = lab.rules(str(item.place))
    walk = rules.walk(item.packet)
    text = rules.evidence.text
    gone = text.replace("-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000\n", "")
    gone = gone if gone != text else text.replace("-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n", "")
    assert gone != text
    from bookinfo_lab.netfilter import attempt, proof
    from bookinfo_lab.netfilter.ruleset import parse

    made = lab.prove(walk)
    changed = parse(gone, facts=walk.ruleset.facts)
    found = proof.compare(changed.walk(item.packet), attempt.read(made.evidence.raw), changed)
    assert found.verdict == "differ", found.as_text()


def test_after_a_proof_the_rules_are_as_before(lab: Lab, packets: "dict[str, passing.Passing]") -> None:
    for name in ("pod to Service", "application out"):
        item = packets[name]
        place = str(item.place)
        before = ruleset(lab, place) if item.place.kind == "node" else lab.rules(place, "nft").evidence.text
        lab.prove(lab.rules(place).walk(item.packet))
        after = ruleset(lab, place) if item.place.kind == "node" else lab.rules(place, "nft").evidence.text
        assert "bookinfo-lab" not in after
        assert len(after.splitlines()) == len(before.splitlines())


def test_a_packet_of_nobody_is_not_sent_and_says_why(lab: Lab, packets: "dict[str, passing.Passing]") -> None:
    item = packets["pod to Service"]
    stranger = Packet("192.0.2.7", 20001, item.packet.dst, item.packet.dport, iif=item.packet.iif)
    proof = lab.prove(lab.rules(str(item.place)).walk(stranger))
    assert proof.verdict == "not run"
    assert "192.0.2.7 is no address of a pod or a node" in proof.reason


def test_a_proof_needs_the_leave_trace(bed: Bed, bookinfo: str, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    from bookinfo_lab.sources.cluster import source

    monkeypatch.setenv("KUBECONFIG", str(bed.kubeconfig))
    monkeypatch.setenv("BOOKINFO_LAB_IMAGE", bed.image)
    without = Lab(source.connect(namespace=bookinfo, allow=["ephemeral"]))
    try:
        item = lab.packets()["application out"]
        proof = without.prove(without.rules(str(item.place)).walk(item.packet))
    finally:
        without.close()
    assert proof.verdict == "not run"
    assert "BOOKINFO_LAB_ALLOW=ephemeral,trace allows" in proof.reason
