"""The writer of proxy configurations on small cases: names, choices, and what it refuses."""

import json
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
from plans import topology as random_topology

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.sandbox import scenarios, topology, xds
from bookinfo_lab.sandbox.xds import policies

SETTINGS = xds.Settings()
HOST = topology.Host("lab-0", "172.18.0.2", "10.244.0.0/24")
Object = dict[str, Any]


def proxy_pod(app: str, address: str, kind: str = "sidecar", **labels: str) -> Object:
    command = ["/usr/local/bin/pilot-agent", "proxy", kind]
    container = {"name": "istio-proxy", "image": "proxy", "command": command}
    return topology.pod(f"{app}-1", "shop", address, HOST, {"app": app, **labels}, [container])


def service(app: str, address: str, *ports: tuple[str, int, int]) -> Object:
    given = [{"name": name, "port": number, "targetPort": target} for name, number, target in ports]
    return topology.service(app, "shop", address, given, selector={"app": app})


def istio(kind: str, name: str, **spec: Any) -> Object:
    meta = {"name": name, "namespace": "shop"}
    return {"apiVersion": "networking.istio.io/v1", "kind": kind, "metadata": meta, "spec": spec}


def to(host: str, **fields: Any) -> dict[str, Any]:
    return {"destination": {"host": host, **fields}}


WEB = proxy_pod("web", "10.244.0.11", version="v1")
SHOP: list[Object] = [
    WEB,
    proxy_pod("cart", "10.244.0.12", version="v1"),
    proxy_pod("front", "10.244.0.13", "router"),
    service("web", "10.96.0.11", ("http", 8000, 8080)),
    service("cart", "10.96.0.12", ("http", 8000, 8080), ("tcp-sync", 7000, 7001), ("status", 7500, 7500)),
    service("front", "10.96.0.13", ("http2", 80, 8080)),
]


def written(*more: Object, of: Object = WEB, without: str = "") -> dict[str, dict[str, Any]]:
    """The pod's resources by kind and name, of the shop and ``more`` objects."""
    chosen = [item for item in SHOP if item["metadata"]["name"] != without] + list(more)
    objects = [*chosen, *topology.endpoint_slices(chosen, assume_ready=True)]
    found = xds.resources(objects, of, SETTINGS)
    return {kind: {item.get("name") or item["cluster_name"]: item for item in items} for kind, items in found.items()}


def cart_routes(*more: Object) -> list[dict[str, Any]]:
    """What web's sidecar does with requests for the Service cart, port 8000."""
    hosts = written(*more)["rds"]["8000"]["virtual_hosts"]
    (found,) = [host["routes"] for host in hosts if host["name"] == "cart.shop.svc.cluster.local:8000"]
    return list(found)


def gateway(*hosts: str, number: int = 80, **server: Any) -> Object:
    one = {"port": {"number": number, "name": "http", "protocol": "HTTP"}, "hosts": list(hosts), **server}
    return istio("Gateway", "door", selector={"app": "front"}, servers=[one])


def entry(name: str, *hosts: str, **rule: Any) -> Object:
    rule = {"route": [to("web")], **rule}
    return istio("VirtualService", name, hosts=list(hosts), gateways=["door"], http=[rule])


FRONT = SHOP[2]


def test_seven_proxies_are_configured_in_60_ms() -> None:
    mesh = scenarios.scenario("sidecar")
    pods = [pod for pod in mesh.pods() if any(map(topology.is_proxy, topology.containers(pod)))]
    assert len(pods) == 7
    took_ms = []
    for _ in range(5):
        began = time.perf_counter()
        for pod in pods:
            xds.files(mesh.objects, pod, SETTINGS)
        took_ms.append((time.perf_counter() - began) * 1000)
    assert min(took_ms) < 60


