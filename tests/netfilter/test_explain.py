import dataclasses
import ipaddress

import pytest

from bookinfo_lab.netfilter import explain, istio_iptables, kube_proxy, node
from bookinfo_lab.netfilter.rule import Match, Option
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.values import Masked, Numbers, PortRange, Translation
from bookinfo_lab.trace import Step

REAL = [
    "iptables/istio-ambient-inpod.save",
    "iptables/istio-sidecar-current.save",
    "iptables/real_kubeadm_flannel_worker1_20230202.rules",
    *[
        f"cluster/{folder}/{host}.{family}tables-save"
        for folder in ("iptables", "nftables")
        for host in ("lab-0", "lab-1")
        for family in ("ip", "ip6")
    ],
    *[f"cluster/istio/{host}.iptables-save" for host in ("lab-0", "lab-1", "productpage")],
]


def rules_of(ruleset):
    return [rule for table in ruleset.tables for chain in ruleset.chains(table) for rule in ruleset.rules(table, chain)]


def of(text, table="filter", chain="FORWARD"):
    """The one rule of that text, without a ruleset to look at."""
    return parse(f"*{table}\n:{chain} - [0:0]\n-A {chain} {text}\nCOMMIT\n").rules(table, chain)[0]


def content(rule):
    """All that a rule's sentence has to tell from another's: not its place, and not its comment."""
    matches = tuple(item for item in rule.matches if item.module != "comment" and item.options)
    base = rule.target == "RETURN" and rule.chain in ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
    return (matches, rule.target, rule.is_goto, rule.target_options, base and rule.chain)


@pytest.mark.data
@pytest.mark.parametrize("file", REAL)
def test_every_rule_of_a_real_file_has_a_sentence_of_its_own(recorded, file):
    ruleset = parse(recorded(file))
    said = {}
    for rule in rules_of(ruleset):
        sentence = explain.rule(rule, ruleset)
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert "not explained" not in sentence
        meaning = explain.meaning(rule, ruleset)
        assert said.setdefault(meaning, content(rule)) == content(rule), meaning


@pytest.mark.data
@pytest.mark.parametrize("file", [name for name in REAL if "real_kubeadm" not in name])
def test_every_rule_that_kube_proxy_the_kubelet_and_istio_wrote_has_a_purpose(recorded, file):
    ruleset = parse(recorded(file))
    assert [rule.text for rule in rules_of(ruleset) if " — " not in explain.rule(rule, ruleset)] == []


@pytest.mark.data
def test_flannels_rules_have_a_meaning_but_no_purpose(recorded):
    ruleset = parse(recorded("iptables/real_kubeadm_flannel_worker1_20230202.rules"))
    without = [rule for rule in rules_of(ruleset) if " — " not in explain.rule(rule, ruleset)]
    assert len(without) == 9
    assert all("FLANNEL" in rule.chain + rule.target for rule in without)


