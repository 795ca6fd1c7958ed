"""`doctor --source kubernetes`: what it says of a cluster is so, its lines mend, and it makes nothing."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from audit import events, settle
from bed import ROOT, Bed

from bookinfo_lab import doctor
from bookinfo_lab.doctor import cluster, cluster_mesh, cluster_network
from bookinfo_lab.doctor.cluster_admission import Answer, judged, warning
from bookinfo_lab.doctor.cluster_page import as_cluster_page, verdict
from bookinfo_lab.doctor.cluster_rights import FEATURES, grant
from bookinfo_lab.doctor.findings import Check, Report
from bookinfo_lab.sources.cluster.api import Api
from bookinfo_lab.sources.cluster.source import KubernetesSource

Connect = Callable[..., KubernetesSource]
ORDER = ("reader", "reader-cluster", "inspector", "capturer", "node")


@dataclass(frozen=True, slots=True)
class Said:
    """What one run of doctor said."""

    status: int
    ok: bool
    checks: Mapping[str, Mapping[str, Any]]

    def noes(self) -> set[str]:
        return {name for name, check in self.checks.items() if not check["ok"]}

    def found(self, name: str) -> str:
        return str(self.checks[name]["found"])


def run(bed: Bed, kubeconfig: Path, *words: str, source: str = "kubernetes") -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "bookinfo_lab.cli", "doctor", "--source", source, *words],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "BOOKINFO_LAB_IMAGE": bed.image},
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
    )


def ask(bed: Bed, kubeconfig: Path, *words: str, source: str = "kubernetes") -> Said:
    done = run(bed, kubeconfig, "--json", *words, source=source)
    assert done.returncode in (0, 1), done.stderr
    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["ok"] else 1)
    return Said(done.returncode, said["ok"], {check["name"]: check for check in said["checks"]})


def mend(bed: Bed, line: str) -> None:
    """Type a line of doctor's, as somebody who may do it; what stands in brackets behind it is for the reader."""
    command = line.partition("  (")[0]
    environment = {**bed.environment, "KUBECONFIG": str(bed.kubeconfig)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def features(role: str) -> set[str]:
    """The names of the checks that a role of deploy/rbac/ decides."""
    return {f"{one.role.partition('-')[0]}: {one.name}" for one in FEATURES if one.role == role}


def test_for_someone_without_any_right_everything_falls_away_and_each_line_gives_back_what_its_role_grants(
    bed: Bed, namespace: str
) -> None:
    kubeconfig = bed.account(namespace, "nobody")
    said = ask(bed, kubeconfig)
    assert said.status == 1
    assert not said.ok
    lacking = set().union(*map(features, ORDER))
    for role in ORDER:
        assert {name for name in said.checks if ": " in name} & said.noes() == lacking
        for name in lacking:
            feature = next(one for one in FEATURES if name.endswith(f": {one.name}"))
            for right in feature.rights:
                assert str(right) in said.found(name)
            assert f"the role {feature.role} in deploy/rbac/ grants it" in said.found(name)
            assert said.checks[name]["without"]
        mend(bed, said.checks[min(features(role))]["mend"])
        said, lacking = ask(bed, kubeconfig), lacking - features(role)
        assert said.ok, "reading is all that is needed"
    assert not lacking
    assert said.noes() <= {"kube-proxy", "mesh"}, "of the cluster itself, whoever asks"
    bed.kubectl("delete", "clusterrolebinding", f"bookinfo-lab-reader-{namespace}-nobody")


def test_what_was_not_looked_at_for_want_of_a_right_names_verb_resource_and_role(bed: Bed, namespace: str) -> None:
    said = ask(bed, bed.account(namespace, "narrow", ["reader"]))
    assert said.ok
    for name, right, role in (
        ("nodes", "list nodes", "reader-cluster"),
        ("CNI", "list nodes, list pods", "reader-cluster"),
        ("kube-proxy", "list pods, get configmaps kube-proxy", "reader-cluster"),
        ("mesh", "list pods", "reader-cluster"),
        ("ephemeral container", "patch pods/ephemeralcontainers", "capturer"),
        ("node pod", "create pods", "node"),
        ("node pod with hostPID", "create pods", "node"),
        ("injection", "create pods", "node"),
    ):
        assert not said.checks[name]["ok"]
        assert f"this user may not {right}" in said.found(name)
        assert f"the role {role} in deploy/rbac/ grants it" in said.found(name)


def test_an_administrator_is_told_versions_and_that_everything_would_be_admitted(bed: Bed, namespace: str) -> None:
    said = ask(bed, bed.kubeconfig, "-n", namespace)
    assert said.ok
    assert said.noes() <= {"kube-proxy", "mesh"}
    nodes = bed.objects("nodes")["items"]
    version = json.loads(bed.kubectl("get", "--raw", "/version"))["gitVersion"]
    assert said.found("version") == f"Kubernetes {version}"
    assert said.found("nodes").startswith(f"{len(nodes)} node")
    assert nodes[0]["status"]["nodeInfo"]["kernelVersion"] in said.found("nodes")
    assert "the pod web would take one" in said.found("ephemeral container")


def left(bed: Bed, namespace: str) -> Any:
    """What is in a namespace, but for what the cluster itself writes there all the time."""
    kinds = "pods,services,serviceaccounts,roles,rolebindings,configmaps,secrets,deployments,replicasets"
    every = bed.objects(kinds, "-n", namespace)["items"]
    return sorted(
        [item["kind"], item["metadata"]["name"], item["metadata"]["uid"], json.dumps(item.get("spec"), sort_keys=True)]
        for item in every
    )


def test_nothing_is_made_and_every_change_that_was_asked_for_was_a_dry_run(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    kubeconfig = bed.account(namespace, "dry", ["node", "reader-cluster"])
    before = left(bed, namespace)
    since = bed.audit_log.stat().st_size if bed.audit_log else 0
    said = ask(bed, kubeconfig)
    assert {name for name in ("ephemeral container", "node pod", "injection") if said.checks[name]["ok"]}
    assert left(bed, namespace) == before
    if bed.audit_log is None:
        return
    settle(bed.audit_log, connect(kubeconfig, namespace).api)
    asked = [
        event
        for event in events(bed.audit_log, bed.asked_by(kubeconfig), since)
        if event["verb"] not in ("get", "list") and not event["objectRef"]["resource"].startswith("selfsubject")
    ]
    assert [event["requestURI"].partition("?")[2] for event in asked] == ["dryRun=All"] * 4
    assert all(event["responseStatus"]["code"] < 300 for event in asked)


@pytest.fixture
def restricted(bed: Bed) -> Iterator[str]:
    """A namespace whose Pod Security level was set to restricted when its pod ran already."""
    with bed.namespace() as name:
        bed.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name


def test_pod_security_is_quoted_and_its_line_mends_it(bed: Bed, restricted: str) -> None:
    said = ask(bed, bed.kubeconfig, "-n", restricted)
    assert "enforce restricted" in said.found("namespace")
    for name in ("ephemeral container", "node pod", "node pod with hostPID"):
        assert not said.checks[name]["ok"]
        assert 'violates PodSecurity "restricted' in said.found(name)
        assert "this user may not" not in said.found(name)
    assert "host namespaces" in said.found("node pod")
    assert said.checks["injection"]["ok"], "an ordinary pod may be made there"
    mend(bed, said.checks["node pod"]["mend"])
    said = ask(bed, bed.kubeconfig, "-n", restricted)
    assert said.checks["ephemeral container"]["ok"]
    assert said.checks["node pod"]["ok"]


def test_a_level_that_only_warns_is_no_refusal_and_its_warning_is_quoted(bed: Bed) -> None:
    with bed.namespace(**{"pod-security.kubernetes.io/warn": "baseline"}) as name:
        said = ask(bed, bed.kubeconfig, "-n", name)
    assert said.checks["node pod"]["ok"]
    assert 'the server warns: would violate PodSecurity "baseline' in said.found("node pod")


MESSAGE = "no guests here \x1b[31m \u202e tonight"


@contextmanager
def policy(bed: Bed, namespace: str, refused: str) -> Iterator[None]:
    """A ValidatingAdmissionPolicy that refuses pods with hostNetwork, or with hostPID, in one namespace."""
    meta = {"name": namespace}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": [rule]},
        "validations": [{"expression": f"!has(object.spec.{refused}) || !object.spec.{refused}", "message": MESSAGE}],
    }
    selector = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}}
    binding = {"policyName": namespace, "validationActions": ["Deny"], "matchResources": selector}
    version = "admissionregistration.k8s.io/v1"
    bed.apply(
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicy", "metadata": meta, "spec": spec},
        {"apiVersion": version, "kind": "ValidatingAdmissionPolicyBinding", "metadata": meta, "spec": binding},
    )
    try:
        deadline = time.monotonic() + 30
        while not is_refused(bed, namespace, refused):
            assert time.monotonic() < deadline, "the policy is not in force after 30 s"
            time.sleep(0.2)
        yield
    finally:
        bed.kubectl("delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", namespace)


