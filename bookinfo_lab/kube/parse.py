"""Kubernetes API dicts → `Objects`.

In come API dicts of any kinds, one by one or in Lists (v1 List, ServiceList, …), as kubectl's JSON or a client
gives them; kinds that the lab does not reason about are left out.  Refused, with one line: a missing name or
field, a value of the wrong type, the same object twice.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bookinfo_lab.errors import LabError

from .fields import Address, Field
from .objects import (
    SERVICE_NAME_LABEL,
    SESSION_AFFINITY_S,
    Container,
    ContainerPort,
    Endpoint,
    EndpointPort,
    EndpointSlice,
    LoadBalancerIngress,
    Node,
    Objects,
    Pod,
    Service,
    ServicePort,
)

_DEFAULT_CONTAINER = "kubectl.kubernetes.io/default-container"
Given = Objects | Mapping[str, Any] | Iterable[Mapping[str, Any]]


def parse(given: Given) -> Objects:
    """The Services, EndpointSlices, Nodes and Pods among ``given``, each kind in the order given.

    ``given`` is an API dict, an iterable of them, or an `Objects`, which is returned as it is.
    Raises `Incomplete` for a missing name or field, `LabError` for a value that the API does not allow.
    """
    if isinstance(given, Objects):
        return given
    services: list[Service] = []
    slices: list[EndpointSlice] = []
    nodes: list[Node] = []
    pods: list[Pod] = []
    seen: set[str] = set()
    for kind, item in _flat([given] if isinstance(given, Mapping) else given):
        if kind not in ("Service", "EndpointSlice", "Node", "Pod"):
            continue
        owner = _described(kind, item)
        if owner in seen:
            raise LabError(f"{owner} is there twice; give each object once")
        seen.add(owner)
        root = Field(owner, "", item)
        if kind == "Service":
            services.append(_service(root))
        elif kind == "EndpointSlice":
            slices.append(_slice(root))
        elif kind == "Node":
            nodes.append(_node(root))
        else:
            pods.append(_pod(root))
    return Objects(tuple(services), tuple(slices), tuple(nodes), tuple(pods))


def _flat(given: Iterable[Mapping[str, Any]], assumed: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    # The items of a ServiceList carry no kind of their own.
    for index, item in enumerate(given):
        root = Field(f"object {index + 1}", "", item)
        kind = root["kind"].text(assumed or None)
        if kind.endswith("List"):
            yield from _flat((entry.value for entry in root["items"].each()), kind.removesuffix("List"))
        else:
            yield kind, item


def _described(kind: str, item: Mapping[str, Any]) -> str:
    metadata = Field(kind, "", item)["metadata"]
    name = metadata["name"].text()
    return f"Node {name}" if kind == "Node" else f"{kind} {metadata['namespace'].text('default')}/{name}"


def _names(root: Field) -> tuple[str, str]:
    metadata = root["metadata"]
    return metadata["namespace"].text("default"), metadata["name"].text()


def _service(root: Field) -> Service:
    namespace, name = _names(root)
    spec = root["spec"]
    kind = spec["type"].text("ClusterIP")
    first = spec["clusterIP"].text("")
    listed = [item for item in spec["clusterIPs"].each() if item.text() not in ("", "None")]
    if not listed and first not in ("", "None"):
        listed = [spec["clusterIP"]]
    affinity_s = 0
    if spec["sessionAffinity"].text("None") == "ClientIP":
        affinity_s = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].integer(SESSION_AFFINITY_S)
    exposed = kind in ("NodePort", "LoadBalancer") or bool(spec["externalIPs"].each())
    ingress = root["status"]["loadBalancer"]["ingress"].each()
    return Service(
        namespace,
        name,
        kind,
        ports=tuple(_service_port(port) for port in spec["ports"].each()),
        cluster_ips=tuple(item.address() for item in listed) if kind != "ExternalName" else (),
        external_ips=tuple(item.address() for item in spec["externalIPs"].each()),
        load_balancer=tuple(
            LoadBalancerIngress(item["ip"].address(), item["ipMode"].text("VIP"))
            for item in ingress
            if item["ip"].text("")
        ),
        load_balancer_names=tuple(filter(None, (item["hostname"].text("") for item in ingress))),
        load_balancer_source_ranges=tuple(item.network() for item in spec["loadBalancerSourceRanges"].each()),
        external_traffic_policy=spec["externalTrafficPolicy"].text("Cluster" if exposed else ""),
        internal_traffic_policy=spec["internalTrafficPolicy"].text("Cluster"),
        session_affinity_s=affinity_s,
        health_check_node_port=spec["healthCheckNodePort"].port(0),
        external_name=spec["externalName"].text(""),
        is_headless=kind != "ExternalName" and first == "None",
        labels=root["metadata"]["labels"].labels(),
        selector=spec["selector"].labels(),
    )


def _service_port(port: Field) -> ServicePort:
    number = port["port"].port()
    target = port["targetPort"]
    return ServicePort(
        port["name"].text(""),
        _protocol(port),
        number,
        target.text() if isinstance(target.value, str) else target.port(number),
        port["nodePort"].port(0),
    )


def _protocol(port: Field) -> str:
    protocol = port["protocol"].text("TCP")
    if protocol not in ("TCP", "UDP", "SCTP"):
        raise port["protocol"].wrong("TCP, UDP or SCTP")
    return protocol


def _slice(root: Field) -> EndpointSlice:
    namespace, name = _names(root)
    return EndpointSlice(
        namespace,
        name,
        root["metadata"]["labels"].labels().get(SERVICE_NAME_LABEL, ""),
        root["addressType"].text(),
        ports=tuple(
            EndpointPort(port["name"].text(""), _protocol(port), port["port"].port(0)) for port in root["ports"].each()
        ),
        endpoints=tuple(_endpoint(endpoint) for endpoint in root["endpoints"].each()),
    )


def _endpoint(endpoint: Field) -> Endpoint:
    conditions, hints = endpoint["conditions"], endpoint["hints"]
    ready = conditions["ready"].flag(True)
    return Endpoint(
        endpoint["addresses"].texts(),
        ready,
        conditions["serving"].flag(True),
        conditions["terminating"].flag(False),
        endpoint["nodeName"].text(""),
        zone_hints=tuple(zone["name"].text() for zone in hints["forZones"].each()),
        node_hints=tuple(node["name"].text() for node in hints["forNodes"].each()),
        target=endpoint["targetRef"]["name"].text(""),
    )


def _node(root: Field) -> Node:
    spec = root["spec"]
    cidrs = spec["podCIDRs"].each() or ((spec["podCIDR"],) if spec["podCIDR"].text("") else ())
    return Node(
        root["metadata"]["name"].text(),
        tuple((item["type"].text(), item["address"].text()) for item in root["status"]["addresses"].each()),
        tuple(cidr.network() for cidr in cidrs),
        labels=root["metadata"]["labels"].labels(),
    )


def _pod(root: Field) -> Pod:
    namespace, name = _names(root)
    spec, status = root["spec"], root["status"]
    return Pod(
        namespace,
        name,
        spec["nodeName"].text(""),
        spec["hostNetwork"].flag(False),
        status["phase"].text("Pending"),
        _pod_ips(status),
        init_containers=tuple(_container(item) for item in spec["initContainers"].each()),
        containers=tuple(_container(item) for item in spec["containers"].each()),
        labels=root["metadata"]["labels"].labels(),
        default_container=root["metadata"]["annotations"][_DEFAULT_CONTAINER].text(""),
    )


def _pod_ips(status: Field) -> tuple[Address, ...]:
    listed = tuple(item["ip"].address() for item in status["podIPs"].each())
    return listed or ((status["podIP"].address(),) if status["podIP"].text("") else ())


def _container(item: Field) -> Container:
    return Container(
        item["name"].text(),
        item["image"].text(""),
        item["command"].texts(),
        item["args"].texts(),
        tuple(
            ContainerPort(port["name"].text(""), _protocol(port), port["containerPort"].port())
            for port in item["ports"].each()
        ),
        is_sidecar=item["restartPolicy"].text("") == "Always",
    )
