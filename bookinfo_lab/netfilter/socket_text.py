"""``IP:PORT`` as people type it, read.  Pure; `packet.socket_address` writes it."""

import ipaddress

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.fields import Address


def parse_socket_address(text: str) -> tuple[Address, int | None]:
    """Address and port of ``IP:PORT``, ``[IP]:PORT``, ``IP`` or ``[IP]``; the port is None where there is none.

    A port after an IPv6 address needs the brackets.  Raises `LabError` for anything else, interface names (``%eth0``)
    and host names among it.
    """
    host, port, has_port = text, "", False
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        has_port, port = rest.startswith(":"), rest[1:]
        if not bracket or ":" not in host or (rest and not has_port):
            raise _no_address(text)
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        has_port = True
    if "%" in host:
        raise _no_address(text)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise _no_address(text) from None
    if not has_port:
        return address, None
    if not (port.isascii() and port.isdigit()) or len(port) > 5 or int(port) > 65535:
        raise LabError(f"{port[:80]!r} in {text[:80]!r} is not a port: give a number from 0 to 65535")
    return address, int(port)


def _no_address(text: str) -> LabError:
    return LabError(
        f"{text[:80]!r} is no address: give IP, IP:PORT or [IP]:PORT, such as 10.96.0.1:443 or [fd00::1]:80"
    )
