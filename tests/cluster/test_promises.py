"""A cluster keeps every promise of a source of evidence, and each line it gives works as typed."""

import re
import subprocess
from collections.abc import Callable

import left
import pytest
from bed import Bed, web
from promised import PROTOCOL

from bookinfo_lab.kube import places
from bookinfo_lab.lab import Lab
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster.api import Refused
from bookinfo_lab.sources.cluster.guests import NotAllowed
from bookinfo_lab.sources.cluster.source import KubernetesSource

Connect = Callable[..., KubernetesSource]


STEADY = ("addresses", "routes", "routing-rules")  # what gives the same bytes twice


@pytest.mark.parametrize("promise", PROTOCOL.PROMISES, ids=lambda promise: promise.__name__)
def test_promise(lab: Lab, promise: Callable[[Lab], None]) -> None:
    promise(lab)


def test_the_line_of_each_kind_of_evidence_works_as_typed(bed: Bed, lab: Lab) -> None:
    typed = set()
    for query in PROTOCOL.samples(lab):
        if query.kind in ("get", "prove"):
            continue  # what is forwarded is typed by a test of its own; a monitor waits for the packet
        evidence = lab.source.fetch(query)
        environment = {**bed.environment, "KUBECONFIG": str(bed.kubeconfig)}
        line = evidence.command
        done = subprocess.run(["bash", "-c", line], capture_output=True, timeout=60, env=environment)
        partial = query.kind == "sysctls" and done.stdout  # grep says 2 for one that it may not read
        assert done.returncode == 0 or partial, f"{line}: {done.stderr.decode()}"
        assert bool(done.stdout) == bool(evidence.raw), line
        if query.kind in STEADY:
            assert done.stdout == evidence.raw, line
        typed.add(query.kind)
    assert typed == {query.kind for query in PROTOCOL.samples(lab)} - {"get", "prove"}


def typed(bed: Bed, line: str) -> bytes:
    """What a line prints for somebody who types it."""
    environment = {**bed.environment, "KUBECONFIG": str(bed.kubeconfig)}
    done = subprocess.run(["bash", "-c", line], stdout=subprocess.PIPE, timeout=60, env=environment)
    return done.stdout


def test_the_request_comes_by_a_way_that_is_said(lab: Lab, bed: Bed) -> None:
    page = lab.source.fetch(Query("get", places.CLIENT, ("/productpage",)))
    assert page.raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"<html" in page.raw
    assert "a port-forward" in page.origin
    assert "the pod sees it come from its own loopback" in page.origin
    forward, curl = page.command.splitlines()
    assert forward.startswith("kubectl port-forward -n ")
    assert curl.startswith("curl ")
    assert typed(bed, page.command).startswith(b"HTTP/1.1 200 OK\r\n")


def test_the_lines_of_a_small_port_work_for_every_user(bed: Bed, namespace: str, connect: Connect) -> None:
    page = connect(bed.kubeconfig, namespace).fetch(Query("get", places.CLIENT, ("/",)))
    assert " pod/web 8080:8080 " in page.command
    assert typed(bed, page.command).startswith(b"HTTP/1.0 200 OK\r\n")


def test_a_nodes_processes_are_the_nodes_and_not_a_guests(lab: Lab, bed: Bed, bookinfo: str) -> None:
    name = bed.objects("nodes")["items"][0]["metadata"]["name"]
    assert "envoy" in lab.processes(f"node/{name}").text
    assert "users:((" in lab.sockets(f"node/{name}").text


