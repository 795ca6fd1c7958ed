"""The kernel's own opinion: what a writer wrote loads, and iptables-nft-save prints the very same text."""

import json
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bookinfo_lab.netfilter import istio_iptables, kube_proxy, kubelet, node
from bookinfo_lab.netfilter.kube_proxy import Settings
from bookinfo_lab.netfilter.rule_text import one_of, rule
from bookinfo_lab.netfilter.tables import format_save, table

pytestmark = pytest.mark.sandbox

# Each example makes a network namespace and starts three processes in it.  No database of examples: the checkout may
# belong to another user than the one who runs the tests.
few = settings(max_examples=12, database=None, suppress_health_check=list(HealthCheck))


def ports(protocols):
    one = st.fixed_dictionaries(
        {"port": st.integers(1, 65535), "protocol": st.sampled_from(protocols), "nodePort": st.integers(0, 65535)}
    )
    unnamed = one.map(lambda port: [{**port, "name": ""}])
    named = st.dictionaries(st.from_regex(r"[a-z]{1,5}-[0-9]", fullmatch=True), one, min_size=1, max_size=3)
    return unnamed | named.map(lambda found: [{**port, "name": name} for name, port in found.items()])


def addresses(first):
    return st.integers(0, 65535).map(lambda rest: f"{first}.{rest >> 8}.{rest & 255}")


CONDITIONS = st.fixed_dictionaries({}, optional={name: st.booleans() for name in ("ready", "serving", "terminating")})
HINTS = st.fixed_dictionaries(
    {},
    optional={"forZones": st.just([{"name": "a"}]), "forNodes": st.sampled_from([[{"name": "n0"}], [{"name": "n1"}]])},
)
ENDPOINT = st.fixed_dictionaries(
    {"addresses": addresses("10.244").map(lambda text: [text]), "conditions": CONDITIONS},
    optional={"nodeName": st.sampled_from(["n0", "n1"]), "hints": HINTS},
)
POLICY = st.sampled_from(["Cluster", "Local"])
RANGE = st.tuples(addresses("172.18"), st.integers(0, 32)).map(lambda pair: f"{pair[0]}/{pair[1]}")


def spec(protocols):
    return st.fixed_dictionaries(
        {
            "type": st.sampled_from(["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"]),
            "clusterIP": addresses("10.96") | st.just("None"),
            "ports": ports(protocols),
        },
        optional={
            "externalIPs": st.lists(addresses("192.0"), max_size=2, unique=True),
            "externalTrafficPolicy": POLICY,
            "internalTrafficPolicy": POLICY,
            "sessionAffinity": st.sampled_from(["None", "ClientIP"]),
            "sessionAffinityConfig": st.integers(1, 86400).map(lambda age: {"clientIP": {"timeoutSeconds": age}}),
            "healthCheckNodePort": st.integers(1, 65535),
            "loadBalancerSourceRanges": st.lists(RANGE, max_size=2),
        },
    )


@st.composite
def clusters(draw, protocols):
    objects = [
        {
            "kind": "Node",
            "metadata": {"name": name, "labels": {"topology.kubernetes.io/zone": "a"}},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }
        for name, address in (("n0", "172.18.0.2"), ("n1", "172.18.0.3"))
    ]
    names = draw(st.lists(st.from_regex(r"[a-z][a-z0-9-]{0,20}[a-z]", fullmatch=True), max_size=6, unique=True))
    for name in names:
        body = draw(spec(protocols))
        ingress = draw(st.lists(addresses("198.51").map(lambda text: {"ip": text}), max_size=2))
        objects.append(
            {
                "kind": "Service",
                "metadata": {"name": name, "namespace": "shop"},
                "spec": body,
                "status": {"loadBalancer": {"ingress": ingress}},
            }
        )
        objects += [
            {
                "kind": "EndpointSlice",
                "metadata": {
                    "name": f"{name}-{index}",
                    "namespace": "shop",
                    "labels": {"kubernetes.io/service-name": name},
                },
                "addressType": "IPv4",
                "ports": [{**port, "port": draw(st.integers(1, 65535))} for port in body["ports"]],
                "endpoints": draw(st.lists(ENDPOINT, max_size=4)),
            }
            for index in range(draw(st.integers(0, 2)))
        ]
    return objects


