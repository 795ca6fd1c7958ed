"""The bootstrap: who this proxy is, where its resources come from, and its two static listeners.

Also the 2017 (v1) document that the article shows, as data: no Envoy reads it any more.
"""

import json
from collections.abc import Mapping
from typing import Any

from bookinfo_lab.sandbox.xds.listeners import ZIPKIN
from bookinfo_lab.sandbox.xds.services import workload
from bookinfo_lab.sandbox.xds.settings import XDS_CLUSTER, Settings, named, typed
from bookinfo_lab.sandbox.xds.view import interception, role

FILE, FILE_2017 = "envoy-rev0.json", "envoy-rev8.json"
ADMIN_PORT, AGENT_PORT, HEALTH_PORT, METRICS_PORT = 15000, 15020, 15021, 15090
# What Envoy cuts out of a statistic's name and makes a label: the names of clusters hold dots, and end with a semicolon
# where they are part of a statistic, so that Envoy's own patterns would cut them in two.
_TAGS = {
    "cluster_name": r"^cluster\.((.+);\.)",
    "http_conn_manager_prefix": r"^http\.((.+);\.)",
    "tcp_prefix": r"^tcp\.((.+)\.)\w+$",
    "listener_address": r"^listener\.(([\d.]+_\d+)\.)",
}
_RUNTIME = {
    "re2.max_program_size.error_level": "32768",
    "envoy.deprecated_features:envoy.config.listener.v3.Listener.hidden_envoy_deprecated_use_original_dst": True,
    "envoy.reloadable_features.http_reject_path_with_fragment": False,
    "envoy.reloadable_features.coalesce_lb_rebuilds_on_batch_update": False,
    "envoy.reloadable_features.fixed_heap_use_allocated": True,
}


def document(pod: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The bootstrap of a pod's proxy, with Istio's health and metrics listeners but for the ingress of 2017.

    Raises Unsupported for a pod that runs no proxy.
    """
    resources: dict[str, Any] = {"clusters": [_static(ZIPKIN, None, "1s"), _agent_socket(settings)]}
    if role(pod) != "ingress":
        resources["clusters"] += [_static("prometheus_stats", ADMIN_PORT), _static("agent", AGENT_PORT)]
        resources["listeners"] = [
            _listener(METRICS_PORT, "stats", "/stats/prometheus", "prometheus_stats"),
            _listener(HEALTH_PORT, "agent", "/healthz/ready", "agent"),
        ]
    nowhere = typed("extensions.access_loggers.file.v3.FileAccessLog", path="/dev/null")
    return {
        "application_log_config": {"log_format": {"text_format": "%Y-%m-%dT%T.%fZ\t%l\tenvoy %n %g:%#\t%v\tthread=%t"}},
        "node": _node(pod, settings),
        "layered_runtime": {
            "layers": [{"name": "global config", "static_layer": _RUNTIME}, {"name": "admin", "admin_layer": {}}]
        },
        "stats_config": {
            "use_all_default_tags": False,
            "stats_tags": [{"tag_name": name, "regex": regex} for name, regex in _TAGS.items()],
        },
        "admin": {
            "access_log": [{"name": "envoy.access_loggers.file", "typed_config": nowhere}],
            "profile_path": "/var/lib/istio/data/envoy.prof",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": ADMIN_PORT}},
        },
        "dynamic_resources": {"lds_config": settings.source(), "cds_config": settings.source()},
        "static_resources": resources,
        "overload_manager": {"resource_monitors": [_connection_limit()]},
        "deferred_stat_options": {"enable_deferred_creation_stats": True},
    }


def _connection_limit() -> dict[str, Any]:
    """No limit in effect, said aloud: without it Envoy warns of its absence."""
    kind = "extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return named(
        "envoy.resource_monitors.global_downstream_max_connections", kind, max_active_downstream_connections=2147483647
    )


def _node(pod: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    meta, spec, address = pod["metadata"], pod["spec"], pod["status"]["podIP"]
    name, namespace = meta["name"], meta["namespace"]
    containers = [item for item in spec["containers"] if not item["name"].startswith("istio-")]
    ports = [port for item in containers for port in item.get("ports", ())]
    metadata = {
        "NAME": name,
        "NAMESPACE": namespace,
        "NODE_NAME": spec["nodeName"],
        "SERVICE_ACCOUNT": spec.get("serviceAccountName", "default"),
        "WORKLOAD_NAME": workload(pod),
        "APP_CONTAINERS": ",".join(item["name"] for item in containers),
        "POD_PORTS": json.dumps(ports, separators=(",", ":")),
        "CLUSTER_ID": "Kubernetes",
        "MESH_ID": settings.domain,
        "INSTANCE_IPS": address,
        "INTERCEPTION_MODE": interception(pod),
        "ENVOY_PROMETHEUS_PORT": METRICS_PORT,
        "ENVOY_STATUS_PORT": HEALTH_PORT,
        "LABELS": {key: value for key, value in meta["labels"].items() if key != "pod-template-hash"},
    }
    return {
        "id": f"{role(pod)}~{address}~{name}.{namespace}~{namespace}.svc.{settings.domain}",
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
