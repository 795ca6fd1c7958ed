"""Targets at random, each as iptables takes it, for the table and the hooks from which its chain can be reached.

Pure.  Verdicts that end everything are rarer in early tables: a packet that is dropped in raw tests nothing later.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass

from differential.draw import ALL_HOOKS, PORT_PROTOCOLS, Draw
from differential.packets import DPORTS

_TO_PRE = frozenset({"PREROUTING", "OUTPUT"})
_TO_POST = frozenset({"POSTROUTING", "INPUT"})
REJECTS = {
    4: (
        *("icmp-net-unreachable", "icmp-host-unreachable", "icmp-proto-unreachable", "icmp-port-unreachable"),
        *("icmp-net-prohibited", "icmp-host-prohibited", "icmp-admin-prohibited"),
    ),
    6: ("icmp6-no-route", "icmp6-adm-prohibited", "icmp6-addr-unreachable", "icmp6-port-unreachable"),
}
_SERVERS = {
    4: ("10.2.0.2", "10.2.0.3", "10.3.0.5", "10.1.0.2", "10.2.0.1", "10.1.0.1", "203.0.113.9", "127.0.0.1"),
    6: ("fd00:2::2", "fd00:2::3", "fd00:3::5", "fd00:1::2", "fd00:2::1", "fd00:1::1", "2001:db8:1::9"),
}
_SOURCES = {4: ("10.2.0.1", "10.3.0.1", "10.3.0.77", "192.0.2.77"), 6: ("fd00:2::1", "fd00:3::1", "fd00:3::77")}
_PREFIXES = {4: ("10.3.0.0/24", "10.2.0.0/16", "192.0.2.64/26"), 6: ("fd00:3::/64", "fd00:2::/48")}


def _fixed(text: str) -> Callable[[Draw], str]:
    return lambda draw: text


def _reject(draw: Draw) -> str:
    kinds = [*REJECTS[draw.family], "tcp-reset"] if draw.proto == "tcp" else list(REJECTS[draw.family])
    return "REJECT" if draw.random.random() < 0.1 else f"REJECT --reject-with {draw.one(*kinds)}"


def _translated(draw: Draw, addresses: tuple[str, ...], option: str) -> str:
    address = draw.random.choice(addresses)
    kind = draw.random.random()
    if kind < 0.08:
        address = f"{address}-{ipaddress.ip_address(address) + draw.random.choice((1, 2, 4))}"
    port = ""
    if draw.proto in PORT_PROTOCOLS and draw.random.random() < 0.55:
        low = draw.random.choice(DPORTS) if option == "--to-destination" else draw.random.choice((2000, 40000))
        port = f":{low}"
        if draw.random.random() < 0.12 and low < 65000:
            port += f"-{low + draw.random.choice((1, 9))}"
            if draw.random.random() < 0.5 and option == "--to-destination":
                port += f"/{draw.random.choice(DPORTS)}"
        if draw.random.random() < 0.15 and option == "--to-destination":
            return f"{option} {port}"
    if port and draw.family == 6:
        address = f"[{address}]"
    return f"{option} {address}{port}"


def _dnat(draw: Draw) -> str:
    return (
        f"DNAT {_translated(draw, _SERVERS[draw.family], '--to-destination')}{_flag(draw, '--persistent', '--random')}"
    )


def _snat(draw: Draw) -> str:
    flags = _flag(draw, "--persistent", "--random", "--random-fully")
    return f"SNAT {_translated(draw, _SOURCES[draw.family], '--to-source')}{flags}"


def _masquerade(draw: Draw) -> str:
    if draw.proto in PORT_PROTOCOLS and draw.random.random() < 0.35:
        return f"MASQUERADE --to-ports {draw.one('2000', '40000-40010', '1024-65535')}{_flag(draw, '--random')}"
    return f"MASQUERADE{_flag(draw, '--random', '--random-fully')}"


def _redirect(draw: Draw) -> str:
    if draw.proto in PORT_PROTOCOLS and draw.random.random() < 0.75:
        return f"REDIRECT --to-ports {draw.one('15001', '15006', '8080', '53', '8000-8001')}{_flag(draw, '--random')}"
    return "REDIRECT"


def _flag(draw: Draw, *flags: str) -> str:
    return f" {draw.one(*flags)}" if draw.random.random() < draw.flags else ""


def _netmap(draw: Draw) -> str:
    return f"NETMAP --to {draw.random.choice(_PREFIXES[draw.family])}"


def _set_mark(draw: Draw) -> str:
    kind = draw.one("--set-xmark", "--set-xmark", "--set-mark", "--or-mark", "--and-mark", "--xor-mark")
    value = draw.one("0x1", "0x20", "0x111", "0x539", "0x4000", "0x8001", "0xffffffff", "0x0")
    if kind in ("--set-xmark", "--set-mark") and draw.random.random() < 0.75:
        return f"{kind} {value}/{draw.one(value, '0xfff', '0x0', '0xffffffff', '0x4000', '0xff', '0x1')}"
    return f"{kind} {value}"


def _connmark(draw: Draw) -> str:
    kind = draw.random.random()
    if kind < 0.4:
        return f"CONNMARK {_set_mark(draw)}"
    way = draw.one("--save-mark", "--restore-mark")
    if kind < 0.65:
        return f"CONNMARK {way}"
    masks = ("0xffffffff", "0xfff", "0x4000", "0xff", "0xffff0000")
    if kind < 0.75:
        return f"CONNMARK {way} --mask {draw.one(*masks)}"
    return f"CONNMARK {way} --nfmask {draw.one(*masks)} --ctmask {draw.one(*masks)}"


def tproxy(draw: Draw) -> str:
    """A TPROXY to the transparent listener of the surroundings that have one."""
    address = draw.one("", "", f" --on-ip {'0.0.0.0' if draw.family == 4 else '::'}")
    mark = draw.one("", " --tproxy-mark 0x539/0xffffffff", " --tproxy-mark 0x539/0xffffffff", " --tproxy-mark 0x1/0xff")
    return f"TPROXY --on-port 15006{address}{mark}"


def _zone(option: str) -> Callable[[Draw], str]:
    return lambda draw: f"CT {option} {draw.one('1', '2')}"


_PREFIXED = ("seen", '"dropped: "', '"two words"')


def _log(draw: Draw) -> str:
    if draw.random.random() < 0.4:
        return f"NFLOG --nflog-group {draw.one('1', '30')} --nflog-prefix {draw.one(*_PREFIXED)}"
    return f"LOG --log-prefix {draw.one(*_PREFIXED)}{draw.one('', ' --log-level 6', ' --log-uid')}"


@dataclass(frozen=True, slots=True)
class Entry:
    """A target's writer, with the tables, hooks and protocols for which the kernel takes it, and how often it comes."""

    make: Callable[[Draw], str]
    weight: float
    tables: tuple[str, ...] = ("raw", "mangle", "nat", "filter", "security")
    hooks: frozenset[str] = ALL_HOOKS
    protos: tuple[str, ...] = ()


