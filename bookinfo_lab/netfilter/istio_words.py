"""What Istio wants with a rule: for what, with which port, told by which uid, gid or mark, and why there is no loop.

Pure.  The tables are `istio_sidecar_rules`, `istio_tproxy_rules` and `istio_ambient_rules`.  A rule of an ISTIO_
chain that is not as Istio writes it gets no word.
"""

from dataclasses import dataclass

from . import known_rule
from .istio_ambient_rules import AMBIENT
from .istio_sidecar_rules import SIDECAR
from .istio_tproxy_rules import TPROXY
from .rule import Match, Option, Rule
from .rule_shape import ports
from .ruleset import Ruleset

# https://istio.io/latest/docs/ops/deployment/application-requirements/
PORTS = {
    15000: "Envoy's admin interface, on loopback only",
    15001: "outbound: what the application sends",
    15006: "inbound: what comes to the application",
    15008: "HBONE: mutual TLS tunnels of the mesh",
    15010: "istiod's xDS in plain text",
    15012: "istiod's xDS and certificates over TLS",
    15014: "istiod's own metrics",
    15017: "istiod's webhooks",
    15020: "metrics of proxy and application together",
    15021: "health checks",
    15053: "DNS",
    15090: "Envoy's own metrics",
}


@dataclass(frozen=True, slots=True)
class IstioWord:
    """What one rule is for.

    ``mode`` is ``sidecar`` or ``ambient``; it is ``sidecar`` where both have the rule and no ruleset tells them apart.
    ``ports`` are those that the rule names, its target's first, with what Istio uses them for ("": not one of its own).
    ``told_by`` says how the proxy's packets are told from others: ``uid 1337``, ``not mark 0x539/0xfff``; "" where the
    rule does not ask.  ``no_loop`` says why packets do not go round for ever, "" where the rule has no part in that.
    """

    mode: str
    purpose: str
    ports: tuple[tuple[int, str], ...]
    told_by: str
    no_loop: str


def istio_word(rule: Rule, ruleset: Ruleset | None = None) -> IstioWord | None:
    """What Istio wants with ``rule``; None where it is not a rule as Istio writes it.

    With the ``ruleset``, the proxy's uid and gid are those that the rules name; without, Istio's own 1337.
    """
    for mode, table in (("sidecar", SIDECAR), ("sidecar", TPROXY), ("ambient", AMBIENT)):
        known = known_rule.first(table, rule, ruleset)
        if known:
            named = dict.fromkeys(
                port
                for name in ("--to-ports", "--to-port", "--on-port", "--dport", "--dports", "--sport")
                for port in ports(rule, name)
            )
            means = tuple((port, PORTS.get(port, "")) for port in named)
            return IstioWord(mode, _filled(known.clause, means), means, _told_by(rule), known.no_loop)
    return None


def purpose(rule: Rule, ruleset: Ruleset | None = None) -> str:
    """The same as one clause; "" for none."""
    word = istio_word(rule, ruleset)
    if word is None:
        return ""
    return f"{word.purpose}; {word.no_loop}" if word.no_loop else word.purpose


def _filled(clause: str, means: tuple[tuple[int, str], ...]) -> str:
    if "{port}" not in clause:
        return clause
    number, meaning = means[0]
    return clause.format(port=f"port {number} ({meaning})" if meaning else f"port {number}")


def _told_by(rule: Rule) -> str:
    found = [_owner(match, option) for match in rule.matches for option in match.options]
    return ", ".join(text for text in found if text)


def _owner(match: Match, option: Option) -> str:
    no = "not " if option.negated else ""
    if option.name in ("--uid-owner", "--gid-owner"):
        value = option.values[0]
        first, last = getattr(value, "first", value), getattr(value, "last", value)
        return f"{no}{option.name[2:5]} {first}" + (f"-{last}" if first != last else "")
    if option.name == "--mark":
        value = option.values[0]
        of = "connection mark" if match.module == "connmark" else "mark"
        return f"{no}{of} {value.value:#x}" + ("" if value.mask == 0xFFFFFFFF else f"/{value.mask:#x}")
    return ""
