"""Listeners: the resources of LDS, for a sidecar and for a gateway."""

from typing import Any

from bookinfo_lab.sandbox.xds import routes
from bookinfo_lab.sandbox.xds.services import Port
from bookinfo_lab.sandbox.xds.settings import PROXY_MARK, Settings, access_log, named, typed
from bookinfo_lab.sandbox.xds.view import View, interception

OUTBOUND_PORT, INBOUND_PORT = 15001, 15006
ZIPKIN = "zipkin"
_LISTENER = "config.listener.v3.Listener"
_HCM = "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_HTTP_INSPECTOR = named(
    "envoy.filters.listener.http_inspector", "extensions.filters.listener.http_inspector.v3.HttpInspector"
)
_PLAIN_HTTP = {"transport_protocol": "raw_buffer", "application_protocols": ["http/1.1", "h2c"]}
_PLAIN: dict[str, Any] = {"transport_protocol": "raw_buffer"}
# A protocol that is found out is waited for: a server that speaks first must not be cut off.
_UNHURRIED: dict[str, Any] = {"listener_filters_timeout": "0s", "continue_on_listener_filters_timeout": True}


def sidecar(mesh: View, settings: Settings) -> list[dict[str, Any]]:
    """virtualOutbound and virtualInbound, and what outbound connections are handed on to by their destination."""
    numbers = sorted({port.number for port in mesh.ports if port.is_http})
    transparent = interception(mesh.pod) == "TPROXY"
    addressed = [(port, address) for port in mesh.ports if not port.is_http for address in mesh.addresses(port)]
    return [
        *(_by_number(number, settings) for number in numbers),
        *(_by_address(port, address, settings) for port, address in addressed),
        _virtual_outbound(is_transparent=transparent),
        _virtual_inbound(mesh, is_transparent=transparent),
    ]


def gateway(mesh: View, settings: Settings) -> list[dict[str, Any]]:
    """A listener for each port that Gateways open on this pod."""
    return [_gateway(number, settings) for number in sorted({row[0] for row in routes.gateway_servers(mesh)})]


def connection_manager(prefix: str, *, inbound: bool = False, edge: bool = False, **fields: Any) -> dict[str, Any]:
    """Istio's HTTP connection manager; ``fields`` say where its routes come from, ``edge`` is a gateway's."""
    if edge:
        fields |= {"http_protocol_options": {}}
    if inbound or edge:
        forward = "SANITIZE_SET" if edge else "APPEND_FORWARD"
        details = {"subject": True, "dns": True, "uri": True} | ({"cert": True} if edge else {})
        fields |= {"server_name": "istio-envoy", "forward_client_cert_details": forward}
        fields |= {"set_current_client_cert_details": details}
    return named(
        "envoy.filters.network.http_connection_manager",
        _HCM,
        stat_prefix=prefix,
        http_filters=http_filters(),
        tracing=tracing(),
        access_log=access_log(),
        use_remote_address=edge,
        upgrade_configs=[{"upgrade_type": "websocket"}],
        stream_idle_timeout="0s",
        normalize_path=True,
        request_id_extension={
            "typed_config": typed(
                "extensions.request_id.uuid.v3.UuidRequestIdConfig", use_request_id_for_trace_sampling=True
            )
        },
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        **({"proxy_100_continue": True} | fields),
    )


def http_filters() -> list[dict[str, Any]]:
    """The HTTP filters of every connection manager, the router last."""
    kind = "extensions.filters.http"
    return [
        named(
            "envoy.filters.http.grpc_stats",
            f"{kind}.grpc_stats.v3.FilterConfig",
            emit_filter_state=True,
            stats_for_all_methods=False,
        ),
        named("envoy.filters.http.fault", f"{kind}.fault.v3.HTTPFault"),
        named("envoy.filters.http.cors", f"{kind}.cors.v3.Cors"),
        named("envoy.filters.http.router", f"{kind}.router.v3.Router"),
    ]


