"""Process 1 of a sandbox: builds the network, loads the rules, starts the containers, then serves requests.

Edge: the only process that changes the sandbox.  It runs as root of the sandbox's user namespace, in one
thread.  After everything answers it reports "ready" and serves its control socket: what the API objects
are now, a program to run in a container, a socket of some network namespace, objects to add or remove.
"""

import gc
import json
import os
import signal
import time
from typing import Any

from bookinfo_lab.errors import SourceError, Unsupported
from bookinfo_lab.sandbox import channel, configs, image, linux, netns, probe, processes, topology, wiring
from bookinfo_lab.sandbox.serve import Server, Target
from bookinfo_lab.sandbox.topology import Object, Topology

_PROGRAMS = "/usr/local/bin"


def run(order: dict[str, Any], record: dict[str, Any], status: int) -> None:
    """Build the ordered sandbox and serve it until killed."""
    plan = topology.from_json(order["topology"])
    publish = order.get("publish_fd")
    closed = image.closed_to_others(order["programs"]["envoy"])
    if closed and record["users"] != "single":
        raise Unsupported(
            f"the proxies' user may not run Envoy: {closed} is closed to others; run: chmod o+rx {closed}"
        )
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC)
    _enter_own_root(order["folder"], order["programs"])
    netns.wire(wiring.wire(plan))
    nodes = [wiring.node_netns(host.name) for host in plan.hosts]
    mesh = configs.Mesh(record["users"], netns.make_accounting(configs.accounting_objects(plan), nodes))
    try:
        netns.load_rules(configs.node_rules(plan, mesh, plan.objects))
    except SourceError:
        if not mesh.nfacct:
            raise
        mesh = configs.Mesh(record["users"], nfacct=False)  # the objects can be made, the match that counts cannot
        netns.load_rules(configs.node_rules(plan, mesh, plan.objects))
    netns.load_rules(configs.pod_rules(plan, mesh))
    gc.freeze()  # children share these pages as long as nobody's collector writes to them
    targets = [*_hosts(plan), *_pods(plan, mesh)]
    if publish is not None:
        targets.append(_publisher(plan, int(publish)))
        os.close(int(publish))
    started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    server = Server(plan, mesh, targets, started)
    probe.wait_until_ready(plan, targets, float(order["timeout_s"]))
    server.all_ready()
    server.listen(channel.PATH)
    # Without a title of its own, ps would show the path of this machine's Python.
    processes.entitle("bookinfo-lab: process 1 of the sandbox")
    os.write(status, json.dumps({"ready": True}).encode() + b"\n")
    os.close(status)
    server.serve()


def _enter_own_root(place: str, programs: dict[str, str]) -> None:
    """Put on a root of our own; it is mounted over the state folder, in this mount namespace alone."""
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    try:
        image.build(place, image.Root(files=configs.HOST_FILES, size_mb=256))
    except PermissionError as error:
        raise Unsupported(
            f"{error}: mounting is refused here, as in a container with masked paths; see bookinfo-lab doctor"
        ) from None
    folder = _PROGRAMS if not programs["python"].startswith(_PROGRAMS) else "/opt/bin"
    os.makedirs(f"{place}{folder}", exist_ok=True)
    image.add_programs(f"{place}{folder}", programs)
    image.enter(place)
    os.makedirs(os.path.dirname(channel.PATH), mode=0o700, exist_ok=True)


def _hosts(plan: Topology) -> list[Target]:
    """The nodes and the client: a process each that holds their file system for `exec`."""
    found = []
    for name, space in [(host.name, wiring.node_netns(host.name)) for host in plan.hosts] + [("client", wiring.CLIENT)]:
        kind = "client" if space == wiring.CLIENT else "node"
        container = processes.Container(
            name=name,
            netns=space,
            hostname=name,
            log=f"{processes.LOGS}/{kind}_{name}/holder.log",
            root=image.Root(files=configs.host_files(plan)),
            run=_hold,
            title=f"bookinfo-lab: {kind} {name}",
            own_pids=kind == "client",
        )
        found.append(Target(kind, "", name, "", processes.start(container), 0, space, container.log))
    return found


def _hold() -> None:
    """Wait for the end and reap what `exec` leaves: process 1 of a PID namespace inherits its orphans."""
    processes.stop_on_signal()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        signal.pause()


def _pods(plan: Topology, mesh: configs.Mesh) -> list[Target]:
    """Start every container, proxies of all pods first: an Envoy needs longest until it answers."""
    jobs = [(pod, item) for pod in plan.pods() for item in topology.containers(pod)]
    jobs.sort(key=lambda job: not topology.is_proxy(job[1]))
    return [_start(plan, mesh, pod, item) for pod, item in jobs]


def _start(plan: Topology, mesh: configs.Mesh, pod: Object, item: Object) -> Target:
    container = configs.container(plan, mesh, pod, item)
    meta = pod["metadata"]
    pid, uid = processes.start(container), container.uid
    return Target("pod", meta["namespace"], meta["name"], item["name"], pid, uid, container.netns, container.log)


def _publisher(plan: Topology, descriptor: int) -> Target:
    """The one process that holds a socket of the machine's own: it hands its connections to the front door."""
    import socket

    from bookinfo_lab.sandbox import publish

    def serve() -> None:
        publish.serve(socket.socket(fileno=descriptor), topology.front_door(plan, plan.objects))

    name = "publish"
    container = processes.Container(
        name=name,
        netns=wiring.CLIENT,
        hostname=name,
        log=f"{processes.LOGS}/client_{name}/publish.log",
        root=image.Root(),
        run=serve,
        title="bookinfo-lab: publish",
        keep=descriptor,
    )
    return Target("publisher", "", name, "", processes.start(container), 0, wiring.CLIENT, container.log)
