"""What the API server says, and what becomes of it: pages, refusals in one line, patience where it helps."""

import dataclasses
import json

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.cluster import api, listing, sockets, streams
from bookinfo_lab.sources.cluster.api import Refused, verb_of
from bookinfo_lab.sources.cluster.guests import Guests
from bookinfo_lab.sources.cluster.source import KubernetesSource

from .serving import REVIEWS, serving

PODS = "/api/v1/pods"
MINE = "/api/v1/namespaces/mine/pods"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.time, "sleep", lambda _: None)


def page(*names: str, token: str = "") -> dict[str, object]:
    items = [{"metadata": {"name": name}} for name in names]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": token}, "items": items}


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "/api/v1/pods", ("list", "pods")),
        ("GET", "/api/v1/namespaces/a/pods", ("list", "pods")),
        ("GET", "/api/v1/namespaces/a/pods/b", ("get", "pods")),
        ("GET", "/api/v1/namespaces/a/pods/b/log", ("get", "pods/log")),
        ("POST", "/api/v1/namespaces/a/pods/b/exec", ("create", "pods/exec")),
        ("POST", "/api/v1/namespaces/a/pods", ("create", "pods")),
        ("PATCH", "/api/v1/namespaces/a/pods/b/ephemeralcontainers", ("patch", "pods/ephemeralcontainers")),
        ("DELETE", "/api/v1/namespaces/a/pods/b", ("delete", "pods")),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices", ("list", "endpointslices")),
        ("GET", "/apis/discovery.k8s.io/v1/namespaces/a/endpointslices", ("list", "endpointslices")),
        ("GET", "/api/v1/namespaces/a", ("get", "namespaces")),
        ("GET", "/api/v1/nodes/n", ("get", "nodes")),
    ],
)
def test_a_request_is_named_as_a_role_names_it(method: str, path: str, expected: tuple[str, str]) -> None:
    assert verb_of(method, path) == expected


def test_a_list_is_one_document_of_all_pages_with_every_objects_kind() -> None:
    with serving({PODS: [(200, page("a", "b", token="more")), (200, page("c"))]}) as (server_api, server):
        found = listing.objects(server_api, "pods", ())
    document = json.loads(found.raw)
    assert [item["metadata"]["name"] for item in document["items"]] == ["a", "b", "c"]
    assert {(item["kind"], item["apiVersion"]) for item in document["items"]} == {("Pod", "v1")}
    assert document["kind"] == "List"
    assert [query.get("continue") for _, _, query in server.asked] == [None, ["more"]]
    assert {query["limit"][0] for _, _, query in server.asked} == {str(api.PAGE)}


def test_a_list_that_grew_old_on_the_way_is_read_anew() -> None:
    told = [
        (200, page("a", token="old")),
        (410, {"message": "expired"}),
        (200, page("a", token="new")),
        (200, page("b")),
    ]
    with serving({PODS: list(told)}) as (server_api, _):
        names = [item["metadata"]["name"] for item in json.loads(listing.objects(server_api, "pods", ()).raw)["items"]]
    assert names == ["a", "b"]


def test_who_may_not_list_everywhere_gets_his_own_namespace_and_is_told() -> None:
    forbidden = {"message": 'pods is forbidden: User "u" cannot list resource "pods" at the cluster scope'}
    with serving({PODS: [(403, forbidden)], MINE: [(200, page("a"))]}) as (server_api, _):
        found = listing.objects(server_api, "pods", ())
    assert [item["metadata"]["name"] for item in json.loads(found.raw)["items"]] == ["a"]
    assert found.missing == (
        "this user may not list pods in all namespaces; the role reader-cluster in deploy/rbac/ grants it",
    )
    assert found.read == ("mine",)


def test_what_one_may_not_list_is_not_tried() -> None:
    answers = {REVIEWS: [(201, {"status": {"allowed": False}}), (201, {"status": {"allowed": True}})]}
    with serving(answers | {MINE: [(200, page("a"))]}) as (server_api, server):
        found = listing.objects(server_api, "pods", ())
    assert [path for _, path, _ in server.asked] == [MINE]
    assert (found.read, len(found.missing)) == (("mine",), 1)


def test_nodes_that_may_not_be_listed_are_left_out_and_said() -> None:
    with serving(
        {"/api/v1/nodes": [(403, {"message": 'nodes is forbidden: User "u" cannot list resource "nodes"'})]}
    ) as (server_api, _):
        found = listing.objects(server_api, "nodes", ("mine",))
    assert json.loads(found.raw)["items"] == []
    assert found.missing == ("this user may not list nodes; the role reader-cluster in deploy/rbac/ grants it",)


