import pytest

from bookinfo_lab.netfilter.comparable import comparable, in_service_order, without_counters, without_remarks
from bookinfo_lab.netfilter.kube_proxy import Settings
from bookinfo_lab.netfilter.node import rules
from bookinfo_lab.netfilter.tables import format_save, parse_save

LAST = "must be the last rule"


@pytest.fixture
def text(api):
    ports = [{"name": "http", "port": 80, "nodePort": 30080}, {"name": "admin", "port": 81, "nodePort": 30081}]
    return rules(
        [
            api.node(),
            api.service("web", ports=ports, type="NodePort", externalIPs=["192.0.2.1"]),
            api.service("dark", ports=ports[:1]),
            api.endpoints(("10.244.0.2", "lab-0", "ready"), ("10.244.0.3", "lab-0", "ready")),
            api.endpoints(("10.244.0.2", "lab-0", "ready"), name="web-2", port={"name": "admin", "port": 8081}),
        ],
        "lab-0",
        Settings("10.244.0.0/16"),
    )


def swapped(text, first, second):
    lines = text.splitlines(keepends=True)
    lines[first], lines[second] = lines[second], lines[first]
    return "".join(lines)


def test_dates_and_warnings_are_no_difference(text):
    remarked = f"# Warning: iptables-legacy tables present\n# Generated on Sunday\n{text}# Completed on Monday\n"
    assert without_remarks(remarked) == text
    assert comparable(remarked) == comparable(text)


def test_counters_are_no_difference(text):
    counted = text.replace("[0:0]", "[12:3456]").replace("\n-A ", "\n[7:89] -A ")
    assert without_counters(counted) == text
    assert comparable(counted) == comparable(text)


def test_a_comment_that_looks_like_counters_stays():
    rule = '-A X -m comment --comment "[1:2] -A"\n'
    assert without_counters(rule) == rule


def test_the_order_of_service_ports_in_a_dispatch_chain_is_no_difference(text):
    lines = text.splitlines()
    places = [index for index, line in enumerate(lines) if line.startswith("-A KUBE-SERVICES") and "shop/" in line]
    nat = [index for index in places if "KUBE-SVC" in lines[index] or "KUBE-EXT" in lines[index]]
    by_port = sorted(nat, key=lambda index: ":http" in lines[index])
    other = list(lines)
    for place, taken in zip(nat, by_port, strict=True):
        other[place] = lines[taken]
    assert other != lines
    assert comparable("\n".join(other) + "\n") == comparable(text)


def test_comparable_text_is_still_the_whole_ruleset(text):
    lines = comparable(text).splitlines()
    assert sorted(lines) == sorted(text.splitlines())
    assert comparable(comparable(text)) == comparable(text)


def test_every_rule_counts_it_cannot_be_missing_doubled_or_changed(text):
    lines = text.splitlines(keepends=True)
    places = [index for index, line in enumerate(lines) if line.startswith("-A ")]
    assert len(places) > 40
    for index in places:
        line = lines[index]
        for other in ("", line * 2, line.replace(" -j ", " -i eth0 -j "), line.replace("8", "9", 1)):
            if other != line:
                assert comparable("".join([*lines[:index], other, *lines[index + 1 :]])) != comparable(text), other


def test_every_chain_counts_it_cannot_be_missing_or_have_another_policy(text):
    lines = text.splitlines(keepends=True)
    empty = [index for index, line in enumerate(lines) if "CANARY" in line]
    base = [index for index, line in enumerate(lines) if " ACCEPT [0:0]" in line]
    assert len(empty) == 6
    assert len(base) == 12
    for index in empty:
        assert comparable("".join(lines[:index] + lines[index + 1 :])) != comparable(text)
    for index in base:
        drop = lines[index].replace("ACCEPT", "DROP")
        assert comparable("".join([*lines[:index], drop, *lines[index + 1 :]])) != comparable(text)


def test_the_order_within_a_service_chain_counts(text):
    lines = text.splitlines()
    pairs = [
        index
        for index in range(len(lines) - 1)
        if lines[index].startswith(("-A KUBE-SVC", "-A KUBE-SEP", "-A KUBE-EXT", "-A KUBE-POSTROUTING", "-A INPUT"))
        and lines[index + 1].startswith(lines[index][: lines[index].index(" ", 3) + 1])
    ]
    assert len(pairs) > 8
    for index in pairs:
        assert comparable(swapped(text, index, index + 1)) != comparable(text)


def test_the_order_within_one_service_port_counts_in_a_dispatch_chain_too(text):
    lines = text.splitlines()
    cluster_ip, external_ip = (
        next(index for index, line in enumerate(lines) if f'"shop/web:http {what}"' in line and "-j KUBE-" in line)
        for what in ("cluster IP", "external IP")
    )
    assert comparable(swapped(text, cluster_ip, external_ip)) != comparable(text)


def test_the_rule_that_must_be_last_counts_where_it_is_not_last(text):
    lines = text.splitlines()
    last = next(index for index, line in enumerate(lines) if LAST in line)
    assert lines[last - 1].startswith("-A KUBE-SERVICES")
    assert comparable(swapped(text, last - 1, last)) != comparable(text)


def test_other_chains_are_left_as_they_are(text):
    for item in parse_save(text):
        ordered = in_service_order(item)
        for before, after in zip(item.chains, ordered.chains, strict=True):
            if not before.name.startswith(("KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL", "KUBE-PROXY-FIREWALL")):
                assert before == after
    assert format_save(parse_save(text)) == text
