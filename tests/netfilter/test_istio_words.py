import pytest

from bookinfo_lab.netfilter import istio_iptables
from bookinfo_lab.netfilter.istio_words import PORTS, istio_word, purpose
from bookinfo_lab.netfilter.ruleset import parse

ENDLESS = "were the proxy's own connections redirected too, they would come back to it for ever"
DONE = "it has been through the proxy, and would only come back to it"


def rules_of(ruleset):
    return [rule for table in ruleset.tables for chain in ruleset.chains(table) for rule in ruleset.rules(table, chain)]


def of(table, chain, text):
    """A ruleset of one rule, and that rule."""
    ruleset = parse(f"*{table}\n:{chain} - [0:0]\n-A {chain} {text}\nCOMMIT\n")
    return ruleset.rules(table, chain)[0]


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "mode"),
    [
        ("iptables/istio-sidecar-current.save", "sidecar"),
        ("cluster/istio/productpage.iptables-save", "sidecar"),
        ("iptables/istio-ambient-inpod.save", "ambient"),
    ],
)
def test_every_rule_of_a_real_pod_is_known(recorded, file, mode):
    ruleset = parse(recorded(file))
    found = rules_of(ruleset)
    assert len(found) >= 14
    assert {word and word.mode for word in (istio_word(rule, ruleset) for rule in found)} == {mode}


@pytest.mark.data
@pytest.mark.parametrize("cluster", ["iptables", "istio"])
def test_no_rule_of_a_node_is_istios(recorded, cluster):
    ruleset = parse(recorded(f"cluster/{cluster}/lab-0.iptables-save"))
    assert {istio_word(rule, ruleset) for rule in rules_of(ruleset)} == {None}


@pytest.mark.parametrize(
    "settings",
    [
        istio_iptables.Settings(),
        istio_iptables.Settings(owner="mark"),
        istio_iptables.Settings(proxy_uid=3, proxy_gid=4, outbound_port=16001, inbound_port=16006),
        istio_iptables.Settings(
            inbound_include=(80, 9080), outbound_ports_include=(3306,), outbound_ports_exclude=(22,)
        ),
        istio_iptables.Settings(outbound_cidrs_include=("10.96.0.0/16",), outbound_cidrs_exclude=("10.96.1.0/24",)),
    ],
)
def test_every_rule_that_the_lab_writes_is_known(settings):
    ruleset = parse(istio_iptables.rules(settings))
    words = {rule.text: istio_word(rule, ruleset) for rule in rules_of(ruleset)}
    assert [text for text, word in words.items() if word is None] == []
    proxys = [word for word in words.values() if word.no_loop == ENDLESS]
    expected = {
        (3, "uid"): ["uid 3", "gid 4"],
        (1337, "uid"): ["uid 1337", "gid 1337"],
        (1337, "mark"): ["mark 0x539"],
    }
    assert [word.told_by for word in proxys] == expected[settings.proxy_uid, settings.owner]


@pytest.mark.parametrize(
    ("table", "chain", "text", "said", "ports", "told_by", "no_loop"),
    [
        (
            "nat",
            "ISTIO_INBOUND",
            "-p tcp -m tcp --dport 15008 -j RETURN",
            "port 15008 (HBONE: mutual TLS tunnels of the mesh) is the proxy's own: it listens there",
            (15008,),
            "",
            "",
        ),
        (
            "nat",
            "ISTIO_INBOUND",
            "-p tcp -m tcp --dport 22 -j RETURN",
            "port 22 is left out of inbound interception",
            (22,),
            "",
            "",
        ),
        (
            "nat",
            "ISTIO_IN_REDIRECT",
            "-p tcp -j REDIRECT --to-ports 15006",
            "the proxy takes inbound connections on port 15006 (inbound: what comes to the application)",
            (15006,),
            "",
            "",
        ),
        (
            "nat",
            "ISTIO_OUTPUT",
            "-s 127.0.0.6/32 -o lo -j RETURN",
            "what the proxy passes on to the application, from an address that it keeps for that",
            (),
            "",
            DONE,
        ),
        (
            "nat",
            "ISTIO_OUTPUT",
            "! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
            "the application called its own pod through a Service: the proxy's call comes in like any other",
            (15008,),
            "uid 1337",
            "what the inbound side then sends comes from 127.0.0.6, or goes to loopback, and other rules let that pass",
        ),
        (
            "nat",
            "ISTIO_OUTPUT",
            "-o lo -m owner ! --gid-owner 1337 -j RETURN",
            "what others than the proxy send to their own pod over loopback is left alone",
            (),
            "not gid 1337",
            "",
        ),
        (
            "nat",
            "ISTIO_OUTPUT",
            "-m owner --uid-owner 1337 -j RETURN",
            "what the proxy sends leaves as it is",
            (),
            "uid 1337",
            ENDLESS,
        ),
        (
            "nat",
            "ISTIO_OUTPUT",
            "-m owner --gid-owner 202 -j RETURN",
            "what this owner sends is left out of outbound interception",
            (),
            "gid 202",
            "",
        ),
        (
            "nat",
            "ISTIO_OUTPUT_DNS",
            "-d 10.96.0.10/32 -p udp -m udp --dport 53 -j REDIRECT --to-ports 15053",
            "DNS capture: the proxy's agent answers lookups on port 15053",
            (15053, 53),
            "",
            "",
        ),
        (
            "nat",
            "ISTIO_OUTPUT_DNS",
            "-p udp -m udp --dport 53 -m owner --uid-owner 1337 -j RETURN",
            "DNS capture: the agent's own lookups go on to the resolver",
            (53,),
            "uid 1337",
            "were they captured too, they would come back to the agent for ever",
        ),
        (
            "raw",
            "ISTIO_OUTPUT_DNS",
            "-p udp -m udp --sport 15053 -m owner --uid-owner 1337 -j CT --zone 2",
            (
                "DNS capture: the agent's answers to the application have zone 2, so that the application's "
                "lookup and the proxy's own do not share a conntrack entry"
            ),
            (15053,),
            "uid 1337",
            "",
        ),
        (
            "mangle",
            "ISTIO_INBOUND",
            "-p tcp -m mark --mark 0x539 -j RETURN",
            "TPROXY: the proxy's mark is on what it sends with the client's address",
            (),
            "mark 0x539",
            DONE,
        ),
        (
            "mangle",
            "ISTIO_TPROXY",
            "! -d 127.0.0.1/32 -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
            (
                "TPROXY: the proxy takes inbound connections on port 15006 (inbound: what comes to the "
                "application), and the client's address is kept"
            ),
            (15006,),
            "",
            "",
        ),
        (
            "nat",
            "ISTIO_PRERT",
            "! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m mark ! --mark 0x539/0xfff -j REDIRECT --to-ports 15006",
            (
                "plain text from outside the mesh meets ztunnel on port 15006 (inbound: what comes to the "
                "application); HBONE (15008) goes to ztunnel's own socket"
            ),
            (15006, 15008),
            "not mark 0x539/0xfff",
            "what ztunnel sends carries the mark 0x539, and is not redirected to it again",
        ),
        (
            "mangle",
            "ISTIO_OUTPUT",
            "-m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
            "the application's answers to ztunnel get the mark 0x111 of their connection",
            (),
            "connection mark 0x111/0xfff",
            "",
        ),
    ],
)
def test_a_rule_says_what_it_is_for(table, chain, text, said, ports, told_by, no_loop):
    word = istio_word(of(table, chain, text))
    assert (word.purpose, word.told_by, word.no_loop) == (said, told_by, no_loop)
    assert word.ports == tuple((port, PORTS.get(port, "")) for port in ports)