def is_refused(bed: Bed, namespace: str, refused: str) -> bool:
    """Whether the policy is in force already: it is read by the API server in its own time."""
    pod = {refused: True, "containers": [{"name": "a", "image": "a"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": namespace}, "spec": pod}
    return "no guests here" in bed.tried("create", "--dry-run=server", "-f", "-", given=json.dumps(body)).stderr


def wanted(bed: Bed) -> None:
    if not bed.is_ours:
        pytest.skip("this would change a cluster that is not only ours")


def test_a_policys_own_words_are_quoted_with_nothing_in_them_that_a_terminal_obeys(bed: Bed, namespace: str) -> None:
    wanted(bed)
    with policy(bed, namespace, "hostNetwork"):
        said = ask(bed, bed.kubeconfig, "-n", namespace)
        page = run(bed, bed.kubeconfig, "-n", namespace).stdout
    assert not said.checks["node pod"]["ok"]
    assert f"ValidatingAdmissionPolicy '{namespace}'" in said.found("node pod")
    assert "bookinfo-lab.dev/owner" in said.checks["node pod"]["mend"]
    assert said.checks["ephemeral container"]["ok"]
    assert not said.checks["node pod with hostPID"]["ok"], "it is on the node's network too"
    assert "no guests here \\x1b[31m \\u202e tonight" in " ".join(page.split())
    assert all(one.isprintable() or one == "\n" for one in page)


def test_where_only_a_nodes_processes_are_kept_from_pods_the_rest_of_a_node_can_be_had(
    bed: Bed, namespace: str
) -> None:
    wanted(bed)
    with policy(bed, namespace, "hostPID"):
        said = ask(bed, bed.kubeconfig, "-n", namespace)
    assert said.checks["node pod"]["ok"]
    assert f"ValidatingAdmissionPolicy '{namespace}'" in said.found("node pod with hostPID")
    assert "processes and sockets of nodes" in said.checks["node pod with hostPID"]["without"]


def has_istio(bed: Bed) -> bool:
    return bool(bed.objects("pods", "-A", "-l", "app=istiod")["items"])


def test_the_mesh_is_none_until_its_line_is_typed_and_then_a_new_pod_gets_a_sidecar(bed: Bed) -> None:
    if not has_istio(bed):
        pytest.skip("this cluster has no istiod")
    with bed.namespace() as name:
        said = ask(bed, bed.kubeconfig, "-n", name)
        assert said.found("mesh").startswith("none; istiod")
        assert said.found("injection") == "a new pod stays as it is written"
        mend(bed, said.checks["mesh"]["mend"])
        said = ask(bed, bed.kubeconfig, "-n", name)
        assert said.checks["mesh"]["ok"]
        assert said.found("mesh").startswith("sidecar; istiod")
        assert "istio-init" in said.found("injection")
        assert "istio-proxy" in said.found("injection")
        bed.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=baseline")
        said = ask(bed, bed.kubeconfig, "-n", name)
        assert not said.checks["injection"]["ok"], "istio-init needs NET_ADMIN"
        assert "istio-init" in said.found("injection")


def test_kube_proxys_mode_is_what_it_answers_itself_where_a_pod_of_the_labs_can_ask_it(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    wanted(bed)
    said = ask(bed, bed.kubeconfig, "-n", namespace)
    assert said.found("kube-proxy").startswith("not known: kube-system has no pod of it")
    node = bed.objects("nodes")["items"][-1]["metadata"]["name"]
    source = connect(bed.kubeconfig, namespace, ("node-pod",))
    where = source.guests.on_node(node, "a test")
    curl = ("curl", "-s", "http://127.0.0.1:10249/proxyMode")
    mode = bed.kubectl("exec", "-n", where[0], where[1], "--", *curl)
    assert mode in ("iptables", "nftables")
    assert f"mode {mode}, told by itself, on {node}" in ask(bed, bed.kubeconfig, "-n", namespace).found("kube-proxy")
    source.close()


def test_kube_proxys_mode_is_read_from_its_config_map_and_ciliums_word_counts_more(bed: Bed, namespace: str) -> None:
    wanted(bed)
    meta = {"namespace": "kube-system"}
    text = 'apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: "ipvs"\n'
    maps = {"kube-proxy": {"config.conf": text}, "cilium-config": {"kube-proxy-replacement": "true"}}
    try:
        for name, data in maps.items():
            bed.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}, "data": data})
            said = ask(bed, bed.kubeconfig, "-n", namespace)
            expected = (
                "mode ipvs, told by the ConfigMap kube-proxy" if name == "kube-proxy" else "none: Services are Cilium"
            )
            assert said.found("kube-proxy").startswith(expected)
            assert not said.checks["kube-proxy"]["ok"]
            assert said.ok, "what is not on a node works"
    finally:
        bed.kubectl("delete", "configmap", "-n", "kube-system", *maps, "--ignore-not-found")


def test_the_page_is_plain_and_ends_with_the_verdict(bed: Bed, namespace: str) -> None:
    done = run(bed, bed.account(namespace, "page", ["reader"]))
    assert done.returncode == 0
    assert done.stdout.startswith("bookinfo-lab doctor\n")
    assert "The lab can read this cluster. Missing, and not needed for that: " in " ".join(done.stdout.split())
    assert "\nno    inspector: exec: this user may not get pods/exec, create pods/exec" in done.stdout
    assert f"\n      mend:    kubectl apply -n {namespace} -f deploy/rbac/inspector.yaml && " in done.stdout
    assert "sandbox" not in done.stdout.splitlines()[-1]


def test_a_namespace_that_is_not_there_is_said(bed: Bed) -> None:
    said = ask(bed, bed.kubeconfig, "-n", "bookinfo-lab-test-none")
    assert said.status == 1
    assert "there is no namespace bookinfo-lab-test-none" in said.found("namespace")


def test_a_server_that_does_not_know_the_user_and_a_context_that_is_not_there_are_one_no_each(
    bed: Bed, namespace: str, tmp_path: Path
) -> None:
    path = tmp_path / "config"
    config = json.loads(bed.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": "nobody-s"}
    path.write_text(json.dumps(config))
    said = ask(bed, path)
    assert list(said.checks) == ["connection"]
    assert "does not know this user" in said.found("connection")
    said = ask(bed, bed.kubeconfig, source="kubernetes:nowhere")
    assert list(said.checks) == ["connection"]
    assert "no context 'nowhere'" in said.found("connection")


def test_a_server_that_does_not_answer_is_one_no_and_its_token_is_not_shown(tmp_path: Path) -> None:
    path = tmp_path / "config"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "gone",
        "contexts": [{"name": "gone", "context": {"cluster": "gone", "user": "gone"}}],
        "clusters": [{"name": "gone", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "gone", "user": {"token": "TOKEN"}}],
    }
    path.write_text(json.dumps(config))
    done = subprocess.run(
        [sys.executable, "-m", "bookinfo_lab.cli", "doctor", "--source", "kubernetes", "--json"],
        env={**os.environ, "KUBECONFIG": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    said = json.loads(done.stdout)
    assert [check["name"] for check in said["checks"]] == ["connection"]
    assert "does not answer" in said["checks"][0]["found"]
    assert "TOKEN" not in done.stdout + done.stderr


@pytest.mark.parametrize("text", ["a: [", "words", "[1]", "contexts: 3", ""])
def test_a_kubeconfig_that_is_none_is_one_no(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(text)
    done = subprocess.run(
        [sys.executable, "-m", "bookinfo_lab.cli", "doctor", "--source", "kubernetes", "--json"],
        env={**os.environ, "KUBECONFIG": str(path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1, done.stderr
    assert [check["ok"] for check in json.loads(done.stdout)["checks"]] == [False]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-n", "x"), "a namespace is a cluster's"),
        (("--source", "sandbox"), "give kubernetes or kubernetes:CONTEXT"),
    ],
)
def test_bad_use_is_one_line_that_says_what_to_give(words: tuple[str, ...], said: str) -> None:
    command = [sys.executable, "-m", "bookinfo_lab.cli", "doctor", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]


# What a cluster of another make would show, on values.


def node(version: str = "v1.34.4", **annotations: str) -> dict[str, Any]:
    return {"metadata": {"annotations": annotations}, "status": {"nodeInfo": {"kubeletVersion": version}}}


def pod(labels: Mapping[str, str], *words: str, **env: str) -> dict[str, Any]:
    container = {"name": "main", "command": list(words), "env": [{"name": key, "value": env[key]} for key in env]}
    return {"metadata": {"labels": dict(labels)}, "spec": {"containers": [container]}}


@pytest.mark.parametrize(
    ("nodes", "pods", "expected"),
    [
        ([], [], ()),
        ([node()], [pod({"k8s-app": "kube-dns"})], ()),
        ([node(**{"projectcalico.org/IPv4Address": "10.0.0.1/24"})], [], ("Calico",)),
        ([], [pod({"k8s-app": "calico-node"})], ("Calico",)),
        ([node(**{"flannel.alpha.coreos.com/backend-type": "vxlan"})], [pod({"app": "flannel"})], ("Flannel",)),
        ([node(**{"network.cilium.io/ipv4-cilium-host": "10.0.0.1"})], [], ("Cilium",)),
        ([], [pod({"k8s-app": "cilium"}), pod({"k8s-app": "aws-node"})], ("Cilium", "the Amazon VPC CNI")),
        ([node(**{"k8s.ovn.org/node-subnets": "{}"})], [pod({"app": "ovnkube-node"})], ("OVN-Kubernetes",)),
        ([], [pod({"k8s-app": "kindnet", "app": "kindnet"})], ("kindnet",)),
    ],
)
def test_a_cni_is_known_by_its_agents_and_by_its_marks_on_nodes(nodes: Any, pods: Any, expected: Any) -> None:
    assert cluster_network.cni(nodes, pods) == expected


def test_canal_is_one_cni_and_not_three() -> None:
    marks = {"projectcalico.org/IPv4Address": "10.0.0.1/24", "flannel.alpha.coreos.com/backend-type": "vxlan"}
    found = cluster_network.cni([node(**marks)], [pod({"k8s-app": "canal"})])
    assert len(found) == 1
    assert found[0].startswith("Canal")


def test_the_selectors_find_every_agent_of_the_table() -> None:
    for label, value in cluster_network.AGENTS:
        one = next(text for text in cluster_network.selectors() if text.startswith(f"{label} in ("))
        assert value in one.partition("(")[2].rstrip(")").split(",")


CONFIGURATION = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"config.conf": CONFIGURATION + 'mode: ""\n'}, "iptables"),
        ({"config.conf": CONFIGURATION + "mode: ipvs\n"}, "ipvs"),
        ({"config": CONFIGURATION + 'detectLocalMode: ""\nmode: "nftables" # new\n'}, "nftables"),
        ({"config.conf": CONFIGURATION + "metricsBindAddress: 127.0.0.1:10249\n"}, "iptables"),
        ({"kubeconfig.conf": "kind: Config\nmode: ipvs\n"}, ""),
        ({}, ""),
    ],
)
def test_the_mode_is_read_from_a_kube_proxy_configuration(data: Any, expected: str) -> None:
    assert cluster_network.mode_of_settings({"data": data}) == expected
    assert cluster_network.mode_of_settings(None) == ""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("kube-proxy", "--proxy-mode=ipvs"), "ipvs"),
        (("/bin/sh", "-c", "kube-proxy --cluster-cidr=10.0.0.0/8 --proxy-mode nftables 1>>/log"), "nftables"),
        (("kube-proxy", "--kubeconfig=/k"), "iptables"),
        (("kube-proxy", "--config=/var/lib/kube-proxy/config.conf"), ""),
    ],
)
def test_the_mode_is_read_from_kube_proxys_command_line(words: tuple[str, ...], expected: str) -> None:
    assert cluster_network.mode_of_pods([pod({}, *words)]) == expected


