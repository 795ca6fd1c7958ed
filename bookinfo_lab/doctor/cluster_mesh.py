"""Which mesh a namespace is in: sidecars, ambient, or none.

Pure: objects as they come in JSON go in, a `Mesh` comes out.  Follows Istio's labels istio-injection, istio.io/rev and
istio.io/dataplane-mode, the annotation that its CNI agent leaves on a pod in ambient, and the proxy's container name.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.sources.cluster.api import Api

Object = Mapping[str, Any]
SELECTOR = "app in (istiod,ztunnel)"
_PROXIES = {"istio-proxy": "Istio", "linkerd-proxy": "Linkerd", "kuma-sidecar": "Kuma"}
_REDIRECTED = "ambient.istio.io/redirection"
_NAMESPACE_LABELS = ("istio-injection", "istio.io/rev", "istio.io/dataplane-mode")


@dataclass(frozen=True, slots=True)
class Mesh:
    """``mode`` is sidecar, ambient, sidecar and ambient, or none; ``found`` says what shows it.

    ``control`` is istiod with its version and place, "" where none was seen; ``revision`` is its label istio.io/rev.
    """

    mode: str
    found: tuple[str, ...]
    control: str = ""
    revision: str = ""


def mesh(pods: Iterable[Object], namespace: Object | None, agents: Iterable[Object]) -> Mesh:
    """The mesh of a namespace.  ``agents`` are the pods of istiod and ztunnel, wherever they are."""
    pods, agents = list(pods), list(agents)
    found, modes = [], []
    for name, whose in _PROXIES.items():
        count = sum(name in _containers(pod) for pod in pods)
        if count:
            version = _version(next(pod for pod in pods if name in _containers(pod)), name)
            found.append(f"{count} of {len(pods)} pods have {whose}'s {name}{version}")
            modes.append("sidecar")
    redirected = sum(_annotations(pod).get(_REDIRECTED) == "enabled" for pod in pods)
    if redirected:
        found.append(f"{redirected} of {len(pods)} pods are redirected to ztunnel")
        modes.append("ambient")
    control = revision = ""
    for app in ("istiod", "ztunnel"):
        seen = [pod for pod in agents if _labels(pod).get("app") == app]
        if seen:
            named = f"{app}{_version(seen[0], '')} in {seen[0]['metadata'].get('namespace', '')}"
            found.append(named)
            if app == "istiod":
                control, revision = named, _labels(seen[0]).get("istio.io/rev", "")
    labels = {key: value for key, value in _labels(namespace or {}).items() if key in _NAMESPACE_LABELS}
    found += [f"the namespace has {key}={value}" for key, value in labels.items()]
    if not modes and control:
        modes = _of_labels(labels)
    return Mesh(" and ".join(dict.fromkeys(modes)) or "none", tuple(found), control, revision)


def _of_labels(labels: Mapping[str, str]) -> list[str]:
    if labels.get("istio.io/dataplane-mode") == "ambient":
        return ["ambient"]
    is_injected = labels.get("istio-injection") == "enabled" or (
        "istio.io/rev" in labels and "istio-injection" not in labels
    )
    return ["sidecar"] if is_injected else []


def joins(found: Mesh, api: Api) -> str:
    """What is typed so that the namespace's pods get a sidecar when they are made anew; installs no mesh.

    A revision's label counts only where istio-injection is not there.
    """
    if not found.control:
        return "istioctl install  (Istio's own; then ask again)"
    is_default = found.revision in ("", "default")
    labels = ["istio-injection=enabled"] if is_default else [f"istio.io/rev={found.revision}", "istio-injection-"]
    line = api.kubectl("label", "namespace", api.namespace, *labels, "--overwrite")
    return f"{line} && {api.kubectl('rollout', 'restart', 'deployment', '-n', api.namespace)}"


def _containers(pod: Object) -> dict[str, Object]:
    """By name; a native sidecar is an init container."""
    spec = pod.get("spec") or {}
    return {item.get("name", ""): item for key in ("initContainers", "containers") for item in spec.get(key) or ()}


def _version(pod: Object, container: str) -> str:
    """The tag of an image, with a blank before it; of the first container where none is named."""
    every = _containers(pod)
    chosen = every.get(container) or next(iter(every.values()), {})
    tag = str(chosen.get("image", "")).partition("@")[0].rpartition("/")[2].partition(":")[2]
    return f" {tag}" if tag else ""


def _labels(item: Object) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("labels") or {}


def _annotations(item: Object) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("annotations") or {}
