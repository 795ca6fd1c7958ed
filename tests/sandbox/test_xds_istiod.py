"""The writer of proxy configurations against a real istiod: equal but for the differences that it names.

Two recordings judge.  One is a mesh with TLS (BOOKINFO_LAB_TEST_DATA); the other, in tests/data/istio, has plain text
inside, subsets, weights, faults and a gateway.  Each of `xds.DIFFERENCES` is a function on the recording, and must
change it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from bookinfo_lab.sandbox import xds
from bookinfo_lab.sandbox.xds import bootstrap

HERE = Path(__file__).resolve().parent.parent / "data" / "istio"
SETTINGS = xds.Settings()
Resources = dict[str, dict[str, Any]]


def every_dict(value: Any) -> Iterator[dict[str, Any]]:
    """All the dicts of a JSON document, outermost first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from every_dict(inner)


def rest(recorded: Resources) -> None:
    for item in every_dict(recorded):
        if item.pop("ads", None) is not None:
            item.update(SETTINGS.source())


def plain_text(recorded: Resources) -> None:
    for item in every_dict(recorded):
        item.pop("transport_socket_matches", None)
        if "listener_filters" in item:
            filters = item["listener_filters"]
            item["listener_filters"] = [one for one in filters if not one["name"].endswith("tls_inspector")]
        if "filter_chains" in item:
            item["filter_chains"] = [chain for chain in item["filter_chains"] if "transport_socket" not in chain]
            item["filter_chains"] = [
                chain
                for chain in item["filter_chains"]
                if chain.get("filter_chain_match", {}).get("transport_protocol") != "tls"
            ]
        item.get("filter_metadata", {}).pop("envoy.transport_socket_match", None)


def tracing(recorded: Resources) -> None:
    provider = None
    for item in every_dict(xds.resources(objects_of("objects.json"), pod("productpage"), SETTINGS)):
        provider = item.get("tracing", {}).get("provider", provider)
    for item in every_dict(recorded):
        if "tracing" in item:
            item["tracing"] |= {"provider": provider, "random_sampling": {"value": 100}}


def span_tags(recorded: Resources) -> None:
    for item in every_dict(recorded):
        item.pop("custom_tags", None)


ON_RESOURCES: Mapping[str, Callable[[Resources], None]] = {
    "rest": rest,
    "plain text": plain_text,
    "tracing": tracing,
    "span tags": span_tags,
}
# `bootstrap` is judged below, `headless` in test_xds.py: no recording has such a Service.
ELSEWHERE = {"bootstrap", "headless"}


def objects_of(name: str) -> list[dict[str, Any]]:
    """The objects of the plain-text recording; objects-8080.json are those that were changed later."""
    found = {(item["kind"], item["metadata"]["name"]): item for item in json.loads((HERE / "objects.json").read_text())}
    changed = json.loads((HERE / name).read_text())
    return list((found | {(item["kind"], item["metadata"]["name"]): item for item in changed}).values())


