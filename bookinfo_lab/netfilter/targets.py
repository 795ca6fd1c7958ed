"""What a rule's target does to a packet: the change of its state, the verdict's word, and what follows.

Pure.  `act` changes the state that it is given.  Follows iptables-extensions(8) and the kernel's net/netfilter/xt_*.c
and nf_nat_core.c.  ACCEPT, DROP, RETURN and chains are `walk`'s own.
"""

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from bookinfo_lab.kube.fields import Address

from .packet import socket_address
from .routing import masquerade_address, redirect_address
from .rule import Rule
from .state import State
from .values import Masked, PortRange, Translation

MOST_ADDRESSES = 8  # of a translation's range; each is a branch
WITHOUT_EFFECT = frozenset(
    {
        "",
        *(
            "LOG",
            "NFLOG",
            "ULOG",
            "TCPMSS",
            "CHECKSUM",
            "CLASSIFY",
            "TTL",
            "HL",
            "DSCP",
            "TOS",
            "TRACE",
            "AUDIT",
            "RATEEST",
        ),
    }
)


@dataclass(frozen=True, slots=True)
class Effect:
    """``then`` comes the next rule (``continue``), the next table (``accept``), or the end with that verdict."""

    word: str
    why: str = ""
    then: Literal["continue", "accept", "drop", "reject", "unknown"] = "continue"
    answer: str = ""


def act(rule: Rule, state: State, address: Address | None) -> Effect:
    """What the target of ``rule`` does; ``address`` is the one that a translation writes, where it writes one."""
    if rule.target in WITHOUT_EFFECT:
        state.is_remade = state.is_remade or (state.stages[0] == "mangle OUTPUT" and _remakes(rule, state))
        return Effect("continue")
    if rule.target in _TRANSLATE:
        return _TRANSLATE[rule.target](rule, state, address)
    if rule.target in _OTHERS:
        return _OTHERS[rule.target](rule, state)
    return Effect("unknown", f"what {rule.target} does is not modelled", "unknown")


def _remakes(rule: Rule, state: State) -> bool:
    """Whether the target changes a field for which mangle OUTPUT routes again: the TOS, in IPv6 the hop limit too."""
    if rule.target in ("HL", "TTL"):
        return state.version == 6
    return rule.target in ("DSCP", "TOS") and not all(
        item.values and item.values[0] == 0 for item in rule.target_options
    )


def addresses(rule: Rule) -> list[Address] | None:
    """The addresses that a translation may write: one, several where the kernel picks one, None for too many.

    The list is empty where it keeps the address.
    """
    option = rule.target_option("--to-destination") or rule.target_option("--to-source")
    if option is None or option.values[0].first is None:
        return []
    first, last = option.values[0].first, option.values[0].last
    if int(last) - int(first) >= MOST_ADDRESSES or int(last) < int(first):
        return None
    return [first + step for step in range(int(last) - int(first) + 1)]


def is_without_effect(rule: Rule) -> bool:
    """Whether the way of a packet is the same whether the rule matches or not."""
    return rule.target in WITHOUT_EFFECT


def xor(mark: int, value: int, mask: int) -> int:
    """The kernel's way to set a mark: clear the bits of the mask, then XOR the value."""
    return ((mark & ~mask) ^ value) & 0xFFFFFFFF


def _mark(rule: Rule, state: State) -> Effect:
    option = rule.target_option("--set-xmark")
    if option is None:
        return Effect("unknown", "a MARK without a value", "unknown")
    wanted: Masked = option.values[0]
    state.mark = xor(state.mark, wanted.value, wanted.mask)
    return Effect("continue", f"the mark is now {state.mark:#x}")


def _connmark(rule: Rule, state: State) -> Effect:
    if not state.has_entry:
        return Effect("continue", "no connection is known of the packet here: nothing is marked")
    mask = rule.target_option("--mask")
    bits = [rule.target_option(name) or mask for name in ("--nfmask", "--ctmask")]
    nfmask, ctmask = (0xFFFFFFFF if item is None else int(item.values[0]) for item in bits)
    option = rule.target_option("--set-xmark")
    if option is not None:
        wanted: Masked = option.values[0]
        state.ctmark = xor(state.ctmark, wanted.value, wanted.mask)
        return Effect("continue", f"the connection's mark is now {state.ctmark:#x}")
    if rule.target_option("--save-mark") is not None:
        state.ctmark = xor(state.ctmark, state.mark & nfmask, ctmask)
        return Effect("continue", f"the connection's mark is now {state.ctmark:#x}")
    if rule.target_option("--restore-mark") is not None:
        state.mark = xor(state.mark, state.ctmark & ctmask, nfmask)
        return Effect("continue", f"the mark is now {state.mark:#x}, from the connection's {state.ctmark:#x}")
    return Effect("unknown", "a CONNMARK without an action", "unknown")


def _reject(rule: Rule, state: State) -> Effect:
    option = rule.target_option("--reject-with")
    default = "icmp-port-unreachable" if state.version == 4 else "icmp6-port-unreachable"
    answer = str(option.values[0]) if option else default
    return Effect("reject", f"answered with {answer}", "reject", answer)


