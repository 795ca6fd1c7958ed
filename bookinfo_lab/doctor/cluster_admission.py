"""What the cluster's admission would say to what the lab makes, found out by dry run: nothing is made.

Edge, over `Api`.  `Guests` itself acts, on a `Rehearsal` in place of an API server, so that what is tried is what would
be made.  The rehearsal asks with dryRun=All, which runs Pod Security, quotas, webhooks and policies and keeps nothing.
What an admission plug-in says is quoted.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from bookinfo_lab.doctor.cluster_rights import Feature, Right, Rights, feature, lacks, refusal
from bookinfo_lab.doctor.findings import Check
from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import OWNED
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.guest_objects import PREFIX
from bookinfo_lab.sources.cluster.guests import LEAVES, Guests

_WITH_PROCESSES = "node pod with hostPID"
_POD_SECURITY = "violates PodSecurity"
_NO_DRY_RUN = "does not support dry run"
_JSON = "application/json"
_LONGEST = 400
_TIMEOUT_S = 30.0
_PODS_READ = "100"  # enough to find one that runs


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said to a dry run: its status, the object or Status, and its warnings."""

    status: int
    body: Mapping[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """What a refusal says, on one line."""
        return " ".join(str(self.body.get("message", "")).split())[:_LONGEST]


class _Ended(Exception):
    """The rehearsal has its answer."""


class Rehearsal:
    """An API server for `Guests` whose first change is tried and not made; what comes after it is not asked."""

    def __init__(self, api: Api) -> None:
        self.api, self.namespace, self.named, self.server = api, api.namespace, api.named, api.server
        self.answer: Answer | None = None

    def get(self, *_: object, **__: object) -> bytes:
        """Nothing: what is tried does not depend on what is there."""
        return b"{}"

    def check(self, method: str, path: str) -> None:
        """Nothing: the rights were looked at before."""

    def ask(self, method: str, path: str, *, body: Any = None, content: str = _JSON, **_: object) -> bytes:
        """Try the first; Guests' tidying up after it finds that nothing was made."""
        if self.answer is not None:
            return b"{}"
        self.answer = dry_run(self.api, method, path, body, content)
        raise _Ended


def dry_run(api: Api, method: str, path: str, body: Any, content: str = _JSON) -> Answer:
    """Ask for a change with dryRun=All.  LabError where nobody answers; a refusal is an answer.

    Not `Api.ask`: that has one sentence for every 403, and a policy's own words are what is wanted here.
    """
    import urllib3

    headers = {"Accept": _JSON, "Content-Type": content, **api.credentials()}
    url = f"{api.client.configuration.host}{path}?dryRun=All"
    pool = api.client.rest_client.pool_manager
    try:
        sent = json.dumps(body).encode()
        answer = pool.request(method, url, headers=headers, body=sent, timeout=_TIMEOUT_S, retries=False)
    except urllib3.exceptions.HTTPError as error:
        raise LabError(f"the API server of {api.named} does not answer: {' '.join(str(error).split())[:200]}") from None
    try:
        found = json.loads(answer.data)
    except ValueError:
        found = {"message": answer.data[:_LONGEST].decode("utf-8", "replace")}
    warnings = tuple(warning(value) for value in answer.headers.getlist("Warning"))
    return Answer(answer.status, found if isinstance(found, dict) else {}, warnings)


def warning(field: str) -> str:
    """The text of a Warning field, which stands quoted behind a code and an agent: ``299 - "text"``."""
    return re.sub(r"\\(.)", r"\1", field.partition('"')[2].rpartition('"')[0])


def checks(rights: Rights) -> Iterator[Check]:
    """Whether an ephemeral container, a node pod of each kind and a pod of the namespace's own would be admitted."""
    api = rights.api
    running = _running(api) if rights.may(Right("list", "pods"), api.namespace) else []
    yield _tried(rights, "ephemeral container", feature("ephemeral containers"), lambda: _ephemeral(api, running))
    yield _tried(rights, "node pod", feature("node pods"), lambda: _node_pod(api, running))
    yield _tried(rights, _WITH_PROCESSES, feature("node pods"), lambda: _pod_with_processes(api, running))
    yield _tried(rights, "injection", feature("node pods"), lambda: _injection(api))


def _tried(rights: Rights, name: str, need: Feature, attempt: Callable[[], Check]) -> Check:
    try:
        missing = lacks(rights, need)
        if missing:
            why = refusal(missing, f"in {rights.api.namespace}", need.role)
            return Check(name, False, f"not tried, since {why}", needed=False, tried=False)
        return attempt()
    except LabError as error:
        return Check(name, False, f"not known: {error}", "", "what is tried first when it is needed", needed=False)


def _running(api: Api) -> list[dict[str, Any]]:
    query = {"fieldSelector": "status.phase=Running", "limit": _PODS_READ}
    return api.read(f"/api/v1/namespaces/{api.namespace}/pods", **query).get("items") or []


def _ephemeral(api: Api, running: list[dict[str, Any]]) -> Check:
    name = "ephemeral container"
    if not running:
        return Check(name, False, f"not tried, since no pod runs in {api.namespace}", needed=False, tried=False)
    pod = running[0]
    rehearsal = Rehearsal(api)
    container = pod["spec"]["containers"][0]["name"]
    answer = _rehearsed(rehearsal, lambda guests: guests.in_pod(pod, container, "a rehearsal"))
    where = f"the pod {pod['metadata']['name']}"
    if answer is None:
        return Check(name, True, f"one of the lab's runs in {where} already", needed=False)
    without = "programs that images have; no rules, addresses and captures of pods"
    return judged(name, answer, f"{where} would take one", api, without)


def _node_pod(api: Api, running: list[dict[str, Any]]) -> Check:
    without = "pods; nodes only where exec in kube-proxy's pods is allowed"
    return _made(api, "node pod", lambda guests: guests.on_node(_node(running), "a rehearsal"), without)


def _pod_with_processes(api: Api, running: list[dict[str, Any]]) -> Check:
    without = "all but processes and sockets of nodes, and rules of pods from their node"
    return _made(api, _WITH_PROCESSES, lambda guests: guests.beside_pods(_node(running), "a rehearsal"), without)


def _made(api: Api, name: str, act: Callable[[Guests], object], without: str) -> Check:
    answer = _rehearsed(Rehearsal(api), act)
    assert answer is not None, "a node pod that is not there is asked for"
    return judged(name, answer, f"one in {api.namespace} would be made", api, without)


def _node(running: list[dict[str, Any]]) -> str:
    """One that pods run on, or a name that need not be one: a rehearsal finds no node."""
    return next((pod["spec"]["nodeName"] for pod in running if pod["spec"].get("nodeName")), "any")


def _injection(api: Api) -> Check:
    """What becomes of a pod that asks for nothing and passes the strictest Pod Security level."""
    answer = dry_run(api, "POST", f"/api/v1/namespaces/{api.namespace}/pods", ORDINARY_POD)
    added = _added(answer.body)
    found = f"a new pod gets {' and '.join(added)}" if added else "a new pod stays as it is written"
    return judged("injection", answer, found, api, "pods that run already; new ones are refused")


ORDINARY_POD: Mapping[str, Any] = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": f"{PREFIX}rehearsal", "labels": {OWNED: "rehearsal"}},
    "spec": {
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [
            {
                "name": "rehearsal",
                "image": "rehearsal",
                "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }
        ],
    },
}


def _added(pod: Mapping[str, Any]) -> list[str]:
    spec = pod.get("spec") or {}
    every = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    return [str(item.get("name")) for item in every if item.get("name") != "rehearsal"]


def _rehearsed(rehearsal: Rehearsal, act: Callable[[Guests], object]) -> Answer | None:
    """The answer to what ``act`` makes; None where it makes nothing."""
    guests = Guests(cast(Api, rehearsal), frozenset(LEAVES), say=lambda _: None)
    try:
        act(guests)
    except _Ended:
        pass
    return rehearsal.answer


def judged(name: str, answer: Answer, found: str, api: Api, without: str) -> Check:
    """What a dry run's answer means; the server's own words are quoted where it refuses or warns."""
    if answer.status < 300:
        warned = f"; the server warns: {'; '.join(answer.warnings)[:_LONGEST]}" if answer.warnings else ""
        return Check(name, True, found + warned, needed=False)
    said = answer.message or f"status {answer.status}"
    if _NO_DRY_RUN in said:
        return Check(name, False, f"not known: {said}", "", "what is tried first when it is needed", needed=False)
    if _POD_SECURITY in said:
        level = "pod-security.kubernetes.io/enforce=privileged"
        mend = api.kubectl("label", "namespace", api.namespace, level, "--overwrite")
        return Check(name, False, f"Pod Security refuses it: {said}", mend, without, needed=False)
    mend = f"an exception there for pods labelled {OWNED} and containers named {PREFIX}*"
    return Check(name, False, f"refused ({answer.status}): {said}", mend, without, needed=False)
