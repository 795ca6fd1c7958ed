"""Clusters and their endpoints: the resources of CDS and EDS."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from bookinfo_lab.sandbox.xds.services import Endpoint, Port
from bookinfo_lab.sandbox.xds.settings import Settings, typed
from bookinfo_lab.sandbox.xds.view import View

_CLUSTER = "config.cluster.v3.Cluster"
_HTTP_OPTIONS = "extensions.upstreams.http.v3.HttpProtocolOptions"
_NO_LIMIT = 4294967295
_DEFAULT_LB_POLICY = "LEAST_REQUEST"
LB_POLICIES = {name: name for name in ("", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM")} | {"LEAST_CONN": "LEAST_REQUEST"}
PASSTHROUGH_SOURCE = "127.0.0.6"


@dataclass(frozen=True, slots=True)
class Subset:
    """One cluster's worth of a Service port: the whole (no name, no labels) or a subset that a DestinationRule names.

    ``rule`` is the path of that DestinationRule in the API, empty without one.
    """

    port: Port
    lb_policy: str = _DEFAULT_LB_POLICY
    rule: str = ""
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def every(mesh: View, settings: Settings, *, sidecar: bool) -> list[dict[str, Any]]:
    """All clusters of a sidecar, or of a gateway (which has no passthrough and nothing inbound)."""
    found = [_black_hole(), *(_outbound(subset, settings, sidecar=sidecar) for subset in _subsets(mesh))]
    if sidecar:
        found += [
            _original_destination("InboundPassthroughCluster", settings, PASSTHROUGH_SOURCE),
            _original_destination("PassthroughCluster", settings),
            *(_inbound(mesh, port, settings) for port in mesh.own_ports),
        ]
    return sorted(found, key=lambda cluster: str(cluster["name"]))


def assignments(mesh: View, *, sidecar: bool) -> list[dict[str, Any]]:
    """The endpoints of every outbound cluster that has any told: a sidecar's for a headless Service has not."""
    return [_assignment(mesh, subset) for subset in _subsets(mesh) if subset.port.address or not sidecar]


def _subsets(mesh: View) -> Iterator[Subset]:
    for port in mesh.ports:
        rules = mesh.rules_for(port)
        yield Subset(port, _lb_policy(rules[0], {}), _rule_path(rules[0])) if rules else Subset(port)
        for rule in rules:
            for item in rule["spec"].get("subsets") or ():
                yield Subset(port, _lb_policy(rule, item), _rule_path(rule), item["name"], item.get("labels") or {})


def _rule_path(rule: Mapping[str, Any]) -> str:
    meta = rule["metadata"]
    return f"/apis/networking.istio.io/v1/namespaces/{meta['namespace']}/destination-rule/{meta['name']}"


def _lb_policy(rule: Mapping[str, Any], subset: Mapping[str, Any]) -> str:
    """Envoy's name of the balancing that a DestinationRule asks for: its subset's word goes before its own."""
    found = _DEFAULT_LB_POLICY
    for policy in (rule["spec"].get("trafficPolicy") or {}, subset.get("trafficPolicy") or {}):
        found = LB_POLICIES[(policy.get("loadBalancer") or {}).get("simple", "")] or found
    return found


def _limits() -> dict[str, Any]:
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"circuit_breakers": {"thresholds": [dict.fromkeys(names, _NO_LIMIT)]}}


def _metadata(port: Port, **more: str) -> dict[str, Any]:
    # Of the Services with one target port, those that have the same number for it.
    same = [one for one in (port, *port.beside) if one.number == port.number]
    told = {one.host: {"host": one.host, "name": one.name, "namespace": one.namespace} for one in same}
    istio = {"services": [*told.values()]} | {key: value for key, value in more.items() if value}
    return {"metadata": {"filter_metadata": {"istio": istio}}}


