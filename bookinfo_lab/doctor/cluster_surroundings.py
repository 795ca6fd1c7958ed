"""CNI, kube-proxy and mesh of a cluster: what may be read of them is read, and each becomes a Check.

Edge, over `Api`.  What may not be read is not asked for; a check that lacks it names verb, resource and role.
`cluster_network` and `cluster_mesh` know what the objects mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.doctor import cluster_mesh, cluster_network, cluster_rights
from bookinfo_lab.doctor.cluster_rights import CONFIG_MAPS, SYSTEM, Right, Rights
from bookinfo_lab.doctor.findings import Check
from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import OWNED
from bookinfo_lab.sources.cluster import streams
from bookinfo_lab.sources.cluster.api import Api, Refused

NODES_READ = "50"  # as many as tell which CNI there is
_AGENTS_READ = "20"
_PODS_READ = "500"
_ISTIO = "istio-system"
_KUBE_PROXY = ("k8s-app=kube-proxy", "component=kube-proxy")
_ASK_MODE = ("curl", "-s", "--max-time", "2", "http://127.0.0.1:10249/proxyMode")
_MODES = ("iptables", "ipvs", "nftables", "userspace", "kernelspace")
_READ_MODE = "iptables"  # the one whose rules the lab walks

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read; ``missing`` are the rights for what was not, with the role that grants them."""

    nodes: Sequence[Object]
    agents: Sequence[Object]
    proxies: Sequence[Object]
    settings: Mapping[str, Object]
    missing: Mapping[str, tuple[Right, ...]]


def checks(rights: Rights) -> Iterator[Check]:
    """CNI, kube-proxy, mesh."""
    seen = _look(rights)
    yield _cni(rights, seen)
    yield _kube_proxy(rights, seen)
    yield _mesh(rights)


def words(api: Api) -> str:
    """Mesh and kube-proxy's mode in one line, as far as they may be known."""
    rights = Rights(api, "")
    try:
        found = [_mesh(rights), _kube_proxy(rights, _look(rights))]
    except LabError:
        return "mesh and kube-proxy: not known"
    return "; ".join(f"{check.name}: {_in_short(check.found)}" for check in found)


def _in_short(found: str) -> str:
    """What a check found, without the parts that tell it."""
    return "not known" if found.startswith("not known") else found.partition(";")[0].partition(", told by")[0]


def _look(rights: Rights) -> Seen:
    missing: dict[str, tuple[Right, ...]] = {}
    nodes: list[Object] = []
    if rights.may_list("nodes", ""):
        nodes = _items(rights, "/api/v1/nodes", limit=NODES_READ)
    else:
        missing["nodes"] = (Right("list", "nodes"),)
    agents, proxies = [], []
    where = _where(rights, SYSTEM)
    if where is None:
        missing["pods"] = (Right("list", "pods"),)
    else:
        for selector in cluster_network.selectors():
            agents += _items(rights, where, labelSelector=selector, limit=_AGENTS_READ)
        for selector in _KUBE_PROXY:
            proxies += _items(rights, where, labelSelector=selector, limit="1")
    return Seen(nodes, agents, proxies, _settings(rights, missing), missing)


def _settings(rights: Rights, missing: dict[str, tuple[Right, ...]]) -> dict[str, Object]:
    found = {}
    for name in CONFIG_MAPS:
        right = Right("get", "configmaps", name=name)
        if not rights.may(right, SYSTEM):
            missing["configmaps"] = (*missing.get("configmaps", ()), right)
            continue
        try:
            found[name] = rights.api.read(f"/api/v1/namespaces/{SYSTEM}/configmaps/{name}")
        except Refused as error:
            if error.status != 404:
                raise
    return found


def _where(rights: Rights, namespace: str) -> str | None:
    """The list of pods in all namespaces, else in one, whichever may be read."""
    if rights.may_list("pods", ""):
        return "/api/v1/pods"
    return f"/api/v1/namespaces/{namespace}/pods" if rights.may_list("pods", namespace) else None


def _items(rights: Rights, path: str, **query: str) -> list[Object]:
    return rights.api.read(path, **query).get("items") or []


def _cni(rights: Rights, seen: Seen) -> Check:
    found = cluster_network.cni(seen.nodes, seen.agents)
    if found:
        return Check("CNI", True, ", ".join(found), needed=False)
    missing = [*seen.missing.get("nodes", ()), *seen.missing.get("pods", ())]
    if missing:
        return _unknown("CNI", rights, missing, "all: interfaces are found by the node's routes")
    return Check("CNI", True, "none that the lab knows by its pods or by its marks on nodes", needed=False)


