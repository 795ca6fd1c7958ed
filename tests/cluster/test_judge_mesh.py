"""A real Istio as judge: of the rules that the lab writes for a pod, and of what it tells an Envoy.

The same API objects go to istiod and to the sandbox's writers.  What differs must stand in docs/differences.md, and
what stands there must differ.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from difflib import unified_diff
from typing import Any

import istiod
import mesh_objects
import mesh_random
import pytest
from bed import PREFIX, ROOT, Bed
from istiod import Object, Resources
from mesh_objects import ASLEEP, CASES, READY

from bookinfo_lab.kube.places import Place
from bookinfo_lab.netfilter import istio_init, istio_iptables
from bookinfo_lab.netfilter.comparable import comparable
from bookinfo_lab.sandbox import xds
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster import source
from bookinfo_lab.sources.cluster.source import KubernetesSource

PATIENCE_S = 30.0  # for istiod's last push to reach every Envoy
KINDS = "pods,services,endpointslices,gateways.networking.istio.io,virtualservices.networking.istio.io"
KINDS += ",destinationrules.networking.istio.io,peerauthentications.security.istio.io"
PAGE = (ROOT / "docs" / "differences.md").read_text(encoding="utf-8")
GATEWAY = "istio-ingressgateway"
SEEDS = (1, 2)  # of random Services and policies


def rows(title: str) -> dict[str, tuple[str, ...]]:
    """The rows of a table of the page by their first cell."""
    part = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    cells = [tuple(cell.strip() for cell in line.strip("|").split(" | ")) for line in lines[2:]]
    return {row[0]: row[1:] for row in cells}


@dataclass(frozen=True, slots=True)
class Proxy:
    """A pod with an Envoy, and what that was told: the dump of its configuration."""

    pod: Object
    dump: Object

    @property
    def resources(self) -> Resources:
        """What it was told, read anew: a test may change it."""
        return istiod.of_dump(self.dump)


@dataclass(frozen=True, slots=True)
class Judged:
    """All objects of the cluster, and every proxy of two namespaces by its pod's name."""

    objects: tuple[Object, ...]
    proxies: Mapping[str, Proxy]

    def lines(self) -> list[str]:
        """Every difference that is not named, a line each."""
        return [f"{name}{line}" for name, proxy in self.proxies.items() for line in self._lines(proxy)]

    def _lines(self, proxy: Proxy) -> Iterator[str]:
        written, theirs = istiod.written(self.objects, proxy.pod), proxy.resources
        for undo in istiod.RESOURCES.values():
            undo(theirs)
        for told in (written, theirs):
            istiod.in_any_order(told["eds"], self.objects)
        yield from istiod.differing(written, theirs)
        ours, started = istiod.written_bootstrap(proxy.pod), istiod.bootstrap_of_dump(proxy.dump)
        for undo_start in istiod.BOOTSTRAP.values():
            undo_start(started, ours)
        yield from istiod.differing(ours, started, ".bootstrap")

    def of(self, start: str) -> Proxy:
        return next(proxy for name, proxy in self.proxies.items() if name.startswith(start))

    def with_dump(self, start: str, change: Callable[[str], str]) -> "Judged":
        """The same with another dump of one proxy."""
        name = next(name for name in self.proxies if name.startswith(start))
        proxy = self.proxies[name]
        text = json.dumps(proxy.dump)
        assert change(text) != text, "the seed changes nothing"
        return replace(self, proxies={name: replace(proxy, dump=json.loads(change(text)))})


@pytest.fixture(scope="module")
def shop(bed: Bed, bookinfo: str) -> Iterator[str]:
    """A namespace with all that is judged, its pods ready; it needs the images that came with Bookinfo."""
    if not bed.is_ours:
        pytest.skip("another version of Istio writes otherwise: the judge is the one that a test bed brings")
    name = f"{PREFIX}judge-mesh"
    namespace, *others = mesh_objects.objects(name, bed.image)
    drawn = [item for seed in SEEDS for item in mesh_random.objects(seed)]
    for item in drawn:
        item["metadata"]["namespace"] = name
    bed.apply(namespace)
    bed.apply(*others, *drawn)
    try:
        bed.kubectl("wait", "-n", name, "--for=condition=Ready", "pods", "-l", READY, "--timeout=80s")
        bed.kubectl("wait", "-n", name, "--for=jsonpath={.status.phase}=Running", "pods", "-l", ASLEEP, "--timeout=80s")
        yield name
    finally:
        bed.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="module")
