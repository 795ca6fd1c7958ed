"""Whether a packet meets a rule's conditions, and if not, which one fails and at which values.

Pure.  `conditions` turns a rule's matches into tests once; each answers True, False, or an `Open` that names the fact
or the chance on which it hangs.  Follows iptables-extensions(8) and the kernel's net/netfilter/xt_*.c.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from bookinfo_lab.kube.fields import Address, Network

from .format_rule import format_rule
from .packet import socket_address
from .routing import address_kind
from .rule import Match, Option, Rule
from .state import Open, State
from .values import AddressPattern, AddressRange, IcmpType, Masked, Numbers, PortRange

Test = Callable[[State], "bool | Open"]
_PROTOCOLS = {"icmpv6": "ipv6-icmp"}
_NEEDS_STATE = {
    **dict.fromkeys(("limit", "hashlimit", "connlimit", "quota", "connbytes", "rateest"), "its {} has room"),
    **dict.fromkeys(("ttl", "hl", "length", "dscp", "tos", "mac", "ecn", "u32", "string", "bpf"), "the packet fits {}"),
    **dict.fromkeys(("pkttype", "rpfilter", "socket", "helper", "policy", "time", "cgroup"), "the packet fits {}"),
    **dict.fromkeys(("realm", "devgroup", "rt", "frag", "ipv6header"), "the packet fits {}"),
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: its test, how it is written (its text or its option), and what of the packet it looks at."""

    test: Test
    form: "str | tuple[str, Option]"
    seen: Callable[[State], str]

    @property
    def written(self) -> str:
        """As it stands in a rule."""
        return self.form if isinstance(self.form, str) else _written(*self.form)


def conditions(rule: Rule) -> tuple[Condition, ...]:
    """The conditions of a rule in its order."""
    return tuple(item for match in rule.matches for item in _of(match))


def failing(condition: Condition, state: State) -> str:
    """Why the condition does not hold: as it is written, and the packet's own value."""
    return f"{condition.written}, but {condition.seen(state)}"


def _of(match: Match) -> list[Condition]:
    if match.module in _WHOLE:
        return _WHOLE[match.module](match)
    if match.module in _NEEDS_STATE:
        return [_asked(match)]
    made: list[Condition] = []
    asks_state = match.module == "conntrack" and match.option("--ctstate") is not None
    for option in match.options:
        maker = _MAKERS.get((match.module, option.name)) if option.known else None
        if maker is not None:
            condition = _negatable(option, (match.module, option), *maker(option))
            if match.module in _OF_AN_ENTRY and option.name not in ("--ctstate", "--state"):
                condition = _of_an_entry(condition, asks_state)
            made.append(condition)
            continue
        made.append(_unmodelled(_written(match.module, option)))
    if not match.options and match.module not in _WITHOUT_OPTIONS:
        made.append(_unmodelled(f"-m {match.module}"))
    return made


def _asked(match: Match) -> Condition:
    """One question for all options of a match: a yes to the one that is negated is a no to the match."""
    is_negated = len(match.options) == 1 and match.options[0].negated
    options = [replace(item, negated=False) for item in match.options] if is_negated else list(match.options)
    asked = " ".join(_written(match.module, item) for item in options) or f"-m {match.module}"
    return _open(_NEEDS_STATE[match.module].format(asked), asked, is_negated)


def _of_an_entry(condition: Condition, without: bool) -> Condition:
    """The condition asked of a packet that has a conntrack entry; one that has none meets it only ``without``."""

    def test(state: State) -> bool | Open:
        return condition.test(state) if state.has_entry else without

    def seen(state: State) -> str:
        return condition.seen(state) if state.has_entry else "no connection is known of the packet here"

    return Condition(test, condition.form, seen)


def _written(module: str, option: Option) -> str:
    # Whole rules are what `format_rule` writes; one option of one is the same with everything else left out.
    text = format_rule(Rule("", "", 0, (Match(module, (option,)),)))
    prefix = f"-m {module} " if module else ""
    return text.removeprefix(prefix)


def _negatable(option: Option, form: tuple[str, Option], test: Test, seen: Callable[[State], str]) -> Condition:
    if not option.negated:
        return Condition(test, form, seen)

    def negated(state: State) -> bool | Open:
        found = test(state)
        if isinstance(found, Open):
            return replace(found, negated=not found.negated)
        return not found

    return Condition(negated, form, seen)