def test_the_version_of_a_file_follows_its_content() -> None:
    def versions(*more: Object) -> dict[str, str]:
        found = xds.files([*SHOP, *more], WEB, SETTINGS)
        return {path: json.loads(text).get("version_info", "") for path, text in found.items()}

    before, again = versions(), versions()
    assert before == again
    cart = istio("VirtualService", "cart", hosts=["cart"], http=[{"route": [to("web")]}])
    changed = {path for path, version in versions(cart).items() if before.get(path) != version}
    tables = ("8000", "80", "cart.shop.svc.cluster.local:7500")
    assert changed == {f"/etc/istio/proxy/rds/{name}.json" for name in tables}


def test_every_resource_has_a_file_of_its_own_where_the_agent_looks_for_it() -> None:
    for pod in (WEB, FRONT):
        found = xds.files([*SHOP, gateway("*"), entry("all", "*")], pod, SETTINGS)
        made = xds.resources([*SHOP, gateway("*"), entry("all", "*")], pod, SETTINGS)
        for kind, word in (("lds", "listeners"), ("cds", "clusters"), ("rds", "routes"), ("eds", "endpoints")):
            for item in made[kind]:
                name = item.get("name") or item["cluster_name"]
                assert item in json.loads(found[xds.resource_path(SETTINGS, word, name)])["resources"]


def test_with_mark_every_connection_to_another_host_carries_0x539() -> None:
    made = xds.resources(SHOP, WEB, xds.Settings(owner="mark"))
    connecting = [item for item in made["cds"] if item["type"] != "STATIC"]
    assert len(connecting) > 5
    for cluster in connecting:
        (option,) = cluster["upstream_bind_config"]["socket_options"]
        assert (option["level"], option["name"], option["int_value"]) == (1, 36, 0x539)
    assert "socket_options" not in json.dumps(xds.resources(SHOP, WEB, SETTINGS))


def test_a_pod_without_a_proxy_is_refused_by_name() -> None:
    plain = topology.pod("lonely", "shop", "10.244.0.99", HOST, {}, [{"name": "app", "command": ["app"]}])
    with pytest.raises(Unsupported, match="lonely runs no proxy"):
        xds.files(SHOP, plain, SETTINGS)


def test_a_port_whose_name_says_nothing_is_found_out_and_tcp_is_not() -> None:
    resources = written()
    assert [len(resources["lds"][f"10.96.0.12_{number}"]["filter_chains"]) for number in (7000, 7500)] == [1, 1]
    assert "default_filter_chain" not in resources["lds"]["10.96.0.12_7000"]
    assert "default_filter_chain" in resources["lds"]["10.96.0.12_7500"]
    assert set(resources["rds"]) == {"80", "8000", "cart.shop.svc.cluster.local:7500"}
    inbound = written(of=SHOP[1])["lds"]["virtualInbound"]["filter_chains"]
    names = [chain["name"] for chain in inbound if chain["name"].startswith("0.0.0.0_")]
    assert names == ["0.0.0.0_7001", "0.0.0.0_7500", "0.0.0.0_7500", "0.0.0.0_8080"]


def peers(*ports: tuple[str, int, int]) -> Object:
    """A headless Service of the cart's pods."""
    given = [{"name": name, "port": number, "targetPort": target} for name, number, target in ports]
    return topology.service("peers", "shop", "None", given, selector={"app": "cart"})


def test_a_headless_service_s_pod_is_chosen_by_the_application() -> None:
    found = written(peers(("http", 8000, 8080), ("tcp", 7100, 7001)))
    host = "peers.shop.svc.cluster.local"
    cluster = found["cds"][f"outbound|7100||{host}"]
    assert (cluster["type"], cluster["lb_policy"]) == ("ORIGINAL_DST", "CLUSTER_PROVIDED")
    assert [name for name in found["eds"] if host in name] == []
    assert found["lds"]["10.244.0.12_7100"]["address"]["socket_address"]["address"] == "10.244.0.12"
    (entry,) = [item for item in found["rds"]["8000"]["virtual_hosts"] if item["name"] == f"{host}:8000"]
    assert entry["domains"][:3] == [host, f"{host}.", "peers"]
    assert f"*.{host}" in entry["domains"]


def test_a_gateway_balances_over_a_headless_service_s_pods() -> None:
    name = "outbound|8000||peers.shop.svc.cluster.local"
    found = written(peers(("http", 8000, 8080)), of=FRONT)
    assert (found["cds"][name]["type"], len(found["eds"][name]["endpoints"])) == ("EDS", 1)


