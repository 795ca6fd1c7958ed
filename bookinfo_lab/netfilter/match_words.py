"""What a rule asks of a packet, in words: one phrase for each condition, in the rule's own order.

Pure.  The matches of a Rule come in, phrases that follow "A packet" come out.  What always matches but does something
(recent --set, nfacct) is a phrase too.  Options that no phrase is known for are not passed over: they are named.
"""

from collections.abc import Callable

from .mark_words import compared, listed
from .match_options import Taken, flat, numbers, text, written
from .rule import Match, Option

_PROTOCOLS = {"tcp": "TCP", "udp": "UDP", "sctp": "SCTP", "icmp": "ICMP", "ipv6-icmp": "ICMPv6", "icmpv6": "ICMPv6"}


def subject(matches: tuple[Match, ...]) -> str:
    """``A TCP packet``, ``A packet``; ``Any packet that gets here`` where the rule asks nothing."""
    for option in (item for match in matches if not match.module for item in match.options):
        if option.name == "-p" and not option.negated and str(option.values[0]) in _PROTOCOLS:
            name = _PROTOCOLS[str(option.values[0])]
            return f"{'An' if name[0] in 'IS' else 'A'} {name} packet"
    return "A packet" if phrases(matches) else "Any packet that gets here"


def phrases(matches: tuple[Match, ...]) -> tuple[str, ...]:
    """The conditions of a rule, in order; the protocol is left to `subject` where that says it."""
    found: list[str] = []
    for match in matches:
        options = Taken(match.options)
        writer = _MODULES.get(match.module)
        if writer:
            found += [phrase for phrase in writer(options) if phrase]
        if options.rest or not writer:
            module = f"-m {match.module} " if match.module else ""
            found.append(f"under a condition not explained here ({module}{' '.join(options.rest)}".strip() + ")")
    return tuple(found)


def _address(option: Option) -> str:
    value = option.values[0]
    if getattr(value, "prefixlen", None) == getattr(value, "max_prefixlen", 0):
        return str(value.network_address)
    return str(value)


def _no(option: Option) -> str:
    return "not " if option.negated else ""


def _interface(option: Option) -> str:
    name = str(option.values[0])
    return f"an interface whose name starts with {name[:-1]}" if name.endswith("+") else name


def _of_rule(given: Taken) -> list[str]:
    found = []
    if source := given.asked("-s"):
        found.append(f"{_no(source)}from {_address(source)}")
    if destination := given.asked("-d"):
        found.append(f"{_no(destination)}to {_address(destination)}")
    if came := given.asked("-i"):
        found.append(f"that {'does not come' if came.negated else 'comes'} in by {_interface(came)}")
    if leaves := given.asked("-o"):
        found.append(f"that {'does not leave' if leaves.negated else 'leaves'} by {_interface(leaves)}")
    if protocol := given.asked("-p"):
        name = str(protocol.values[0])
        if protocol.negated or name not in _PROTOCOLS:
            of = f"protocol {name}" if name.isdigit() else _PROTOCOLS.get(name, name)
            found.append(f"that is {_no(protocol)}of {of}" if name.isdigit() else f"that is {_no(protocol)}{of}")
    if fragment := given.asked("-f"):
        found.append("that is a whole packet or a first fragment" if fragment.negated else "that is a later fragment")
    return found


def _ports(given: Taken) -> list[str]:
    found = []
    for name, which in (
        ("--sport", "source port"),
        ("--dport", "destination port"),
        ("--sports", "source port"),
        ("--dports", "destination port"),
        ("--ports", "source or destination port"),
    ):
        while option := given.asked(name):
            either = listed([numbers(item) for item in option.values], "or")
            if option.negated and name == "--ports":
                found.append(f"with neither its source nor its destination port {either}")
            else:
                found.append(f"with a {which} other than {either}" if option.negated else f"with {which} {either}")
    return found


def _tcp(given: Taken) -> list[str]:
    found = _ports(given)
    if syn := given.asked("--syn"):
        found.append(
            f"that {'does not open' if syn.negated else 'opens'} a TCP connection (SYN set; RST, ACK, FIN not)"
        )
    if flags := given.asked("--tcp-flags"):
        looked, wanted = text(flags.values[0]), text(flags.values[1])
        found.append(f"that of the flags {looked} has {_no(flags)}exactly {wanted} set")
    if option := given.asked("--tcp-option"):
        found.append(f"{'without' if option.negated else 'with'} the TCP option {text(option.values[0])}")
    return found


