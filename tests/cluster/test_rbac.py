"""The roles of deploy/rbac/: what each promises works, what the next one does is refused, and nothing else is asked."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from audit import ANYONE, Request, check, events, requests, settle
from bed import ROLES, Bed

from bookinfo_lab.doctor.cluster_rights import FEATURES
from bookinfo_lab.kube.places import Place
from bookinfo_lab.lab import Lab
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster.api import Refused
from bookinfo_lab.sources.cluster.source import KubernetesSource

Connect = Callable[..., KubernetesSource]

# What the lab may ask for under each role, written down by hand: the roles' files grant this and no more.
READER: frozenset[Request] = frozenset(
    {
        ("list", "pods", ""),
        ("get", "pods", ""),
        ("get", "pods", "log"),
        ("list", "services", ""),
        ("list", "endpointslices", ""),
        ("get", "namespaces", ""),
        ("list", "nodes", ""),
        ("get", "nodes", ""),
        ("get", "configmaps", ""),
    }
)
INSPECTOR = READER | {
    ("get", "pods", "exec"),
    ("create", "pods", "exec"),
    ("get", "pods", "portforward"),
    ("create", "pods", "portforward"),
}
CAPTURER = INSPECTOR | {("patch", "pods", "ephemeralcontainers")}
NODE = CAPTURER | {("create", "pods", ""), ("delete", "pods", "")}
ALLOWED: Mapping[str, frozenset[Request]] = {
    "reader": READER,
    "inspector": INSPECTOR,
    "capturer": CAPTURER,
    "node": NODE,
}
# What a role must have asked for, or its test has shown nothing; exec is a get until 1.34 and a create from 1.35 on.
PROOF = {
    "reader": [{("get", "pods", "log")}, {("list", "services", "")}, {("list", "endpointslices", "")}],
    "inspector": [{("get", "pods", one), ("create", "pods", one)} for one in ("exec", "portforward")],
    "capturer": [{("patch", "pods", "ephemeralcontainers")}],
    "node": [{("create", "pods", "")}, {("delete", "pods", "")}],
}


def granted(file: str) -> set[Request]:
    """(verb, resource, subresource) of a file of deploy/rbac/."""
    rules = yaml.safe_load((ROLES / file).read_text())["rules"]
    return {
        (verb, *resource.partition("/")[::2])
        for rule in rules
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


@pytest.mark.parametrize("role", ALLOWED)
def test_the_files_grant_what_the_list_allows_and_no_more(role: str) -> None:
    assert granted(f"{role}.yaml") | granted("reader-cluster.yaml") == ALLOWED[role]
    assert granted("reader-cluster.yaml") == READER


def test_a_role_in_one_namespace_has_nothing_that_lies_outside_of_it() -> None:
    for role in ALLOWED:
        document = yaml.safe_load((ROLES / f"{role}.yaml").read_text())
        assert document["kind"] == "Role"
        assert "namespace" not in document["metadata"]
        assert not {resource for _, resource, _ in granted(f"{role}.yaml")} & {"nodes", "configmaps"}


def test_config_maps_are_granted_by_name_alone() -> None:
    for path in ROLES.glob("*.yaml"):
        for rule in yaml.safe_load(path.read_text())["rules"]:
            assert rule["resources"] == ["configmaps"] or "configmaps" not in rule["resources"]
            assert bool(rule.get("resourceNames")) is (rule["resources"] == ["configmaps"])


def test_doctor_asks_about_the_rights_that_the_files_grant() -> None:
    table: dict[str, set[Request]] = {}
    for feature in FEATURES:
        asked = {(right.verb, *right.resource.partition("/")[::2]) for right in feature.rights}
        table.setdefault(feature.role, set()).update(asked)
    before: set[Request] = set()
    for role in ALLOWED:
        before |= table[role]
        assert granted(f"{role}.yaml") == before
    outside = granted("reader-cluster.yaml") - table["reader-cluster"]
    assert outside == {("get", "namespaces", "")}, "asked in the namespace that is read, where a Role grants it as well"


def pod(namespace: str) -> Place:
    return Place("pod", namespace, "web", "web")


def node(bed: Bed, namespace: str) -> Place:
    return Place("node", "", bed.objects("pod", "-n", namespace, "web")["spec"]["nodeName"], "")


def reads(bed: Bed, source: KubernetesSource, namespace: str) -> None:
    for resource, name in (("pods", "web"), ("services", "productpage"), ("endpointslices", "productpage-")):
        found = json.loads(source.fetch(Query("objects", None, (resource,))).raw)["items"]
        assert [item["metadata"]["name"].startswith(name) for item in found] == [True]
    assert b"started" in source.fetch(Query("logs", pod(namespace))).raw


def inspects(bed: Bed, source: KubernetesSource, namespace: str) -> None:
    assert source.fetch(Query("exec", pod(namespace), ("cat", "/etc/hostname"))).raw == b"web\n"
    assert b"http.server" in source.fetch(Query("processes", pod(namespace))).raw
    assert source.fetch(Query("get", None, ("/",))).raw.startswith(b"HTTP/1.")


def captures(bed: Bed, source: KubernetesSource, namespace: str) -> None:
    address = bed.objects("pod", "-n", namespace, "web")["status"]["podIP"]
    found = json.loads(source.fetch(Query("addresses", pod(namespace))).raw)
    assert address in {item.get("local") for one in found for item in one["addr_info"]}
    assert source.fetch(Query("rules", pod(namespace), ("iptables-nft-save",))).status == 0
    with source.capture([f"{namespace}/web:lo"]) as capture:
        source.fetch(Query("exec", pod(namespace), ("curl", "-s", "http://127.0.0.1:8080/")))
    assert any(b"GET / HTTP" in frame.raw for frame in pcapng.parse(capture.evidence.raw, "capture")[1])


def sees_nodes(bed: Bed, source: KubernetesSource, namespace: str) -> None:
    place = node(bed, namespace)
    status = bed.objects("node", place.name)["status"]
    internal = next(item["address"] for item in status["addresses"] if item["type"] == "InternalIP")
    found = json.loads(source.fetch(Query("addresses", place)).raw)
    assert internal in {item.get("local") for one in found for item in one["addr_info"]}
    made = bed.objects("pods", "-n", namespace, "-l", "bookinfo-lab.dev/owner")["items"]
    assert len(made) <= 1, "none, where a kube-proxy pod may be used"
    source.close()
    bed.kubectl("wait", "-n", namespace, "--for=delete", "pod", "-l", "bookinfo-lab.dev/owner", "--timeout=30s")


PROMISES = {"reader": reads, "inspector": inspects, "capturer": captures, "node": sees_nodes}
LEAVES = {"reader": (), "inspector": (), "capturer": ("ephemeral",), "node": ("ephemeral", "node-pod")}


@pytest.fixture(scope="module")
def fresh(bed: Bed) -> Iterator[str]:
    """A namespace in which no lab was before."""
    with bed.namespace() as name:
        yield name


@pytest.mark.parametrize("role", ALLOWED)
def test_what_a_role_promises_works_and_asks_for_nothing_outside_its_list(
    bed: Bed, namespace: str, connect: Connect, role: str
) -> None:
    kubeconfig = bed.account(namespace, role, [role, "reader-cluster"])
    since = bed.audit_log.stat().st_size if bed.audit_log else 0
    source = connect(kubeconfig, namespace, LEAVES[role])
    for one in list(ALLOWED)[: list(ALLOWED).index(role) + 1]:
        PROMISES[one](bed, source, namespace)
    examine(bed, kubeconfig)
    if bed.audit_log is None:
        return
    settle(bed.audit_log, source.api)
    asked = requests(bed.audit_log, bed.asked_by(kubeconfig), since)
    check(asked, ALLOWED[role] | ANYONE)
    assert all(asked & one for one in PROOF[role]), asked
    refused = [event for event in events(bed.audit_log, bed.asked_by(kubeconfig)) if status(event) == 403]
    assert not refused, "under its role the lab is refused nothing that it asks for"


def test_under_a_role_in_one_namespace_that_namespace_is_read_and_the_rest_is_said_to_be_missing(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    source = connect(bed.account(namespace, "alone", ["reader"]), namespace)
    reads(bed, source, namespace)
    nodes = source.fetch(Query("objects", None, ("nodes",)))
    assert json.loads(nodes.raw)["items"] == []
    assert nodes.missing == ("this user may not list nodes; the role reader-cluster in deploy/rbac/ grants it",)
    assert f"not all: {nodes.missing[0]}" in repr(Lab(source).nodes())
    assert repr(Lab(source).pods()).count("not all") == 0


def exec_of(source: KubernetesSource, namespace: str, bed: Bed) -> None:
    source.fetch(Query("exec", pod(namespace), ("true",)))


def get_of(source: KubernetesSource, namespace: str, bed: Bed) -> None:
    source.fetch(Query("get", None, ("/",)))


def rules_of_pod(source: KubernetesSource, namespace: str, bed: Bed) -> None:
    source.fetch(Query("rules", pod(namespace), ("iptables-nft-save",)))


def addresses_of_node(source: KubernetesSource, namespace: str, bed: Bed) -> None:
    source.fetch(Query("addresses", node(bed, namespace)))


@pytest.mark.parametrize(
    ("role", "act", "resource", "next_role"),
    [
        ("reader", exec_of, "pods/exec", "inspector"),
        ("reader", get_of, "pods/portforward", "inspector"),
        ("inspector", rules_of_pod, "patch pods/ephemeralcontainers", "capturer"),
        ("capturer", addresses_of_node, "create pods in", "node"),
    ],
)
def test_the_next_role_is_named_with_verb_and_resource_where_this_one_is_not_enough(
    bed: Bed, fresh: str, connect: Connect, role: str, act: Any, resource: str, next_role: str
) -> None:
    kubeconfig = bed.account(fresh, f"{role}-{act.__name__.replace('_', '-')}", [role, "reader-cluster"])
    source = connect(kubeconfig, fresh, ("ephemeral", "node-pod"))
    with pytest.raises(Refused) as refused:
        act(source, fresh, bed)
    assert refused.value.status == 403
    assert resource in str(refused.value)
    assert f"the role {next_role} in deploy/rbac/" in str(refused.value)
    given = bed.objects("pods", "-n", fresh)["items"]
    assert [item["metadata"]["name"] for item in given] == ["web"]
    assert not given[0]["spec"].get("ephemeralContainers")


def test_a_node_is_read_without_any_right_outside_the_namespace(bed: Bed, fresh: str, connect: Connect) -> None:
    source = connect(bed.account(fresh, "inside", ["node"]), fresh, ("node-pod",))
    sees_nodes(bed, source, fresh)


def test_what_no_role_grants_is_said_to_be_granted_by_none(bed: Bed, fresh: str, connect: Connect) -> None:
    source = connect(bed.account(fresh, "curious", ["node", "reader-cluster"]), fresh)
    with pytest.raises(Refused, match=f"may not list secrets in the namespace {fresh}; no role of this lab's grants"):
        source.api.get(f"/api/v1/namespaces/{fresh}/secrets")


def test_what_pod_security_refuses_is_not_said_to_be_for_want_of_a_role(bed: Bed, connect: Connect) -> None:
    with bed.namespace() as name:
        bed.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        source = connect(bed.kubeconfig, name, ("ephemeral", "node-pod"))
        for act in (rules_of_pod, addresses_of_node):
            with pytest.raises(Refused, match=r'does not admit it .* violates PodSecurity "restricted') as refused:
                act(source, name, bed)
            assert "deploy/rbac" not in str(refused.value)


@pytest.mark.parametrize("role", ALLOWED)
def test_no_role_may_read_secrets_or_change_what_is_not_the_labs(bed: Bed, fresh: str, role: str) -> None:
    kubeconfig = bed.account(fresh, f"{role}-strict", [role, "reader-cluster"])
    may = bed.kubectl("auth", "can-i", "--list", "-n", fresh, "--no-headers", kubeconfig=kubeconfig)
    lines = [line.split() for line in may.splitlines() if not line.lstrip().startswith("[/")]
    assert len(lines) > 4
    assert not [words for words in lines if "secrets" in words[0] or "*" in words[0]]
    changing = {"create", "update", "patch", "delete", "deletecollection", "*"}
    changes = {(words[0], verb) for words in lines for verb in words[-1].strip("[]").split(",") if verb in changing}
    reviews = {item for item in changes if item[0].startswith("selfsubject")}
    inside = {(f"{resource}/{sub}" if sub else resource, verb) for verb, resource, sub in ALLOWED[role]}
    assert {(name.partition(".")[0], verb) for name, verb in changes - reviews} <= inside


def test_one_request_outside_the_list_makes_the_check_fail(bed: Bed, fresh: str, connect: Connect) -> None:
    if bed.audit_log is None:
        pytest.skip("this cluster keeps no audit log that can be read here")
    kubeconfig = bed.account(fresh, "seeded", ["reader"])
    source = connect(kubeconfig, fresh)
    reads(bed, source, fresh)
    settle(bed.audit_log, source.api)
    user = bed.asked_by(kubeconfig)
    check(requests(bed.audit_log, user), READER | ANYONE)
    with pytest.raises(Refused):
        source.api.get(f"/api/v1/namespaces/{fresh}/secrets")
    settle(bed.audit_log, source.api)
    with pytest.raises(AssertionError, match=r"\('list', 'secrets', ''\)"):
        check(requests(bed.audit_log, user), READER | ANYONE)


def status(event: dict[str, Any]) -> int:
    return int((event.get("responseStatus") or {}).get("code", 0))


def examine(bed: Bed, kubeconfig: Path) -> None:
    """Doctor, as that user: its requests are looked at with the others."""
    done = subprocess.run(
        [sys.executable, "-m", "bookinfo_lab.cli", "doctor", "--source", "kubernetes", "--json"],
        env={**os.environ, "KUBECONFIG": str(kubeconfig)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
