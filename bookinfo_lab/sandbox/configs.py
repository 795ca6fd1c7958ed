"""What each part of a sandbox is given: rules per network namespace, files and command per container.

Plays the control plane: kube-proxy and the kubelet for nodes, the sidecar injector and istiod for pods.  It computes
only; `init`, `serve` and `processes` do.
"""

import json
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from bookinfo_lab.netfilter import istio_init, istio_iptables, kube_proxy
from bookinfo_lab.netfilter import node as node_netfilter
from bookinfo_lab.netfilter import settings as netfilter_settings
from bookinfo_lab.sandbox import agent, image, processes, scenarios, topology, wiring, xds
from bookinfo_lab.sandbox.topology import Object, Topology

HOST_FILES = {
    "/etc/hosts": "127.0.0.1 localhost\n",
    "/etc/resolv.conf": "# nothing outside the sandbox can be looked up\n",
    "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nprotocols: files\nservices: files\n",
    "/etc/host.conf": "multi on\n",
}
_DNS_OBJECTS = "/run/objects.json"
_APPLICATION_FILES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "bookinfo")


@dataclass(frozen=True, slots=True)
class Mesh:
    """What this machine decides: how users are mapped (`mapping`), whether nfacct objects can be made."""

    users: str
    nfacct: bool

    @property
    def owner(self) -> str:
        """How a proxy's own packets are told from its application's: by uid, or by mark where only root exists."""
        return "mark" if self.users == "single" else "uid"


def key(item: Object) -> tuple[str, str, str]:
    """What names an API object: kind, namespace (empty where it has none), name."""
    return item["kind"], item["metadata"].get("namespace", ""), item["metadata"]["name"]


def proxy_settings(plan: Topology, mesh: Mesh) -> netfilter_settings.Settings:
    """kube-proxy's settings on every node."""
    layout = "2017" if plan.layout == "2017" else "today"
    return netfilter_settings.Settings(cluster_cidr=plan.pod_cidr, nfacct=mesh.nfacct, layout=layout)  # type: ignore[arg-type]


def accounting_objects(plan: Topology) -> tuple[str, ...]:
    """The nfacct objects that the nodes' rules would count into."""
    return kube_proxy.accounting_objects(proxy_settings(plan, Mesh("root", nfacct=True)))


def node_rules(plan: Topology, mesh: Mesh, objects: Sequence[Object]) -> list[tuple[str, str]]:
    """(network namespace, iptables-save text) for every node."""
    settings = proxy_settings(plan, mesh)
    return [(wiring.node_netns(host.name), node_netfilter.rules(objects, host.name, settings)) for host in plan.hosts]


def pod_rules(plan: Topology, mesh: Mesh) -> list[tuple[str, str]]:
    """(network namespace, iptables-save text) for every pod with a sidecar."""
    told = [(pod, istio_init.of_pod(pod)) for pod in plan.pods()]
    owner: Literal["uid", "mark"] = "mark" if mesh.owner == "mark" else "uid"
    return [
        (wiring.pod_netns(pod), istio_iptables.rules(replace(settings, owner=owner)))
        for pod, settings in told
        if settings
    ]


def host_files(plan: Topology) -> dict[str, str]:
    """A node's or the client's /etc: they know the nodes by name, and no DNS server."""
    names = "".join(f"{host.address} {host.name}\n" for host in plan.hosts if host.name != host.address)
    return HOST_FILES | {"/etc/hosts": HOST_FILES["/etc/hosts"] + names}


