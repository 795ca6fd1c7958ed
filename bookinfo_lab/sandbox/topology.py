"""What a sandbox consists of, as data: nodes on one LAN, a client, and Kubernetes API objects.

Pure.  A Topology says everything that `netns` and `processes` build; the API objects in it are plain
Kubernetes dicts, so the rule writers, the proxy-config writer and `kube/` read one format.  The address
plan: nodes and the client share the LAN; each pod has one address of its node's pod range, by an
unnumbered veth pair (169.254.1.1 is every pod's gateway, answered by proxy ARP).  A pod's containers
run what their ``command`` says; ``image`` names which files they see (``processes`` lists the images).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError

Object = dict[str, Any]

GATEWAY = "169.254.1.1"
PROXY_UID = 1337
BOOKINFO_PORT = 9080
_SAFE_LETTERS = "bcdfghjklmnpqrstvwxz2456789"  # what Kubernetes makes random names of: no vowels, no 0, 1, 3


@dataclass(frozen=True, slots=True)
class Host:
    """A node: its Kubernetes name, its LAN address, and the CIDR its pods have addresses of."""

    name: str
    address: str
    pod_cidr: str


@dataclass(frozen=True, slots=True)
class Topology:
    """A sandbox to build.  ``layout`` is kube-proxy's rule layout, ``front_door`` the Service port the client uses."""

    scenario: str
    lan: str
    client: str
    hosts: tuple[Host, ...]
    pod_cidr: str
    service_cidr: str
    dns_address: str
    layout: str
    front_door: tuple[str, str, str]
    objects: tuple[Object, ...]

    def pods(self) -> tuple[Object, ...]:
        """The Pod objects, in the order in which they are started."""
        return tuple(item for item in self.objects if item["kind"] == "Pod")


def from_json(document: Mapping[str, Any]) -> Topology:
    """The Topology whose fields `dataclasses.asdict` and JSON turned into ``document``."""
    fields = dict(document)
    fields["hosts"] = tuple(Host(**host) for host in document["hosts"])
    fields["front_door"] = tuple(document["front_door"])
    fields["objects"] = tuple(document["objects"])
    return Topology(**fields)


def front_door(topology: Topology, objects: Iterable[Mapping[str, Any]]) -> tuple[str, int]:
    """Where the client finds the mesh: the first node's address and the front Service's node port.

    Raises LabError where ``objects`` no longer hold that Service.
    """
    namespace, name, port_name = topology.front_door
    for item in objects:
        meta = item["metadata"]
        if item["kind"] == "Service" and (meta.get("namespace"), meta["name"]) == (namespace, name):
            ports = {port["name"]: port["nodePort"] for port in item["spec"]["ports"]}
            return topology.hosts[0].address, ports[port_name]
    raise LabError(f"the front Service {namespace}/{name} is gone; take the sandbox down and up again")


def containers(pod: Mapping[str, Any]) -> tuple[Object, ...]:
    """A pod's long-running containers, sidecars first: they are init containers that restart always."""
    spec = pod["spec"]
    sidecars = [item for item in spec.get("initContainers", ()) if item.get("restartPolicy") == "Always"]
    return (*sidecars, *spec["containers"])


def is_proxy(container: Mapping[str, Any]) -> bool:
    """Whether this container runs pilot-agent, and so an Envoy."""
    return bool(container["command"][0].endswith("pilot-agent"))


def is_intercepted(pod: Mapping[str, Any]) -> bool:
    """Whether istio-init writes redirection rules into this pod: sidecars have them, gateways do not."""
    return any(item["name"] == "istio-init" for item in pod["spec"].get("initContainers", ()))


def host_of(pod: Mapping[str, Any], topology: Topology) -> Host:
    """The node that the pod is scheduled on."""
    return next(host for host in topology.hosts if host.name == pod["spec"]["nodeName"])


def suffix(text: str, length: int) -> str:
    """A name suffix in Kubernetes' alphabet, the same for the same text: sandboxes are reproducible."""
    digest = hashlib.sha256(text.encode()).digest()
    return "".join(_SAFE_LETTERS[byte % len(_SAFE_LETTERS)] for byte in digest[:length])


def pod_name(deployment: str, namespace: str) -> str:
    """A name as the ReplicaSet of ``deployment`` would give it."""
    return f"{deployment}-{suffix(namespace + deployment, 10)}-{suffix(deployment + namespace + 'pod', 5)}"


def service(
    name: str,
    namespace: str,
    cluster_ip: str,
    ports: Sequence[Mapping[str, Any]],
    *,
    selector: Mapping[str, str],
    kind: str = "ClusterIP",
    **spec: Any,
) -> Object:
    """A Service object; ``ports`` are API ServicePorts (``protocol`` TCP where not given)."""
    more: dict[str, Any] = {"externalTrafficPolicy": "Cluster"} if kind != "ClusterIP" else {}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(selector)},
        "spec": {
            "type": kind,
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ipFamilies": ["IPv4"],
            "internalTrafficPolicy": "Cluster",
            "sessionAffinity": "None",
            "selector": dict(selector),
            "ports": [{"protocol": "TCP", **port} for port in ports],
            **more,
            **spec,
        },
        "status": {"loadBalancer": {}},
    }


