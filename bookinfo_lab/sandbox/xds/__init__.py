"""A proxy's configuration from Kubernetes and Istio API objects, as istiod would have written it.

Pure.  In: API objects (plain dicts) and one pod of them.  Out: the files of a configuration folder, by path: the
bootstrap, and the four kinds of xDS resource, which the pod's agent reads and hands to Envoy.  Names and shapes follow
istiod (istio pilot/pkg/networking/core); `DIFFERENCES` lists what is not as there.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from bookinfo_lab.sandbox.xds import bootstrap, clusters, ingress_2017, listeners, routes
from bookinfo_lab.sandbox.xds.admission import admit
from bookinfo_lab.sandbox.xds.bootstrap import document_2017 as bootstrap_2017
from bookinfo_lab.sandbox.xds.settings import Settings, eds_path, rds_path, resource_path
from bookinfo_lab.sandbox.xds.view import role, view

__all__ = ["DIFFERENCES", "Settings", "admit", "bootstrap_2017", "command", "files", "resource_path", "resources"]

DIFFERENCES: Mapping[str, str] = {
    "rest": "resources come over REST from the pod's agent, which reads files, not over gRPC (ADS) from istiod, and "
    "certificates are asked for nowhere: xds-rest is there for xds-grpc and sds-grpc",
    "plain text": "no TLS in filter chains, clusters and endpoints, whether or not a PeerAuthentication says DISABLE; "
    "with DISABLE, istiod leaves it out too",
    "tracing": "every request is sampled and carries B3 and W3C header fields; the spans go to a static cluster "
    "without endpoints; Istio samples one in a hundred and names no tracer",
    "span tags": "spans, which nobody collects, have none of Istio's own tags",
    "locality": "endpoints are in one locality without a name, whatever region and zone they are in, and none is "
    "preferred for being near",
    "statistics": "fewer statistics tags but every statistic (Istio's list lets few through), and no compressors "
    "before them",
    "internal listener": "no internal listener: nothing is tunnelled",
    "node metadata": "of the node's metadata, what describes the pod",
}


def resources(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], settings: Settings) -> dict[str, list[Any]]:
    """The pod's xDS resources by kind: ``lds``, ``cds``, ``rds``, ``eds``, each with its @type.

    Raises Unsupported for a pod that runs no proxy, and what `admit` raises for an object that is not written here.
    """
    items = list(objects)
    admit(items)
    mesh, kind = view(items, pod, settings.domain), role(pod)
    is_sidecar = kind == "sidecar"
    if kind == "ingress":
        return ingress_2017.resources(mesh, settings)
    made = {
        "cds": clusters.every(mesh, settings, sidecar=is_sidecar),
        "eds": clusters.assignments(mesh, sidecar=is_sidecar),
    }
    if is_sidecar:
        return made | {"lds": listeners.sidecar(mesh, settings), "rds": routes.sidecar(mesh)}
    return made | {"lds": listeners.gateway(mesh, settings), "rds": routes.gateway(mesh)}


def files(objects: Iterable[Mapping[str, Any]], pod: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """The text of every file of the pod's configuration folder, the bootstrap last: Envoy reads that one first."""
    made = resources(objects, pod, settings)
    found = {f"{settings.folder}/{kind}.json": _response(made[kind]) for kind in ("cds", "lds")}
    found |= {rds_path(settings, item["name"]): _response([item]) for item in made["rds"]}
    found |= {eds_path(settings, item["cluster_name"]): _response([item]) for item in made["eds"]}
    return found | {f"{settings.folder}/{bootstrap.FILE}": json.dumps(bootstrap.document(pod, settings), indent=2)}


def command(settings: Settings) -> tuple[str, ...]:
    """Envoy's command line, as pilot-agent gives it where Envoy 1.40 still has the flag.

    ``--concurrency 1`` and the access log's immediate flush are the lab's: little memory, and no waiting for logs.
    """
    return (
        *("/usr/local/bin/envoy", "-c", f"{settings.folder}/{bootstrap.FILE}", "--drain-time-s", "45"),
        *("--drain-strategy", "immediate", "--local-address-ip-version", "v4", "--file-flush-interval-msec", "1000"),
        *("--file-flush-min-size-kb", "0", "--disable-hot-restart", "--allow-unknown-static-fields"),
        *("-l", "warning", "--component-log-level", "misc:error", "--skip-deprecated-logs", "--concurrency", "1"),
    )


def _response(items: list[Any]) -> str:
    text = json.dumps(items, sort_keys=True)
    version = hashlib.sha256(text.encode()).hexdigest()[:16]
    return json.dumps({"version_info": version, "resources": items}, indent=1)
