"""The rules that Istio writes into a pod with a sidecar (REDIRECT and DNS capture), and what it wants with each.

Pure; read by `istio_words`.  Follows istio tools/istio-iptables/pkg/capture/run.go.
"""

from . import istio_checks as check
from .known_rule import Known, both, says

_ONCE = "what the inbound side then sends comes from 127.0.0.6, or goes to loopback, and other rules let that pass"
_ENDLESS = "were the proxy's own connections redirected too, they would come back to it for ever"
_DONE = "it has been through the proxy, and would only come back to it"
_ZONES = "so that the application's lookup and the proxy's own do not share a conntrack entry"

SIDECAR = (
    Known("nat PREROUTING ISTIO_INBOUND", ("-p",), "all TCP that comes into the pod is looked at by Istio"),
    Known("nat OUTPUT ISTIO_OUTPUT", ("-p",), "all TCP that the pod's processes send is looked at by Istio"),
    Known(
        "nat OUTPUT ISTIO_OUTPUT", ("",), "what the pod's processes send is looked at by Istio", check.may_be_a_sidecar
    ),
    Known(
        "(?:nat|mangle) ISTIO_INBOUND RETURN",
        ("-p --dport",),
        "{port} is the proxy's own: it listens there",
        check.own_port,
    ),
    Known("(?:nat|mangle) ISTIO_INBOUND RETURN", ("-p --dport",), "{port} is left out of inbound interception"),
    Known("nat ISTIO_INBOUND ISTIO_IN_REDIRECT", ("-p", ""), "whatever else comes in meets the proxy first"),
    Known("nat ISTIO_INBOUND ISTIO_IN_REDIRECT", ("-p --dport",), "what comes in for {port} meets the proxy first"),
    Known(
        "nat ISTIO_IN_REDIRECT REDIRECT",
        ("-p", ""),
        "the proxy takes inbound connections on {port}",
        check.sent_to(15006),
    ),
    Known(
        "nat ISTIO_REDIRECT REDIRECT",
        ("-p", ""),
        "the proxy takes outbound connections on {port}",
        check.sent_to(15001),
    ),
    Known(
        "nat ISTIO_OUTPUT RETURN",
        ("-s -o",),
        "what the proxy passes on to the application, from an address that it keeps for that",
        both(check.from_(*check.PASSTHROUGH), check.on_lo),
        _DONE,
    ),
    Known(
        "nat ISTIO_OUTPUT ISTIO_IN_REDIRECT",
        tuple(f"!-d -o -p {not_port} {owner}" for not_port in ("!--dport", "!--dports") for owner in check.OWNERS),
        "the application called its own pod through a Service: the proxy's call comes in like any other",
        both(check.is_proxy, check.to(*check.LOOPBACK), check.on_lo, check.names_port(15008)),
        _ONCE,
    ),
    Known(
        "nat ISTIO_OUTPUT ISTIO_IN_REDIRECT",
        tuple(f"!-d -o {owner}" for owner in check.OWNERS),
        "the application called its own pod through a Service: the proxy's call comes in like any other",
        both(check.is_proxy, check.to(*check.LOOPBACK), check.on_lo),
        _ONCE,
    ),
    Known(
        "nat ISTIO_OUTPUT RETURN",
        tuple(f"-o {extra} !{owner}" for extra in ("", "-p !--dport") for owner in check.OWNERS),
        "what others than the proxy send to their own pod over loopback is left alone",
        both(check.is_proxy, check.on_lo),
    ),
    Known(
        "nat ISTIO_OUTPUT RETURN",
        check.OWNERS,
        "what the proxy sends leaves as it is",
        check.is_proxy,
        _ENDLESS,
    ),
    Known(
        "nat ISTIO_OUTPUT RETURN",
        ("--uid-owner", "--gid-owner"),
        "what this owner sends is left out of outbound interception",
        check.is_other_owner,
    ),
    Known("nat ISTIO_OUTPUT RETURN", ("!--gid-owner", "!--uid-owner"), "only what these owners send is intercepted"),
    Known(
        "nat ISTIO_OUTPUT RETURN",
        ("-d",),
        "the pod's containers talk to each other on localhost without the proxy",
        check.to(*check.LOOPBACK),
    ),
    Known("nat ISTIO_OUTPUT RETURN", ("-d",), "this range is left out of outbound interception"),
    Known("nat ISTIO_OUTPUT RETURN", ("-p --dport",), "{port} is left out of outbound interception"),
    Known("nat ISTIO_OUTPUT ISTIO_REDIRECT", ("",), "whatever else the application sends meets the proxy first"),
    Known("nat ISTIO_OUTPUT ISTIO_REDIRECT", ("-d",), "what the application sends to this range meets the proxy first"),
    Known(
        "nat ISTIO_OUTPUT ISTIO_REDIRECT", ("-p --dport",), "what the application sends to {port} meets the proxy first"
    ),
    Known("nat PREROUTING ISTIO_REDIRECT", ("-i", "-d -i"), "what comes from this interface counts as sent by the pod"),
    Known(
        "mangle PREROUTING ISTIO_DROP", ("--ctstate",), "packets out of order are dropped", says("--ctstate", "INVALID")
    ),
    Known(
        "mangle ISTIO_DROP DROP", ("",), "what conntrack cannot place is dropped, lest the pod resets the connection"
    ),
    # DNS capture
    Known("(?:nat ISTIO_OUTPUT|raw OUTPUT) ISTIO_OUTPUT_DNS", ("",), "DNS capture: lookups are looked for there"),
    Known("raw PREROUTING ISTIO_INBOUND", ("",), "DNS capture: resolvers' answers are looked for there"),
    Known(
        "nat ISTIO_OUTPUT(?:_DNS)? REDIRECT",
        ("-p --dport", "-d -p --dport"),
        "DNS capture: the proxy's agent answers lookups on port 15053",
        both(says("--dport", "53"), check.sent_to(15053)),
    ),
    Known(
        "nat ISTIO_OUTPUT(?:_DNS)? RETURN",
        ("-p --dport --uid-owner", "-p --dport --gid-owner"),
        "DNS capture: the agent's own lookups go on to the resolver",
        both(says("--dport", "53"), check.is_proxy),
        "were they captured too, they would come back to the agent for ever",
    ),
    Known(
        "raw (?:OUTPUT|ISTIO_OUTPUT_DNS) CT",
        ("-p --dport --uid-owner", "-p --dport --gid-owner"),
        f"DNS capture: the agent's lookups have zone 1, {_ZONES}",
        both(says("--dport", "53"), says("--zone", "1"), check.is_proxy),
    ),
    Known(
        "raw (?:OUTPUT|ISTIO_OUTPUT_DNS) CT",
        ("-p --sport --uid-owner", "-p --sport --gid-owner"),
        f"DNS capture: the agent's answers to the application have zone 2, {_ZONES}",
        both(says("--sport", "15053"), says("--zone", "2"), check.is_proxy),
    ),
    Known(
        "raw ISTIO_OUTPUT_DNS CT",
        ("-p --dport", "-d -p --dport"),
        f"DNS capture: the application's lookups have zone 2, {_ZONES}",
        both(says("--dport", "53"), says("--zone", "2")),
    ),
    Known(
        "raw ISTIO_INBOUND CT",
        ("-p --sport", "-s -p --sport"),
        f"DNS capture: resolvers' answers have zone 1, {_ZONES}",
        both(says("--sport", "53"), says("--zone", "1")),
    ),
)
