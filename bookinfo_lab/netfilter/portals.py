"""What kube-proxy makes rules for: one `Portal` for each port of each Service that has a cluster IP.

Objects come in, portals come out, by namespace and name, a Service's ports in its own order; kube-proxy itself has no
order here.  Headless and ExternalName Services, those of another proxy and those without an IPv4 address are left out.
Follows kubernetes pkg/proxy: serviceport.go, servicechangetracker.go, endpointslicecache.go.
"""

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.fields import Address
from bookinfo_lab.kube.objects import EndpointSlice, Objects, Service, ServicePort

_OTHER_PROXY_LABEL = "service.kubernetes.io/service-proxy-name"
_HEADLESS_LABEL = "service.kubernetes.io/headless"


@dataclass(frozen=True, slots=True)
class Backend:
    """An endpoint of a portal on this node's view: ``is_local`` says whether it runs on this node."""

    ip: str
    port: int
    is_local: bool
    is_ready: bool
    is_serving: bool
    is_terminating: bool
    zone_hints: tuple[str, ...]
    node_hints: tuple[str, ...]

    @property
    def text(self) -> str:
        """``ip:port``, as kube-proxy writes and hashes it."""
        return f"{self.ip}:{self.port}"


@dataclass(frozen=True, slots=True)
class Portal:
    """A Service port with all that its rules depend on; addresses are text, protocols lower case, 0 means none."""

    name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int
    external_ips: tuple[str, ...]
    load_balancer_ips: tuple[str, ...]
    source_ranges: tuple[ipaddress.IPv4Network, ...]
    external_policy_local: bool
    internal_policy_local: bool
    affinity_s: int
    health_check_node_port: int
    backends: tuple[Backend, ...]

    @property
    def is_external(self) -> bool:
        """Whether the port can be reached at another address than the cluster IP."""
        return bool(self.node_port or self.load_balancer_ips or self.external_ips)


def portals(objects: Objects, node: str, named: Callable[[str, str, str], str]) -> tuple[Portal, ...]:
    """The portals that kube-proxy on ``node`` sees; ``named`` makes a port's name of namespace, Service and port.

    A portal's backends are those of all its slices, each ``ip:port`` once, sorted by that text.
    """
    slices: dict[tuple[str, str], list[EndpointSlice]] = {}
    for item in objects.endpoint_slices:
        if item.address_type == "IPv4" and item.service:
            slices.setdefault((item.namespace, item.service), []).append(item)
    found = []
    for service in sorted(objects.services, key=lambda item: (item.namespace, item.name)):
        if not _is_proxied(service):
            continue
        for port in service.ports:
            backends = _backends(slices.get((service.namespace, service.name), ()), port, node)
            found.append(_portal(service, port, named(service.namespace, service.name, port.name), backends))
    return tuple(found)


def _is_proxied(service: Service) -> bool:
    return (
        service.type != "ExternalName"
        and bool(_ipv4(service.cluster_ips))
        and _OTHER_PROXY_LABEL not in service.labels
        and _HEADLESS_LABEL not in service.labels
    )


def _portal(service: Service, port: ServicePort, name: str, backends: tuple[Backend, ...]) -> Portal:
    exposed = service.type in ("NodePort", "LoadBalancer") or bool(service.external_ips)
    external_local = exposed and service.external_traffic_policy == "Local"
    ranges = tuple(item for item in service.load_balancer_source_ranges if isinstance(item, ipaddress.IPv4Network))
    return Portal(
        name,
        port.protocol.lower(),
        _ipv4(service.cluster_ips)[0],
        port.port,
        port.node_port,
        _ipv4(service.external_ips),
        # A load balancer in Proxy mode sends to node ports: its address is none of kube-proxy's business.
        _ipv4(item.address for item in service.load_balancer if item.ip_mode == "VIP"),
        () if any(item.prefixlen == 0 for item in ranges) else ranges,
        external_local,
        service.internal_traffic_policy == "Local",
        service.session_affinity_s,
        service.health_check_node_port if service.type == "LoadBalancer" and external_local else 0,
        backends,
    )


def _backends(slices: Iterable[EndpointSlice], port: ServicePort, node: str) -> tuple[Backend, ...]:
    found: dict[str, Backend] = {}
    for item in slices:
        number = item.port(port.name, port.protocol)
        if not number:
            continue
        for endpoint in item.endpoints:
            if not endpoint.addresses:
                continue
            backend = Backend(
                _ipv4_text(endpoint.addresses[0], f"EndpointSlice {item.namespace}/{item.name}"),
                number,
                endpoint.node_name == node,
                endpoint.ready,
                endpoint.serving,
                endpoint.terminating,
                endpoint.zone_hints,
                endpoint.node_hints,
            )
            # A pod's address can be given away before the pod that had it is gone: the running one wins.
            if backend.text not in found or not backend.is_terminating:
                found[backend.text] = backend
    return tuple(found[text] for text in sorted(found))


def _ipv4(addresses: Iterable[Address]) -> tuple[str, ...]:
    return tuple(str(address) for address in addresses if address.version == 4)


def _ipv4_text(text: str, owner: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise LabError(f"{owner}: {text!r} is not an IPv4 address, though addressType says so") from None
