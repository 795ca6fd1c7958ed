"""Clusters and their endpoints: the resources of CDS and EDS."""

from collections.abc import Iterator
from typing import Any

from bookinfo_lab.sandbox.xds.settings import Settings, typed
from bookinfo_lab.sandbox.xds.view import Port, View

_CLUSTER = "config.cluster.v3.Cluster"
_HTTP_OPTIONS = "extensions.upstreams.http.v3.HttpProtocolOptions"
_NO_LIMIT = 4294967295
PASSTHROUGH_SOURCE = "127.0.0.6"


def every(mesh: View, settings: Settings, *, sidecar: bool) -> list[dict[str, Any]]:
    """All clusters of a sidecar, or of a gateway (which has no passthrough and nothing inbound)."""
    found = [_black_hole(), *(_outbound(port, subset, settings) for port, subset in _outbound_ports(mesh))]
    if sidecar:
        found += [
            _original_destination("InboundPassthroughCluster", settings, PASSTHROUGH_SOURCE),
            _original_destination("PassthroughCluster", settings),
            *(_inbound(port, settings) for port in mesh.own_ports()),
        ]
    return sorted(found, key=lambda cluster: str(cluster["name"]))


def assignments(mesh: View) -> list[dict[str, Any]]:
    """The endpoints of every outbound cluster."""
    return [_assignment(mesh, port, subset) for port, subset in _outbound_ports(mesh)]


def _outbound_ports(mesh: View) -> Iterator[tuple[Port, str]]:
    for port in mesh.ports:
        yield port, ""
        for subset in mesh.subsets(port):
            yield port, subset


def _limits() -> dict[str, Any]:
    names = ("max_connections", "max_pending_requests", "max_requests", "max_retries")
    return {"circuit_breakers": {"thresholds": [dict.fromkeys(names, _NO_LIMIT)]}}


def _services(port: Port) -> dict[str, Any]:
    service = {"host": port.host, "name": port.name, "namespace": port.namespace}
    return {"metadata": {"filter_metadata": {"istio": {"services": [service]}}}}


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


def _inbound(port: Port, settings: Settings) -> dict[str, Any]:
    name = f"inbound|{port.target}||"
    return typed(
        _CLUSTER,
        name=name,
        type="ORIGINAL_DST",
        connect_timeout="10s",
        lb_policy="CLUSTER_PROVIDED",
        cleanup_interval="9223372035s",
        common_lb_config={},
        alt_stat_name=f"{name};",
        **_limits(),
        **_services(port),
        **settings.binding(PASSTHROUGH_SOURCE),
    )


def _outbound(port: Port, subset: str, settings: Settings) -> dict[str, Any]:
    name = port.cluster(subset)
    http2 = typed(_HTTP_OPTIONS, explicit_http_config={"http2_protocol_options": {}})
    options = (
        {"typed_extension_protocol_options": {f"envoy.{_HTTP_OPTIONS}": http2}} if port.protocol == "http2" else {}
    )
    return typed(
        _CLUSTER,
        name=name,
        type="EDS",
        eds_cluster_config={"eds_config": settings.source(), "service_name": name},
        connect_timeout="10s",
        lb_policy="LEAST_REQUEST",
        common_lb_config={"healthy_panic_threshold": {}},
        alt_stat_name=f"{name};",
        **options,
        **_limits(),
        **_services(port),
        **settings.binding(),
    )


def _assignment(mesh: View, port: Port, subset: str) -> dict[str, Any]:
    wanted = mesh.subsets(port).get(subset, {})
    members = [
        endpoint(address, number) for address, number, labels in port.endpoints if wanted.items() <= labels.items()
    ]
    groups = [{"locality": {}, "lb_endpoints": members}] if members else []
    return typed("config.endpoint.v3.ClusterLoadAssignment", cluster_name=port.cluster(subset), endpoints=groups)


def endpoint(address: str, number: int) -> dict[str, Any]:
    """One member of a cluster."""
    socket_address = {"address": address, "port_value": number}
    return {"endpoint": {"address": {"socket_address": socket_address}}, "load_balancing_weight": 1}
