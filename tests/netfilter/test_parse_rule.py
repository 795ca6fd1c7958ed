"""One rule's text to values, for every form that iptables' tools print, and back."""

import ipaddress
import re

import pytest

from bookinfo_lab.netfilter import vocabulary
from bookinfo_lab.netfilter.format_rule import format_rule
from bookinfo_lab.netfilter.parse_rule import parse_rule, words
from bookinfo_lab.netfilter.rule import Match, Option
from bookinfo_lab.netfilter.values import (
    AddressPattern,
    AddressRange,
    IcmpType,
    Masked,
    Numbers,
    PortRange,
    Translation,
)

net, ip = ipaddress.ip_network, ipaddress.ip_address


def read(text):
    return parse_rule(text, "nat", "A", 1)


def one(text):
    """The only option among a rule's conditions."""
    (option,) = [option for match in read(text).matches for option in match.options]
    return option


def target(text):
    """The only option of a rule's target."""
    (option,) = read(text).target_options
    return option


def test_a_whole_rule_becomes_matches_target_and_place():
    text = '! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m comment --comment "a b" -m tcp --dport 443 -j KUBE-MARK-MASQ'
    rule = parse_rule(text, "nat", "KUBE-SVC-X", 3, 17, (5, 300))
    assert rule.matches == (
        Match(
            "",
            (
                Option("-s", (net("10.244.0.0/16"),), negated=True),
                Option("-d", (net("10.96.0.1/32"),)),
                Option("-p", ("tcp",)),
            ),
        ),
        Match("comment", (Option("--comment", ("a b",)),)),
        Match("tcp", (Option("--dport", (PortRange(443, 443),)),)),
    )
    assert (rule.target, rule.is_goto, rule.target_options) == ("KUBE-MARK-MASQ", False, ())
    assert (rule.where, rule.line, rule.counters, rule.text) == ("nat KUBE-SVC-X 3", 17, (5, 300), text)
    assert rule.comment == "a b"


def test_a_rule_without_a_target_only_counts():
    rule = read("-s 10.0.0.1/32")
    assert (rule.target, rule.is_goto, rule.target_options) == ("", False, ())
    assert read("").matches == ()


def test_goto_is_told_from_jump():
    assert read("-g KUBE-X").is_goto
    assert not read("-j KUBE-X").is_goto
    assert read("-g KUBE-X").target == read("-j KUBE-X").target == "KUBE-X"


@pytest.mark.parametrize(
    "text", ["! -s 10.0.0.0/8 -j A", "-s ! 10.0.0.0/8 -j A", "! --source 10.0.0.0/8 -j A", "--src ! 10.0.0.0/8 -j A"]
)
def test_negation_is_read_before_the_option_and_in_its_old_place_after(text):
    assert read(text).matches == read("! -s 10.0.0.0/8 -j A").matches
    assert one(text) == Option("-s", (net("10.0.0.0/8"),), negated=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("-i ! eth0", "! -i eth0"),
        ("-o ! eth+", "! -o eth+"),
        ("-p ! tcp", "! -p tcp"),
        ("-m tcp --dport ! 80", "-m tcp ! --dport 80"),
        ("-m tcp --tcp-flags ! SYN,RST SYN", "-m tcp ! --tcp-flags SYN,RST SYN"),
        ("-m multiport --dports ! 80,443", "-m multiport ! --dports 80,443"),
        ("-m conntrack --ctstate ! NEW", "-m conntrack ! --ctstate NEW"),
        ("-m state --state ! NEW", "-m state ! --state NEW"),
        ("-m mark --mark ! 0x1", "-m mark ! --mark 0x1"),
        ("-m owner --uid-owner ! 1337", "-m owner ! --uid-owner 1337"),
        ("-m set --match-set ! pods src", "-m set ! --match-set pods src"),
        ("-m icmp --icmp-type ! 8", "-m icmp ! --icmp-type 8"),
        ("-m foo --bar ! baz", "-m foo ! --bar baz"),
    ],
)
def test_the_old_order_of_any_option_is_the_new_one(old, new):
    assert read(old).matches == read(new).matches
    assert one(old).negated


