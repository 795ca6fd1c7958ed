"""Which CNI a cluster has, and in which mode kube-proxy runs or what stands in its place, as far as its objects say so.

Pure: Kubernetes objects as they come in JSON go in, words come out, "" where nothing tells.  The marks are the labels
that each project's own manifests give its pods, and the annotations that its agent leaves on nodes.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

Object = Mapping[str, Any]

# A pod's label and its value: the CNI whose agent that is.
AGENTS: Mapping[tuple[str, str], str] = {
    ("k8s-app", "calico-node"): "Calico",
    ("k8s-app", "canal"): "Canal (Calico's policies on Flannel's network)",
    ("k8s-app", "cilium"): "Cilium",
    ("k8s-app", "aws-node"): "the Amazon VPC CNI",
    ("k8s-app", "azure-cns"): "the Azure CNI",
    ("k8s-app", "kindnet"): "kindnet",
    ("k8s-app", "kube-router"): "kube-router",
    ("k8s-app", "flannel"): "Flannel",
    ("app", "flannel"): "Flannel",
    ("app", "kindnet"): "kindnet",
    ("app", "antrea"): "Antrea",
    ("app", "ovnkube-node"): "OVN-Kubernetes",
    ("app", "kube-ovn-cni"): "Kube-OVN",
    ("name", "weave-net"): "Weave Net",
}
# What a node's annotation begins with: the CNI whose agent writes it.
_ANNOTATIONS = {
    "projectcalico.org/": "Calico",
    "flannel.alpha.coreos.com/": "Flannel",
    "network.cilium.io/": "Cilium",
    "io.cilium.network": "Cilium",
    "k8s.ovn.org/": "OVN-Kubernetes",
    "ovn.kubernetes.io/": "Kube-OVN",
    "node.antrea.io/": "Antrea",
    "kube-router.io/": "kube-router",
}
_REPLACES = {"OVN-Kubernetes": "OVN-Kubernetes, in OVN's load balancers"}
_MODE_LINE = re.compile(r"(?m)^\s*mode:[ \t]*[\"']?(\w*)[\"']?[ \t]*(?:#.*)?$")
_MODE_OPTION = re.compile(r"proxy-mode[= ]+[\"']?(\w+)")
_DEFAULT = "iptables"  # kube-proxy's own on Linux, where its mode is empty


def selectors() -> tuple[str, ...]:
    """The label selectors that find the agents, one for each label."""
    labels: dict[str, list[str]] = {}
    for label, value in AGENTS:
        labels.setdefault(label, []).append(value)
    return tuple(f"{label} in ({','.join(values)})" for label, values in labels.items())


def cni(nodes: Iterable[Object], pods: Iterable[Object]) -> tuple[str, ...]:
    """The CNIs that left a mark, those of running agents first; Canal is not called Calico and Flannel as well."""
    found = [AGENTS[item] for pod in pods for item in _labels(pod).items() if item in AGENTS]
    for node in nodes:
        found += [name for key in _annotations(node) for prefix, name in _ANNOTATIONS.items() if key.startswith(prefix)]
    named = tuple(dict.fromkeys(found))
    if any(name.startswith("Canal") for name in named):
        return tuple(name for name in named if name not in ("Calico", "Flannel"))
    return named


def replacement(agents: Iterable[Object], cilium: Object | None) -> str:
    """What stands in kube-proxy's place, "" where nothing says so.

    ``agents`` are the CNI's pods, ``cilium`` the ConfigMap cilium-config.
    """
    word = str(_values(cilium).get("kube-proxy-replacement", "")).lower()
    if word in ("true", "strict"):
        return f"Cilium, in eBPF (kube-proxy-replacement: {word})"
    for pod in agents:
        words = " ".join(_words(pod))
        if "--run-service-proxy=true" in words:
            return "kube-router, in IPVS (--run-service-proxy)"
        if any(_env(pod, "FELIX_BPFENABLED").lower() == answer for answer in ("true", "enabled")):
            return "Calico, in eBPF (FELIX_BPFENABLED)"
        for item in _labels(pod).items():
            if AGENTS.get(item) in _REPLACES:
                return _REPLACES[AGENTS[item]]
    return ""


def mode_of_settings(settings: Object | None) -> str:
    """The mode that a KubeProxyConfiguration in a ConfigMap sets."""
    for text in _values(settings).values():
        if "KubeProxyConfiguration" in str(text):
            found = _MODE_LINE.search(str(text))
            return (found[1] if found else "") or _DEFAULT
    return ""


def mode_of_pods(pods: Iterable[Object]) -> str:
    """The mode on the command line of kube-proxy's pods; its default where one runs without settings of its own."""
    for pod in pods:
        words = " ".join(_words(pod))
        found = _MODE_OPTION.search(words)
        if found:
            return found[1]
        if "kube-proxy" in words and "--config" not in words:
            return _DEFAULT
    return ""


def mode_of_nodes(nodes: Iterable[Object]) -> str:
    """The mode on a k3s node, whose kube-proxy is a part of k3s; "off" where it was switched off."""
    for node in nodes:
        if "+k3s" not in _kubelet(node) and "+rke2" not in _kubelet(node):
            continue
        try:
            words = " ".join(map(str, json.loads(_annotations(node).get("k3s.io/node-args", "[]"))))
        except (ValueError, TypeError):
            words = ""
        found = _MODE_OPTION.search(words)
        if "--disable-kube-proxy" in words:
            return "off"
        if found:
            return found[1]
        return _DEFAULT if "+k3s" in _kubelet(node) else ""
    return ""


def versions(nodes: Iterable[Object]) -> str:
    """How many nodes there are and what they run: kubelet, kernel, container runtime."""
    every = [(node.get("status") or {}).get("nodeInfo") or {} for node in nodes]
    parts = [f"{len(every)} node{'' if len(every) == 1 else 's'}"]
    for word, key in (("kubelet", "kubeletVersion"), ("Linux", "kernelVersion"), ("", "containerRuntimeVersion")):
        values = sorted({str(item.get(key, "")) for item in every} - {""})
        parts += [f"{word} {' and '.join(values[:3])}".strip()] if values else []
    return ", ".join(parts)


def _kubelet(node: Object) -> str:
    return str(((node.get("status") or {}).get("nodeInfo") or {}).get("kubeletVersion", ""))


def _labels(item: Object) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("labels") or {}


def _annotations(item: Object) -> Mapping[str, str]:
    return (item.get("metadata") or {}).get("annotations") or {}


def _values(settings: Object | None) -> Mapping[str, Any]:
    return (settings or {}).get("data") or {}


def _containers(pod: Object) -> Iterable[Object]:
    return (pod.get("spec") or {}).get("containers") or ()


def _words(pod: Object) -> list[str]:
    every = [word for item in _containers(pod) for key in ("command", "args") for word in item.get(key) or ()]
    return [str(word) for word in every]


def _env(pod: Object, name: str) -> str:
    given = [item for container in _containers(pod) for item in container.get("env") or ()]
    return next((str(item.get("value", "")) for item in given if item.get("name") == name), "")