def _mark(what: str) -> Callable[[Taken], list[str]]:
    def write(given: Taken) -> list[str]:
        found = []
        if mark := given.asked("--mark"):
            found.append(compared(what, mark.values[0].value, mark.values[0].mask, mark.negated))
        return found

    return write


def _conntrack(given: Taken) -> list[str]:
    found = []
    for name, what in (("--ctstate", "connection state"), ("--state", "connection state"), ("--ctstatus", "status")):
        if option := given.asked(name):
            states = flat(option)
            is_any = f"is {'not ' * option.negated}{states[0]}"
            if len(states) > 1:
                is_any = f"is none of {', '.join(states)}" if option.negated else f"is {listed(states, 'or')}"
            found.append(f"whose {what} {is_any}")
    if direction := given.asked("--ctdir"):
        found.append(f"that is {_no(direction)}of its connection's {text(direction.values[0]).lower()} direction")
    for name, what in (
        ("--ctorigsrc", "was first sent from"),
        ("--ctorigdst", "was first sent to"),
        ("--ctreplsrc", "is answered from"),
        ("--ctrepldst", "is answered to"),
    ):
        if option := given.asked(name):
            found.append(f"whose connection {what} {'anything but ' * option.negated}{_address(option)}")
    for name, what in (("--ctorigdstport", "first destination"), ("--ctorigsrcport", "first source")):
        if option := given.asked(name):
            found.append(f"whose connection's {what} port is {_no(option)}{numbers(option.values[0])}")
    if protocol := given.asked("--ctproto"):
        found.append(f"whose connection is {_no(protocol)}of protocol {text(protocol.values[0])}")
    return found


def _owner(given: Taken) -> list[str]:
    found = []
    supplementary = given.flag("--suppl-groups")
    for name, what in (("--uid-owner", "uid"), ("--gid-owner", "gid")):
        while option := given.asked(name):
            extra = " (or of a process with that supplementary group)" * (supplementary and what == "gid")
            found.append(f"{_no(option)}sent by a socket of {what} {numbers(option.values[0])}{extra}")
    if exists := given.asked("--socket-exists"):
        found.append(f"{'without' if exists.negated else 'with'} a socket on this host")
    return found


def _addrtype(given: Taken) -> list[str]:
    found = []
    for name, what in (("--src-type", "source"), ("--dst-type", "destination")):
        if option := given.asked(name):
            kinds = flat(option)
            if kinds == ["LOCAL"]:
                found.append(f"whose {what} is {_no(option)}an address of this host (LOCAL)")
            else:
                found.append(f"whose {what} address is {_no(option)}of type {listed(kinds, 'or')}")
    for name, which in (("--limit-iface-in", "in"), ("--limit-iface-out", "out")):
        if given.flag(name):
            found.append(
                f"the address type being judged by the interface it {'comes in' if which == 'in' else 'leaves'} by"
            )
    return found


def _statistic(given: Taken) -> list[str]:
    mode = given.take("--mode")
    how = text(mode.values[0]) if mode and not mode.negated else ""
    if how == "random" and (chance := given.asked("--probability")):
        share = chance.values[0]
        part = f"{share:.6g}" if isinstance(share, float) else str(share)
        return [f"{_no(chance)}picked at random with probability {part}"]
    if how == "nth" and (every := given.asked("--every")):
        packet = given.take("--packet")
        start = numbers(packet.values[0]) if packet else "0"
        if every.negated:
            return [f"unless it is one in {numbers(every.values[0])} by count, beginning with packet {start}"]
        return [f"that is one in {numbers(every.values[0])} by count, beginning with packet {start}"]
    return [f"under a condition not explained here (-m statistic {written(mode)})"] if mode else []


