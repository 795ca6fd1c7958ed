"""kube-proxy in nftables mode: all evidence is there, and no walk of iptables rules pretends to know the way."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import OWN, Bed, running

from bookinfo_lab import doctor
from bookinfo_lab.doctor import cluster
from bookinfo_lab.kube import places
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.lab import Lab
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster import source


@pytest.fixture(scope="module")
def bed(cluster_folder: Path) -> Iterator[Bed]:
    """A cluster of one node whose kube-proxy is in that mode, without Istio."""
    if cluster_folder.resolve() == OWN:
        pytest.skip("kube-proxy's mode is not changed in a cluster that was there before")
    with running(cluster_folder, "--nodes", "1", "--proxy-mode", "nftables") as started:
        yield started


@pytest.fixture(scope="module")
def lab(bed: Bed, namespace: str) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_IMAGE", bed.image)
        patch.setenv("KUBECONFIG", str(bed.kubeconfig))
        found = Lab(source.connect(namespace=namespace, allow=["ephemeral", "node-pod", "trace"]))
        try:
            yield found
        finally:
            found.close()


def test_all_evidence_of_a_node_and_a_pod_is_there(lab: Lab) -> None:
    node, pod = lab.place("node"), lab.place("productpage")
    kinds = ("addresses", "routes", "routing-rules", "sysctls", "conntrack")
    asked = [Query(kind, place) for kind in kinds for place in (node, pod)]
    asked += [Query("rules", place, (name,)) for name in ("iptables-nft-save", "nft") for place in (node, pod)]
    asked += [Query(kind, pod) for kind in ("processes", "sockets", "logs")]
    for query in asked:
        evidence = lab.source.fetch(query)
        assert evidence.status == 0, query
        assert evidence.raw or query.place == pod, query
    assert "table ip kube-proxy {" in lab.rules("node", "nft").evidence.text


def test_a_request_is_answered_and_captured(lab: Lab) -> None:
    point = lab.point("productpage:lo")
    with lab.source.capture([point]) as running_capture:
        page = lab.source.fetch(Query("get", places.CLIENT, ("/",)))
    assert page.raw.startswith(b"HTTP/1.0 200 OK\r\n")
    _, frames = pcapng.parse(running_capture.evidence.raw)
    assert any(b"GET / HTTP/1.1" in frame.raw for frame in frames)


def test_no_service_is_read_out_of_iptables_rules_and_no_walk_answers(lab: Lab) -> None:
    service = next(item for item in parse(lab.objects()).services if item.name == "productpage")
    pod = next(item for item in parse(lab.objects()).pods if item.name == "web")
    rules = lab.rules("node")
    assert rules.services() == ()
    walk = rules.walk(Packet(str(pod.pod_ip), 20001, str(service.cluster_ips[0]), 80, iif="eth0"))
    assert {outcome.verdict for outcome in walk.outcomes} == {"unknown"}
    assert all("ip kube-proxy" in outcome.why for outcome in walk.outcomes)
    own = parse(lab.objects()).nodes[0].internal_ip
    local = rules.walk(Packet(own, 20002, str(service.cluster_ips[0]), 80, local=True))
    assert lab.prove(local).verdict == "not seen"


def test_the_doctor_says_which_mode_it_is_and_what_does_not_work(
    lab: Lab, bed: Bed, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(bed.kubeconfig))
    lab.rules("node")  # a pod of the lab's is there, which can ask kube-proxy itself
    report = cluster.examine("", namespace)
    check = next(item for item in report.checks if item.name == "kube-proxy")
    assert not check.ok
    assert check.found.startswith("mode nftables")
    assert "the lab walks rules of mode iptables" in check.found
    assert doctor.is_fit(report)
