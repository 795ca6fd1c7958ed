"""The rules that Istio's CNI agent writes into an ambient pod, and what it wants with each.

Pure; read by `istio_words`.  Follows istio cni/pkg/iptables/iptables.go.
"""

from . import istio_checks as check
from .known_rule import Known, both, says

_ZONES = "so that the application's lookup and the proxy's own do not share a conntrack entry"
_DONE = "it has been through the proxy, and would only come back to it"
_UNMARKED = "what ztunnel sends carries the mark 0x539, and is not redirected to it again"
AMBIENT = (
    Known("(?:raw|mangle|nat) PREROUTING ISTIO_PRERT", ("",), "what comes into the pod is looked at by Istio"),
    Known("(?:raw|mangle|nat) OUTPUT ISTIO_OUTPUT", ("",), "what the pod's processes send is looked at by Istio"),
    Known(
        "mangle ISTIO_PRERT CONNMARK",
        ("--mark",),
        "what ztunnel opened to the application is remembered with the connection (0x111)",
        both(check.marked(check.ZTUNNEL), check.sets(check.ZTUNNEL_CONNECTION)),
    ),
    Known(
        "mangle ISTIO_OUTPUT CONNMARK",
        ("--mark",),
        "the application's answers to ztunnel get the mark 0x111 of their connection",
        both(check.marked(check.ZTUNNEL_CONNECTION), check.target_has("--restore-mark")),
    ),
    Known(
        "(?:nat|mangle) ISTIO_PRERT ACCEPT",
        ("-s -p",),
        "the kubelet's probes, which the node sends from this address, go straight to the application",
        check.from_("169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"),
    ),
    Known(
        "nat ISTIO_OUTPUT ACCEPT",
        ("-d -p",),
        "answers to the kubelet's probes are left alone",
        check.to("169.254.7.127/32", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"),
    ),
    Known(
        "nat ISTIO_PRERT REDIRECT",
        ("!-d -p !--dport !--mark",),
        "plain text from outside the mesh meets ztunnel on {port}; HBONE (15008) goes to ztunnel's own socket",
        both(check.marked(check.ZTUNNEL), check.to(*check.LOOPBACK), check.names_port(15008), check.sent_to(15006)),
        _UNMARKED,
    ),
    Known(
        "nat ISTIO_OUTPUT REDIRECT",
        ("!-o -p !--mark --dport", "!-d -p --dport !--mark"),
        "DNS capture: ztunnel answers lookups on port 15053",
        both(check.marked(check.ZTUNNEL), says("--dport", "53"), check.sent_to(15053)),
        _UNMARKED,
    ),
    Known(
        "nat ISTIO_OUTPUT ACCEPT",
        ("-p --mark",),
        "answers of a connection that ztunnel opened to the application leave as they are",
        check.marked(check.ZTUNNEL_CONNECTION),
        _DONE,
    ),
    Known(
        "nat ISTIO_OUTPUT ACCEPT",
        ("!-d -o",),
        "what the pod sends to its own address over loopback is left alone",
        both(check.to(*check.LOOPBACK), check.on_lo),
    ),
    Known(
        "nat ISTIO_OUTPUT REDIRECT",
        ("!-d -p !--mark",),
        "what the application sends meets ztunnel on {port}",
        both(check.marked(check.ZTUNNEL), check.to(*check.LOOPBACK), check.sent_to(15001)),
        _UNMARKED,
    ),
    Known(
        "nat ISTIO_PRERT REDIRECT",
        ("-i -p",),
        "what comes from this interface counts as sent by the pod, and meets ztunnel on {port}",
        check.sent_to(15001),
    ),
    Known("nat ISTIO_PRERT RETURN", ("-i -p",), "what comes from this interface has been dealt with"),
    Known(
        "raw ISTIO_OUTPUT CT",
        ("-p --mark --dport",),
        f"DNS capture: ztunnel's lookups have zone 1, {_ZONES}",
        both(check.marked(check.ZTUNNEL), says("--dport", "53"), says("--zone", "1")),
    ),
    Known(
        "raw ISTIO_PRERT CT",
        ("-p !--mark --sport",),
        f"DNS capture: resolvers' answers to ztunnel have zone 1, {_ZONES}",
        both(check.marked(check.ZTUNNEL), says("--sport", "53"), says("--zone", "1")),
    ),
    Known("nat POSTROUTING ISTIO_POSTRT", ("",), "on the node: the kubelet's probes are looked for there"),
    Known(
        "nat ISTIO_POSTRT SNAT",
        ("-p --socket-exists", "-p --socket-exists --match-set"),
        "on the node: the kubelet's probes get an address by which the pod can tell them from other traffic",
        says("--to-source", "169.254.7.127"),
    ),
)
