"""What one proxy can see of the API objects: the cluster's Services, its own pod and what that is told, its policies.

Pure.  Of two policies for the same the older one goes first, as with istiod.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.sandbox.xds.services import Endpoint, Port, age, outbound_ports, own_ports

_ROLES = ("sidecar", "router", "ingress")


@dataclass(frozen=True, slots=True)
class View:
    """Everything that one proxy's configuration is made of.

    ``ports`` are those that do not speak UDP, by host and number; ``own_ports`` those of the Services that select the
    pod, one a target port, by that.
    """

    pod: Mapping[str, Any]
    domain: str
    ports: tuple[Port, ...]
    own_ports: tuple[Port, ...]
    gateways: tuple[Mapping[str, Any], ...]
    virtual_services: tuple[Mapping[str, Any], ...]
    destination_rules: tuple[Mapping[str, Any], ...]
    ingresses: tuple[Mapping[str, Any], ...]

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return str(self.pod["metadata"]["namespace"])

    @property
    def address(self) -> str:
        """The pod's IP."""
        return str(self.pod["status"]["podIP"])

    def full_host(self, host: str, namespace: str) -> str:
        """The host that a policy in ``namespace`` means: a name without dots is a Service beside it."""
        return host if "." in host else f"{host}.{namespace}.svc.{self.domain}"

    def addresses(self, port: Port) -> tuple[str, ...]:
        """Where connections for a port go: its Service's cluster IP; without one, its pods' IPs but for this one's."""
        if port.address:
            return (port.address,)
        return tuple(dict.fromkeys(one.address for one in port.endpoints if one.address != self.address))

    def members(self, port: Port) -> tuple[Endpoint, ...]:
        """The endpoints of a port that this pod may use."""
        node = self.pod["spec"].get("nodeName", "")
        return tuple(one for one in port.endpoints if not port.is_local or one.node == node)

    def ports_of(self, host: str) -> tuple[Port, ...]:
        """The ports of the Service whose full name is ``host``, none where there is no such Service."""
        return tuple(port for port in self.ports if port.host == host)

    def rules_for(self, port: Port) -> tuple[Mapping[str, Any], ...]:
        """The DestinationRules about a port's Service, in the order in which they were given."""
        return tuple(
            rule
            for rule in self.destination_rules
            if self.full_host(rule["spec"]["host"], rule["metadata"]["namespace"]) == port.host
        )


def role(pod: Mapping[str, Any]) -> str:
    """What the pod's proxy is: ``sidecar``, ``router`` (a gateway) or ``ingress`` (2017); Unsupported without one.

    It is the word after ``proxy`` on the command line of pilot-agent, wherever the pod names that program.
    """
    spec = pod["spec"]
    for container in (*spec.get("initContainers", ()), *spec["containers"]):
        words = [*(container.get("command") or ()), *(container.get("args") or ())]
        for word, following in pairwise(words):
            if word == "proxy" and following in _ROLES:
                return str(following)
    raise Unsupported(f"the pod {pod['metadata']['name']} runs no proxy")


def interception(pod: Mapping[str, Any]) -> str:
    """How the pod's inbound connections come to its proxy, REDIRECT or TPROXY, as the proxy itself is told.

    Unsupported for NONE: such a proxy's listeners are bound to ports of their own.
    """
    spec = pod["spec"]
    variables = (
        variable
        for container in (*spec.get("initContainers", ()), *spec["containers"])
        for variable in container.get("env") or ()
        if variable["name"] == "ISTIO_META_INTERCEPTION_MODE"
    )
    mode = next((str(variable.get("value") or "REDIRECT") for variable in variables), "REDIRECT")
    if mode not in ("REDIRECT", "TPROXY"):
        raise Unsupported(f"the pod {pod['metadata']['name']}: interception mode {mode} is not written")
    return mode


def view(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], domain: str) -> View:
    """The View of ``pod``; objects of kinds that proxies do not read are passed over."""
    items = list(objects)

    def of(kind: str) -> tuple[Mapping[str, Any], ...]:
        return tuple(item for item in items if item["kind"] == kind)

    return View(
        pod=pod,
        domain=domain,
        ports=outbound_ports(of("Service"), of("EndpointSlice"), of("Pod"), domain),
        own_ports=own_ports(of("Service"), pod, domain),
        gateways=tuple(sorted(of("Gateway"), key=age)),
        virtual_services=tuple(sorted(of("VirtualService"), key=age)),
        destination_rules=of("DestinationRule"),
        ingresses=of("Ingress"),
    )
