"""Which interface of a node is a pod's: the one whose other end is in another network namespace."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources.cluster import capture_points
from bookinfo_lab.sources.cluster.ways import Ways

POD = Place("pod", "shop", "web", "")
WHERE = ("shop", "node", "node")


def veth(name: str, index: int, **more: int) -> dict[str, Any]:
    return {"ifname": name, "ifindex": index, "linkinfo": {"info_kind": "veth"}, **more}


def ways(routed: str, peer: int, *links: dict[str, Any]) -> Ways:
    """Ways on which a node has these links and a route to the pod, whose own interface is the peer of that index."""

    def run(where: object, argv: list[str]) -> object:
        told = {"route": json.dumps([{"dev": routed}]), "link": json.dumps(links)}
        word = next((word for word in argv if word in told), "")
        return SimpleNamespace(done=SimpleNamespace(stdout=told.get(word, str(peer)).encode()))

    return cast(Ways, SimpleNamespace(run=run, guest=lambda place, purpose: WHERE))


def test_the_route_to_the_pod_leads_to_its_veth() -> None:
    assert (
        capture_points._veth(ways("vethA", 0, veth("vethA", 5, link_netnsid=0)), WHERE, "x", POD, "10.0.0.1") == "vethA"
    )


def test_a_pair_that_a_cni_has_on_the_node_itself_is_no_pods() -> None:
    """Cilium's routes lead to cilium_host, a veth whose other end is on the node too."""
    links = (veth("cilium_host", 3), veth("cilium_net", 2), veth("lxc1", 9, link_netnsid=1))
    assert capture_points._veth(ways("cilium_host", 9, *links), WHERE, "x", POD, "10.0.0.1") == "lxc1"


def test_a_pod_whose_interface_has_no_veth_there_is_refused() -> None:
    with pytest.raises(LabError, match="leads to cni0, which is no veth of the pod's own; capture at shop/web:eth0"):
        capture_points._veth(
            ways("cni0", 77, veth("veth1", 9, link_netnsid=1)), WHERE, "shop/web:veth", POD, "10.0.0.1"
        )
