import pytest

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.netfilter import kube_proxy, node
from bookinfo_lab.netfilter.kube_proxy import Settings

OLD = Settings("172.20.0.0/16", layout="2017")
ARTICLE = [
    {
        "kind": "Node",
        "metadata": {"name": "192.168.3.24"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.3.24"}]},
    },
    {
        "kind": "Service",
        "metadata": {"name": "istio-ingress", "namespace": "istio-system"},
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.68.93.55",
            "ports": [
                {"name": "http", "port": 80, "nodePort": 6259},
                {"name": "https", "port": 443, "nodePort": 4852},
            ],
        },
    },
    {
        "kind": "EndpointSlice",
        "metadata": {
            "name": "istio-ingress-x",
            "namespace": "istio-system",
            "labels": {"kubernetes.io/service-name": "istio-ingress"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "endpoints": [{"addresses": ["172.20.100.164"], "nodeName": "192.168.3.24"}],
    },
]


def about(text, what):
    return [line for line in text.splitlines() if line.startswith("-A ") and what in line]


# What the article's own `iptables-save | grep` printed: chain names, comments, order.
def test_the_rules_that_the_article_shows_come_out_to_the_letter():
    text = node.rules(ARTICLE, "192.168.3.24", OLD)
    assert about(text, "6259") == [
        (
            '-A KUBE-NODEPORTS -p tcp -m comment --comment "istio-system/istio-ingress:http" -m tcp --dport 6259'
            " -j KUBE-MARK-MASQ"
        ),
        (
            '-A KUBE-NODEPORTS -p tcp -m comment --comment "istio-system/istio-ingress:http" -m tcp --dport 6259'
            " -j KUBE-SVC-JSIH6CCNAROIS6ON"
        ),
    ]
    assert about(text, "-A KUBE-SVC-JSIH6CCNAROIS6ON") == [
        (
            '-A KUBE-SVC-JSIH6CCNAROIS6ON -m comment --comment "istio-system/istio-ingress:http"'
            " -j KUBE-SEP-XMEMPNNJN7A5AOTI"
        )
    ]
    assert about(text, "-A KUBE-SEP-XMEMPNNJN7A5AOTI") == [
        (
            '-A KUBE-SEP-XMEMPNNJN7A5AOTI -s 172.20.100.164/32 -m comment --comment "istio-system/istio-ingress:http"'
            " -j KUBE-MARK-MASQ"
        ),
        (
            '-A KUBE-SEP-XMEMPNNJN7A5AOTI -p tcp -m comment --comment "istio-system/istio-ingress:http" -m tcp'
            " -j DNAT --to-destination 172.20.100.164:80"
        ),
    ]


def test_what_the_article_left_out_is_there_too():
    text = node.rules(ARTICLE, "192.168.3.24", OLD)
    assert about(text, "istio-ingress:http cluster IP") == [
        (
            "-A KUBE-SERVICES ! -s 172.20.0.0/16 -d 10.68.93.55/32 -p tcp"
            ' -m comment --comment "istio-system/istio-ingress:http cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ'
        ),
        (
            "-A KUBE-SERVICES -d 10.68.93.55/32 -p tcp"
            ' -m comment --comment "istio-system/istio-ingress:http cluster IP" -m tcp --dport 80'
            " -j KUBE-SVC-JSIH6CCNAROIS6ON"
        ),
    ]
    assert about(text, "KUBE-POSTROUTING") == [
        '-A POSTROUTING -m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING',
        (
            '-A KUBE-POSTROUTING -m comment --comment "kubernetes service traffic requiring SNAT"'
            " -m mark --mark 0x4000/0x4000 -j MASQUERADE"
        ),
    ]
    assert about(text, "-A INPUT") == [
        '-A INPUT -m comment --comment "kubernetes service portals" -j KUBE-SERVICES',
        "-A INPUT -j KUBE-FIREWALL",
    ]
    assert about(text, "-A KUBE-SERVICES")[-1].endswith("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")


def test_todays_layout_of_the_same_service_shares_the_chain_names_and_not_the_two_rules():
    text = node.rules(ARTICLE, "192.168.3.24", Settings("172.20.0.0/16", nfacct=False))
    (only,) = about(text, "--dport 6259")
    assert only.endswith("-j KUBE-EXT-JSIH6CCNAROIS6ON")
    assert "KUBE-SEP-XMEMPNNJN7A5AOTI" in text


def shop(api, *given, ports=({"name": "", "port": 18080},), **spec):
    endpoint_port = {"name": ports[0].get("name", ""), "port": 8080}
    objects = [api.node(), api.service(ports=ports, **spec), api.endpoints(*given, port=endpoint_port)]
    return kube_proxy.rules(objects, "lab-0", Settings("192.20.0.0/16", layout="2017"))


HERE, THERE = ("10.244.0.2", "lab-0", "ready"), ("10.244.1.2", "lab-1", "ready")


# The shape of public dumps of that time: three rules for each external IP, in this order.
def test_an_external_ip_is_marked_and_taken_from_outside_and_on_the_node_itself(api):
    text = shop(api, HERE, externalIPs=["172.30.10.122"])
    head = (
        '-A KUBE-SERVICES -d 172.30.10.122/32 -p tcp -m comment --comment "shop/web: external IP" -m tcp --dport 18080'
    )
    (chain,) = {line.split()[1] for line in about(text, "-A KUBE-SVC-")}
    assert about(text, "external IP") == [
        f"{head} -j KUBE-MARK-MASQ",
        f"{head} -m physdev ! --physdev-is-in -m addrtype ! --src-type LOCAL -j {chain}",
        f"{head} -m addrtype --dst-type LOCAL -j {chain}",
    ]


def node_port(api, *given):
    return shop(
        api, *given, ports=[{"name": "", "port": 80, "nodePort": 31849}], type="NodePort", externalTrafficPolicy="Local"
    )


def test_policy_local_without_a_local_endpoint_marks_to_drop(api):
    text = node_port(api, THERE)
    xlb = [line.split(" ", 2)[2] for line in about(text, "-A KUBE-XLB-")]
    assert xlb[0].startswith(
        '-s 192.20.0.0/16 -m comment --comment "Redirect pods trying to reach external loadbalancer VIP to clusterIP"'
    )
    assert xlb[1:] == ['-m comment --comment "shop/web: has no local endpoints" -j KUBE-MARK-DROP']
    assert [line.split("-j ")[1][:9] for line in about(text, "--dport 31849")] == ["KUBE-XLB-"]


def test_policy_local_balances_over_local_endpoints_without_a_mark(api):
    text = node_port(api, HERE, ("10.244.0.3", "lab-0", "ready"), THERE)
    balancing = about(text, "Balancing rule")
    assert ["0.50000000000" in line for line in balancing] == [True, False]
    assert [line.split('"')[1] for line in balancing] == [
        "Balancing rule 0 for shop/web:",
        "Balancing rule 1 for shop/web:",
    ]
    assert "KUBE-MARK-DROP" not in "".join(about(text, "KUBE-XLB"))
    assert "0.33332999982" in "".join(about(text, "-A KUBE-SVC-"))


def test_a_load_balancers_firewall_marks_and_jumps_and_drops_what_is_left(api):
    ingress = [{"ip": "198.51.100.1"}]
    text = shop(api, HERE, type="LoadBalancer", ingress=ingress, loadBalancerSourceRanges=["172.18.0.0/16"])
    comment = '-m comment --comment "shop/web: loadbalancer IP"'
    (chain,) = {line.split()[1] for line in about(text, "-A KUBE-SVC-")}
    assert [line.split(" ", 2)[2] for line in about(text, "-A KUBE-FW-")] == [
        f"{comment} -j KUBE-MARK-MASQ",
        f"-s 172.18.0.0/16 {comment} -j {chain}",
        f"-s 198.51.100.1/32 {comment} -j {chain}",
        f"{comment} -j KUBE-MARK-DROP",
    ]
    everyone = shop(api, HERE, type="LoadBalancer", ingress=ingress, externalTrafficPolicy="Local")
    assert [line.split("-j ")[1][:9] for line in about(everyone, "-A KUBE-FW-")] == ["KUBE-XLB-", "KUBE-MARK"]


def test_without_endpoints_the_chain_is_empty_and_filter_rejects(api):
    text = shop(api, ("10.244.0.2", "lab-0", "ending"), ports=[{"name": "", "port": 80, "nodePort": 31849}])
    assert about(text, "has no endpoints") == [
        (
            '-A KUBE-SERVICES -p tcp -m comment --comment "shop/web: has no endpoints" -m addrtype --dst-type LOCAL'
            " -m tcp --dport 31849 -j REJECT --reject-with icmp-port-unreachable"
        ),
        (
            '-A KUBE-SERVICES -d 10.96.0.7/32 -p tcp -m comment --comment "shop/web: has no endpoints"'
            " -m tcp --dport 80 -j REJECT --reject-with icmp-port-unreachable"
        ),
    ]
    assert ":KUBE-SVC-" in text
    assert about(text, "-A KUBE-SVC-") == []


def test_session_affinity_is_asked_first_and_set_before_dnat(api):
    text = shop(api, HERE, THERE, sessionAffinity="ClientIP")
    assert ["recent --rcheck --seconds 10800" in line for line in about(text, "-A KUBE-SVC-")] == [True] * 2 + [
        False
    ] * 2
    assert sum("recent --set" in line and "DNAT" in line for line in about(text, "-A KUBE-SEP-")) == 2


def test_endpoints_stand_by_address_and_not_by_address_and_port(api):
    text = shop(api, ("10.244.0.10", "lab-0", "ready"), ("10.244.0.1", "lab-0", "ready"))
    targets = [line.split("-j ")[1] for line in about(text, "-A KUBE-SVC-")]
    addresses = [about(text, f"-A {target}")[0].split()[3] for target in targets]
    assert addresses == ["10.244.0.1/32", "10.244.0.10/32"]


def test_nothing_of_later_layouts_is_there(api):
    text = node_port(api, HERE)
    for later in ("KUBE-EXT-", "KUBE-SVL-", "nfacct", "CANARY", "--random-fully", "KUBE-EXTERNAL-SERVICES", "ctstate"):
        assert later not in text


def test_sctp_is_refused(api):
    with pytest.raises(Unsupported, match="shop/web:s is SCTP"):
        shop(api, ports=[{"name": "s", "port": 1, "protocol": "SCTP"}])
