"""`connect`: which source it takes, what it says, and what it refuses."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab import connecting, sandbox
from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import scenarios, state
from bookinfo_lab.sources import recording


@pytest.fixture
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sandboxes of this test alone; what it leaves is taken down."""
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path / "state"))
    monkeypatch.delenv(connecting.VARIABLE, raising=False)
    yield
    for name in list(state.names()):
        sandbox.down(name)


@pytest.fixture
def no_sandbox(own_state: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that cannot run one: its Envoy is missing."""
    monkeypatch.setenv("BOOKINFO_LAB_ENVOY", "/nowhere/envoy")


def test_without_a_sandbox_the_bundled_recording_is_taken_and_the_reason_said(
    no_sandbox: None, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = connecting.connect()
    assert lab.source.kind == "recording"
    assert "/nowhere/envoy" in lab.why
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert lab.source.description in said
    assert "/nowhere/envoy" in said


def test_what_was_asked_for_is_never_replaced_by_something_else(no_sandbox: None) -> None:
    with pytest.raises(LabError, match="/nowhere/envoy"):
        connecting.connect("sandbox")


def test_the_environment_names_the_source_for_a_whole_run(no_sandbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
    path = recording.bundled("article")
    for named in (f"recording:{path}", "recording"):
        monkeypatch.setenv(connecting.VARIABLE, named)
        lab = connecting.connect()
        assert lab.source.kind == "recording"
        assert named in lab.why


def test_arguments_win_over_the_environment(no_sandbox: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(connecting.VARIABLE, "sandbox")
    assert connecting.connect("recording", scenario="article").source.kind == "recording"


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("moon", ["moon", "choose one of: sandbox, recording"]),
        ("recording:/nowhere/at/all", ["/nowhere/at/all"]),
        ("kubernetes:kind-kind", ["no context 'kind-kind'", "kubeconfig"]),
        ("sandbox:mars", ["unknown scenario 'mars'", "article"]),
    ],
)
def test_a_wrong_word_in_the_environment_is_one_line_that_names_the_variable(
    own_state: None, monkeypatch: pytest.MonkeyPatch, named: str, words: list[str]
) -> None:
    monkeypatch.setenv(connecting.VARIABLE, named)
    with pytest.raises(LabError) as refusal:
        connecting.connect()
    message = str(refusal.value)
    assert "\n" not in message
    assert [word for word in [connecting.VARIABLE, *words] if word not in message] == []


@pytest.mark.parametrize(
    "asked",
    [
        {"scenario": "mars"},
        {"source": "sandbox", "scenario": "mars"},
        {"source": "sandbox", "path": "x"},
        {"path": "x"},
    ],
)
def test_a_mistake_in_the_arguments_is_no_reason_to_take_a_recording(own_state: None, asked: dict[str, str]) -> None:
    with pytest.raises(LabError):
        connecting.connect(**asked)


@pytest.mark.sandbox
class TestWithASandbox:
    def test_one_is_started_attached_to_and_ended_by_who_started_it(self, own_state: None) -> None:
        first = connecting.connect()
        second = connecting.connect()
        assert (first.source.kind, first.why) == ("sandbox", "this machine can run it")
        assert second.why == "it runs already"
        second.close()
        assert first.get("/productpage").status == 200
        first.close()
        with pytest.raises(LabError, match="bookinfo-lab") as refusal:
            second.pods()
        assert "\n" not in str(refusal.value)

    def test_a_scenario_that_default_does_not_run_gets_a_sandbox_of_its_own(self, own_state: None) -> None:
        sidecar, article = connecting.connect(), connecting.connect("sandbox", scenario="article")
        assert sidecar.source.mesh.name == "default"
        assert article.source.mesh.scenario == article.source.mesh.name == "article"
        assert connecting.connect("sandbox", scenario="article").source.mesh.init_pid == article.source.mesh.init_pid

    def test_the_environment_may_name_a_running_sandbox(self, own_state: None, monkeypatch: pytest.MonkeyPatch) -> None:
        mesh = sandbox.up(scenarios.scenario("article"), "mine", keep=False)
        monkeypatch.setenv(connecting.VARIABLE, "sandbox:mine")
        assert connecting.connect().source.mesh == mesh
        with pytest.raises(LabError, match="runs the scenario article"):
            connecting.connect("sandbox", name="mine", scenario="sidecar")

    def test_a_sandbox_that_connect_started_ends_with_the_process_however_that_ends(self, own_state: None) -> None:
        script = "import bookinfo_lab, os; bookinfo_lab.connect(); os.kill(os.getpid(), 9)"
        ended = subprocess.run([sys.executable, "-c", script], env=dict(os.environ), capture_output=True, timeout=60)
        assert ended.returncode == -9
        state.wait_until_free("default", 10)
        assert state.read("default") is None


@pytest.fixture
def asked_of(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, list[str]]]:
    """What each `connect` would ask of a cluster: its context, its namespace and the leave that is given."""
    from bookinfo_lab.sources.cluster import source

    found: list[tuple[str, str, list[str]]] = []

    def connect(context: str, namespace: str, allow: list[str]) -> None:
        found.append((context, namespace, [*allow]))
        raise LabError("nobody is asked here")

    monkeypatch.setattr(source, "connect", connect)
    return found


@pytest.mark.parametrize(
    ("source", "given", "expected"),
    [
        ("", {}, ("prod", "shop", [])),
        ("kubernetes", {}, ("prod", "shop", [])),
        ("kubernetes", {"allow": ["node-pod"]}, ("prod", "shop", ["node-pod"])),
        ("", {"allow": ["node-pod"], "namespace": "other"}, ("prod", "other", ["node-pod"])),
        ("", {"context": "kind"}, ("kind", "shop", [])),
        ("kubernetes", {"context": "kind", "namespace": "other"}, ("kind", "other", [])),
    ],
)
def test_of_a_cluster_the_environment_says_what_arguments_do_not(
    asked_of: list[Any], monkeypatch: pytest.MonkeyPatch, source: str, given: Any, expected: Any
) -> None:
    monkeypatch.setenv(connecting.VARIABLE, "kubernetes:prod")
    monkeypatch.setenv(connecting.NAMESPACE, "shop")
    with pytest.raises(LabError, match="nobody is asked here"):
        connecting.connect(source, **given)
    assert asked_of == [expected]


def test_what_would_mean_nothing_to_the_source_is_refused_and_never_dropped(
    asked_of: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(connecting.VARIABLE, raising=False)
    for source in ("", "sandbox", "recording"):
        with pytest.raises(LabError, match=r"only a cluster has these: allow=\['node-pod'\]"):
            connecting.connect(source, allow=["node-pod"])
    with pytest.raises(LabError, match="a cluster has none of these: scenario='article'"):
        connecting.connect("kubernetes", scenario="article")
    assert asked_of == []
