"""Makes nfnetlink accounting objects, which kube-proxy's `-m nfacct` rules count into.

Edge: netlink in the caller's network namespace.  kube-proxy makes these objects itself; without the kernel's leave
it writes its rules without them.  Follows linux/netfilter/nfnetlink_acct.h.
"""

import socket
import struct
from collections.abc import Iterable

_NETFILTER = 12
_ACCT_NEW = 7 << 8  # subsystem NFNL_SUBSYS_ACCT, message NFNL_MSG_ACCT_NEW
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_ERROR = 2
_EEXIST = 17


def make(names: Iterable[str]) -> bool:
    """Make an accounting object a name; False where this kernel refuses one.  One that exists already is fine."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETFILTER) as netlink:
            netlink.settimeout(2)
            return all(_make(netlink, name) for name in names)
    except OSError:
        return False


def _make(netlink: socket.socket, name: str) -> bool:
    value = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(value), 1) + value
    body = struct.pack("=BBH", 0, 0, 0) + attribute + b"\0" * (-len(attribute) % 4)
    netlink.send(struct.pack("=IHHII", 16 + len(body), _ACCT_NEW, _REQUEST | _ACK | _EXCL | _CREATE, 1, 0) + body)
    reply = netlink.recv(4096)
    kind, code = struct.unpack_from("=H", reply, 4)[0], struct.unpack_from("=i", reply, 16)[0]
    return kind == _ERROR and -code in (0, _EEXIST)