@pytest.mark.parametrize(
    ("version", "arguments", "expected"),
    [
        ("v1.34.4", '["server","--kube-proxy-arg","proxy-mode=ipvs"]', ""),
        ("v1.34.4+k3s1", '["server"]', "iptables"),
        ("v1.34.4+k3s1", '["server","--kube-proxy-arg","proxy-mode=ipvs"]', "ipvs"),
        ("v1.34.4+k3s1", '["server","--kube-proxy-arg=proxy-mode=nftables"]', "nftables"),
        ("v1.34.4+k3s1", '["server","--disable-kube-proxy"]', "off"),
        ("v1.34.4+k3s1", "not json", "iptables"),
        ("v1.34.4+rke2r1", '["agent"]', ""),
    ],
)
def test_k3s_runs_kube_proxy_itself_and_its_node_says_how(version: str, arguments: str, expected: str) -> None:
    assert cluster_network.mode_of_nodes([node(version, **{"k3s.io/node-args": arguments})]) == expected


@pytest.mark.parametrize(
    ("agents", "cilium", "expected"),
    [
        ([], None, ""),
        ([], {"data": {"kube-proxy-replacement": "true"}}, "Cilium, in eBPF"),
        ([], {"data": {"kube-proxy-replacement": "strict"}}, "Cilium, in eBPF"),
        ([pod({"k8s-app": "cilium"})], {"data": {"kube-proxy-replacement": "partial"}}, ""),
        ([pod({"k8s-app": "cilium"})], {"data": {"kube-proxy-replacement": "false"}}, ""),
        ([pod({"k8s-app": "calico-node"}, FELIX_BPFENABLED="true")], None, "Calico, in eBPF"),
        ([pod({"k8s-app": "calico-node"}, FELIX_BPFENABLED="false")], None, ""),
        ([pod({"k8s-app": "kube-router"}, "--run-service-proxy=true")], None, "kube-router, in IPVS"),
        ([pod({"app": "ovnkube-node"})], None, "OVN-Kubernetes"),
    ],
)
def test_what_stands_in_kube_proxys_place_is_named(agents: Any, cilium: Any, expected: str) -> None:
    found = cluster_network.replacement(agents, cilium)
    assert found.startswith(expected)
    assert bool(found) is bool(expected)


