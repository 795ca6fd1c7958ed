"""Which objects a recording is of: all of some namespaces, and maybe a front door in another with the pods behind it.

Pure.  API objects come in.  Where no namespace was named it is the Bookinfo's own that is there; its gateway's, where
the mesh itself may live, is not recorded but for the gateway.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.objects import SERVICE_NAME_LABEL, Objects, Service
from bookinfo_lab.kube.parse import parse
from bookinfo_lab.sources.cluster import doors

_PAGE = "productpage"


@dataclass(frozen=True, slots=True)
class Chosen:
    """``namespaces`` in whole, the Service ``door`` (namespace, name) beside them, and the names of its ``pods``."""

    namespaces: tuple[str, ...]
    door: tuple[str, str] = ("", "")
    pods: frozenset[str] = frozenset()

    @property
    def read(self) -> tuple[str, ...]:
        """The namespaces that are read."""
        return (*self.namespaces, *([self.door[0]] if self.door[0] else []))

    def has(self, item: dict[str, Any]) -> bool:
        """Whether an API object is recorded."""
        kind, meta = item.get("kind"), item["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        if kind == "Node" or namespace in self.namespaces:
            return True
        if kind == "Pod":
            return self.has_pod(namespace, name)
        owner = (meta.get("labels") or {}).get(SERVICE_NAME_LABEL) if kind == "EndpointSlice" else name
        return kind in ("Service", "EndpointSlice") and (namespace, owner) == self.door

    def has_pod(self, namespace: str, name: str) -> bool:
        """Whether a pod is recorded."""
        return namespace in self.namespaces or (namespace == self.door[0] and name in self.pods)

    def __str__(self) -> str:
        return ", ".join([*self.namespaces, *(["/".join(self.door)] if self.door[0] else [])])


def bookinfo(given: Sequence[dict[str, Any]]) -> Chosen:
    """The one Bookinfo that is there, and its door.  LabError where there are several, or none."""
    objects = parse(given)
    mend = 'name them: connect("kubernetes", namespace=…) or BOOKINFO_LAB_NAMESPACE'
    pages = sorted({item.namespace for item in objects.services if item.name == _PAGE})
    if len(pages) != 1:
        there = f"several Bookinfos are here, in {', '.join(pages)}" if pages else "no Bookinfo is seen here"
        raise LabError(f"a recording is of chosen namespaces, and {there}; {mend}")
    door = doors.find(objects).service
    if door.namespace == pages[0]:
        return Chosen((pages[0],))
    return Chosen((pages[0],), (door.namespace, door.name), frozenset(_behind(objects, door)))


def _behind(objects: Objects, door: Service) -> list[str]:
    """The names of the pods behind a Service: those that its slices name, else those that have their addresses."""
    slices = [item for item in objects.endpoint_slices if (item.namespace, item.service) == (door.namespace, door.name)]
    every = [endpoint for item in slices for endpoint in item.endpoints]
    addresses = {address for endpoint in every if not endpoint.target for address in endpoint.addresses}
    named = {endpoint.target for endpoint in every}
    pods = [pod for pod in objects.pods if pod.namespace == door.namespace]
    return [pod.name for pod in pods if pod.name in named or (not pod.host_network and str(pod.pod_ip) in addresses)]
