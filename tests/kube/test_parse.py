import copy
import ipaddress

import pytest

from bookinfo_lab.errors import Incomplete, LabError
from bookinfo_lab.kube.objects import ContainerPort, EndpointPort
from bookinfo_lab.kube.parse import parse

SERVICE = {
    "kind": "Service",
    "metadata": {"name": "reviews", "namespace": "bookinfo", "labels": {"app": "reviews"}},
    "spec": {
        "type": "LoadBalancer",
        "clusterIP": "10.96.0.7",
        "clusterIPs": ["10.96.0.7", "fd00::7"],
        "externalIPs": ["192.0.2.1"],
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 30999,
        "sessionAffinity": "ClientIP",
        "loadBalancerSourceRanges": [" 203.0.113.7/24 "],
        "selector": {"app": "reviews"},
        "ports": [
            {"name": "http", "port": 9080, "targetPort": "web", "nodePort": 30080},
            {"name": "dns", "protocol": "UDP", "port": 53},
        ],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}, {"hostname": "lb.example"}]}},
}
SLICE = {
    "kind": "EndpointSlice",
    "metadata": {"name": "reviews-x", "namespace": "bookinfo", "labels": {"kubernetes.io/service-name": "reviews"}},
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 9080, "protocol": "TCP"}, {"name": "all", "protocol": "TCP"}],
    "endpoints": [
        {"addresses": ["10.244.0.2"], "nodeName": "lab-0", "conditions": {"ready": True}},
        {"addresses": ["10.244.1.2"], "conditions": {"ready": False, "serving": True, "terminating": True}},
        {"addresses": ["10.244.1.3"], "hints": {"forZones": [{"name": "a"}]}, "targetRef": {"name": "reviews-3"}},
    ],
}
NODE = {
    "kind": "Node",
    "metadata": {"name": "lab-0"},
    "spec": {"podCIDR": "10.244.0.0/24"},
    "status": {
        "addresses": [
            {"type": "Hostname", "address": "lab-0"},
            {"type": "InternalIP", "address": "fd00::1"},
            {"type": "InternalIP", "address": "172.18.0.2"},
        ]
    },
}
POD = {
    "kind": "Pod",
    "metadata": {"name": "reviews-3", "namespace": "bookinfo"},
    "spec": {
        "nodeName": "lab-0",
        "initContainers": [
            {"name": "istio-init", "image": "proxyv2"},
            {"name": "istio-proxy", "image": "proxyv2", "restartPolicy": "Always", "ports": [{"containerPort": 15090}]},
        ],
        "containers": [{"name": "reviews", "image": "reviews-v3", "command": ["python"], "args": ["reviews.py"]}],
    },
    "status": {"podIP": "10.244.1.3", "podIPs": [{"ip": "10.244.1.3"}], "phase": "Running"},
}


def changed(given, path, value):
    """``given`` with the value at ``path`` replaced, or taken out where ``value`` is None."""
    result = copy.deepcopy(given)
    at = result
    for step in path[:-1]:
        at = at[step]
    if value is None:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return result


def test_a_service_has_all_that_rules_depend_on():
    (service,) = parse([SERVICE]).services
    assert (service.namespace, service.name, service.type) == ("bookinfo", "reviews", "LoadBalancer")
    assert service.cluster_ips == (ipaddress.ip_address("10.96.0.7"), ipaddress.ip_address("fd00::7"))
    assert [(item.name, item.protocol, item.port, item.target_port, item.node_port) for item in service.ports] == [
        ("http", "TCP", 9080, "web", 30080),
        ("dns", "UDP", 53, 53, 0),
    ]
    assert [str(item) for item in service.load_balancer_source_ranges] == ["203.0.113.0/24"]
    assert [(str(item.address), item.ip_mode) for item in service.load_balancer] == [("198.51.100.1", "VIP")]
    assert (service.session_affinity_s, service.health_check_node_port) == (10800, 30999)
    assert (service.external_traffic_policy, service.internal_traffic_policy) == ("Local", "Cluster")
    assert service.labels == service.selector == {"app": "reviews"}


def test_a_headless_service_and_an_external_name_have_no_cluster_ip():
    headless = changed(changed(SERVICE, ("spec", "clusterIP"), "None"), ("spec", "clusterIPs"), ["None"])
    named = {
        "kind": "Service",
        "metadata": {"name": "db", "namespace": "bookinfo"},
        "spec": {"type": "ExternalName", "externalName": "db.example"},
    }
    first, second = parse([headless, named]).services
    assert (first.is_headless, first.cluster_ips) == (True, ())
    assert (second.is_headless, second.cluster_ips, second.external_name) == (False, (), "db.example")


def test_an_endpoint_without_a_condition_is_ready_and_does_not_terminate():
    (item,) = parse([SLICE]).endpoint_slices
    assert item.service == "reviews"
    assert item.ports == (EndpointPort("http", "TCP", 9080), EndpointPort("all", "TCP", 0))
    assert (item.port("http"), item.port("http", "UDP"), item.port("all"), item.port("none")) == (9080, 0, 0, 0)
    assert [(endpoint.ready, endpoint.serving, endpoint.terminating) for endpoint in item.endpoints] == [
        (True, True, False),
        (False, True, True),
        (True, True, False),
    ]
    assert [endpoint.node_name for endpoint in item.endpoints] == ["lab-0", "", ""]
    assert (item.endpoints[2].zone_hints, item.endpoints[2].target) == (("a",), "reviews-3")