ISTIOD = {
    "metadata": {"labels": {"app": "istiod", "istio.io/rev": "default"}, "namespace": "istio-system"},
    "spec": {"containers": [{"name": "discovery", "image": "docker.io/istio/pilot:1.29.0-distroless"}]},
}
ZTUNNEL = {
    "metadata": {"labels": {"app": "ztunnel"}, "namespace": "istio-system"},
    "spec": {"containers": [{"name": "istio-proxy", "image": "docker.io/istio/ztunnel:1.29.0"}]},
}


def member(place: str = "containers", name: str = "istio-proxy", **annotations: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "app", "image": "a:1"}], "initContainers": []}
    spec[place].append({"name": name, "image": "registry:5000/istio/proxyv2:1.29.0@sha256:abc"})
    return {"metadata": {"annotations": annotations}, "spec": spec}


PLAIN = {"metadata": {}, "spec": {"containers": [{"name": "app", "image": "a:1"}]}}
REDIRECTED = {"metadata": {"annotations": {"ambient.istio.io/redirection": "enabled"}}, "spec": PLAIN["spec"]}


def labelled(**labels: str) -> dict[str, Any]:
    return {"metadata": {"labels": labels}}


@pytest.mark.parametrize(
    ("pods", "namespace", "agents", "mode", "words"),
    [
        ([], None, [], "none", []),
        ([PLAIN], labelled(), [ISTIOD], "none", ["istiod 1.29.0-distroless in istio-system"]),
        ([member()], None, [], "sidecar", ["1 of 1 pods have Istio's istio-proxy 1.29.0"]),
        ([member("initContainers"), PLAIN], None, [ISTIOD], "sidecar", ["1 of 2 pods have Istio's istio-proxy"]),
        ([], labelled(**{"istio-injection": "enabled"}), [ISTIOD], "sidecar", ["istio-injection=enabled"]),
        ([], labelled(**{"istio-injection": "enabled"}), [], "none", ["istio-injection=enabled"]),
        ([], labelled(**{"istio.io/rev": "canary"}), [ISTIOD], "sidecar", ["istio.io/rev=canary"]),
        ([], labelled(**{"istio-injection": "disabled", "istio.io/rev": "x"}), [ISTIOD], "none", ["disabled"]),
        ([REDIRECTED], labelled(), [ISTIOD, ZTUNNEL], "ambient", ["redirected to ztunnel", "ztunnel 1.29.0"]),
        ([], labelled(**{"istio.io/dataplane-mode": "ambient"}), [ISTIOD, ZTUNNEL], "ambient", ["ambient"]),
        ([REDIRECTED, member()], None, [ISTIOD, ZTUNNEL], "sidecar and ambient", []),
        ([member(name="linkerd-proxy")], None, [], "sidecar", ["Linkerd's linkerd-proxy"]),
    ],
)
def test_a_mesh_is_known_by_its_proxies_its_marks_and_its_labels(
    pods: Any, namespace: Any, agents: Any, mode: str, words: list[str]
) -> None:
    found = cluster_mesh.mesh(pods, namespace, agents)
    assert found.mode == mode
    assert all(any(word in line for line in found.found) for word in words)


