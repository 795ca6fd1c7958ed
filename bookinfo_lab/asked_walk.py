"""Edge.  What `bookinfo-lab walk` was asked, as values: the ruleset with what is known of its host, and the packet."""

import ipaddress
import json
from argparse import Namespace

from bookinfo_lab import reading
from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter import ruleset as rulesets
from bookinfo_lab.netfilter.facts import Facts, facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import Ruleset
from bookinfo_lab.netfilter.socket_text import parse_socket_address

# By the name that `facts` has for it: the option, what every entry has, the command.
_FORMS = {"addresses": ("addr", "ifname", "ip -j addr"), "routes": ("route", "dst", "ip -j route")}


def packet(arguments: Namespace) -> Packet:
    """The packet that the options describe.  Raises `LabError` for one that cannot be."""
    source, sport = parse_socket_address(arguments.source)
    destination, dport = parse_socket_address(arguments.to)
    return Packet(
        source,
        sport,
        destination,
        dport,
        arguments.proto,
        arguments.iface,
        arguments.local,
        arguments.uid,
        arguments.gid,
        arguments.mark,
        arguments.state,
    )


def ruleset(arguments: Namespace) -> Ruleset:
    """The rules of the file, with the facts of the other files.  Raises `LabError` for what cannot be read."""
    if [arguments.rules, arguments.addr, arguments.route].count("-") > 1:
        raise LabError("standard input can be one file only: give the others by name")
    known = _facts(arguments)
    return rulesets.parse(reading.text_of(arguments.rules), reading.name_of(arguments.rules), known)


def _facts(arguments: Namespace) -> Facts:
    owned = frozenset(map(_address, arguments.address))
    texts = {name: _printed(arguments, name, *form) for name, form in _FORMS.items()}
    return facts(**texts, out=arguments.out, owned=owned)


def _printed(arguments: Namespace, name: str, option: str, key: str, command: str) -> str:
    """The text of the file that an option names, if it is what ``command`` prints; "" without the option."""
    path = getattr(arguments, option)
    if path is None:
        return ""
    text = reading.text_of(path)
    try:
        items = json.loads(text)
        if not isinstance(items, list) or not all(
            isinstance(item, dict) and (not item or key in item) for item in items
        ):
            raise ValueError(f"a list of objects with {key!r} was expected")
        facts(**{name: text})
    except (LabError, AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        said = f"{type(error).__name__}: {error}" if isinstance(error, (AttributeError, KeyError, TypeError)) else error
        raise LabError(f"{reading.name_of(path)} is not what `{command}` prints: {said}") from None
    return text


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address, port = parse_socket_address(text)
    if port is not None:
        raise LabError(f"--address {text[:80]!r} has a port: give the address alone")
    return address
