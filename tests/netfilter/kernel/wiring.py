"""The room's namespaces: a device under test, and round it a world that is nothing but cable ends.

Edge; runs in the room's process, whose first network namespace is the device under test's.  It is a router with
``in0``, ``out0`` and ``out1``.  The other ends of these veths lie in a second namespace without any address, so that
nothing there ever answers by itself: clients and servers are whatever the room writes to and reads from the cables.
ARP and neighbour discovery are off (both ends share a MAC address); a fourth veth, ``bar0``, carries ARP only.
"""

import ctypes
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from kernel.flow import RoomError

CLONE_NEWNET = 0x40000000
LINKS = {"in0": "02:00:00:00:01:01", "out0": "02:00:00:00:02:01", "out1": "02:00:00:00:03:01"}
ADDRESSES = {
    "in0": ("10.1.0.1/24", "fd00:1::1/64"),
    "out0": ("10.2.0.1/24", "fd00:2::1/64"),
    "out1": ("10.3.0.1/24", "fd00:3::1/64"),
}
BARRIER, BARRIER_ADDRESS, BARRIER_MAC = "bar0", "169.254.250.1", "02:00:00:00:09:01"
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.default.rp_filter": "0",
    "net.ipv4.conf.all.send_redirects": "0",
    "net.ipv4.conf.default.send_redirects": "0",
    "net.ipv4.icmp_ratemask": "0",
    "net.ipv6.icmp.ratelimit": "0",
    "net.ipv6.conf.all.accept_dad": "0",
    "net.ipv6.conf.default.accept_dad": "0",
    "net.ipv6.conf.default.accept_ra": "0",
    "net.ipv6.conf.default.router_solicitations": "0",
}
SOL_PACKET, PACKET_IGNORE_OUTGOING = 263, 23
ETH_P_ALL = 3

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, call: str) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise RoomError(f"{call}: {os.strerror(number)}")


def die_with_parent(parent: int) -> None:
    """PR_SET_PDEATHSIG, and the check that the parent has not gone before."""
    _checked(_libc.prctl(1, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)


def enter(netns: int) -> None:
    _checked(_libc.setns(netns, CLONE_NEWNET), "setns")


def run(command: list[str], given: str = "") -> str:
    """A tool in the device under test; what it printed, or `RoomError` with what it said."""
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RoomError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def write_sysctl(name: str, value: str) -> None:
    path = Path("/proc/sys") / name.replace(".", "/")
    try:
        path.write_text(value)
    except OSError as error:
        raise RoomError(f"{path}: {error.strerror}") from None


@dataclass(frozen=True, slots=True)
class Wires:
    """Packet sockets at the far ends, by the near end's name, and the names of the near ends' indexes."""

    taps: dict[str, socket.socket]
    barrier: socket.socket
    names: dict[int, str]


def wire() -> Wires:
    """Make the namespaces, links, addresses and routes; called once, in a network namespace that is still empty."""
    for name, value in SYSCTLS.items():
        write_sysctl(name, value)
    near = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    _checked(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
    far = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    for name in ("all", "default"):
        write_sysctl(f"net.ipv6.conf.{name}.disable_ipv6", "1")
    enter(near)
    run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in _near_lines(f"/proc/{os.getpid()}/fd/{far}")))
    write_sysctl(f"net.ipv6.conf.{BARRIER}.disable_ipv6", "1")
    run(["ip", "link", "set", BARRIER, "up"])
    enter(far)
    run(["ip", "-batch", "-"], "".join(f"link set {name} up\n" for name in (*LINKS, BARRIER)))
    taps = {name: _tap(name) for name in LINKS}
    barrier = _tap(BARRIER)
    enter(near)
    run(["ip", "-batch", "-"], "".join(f"{line}\n" for line in _routes()))
    names = dict(socket.if_nameindex())
    return Wires(taps, barrier, names)


def _near_lines(far: str) -> list[str]:
    lines = ["link set lo up"]
    for name, mac in LINKS.items():
        lines += [
            f"link add {name} address {mac} arp off type veth peer name {name} address {mac} arp off netns {far}",
            *(f"addr add {address} dev {name}{' nodad' * (':' in address)}" for address in ADDRESSES[name]),
            f"link set {name} up",
        ]
    lines.append(f"link add {BARRIER} address {BARRIER_MAC} type veth peer name {BARRIER} netns {far}")
    lines.append(f"addr add {BARRIER_ADDRESS}/32 dev {BARRIER}")
    return lines


def _routes() -> list[str]:
    return ["route add default dev out0", "route add ::/0 dev out0"]


def _tap(name: str) -> socket.socket:
    tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    tap.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    tap.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    tap.bind((name, ETH_P_ALL))
    return tap