def test_in_a_container_without_ss_the_programs_of_every_user_are_named(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    pod = web(namespace, bed.image)[0]
    pod["metadata"] |= {"name": "other-user", "labels": {"sidecar.istio.io/inject": "false"}}
    pod["spec"]["containers"][0] |= {
        "command": ["/bin/sh", "-c", "cd /tmp && exec /usr/bin/python3 -m http.server 8080"],
        "env": [{"name": "PATH", "value": "/nowhere"}],
        "securityContext": {"runAsUser": 1000},
    }
    bed.apply(pod)
    bed.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/other-user", "--timeout=60s")
    sockets = Lab(connect(bed.kubeconfig, namespace, ("ephemeral",))).sockets("other-user")
    assert "bookinfo-lab-" in sockets.command
    assert 'users:(("python3"' in sockets.text


def test_connections_are_read_also_where_the_kernel_has_no_file_of_them(lab: Lab, bed: Bed) -> None:
    node = lab.place("node/" + bed.objects("nodes")["items"][0]["metadata"]["name"])
    read = lab.source.fetch(Query("conntrack", node)).command
    other = typed(bed, read.replace("/proc/net/nf_conntrack", "/proc/net/none"))
    line = other.split(b"\n")[0]
    assert re.match(rb"ipv[46] +\d+ \w+ +\d+ .*src=.* dst=.* src=.* dst=", line), line


def test_without_leave_a_pods_rules_are_those_that_istio_init_printed(
    lab: Lab, bed: Bed, bookinfo: str, connect: Connect
) -> None:
    source = connect(bed.kubeconfig, bookinfo)
    without = Lab(source)
    # Of an application in which no lab has put a container yet.
    logged = without.rules("ratings")
    assert "as istio-init printed them when the pod started" in logged.evidence.origin
    assert logged.command.startswith("kubectl logs ")
    read = lab.rules("ratings")

    def rules(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("-A ")]

    assert rules(logged.evidence.text) == rules(read.evidence.text)
    assert len(rules(read.evidence.text)) > 10


def test_without_leave_what_needs_no_container_of_ours_is_read_and_the_rest_says_what_allows_it(
    lab: Lab, bed: Bed, bookinfo: str, connect: Connect
) -> None:
    source = connect(bed.kubeconfig, bookinfo)
    without = Lab(source)
    pod = without.place("details")
    for kind in ("addresses", "routes", "sysctls", "processes", "sockets"):
        assert source.fetch(Query(kind, pod)).raw, kind
    before = bed.objects("pods", "-n", bookinfo)["items"]
    with pytest.raises(NotAllowed, match="BOOKINFO_LAB_ALLOW=node-pod"):
        without.rules("node/" + bed.objects("nodes")["items"][0]["metadata"]["name"])
    applications = [item for item in before if "app" in item["metadata"].get("labels", {})]
    free = next(item for item in applications if not item["spec"].get("ephemeralContainers"))["metadata"]["name"]
    with pytest.raises(NotAllowed, match="BOOKINFO_LAB_ALLOW=ephemeral"), without.capture(free):
        pass
    after = bed.objects("pods", "-n", bookinfo)["items"]
    assert [item["spec"] for item in after] == [item["spec"] for item in before]


def test_where_nothing_may_be_run_envoy_answers_by_a_forwarded_port(bed: Bed, bookinfo: str, connect: Connect) -> None:
    kubeconfig = bed.account(bookinfo, "no-exec", ["reader"])
    meta = {"name": "forward-alone", "namespace": bookinfo}
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": meta,
        "rules": [{"apiGroups": [""], "resources": ["pods/portforward"], "verbs": ["get", "create"]}],
    }
    binding = {
        **role,
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": meta["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": "no-exec", "namespace": bookinfo}],
    }
    del binding["rules"]
    bed.apply(role, binding)
    lab = Lab(connect(kubeconfig, bookinfo))
    found = lab.envoy("productpage", "server_info")
    assert '"state": "LIVE"' in found.text
    assert found.command.startswith("kubectl port-forward ")
    assert b'"state": "LIVE"' in typed(bed, found.command)
    with pytest.raises(Refused, match=r"pods/exec in .*; the role inspector"):
        lab.processes("productpage")


def test_where_no_port_may_be_forwarded_a_pod_of_ours_on_a_node_asks(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    kubeconfig = bed.account(namespace, "no-forward", ["node"])
    role = bed.objects("role", "-n", namespace, "bookinfo-lab-node")
    for rule in role["rules"]:
        rule["resources"] = [word for word in rule["resources"] if word != "pods/portforward"]
    bed.apply(role)
    refused = connect(kubeconfig, namespace)
    with pytest.raises(Refused, match=r"may not (create|get) pods/portforward in .*; the role inspector"):
        refused.fetch(Query("get", places.CLIENT, ("/",)))
    allowed = connect(kubeconfig, namespace, ("node-pod",))
    page = allowed.fetch(Query("get", places.CLIENT, ("/",)))
    assert page.raw.startswith(b"HTTP/1.0 200 OK\r\n")
    assert "by a pod of the lab's on " in page.origin
    assert page.command.startswith(f"kubectl exec -n {namespace} bookinfo-lab-node-")


def test_where_kube_proxy_is_a_pod_a_node_is_read_there_and_nothing_is_made(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    if not bed.is_ours:
        pytest.skip("nothing is put into kube-system of a cluster that is not the tests' own")
    node = bed.objects("pod", "web", "-n", namespace)["spec"]["nodeName"]  # who may not list nodes knows no other
    meta = {"name": "kube-proxy-x7k2p", "namespace": "kube-system", "labels": {"k8s-app": "kube-proxy"}}
    container = {"name": "kube-proxy", "image": bed.image, "command": ["sleep", "600"]}
    container |= {"imagePullPolicy": "IfNotPresent", "securityContext": {"privileged": True}}
    spec = {"nodeName": node, "hostNetwork": True, "terminationGracePeriodSeconds": 1, "containers": [container]}
    bed.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    try:
        bed.kubectl("wait", "-n", "kube-system", "--for=condition=Ready", f"pod/{meta['name']}", "--timeout=60s")
        before = left.before(bed)
        rules = Lab(connect(bed.kubeconfig, namespace)).rules(f"node/{node}")
        assert rules.command.startswith(f"kubectl exec -n kube-system {meta['name']} -c kube-proxy -- iptables")
        assert len(rules.chain("nat", "KUBE-SERVICES")) > 0
        assert left.objects(bed) == before
        # No role of the lab's reaches kube-system: a pod of its own is made there instead.
        own = Lab(connect(bed.account(namespace, "own-pod", ["node"]), namespace, ("node-pod",)))
        assert own.rules(f"node/{node}").command.startswith(f"kubectl exec -n {namespace} bookinfo-lab-node-")
    finally:
        bed.kubectl("delete", "pod", "-n", "kube-system", str(meta["name"]), "--wait=false")
