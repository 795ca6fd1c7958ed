"""The rules that kube-proxy and the kubelet write into table filter, and what they want with each.

Pure; read by `kube_words`.  Follows kubernetes pkg/proxy/iptables/proxier.go and
pkg/kubelet/kubelet_network_linux.go (1.34), and those of 2017 (1.8).
"""

from . import kube_checks as check
from .known_rule import Known, says

FILTER = (
    Known(
        "filter (?:INPUT|FORWARD|OUTPUT) KUBE-PROXY-FIREWALL",
        ("--ctstate",),
        "new connections that no load balancer's source range let in are dropped there",
        says("--ctstate", "NEW"),
    ),
    Known("filter INPUT KUBE-NODEPORTS", ("",), "health checks of load balancers are let in there"),
    Known(
        "filter (?:INPUT|FORWARD) KUBE-EXTERNAL-SERVICES",
        ("--ctstate",),
        "new connections from outside to Services without endpoints are refused there",
        says("--ctstate", "NEW"),
    ),
    Known(
        "filter (?:INPUT|FORWARD|OUTPUT) KUBE-SERVICES",
        ("--ctstate", ""),
        "connections to Services without endpoints are refused there",
    ),
    Known("filter FORWARD KUBE-FORWARD", ("",), "kube-proxy's rules for what passes through this node"),
    Known("filter (?:INPUT|OUTPUT) KUBE-FIREWALL", ("",), "the kubelet's and kube-proxy's guard of this node"),
    Known(
        "filter KUBE-(?:EXTERNAL-)?SERVICES (?:REJECT|DROP)",
        ("-d -p --dport",),
        "{service} has no endpoint that this packet may reach",
        check.to_host,
    ),
    Known(
        "filter KUBE-(?:EXTERNAL-)?SERVICES (?:REJECT|DROP)",
        ("--dst-type -p --dport",),
        "the node port of {service} has no endpoint that this packet may reach",
        says("--dst-type", "LOCAL"),
    ),
    Known(
        "filter KUBE-PROXY-FIREWALL DROP",
        ("-d -p --dport",),
        "no source range of the load balancer of {service} let this in: it is still untranslated",
        check.to_host,
    ),
    Known("filter KUBE-NODEPORTS ACCEPT", ("-p --dport",), "the health check node port of {service}"),
    Known(
        "filter KUBE-FORWARD DROP",
        ("--ctstate", "--ctstate --nfacct-name"),
        "what conntrack cannot place would leave untranslated, and could reset the client's connection",
        says("--ctstate", "INVALID"),
    ),
    Known(
        "filter KUBE-FORWARD ACCEPT",
        ("--mark",),
        "what kube-proxy marked for SNAT may pass, whatever the policy of FORWARD",
        check.is_masquerade_bit,
    ),
    Known(
        "filter KUBE-FORWARD ACCEPT",
        ("--ctstate",),
        "later packets and answers of connections that passed may pass",
        says("--ctstate", "RELATED", "ESTABLISHED"),
    ),
    Known(
        "filter KUBE-FIREWALL DROP",
        ("!-s -d !--ctstate",),
        "kube-proxy makes 127.0.0.0/8 routable (route_localnet), and this keeps others on the link out of it",
        check.guards_loopback,
    ),
    Known("filter KUBE-FIREWALL DROP", ("--mark",), "drops what KUBE-MARK-DROP marked", check.compares_bits),
)
