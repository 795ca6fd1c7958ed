"""Sends one packet in a running sandbox and reads what the kernel did with it: the evidence for a proof.

Edge.  The packet comes from where it really comes from: a process of the network namespace whose rules were walked, or
of the one that owns its source address.  Only that packet is traced, by an nftables table of our own that belongs to
the process that adds it: the kernel removes the table when that process ends, and the sandbox ends the process when
this one goes away, so no way out leaves anything behind.  No other table is touched.  The monitor is known to listen
because it prints a datagram of ours before the packet and another one after it.
"""

import json
import os
import secrets
import shutil
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any

from bookinfo_lab.errors import SourceError
from bookinfo_lab.netfilter import kernel_trace
from bookinfo_lab.netfilter.attempt import Attempt
from bookinfo_lab.netfilter.kernel_trace import FINISHED, LISTENING, Flow
from bookinfo_lab.netfilter.packet import Packet, socket_address
from bookinfo_lab.sandbox import Sandbox, search_path, topology
from bookinfo_lab.sandbox.beside import Ended, Program, running
from bookinfo_lab.sandbox.targets import Target
from bookinfo_lab.sandbox.topology import PROXY_UID

TABLE = "bookinfo-lab-trace"
PATIENCE_S = 0.3  # an answer takes microseconds; TCP sends again after a second
_CHOSEN = f" {TABLE}:traced:rule"
_NOT_OURS = "Operation not permitted"  # what the kernel says of a table that belongs to another process
_START_S, _STEP_S, _TURN_S = 10.0, 2.0, 5.0
_ARRIVAL_S = 0.2  # a packet is on its way between two namespaces for microseconds
_PROGRAMS = {"nft": "nftables", "xtables-monitor": "iptables"}
_SCRIPT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "send_packet.py")
_UNREACHABLE = ("Network is unreachable", "No route to host", "Cannot assign requested address", "Invalid argument")


class NotRun(Exception):
    """Why the packet was not sent."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose process sends the packet: where, as which user and with which mark, and what is to be said of it."""

    target: Target
    uid: int | None
    gid: int | None
    mark: int
    note: str


def prove(mesh: Sandbox, target: Target, packet: Packet) -> Attempt:
    """Send ``packet`` past the rules of the target's network namespace; what was done, and everything read of it.

    Takes some 100 ms, and 0.3 s more where nothing answers.  Where the packet cannot be sent or traced the attempt
    says why; nothing is raised.
    """
    started = time.monotonic()
    try:
        _check(packet)
        attempt = _run(mesh, target, packet, _origin(mesh, target, packet))
    except NotRun as reason:
        attempt = Attempt(str(target), not_run=str(reason))
    except (SourceError, Ended, OSError) as error:
        attempt = Attempt(str(target), not_run=f"the sandbox did not go along: {error}")
    return replace(attempt, took_ms=round((time.monotonic() - started) * 1000, 1))


def _check(packet: Packet) -> None:
    if packet.ct_state not in ("new", "established"):
        raise NotRun(f"no socket sends a packet on purpose that is {packet.ct_state} to connection tracking")
    if packet.mark and not packet.local:
        raise NotRun(f"mark {packet.mark:#x} is a kernel's own note: no packet brings one in from outside")
    for program, package in _PROGRAMS.items():
        if shutil.which(program, path=search_path()) is None:
            raise NotRun(f"{program} is not installed on this machine; run: sudo apt-get install {package}")


def _origin(mesh: Sandbox, target: Target, packet: Packet) -> Origin:
    if packet.local:
        return _local(mesh, target, packet)
    if packet.iif == "lo":
        return Origin(target, None, None, 0, f"sent from {target} itself, by lo")
    owner, pod = _owner(mesh, str(packet.src))
    if owner is None:
        raise NotRun(f"{packet.src} is nobody's address in this sandbox, so nobody can send from it")
    if (owner.kind, owner.namespace, owner.name) == (target.kind, target.namespace, target.name):
        raise NotRun(f"{packet.src} is {target}'s own address, so its packets do not come in there: walk it as local")
    note = f"sent from {owner}, which has the source address"
    if pod is None or not topology.is_intercepted(pod):
        return Origin(owner, None, None, 0, note)
    # The pod's own rules would catch an application's packet; the proxy's they let out as it is.
    uid, mark = (None, PROXY_UID) if mesh.users == "single" else (PROXY_UID, 0)
    how = f"mark {mark:#x}" if mark else f"uid {uid}"
    return Origin(owner, uid, uid, mark, f"{note}, as its proxy ({how}), whose packets its own rules leave alone")


