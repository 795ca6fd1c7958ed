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

Piece = bytes | memoryview


@dataclass(frozen=True, slots=True)
class Listing:
    """``raw`` is one JSON document of kind List; ``missing`` says what is not in it and why.

    ``read`` names the namespaces that were listed, "" for all at once.
    """

    raw: bytes
    missing: tuple[str, ...]
    read: tuple[str, ...]


def objects(api: Api, resource: str, namespaces: Sequence[str]) -> Listing:
    """All objects of a resource in the namespaces, in all of them where none is named and that is allowed."""
    missing: list[str] = []
    items: list[Piece] = []
    read = list(namespaces) if namespaces and resource != "nodes" else [""]
    for name in read.copy():
        try:
            items += _items(api, _path(resource, name), resource)
        except Refused as error:
            if error.status != 403:
                raise
            missing.append(str(error))
            if resource != "nodes" and not namespaces:
                read = [api.namespace]
                items += _items(api, _path(resource, api.namespace), resource)
    head = b'{"apiVersion":"v1","kind":"List","metadata":{"resourceVersion":""},"items":['
    return Listing(b"".join((head, *items[1:], b"]}\n")), tuple(missing), tuple(read))


def _path(resource: str, namespace: str) -> str:
    root = _PATHS[resource][0]
    return f"{root}/namespaces/{namespace}/{resource}" if namespace else f"{root}/{resource}"


def _items(api: Api, path: str, resource: str) -> list[Piece]:
    """The text of objects, a comma before each, with the kind and version that a list leaves out.

    A list that grew old on the way is read anew.
    """
    for _ in range(3):
        try:
            return list(_read(api, path, resource))
        except Refused as error:
            if error.status != 410:
                raise
    return list(_read(api, path, resource))


def _read(api: Api, path: str, resource: str) -> Iterator[Piece]:
    _, version, kind = _PATHS[resource]
    head = b'{"apiVersion":' + version + b',"kind":' + kind + b","
    for page in api.pages(path):
        for item in page:
            yield b",\n"
            text = memoryview(item)  # most of a cluster's bytes: copied once, when all are joined
            if bytes(text[:7]) == b'{"kind"':
                yield text
            else:
                yield head
                yield text[1:]
