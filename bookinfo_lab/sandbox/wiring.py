"""The sandbox's network as text: what `ip -batch` and /proc/sys are given in each network namespace.

Pure.  One LAN bridge without an address joins nodes and the client.  A pod hangs on its node by an
unnumbered veth pair as Calico makes it: a /32 in the pod, a /32 route on the node, 169.254.1.1 as the
gateway that the node answers for by proxy ARP.  Being unnumbered, the pair lets MASQUERADE choose the node's
LAN address.  The default route on the node is what makes the kernel answer those ARP requests.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Network

from bookinfo_lab.sandbox.topology import GATEWAY, Host, Object, Topology, host_of

CLIENT = "client"
LAN = "lan"
_HOST_MAC = "ee:ee:ee:ee:ee:ee"
_IPV4_ONLY = {"net/ipv6/conf/all/disable_ipv6": "1", "net/ipv6/conf/default/disable_ipv6": "1"}


@dataclass(frozen=True, slots=True)
class Wiring:
    """One network namespace: its file name, its sysctls (path below /proc/sys → value), its `ip -batch` lines."""

    netns: str
    sysctls: Mapping[str, str] = field(default_factory=dict)
    links: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()


def node_netns(name: str) -> str:
    """The file name of a node's network namespace."""
    return f"node_{name}"


def pod_netns(pod: Object) -> str:
    """The file name of a pod's network namespace."""
    return f"pod_{pod['metadata']['namespace']}_{pod['metadata']['name']}"


def host_veth(pod: Object) -> str:
    """The node's end of the pod's veth pair, named after the pod as Calico names it (15 characters)."""
    text = f"{pod['metadata']['namespace']}.{pod['metadata']['name']}"
    return "cali" + hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()[:11]


def wire(topology: Topology) -> tuple[Wiring, ...]:
    """Every network namespace, the LAN's first.

    ``links`` lines of all run before the ``settings`` lines of any: a link is made in one namespace and
    configured in another.  The lines of the LAN run in the sandbox's own network namespace.
    """
    prefix = IPv4Network(topology.lan).prefixlen
    members = [(node_netns(host.name), f"lan{index}") for index, host in enumerate(topology.hosts)]
    members.append((CLIENT, "lanc"))
    lan = Wiring(
        netns=LAN,
        sysctls=_IPV4_ONLY,
        links=(
            "link add lan type bridge",
            *(f"link add {port} type veth peer name eth0 netns {name}" for name, port in members),
        ),
        settings=("link set lan up", *(f"link set {port} master lan up" for _, port in members)),
    )
    client = Wiring(
        netns=CLIENT,
        sysctls=_IPV4_ONLY,
        settings=("link set lo up", f"addr add {topology.client}/{prefix} dev eth0", "link set eth0 up"),
    )
    nodes = tuple(_node(topology, host, prefix) for host in topology.hosts)
    return (lan, client, *nodes, *(_pod(pod) for pod in topology.pods()))


def _node(topology: Topology, host: Host, prefix: int) -> Wiring:
    pods = [pod for pod in topology.pods() if host_of(pod, topology) == host]
    gateway = next(IPv4Network(topology.lan).hosts())  # nobody: the sandbox has no way out
    veths = [host_veth(pod) for pod in pods]
    return Wiring(
        netns=node_netns(host.name),
        sysctls={
            **_IPV4_ONLY,
            "net/ipv4/ip_forward": "1",
            "net/ipv4/conf/all/route_localnet": "1",  # kube-proxy sets it, so that NodePorts answer on 127.0.0.1
            **{f"net/ipv4/conf/{veth}/proxy_arp": "1" for veth in veths},
            **{f"net/ipv4/neigh/{veth}/proxy_delay": "0" for veth in veths},
        },
        links=tuple(
            f"link add {veth} address {_HOST_MAC} type veth peer name eth0 netns {pod_netns(pod)}"
            for veth, pod in zip(veths, pods, strict=True)
        ),
        settings=(
            "link set lo up",
            f"addr add {host.address}/{prefix} dev eth0",
            "link set eth0 up",
            f"route add default via {gateway}",
            *(f"link set {veth} up" for veth in veths),
            *(
                f"route add {pod['status']['podIP']}/32 dev {veth} scope link"
                for veth, pod in zip(veths, pods, strict=True)
            ),
            *(f"route add {other.pod_cidr} via {other.address}" for other in topology.hosts if other != host),
        ),
    )


def _pod(pod: Object) -> Wiring:
    return Wiring(
        netns=pod_netns(pod),
        sysctls=_IPV4_ONLY,
        settings=(
            "link set lo up",
            f"addr add {pod['status']['podIP']}/32 dev eth0",
            "link set eth0 up",
            f"route add {GATEWAY} dev eth0 scope link",
            f"route add default via {GATEWAY} dev eth0",
        ),
    )
