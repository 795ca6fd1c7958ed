"""What labs left in a cluster: their pods are deleted, their ephemeral containers can only be named.

Edge.  A pod is a lab's where it carries the label OWNED, and is deleted as the object that carried it: one of the same
name that came since is not.  An ephemeral container has no label; the lab's are known by their names' beginning.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bookinfo_lab.kube.places import OWNED
from bookinfo_lab.sources.cluster.api import Api, Refused, decoded
from bookinfo_lab.sources.cluster.guest_objects import PREFIX, is_of


@dataclass(frozen=True, slots=True, order=True)
class Removed:
    """A pod that was deleted."""

    namespace: str
    name: str
    uid: str
    owner: str
    kind: str = "Pod"


@dataclass(frozen=True, slots=True, order=True)
class Remaining:
    """An ephemeral container that is in a pod until that is deleted; ``state``: running, waiting or terminated."""

    namespace: str
    pod: str
    container: str
    state: str


@dataclass(frozen=True, slots=True)
class Traces:
    """What was removed, what remains, and ``missing``: what could not be done, with the right that it takes."""

    removed: tuple[Removed, ...]
    remaining: tuple[Remaining, ...]
    missing: tuple[str, ...]


class _Meta(msgspec.Struct):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    labels: dict[str, str] = {}


class _Container(msgspec.Struct):
    name: str = ""
    state: dict[str, Any] = {}


class _Spec(msgspec.Struct):
    containers: list[_Container] = msgspec.field(default_factory=list, name="ephemeralContainers")


class _Status(msgspec.Struct):
    containers: list[_Container] = msgspec.field(default_factory=list, name="ephemeralContainerStatuses")


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


def remove(api: Api, namespaces: Sequence[str] = (), *, owner: str = "", everywhere: bool = False) -> Traces:
    """Delete one lab's pods in the namespaces, every lab's where no owner is named, and name what remains.

    Where no namespace is named: in all, or, unless ``everywhere`` insists, in the context's own where all may not be
    listed.  Raises `Refused` where nothing may be listed.
    """
    pods, missing = _pods(api, namespaces, everywhere)
    removed = []
    for meta in (pod.metadata for pod in pods if OWNED in pod.metadata.labels):
        if owner not in ("", meta.labels[OWNED]):
            continue
        try:
            if _delete(api, meta):
                removed.append(Removed(meta.namespace, meta.name, meta.uid, meta.labels[OWNED]))
        except Refused as error:
            missing.append(f"{meta.namespace}/{meta.name} is not deleted: {error}")
    remaining = [item for pod in pods if OWNED not in pod.metadata.labels for item in _remaining(pod)]
    own = [item for item in remaining if not owner or is_of(item.container, owner)]
    return Traces(tuple(sorted(removed)), tuple(sorted(own)), tuple(missing))


def as_lines(found: Traces) -> list[str]:
    """What a reader is told on stdout."""
    removed = [f"removed: pod {item.namespace}/{item.name} (of the lab {item.owner})" for item in found.removed]
    remaining = [
        f"remains: container {item.container} in {item.namespace}/{item.pod} ({item.state}): it goes with its pod"
        for item in found.remaining
    ]
    return [*removed, *remaining] or ["nothing of the lab's is there"]


def _pods(api: Api, namespaces: Sequence[str], everywhere: bool) -> tuple[list[_Pod], list[str]]:
    if namespaces:
        return [pod for name in namespaces for pod in _listed(api, f"/api/v1/namespaces/{name}/pods")], []
    try:
        return _listed(api, "/api/v1/pods"), []
    except Refused as error:
        if error.status != 403 or everywhere:
            raise
        said = f"only the namespace {api.namespace} is looked at: {error}"
        return _listed(api, f"/api/v1/namespaces/{api.namespace}/pods"), [said]


def _listed(api: Api, path: str) -> list[_Pod]:
    """The pods of a list; one that grew old on the way is read anew."""
    for _ in range(3):
        try:
            return list(_read(api, path))
        except Refused as error:
            if error.status != 410:
                raise
    return list(_read(api, path))


def _read(api: Api, path: str) -> Iterator[_Pod]:
    for page in api.pages(path):
        yield from (decoded(bytes(item), _Pod) for item in page)


def _delete(api: Api, meta: _Meta) -> bool:
    """Whether that very object was there to be deleted."""
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 0, "preconditions": {"uid": meta.uid}}
    try:
        api.ask("DELETE", f"/api/v1/namespaces/{meta.namespace}/pods/{meta.name}", body=body)
    except Refused as error:
        if error.status in (404, 409):  # it has gone, or another one has its name
            return False
        raise
    return True


def _remaining(pod: _Pod) -> Iterator[Remaining]:
    states = {item.name: next(iter(item.state), "waiting") for item in pod.status.containers}
    for item in pod.spec.containers:
        if item.name.startswith(PREFIX):
            state = states.get(item.name, "waiting")
            yield Remaining(pod.metadata.namespace, pod.metadata.name, item.name, state)
