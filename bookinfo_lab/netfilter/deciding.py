"""What the kernel decides about a packet between tables: whose it is, by which interface it goes, whether at all.

Pure.  `decide` changes the state that it is given.  An `Open` comes back where the facts do not say enough.  Follows
the kernel's net/ipv4/route.c and fib_frontend.c, net/ipv6/route.c and ip6_output.c.
"""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from . import hooks
from .matching import kind_in, local_question
from .routing import Way, sysctl, way
from .state import Open, State, text

_EVERY_HOST = {ipaddress.ip_address("224.0.0.1"), ipaddress.ip_address("ff02::1")}  # groups that no host leaves
_FORWARDING = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}


@dataclass(frozen=True, slots=True)
class Decision:
    """``what`` and ``why`` for a step ("" for none), the ``stages`` then (None: the next), or how it ``ends``."""

    where: str = "routing"
    what: str = ""
    why: str = ""
    word: str = "continue"
    stages: tuple[str, ...] | None = None
    ends: Literal["accept", "drop", "unknown"] | None = None
    assumes: tuple[str, ...] = ()


def decide(stage: str, state: State) -> Decision | Open:
    """What happens at a stage that is no table's."""
    return _STAGES[stage](state)


def _route_in(state: State) -> Decision | Open:
    refusal = _martian(state)
    if refusal is not None:
        return refusal
    kind = kind_in(state, state.dst)
    is_group = kind == "MULTICAST"
    if state.tproxy is not None and not is_group:
        return _take(state)
    if kind is None:
        return Open(local_question(state.dst), is_lasting=True)
    if is_group and state.dst not in _EVERY_HOST:
        joined = f"a process of this host has joined {state.dst}"
        if joined not in state.known:
            return Open(joined, is_lasting=True)
        if not state.known[joined]:
            return _refused(f"no process here has joined {state.dst}, and this host forwards no groups")
    found = _way(state, state.iif or "")
    if is_group or kind in ("LOCAL", "BROADCAST") or (found is not None and found.kind in ("local", "broadcast")):
        return Decision(
            what=f"{text(state.dst, None)} is for this host",
            word="local",
            stages=hooks.DELIVERS,
            assumes=_rp_assumed(state),
        )
    if found is not None and found.kind != "unicast":
        return Decision(what=_no_route(found, state), word="drop", why=_no_route(found, state), ends="drop")
    name = _FORWARDING[state.version]
    forwarding = sysctl(state.facts, name)
    if forwarding == 0:
        return Decision(
            what="it is for another host", word="drop", why=f"{name} is 0: this host forwards nothing", ends="drop"
        )
    state.out = state.next_out = _out(state, found)
    state.via = found.via if found else None
    assumes = _rp_assumed(state)
    if forwarding is None:
        assumes = (*assumes, f"{name} is 1: this host forwards")
    shown = f"forward by {state.out}" if state.out else "forward"
    return Decision(
        what=f"{text(state.dst, None)} is another host's", word=shown, stages=hooks.FORWARDS, assumes=assumes
    )


def _take(state: State) -> Decision:
    """After TPROXY: the routing rules for its mark make the packet this host's."""
    found = _way(state, state.iif or "")
    assumes: tuple[str, ...] = (f"a transparent socket listens on port {state.tproxy}",)
    if found is None:
        assumes = (*assumes, f"packets with the mark {state.mark:#x} are routed to this host")
    elif found.kind != "local":
        return Decision(
            what=f"packets with the mark {state.mark:#x} are not routed to this host",
            word="drop",
            ends="drop",
            why="a socket has it, and what a socket has is not forwarded: no route makes it this host's",
        )
    return Decision(what="its mark's route makes it this host's", word="local", stages=hooks.DELIVERS, assumes=assumes)


def _martian(state: State) -> Decision | Open | None:
    """Why routing refuses the packet that came in, if it does."""
    if state.iif == "lo" or state.src is None or state.version == 6:
        return None
    source, destination = state.src, state.dst
    for address, name in ((source, "source"), (destination, "destination")):
        if address is not None and address.is_loopback:
            found = _either(state, "route_localnet", state.iif)
            if isinstance(found, Open):
                return found
            if not found:
                return _refused(f"the {name} {address} comes from outside and route_localnet is 0 (martian)")
    if source.is_multicast or int(source) == 2**32 - 1 or (int(source) >> 24 == 0 and int(source)):
        return _refused(f"{source} cannot be a source (martian)")
    if kind_in(state, source) in ("LOCAL", "BROADCAST") and _either(state, "accept_local", state.iif) is not True:
        return _refused(f"the source {source} is an address of this host, but it comes from outside (martian)")
    return _reverse_path(state)


def _reverse_path(state: State) -> Decision | None:
    values = [sysctl(state.facts, f"net.ipv4.conf.{name}.rp_filter") for name in ("all", state.iif or "default")]
    strength = max((value for value in values if value is not None), default=0)
    if not strength or None in values or state.iif is None:
        return None
    if state.src is None or state.dst is None:
        return None
    mark = state.mark if sysctl(state.facts, f"net.ipv4.conf.{state.iif}.src_valid_mark") == 1 else 0
    back = way(state.facts, state.dst, state.src, mark, state.iif)
    if back is None:
        return None
    if back.kind != "unicast" or (strength == 1 and back.interface != state.iif):
        return _refused(f"rp_filter is {strength}, and {state.src} is not reached by {state.iif}")
    return None


