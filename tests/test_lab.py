"""Lab: each answer a learner can ask for, on both scenarios live and on both bundled recordings."""

import shlex
from collections.abc import Iterator

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError
from bookinfo_lab.lab import Lab
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource

SOURCES = [
    pytest.param(("sandbox", "sidecar"), marks=pytest.mark.sandbox, id="sandbox-sidecar"),
    pytest.param(("sandbox", "article"), marks=pytest.mark.sandbox, id="sandbox-article"),
    pytest.param(("recording", "sidecar"), id="recording-sidecar"),
    pytest.param(("recording", "article"), id="recording-article"),
]


@pytest.fixture(scope="module", params=SOURCES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    kind, scenario = request.param
    if kind == "recording":
        yield Lab(RecordingSource(recording.bundled(scenario)), "asked for")
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        mesh = sandbox.up(scenarios.scenario(scenario), f"lab-{scenario}", keep=False)
        try:
            yield Lab(SandboxSource(mesh, is_own=True), "asked for")
        finally:
            mesh.down()


def test_tables_have_kubectls_columns_and_a_row_for_each_object(lab: Lab) -> None:
    pods, services = lab.pods(), lab.services()
    assert list(pods.columns)[:6] == ["NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert list(services.columns)[2:6] == ["TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)"]
    for table, resource in ((pods, "pods"), (services, "services"), (lab.endpoints(), "endpointslices")):
        assert len(table) == len(lab.objects(resource)) > 0
        assert resource in table.command
    assert set(pods["STATUS"]) == {"Running"}


def test_every_pods_address_has_that_pod_as_its_owner(lab: Lab) -> None:
    for pod in lab.objects("pods"):
        first = lab.who_is(pod["status"]["podIP"])[0]
        assert (first.kind, first.name) == ("Pod", pod["metadata"]["name"])


def test_the_front_door_answers_with_the_page(lab: Lab) -> None:
    page = lab.get("/productpage", user="jason")
    assert page.status == 200
    assert b"</html>" in page.body
    assert lab.front_door.url in page.command
    assert "Cookie: user=jason" in page.command


def test_the_nodes_rules_hold_the_front_doors_port(lab: Lab) -> None:
    rules = lab.rules("node")
    port = str(lab.front_door.node_port)
    found = rules.grep(port)
    assert len(found) >= 1
    assert all(port in line for line in found.lines)
    table = rules.table()
    assert {"nat", "filter"} <= set(table["table"])
    assert "KUBE-NODEPORTS" in set(table["chain"])
    assert "iptables" in rules.command


def test_processes_and_sockets_are_the_containers_own(lab: Lab) -> None:
    processes = lab.processes("ingress")
    assert any("pilot-agent" in line for line in processes.lines)
    assert not any("productpage" in line for line in processes.lines)
    assert any(":15000" in line for line in lab.sockets("ingress").lines)


def test_the_node_tracks_connections(lab: Lab) -> None:
    lab.get("/productpage")
    assert lab.conntrack().grep(f"dport={lab.front_door.node_port}").lines


def test_envoys_admin_is_read_from_the_allow_list_alone(lab: Lab) -> None:
    assert '"configs"' in lab.envoy("ingress").text
    for path in ("quitquitquit", "/quitquitquit", "config_dump/../quitquitquit", "logging?level=debug", ""):
        with pytest.raises(LabError, match="not on the list"):
            lab.envoy("ingress", path)


def test_a_capture_holds_the_frames_of_what_happened_in_it(lab: Lab) -> None:
    with lab.capture("ingress", "client") as capture:
        lab.get("/productpage")
    assert capture.frame_count > 10
    assert b"GET /productpage" in capture.raw
    assert [point.rpartition(":")[2] for point in capture.points] == ["eth0", "eth0"]


def test_commands_are_shell_words(lab: Lab) -> None:
    answers = [lab.pods(), lab.rules("node"), lab.processes("ingress"), lab.conntrack(), lab.envoy("ingress")]
    for answer in [*answers, lab.get("/productpage")]:
        assert shlex.split(answer.command)[0] == "bookinfo-lab"


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda lab: lab.rules("moon"), ["no target 'moon'", "node/"]),
        (lambda lab: lab.processes("reviews"), ["ambiguous", "reviews-v1"]),
        (lambda lab: lab.processes("ingress", "moon"), ["no container 'moon'"]),
        (lambda lab: lab.envoy("kube-dns"), ["no proxy"]),
        (lambda lab: lab.rules("node", "rm"), ["'rm'", "iptables-nft-save"]),
        (lambda lab: lab.get("productpage"), ["'productpage'", "starts with '/'"]),
        (lambda lab: lab.get("/a b\r\nX: y"), ["not a URL path"]),
        (lambda lab: lab.get("/productpage", user="x\r\nHost: moon"), ["header field"]),
        (lambda lab: lab.who_is("localhost"), ["'localhost'", "IP address"]),
        (lambda lab: lab.point("ingress:eth7"), ["eth7", "veth"]),
    ],
)
def test_a_wrong_question_is_one_line_that_says_what_there_is(lab: Lab, ask: object, words: list[str]) -> None:
    with pytest.raises(LabError) as refusal:
        ask(lab)  # type: ignore[operator]
    message = str(refusal.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []
