"""How the values of options are written: one `Kind` each, text to value and back.

Pure.  ``parse`` raises ValueError, with a clause that says what was expected, for text that is not of its kind.  What
``write`` gives is what iptables takes, not always letter by letter what iptables-save prints.
"""

import ipaddress
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .values import AddressPattern, AddressRange, IcmpType, Masked, Numbers, PortRange, Translation

PROTOCOL_NAMES = {1: "icmp", 6: "tcp", 17: "udp", 33: "dccp", 50: "esp", 51: "ah", 58: "ipv6-icmp", 132: "sctp"}
PROTOCOL_NAMES[136] = "udplite"
_NUMBER = re.compile(r"0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,20}|[1-9][0-9]{0,19}")
_PROBABILITY = re.compile(r"[0-9]{1,20}(?:\.[0-9]{0,80})?|\.[0-9]{1,80}")
_PLAIN = re.compile(r"[^\s\"'\\]+")
_SAFE = re.compile(r"[-_0-9A-Za-z]+")
_ICMP = {
    "echo-reply": (0, None),
    "pong": (0, None),
    "destination-unreachable": (3, None),
    "network-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "protocol-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "source-quench": (4, None),
    "redirect": (5, None),
    "echo-request": (8, None),
    "ping": (8, None),
    "router-advertisement": (9, None),
    "router-solicitation": (10, None),
    "time-exceeded": (11, None),
    "ttl-exceeded": (11, None),
    "parameter-problem": (12, None),
    "any": (None, None),
    "timestamp-request": (13, None),
    "timestamp-reply": (14, None),
}
_ICMPV6 = {
    "destination-unreachable": (1, None),
    "packet-too-big": (2, None),
    "time-exceeded": (3, None),
    "ttl-exceeded": (3, None),
    "parameter-problem": (4, None),
    "bad-header": (4, 0),
    "echo-request": (128, None),
    "echo-reply": (129, None),
    "router-solicitation": (133, None),
    "router-advertisement": (134, None),
    "neighbour-solicitation": (135, None),
    "neighbor-solicitation": (135, None),
    "redirect": (137, None),
    "neighbour-advertisement": (136, None),
    "neighbor-advertisement": (136, None),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to write values: ``words`` words on the line make one option's values.

    ``parse`` takes those words, ``write`` gives them back.
    """

    parse: Callable[..., tuple[Any, ...]]
    write: Callable[..., tuple[str, ...]]
    words: int = 1


def _one(parse: Callable[[str], Any], write: Callable[[Any], str] = str) -> Kind:
    return Kind(lambda word: (parse(word),), lambda value: (write(value),))


def _each(parse: Callable[[str], Any], write: Callable[[Any], str]) -> Kind:
    return Kind(
        lambda word: tuple(parse(part) for part in word.split(",")), lambda *values: (",".join(map(write, values)),)
    )


def number(word: str, largest: int = 2**32 - 1) -> int:
    """A number from 0 to ``largest`` in decimal, hexadecimal (0x) or octal (0)."""
    found = -1
    if _NUMBER.fullmatch(word):
        found = int(word, 16) if word[:2] in ("0x", "0X") else int(word, 8 if word.startswith("0") else 10)
    if not 0 <= found <= largest:
        raise ValueError(f"a number from 0 to {largest} was expected")
    return found


def _port(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) <= 65535):
        raise ValueError("a port number was expected")
    return int(word)


def _ports(word: str, between: str = ":") -> PortRange:
    first, dash, last = word.partition(between)
    low = _port(first) if first or not dash or between == "-" else 0
    high = low if not dash else _port(last) if last or between == "-" else 65535
    if low > high:
        raise ValueError("the first port of a range is larger than its last")
    return PortRange(low, high)


def _ports_text(ports: PortRange, between: str = ":") -> str:
    return str(ports.first) if ports.first == ports.last else f"{ports.first}{between}{ports.last}"


def _address(word: str) -> Any:
    try:
        if "%" in word:
            raise ValueError
        return ipaddress.ip_address(word)
    except ValueError:
        raise ValueError("an IP address was expected") from None


def _network(word: str) -> Any:
    address, slash, mask = word.partition("/")
    found = _address(address)
    if not slash:
        return ipaddress.ip_network(found)
    try:
        if mask.isascii() and mask.isdigit():
            return ipaddress.ip_network(word, strict=False)
        bits = _address(mask)
        if bits.version != found.version:
            raise ValueError
        length, width = int(bits).bit_count(), bits.max_prefixlen
        if int(bits) == (2**length - 1) << (width - length):
            return ipaddress.ip_network(f"{found}/{length}", strict=False)
    except ValueError:
        raise ValueError("an address with a prefix length or mask was expected") from None
    return AddressPattern(type(found)(int(found) & int(bits)), bits)


def _network_text(value: Any) -> str:
    return f"{value.address}/{value.mask}" if isinstance(value, AddressPattern) else str(value)


def _addresses(word: str) -> AddressRange:
    first, _, last = word.partition("-")
    return AddressRange(_address(first), _address(last or first))


def _masked(word: str) -> Masked:
    value, slash, mask = word.partition("/")
    return Masked(number(value), number(mask) if slash else 2**32 - 1)


def _set_mark(word: str) -> Masked:
    found = _masked(word)
    return Masked(found.value, found.mask | found.value)


def _masked_text(value: Masked) -> str:
    return f"{value.value:#x}" if value.mask == 2**32 - 1 else f"{value.value:#x}/{value.mask:#x}"


def _numbers(word: str, between: str = "-") -> Any:
    first, dash, last = word.partition(between)
    found = Numbers(number(first), number(last) if dash else number(first))
    if found.first > found.last:
        raise ValueError("the first number of a range is larger than its last")
    return found


def _owner(word: str) -> Any:
    return (
        _numbers(word) if word[:1].isdigit() else plain(word)
    )  # a user's or group's name: only its machine knows the number


def _numbers_text(value: Any, between: str = "-") -> str:
    if isinstance(value, str):
        return value
    return str(value.first) if value.first == value.last else f"{value.first}{between}{value.last}"


def _protocol(word: str) -> str:
    name = PROTOCOL_NAMES.get(int(word), str(int(word))) if word.isascii() and word.isdigit() else word.lower()
    name = {"icmpv6": "ipv6-icmp", "0": "all"}.get(name, name)
    if not re.fullmatch(r"[a-z0-9][-a-z0-9.]*", name) or (name.isdigit() and int(name) > 255):
        raise ValueError("a protocol was expected")
    return name


def _icmp(names: Mapping[str, tuple[int | None, int | None]]) -> Callable[[str], IcmpType]:
    def parse(word: str) -> IcmpType:
        if word in names:
            return IcmpType(*names[word])
        kind, slash, code = word.partition("/")
        return IcmpType(number(kind, 255), number(code, 255) if slash else None)

    return parse


def _icmp_text(value: IcmpType) -> str:
    if value.number is None:
        return "any"
    return str(value.number) if value.code is None else f"{value.number}/{value.code}"


def _translation(word: str) -> Translation:
    bracketed = re.fullmatch(r"\[([^]-]*)(?:\]?-\[?([^]]*))?\](?::(.*))?", word)
    if bracketed:
        first, last, ports = bracketed[1], bracketed[2] or bracketed[1], bracketed[3]
    elif word.count(":") > 1:
        first, _, last = word.partition("-")
        ports = None
    else:
        addresses, colon, rest = word.partition(":")
        first, _, last = addresses.partition("-")
        ports = rest if colon else None
    low = _address(first) if first else None
    high = _address(last) if last else low
    if low is None and ports is None:
        raise ValueError("an address, a port or both were expected")
    if ports is None:
        return Translation(low, high, None)
    numbers, slash, base = ports.partition("/")
    return Translation(low, high, _ports(numbers, "-"), _port(base) if slash else None)


def _translation_text(value: Translation) -> str:
    text = ""
    if value.first is not None:
        wrapped = value.first.version == 6 and value.ports is not None
        ends = [value.first] if value.first == value.last else [value.first, value.last]
        text = "-".join(map(str, ends))
        text = f"[{text}]" if wrapped else text
    if value.ports is None:
        return text
    base = "" if value.base is None else f"/{value.base}"
    return f"{text}:{_ports_text(value.ports, '-')}{base}"


def _probability(word: str) -> float:
    found = float(word) if _PROBABILITY.fullmatch(word) else -1.0
    if not 0 <= found <= 1:
        raise ValueError("a probability from 0 to 1 was expected")
    # The kernel has 31 bits for it, iptables-save prints eleven digits.
    return found if float(f"{found:.11f}") == found else math.floor(found * 2**31 + 0.5) / 2**31


def _probability_text(value: float) -> str:
    printed = f"{value:.11f}"  # as iptables-save does
    return printed if float(printed) == value else f"{value:.31f}".rstrip("0")


def _words(word: str) -> tuple[str, ...]:
    return tuple(plain(part).upper() for part in word.split(","))


def plain(word: str) -> str:
    """A name: a word that needs no quotes.  Raises ValueError for another."""
    if not _PLAIN.fullmatch(word):
        raise ValueError("a name without blanks and quotes was expected")
    return word


def quoted(text: str) -> str:
    """A word as it stands in a rule: in quotes where it holds more than letters, digits, - and _."""
    if _SAFE.fullmatch(text):
        return text
    return '"' + re.sub(r'(["\\\'])', r"\\\1", text) + '"'


FLAG = Kind(lambda: (), lambda: (), 0)
TEXT = Kind(lambda word: (word,), lambda value: (quoted(value),))
NAME = _one(plain)
INTEGER = _one(number)
HEX = _one(number, "{:#x}".format)
NETWORK = _one(_network, _network_text)
ADDRESS = _one(_address)
ADDRESSES = _one(_addresses, lambda value: f"{value.first}-{value.last}")
PROTOCOL = _one(_protocol)
PORTS = _one(_ports, _ports_text)
PORTS_DASH = _one(lambda word: _ports(word, "-"), lambda value: _ports_text(value, "-"))
PORT_LIST = _each(_ports, _ports_text)
MARK = _one(_masked, _masked_text)
SET_XMARK = _one(_masked, lambda value: f"{value.value:#x}/{value.mask:#x}")
SET_MARK = _one(_set_mark)
AND_MARK = _one(lambda word: Masked(0, ~number(word) & (2**32 - 1)))
OR_MARK = _one(lambda word: Masked(number(word), number(word)))
XOR_MARK = _one(lambda word: Masked(number(word), 0))
OWNER = _one(_owner, _numbers_text)
NUMBERS_COLON = _one(lambda word: _numbers(word, ":"), lambda value: _numbers_text(value, ":"))
WORDS = Kind(lambda word: (_words(word),), lambda value: (",".join(value),))
TCP_FLAGS = Kind(
    lambda mask, set_: (_words(mask), _words(set_)), lambda mask, set_: (",".join(mask), ",".join(set_)), 2
)
ICMP_TYPE = _one(_icmp(_ICMP), _icmp_text)
ICMPV6_TYPE = _one(_icmp(_ICMPV6), _icmp_text)
PROBABILITY = _one(_probability, _probability_text)
TRANSLATION = _one(_translation, _translation_text)
SET = Kind(lambda name, flags: (plain(name), plain(flags)), lambda name, flags: (name, flags), 2)
