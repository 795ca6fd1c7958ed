"""Route configurations: the resources of RDS, and the inline ones of a sidecar's inbound side."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bookinfo_lab.sandbox.xds import policies
from bookinfo_lab.sandbox.xds.settings import typed
from bookinfo_lab.sandbox.xds.view import Port, View

_ROUTES = "config.route.v3.RouteConfiguration"


def sidecar(mesh: View) -> list[dict[str, Any]]:
    """A route configuration for every HTTP port number, and one a Service port whose protocol is found out."""
    found = []
    for number in sorted({port.number for port in mesh.ports if is_http(port)}):
        hosts = [_virtual_host(mesh, port) for port in mesh.ports if is_http(port) and port.number == number]
        hosts += _hosts_without_port(mesh) if number == 80 else []
        found.append(_configuration(str(number), [*sorted(hosts, key=_name), _allow_any()]))
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
    """A route configuration for each port that Gateways open on this pod, named by it.

    VirtualServices for one host share its virtual host; where no host is left, Istio's black hole answers 404.
    """
    found: dict[int, dict[str, dict[str, Any]]] = {}
    fallback: dict[int, dict[str, Any]] = {}
    for listening, number, server, item in gateway_servers(mesh):
        hosts = found.setdefault(listening, {})
        fallback.setdefault(listening, {"name": f"blackhole:{number}", "domains": ["*"], "routes": []})
        for policy in mesh.virtual_services:
            names = _shared_hosts(server, policy) if _is_bound(policy, item) else []
            for name in names:
                host = hosts.setdefault(name, _host(f"{name}:{number}", [name], []))
                host["routes"] += policies.routes(mesh, policy, number, edge=True)
    for hosts in found.values():
        for host in hosts.values():
            host["routes"].sort(key=policies.is_catch_all)
    return [
        _configuration(f"http.{listening}", sorted(hosts.values(), key=_name) or [fallback[listening]])
        for listening, hosts in sorted(found.items())
    ]


def gateway_servers(mesh: View) -> list[tuple[int, int, Mapping[str, Any], Mapping[str, Any]]]:
    """(port listened on, server port, server, Gateway) of every server that Gateways give to this pod.

    A server port that the pod's Service maps is listened on at its target port, as istiod does.
    """
    labels = mesh.pod["metadata"]["labels"]
    targets = {port.number: port.target for port in mesh.own_ports()}
    found = []
    for item in mesh.gateways:
        if (item["spec"].get("selector") or {}).items() <= labels.items():
            for server in item["spec"].get("servers") or ():
                number = server["port"]["number"]
                found.append((targets.get(number, number), number, server, item))
    return found


def _configuration(name: str, hosts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return typed(
        _ROUTES,
        name=name,
        virtual_hosts=list(hosts),
        validate_clusters=False,
        max_direct_response_body_size_bytes=1048576,
        ignore_port_in_host_matching=True,
    )


def _host(name: str, domains: list[str], routes: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": name, "domains": domains, "routes": routes, "include_request_attempt_count": True}


def _name(host: Mapping[str, Any]) -> str:
    return str(host["name"])


def _domains(mesh: View, port: Port) -> list[str]:
    """The names that reach a Service from this pod, in Istio's order; a name alone works in its namespace only."""
    names = [f"{port.name}.{port.namespace}", f"{port.name}.{port.namespace}.svc"]
    if port.namespace == mesh.namespace:
        names = [port.name, *reversed(names)]
    return [port.host, f"{port.host}.", *names, port.address]


def _virtual_host(mesh: View, port: Port, every_host: bool = False) -> dict[str, Any]:
    policy = next((policy for policy, hosts in _mesh_policies(mesh) if port.host in hosts), None)
    routes = policies.routes(mesh, policy, port.number) if policy else [_default_route(port)]
    return _host(f"{port.host}:{port.number}", ["*"] if every_host else _domains(mesh, port), routes)


def _mesh_policies(mesh: View) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """Every VirtualService that is for sidecars, with its full hosts; the first one for a host is the one in force."""
    for policy in mesh.virtual_services:
        if "mesh" in policy["spec"].get("gateways", ["mesh"]) and policy["spec"].get("http"):
            yield policy, [mesh.full_host(host, policy["metadata"]["namespace"]) for host in policy["spec"]["hosts"]]


def _hosts_without_port(mesh: View) -> list[dict[str, Any]]:
    """Istio answers on port 80 for hosts of VirtualServices that have no Service there (its code calls it a hack)."""
    found: dict[str, dict[str, Any]] = {}
    for policy, hosts in _mesh_policies(mesh):
        if not any(is_http(port) and port.number == 80 for host in hosts for port in mesh.ports_of(host)):
            for host in hosts:
                found.setdefault(host, _host(f"{host}:80", [host], policies.routes(mesh, policy, 80)))
    return list(found.values())


def _allow_any() -> dict[str, Any]:
    action = {"cluster": "PassthroughCluster", "timeout": "0s", "max_grpc_timeout": "0s"}
    route = {"match": {"prefix": "/"}, "route": action, "name": "allow_any"}
    return _host("allow_any", ["*"], [route])


def _default_route(port: Port) -> dict[str, Any]:
    retries = policies.default_retries()
    action = {"cluster": port.cluster(), "timeout": "0s", "retry_policy": retries, "max_grpc_timeout": "0s"}
    operation = {"operation": f"{port.host}:{port.number}/*"}
    return {"match": {"prefix": "/"}, "route": action, "decorator": operation, "name": "default"}


def _is_bound(policy: Mapping[str, Any], gateway_object: Mapping[str, Any]) -> bool:
    meta = gateway_object["metadata"]
    names = {f"{meta['namespace']}/{meta['name']}"}
    if policy["metadata"]["namespace"] == meta["namespace"]:
        names.add(meta["name"])
    return bool(names & set(policy["spec"].get("gateways", ())))


def _shared_hosts(server: Mapping[str, Any], policy: Mapping[str, Any]) -> list[str]:
    """The hosts that a Gateway's server and a VirtualService have in common, each in its narrower form."""
    found = {}
    for offered in server["hosts"]:
        namespace, _, name = offered.rpartition("/")
        if namespace in ("", "*", policy["metadata"]["namespace"]):
            for host in policy["spec"]["hosts"]:
                if _covers(name, host):
                    found[host] = True
                elif _covers(host, name):
                    found[name] = True
    return list(found)


def _covers(pattern: str, host: str) -> bool:
    return pattern == host or (pattern.startswith("*") and host.endswith(pattern[1:]))
