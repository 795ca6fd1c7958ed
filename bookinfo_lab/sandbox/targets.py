"""What a learner may name: `client`, `node`, a pod, an app, an app-version, `NAMESPACE/…`.

Pure.  A name is matched in that order; one that fits several targets is an error that lists them, and one
that fits none lists what there is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox.topology import Object

GATEWAY_CONTAINERS = ("istio-proxy", "istio-ingress")


@dataclass(frozen=True, slots=True)
class Target:
    """A place in a sandbox: a pod's container, a node or the client."""

    kind: str
    namespace: str
    name: str
    container: str
    log: str

    def key(self) -> dict[str, Any]:
        """The fields by which the sandbox's init knows it."""
        return {"kind": self.kind, "namespace": self.namespace, "name": self.name, "container": self.container}

    def __str__(self) -> str:
        return {"pod": f"{self.namespace}/{self.name}", "node": f"node/{self.name}"}.get(self.kind, self.name)


def find(name: str, container: str, targets: Sequence[Target], objects: Iterable[Object]) -> Target:
    """The target that ``name`` means; in a pod its application's container unless ``container`` names another."""
    namespace, _, rest = name.rpartition("/")
    places = _hosts(name, targets) if name == "client" or name == "node" or namespace == "node" else []
    if not places:
        places = _pods(namespace, rest, targets, objects)
    shown = sorted({str(item) for item in places})
    if not shown:
        known = sorted({str(item) for item in targets if item.kind != "publisher"})
        raise LabError(f"no target {name!r}; there are: {', '.join(known)}")
    if len(shown) > 1:
        raise LabError(f"{name!r} is ambiguous: {', '.join(shown)}; name one of them")
    return _container(container, places, shown[0])


def _hosts(name: str, targets: Sequence[Target]) -> list[Target]:
    if name == "client":
        return [item for item in targets if item.kind == "client"]
    wanted = name.removeprefix("node").removeprefix("/")
    return [item for item in targets if item.kind == "node" and wanted in ("", item.name)]


def _pods(namespace: str, name: str, targets: Sequence[Target], objects: Iterable[Object]) -> list[Target]:
    pods = [item for item in objects if item["kind"] == "Pod" and namespace in ("", item["metadata"]["namespace"])]
    for names in (_own_name, _app_version, _app):
        found = {(pod["metadata"]["namespace"], pod["metadata"]["name"]) for pod in pods if name in names(pod)}
        if found:
            return [item for item in targets if item.kind == "pod" and (item.namespace, item.name) in found]
    return []


def _own_name(pod: Object) -> set[str]:
    return {pod["metadata"]["name"]}


def _app_version(pod: Object) -> set[str]:
    labels = pod["metadata"]["labels"]
    return {f"{labels['app']}-{labels['version']}"} if "app" in labels and "version" in labels else set()


def _app(pod: Object) -> set[str]:
    """An app's label; the gateway also answers to `ingress`."""
    labels = pod["metadata"]["labels"]
    names = {str(labels[key]) for key in ("app", "k8s-app", "istio") if key in labels}
    return names | ({"ingress"} if str(labels.get("istio", "")).startswith("ingress") else set())


def _container(container: str, places: Sequence[Target], shown: str) -> Target:
    if container:
        for item in places:
            if item.container == container:
                return item
        known = ", ".join(item.container for item in places)
        raise LabError(f"{shown} has no container {container!r}; it has: {known}")
    own = [item for item in places if item.container not in GATEWAY_CONTAINERS]
    return (own or list(places))[0]
