"""Which interface of a node is a pod's: the one whose other end is in another network namespace; what points can be."""

import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources.base import DEBUG_IMAGE
from bookinfo_lab.sources.cluster import capture_points
from bookinfo_lab.sources.cluster.guests import Guests
from bookinfo_lab.sources.cluster.ways import Ways

from .serving import serving

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


def given(phase: str = "Running", *, has_guest: bool = False, **spec: Any) -> dict[str, Any]:
    name = "bookinfo-lab-app-old"
    guest = {"name": name, "targetContainerName": "app", "image": DEBUG_IMAGE}
    return {
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"containers": [{"name": "app"}], "ephemeralContainers": [guest] if has_guest else [], **spec},
        "status": {"phase": phase, "ephemeralContainerStatuses": [{"name": name, "state": {"running": {}}}]},
    }


@pytest.mark.parametrize(
    ("point", "pod", "leaves", "words"),
    [
        ("shop/web:eth0", given(), ["ephemeral"], ""),
        ("shop/web:eth0", given(), ["node-pod"], "needs a container in it"),
        ("shop/web:lo", given(has_guest=True), [], ""),
        ("shop/web:lo", given("Pending"), ["ephemeral"], "does not run"),
        ("shop/web:lo", given("Pending"), [], "does not run"),
        ("shop/gone:lo", given(), ["ephemeral"], "there is no such pods"),
        ("shop/web:veth", given(), ["ephemeral", "node-pod"], "has no node or no address yet"),
        ("shop/web:veth", given(hostNetwork=True), ["ephemeral", "node-pod"], "has no veth of its own"),
        ("node/n:eth0", given(), ["ephemeral"], "needs a pod there"),
        ("node/n:eth0", given(), ["node-pod"], ""),
        ("node/gone:eth0", given(), ["node-pod"], "there is no such nodes"),
    ],
)
def test_why_a_point_cannot_be_is_told_with_nothing_made(
    point: str, pod: dict[str, Any], leaves: list[str], words: str
) -> None:
    answers = {"/api/v1/namespaces/shop/pods/web": [(200, pod)], "/api/v1/nodes/n": [(200, {})]}
    with serving(answers) as (api, server):
        own = Guests(api, frozenset(leaves))
        found = capture_points.refusal(Ways(api, own), point)
        own.close()
    assert words in found
    assert bool(words) == bool(found)
    assert {method for method, _, _ in server.asked} == {"GET"}
