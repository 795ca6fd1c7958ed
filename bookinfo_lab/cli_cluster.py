"""`bookinfo-lab exec|shell|logs|objects|capture|record|uninstall` on a cluster of the reader's own.

Leaf; cheap to import, so that the command is soon ready for a Ctrl-C.  A cluster is meant where ``--source
kubernetes[:CONTEXT]`` says so, or BOOKINFO_LAB_SOURCE does and no sandbox is named.  Answers go to stdout, messages to
stderr; what was made for a command is taken away when it ends.
"""

import argparse
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

from bookinfo_lab.errors import LabError

if TYPE_CHECKING:
    from bookinfo_lab.lab import Lab
    from bookinfo_lab.sources.cluster.source import KubernetesSource

_CHECK_S = 0.1
Made = argparse.ArgumentParser


def options(made: Made, *, allow: bool = True) -> None:
    """The options by which a command means a cluster."""
    made.add_argument(
        "--source",
        type=context_of,
        metavar="SOURCE",
        help="a cluster: kubernetes or kubernetes:CONTEXT "
        "(default: the context of BOOKINFO_LAB_SOURCE, else the kubeconfig's current one)",
    )
    read = made.add_mutually_exclusive_group()
    read.add_argument("-n", "--namespace", default="", help="the cluster's namespace that is read")
    read.add_argument("-A", "--all-namespaces", action="store_true", help="read all of its namespaces (default)")
    if allow:
        made.add_argument(
            "--allow",
            default="",
            metavar="LEAVE,…",
            help="what may be made in the cluster: ephemeral (containers in pods), node-pod (pods on nodes), trace "
            "(an nftables table while a proof runs)",
        )


def context_of(text: str) -> str:
    """The context that a source names, "" for the current one; what is no cluster is refused."""
    from bookinfo_lab.connecting import CLUSTER

    kind, _, context = text.partition(":")
    if kind != CLUSTER:
        raise argparse.ArgumentTypeError(f"{text!r} is not looked at: give {CLUSTER} or {CLUSTER}:CONTEXT")
    return context


def asked(arguments: argparse.Namespace) -> str | None:
    """The context of the cluster that a command means; None where it means a sandbox."""
    from bookinfo_lab.connecting import cluster_context

    if arguments.source is not None and arguments.name:
        raise LabError("--name is a sandbox's and a cluster has none: give --name or --source")
    context = None if arguments.name else cluster_context(arguments.source)
    if context is not None:
        return context
    given = ("namespace", "all_namespaces", "allow")
    if any(getattr(arguments, name, "") for name in given):
        raise LabError("-n, -A and --allow are a cluster's: add --source kubernetes")
    return None


def connected(arguments: argparse.Namespace, context: str) -> "KubernetesSource":
    """The cluster, its namespaces and leaves as the options and the environment say."""
    from bookinfo_lab.connecting import cluster_namespace
    from bookinfo_lab.sources.cluster import source

    namespace = "" if arguments.all_namespaces else cluster_namespace(arguments.namespace)
    allow = filter(None, getattr(arguments, "allow", "").split(","))
    return source.connect(context, namespace, [word.strip() for word in allow])


def run(arguments: argparse.Namespace, context: str, command: "Callable[[Lab, argparse.Namespace], int]") -> int:
    """A command on the cluster; what was made for it is taken away."""
    from bookinfo_lab.lab import Lab

    if getattr(arguments, "uid", None) is not None:
        raise LabError("--uid is a sandbox's: in a cluster a program runs as its container's user")
    with closing(connected(arguments, context)) as source:
        return command(Lab(source), arguments)


def execute(lab: "Lab", arguments: argparse.Namespace) -> int:
    """`exec`: a program with this process's stdin, stdout and stderr; its exit status."""
    from bookinfo_lab.sources.cluster import joined

    return joined.attached(_cluster(lab).api, _where(lab, arguments, "a program"), arguments.argv)