def pod(prefix: str, objects: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    items = objects or objects_of("objects.json")
    return next(item for item in items if item["kind"] == "Pod" and item["metadata"]["name"].startswith(prefix))


def by_name(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {item.get("name") or item["cluster_name"]: item for item in items}


def without_the_dump_s_own(recorded: Resources) -> Resources:
    """What Envoy's dump says that no configuration did: health, and the endpoints of clusters that have no EDS."""
    for item in every_dict(recorded["eds"]):
        assert item.pop("health_status", "HEALTHY") == "HEALTHY"
        item.pop("health_check_config", None)
        item.pop("policy", None)
    dynamic = {name for name, cluster in recorded["cds"].items() if cluster["type"] == "EDS"}
    return recorded | {"eds": {name: item for name, item in recorded["eds"].items() if name in dynamic}}


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two documents differ, by path; a list of named things is compared in its order too."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            if key not in theirs:
                yield f"{path}.{key}: only ours: {ours[key]}"
            elif key not in ours:
                yield f"{path}.{key}: only theirs: {theirs[key]}"
            else:
                yield from differences(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(one, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: ours {ours}, theirs {theirs}"


def written(objects: list[dict[str, Any]], of: dict[str, Any]) -> Resources:
    return {kind: by_name(items) for kind, items in xds.resources(objects, of, SETTINGS).items()}


def plain_recording(name: str) -> Resources:
    return {kind: by_name(items) for kind, items in json.loads((HERE / name).read_text()).items()}


@pytest.fixture(scope="module")
def dump(data_folder: Path) -> dict[str, Any]:
    """The recorded config_dump of a productpage sidecar in a mesh with TLS, by the kind of its parts."""
    document = json.loads((data_folder / "cluster/istio/productpage.config_dump_include_eds").read_text())
    return {part["@type"].rpartition(".")[2]: part for part in document["configs"]}


@pytest.fixture
def tls_recording(dump: dict[str, Any]) -> Resources:
    parts = json.loads(json.dumps(dump))
    assignments = parts["EndpointsConfigDump"]["dynamic_endpoint_configs"]
    return {
        "lds": by_name([x["active_state"]["listener"] for x in parts["ListenersConfigDump"]["dynamic_listeners"]]),
        "rds": by_name([x["route_config"] for x in parts["RoutesConfigDump"]["dynamic_route_configs"]]),
        "cds": by_name([x["cluster"] for x in parts["ClustersConfigDump"]["dynamic_active_clusters"]]),
        "eds": by_name([x["endpoint_config"] for x in assignments if "cluster_name" in x["endpoint_config"]]),
    }


@pytest.fixture(scope="module")
def tls_objects(data_folder: Path) -> list[dict[str, Any]]:
    return json.loads((data_folder / "cluster/istio/objects.json").read_text())["items"]


def test_every_named_difference_has_its_judge() -> None:
    assert set(xds.DIFFERENCES) == set(ON_RESOURCES) | ELSEWHERE


@pytest.mark.parametrize("name", ON_RESOURCES)
def test_a_named_difference_is_seen_in_the_recording(name: str, tls_recording: Resources) -> None:
    before = json.dumps(tls_recording)
    ON_RESOURCES[name](tls_recording)
    assert json.dumps(tls_recording) != before


def test_with_tls_only_the_named_differences_are_left(
    tls_recording: Resources, tls_objects: list[dict[str, Any]]
) -> None:
    recorded = without_the_dump_s_own(tls_recording)
    for change in ON_RESOURCES.values():
        change(recorded)
    assert list(differences(written(tls_objects, pod("productpage", tls_objects)), recorded)) == []


@pytest.mark.parametrize("name", ["productpage.json", "gateway.json"])
def test_peer_authentication_disable_leaves_nothing_of_tls_in_istiod_s_own(name: str) -> None:
    recorded = plain_recording(name)
    before = json.dumps(recorded)
    plain_text(recorded)
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
        recorded = without_the_dump_s_own(recorded)
    rest(recorded)
    tracing(recorded)
    ours = written(objects_of(objects), pod(of))
    assert list(differences({kind: ours[kind] for kind in recorded}, recorded)) == []


def test_a_change_in_one_route_is_found(tls_objects: list[dict[str, Any]]) -> None:
    ours = written(tls_objects, pod("productpage", tls_objects))
    changed = json.loads(json.dumps(ours).replace('"num_retries": 2', '"num_retries": 3', 1))
    assert len(list(differences(ours, changed))) == 1


def test_the_bootstrap_is_istio_s_where_it_has_the_same_field(
    dump: dict[str, Any], tls_objects: list[dict[str, Any]]
) -> None:
    theirs = dump["BootstrapConfigDump"]["bootstrap"]
    ours = json.loads(json.dumps(bootstrap.document(pod("productpage", tls_objects), SETTINGS)))
    assert set(theirs) - set(ours) == {"bootstrap_extensions"}
    assert set(ours) <= set(theirs)
    for name in ("application_log_config", "layered_runtime", "admin", "deferred_stat_options"):
        assert list(differences(ours[name], theirs[name], name)) == []
    (limit,) = ours["overload_manager"]["resource_monitors"]
    limit["typed_config"]["max_active_downstream_connections"] = "2147483647"  # a dump prints 64 bits as text
    assert ours["overload_manager"] == theirs["overload_manager"]
    for name in ("id", "cluster", "locality"):
        assert ours["node"][name] == theirs["node"][name]
    told, tells = theirs["node"]["metadata"], ours["node"]["metadata"]
    assert {name: told.get(name) for name in tells} == tells


def test_the_static_listeners_and_clusters_are_istio_s(dump: dict[str, Any], tls_objects: list[dict[str, Any]]) -> None:
    theirs = json.loads(json.dumps(dump["BootstrapConfigDump"]["bootstrap"]["static_resources"]))
    for item in every_dict(theirs):
        if "http_filters" in item:
            item["http_filters"] = [one for one in item["http_filters"] if "compressor" not in one["name"]]
    ours = bootstrap.document(pod("productpage", tls_objects), SETTINGS)["static_resources"]
    assert list(differences(ours["listeners"], theirs["listeners"])) == []
    clusters = by_name(theirs["clusters"])
    own = {name: item for name, item in by_name(ours["clusters"]).items() if name in clusters}
    assert set(own) == {"prometheus_stats", "agent"}
    assert list(differences(own, {name: clusters[name] for name in own})) == []
