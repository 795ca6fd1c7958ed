"""Services, EndpointSlices, Nodes and Pods as frozen values.

What `parse` returns has the defaults filled in that the API server fills in.  An absent number or policy
is ``None`` or an empty string, an absent list an empty tuple.  Addresses are `ipaddress` values, so that
"10.0.0.1" and the family of an address are never a matter of text.  Follows the v1 and discovery.k8s.io/v1 APIs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from bookinfo_lab.errors import Incomplete

from .fields import Address, Network

SERVICE_NAME_LABEL = "kubernetes.io/service-name"
SESSION_AFFINITY_S = 10800  # the API server's default for sessionAffinityConfig.clientIP.timeoutSeconds


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service; ``node_port`` is 0 where there is none, ``name`` empty where the port is unnamed."""

    name: str
    protocol: str
    port: int
    target_port: int | str
    node_port: int


@dataclass(frozen=True, slots=True)
class LoadBalancerIngress:
    """An address that a load balancer gave a Service; ``ip_mode`` is ``VIP`` (the default) or ``Proxy``."""

    address: Address
    ip_mode: str


@dataclass(frozen=True, slots=True)
class Service:
    """A Service.  ``cluster_ips`` is empty for a headless or ExternalName one, ``session_affinity_s`` 0 for none.

    ``load_balancer_names`` are the names by which its load balancer is reached where that has no fixed address.
    """

    namespace: str
    name: str
    type: str
    ports: tuple[ServicePort, ...]
    cluster_ips: tuple[Address, ...] = ()
    external_ips: tuple[Address, ...] = ()
    load_balancer: tuple[LoadBalancerIngress, ...] = ()
    load_balancer_names: tuple[str, ...] = ()
    load_balancer_source_ranges: tuple[Network, ...] = ()
    external_traffic_policy: str = ""
    internal_traffic_policy: str = "Cluster"
    session_affinity_s: int = 0
    health_check_node_port: int = 0
    external_name: str = ""
    is_headless: bool = False
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    selector: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint of a slice, with the conditions' meaning rather than their text (absent ready is ready)."""

    addresses: tuple[str, ...]
    ready: bool
    serving: bool
    terminating: bool
    node_name: str
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True, slots=True)
class EndpointPort:
    """A port of all endpoints of a slice; ``port`` is 0 where the slice does not say one."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class EndpointSlice:
    """An EndpointSlice; ``service`` is empty where no Service owns it."""

    namespace: str
    name: str
    service: str
    address_type: str
    ports: tuple[EndpointPort, ...]
    endpoints: tuple[Endpoint, ...]

    def port(self, name: str, protocol: str = "TCP") -> int:
        """The port number that this slice gives the Service port ``name``; 0 where it gives none."""
        return next((port.port for port in self.ports if (port.name, port.protocol) == (name, protocol)), 0)


@dataclass(frozen=True, slots=True)
class Node:
    """A Node; ``addresses`` are (type, address) pairs, because a Hostname is one too."""

    name: str
    addresses: tuple[tuple[str, str], ...]
    pod_cidrs: tuple[Network, ...]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def internal_ip(self) -> str:
        """The first IPv4 InternalIP; empty where the node reports none."""
        return next((text for kind, text in self.addresses if kind == "InternalIP" and ":" not in text), "")


@dataclass(frozen=True, slots=True)
class ContainerPort:
    """A port that a container says it listens on."""

    name: str
    protocol: str
    port: int


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a Pod; ``is_sidecar`` is an init container that restarts always, and so runs beside the others."""

    name: str
    image: str
    command: tuple[str, ...]
    args: tuple[str, ...]
    ports: tuple[ContainerPort, ...]
    is_sidecar: bool


@dataclass(frozen=True, slots=True)
class Pod:
    """A Pod; ``pod_ips`` is empty until it has a network, ``node_name`` until it is scheduled.

    ``default_container`` is the one that an annotation names for kubectl, "" where none does.
    """

    namespace: str
    name: str
    node_name: str
    host_network: bool
    phase: str
    pod_ips: tuple[Address, ...]
    init_containers: tuple[Container, ...]
    containers: tuple[Container, ...]
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    default_container: str = ""

    @property
    def running_containers(self) -> tuple[Container, ...]:
        """The containers that run side by side: native sidecars first, as they start first."""
        return (*(item for item in self.init_containers if item.is_sidecar), *self.containers)

    @property
    def pod_ip(self) -> Address | None:
        """The Pod's first address."""
        return self.pod_ips[0] if self.pod_ips else None


@dataclass(frozen=True, slots=True)
class Objects:
    """All objects of one cluster at one time, in the order in which they were given."""

    services: tuple[Service, ...] = ()
    endpoint_slices: tuple[EndpointSlice, ...] = ()
    nodes: tuple[Node, ...] = ()
    pods: tuple[Pod, ...] = ()

    def node(self, name: str) -> Node:
        """The Node ``name``; `Incomplete` where the objects hold none, with the names that they hold."""
        for node in self.nodes:
            if node.name == name:
                return node
        known = ", ".join(node.name for node in self.nodes) or "none"
        raise Incomplete(f"no Node named {name!r} among the objects (there: {known}); add its object, or name another")
