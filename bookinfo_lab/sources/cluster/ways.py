"""In which container a question is asked, and by which line a reader asks it again.

Edge.  A question has ways, the one that takes the least first: a container that is there already, then, with leave, one
of the lab's own.  The first whose image has the program answers.  Where none may be put into a pod, what its network
namespace holds is read from its node, with leave for that, else its rules from istio-init's log; else what is missing
is told.
"""

import http.client
import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources import base, one_request
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster import forward, streams
from bookinfo_lab.sources.cluster.api import Api, Refused
from bookinfo_lab.sources.cluster.guests import Guests, NotAllowed, Unfit
from bookinfo_lab.sources.cluster.streams import Done, NoSuchProgram

Where = tuple[str, str, str]  # namespace, pod, container
ADMIN_PORT = 15000
INIT_CONTAINER = "istio-init"
_CONNTRACK = (
    "cat /proc/net/nf_conntrack 2>/dev/null || { conntrack -L -o extended && conntrack -L -f ipv6 -o extended; }"
)
_LOGGED = {"iptables-nft-save": "IPv4", "ip6tables-nft-save": "IPv6"}
# The process of a container is found by its control group, which the container's id is part of; CRI-O's conmon, which
# has it too, is in the node's network namespace.
_ENTER = """own=$(readlink /proc/self/ns/net)
for file in $(grep -ls {container} /proc/[0-9]*/cgroup); do
  process=${{file#/proc/}}; process=${{process%/cgroup}}
  [ "$(readlink /proc/$process/ns/net)" != "$own" ] || continue
  exec nsenter -n -t $process {words}
done
echo "no process of the container {container} is seen on this node" >&2
exit 1"""
# istio-init prints the rules that it made, as iptables-save does; a line of its log begins with the time.
_FINAL = re.compile(rb"Final iptables state \((IPv[46])\):\n(.*?)(?=^\d{4}-\d\d-\d\dT|\Z)", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a way gave, the line that asks it again, and what is to be known of it: "" where nothing is."""

    done: Done
    line: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Ways:
    """The ways of one cluster."""

    api: Api
    guests: Guests

    def ask(self, query: Query, place: Place) -> Answer:
        """The first way's answer.  Raises `NotAllowed`, `Refused` or LabError where none gives one."""
        ways = list(self._ways(query, place))
        for number, way in enumerate(ways):
            is_last = number == len(ways) - 1
            try:
                answer = way()
            except NoSuchProgram:
                if is_last:
                    raise
                continue
            except (NotAllowed, Unfit, Refused) as refusal:
                if isinstance(refusal, Refused) and refusal.status != 403:
                    raise
                if query.kind == "envoy" and not is_last:
                    continue  # a port may be forwarded where nothing may be run
                other = self._from_node(query, place) or self._logged(query, place)
                if other is None:
                    raise
                return other
            if answer.done.status == 0 or is_last or query.kind == "exec":
                return answer
        raise NotAllowed(f"nothing here can run it: {query}")

    def guest(self, place: Place, purpose: str) -> Where:
        """A container of ours on a node, or in a pod beside the place's container, else beside its first."""
        if place.kind == "node":
            return self.guests.on_node(place.name, purpose)
        pod = self.api.read(f"/api/v1/namespaces/{place.namespace}/pods/{place.name}")
        target = place.container or pod["spec"]["containers"][0]["name"]
        return (place.namespace, place.name, self.guests.in_pod(pod, target, purpose))

    def run(self, where: Where, argv: Sequence[str], note: str = "") -> Answer:
        """A program in a container, to its end."""
        return Answer(streams.run(self.api, *where, argv), self.line(where, argv), note)

    def line(self, where: Where, argv: Sequence[str]) -> str:
        """The line that runs a program in a container."""
        return self.api.kubectl("exec", "-n", where[0], where[1], "-c", where[2], "--", *argv)

    def forwarding(self, namespace: str, named: str, here: int, there: int, line: str) -> str:
        """The lines that ask ``line`` through a forwarded port, which takes a moment and ends with it."""
        forward = self.api.kubectl("port-forward", "-n", namespace, named, f"{here}:{there}")
        return f"{forward} >/dev/null & sleep 2\n{line}; kill $!"

    def _ways(self, query: Query, place: Place) -> Iterator[Callable[[], Answer]]:
        argv, own = _argv(query), (place.namespace, place.name, place.container)
        if place.kind == "node" and query.kind in ("processes", "sockets"):
            yield lambda: self.run(self.guests.beside_pods(place.name, query.kind), argv)
            return
        if place.kind == "node":
            yield lambda: self._in_kube_proxy(place, argv)
        elif query.kind == "envoy":
            yield lambda: self.run(own, argv)
            yield lambda: self._forwarded(place, query.arguments[0])
            return
        elif query.kind != "rules":  # which takes a right that an application's container does not have
            yield lambda: self.run(own, argv)
            if query.kind == "exec":
                return
        yield lambda: self.run(self.guest(place, query.kind), argv)

    def _in_kube_proxy(self, place: Place, argv: Sequence[str]) -> Answer:
        """In the node's kube-proxy pod, which is in its network namespace and has iptables."""
        path = "/api/v1/namespaces/kube-system/pods"
        query = {"labelSelector": "k8s-app=kube-proxy", "fieldSelector": f"spec.nodeName={place.name}"}
        try:
            self.api.check("GET", path)
            found = self.api.read(path, **query).get("items") or ()
            pods = [pod for pod in found if (pod.get("status") or {}).get("phase") == "Running"]
            if not pods:
                raise NoSuchProgram(f"node/{place.name} has no kube-proxy pod that runs")
            meta = pods[0]["metadata"]
            return self.run((meta["namespace"], meta["name"], "kube-proxy"), argv)
        except Refused as error:
            if error.status != 403:
                raise
            raise NoSuchProgram(f"node/{place.name}: {error}") from None  # no role of the lab's reaches kube-system

    def _forwarded(self, place: Place, path: str) -> Answer:
        """Envoy's admin answers by itself where the image has no pilot-agent."""
        with forward.opened(self.api, place.namespace, place.name, ADMIN_PORT) as forwarded:
            try:
                status, body = one_request.body(forwarded, "localhost", f"/{path}")
            except http.client.HTTPException as error:
                raise LabError(f"Envoy's admin of {place}: no whole answer ({type(error).__name__})") from None
        if status != 200:
            raise LabError(f"Envoy's admin of {place} answers {status} to {path}")
        asked = shlex.join(["curl", "-s", f"localhost:{ADMIN_PORT}/{path}"])
        line = self.forwarding(place.namespace, f"pod/{place.name}", ADMIN_PORT, ADMIN_PORT, asked)
        return Answer(Done(body, b"", 0), line)

    def _from_node(self, query: Query, place: Place) -> Answer | None:
        """What a pod's network namespace holds, by a pod of ours on its node; None where none may be there."""
        if place.kind != "pod" or query.kind == "prove" or not base.is_of_netns(query):
            return None
        pod = self.api.read(f"/api/v1/namespaces/{place.namespace}/pods/{place.name}")
        node, container = pod["spec"].get("nodeName", ""), _container_id(pod)
        if not container or "node-pod" not in self.guests.allowed:
            return None
        if pod["spec"].get("hostNetwork"):
            note = f"read on node/{node}, whose network namespace is the pod's"
            return self.run(self.guests.on_node(node, query.kind), _argv(query), note)
        try:
            where = self.guests.beside_pods(node, query.kind)
        except Refused as refusal:
            if refusal.status != 403:
                raise
            return None
        script = _ENTER.format(container=container, words=shlex.join(_argv(query)))
        return self.run(where, ["sh", "-c", script], f"read on node/{node}, in the pod's network namespace")

    def _logged(self, query: Query, place: Place) -> Answer | None:
        """A pod's rules as istio-init printed them when it had made them."""
        family = _LOGGED.get(query.arguments[0]) if query.kind == "rules" and place.kind == "pod" else None
        if family is None:
            return None
        path = f"/api/v1/namespaces/{place.namespace}/pods/{place.name}/log"
        try:
            log = self.api.get(path, accept="*/*", container=INIT_CONTAINER)
        except Refused:
            return None
        found = [text for name, text in _FINAL.findall(log) if name == family.encode()]
        if not found:
            return None
        line = self.api.kubectl("logs", "-n", place.namespace, place.name, "-c", INIT_CONTAINER)
        note = f"as {INIT_CONTAINER} printed them when the pod started"
        return Answer(Done(found[-1].strip() + b"\n", b"", 0), line, note)


def _argv(query: Query) -> tuple[str, ...]:
    """The words of a query's program.  Not every distribution's kernel has the file of connections."""
    return ("sh", "-c", _CONNTRACK) if query.kind == "conntrack" else tuple(base.argv(query))


def _container_id(pod: dict[str, Any]) -> str:
    """The id of a container of the pod that runs, "" where none does."""
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    every = (item.get("containerID", "") for item in statuses if "running" in (item.get("state") or {}))
    return next((item.partition("://")[2] for item in every if "://" in item), "")
