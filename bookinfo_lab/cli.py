"""`bookinfo-lab …`: the lab from a shell.

Leaf.  Answers go to stdout, messages to stderr.  Exit 0: done or answered; 1: `doctor` or `status` answers no;
2: bad use, or something this machine or input lacks, in one line that says what to do.
"""

import argparse
import errno
import json
import os
import re
import select
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bookinfo_lab import cli_cluster
from bookinfo_lab.errors import LabError

if TYPE_CHECKING:
    from bookinfo_lab.netfilter.ruleset import Ruleset
    from bookinfo_lab.sources.base import Source

_NEVER = "jupyterlab.NeverCheckForUpdate"  # nothing in the lab asks the internet
Command = Callable[[argparse.Namespace], int]


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; its exit status."""
    for number in range(3):  # a closed stdin's number would go to the next file opened, and so to programs run inside
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    sys.stdout, sys.stderr = sys.stdout or os.fdopen(1, "w"), sys.stderr or os.fdopen(2, "w")
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        try:
            return _run(words)
        finally:
            sys.stdout.flush()  # here, where a reader that has gone or a full disk can still be told apart
    except LabError as error:
        from bookinfo_lab import escape

        print(f"bookinfo-lab: {escape.text(error)}", file=sys.stderr)  # it may quote a file, and is one line
        return 2
    except KeyboardInterrupt:
        print("bookinfo-lab: interrupted; what was being made has been taken down", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC) or (error.errno == errno.EPIPE and not _reader_has_gone()):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what stdout still holds
        if error.errno == errno.EPIPE:
            return 0
        print("bookinfo-lab: no space left where the output goes; free some and try again", file=sys.stderr)
        return 2


def _run(words: list[str]) -> int:
    split = words.index("--") if "--" in words else len(words)
    arguments = _parser().parse_args(words[:split])
    arguments.argv = words[split + 1 :]
    command: Command = arguments.command
    return command(arguments)


def _reader_has_gone() -> bool:
    poll = select.poll()
    poll.register(1, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bookinfo-lab", description="One HTTP request through a service mesh, explained with evidence."
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Command, help_text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=help_text, description=help_text)
        made.set_defaults(command=command)
        return made

    def named(made: argparse.ArgumentParser) -> None:
        made.add_argument("--name", default="default", help="the sandbox's name (default: default)")

    def of_either(made: argparse.ArgumentParser) -> None:
        made.add_argument("--name", help="the sandbox's name (default: default)")
        cli_cluster.options(made)

    made = add("doctor", _doctor, "what this machine, or a cluster, can do, each 'no' with the line that mends it")
    made.add_argument(
        "--source",
        type=cli_cluster.context_of,
        metavar="SOURCE",
        help="a cluster, not this machine: kubernetes or kubernetes:CONTEXT (default: the context of "
        "BOOKINFO_LAB_SOURCE, else the kubeconfig's current one)",
    )
    made.add_argument(
        "-n", "--namespace", default="", help="of the cluster (default: BOOKINFO_LAB_NAMESPACE, else the context's)"
    )
    made.add_argument("--json", action="store_true", help="print one JSON document")

    made = add("tour", _tour, "run every notebook without a browser, write them as HTML, print one request's journey")
    made.add_argument(
        "--source",
        action="append",
        metavar="SOURCE",
        help="sandbox:SCENARIO, recording or recording:PATH; may be given again (default: both scenarios, a recording)",
    )
    made.add_argument("--out", default="build/tour", metavar="DIR", help="where the HTML goes (default: build/tour)")
    made.add_argument("--json", action="store_true", help="print one JSON document")

    add("lab", _lab, "open JupyterLab; words after -- are options of jupyter lab")

    made = add("up", _up, "make a sandbox that outlives this command")
    named(made)
    made.add_argument("--scenario", default="sidecar", help="sidecar (today's mesh) or article (2017)")
    made.add_argument(
        "--publish", nargs="?", const=0, type=_port, metavar="PORT", help="open the front door on 127.0.0.1:PORT"
    )

    named(add("down", _down, "end a sandbox, ready or half-made"))

    made = add("status", _status, "the sandboxes that run")
    made.add_argument("--name", help="this one only")
    made.add_argument("--json", action="store_true", help="print one JSON document")

    made = add("exec", _exec, "run a command inside a pod, node or client")
    _target_options(made, of_either)
    made.usage = (
        "%(prog)s [-h] [--name NAME | --source SOURCE] [-n NAMESPACE | -A] [--allow LEAVE,…] [-c CONTAINER] "
        "[--uid UID] TARGET -- COMMAND …"
    )

    made = add("shell", _shell, "a shell inside a pod, node or client")
    _target_options(made, of_either)

    made = add("logs", _logs, "what a container has written to its standard output")
    of_either(made)
    made.add_argument("-c", "--container", default="", help="a container of the pod other than its application's")
    made.add_argument("target", metavar="TARGET", help="a pod, an app, app-version, NAMESPACE/…")

    made = add("objects", _objects, "the Kubernetes API objects, as kubectl prints them with -o json")
    of_either(made)
    made.add_argument("resource", metavar="RESOURCE", help="pods, services, endpointslices or nodes")

    made = add("capture", _capture, "capture packets as pcapng on stdout, until Ctrl-C or for --seconds")
    of_either(made)
    made.add_argument("--seconds", type=_seconds, metavar="S", help="end after this long (default: at Ctrl-C)")
    made.add_argument("points", nargs="+", metavar="TARGET[:eth0|lo|veth]", help="where to capture")

    made = add("record", _record, "write all evidence, redacted, to a new folder or .zip")
    of_either(made)
    made.add_argument("--scenario", default="sidecar", help="what to make where no sandbox of that name runs")
    made.add_argument("--list", action="store_true", dest="only_list", help="list what it would hold, write nothing")
    made.add_argument("path", metavar="DIR", help="a folder that does not exist yet, or a name ending in .zip")

    made = add("journey", _journey, "send one request through the front door and show its hops")
    made.add_argument("path", nargs="?", default="/productpage", metavar="URL-PATH")
    made.add_argument("--name", help="a sandbox that runs (default: one for this command alone)")
    made.add_argument("--source", type=cli_cluster.context_of, metavar="SOURCE", help=argparse.SUPPRESS)
    made.add_argument("--scenario", default="sidecar", help="what to make where none runs")
    made.add_argument("--json", action="store_true", help="print one JSON document")

    made = add("uninstall", cli_cluster.uninstall, "take away what labs left in a cluster of your own")
    made.add_argument(
        "--traces",
        action="store_true",
        help="delete the pods of every lab, also of one that runs, and name the containers that remain",
    )
    made.add_argument("--owner", default="", metavar="ID", help="of the lab alone whose pods have this label's value")
    cli_cluster.options(made, allow=False)
    made.add_argument("--json", action="store_true", help="print one JSON document")

    _walk_options(add("walk", _walk, "where a packet goes through a file of packet-filter rules, and why"))

    made = add("rules", _rules, "what a file of packet-filter rules holds: tables, Services, lines that cannot be read")
    made.add_argument("rules", metavar="RULES-FILE", help="what iptables-save or ip6tables-save printed; - is stdin")
    made.add_argument("--json", action="store_true", help="print one JSON document")
    return parser


def _walk_options(made: argparse.ArgumentParser) -> None:
    made.add_argument("rules", metavar="RULES-FILE", help="what iptables-save or ip6tables-save printed; - is stdin")
    made.add_argument(
        "--from", required=True, dest="source", metavar="IP[:PORT]", help="who sends it; IPv6 as [IP]:PORT"
    )
    made.add_argument("--to", required=True, metavar="IP:PORT", help="whom it is sent to")
    origin = made.add_mutually_exclusive_group()
    origin.add_argument("--in", dest="iface", metavar="IFACE", help="the interface that it comes in by")
    origin.add_argument("--local", action="store_true", help="a process of this host sends it")
    made.add_argument("--proto", default="tcp", help="tcp, udp, sctp, icmp and so on (default: tcp)")
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.add_argument("--address", action="append", default=[], metavar="IP", help="an address of this host")
    made.add_argument("--addr", metavar="FILE", help="what `ip -j addr` printed: all addresses of this host")
    made.add_argument(
        "--route", metavar="FILE", help="what `ip -j route` printed (`ip -j route show table all`: better)"
    )
    made.add_argument("--out", metavar="IFACE", help="the interface that it leaves by, where no routes are given")
    made.add_argument("--uid", type=_number, metavar="N", help="the user of the process that sends it")
    made.add_argument("--gid", type=_number, metavar="N", help="the group of the process that sends it")
    made.add_argument("--mark", type=_number, default=0, metavar="N", help="the mark that it has already (default: 0)")
    made.add_argument("--state", choices=["new", "established"], default="new", help="its connection's (default: new)")


def _target_options(made: argparse.ArgumentParser, named: Callable[[argparse.ArgumentParser], None]) -> None:
    named(made)
    made.add_argument("-c", "--container", default="", help="a container of the pod other than its application's")
    made.add_argument("--uid", type=_uid, help="the user to be there (default: the container's own)")
    made.add_argument(
        "target", metavar="TARGET", help="client, node[/NAME], service/NAME, a pod, an app, app-version, NAMESPACE/…"
    )


def _port(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: give a number from 0 to 65535")
    return number


def _uid(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() else -1
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a user of a sandbox: give a number from 0 to 65535")
    return number


def _number(text: str) -> int:
    number = int(text, 0) if re.fullmatch("0x[0-9a-fA-F]+|0|[1-9][0-9]*", text) else -1
    if not 0 <= number < 2**32:
        raise argparse.ArgumentTypeError(f"{text[:80]!r} is no number of 32 bits: give one such as 1337 or 0x4000")
    return number


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 < number < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: give seconds, more than 0 and less than a day")
    return number


def _print_json(document: Any) -> None:
    print(json.dumps(document, indent=2))


def _doctor(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import doctor

    if arguments.namespace and arguments.source is None:
        raise LabError("a namespace is a cluster's: doctor --source kubernetes -n NAMESPACE")
    if arguments.source is None:
        report, as_page = doctor.examine(), doctor.as_page
    else:
        from bookinfo_lab.connecting import cluster_context, cluster_namespace
        from bookinfo_lab.doctor import cluster
        from bookinfo_lab.doctor.cluster_page import as_cluster_page

        context, namespace = cluster_context(arguments.source) or "", cluster_namespace(arguments.namespace)
        report, as_page = cluster.examine(context, namespace), as_cluster_page
    if arguments.json:
        _print_json(doctor.as_document(report))
    else:
        print(as_page(report))
    return 0 if doctor.is_fit(report) else 1


def _tour(arguments: argparse.Namespace) -> int:
    from pathlib import Path

    from bookinfo_lab import tour
    from bookinfo_lab.tour.report import as_document

    def say(line: str) -> None:
        print(line, file=sys.stderr)

    folder = tour.notebooks_folder() / "solutions"
    report = tour.run(folder, Path(arguments.out), arguments.source or tour.SOURCES, say=say)
    if arguments.json:
        _print_json(as_document(report))
    else:
        print(report.journey)
        print(f"The notebooks, as they ran: {report.index} ({report.seconds:.0f} s).", file=sys.stderr)
    if report.fault:
        raise LabError(report.fault)
    return 0


def _lab(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import tour

    programs = os.path.dirname(sys.executable)
    jupyter = os.path.join(programs, "jupyter-lab")
    if not os.path.exists(jupyter):
        raise LabError("JupyterLab is not installed beside this Python; run: make lab")
    folder = tour.notebooks_folder()
    first = min(folder.glob("*.ipynb"))
    options = [
        f"--ServerApp.root_dir={folder}",
        f"--LabApp.app_settings_dir={os.path.join(os.path.dirname(__file__), 'jupyterlab')}",  # no question about news
        "--LabApp.news_url=None",
        f"--LabApp.check_for_updates_class={_NEVER}",
        "--LabApp.extension_manager=readonly",
        "--LanguageServerManager.autodetect=False",  # it would run npm
    ]
    # The lines that evidence gives work as typed in a cell and in JupyterLab's terminal.
    os.environ["PATH"] = os.pathsep.join([programs, os.environ.get("PATH", os.defpath)])
    as_root = ["--allow-root"] if os.geteuid() == 0 else []  # Jupyter asks root to say so
    os.execv(jupyter, [jupyter, str(first), *options, *as_root, *arguments.argv])


def _up(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import sandbox
    from bookinfo_lab.sandbox import scenarios

    mesh = sandbox.up(scenarios.scenario(arguments.scenario), arguments.name, publish=arguments.publish)
    print(f"The sandbox {mesh.name!r} runs: scenario {mesh.scenario}, users mapped: {mesh.users}.")
    if mesh.published:
        print(f"Front door: http://127.0.0.1:{mesh.published}/productpage")
    return 0


def _down(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import sandbox

    if sandbox.down(arguments.name):
        print(f"The sandbox {arguments.name!r} is down; nothing of it is left.")
    else:
        print(f"bookinfo-lab: no sandbox named {arguments.name!r}; nothing to take down", file=sys.stderr)
    return 0


def _status(arguments: argparse.Namespace) -> int:
    from bookinfo_lab.sandbox import state

    names = [arguments.name] if arguments.name else list(state.names())
    found = [record for record in map(state.read, names) if record is not None]
    if arguments.json:
        _print_json({"sandboxes": found})
    else:
        for record in found:
            stage = "ready" if "init" in record else "starting"
            front = f", http://127.0.0.1:{record['published']}/productpage" if record.get("published") else ""
            print(f"{record['name']}: {stage}, scenario {record.get('scenario', 'unknown')}{front}")
        if not found:
            print("no sandbox runs", file=sys.stderr)
    return 0 if found else 1


def _exec(arguments: argparse.Namespace) -> int:
    if not arguments.argv:
        raise LabError("exec needs a command: bookinfo-lab exec TARGET -- COMMAND …")
    context = cli_cluster.asked(arguments)
    if context is not None:
        return cli_cluster.run(arguments, context, cli_cluster.execute)
    from bookinfo_lab import sandbox, terminal

    mesh = sandbox.attach(arguments.name or sandbox.DEFAULT_NAME)
    return terminal.attached(mesh, mesh.target(arguments.target, arguments.container), arguments.argv, arguments.uid)


def _shell(arguments: argparse.Namespace) -> int:
    context = cli_cluster.asked(arguments)
    if context is not None:
        return cli_cluster.run(arguments, context, cli_cluster.shell)
    from bookinfo_lab import sandbox, terminal

    mesh = sandbox.attach(arguments.name or sandbox.DEFAULT_NAME)
    return terminal.shell(mesh, mesh.target(arguments.target, arguments.container), arguments.uid)


def _logs(arguments: argparse.Namespace) -> int:
    context = cli_cluster.asked(arguments)
    if context is not None:
        return cli_cluster.run(arguments, context, cli_cluster.logs)
    from bookinfo_lab import sandbox

    mesh = sandbox.attach(arguments.name or sandbox.DEFAULT_NAME)
    return _write(mesh.logs(mesh.target(arguments.target, arguments.container)).encode())


def _objects(arguments: argparse.Namespace) -> int:
    context = cli_cluster.asked(arguments)
    if context is not None:
        return cli_cluster.run(arguments, context, cli_cluster.objects)
    from bookinfo_lab import sandbox
    from bookinfo_lab.sources.base import Query
    from bookinfo_lab.sources.sandbox import SandboxSource

    source = SandboxSource(sandbox.attach(arguments.name or sandbox.DEFAULT_NAME))
    return _write(source.fetch(Query("objects", None, (arguments.resource,))).raw)


def _capture(arguments: argparse.Namespace) -> int:
    if os.isatty(1):
        raise LabError("a capture is binary: send it to a file (… > FILE.pcapng) or into a program (… | tshark -r -)")
    context = cli_cluster.asked(arguments)
    if context is not None:
        return cli_cluster.run(arguments, context, cli_cluster.capture)
    from bookinfo_lab import sandbox
    from bookinfo_lab.lab import Lab
    from bookinfo_lab.sandbox import sniff
    from bookinfo_lab.sources.sandbox import SandboxSource

    mesh = sandbox.attach(arguments.name or sandbox.DEFAULT_NAME)
    lab = Lab(SandboxSource(mesh))
    points = [lab.point(item) for item in arguments.points]
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    sniff.until(mesh, points, arguments.seconds, woken, sys.stdout.buffer)
    return 0


def _record(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import connecting
    from bookinfo_lab.sources import recording

    context = cli_cluster.asked(arguments)
    source: Source
    if context is None:
        source = connecting.sandbox_source(arguments.scenario, arguments.name or "default")
    else:
        source = cli_cluster.connected(arguments, context)
    try:
        if arguments.only_list:
            print("\n".join(recording.listing(source)))
        else:
            print(recording.record(source, arguments.path, _list_on_stderr))
    finally:
        source.close()
    return 0


def _list_on_stderr(lines: Sequence[str]) -> None:
    print("\n".join(lines), file=sys.stderr)


def _write(raw: bytes) -> int:
    """Put bytes on stdout as they are."""
    sys.stdout.buffer.write(raw)
    sys.stdout.buffer.flush()
    return 0


def _journey(arguments: argparse.Namespace) -> int:
    if cli_cluster.asked(arguments) is not None:
        raise LabError(
            "a journey is drawn of a sandbox's request, not yet of a cluster's: give --name NAME of a sandbox"
        )
    from bookinfo_lab import journey, sandbox
    from bookinfo_lab.sandbox import requests, scenarios

    plan = None if arguments.name else scenarios.scenario(arguments.scenario)
    mesh = sandbox.attach(arguments.name) if plan is None else sandbox.up(plan, f"journey-{os.getpid()}", keep=False)
    try:
        found = requests.send(mesh, arguments.path)
    finally:
        if plan is not None:
            mesh.down()
    if arguments.json:
        _print_json(journey.as_document(found))
    else:
        print(journey.as_text(found))
    return 0


def _walk(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import asked_walk
    from bookinfo_lab.show.walk import Walk

    ruleset, packet = asked_walk.ruleset(arguments), asked_walk.packet(arguments)
    walk = Walk(ruleset.walk(packet), ruleset)
    _warn(ruleset)
    if arguments.json:
        _print_json(walk.as_document())
    else:
        print(walk.as_text())
    return 0


def _rules(arguments: argparse.Namespace) -> int:
    from bookinfo_lab import escape, reading
    from bookinfo_lab.netfilter import ruleset, summary

    text = reading.text_of(arguments.rules)
    found = summary.summarise(ruleset.parse(text, reading.name_of(arguments.rules)), text)
    if arguments.json:
        _print_json(found.as_document())
    else:
        print("\n".join(escape.text(line) for line in summary.as_lines(found)))
    if found.errors:
        more = f" (and {len(found.errors) - 1:,} more such lines)" if len(found.errors) > 1 else ""
        raise LabError(f"{found.errors[0]}{more}")
    return 0


def _warn(ruleset: "Ruleset") -> None:
    """What makes an answer doubtful goes beside it, not into it."""
    from bookinfo_lab import escape

    for warning in ruleset.warnings:
        print(f"bookinfo-lab: {ruleset.source}: {escape.text(warning)}", file=sys.stderr)
    if not ruleset.tables:
        print(f"bookinfo-lab: {ruleset.source}: there are no rules in it", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