def pod(
    name: str,
    namespace: str,
    address: str,
    host: Host,
    labels: Mapping[str, str],
    main: Iterable[Mapping[str, Any]],
    init: Iterable[Mapping[str, Any]] = (),
) -> Object:
    """A Pod object, not yet ready: `ready` marks it when its probe has answered."""
    body: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels), "annotations": {}},
        "spec": {
            "containers": [dict(item) for item in main],
            "dnsPolicy": "ClusterFirst",
            "nodeName": host.name,
            "restartPolicy": "Always",
            "serviceAccountName": "default",
        },
        "status": {
            "phase": "Pending",
            "hostIP": host.address,
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "False"}],
        },
    }
    if list(init):
        body["spec"]["initContainers"] = [dict(item) for item in init]
    return body


def created(item: Mapping[str, Any], when: str) -> Object:
    """The object as the API server stores it: with the time of its creation (RFC 3339), unless it has one."""
    return {**item, "metadata": {"creationTimestamp": when, **item["metadata"]}}


def ready(pod: Mapping[str, Any], started: str) -> Object:
    """The Pod as the API reports it once every container runs and answers (``started``: RFC 3339 time)."""
    spec = pod["spec"]

    def status(container: Mapping[str, Any]) -> Object:
        runs = container["name"] != "istio-init"
        state = {"running": {"startedAt": started}} if runs else {"terminated": {"exitCode": 0, "reason": "Completed"}}
        image = container["image"]
        return {"name": container["name"], "image": image, "ready": True, "restartCount": 0, "state": state}

    report = {
        **pod["status"],
        "phase": "Running",
        "startTime": started,
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [status(item) for item in spec["containers"]],
    }
    if spec.get("initContainers"):
        report["initContainerStatuses"] = [status(item) for item in spec["initContainers"]]
    return {**pod, "status": report}


def endpoint_slices(objects: Iterable[Mapping[str, Any]], *, assume_ready: bool = False) -> tuple[Object, ...]:
    """One EndpointSlice per selecting Service over the Pods it selects, as the controller writes them.

    ``assume_ready`` marks every endpoint ready (the sandbox's rules are loaded before its pods answer);
    otherwise an endpoint is as ready as its Pod's condition.
    """
    items = list(objects)
    pods = [item for item in items if item["kind"] == "Pod"]
    return tuple(
        _slice(item, [pod for pod in pods if _selects(item, pod)], assume_ready)
        for item in items
        if item["kind"] == "Service" and item["spec"].get("selector")
    )


def _selects(service: Mapping[str, Any], pod: Mapping[str, Any]) -> bool:
    same_namespace = service["metadata"]["namespace"] == pod["metadata"]["namespace"]
    wanted: dict[str, str] = service["spec"]["selector"]
    return bool(same_namespace and wanted.items() <= pod["metadata"]["labels"].items())


def _slice(service: Mapping[str, Any], pods: Sequence[Mapping[str, Any]], assume_ready: bool) -> Object:
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-{suffix(name + namespace, 5)}",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": port.get("name", ""), "port": _target_port(port, pods), "protocol": port["protocol"]}
            for port in service["spec"]["ports"]
        ],
        "endpoints": [_endpoint(pod, assume_ready) for pod in pods],
    }


def _target_port(port: Mapping[str, Any], pods: Sequence[Mapping[str, Any]]) -> int:
    """The number behind a ServicePort's targetPort, which may be the name of a container's port.

    The pods of a sandbox's Service are alike, so one number stands for all; a name that none of them has is an error.
    """
    target = port.get("targetPort", port["port"])
    if isinstance(target, int) or not pods:
        return target if isinstance(target, int) else int(port["port"])
    for pod in pods:
        for item in containers(pod):
            for own in item.get("ports", ()):
                if own.get("name") == target:
                    return int(own["containerPort"])
    raise LabError(f"no selected pod has a container port named {target!r}; give targetPort a number or such a name")


def _endpoint(pod: Mapping[str, Any], assume_ready: bool) -> Object:
    is_ready = assume_ready or any(
        item["type"] == "Ready" and item["status"] == "True" for item in pod["status"]["conditions"]
    )
    meta = pod["metadata"]
    return {
        "addresses": [pod["status"]["podIP"]],
        "conditions": {"ready": is_ready, "serving": is_ready, "terminating": False},
        "nodeName": pod["spec"]["nodeName"],
        "targetRef": {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"]},
    }


def node(host: Host) -> Object:
    """A Node object with the facts that kube-proxy reads: its name, addresses and pod CIDR."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": host.name, "labels": {"kubernetes.io/hostname": host.name}},
        "spec": {"podCIDR": host.pod_cidr, "podCIDRs": [host.pod_cidr]},
        "status": {
            "addresses": [
                {"type": "InternalIP", "address": host.address},
                {"type": "Hostname", "address": host.name},
            ],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }
