"""What goes wrong in a reader's cluster ends in one clear line, in time, and leaves nothing behind."""

import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import left
import pytest
from bed import Bed, web
from jupyter_client.manager import KernelManager
from relay import relayed
from test_cli_cluster import environment

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube import places
from bookinfo_lab.lab import Lab
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster import streams
from bookinfo_lab.sources.cluster.api import Refused
from bookinfo_lab.sources.cluster.source import KubernetesSource

Connect = Callable[..., KubernetesSource]
AWAY_S = 10.0
CELL_S = 40.0


def node_of(bed: Bed, namespace: str, pod: str = "web") -> str:
    return str(bed.objects("pod", pod, "-n", namespace)["spec"]["nodeName"])


def one_line(error: LabError) -> str:
    assert "\n" not in str(error)
    return str(error)


@contextmanager
def another_pod(bed: Bed, namespace: str, name: str) -> Iterator[None]:
    pod = web(namespace, bed.image)[0]
    pod["metadata"] |= {"name": name, "labels": {"sidecar.istio.io/inject": "false"}}
    bed.apply(pod)
    bed.kubectl("wait", "-n", namespace, "--for=condition=Ready", f"pod/{name}", "--timeout=60s")
    try:
        yield
    finally:
        bed.kubectl("delete", "pod", "-n", namespace, name, "--ignore-not-found")