def container(plan: Topology, mesh: Mesh, pod: Object, item: Object) -> processes.Container:
    """The container to start for one container of a Pod object."""
    meta = pod["metadata"]
    uid = int(item.get("securityContext", {}).get("runAsUser", 0))
    is_proxy = topology.is_proxy(item)
    command: list[str] = item["command"]
    common = processes.Container(
        name=f"{meta['namespace']}/{meta['name']} {item['name']}",
        netns=wiring.pod_netns(pod),
        hostname=meta["name"],
        log=f"{processes.LOGS}/{meta['namespace']}_{meta['name']}/{item['name']}.log",
        root=image.Root(files=_pod_files(plan, pod), owner=0),
        env={variable["name"]: variable["value"] for variable in item.get("env", ())},
        folder=item.get("workingDir", "/"),
        uid=0 if mesh.users == "single" else uid,
    )
    if is_proxy:
        return _proxy(plan, mesh, pod, item, common)
    if is_dns(item):
        return replace(common, run=lambda: _serve_dns(plan), title="bookinfo-lab: dns of kube-dns")
    root = replace(common.root, binds={_APPLICATION_FILES: image.APPLICATIONS})
    return replace(common, argv=command, root=root)


def _pod_files(plan: Topology, pod: Object) -> dict[str, str]:
    """A pod's /etc as the kubelet writes it for dnsPolicy ClusterFirst."""
    meta, domain = pod["metadata"], scenarios.CLUSTER_DOMAIN
    search = f"{meta['namespace']}.svc.{domain} svc.{domain} {domain}"
    return HOST_FILES | {
        "/etc/hosts": f"127.0.0.1\tlocalhost\n{pod['status']['podIP']}\t{meta['name']}\n",
        "/etc/hostname": f"{meta['name']}\n",
        "/etc/resolv.conf": f"search {search}\nnameserver {plan.dns_address}\noptions ndots:5\n",
    }


def _serve_dns(plan: Topology) -> None:
    from bookinfo_lab.sandbox import dns, zone

    dns.serve_forever(dns.following(_DNS_OBJECTS, zone.zone(plan.objects, cluster_domain=scenarios.CLUSTER_DOMAIN)))


def _proxy(plan: Topology, mesh: Mesh, pod: Object, item: Object, common: processes.Container) -> processes.Container:
    settings = _xds_settings(mesh)
    files = xds.files(plan.objects, pod, settings)
    command = xds.command(settings)
    env = processes.environment(common.env)
    title = " ".join(item["command"])

    def run() -> None:
        agent.run(
            files, settings, command, env, status="readinessProbe" in item and "httpGet" in item["readinessProbe"]
        )

    folder = os.path.dirname(next(iter(files)))
    if plan.layout == "2017":  # what the reader of 2017 found there; no Envoy reads it any more
        files = {f"{folder}/envoy-rev8.json": json.dumps(xds.bootstrap_2017(), indent=2)} | files
    root = replace(common.root, folders=(folder,), owner=common.uid)
    return replace(common, run=run, title=title, root=root)


def _xds_settings(mesh: Mesh) -> xds.Settings:
    return xds.Settings(owner="mark" if mesh.owner == "mark" else "uid")


def container_files(mesh: Mesh, objects: Sequence[Object], place: tuple[str, str, str]) -> dict[str, str]:
    """The files of a running proxy or DNS server as ``objects`` would have them; none for any other container.

    ``place`` is the container's namespace, pod and name.  Raises Unsupported where a policy cannot be written.
    """
    for pod in objects:
        if pod["kind"] == "Pod" and key(pod)[1:] == place[:2]:
            for item in topology.containers(pod):
                if item["name"] == place[2] and topology.is_proxy(item):
                    return xds.files(objects, pod, _xds_settings(mesh))
                if item["name"] == place[2] and is_dns(item):
                    return {_DNS_OBJECTS: json.dumps(list(objects))}
    return {}


def replace_files(files: Mapping[str, str], pid: int, owner: int) -> None:
    """Put ``files`` into the root of the running process ``pid`` and tell it by SIGHUP."""
    for path, text in files.items():
        agent.replace(f"/proc/{pid}/root{path}", text, owner)
    os.kill(pid, signal.SIGHUP)


def is_dns(item: Object) -> bool:
    """Whether this container runs the DNS server."""
    return bool(item["command"][0] == "bookinfo-lab-dns")
