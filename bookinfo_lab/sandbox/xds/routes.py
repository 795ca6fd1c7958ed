"""Route configurations: the resources of RDS, and the inline ones of a sidecar's inbound side."""

from collections.abc import Mapping, Sequence
from typing import Any

from bookinfo_lab.sandbox.xds.settings import typed
from bookinfo_lab.sandbox.xds.view import Port, View

_ROUTES = "config.route.v3.RouteConfiguration"
_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_PREVIOUS_HOSTS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
    },
}


def sidecar(mesh: View) -> list[dict[str, Any]]:
    """A route configuration for every HTTP port number, and one a Service port whose protocol is found out."""
    found = []
    for number in sorted({port.number for port in mesh.ports if is_http(port)}):
        ports = [port for port in mesh.ports if is_http(port) and port.number == number]
        found.append(_configuration(str(number), [*(_virtual_host(mesh, port) for port in ports), _allow_any()]))
    found_out = [port for port in mesh.ports if port.protocol == "auto"]
    alone = (_configuration(f"{port.host}:{port.number}", [_virtual_host(mesh, port, True)]) for port in found_out)
    return [*found, *alone]


def is_http(port: Port) -> bool:
    """Whether the port's name says that it speaks HTTP."""
    return port.protocol in ("http", "http2")