def test_options_without_a_value_are_negated_too():
    assert one("-m tcp ! --syn") == Option("--syn", (), negated=True)
    assert one("! -f") == Option("-f", (), negated=True)
    first, second = read("-m recent ! --rcheck --name x").matches[0].options
    assert (first.negated, second.negated) == (True, False)


@pytest.mark.parametrize("name", sorted(vocabulary.LONG_FORMS))
def test_the_long_form_of_an_option_is_its_short_one(name):
    short = vocabulary.LONG_FORMS[name]
    value = {"-s": "10.0.0.0/8", "-d": "10.0.0.0/8", "-p": "tcp", "-m": "tcp", "-f": ""}.get(short, "x")
    assert read(f"{name} {value}") == read(f"{short} {value}")
    assert read(f"{name} {value}") != read("")


# Quotes


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("plain", "plain"),
        ('"a b"', "a b"),
        ('""', ""),
        (r'"say \"no\""', 'say "no"'),
        (r'"it\'s"', "it's"),
        (r'"C:\\dir\\"', "C:\\dir\\"),
        (r'"\\\""', '\\"'),
        ('"a\tb"', "a\tb"),
        ('"-j DROP"', "-j DROP"),
        ('"! --dport 80"', "! --dport 80"),
        ('a"b c"d', "ab cd"),
        ('"default/productpage:http cluster IP"', "default/productpage:http cluster IP"),
        ('"ünï→ 文"', "ünï→ 文"),
        ('"nul\0 here"', "nul\0 here"),
        ('"half a pair \ud800"', "half a pair \ud800"),
        ('"carriage\r return"', "carriage\r return"),
    ],
)
def test_a_comment_is_what_its_quotes_say(written, value):
    rule = read(f"-m comment --comment {written} -j KUBE-X")
    assert (rule.comment, rule.target) == (value, "KUBE-X")
    assert read(format_rule(rule)) == rule


@pytest.mark.parametrize(
    "text", ['"', 'a "', '-m comment --comment "a', r'-m comment --comment "a\"', '"a" "b', '"a\\']
)
def test_a_quote_that_is_not_closed_is_refused(text):
    with pytest.raises(ValueError, match="a quote is not closed"):
        words(text)


def test_words_part_at_blanks_and_tabs_outside_of_quotes_alone():
    assert words('  -s\t10.0.0.1   "a  b"\t-j  X ') == ["-s", "10.0.0.1", "a  b", "-j", "X"]
    assert words("") == words(" \t ") == []


def test_kube_proxys_own_double_blank_is_one():
    rule = read("-m nfacct --nfacct-name  localhost_nps_accepted_pkts -j X")
    assert rule.option("--nfacct-name").values == ("localhost_nps_accepted_pkts",)


# Matches


def test_several_options_of_one_match_stay_together():
    rule = read("-m tcp --sport 1:1023 --dport 80 --tcp-flags SYN,RST SYN -j X")
    assert rule.matches == (
        Match(
            "tcp",
            (
                Option("--sport", (PortRange(1, 1023),)),
                Option("--dport", (PortRange(80, 80),)),
                Option("--tcp-flags", (("SYN", "RST"), ("SYN",))),
            ),
        ),
    )


def test_a_match_that_comes_twice_is_two_matches():
    text = "-m conntrack --ctstate NEW -m conntrack ! --ctorigdst 10.1.0.9/32 -j X"
    rule = read(text)
    assert [match.module for match in rule.matches] == ["conntrack", "conntrack"]
    assert [option.name for match in rule.matches for option in match.options] == ["--ctstate", "--ctorigdst"]
    assert format_rule(rule) == text


def test_an_option_belongs_to_the_last_match_that_has_it():
    rule = read("-m mark --mark 0x1 -m connmark --mark 0x2 -m mark --mark 0x3")
    assert [(match.module, match.options[0].values) for match in rule.matches] == [
        ("mark", (Masked(1, 0xFFFFFFFF),)),
        ("connmark", (Masked(2, 0xFFFFFFFF),)),
        ("mark", (Masked(3, 0xFFFFFFFF),)),
    ]


