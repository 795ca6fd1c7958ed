"""What this user may do in a cluster: each right asked for by SelfSubjectAccessReview, beside the role that grants it.

Edge, over `Api`: a review is answered and kept nowhere.  `FEATURES` is the table of what the lab does with which right;
the files of deploy/rbac/ grant exactly what stands in it.  A no names verb, resource and role, and has the two kubectl
lines that mend it, for somebody who may grant roles.
"""

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from bookinfo_lab.doctor.findings import Check
from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.cluster.api import Api, document

SYSTEM = "kube-system"
CONFIG_MAPS = ("kube-proxy", "kube-proxy-config", "cilium-config")  # kubeadm's, EKS' and Cilium's
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
_WHO = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_ACCOUNT = "system:serviceaccount:"


@dataclass(frozen=True, slots=True)
class Right:
    """One right as a Role has it: ``resource`` with its subresource; ``name`` is "" for every object of it."""

    verb: str
    resource: str
    group: str = ""
    name: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}" + (f" {self.name}" if self.name else "")


@dataclass(frozen=True, slots=True)
class Feature:
    """What the lab does with some rights.

    ``role`` is a file of deploy/rbac/.  ``place`` is "" for the namespace that is read, "*" for all of them and for
    what has none, or a namespace's name.  ``without`` says what works while a right is missing.
    """

    role: str
    name: str
    rights: tuple[Right, ...]
    without: str
    place: str = ""
    needed: bool = False


_OBJECTS = (
    Right("list", "pods"),
    Right("get", "pods"),
    Right("list", "services"),
    Right("list", "endpointslices", "discovery.k8s.io"),
)
FEATURES = (
    Feature("reader", "objects", _OBJECTS, "the sandbox and recordings", needed=True),
    Feature("reader", "logs", (Right("get", "pods/log"),), "all but what containers have written"),
    Feature("reader", "namespace", (Right("get", "namespaces"),), "all; its Pod Security and mesh labels stay unknown"),
    Feature("reader-cluster", "all namespaces", (*_OBJECTS, Right("get", "pods/log")), "one namespace at a time", "*"),
    Feature(
        "reader-cluster", "nodes", (Right("list", "nodes"), Right("get", "nodes")), "all that is not about nodes", "*"
    ),
    Feature(
        "reader-cluster",
        "network settings",
        tuple(Right("get", "configmaps", name=name) for name in CONFIG_MAPS),
        "all; kube-proxy's mode may stay unknown",
        SYSTEM,
    ),
    Feature(
        "inspector",
        "exec",
        (Right("get", "pods/exec"), Right("create", "pods/exec")),
        "objects, logs, Envoy by port-forward; no processes, sockets, rules, captures",
    ),
    Feature(
        "inspector",
        "port-forward",
        (Right("get", "pods/portforward"), Right("create", "pods/portforward")),
        "requests through a load balancer or a node's port, where there is one",
    ),
    Feature(
        "capturer",
        "ephemeral containers",
        (Right("patch", "pods/ephemeralcontainers"),),
        "programs that images have; no rules, addresses and captures of pods",
    ),
    Feature(
        "node",
        "node pods",
        (Right("create", "pods"), Right("delete", "pods")),
        "pods; nodes only where exec in kube-proxy's pods is allowed",
    ),
)


@dataclass(frozen=True, slots=True)
class Rights:
    """What one user may do, asked when it is first needed.  ``user`` is its name, "" where the server does not say."""

    api: Api
    user: str = ""
    _known: dict[tuple[Right, str], bool] = field(default_factory=dict)

    def may(self, right: Right, namespace: str) -> bool:
        """Whether the user may, in ``namespace``; "" is all of them, or what has none.  LabError where nobody says."""
        if (right, namespace) not in self._known:
            resource, _, subresource = right.resource.partition("/")
            attributes = {
                "verb": right.verb,
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
                "namespace": namespace,
                "name": right.name or (namespace if resource == "namespaces" else ""),
            }
            asked = {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": attributes},
            }
            answer = document(self.api.ask("POST", _REVIEWS, body=asked))
            self._known[right, namespace] = bool((answer.get("status") or {}).get("allowed"))
        return self._known[right, namespace]

    def may_list(self, resource: str, namespace: str) -> bool:
        """Whether the user may list a resource of the core group there."""
        return self.may(Right("list", resource), namespace)


def who(api: Api) -> str:
    """The name by which the server knows this user; "" where it does not say (before 1.28)."""
    asked = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = document(api.ask("POST", _WHO, body=asked))
    except LabError:
        return ""
    return str(((answer.get("status") or {}).get("userInfo") or {}).get("username", ""))


def checks(rights: Rights) -> Iterator[Check]:
    """A check for each feature, in the order of the roles."""
    for feature in FEATURES:
        name = f"{feature.role.partition('-')[0]}: {feature.name}"
        mend = grant(feature.role, rights.api, rights.user)
        try:
            missing = lacks(rights, feature)
        except LabError as error:
            yield Check(name, False, f"the server does not say: {error}", mend, feature.without, feature.needed)
            continue
        if missing:
            why = refusal(missing, _where(feature, rights.api.namespace), feature.role)
            yield Check(name, False, why, mend, feature.without, feature.needed)
        else:
            allowed = f"allowed {_where(feature, rights.api.namespace)}: {_listed(feature.rights)}"
            yield Check(name, True, allowed, needed=feature.needed)


def lacks(rights: Rights, feature: Feature) -> list[Right]:
    """The rights of a feature that the user does not have."""
    place = {"": rights.api.namespace, "*": ""}.get(feature.place, feature.place)
    return [right for right in feature.rights if not rights.may(right, place)]


def feature(name: str) -> Feature:
    """The feature of that name."""
    return next(one for one in FEATURES if one.name == name)


def refusal(missing: Sequence[Right], where: str, role: str) -> str:
    """Why something is not there: verb, resource and role."""
    return f"this user may not {_listed(missing)} {where}; the role {role} in deploy/rbac/ grants it"


def grant(role: str, api: Api, user: str) -> str:
    """The line by which somebody who may grant roles gives one to ``user``; his kubeconfig has other contexts."""
    name = f"bookinfo-lab-{role.removesuffix('-cluster')}"
    account = user.removeprefix(_ACCOUNT)
    subject = f"--serviceaccount={account}" if user.startswith(_ACCOUNT) else f"--user={user or 'NAME'}"
    own = f"{name}-{re.sub('[^a-z0-9]+', '-', account.lower()).strip('-') or 'name'}"[:200]
    if role.endswith("-cluster"):
        made, scope = ["create", "clusterrolebinding", own, f"--clusterrole={name}", subject], []
    else:
        scope = ["-n", api.namespace]
        made = ["create", "rolebinding", own, *scope, f"--role={name}", subject]
    applied = ["kubectl", "apply", *scope, "-f", f"deploy/rbac/{role}.yaml"]
    line = f"{shlex.join(applied)} && {shlex.join(['kubectl', *made])}"
    return f"{line}  (for somebody who may grant it, in the cluster of context {api.context})" if api.words else line


def _listed(rights: Sequence[Right]) -> str:
    return ", ".join(str(right) for right in rights)


def _where(feature: Feature, namespace: str) -> str:
    return "in the whole cluster" if feature.place == "*" else f"in {feature.place or namespace}"