def _protocol_options(port: Port, *, sidecar: bool) -> dict[str, Any]:
    """HTTP/2 where the port's name says so; a sidecar that found a protocol out uses the one it was spoken to in."""
    if port.protocol in ("http2", "grpc"):
        options = typed(_HTTP_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
    elif port.protocol == "auto" and sidecar:
        either: dict[str, Any] = {"http_protocol_options": {}, "http2_protocol_options": {}}
        options = typed(_HTTP_OPTIONS, use_downstream_protocol_config=either)
    else:
        return {}
    return {"typed_extension_protocol_options": {f"envoy.{_HTTP_OPTIONS}": options}}


def _black_hole() -> dict[str, Any]:
    name = "BlackHoleCluster"
    return typed(_CLUSTER, name=name, type="STATIC", connect_timeout="10s", alt_stat_name=f"{name};")


def _original_destination(name: str, settings: Settings, source: str = "") -> dict[str, Any]:
    options = typed(
        _HTTP_OPTIONS,
        common_http_protocol_options={"idle_timeout": "300s"},
        use_downstream_protocol_config={"http_protocol_options": {}, "http2_protocol_options": {}},
    )
    return typed(
        _CLUSTER,
        name=name,
        type="ORIGINAL_DST",
        connect_timeout="10s",
        lb_policy="CLUSTER_PROVIDED",
        alt_stat_name="PassthroughCluster;",
        typed_extension_protocol_options={f"envoy.{_HTTP_OPTIONS}": options},
        **_limits(),
        **settings.binding(source),
    )


def _inbound(mesh: View, port: Port, settings: Settings) -> dict[str, Any]:
    name = f"inbound|{port.target}||"
    rules = [rule for rule in mesh.rules_for(port) if rule["spec"].get("trafficPolicy")]
    return typed(
        _CLUSTER,
        name=name,
        type="ORIGINAL_DST",
        connect_timeout="10s",
        lb_policy="CLUSTER_PROVIDED",
        cleanup_interval="9223372035s",
        common_lb_config={},
        alt_stat_name=f"{name};",
        **_protocol_options(port, sidecar=True),
        **_limits(),
        **_metadata(port, config=_rule_path(rules[0]) if rules else ""),
        **settings.binding(PASSTHROUGH_SOURCE),
    )


def _outbound(subset: Subset, settings: Settings, *, sidecar: bool) -> dict[str, Any]:
    name = subset.port.cluster(subset.name)
    kind, balancing = "EDS", subset.lb_policy
    told: dict[str, Any] = {"eds_cluster_config": {"eds_config": settings.source(), "service_name": name}}
    if sidecar and not subset.port.address:
        # Headless: the application chose the pod, and the original destination is it.
        kind, balancing, told = "ORIGINAL_DST", "CLUSTER_PROVIDED", {}
    return typed(
        _CLUSTER,
        name=name,
        type=kind,
        **told,
        connect_timeout="10s",
        lb_policy=balancing,
        common_lb_config={"healthy_panic_threshold": {}},
        alt_stat_name=f"{name};",
        **_protocol_options(subset.port, sidecar=sidecar),
        **_limits(),
        **_metadata(subset.port, config=subset.rule, subset=subset.name),
        **settings.binding(),
    )


def _assignment(mesh: View, subset: Subset) -> dict[str, Any]:
    members = [member for member in mesh.members(subset.port) if subset.labels.items() <= member.labels.items()]
    return assignment(subset.port.cluster(subset.name), members)


def assignment(name: str, members: Iterable[Endpoint]) -> dict[str, Any]:
    """The EDS resource of a cluster: its endpoints in one locality, each with the same weight."""
    found = [_endpoint(member) for member in members]
    groups = [{"locality": {}, "lb_endpoints": found, "load_balancing_weight": len(found)}] if found else []
    return typed("config.endpoint.v3.ClusterLoadAssignment", cluster_name=name, endpoints=groups)


def _endpoint(member: Endpoint) -> dict[str, Any]:
    address = {"socket_address": {"address": member.address, "port_value": member.port}}
    return {
        "endpoint": {"address": address},
        **({} if member.is_ready else {"health_status": "UNHEALTHY"}),
        "metadata": {"filter_metadata": {"istio": {"workload": member.workload}}},
        "load_balancing_weight": 1,
    }