def test_every_rule_of_2017_has_a_purpose(api):
    ports = [{"name": "http", "port": 80, "nodePort": 30080, "protocol": "TCP"}]
    here, there = ("10.244.0.2", "lab-0", "ready"), ("10.244.1.2", "lab-1", "ready")
    objects = [api.node()]
    for number, (name, policy, ranges) in enumerate((("a", "Local", []), ("b", "Cluster", ["203.0.113.0/24"]))):
        service = api.service(
            name,
            ports=ports,
            clusterIP=f"10.96.0.{number + 1}",
            type="LoadBalancer",
            ingress=[{"ip": f"198.51.100.{number}"}],
            externalTrafficPolicy=policy,
            loadBalancerSourceRanges=ranges,
            externalIPs=[f"192.0.2.{number}"],
            sessionAffinity="ClientIP" if ranges else "None",
        )
        objects += [service, api.endpoints(here, there, service=name, name=name)]
    objects += [api.service("c", clusterIP="10.96.0.3"), api.endpoints(service="c", name="c")]
    ruleset = parse(node.rules(objects, "lab-0", kube_proxy.Settings("10.244.0.0/16", layout="2017")))
    found = rules_of(ruleset)
    assert len(found) > 50
    assert [rule.text for rule in found if " — " not in explain.rule(rule, ruleset)] == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Any packet that gets here is counted and goes on: the rule has no target"),
        ("-j ACCEPT", "Any packet that gets here is accepted"),
        ("-s 10.0.0.0/8 -d 192.0.2.7/32 -j DROP", "A packet from 10.0.0.0/8, to 192.0.2.7, is dropped"),
        ("! -s 10.0.0.0/8 -j DROP", "A packet not from 10.0.0.0/8 is dropped"),
        (
            "-i eth+ ! -o lo -j ACCEPT",
            (
                "A packet that comes in by an interface whose name starts with eth, that does not"
                " leave by lo, is accepted"
            ),
        ),
        ("! -p tcp -j DROP", "A packet that is not TCP is dropped"),
        ("-p icmp -j ACCEPT", "An ICMP packet is accepted"),
        ("-p sctp -m sctp --dport 80 -j ACCEPT", "An SCTP packet with destination port 80 is accepted"),
        ("-p 47 -j ACCEPT", "A packet that is of protocol 47 is accepted"),
        (
            "-p tcp -m tcp ! --dport 8000:8080 -j DROP",
            ("A TCP packet with a destination port other than 8000 to 8080 is dropped"),
        ),
        (
            "-p tcp -m multiport --dports 53,8000:8080 -j DROP",
            ("A TCP packet with destination port 53 or 8000 to 8080 is dropped"),
        ),
        (
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            ("A packet whose connection state is RELATED or ESTABLISHED is accepted"),
        ),
        (
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
            ("A packet whose connection state is none of RELATED, ESTABLISHED, DNAT is dropped"),
        ),
        ("-m mark --mark 0x4000/0x4000 -j ACCEPT", "A packet whose mark has bit 14 (0x4000) set is accepted"),
        (
            "-m mark ! --mark 0x4000/0x4000 -j ACCEPT",
            "A packet whose mark does not have bit 14 (0x4000) set is accepted",
        ),
        ("-m mark --mark 0x0/0x3 -j ACCEPT", "A packet whose mark has bits 0 and 1 (0x3) clear is accepted"),
        ("-m mark --mark 0x539 -j ACCEPT", "A packet whose mark is 0x539 is accepted"),
        ("-m mark ! --mark 0x539/0xfff -j ACCEPT", "A packet whose mark, masked with 0xfff, is not 0x539 is accepted"),
        (
            "-m connmark --mark 0x111/0xfff -j ACCEPT",
            ("A packet whose connection's mark, masked with 0xfff, is 0x111 is accepted"),
        ),
        ("-m owner --uid-owner 1000-1999 -j DROP", "A packet sent by a socket of uid 1000 to 1999 is dropped"),
        ("-m owner ! --gid-owner 1337 -j DROP", "A packet not sent by a socket of gid 1337 is dropped"),
        ("-m owner --socket-exists -j DROP", "A packet with a socket on this host is dropped"),
        (
            "-m addrtype ! --dst-type LOCAL -j DROP",
            ("A packet whose destination is not an address of this host (LOCAL) is dropped"),
        ),
        (
            "-m addrtype --src-type BROADCAST,MULTICAST -j DROP",
            ("A packet whose source address is of type BROADCAST or MULTICAST is dropped"),
        ),
        ("-m physdev ! --physdev-is-in -j DROP", "A packet that did not come in by a bridge port is dropped"),
        (
            "-m statistic --mode random --probability 0.33333333349 -j DROP",
            ("A packet picked at random with probability 0.333333 is dropped"),
        ),
        (
            "-m statistic --mode nth --every 3 --packet 0 -j DROP",
            ("A packet that is one in 3 by count, beginning with packet 0 is dropped"),
        ),
        (
            "-m recent --rcheck --seconds 600 --reap --name A --mask 255.255.255.255 --rsource -j DROP",
            (
                "A packet whose"
                " source address is on the list A seen in the last 600 s (older entries are removed) is dropped"
            ),
        ),
        (
            "-m recent --set --name A --mask 255.255.255.255 --rsource -j DROP",
            ("A packet whose source address is put on the list A (this always matches) is dropped"),
        ),
        (
            "-m nfacct --nfacct-name  lost -j DROP",
            ("A packet counted by the accounting object lost (this always matches) is dropped"),
        ),
        (
            "-j REJECT --reject-with icmp-port-unreachable",
            ("Any packet that gets here is rejected: its sender gets ICMP port unreachable"),
        ),
        ("-p tcp -j REJECT --reject-with tcp-reset", "A TCP packet is rejected: its sender gets a TCP RST"),
        ("-j SOMEWHERE", "Any packet that gets here jumps to chain SOMEWHERE"),
        ("-g SOMEWHERE", "Any packet that gets here goes to chain SOMEWHERE and never comes back to this one (-g)"),
        ("-j RETURN", "Any packet that gets here skips the rest of FORWARD and meets its policy"),
    ],
)
def test_what_a_rule_asks_and_does_is_said_word_for_word(text, said):
    assert explain.rule(of(text)) == f"{said}."