def test_an_option_may_come_after_another_match():
    rule = read("-m tcp -m comment --comment x --dport 80")
    assert rule.matches[0] == Match("tcp", (Option("--dport", (PortRange(80, 80),)),))


@pytest.mark.parametrize(
    ("text", "module"),
    [
        ("-p tcp --dport 80", "tcp"),
        ("-p 6 --dport 80", "tcp"),
        ("-p udp --sport 53", "udp"),
        ("-p sctp --dport 9", "sctp"),
        ("-p icmp --icmp-type 8", "icmp"),
        ("-p ipv6-icmp --icmpv6-type 128", "icmp6"),
        ("-p icmpv6 --icmpv6-type 128", "icmp6"),
    ],
)
def test_a_protocols_options_need_no_match_of_its_name(text, module):
    assert read(text).matches[-1].module == module


def test_an_option_and_a_targets_option_of_the_same_name_are_told_apart():
    rule = read("-m mark --mark 0x1 -j CONNMARK --restore-mark --mask 0xff")
    assert (rule.option("--mark").values, rule.option("--mask")) == ((Masked(1, 0xFFFFFFFF),), None)
    assert rule.target_option("--mask").values == (255,)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("-s 10.0.0.1", "-s", (net("10.0.0.1/32"),)),
        ("-s 10.1.2.3/8", "-s", (net("10.0.0.0/8"),)),
        ("-s 10.1.2.3/255.255.0.0", "-s", (net("10.1.0.0/16"),)),
        ("-s 10.1.2.3/255.0.255.0", "-s", (AddressPattern(ip("10.0.2.0"), ip("255.0.255.0")),)),
        ("-d fd00::1", "-d", (net("fd00::1/128"),)),
        ("-d fd00::1/64", "-d", (net("fd00::/64"),)),
        ("-d fd00::/ffff::", "-d", (net("fd00::/16"),)),
        ("-d fd00::5/ffff::f", "-d", (AddressPattern(ip("fd00::5"), ip("ffff::f")),)),
        ("-d 0.0.0.0/0", "-d", (net("0.0.0.0/0"),)),
        ("-d ::ffff:0.0.0.0/96", "-d", (net("::ffff:0:0/96"),)),
        ("-i eth+", "-i", ("eth+",)),
        ("-o br-1a.2", "-o", ("br-1a.2",)),
        ("-p TCP", "-p", ("tcp",)),
        ("-p 17", "-p", ("udp",)),
        ("-p 47", "-p", ("47",)),
        ("-p 0", "-p", ("all",)),
        ("-p icmpv6", "-p", ("ipv6-icmp",)),
        ("-m tcp --dport 80", "--dport", (PortRange(80, 80),)),
        ("-m tcp --dport :80", "--dport", (PortRange(0, 80),)),
        ("-m tcp --dport 80:", "--dport", (PortRange(80, 65535),)),
        ("-m tcp --destination-port 1:65535", "--dport", (PortRange(1, 65535),)),
        ("-m udp --source-port 53", "--sport", (PortRange(53, 53),)),
        ("-m tcp --tcp-flags ALL NONE", "--tcp-flags", (("ALL",), ("NONE",))),
        ("-m tcp --tcp-option 7", "--tcp-option", (7,)),
        ("-m multiport --dports 80,8000:8010", "--dports", (PortRange(80, 80), PortRange(8000, 8010))),
        ("-m multiport --source-ports 1", "--sports", (PortRange(1, 1),)),
        ("-m icmp --icmp-type any", "--icmp-type", (IcmpType(None, None),)),
        ("-m icmp --icmp-type 3/4", "--icmp-type", (IcmpType(3, 4),)),
        ("-m icmp --icmp-type fragmentation-needed", "--icmp-type", (IcmpType(3, 4),)),
        ("-m icmp6 --icmpv6-type 135", "--icmpv6-type", (IcmpType(135, None),)),
        ("-m conntrack --ctstate RELATED,ESTABLISHED", "--ctstate", (("RELATED", "ESTABLISHED"),)),
        ("-m state --state new", "--state", (("NEW",),)),
        ("-m conntrack --ctorigdstport 80", "--ctorigdstport", (PortRange(80, 80),)),
        ("-m conntrack --ctorigdst 10.1.0.9", "--ctorigdst", (net("10.1.0.9/32"),)),
        ("-m conntrack --ctproto 6", "--ctproto", ("tcp",)),
        ("-m conntrack --ctexpire 5:10", "--ctexpire", (Numbers(5, 10),)),
        ("-m mark --mark 0x4000/0x4000", "--mark", (Masked(0x4000, 0x4000),)),
        ("-m mark --mark 1337", "--mark", (Masked(1337, 0xFFFFFFFF),)),
        ("-m mark --mark 010", "--mark", (Masked(8, 0xFFFFFFFF),)),
        ("-m owner --uid-owner 1337", "--uid-owner", (Numbers(1337, 1337),)),
        ("-m owner --gid-owner 0-99", "--gid-owner", (Numbers(0, 99),)),
        ("-m owner --uid-owner envoy", "--uid-owner", ("envoy",)),
        ("-m addrtype --dst-type LOCAL,BROADCAST", "--dst-type", (("LOCAL", "BROADCAST"),)),
        ("-m iprange --src-range 10.1.0.7-10.1.0.20", "--src-range", (AddressRange(ip("10.1.0.7"), ip("10.1.0.20")),)),
        ("-m iprange --dst-range 10.1.0.7", "--dst-range", (AddressRange(ip("10.1.0.7"), ip("10.1.0.7")),)),
        ("-m statistic --probability 0.33333333349", "--probability", (0.33333333349,)),
        ("-m recent --seconds 10800", "--seconds", (10800,)),
        ("-m recent --mask 255.255.255.255", "--mask", (ip("255.255.255.255"),)),
        ("-m set --match-set KUBE-CLUSTER-IP dst,dst", "--match-set", ("KUBE-CLUSTER-IP", "dst,dst")),
        ("-m limit --limit 3/min", "--limit", ("3/min",)),
        ("-m length --length 100:65535", "--length", (Numbers(100, 65535),)),
        ("-m dscp --dscp 0x08", "--dscp", (8,)),
        ("-m ttl --ttl-gt 5", "--ttl-gt", (5,)),
    ],
)  # fmt: skip
def test_a_value_is_read_as_what_it_means(text, name, values):
    assert one(text) == Option(name, values)


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("MARK --set-xmark 0x4000/0x0", "--set-xmark", (Masked(0x4000, 0),)),
        ("MARK --set-xmark 0x539/0xffffffff", "--set-xmark", (Masked(0x539, 0xFFFFFFFF),)),
        ("MARK --set-mark 0x1/0x2", "--set-xmark", (Masked(1, 3),)),
        ("MARK --set-mark 5", "--set-xmark", (Masked(5, 0xFFFFFFFF),)),
        ("MARK --and-mark 0xff", "--set-xmark", (Masked(0, 0xFFFFFF00),)),
        ("MARK --or-mark 0x4000", "--set-xmark", (Masked(0x4000, 0x4000),)),
        ("MARK --xor-mark 0x4000", "--set-xmark", (Masked(0x4000, 0),)),
        ("CONNMARK --set-mark 0x111", "--set-xmark", (Masked(0x111, 0xFFFFFFFF),)),
        ("TPROXY --tproxy-mark 0x1/0x1", "--tproxy-mark", (Masked(1, 1),)),
        ("TPROXY --on-port 15006", "--on-port", (PortRange(15006, 15006),)),
        ("TPROXY --on-ip 127.0.0.1", "--on-ip", (ip("127.0.0.1"),)),
        ("REDIRECT --to-ports 15001", "--to-ports", (PortRange(15001, 15001),)),
        ("REDIRECT --to-port 15001", "--to-ports", (PortRange(15001, 15001),)),
        ("MASQUERADE --to-ports 1024-2048", "--to-ports", (PortRange(1024, 2048),)),
        ("MASQUERADE --random-fully", "--random-fully", ()),
        ("NETMAP --to 10.5.0.0/16", "--to", (net("10.5.0.0/16"),)),
        ("REJECT --reject-with tcp-reset", "--reject-with", ("tcp-reset",)),
        ('LOG --log-prefix "[UFW BLOCK] "', "--log-prefix", ("[UFW BLOCK] ",)),
        ("CT --notrack", "--notrack", ()),
        ("CT --zone 5", "--zone", ("5",)),
        ("DSCP --set-dscp 0x2e", "--set-dscp", (46,)),
        ("TCPMSS --set-mss 1360", "--set-mss", (1360,)),
        ("SET --add-set seen src,dst", "--add-set", ("seen", "src,dst")),
        ("NFLOG --nflog-group 5", "--nflog-group", (5,)),
    ],
)
def test_a_targets_value_is_read_as_what_it_means(text, name, values):
    assert target(f"-j {text}") == Option(name, values)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("10.0.0.5", Translation(ip("10.0.0.5"), ip("10.0.0.5"), None)),
        ("10.0.0.5:80", Translation(ip("10.0.0.5"), ip("10.0.0.5"), PortRange(80, 80))),
        ("10.0.0.5:80-90", Translation(ip("10.0.0.5"), ip("10.0.0.5"), PortRange(80, 90))),
        ("10.0.0.5-10.0.0.9", Translation(ip("10.0.0.5"), ip("10.0.0.9"), None)),
        ("10.0.0.5-10.0.0.9:80-90", Translation(ip("10.0.0.5"), ip("10.0.0.9"), PortRange(80, 90))),
        (":443", Translation(None, None, PortRange(443, 443))),
        (":1000-2000", Translation(None, None, PortRange(1000, 2000))),
        ("fd00::5", Translation(ip("fd00::5"), ip("fd00::5"), None)),
        ("fd00::5-fd00::9", Translation(ip("fd00::5"), ip("fd00::9"), None)),
        ("[fd00::5]:80", Translation(ip("fd00::5"), ip("fd00::5"), PortRange(80, 80))),
        ("[fd00::5]:80-90", Translation(ip("fd00::5"), ip("fd00::5"), PortRange(80, 90))),
        ("[fd00::5-fd00::9]:80", Translation(ip("fd00::5"), ip("fd00::9"), PortRange(80, 80))),
        ("[fd00::5]", Translation(ip("fd00::5"), ip("fd00::5"), None)),
    ],
)
@pytest.mark.parametrize("start", ["DNAT --to-destination", "SNAT --to-source"])
def test_a_translation_is_addresses_and_ports(start, text, value):
    option = target(f"-j {start} {text}")
    assert option.values == (value,)
    assert target(f"-j {format_rule(read(f'-j {start} {text}')).removeprefix('-j ')}").values == (value,)