def _open(question: str, written: str, negated: bool = False) -> Condition:
    return Condition(lambda state: Open(question, negated=negated), written, lambda state: f"not: {question}")


def _unmodelled(written: str) -> Condition:
    return Condition(lambda state: Open(written, is_unmodelled=True), written, lambda state: "it is not modelled")


Made = tuple[Test, Callable[[State], str]]


def _network(option: Option, *, is_source: bool) -> Made:
    value = option.values[0]
    if isinstance(value, AddressPattern):
        base, mask, version = int(value.address), int(value.mask), value.address.version
    else:
        base, mask, version = int(value.network_address), int(value.netmask), value.version
    name = "source" if is_source else "destination"

    def test(state: State) -> bool | Open:
        number = state.src_number if is_source else state.dst_number
        if number is None:
            return Open(f"the {name} is in {value}", is_lasting=True)
        return state.version == version and number & mask == base

    return test, lambda state: f"the {name} is {state.src if is_source else state.dst}"


def _interface(option: Option, *, is_in: bool) -> Made:
    wanted: str = option.values[0]
    prefix = wanted[:-1] if wanted.endswith("+") else None
    verb = "comes in by" if is_in else "leaves by"
    opened = Open(
        f"it {verb} {wanted}",
        is_lasting=True,
        settles=None if prefix is not None else ("iif" if is_in else "out", wanted),
    )

    def test(state: State) -> bool | Open:
        name = state.iif if is_in else state.out
        if name is None:
            return opened
        return bool(name == wanted if prefix is None else name.startswith(prefix))

    def seen(state: State) -> str:
        name = state.iif if is_in else state.out
        return f"it {verb} {'another' if name is None else name or 'none here'}"

    return test, seen


def _protocol(option: Option) -> Made:
    wanted: str = option.values[0]

    def test(state: State) -> bool | Open:
        return wanted == "all" or _PROTOCOLS.get(state.proto, state.proto) == wanted

    return test, lambda state: f"the protocol is {state.proto}"


def _port(option: Option, *, is_source: bool) -> Made:
    wanted: tuple[PortRange, ...] = option.values
    name = "source port" if is_source else "destination port"
    shown = ",".join(f"{item.first}:{item.last}" if item.first != item.last else str(item.first) for item in wanted)

    single = wanted[0].first if len(wanted) == 1 and wanted[0].first == wanted[0].last else None
    settles = ("sport" if is_source else "dport", single) if single is not None else None
    opened = Open(f"its {name} is {'in ' if single is None else ''}{shown}", is_lasting=True, settles=settles)
    is_any = any(item.first == 0 and item.last == 65535 for item in wanted)

    def test(state: State) -> bool | Open:
        port = state.sport if is_source else state.dport
        if port is None:
            return is_any or opened
        return any(port in item for item in wanted)

    return test, lambda state: f"the {name} is {state.sport if is_source else state.dport}"


def _either_port(option: Option) -> Made:
    source, destination = _port(option, is_source=True)[0], _port(option, is_source=False)[0]

    def test(state: State) -> bool | Open:
        one, other = source(state), destination(state)
        if one is True or other is True:
            return True
        return one if isinstance(one, Open) else other

    return test, lambda state: f"the ports are {state.sport} and {state.dport}"


def _flags(mask: tuple[str, ...], wanted: tuple[str, ...]) -> Made:
    every = {"FIN", "SYN", "RST", "PSH", "ACK", "URG"}
    looked = every if "ALL" in mask else set(mask) - {"NONE"}
    expected = every if "ALL" in wanted else set(wanted) - {"NONE"}

    def test(state: State) -> bool | Open:
        if state.tracked in ("invalid", "untracked", "related"):
            return Open(f"of the TCP flags {','.join(sorted(looked))} it carries just {','.join(sorted(expected))}")
        carried = {"SYN"} if state.tracked == "new" else {"ACK"}
        if (
            state.tracked == "established"
            and looked & {"PSH", "FIN", "URG", "RST"}
            and looked & carried == expected & carried
        ):
            return Open(f"of the TCP flags {','.join(sorted(looked))} it carries just {','.join(sorted(expected))}")
        return looked & carried == expected

    return test, lambda state: f"the TCP flags are {'SYN' if state.tracked == 'new' else 'ACK'}"


def _icmp(option: Option) -> Made:
    wanted: IcmpType = option.values[0]

    def test(state: State) -> bool | Open:
        if wanted.number is None:
            return True
        return state.icmp_type == wanted.number and wanted.code in (None, state.icmp_code)

    return test, lambda state: f"the ICMP type is {state.icmp_type}/{state.icmp_code}"