def test_a_pod_calls_itself_without_a_listener_of_its_headless_service() -> None:
    found = written(peers(("tcp", 7100, 7001), ("", 7200, 7200)), of=SHOP[1])
    assert [name for name in found["lds"] if name.startswith("10.244.0.12_")] == []
    assert "peers.shop.svc.cluster.local:7200" not in found["rds"]


def test_an_external_name_gives_its_names_to_the_service_that_it_leads_to() -> None:
    meta = {"name": "basket", "namespace": "shop"}
    spec = {"type": "ExternalName", "externalName": "cart.shop.svc.cluster.local"}
    hosts = written({"kind": "Service", "metadata": meta, "spec": spec})["rds"]["8000"]["virtual_hosts"]
    (entry,) = [item for item in hosts if item["name"] == "cart.shop.svc.cluster.local:8000"]
    assert "basket" in entry["domains"]
    assert entry["domains"][-1] == "10.96.0.12"
    assert [item for item in hosts if item["name"].startswith("basket")] == []


def with_ports(of: Object, **ports: int) -> Object:
    """The pod with a container that offers named ports."""
    changed: Object = json.loads(json.dumps(of))
    offered = [{"name": name, "containerPort": number} for name, number in ports.items()]
    changed["spec"]["containers"].append({"name": "app", "image": "app", "ports": offered})
    return changed


def inbound(clusters: Iterable[Object]) -> list[str]:
    return sorted(item["name"] for item in clusters if item["name"].startswith("inbound|"))


def test_a_named_target_port_is_the_pod_s_own_and_one_that_it_lacks_has_no_inbound_side() -> None:
    given = [{"name": "http", "port": 9000, "targetPort": "web"}, {"name": "tcp", "port": 9001, "targetPort": "none"}]
    more = topology.service("more", "shop", "10.96.0.30", given, selector={"app": "web"})
    made = xds.resources([*SHOP, more], with_ports(WEB, web=8765), SETTINGS)
    assert inbound(made["cds"]) == ["inbound|8080||", "inbound|8765||"]


def test_of_two_services_with_one_target_port_the_older_one_s_is_the_inbound_side() -> None:
    def named(name: str, created: str) -> Object:
        made = topology.service(name, "shop", "10.96.0.31", [{"name": "http", "port": 9000}], selector={"app": "web"})
        made["metadata"]["creationTimestamp"] = created
        return made

    found = written(named("aaa", "2026-01-02T00:00:00Z"), named("bbb", "2026-01-01T00:00:00Z"))
    told = found["cds"]["inbound|9000||"]["metadata"]["filter_metadata"]["istio"]["services"]
    assert [item["name"] for item in told] == ["bbb", "aaa"]
    (chain,) = [one for one in found["lds"]["virtualInbound"]["filter_chains"] if one["name"] == "0.0.0.0_9000"]
    assert "bbb.shop" in json.dumps(chain)


def test_the_inbound_side_tells_of_those_services_only_that_have_the_same_number() -> None:
    other = service("web2", "10.96.0.37", ("http", 9000, 8080))
    other["spec"]["selector"] = {"app": "web"}
    found = written(other)
    assert len(found["cds"]["inbound|8080||"]["metadata"]["filter_metadata"]["istio"]["services"]) == 1


@pytest.mark.parametrize("port", [{"name": "dns", "protocol": "UDP"}, {"name": "udp-dns"}], ids=str)
def test_a_port_of_udp_has_an_inbound_side_and_nothing_outbound(port: Object) -> None:
    given = [{"port": 5300, **port}]
    found = written(topology.service("names", "shop", "10.96.0.32", given, selector={"app": "web"}))
    assert "inbound|5300||" in inbound(found["cds"].values())
    assert [name for name in found["cds"] if name.startswith("outbound|5300|")] == []


