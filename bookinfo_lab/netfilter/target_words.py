"""What a rule does with a packet, in words: the end of a sentence whose subject is the packet.

Pure.  A Rule comes in, what follows "A packet …" comes out: the verdict, or what is changed and that the packet goes
on.  Options of a target that no words are known for are named, never passed over.
"""

from collections.abc import Callable

from .mark_words import ALL, changed, listed
from .match_options import Taken, flat, numbers
from .rule import Rule
from .tables import BASE_CHAINS
from .values import Masked, Translation

_ANSWERS = {
    "tcp-reset": "a TCP RST",
    "icmp-proto-unreachable": "ICMP protocol unreachable",
    "icmp-net-unreachable": "ICMP net unreachable",
    "icmp-host-unreachable": "ICMP host unreachable",
    "icmp-port-unreachable": "ICMP port unreachable",
    "icmp-net-prohibited": "ICMP net prohibited",
    "icmp-host-prohibited": "ICMP host prohibited",
    "icmp-admin-prohibited": "ICMP admin prohibited",
    "icmp6-no-route": "ICMPv6 no route",
    "icmp6-adm-prohibited": "ICMPv6 admin prohibited",
    "icmp6-addr-unreachable": "ICMPv6 address unreachable",
    "icmp6-port-unreachable": "ICMPv6 port unreachable",
}


# Targets of iptables-extensions(8) that no words are known for here: none of them is a chain's name.
_UNEXPLAINED = (
    *("AUDIT", "CHECKSUM", "CLASSIFY", "CLUSTERIP", "CONNSECMARK", "DSCP", "ECN", "HL", "HMARK", "IDLETIMER", "LED"),
    *(
        "NETMAP",
        "NFQUEUE",
        "QUEUE",
        "RATEEST",
        "SECMARK",
        "SET",
        "SYNPROXY",
        "TCPOPTSTRIP",
        "TEE",
        "TOS",
        "TTL",
        "ULOG",
    ),
)


def action(rule: Rule, is_chain: bool | None = None) -> str:
    """What ``rule`` does; ``is_chain`` says whether its table has a chain of its target's name (None: not known)."""
    options = Taken(rule.target_options)
    writer = None if is_chain else _TARGETS.get(rule.target)
    if writer:
        text = writer(rule, options)
    elif is_chain is False or (is_chain is None and (rule.target_options or rule.target in _UNEXPLAINED)):
        text = f"is handed to the target {rule.target}, which is not explained here"
    elif rule.is_goto:
        text = f"goes to chain {rule.target} and never comes back to this one (-g)"
    else:
        text = f"jumps to chain {rule.target}"
    return f"{text}, with options not explained here ({' '.join(options.rest)})" if options.rest else text


def _counted(_: Rule, __: Taken) -> str:
    return "is counted and goes on: the rule has no target"


def _return(rule: Rule, _: Taken) -> str:
    if rule.chain in BASE_CHAINS.get(rule.table, ()):
        return f"skips the rest of {rule.chain} and meets its policy"
    return "goes back to the chain it came from"


def _reject(_: Rule, given: Taken) -> str:
    answer = given.take("--reject-with")
    name = flat(answer)[0] if answer else "icmp-port-unreachable"
    return f"is rejected: its sender gets {_ANSWERS.get(name, name)}"


def _place(given: Taken, name: str) -> str:
    option = given.take(name)
    value = option.values[0] if option else None
    if not isinstance(value, Translation):
        return " ".join(flat(option)) if option else "nothing that is said"
    address = str(value.first) if value.first is not None else ""
    if value.last is not None and value.last != value.first:
        address += f" to {value.last}"
    if value.ports is None:
        return address
    if not address:
        return f"port {numbers(value.ports)} of the same address"
    if value.ports.first != value.ports.last or " to " in address:
        return f"{address}, port {numbers(value.ports)}"
    return f"[{address}]:{value.ports.first}" if ":" in address else f"{address}:{value.ports.first}"


def _how(given: Taken) -> str:
    how = [
        words
        for name, words in (
            ("--random-fully", "its port chosen fully at random"),
            ("--random", "its port chosen at random"),
            ("--persistent", "one client always getting the same address"),
        )
        if given.flag(name)
    ]
    return f", {listed(how, 'and')}" if how else ""


def _dnat(_: Rule, given: Taken) -> str:
    return f"has its destination changed to {_place(given, '--to-destination')} (DNAT){_how(given)}"


def _snat(_: Rule, given: Taken) -> str:
    return f"has its source changed to {_place(given, '--to-source')} (SNAT){_how(given)}"


def _masquerade(_: Rule, given: Taken) -> str:
    ports = given.take("--to-ports")
    port = f", port {numbers(ports.values[0])}" if ports else ""
    return f"has its source changed to an address of the interface it leaves by{port} (MASQUERADE){_how(given)}"


