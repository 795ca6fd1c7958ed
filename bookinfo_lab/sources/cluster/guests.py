"""What the lab makes in a reader's cluster, with leave only: a pod on a node, an ephemeral container in a pod.

Edge.  Pods carry the label OWNED with the owner's id.  They are deleted when the lab lets go or its process ends; one
whose lab was killed ends by itself once nothing has run in it for IDLE_S.  An ephemeral container cannot be removed:
that is said before, one of ours that runs is used again, and those that remain are named once at the end.  Programs run
in them by exec, never by attach, which loses what is printed before it is there.
"""

import contextlib
import os
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from bookinfo_lab.errors import LabError, NotShown
from bookinfo_lab.sources.base import DEBUG_IMAGE
from bookinfo_lab.sources.cluster import farewell, guest_objects, streams
from bookinfo_lab.sources.cluster.api import Api, Refused
from bookinfo_lab.sources.cluster.guest_objects import IMAGE_VARIABLE, PREFIX, guests_in, image_of, state_in, state_of

LEAVES = ("ephemeral", "node-pod", "trace")
VARIABLE = "BOOKINFO_LAB_ALLOW"
_RENEW_S = 60.0
_PATIENCE_S = 60.0
_MOST_IN_A_POD = 3
_STEP_S = 0.2
_MIRROR = "kubernetes.io/config.mirror"
_PATCH = "application/strategic-merge-patch+json"


class NotAllowed(NotShown):
    """Something would have to be made in the cluster, and no leave was given."""


class Unfit(LabError):
    """A pod that no container can be put into: it does not run, or is its node's own."""


def leaves(given: Collection[str] = ()) -> frozenset[str]:
    """What may be made: the words of ``given`` and of BOOKINFO_LAB_ALLOW.  LabError for a word that is none."""
    words = [*given, *filter(None, map(str.strip, os.environ.get(VARIABLE, "").split(",")))]
    for word in words:
        if word not in LEAVES:
            raise LabError(f"{word!r} is nothing that can be allowed; there are: {', '.join(LEAVES)}")
    return frozenset(words)