def _states(state: State) -> set[str]:
    found = {state.ct.upper()}
    if state.has_entry:
        found |= {"DNAT"} if state.dnat is not None else set()
        found |= {"SNAT"} if state.snat is not None else set()
    return found


def _ctstate(option: Option) -> Made:
    wanted = set(option.values[0])
    return lambda state: bool(_states(state) & wanted), lambda state: f"the state is {','.join(sorted(_states(state)))}"


def _ctstatus(option: Option) -> Made:
    wanted = set(option.values[0])  # NONE asks for no bit, and is never met; EXPECTED is what `related` begins with

    def test(state: State) -> bool | Open:
        is_answered = state.tracked == "established"
        if "SEEN_REPLY" in wanted and is_answered:
            return True
        if "CONFIRMED" in wanted and (is_answered or state.is_second_pass):
            return True
        if "EXPECTED" in wanted and state.tracked == "related":
            return Open("the connection was expected", is_lasting=True)
        return Open("the connection is assured", is_lasting=True) if "ASSURED" in wanted and is_answered else False

    return test, lambda state: f"the connection is {state.ct}"


def _original(option: Option, *, index: int) -> Made:
    value: PortRange | AddressPattern | Network = option.values[0]
    names = ("original source", "original source port", "original destination", "original destination port")

    def test(state: State) -> bool | Open:
        found = state.origin[index]
        if found is None:
            return Open(f"its {names[index]} is in {value}", is_lasting=True)
        if isinstance(found, int):
            return isinstance(value, PortRange) and found in value
        if isinstance(value, AddressPattern):
            return found.version == value.address.version and int(found) & int(value.mask) == int(value.address)
        return not isinstance(value, PortRange) and found in value

    return test, lambda state: f"the {names[index]} is {state.origin[index]}"


def _direction(option: Option) -> Made:
    wanted = str(option.values[0]).upper()
    return lambda state: wanted == "ORIGINAL", lambda state: "the packet goes in the original direction"


def _mark(option: Option) -> Made:
    wanted: Masked = option.values[0]
    return (
        lambda state: state.mark & wanted.mask == wanted.value,
        lambda state: f"the mark is {state.mark:#x}",
    )


def _connmark(option: Option) -> Made:
    wanted: Masked = option.values[0]
    return (
        lambda state: state.ctmark & wanted.mask == wanted.value,
        lambda state: f"the connection's mark is {state.ctmark:#x}",
    )


def _owner(option: Option, *, is_user: bool) -> Made:
    wanted = option.values[0]
    name = "uid" if is_user else "gid"

    def test(state: State) -> bool | Open:
        if not state.has_socket:
            return False
        number = state.uid if is_user else state.gid
        if isinstance(wanted, Numbers):
            if number is None:
                shown = str(wanted.first) if wanted.first == wanted.last else f"{wanted.first}-{wanted.last}"
                single = (name, wanted.first) if wanted.first == wanted.last else None
                return Open(f"its sender's {name} is {shown}", is_lasting=True, settles=single)
            return number in wanted
        return Open(f"its sender's {name} is that of {wanted}", is_lasting=True)

    def seen(state: State) -> str:
        if not state.has_socket:
            return "no socket of this host holds the packet here"
        return f"the sender's {name} is {state.uid if is_user else state.gid}"

    return test, seen


def _socket_exists(option: Option) -> Made:
    return lambda state: state.has_socket, lambda state: "no socket of this host holds the packet here"


def _address_type(option: Option, *, is_source: bool) -> Made:
    wanted = set(option.values[0])
    name = "source" if is_source else "destination"

    def test(state: State) -> bool | Open:
        address = state.src if is_source else state.dst
        found = kind_in(state, address)
        if state.version == 6 and address is not None:
            return _is_of_types6(wanted, address, found)
        if found is not None:
            return found in wanted
        if wanted <= {"MULTICAST", "BROADCAST"}:
            return Open(f"{address} is a broadcast address here", is_lasting=True) if "BROADCAST" in wanted else False
        if not wanted & {"LOCAL", "UNICAST"}:
            return Open(f"{address} is {' or '.join(sorted(wanted))} here", is_lasting=True)
        if {"LOCAL", "UNICAST"} <= wanted:
            return Open(f"{address} is a broadcast address here", is_lasting=True, negated=True)
        return Open(local_question(address), is_lasting=True, negated="LOCAL" not in wanted)

    def seen(state: State) -> str:
        address = state.src if is_source else state.dst
        return f"the {name} {address} is {kind_in(state, address) or 'not one'}"

    return test, seen


