"""API objects as a recording keeps them: without the values of their environment, their history and the machine's ids.

Pure.  The JSON of a list comes in and goes out.  Names of variables stay, and where a value comes from, and names of
probes' header fields; values go, as do the annotations that hold an object or an environment a second time and what a
Node tells of a machine beyond its place in the network.  The Service `kubernetes` and its endpoints, which are the API
server, are left out.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from bookinfo_lab.kube.places import OWNED
from bookinfo_lab.sources.cluster import scope

_LAST_APPLIED = "last-applied"
_APPLIED = (
    "objectset.rio.cattle.io/applied",  # compressed
    "proxy.istio.io/overrides",  # containers as they were before the injector changed them
)
_CONTAINERS = ("containers", "initContainers", "ephemeralContainers")
# proxyMetadata becomes the environment of Istio's proxies.
_ENVIRONMENT = r"proxyMetadata|\w*[eE]nv(?:s|[vV]ars?|ironment(?:[vV]ariables)?)?"
# Keys of an annotation that is no JSON: of YAML's block style at the beginning of a line, of its flow style anywhere.
_OBJECTS = "|".join(("spec", *_CONTAINERS))
_KEYS = f"{_OBJECTS}|{_ENVIRONMENT}"
_BLOCK = re.compile(
    rf"""^[ \t-]*["']?(?:(?:kind|{_OBJECTS})["']?[ \t]*:(?:\s|$)|(?:{_ENVIRONMENT})["']?[ \t]*:[ \t]*$)""", re.MULTILINE
)
_FLOW = re.compile(rf"""(?<![\w./-])["']?(?:{_KEYS})\\*["']?\s*:\s*[\[{{]""")
_IS_ENVIRONMENT = re.compile(_ENVIRONMENT).fullmatch
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_HOOKS = ("postStart", "preStop")
_NODE_LABELS = ("kubernetes.io/", "beta.kubernetes.io/", "node-role.kubernetes.io/", "node.kubernetes.io/")
_NODE_SPEC = ("podCIDR", "podCIDRs", "taints", "unschedulable")
_NODE_STATUS = ("addresses", "allocatable", "capacity", "conditions", "daemonEndpoints", "nodeInfo")
_MACHINE = ("machineID", "systemUUID", "bootID")


def sliced(raw: bytes, chosen: Callable[[dict[str, Any]], bool] = lambda _: True) -> tuple[bytes, Counter[str]]:
    """The list without all that and without what is not ``chosen``, and how many of what went."""
    document = json.loads(raw)
    gone: Counter[str] = Counter()
    every = document.get("items") or []
    document["items"] = [item for item in every if chosen(item) and _is_kept(item, gone)]
    gone["objects beside the front door"] += sum(not chosen(item) for item in every)
    for item in document["items"]:
        _metadata(item["metadata"], gone)
        if item.get("kind") == "Node":
            _node(item, gone)
        for container in _containers(item):
            for variable in container.get("env") or ():
                gone["environment values"] += variable.pop("value", None) is not None
            for header in _headers(container):
                gone["header values of probes"] += header.pop("value", None) is not None
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n", gone


def _is_kept(item: dict[str, Any], gone: Counter[str]) -> bool:
    labels = item["metadata"].get("labels") or {}
    is_api = scope.is_api_server(item)
    gone["objects of the API server"] += is_api
    gone["pods of the lab's own"] += OWNED in labels
    return not is_api and OWNED not in labels


def _metadata(meta: dict[str, Any], gone: Counter[str]) -> None:
    gone["managedFields"] += meta.pop("managedFields", None) is not None
    annotations = meta.get("annotations") or {}
    for name in [name for name, value in annotations.items() if _is_object(name, value)]:
        del annotations[name]
        gone["annotations that hold an object or an environment"] += 1


def _is_object(name: str, value: str) -> bool:
    """Whether an annotation holds an object, or a part of one with an environment, as JSON or as YAML."""
    if _LAST_APPLIED in name or name in _APPLIED:
        return True
    left: list[Any] = [value]
    while left:
        node = left.pop()
        if isinstance(node, str) and node.lstrip().startswith(("{", "[", '"')):
            try:
                left.append(json.loads(node))
                continue
            except RecursionError:
                return True  # it cannot be known what is so deep
            except ValueError:
                pass  # YAML begins so, too
        if isinstance(node, str) and _is_yaml(node):
            return True
        if isinstance(node, dict) and _tells(node):
            return True
        left += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return False


def _tells(node: dict[str, Any]) -> bool:
    """Whether a mapping has a spec, an environment, or containers that are more than a list of names."""
    containers = [node[key] for key in _CONTAINERS if node.get(key)]
    are_names = all(isinstance(found, list) and all(isinstance(item, str) for item in found) for found in containers)
    is_set = any(isinstance(value, list | dict) and _IS_ENVIRONMENT(key) for key, value in node.items())
    return "spec" in node or is_set or not are_names


def _is_yaml(text: str) -> bool:
    return _FLOW.search(text) is not None or ("\n" in text and _BLOCK.search(text) is not None)


def _node(item: dict[str, Any], gone: Counter[str]) -> None:
    meta, spec, status = item["metadata"], item.get("spec") or {}, item.get("status") or {}
    gone["annotations of nodes"] += len(meta.pop("annotations", None) or {})
    labels = meta.get("labels") or {}
    kept = {key: value for key, value in labels.items() if key.startswith(_NODE_LABELS) or ".kubernetes.io/" in key}
    gone["labels of nodes"] += len(labels) - len(kept)
    meta["labels"] = kept
    item["spec"] = {key: value for key, value in spec.items() if key in _NODE_SPEC}
    item["status"] = {key: value for key, value in status.items() if key in _NODE_STATUS}
    gone["images and ids of nodes"] += len(spec) + len(status) - len(item["spec"]) - len(item["status"])
    info = item["status"].get("nodeInfo") or {}
    for name in _MACHINE:
        if info.get(name):
            info[name] = ""  # kept as a field: the API always has it
            gone["images and ids of nodes"] += 1


def _headers(container: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The header fields that a container's probes and hooks send."""
    hooks = container.get("lifecycle") or {}
    for sender in (*(container.get(name) for name in _PROBES), *(hooks.get(name) for name in _HOOKS)):
        yield from ((sender or {}).get("httpGet") or {}).get("httpHeaders") or ()


def _containers(item: dict[str, Any]) -> Iterator[dict[str, Any]]:
    spec = item.get("spec") or {}
    for name in _CONTAINERS:
        yield from spec.get(name) or ()
