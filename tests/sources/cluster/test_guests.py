"""A guest makes nothing without leave, marks what it makes, uses again what is there, and takes away what it can."""

from typing import Any

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.sources.base import DEBUG_IMAGE
from bookinfo_lab.sources.cluster import guest_objects, guests
from bookinfo_lab.sources.cluster.api import Refused
from bookinfo_lab.sources.cluster.guest_objects import is_of
from bookinfo_lab.sources.cluster.guests import Guests, NotAllowed, leaves

from .serving import REVIEWS, serving

POD = "/api/v1/namespaces/mine/pods/p"
NODE = "/api/v1/nodes/n"


def pod(name: str = "", state: str = "running", image: str = DEBUG_IMAGE, target: str = "app") -> dict[str, Any]:
    """A pod that has an ephemeral container of the lab's in that state, or none."""
    containers = [{**guest_objects.ephemeral(name, target, DEBUG_IMAGE), "image": image}] if name else []
    if not image.endswith(DEBUG_IMAGE):  # it was asked for, too
        containers = [guest_objects.ephemeral(name, target, image)]
    statuses = [{"name": name, "state": {state: {}}}] if name else []
    return {
        "metadata": {"namespace": "mine", "name": "p"},
        "spec": {"containers": [{"name": "app"}], "ephemeralContainers": containers},
        "status": {"ephemeralContainerStatuses": statuses},
    }


def test_leave_is_given_by_argument_and_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guests.VARIABLE, "node-pod,trace")
    assert leaves(["ephemeral"]) == {"ephemeral", "node-pod", "trace"}
    with pytest.raises(LabError, match="'everything' is nothing that can be allowed"):
        leaves(["everything"])


def test_without_leave_nothing_is_asked_of_the_server_that_changes_anything() -> None:
    with serving({NODE: [(200, {})], POD: [(200, pod())]}) as (api, server):
        made = Guests(api, frozenset())
        with pytest.raises(NotAllowed, match="BOOKINFO_LAB_ALLOW=node-pod allows"):
            made.on_node("n", "rules")
        with pytest.raises(NotAllowed, match="BOOKINFO_LAB_ALLOW=ephemeral allows"):
            made.in_pod(pod(), "app", "rules")
        made.close()
    assert {method for method, _, _ in server.asked} == {"GET"}


def test_an_ephemeral_container_that_runs_is_used_again_also_without_leave() -> None:
    with serving({}) as (api, server):
        assert Guests(api, frozenset()).in_pod(pod("bookinfo-lab-app-old"), "app", "rules") == "bookinfo-lab-app-old"
        with pytest.raises(NotAllowed):
            Guests(api, frozenset()).in_pod(pod("bookinfo-lab-app-old", "terminated"), "app", "rules")
    assert server.asked == []


def test_one_of_another_image_is_used_only_where_none_may_be_put_beside_it(capfd: pytest.CaptureFixture[str]) -> None:
    old = pod("bookinfo-lab-app-old", image="example.org/other:1")
    with serving({f"{POD}/ephemeralcontainers": [(403, {"message": "no"})]}) as (api, server):
        assert (
            Guests(api, frozenset(), image="example.org/mine:1").in_pod(old, "app", "rules") == "bookinfo-lab-app-old"
        )
        assert server.asked == []
        with pytest.raises(LabError):
            Guests(api, frozenset(["ephemeral"]), image="example.org/mine:1").in_pod(old, "app", "rules")
    assert [method for method, _, _ in server.asked] == ["PATCH"]


def test_one_whose_image_a_policy_rewrote_is_used_again_by_every_lab_and_no_other_is_put_beside_it() -> None:
    rewritten = f"mirror.example.org/{DEBUG_IMAGE}"
    with serving({}) as (api, server):
        made = Guests(api, frozenset(["ephemeral"]))
        name = f"bookinfo-lab-app-{made.owner}"
        there = pod(name, image=rewritten)
        server.answers = {f"{POD}/ephemeralcontainers": [(200, {})], POD: [(200, there)]}
        assert [made.in_pod(given, "app", "rules") for given in (pod(), there, there)] == [name] * 3
        assert made.in_pod(pod(name, "waiting", rewritten), "app", "rules") == name
        assert Guests(api, frozenset(["ephemeral"])).in_pod(there, "app", "rules") == name
    assert [method for method, _, _ in server.asked].count("PATCH") == 1