def _kube_proxy(rights: Rights, seen: Seen) -> Check:
    api, name, without = rights.api, "kube-proxy", "the rules of a node as text; no walk along Services' rules there"
    instead = cluster_network.replacement(seen.agents, seen.settings.get("cilium-config"))
    if instead:
        why = f"none: Services are {instead}"
        return Check(name, False, why, "a cluster with kube-proxy in iptables mode", without, needed=False)
    mode, told = _mode(rights, seen)
    if mode == "off":
        return Check(name, False, f"none: {told}", "a cluster with kube-proxy", without, needed=False)
    if mode:
        found = f"mode {mode}, told by {told}"
        if mode == _READ_MODE:
            return Check(name, True, found, needed=False)
        why = f"{found}; the lab walks rules of mode {_READ_MODE}"
        return Check(name, False, why, "a cluster with kube-proxy in iptables mode", without, needed=False)
    missing = [right for key in ("pods", "configmaps") for right in seen.missing.get(key, ())]
    without = "all: the rules of a node show it when they are read"
    if missing:
        return _unknown(name, rights, missing, without)
    why = f"not known: {SYSTEM} has no pod of it and none of the ConfigMaps {', '.join(CONFIG_MAPS[:2])}"
    node = next((str((item.get("metadata") or {}).get("name")) for item in seen.nodes), "NODE")
    asked = f'connect("kubernetes", context={api.context!r}, namespace={api.namespace!r}, allow=["node-pod"])'
    mend = f'{asked}.rules("node/{node}")  (its pod can ask; doctor again while it is there)'
    return Check(name, False, why, mend, without, needed=False)


def _mode(rights: Rights, seen: Seen) -> tuple[str, str]:
    """kube-proxy's mode and what tells it: its settings, its command line, k3s, a pod of the lab's on a node."""
    for name in CONFIG_MAPS[:2]:
        mode = cluster_network.mode_of_settings(seen.settings.get(name))
        if mode:
            return mode, f"the ConfigMap {name}"
    for mode, told in (
        (cluster_network.mode_of_pods(seen.proxies), "its pod's command line"),
        (cluster_network.mode_of_nodes(seen.nodes), "k3s, whose part it is"),
    ):
        if mode:
            return mode, told
    return _mode_of_guest(rights)


def _mode_of_guest(rights: Rights) -> tuple[str, str]:
    """What kube-proxy itself answers on a node where a pod of the lab's runs; nothing is made for this."""
    api = rights.api
    need = cluster_rights.feature("exec")
    if not rights.may_list("pods", api.namespace) or cluster_rights.lacks(rights, need):
        return "", ""
    path = f"/api/v1/namespaces/{api.namespace}/pods"
    for pod in _items(rights, path, labelSelector=OWNED, fieldSelector="status.phase=Running"):
        if not pod["spec"].get("hostNetwork"):
            continue
        try:
            where = (api.namespace, pod["metadata"]["name"], pod["spec"]["containers"][0]["name"])
            mode = streams.run(api, *where, _ASK_MODE).stdout.decode("ascii", "replace").strip().lower()
        except LabError:
            continue  # its image has no curl, or it has just gone
        if mode in _MODES:
            return mode, f"itself, on {pod['spec'].get('nodeName', 'a node')}"
    return "", ""


def _mesh(rights: Rights) -> Check:
    api, without = rights.api, "all but what is Envoy's: requests and rules of a cluster without a mesh"
    if not rights.may_list("pods", api.namespace):
        role = cluster_rights.feature("objects").role
        why = cluster_rights.refusal([Right("list", "pods")], f"in {api.namespace}", role)
        mend = cluster_rights.grant(role, api, rights.user)
        return Check("mesh", False, f"not known: {why}", mend, without, needed=False)
    pods = _items(rights, f"/api/v1/namespaces/{api.namespace}/pods", limit=_PODS_READ)
    namespace = None
    if rights.may(Right("get", "namespaces"), api.namespace):
        try:
            namespace = api.read(f"/api/v1/namespaces/{api.namespace}")
        except Refused as error:
            if error.status != 404:
                raise
    where = _where(rights, _ISTIO)
    agents = [] if where is None else _items(rights, where, labelSelector=cluster_mesh.SELECTOR, limit=_AGENTS_READ)
    found = cluster_mesh.mesh(pods, namespace, agents)
    text = "; ".join([found.mode, *found.found])
    if found.mode != "none":
        return Check("mesh", True, text, needed=False)
    if where is None:
        return _unknown("mesh", rights, [Right("list", "pods")], without, f"{text}; istiod is not looked for: ")
    return Check("mesh", False, text, cluster_mesh.joins(found, api), without, needed=False)


def _unknown(name: str, rights: Rights, missing: Sequence[Right], without: str, first: str = "not known: ") -> Check:
    role = cluster_rights.feature("all namespaces").role
    where = "in the whole cluster" if missing[0].resource != "configmaps" else f"in {SYSTEM}"
    why = cluster_rights.refusal(missing, where, role)
    mend = cluster_rights.grant(role, rights.api, rights.user)
    return Check(name, False, first + why, mend, without, needed=False)