def tracing() -> dict[str, Any]:
    """Every request is sampled; its B3 and W3C headers are written, its spans go to a cluster without endpoints."""
    zipkin = named(
        "envoy.tracers.zipkin",
        "config.trace.v3.ZipkinConfig",
        collector_cluster=ZIPKIN,
        collector_endpoint="/api/v2/spans",
        collector_endpoint_version="HTTP_JSON",
        shared_span_context=False,
        trace_id_128bit=True,
        trace_context_option="USE_B3_WITH_W3C_PROPAGATION",
    )
    percent = {"value": 100}
    return {
        "client_sampling": percent,
        "random_sampling": percent,
        "overall_sampling": percent,
        "provider": zipkin,
    }


def _address(address: str, number: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": number}}


def _tcp_proxy(cluster: str, *, logged: bool = True) -> dict[str, Any]:
    log = {"access_log": access_log()} if logged else {}
    kind = "extensions.filters.network.tcp_proxy.v3.TcpProxy"
    return named("envoy.filters.network.tcp_proxy", kind, stat_prefix=cluster, cluster=cluster, **log)


def _connection_filters(port: Port, cluster: str) -> list[dict[str, Any]]:
    """What handles the connections of a port that is not HTTP; MongoDB's messages are looked into on the way."""
    kind = "extensions.filters.network.mongo_proxy.v3.MongoProxy"
    reader = [named("envoy.filters.network.mongo_proxy", kind, stat_prefix=cluster)]
    return [*(reader if port.protocol == "mongo" else ()), _tcp_proxy(cluster)]


def _routed(prefix: str, name: str, settings: Settings, *, edge: bool = False) -> dict[str, Any]:
    rds = {"config_source": settings.source(), "route_config_name": name}
    return connection_manager(prefix, edge=edge, rds=rds)


def _by_number(number: int, settings: Settings) -> dict[str, Any]:
    """What an outbound connection to any address on an HTTP port is handed on to."""
    name = f"0.0.0.0_{number}"
    passthrough = {"filter_chain_match": {}, "filters": [_tcp_proxy("PassthroughCluster")]}
    return _handed_on(
        name,
        _address("0.0.0.0", number),
        http=_routed(f"outbound_{name};", str(number), settings),
        otherwise=passthrough | {"name": "PassthroughFilterChain"},
    )


def _by_address(port: Port, address: str, settings: Settings) -> dict[str, Any]:
    """What an outbound connection to one address is handed on to, the Service's port being TCP or found out."""
    name = f"{address}_{port.number}"
    if port.protocol in ("tcp", "mongo"):
        chain = {"filters": _connection_filters(port, port.cluster()), "transport_socket_connect_timeout": "15s"}
        return typed(
            _LISTENER,
            name=name,
            address=_address(address, port.number),
            filter_chains=[chain],
            traffic_direction="OUTBOUND",
            bind_to_port=False,
            **_UNHURRIED,
        )
    return _handed_on(
        name,
        _address(address, port.number),
        http=_routed(f"outbound_{name};", f"{port.host}:{port.number}", settings),
        otherwise={"filters": [_tcp_proxy(port.cluster())], "transport_socket_connect_timeout": "15s"},
    )


def _handed_on(
    name: str, address: dict[str, Any], *, http: dict[str, Any], otherwise: dict[str, Any]
) -> dict[str, Any]:
    chain = {"filter_chain_match": _PLAIN_HTTP, "filters": [http], "transport_socket_connect_timeout": "15s"}
    return typed(
        _LISTENER,
        name=name,
        address=address,
        filter_chains=[chain],
        listener_filters=[_HTTP_INSPECTOR],
        **_UNHURRIED,
        traffic_direction="OUTBOUND",
        default_filter_chain=otherwise,
        bind_to_port=False,
    )


def _virtual_outbound(*, is_transparent: bool) -> dict[str, Any]:
    """The listener that iptables redirects outbound connections to; it hands on by their original destination."""
    blackhole = {
        "filter_chain_match": {"destination_port": OUTBOUND_PORT},
        "filters": [_tcp_proxy("BlackHoleCluster", logged=False)],
        "name": "virtualOutbound-blackhole",
    }
    catchall = {"filters": [_tcp_proxy("PassthroughCluster")], "name": "virtualOutbound-catchall-tcp"}
    return typed(
        _LISTENER,
        name="virtualOutbound",
        address=_address("0.0.0.0", OUTBOUND_PORT),
        filter_chains=[blackhole, catchall],
        use_original_dst=True,
        **({"transparent": True} if is_transparent else {}),
        traffic_direction="OUTBOUND",
        access_log=access_log("NR"),
        max_connections_to_accept_per_socket_event=1,
    )


def _virtual_inbound(mesh: View, *, is_transparent: bool) -> dict[str, Any]:
    """The listener that iptables redirects inbound connections to; filter chains for each port of the pod."""
    own = mesh.own_ports
    blackhole = {
        "filter_chain_match": {"destination_port": INBOUND_PORT},
        "filters": [_tcp_proxy("BlackHoleCluster", logged=False)],
        "name": "virtualInbound-blackhole",
    }
    web = {
        "filter_chain_match": _PLAIN_HTTP,
        "filters": [_inbound_manager("InboundPassthroughCluster;", None)],
        "name": "virtualInbound-catchall-http",
    }
    other = {
        "filter_chain_match": _PLAIN,
        "filters": [_tcp_proxy("InboundPassthroughCluster")],
        "name": "virtualInbound",
    }
    known = sorted({INBOUND_PORT, *(port.target for port in own if port.protocol != "auto")})
    ranges = [*map(_range, known)]
    not_looked_into = {"filter_disabled": {"or_match": {"rules": ranges}} if len(ranges) > 1 else ranges[0]}
    first = [named("envoy.filters.listener.original_dst", "extensions.filters.listener.original_dst.v3.OriginalDst")]
    if is_transparent:  # what goes on to the application has the client's address, and the mark that spares it
        kind = "extensions.filters.listener.original_src.v3.OriginalSrc"
        first.append(named("envoy.filters.listener.original_src", kind, mark=PROXY_MARK))
    return typed(
        _LISTENER,
        name="virtualInbound",
        address=_address("0.0.0.0", INBOUND_PORT),
        filter_chains=[blackhole, web, other, *(chain for port in own for chain in _inbound_chains(port))],
        listener_filters=[*first, _HTTP_INSPECTOR | not_looked_into],
        **({"transparent": True} if is_transparent else {}),
        traffic_direction="INBOUND",
        access_log=access_log("NR"),
        max_connections_to_accept_per_socket_event=1,
        **_UNHURRIED,
    )


def _inbound_chains(port: Port) -> list[dict[str, Any]]:
    """One filter chain for a port whose protocol is known, two for one whose protocol is found out."""
    place, name = {"destination_port": port.target}, f"0.0.0.0_{port.target}"
    web = {"filters": [_inbound_manager(f"inbound_{name};", port)], "name": name}
    through = _connection_filters(port, f"inbound|{port.target}||")
    other = {"filter_chain_match": place | _PLAIN, "filters": through, "name": name}
    if port.protocol in ("tcp", "mongo", "udp"):
        return [other]
    if port.protocol == "auto":
        return [{"filter_chain_match": place | _PLAIN_HTTP} | web, other]
    return [{"filter_chain_match": place | _PLAIN} | web]


def _inbound_manager(prefix: str, port: Port | None) -> dict[str, Any]:
    is_http2 = port and port.protocol in ("http2", "grpc")
    options: dict[str, Any] = {"http2_protocol_options": {}} if is_http2 else {}
    return connection_manager(prefix, inbound=True, route_config=routes.inbound(port), **options)


def _range(number: int) -> dict[str, Any]:
    return {"destination_port_range": {"start": number, "end": number + 1}}


def _gateway(number: int, settings: Settings) -> dict[str, Any]:
    name = f"0.0.0.0_{number}"
    manager = _routed(f"outbound_{name};", f"http.{number}", settings, edge=True)
    return typed(
        _LISTENER,
        name=name,
        address=_address("0.0.0.0", number),
        filter_chains=[{"filters": [manager], "transport_socket_connect_timeout": "15s"}],
        traffic_direction="OUTBOUND",
        access_log=access_log("NR"),
        max_connections_to_accept_per_socket_event=1,
    )