def test_a_pod_that_vanishes_ends_its_capture_with_a_line_and_what_came_before_is_kept(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    source = connect(bed.kubeconfig, namespace, ("ephemeral", "node-pod"))
    lab = Lab(source)
    node = source.guests.on_node(node_of(bed, namespace), "a test")
    with another_pod(bed, namespace, "short"):
        running: Any = None
        capture = source.capture([lab.point("short:lo"), f"node/{node_of(bed, namespace)}:lo"])

        def vanish() -> None:
            nonlocal running
            with capture as running:
                lab.exec("short", "curl", "-s", "127.0.0.1:8080/")
                assert left.programs(bed, *node).count("tcpdump") == 1
                bed.kubectl("delete", "pod", "-n", namespace, "short", "--wait=false")
                assert left.until(lambda: running.is_broken)

        with pytest.raises(LabError, match=rf"the capture at {namespace}/short:lo broke off") as error:
            vanish()
        one_line(error.value)
        assert b"GET / HTTP/1.1" in running.evidence.raw
    assert left.until(lambda: "tcpdump" not in left.programs(bed, *node))


def test_a_veth_that_vanishes_under_a_capture_is_told(bed: Bed, namespace: str, connect: Connect) -> None:
    """It is the node's: what runs there goes on, and only tcpdump sees it go."""
    source = connect(bed.kubeconfig, namespace, ("ephemeral", "node-pod"))
    lab = Lab(source)
    with another_pod(bed, namespace, "brief"):
        running: Any = None

        def vanish() -> None:
            nonlocal running
            with source.capture([lab.point("brief:veth")]) as running:
                lab.exec("web", "curl", "-s", f"{pod_address(bed, namespace, 'brief')}:8080/")
                bed.kubectl("delete", "pod", "-n", namespace, "brief", "--wait=false")
                assert left.until(lambda: running.is_broken)

        with pytest.raises(LabError, match=rf"the capture at {namespace}/brief:veth broke off") as error:
            vanish()
        one_line(error.value)
        assert b"GET / HTTP/1.1" in running.evidence.raw


def test_a_block_that_ends_with_an_error_keeps_its_frames(bed: Bed, namespace: str, connect: Connect) -> None:
    lab = Lab(connect(bed.kubeconfig, namespace, ("ephemeral",)))
    capture: Any = None

    def fail() -> None:
        nonlocal capture
        with lab.capture("web:lo") as capture:
            lab.exec("web", "curl", "-s", "127.0.0.1:8080/")
            raise ValueError("the cell's own")

    with pytest.raises(ValueError, match="the cell's own"):
        fail()
    assert b"GET / HTTP/1.1" in capture.raw


def pod_address(bed: Bed, namespace: str, name: str) -> str:
    return str(bed.objects("pod", name, "-n", namespace)["status"]["podIP"])


def test_a_token_that_is_no_longer_known_is_one_line(bed: Bed, namespace: str, connect: Connect) -> None:
    source = connect(bed.account(namespace, "leaves", ["inspector"]), namespace)
    assert Lab(source).objects("pods")
    bed.kubectl("delete", "serviceaccount", "-n", namespace, "leaves")

    def refusal(ask: Callable[[], object]) -> Refused | None:
        try:
            ask()
        except Refused as error:
            return error
        return None

    # What the API server knew of the token it may believe for some seconds.
    assert left.until(lambda: refusal(lambda: Lab(source).objects("pods")) is not None, 20)
    for ask in (
        lambda: Lab(source).objects("pods"),
        lambda: streams.run(source.api, namespace, "web", "web", ["true"]),
    ):
        error = refusal(ask)
        assert error is not None
        assert error.status == 401
        assert "an expired token?" in one_line(error)
    with pytest.raises(Refused, match="does not know this user"):
        connect(bed.folder / f"{namespace}-leaves.kubeconfig", namespace)


def test_pod_security_is_named_with_what_works_instead(bed: Bed, connect: Connect) -> None:
    with bed.namespace() as name:
        level = "pod-security.kubernetes.io/enforce=restricted"
        bed.kubectl("label", "namespace", name, level, "--overwrite")
        before = left.before(bed)
        source = connect(bed.kubeconfig, name, ("ephemeral", "node-pod"))
        lab = Lab(source)
        for ask in (lambda: lab.rules("web"), lambda: lab.rules(f"node/{node_of(bed, name)}")):
            with pytest.raises(
                Refused, match=f"Pod Security of the namespace {name} refuses it; .* work without"
            ) as error:
                ask()
            assert "restricted:latest" in one_line(error.value)
        assert b"started" in source.fetch(Query("logs", lab.place("web"))).raw
        assert left.objects(bed) == before
        assert left.guests(bed, name, "web") == []


def test_an_api_server_that_is_away_for_ten_seconds_is_waited_for(bed: Bed, namespace: str, connect: Connect) -> None:
    with relayed(bed.kubeconfig) as (relay, kubeconfig):
        source = connect(kubeconfig, namespace, ("node-pod",))
        lab = Lab(source)
        node = node_of(bed, namespace)
        before = lab.objects("pods")
        relay.cut()
        mending = threading.Timer(AWAY_S, relay.mend)
        mending.start()
        began = time.monotonic()
        assert [item["metadata"]["uid"] for item in lab.objects("pods")] == [item["metadata"]["uid"] for item in before]
        assert AWAY_S - 1 < time.monotonic() - began < AWAY_S + 4
        mending.join()
        where = source.guests.on_node(node, "a test")
        relay.cut()
        mending = threading.Timer(2, relay.mend)
        mending.start()
        assert streams.run(source.api, *where, ["echo", "back"]).stdout == b"back\n"
        mending.join()

        def capture() -> None:
            running: Any
            with source.capture([f"node/{node}:lo", lab.point("web:veth")]) as running:
                relay.cut()
                assert left.until(lambda: running.is_broken)

        with pytest.raises(LabError, match=r"the capture at .* broke off: .* the connection was lost") as error:
            capture()
        one_line(error.value)
        assert left.until(lambda: {"tcpdump", "python3"}.isdisjoint(left.programs(bed, *where)))
        assert "capture" not in bed.kubectl("exec", "-n", namespace, where[1], "-c", where[2], "--", "ls", "/tmp")
        relay.mend()
        source.close()
        assert left.until(lambda: where[1] not in left.of_a_lab(bed))


def test_a_capture_on_a_node_does_not_capture_what_carries_it_away(bed: Bed, namespace: str, connect: Connect) -> None:
    source = connect(bed.kubeconfig, namespace, ("node-pod",))
    for interface in ("eth0", "lo"):
        with source.capture([f"node/{node_of(bed, namespace)}:{interface}"]) as running:
            time.sleep(1)
        frames = pcapng.parse(running.evidence.raw)[1]
        # A stream of its own frames would be as much as the machine can carry: tens of megabytes.
        assert sum(len(frame.raw) for frame in frames) < 3_000_000, interface


def test_an_api_server_that_stays_away_is_one_line_within_a_bounded_time(
    bed: Bed, namespace: str, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    with relayed(bed.kubeconfig) as (relay, kubeconfig):
        source = connect(kubeconfig, namespace)
        monkeypatch.setattr(streams, "PATIENCE_S", 2.0)
        streams.run(source.api, namespace, "web", "web", ["true"])  # so that the right is known to be there
        relay.cut()
        began = time.monotonic()
        for ask in (
            lambda: source.api.ask("GET", "/version", patience_s=2.0),
            lambda: streams.run(source.api, namespace, "web", "web", ["true"]),
        ):
            with pytest.raises(LabError, match=r"the API server of context .* does not answer: .*refused") as error:
                ask()
            assert str(relay.port) not in one_line(error.value)
        assert time.monotonic() - began < 8
        with pytest.raises(LabError, match="does not answer"):
            connect(kubeconfig, namespace)


CONNECT = """
import sys
from bookinfo_lab.lab import Lab
from bookinfo_lab.sources.cluster import source
lab = Lab(source.connect(namespace={namespace!r}, allow=["ephemeral", "node-pod"]))
print("connected")
"""


class Notebook:
    """A kernel as a notebook has it: cells are sent, what they print is read."""

    def __init__(self, bed: Bed) -> None:
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(env=environment(bed))
        self._client = self._manager.client()
        self._client.start_channels()
        self._client.wait_for_ready(timeout=CELL_S)

    def begin(self, cell: str) -> None:
        self._sent = self._client.execute(cell)

    def wait(self, words: str = "") -> str:
        """What the cell printed and how it failed, until ``words`` come or it ends."""
        said, deadline = "", time.monotonic() + CELL_S
        while time.monotonic() < deadline:
            try:
                message = self._client.get_iopub_msg(timeout=1)
            except queue.Empty:
                continue
            if message["parent_header"].get("msg_id") != self._sent:
                continue
            content = message["content"]
            said += content.get("text", "") if message["msg_type"] == "stream" else ""
            said += f"{content['ename']}: {content['evalue']}" if message["msg_type"] == "error" else ""
            if (words and words in said) or content.get("execution_state") == "idle":
                return said
        raise AssertionError(f"the cell does not end: {said}")

    def run(self, cell: str) -> str:
        self.begin(cell)
        return self.wait()

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def shut_down(self) -> None:
        """As *Restart kernel* does."""
        self._client.stop_channels()
        self._manager.shutdown_kernel()

    def kill(self) -> None:
        self._client.stop_channels()
        self._manager.shutdown_kernel(now=True)


def test_an_interrupted_cell_leaves_nothing_half_made_and_the_next_one_works(bed: Bed, namespace: str) -> None:
    node = node_of(bed, namespace)
    before = left.before(bed)
    notebook = Notebook(bed)
    try:
        assert "connected" in notebook.run(CONNECT.format(namespace=namespace))
        # While a pod is being made: it is there, and the lab waits for it to run.
        notebook.run(
            "from bookinfo_lab.sources.cluster import guests; guests.state_of = guests.state_in = lambda *given: {}"
        )
        notebook.begin(f"lab.rules('node/{node}')")
        assert left.until(lambda: left.of_a_lab(bed) != [])
        notebook.interrupt()
        assert "KeyboardInterrupt" in notebook.wait()
        assert left.until(lambda: left.objects(bed) == before)
        # While a capture runs.
        notebook.run("import importlib; importlib.reload(guests)")
        notebook.run(CONNECT.format(namespace=namespace))
        notebook.begin(
            f"import time\nwith lab.capture('node/{node}:lo'):\n    print('runs', flush=True)\n    time.sleep(60)"
        )
        assert "runs" in notebook.wait("runs")
        pod = left.of_a_lab(bed)[0]
        assert "tcpdump" in left.programs(bed, namespace, pod, "node")
        notebook.interrupt()
        assert "KeyboardInterrupt" in notebook.wait()
        assert left.until(lambda: "tcpdump" not in left.programs(bed, namespace, pod, "node"))
        assert "lo" in notebook.run(f"print(lab.exec('node/{node}', 'ip', 'link'))")
        notebook.shut_down()
        assert left.until(lambda: left.objects(bed) == before)
    finally:
        notebook.kill()


def test_a_killed_kernel_leaves_a_pod_that_uninstall_takes_and_no_program_in_it(
    bed: Bed, namespace: str, connect: Connect
) -> None:
    from bookinfo_lab.sources.cluster import traces

    before = left.before(bed)
    node = node_of(bed, namespace)
    notebook = Notebook(bed)
    try:
        notebook.run(CONNECT.format(namespace=namespace))
        notebook.begin(
            f"import time\nwith lab.capture('node/{node}:lo'):\n    print('runs', flush=True)\n    time.sleep(60)"
        )
        assert "runs" in notebook.wait("runs")
        pod = left.of_a_lab(bed)[0]
    finally:
        notebook.kill()
    assert left.until(lambda: "tcpdump" not in left.programs(bed, namespace, pod, "node"))
    removed = traces.remove(connect(bed.kubeconfig, namespace).api).removed
    assert pod in {item.name for item in removed}
    assert left.until(lambda: left.objects(bed) == before)


def test_a_node_that_is_not_there_and_a_pod_that_went_are_one_line(bed: Bed, namespace: str, connect: Connect) -> None:
    source = connect(bed.kubeconfig, namespace, ("node-pod", "ephemeral"))
    with pytest.raises(LabError, match="no such nodes") as error:
        source.guests.on_node("nowhere", "a test")
    one_line(error.value)
    gone = places.Place("pod", namespace, "gone", "web")
    for query in (Query("logs", gone), Query("rules", gone, ("iptables-nft-save",)), Query("addresses", gone)):
        with pytest.raises(LabError, match="gone") as error:
            source.fetch(query)
        assert signal.SIGTERM.name not in one_line(error.value)
