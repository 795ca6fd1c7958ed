"""A proxy's configuration from Kubernetes and Istio API objects, as istiod would have written it.

Pure.  In: API objects (plain dicts) and one pod of them.  Out: the files of a configuration folder, by path: the
bootstrap, and the four kinds of xDS resource, which the pod's agent reads and hands to Envoy.  Names and shapes follow
istiod (istio pilot/pkg/networking/core); `DIFFERENCES` lists what is not as there.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.sandbox import topology
from bookinfo_lab.sandbox.xds import bootstrap, clusters, ingress_2017, listeners, routes
from bookinfo_lab.sandbox.xds.settings import Settings, eds_path, rds_path, resource_path
from bookinfo_lab.sandbox.xds.view import view

__all__ = ["DIFFERENCES", "Settings", "command", "files", "resource_path", "resources"]

DIFFERENCES: Mapping[str, str] = {
    "configuration comes over REST, not over gRPC (ADS)": "no istiod runs; the agent answers from files",
    "no TLS": "the PeerAuthentication object says DISABLE; istiod then leaves out every TLS match, as here",
    "every request is sampled, spans go to a cluster without endpoints": "a lab shows every request; nothing collects",
    "traces carry B3 and W3C headers": "Istio's default sends B3 alone",
    "no stats tags, no compressors on 15090, no custom tags on spans": "nothing in the lab reads them",
}


def resources(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], settings: Settings) -> dict[str, list[Any]]:
    """The pod's xDS resources by kind: ``lds``, ``cds``, ``rds``, ``eds``, each with its @type.

    Raises Unsupported for a pod that runs no proxy.
    """
    mesh = view(objects, pod, settings.domain)
    role = _role(pod)
    if role == "ingress":
        return ingress_2017.resources(mesh, settings)
    made = {"cds": clusters.every(mesh, settings, sidecar=role == "sidecar"), "eds": clusters.assignments(mesh)}
    if role == "sidecar":
        return made | {"lds": listeners.sidecar(mesh, settings), "rds": routes.sidecar(mesh)}
    return made | {"lds": listeners.gateway(mesh, settings), "rds": routes.gateway(mesh)}


def files(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """The text of every file of the pod's configuration folder, the bootstrap last: Envoy reads that one first."""
    made = resources(objects, pod, settings)
    found = {f"{settings.folder}/{kind}.json": _response(made[kind]) for kind in ("cds", "lds")}
    found |= {rds_path(settings, item["name"]): _response([item]) for item in made["rds"]}
    found |= {eds_path(settings, item["cluster_name"]): _response([item]) for item in made["eds"]}
    document = bootstrap.document(pod, settings, agent=_role(pod) != "ingress")
    return found | {f"{settings.folder}/{bootstrap.FILE}": json.dumps(document, indent=2)}


def command(settings: Settings) -> tuple[str, ...]:
    """Envoy's command line, as pilot-agent gives it where Envoy 1.40 still has the flag.

    ``--concurrency 1`` and the access log's immediate flush are the lab's: little memory, and no waiting for logs.
    """
    return (
        *("/usr/local/bin/envoy", "-c", f"{settings.folder}/{bootstrap.FILE}", "--drain-time-s", "45"),
        *("--drain-strategy", "immediate", "--local-address-ip-version", "v4", "--file-flush-interval-msec", "1000"),
        *("--file-flush-min-size-kb", "0", "--disable-hot-restart", "--allow-unknown-static-fields"),
        *("-l", "warning", "--component-log-level", "misc:error", "--concurrency", "1"),
    )


def _role(pod: Mapping[str, Any]) -> str:
    for item in topology.containers(pod):
        if topology.is_proxy(item):
            return str(item["command"][2])
    raise Unsupported(f"the pod {pod['metadata']['name']} runs no proxy")


def _response(items: list[Any]) -> str:
    text = json.dumps(items, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({"version_info": version, "resources": items}, indent=1)