@pytest.mark.parametrize(
    ("table", "text", "said"),
    [
        ("mangle", "-j MARK --set-xmark 0x4000/0x4000", "has bit 14 (0x4000) of its mark set and goes on"),
        ("mangle", "-j MARK --set-xmark 0x4000/0x0", "has bit 14 (0x4000) of its mark toggled (XOR) and goes on"),
        ("mangle", "-j MARK --set-xmark 0x0/0x4000", "has bit 14 (0x4000) of its mark cleared and goes on"),
        ("mangle", "-j MARK --set-xmark 0x539/0xffffffff", "has its mark set to 0x539 and goes on"),
        ("mangle", "-j MARK --set-xmark 0x111/0xfff", "has the bits of 0xfff of its mark set to 0x111 and goes on"),
        (
            "mangle",
            "-j MARK --set-xmark 0x6/0x3",
            (
                "has bit 1 (0x2) of its mark set, bit 0 (0x1) of its mark cleared and"
                " bit 2 (0x4) of its mark toggled (XOR) and goes on"
            ),
        ),
        ("mangle", "-j MARK --set-xmark 0x0/0x0", "keeps its mark as it is and goes on"),
        ("mangle", "-j MARK --or-mark 0x4000", "has bit 14 (0x4000) of its mark set and goes on"),
        ("mangle", "-j MARK --xor-mark 0x4000", "has bit 14 (0x4000) of its mark toggled (XOR) and goes on"),
        ("mangle", "-j CONNMARK --set-xmark 0x1/0x1", "has bit 0 (0x1) of its connection's mark set and goes on"),
        (
            "mangle",
            "-j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            "has its mark saved as its connection's mark and goes on",
        ),
        (
            "mangle",
            "-j CONNMARK --restore-mark --nfmask 0xff --ctmask 0xf",
            (
                "has the part 0xf of its connection's mark"
                " brought back into its mark, of which the part 0xff was cleared, and goes on"
            ),
        ),
        (
            "mangle",
            "-j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
            (
                "is handed to the socket on"
                " port 15006 of this host with both addresses unchanged (TPROXY) and has its mark set to 0x539"
            ),
        ),
        ("raw", "-j CT --zone 2", "is tracked in conntrack zone 2 and goes on"),
        ("raw", "-j CT --notrack", "is not tracked (conntrack leaves it alone) and goes on"),
        ("nat", "-j DNAT --to-destination 10.0.0.1:80", "has its destination changed to 10.0.0.1:80 (DNAT)"),
        ("nat", "-j DNAT --to-destination 10.0.0.1", "has its destination changed to 10.0.0.1 (DNAT)"),
        (
            "nat",
            "-j SNAT --to-source 10.0.0.1-10.0.0.9 --persistent",
            ("has its source changed to 10.0.0.1 to 10.0.0.9 (SNAT), one client always getting the same address"),
        ),
        ("nat", "-j REDIRECT --to-ports 15001", "is redirected to port 15001 of this host (REDIRECT)"),
        ("nat", "-j REDIRECT", "is redirected to the same port of this host (REDIRECT)"),
        (
            "nat",
            "-j MASQUERADE --random-fully",
            (
                "has its source changed to an address of the interface it leaves by"
                " (MASQUERADE), its port chosen fully at random"
            ),
        ),
        ("nat", "-j RETURN", "goes back to the chain it came from"),
        (
            "nat",
            "-j NFQUEUE --queue-num 3",
            (
                "is handed to the target NFQUEUE, which is not explained here, with options not"
                " explained here (--queue-num 3)"
            ),
        ),
    ],
)
def test_what_a_target_does_is_said_word_for_word(table, text, said):
    assert explain.rule(of(text, table, "MINE")) == f"Any packet that gets here {said}."


@pytest.mark.parametrize(
    ("chain", "text", "said"),
    [
        (
            "KUBE-MARK-MASQ",
            "-j MARK --set-xmark 0x4000/0x4000",
            "kube-proxy's mark for SNAT: KUBE-POSTROUTING masquerades what carries it",
        ),
        (
            "KUBE-POSTROUTING",
            "-j MARK --set-xmark 0x4000/0x0",
            "takes kube-proxy's mark off, so that a second pass does not masquerade the packet again",
        ),
        (
            "KUBE-SERVICES",
            (
                '-d 10.96.0.10/32 -p udp -m comment --comment "kube-system/kube-dns:dns cluster IP" -m udp --dport 53 '
                "-j KUBE-SVC-TCOU7JCQXEZGVUNU"
            ),
            "the cluster IP of Service kube-system/kube-dns, port dns",
        ),
        (
            "KUBE-NODEPORTS",
            '-p tcp -m comment --comment "default/jtest" -m tcp --dport 31455 -j KUBE-EXT-FXJ34XFJ55FJZHFP',
            "the node port of Service default/jtest",
        ),
        (
            "KUBE-SEP-LBMQNJ35ID4UIQ2A",
            '-p udp -m comment --comment "kube-system/kube-dns:dns" -m udp -j DNAT --to-destination 10.244.0.9:53',
            "this chain's endpoint of Service kube-system/kube-dns, port dns",
        ),
        (
            "ISTIO_OUTPUT",
            "-m owner --uid-owner 1337 -j RETURN",
            (
                "what the proxy sends leaves as it is; were the proxy's own"
                " connections redirected too, they would come back to it for ever"
            ),
        ),
    ],
)
def test_a_known_rules_purpose_follows_a_dash(chain, text, said):
    assert explain.rule(of(text, "nat", chain)).partition(" — ")[2] == f"{said}."


@pytest.mark.parametrize(
    ("table", "chain", "text"),
    [
        ("nat", "KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x0"),
        ("nat", "KUBE-MARK-MASQ", "-s 10.0.0.1/32 -j MARK --set-xmark 0x4000/0x4000"),
        ("nat", "KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0xffffffff"),
        ("nat", "KUBE-MARK-MASQ", "-j ACCEPT"),
        ("filter", "KUBE-MARK-MASQ", "-j MARK --set-xmark 0x4000/0x4000"),
        ("nat", "KUBE-POSTROUTING", "-j MARK --set-xmark 0x4000/0x4000"),
        ("nat", "KUBE-POSTROUTING", "-m mark --mark 0x4000/0x4000 -j RETURN"),
        ("nat", "KUBE-SERVICES", "-m addrtype --dst-type UNICAST -j KUBE-NODEPORTS"),
        ("nat", "KUBE-SERVICES", "-d 10.96.0.0/24 -p udp -m udp --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU"),
        (
            "nat",
            "KUBE-SERVICES",
            (
                '-d 10.96.0.10/32 -p udp -m comment --comment "kube-system/other:dns cluster IP" -m udp'
                " --dport 53 -j KUBE-SVC-TCOU7JCQXEZGVUNU"
            ),
        ),
        (
            "nat",
            "KUBE-SEP-LBMQNJ35ID4UIQ2A",
            '-p udp -m comment --comment "kube-system/kube-dns:dns" -m udp -j DNAT --to-destination 10.244.0.8:53',
        ),
        ("nat", "KUBE-EXT-FXJ34XFJ55FJZHFP", "-j KUBE-SVC-TCOU7JCQXEZGVUNU"),
        (
            "nat",
            "KUBE-SVC-TCOU7JCQXEZGVUNU",
            (
                "-m recent --rcheck --seconds 600 --reap --name OTHER --mask 255.255.255.255"
                " --rsource -j KUBE-SEP-LBMQNJ35ID4UIQ2A"
            ),
        ),
        ("filter", "KUBE-FORWARD", "-m conntrack --ctstate NEW -j DROP"),
        (
            "filter",
            "KUBE-FIREWALL",
            "! -s 127.0.0.0/8 -d 10.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
        ),
        ("filter", "KUBE-NODEPORTS", "-p tcp -m tcp --dport 30080 -j DROP"),
    ],
)
def test_a_rule_of_a_known_chain_with_other_content_has_no_purpose(table, chain, text):
    assert " — " not in explain.rule(of(text, table, chain))


def test_a_mark_that_nothing_masquerades_is_not_called_kube_proxys(api):
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    objects = [api.node(), api.service(type="NodePort", ports=ports), api.endpoints(("10.244.0.2", "lab-0", "ready"))]
    text = kube_proxy.rules(objects, "lab-0", kube_proxy.Settings("10.244.0.0/16"))
    ruleset, other = (
        parse(text),
        parse(text.replace("-j MARK --set-xmark 0x4000/0x4000", "-j MARK --set-xmark 0x8/0x8")),
    )
    for chain in ("KUBE-MARK-MASQ", next(chain for chain in ruleset.chains("nat") if "-EXT-" in chain)):
        assert " — " in explain.rule(ruleset.rules("nat", chain)[0], ruleset)
        assert " — " not in explain.rule(other.rules("nat", chain)[0], other)