@pytest.mark.parametrize(
    ("name", "again", "is_http2"), [("http", True, False), ("http2", True, True), ("grpc", False, True)]
)
def test_what_comes_in_by_grpc_is_not_asked_again(name: str, again: bool, is_http2: bool) -> None:
    made = service("extra", "10.96.0.33", (name, 9000, 9000))
    made["spec"]["selector"] = {"app": "web"}
    found = written(made)
    chains = found["lds"]["virtualInbound"]["filter_chains"]
    (manager,) = [item["filters"][0]["typed_config"] for item in chains if item["name"] == "0.0.0.0_9000"]
    (route,) = manager["route_config"]["virtual_hosts"][0]["routes"]
    assert ("retry_policy" in route["route"], "http2_protocol_options" in manager) == (again, is_http2)


def test_internal_traffic_policy_local_leaves_the_endpoints_of_the_pod_s_own_node() -> None:
    cart = service("near", "10.96.0.34", ("http", 9000, 8080))
    cart["spec"] |= {"selector": {"app": "cart"}, "internalTrafficPolicy": "Local"}
    name = "outbound|9000||near.shop.svc.cluster.local"
    elsewhere: Object = json.loads(json.dumps(WEB))
    elsewhere["spec"]["nodeName"] = "lab-9"
    assert len(written(cart)["eds"][name]["endpoints"]) == 1
    assert written(cart, of=elsewhere)["eds"][name]["endpoints"] == []


def test_a_slice_without_endpoints_and_ports_leaves_an_empty_cluster() -> None:
    labels = {"kubernetes.io/service-name": "idle"}
    empty = {"kind": "EndpointSlice", "metadata": {"name": "idle-1", "namespace": "shop", "labels": labels}}
    idle = service("idle", "10.96.0.20", ("http", 8000, 8080))
    made = xds.resources([*SHOP, idle, empty | {"ports": None, "endpoints": None}], WEB, SETTINGS)
    name = "outbound|8000||idle.shop.svc.cluster.local"
    (assignment,) = [item for item in made["eds"] if item["cluster_name"] == name]
    assert assignment["endpoints"] == []


def test_an_endpoint_that_is_not_ready_is_told_as_unhealthy_and_one_that_ends_is_not_told() -> None:
    slices = json.loads(json.dumps(list(topology.endpoint_slices(SHOP))))  # no pod here is ready

    def health() -> set[str]:
        made = xds.resources([*SHOP, *slices], WEB, SETTINGS)["eds"]
        groups = [group for item in made for group in item["endpoints"]]
        return {member.get("health_status", "HEALTHY") for group in groups for member in group["lb_endpoints"]}

    assert health() == {"UNHEALTHY"}
    for endpoint in (endpoint for item in slices for endpoint in item["endpoints"]):
        endpoint["conditions"]["terminating"] = True
    assert health() == set()


def test_overlapping_slices_give_an_endpoint_once() -> None:
    slices = list(topology.endpoint_slices(SHOP, assume_ready=True))
    made = xds.resources([*SHOP, *slices, *slices], WEB, SETTINGS)
    assert all(len(group["lb_endpoints"]) == 1 for item in made["eds"] for group in item["endpoints"])


def test_a_subset_holds_the_endpoints_with_its_labels() -> None:
    second = proxy_pod("web", "10.244.0.9", version="v2")
    second["metadata"]["name"] = "web-2"
    subsets = [{"name": "v2", "labels": {"version": "v2"}}, {"name": "none", "labels": {"version": "v9"}}]
    resources = written(second, istio("DestinationRule", "web", host="web", subsets=subsets))

    def members(subset: str) -> list[str]:
        groups = resources["eds"][f"outbound|8000|{subset}|web.shop.svc.cluster.local"]["endpoints"]
        found = [
            member["endpoint"]["address"]["socket_address"] for group in groups for member in group["lb_endpoints"]
        ]
        return [item["address"] for item in found]

    assert (members(""), members("v2"), members("none")) == (["10.244.0.11", "10.244.0.9"], ["10.244.0.9"], [])


