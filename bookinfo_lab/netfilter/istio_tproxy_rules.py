"""The rules that Istio adds for a sidecar in TPROXY mode, and what it wants with each.

Pure; read by `istio_words`.  Follows istio tools/istio-iptables/pkg/capture/run.go.  Rules of base chains are Istio's
only where its TPROXY chains are there.
"""

from . import istio_checks as check
from .known_rule import Known, both, says

_DONE = "it has been through the proxy, and would only come back to it"
TPROXY = (
    Known("mangle PREROUTING ISTIO_INBOUND", ("-p",), "TPROXY: all TCP that comes into the pod is looked at by Istio"),
    Known(
        "mangle ISTIO_INBOUND RETURN",
        ("-p --mark",),
        "TPROXY: the proxy's mark is on what it sends with the client's address",
        check.marked(check.PROXY),
        _DONE,
    ),
    Known(
        "mangle ISTIO_INBOUND RETURN",
        ("-s -i -p",),
        "TPROXY: what the proxy passes on to the application, from an address that it keeps for that",
        both(check.from_(*check.PASSTHROUGH), check.on_lo),
        _DONE,
    ),
    Known(
        "mangle ISTIO_INBOUND RETURN",
        ("-i -p !--mark",),
        "TPROXY: over loopback only the proxy's calls to its own pod (mark 1338) are intercepted",
        both(check.marked(check.OUTBOUND), check.on_lo),
    ),
    Known(
        "mangle ISTIO_INBOUND ISTIO_DIVERT",
        ("-p --ctstate", "-p --dport --ctstate"),
        "TPROXY: a known connection's packets are routed to the proxy's socket",
        says("--ctstate", "RELATED", "ESTABLISHED"),
    ),
    Known("mangle ISTIO_INBOUND ISTIO_TPROXY", ("-p", "-p --dport"), "TPROXY: a new connection is handed to the proxy"),
    Known(
        "mangle ISTIO_DIVERT MARK",
        ("",),
        "TPROXY: a policy route sends this mark to loopback, where the proxy's socket is",
        check.sets(check.PROXY),
    ),
    Known("mangle ISTIO_DIVERT ACCEPT", ("",), "TPROXY: nothing more is to be done to it here"),
    Known(
        "mangle ISTIO_TPROXY TPROXY",
        ("!-d -p",),
        "TPROXY: the proxy takes inbound connections on {port}, and the client's address is kept",
        both(check.to(*check.LOOPBACK), check.sent_to(15006)),
    ),
    Known(
        "mangle PREROUTING CONNMARK",
        ("-p --mark",),
        "TPROXY: the connection remembers that the proxy opened it with the client's address",
        both(check.marked(check.PROXY), check.target_has("--save-mark"), check.with_tproxy),
    ),
    Known(
        "mangle OUTPUT RETURN",
        ("-o -p --mark",),
        "TPROXY: what the proxy sends with the client's address keeps its mark",
        both(check.marked(check.PROXY), check.on_lo, check.with_tproxy),
    ),
    Known(
        "mangle OUTPUT MARK",
        ("!-d -o -p --uid-owner", "!-d -o -p --gid-owner"),
        "TPROXY: the proxy calls its own pod, and ISTIO_INBOUND is to see that",
        both(check.sets(check.OUTBOUND), check.to(*check.LOOPBACK), check.on_lo, check.is_proxy, check.with_tproxy),
    ),
    Known(
        "mangle OUTPUT CONNMARK",
        ("-p --mark",),
        "TPROXY: the application's answers get the mark whose policy route leads to the proxy",
        both(check.marked(check.PROXY), check.target_has("--restore-mark"), check.with_tproxy),
    ),
)
