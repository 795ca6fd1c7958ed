"""The bootstrap: who this proxy is, where its resources come from, and its three static listeners' worth of Istio.

Also the 2017 (v1) document that the article shows, as data: no Envoy reads it any more.
"""

from collections.abc import Mapping
from typing import Any

from bookinfo_lab.sandbox import topology
from bookinfo_lab.sandbox.xds.listeners import ZIPKIN
from bookinfo_lab.sandbox.xds.settings import XDS_CLUSTER, Settings, named

FILE = "envoy-rev0.json"
ADMIN_PORT, AGENT_PORT, HEALTH_PORT, METRICS_PORT = 15000, 15020, 15021, 15090


def document(pod: Mapping[str, Any], settings: Settings, *, agent: bool) -> dict[str, Any]:
    """The bootstrap of a pod's proxy; ``agent`` adds Istio's health and metrics listeners."""
    resources: dict[str, Any] = {"clusters": [_static(ZIPKIN, None, "1s"), _agent_socket(settings)]}
    if agent:
        resources["clusters"] += [_static("prometheus_stats", ADMIN_PORT), _static("agent", AGENT_PORT)]
        resources["listeners"] = [
            _listener(METRICS_PORT, "stats", "/stats/prometheus", "prometheus_stats"),
            _listener(HEALTH_PORT, "agent", "/healthz/ready", "agent"),
        ]
    return {
        "node": _node(pod, settings),
        "admin": {
            "profile_path": "/var/lib/istio/data/envoy.prof",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": ADMIN_PORT}},
        },
        "dynamic_resources": {
            "lds_config": settings.source(),
            "cds_config": settings.source(),
        },
        "static_resources": resources,
    }


def _node(pod: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    meta, address = pod["metadata"], pod["status"]["podIP"]
    name, namespace = meta["name"], meta["namespace"]
    kind = next(str(item["command"][2]) for item in topology.containers(pod) if topology.is_proxy(item))
    metadata = {
        "NAME": name,
        "NAMESPACE": namespace,
        "NODE_NAME": pod["spec"]["nodeName"],
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": settings.domain,
        "INSTANCE_IPS": address,
        "LABELS": dict(meta["labels"]),
    }
    return {
        "id": f"{kind}~{address}~{name}.{namespace}~{namespace}.svc.{settings.domain}",
        "cluster": f"{meta['labels'].get('app', 'istio-proxy')}.{namespace}",
        "locality": {},
        "metadata": metadata,
    }


def _static(name: str, port: int | None, timeout: str = "0.250s") -> dict[str, Any]:
    members = []
    if port is not None:
        members = [{"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": timeout,
        "alt_stat_name": f"{name};",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": members}] if members else []},
    }


def _agent_socket(settings: Settings) -> dict[str, Any]:
    """The cluster that configuration is asked of; no limit of its own, since every question is held open."""
    member = {"endpoint": {"address": {"pipe": {"path": settings.socket}}}}
    names = ("max_connections", "max_pending_requests", "max_requests")
    return _static(XDS_CLUSTER, None, "1s") | {
        "load_assignment": {"cluster_name": XDS_CLUSTER, "endpoints": [{"lb_endpoints": [member]}]},
        "circuit_breakers": {"thresholds": [dict.fromkeys(names, 100000)]},
    }


def _listener(port: int, prefix: str, path: str, cluster: str) -> dict[str, Any]:
    route = {"match": {"prefix": path}, "route": {"cluster": cluster}}
    manager = named(
        "envoy.filters.network.http_connection_manager",
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix=prefix,
        route_config={"virtual_hosts": [{"name": "backend", "domains": ["*"], "routes": [route]}]},
        http_filters=[named("envoy.filters.http.router", "extensions.filters.http.router.v3.Router")],
    )
    return {
        "name": f"0.0.0.0_{port}",
        "address": {"socket_address": {"address": "0.0.0.0", "port_value": port}},
        "filter_chains": [{"filters": [manager]}],
        "ignore_global_conn_limit": True,
        "bypass_overload_manager": True,
    }


def document_2017() -> dict[str, Any]:
    """The v1 bootstrap that Istio 0.3's pilot-agent wrote for its ingress: everything is asked of istio-pilot."""

    def cluster(name: str, url: str) -> dict[str, Any]:
        kind = {"type": "strict_dns", "lb_type": "round_robin", "hosts": [{"url": url}]}
        return {"name": name, "connect_timeout_ms": 10000, **kind}

    pilot = "tcp://istio-pilot:15003"
    driver = {"type": "zipkin", "config": {"collector_cluster": "zipkin", "collector_endpoint": "/api/v1/spans"}}
    return {
        "listeners": [],
        "lds": {"cluster": "lds", "refresh_delay_ms": 1000},
        "admin": {"access_log_path": "/dev/stdout", "address": "tcp://127.0.0.1:15000"},
        "cluster_manager": {
            "clusters": [
                *(cluster(name, pilot) for name in ("rds", "lds")),
                cluster("zipkin", "tcp://zipkin:9411"),
            ],
            "sds": {"cluster": cluster("sds", pilot), "refresh_delay_ms": 1000},
            "cds": {"cluster": cluster("cds", pilot), "refresh_delay_ms": 1000},
        },
        "statsd_udp_ip_address": "10.68.159.137:9125",
        "tracing": {"http": {"driver": driver}},
    }
