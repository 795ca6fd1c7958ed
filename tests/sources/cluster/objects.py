"""Objects of a small cluster: a namespace that is recorded, another one, a node and the API server."""

from typing import Any

OURS, THEIRS = "bookinfo", "severance"
NODE = "172.18.0.2"
API = ("172.18.0.2", 16443)


def host(address: str = NODE, name: str = "lab-0") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "spec": {},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }


def service(namespace: str, number: int, ports: list[tuple[int, int]], **spec: Any) -> dict[str, Any]:
    """A Service 10.96.N.number with these ports and node ports; N says whose."""
    block = 0 if namespace == OURS else 1
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": namespace, "name": f"web{number}"},
        "spec": {
            "type": "NodePort" if any(item for _, item in ports) else "ClusterIP",
            "clusterIP": f"10.96.{block}.{number}",
            "clusterIPs": [f"10.96.{block}.{number}"],
            "ports": [
                {"name": f"p{port}", "protocol": "TCP", "port": port, "targetPort": port}
                | ({"nodePort": node_port} if node_port else {})
                for port, node_port in ports
            ],
            **spec,
        },
    }


def endpoints(of: dict[str, Any], count: int) -> dict[str, Any]:
    meta, block = of["metadata"], 0 if of["metadata"]["namespace"] == OURS else 1
    number = int(meta["name"].removeprefix("web"))
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": meta["namespace"],
            "name": f"{meta['name']}-1",
            "labels": {"kubernetes.io/service-name": meta["name"]},
        },
        "addressType": "IPv4",
        "ports": [
            {"name": item["name"], "protocol": "TCP", "port": item["targetPort"]} for item in of["spec"]["ports"]
        ],
        "endpoints": [
            {
                "addresses": [f"10.244.{block}.{number * 8 + item}"],
                "conditions": {"ready": True},
                "nodeName": "lab-0",
            }
            for item in range(count)
        ],
    }


def pod(address: str, name: str = "web-0", **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": OURS, "name": name},
        "spec": {"nodeName": "lab-0", "containers": [{"name": "web", "image": "web"}], **spec},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def apis() -> list[dict[str, Any]]:
    """The Service `kubernetes` at 10.96.1.1, and where it leads."""
    made = service(THEIRS, 1, [(443, 0)])
    made["metadata"] = {"namespace": "default", "name": "kubernetes"}
    found = {**endpoints(service(THEIRS, 1, [(443, 0)]), 1), "metadata": {"namespace": "default", "name": "kubernetes"}}
    found["metadata"]["labels"] = {"kubernetes.io/service-name": "kubernetes"}
    found["endpoints"][0]["addresses"], found["ports"][0]["port"] = [API[0]], API[1]
    return [made, found]
