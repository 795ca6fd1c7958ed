"""A recording of a real cluster: it replays every promise, and holds nothing of what was hidden in the cluster."""

import base64
import copy
import json
import re
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from bed import PREFIX, Bed
from promised import PROTOCOL

from bookinfo_lab import connect
from bookinfo_lab.errors import LabError, RecordingError
from bookinfo_lab.kube.places import CLIENT, OWNED
from bookinfo_lab.lab import Lab
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster import source as cluster
from bookinfo_lab.sources.cluster.source import KubernetesSource

SECRET = "Zq7-Tr0ub4dor"  # every value that is hidden below begins with it
CONTEXT, USER = "prod-eu-initech", "jane-the-admin"
OTHER = f"{PREFIX}severance"  # a namespace whose very name tells something
PATHS = {
    "a value of an environment": f"{SECRET}-env",
    "a password in an argument": f"{SECRET}-argument",
    "a token in a log": f"{SECRET}-logged",
    "an annotation": f"{SECRET}-annotation",
    "a cookie": f"{SECRET}-cookie",
}


@dataclass(frozen=True, slots=True)
class Made:
    """A recording with everything: its path, what was told before it was written, and what its cluster had."""

    path: Path
    told: tuple[str, ...]
    contents: recording.Contents
    objects: tuple[dict[str, Any], ...]


def teller(namespace: str, image: str) -> dict[str, Any]:
    """A pod that keeps a secret in every way that a careless pod does."""
    script = f'echo "token={PATHS["a token in a log"]}"; exec sleep 3600'
    container = {
        "name": "teller",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", script, "teller", f"--password={PATHS['a password in an argument']}"],
        "env": [
            {"name": "GREETING", "value": PATHS["a value of an environment"]},
            {"name": "DB_PASSWORD", "value": PATHS["a value of an environment"]},
            {"name": "MY_NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        ],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "teller",
            "namespace": namespace,
            "labels": {"app": "teller", "sidecar.istio.io/inject": "false"},
            "annotations": {"example.org/api-token": PATHS["an annotation"]},
        },
        "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]},
    }


def others() -> list[dict[str, Any]]:
    """A namespace with Services on a node port, with endpoints and without."""
    ports = [{"name": "http", "port": 8123, "targetPort": 8123}]
    meta = {"namespace": OTHER}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": OTHER}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "plan-of-layoffs", **meta},
            "spec": {"type": "NodePort", "ports": ports, "externalIPs": ["198.51.100.7"]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "plan-of-mergers", **meta},
            "spec": {"type": "NodePort", "ports": ports, "selector": {"app": "nobody"}},
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "plan-of-layoffs-1",
                **meta,
                "labels": {"kubernetes.io/service-name": "plan-of-layoffs"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8123, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["10.244.0.253"], "conditions": {"ready": True}}],
        },
    ]


@pytest.fixture(scope="module")
def seeded(bed: Bed, bookinfo: str) -> Iterator[str]:
    """The namespace of the Bookinfo with a pod that tells, and another namespace whose names must not be told."""
    bed.apply(teller(bookinfo, bed.image), *others())
    try:
        bed.kubectl("wait", "-n", bookinfo, "--for=condition=Ready", "pod/teller", "--timeout=60s")
        deadline = time.monotonic() + 30
        rules = ""
        while "plan-of-layoffs" not in rules and time.monotonic() < deadline:
            istiod = ("-n", bookinfo, "deploy/productpage-v1", "-c", "istio-proxy")
            rules = bed.kubectl("exec", *istiod, "--", "pilot-agent", "request", "GET", "clusters")
            time.sleep(0.2)
        yield bookinfo
    finally:
        bed.kubectl("delete", "pod", "-n", bookinfo, "teller", "--wait=false")
        bed.kubectl("delete", "namespace", OTHER, "--wait=false")