def test_a_node_has_its_first_ipv4_internal_address_and_its_pod_range():
    objects = parse([NODE])
    assert objects.node("lab-0").internal_ip == "172.18.0.2"
    assert [str(item) for item in objects.node("lab-0").pod_cidrs] == ["10.244.0.0/24"]


def test_a_native_sidecar_runs_beside_the_containers_and_a_plain_init_container_does_not():
    (pod,) = parse([POD]).pods
    assert [item.name for item in pod.running_containers] == ["istio-proxy", "reviews"]
    assert [item.name for item in pod.init_containers] == ["istio-init", "istio-proxy"]
    assert pod.running_containers[0].ports == (ContainerPort("", "TCP", 15090),)
    assert (pod.containers[0].command, pod.containers[0].args) == (("python",), ("reviews.py",))
    assert (str(pod.pod_ip), pod.node_name, pod.host_network, pod.phase) == ("10.244.1.3", "lab-0", False, "Running")


def test_lists_are_opened_also_nested_and_with_items_that_name_no_kind():
    typed = {"kind": "ServiceList", "items": [{key: value for key, value in SERVICE.items() if key != "kind"}]}
    whole = {"kind": "List", "items": [typed, SLICE, {"kind": "ConfigMap", "metadata": {"name": "x"}}, POD]}
    objects = parse([whole, NODE])
    assert objects == parse([SERVICE, SLICE, POD, NODE])
    assert parse(whole).nodes == ()
    assert parse(objects) is objects
    assert parse([]) == parse({"kind": "List", "items": []})


@pytest.mark.parametrize(
    ("given", "path", "value", "said"),
    [
        (SERVICE, ("kind",), None, "object 1: kind is missing"),
        (SERVICE, ("metadata",), None, "Service: metadata.name is missing"),
        (SERVICE, ("spec", "ports", 1, "port"), None, "Service bookinfo/reviews: spec.ports[1].port is missing"),
        (SLICE, ("addressType",), None, "EndpointSlice bookinfo/reviews-x: addressType is missing"),
        (NODE, ("status", "addresses", 0, "address"), None, "Node lab-0: status.addresses[0].address is missing"),
        (POD, ("spec", "containers", 0, "name"), None, "Pod bookinfo/reviews-3: spec.containers[0].name is missing"),
    ],
)
def test_a_missing_field_is_named_with_its_object_in_one_line(given, path, value, said):
    with pytest.raises(Incomplete) as caught:
        parse([changed(given, path, value)])
    assert str(caught.value).startswith(said)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "path", "value", "said"),
    [
        (SERVICE, ("spec", "ports"), {"port": 1}, "Service bookinfo/reviews: spec.ports is {'port': 1}, not a list"),
        (SERVICE, ("spec", "ports", 0, "port"), "80", "spec.ports[0].port is '80', not an integer"),
        (SERVICE, ("spec", "ports", 0, "port"), True, "spec.ports[0].port is True, not an integer"),
        (SERVICE, ("spec", "ports", 0, "port"), 70000, "spec.ports[0].port is 70000, not a port number"),
        (SERVICE, ("spec", "ports", 0, "nodePort"), -1, "spec.ports[0].nodePort is -1, not a port number"),
        (SERVICE, ("spec", "ports", 0, "protocol"), "tcp", "spec.ports[0].protocol is 'tcp', not TCP, UDP or SCTP"),
        (SERVICE, ("spec", "clusterIPs", 0), "10.96.0", "spec.clusterIPs[0] is '10.96.0', not an IP address"),
        (SERVICE, ("spec", "loadBalancerSourceRanges", 0), "all", "loadBalancerSourceRanges[0] is 'all', not a CIDR"),
        (SERVICE, ("metadata", "labels"), ["app"], "metadata.labels is ['app'], not an object"),
        (SERVICE, ("spec",), "x" * 99, "Service bookinfo/reviews: spec is 'xxx"),
        (SLICE, ("endpoints", 0, "conditions", "ready"), "true", "conditions.ready is 'true', not true or false"),
        (SLICE, ("endpoints", 0, "addresses"), "10.0.0.1", "endpoints[0].addresses is '10.0.0.1', not a list"),
        (POD, ("status", "podIPs", 0, "ip"), "x", "status.podIPs[0].ip is 'x', not an IP address"),
    ],
)
def test_a_wrong_value_is_shown_with_its_place_in_one_line(given, path, value, said):
    with pytest.raises(LabError) as caught:
        parse([changed(given, path, value)])
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("given", ["text", ["text"], [["list"]], [None], {"kind": "List", "items": ["text"]}])
def test_what_is_no_api_object_is_refused(given):
    with pytest.raises(LabError):
        parse(given)


def test_the_same_object_twice_is_refused():
    with pytest.raises(LabError, match="Service bookinfo/reviews is there twice"):
        parse([SERVICE, {"kind": "List", "items": [SERVICE]}])


def test_an_unknown_node_is_refused_with_the_known_ones():
    with pytest.raises(Incomplete, match=r"no Node named 'lab-7' .*\(there: lab-0\)"):
        parse([NODE]).node("lab-7")


@pytest.mark.data
@pytest.mark.parametrize(("name", "counts"), [("iptables", (122, 122, 2, 0)), ("istio", (7, 7, 2, 9))])
def test_the_objects_of_a_real_cluster_are_all_read(recorded_objects, name, counts):
    objects = parse(recorded_objects(f"cluster/{name}/objects.json"))
    assert tuple(map(len, (objects.services, objects.endpoint_slices, objects.nodes, objects.pods))) == counts
