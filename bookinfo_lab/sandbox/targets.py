"""The places of a running sandbox: what `run` and `open_socket` take.

Pure.  Names are matched by `kube.places`, against the objects as they are now; a place that the objects still name
but that never ran here, or has gone from them, is an error too.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube import places
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sandbox.topology import Object


@dataclass(frozen=True, slots=True)
class Target:
    """A place in a sandbox: a pod's container, a node or the client."""

    kind: str
    namespace: str
    name: str
    container: str
    log: str

    @property
    def place(self) -> Place:
        """Its name in every source."""
        return Place(self.kind, self.namespace, self.name, self.container)

    def key(self) -> dict[str, Any]:
        """The fields by which the sandbox's init knows it."""
        return {"kind": self.kind, "namespace": self.namespace, "name": self.name, "container": self.container}

    def __str__(self) -> str:
        return str(self.place)


def at(place: Place, targets: Sequence[Target]) -> Target:
    """The target at a place; `LabError` where none runs there."""
    for item in targets:
        if item.place == place:
            return item
    raise LabError(f"nothing runs at {place} {place.container}".rstrip())


def find(name: str, container: str, targets: Sequence[Target], objects: Iterable[Object]) -> Target:
    """The target that ``name`` means; in a pod its application's container unless ``container`` names another."""
    return at(places.find(name, objects, container), targets)
