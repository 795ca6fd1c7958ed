"""Istio 0.3's ingress, re-enacted with today's Envoy: one listener, one route, a cluster named as Pilot named it.

Its route sends every path to one backend, as the article's did: the Ingress object says which.  The route's metadata
is what Pilot wrote for Mixer; nothing reads it any more, and no filter of today's Envoy writes x-istio-attributes.
"""

from typing import Any

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.sandbox.xds import clusters, listeners
from bookinfo_lab.sandbox.xds.services import Port
from bookinfo_lab.sandbox.xds.settings import Settings, access_log, named, typed
from bookinfo_lab.sandbox.xds.view import View

_PRIVATE = (("10.0.0.0", 8), ("172.16.0.0", 12), ("192.168.0.0", 16), ("127.0.0.0", 8))


def resources(mesh: View, settings: Settings) -> dict[str, list[Any]]:
    """Every kind of resource of the ingress: all it knows is its one backend."""
    pages = _backend(mesh)
    name = f"out.{pages.host}|{pages.port_name}"
    mixer = dict.fromkeys(("mixer_check", "mixer_report", "mixer_forward"), "on")
    route = {
        "match": {"prefix": "/"},
        "route": {"cluster": name, "timeout": "0s"},
        "metadata": {"filter_metadata": {"envoy.router": {"destination.service": pages.host, **mixer}}},
        "decorator": {"operation": "default-route"},
    }
    host = {"name": "*", "domains": ["*"], "routes": [route]}
    number = next(port.target for port in mesh.own_ports if port.is_http)
    cluster = typed(
        "config.cluster.v3.Cluster",
        name=name,
        type="EDS",
        connect_timeout="1s",
        lb_policy="ROUND_ROBIN",
        eds_cluster_config={"eds_config": settings.source(), "service_name": name},
        **settings.binding(),
    )
    return {
        "lds": [_listener(number, settings)],
        "rds": [typed("config.route.v3.RouteConfiguration", name=str(number), virtual_hosts=[host])],
        "cds": [cluster],
        "eds": [clusters.assignment(name, (member for member in pages.endpoints if member.is_ready))],
    }


def _backend(mesh: View) -> Port:
    """The Service port that the Ingress object names as the backend of every path."""
    for item in mesh.ingresses:
        backend = item["spec"]["backend"]
        host = mesh.full_host(backend["serviceName"], item["metadata"]["namespace"])
        for port in mesh.ports_of(host):
            if port.number == int(backend["servicePort"]):
                return port
    raise Unsupported("no Ingress object names a backend that is a Service; the ingress would have no route")


def _listener(number: int, settings: Settings) -> dict[str, Any]:
    ranges = [{"address_prefix": address, "prefix_len": length} for address, length in _PRIVATE]
    manager = named(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        rds={"config_source": settings.source(), "route_config_name": str(number)},
        http_filters=listeners.http_filters(),
        tracing=listeners.tracing(),
        access_log=access_log(),
        use_remote_address=True,
        internal_address_config={"cidr_ranges": ranges},
    )
    return typed(
        "config.listener.v3.Listener",
        name=f"http_0.0.0.0_{number}",
        address={"socket_address": {"address": "0.0.0.0", "port_value": number}},
        filter_chains=[{"filters": [manager]}],
        traffic_direction="OUTBOUND",
    )