TODAY = st.builds(
    Settings,
    st.sampled_from(["", "10.244.0.0/16", "10.0.0.0/8"]),
    st.booleans(),
    st.just("today"),
    st.integers(0, 31),
    st.booleans(),
    st.booleans(),
    st.booleans(),
)


@few
@given(objects=clusters(["TCP", "UDP", "SCTP"]), chosen=TODAY)
def test_rules_of_random_services_read_back_as_they_were_written(load_and_save, objects, chosen):
    text = node.rules(objects, "n0", chosen)
    assert load_and_save(text, kube_proxy.accounting_objects(chosen)) == text


@few
@given(objects=clusters(["TCP", "UDP"]), cidr=st.sampled_from(["", "10.244.0.0/16"]), bit=st.integers(0, 14))
def test_rules_of_2017_of_random_services_read_back_as_they_were_written(load_and_save, objects, cidr, bit):
    text = node.rules(objects, "n0", Settings(cidr, layout="2017", masquerade_bit=bit))
    assert load_and_save(text) == text


@pytest.mark.parametrize("layout", ["today", "2017"])
def test_kube_proxys_and_the_kubelets_rules_each_load_alone(load_and_save, layout, api):
    chosen = Settings("10.244.0.0/16", layout=layout)
    ports = [{"name": "http", "port": 80, "nodePort": 30080}]
    objects = [
        api.node(),
        api.service(type="LoadBalancer", ports=ports, ingress=[{"ip": "198.51.100.1"}], externalTrafficPolicy="Local"),
        api.endpoints(("10.244.1.2", "lab-1", "ready")),
    ]
    of_proxy = kube_proxy.rules(objects, "lab-0", chosen)
    assert load_and_save(of_proxy, kube_proxy.accounting_objects(chosen)) == of_proxy
    assert load_and_save(kubelet.rules(layout)) == kubelet.rules(layout)


@pytest.mark.data
@pytest.mark.parametrize("name", ["iptables", "istio"])
def test_a_real_clusters_rules_load_and_read_back(load_and_save, recorded, name):
    chosen = Settings("10.244.0.0/16")
    text = node.rules(json.loads(recorded(f"cluster/{name}/objects.json")), "lab-0", chosen)
    assert load_and_save(text, kube_proxy.accounting_objects(chosen)) == text


@pytest.mark.parametrize(
    "chosen",
    [
        istio_iptables.Settings(),
        istio_iptables.Settings(inbound_include=(80, 443), outbound_cidrs_include=()),
        istio_iptables.Settings(
            outbound_ports_exclude=(3306,),
            outbound_ports_include=(443,),
            outbound_cidrs_include=("10.96.0.0/16", "0.0.0.0/0", "127.0.0.2/32"),
            outbound_cidrs_exclude=("10.96.0.10/8",),
        ),
    ],
)
@pytest.mark.parametrize("owner", ["uid", "mark"])
def test_istios_rules_read_back_as_they_were_written(load_and_save, maps_uids, chosen, owner):
    text = istio_iptables.rules(replace(chosen, owner=owner))
    if owner == "uid" and not maps_uids:
        # The very reason for the form with a mark.
        with pytest.raises(RuntimeError, match="Invalid argument"):
            load_and_save(text)
    else:
        assert load_and_save(text) == text


@pytest.mark.parametrize("digits", [5, 10])
def test_the_share_of_one_among_any_number_of_endpoints_reads_back_as_written(load_and_save, digits):
    shares = [rule("RETURN", matches=(one_of(remaining, digits),)) for remaining in range(2, 400)]
    text = format_save([table("nat", {"SHARES": shares})])
    assert load_and_save(text) == text


def test_rules_of_another_text_do_not_read_back_the_same(load_and_save, api):
    text = node.rules([api.node()], "lab-0", Settings("10.244.0.0/16", nfacct=False))
    other = text.replace("--random-fully", "")
    assert load_and_save(other) != other
    assert load_and_save(other) != load_and_save(text)