ENTRIES = (
    Entry(_fixed(""), 2),
    Entry(_fixed("ACCEPT"), 1.2, ("filter", "security")),
    Entry(_fixed("ACCEPT"), 0.6, ("raw", "mangle", "nat")),
    Entry(_fixed("DROP"), 0.7, ("filter", "security")),
    Entry(_fixed("DROP"), 0.15, ("raw", "mangle")),
    Entry(_fixed("RETURN"), 1.2),
    Entry(_reject, 1.6, ("filter",)),
    Entry(_dnat, 3, ("nat",), _TO_PRE),
    Entry(_redirect, 1.8, ("nat",), _TO_PRE),
    Entry(_netmap, 0.9, ("nat",)),
    Entry(_snat, 1.6, ("nat",), _TO_POST),
    Entry(_masquerade, 1.8, ("nat",), frozenset({"POSTROUTING"})),
    Entry(lambda draw: f"MARK {_set_mark(draw)}", 2.2),
    Entry(_connmark, 1.5),
    Entry(tproxy, 1.5, ("mangle",), frozenset({"PREROUTING"}), ("tcp", "udp")),
    Entry(_fixed("NOTRACK"), 0.35, ("raw",)),
    Entry(_fixed("CT --notrack"), 0.35, ("raw",)),
    *(
        Entry(_zone(option), weight, ("raw",))
        for option, weight in (("--zone", 0.4), ("--zone-orig", 0.1), ("--zone-reply", 0.1))
    ),
    Entry(_fixed("TRACE"), 0.4, ("raw",)),
    Entry(_log, 1),
    Entry(
        _fixed("TCPMSS --clamp-mss-to-pmtu"),
        0.5,
        ("mangle", "filter"),
        frozenset({"FORWARD", "OUTPUT", "POSTROUTING"}),
        ("tcp",),
    ),
    Entry(_fixed("TTL --ttl-set 33"), 0.4, ("mangle",)),
    Entry(_fixed("TOS --set-tos 0x10/0x3f"), 0.4, ("mangle",)),
    Entry(_fixed("DSCP --set-dscp 0x0a"), 0.4, ("mangle",)),
    Entry(_fixed("CLASSIFY --set-class 0001:0002"), 0.3, ("mangle",), frozenset({"FORWARD", "OUTPUT", "POSTROUTING"})),
    Entry(_fixed("CHECKSUM --checksum-fill"), 0.3, ("mangle",), protos=("udp",)),
)


def target(draw: Draw, table: str, hooks: frozenset[str], needs: dict[str, str]) -> str:
    """A target's text after ``-j``, "" for a rule that only counts.

    ``needs`` is told further conditions that the target cannot be without, by the module they need.
    """
    fitting = [
        entry
        for entry in ENTRIES
        if table in entry.tables and hooks <= entry.hooks and (not entry.protos or draw.proto in entry.protos)
    ]
    # NETMAP goes one way or the other: a chain that is reached from both kinds of hook cannot have it.
    if not (hooks <= _TO_PRE or hooks <= _TO_POST):
        fitting = [entry for entry in fitting if entry.make is not _netmap]
    chosen = draw.random.choices(fitting, [entry.weight for entry in fitting])[0]
    text = chosen.make(draw)
    if draw.family == 6:
        text = text.replace("TTL --ttl-set", "HL --hl-set")
    if text.startswith("TCPMSS"):
        needs["tcp"] = "--tcp-flags SYN,RST SYN"
    return text
