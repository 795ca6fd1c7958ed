"""Names of places: what each form means, and that an ambiguous or unknown one lists what there is."""

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import scenarios, topology
from bookinfo_lab.sandbox.targets import Target, find

PLAN = scenarios.scenario("sidecar")
TARGETS = [
    Target("node", "", "lab-node", "", ""),
    Target("client", "", "client", "", ""),
    *(
        Target("pod", pod["metadata"]["namespace"], pod["metadata"]["name"], item["name"], "")
        for pod in PLAN.pods()
        for item in topology.containers(pod)
    ),
]


@pytest.mark.parametrize(
    ("name", "kind", "start", "container"),
    [
        ("client", "client", "client", ""),
        ("node", "node", "lab-node", ""),
        ("node/lab-node", "node", "lab-node", ""),
        ("productpage", "pod", "productpage-v1-", "productpage"),
        ("reviews-v2", "pod", "reviews-v2-", "reviews"),
        ("default/ratings", "pod", "ratings-v1-", "ratings"),
        ("ingress", "pod", "istio-ingressgateway-", "istio-proxy"),
        ("istio-ingressgateway", "pod", "istio-ingressgateway-", "istio-proxy"),
        ("kube-system/kube-dns", "pod", "kube-dns-", "dns"),
        (PLAN.pods()[1]["metadata"]["name"], "pod", "details-v1-", "details"),
    ],
)
def test_a_name_means_one_place(name: str, kind: str, start: str, container: str) -> None:
    found = find(name, "", TARGETS, PLAN.objects)
    assert (found.kind, found.container) == (kind, container)
    assert found.name.startswith(start)


def test_a_container_may_be_named() -> None:
    assert find("productpage", "istio-proxy", TARGETS, PLAN.objects).container == "istio-proxy"


@pytest.mark.parametrize(
    ("name", "container", "words"),
    [
        ("reviews", "", ["ambiguous", "default/reviews-v1", "default/reviews-v2", "default/reviews-v3"]),
        ("nothing", "", ["no target 'nothing'", "client", "node/lab-node"]),
        ("node/other", "", ["no target 'node/other'"]),
        ("kube-system/productpage", "", ["no target"]),
        ("productpage", "sidecar", ["no container 'sidecar'", "istio-proxy", "productpage"]),
        ("", "", ["no target ''"]),
    ],
)
def test_anything_else_lists_what_there_is(name: str, container: str, words: list[str]) -> None:
    with pytest.raises(LabError) as refusal:
        find(name, container, TARGETS, PLAN.objects)
    for word in words:
        assert word in str(refusal.value)