def shell(lab: "Lab", arguments: argparse.Namespace) -> int:
    """`shell`: an interactive one; its exit status."""
    from bookinfo_lab.sources.cluster import joined

    return joined.shell(_cluster(lab).api, _where(lab, arguments, "a shell"), arguments.target)


def logs(lab: "Lab", arguments: argparse.Namespace) -> int:
    """`logs`: what a container wrote."""
    return _write(lab.fetch("logs", arguments.target, container=arguments.container).raw)


def objects(lab: "Lab", arguments: argparse.Namespace) -> int:
    """`objects`: as kubectl prints them; what may not be listed is told."""
    from bookinfo_lab.sources.base import Query

    evidence = lab.source.fetch(Query("objects", None, (arguments.resource,)))
    _tell(evidence.missing)
    return _write(evidence.raw)


def capture(lab: "Lab", arguments: argparse.Namespace) -> int:
    """`capture`: pcapng on stdout once it ends; one that breaks off gives what came before, then the fault."""
    from bookinfo_lab.sources.cluster.sniff import Capturing

    points = tuple(dict.fromkeys(lab.point(item) for item in arguments.points))
    running: Any = None
    try:
        with lab.source.capture(points) as running, _ended() as ended:
            assert isinstance(running, Capturing)
            _wait(running, ended, arguments.seconds)
    except LabError:
        if running is not None and running.found is not None:
            _write(running.evidence.raw)
        raise
    return _write(running.evidence.raw)


def uninstall(arguments: argparse.Namespace) -> int:
    """`uninstall`: what labs left in a cluster, removed or named."""
    import dataclasses
    import json

    from bookinfo_lab import escape
    from bookinfo_lab.connecting import cluster_context, cluster_namespace
    from bookinfo_lab.sources.cluster import api, traces

    found = traces.Traces((), (), ())
    if arguments.traces:
        namespace = "" if arguments.all_namespaces else cluster_namespace(arguments.namespace)
        server = api.connect(cluster_context(arguments.source) or "", namespace)
        named = [namespace] if namespace else []
        found = traces.remove(server, named, owner=arguments.owner, everywhere=arguments.all_namespaces)
        _tell(found.missing)
    else:
        _tell(["nothing but what labs leave behind can be in a cluster yet: uninstall --traces removes that"])
    if arguments.json:
        print(json.dumps(dataclasses.asdict(found), indent=2))
    elif arguments.traces:
        print("\n".join(escape.text(line) for line in traces.as_lines(found)))
    if any(" is not deleted: " in line for line in found.missing):
        raise LabError("not everything was removed")
    return 0


def _cluster(lab: "Lab") -> "KubernetesSource":
    from bookinfo_lab.sources.cluster.source import KubernetesSource

    assert isinstance(lab.source, KubernetesSource)
    return lab.source


def _where(lab: "Lab", arguments: argparse.Namespace, purpose: str) -> tuple[str, str, str]:
    """The container of a target; a node's is the lab's own."""
    place = lab.place(arguments.target, arguments.container)
    if place.kind == "node":
        return _cluster(lab).guests.on_node(place.name, purpose)
    return (place.namespace, place.name, place.container)


def _wait(running: Any, ended: Sequence[int], seconds: float | None) -> None:
    """Until a signal, the time's end, or a fault."""
    end = None if seconds is None else time.monotonic() + seconds
    while not ended and not running.is_broken:
        left = _CHECK_S if end is None else end - time.monotonic()
        if left <= 0:
            return
        time.sleep(min(left, _CHECK_S))


@contextmanager
def _ended() -> Iterator[Sequence[int]]:
    """The signals SIGINT and SIGTERM that have come, which do nothing else meanwhile."""
    came: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _tell(lines: Sequence[str]) -> None:
    from bookinfo_lab import escape

    for line in lines:
        print(f"bookinfo-lab: {escape.text(line)}", file=sys.stderr)


def _write(raw: bytes) -> int:
    """Put bytes on stdout as they are."""
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()
    return 0