def test_a_namespace_joins_the_revision_that_is_there() -> None:
    canary = {**ISTIOD, "metadata": {**ISTIOD["metadata"], "labels": {"app": "istiod", "istio.io/rev": "canary"}}}
    line = cluster_mesh.joins(cluster_mesh.mesh([], None, [canary]), asking("shop", "kind"))
    label = "label namespace shop istio.io/rev=canary istio-injection- --overwrite"
    assert line == f"kubectl --context=kind {label} && kubectl --context=kind rollout restart deployment -n shop"
    line = cluster_mesh.joins(cluster_mesh.mesh([], None, [ISTIOD]), asking("shop"))
    assert line.startswith("kubectl label namespace shop istio-injection=enabled --overwrite && ")
    assert cluster_mesh.joins(cluster_mesh.mesh([], None, []), asking("shop")).startswith("istioctl install")


def asking(namespace: str, context: str = "") -> Api:
    """What only writes lines: nobody is asked."""
    return Api(None, context, namespace, "v1.34.0", (f"--context={context}",) if context else ())


@pytest.mark.parametrize(
    ("user", "namespace", "expected"),
    [
        ("ada", "shop", "kubectl create rolebinding bookinfo-lab-node-ada -n shop --role=bookinfo-lab-node --user=ada"),
        ("system:serviceaccount:shop:web", "shop", "--serviceaccount=shop:web"),
        ("Ada Lovelace; rm -rf /", "$(x)", "-n '$(x)' --role=bookinfo-lab-node '--user=Ada Lovelace; rm -rf /'"),
        ("", "shop", "--user=NAME"),
    ],
)
def test_a_line_that_grants_a_role_is_safe_to_type_whatever_a_user_is_called(
    user: str, namespace: str, expected: str
) -> None:
    assert expected in grant("node", asking(namespace), user)