def test_a_shifted_range_of_ports_keeps_its_base():
    text = "-p tcp -j DNAT --to-destination 10.0.0.5:80-90/8080"
    assert format_rule(read(text)) == text
    assert read(text) != read("-p tcp -j DNAT --to-destination 10.0.0.5:80-90")


# What is not modelled


def test_a_match_that_is_not_modelled_is_kept_and_named():
    text = '-p tcp -m string --string "GET /" --algo bm --to 65535 -m tcp --dport 80 -j DROP'
    rule = read(text)
    assert rule.matches[1].options == (
        Option("--string", ("GET /",), known=False),
        Option("--algo", ("bm",), known=False),
        Option("--to", ("65535",), known=False),
    )
    assert rule.unmodelled == ("-m string --string", "-m string --algo", "-m string --to")
    assert rule.option("--dport").values == (PortRange(80, 80),)
    assert read(format_rule(rule)) == rule


def test_a_target_that_is_not_modelled_keeps_its_options():
    rule = read("-j SYNPROXY --sack-perm --mss 1460")
    assert rule.target_options == (Option("--sack-perm", (), known=False), Option("--mss", ("1460",), known=False))
    assert rule.unmodelled == ("-j SYNPROXY --sack-perm", "-j SYNPROXY --mss")
    assert format_rule(rule) == "-j SYNPROXY --sack-perm --mss 1460"