def test_a_load_balancer_may_be_chosen_for_a_service_and_for_a_subset() -> None:
    def simple(name: str) -> dict[str, Any]:
        return {"loadBalancer": {"simple": name}, "tls": {"mode": "DISABLE"}}

    subsets = [{"name": "own", "trafficPolicy": simple("ROUND_ROBIN")}, {"name": "same"}]
    rule = istio("DestinationRule", "web", host="web", trafficPolicy=simple("RANDOM"), subsets=subsets)
    clusters = written(rule)["cds"]
    found = [clusters[f"outbound|8000|{name}|web.shop.svc.cluster.local"]["lb_policy"] for name in ("", "own", "same")]
    assert found == ["RANDOM", "ROUND_ROBIN", "RANDOM"]
    assert clusters["outbound|8000||cart.shop.svc.cluster.local"]["lb_policy"] == "LEAST_REQUEST"


def test_a_policy_in_the_mesh_means_the_port_that_was_asked_for() -> None:
    rule = istio("VirtualService", "cart", hosts=["cart"], http=[{"route": [to("web", subset="v1")]}])
    (route,) = cart_routes(rule)
    assert route["route"]["cluster"] == "outbound|8000|v1|web.shop.svc.cluster.local"


def aged(item: Object, created: str) -> Object:
    return item | {"metadata": item["metadata"] | {"creationTimestamp": created}}


def test_the_oldest_policy_for_a_host_is_the_one_in_force() -> None:
    def rule(name: str) -> Object:
        return istio("VirtualService", name, hosts=["cart"], http=[{"name": name, "route": [to("web")]}])

    rules = [aged(rule("newer"), "2026-01-02T00:00:00Z"), aged(rule("older"), "2026-01-01T00:00:00Z")]
    (route,) = cart_routes(*rules)
    assert route["name"] == "older"
    (route,) = cart_routes(rule("beta"), rule("alpha"))
    assert route["name"] == "alpha"  # as old as the other: by name


def test_a_port_that_may_turn_out_to_be_http_is_among_the_hosts_of_its_number() -> None:
    hosts = written(service("any", "10.96.0.38", ("", 8000, 8000)))["rds"]["8000"]["virtual_hosts"]
    assert "any.shop.svc.cluster.local:8000" in [item["name"] for item in hosts]


def test_a_match_s_name_without_a_rule_s_follows_a_dot() -> None:
    (route, _) = cart_routes(
        istio(
            "VirtualService",
            "cart",
            hosts=["cart"],
            http=[{"match": [{"uri": {"exact": "/a"}, "name": "m"}], "route": [to("web")]}, {"route": [to("web")]}],
        )
    )
    assert route["name"] == ".m"


def test_a_fault_without_a_percentage_is_written_without_one() -> None:
    fault = {"abort": {"httpStatus": 500}}
    (route,) = cart_routes(
        istio("VirtualService", "cart", hosts=["cart"], http=[{"fault": fault, "route": [to("web")]}])
    )
    assert route["typed_per_filter_config"]["envoy.filters.http.fault"]["abort"] == {"http_status": 500}


def test_an_endpoint_without_a_pod_s_name_is_none_of_another_namespace_s_pods() -> None:
    labels = {"kubernetes.io/service-name": "web"}
    endpoint = {"addresses": ["10.244.0.12"], "conditions": {"ready": True}}
    by_hand = {"kind": "EndpointSlice", "ports": [{"name": "http", "port": 8080}], "endpoints": [endpoint]}
    by_hand["metadata"] = {"name": "by-hand", "namespace": "shop", "labels": labels}
    elsewhere = [item if item["kind"] != "Pod" else _moved(item) for item in SHOP[1:]]

    def workload(objects: list[Object]) -> str:
        made = xds.resources([*objects, by_hand], WEB, SETTINGS)["eds"]
        (told,) = [item for item in made if item["cluster_name"] == "outbound|8000||web.shop.svc.cluster.local"]
        metadata = told["endpoints"][0]["lb_endpoints"][0]["metadata"]
        return str(metadata["filter_metadata"]["istio"]["workload"])

    assert workload(SHOP) == "cart-1;shop;cart;v1;Kubernetes"
    assert workload([WEB, *elsewhere]) == ";;;;Kubernetes"