def inbound(port: Port | None) -> dict[str, Any]:
    """The inline configuration that leads everything to the application; None: a port that no Service knows."""
    number = port.target if port else 0
    cluster = f"inbound|{number}||" if port else "InboundPassthroughCluster"
    route = {
        "match": {"prefix": "/"},
        "route": {
            "cluster": cluster,
            "timeout": "0s",
            "retry_policy": {"retry_on": "reset-before-request", "num_retries": 2},
            "max_stream_duration": {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"},
        },
        "decorator": {"operation": f"{port.host if port else ''}:{port.number if port else 0}/*"},
        "name": "default",
    }
    host = {"name": f"inbound|http|{port.number if port else 0}", "domains": ["*"], "routes": [route]}
    return {"name": cluster, "virtual_hosts": [host], "validate_clusters": False}


def gateway(mesh: View) -> list[dict[str, Any]]:
    """A route configuration for each HTTP server of the Gateways that select this pod, named by its port."""
    hosts: dict[int, list[dict[str, Any]]] = {}
    for listener, number, server, item in gateway_servers(mesh):
        for name in server["hosts"]:
            host = name.rpartition("/")[2]
            routes = [
                route
                for policy in mesh.virtual_services
                if _is_bound(policy, item) and _hosts_meet(policy["spec"]["hosts"], host)
                for route in _policy_routes(mesh, policy)
            ]
            hosts.setdefault(listener, []).append(_gateway_host(host, number, routes))
    return [_configuration(f"http.{listener}", found) for listener, found in sorted(hosts.items())]


def gateway_servers(mesh: View) -> list[tuple[int, int, Mapping[str, Any], Mapping[str, Any]]]:
    """(port listened on, server port, server, Gateway) of every HTTP server that Gateways give to this pod.

    A server port that the pod's Service maps is listened on at its target port, as istiod does.
    """
    labels = mesh.pod["metadata"]["labels"]
    targets = {port.number: port.target for port in mesh.own_ports()}
    return [
        (targets.get(server["port"]["number"], server["port"]["number"]), server["port"]["number"], server, item)
        for item in mesh.gateways
        if item["spec"].get("selector", {}).items() <= labels.items()
        for server in item["spec"]["servers"]
        if server["port"]["protocol"] in ("HTTP", "HTTP2")
    ]


def _configuration(name: str, hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return typed(
        _ROUTES,
        name=name,
        virtual_hosts=list(hosts),
        validate_clusters=False,
        max_direct_response_body_size_bytes=1048576,
        ignore_port_in_host_matching=True,
    )


def _domains(mesh: View, port: Port) -> list[str]:
    short = f"{port.name}.{port.namespace}"
    own = [port.name] if port.namespace == mesh.namespace else []
    return [port.host, f"{port.host}.", *own, f"{short}.svc", short, port.address]


def _virtual_host(mesh: View, port: Port, every_host: bool = False) -> dict[str, Any]:
    routes = [
        route
        for policy in mesh.virtual_services
        if "mesh" in policy["spec"].get("gateways", ["mesh"]) and _names(mesh, policy, port)
        for route in _policy_routes(mesh, policy)
    ]
    return {
        "name": f"{port.host}:{port.number}",
        "domains": ["*"] if every_host else _domains(mesh, port),
        "routes": routes or [_default_route(port)],
        "include_request_attempt_count": True,
    }


def _names(mesh: View, policy: Mapping[str, Any], port: Port) -> bool:
    meta = policy["metadata"]
    return any(mesh.find(host, port.number, meta["namespace"]) == port for host in policy["spec"]["hosts"])


def _allow_any() -> dict[str, Any]:
    action = {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}
    route = {"match": {"prefix": "/"}, "route": action, "name": "allow_any"}
    return {"name": "allow_any", "domains": ["*"], "routes": [route], "include_request_attempt_count": True}


def _retries() -> dict[str, Any]:
    return {
        "retry_on": _RETRY_ON,
        "num_retries": 2,
        "retry_host_predicate": [_PREVIOUS_HOSTS],
        "host_selection_retry_max_attempts": "5",
    }


def _default_route(port: Port) -> dict[str, Any]:
    action = {"cluster": port.cluster(), "timeout": "0s", "retry_policy": _retries(), "max_grpc_timeout": "0s"}
    operation = {"operation": f"{port.host}:{port.number}/*"}
    return {"match": {"prefix": "/"}, "route": action, "decorator": operation, "name": "default"}


def _is_bound(policy: Mapping[str, Any], gateway_object: Mapping[str, Any]) -> bool:
    meta = gateway_object["metadata"]
    names = {f"{meta['namespace']}/{meta['name']}"}
    if policy["metadata"]["namespace"] == meta["namespace"]:
        names.add(meta["name"])
    return bool(names & set(policy["spec"].get("gateways", ())))


def _hosts_meet(hosts: Sequence[str], server: str) -> bool:
    return "*" in (server, *hosts) or server in hosts


def _gateway_host(host: str, number: int, routes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": f"{host}:{number}", "domains": [host], "routes": routes, "include_request_attempt_count": True}


def _policy_routes(mesh: View, policy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The routes of a VirtualService's http section, one a match, in its order."""
    return [
        _policy_route(mesh, policy, rule, match)
        for rule in policy["spec"].get("http", ())
        for match in rule.get("match") or [{}]
    ]


def _policy_route(
    mesh: View, policy: Mapping[str, Any], rule: Mapping[str, Any], match: Mapping[str, Any]
) -> dict[str, Any]:
    meta = policy["metadata"]
    targets = [(_target(mesh, item["destination"], meta["namespace"]), item.get("weight", 0)) for item in rule["route"]]
    action: dict[str, Any] = {
        "timeout": rule.get("timeout", "0s"),
        "retry_policy": _retries(),
        "max_grpc_timeout": "0s",
    }
    if len(targets) == 1:
        action["cluster"] = targets[0][0][0]
    else:
        action["weighted_clusters"] = {"clusters": [{"name": name, "weight": weight} for (name, _), weight in targets]}
    path = f"/apis/networking.istio.io/v1/namespaces/{meta['namespace']}/virtual-service/{meta['name']}"
    route = {
        "match": _match(match),
        "route": action,
        "metadata": {"filter_metadata": {"istio": {"config": path}}},
        "decorator": {"operation": f"{targets[0][0][1]}{_operation(match)}"},
    }
    return route | ({"name": rule["name"]} if "name" in rule else {})


def _target(mesh: View, destination: Mapping[str, Any], namespace: str) -> tuple[str, str]:
    """(cluster, host:port) of a destination; one that no Service answers to leads to the black hole."""
    number = int(destination.get("port", {}).get("number", 0))
    port = mesh.find(destination["host"], number, namespace)
    if port is None:
        return "BlackHoleCluster", f"{destination['host']}:{number}"
    return port.cluster(destination.get("subset", "")), f"{port.host}:{port.number}"


def _operation(match: Mapping[str, Any]) -> str:
    uri = match.get("uri", {})
    return str(uri.get("exact") or (uri["prefix"] + "*" if "prefix" in uri else "/*"))


def _match(match: Mapping[str, Any]) -> dict[str, Any]:
    uri = match.get("uri", {})
    found: dict[str, Any] = {"case_sensitive": True}
    if "exact" in uri:
        found["path"] = uri["exact"]
    elif "regex" in uri:
        found["safe_regex"] = {"regex": uri["regex"]}
    else:
        found["prefix"] = uri.get("prefix", "/")
    headers = [_header(name, value) for name, value in sorted(match.get("headers", {}).items())]
    if "method" in match:
        headers.append(_header(":method", match["method"]))
    return found | ({"headers": headers} if headers else {})


def _header(name: str, value: Mapping[str, str]) -> dict[str, Any]:
    if "regex" in value:
        return {"name": name, "string_match": {"safe_regex": {"regex": value["regex"]}}}
    kind = "exact" if "exact" in value else "prefix"
    return {"name": name, "string_match": {kind: value[kind]}}
