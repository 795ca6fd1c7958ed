import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter import kubelet, node
from bookinfo_lab.netfilter.kube_proxy import Settings
from bookinfo_lab.netfilter.tables import merge, parse_save


def chains(text, table):
    return {chain.name: chain.rules for item in parse_save(text) if item.name == table for chain in item.chains}


def test_today_the_kubelet_writes_canaries_a_hint_and_the_guard_of_loopback():
    text = kubelet.rules()
    assert "KUBE-IPTABLES-HINT" in chains(text, "mangle")
    assert all("KUBE-KUBELET-CANARY" in chains(text, table) for table in ("mangle", "filter", "nat"))
    assert chains(text, "filter")["KUBE-FIREWALL"] == (
        (
            '! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" '
            "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
        ),
    )
    assert "MARK" not in text


def test_in_2017_the_kubelet_wrote_the_marks_and_what_they_lead_to():
    text = kubelet.rules("2017")
    assert chains(text, "nat")["KUBE-MARK-DROP"] == ("-j MARK --set-xmark 0x8000/0x8000",)
    assert chains(text, "nat")["KUBE-MARK-MASQ"] == ("-j MARK --set-xmark 0x4000/0x4000",)
    assert chains(text, "filter")["KUBE-FIREWALL"] == (
        '-m comment --comment "kubernetes firewall for dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP',
    )
    assert "CANARY" not in text
    assert "*mangle" not in text


def test_one_bit_for_both_marks_is_refused():
    with pytest.raises(LabError, match="bit 15 cannot mark both"):
        kubelet.rules("2017", masquerade_bit=15)


@pytest.mark.parametrize("layout", ["today", "2017"])
def test_a_nodes_rules_are_kube_proxys_and_then_the_kubelets_each_once(api, layout):
    text = node.rules([api.node()], "lab-0", Settings("10.244.0.0/16", layout=layout))
    assert merge(parse_save(text), kubelet.tables(layout)) == parse_save(text)
    inputs = chains(text, "filter")["INPUT"]
    assert inputs[-1] == "-j KUBE-FIREWALL"
    assert len(inputs) == len(set(inputs)) == (4 if layout == "today" else 2)
    assert len(chains(text, "nat")["POSTROUTING"]) == 1