def _local(mesh: Sandbox, target: Target, packet: Packet) -> Origin:
    uid, gid = packet.uid, packet.uid if packet.gid is None else packet.gid
    if mesh.users != "single" or not (uid or gid):
        shown = "0 (the walk names none)" if uid is None else str(uid)
        return Origin(target, uid, gid, packet.mark, f"sent from {target} as uid {shown}, gid {gid or 0}")
    named = f"uid {uid}, gid {gid}" if uid is not None else f"gid {gid}"
    if "-m owner" in _output(mesh, target, [_saver(packet)]):
        raise NotRun(f"{named} does not exist in this sandbox, which maps root alone, and its rules ask for owners")
    note = f"sent from {target} as root: {named} does not exist in this sandbox, and no rule here asks for an owner"
    return Origin(target, None, None, packet.mark, note)


def _owner(mesh: Sandbox, address: str) -> tuple[Target | None, dict[str, Any] | None]:
    """Whose address it is: a target, and its Pod where it is one."""
    plan = mesh.topology()
    names = {host.address: ("node", "", host.name) for host in plan.hosts} | {plan.client: ("client", "", "client")}
    pod = next((item for item in mesh.objects() if item["kind"] == "Pod" and item["status"]["podIP"] == address), None)
    if pod is not None:
        names[address] = ("pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    for item in mesh.targets():
        if (item.kind, item.namespace, item.name) == names.get(address):
            return item, pod
    return None, None


def _run(mesh: Sandbox, target: Target, packet: Packet, origin: Origin) -> Attempt:
    with ExitStack() as stack:
        sender = stack.enter_context(running(mesh, origin.target, _sending(packet, origin)))
        nft = stack.enter_context(running(mesh, target, ["nft", "--handle", "--interactive"], ends_alone=True))
        knocking = stack.enter_context(mesh.open_socket(target, socket.SOCK_DGRAM))
        rules = _output(mesh, target, [_saver(packet)])
        told = sender.line(_START_S)
        if "ready" not in told:
            why = told.get("failed", "its sender ended")
            raise NotRun(f"{origin.target} cannot send from {socket_address(packet.src, packet.sport)}: {why}")
        flow = _flow(packet, int(told["ready"]))
        order = _add(nft, flow, packet)
        # It asks the kernel for each rule it prints and ends where one has gone, so it starts when no other proof runs.
        monitor = stack.enter_context(running(mesh, target, ["xtables-monitor", "--trace"]))
        handles = _output(mesh, target, ["nft", "--handle", "list", "ruleset"])
        _wait_until_listening(monitor, knocking)
        sender.write("go\n")
        answer = str(sender.line(PATIENCE_S + _STEP_S).get("answer", "its sender ended"))
        _wait_until_read(monitor, knocking)
        if answer in _UNREACHABLE and _CHOSEN not in monitor.text:
            raise NotRun(f"{origin.target} cannot send to {packet.dst}: {answer}")
        return Attempt(
            str(target),
            notes=(origin.note, *_raw(told)),
            flow=flow,
            answer=answer,
            table=TABLE,
            ordered=order,
            trace=monitor.text,
            trace_errors=monitor.errors,
            rules=rules,
            handles=handles,
            conntrack=_conntrack(mesh, target, flow),
        )


def _sending(packet: Packet, origin: Origin) -> list[str]:
    order = {
        "proto": packet.proto,
        "src": str(packet.src),
        "sport": packet.sport,
        "dst": str(packet.dst),
        "dport": packet.dport,
        "uid": origin.uid,
        "gid": origin.gid,
        "mark": origin.mark,
        "icmp_type": packet.icmp_type,
        "icmp_code": packet.icmp_code,
        "established": packet.ct_state == "established",
        "patience_s": PATIENCE_S,
    }
    return ["python", "-I", "-S", _SCRIPT, json.dumps(order)]


def _raw(told: dict[str, Any]) -> tuple[str, ...]:
    return ("the packet was written by hand and sent through a raw socket",) if told["raw"] else ()


def _flow(packet: Packet, port: int) -> Flow:
    is_echo = packet.icmp_type in (8, 128)
    sport = port if packet.has_ports or is_echo else None
    return Flow(packet.proto, packet.src, sport, packet.dst, packet.dport, packet.icmp_type, packet.icmp_code)


def _saver(packet: Packet) -> str:
    return "iptables-nft-save" if packet.src.version == 4 else "ip6tables-nft-save"


def _output(mesh: Sandbox, target: Target, argv: list[str]) -> str:
    done = mesh.run(target, argv, uid=0)
    if done.returncode:
        raise SourceError(" ".join(argv), done.returncode, done.stderr.decode("utf-8", "replace"))
    return done.stdout.decode("utf-8", "replace")


def _add(nft: Program, flow: Flow, packet: Packet) -> str:
    """Add the table and wait until the kernel has it; the command.

    The kernel lets one process at a time have it: proofs in one network namespace wait for each other.
    """
    own = f"own-{secrets.token_hex(4)}"
    is_established = packet.ct_state == "established"
    order = kernel_trace.tracing_table(TABLE, own, flow, is_local=packet.local, is_established=is_established)
    asked = f"list chain inet {TABLE} {own}\n"  # nft repeats it among its errors where there is no such chain
    deadline = time.monotonic() + _TURN_S
    while own not in _said(nft, f"{order}\n{asked}", own, asked):
        why = nft.errors.rpartition(order)[0].rpartition("Error:")[2].strip()
        if _NOT_OURS not in why:
            raise NotRun(f"no trace can be asked for here: nft refused the table for it ({why})")
        if time.monotonic() > deadline:
            raise NotRun(f"another proof has been running in this network namespace for {_TURN_S:g} s; try again")
    return order


def _said(nft: Program, command: str, answer: str, refusal: str) -> str:
    """What nft has printed when it has answered a command, or refused it once more."""
    count = nft.errors.count(refusal) + 1
    nft.write(command)
    nft.hear(lambda text: answer in text or nft.errors.count(refusal) >= count, _START_S, lambda: None)
    return nft.text


def _knock(knocking: socket.socket, port: int) -> None:
    try:
        knocking.sendto(b"", ("127.0.0.1", port))
    except PermissionError:
        pass  # our own rule dropped it, as it should: being traced is all it is for


def _wait_until_listening(monitor: Program, knocking: socket.socket) -> None:
    monitor.hear(lambda text: f" {TABLE}:{LISTENING}:rule" in text, _START_S, lambda: _knock(knocking, 1))


def _wait_until_read(monitor: Program, knocking: socket.socket) -> None:
    """Knock until a knock brings nothing new of the packet, and the packet has been seen or its time is over.

    A monitor that ended meanwhile, as an overrun one does, is left: the trace then lacks the last knock.
    """
    deadline = time.monotonic() + _ARRIVAL_S
    quiet = 0
    while quiet < 2:
        before = _others(monitor.text)
        if not _is_answered(monitor, knocking):
            return
        is_new = _others(monitor.text) != before
        is_over = _CHOSEN in monitor.text or time.monotonic() > deadline
        quiet = quiet + 1 if is_over and not is_new else 0


def _is_answered(monitor: Program, knocking: socket.socket) -> bool:
    """Whether the monitor prints one more knock after a knock."""
    event = f" {TABLE}:{FINISHED}:rule"
    wanted = monitor.text.count(event) + 1
    _knock(knocking, 2)
    try:
        monitor.hear(lambda text: text.count(event) >= wanted, _STEP_S)
    except Ended:
        return False
    return True


def _others(text: str) -> int:
    """How many events are not those of a knock."""
    return text.count(" TRACE: ") - text.count(f" {TABLE}:own-") - text.count(f" {TABLE}:{FINISHED}:")


def _conntrack(mesh: Sandbox, target: Target, flow: Flow) -> tuple[str, ...] | None:
    done = mesh.run(target, ["cat", "/proc/net/nf_conntrack"], uid=0)
    if done.returncode:
        return None  # a kernel built without it; `conntrack -L` may be absent too, and proves nothing that is needed
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return tuple(line for line in lines if _is_of(line, flow))


def _is_of(line: str, flow: Flow) -> bool:
    """Whether a conntrack line's original direction is this flow."""
    told: dict[str, str] = {}
    for word in line.split():
        name, equals, value = word.partition("=")
        if equals:
            told.setdefault(name, value)
    try:
        addresses = ip_address(told["src"]), ip_address(told["dst"])
    except (KeyError, ValueError):
        return False
    ends = (told.get("id"), None) if flow.dport is None else (told.get("sport"), told.get("dport"))
    wanted = tuple(None if port is None else str(port) for port in (flow.sport, flow.dport))
    return addresses == (flow.src, flow.dst) and ends == wanted and f" {flow.proto} " in f" {line} "