def test_an_option_that_a_known_match_does_not_have_is_kept_with_all_its_words():
    rule = read("-m tcp --dport 80 --newest a b c ! --other -j X")
    unknown = rule.matches[0].options[1:]
    assert unknown == (
        Option("--newest", ("a", "b", "c"), known=False),
        Option("--other", (), negated=True, known=False),
    )
    assert rule.unmodelled == ("-m tcp --newest", "-m tcp --other")


def test_what_is_modelled_is_not_named():
    assert read("-p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.1:80").unmodelled == ()


# What cannot be read


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("-s", "nothing stands after -s"),
        ("-m", "nothing stands after -m"),
        ("-j", "nothing stands after -j"),
        ("-s 10.0.0.1 !", "nothing stands after !"),
        ("-m tcp --tcp-flags SYN", "nothing stands after --tcp-flags"),
        ("-m set --match-set pods", "nothing stands after --match-set"),
        ("! -j X", "! cannot stand before -j"),
        ("! -m tcp", "! cannot stand before -m"),
        ("! ! -s 10.0.0.1", "'!' stands where an option was expected"),
        ("-j X extra", "'extra' stands where an option was expected"),
        ("10.0.0.1", "'10.0.0.1' stands where an option was expected"),
        ("- 10.0.0.1", "'-' stands where an option was expected"),
        ("-j X -j Y", "a rule has one target"),
        ("-j X -g Y", "a rule has one target"),
        ("--dport 80", "--dport belongs to no match of this rule"),
        ("-A X", "-A belongs to no match of this rule"),
        ("-s 10.0.0.256", "-s 10.0.0.256: an IP address was expected"),
        ("-s 10.0.0.0/33", "an address with a prefix length or mask was expected"),
        ("-s 10.0.0.0/ffff::", "an address with a prefix length or mask was expected"),
        ("-s 10.0.0.0/", "an address with a prefix length or mask was expected"),
        ("-p tcp! ", "a protocol was expected"),
        ("-p 256", "a protocol was expected"),
        ("-m tcp --dport 65536", "a port number was expected"),
        ("-m tcp --dport http", "a port number was expected"),
        ("-m tcp --dport -1", "a port number was expected"),
        ("-m tcp --dport 90:80", "the first port of a range is larger than its last"),
        ("-m multiport --dports 80,", "a port number was expected"),
        ("-m mark --mark 0x100000000", "a number from 0 to 4294967295 was expected"),
        ("-m mark --mark 08", "a number from 0 to 4294967295 was expected"),
        ("-m mark --mark 1_0", "a number from 0 to 4294967295 was expected"),
        ("-m mark --mark 0x1/", "a number from 0 to 4294967295 was expected"),
        ("-m mark --mark", "nothing stands after --mark"),
        ("-m owner --uid-owner 9-3", "the first number of a range is larger than its last"),
        ("-m icmp --icmp-type 256", "a number from 0 to 255 was expected"),
        ("-m icmp --icmp-type pings", "a number from 0 to 255 was expected"),
        ("-m statistic --probability 1.5", "a probability from 0 to 1 was expected"),
        ("-m statistic --probability nan", "a probability from 0 to 1 was expected"),
        ("-m statistic --probability -0.1", "a probability from 0 to 1 was expected"),
        ("-m recent --seconds soon", "a number from 0 to 4294967295 was expected"),
        ("-j DNAT --to-destination", "nothing stands after --to-destination"),
        ("-j DNAT --to-destination 10.0.0.1:", "a port number was expected"),
        ("-j DNAT --to-destination 10.0.0.1:80:90", "an IP address was expected"),
        ("-j DNAT --to-destination -", "an address, a port or both were expected"),
        ("-j REDIRECT --to-ports 80:90", "a port number was expected"),
        ("-j MARK --set-xmark x", "a number from 0 to 4294967295 was expected"),
        ("-j TPROXY --on-ip nowhere", "an IP address was expected"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_reason(text, reason):
    with pytest.raises(ValueError, match=re.escape(reason)):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "-m tcp --dport ８０",
        "-m tcp --dport ²",
        "-p ²",
        "-m mark --mark １",
        "-m mark --mark 0x１",
        "-s 10.0.0.0/８",
        "-m statistic --probability ０.5",
    ],
)
def test_digits_of_other_scripts_are_no_numbers(text):
    with pytest.raises(ValueError, match="expected"):
        read(text)


