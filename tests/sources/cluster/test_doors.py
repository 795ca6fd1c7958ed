"""The way into a Bookinfo that is there: which Service, by which address, and why no node answers where none does."""

from typing import Any

import pytest

from bookinfo_lab.errors import LabError, NotShown
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.sources.cluster import doors


def service(name: str, labels: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    port = {"name": "http", "port": 9080, "protocol": "TCP", **spec.pop("port", {})}
    meta = {"name": name, "namespace": "shop", "labels": labels or {}}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": meta,
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"], "ports": [port], **spec},
    }


def node(name: str, address: str) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": address}]
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": {"addresses": addresses}}


OPEN = {"type": "NodePort", "port": {"nodePort": 30080}}
NODES = [node("a", "192.0.2.1"), node("b", "192.0.2.2")]


@pytest.mark.parametrize(
    "labels",
    [
        {"istio": "ingressgateway"},
        {"istio": "ingress"},  # as Istio's Helm chart names it
        {"app": "istio-ingressgateway"},
        {"gateway.networking.k8s.io/gateway-name": "bookinfo"},
    ],
)
def test_a_gateway_comes_before_productpage(labels: dict[str, str]) -> None:
    objects = parse([service("productpage"), service("reviews"), service("door", labels)])
    assert doors.find(objects).service.name == "door"


def test_without_a_gateway_it_is_productpage_and_without_either_a_line_that_says_what_to_name() -> None:
    assert doors.find(parse([service("reviews"), service("productpage")])).service.name == "productpage"
    with pytest.raises(LabError, match=r"no Bookinfo is seen here: .* BOOKINFO_LAB_NAMESPACE"):
        doors.find(parse([service("reviews")]))


def test_several_that_may_be_it_are_listed() -> None:
    two = [service(name, {"istio": "ingressgateway"}) for name in ("one", "two")]
    with pytest.raises(LabError, match="several Services may be the way in: shop/one, shop/two; name its namespace"):
        doors.find(parse(two))


def test_the_door_is_a_nodes_port_where_it_has_one() -> None:
    objects = parse([service("productpage", **OPEN), *NODES])
    door = doors.front_door(doors.find(objects), objects)
    assert (door.url, door.node_address, door.is_in_default_range) == ("http://192.0.2.1:30080", "192.0.2.1", True)


def test_a_port_is_forwarded_to_one_that_every_user_may_take() -> None:
    gateway = service("door", {"istio": "ingressgateway"})
    gateway["spec"]["ports"][0] |= {"port": 80}
    for named, port in ((gateway, 8080), (service("productpage"), 9080)):
        objects = parse([named])
        assert [(way.host, way.port) for way in doors.ways(doors.find(objects), objects)] == [("", port)]


def test_a_door_without_a_nodes_port_says_so_where_a_node_is_asked_for() -> None:
    objects = parse([service("productpage"), *NODES])
    door = doors.front_door(doors.find(objects), objects)
    assert door.url == "http://10.96.0.9:9080"
    for ask in (lambda: door.node_address, lambda: door.is_in_default_range):
        with pytest.raises(NotShown, match=r"^the front door here, the Service shop/productpage, has no NodePort"):
            ask()


def test_a_door_whose_nodes_may_not_be_seen_says_which_right_is_missing() -> None:
    objects = parse([service("productpage", **OPEN)])
    why = "this user may not list nodes; the role reader-cluster in deploy/rbac/ grants it"
    door = doors.front_door(doors.find(objects), objects, [why])
    with pytest.raises(NotShown, match=f"no node's address is seen: {why}$"):
        _ = door.node_address


def test_the_ways_in_are_the_load_balancer_a_nodes_port_and_a_forwarded_port() -> None:
    made = service("productpage", **OPEN | {"type": "LoadBalancer"})
    made["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}}
    objects = parse([made, *NODES])
    ways = [(way.host, way.port) for way in doors.ways(doors.find(objects), objects)]
    assert ways == [("203.0.113.7", 9080), ("192.0.2.1", 30080), ("192.0.2.2", 30080), ("", 9080)]


def test_of_a_thousand_nodes_a_few_are_tried() -> None:
    objects = parse([service("productpage", **OPEN), *(node(f"n{at}", f"192.0.2.{at}") for at in range(1, 200))])
    assert len(list(doors.ways(doors.find(objects), objects))) <= 5


@pytest.mark.parametrize(
    ("spec", "url"),
    [({}, "http://10.96.0.9:9080"), ({"clusterIP": "None", "clusterIPs": ["None"]}, "http://[fd00::9]:9999")],
)
def test_inside_the_door_is_the_services_address_or_where_it_has_none_its_pods(spec: dict[str, Any], url: str) -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "namespace": "shop"},
        "spec": {"nodeName": "b", "containers": [{"name": "c"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": "fd00::9"}]},
    }
    endpoint = {"addresses": ["fd00::9"], "conditions": {"ready": True}, "targetRef": {"kind": "Pod", "name": "p"}}
    behind = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "s", "namespace": "shop", "labels": {"kubernetes.io/service-name": "productpage"}},
        "addressType": "IPv6",
        "ports": [{"name": "http", "port": 9999, "protocol": "TCP"}],
        "endpoints": [endpoint],
    }
    objects = parse([service("productpage", **spec), pod, behind, *NODES])
    node, door = doors.from_inside(doors.find(objects), objects)
    assert (node, door.url) == ("b", url)