def test_the_share_of_an_endpoint_is_that_of_all_connections(api):
    three = [(f"10.244.0.{number}", "lab-0", "ready") for number in (2, 3, 4)]
    for affinity, more in (("None", ""), ("ClientIP", " and that no affinity binds")):
        objects = [api.node(), api.service(sessionAffinity=affinity), api.endpoints(*three)]
        ruleset = parse(kube_proxy.rules(objects, "lab-0", kube_proxy.Settings("10.244.0.0/16")))
        (chain,) = (chain for chain in ruleset.chains("nat") if "-SVC-" in chain)
        said = [explain.rule(rule, ruleset).partition(" — ")[2] for rule in ruleset.rules("nat", chain)[-3:]]
        assert said == [
            f"load balancing: endpoint {place} of 3, with 33.33 % of the connections that come here{more}."
            for place in (1, 2, 3)
        ]


def test_what_is_not_modelled_is_named():
    rule = of("-p tcp -m tcp --dport 80 -j ACCEPT")
    odd = Match("odd", (Option("--wind", ("north", "7"), negated=True, known=False),))
    assert explain.rule(dataclasses.replace(rule, matches=(*rule.matches, odd))) == (
        "A TCP packet with destination port 80, under a condition not explained here (-m odd ! --wind north 7), "
        "is accepted."
    )
    rule = dataclasses.replace(rule, target="DNAT", target_options=(Option("--odd", ("1",), known=False),))
    assert explain.rule(rule).endswith(", with options not explained here (--odd 1).")


def test_with_a_ruleset_targets_are_told_from_chains():
    ruleset = parse("*filter\n:FORWARD ACCEPT [0:0]\n:MINE - [0:0]\n-A FORWARD -j MINE\n-A FORWARD -j YOURS\nCOMMIT\n")
    assert [explain.rule(rule, ruleset) for rule in ruleset.rules("filter", "FORWARD")] == [
        "Any packet that gets here jumps to chain MINE.",
        "Any packet that gets here is handed to the target YOURS, which is not explained here.",
    ]


# Options without which the sentence rightly stays the same: they are the default, or say how and not what.
DEFAULTS = ("--rsource", "--mask", "--nfmask", "--ctmask", "--on-ip", "--packet")


