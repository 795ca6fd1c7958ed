"""What a learner may name: `client`, `node`, `service/NAME`, a pod, an app, an app-version, `NAMESPACE/…`.

A name and the cluster's objects come in, the one place that it means comes out.  A name is matched in that
order; one that fits several places is an error that lists them, and one that fits none lists what there is.
A Service means the first of the pods behind it, by name, as one of them does to kubectl.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bookinfo_lab.errors import LabError

from .objects import Objects, Pod
from .parse import Given, parse

PROXY_CONTAINERS = ("istio-proxy", "istio-ingress")
OWNED = "bookinfo-lab.dev/owner"  # the label of everything that a lab makes in a cluster; its pods are no places


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a command runs: ``kind`` is client, node or pod; a node and the client have no namespace or container."""

    kind: str
    namespace: str
    name: str
    container: str

    def __str__(self) -> str:
        return {"pod": f"{self.namespace}/{self.name}", "node": f"node/{self.name}"}.get(self.kind, self.name)


CLIENT = Place("client", "", "client", "")
_SERVICE = ("service", "svc", "services")  # as kubectl writes it


def places(given: Given, *, has_client: bool = True) -> tuple[Place, ...]:
    """Every place there is: the client, the nodes, then each running container of each pod that has not ended.

    Where the nodes may not be listed they are those that the pods name.
    """
    objects = parse(given)
    named = [node.name for node in objects.nodes] or sorted({pod.node_name for pod in objects.pods} - {""})
    nodes = [Place("node", "", name, "") for name in named]
    pods = [
        Place("pod", pod.namespace, pod.name, item.name) for pod in _alive(objects) for item in pod.running_containers
    ]
    return (*([CLIENT] if has_client else []), *nodes, *pods)


def find(name: str, given: Given, container: str = "", *, has_client: bool = True) -> Place:
    """The place that ``name`` means; in a pod its application's container unless ``container`` names another.

    That is the one that kubectl takes, an annotation's or the first, but no proxy beside others: a pod whose only
    container is a proxy (a gateway) means that one.  Raises `LabError` as the module says.
    """
    objects = parse(given)
    known = places(objects, has_client=has_client)
    namespace, _, rest = name.rpartition("/")
    found = [item for item in known if item.kind != "pod" and _means(item, name)]
    if not found:
        pods = _behind(name, objects) if is_service(name) else _pods(namespace, rest, _alive(objects))
        found = [item for item in known if (item.namespace, item.name) in pods]
    shown = sorted({str(item) for item in found})
    if not shown:
        raise LabError(f"no target {name!r}; there are: {', '.join(dict.fromkeys(map(str, known)))}")
    if len(shown) > 1:
        raise LabError(f"{name!r} is ambiguous: {', '.join(shown)}; name one of them")
    return _in_container(container, found, shown[0], objects)


def is_service(name: str) -> bool:
    """Whether the name is a Service's, so that finding its pods takes the cluster's Services."""
    return name.count("/") in (1, 2) and name.split("/")[-2] in _SERVICE


def _behind(name: str, objects: Objects) -> set[tuple[str, str]]:
    """The first pod behind a Service, in each namespace that has such a Service."""
    *namespace, _, own = name.split("/")
    services = [
        item for item in objects.services if item.name == own and item.namespace in (namespace or [item.namespace])
    ]
    found: dict[str, str] = {}
    for service in services:
        for pod in sorted(_alive(objects), key=lambda pod: pod.name):
            is_chosen = service.selector and service.selector.items() <= pod.labels.items()
            if is_chosen and pod.namespace == service.namespace:
                found.setdefault(service.namespace, pod.name)
    return set(found.items())


def _alive(objects: Objects) -> list[Pod]:
    return [pod for pod in objects.pods if pod.phase not in ("Succeeded", "Failed") and OWNED not in pod.labels]


def _means(item: Place, name: str) -> bool:
    return name == str(item) or (item.kind == "node" and name == "node")


def _pods(namespace: str, name: str, pods: Sequence[Pod]) -> set[tuple[str, str]]:
    near = [pod for pod in pods if namespace in ("", pod.namespace)]
    for names in (_own_name, _app_version, _app):
        found = {(pod.namespace, pod.name) for pod in near if name in names(pod)}
        if found:
            return found
    return set()


def _own_name(pod: Pod) -> Iterable[str]:
    return (pod.name,)


def _app_version(pod: Pod) -> Iterable[str]:
    labels = pod.labels
    return (f"{labels['app']}-{labels['version']}",) if "app" in labels and "version" in labels else ()


def _app(pod: Pod) -> Iterable[str]:
    """An app's label; the gateway also answers to `ingress`."""
    names = {pod.labels[key] for key in ("app", "k8s-app", "istio") if key in pod.labels}
    return names | ({"ingress"} if pod.labels.get("istio", "").startswith("ingress") else set())


def _in_container(container: str, found: Sequence[Place], shown: str, objects: Objects) -> Place:
    if container:
        for item in found:
            if item.container == container:
                return item
        known = ", ".join(item.container for item in found if item.container) or "none"
        raise LabError(f"{shown} has no container {container!r}; it has: {known}")
    whole = (found[0].namespace, found[0].name)
    pod = next((pod for pod in objects.pods if (pod.namespace, pod.name) == whole), None)
    ranked = [pod.default_container, *(item.name for item in pod.containers)] if pod is not None else []
    own = {item.container: item for item in found if item.container not in PROXY_CONTAINERS}
    return next((own[name] for name in ranked if name in own), next(iter(own.values()), found[0]))


def proxy_of(place: Place, given: Given) -> Place:
    """The container of the same pod that runs Envoy; `LabError` where the pod has none."""
    for item in places(given):
        if (item.namespace, item.name) == (place.namespace, place.name) and item.container in PROXY_CONTAINERS:
            return item
    raise LabError(f"{place} has no proxy: none of its containers is named {' or '.join(PROXY_CONTAINERS)}")