def _rp_assumed(state: State) -> tuple[str, ...]:
    known = sysctl(state.facts, "net.ipv4.conf.all.rp_filter") is not None
    if known or state.version == 6 or state.iif == "lo":
        return ()
    return ("rp_filter lets its source in by this interface",)


def _refused(why: str) -> Decision:
    return Decision(what="routing refuses it", word="drop", why=why, ends="drop")


def _either(state: State, name: str, interface: str | None) -> bool | Open:
    """Whether a sysctl of all interfaces or of this one is set."""
    values = [sysctl(state.facts, f"net.ipv4.conf.{item}.{name}") for item in ("all", interface or "")]
    if any(values):
        return True
    if values[0] == 0 and (values[1] == 0 or not interface):
        return False
    question = f"net.ipv4.conf.all.{name}, or that of {interface or 'its interface'}, is 1"
    known = state.known.get(question)
    return known if known is not None else Open(question, is_lasting=True)


def _route_out(state: State) -> Decision | Open:
    found = _leave_by(state)
    if isinstance(found, Decision | Open):
        return found
    state.out = state.next_out = found
    return _sent(state, "")


def _sent(state: State, why: str) -> Decision:
    if state.next_out is not None:
        return Decision(what=_by(state), why=why, word=f"out by {state.next_out}")
    state.known["it leaves by lo"] = False
    assumed = "what goes to an address that is not this host's does not leave by lo"
    return Decision(what=_by(state), why=why, word="out", assumes=(assumed,))


def _leave_by(state: State) -> str | Decision | Open | None:
    """The interface by which a packet of this host's leaves."""
    kind = kind_in(state, state.dst)
    if kind is None:
        return Open(local_question(state.dst), is_lasting=True)
    if kind == "LOCAL":
        state.via = None
        return "lo"
    found = _way(state, "lo")
    if found is not None and found.kind == "local":
        state.via = None
        return "lo"
    if found is not None and found.kind not in ("unicast", "broadcast", "multicast"):
        return Decision(what=_no_route(found, state), word="drop", why=_no_route(found, state), ends="drop")
    out = _out(state, found)
    state.via = found.via if found else None
    if state.version == 4 and state.src is not None and state.src.is_loopback and out != "lo":
        allowed = _either(state, "route_localnet", out)
        if isinstance(allowed, Open):
            return allowed
        if not allowed:
            return _refused(f"its source {state.src} may not leave this host: route_localnet is 0")
    return out


def _reroute(state: State, is_changed: bool) -> Decision | Open:
    if not is_changed:
        return Decision()
    found = _leave_by(state)
    if isinstance(found, Decision | Open):
        return found
    if found == state.next_out:
        return Decision()
    state.next_out = found
    return _sent(state, "routed anew after the change")


def _reroute_by_mark(state: State) -> Decision | Open:
    return _reroute(state, state.is_remade or state.mark != state.routed_mark)


def _reroute_by_address(state: State) -> Decision | Open:
    return _reroute(state, state.dnat is not None and state.dnat[0] != state.origin[2])


def _leaving(state: State) -> Decision:
    if state.out != state.next_out:
        is_by_lo = state.known.get("it leaves by lo") if state.next_out is None else None
        state.forget("it leaves by")
        if is_by_lo is not None:
            state.known["it leaves by lo"] = is_by_lo
    state.out = state.next_out
    state.changed()
    return Decision(stages=hooks.LEAVES)


def _leaves(state: State) -> Decision:
    if state.out == "lo" and not state.is_second_pass:
        state.is_second_pass = True
        state.iif, state.out, state.next_out, state.has_socket = "lo", "", "", False
        return Decision("lo", "it comes in again by lo", word="local", stages=hooks.COMES_AGAIN)
    by = f" by {state.out}" if state.out else ""
    return Decision("leaves", f"leaves{by}", f"sent{by} to {state.dst_text}", "leaves", ends="accept")


def _delivered(state: State) -> Decision:
    taker = f"the transparent socket on port {state.tproxy}" if state.tproxy is not None else state.dst_text
    return Decision("delivered", "delivered here", f"given to {taker} on this host", "delivered", ends="accept")


def _way(state: State, iif: str) -> Way | None:
    if state.src is None or state.dst is None:
        return None
    return way(state.facts, state.src, state.dst, state.mark, iif)


def _out(state: State, found: Way | None) -> str | None:
    if found is not None:
        return found.interface or None
    return state.facts.out if state.facts is not None else None


def _by(state: State) -> str:
    via = f" via {state.via}" if state.via else ""
    return f"{text(state.dst, None)} is reached by {state.next_out or 'an interface that is not known'}{via}"


def _no_route(found: Way, state: State) -> str:
    return f"there is no route to {state.dst}" if found.kind == "none" else f"the route to {state.dst} is {found.kind}"


_STAGES = {
    "route in": _route_in,
    "route out": _route_out,
    "reroute by mark": _reroute_by_mark,
    "reroute by address": _reroute_by_address,
    "leaving": _leaving,
    "leaves": _leaves,
    "delivered": _delivered,
}
