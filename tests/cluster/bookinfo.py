"""A Bookinfo on a test bed: the package's own services in images that have the names of Istio's sample, and manifests.

with installed(bed) as namespace: …

`objects(namespace)` are the API objects to apply, `spec()` describes the images for a bed that has no registry.
"""

import json
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bed import PREFIX, Bed

from bookinfo_lab.sandbox import bookinfo

VERSION = "1.20.3"
SERVICES = {"details": ("v1",), "ratings": ("v1",), "reviews": ("v1", "v2", "v3"), "productpage": ("v1",)}
_ENV = {
    "reviews-v1": {"ENABLE_RATINGS": "false"},
    "reviews-v2": {"ENABLE_RATINGS": "true", "STAR_COLOR": "black"},
    "reviews-v3": {"ENABLE_RATINGS": "true", "STAR_COLOR": "red"},
}
PORT = 9080


def image(service: str, version: str) -> str:
    return f"docker.io/istio/examples-bookinfo-{service}-{version}:{VERSION}"


def spec() -> list[dict[str, Any]]:
    """What the test bed's `images` makes them of."""
    folder = str(Path(bookinfo.__path__[0]).resolve())
    return [
        {
            "names": [image(service, version)],
            "add": {"/opt/bookinfo": folder},
            "env": {"SERVICE_VERSION": version, **_ENV.get(f"{service}-{version}", {})},
            "entrypoint": ["python3", f"/opt/bookinfo/{service}.py", str(PORT)],
        }
        for service, versions in SERVICES.items()
        for version in versions
    ]


@contextmanager
def installed(bed: Bed, *, node_port: int = 30080) -> Iterator[str]:
    """Make the namespace and wait until every Deployment is there; delete it at the end."""
    if bed.images:
        _load(bed)
    name = f"{PREFIX}bookinfo-{secrets.token_hex(3)}"
    bed.kubectl("apply", "-f", "-", given=json.dumps(objects(name, node_port=node_port)))
    try:
        bed.kubectl("wait", "-n", name, "--for=condition=Available", "deployments", "--all", "--timeout=85s")
        yield name
    finally:
        bed.kubectl("delete", "namespace", name, "--wait=false")


def _load(bed: Bed) -> None:
    """Bring the images to a bed that has no registry."""
    assert bed.images is not None
    described, made = bed.folder / "images.json", bed.folder / "images.tar"
    described.write_text(json.dumps(spec()))
    for line in ([bed.images / "images", described, made], [bed.images / "load", made]):
        subprocess.run([*map(str, line)], check=True, capture_output=True, timeout=120, env=bed.environment)
    made.unlink()


def objects(namespace: str, *, injected: bool = True, node_port: int = 0) -> dict[str, Any]:
    """A List of the namespace, the Services and the Deployments; productpage's Service has a node port where given."""
    labels = {"istio-injection": "enabled"} if injected else {}
    items: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
    ]
    for service, versions in SERVICES.items():
        items.append(_service(namespace, service, node_port if service == "productpage" else 0))
        items += [_deployment(namespace, service, version) for version in versions]
    return {"apiVersion": "v1", "kind": "List", "items": items}


def _service(namespace: str, name: str, node_port: int) -> dict[str, Any]:
    port: dict[str, Any] = {"name": "http", "port": PORT, "targetPort": PORT}
    spec: dict[str, Any] = {"selector": {"app": name}, "ports": [port]}
    if node_port:
        spec["type"], port["nodePort"] = "NodePort", node_port
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace, "labels": {"app": name, "service": name}},
        "spec": spec,
    }


def _deployment(namespace: str, service: str, version: str) -> dict[str, Any]:
    labels = {"app": service, "version": version}
    container = {
        "name": service,
        "image": image(service, version),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": f"{service}-{version}", "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": 1,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
            },
        },
    }