def _redirect(_: Rule, given: Taken) -> str:
    ports = given.take("--to-ports") or given.take("--to-port")
    port = f"port {numbers(ports.values[0])}" if ports else "the same port"
    return f"is redirected to {port} of this host (REDIRECT){_how(given)}"


def _mark(_: Rule, given: Taken) -> str:
    option = given.take("--set-xmark")
    if option is None or not isinstance(option.values[0], Masked):
        return "has its mark changed and goes on"
    return f"{changed('its mark', option.values[0].value, option.values[0].mask)} and goes on"


def _connmark(_: Rule, given: Taken) -> str:
    connection = "its connection's mark"
    if option := given.take("--set-xmark"):
        return f"{changed(connection, option.values[0].value, option.values[0].mask)} and goes on"
    masks = []
    for name in ("--nfmask", "--ctmask"):
        option = given.take(name)
        value = option.values[0] if option else ALL
        masks.append(value.value if isinstance(value, Masked) else value)
    if option := given.take("--mask"):
        value = option.values[0]
        masks = [value.value if isinstance(value, Masked) else value] * 2
    nfmask, ctmask = masks
    whole = nfmask == ctmask == ALL
    if given.flag("--save-mark"):
        if whole:
            return "has its mark saved as its connection's mark and goes on"
        return (
            f"has the part {nfmask:#x} of its mark saved into {connection}, of which the part {ctmask:#x} was cleared,"
            " and goes on"
        )
    if given.flag("--restore-mark"):
        if whole:
            return "has its mark set to its connection's mark and goes on"
        return (
            f"has the part {ctmask:#x} of {connection} brought back into its mark, of which the part {nfmask:#x} was"
            " cleared, and goes on"
        )
    return f"has {connection} changed and goes on"


def _tproxy(_: Rule, given: Taken) -> str:
    port, ip, mark = given.take("--on-port"), given.take("--on-ip"), given.take("--tproxy-mark")
    where = f"the socket on port {numbers(port.values[0])}" if port else "the socket on its own port"
    if ip and (address := flat(ip)[0]) not in ("0.0.0.0", "::"):
        where += f" at {address}"
    text = f"is handed to {where} of this host with both addresses unchanged (TPROXY)"
    if mark and mark.values[0].mask | mark.values[0].value:
        text += f" and {changed('its mark', mark.values[0].value, mark.values[0].mask)}"
    return text


def _ct(_: Rule, given: Taken) -> str:
    found = []
    if given.flag("--notrack"):
        found.append("is not tracked (conntrack leaves it alone)")
    for name, where in (("--zone", ""), ("--zone-orig", " in its original direction"), ("--zone-reply", " in replies")):
        if zone := given.take(name):
            found.append(f"is tracked in conntrack zone {numbers(zone.values[0])}{where}")
    if helper := given.take("--helper"):
        found.append(f"is tracked with the conntrack helper {flat(helper)[0]}")
    return f"{listed(found, 'and') or 'is tracked as said'} and goes on"


def _log(_: Rule, given: Taken) -> str:
    prefix, level = given.take("--log-prefix"), given.take("--log-level")
    text = "is written to the kernel's log"
    text += f" after the words {flat(prefix)[0]!r}" if prefix else ""
    text += f" at level {flat(level)[0]}" if level else ""
    text += " with the uid that sent it" if given.flag("--log-uid") else ""
    return f"{text} and goes on"


def _nflog(_: Rule, given: Taken) -> str:
    group, prefix = given.take("--nflog-group"), given.take("--nflog-prefix")
    text = f"is copied to the listeners of log group {numbers(group.values[0]) if group else 0}"
    text += f" after the words {flat(prefix)[0]!r}" if prefix else ""
    return f"{text} and goes on"


def _tcpmss(_: Rule, given: Taken) -> str:
    if mss := given.take("--set-mss"):
        return f"has the largest segment of its TCP option set to {numbers(mss.values[0])} bytes and goes on"
    if given.flag("--clamp-mss-to-pmtu"):
        return "has the largest segment of its TCP option cut to what the path carries and goes on"
    return "has its TCP MSS option changed and goes on"


def _fixed(text: str) -> Callable[[Rule, Taken], str]:
    return lambda _, __: text


_TARGETS: dict[str, Callable[[Rule, Taken], str]] = {
    "": _counted,
    "ACCEPT": _fixed("is accepted"),
    "DROP": _fixed("is dropped"),
    "RETURN": _return,
    "REJECT": _reject,
    "DNAT": _dnat,
    "SNAT": _snat,
    "MASQUERADE": _masquerade,
    "REDIRECT": _redirect,
    "MARK": _mark,
    "CONNMARK": _connmark,
    "TPROXY": _tproxy,
    "CT": _ct,
    "NOTRACK": _fixed("is not tracked (conntrack leaves it alone) and goes on"),
    "TRACE": _fixed("is traced from here on (the kernel reports each rule that it matches) and goes on"),
    "LOG": _log,
    "NFLOG": _nflog,
    "TCPMSS": _tcpmss,
}