@pytest.mark.parametrize(
    ("answer", "ok", "found", "mended"),
    [
        (Answer(201, {}), True, "well", False),
        (Answer(200, {}, ("would violate",)), True, "well; the server warns: would violate", False),
        (Answer(403, {"message": 'p violates PodSecurity "baseline:latest"'}), False, "Pod Security refuses", True),
        (Answer(400, {"message": "webhook x does not support dry run"}), False, "not known", False),
        (Answer(403, {"message": "exceeded quota: q"}), False, "refused (403): exceeded quota: q", True),
        (Answer(500, {"message": "failed calling webhook"}), False, "refused (500): failed calling webhook", True),
        (Answer(502, {}), False, "refused (502): status 502", True),
    ],
)
def test_an_answer_to_a_dry_run_is_quoted(answer: Answer, ok: bool, found: str, mended: bool) -> None:
    check = judged("node pod", answer, "well", asking("shop"), "else")
    assert check.ok is ok
    assert check.found.startswith(found)
    assert bool(check.mend) is mended


@pytest.mark.parametrize(
    ("field", "expected"),
    [('299 - "plain"', "plain"), (r'299 - "with \"quotes\" and \\"', 'with "quotes" and \\'), ("299 -", ""), ("", "")],
)
def test_a_warning_is_read_from_its_quotes(field: str, expected: str) -> None:
    assert warning(field) == expected


@pytest.mark.parametrize(
    ("version", "ok"), [("v1.34.4", True), ("v1.25.0-gke.1", True), ("v1.24.17", False), ("", False)]
)
def test_a_server_older_than_what_the_lab_asks_for_is_said(version: str, ok: bool) -> None:
    assert cluster.version(version).ok is ok


def test_the_verdict_is_a_clusters_and_control_characters_do_not_reach_the_page() -> None:
    good, bad = Check("a", True, "x"), Check("b", False, "x\x1b[31m")
    optional = Check("c", False, "not tried, since x", needed=False, tried=False)
    assert verdict(Report((good,))) == "The lab can read this cluster, with everything."
    assert verdict(Report((good, optional))).endswith("not needed for that: c.")
    assert verdict(Report((good, bad, optional))).endswith("to be mended first: b.")
    page = as_cluster_page(Report((good, bad, optional)))
    assert all(one.isprintable() or one == "\n" for one in page)
    assert page.endswith("\n\nThe lab cannot read this cluster yet; to be mended first: b.")
    assert "--    not tried, since x: c" in page
    assert not doctor.is_fit(Report((bad,)))
