"""The notebooks' exercises: right answers pass, wrong ones name a step, and a broken mesh is noticed."""

import re
from collections.abc import Iterator
from typing import Any

import plans
import pytest

from bookinfo_lab import Packet, sandbox
from bookinfo_lab.lab import Lab
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource
from bookinfo_lab.teach import checks
from bookinfo_lab.teach.checks import OPEN, RIGHT, STOPPED, WRONG
from bookinfo_lab.teach.exercises import nb00, nb01, nb02, nb03

PLANS = {
    "sidecar": lambda: scenarios.scenario("sidecar"),
    "article": lambda: scenarios.scenario("article"),
    "random": lambda: plans.topology(5),
}
EXERCISES = (*nb00.CHECKS, *nb01.CHECKS, *nb02.CHECKS, *nb03.CHECKS)
STRANGER = 4711  # neither the proxy's user nor one that any packet of the lab has
HEALTH = 15021


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
        **answers_at_the_node(lab),
        **answers_in_the_pod(lab),
    }


def answers_at_the_node(lab: Lab) -> dict[str, Any]:
    """Read from the rules' text and the objects; nothing is walked."""
    node, inner = nb01.door_node(lab), lab.packets()["pod to Service"]
    port = f"--dport {lab.front_door.node_port} "
    step = lab.rules(node).grep(port)
    while "DNAT" not in step.targets:
        step = lab.rules(node).chain("nat", step.targets[-1])
    (number,) = [number for number, line in enumerate(step.lines, 1) if "-j DNAT" in line]
    chain = step.lines[0].split()[1]
    asking = inner.place.name
    nodes = {item["metadata"]["name"]: item["status"]["addresses"] for item in lab.objects("nodes")}
    slices = [len(item["endpoints"]) for item in lab.objects("endpointslices")]
    return {
        "02-1": f" nat {chain} {number} ",
        "02-2": next(item["address"] for item in nodes[asking] if item["type"] == "InternalIP"),
        "02-3": f"{100 / max(slices):.1f} %",
        "02-4": chain,
    }


def answers_in_the_pod(lab: Lab) -> dict[str, Any]:
    """Known from what Istio promises: nothing is walked."""
    out, proxy = lab.packets()["application out"], lab.packets()["proxy out"].packet
    app = out.packet
    pod = Packet(app.src, None, app.dst, app.dport, local=True, uid=STRANGER, gid=proxy.gid, mark=proxy.mark)
    pods = lab.pods()
    is_meshed = pods.loc[pods["NAME"] == out.place.name, "READY"].iloc[0] == "2/2"
    past = ["application as the proxy's user", "proxy out"]
    return {
        "03-1": f" {app.src}:{HEALTH}",
        "03-2": pod,
        "03-3": past if is_meshed else f"proxy with a wrong uid, application out,{past[0]}, {past[1]}",
    }


WRONG_ANSWERS: dict[str, list[Any]] = {
    "00-1": [-1, 999, "many", 2.5, True, [6]],
    "00-2": ["127.0.0.1", "10.0.0.300", 7, "localhost"],
    "01-1": [0, 99, "NodePort", "3,5"],
    "01-2": ["no-such-pod", 80, "", b"x"],
    "01-3": ["KUBE-MARK-MASQ", "KUBE-NODEPORTS", "POSTROUTING-", 1, "KUBE-SERVICES"],
    "01-4": [(0.5, 0.5), (1 / 3, 0.5), 0.5, (0.5,), ("a", "b"), None.__class__],
    "02-1": ["nat PREROUTING 1", "nat PREROUTING 99", "nat KUBE-SERVICES 1", "nat", "raw X 1", "nat KUBE-X 1", 7],
    "02-2": ["127.0.0.1", "10.0.0.300", 7, "the node's"],
    "02-3": [0.5, 1 / 9, "1/2", 1, 3, -1, "often", True],
    "02-4": ["KUBE-MARK-MASQ", "KUBE-SEP-AAAAAAAAAAAAAAAA", 1, "", "PREROUTING"],
    "03-1": ["127.0.0.1:15021", "15021", 15021, "192.0.2.7:15021", "a:b", [1]],
    "03-2": [1337, "packet", Packet("192.0.2.1", None, "192.0.2.2", 80)],
    "03-3": [[], "", ["nobody"], ["pod to Service"], ["into the pod"], ["proxy to application"], 3, [3]],
}