TPROXY = """\
*mangle
:PREROUTING ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ISTIO_TPROXY - [0:0]
-A PREROUTING -p tcp -m mark --mark 0x539 -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff
-A OUTPUT -o lo -p tcp -m mark --mark 0x539 -j RETURN
-A OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m owner --uid-owner 1337 -j MARK --set-xmark 0x53a/0xffffffff
-A OUTPUT -p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff
COMMIT
*nat
:ISTIO_OUTPUT - [0:0]
-A ISTIO_OUTPUT ! -d 127.0.0.1/32 -o lo -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT
COMMIT
"""


def test_rules_of_base_chains_are_istios_only_beside_its_tproxy_chains():
    ruleset, without = parse(TPROXY), parse(TPROXY.replace(":ISTIO_TPROXY - [0:0]\n", ""))
    assert [purpose(rule, ruleset).partition(":")[0] for rule in rules_of(ruleset)[:4]] == ["TPROXY"] * 4
    assert [purpose(rule, without) for rule in rules_of(without)[:4]] == [""] * 4


def test_the_proxys_uid_is_the_one_that_the_rules_send_inbound():
    text = istio_iptables.rules(istio_iptables.Settings())
    wrong = text.replace("--uid-owner 1337 -j RETURN", "--uid-owner 1000 -j RETURN")
    ruleset = parse(wrong)
    said = {rule.text: purpose(rule, ruleset) for rule in rules_of(ruleset)}
    assert said["-m owner --uid-owner 1000 -j RETURN"] == "what this owner sends is left out of outbound interception"
    assert said["-o lo -m owner ! --uid-owner 1000 -j RETURN"] == ""
    assert said["-m owner --gid-owner 1337 -j RETURN"].endswith(ENDLESS)


@pytest.mark.parametrize(
    ("table", "chain", "text"),
    [
        ("nat", "ISTIO_IN_REDIRECT", "-p tcp -j REDIRECT --to-ports 15001"),
        ("nat", "ISTIO_REDIRECT", "-p tcp -j REDIRECT --to-ports 15006"),
        ("nat", "ISTIO_REDIRECT", "-p tcp -j ACCEPT"),
        ("nat", "ISTIO_OUTPUT", "-s 127.0.0.6/32 -o eth0 -j RETURN"),
        ("nat", "ISTIO_OUTPUT", "-s 127.0.0.5/32 -o lo -j RETURN"),
        ("nat", "ISTIO_OUTPUT", "! -s 127.0.0.6/32 -o lo -j RETURN"),
        ("nat", "ISTIO_OUTPUT", "-m owner --uid-owner 1337 -j ACCEPT"),
        ("filter", "ISTIO_OUTPUT", "-m owner --uid-owner 1337 -j RETURN"),
        ("nat", "ISTIO_OUTPUT_DNS", "-p udp -m udp --dport 54 -j REDIRECT --to-ports 15053"),
        ("raw", "ISTIO_OUTPUT_DNS", "-p udp -m udp --dport 53 -m owner --uid-owner 1337 -j CT --zone 2"),
        ("mangle", "ISTIO_INBOUND", "-p tcp -m mark --mark 0x53a -j RETURN"),
        ("nat", "ISTIO_OUTPUT", "-p tcp -m mark --mark 0x111 -j ACCEPT"),
        ("mangle", "ISTIO_OUTPUT", "-m connmark --mark 0x111/0xfff -j CONNMARK --save-mark"),
    ],
)
def test_a_rule_of_other_content_is_not_istios(table, chain, text):
    assert istio_word(of(table, chain, text)) is None
