"""The notebooks' exercises: right answers pass, wrong ones name a step, and a broken mesh is noticed."""

import re
from collections.abc import Iterator
from typing import Any

import plans
import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.lab import Lab
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource
from bookinfo_lab.teach import checks
from bookinfo_lab.teach.checks import OPEN, RIGHT, STOPPED, WRONG
from bookinfo_lab.teach.exercises import nb00, nb01

PLANS = {
    "sidecar": lambda: scenarios.scenario("sidecar"),
    "article": lambda: scenarios.scenario("article"),
    "random": lambda: plans.topology(5),
}
EXERCISES = (*nb00.CHECKS, *nb01.CHECKS)


@pytest.fixture(autouse=True)
def own_progress(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path))


@pytest.fixture(params=["sidecar", "article"])
def recorded(request: pytest.FixtureRequest) -> Lab:
    return Lab(RecordingSource(recording.bundled(request.param)))


@pytest.fixture
def live(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Lab]:
    """A mesh that the test may break."""
    mesh = sandbox.up(PLANS[request.param](), "broken", keep=False)
    try:
        yield Lab(SandboxSource(mesh))
    finally:
        mesh.down()


def answers(lab: Lab) -> dict[str, Any]:
    """What a learner would find, by other ways than the checks take."""
    pods, services = lab.pods(), lab.services()
    client = lab.addresses("client")["addresses"].iloc[-1].partition("/")[0]
    door = lab.front_door
    chain = lab.rules(nb01.door_node(lab)).grep("--probability").lines[0].split()[1]
    printed = [
        float(word) for word in re.findall(r"--probability (\S+)", lab.rules(nb01.door_node(lab)).grep(chain).text)
    ]
    return {
        "00-1": str(sum(pods["READY"] == "2/2")),
        "00-2": f" {client} ",
        "01-1": int(services["PORT(S)"].str.count(":").sum()),
        "01-2": f"{door.namespace}/{lab.place('ingress').name}",
        "01-3": "KUBE-POSTROUTING",
        "01-4": (printed[1], round((1 - printed[0]) * printed[1], 2)),
    }


WRONG_ANSWERS: dict[str, list[Any]] = {
    "00-1": [-1, 999, "many", 2.5, True, [6]],
    "00-2": ["127.0.0.1", "10.0.0.300", 7, "localhost"],
    "01-1": [0, 99, "NodePort", "3,5"],
    "01-2": ["no-such-pod", 80, "", b"x"],
    "01-3": ["KUBE-MARK-MASQ", "KUBE-NODEPORTS", "POSTROUTING-", 1, "KUBE-SERVICES"],
    "01-4": [(0.5, 0.5), (1 / 3, 0.5), 0.5, (0.5,), ("a", "b"), None.__class__],
}


def test_every_exercise_has_answers_here() -> None:
    assert set(WRONG_ANSWERS) == set(EXERCISES)


def test_right_answers_are_right_on_recordings(recorded: Lab) -> None:
    assert {
        name: checks.check(recorded, name, answer).outcome for name, answer in answers(recorded).items()
    } == dict.fromkeys(EXERCISES, RIGHT)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_wrong_answers_name_the_first_step_that_does_not_hold_and_never_the_answer(
    recorded: Lab, exercise: str
) -> None:
    right = answers(recorded)[exercise]
    told = str(right).strip().rpartition("/")[2]
    for answer in WRONG_ANSWERS[exercise]:
        verdict = checks.check(recorded, exercise, answer)
        assert verdict.outcome == WRONG, answer
        assert not verdict
        assert "\n" not in verdict.message
        if not isinstance(right, tuple):
            assert not re.search(rf"(?<![\w.]){re.escape(told)}(?![\w.])", verdict.message), verdict.message


@pytest.mark.parametrize("exercise", EXERCISES)
@pytest.mark.parametrize("blank", [..., None])
def test_blanks_are_not_answered_yet(recorded: Lab, exercise: str, blank: Any) -> None:
    assert checks.check(recorded, exercise, blank).outcome == OPEN


@pytest.mark.sandbox
@pytest.mark.parametrize("live", PLANS, indirect=True)
def test_with_an_endpoint_removed_the_answers_of_before_are_wrong_and_it_is_said_where(live: Lab) -> None:
    before = answers(live)
    assert checks.check(live, "01-4", before["01-4"])
    mesh = live.source.mesh
    slices = [item for item in mesh.objects() if item["kind"] == "EndpointSlice"]
    busiest = max(slices, key=lambda item: len(item["endpoints"]))
    mesh.delete("Pod", busiest["endpoints"][0]["targetRef"]["namespace"], busiest["endpoints"][0]["targetRef"]["name"])
    verdict = checks.check(live, "01-4", before["01-4"])
    assert verdict.outcome == WRONG
    assert "iptables-nft-save" in verdict.message
    door = live.front_door
    mesh.delete("Pod", door.namespace, live.place("ingress").name)
    verdict = checks.check(live, "01-2", before["01-2"])
    assert verdict.outcome == WRONG
    assert "endpointslices" in verdict.message or "there is a pod of that name" in verdict.message


@pytest.mark.sandbox
@pytest.mark.parametrize("live", PLANS, indirect=True)
def test_with_a_rule_removed_the_check_says_at_which_chain_the_way_ends(live: Lab) -> None:
    right = answers(live)
    mesh, node = live.source.mesh, nb01.door_node(live)
    rules = live.rules(node)
    port = f"--dport {live.front_door.node_port} "
    entry = [line for line in rules.chain("nat", "KUBE-NODEPORTS").lines if port in line]
    step = rules.chain("nat", rules.grep(port).targets[-1])
    while "DNAT" not in step.targets:
        step = rules.chain("nat", step.targets[-1])
    endpoint_chain = step.lines[0].split()[1]
    mesh.run(node, ["iptables-nft", "-t", "nat", "-F", endpoint_chain])
    verdict = checks.check(live, "01-2", right["01-2"])
    assert verdict.outcome == WRONG
    assert endpoint_chain in verdict.message
    mesh.run(node, ["iptables-nft", "-t", "nat", "-F", "KUBE-NODEPORTS"])
    assert entry
    verdict = checks.check(live, "01-2", right["01-2"])
    assert "KUBE-NODEPORTS of table nat has a rule for the node port" in verdict.message
    mesh.run(node, ["iptables-nft", "-t", "nat", "-F", "POSTROUTING"])
    assert checks.check(live, "01-3", right["01-3"]).outcome == WRONG


@pytest.mark.sandbox
@pytest.mark.parametrize("live", ["article"], indirect=True)
def test_a_dead_sandbox_stops_a_check_and_is_no_wrong_answer(live: Lab) -> None:
    live.source.mesh.down()
    verdict = checks.check(live, "01-1", 2)
    assert verdict.outcome == STOPPED
    assert "\n" not in verdict.message