def lab(bed: Bed) -> Iterator[KubernetesSource]:
    """The cluster as the product reads it, with leave for containers in pods."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_IMAGE", bed.image)
        patch.setenv("KUBECONFIG", str(bed.kubeconfig))
        opened = source.connect(allow=["ephemeral"])
        yield opened
        opened.close()


def read(bed: Bed, lab: KubernetesSource, namespaces: tuple[str, ...]) -> Judged:
    """Every proxy's dump, then the objects."""
    pods = [item for item in bed.objects("pods", "-A")["items"] if item["metadata"]["namespace"] in namespaces]
    meshed = [pod for pod in pods if _has_proxy(pod) and ASLEEP not in pod["metadata"]["labels"]]

    def dump(pod: Object) -> Object:
        place = Place("pod", pod["metadata"]["namespace"], pod["metadata"]["name"], "istio-proxy")
        found: Object = json.loads(lab.fetch(Query("envoy", place, ("config_dump?include_eds",))).raw)
        return found

    dumps = [dump(pod) for pod in meshed]
    proxies = {pod["metadata"]["name"]: Proxy(pod, told) for pod, told in zip(meshed, dumps, strict=True)}
    return Judged(tuple(bed.objects(KINDS, "-A")["items"]), proxies)


def _has_proxy(pod: Object) -> bool:
    spec = pod["spec"]
    return any(item["name"] == "istio-proxy" for item in (*spec.get("initContainers", ()), *spec["containers"]))


@pytest.fixture(scope="module")
def judgement(bed: Bed, lab: KubernetesSource, shop: str, bookinfo: str) -> tuple[Judged, list[str]]:
    """What both made of the cluster's objects and how that differs, when istiod's last push has arrived."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = read(bed, lab, (shop, bookinfo))
        lines = found.lines()
        if not lines or time.monotonic() > deadline:
            return found, lines
        time.sleep(1)


@pytest.fixture(scope="module")
def judged(judgement: tuple[Judged, list[str]]) -> Judged:
    """What both made of the cluster's objects."""
    return judgement[0]


@dataclass(frozen=True, slots=True)
class Saved:
    """A pod's rules, as the product read them, and the name servers that its istio-init found."""

    pod: Object
    rules: str
    name_servers: tuple[str, ...]

    def written(self, **otherwise: Any) -> str:
        """What the writer makes of what the pod's istio-init was told."""
        told = istio_init.of_pod(self.pod, self.name_servers)
        assert told is not None
        return istio_iptables.rules(replace(told, **otherwise))


@pytest.fixture(scope="module")
def saved(bed: Bed, lab: KubernetesSource, shop: str) -> dict[str, Saved]:
    """Every pod of the namespace that istio-init was in, by name; a Deployment's without its random ending."""
    every = [pod for label in (READY, ASLEEP) for pod in bed.objects("pods", "-n", shop, "-l", label)["items"]]
    pods = [pod for pod in every if istio_init.of_pod(pod)]

    def one(pod: Object) -> tuple[str, Saved]:
        name = pod["metadata"]["name"]
        place = Place("pod", shop, name, pod["spec"]["containers"][0]["name"])
        rules = lab.fetch(Query("rules", place, ("iptables-nft-save",))).text
        resolver = lab.fetch(Query("exec", place, ("cat", "/etc/resolv.conf"))).text
        servers = tuple(re.findall(r"^nameserver (\S+)", resolver, re.MULTILINE))
        return re.sub(r"-[0-9a-f]{7,10}-[a-z0-9]{5}$", "", name), Saved(pod, rules, servers)

    with ThreadPoolExecutor(4) as pool:
        return dict(pool.map(one, pods))


DEPLOYED = ("productpage-v1", "reviews-v2", "web-v1", "store-v1")


# Pods' rules


