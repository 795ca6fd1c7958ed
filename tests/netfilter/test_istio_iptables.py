import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter.comparable import comparable
from bookinfo_lab.netfilter.istio_iptables import Settings, rules


def chain(settings, name):
    return [line.split(" ", 2)[2] for line in rules(settings).splitlines() if line.startswith(f"-A {name} ")]


@pytest.mark.data
def test_a_pods_rules_are_those_that_istio_init_wrote_into_a_real_one(recorded):
    assert comparable(rules(Settings())) == comparable(recorded("cluster/istio/productpage.iptables-save"))


@pytest.mark.data
def test_rules_with_nothing_included_are_those_that_istio_expects_of_itself(recorded):
    settings = Settings(inbound_exclude=(), outbound_cidrs_include=())
    assert comparable(rules(settings)) == comparable(recorded("iptables/istio-sidecar-current.save"))


@pytest.mark.data
@pytest.mark.parametrize(
    "settings", [Settings(proxy_uid=1338), Settings(proxy_gid=1), Settings(inbound_port=15007), Settings(owner="mark")]
)
def test_other_settings_are_a_difference(recorded, settings):
    assert comparable(rules(settings)) != comparable(recorded("cluster/istio/productpage.iptables-save"))


def test_with_a_mark_each_uid_match_is_a_mark_match_and_the_gid_rules_fall_away():
    by_uid, by_mark = chain(Settings(), "ISTIO_OUTPUT"), chain(Settings(owner="mark"), "ISTIO_OUTPUT")
    without_gid = [rule for rule in by_uid if "--gid-owner" not in rule]
    assert len(by_uid) - len(without_gid) == 3
    assert by_mark == [
        rule.replace("owner --uid-owner 1337", "mark --mark 0x539").replace(
            "owner ! --uid-owner 1337", "mark ! --mark 0x539"
        )
        for rule in without_gid
    ]
    assert sum("--mark 0x539" in rule for rule in by_mark) == 3
    assert "owner" not in rules(Settings(owner="mark"))


def test_the_mark_is_a_setting():
    assert "--mark 0x99 " in rules(Settings(owner="mark", proxy_mark=0x99))


def test_listed_inbound_ports_are_redirected_and_no_others():
    assert chain(Settings(inbound_include=(9080, 9081)), "ISTIO_INBOUND") == [
        "-p tcp -m tcp --dport 15008 -j RETURN",
        "-p tcp -m tcp --dport 9080 -j ISTIO_IN_REDIRECT",
        "-p tcp -m tcp --dport 9081 -j ISTIO_IN_REDIRECT",
    ]
    assert chain(Settings(inbound_include=()), "PREROUTING") == []


def test_outbound_exclusions_come_first_and_inclusions_last():
    settings = Settings(
        outbound_ports_exclude=(3306,),
        outbound_ports_include=(443,),
        outbound_cidrs_include=("10.96.0.0/16",),
        outbound_cidrs_exclude=("10.96.0.10/32",),
    )
    written = chain(settings, "ISTIO_OUTPUT")
    assert written[:2] == ["-p tcp -m tcp --dport 3306 -j RETURN", "-p udp -m udp --dport 3306 -j RETURN"]
    assert written[-4:] == [
        "-d 127.0.0.1/32 -j RETURN",
        "-d 10.96.0.10/32 -j RETURN",
        "-p tcp -m tcp --dport 443 -j ISTIO_REDIRECT",
        "-d 10.96.0.0/16 -j ISTIO_REDIRECT",
    ]


def test_loopback_that_is_included_by_name_does_not_return_early():
    returned = "-o lo -m owner ! --uid-owner 1337 -j RETURN"
    assert returned in chain(Settings(outbound_cidrs_include=("10.0.0.0/8",)), "ISTIO_OUTPUT")
    assert returned not in chain(Settings(outbound_cidrs_include=("127.0.0.2/32",)), "ISTIO_OUTPUT")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"owner": "gid"}, "'gid' is not a way"),
        ({"proxy_mark": 0}, "is not a 32-bit mark"),
        ({"inbound_exclude": (0,)}, "0 is not a port"),
        ({"inbound_include": (70000,)}, "70000 is not a port"),
        ({"outbound_cidrs_include": ("10.96.0.0/40",)}, "give an IPv4 range"),
        ({"outbound_cidrs_exclude": ("fd00::/8",)}, "give an IPv4 range"),
    ],
)
def test_a_wrong_setting_is_refused(values, said):
    with pytest.raises(LabError, match=said):
        Settings(**values)