def test_what_may_pass_is_asked_for_again() -> None:
    with serving({PODS: [(429, {}), (503, b""), (200, page("a"))]}) as (server_api, server):
        assert json.loads(server_api.get(PODS))["items"]
    assert len(server.asked) == 3


def test_what_does_not_pass_is_given_up() -> None:
    with serving({PODS: [(429, {})]}) as (server_api, server), pytest.raises(Refused, match="busy"):
        server_api.get(PODS)
    assert 2 < len(server.asked) < 10


@pytest.mark.parametrize(
    ("status", "method", "path", "words"),
    [
        (401, "GET", PODS, "log in again"),
        (403, "POST", f"{MINE}/p/exec", "may not create pods/exec in the namespace mine; the role inspector in"),
        (403, "PATCH", f"{MINE}/p/ephemeralcontainers", "the role capturer"),
        (403, "POST", MINE, "the role node"),
        (403, "GET", f"{MINE}/p/log", "the role reader"),
        (404, "GET", f"{MINE}/p", "there is no such pods: gone"),
        (409, "PATCH", f"{MINE}/p/ephemeralcontainers", "changed meanwhile"),
        (418, "GET", PODS, "answered 418"),
    ],
)
def test_a_refusal_is_one_line_that_says_what_grants_it(status: int, method: str, path: str, words: str) -> None:
    said = 'it is forbidden: User "u" cannot do it' if status == 403 else "gone"
    told = {path: [(status, {"message": f"{said}\nsecond line"})]}
    with serving(told) as (server_api, _), pytest.raises(Refused) as refusal:
        server_api.ask(method, path, body={})
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert refusal.value.status == status


@pytest.mark.parametrize(
    ("status", "said", "is_denied"),
    [
        (400, 'admission webhook "validate.kyverno.svc-fail" denied the request: no guests', True),
        (
            422,
            "pods \"p\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: no guests",
            True,
        ),
        (403, 'pods "p" is forbidden: violates PodSecurity "restricted:latest"', True),
        (422, 'Pod "p" is invalid: spec.containers[0].image: Required value', False),
    ],
)
def test_a_policy_s_refusal_is_one_whatever_its_status(status: int, said: str, is_denied: bool) -> None:
    with serving({MINE: [(status, {"message": said})]}) as (server_api, _), pytest.raises(Refused) as refusal:
        server_api.ask("POST", MINE, body={})
    assert (refusal.value.status == 403) is is_denied
    assert ("the cluster does not admit it (create pods)" in str(refusal.value)) is is_denied
    assert said in str(refusal.value)


def test_a_server_that_is_gone_is_one_line_without_its_address() -> None:
    with serving({}) as (server_api, server):
        port = server.server_port
    with pytest.raises(LabError, match="context 'somewhere' does not answer") as error:
        server_api.get(PODS)
    assert "\n" not in str(error.value)
    assert str(port) not in str(error.value)
    assert "refused" in str(error.value)


@pytest.mark.parametrize(
    ("version", "refused", "words"),
    [
        ("v1.34.4", "", ""),
        ("v1.34.4", "create", ""),
        ("v1.34.4", "get", "may not get pods/exec in the namespace mine; the role inspector"),
        ("v1.35.0-eks-1", "get", "may not get pods/exec in the namespace mine; the role inspector"),
        ("v1.35.0-eks-1", "create", "may not create pods/exec in the namespace mine; the role inspector"),
    ],
)
def test_a_stream_takes_the_rights_that_this_version_asks_for(
    monkeypatch: pytest.MonkeyPatch, version: str, refused: str, words: str
) -> None:
    may = {
        "get": (201, {"status": {"allowed": refused != "get"}}),
        "create": (201, {"status": {"allowed": not refused}}),
    }
    monkeypatch.setattr(sockets, "connected", lambda *_: "connected")
    with serving({REVIEWS: [may["get"], may["create"]]}) as (server_api, _):
        asked = dataclasses.replace(server_api, server=version)
        if not words:
            assert streams.websocket(asked, f"{MINE}/p/exec", []) == "connected"
            return
        with pytest.raises(Refused, match=words):
            streams.websocket(asked, f"{MINE}/p/exec", [])


def test_a_line_names_the_context_that_was_named() -> None:
    with serving({}) as (server_api, _):
        named = dataclasses.replace(server_api, words=("--context=prod",))
        source = KubernetesSource(named, Guests(named, frozenset()))
        made = source._evidence(Query("rules", Place("node", "", "n", ""), ("iptables-nft-save",)), b"")
    assert made.on_a_cluster.startswith("kubectl --context=prod debug ")