def _moved(pod: Object) -> Object:
    return pod | {"metadata": pod["metadata"] | {"namespace": "other"}}


def test_what_follows_a_catch_all_is_left_out() -> None:
    http = [{"match": [{"uri": {"prefix": "/"}}], "route": [to("web")]}, {"route": [to("cart")]}]
    routes = cart_routes(istio("VirtualService", "cart", hosts=["cart"], http=http))
    assert [route["route"]["cluster"] for route in routes] == ["outbound|8000||web.shop.svc.cluster.local"]


def test_a_weight_of_nothing_is_no_destination() -> None:
    shares = [to("web") | {"weight": 100}, to("cart") | {"weight": 0}]
    rule = istio("VirtualService", "cart", hosts=["cart"], http=[{"route": shares}])
    (route,) = cart_routes(rule)
    (cluster,) = route["route"]["weighted_clusters"]["clusters"]
    assert cluster == {"name": "outbound|8000||web.shop.svc.cluster.local", "weight": 100}


def test_a_gateway_listens_where_its_service_leads() -> None:
    resources = written(gateway("*"), entry("all", "*"), of=FRONT)
    assert set(resources["lds"]) == {"0.0.0.0_8080"}
    assert [host["name"] for host in resources["rds"]["http.8080"]["virtual_hosts"]] == ["*:80"]
    resources = written(gateway("*"), entry("all", "*"), of=FRONT, without="front")
    assert set(resources["lds"]) == {"0.0.0.0_80"}
    assert set(written(gateway("*", number=9999), entry("all", "*"), of=FRONT)["lds"]) == {"0.0.0.0_9999"}
    assert set(written(gateway("*"), entry("all", "*"), of=proxy_pod("side", "10.244.0.14", "router"))["lds"]) == set()


def test_a_gateway_without_a_route_answers_with_istio_s_black_hole() -> None:
    for policy in ([], [entry("other", "shop.example")]):
        (host,) = written(gateway("only.example"), *policy, of=FRONT)["rds"]["http.8080"]["virtual_hosts"]
        assert host == {"name": "blackhole:80", "domains": ["*"], "routes": []}


@pytest.mark.parametrize(
    ("offered", "asked", "hosts"),
    [
        (["*"], ["shop.example"], ["shop.example"]),
        (["shop.example"], ["*"], ["shop.example"]),
        (["*.example"], ["a.example", "b.test"], ["a.example"]),
        (["shop/*.example"], ["a.example"], ["a.example"]),
        (["elsewhere/*"], ["a.example"], []),
        (["a.example", "b.example"], ["*.example"], ["a.example", "b.example"]),
    ],
)
def test_a_gateway_s_virtual_hosts_are_what_server_and_policy_share(
    offered: list[str], asked: list[str], hosts: list[str]
) -> None:
    resources = written(gateway(*offered), entry("all", *asked), of=FRONT)
    (found,) = resources["rds"]["http.8080"]["virtual_hosts"]
    assert (found["name"], found["domains"]) == ((f"{hosts[0]}:80", hosts) if hosts else ("blackhole:80", ["*"]))


def test_hosts_of_a_gateway_share_a_virtual_host_only_where_all_their_policies_are_the_same() -> None:
    more = entry("more", "b.example", match=[{"uri": {"exact": "/more"}}])
    resources = written(gateway("*"), entry("all", "a.example", "b.example", "longer.example"), more, of=FRONT)
    found = resources["rds"]["http.8080"]["virtual_hosts"]
    assert [item["domains"] for item in found] == [["b.example"], ["longer.example", "a.example"]]


def test_policies_for_one_host_of_a_gateway_share_it_with_the_catch_all_last() -> None:
    special = entry("special", "*", match=[{"uri": {"exact": "/cart"}}])
    (host,) = written(gateway("*"), entry("all", "*"), special, of=FRONT)["rds"]["http.8080"]["virtual_hosts"]
    assert [route["match"] for route in host["routes"]] == [{"path": "/cart", "case_sensitive": True}, {"prefix": "/"}]