@pytest.mark.parametrize(
    "text",
    [
        "-m tcp --dport {}",
        "-p {}",
        "-m mark --mark {}",
        "-m mark --mark 0x{}",
        "-s 10.0.0.0/{}",
        "-m statistic --probability 0.{}x",
        "-m recent --seconds {}",
        "-m icmp --icmp-type {}",
        "-j DNAT --to-destination 10.0.0.1:{}",
    ],
)
def test_numbers_of_thousands_of_digits_are_refused(text):
    with pytest.raises(ValueError, match=r"expected|stands|digits"):
        read(text.format("9" * 5000))


@pytest.mark.parametrize(
    "text",
    [
        '-i "eth 0"',
        '-m "my mod"',
        '-j "A B"',
        '-g ""',
        '-m limit --limit "3 /min"',
        '-m set --match-set "a b" src',
        '-m owner --uid-owner "a b"',
        '-m conntrack --ctstate ""',
        '-m tcp --tcp-flags "" SYN',
    ],
)
def test_a_quoted_word_where_a_name_belongs_is_refused_or_written_back(text):
    try:
        rule = read(text)
    except ValueError:
        return
    assert read(format_rule(rule)) == rule


# Back to text


def test_format_reads_values_and_never_the_kept_text():
    rule = read("-p tcp -m tcp --dport 80 -j ACCEPT")
    other = type(rule)("filter", "B", 9, rule.matches, rule.target, text="-j DROP")
    assert format_rule(other) == "-p tcp -m tcp --dport 80 -j ACCEPT"