def test_one_beside_another_container_is_not_taken_for_this_ones_whose_name_begins_alike() -> None:
    first, second = (f"{'a' * 40}-{number}" for number in (1, 2))
    with serving({}) as (api, server):
        made = Guests(api, frozenset(["ephemeral"]))
        name = f"bookinfo-lab-{'a' * 36}-{made.owner}"
        server.answers = {f"{POD}/ephemeralcontainers": [(200, {})], POD: [(200, pod(f"{name}-2", target=second))]}
        assert made.in_pod(pod(name, target=first), second, "sockets") == f"{name}-2"


@pytest.mark.parametrize("leave", ["ephemeral", "node-pod"])
def test_what_no_program_may_be_run_in_is_not_made(leave: str) -> None:
    allowed = [(201, {"status": {"allowed": True}})] * (1 if leave == "ephemeral" else 3)
    with serving({NODE: [(200, {})], REVIEWS: [*allowed, (201, {"status": {"allowed": False}})]}) as (api, server):
        made = Guests(api, frozenset([leave]))
        with pytest.raises(Refused, match="may not get pods/exec in the namespace mine"):
            made.in_pod(pod(), "app", "rules") if leave == "ephemeral" else made.on_node("n", "rules")
    assert {method for method, _, _ in server.asked} <= {"GET"}


def test_where_each_has_ended_no_fourth_is_put_into_a_pod() -> None:
    with serving({}) as (api, server):
        made = Guests(api, frozenset(["ephemeral"]))
        ended = [pod(f"bookinfo-lab-app-{made.owner}{more}", "terminated") for more in ("", "-2", "-3")]
        there = pod()
        there["spec"]["ephemeralContainers"] = [one["spec"]["ephemeralContainers"][0] for one in ended]
        states = [one["status"]["ephemeralContainerStatuses"][0] for one in ended]
        there["status"]["ephemeralContainerStatuses"] = states
        with pytest.raises(LabError, match="3 containers of this lab's are of no use in mine/p"):
            made.in_pod(there, "app", "rules")
    assert server.asked == []


def test_what_may_not_be_deleted_is_not_made() -> None:
    may = [(201, {"status": {"allowed": True}})] * 2 + [(201, {"status": {"allowed": False}})]
    with (
        serving({NODE: [(200, {})], REVIEWS: may}) as (api, server),
        pytest.raises(Refused, match="may not delete pods"),
    ):
        Guests(api, frozenset(["node-pod"])).on_node("n", "rules")
    assert {method for method, _, _ in server.asked} == {"GET"}


def test_a_node_that_is_not_there_gets_no_pod() -> None:
    with serving({NODE: [(404, {"message": "no"})]}) as (api, server), pytest.raises(LabError, match="no such nodes"):
        Guests(api, frozenset(["node-pod"])).on_node("n", "rules")
    assert {method for method, _, _ in server.asked} == {"GET"}


def test_a_pod_of_the_labs_is_made_once_and_deleted_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    running = {"status": {"containerStatuses": [{"name": "node", "state": {"running": {}}}]}}
    monkeypatch.setattr(guests.time, "sleep", lambda _: None)
    pods = "/api/v1/namespaces/mine/pods"
    with serving({NODE: [(200, {})], pods: [(201, {})]}) as (api, server):
        made = Guests(api, frozenset(["node-pod"]))
        own = f"{pods}/bookinfo-lab-node-{made.owner}-0"
        server.answers[own] = [(200, {"status": {}}), (200, running)]
        assert made.on_node("n", "rules") == made.on_node("n", "routes") == ("mine", own.rpartition("/")[2], "node")
        made.close()
        made.close()
    asked = [(method, path) for method, path, _ in server.asked]
    assert asked.count(("POST", pods)) == 1
    assert asked.count(("DELETE", own)) == 1