@pytest.fixture(scope="module")
def named(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bed's kubeconfig with a context, a cluster and a user whose names tell something."""
    config = copy.deepcopy(json.loads(bed.kubeconfig.read_text()))
    config["users"][0]["name"] = USER
    config["contexts"][0] = {
        "name": CONTEXT,
        "context": {**config["contexts"][0]["context"], "user": USER},
    }
    config["current-context"] = CONTEXT
    path = tmp_path_factory.mktemp("named") / "kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def made(bed: Bed, seeded: str, named: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Recorded with all leave, while somebody with a session's cookie uses the page."""
    told: list[str] = []
    path = tmp_path_factory.mktemp("recorded") / "cluster.zip"
    done = threading.Event()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_IMAGE", bed.image)
        patch.setenv("KUBECONFIG", str(named))
        source = cluster.connect(CONTEXT, seeded, ["ephemeral", "node-pod", "trace"])

        def visit() -> None:
            cookie = f"Cookie: session={PATHS['a cookie']}"
            while not done.wait(0.3):
                with suppress(LabError):
                    source.fetch(Query("get", CLIENT, ("/productpage", cookie)))

        visitor = threading.Thread(target=visit)

        def listed(lines: Any) -> None:
            assert not path.exists()
            told.extend(lines)
            visitor.start()

        try:
            contents = recording.record(source, str(path), listed)
            objects = tuple(item for word in ("pods", "services") for item in bed.objects(word, "-n", seeded)["items"])
        finally:
            done.set()
            visitor.join()
            source.close()
    return Made(path, tuple(told), contents, objects)


def files(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def holders(made: Made, words: list[str]) -> list[tuple[str, str]]:
    """(word, file) of each file that holds one of the words, as it is or in base64."""
    held = files(made.path)
    forms = {word: [word.encode(), base64.b64encode(word.encode())[4:-6]] for word in words}
    return [
        (word, name)
        for name, raw in held.items()
        for word, found in forms.items()
        if any(form and form in raw for form in found[: 2 if len(word) > 12 else 1])
    ]


def test_nothing_that_was_hidden_in_the_cluster_is_in_it(made: Made, bed: Bed, seeded: str) -> None:
    # Each is really there: else its absence from the recording would show nothing.
    pod = json.dumps(bed.objects("pod", "-n", seeded, "teller"))
    for what in ("a value of an environment", "a password in an argument", "an annotation"):
        assert PATHS[what] in pod
    assert pod.count("last-applied") >= 1
    assert PATHS["a token in a log"] in bed.kubectl("logs", "-n", seeded, "teller")
    assert holders(made, [SECRET, *PATHS.values()]) == []
    overwritten = recording.RecordingSource(str(made.path)).manifest.redactions
    assert any(item.piece.startswith("capture/") and "cookie" in item.what for item in overwritten)
    kept = files(made.path)["objects/pods.json"]
    assert b'"name":"GREETING"' in kept
    assert b'"fieldPath":"spec.nodeName"' in kept
    assert b"last-applied" not in kept
    assert b"managedFields" not in kept
    assert b'"name":"DB_PASSWORD"' in kept


def test_no_other_namespaces_service_is_named(made: Made, bed: Bed) -> None:
    ips = [item["spec"]["clusterIP"] for item in bed.objects("services", "-n", OTHER)["items"]]
    ports = [item["spec"]["ports"][0]["nodePort"] for item in bed.objects("services", "-n", OTHER)["items"]]
    proxy = ("-n", made.objects[0]["metadata"]["namespace"], "deploy/productpage-v1", "-c", "istio-proxy")
    assert OTHER in bed.kubectl("exec", *proxy, "--", "pilot-agent", "request", "GET", "config_dump")
    words = [OTHER, "plan-of-layoffs", "plan-of-mergers", "198.51.100.7", "10.244.0.253"]
    assert holders(made, words) == []
    whole = [re.compile(rb"(?<![\d.])" + re.escape(ip.encode()) + rb"(?![\d.])") for ip in ips]
    whole += [re.compile(rb"--dport %d " % port) for port in ports]
    assert [name for name, raw in files(made.path).items() for form in whole if form.search(raw)] == []
    assert any(
        piece.what == "rules of other Services" for piece in recording.RecordingSource(str(made.path)).manifest.dropped
    )


def test_it_names_no_api_server_certificate_token_context_or_user(made: Made, bed: Bed, seeded: str) -> None:
    config = json.loads(bed.kubeconfig.read_text())
    (kube,), (user,) = config["clusters"], config["users"]
    server = kube["cluster"]["server"].partition("://")[2].rstrip("/")
    slices = bed.objects("endpointslices", "-n", "default", "-l", "kubernetes.io/service-name=kubernetes")["items"]
    sockets = [
        f"{address}:{port['port']}"
        for item in slices
        for endpoint in item["endpoints"]
        for address in endpoint["addresses"]
        for port in item["ports"]
    ]
    root = bed.objects("configmap", "-n", seeded, "istio-ca-root-cert")["data"]["root-cert.pem"]
    authority = base64.b64decode(kube["cluster"]["certificate-authority-data"]).decode()
    own = base64.b64decode(user["user"]["client-certificate-data"]).decode()
    token = bed.kubectl(
        "exec", "-n", seeded, "teller", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token"
    )
    lines = [line for pem in (root, authority, own) for line in pem.splitlines()[1:3]]
    assert len(lines) == 6
    assert sockets
    words = [CONTEXT, USER, server, *sockets, *lines, token[:40], "BEGIN CERTIFICATE", "LS0tLS1CRUdJTiBDRVJU"]
    assert holders(made, words) == []
    dump = next(raw for name, raw in files(made.path).items() if "productpage" in name and "config_dump" in name)
    assert b"inline_bytes" not in dump
    assert b'"PROXY_CONFIG": "left out of the recording"' in dump


@pytest.mark.parametrize("promise", PROTOCOL.PROMISES, ids=lambda promise: promise.__name__)
def test_it_replays_every_promise(made: Made, promise: Callable[[Lab], None]) -> None:
    lab = connect("recording", path=str(made.path))
    promise(lab)
    lab.close()


def test_its_lines_are_kubectls_and_its_proofs_agree(made: Made, seeded: str) -> None:
    lab = connect("recording", path=str(made.path))
    for query in PROTOCOL.samples(lab):
        evidence = lab.source.fetch(query)
        first = evidence.command.split("\n")[0].split()[0]
        assert first in ("kubectl", "curl"), evidence.command
        assert evidence.origin.startswith("cluster, kubernetes v")
    packets = lab.packets()
    assert len(packets) == 8
    proofs = {name: lab.prove(lab.rules(str(item.place)).walk(item.packet)) for name, item in packets.items()}
    assert {name: str(item.verdict) for name, item in proofs.items()} == dict.fromkeys(packets, "agree")
    lab.close()


def test_a_walk_to_what_was_left_out_ends_unknown_and_one_to_what_was_not_is_told(made: Made, bed: Bed) -> None:
    lab = connect("recording", path=str(made.path))
    item = lab.packets()["pod to Service"]
    rules = lab.rules(str(item.place))
    (service,) = [
        item for item in bed.objects("services", "-n", OTHER)["items"] if "layoffs" in item["metadata"]["name"]
    ]
    stranger = Packet(item.packet.src, 20001, service["spec"]["clusterIP"], 8123, iif=item.packet.iif)
    assert {outcome.verdict for outcome in rules.walk(stranger).trace.outcomes} == {"unknown"}
    assert {outcome.verdict for outcome in rules.walk(item.packet).trace.outcomes} == {"accept"}
    lab.close()


def test_it_told_before_what_it_would_hold(made: Made, seeded: str) -> None:
    text = "\n".join(made.told)
    assert f"namespaces: {seeded}" in text
    assert "left out: environment values" in text
    assert "envoy: config_dump" in text
    assert "not held: processes node/" in text
    assert set(made.contents.lines) >= {line for line in made.told if not line.startswith(("not held", "prove"))}
    assert made.contents.dropped > 100


def test_without_leave_or_rights_the_rest_is_recorded_and_what_is_missing_is_listed(
    bed: Bed, seeded: str, connect: Callable[..., KubernetesSource], tmp_path: Path
) -> None:
    source = connect(bed.account(seeded, "recorder", ["reader"]), seeded)
    before = bed.objects("pods", "-n", seeded)["items"]
    path = tmp_path / "little"
    contents = recording.record(source, str(path), lambda _: None)
    assert [item["spec"] for item in bed.objects("pods", "-n", seeded)["items"]] == [item["spec"] for item in before]
    reasons = {item.reason for item in contents.not_held}
    assert any("may not list nodes" in reason for reason in reasons), reasons
    assert any("may not create pods/exec" in reason or "may not get pods/exec" in reason for reason in reasons), reasons
    text = str(contents)
    assert "not held: objects nodes: this user may not list nodes" in text
    held = recording.RecordingSource(str(path))
    place = next(query.place for query in contents.queries if query.kind == "logs")
    assert held.fetch(Query("logs", place)).raw is not None
    with pytest.raises(RecordingError, match="pods/exec"):
        held.fetch(Query("processes", place))
    assert str(bed.kubeconfig) not in text


def test_interrupted_it_leaves_nothing(
    bed: Bed, seeded: str, connect: Callable[..., KubernetesSource], tmp_path: Path
) -> None:
    source = connect(bed.kubeconfig, seeded)

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recording.record(source, str(tmp_path / "none"), interrupted)
    assert list(tmp_path.iterdir()) == []
    assert bed.kubectl("get", "pods", "-n", seeded, "-l", OWNED, "-o", "name") == ""


def test_where_no_namespace_was_chosen_it_is_the_bookinfos_own_or_one_is_asked_for(
    bed: Bed, seeded: str, connect: Callable[..., KubernetesSource]
) -> None:
    pages = [item for item in bed.objects("services", "-A")["items"] if item["metadata"]["name"] == "productpage"]
    if len(pages) == 1:
        assert recording.plan(connect(bed.kubeconfig, "")).notes[0] == f"namespaces: {seeded} (of the Bookinfo found)"
    with bed.namespace():  # which has a Service productpage as well
        with pytest.raises(LabError, match=r"several Bookinfos are here, in .*name them") as refusal:
            recording.plan(connect(bed.kubeconfig, ""))
        assert "\n" not in str(refusal.value)