def _is_of_types6(wanted: set[str], address: Address, found: str | None) -> bool | Open:
    """In IPv6 every type that is named must fit, and routes are asked for some only (xt_addrtype.c, match_type6)."""
    fits = {
        "MULTICAST": address.is_multicast,
        "UNICAST": not address.is_multicast and not address.is_unspecified,
        "UNSPEC": address.is_unspecified,
    }
    if not all(fits[kind] for kind in wanted & fits.keys()):
        return False
    if not wanted & {"LOCAL", "ANYCAST", "UNREACHABLE"}:
        return True
    if "LOCAL" in wanted and found == "LOCAL":
        return True
    if wanted & {"ANYCAST", "UNREACHABLE"}:
        return Open(f"{address} is {' or '.join(sorted(wanted))} here", is_lasting=True)
    return Open(local_question(address), is_lasting=True) if found is None else False


def kind_in(state: State, address: Address | None) -> str | None:
    """The address's type as far as this branch knows it."""
    if address is None:
        return "LOCAL"
    known = state.known.get(local_question(address))
    if known is not None:
        return "LOCAL" if known else "UNICAST"
    return address_kind(state.facts, address)


def local_question(address: Address | None) -> str:
    """The fact that `kind_in` looks up."""
    return f"{address} is an address of this host"


def _bridge_port(option: Option) -> Made:
    """Whether the frame passed a bridge of this host: no where neither interface is a bridge with ports."""
    opened = Open(
        f"it passed a bridge of this host, as {_written('physdev', replace(option, negated=False))} asks",
        is_lasting=True,
    )

    def test(state: State) -> bool | Open:
        bridges = state.facts.bridges if state.facts is not None else None
        if state.iif == "" and state.out == "lo":
            return False
        if bridges is None or state.iif is None or state.out is None:
            return opened
        return opened if {state.iif, state.out} & bridges else False

    return test, lambda state: "no bridge of this host has carried it"


def _range(option: Option, *, is_source: bool) -> Made:
    wanted: AddressRange = option.values[0]
    low, high, version = int(wanted.first), int(wanted.last), wanted.first.version

    def test(state: State) -> bool | Open:
        number = state.src_number if is_source else state.dst_number
        if number is None:
            name = "source" if is_source else "destination"
            return Open(f"the {name} is in {wanted.first}-{wanted.last}", is_lasting=True)
        return state.version == version and low <= number <= high

    return test, lambda state: f"the address is {state.src if is_source else state.dst}"


def _statistic(match: Match) -> list[Condition]:
    probability, every = match.option("--probability"), match.option("--every")
    if probability is not None:
        chance = math.floor(float(probability.values[0]) * 2**31 + 0.5) / 2**31
        written = _written("statistic", probability)
        opened = Open(written, chance, probability.negated)
        return [Condition(lambda state: opened, written, lambda state: "the lot fell otherwise")]
    if every is not None:
        at = match.option("--packet")
        written = f"--mode nth --every {every.values[0]} --packet {at.values[0] if at else 0}"
        return [_open(f"the packet is the rule's turn ({written})", written, every.negated)]
    return [_unmodelled("-m statistic")]


def _recent(match: Match) -> list[Condition]:
    name = _list_name(match)
    is_source = match.option("--rdest") is None
    flag = next((item for item in match.options if item.name in _RECENT), None)
    if flag is None:
        return [_unmodelled("-m recent")]
    limits = [f"{item.name} {item.values[0]}" for item in match.options if item.name in ("--seconds", "--hitcount")]
    written = " ".join([flag.name, *limits, f"--name {name}"])
    if flag.name == "--set":
        is_met = not flag.negated
        return [Condition(lambda state: is_met, written, lambda state: "it always adds the address")]
    within = f" ({' '.join(limits)})" if limits else ""

    def test(state: State) -> Open:
        address = state.src if is_source else state.dst
        return Open(f"{address} is in the recent list {name}{within}", negated=flag.negated, is_lasting=True)

    return [Condition(test, written, lambda state: f"{state.src if is_source else state.dst} is not in that list")]


_RECENT = ("--set", "--rcheck", "--update", "--remove")


