"""A guest in a reader's cluster: said before, used again, never another's, and gone with its process."""

import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import left
import pytest
from bed import Bed
from test_cli_cluster import environment

from bookinfo_lab.errors import LabError
from bookinfo_lab.lab import Lab
from bookinfo_lab.sources.cluster import guest_objects, guests, streams, traces
from bookinfo_lab.sources.cluster.guests import NotAllowed, Unfit
from bookinfo_lab.sources.cluster.source import KubernetesSource

Connect = Callable[..., KubernetesSource]


@contextmanager
def running(bed: Bed, *words: str) -> "Iterator[subprocess.Popen[str]]":
    """This Python with those words, its stdout a pipe; killed in the end."""
    command = [sys.executable, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment(bed), text=True) as child:
        try:
            yield child
        finally:
            child.kill()


def node_of(bed: Bed, namespace: str) -> str:
    return str(bed.objects("pod", "web", "-n", namespace)["spec"]["nodeName"])


def test_a_container_that_stays_is_said_before_and_named_once_after_and_used_by_whoever_comes(
    bed: Bed, namespace: str, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    first = connect(bed.kubeconfig, namespace, ("ephemeral",))
    Lab(first).rules("web")
    name = left.guests(bed, namespace, "web")[0]
    said = f"bookinfo-lab: the container {name} is put into {namespace}/web; it cannot be removed, and stays there idle"
    assert capfd.readouterr().err.splitlines() == [said]
    first.close()
    first.close()
    said = f"bookinfo-lab: these containers stay, idle, until their pods are deleted: {namespace}/web ({name})"
    assert capfd.readouterr().err.splitlines() == [said]
    assert left.programs(bed, namespace, "web", name).count("sleep") == 1
    without_leave = connect(bed.kubeconfig, namespace)
    assert name in Lab(without_leave).rules("web").command
    assert left.guests(bed, namespace, "web") == [name]
    without_leave.close()
    assert capfd.readouterr().err == ""


def test_a_lab_deletes_its_own_pods_alone(bed: Bed, namespace: str, connect: Connect) -> None:
    node = node_of(bed, namespace)
    first, second = (connect(bed.kubeconfig, namespace, ("node-pod",)) for _ in range(2))
    made = [source.guests.on_node(node, "a test")[1] for source in (first, second)]
    first.close()
    assert left.until(lambda: made[0] not in left.of_a_lab(bed))
    assert made[1] in left.of_a_lab(bed)
    assert streams.run(second.api, namespace, made[1], "node", ["true"]).status == 0


def test_a_pod_that_was_deleted_by_another_is_made_again(
    bed: Bed, namespace: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = connect(bed.kubeconfig, namespace, ("node-pod",))
    node = node_of(bed, namespace)
    made = source.guests.on_node(node, "a test")
    traces.remove(source.api, [namespace])
    monkeypatch.setattr(guests, "_RENEW_S", 0.0)
    again = source.guests.on_node(node, "a test")
    assert again != made
    assert streams.run(source.api, *again, ["true"]).status == 0
    assert source.guests.on_node(node, "a test") == again


def test_a_pod_whose_lab_is_gone_ends_by_itself_but_not_under_a_program(
    bed: Bed, namespace: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guest_objects, "FULL", "echo 6 > /tmp/idle-left")
    quick = guest_objects.KEEP.replace(f"echo {guest_objects.IDLE_S // 10} >", "echo 6 >").replace(
        "sleep 10", "sleep 1"
    )
    monkeypatch.setattr(guest_objects, "KEEP", quick)
    source = connect(bed.kubeconfig, namespace, ("node-pod",))
    where = source.guests.on_node(node_of(bed, namespace), "a test")
    assert streams.run(source.api, *where, ["sleep", "9"]).status == 0  # longer than it has without a program

    def phase() -> str:
        return str(bed.objects("pod", where[1], "-n", namespace)["status"]["phase"])

    assert phase() == "Running"
    assert left.until(lambda: phase() == "Succeeded", 30)


def test_what_may_not_be_put_into_a_pod_is_read_from_its_node(bed: Bed, bookinfo: str, connect: Connect) -> None:
    every = bed.objects("pods", "-n", bookinfo)["items"]
    fresh = next(
        item["metadata"]["name"]
        for item in every
        if item["metadata"]["name"].startswith("reviews-") and not item["spec"].get("ephemeralContainers")
    )
    read = Lab(connect(bed.kubeconfig, bookinfo, ("node-pod",))).rules(fresh)
    assert "in the pod's network namespace" in read.evidence.origin
    assert left.guests(bed, bookinfo, fresh) == []
    done = subprocess.run(["bash", "-c", read.command], capture_output=True, env=environment(bed), timeout=60)
    other = Lab(connect(bed.kubeconfig, bookinfo, ("ephemeral",))).rules(fresh)
    assert left.guests(bed, bookinfo, fresh) != []

    def rules(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith("-A ")]

    assert rules(read.evidence.text) == rules(done.stdout.decode()) == rules(other.evidence.text)
    assert len(rules(read.evidence.text)) > 10


def test_a_pod_that_does_not_run_is_one_line(bed: Bed, namespace: str, connect: Connect) -> None:
    container = {"name": "web", "image": bed.image, "imagePullPolicy": "IfNotPresent", "command": ["true"]}
    meta = {"namespace": namespace, "name": "over", "labels": {"sidecar.istio.io/inject": "false"}}
    spec = {"restartPolicy": "Never", "containers": [container]}
    bed.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    bed.kubectl("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "pod/over", "--timeout=60s")
    source = connect(bed.kubeconfig, namespace, ("ephemeral",))
    pod = bed.objects("pod", "over", "-n", namespace)
    with pytest.raises(Unfit, match=r"over does not run \(it is Succeeded\)"):
        source.guests.in_pod(pod, "web", "a test")
    assert left.guests(bed, namespace, "over") == []


def test_a_container_whose_image_does_not_come_is_named_as_remaining(
    bed: Bed, namespace: str, connect: Connect, capfd: pytest.CaptureFixture[str]
) -> None:
    meta = {"namespace": namespace, "name": "second", "labels": {"sidecar.istio.io/inject": "false"}}
    container = {"name": "web", "image": bed.image, "imagePullPolicy": "IfNotPresent", "command": ["sleep", "999"]}
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container]}
    bed.apply({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec})
    bed.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/second", "--timeout=60s")
    source = connect(bed.kubeconfig, namespace, ("ephemeral",))
    source.guests.image = "registry.invalid/none:1"
    with pytest.raises(LabError, match=r"does not start .*image registry\.invalid/none:1") as error:
        source.guests.in_pod(bed.objects("pod", "second", "-n", namespace), "web", "a test")
    assert "\n" not in str(error.value)
    name = left.guests(bed, namespace, "second")[0]
    source.close()
    assert f"{namespace}/second ({name})" in capfd.readouterr().err.splitlines()[-1]
    remaining = traces.remove(source.api, [namespace]).remaining
    assert ("second", name, "waiting") in {(item.pod, item.container, item.state) for item in remaining}


SCRIPT = """
    import sys, time
    from bookinfo_lab.lab import Lab
    from bookinfo_lab.sources.cluster import source
    node, how = sys.argv[1:]
    found = source.connect(namespace={namespace!r}, allow=["node-pod", "ephemeral", "trace"])
    where = found.guests.on_node(node, "a test")
    if how == "exit":
        print(where[1], "-", flush=True)
        sys.exit(3)
    with Lab(found).capture("node/" + node, "web:lo"):
        guest = found.ways.guest(Lab(found).place("web"), "a test")
        print(where[1], guest[2], flush=True)
        time.sleep(60)
"""


@pytest.mark.parametrize("how", ["exit", signal.SIGTERM, signal.SIGKILL], ids=str)
def test_pods_and_programs_end_with_the_process(bed: Bed, namespace: str, how: str | signal.Signals) -> None:
    script = textwrap.dedent(SCRIPT).format(namespace=namespace)
    with running(bed, "-c", script, node_of(bed, namespace), str(how)) as child:
        assert child.stdout is not None
        pod, guest = child.stdout.readline().split()
        if isinstance(how, signal.Signals):
            assert "tcpdump" in left.programs(bed, namespace, "web", guest)
            assert "tcpdump" in left.programs(bed, namespace, pod, "node")
            child.send_signal(how)
        status = child.wait(30)
    assert status == {"exit": 3, signal.SIGTERM: -signal.SIGTERM, signal.SIGKILL: -signal.SIGKILL}[how]
    if isinstance(how, signal.Signals):
        assert left.until(lambda: "tcpdump" not in left.programs(bed, namespace, "web", guest), 10)
    if how == signal.SIGKILL:
        assert left.until(
            lambda: left.programs(bed, namespace, pod, "node") in (["sh", "sleep"], ["sh", "sh", "sleep"]), 10
        ), left.programs(bed, namespace, pod, "node")
        bed.kubectl("delete", "pod", "-n", namespace, pod)
    else:
        assert left.until(lambda: pod not in left.of_a_lab(bed), 5)


def test_a_proof_whose_process_is_killed_leaves_no_program_and_no_table(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    """xtables-monitor, nft and the senders each end with the connection that they were started by."""
    source = connect(bed.kubeconfig, namespace, ("node-pod", "ephemeral", "trace"))
    where = source.guests.on_node(node_of(bed, namespace), "a test")
    script = """
        import sys, time
        from bookinfo_lab.sources.cluster import api, proof
        from bookinfo_lab.kube.places import Place
        where = tuple(sys.argv[1:4])
        ground = proof.Ground(api.connect(), Place("node", "", "n", ""), lambda place: where, [], [])
        monitors = (["xtables-monitor", "--trace"], ["nft", "monitor", "trace"])
        xtables, nft = map(ground.running, monitors)
        with xtables, nft, ground.knocking():
            print("now", flush=True)
            time.sleep(60)
    """
    with running(bed, "-c", textwrap.dedent(script), *where) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "now\n"
        named = set(left.programs(bed, *where))
        assert {"nft", "python3"} < named
        assert any(word.startswith("xtables") for word in named)
    assert left.until(lambda: set(left.programs(bed, *where)) == {"sh", "sleep"}, 10), left.programs(bed, *where)


def test_without_leave_nothing_is_made(bed: Bed, bookinfo: str, connect: Connect) -> None:
    before = left.before(bed)
    source = connect(bed.kubeconfig, bookinfo)
    with pytest.raises(NotAllowed):
        source.guests.beside_pods(bed.objects("nodes")["items"][0]["metadata"]["name"], "a test")
    time.sleep(0.5)
    assert left.objects(bed) == before