def wrong_here(lab: Lab, exercise: str) -> list[Any]:
    """Wrong answers that are near the right ones of this lab."""
    app, proxy = (lab.packets()[name].packet for name in ("application out", "proxy out"))
    given: dict[str, Any] = {"local": True, "uid": STRANGER, "gid": proxy.gid, "mark": proxy.mark}
    chain, number = answers(lab)["02-1"].split()[1:]
    return {
        "02-1": [f"nat {chain} {int(number) - 1}", f"nat {chain} {int(number) + 1}", "nat KUBE-MARK-MASQ 1"],
        "02-2": [str(app.src), str(app.dst)],
        "03-1": [f"{app.src}:{app.dport}", f"{app.src}:15006", f"{app.dst}:{HEALTH}"],
        "03-2": [
            Packet(app.src, None, app.dst, app.dport, iif="eth0"),
            Packet("127.0.0.6", None, app.dst, app.dport, **given),
            Packet(app.src, None, app.src, app.dport, **given),
            Packet(app.src, None, app.dst, app.dport, "udp", **given),
            Packet(app.src, None, app.dst, app.dport, **given | {"uid": proxy.uid}),
            Packet(app.src, None, app.dst, app.dport, **given | {"uid": None}),
        ],
        "03-3": [["proxy out"], ["proxy out", "proxy to application"], "proxy out, into the pod"],
    }.get(exercise, [])


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
    for answer in [*WRONG_ANSWERS[exercise], *wrong_here(recorded, exercise)]:
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
    for exercise in ("01-4", "02-3"):
        verdict = checks.check(live, exercise, before[exercise])
        assert verdict.outcome == WRONG
        assert "iptables-nft-save" in verdict.message
    door = live.front_door
    mesh.delete("Pod", door.namespace, live.place("ingress").name)
    verdict = checks.check(live, "01-2", before["01-2"])
    assert verdict.outcome == WRONG
    assert "endpointslices" in verdict.message or "there is a pod of that name" in verdict.message
    for exercise in ("02-1", "02-4"):
        verdict = checks.check(live, exercise, before[exercise])
        assert verdict.outcome == WRONG
        assert "a rule rewrites this" in verdict.message or "has a chain of that name" in verdict.message


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
    for exercise in ("02-1", "02-4"):
        verdict = checks.check(live, exercise, right[exercise])
        assert verdict.outcome == WRONG
        assert endpoint_chain in verdict.message
    mesh.run(node, ["iptables-nft", "-t", "nat", "-F", "KUBE-NODEPORTS"])
    assert entry
    verdict = checks.check(live, "01-2", right["01-2"])
    assert "KUBE-NODEPORTS of table nat has a rule for the node port" in verdict.message
    mesh.run(node, ["iptables-nft", "-t", "nat", "-F", "POSTROUTING"])
    assert checks.check(live, "01-3", right["01-3"]).outcome == WRONG


@pytest.mark.sandbox
@pytest.mark.parametrize("live", PLANS, indirect=True)
def test_without_masquerading_or_an_endpoint_s_rule_the_checks_on_the_asking_pod_s_node_notice(live: Lab) -> None:
    right = answers(live)
    mesh, node = live.source.mesh, str(live.packets()["pod to Service"].place)
    mesh.run(node, ["iptables-nft", "-t", "nat", "-F", "POSTROUTING"])
    verdict = checks.check(live, "02-2", right["02-2"])
    assert verdict.outcome == WRONG
    assert "On its way out no rule of table nat matches it" in verdict.message
    chain = live.rules(node).grep("--probability").lines[0].split()[1]
    mesh.run(node, ["iptables-nft", "-t", "nat", "-D", chain, str(len(live.rules(node).chain("nat", chain)))])
    verdict = checks.check(live, "02-3", right["02-3"])
    assert verdict.outcome == WRONG
    assert "every ready endpoint" in verdict.message
    assert chain in verdict.message


@pytest.mark.sandbox
@pytest.mark.parametrize("live", ["sidecar", "random"], indirect=True)
def test_with_the_pod_s_rules_changed_the_checks_say_which_rule_decides_now(live: Lab) -> None:
    right = answers(live)
    assert [name for name in nb03.CHECKS if not checks.check(live, name, right[name])] == []
    mesh, pod = live.source.mesh, str(live.packets()["into the pod"].place)
    for change in (["-F", "ISTIO_OUTPUT"], ["-A", "ISTIO_OUTPUT", "-j", "ISTIO_REDIRECT"]):
        mesh.run(pod, ["iptables-nft", "-t", "nat", *change], uid=0)
    for exercise in ("03-2", "03-3"):
        verdict = checks.check(live, exercise, right[exercise])
        assert verdict.outcome == WRONG
        assert "nat ISTIO_REDIRECT 1" in verdict.message
    returning = ["ISTIO_INBOUND", "-p", "tcp", "-m", "tcp", "--dport", str(HEALTH), "-j", "RETURN"]
    mesh.run(pod, ["iptables-nft", "-t", "nat", "-D", *returning], uid=0)
    verdict = checks.check(live, "03-1", right["03-1"])
    assert verdict.outcome == WRONG
    assert "nat ISTIO_IN_REDIRECT 1" in verdict.message


@pytest.mark.sandbox
@pytest.mark.parametrize("live", ["article"], indirect=True)
def test_a_dead_sandbox_stops_a_check_and_is_no_wrong_answer(live: Lab) -> None:
    live.source.mesh.down()
    verdict = checks.check(live, "01-1", 2)
    assert verdict.outcome == STOPPED
    assert "\n" not in verdict.message
