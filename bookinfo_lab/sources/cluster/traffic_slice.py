"""Connections, sockets and frames cut down to those between what is recorded.

Pure.  What the kernel or ss printed line by line, and pcapng, come in; the same without the lines and frames of others
goes out, with how many went.  A line in which no address can be read stays, a frame in which none can goes.
"""

import ipaddress
import re
import struct
from collections.abc import Callable

from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.cluster.scope import Scope, Socket

_FLOW = re.compile(r"src=(\S+) dst=(\S+)(?: sport=(\d+) dport=(\d+))?")
_PAIR = re.compile(r"(?:\[([0-9a-f:.%\w]+)\]|([0-9.]+|\*))(?:%[\w.-]+)?:(\d+|\*)")
_PROGRAM = re.compile(r"users:\(\(.*\)\)")
_ANY = ("0.0.0.0", "::", "*")
_VLAN = (0x8100, 0x88A8)
_IPV4, _IPV6, _ARP = 0x0800, 0x86DD, 0x0806
_HEADS = {1: (12, 14), 113: (14, 16), 276: (0, 20)}  # link type: where the protocol stands, where the packet begins


def connections(text: str, scope: Scope, *, is_host: bool = False) -> tuple[str, int]:
    """The lines of /proc/net/nf_conntrack about recorded pods and Services; ``is_host``: a loopback is a node's."""
    return _lines(text, lambda line: scope.admits(*_flows(line), is_host=is_host))


def sockets(text: str, scope: Scope, *, is_host: bool = False) -> tuple[str, int]:
    """The lines of ss that listen, or are connected to what is recorded.

    Where ``is_host``, a node's: those that wait at a recorded node port, and no program's name.
    """
    made, gone = _lines(text, lambda line: _is_own(line, scope, is_host=is_host))
    return (_PROGRAM.sub("", made) if is_host else made), gone


def _lines(text: str, is_kept: Callable[[str], bool]) -> tuple[str, int]:
    lines = text.splitlines(keepends=True)
    kept = [line for line in lines if is_kept(line)]
    return "".join(kept), len(lines) - len(kept)


def _flows(line: str) -> list[Socket]:
    return [
        item
        for found in _FLOW.finditer(line)
        for item in ((_plain(found[1]), int(found[3] or 0)), (_plain(found[2]), int(found[4] or 0)))
    ]


def _plain(address: str) -> str:
    """An IPv6 address as everybody else writes it: the kernel's file has all its zeros."""
    return str(ipaddress.IPv6Address(address)) if address.count(":") == 7 else address


def _is_own(line: str, scope: Scope, *, is_host: bool) -> bool:
    found = [((match[1] or match[2]).removeprefix("::ffff:"), match[3]) for match in _PAIR.finditer(line)]
    if len(found) < 2:
        return True
    ends = [(address, int(port) if port.isdigit() else 0) for address, port in found[:2]]
    if ends[1][0] in _ANY:
        return not is_host or ends[0][1] in scope.node_ports
    return scope.admits(*ends, is_host=is_host)


def frames(raw: bytes, scope: Scope) -> tuple[bytes, int]:
    """The capture with only those frames whose two ends are recorded."""
    interfaces, every = pcapng.parse(raw)
    kept = [item for item in every if _is_between(item.raw, interfaces[item.interface].link_type, scope)]
    return pcapng.write(interfaces, kept), len(every) - len(kept)


def _is_between(frame: bytes, link_type: int, scope: Scope) -> bool:
    place = _HEADS.get(link_type)
    if place is None or len(frame) < place[1]:
        return False
    protocol = int.from_bytes(frame[place[0] : place[0] + 2], "big")
    packet = frame[place[1] :]
    while protocol in _VLAN and len(packet) >= 4:
        protocol, packet = int.from_bytes(packet[2:4], "big"), packet[4:]
    found = _ends(protocol, packet)
    return found is not None and scope.admits(*found)


def _ends(protocol: int, packet: bytes) -> tuple[Socket, Socket] | None:
    """Source and destination; port 0 where there is none, or the packet is a later fragment."""
    if protocol == _IPV4 and len(packet) >= 20:
        length, rest = (packet[0] & 15) * 4, int.from_bytes(packet[6:8], "big") & 0x1FFF
        source, target = (".".join(map(str, packet[at : at + 4])) for at in (12, 16))
        ports = packet[length : length + 4] if not rest and packet[9] in (6, 17, 132) else b""
    elif protocol == _IPV6 and len(packet) >= 40:
        source, target = (_ipv6(packet[at : at + 16]) for at in (8, 24))
        ports = packet[40:44] if packet[6] in (6, 17, 132) else b""
    elif protocol == _ARP and len(packet) >= 28 and packet[2:6] == b"\x08\x00\x06\x04":
        source, target = (".".join(map(str, packet[at : at + 4])) for at in (14, 24))
        ports = b""
    else:
        return None
    sport, dport = struct.unpack("!HH", ports) if len(ports) == 4 else (0, 0)
    return (source, sport), (target, dport)


def _ipv6(raw: bytes) -> str:
    return str(ipaddress.IPv6Address(raw))
