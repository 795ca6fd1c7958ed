"""What the lab makes in a reader's cluster, with leave only: a pod on a node, an ephemeral container in a pod.

Edge.  Everything carries the label OWNED and the owner's id; pods end by themselves after an hour and are deleted when
the lab lets go.  An ephemeral container cannot be removed from a running pod: one of ours that is there is used again.
Programs run in them by exec, never by attach, which loses what is printed before it is there.
"""

import json
import os
import secrets
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.base import DEBUG_IMAGE
from bookinfo_lab.sources.cluster.api import Api, Refused

OWNED = "bookinfo-lab.dev/owner"
PREFIX = "bookinfo-lab-"
LEAVES = ("ephemeral", "node-pod", "trace", "install")
VARIABLE = "BOOKINFO_LAB_ALLOW"
IMAGE_VARIABLE = "BOOKINFO_LAB_IMAGE"
LIFETIME_S = 3600
_PATIENCE_S = 60.0
_STEP_S = 0.2
_NETWORK = {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}, "runAsUser": 0, "runAsNonRoot": False}
_PATCH = "application/strategic-merge-patch+json"


class NotAllowed(LabError):
    """Something would have to be made in the cluster, and no leave was given."""


def leaves(given: Collection[str] = ()) -> frozenset[str]:
    """What may be made: the words of ``given`` and of BOOKINFO_LAB_ALLOW.  LabError for a word that is none."""
    words = [*given, *filter(None, os.environ.get(VARIABLE, "").split(","))]
    for word in words:
        if word not in LEAVES:
            raise LabError(f"{word!r} is nothing that can be allowed; there are: {', '.join(LEAVES)}")
    return frozenset(words)


@dataclass(slots=True)
class Guests:
    """What one lab made; ``owner`` is its id."""

    api: Api
    allowed: frozenset[str]
    image: str = field(default_factory=lambda: os.environ.get(IMAGE_VARIABLE) or DEBUG_IMAGE)
    owner: str = field(default_factory=lambda: secrets.token_hex(4))
    _pods: dict[str, tuple[str, str]] = field(default_factory=dict)

    def on_node(self, node: str, purpose: str) -> tuple[str, str, str]:
        """(namespace, pod, container) of a pod of ours in a node's network namespace; made where there is none."""
        if node not in self._pods:
            self._find_node(node)
            self._need("node-pod", f"{purpose} of node/{node} needs a pod there", f"a pod on {node}")
            name = f"{PREFIX}node-{self.owner}-{len(self._pods)}"
            try:
                self._make_pod(name, node)
            except BaseException:
                self._delete(self.api.namespace, name)  # also when the wait for it is interrupted
                raise
            self._pods[node] = (self.api.namespace, name)
        return (*self._pods[node], "node")

    def in_pod(self, pod: Mapping[str, Any], target: str, purpose: str) -> str:
        """The name of an ephemeral container of ours in a pod, in the process namespace of container ``target``."""
        meta = pod["metadata"]
        found = _running_guest(pod, target)
        if found:
            return found
        self._need("ephemeral", f"{purpose} of {meta['namespace']}/{meta['name']} needs a container in it", "one")
        name = f"{PREFIX}{target}-{self.owner}"[:63]
        made = {
            "name": name,
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
            "targetContainerName": target,
            "securityContext": _NETWORK,
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        patch = {"spec": {"ephemeralContainers": [made]}}
        self.api.ask("PATCH", f"{path}/ephemeralcontainers", body=patch, content=_PATCH)
        self._wait(path, lambda given: _state(given, "ephemeralContainerStatuses", name), f"the container {name}")
        return name

    def close(self) -> None:
        """Delete the pods; one that has gone already is no error."""
        for node, (namespace, name) in list(self._pods.items()):
            self._delete(namespace, name)
            del self._pods[node]

    def _delete(self, namespace: str, name: str) -> None:
        try:
            self.api.ask("DELETE", f"/api/v1/namespaces/{namespace}/pods/{name}", query={"gracePeriodSeconds": "0"})
        except Refused as error:
            if error.status != 404:
                raise

    def _need(self, leave: str, why: str, what: str) -> None:
        if leave not in self.allowed:
            raise NotAllowed(
                f"{why}: nothing is made in a cluster without leave; connect(…, allow=[{leave!r}]) or "
                f"{VARIABLE}={leave} allows {what}"
            )

    def _find_node(self, name: str) -> None:
        """Refuse a node that is not there; whoever may not look is believed."""
        try:
            self.api.get(f"/api/v1/nodes/{name}")
        except Refused as error:
            if error.status != 403:
                raise

    def _make_pod(self, name: str, node: str) -> None:
        container = {
            "name": "node",
            "image": self.image,
            "imagePullPolicy": "IfNotPresent",
            "command": ["sleep", "infinity"],
            "securityContext": _NETWORK,
        }
        spec = {
            "nodeName": node,
            "hostNetwork": True,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": LIFETIME_S,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": [{"operator": "Exists"}],
            "containers": [container],
        }
        labels = {OWNED: self.owner, "sidecar.istio.io/inject": "false"}
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
        path = f"/api/v1/namespaces/{self.api.namespace}/pods"
        self.api.ask("POST", path, body=pod)
        self._wait(f"{path}/{name}", lambda given: _state(given, "containerStatuses", "node"), f"the pod {name}")

    def _wait(self, path: str, state: Any, what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            found = state(json.loads(self.api.get(path)))
            if "running" in found:
                return
            reason = (found.get("waiting") or found.get("terminated") or {}).get("reason", "")
            if "terminated" in found or reason.startswith(("Err", "Image", "Invalid", "Create")):
                said = (found.get("waiting") or found.get("terminated") or {}).get("message", "")
                raise LabError(
                    f"{what} does not start ({reason} {' '.join(str(said).split())[:160]}): image {self.image}"
                )
            if time.monotonic() > deadline:
                raise LabError(
                    f"{what} has not started after {_PATIENCE_S:.0f} s ({reason or 'waiting'}): image {self.image}"
                )
            time.sleep(_STEP_S)


def _state(pod: Mapping[str, Any], statuses: str, name: str) -> Mapping[str, Any]:
    every = (pod.get("status") or {}).get(statuses) or ()
    return next((item.get("state") or {} for item in every if item.get("name") == name), {})


def _running_guest(pod: Mapping[str, Any], target: str) -> str:
    """An ephemeral container of the lab's, of any owner, that runs beside ``target``."""
    given = (pod.get("spec") or {}).get("ephemeralContainers") or ()
    named = [
        item["name"] for item in given if item["name"].startswith(PREFIX) and item.get("targetContainerName") == target
    ]
    return next((name for name in named if "running" in _state(pod, "ephemeralContainerStatuses", name)), "")