def _tproxy(rule: Rule, state: State) -> Effect:
    port, address, mark = (rule.target_option(name) for name in ("--on-port", "--on-ip", "--tproxy-mark"))
    state.tproxy = port.values[0].first if port else (state.dport or 0)
    if mark is not None:
        state.mark = xor(state.mark, mark.values[0].value, mark.values[0].mask)
    listener = socket_address(address.values[0], state.tproxy) if address else f"port {state.tproxy}"
    return Effect("tproxy", f"given to the transparent socket on {listener}, unchanged", "accept")


def _notrack(rule: Rule, state: State) -> Effect:
    if state.is_second_pass or state.has_template or state.ct == "untracked":
        return Effect("continue", "conntrack has been told about it before, and that stays")
    if rule.target == "CT" and rule.target_option("--notrack") is None:
        state.has_template, state.ct = True, "new"
        return Effect("continue", "conntrack is told how to treat it")
    state.ct = "untracked"
    return Effect("continue", "the packet is not tracked: no nat for it")


def _set(rule: Rule, state: State) -> Effect:
    state.forget("is in the set")
    return Effect("continue", "a set is changed")


def _queue(rule: Rule, state: State) -> Effect:
    return Effect("queue", "a program decides that reads the queue", "unknown")


def _port(current: int | None, ports: PortRange | None, base: int | None = None) -> int | None:
    """The port that a translation gives: one of a range is the kernel's choice, unless the packet's own is in it.

    With a ``base`` it is as far from the first as the packet's own is from that.
    """
    if ports is not None and base is not None and current is not None:
        return ports.first + (current - base) % 65536 % (ports.last - ports.first + 1)
    if ports is None or (current is not None and current in ports):
        return current
    return ports.first if ports.first == ports.last else None


def _to_destination(state: State, address: Address | None, port: int | None, word: str) -> Effect:
    if (address, port) != (state.dst, state.dport):
        state.set_destination(address, port)
        state.dnat = address, port
        state.forget("destination")
    return Effect(word, f"the destination is now {state.dst_text}", "accept")


def _to_source(state: State, address: Address | None, port: int | None, word: str, source: str) -> Effect:
    if (address, port) != (state.src, state.sport) or address is None:
        state.set_source(address, port)
        state.snat = address, port
        state.forget("source")
    state.source = source
    return Effect(word, f"the source is now {state.src_text}", "accept")


def _dnat(rule: Rule, state: State, address: Address | None) -> Effect:
    option = rule.target_option("--to-destination")
    if option is None:
        return Effect("unknown", "a DNAT without a destination", "unknown")
    wanted: Translation = option.values[0]
    return _to_destination(state, address or state.dst, _port(state.dport, wanted.ports, wanted.base), "dnat")


def _snat(rule: Rule, state: State, address: Address | None) -> Effect:
    option = rule.target_option("--to-source")
    if option is None:
        return Effect("unknown", "a SNAT without a source", "unknown")
    wanted: Translation = option.values[0]
    new = address or state.src
    return _to_source(state, new, _source_port(rule, state, wanted.ports), "snat", str(new))


def _source_port(rule: Rule, state: State, ports: PortRange | None) -> int | None:
    is_random = any(rule.target_option(name) is not None for name in ("--random", "--random-fully"))
    if is_random and (ports is None or ports.first != ports.last):
        return None
    return _port(state.sport, ports)


def _masquerade(rule: Rule, state: State, address: Address | None) -> Effect:
    given = rule.target_option("--to-ports")
    assert state.dst is not None  # by now routing has decided about it
    found = masquerade_address(state.facts, state.out or "", state.dst, state.via)
    port = _source_port(rule, state, given.values[0] if given else None)
    state.masqueraded_by = state.out
    return _to_source(state, found, port, "masquerade", "masqueraded")


def _redirect(rule: Rule, state: State, address: Address | None) -> Effect:
    given = rule.target_option("--to-ports")
    if not state.iif and state.iif is not None:
        found: Address | None = ipaddress.ip_address("127.0.0.1" if state.version == 4 else "::1")
    else:
        found = redirect_address(state.facts, state.iif or "", state.version)
    return _to_destination(state, found, _port(state.dport, given.values[0] if given else None), "redirect")


def _netmap(rule: Rule, state: State, address: Address | None) -> Effect:
    option = rule.target_option("--to")
    if option is None:
        return Effect("unknown", "a NETMAP without a network", "unknown")
    network = option.values[0]
    is_source = state.stages[0].split()[1] in ("POSTROUTING", "INPUT")
    old = state.src if is_source else state.dst
    if old is None:
        return Effect("unknown", "an address that is not known is mapped", "unknown")
    new = type(old)((int(old) & int(network.hostmask)) | int(network.network_address))
    if is_source:
        return _to_source(state, new, state.sport, "netmap", str(new))
    return _to_destination(state, new, state.dport, "netmap")


_TRANSLATE: dict[str, Callable[[Rule, State, Address | None], Effect]] = {
    "DNAT": _dnat,
    "SNAT": _snat,
    "MASQUERADE": _masquerade,
    "REDIRECT": _redirect,
    "NETMAP": _netmap,
}
_OTHERS: dict[str, Callable[[Rule, State], Effect]] = {
    "MARK": _mark,
    "CONNMARK": _connmark,
    "REJECT": _reject,
    "TPROXY": _tproxy,
    "NOTRACK": _notrack,
    "CT": _notrack,
    "SET": _set,
    "NFQUEUE": _queue,
    "QUEUE": _queue,
}
