"""`bookinfo-lab doctor --source kubernetes[:CONTEXT]`: what the lab can do in a cluster, as the user who asks.

Edge, over `Api`.  Nothing is made: rights are asked for, admission is tried by dry run, the rest is read where a right
to read it is there, and only there.  Each no has its line and what works without it; only reading the namespace's
objects is needed.  No cluster makes this raise.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from typing import Any

from bookinfo_lab.doctor import cluster_admission, cluster_network, cluster_rights, cluster_surroundings
from bookinfo_lab.doctor.cluster_rights import Right, Rights
from bookinfo_lab.doctor.findings import Check, Report
from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.sources.cluster import api as server
from bookinfo_lab.sources.cluster.api import Refused
from bookinfo_lab.sources.cluster.login import NoContext

LEAST = (1, 25)  # ephemeral containers and EndpointSlices v1 are there for everyone
_NOTHING = "the sandbox and recordings"
_CONTEXTS = "kubectl config get-contexts  (and: export KUBECONFIG=/path/to/one)"
_LOGIN = "log in again, then: kubectl auth whoami"
_LEVELS = "pod-security.kubernetes.io/"


def examine(context: str = "", namespace: str = "") -> Report:
    """Look at the cluster of a kubeconfig's context, its current one where none is named."""
    try:
        api = server.connect(context, namespace)
    except LabError as error:
        return Report((Check("connection", False, str(error), _mend(error, context), _NOTHING),))
    rights = Rights(api, cluster_rights.who(api))
    try:
        rights.may_list("pods", api.namespace)
    except LabError as error:
        why = f"{api.named} answers, but not about rights, as it does to every user that it knows: {error}"
        return Report((Check("connection", False, why, _LOGIN, _NOTHING),))
    parts: tuple[tuple[str, Callable[[Rights], Iterator[Check]]], ...] = (
        ("connection", _connection),
        ("namespace", _namespace),
        ("rights", cluster_rights.checks),
        ("admission", cluster_admission.checks),
        ("surroundings", cluster_surroundings.checks),
    )
    return Report(tuple(check for name, part in parts for check in _all_of(name, part, rights)))


def _mend(error: LabError, context: str) -> str:
    """What to type where there is no connection; "" where the error itself says what to do."""
    if isinstance(error, NoContext):
        return _CONTEXTS
    if isinstance(error, Unsupported):
        return ""
    if isinstance(error, Refused) and error.status == 401:
        return _LOGIN
    words = ["kubectl", *([f"--context={context}"] if context else []), "version"]
    return f"{shlex.join(words)}  (once that shows the server's version: doctor again)"


def _all_of(name: str, part: Callable[[Rights], Iterator[Check]], rights: Rights) -> Iterator[Check]:
    """A part's checks; a server that goes away in the middle is a no of its own."""
    try:
        yield from part(rights)
    except LabError as error:
        yield Check(name, False, f"broken off: {error}", "bookinfo-lab doctor  (once more)", "what is said above")


def _connection(rights: Rights) -> Iterator[Check]:
    api = rights.api
    user = f" as {rights.user}" if rights.user else ""
    yield Check("connection", True, f"{api.named}{user}, namespace {api.namespace}")
    yield version(api.server)
    if not rights.may_list("nodes", ""):
        feature = cluster_rights.feature("nodes")
        yield _refused("nodes", rights, [Right("list", "nodes")], feature.role, feature.without)
        return
    page = api.read("/api/v1/nodes", limit=cluster_surroundings.NODES_READ)
    more = (page.get("metadata") or {}).get("remainingItemCount", 0)
    said = cluster_network.versions(page.get("items") or ())
    yield Check("nodes", True, f"{said}{f' (and {more} more nodes)' if more else ''}", needed=False)


def version(found: str) -> Check:
    """Whether a server's version has everything that the lab asks for."""
    number = tuple(int(part) for part in re.findall(r"\d+", found)[:2])
    if number >= LEAST:
        return Check("version", True, f"Kubernetes {found}", needed=False)
    least = ".".join(map(str, LEAST))
    why = f"Kubernetes {found or 'of no known version'}; the lab is written for {least} and later"
    return Check("version", False, why, f"a cluster of {least} or later", "objects and logs", needed=False)


def _namespace(rights: Rights) -> Iterator[Check]:
    name = rights.api.namespace
    feature = cluster_rights.feature("namespace")
    if not rights.may(Right("get", "namespaces"), name):
        yield _refused("namespace", rights, [Right("get", "namespaces")], feature.role, feature.without)
        return
    try:
        found: dict[str, Any] = rights.api.read(f"/api/v1/namespaces/{name}")
    except Refused as error:
        if error.status != 404:
            raise
        mend = "kubectl get namespaces  (then: bookinfo-lab doctor --source kubernetes -n NAMESPACE)"
        yield Check("namespace", False, f"there is no namespace {name}", mend, _NOTHING)
        return
    labels = found["metadata"].get("labels") or {}
    levels = [f"{key.removeprefix(_LEVELS)} {value}" for key, value in labels.items() if key.startswith(_LEVELS)]
    yield Check("namespace", True, f"{name}; Pod Security: {', '.join(levels) or 'no labels'}", needed=False)


def _refused(name: str, rights: Rights, missing: list[Right], role: str, without: str) -> Check:
    where = "in the whole cluster" if role.endswith("-cluster") else f"in {rights.api.namespace}"
    mend = cluster_rights.grant(role, rights.api, rights.user)
    why = cluster_rights.refusal(missing, where, role)
    return Check(name, False, f"not known: {why}", mend, without, needed=False)