def say(line: str) -> None:
    """A line on stderr, in a notebook too; at the very end of a process there may be none."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        sys.stderr.write(f"bookinfo-lab: {line}\n")
        sys.stderr.flush()


@dataclass(slots=True)
class _Pod:
    """A pod of ours: ``renewed`` is when it was last told to stay, by `time.monotonic`; 0 while it starts."""

    namespace: str
    name: str
    renewed: float = 0.0


@dataclass(slots=True, eq=False)
class Guests:
    """What one lab made; ``owner`` is its id, ``say`` is given each line that the reader must see."""

    api: Api
    allowed: frozenset[str]
    image: str = field(default_factory=lambda: os.environ.get(IMAGE_VARIABLE) or DEBUG_IMAGE)
    owner: str = field(default_factory=lambda: secrets.token_hex(4))
    say: Callable[[str], None] = say
    _pods: dict[tuple[str, str], _Pod] = field(default_factory=dict)
    _made: int = 0
    _stay: list[str] = field(default_factory=list)

    def on_node(self, node: str, purpose: str) -> tuple[str, str, str]:
        """(namespace, pod, container) of a pod of ours in a node's network namespace; made where there is none."""
        return self._on_node(node, purpose, "node", ())

    def beside_pods(self, node: str, purpose: str) -> tuple[str, str, str]:
        """The same for a pod that may also enter the network namespaces of the node's pods, by their processes."""
        return self._on_node(node, purpose, "pods", ("SYS_ADMIN", "SYS_PTRACE"))

    def in_pod(self, pod: Mapping[str, Any], target: str, purpose: str) -> str:
        """The name of an ephemeral container of ours in a pod, in the process namespace of container ``target``.

        Raises `NotAllowed` without leave, `Unfit` for a pod that can have none, `Refused` where the cluster says no.
        """
        meta = pod["metadata"]
        found = [item for item in guests_in(pod, target) if "running" in state_in(pod, item["name"])]
        own = [item for item in found if image_of(item) == self.image]
        if own or (found and "ephemeral" not in self.allowed):
            return str((own or found)[0]["name"])
        named = f"{meta['namespace']}/{meta['name']}"
        _check_fit(pod, named)
        self.need("ephemeral", f"{purpose} of {named} needs a container in it", "one")
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        name, is_there = self._free_name(pod, target, named)
        if not is_there:
            self._put(pod, target, name, path)
        self._wait(path, lambda given: state_in(given, name), f"the container {name}")
        return name

    def _put(self, pod: Mapping[str, Any], target: str, name: str, path: str) -> None:
        meta, named = pod["metadata"], f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
        patch = {"spec": {"ephemeralContainers": [guest_objects.ephemeral(name, target, self.image)]}}
        self.api.check("PATCH", f"{path}/ephemeralcontainers")
        streams.check(self.api, meta["namespace"], meta["name"])  # what may not be used is not put there
        self.say(f"the container {name} is put into {named}; it cannot be removed, and stays there idle")
        self._stay.append(f"{named} ({name})")  # before it is there: however this ends, it is named
        farewell.call_at_end(self.close)
        try:
            with _admitted(meta["namespace"]):
                self.api.ask("PATCH", f"{path}/ephemeralcontainers", body=patch, content=_PATCH)
        except Refused as refusal:
            if refusal.status < 500:
                self._stay.remove(f"{named} ({name})")
            raise

    def close(self) -> None:
        """Delete the pods, one that has gone already is no error, and name the containers that stay."""
        faults = []
        for key, pod in list(self._pods.items()):
            try:
                self._delete(pod)
                del self._pods[key]
            except LabError as error:
                faults.append(f"the pod {pod.namespace}/{pod.name} is not deleted: {error}")
        staying, self._stay = self._stay, []
        if staying:
            self.say(f"these containers stay, idle, until their pods are deleted: {', '.join(staying)}")
        if faults:
            cluster = f"kubernetes:{self.api.context}" if self.api.context else "kubernetes"
            words = ["--traces", "--owner", self.owner, "--source", cluster, "-n", self.api.namespace]
            raise LabError(
                f"{'; '.join(faults)}; this deletes what is left: {shlex.join(['bookinfo-lab', 'uninstall', *words])}"
            )
        farewell.forget(self.close)

    def need(self, leave: str, why: str, what: str, beside: str = "") -> None:
        """Refuse what no leave was given for, with `NotAllowed`, which names ``beside`` too: it will be needed next."""
        if leave not in self.allowed:
            words = [word for word in LEAVES if word in self.allowed | {leave, beside}]
            raise NotAllowed(
                f"{why}: nothing is made in a cluster without leave; connect(…, allow={words}) or "
                f"{VARIABLE}={','.join(words)} allows {what}"
            )

    def _on_node(self, node: str, purpose: str, container: str, more: Collection[str]) -> tuple[str, str, str]:
        key = (node, container)
        pod = self._pods.get(key)
        if pod is None or not self._lives(pod, container):
            self._find_node(node)
            self.need("node-pod", f"{purpose} of node/{node} needs a pod there", f"a pod on {node}")
            pods = f"/api/v1/namespaces/{self.api.namespace}/pods"
            self.api.check("POST", pods)
            self.api.check("DELETE", f"{pods}/{PREFIX}node")  # what may not be deleted, or used, is not made
            streams.check(self.api, self.api.namespace, f"{PREFIX}node")
            pod = _Pod(self.api.namespace, f"{PREFIX}node-{self.owner}-{self._made}")
            self._made += 1
            self._pods[key] = pod  # before it is there: however this ends, it is deleted
            farewell.call_at_end(self.close)
            try:
                self._make_pod(pod, node, container, more)
            except BaseException:
                with contextlib.suppress(LabError):  # the first fault is the one to be told
                    self._delete(pod)  # also when the wait for it is interrupted
                    del self._pods[key]
                raise
            pod.renewed = time.monotonic()
        return (pod.namespace, pod.name, container)

    def _lives(self, pod: _Pod, container: str) -> bool:
        """Whether the pod can be used; one that was not for a while is told to stay, and deleted where it has ended."""
        if time.monotonic() - pod.renewed < _RENEW_S:
            return True
        with contextlib.suppress(LabError):
            if streams.run(self.api, pod.namespace, pod.name, container, ["sh", "-c", guest_objects.FULL]).status == 0:
                pod.renewed = time.monotonic()
                return True
        self._delete(pod)
        return False

    def _delete(self, pod: _Pod) -> None:
        path = f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"
        try:
            self.api.ask("DELETE", path, query={"gracePeriodSeconds": "0"})
        except Refused as error:
            if error.status != 404:
                raise

    def _find_node(self, name: str) -> None:
        """Refuse a node that is not there; whoever may not look is believed."""
        try:
            self.api.check("GET", f"/api/v1/nodes/{name}")
            self.api.get(f"/api/v1/nodes/{name}")
        except Refused as error:
            if error.status != 403:
                raise

    def _free_name(self, pod: Mapping[str, Any], target: str, named: str) -> tuple[str, bool]:
        """A name for one of ours, and whether it is there already and starts.

        Not one that has ended, which cannot be started again, or is of another image, or beside another container.
        """
        given = {item["name"]: item for item in (pod.get("spec") or {}).get("ephemeralContainers") or ()}
        stem = f"{PREFIX}{target[:36]}-{self.owner}"
        for name in (stem, *(f"{stem}-{number}" for number in range(2, _MOST_IN_A_POD + 1))):
            if name not in given:
                return name, False
            is_fit = image_of(given[name]) == self.image and given[name].get("targetContainerName") == target
            if is_fit and "terminated" not in state_in(pod, name):
                return name, True
        raise LabError(f"{_MOST_IN_A_POD} containers of this lab's are of no use in {named}: no other is put into it")

    def _make_pod(self, pod: _Pod, node: str, container: str, more: Collection[str]) -> None:
        body = guest_objects.node_pod(pod.name, self.owner, node, container, self.image, more)
        path = f"/api/v1/namespaces/{pod.namespace}/pods"
        with _admitted(pod.namespace):
            self.api.ask("POST", path, body=body)
        self._wait(
            f"{path}/{pod.name}", lambda given: state_of(given, "containerStatuses", container), f"the pod {pod.name}"
        )

    @property
    def _chosen(self) -> str:
        return f"image {self.image}; {IMAGE_VARIABLE} can name another with the same programs that its node can pull"

    def _wait(self, path: str, state: Callable[[Mapping[str, Any]], Mapping[str, Any]], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            pod = self.api.read(path)
            found, status = state(pod), pod.get("status") or {}
            if "running" in found:
                return
            if status.get("phase") == "Failed":
                said = " ".join(f"{status.get('reason', '')} {status.get('message', '')}".split())
                raise LabError(f"{what} does not start: {said[:200] or 'it has failed'}")
            reason = (found.get("waiting") or found.get("terminated") or {}).get("reason", "")
            if "terminated" in found or reason.startswith(("Err", "Image", "Invalid", "Create")):
                said = (found.get("waiting") or found.get("terminated") or {}).get("message", "")
                raise LabError(f"{what} does not start ({reason} {' '.join(str(said).split())[:160]}): {self._chosen}")
            if time.monotonic() > deadline:
                raise LabError(
                    f"{what} has not started after {_PATIENCE_S:.0f} s ({reason or 'waiting'}): {self._chosen}"
                )
            time.sleep(_STEP_S)


@contextlib.contextmanager
def _admitted(namespace: str) -> Any:
    """Say what to do instead where Pod Security is what refuses."""
    try:
        yield
    except Refused as error:
        if "PodSecurity" not in str(error):
            raise
        advice = (
            f"Pod Security of the namespace {namespace} refuses it; objects, logs, Envoy and what a container's own "
            f"image can run work without, and a namespace whose level is privileged takes the lab's pods"
        )
        raise Refused(f"{error}; {advice}", error.status, error.verb, error.resource) from None


def _check_fit(pod: Mapping[str, Any], named: str) -> None:
    meta, status = pod["metadata"], pod.get("status") or {}
    if _MIRROR in (meta.get("annotations") or {}):
        raise Unfit(f"{named} is a mirror pod, which its node runs from a file: no container can be put into it")
    phase = "being deleted" if meta.get("deletionTimestamp") else status.get("phase", "Running")
    if phase != "Running":
        raise Unfit(f"{named} does not run (it is {phase}): no container can be put into it")
