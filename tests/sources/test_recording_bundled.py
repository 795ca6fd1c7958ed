"""The recordings that come with the package: small, without secrets, and what a fresh sandbox gives today."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookinfo_lab import connect, sandbox
from bookinfo_lab.lab import Lab
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import contents, recording
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.moving import steady
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource

SCENARIOS = ("sidecar", "article")
CLUSTER = "cluster"
AGAIN = "a bundled recording is older than what a sandbox gives today: run tools/make_recordings.py"


@pytest.fixture(scope="module", params=SCENARIOS)
def bundled(request: pytest.FixtureRequest) -> RecordingSource:
    return RecordingSource(recording.bundled(request.param))


def test_all_of_them_are_four_mebibytes_at_most() -> None:
    assert sum(os.path.getsize(recording.bundled(name)) for name in (*SCENARIOS, CLUSTER)) <= 4 << 20
    assert os.path.getsize(recording.bundled(CLUSTER)) <= 3 << 20


@pytest.fixture
def of_cluster() -> Iterator[Lab]:
    lab = connect("recording", scenario=CLUSTER)
    yield lab
    lab.close()


def test_a_clusters_lines_are_for_a_kubeconfig_and_its_proofs_agree(of_cluster: Lab) -> None:
    manifest = RecordingSource(recording.bundled(CLUSTER)).manifest
    assert manifest.kind == "kubernetes"
    for piece in manifest.pieces:
        evidence = of_cluster.source.fetch(piece.query)
        assert evidence.command.split()[0] in ("kubectl", "curl"), piece.query
        assert "--context" not in evidence.command
    proofs = {
        name: of_cluster.prove(of_cluster.rules(str(item.place)).walk(item.packet)).verdict
        for name, item in of_cluster.packets().items()
    }
    assert len(proofs) == 8
    assert set(proofs.values()) == {"agree"}


def test_a_clusters_holds_no_certificate_token_or_machine_path_and_says_what_it_lacks(of_cluster: Lab) -> None:
    manifest = RecordingSource(recording.bundled(CLUSTER)).manifest
    own = [str(Path(recording.bundled(CLUSTER)).parents[2]) + "/", os.path.expanduser("~") + "/"]
    words = [*own, "-----BEGIN", "LS0tLS1CRUdJTiB", "eyJhbGciOi", "last-applied", "managedFields"]
    for piece in manifest.pieces:
        text = of_cluster.source.fetch(piece.query).text
        assert [word for word in words if word in text] == [], str(piece.query)
    assert {item.query.kind for item in manifest.not_held} == {"processes"}
    assert all(item.query.place is not None and item.query.place.kind == "node" for item in manifest.not_held)
    told = {item.what for item in manifest.dropped}
    assert {"environment values", "rules of other Services", "frames of others"} <= told


def test_every_piece_is_the_one_that_was_recorded(bundled: RecordingSource) -> None:
    for piece in bundled.manifest.pieces:
        evidence = bundled.fetch(piece.query)
        assert "--name" not in evidence.here  # a reader's own sandbox has no other name
    for item in bundled.manifest.captures:
        with bundled.capture(item.piece.query.arguments) as running:
            for query in item.requests:
                bundled.fetch(query)
        assert len(running.evidence.raw) > 10_000
    assert bundled.manifest.not_held == ()


def test_it_names_no_file_of_the_machine_that_made_it(bundled: RecordingSource) -> None:
    own = [str(Path(recording.bundled("sidecar")).parents[2]), os.path.expanduser("~") + "/", "/home/"]
    for piece in bundled.manifest.pieces:
        text = bundled.fetch(piece.query).text
        assert [word for word in own if word in text] == [], str(piece.query)


@pytest.fixture(scope="module")
def fresh(bundled: RecordingSource, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SandboxSource]:
    scenario = next(name for name in SCENARIOS if f"scenario {name}" in bundled.manifest.source)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        mesh = sandbox.up(scenarios.scenario(scenario), keep=False)
        try:
            source = SandboxSource(mesh)
            wait_for_links(source)
            yield source
        finally:
            mesh.down()


def wait_for_links(source: SandboxSource) -> None:
    """Until each interface shows its carrier: the kernel may report it up to a second after the link came up."""
    asked = [query for query in recording.plan(source).queries if query.kind == "addresses"]
    deadline = time.monotonic() + 10
    while any(b"NO-CARRIER" in source.fetch(query).raw for query in asked) and time.monotonic() < deadline:
        time.sleep(0.1)


@pytest.mark.sandbox
def test_it_holds_what_a_recording_of_a_fresh_sandbox_would_hold(
    bundled: RecordingSource, fresh: SandboxSource
) -> None:
    plan = recording.plan(fresh)
    captured = [query for item in plan.captures for query in item.requests]
    planned = {contents.key(query) for query in (*plan.queries, *plan.requests, *captured)}
    assert planned == {piece.query for piece in bundled.manifest.pieces}, AGAIN
    assert [(item.points, item.requests) for item in plan.captures] == [
        (item.piece.query.arguments, item.requests) for item in bundled.manifest.captures
    ], AGAIN
    assert bundled.front_door() == fresh.front_door(), AGAIN


@pytest.mark.sandbox
def test_it_is_what_a_fresh_sandbox_gives_today(bundled: RecordingSource, fresh: SandboxSource) -> None:
    """In the order of a recording, so that what requests leave behind is there in both."""
    plan = recording.plan(fresh)
    before = [query for query in plan.queries if contents.is_before_requests(query)]
    after = [query for query in plan.queries if not contents.is_before_requests(query)]
    captured = [query for item in plan.captures for query in item.requests]
    other = []
    for query in (*before, *captured, *plan.requests, *after):
        live = fresh.fetch(query)
        held = bundled.fetch(query)
        if not same(query, held.raw, live.raw) or (held.here, held.on_a_cluster) != (live.here, live.on_a_cluster):
            other.append(str(query))
    assert other == [], AGAIN


def same(query: Query, held: bytes, live: bytes) -> bool:
    return steady(query, held, across_sandboxes=True) == steady(query, live, across_sandboxes=True)


def test_an_older_one_would_be_noticed(bundled: RecordingSource) -> None:
    for query, was, now in (
        (Query("rules", None, ("iptables-nft-save",)), b"KUBE-SEP", b"KUBE-SEQ"),
        (Query("objects", None, ("services",)), b'"port": 9080', b'"port": 9081'),
        (Query("objects", None, ("pods",)), b'"containers"', b'"container"'),
    ):
        piece = next(item for item in bundled.manifest.pieces if matches(item.query, query))
        raw = bundled.fetch(piece.query).raw
        assert was in raw
        assert not same(piece.query, raw, raw.replace(was, now))


def matches(query: Query, wanted: Query) -> bool:
    is_there = query.place is None or query.place.kind == "node"
    return query.kind == wanted.kind and query.arguments == wanted.arguments and is_there


def test_they_are_in_the_wheel(tmp_path: Path) -> None:
    root = Path(recording.bundled("sidecar")).parents[2]
    if not (root / "pyproject.toml").is_file():
        pytest.skip("the package was installed: its own files are the wheel's")
    built = "from hatchling.builders.wheel import WheelBuilder; import sys, json\n"
    built += "told = [item.distribution_path for item in WheelBuilder(sys.argv[1]).recurse_included_files()]\n"
    built += "print(json.dumps(told))"
    done = subprocess.run([sys.executable, "-c", built, root], capture_output=True, text=True, check=True)
    assert {f"bookinfo_lab/recordings/{name}.zip" for name in (*SCENARIOS, CLUSTER)} <= set(json.loads(done.stdout))
