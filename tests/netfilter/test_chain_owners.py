import json
import re

import pytest

from bookinfo_lab.netfilter import kube_proxy, node
from bookinfo_lab.netfilter.chain_owners import chain_owner, chain_owners, named
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.service_paths import service_paths


@pytest.fixture
def ingress(api):
    """The Service of which an article of 2017 printed the chains, and one beside it with an unnamed port."""
    service = api.service("istio-ingress")
    service["metadata"]["namespace"] = "istio-system"
    slices = api.endpoints(
        ("172.20.100.164", "lab-0", "ready"), service="istio-ingress", port={"name": "http", "port": 80}
    )
    slices["metadata"]["namespace"] = "istio-system"
    other = api.service("web", ports=[{"port": 80}], clusterIP="10.96.0.8")
    return [service, slices, other, api.endpoints(("10.244.0.2", "lab-0", "ready"), port={"port": 8080})]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "KUBE-SVC-JSIH6CCNAROIS6ON",
            (
                "KUBE-SVC-JSIH6CCNAROIS6ON: Service istio-system/istio-ingress, port http (tcp), "
                "chooses among all endpoints that this node may use"
            ),
        ),
        (
            "KUBE-SEP-XMEMPNNJN7A5AOTI",
            (
                "KUBE-SEP-XMEMPNNJN7A5AOTI: Service istio-system/istio-ingress, port http (tcp), "
                "translates to one endpoint 172.20.100.164:80"
            ),
        ),
        (
            "KUBE-MARK-MASQ",
            (
                "KUBE-MARK-MASQ is of none of these Services: kube-proxy's mark for packets whose source address "
                "is to be changed (SNAT); it is of no one Service"
            ),
        ),
        ("DOCKER", "DOCKER is of none of these Services: kube-proxy makes no chain of such a name for a Service"),
        (
            "KUBE-SVC-AAAAAAAAAAAAAAAA",
            (
                "KUBE-SVC-AAAAAAAAAAAAAAAA is of none of these Services: none of the 2 Service ports given makes that "
                "name; it may be of a Service port that is gone, or of another cluster"
            ),
        ),
    ],
)
def test_a_chain_is_told_by_the_name_that_its_service_makes(ingress, name, said):
    assert str(chain_owner(name, ingress)) == said


@pytest.mark.parametrize("kind", ["SVC", "EXT", "SVL", "FW", "XLB"])
def test_all_chains_of_a_service_port_share_its_hash(ingress, kind):
    owner = chain_owner(f"KUBE-{kind}-JSIH6CCNAROIS6ON", ingress)
    assert (owner.kind, owner.service, owner.port_name, owner.endpoint) == (
        kind,
        "istio-system/istio-ingress",
        "http",
        "",
    )


def test_the_chains_of_an_unnamed_port_are_told_in_both_layouts(ingress, api):
    found = set()
    for layout in ("today", "2017"):
        text = kube_proxy.rules([api.node(), *ingress], "lab-0", kube_proxy.Settings("", layout=layout))
        found |= set(re.findall(r"-j (KUBE-(?:SVC|SEP)-\S+)", text))
    owners = [chain_owner(chain, ingress) for chain in found]
    assert sorted(owner.service for owner in owners) == ["istio-system/istio-ingress"] * 2 + ["shop/web"] * 4


@pytest.mark.data
@pytest.mark.parametrize("host", ["lab-0", "lab-1"])
def test_every_service_chain_of_a_real_node_has_an_owner_and_it_is_the_one_that_the_comments_name(recorded, host):
    given = json.loads(recorded("cluster/iptables/objects.json"))
    ruleset = parse(recorded(f"cluster/iptables/{host}.iptables-save"))
    chains = [chain for chain in ruleset.chains("nat") if re.fullmatch(r"KUBE-(SVC|EXT|SVL|FW|SEP)-.{16}", chain)]
    owners = chain_owners(given)
    assert len(chains) > 700
    for chain in chains:
        owner = owners[chain]
        assert owner.chain == chain
        name = f"{owner.service}:{owner.port_name}" if owner.port_name else owner.service
        comments = " ".join(rule.comment for rule in ruleset.rules("nat", chain)).split()
        assert name in comments
    for chain in (chains[0], chains[-1]):
        assert chain_owner(chain, given) == owners[chain]


@pytest.mark.data
def test_paths_without_comments_are_named_by_their_chains(recorded):
    given = json.loads(recorded("cluster/iptables/objects.json"))
    text = recorded("cluster/iptables/lab-0.iptables-save")
    commented = service_paths(parse(text))
    bare = service_paths(parse(re.sub(r' -m comment --comment "[^"]*"', "", text)))
    owners = chain_owners(given)
    with_chains = [(path, named(other, owners)) for path, other in zip(commented, bare, strict=True) if path.ways]
    assert len(with_chains) > 250
    for path, other in with_chains:
        assert (other.service, other.port_name) == (path.service, path.port_name)
        assert (other.ways, other.policy, other.address) == (path.ways, path.policy, path.address)
    assert all(other.service == "" for other in bare)
    assert named(bare[-1], owners) == bare[-1]
    assert named(commented[0], {}) is commented[0]


def test_a_node_of_2017_is_told_by_the_services_too(ingress, api):
    text = node.rules([api.node(), *ingress], "lab-0", kube_proxy.Settings("10.244.0.0/16", layout="2017"))
    bare = re.sub(r' -m comment --comment "[^"]*"', "", text)
    assert {named(path, chain_owners(ingress)).service for path in service_paths(parse(bare))} == {
        "istio-system/istio-ingress",
        "shop/web",
    }