def test_a_gateway_s_destination_without_a_port_is_its_service_s_only_one() -> None:
    (host,) = written(gateway("*"), entry("all", "*"), of=FRONT)["rds"]["http.8080"]["virtual_hosts"]
    assert host["routes"][0]["route"]["cluster"] == "outbound|8000||web.shop.svc.cluster.local"
    many = entry("all", "*", route=[to("cart")])
    (host,) = written(gateway("*"), many, of=FRONT)["rds"]["http.8080"]["virtual_hosts"]
    assert host["routes"][0]["route"]["cluster"] == "outbound|80||cart.shop.svc.cluster.local"


@pytest.mark.parametrize(
    ("match", "expected"),
    [
        ({"uri": {"exact": "/a"}}, {"path": "/a", "case_sensitive": True}),
        ({"uri": {"regex": "/a.*"}}, {"safe_regex": {"regex": "/a.*"}, "case_sensitive": True}),
        ({"uri": {"prefix": "/a"}, "ignoreUriCase": True}, {"prefix": "/a", "case_sensitive": False}),
        (
            {"method": {"exact": "GET"}, "authority": {"prefix": "a."}, "headers": {"b": {}, "a": {"regex": "x+"}}},
            {
                "prefix": "/",
                "case_sensitive": True,
                "headers": [
                    {"name": "a", "string_match": {"safe_regex": {"regex": "x+"}}},
                    {"name": "b", "present_match": True},
                    {"name": ":method", "string_match": {"exact": "GET"}},
                    {"name": ":authority", "string_match": {"prefix": "a."}},
                ],
            },
        ),
    ],
)
def test_a_match_is_written_as_istio_does(match: dict[str, Any], expected: dict[str, Any]) -> None:
    rule = istio("VirtualService", "cart", hosts=["cart"], http=[{"match": [match], "route": [to("web")]}])
    (route,) = cart_routes(rule)
    assert route["match"] == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"attempts": 3}, {"num_retries": 3}),
        ({"attempts": 1, "retryOn": "5xx,reset"}, {"num_retries": 1, "retry_on": "5xx,reset"}),
        (
            {"attempts": 1, "retryOn": "reset, 503"},
            {"num_retries": 1, "retry_on": "reset,retriable-status-codes", "retriable_status_codes": [503]},
        ),
        ({"attempts": 2, "perTryTimeout": "250ms"}, {"num_retries": 2, "per_try_timeout": "0.250s"}),
    ],
)
def test_retries_change_istio_s_default_only_where_they_say_so(given: dict[str, Any], expected: dict[str, Any]) -> None:
    rule = istio("VirtualService", "cart", hosts=["cart"], http=[{"retries": given, "route": [to("web")]}])
    (route,) = cart_routes(rule)
    assert route["route"]["retry_policy"] == policies.default_retries() | expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10s", "10s"),
        ("0.5s", "0.500s"),
        ("500ms", "0.500s"),
        ("1m30s", "90s"),
        ("1h", "3600s"),
        ("1.5h", "5400s"),
        ("3us", "0.000003s"),
        ("7ns", "0.000000007s"),
        ("0s", "0s"),
    ],
)
def test_a_duration_is_written_in_seconds(text: str, expected: str) -> None:
    assert policies.duration(text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "ten seconds", "10s ", "-1s", "1d", "1s2"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Unsupported, match="is not a duration"):
        policies.duration(text)


