"""Who owns an address: a Pod, a Service, a Node.

An address and the cluster's objects come in, every owner comes out, the most particular first.  The answer
follows from the API objects alone: an address that no object names has no owner here.
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from bookinfo_lab.errors import LabError

from .fields import Address
from .objects import Objects
from .parse import Given, parse


@dataclass(frozen=True, slots=True)
class Owner:
    """An object that an address belongs to, and ``role``: the field of the API that says so.

    ``role`` is one of podIP, clusterIP, externalIP, loadBalancer, a Node's address type (InternalIP, …), hostNetwork
    (a Pod that uses its node's address) and podCIDR (a node's range holds the address, no Pod has it).
    """

    kind: str
    namespace: str
    name: str
    role: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


def who_is(ip: str | Address, given: Given) -> tuple[Owner, ...]:
    """The owners of ``ip``, in the order Pods, Services, Nodes, then Pods on the host's network.

    A Pod that has ended owns no address any more.  A Node's pod range is named only where nothing else owns the
    address.  Empty means that no object names it.  Raises `LabError` where ``ip`` is not an address.
    """
    try:
        address = ipaddress.ip_address(ip)
    except ValueError:
        raise LabError(f"{ip!r} is not an IP address; give one such as 10.244.0.3") from None
    objects = parse(given)
    return (
        *_pods(address, objects, on_host=False),
        *_services(address, objects),
        *_nodes(address, objects),
        *_pods(address, objects, on_host=True),
    ) or tuple(_ranges(address, objects))


def _pods(address: Address, objects: Objects, *, on_host: bool) -> Iterator[Owner]:
    for pod in objects.pods:
        if pod.host_network == on_host and pod.phase not in ("Succeeded", "Failed") and address in pod.pod_ips:
            yield Owner("Pod", pod.namespace, pod.name, "hostNetwork" if on_host else "podIP")


def _services(address: Address, objects: Objects) -> Iterator[Owner]:
    for service in objects.services:
        roles = (
            ("clusterIP", service.cluster_ips),
            ("externalIP", service.external_ips),
            ("loadBalancer", tuple(ingress.address for ingress in service.load_balancer)),
        )
        for role, addresses in roles:
            if address in addresses:
                yield Owner("Service", service.namespace, service.name, role)


def _nodes(address: Address, objects: Objects) -> Iterator[Owner]:
    for node in objects.nodes:
        for kind, text in node.addresses:
            if text == str(address):
                yield Owner("Node", "", node.name, kind)


def _ranges(address: Address, objects: Objects) -> Iterator[Owner]:
    for node in objects.nodes:
        if any(address in cidr for cidr in node.pod_cidrs):
            yield Owner("Node", "", node.name, "podCIDR")
