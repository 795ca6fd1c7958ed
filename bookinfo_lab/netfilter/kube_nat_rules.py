"""The rules that kube-proxy and the kubelet write into table nat, and what they want with each.

Pure; read by `kube_words`.  Follows kubernetes pkg/proxy/iptables/proxier.go (1.34), and the same of 2017 (1.8).
"""

from . import kube_checks as check
from .known_rule import Known, both, says

_ANSWERS_PASS_HERE = "so that its answer comes back through this node, which translated it"
_TO, _FROM_OTHERS = "-d -p --dport", "!-s -d -p --dport"
_AFFINITY = "--rcheck --seconds --reap --name --mask --rsource"
_SVC, _SEP = "KUBE-(?:SVC|SVL)-[A-Z2-7]{16}", "KUBE-SEP-[A-Z2-7]{16}"
_EXT_TO = "nat KUBE-EXT-(?P<a>[A-Z2-7]{16}) "
_NAMED = both(check.to_host, check.names_its_chain)
NAT = (
    Known(
        "nat KUBE-MARK-MASQ MARK",
        ("",),
        "kube-proxy's mark for SNAT: KUBE-POSTROUTING masquerades what carries it",
        check.masquerade_mark,
    ),
    Known("nat KUBE-MARK-DROP MARK", ("",), "the kubelet's mark for what KUBE-FIREWALL drops", check.drop_mark),
    Known(
        "nat KUBE-POSTROUTING RETURN",
        ("!--mark",),
        "without kube-proxy's mark the source address stays as it is",
        check.is_masquerade_bit,
    ),
    Known(
        "nat KUBE-POSTROUTING MARK",
        ("",),
        "takes kube-proxy's mark off, so that a second pass does not masquerade the packet again",
        check.toggles_bits,
    ),
    Known(
        "nat KUBE-POSTROUTING MASQUERADE",
        ("", "--mark"),
        f"SNAT for Service traffic that was marked for it, {_ANSWERS_PASS_HERE}",
    ),
    Known("nat (?:PREROUTING|OUTPUT) KUBE-SERVICES", ("",), "each new connection is looked up among the Services"),
    Known("nat POSTROUTING KUBE-POSTROUTING", ("",), "what kube-proxy marked is masqueraded there"),
    Known("nat KUBE-SERVICES KUBE-(?:SVC|SVL|EXT|FW)-[A-Z2-7]{16}", (_TO,), "{entry} of {service}", _NAMED),
    Known(
        "nat KUBE-SERVICES KUBE-MARK-MASQ",
        (_FROM_OTHERS,),
        "a client of {entry} of {service} that is not a pod is to be masqueraded, " + _ANSWERS_PASS_HERE,
        check.to_host_for_masquerade,
    ),
    Known(
        "nat KUBE-SERVICES KUBE-MARK-MASQ",
        (_TO,),
        "every client of {entry} of {service} is to be masqueraded, " + _ANSWERS_PASS_HERE,
        check.to_host_for_masquerade,
    ),
    Known(
        "nat KUBE-SERVICES KUBE-SVC-[A-Z2-7]{16}",
        (f"{_TO} !--physdev-is-in !--src-type",),
        "{entry} of {service}, for what comes from off this machine",
        _NAMED,
    ),
    Known(
        "nat KUBE-SERVICES KUBE-SVC-[A-Z2-7]{16}",
        (f"{_TO} --dst-type",),
        "{entry} of {service}, where this node has it itself",
        _NAMED,
    ),
    Known(
        "nat KUBE-SERVICES KUBE-NODEPORTS",
        ("--dst-type", "!-d --dst-type"),
        "what no Service's address took may still be for a node port: this rule stands last",
        says("--dst-type", "LOCAL"),
    ),
    Known(
        "nat KUBE-NODEPORTS KUBE-(?:EXT|SVC|XLB)-[A-Z2-7]{16}",
        ("-p --dport",),
        "the node port of {service}",
        check.names_its_chain,
    ),
    Known(
        "nat KUBE-NODEPORTS KUBE-EXT-[A-Z2-7]{16}",
        ("-d -p --dport --nfacct-name",),
        "the node port of {service} on loopback, which kube-proxy counts: the next rule leads the same way",
        both(says("-d", "127.0.0.0/8"), check.names_its_chain),
    ),
    Known(
        "nat KUBE-NODEPORTS KUBE-MARK-MASQ",
        ("-p --dport",),
        "what comes to the node port of {service} is to be masqueraded, " + _ANSWERS_PASS_HERE,
        check.marks_for_masquerade,
    ),
    Known(
        "nat KUBE-EXT-[A-Z2-7]{16} KUBE-MARK-MASQ",
        ("",),
        f"external traffic policy Cluster: what comes from outside is to be masqueraded, {_ANSWERS_PASS_HERE}",
        check.marks_for_masquerade,
    ),
    Known(
        "nat KUBE-EXT-[A-Z2-7]{16} KUBE-MARK-MASQ",
        ("--src-type",),
        f"external traffic policy Local: this node's own requests are to be masqueraded, {_ANSWERS_PASS_HERE}",
        check.from_node_for_masquerade,
    ),
    Known(f"{_EXT_TO}KUBE-SVC-(?P<b>[A-Z2-7]{{16}})", ("",), "external traffic policy Cluster: any endpoint will do"),
    Known(
        f"{_EXT_TO}KUBE-SVC-(?P<b>[A-Z2-7]{{16}})",
        ("-s",),
        "external traffic policy Local does not bind pods: they may reach any endpoint, and keep their address",
    ),
    Known(
        f"{_EXT_TO}KUBE-SVC-(?P<b>[A-Z2-7]{{16}})",
        ("--src-type",),
        "external traffic policy Local does not bind this node's own requests: they may reach any endpoint",
        says("--src-type", "LOCAL"),
    ),
    Known(
        f"{_EXT_TO}KUBE-SVL-(?P<b>[A-Z2-7]{{16}})",
        ("",),
        "external traffic policy Local: only endpoints on this node, which see the client's own address",
    ),
    Known(
        f"nat {_SVC} KUBE-MARK-MASQ",
        (_FROM_OTHERS,),
        f"a client of the cluster IP that is not a pod is to be masqueraded, {_ANSWERS_PASS_HERE}",
        check.to_host_for_masquerade,
    ),
    Known(
        f"nat {_SVC} KUBE-MARK-MASQ",
        (_TO,),
        f"every client of the cluster IP is to be masqueraded, {_ANSWERS_PASS_HERE}",
        check.to_host_for_masquerade,
    ),
    Known(
        f"nat {_SVC} {_SEP}",
        (_AFFINITY,),
        "session affinity: a client of the last {seconds} s goes back to its endpoint",
        check.remembers_its_endpoint,
    ),
    Known(f"nat KUBE-(?:SVC|SVL|XLB)-[A-Z2-7]{{16}} {_SEP}", ("--mode --probability", ""), "load balancing: {share}"),
    Known(
        f"nat {_SEP} KUBE-MARK-MASQ",
        ("-s",),
        "hairpin: a pod that reaches itself through its Service is masqueraded, or it would answer itself directly",
        check.from_host,
    ),
    Known(f"nat {_SEP} DNAT", ("-p",), "this chain's endpoint of {service}", check.names_its_endpoint),
    Known(
        f"nat {_SEP} DNAT",
        ("-p --set --name --mask --rsource",),
        "this chain's endpoint of {service}; its client is remembered for session affinity",
        both(check.remembers_its_chain, check.names_its_endpoint),
    ),
    Known(
        "nat KUBE-FW-(?P<a>[A-Z2-7]{16}) KUBE-(?:EXT|SVC|XLB)-(?P<b>[A-Z2-7]{16})",
        ("-s",),
        "a source range that the load balancer of {service} lets in",
    ),
    Known(
        "nat KUBE-FW-(?P<a>[A-Z2-7]{16}) KUBE-(?:EXT|SVC|XLB)-(?P<b>[A-Z2-7]{16})",
        ("",),
        "the load balancer of {service} lets everyone in",
    ),
    Known(
        "nat KUBE-FW-[A-Z2-7]{16} ",
        ("",),
        "what no source range let in stays untranslated, and KUBE-PROXY-FIREWALL drops it",
        check.firewall_follows,
    ),
    Known(
        "nat KUBE-FW-[A-Z2-7]{16} KUBE-MARK-MASQ",
        ("",),
        f"what comes to the load balancer is to be masqueraded, {_ANSWERS_PASS_HERE}",
        check.marks_for_masquerade,
    ),
    Known(
        "nat KUBE-FW-[A-Z2-7]{16} KUBE-MARK-DROP",
        ("",),
        "what no rule above took is to be dropped",
        check.marks_for_drop,
    ),
    Known(
        "nat KUBE-XLB-(?P<a>[A-Z2-7]{16}) KUBE-SVC-(?P<b>[A-Z2-7]{16})",
        ("-s",),
        "external traffic policy Local does not bind pods: they may reach any endpoint",
    ),
    Known(
        "nat KUBE-XLB-[A-Z2-7]{16} KUBE-MARK-DROP",
        ("",),
        "external traffic policy Local, and no endpoint on this node: to be dropped",
        check.marks_for_drop,
    ),
)