@pytest.mark.parametrize(
    ("item", "named"),
    [
        (istio("VirtualService", "cart", hosts=["cart"], tcp=[{}]), "'tcp'"),
        (istio("VirtualService", "cart", hosts=["cart"], http=[{"mirror": {"host": "web"}}]), "'mirror'"),
        (istio("VirtualService", "cart", hosts=["cart"], http=[{"match": [{"port": 1}], "route": []}]), "'port'"),
        (istio("VirtualService", "cart", hosts=["cart"], http=[{"name": "nowhere"}]), "without 'route'"),
        (istio("DestinationRule", "web", host="web", trafficPolicy={"tls": {"mode": "ISTIO_MUTUAL"}}), "'tls'"),
        (istio("DestinationRule", "web", host="web", trafficPolicy={"outlierDetection": {"x": 1}}), "'outlierD"),
        (
            istio("DestinationRule", "web", host="web", trafficPolicy={"loadBalancer": {"simple": "PASSTHROUGH"}}),
            "PASSTHROUGH",
        ),
    ],
)
def test_a_policy_that_would_be_half_in_force_is_refused_by_its_field(item: Object, named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        written(item)


def test_a_gateway_with_tls_is_refused() -> None:
    with pytest.raises(Unsupported, match="plain HTTP"):
        written(gateway("*", tls={"mode": "SIMPLE"}), of=FRONT)


def test_the_bootstrap_of_2017_asks_istio_pilot_for_everything() -> None:
    document = xds.bootstrap_2017()
    assert document["listeners"] == []
    manager = document["cluster_manager"]
    asked = [*manager["clusters"], manager["sds"]["cluster"], manager["cds"]["cluster"]]
    urls = {item["name"]: item["hosts"][0]["url"] for item in asked}
    assert urls.pop("zipkin") == "tcp://zipkin:9411"
    assert urls == dict.fromkeys(("rds", "lds", "sds", "cds"), "tcp://istio-pilot:15003")
    assert document["lds"]["refresh_delay_ms"] == manager["sds"]["refresh_delay_ms"] == 1000
    assert document["admin"]["address"] == "tcp://127.0.0.1:15000"


@pytest.mark.parametrize("seed", range(5))
def test_names_ports_and_addresses_of_any_plan_are_followed(seed: int) -> None:
    plan = random_topology(seed)
    for pod in plan.pods():
        if not any(map(topology.is_proxy, topology.containers(pod))):
            continue
        text = json.dumps(xds.resources(plan.objects, pod, SETTINGS))
        for item in plan.objects:
            if item["kind"] == "Service":
                meta = item["metadata"]
                assert f"{meta['name']}.{meta['namespace']}.svc.cluster.local" in text
        assert not re.search(r"(?<!/)productpage|reviews|\bdefault\.svc|\b9080\b", text)


def transparently(of: Object, mode: str) -> Object:
    """The pod with a proxy that is told this mode of interception."""
    changed: Object = json.loads(json.dumps(of))
    changed["spec"]["containers"][0]["env"] = [{"name": "ISTIO_META_INTERCEPTION_MODE", "value": mode}]
    return changed


def test_with_tproxy_the_listeners_take_what_is_not_for_them_and_keep_the_client_s_address() -> None:
    found = written(of=transparently(WEB, "TPROXY"))["lds"]
    assert found["virtualOutbound"]["transparent"]
    assert found["virtualInbound"]["transparent"]
    (source,) = [
        item for item in found["virtualInbound"]["listener_filters"] if item["name"].endswith("listener.original_src")
    ]
    assert source["typed_config"]["mark"] == 1337
    assert "transparent" not in written()["lds"]["virtualInbound"]


def test_without_interception_no_configuration_is_written() -> None:
    with pytest.raises(Unsupported, match="web-1: interception mode NONE"):
        written(of=transparently(WEB, "NONE"))


def test_a_pod_of_no_service_has_one_range_in_which_nothing_is_looked_into() -> None:
    (_, inspector) = written(without="web")["lds"]["virtualInbound"]["listener_filters"]
    assert inspector["filter_disabled"] == {"destination_port_range": {"start": 15006, "end": 15007}}


def test_a_port_of_sctp_is_told_as_one_of_tcp_unless_a_tcp_port_has_its_number() -> None:
    given = [{"name": "both", "port": 9300}, {"name": "sctp", "port": 9300, "protocol": "SCTP"}]
    given.append({"name": "alone", "port": 9301, "protocol": "SCTP"})
    more = topology.service("more", "shop", "10.96.0.36", given, selector={"app": "cart"})
    names = [item["name"] for item in xds.resources([*SHOP, more], WEB, SETTINGS)["cds"]]
    assert names.count("outbound|9300||more.shop.svc.cluster.local") == 1
    assert names.count("outbound|9301||more.shop.svc.cluster.local") == 1
