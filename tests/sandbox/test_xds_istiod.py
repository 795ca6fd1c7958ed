"""The writer of proxy configurations against a real istiod: equal but for the differences that it names.

Two recordings judge.  One is a mesh with TLS (BOOKINFO_LAB_TEST_DATA); the other, in tests/data/istio, has plain text
inside, subsets, weights, faults and a gateway.  `istiod` undoes each of `xds.DIFFERENCES` in a recording; that each is
still there is asked of a real cluster (tests/cluster).
"""

import json
from pathlib import Path
from typing import Any

import istiod
import pytest
from istiod import Resources, by_name, differing, written

from bookinfo_lab.sandbox import xds

HERE = Path(__file__).resolve().parent.parent / "data" / "istio"
# No recording has endpoints in named localities: that one is asked of the cluster alone.
NOT_RECORDED = {"locality"}


def objects_of(name: str) -> list[dict[str, Any]]:
    """The objects of the plain-text recording; objects-8080.json are those that were changed later."""
    found = {(item["kind"], item["metadata"]["name"]): item for item in json.loads((HERE / "objects.json").read_text())}
    changed = json.loads((HERE / name).read_text())
    return list((found | {(item["kind"], item["metadata"]["name"]): item for item in changed}).values())


def pod(prefix: str, objects: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    items = objects or objects_of("objects.json")
    return next(item for item in items if item["kind"] == "Pod" and item["metadata"]["name"].startswith(prefix))


def plain_recording(name: str) -> Resources:
    return {kind: by_name(items) for kind, items in json.loads((HERE / name).read_text()).items()}


@pytest.fixture(scope="module")
def dump(data_folder: Path) -> dict[str, Any]:
    """The recorded config_dump of a productpage sidecar in a mesh with TLS."""
    found: dict[str, Any] = json.loads((data_folder / "cluster/istio/productpage.config_dump_include_eds").read_text())
    return found


@pytest.fixture
def tls_recording(dump: dict[str, Any]) -> Resources:
    return istiod.of_dump(dump)


@pytest.fixture(scope="module")
def tls_objects(data_folder: Path) -> list[dict[str, Any]]:
    return json.loads((data_folder / "cluster/istio/objects.json").read_text())["items"]


def test_every_named_difference_has_its_judge() -> None:
    assert set(xds.DIFFERENCES) == {*istiod.RESOURCES, *istiod.BOOTSTRAP}


@pytest.mark.parametrize("name", sorted(set(istiod.RESOURCES) - NOT_RECORDED))
def test_a_named_difference_is_seen_in_the_recording(name: str, tls_recording: Resources) -> None:
    before = json.dumps(tls_recording)
    istiod.RESOURCES[name](tls_recording)
    assert json.dumps(tls_recording) != before


def test_with_tls_only_the_named_differences_are_left(
    tls_recording: Resources, tls_objects: list[dict[str, Any]]
) -> None:
    for undo in istiod.RESOURCES.values():
        undo(tls_recording)
    assert list(differing(written(tls_objects, pod("productpage", tls_objects)), tls_recording)) == []


@pytest.mark.parametrize("name", ["productpage.json", "gateway.json"])
def test_peer_authentication_disable_leaves_nothing_of_tls_in_istiod_s_own(name: str) -> None:
    recorded = plain_recording(name)
    before = json.dumps(recorded)
    istiod.plain_text(recorded)
    assert json.dumps(recorded) == before


@pytest.mark.parametrize(
    ("name", "of", "objects"),
    [
        ("productpage.json", "productpage", "objects.json"),
        ("gateway.json", "istio-ingressgateway", "objects.json"),
        ("gateway-8080.json", "istio-ingressgateway", "objects-8080.json"),
    ],
)
def test_in_plain_text_with_policies_only_transport_and_tracing_differ(name: str, of: str, objects: str) -> None:
    recorded = plain_recording(name)
    if "eds" in recorded:
        recorded = istiod.without_the_dump_s_own(recorded)
    istiod.rest(recorded)
    istiod.tracing(recorded)
    ours = written(objects_of(objects), pod(of))
    assert list(differing({kind: ours[kind] for kind in recorded}, recorded)) == []


def test_a_change_in_one_route_is_found(tls_objects: list[dict[str, Any]]) -> None:
    ours = written(tls_objects, pod("productpage", tls_objects))
    changed = json.loads(json.dumps(ours).replace('"num_retries": 2', '"num_retries": 3', 1))
    assert len(list(differing(ours, changed))) == 1


def test_the_bootstrap_is_istio_s_but_for_the_named_differences(
    dump: dict[str, Any], tls_objects: list[dict[str, Any]]
) -> None:
    ours, theirs = istiod.written_bootstrap(pod("productpage", tls_objects)), istiod.bootstrap_of_dump(dump)
    for name, undo in istiod.BOOTSTRAP.items():
        before = json.dumps(theirs)
        undo(theirs, ours)
        assert json.dumps(theirs) != before, f"{name} is no difference any more"
    assert list(differing(ours, theirs)) == []
