"""What every proxy of a sandbox shares, and where its files lie."""

from dataclasses import dataclass
from typing import Any, Literal

PROXY_MARK = 0x539
XDS_CLUSTER = "xds-rest"
_SOL_SOCKET, _SO_MARK = 1, 36
ACCESS_LOG_FIELDS = {
    "authority": "%REQ(:AUTHORITY)%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "downstream_local_address": "%DOWNSTREAM_LOCAL_ADDRESS%",
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "duration": "%DURATION%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "requested_server_name": "%REQUESTED_SERVER_NAME%",
    "response_code": "%RESPONSE_CODE%",
    "response_code_details": "%RESPONSE_CODE_DETAILS%",
    "response_flags": "%RESPONSE_FLAGS%",
    "route_name": "%ROUTE_NAME%",
    "start_time": "%START_TIME%",
    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
    "upstream_host": "%UPSTREAM_HOST%",
    "upstream_local_address": "%UPSTREAM_LOCAL_ADDRESS%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    "user_agent": "%REQ(USER-AGENT)%",
    "x_forwarded_for": "%REQ(X-FORWARDED-FOR)%",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """``owner`` is how the proxy's packets are told from the application's; with ``mark`` its sockets carry 0x539."""

    owner: Literal["uid", "mark"] = "uid"
    folder: str = "/etc/istio/proxy"
    domain: str = "cluster.local"

    def binding(self, source: str = "") -> dict[str, Any]:
        """The cluster field that gives upstream connections a source address, a socket mark, both or nothing."""
        bound: dict[str, Any] = {}
        if source:
            bound["source_address"] = {"address": source, "port_value": 0}
        if self.owner == "mark":
            option = {"description": "SO_MARK", "level": _SOL_SOCKET, "name": _SO_MARK}
            bound["socket_options"] = [option | {"int_value": PROXY_MARK, "state": "STATE_PREBIND"}]
        return {"upstream_bind_config": bound} if bound else {}

    @property
    def socket(self) -> str:
        """The Unix socket on which the pod's agent answers Envoy, where Istio's agent has its own."""
        return f"{self.folder}/XDS"

    def source(self) -> dict[str, Any]:
        """A config source that asks the agent and waits: it answers when it has what Envoy has not.

        Not files, although Envoy can follow those: each followed file takes one of the 128 inotify instances that a
        user has by default, and Envoy aborts without one.
        """
        asked = {
            "api_type": "REST",
            "transport_api_version": "V3",
            "cluster_names": [XDS_CLUSTER],
            "refresh_delay": "0.050s",
            "request_timeout": "86400s",
        }
        return {"api_config_source": asked, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}


def rds_path(settings: Settings, name: str) -> str:
    """The file of one route configuration."""
    return f"{settings.folder}/rds/{_file_name(name)}.json"


def eds_path(settings: Settings, name: str) -> str:
    """The file of one cluster's endpoints."""
    return f"{settings.folder}/eds/{_file_name(name)}.json"


def resource_path(settings: Settings, kind: str, name: str) -> str:
    """The file that answers a discovery request for ``kind`` (the last word of its path) and ``name``."""
    if kind == "routes":
        return rds_path(settings, name)
    if kind == "endpoints":
        return eds_path(settings, name)
    return f"{settings.folder}/{'cds' if kind == 'clusters' else 'lds'}.json"


def _file_name(name: str) -> str:
    return name.replace("|", "_").replace("/", "_")


def typed(kind: str, **fields: Any) -> dict[str, Any]:
    """An Any of an Envoy type, such as ``typed("extensions.filters.http.router.v3.Router")``."""
    return {"@type": f"type.googleapis.com/envoy.{kind}", **fields}


def named(name: str, kind: str, **fields: Any) -> dict[str, Any]:
    """An extension: its name and its typed configuration."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def access_log(response_flag: str = "") -> list[dict[str, Any]]:
    """Istio's JSON access log on standard output; ``response_flag`` logs only what ended with that flag."""
    log = named(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path="/dev/stdout",
        log_format={"json_format": ACCESS_LOG_FIELDS, "json_format_options": {}},
    )
    if response_flag:
        log["filter"] = {"response_flag_filter": {"flags": [response_flag]}}
    return [log]
