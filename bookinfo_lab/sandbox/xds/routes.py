"""Route configurations: the resources of RDS, and the inline ones of a sidecar's inbound side."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.sandbox.xds import policies
from bookinfo_lab.sandbox.xds.services import Port
from bookinfo_lab.sandbox.xds.settings import typed
from bookinfo_lab.sandbox.xds.view import View

_ROUTES = "config.route.v3.RouteConfiguration"


def sidecar(mesh: View) -> list[dict[str, Any]]:
    """A route configuration for every HTTP port number, and one a Service port whose protocol is found out.

    What may turn out to be HTTP is among the hosts of its number too.
    """
    found = []
    maybe_http = [port for port in mesh.ports if _may_be_http(port)]
    for number in sorted({port.number for port in mesh.ports if port.is_http}):
        hosts = [_virtual_host(mesh, port) for port in maybe_http if port.number == number]
        hosts += _hosts_without_port(mesh, number)
        found.append(_configuration(str(number), [*sorted(hosts, key=_name), _allow_any()]))
    found_out = [port for port in mesh.ports if port.protocol == "auto" and mesh.addresses(port)]
    alone = (_configuration(f"{port.host}:{port.number}", [_virtual_host(mesh, port, True)]) for port in found_out)
    return [*found, *alone]


def _may_be_http(port: Port) -> bool:
    return port.is_http or port.protocol == "auto"


def inbound(port: Port | None) -> dict[str, Any]:
    """The inline configuration that leads everything to the application; None: a port that no Service knows."""
    number = port.target if port else 0
    cluster = f"inbound|{number}||" if port else "InboundPassthroughCluster"
    is_stream = port is not None and port.protocol == "grpc"  # it is not begun again
    again = {} if is_stream else {"retry_policy": {"retry_on": "reset-before-request", "num_retries": 2}}
    action: dict[str, Any] = {"cluster": cluster, "timeout": "0s", **again}
    action["max_stream_duration"] = {"max_stream_duration": "0s", "grpc_timeout_header_max": "0s"}
    route = {
        "match": {"prefix": "/"},
        "route": action,
        "decorator": {"operation": f"{port.host if port else ''}:{port.number if port else 0}/*"},
        "name": "default",
    }
    host = {"name": f"inbound|http|{port.number if port else 0}", "domains": ["*"], "routes": [route]}
    return {"name": cluster, "virtual_hosts": [host], "validate_clusters": False}


def gateway(mesh: View) -> list[dict[str, Any]]:
    """A route configuration for each port that Gateways open on this pod, named by it.

    VirtualServices for one host share its virtual host, and hosts of the very same VirtualServices share one too; where
    no host is left, Istio's black hole answers 404.
    """
    found: dict[int, dict[str, list[_Bound]]] = {}
    numbers: dict[int, int] = {}
    for listening, number, server, item in gateway_servers(mesh):
        numbers.setdefault(listening, number)
        hosts = found.setdefault(listening, {})
        for policy in mesh.virtual_services:
            for name in _shared_hosts(server, policy) if _is_bound(policy, item) else []:
                hosts.setdefault(name, []).append(_Bound(_key(item), _key(policy), number, policy))
    return [
        _configuration(f"http.{listening}", _gateway_hosts(mesh, hosts) or [_black_hole(numbers[listening])])
        for listening, hosts in sorted(found.items())
    ]


@dataclass(frozen=True, slots=True)
class _Bound:
    """A VirtualService as a Gateway has it, by the keys of both; ``number`` is the server's port."""

    gateway: tuple[str, str]
    key: tuple[str, str]
    number: int
    policy: Mapping[str, Any]


def _gateway_hosts(mesh: View, hosts: Mapping[str, Sequence[_Bound]]) -> list[dict[str, Any]]:
    """The virtual hosts of a port by name; the most specific host of those with the same routes gives its name."""
    made: dict[tuple[tuple[tuple[str, str], tuple[str, str]], ...], dict[str, Any]] = {}
    for name in sorted(hosts, key=lambda host: (host.startswith("*"), -len(host), host)):
        bound = hosts[name]
        same = tuple((one.gateway, one.key) for one in bound)
        if same in made:
            made[same]["domains"].append(name)
            continue
        routes = [route for one in bound for route in policies.routes(mesh, one.policy, one.number, edge=True)]
        made[same] = _host(f"{name}:{bound[0].number}", [name], sorted(routes, key=policies.is_catch_all))
    return sorted(made.values(), key=_name)


def _black_hole(number: int) -> dict[str, Any]:
    return {"name": f"blackhole:{number}", "domains": ["*"], "routes": []}


def _key(item: Mapping[str, Any]) -> tuple[str, str]:
    return item["metadata"]["namespace"], item["metadata"]["name"]


def gateway_servers(mesh: View) -> list[tuple[int, int, Mapping[str, Any], Mapping[str, Any]]]:
    """(port listened on, server port, server, Gateway) of every server that Gateways give to this pod.

    A server port that the pod's Service maps is listened on at its target port, as istiod does.
    """
    labels = mesh.pod["metadata"]["labels"]
    targets = {port.number: port.target for port in mesh.own_ports}
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
    """The names that reach a Service from this pod, in Istio's order, those of its aliases after its own."""
    full = [name for one in ((port.name, port.namespace), *port.aliases) for name in _names(mesh, *one)]
    # Behind a headless Service's name, the name of one of its pods.
    return [*full, port.address] if port.address else [*full, *(f"*.{name}" for name in full)]


def _names(mesh: View, name: str, namespace: str) -> list[str]:
    """A Service's full name, with a closing dot too, and the short ones; a name alone works in its namespace only."""
    host = f"{name}.{namespace}.svc.{mesh.domain}"
    short = [f"{name}.{namespace}", f"{name}.{namespace}.svc"]
    if namespace == mesh.namespace:
        short = [name, *reversed(short)]
    return [host, f"{host}.", *short]


def _virtual_host(mesh: View, port: Port, every_host: bool = False) -> dict[str, Any]:
    policy = next((policy for policy, hosts in _mesh_policies(mesh) if port.host in hosts), None)
    routes = policies.routes(mesh, policy, port.number) if policy else [_default_route(port)]
    return _host(f"{port.host}:{port.number}", ["*"] if every_host else _domains(mesh, port), routes)


def _mesh_policies(mesh: View) -> Iterator[tuple[Mapping[str, Any], list[str]]]:
    """Every VirtualService that is for sidecars, with its full hosts; the first one for a host is the one in force."""
    for policy in mesh.virtual_services:
        if "mesh" in policy["spec"].get("gateways", ["mesh"]) and policy["spec"].get("http"):
            yield policy, [mesh.full_host(host, policy["metadata"]["namespace"]) for host in policy["spec"]["hosts"]]


def _hosts_without_port(mesh: View, number: int) -> list[dict[str, Any]]:
    """The hosts of VirtualServices that have no Service with this port, beside one that has.

    On port 80 Istio answers for them where there is none beside them, too (its code calls it a hack).
    """
    found: dict[str, dict[str, Any]] = {}
    for policy, hosts in _mesh_policies(mesh):
        having = {host: one for host in hosts for one in mesh.ports_of(host) if one.number == number}
        if number == 80 or any(_may_be_http(port) for port in having.values()):
            for host in hosts:
                if host not in having:
                    routes = policies.routes(mesh, policy, number)
                    found.setdefault(host, _host(f"{host}:{number}", [host], routes))
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