def another(value):
    """A value of the same kind that is not the same."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return type(value)((int(value.network_address) ^ (1 << 31), value.prefixlen))
    if isinstance(value, PortRange | Numbers):
        return dataclasses.replace(value, last=value.last + 1)
    if isinstance(value, Masked):
        return dataclasses.replace(value, value=value.value ^ 0x10)
    if isinstance(value, Translation):
        return dataclasses.replace(value, first=value.first + 1, last=None)
    if isinstance(value, tuple):
        return ("UNTRACKED", *value[1:]) if value[0] != "LOCAL" else ("UNICAST",)
    return value * 2 if isinstance(value, int | float) else f"{value}x"


def mutations(options):
    """(options with one changed, what was changed)."""
    for index, option in enumerate(options):
        before, after = options[:index], options[index + 1 :]
        yield (*before, dataclasses.replace(option, negated=not option.negated), *after), f"! {option.name}"
        if option.values:
            changed = (another(option.values[0]), *option.values[1:])
            yield (*before, dataclasses.replace(option, values=changed), *after), f"value of {option.name}"
        if option.name not in DEFAULTS:
            yield (*before, *after), f"without {option.name}"


@pytest.mark.parametrize(
    ("table", "text"),
    [
        ("nat", "! -s 10.244.0.0/16 -d 10.96.0.10/32 -p tcp -m tcp --dport 53 -j KUBE-MARK-MASQ"),
        ("nat", "-i eth0 -p udp -m udp --sport 53 --dport 1024:65535 -j KUBE-SEP-A"),
        (
            "nat",
            "-p tcp -m multiport --dports 53,15008 -m owner --uid-owner 1337 --gid-owner 1337 -j ISTIO_IN_REDIRECT",
        ),
        ("nat", "-m addrtype --src-type LOCAL -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"),
        ("nat", "-m recent --rcheck --seconds 600 --reap --name A --mask 255.255.255.255 --rsource -j KUBE-SEP-A"),
        ("nat", "-m recent --set --name A --mask 255.255.255.255 --rsource -j DNAT --to-destination 10.0.0.1:80"),
        ("nat", "-m statistic --mode random --probability 0.25000000000 -j KUBE-SEP-A"),
        ("nat", "-m statistic --mode nth --every 3 --packet 1 -j KUBE-SEP-A"),
        ("nat", "-m nfacct --nfacct-name  a -j SNAT --to-source 10.0.0.1 --random-fully --persistent"),
        ("nat", "-o lo -p tcp -j REDIRECT --to-ports 15001 --random"),
        ("nat", "-p tcp -j MASQUERADE --to-ports 1024-2048 --random-fully"),
        ("filter", "-m conntrack --ctstate RELATED,ESTABLISHED --ctstatus DNAT -j ACCEPT"),
        ("filter", "-m physdev --physdev-is-in -m mark --mark 0x4000/0x4000 -j REJECT --reject-with tcp-reset"),
        ("mangle", "-m mark --mark 0x539/0xfff -m connmark --mark 0x111 -j CONNMARK --set-xmark 0x111/0xfff"),
        ("mangle", "-j CONNMARK --save-mark --nfmask 0xff --ctmask 0xf"),
        ("mangle", "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"),
        ("mangle", "-p tcp -j TPROXY --on-port 15006 --on-ip 10.0.0.1 --tproxy-mark 0x539/0xffffffff"),
        ("raw", "-p udp -j CT --zone 2"),
    ],
)
def test_a_change_of_one_option_changes_the_sentence(table, text):
    rule = of(text, table, "MINE")
    said, count = explain.rule(rule), 0
    for index, match in enumerate(rule.matches):
        for options, what in mutations(match.options):
            matches = (*rule.matches[:index], Match(match.module, options), *rule.matches[index + 1 :])
            assert explain.rule(dataclasses.replace(rule, matches=matches)) != said, what
            count += 1
    for options, what in mutations(rule.target_options):
        assert explain.rule(dataclasses.replace(rule, target_options=options)) != said, what
        count += 1
    assert explain.rule(dataclasses.replace(rule, target="DROP", target_options=())) != said
    assert count >= 2


def test_the_rules_that_the_lab_writes_into_a_pod_have_no_two_meanings_in_one_sentence():
    ruleset = parse(istio_iptables.rules(istio_iptables.Settings(outbound_ports_exclude=(22, 25))))
    found = rules_of(ruleset)
    assert len({explain.meaning(rule, ruleset) for rule in found}) == len({content(rule) for rule in found})


@pytest.mark.parametrize(
    ("where", "matched", "why", "verdict", "said"),
    [
        (
            "nat OUTPUT 1",
            True,
            "",
            "redirect",
            (
                "A TCP packet with destination port 80 is redirected to port 8080 of this host (REDIRECT) "
                "(dst 10.0.0.1:80 → 127.0.0.1:8080)."
            ),
        ),
        (
            "nat OUTPUT 1",
            False,
            "--dport 80 is asked, the packet has 81",
            "continue",
            ("Rule 1 of OUTPUT does not match: --dport 80 is asked, the packet has 81."),
        ),
        (
            "nat OUTPUT 1",
            None,
            "no uid was given",
            "continue",
            (
                "It cannot be told whether this matches: no uid was given; "
                "the rule: A TCP packet with destination port 80 is redirected to port 8080 of this host (REDIRECT)."
            ),
        ),
        (
            "nat OUTPUT 2–9",
            False,
            "none is for 10.0.0.1",
            "continue",
            ("Rules 2–9 of nat OUTPUT do not match: none is for 10.0.0.1."),
        ),
        ("policy nat OUTPUT", True, "", "accept", "No rule of OUTPUT ended it, and the chain's policy counts: accept."),
        (
            "return nat MINE",
            True,
            "",
            "return",
            ("Chain MINE has no more rules, and the packet goes back to the chain it came from: return."),
        ),
        ("routing", True, "10.0.0.0/8 leads to eth0", "", "Routing: 10.0.0.0/8 leads to eth0."),
    ],
)
def test_a_step_of_a_walk_has_a_sentence(where, matched, why, verdict, said):
    ruleset = parse(
        "*nat\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -p tcp -m tcp --dport 80 -j REDIRECT --to-ports 8080\nCOMMIT\n"
    )
    before, after = (("dst", "10.0.0.1:80"),), (("dst", "127.0.0.1:8080"),)
    step = Step(3, 2, where, "", matched, why, before, after if where == "nat OUTPUT 1" else before, "", verdict)
    assert explain.step(step, ruleset) == said