@pytest.mark.parametrize("name", [*DEPLOYED, *(f"rules-{case}" for case in CASES)])
def test_a_pod_s_rules_are_those_that_injection_wrote(saved: dict[str, Saved], name: str) -> None:
    ours, theirs = comparable(saved[name].written()), comparable(saved[name].rules)
    assert ours == theirs, "\n".join(unified_diff(theirs.splitlines(), ours.splitlines(), "istio", "ours", lineterm=""))


@pytest.mark.parametrize("case", CASES)
def test_each_case_makes_rules_of_its_own(saved: dict[str, Saved], case: str) -> None:
    others = {name: comparable(one.rules) for name, one in saved.items() if name != f"rules-{case}"}
    assert comparable(saved[f"rules-{case}"].rules) not in others.values()


@pytest.mark.parametrize(
    "otherwise", [{"proxy_uid": 1338}, {"tunnel_port": 15018}, {"inbound_exclude": (15090, 15021)}], ids=str
)
def test_one_setting_off_is_a_difference_in_a_pod_s_rules(saved: dict[str, Saved], otherwise: dict[str, Any]) -> None:
    one = saved["productpage-v1"]
    assert comparable(one.written(**otherwise)) != comparable(one.rules)


def test_with_a_mark_the_rules_differ_as_the_page_says(saved: dict[str, Saved]) -> None:
    assert set(rows("Pods' rules")) == {"mark"}
    theirs = comparable(saved["productpage-v1"].rules)
    kept = [line for line in theirs.splitlines(keepends=True) if "--gid-owner" not in line]
    undone = re.sub(r"-m owner (! )?--uid-owner 1337", r"-m mark \g<1>--mark 0x539", "".join(kept))
    ours = comparable(saved["productpage-v1"].written(owner="mark"))
    assert ours != theirs
    assert ours == undone


# What Envoy is told


def test_every_proxy_is_told_what_istiod_tells_it_but_for_the_named_differences(
    judgement: tuple[Judged, list[str]],
) -> None:
    lines = judgement[1]
    assert not lines, "\n".join(line[:400] for line in lines[:60])


def test_bookinfo_s_sidecars_and_a_gateway_are_among_those_that_are_judged(judged: Judged, bookinfo: str) -> None:
    places = [proxy.pod["metadata"]["namespace"] for proxy in judged.proxies.values()]
    assert places.count(bookinfo) == 6
    started = {proxy.pod["metadata"]["name"]: proxy.dump for proxy in judged.proxies.values()}
    roles = [istiod.bootstrap_of_dump(dump)["node"]["id"].partition("~")[0] for dump in started.values()]
    assert (roles.count("router"), roles.count("sidecar")) == (1, len(roles) - 1)
    gateway = judged.of(GATEWAY).resources
    assert set(gateway["lds"]) == {"0.0.0.0_8080", "0.0.0.0_8081"}
    assert set(gateway["rds"]) == {"http.8080", "http.8081"}


def test_the_named_differences_are_those_of_the_page_each_with_its_reason() -> None:
    listed = rows("What Envoy is told")
    assert set(listed) == set(xds.DIFFERENCES) == {*istiod.RESOURCES, *istiod.BOOTSTRAP}
    assert all(len(cells) == 3 and all(cells) for cells in [*listed.values(), *rows("Pods' rules").values()])


@pytest.mark.parametrize("name", istiod.RESOURCES)
def test_a_named_difference_of_resources_is_still_there(judged: Judged, name: str) -> None:
    def differs(proxy: Proxy) -> bool:
        told = proxy.resources
        istiod.RESOURCES[name](told)
        return told != proxy.resources

    assert any(differs(proxy) for proxy in judged.proxies.values()), f"{name} is no difference any more"


@pytest.mark.parametrize("name", istiod.BOOTSTRAP)
def test_a_named_difference_of_the_bootstrap_is_still_there(judged: Judged, name: str) -> None:
    proxy = judged.of("productpage")
    told = istiod.bootstrap_of_dump(proxy.dump)
    istiod.BOOTSTRAP[name](told, istiod.written_bootstrap(proxy.pod))
    assert told != istiod.bootstrap_of_dump(proxy.dump), f"{name} is no difference any more"