def test_an_image_that_does_not_come_is_one_line_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = {"waiting": {"reason": "ErrImagePull", "message": "no\nsuch image"}}
    stuck = {"status": {"containerStatuses": [{"name": "node", "state": waiting}]}}
    with serving({NODE: [(200, {})], "/api/v1/namespaces/mine/pods": [(201, {})]}) as (api, server):
        made = Guests(api, frozenset(["node-pod"]), image="example.org/none:1")
        own = f"/api/v1/namespaces/mine/pods/bookinfo-lab-node-{made.owner}-0"
        server.answers[own] = [(200, stuck)]
        with pytest.raises(LabError, match=r"ErrImagePull no such image.*example\.org/none:1"):
            made.on_node("n", "rules")
        made.close()
    assert ("DELETE", own) in [(method, path) for method, path, _ in server.asked]


def test_what_cannot_be_deleted_is_named_and_the_rest_is_deleted(capfd: pytest.CaptureFixture[str]) -> None:
    with serving({}) as (api, server):
        made = Guests(api, frozenset())
        pods = "/api/v1/namespaces/mine/pods"
        made._pods = {("a", "node"): guests._Pod("mine", "first"), ("b", "node"): guests._Pod("mine", "second")}
        made._stay = ["mine/p (own)"]
        server.answers = {f"{pods}/first": [(401, {})], f"{pods}/second": [(200, {})]}
        with pytest.raises(LabError, match=r"^the pod mine/first is not deleted: .* left: bookinfo-lab uninst"):
            made.close()
        assert ("DELETE", f"{pods}/second") in [(method, path) for method, path, _ in server.asked]
        assert "stay, idle, until their pods are deleted: mine/p (own)" in capfd.readouterr().err
        server.answers = {f"{pods}/first": [(200, {})]}
        made.close()
    assert [path for method, path, _ in server.asked if method == "DELETE"].count(f"{pods}/second") == 1


def test_a_container_whose_answer_was_lost_is_named_and_one_that_was_refused_is_not(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("bookinfo_lab.sources.cluster.api._ATTEMPTS", 1)
    for status, is_named in ((503, True), (403, False), (None, True)):
        with serving({f"{POD}/ephemeralcontainers": [(status or 200, {})]}) as (api, _):
            made = Guests(api, frozenset(["ephemeral"]))
            if status is None:
                monkeypatch.setattr(Guests, "_wait", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises((LabError, KeyboardInterrupt)):
                made.in_pod(pod() | {"status": {"phase": "Running"}}, "app", "rules")
            capfd.readouterr()
            made.close()
            assert ("stay, idle" in capfd.readouterr().err) is is_named


def test_a_node_that_takes_no_more_pods_is_told_at_once_in_its_own_words() -> None:
    full = {"status": {"phase": "Failed", "reason": "OutOfpods", "message": "Node didn't have enough resource"}}
    with serving({NODE: [(200, {})], "/api/v1/namespaces/mine/pods": [(201, {})]}) as (api, server):
        made = Guests(api, frozenset(["node-pod"]))
        own = f"/api/v1/namespaces/mine/pods/bookinfo-lab-node-{made.owner}-0"
        server.answers[own] = [(200, full)]
        with pytest.raises(LabError, match=r"does not start: OutOfpods Node didn't have enough resource$"):
            made.on_node("n", "rules")


def test_a_container_is_of_the_lab_whose_id_ends_its_name() -> None:
    names = ["bookinfo-lab-app-0a1b2c3d", "bookinfo-lab-app-0a1b2c3d-2", "bookinfo-lab-0a1b2c3d-ffffffff"]
    assert [is_of(name, "0a1b2c3d") for name in names] == [True, True, False]