def _list_name(match: Match) -> str:
    named = match.option("--name")
    return str(named.values[0]) if named else "DEFAULT"


def recent_lists(rule: Rule) -> tuple[str, ...]:
    """The recent lists that a rule's conditions write to: what was known of them is not known after it."""
    writing = [item for item in rule.matches if item.module == "recent" and item.option("--rcheck") is None]
    return tuple(f"is in the recent list {_list_name(item)}" for item in writing)


def _set(match: Match) -> list[Condition]:
    option = match.option("--match-set")
    if option is None:
        return [_unmodelled("-m set")]
    name, flags = option.values
    written = f"--match-set {name} {flags}"

    def test(state: State) -> Open:
        parts = []
        for flag in flags.split(","):
            is_source = flag == "src"
            address, port = (state.src, state.sport) if is_source else (state.dst, state.dport)
            parts.append("unknown" if address is None else socket_address(address, port))
        return Open(f"{' with '.join(parts)} is in the set {name} ({flags})", negated=option.negated, is_lasting=True)

    return [Condition(test, written, lambda state: "it is not in that set")]


def _always(match: Match) -> list[Condition]:
    return []


_OF_AN_ENTRY = {"conntrack", "connmark"}
_WITHOUT_OPTIONS = {
    "tcp",
    "udp",
    "sctp",
    "udplite",
    "dccp",
    "icmp",
    "icmp6",
    "comment",
    "conntrack",
    "nfacct",
    "multiport",
}
_WHOLE: dict[str, Callable[[Match], list[Condition]]] = {
    "comment": _always,
    "nfacct": _always,
    "statistic": _statistic,
    "recent": _recent,
    "set": _set,
}
_MAKERS: dict[tuple[str, str], Callable[[Option], Made]] = {
    ("", "-s"): lambda option: _network(option, is_source=True),
    ("", "-d"): lambda option: _network(option, is_source=False),
    ("", "-i"): lambda option: _interface(option, is_in=True),
    ("", "-o"): lambda option: _interface(option, is_in=False),
    ("", "-p"): _protocol,
    ("", "-f"): lambda option: (lambda state: False, lambda state: "the packet is whole"),
    **{
        (module, "--sport"): lambda option: _port(option, is_source=True)
        for module in ("tcp", "udp", "sctp", "udplite", "dccp")
    },
    **{
        (module, "--dport"): lambda option: _port(option, is_source=False)
        for module in ("tcp", "udp", "sctp", "udplite", "dccp")
    },
    ("tcp", "--syn"): lambda option: _flags(("FIN", "SYN", "RST", "ACK"), ("SYN",)),
    ("tcp", "--tcp-flags"): lambda option: _flags(*option.values),
    ("multiport", "--sports"): lambda option: _port(option, is_source=True),
    ("multiport", "--dports"): lambda option: _port(option, is_source=False),
    ("multiport", "--ports"): _either_port,
    ("icmp", "--icmp-type"): _icmp,
    ("icmp6", "--icmpv6-type"): _icmp,
    ("conntrack", "--ctstate"): _ctstate,
    ("conntrack", "--ctstatus"): _ctstatus,
    ("conntrack", "--ctproto"): _protocol,
    ("conntrack", "--ctdir"): _direction,
    ("conntrack", "--ctorigsrc"): lambda option: _original(option, index=0),
    ("conntrack", "--ctorigsrcport"): lambda option: _original(option, index=1),
    ("conntrack", "--ctorigdst"): lambda option: _original(option, index=2),
    ("conntrack", "--ctorigdstport"): lambda option: _original(option, index=3),
    ("state", "--state"): _ctstate,
    ("mark", "--mark"): _mark,
    ("connmark", "--mark"): _connmark,
    ("owner", "--uid-owner"): lambda option: _owner(option, is_user=True),
    ("owner", "--gid-owner"): lambda option: _owner(option, is_user=False),
    ("owner", "--socket-exists"): _socket_exists,
    ("addrtype", "--src-type"): lambda option: _address_type(option, is_source=True),
    ("addrtype", "--dst-type"): lambda option: _address_type(option, is_source=False),
    **{("physdev", f"--physdev-{name}"): _bridge_port for name in ("in", "out", "is-in", "is-out", "is-bridged")},
    ("iprange", "--src-range"): lambda option: _range(option, is_source=True),
    ("iprange", "--dst-range"): lambda option: _range(option, is_source=False),
}