def test_peer_authentication_disable_leaves_nothing_of_tls_between_the_pods_it_is_for(
    judged: Judged, shop: str
) -> None:
    def tls(resources: Resources) -> tuple[bool, bool]:
        inbound = json.dumps(resources["lds"]["virtualInbound"])
        within = [item for name, item in resources["cds"].items() if name.endswith(f".{shop}.svc.cluster.local")]
        return "transport_socket" in inbound, any("transport_socket_matches" in item for item in within)

    of = {name: tls(proxy.resources) for name, proxy in judged.proxies.items() if not name.startswith(GATEWAY)}
    inside = {name for name, proxy in judged.proxies.items() if proxy.pod["metadata"]["namespace"] == shop}
    assert {found for name, found in of.items() if name in inside} == {(False, False)}
    assert {found[0] for name, found in of.items() if name not in inside} == {True}


def test_the_page_names_the_versions_that_judged(bed: Bed, judged: Judged) -> None:
    told = istiod.parts(judged.of("productpage").dump)["BootstrapConfigDump"]["bootstrap"]["node"]
    number = told["user_agent_build_version"]["version"]
    server = json.loads(bed.kubectl("version", "-o", "json"))["serverVersion"]
    said = f"Istio {told['metadata']['ISTIO_VERSION']} with Envoy {number['major_number']}.{number['minor_number']}"
    assert f"{said} on Kubernetes {server['major']}.{server['minor']}" in PAGE


def test_istio_s_own_filters_are_not_there_to_be_judged(judged: Judged) -> None:
    assert set(rows("What this judge does not see")) == {"Istio's own filters"}
    told = [item for proxy in judged.proxies.values() for item in istiod.every_dict(proxy.resources["lds"])]
    names = {one["name"] for item in told for kind in ("filters", "http_filters") for one in item.get(kind, ())}
    assert [name for name in names if "istio" in name] == []


def renamed_cluster(text: str) -> str:
    return text.replace('"name": "outbound|9080||reviews.', '"name": "outbound|9080||critics.')


def without_a_listener_filter(text: str) -> str:
    document = json.loads(text)
    for item in istiod.every_dict(document):
        if item.get("name") == "virtualInbound" and "listener_filters" in item:
            item["listener_filters"] = [
                one for one in item["listener_filters"] if not one["name"].endswith("http_inspector")
            ]
    return json.dumps(document)


def another_domain(text: str) -> str:
    return text.replace('"ratings"', '"grades"')


def without_an_endpoint(text: str) -> str:
    document = json.loads(text)
    for item in istiod.every_dict(document):
        if item.get("cluster_name", "").startswith("outbound|9080||details.") and item.get("endpoints"):
            item["endpoints"][0]["lb_endpoints"].pop()
    return json.dumps(document)


FAULTS: list[tuple[Callable[[str], str], str]] = [
    (renamed_cluster, ".cds.outbound|9080||critics."),
    (without_a_listener_filter, ".lds.virtualInbound.listener_filters"),
    (another_domain, ".virtual_hosts"),
    (without_an_endpoint, ".eds.outbound|9080||details."),
    (lambda text: text.replace('"num_retries": 2', '"num_retries": 3'), ".retry_policy.num_retries"),
    (lambda text: text.replace('"LEAST_REQUEST"', '"RANDOM"'), ".lb_policy"),
    (lambda text: text.replace('"bind_to_port": false', '"bind_to_port": true'), ".bind_to_port"),
    (lambda text: text.replace('"use_original_dst": true', '"use_original_dst": false'), ".use_original_dst"),
    (lambda text: text.replace('"stat_prefix": "outbound_', '"stat_prefix": "out_'), ".stat_prefix"),
    (lambda text: text.replace('"prometheus_stats"', '"prom"'), ".bootstrap"),
]


@pytest.mark.parametrize(("seed", "named"), FAULTS, ids=[named for _, named in FAULTS])
def test_a_seeded_difference_is_found_and_named_by_its_path(
    judged: Judged, seed: Callable[[str], str], named: str
) -> None:
    lines = judged.with_dump("productpage", seed).lines()
    assert any(named in line for line in lines), lines[:5]