@pytest.mark.parametrize(
    "text",
    [
        '! -s 10.244.0.0/16 -d 10.96.0.1/32 -p tcp -m comment --comment "a b" -m tcp --dport 443 -j KUBE-MARK-MASQ',
        "-m statistic --mode random --probability 0.33333333349 -j KUBE-SEP-X",
        "-m recent --rcheck --seconds 10800 --reap --name KUBE-SEP-X --mask 255.255.255.255 --rsource -j KUBE-SEP-X",
        "-j MARK --set-xmark 0x4000/0x4000",
        "-j MASQUERADE --random-fully",
        "-o lo ! -d 127.0.0.1/32 -p tcp -m tcp ! --dport 15008 -m owner --uid-owner 1337 -j ISTIO_IN_REDIRECT",
        "-p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
        "-p tcp -m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xffffffff",
        "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff",
        "-p udp -m udp --dport 53 -j CT --zone 1",
        '-m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
        "-g reject",
        "-i eth+",
        "",
    ],
)
def test_what_iptables_prints_is_written_letter_by_letter(text):
    assert format_rule(read(text)) == text


def test_a_text_that_is_an_exclamation_mark_is_a_text() -> None:
    for text in ('-j LOG --log-prefix "!"', '-m comment --comment "!" ! -s 10.0.0.1/32 -j DROP'):
        rule = parse_rule(text, "filter", "INPUT", 1)
        options = [option for match in rule.matches for option in match.options] + list(rule.target_options)
        (found,) = [option for option in options if option.name in ("--log-prefix", "--comment")]
        assert (found.values, found.negated) == (("!",), False)
    assert parse_rule("-s ! 10.0.0.1/32", "filter", "INPUT", 1).matches[0].options[0].negated