def _recent(given: Taken) -> list[str]:
    name, mask = given.take("--name"), given.take("--mask")
    side = "destination" if given.flag("--rdest") else "source"
    given.flag("--rsource")
    seconds, hits, reap, ttl = (given.take(item) for item in ("--seconds", "--hitcount", "--reap", "--rttl"))
    netmask = text(mask.values[0]) if mask else "255.255.255.255"
    whole = netmask in ("255.255.255.255", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")
    address = f"{side} address" + ("" if whole else f", masked with {netmask},")
    where = f"the list {text(name.values[0]) if name else 'DEFAULT'}"
    limits = f" seen in the last {seconds.values[0]} s" if seconds else ""
    if hits:
        limits += f" at least {hits.values[0]} times"
    limits += " with this packet's TTL" * bool(ttl) + " (older entries are removed)" * bool(reap)
    if given.flag("--set"):
        return [f"whose {address} is put on {where}{limits} (this always matches)"]
    for option, then in (
        ("--rcheck", ""),
        ("--update", ", which renews its time"),
        ("--remove", " and is taken off it"),
    ):
        if found := given.asked(option):
            return [f"whose {address} is {_no(found)}on {where}{limits}{then}"]
    return [f"under a condition not explained here (-m recent on {where})"]


def _physdev(given: Taken) -> list[str]:
    found = []
    for name, verb in (("--physdev-in", "in"), ("--physdev-out", "out")):
        if option := given.asked(name):
            found.append(
                f"that {'does not go' if option.negated else 'goes'} {verb} by the bridge port {_interface(option)}"
            )
    for name, so, not_so in (
        ("--physdev-is-in", "came in by a bridge port", "did not come in by a bridge port"),
        ("--physdev-is-out", "goes out by a bridge port", "does not go out by a bridge port"),
        ("--physdev-is-bridged", "is bridged, not routed", "is not bridged"),
    ):
        if option := given.asked(name):
            found.append(f"that {not_so if option.negated else so}")
    return found


def _limit(given: Taken) -> list[str]:
    rate, burst = given.take("--limit"), given.take("--limit-burst")
    found = f"as long as no more than {text(rate.values[0])} come" if rate else "as long as no more than 3/hour come"
    return [found + f" (after a burst of {text(burst.values[0]) if burst else 5})"]


def _set(given: Taken) -> list[str]:
    if option := given.asked("--match-set"):
        name, *fields = flat(option)
        both = " and ".join({"src": "source", "dst": "destination"}.get(field, field) for field in fields)
        return [f"whose {both} is {_no(option)}in the ipset {name}"]
    return []


def _of(pairs: dict[str, str]) -> Callable[[Taken], list[str]]:
    """A writer for options that only need their value put into a phrase."""

    def write(given: Taken) -> list[str]:
        found = []
        for name, phrase in pairs.items():
            if option := given.asked(name) if "{no}" in phrase else given.take(name):
                value = listed([numbers(item) if hasattr(item, "last") else text(item) for item in option.values], "or")
                found.append(phrase.format(no=_no(option), value=value))
        return found

    return write


def _silent(given: Taken) -> list[str]:
    given.take("--comment")
    return []


_MODULES: dict[str, Callable[[Taken], list[str]]] = {
    "": _of_rule,
    "comment": _silent,
    "tcp": _tcp,
    "udp": _ports,
    "sctp": _ports,
    "udplite": _ports,
    "dccp": _ports,
    "multiport": _ports,
    "mark": _mark("whose mark"),
    "connmark": _mark("whose connection's mark"),
    "conntrack": _conntrack,
    "state": _conntrack,
    "owner": _owner,
    "addrtype": _addrtype,
    "statistic": _statistic,
    "recent": _recent,
    "physdev": _physdev,
    "limit": _limit,
    "set": _set,
    "nfacct": _of({"--nfacct-name": "counted by the accounting object {value} (this always matches)"}),
    "iprange": _of({"--src-range": "{no}from the range {value}", "--dst-range": "{no}to the range {value}"}),
    "icmp": _of({"--icmp-type": "that is {no}of ICMP type {value}"}),
    "icmp6": _of({"--icmpv6-type": "that is {no}of ICMPv6 type {value}"}),
    "pkttype": _of({"--pkt-type": "that was {no}sent as {value} on the link"}),
    "mac": _of({"--mac-source": "{no}from the MAC address {value}"}),
    "length": _of({"--length": "that is {no}{value} bytes long"}),
    "ttl": _of(
        {
            "--ttl-eq": "whose TTL is {no}{value}",
            "--ttl-lt": "whose TTL is {no}less than {value}",
            "--ttl-gt": "whose TTL is {no}more than {value}",
        }
    ),
    "cgroup": _of({"--path": "{no}sent from the cgroup {value}", "--cgroup": "{no}sent from the cgroup {value}"}),
}
