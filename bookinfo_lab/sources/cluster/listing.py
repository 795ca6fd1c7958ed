"""API objects of a cluster as kubectl prints them with ``-o json``, joined from pages without taking objects apart.

Edge.  A Role in one namespace is the normal case: what may not be listed is left out, and said in ``missing``.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bookinfo_lab.sources.cluster.api import Api, Refused

_PATHS = {
    "pods": ("/api/v1", b'"v1"', b'"Pod"'),
    "services": ("/api/v1", b'"v1"', b'"Service"'),
    "nodes": ("/api/v1", b'"v1"', b'"Node"'),
    "endpointslices": ("/apis/discovery.k8s.io/v1", b'"discovery.k8s.io/v1"', b'"EndpointSlice"'),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """``raw`` is one JSON document of kind List; ``missing`` says what is not in it and why."""

    raw: bytes
    missing: tuple[str, ...]


def objects(api: Api, resource: str, namespaces: Sequence[str]) -> Listing:
    """All objects of a resource in the namespaces, in all of them where none is named and that is allowed."""
    missing: list[str] = []
    items: list[bytes] = []
    for path in _where(resource, namespaces):
        try:
            items += _items(api, path, resource)
        except Refused as error:
            if error.status != 403:
                raise
            missing.append(str(error))
            if resource != "nodes" and not namespaces:
                items += _items(api, f"{_PATHS[resource][0]}/namespaces/{api.namespace}/{resource}", resource)
    head = b'{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":['
    return Listing(head + b",\n".join(items) + b"]}\n", tuple(missing))


def _where(resource: str, namespaces: Sequence[str]) -> list[str]:
    root = _PATHS[resource][0]
    if resource == "nodes" or not namespaces:
        return [f"{root}/{resource}"]
    return [f"{root}/namespaces/{name}/{resource}" for name in namespaces]


def _items(api: Api, path: str, resource: str) -> list[bytes]:
    """Objects with the kind and version that a list leaves out; a list that grew old on the way is read anew."""
    for _ in range(3):
        try:
            return list(_read(api, path, resource))
        except Refused as error:
            if error.status != 410:
                raise
    return list(_read(api, path, resource))


def _read(api: Api, path: str, resource: str) -> Iterator[bytes]:
    _, version, kind = _PATHS[resource]
    head = b'{"apiVersion":' + version + b',"kind":' + kind + b","
    for page in api.pages(path):
        for item in page:
            raw = bytes(item).lstrip()
            yield raw if b'"kind":' in raw[:60] and raw.startswith(b'{"kind"') else head + raw[1:].lstrip()
