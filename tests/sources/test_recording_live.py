"""Recordings of live sandboxes: equal to what the source returned, replayed, and free of every planted secret."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import plans
import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.errors import LabError, RecordingError
from bookinfo_lab.kube import places
from bookinfo_lab.lab import Lab
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import contents, recording
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource

pytestmark = pytest.mark.sandbox

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.Zm9yZ2VkLXNpZ25hdHVyZQ"
KEY_LINES = ("MIIEowIBAAKCAQEAq7Vd0n9bYx3kEw5tLZs", "u1Qe8rTz0mWcXn4vPjHs2dKfLgAaByUi")
SECRETS = {
    "cookie": "c00kie-0f-alice",
    "bearer": "b34rer-t0ken-in-a-header",
    "environment": 'env "pässwort" & 7',
    "annotation": "ann0tated-t0ken",
    "applied": "last-appl1ed-passw0rd",
    "argument": "argum3nt-passw0rd",
    "query": "qu3ry-t0ken",
    "url": "ur1-passw0rd",
    "basic": "bas1c-passw0rd",
    "stderr": "st4err-secret",
    "short": "zq9!k",
    "jwt": JWT,
    "key 1": KEY_LINES[0],
    "key 2": KEY_LINES[1],
}
PEM = "\n".join(["-----BEGIN RSA PRIVATE KEY-----", *KEY_LINES, "-----END RSA PRIVATE KEY-----", ""])
PLANTED = (
    "/productpage?access_token=" + SECRETS["query"],
    f"Cookie: user=jason; session={SECRETS['cookie']}",
    f"Authorization: Bearer {SECRETS['bearer']}",
    f"X-Filler: {'f' * 1400}",  # the cookie and the token stand in different frames where these fields swap places
    f"X-Api-Key: {SECRETS['short']}",
)


@dataclass
class Tee:
    """A source that keeps every piece of evidence which passes through it."""

    source: SandboxSource
    kept: list[Evidence] = field(default_factory=list)
    captured: list[Capturing] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.source.kind

    @property
    def description(self) -> str:
        return self.source.description

    @property
    def has_client(self) -> bool:
        return self.source.has_client

    def fetch(self, query: Query) -> Evidence:
        evidence = self.source.fetch(query)
        self.kept.append(evidence)
        return evidence

    def capture(self, points: Sequence[str]) -> AbstractContextManager[Capturing]:
        return self._teed(self.source.capture(points))

    def front_door(self) -> FrontDoor:
        return self.source.front_door()

    def now(self) -> float:
        return self.source.now()

    def close(self) -> None:
        self.source.close()

    def _teed(self, running: AbstractContextManager[Capturing]) -> AbstractContextManager[Capturing]:
        tee = self

        class Entered:
            def __enter__(self) -> Capturing:
                made = running.__enter__()
                tee.captured.append(made)
                return made

            def __exit__(self, *why: object) -> bool | None:
                return running.__exit__(*why)  # type: ignore[arg-type]

        return Entered()

    @property
    def every(self) -> list[Evidence]:
        return [*self.kept, *(item.evidence for item in self.captured)]


@dataclass
class Made:
    """A recording, and what the live source had returned for it."""

    tee: Tee
    path: Path
    held: contents.Contents
    lines: list[str]


@pytest.fixture(scope="module")
def own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("recordings")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(folder / "state"))
        yield folder


def record(mesh: sandbox.Sandbox, path: Path) -> Made:
    tee, lines = Tee(SandboxSource(mesh)), list[str]()

    def heard(listing: Sequence[str]) -> None:
        assert not path.exists()
        lines.extend(listing)

    return Made(tee, path, recording.record(tee, str(path), on_listing=heard), lines)


@pytest.fixture(scope="module", params=["sidecar", "article", "random"])
def made(request: pytest.FixtureRequest, own_state: Path) -> Iterator[Made]:
    plan = plans.topology(41) if request.param == "random" else scenarios.scenario(request.param)
    mesh = sandbox.up(plan, f"record-{request.param}", keep=False)
    try:
        yield record(mesh, own_state / f"{request.param}.zip")
    finally:
        mesh.down()


def test_every_piece_equals_what_the_live_source_returned(made: Made) -> None:
    source = RecordingSource(str(made.path))
    compared = 0
    last = {item.query: item for item in made.tee.kept}  # objects and rules were read more than once
    for query, live in last.items():
        compared += 1
        if query.kind in ("objects", "rules"):
            assert source.fetch(query).raw in [item.raw for item in made.tee.kept if item.query == query]
            continue
        held = source.fetch(query)
        assert (held.raw, held.stderr, held.status) == (live.raw, live.stderr, live.status), str(query)
        assert (held.time, held.here, held.on_a_cluster) == (live.time, live.here, live.on_a_cluster)
        assert held.origin.startswith("recording ")
        assert live.origin in held.origin
    assert compared >= (200 if "sidecar" in made.path.name else 101)
    assert {query.kind for query in last} >= {"objects", "rules", "processes", "sockets", "logs", "envoy", "get"}
    assert source.manifest.redactions == ()


def test_every_capture_equals_what_the_live_source_returned(made: Made) -> None:
    source = RecordingSource(str(made.path))
    assert len(made.tee.captured) == len(source.manifest.captures) == 2
    for live, item in zip((item.evidence for item in made.tee.captured), source.manifest.captures, strict=True):
        with source.capture(live.query.arguments) as running:
            for request in item.requests:
                source.fetch(request)
        assert (running.evidence.here, running.evidence.on_a_cluster) == (live.here, live.on_a_cluster)
        assert pcapng.parse(running.evidence.raw) == pcapng.parse(live.raw)
        assert len(pcapng.parse(live.raw)[1]) > 20


def test_the_listing_comes_first_and_names_what_the_recording_then_holds(made: Made) -> None:
    assert [line for line in made.lines if not line.startswith("get")] == [
        line for line in made.held.lines if not line.startswith(("get", "not held"))
    ]
    assert made.held.not_held == ()
    assert str(made.path) in str(made.held)


def test_a_lab_answers_from_the_recording_as_from_the_sandbox(made: Made) -> None:
    live, held = Lab(made.tee.source), Lab(RecordingSource(str(made.path)))
    assert held.objects("services", "nodes") == live.objects("services", "nodes")
    assert places.places(held.objects()) == places.places(live.objects())
    assert held.front_door == live.front_door
    nodes = [f"node/{item['metadata']['name']}" for item in live.objects("nodes")]
    for target in (*nodes, "ingress", "client"):
        for program in ("iptables-nft-save", "nft"):
            query = Query("rules", live.place(target), (program,))
            assert comments_out(held.source.fetch(query).raw) == comments_out(live.source.fetch(query).raw)
    assert abs(held.source.now() - live.source.now()) < 120


def comments_out(raw: bytes) -> bytes:
    """Rules without the times that iptables-save notes and the counters that requests move."""
    return re.sub(rb"(?m)^#.*$|packets \d+ bytes \d+|\[\d+:\d+\]", b"", raw)


def test_a_capture_of_some_points_replays_those_and_its_command_names_them(made: Made) -> None:
    source = RecordingSource(str(made.path))
    lab = Lab(source)
    points = [lab.point("ingress"), lab.point("client")]
    with source.capture(points) as running:
        source.fetch(Query("get", places.CLIENT, ("/productpage",)))
    interfaces, frames = pcapng.parse(running.evidence.raw)
    assert [item.name for item in interfaces] == points
    assert {item.interface for item in frames} == {0, 1}
    assert running.evidence.here.endswith(" ".join(points))
    assert "tcpdump" in running.evidence.on_a_cluster
    with pytest.raises(RecordingError) as refusal, source.capture(points):
        source.fetch(Query("get", places.CLIENT, ("/api/v1/products",)))
    assert "/productpage with Cookie: user=jason" in str(refusal.value)


@pytest.fixture(scope="module")
def planted(own_state: Path) -> Iterator[Made]:
    """A recording of a sandbox with secrets in its objects, requests, command lines and output."""
    mesh = sandbox.up(scenarios.scenario("sidecar"), "planted", keep=False)
    try:
        mesh.apply([with_secrets(item) for item in mesh.objects() if item["kind"] == "Pod"])
        with pytest.MonkeyPatch.context() as patch:
            swapped = (PLANTED[0], *PLANTED[:0:-1])
            patch.setattr(contents, "CAPTURED", (("/productpage",), PLANTED, swapped))
            patch.setattr(contents, "REQUESTED", (("/api/v1/products", "Cookie: session=" + SECRETS["cookie"]),))
            said = f"echo login with {SECRETS['argument']}; echo {base64.b64encode(PEM.encode()).decode()}; "
            wrong = f"echo --password={SECRETS['stderr']} refused >&2; exit 3"
            lines = [("pod", ("sh", "-c", said + wrong, "sh", "--db-password", SECRETS["argument"]))]
            lines += [("client", ("echo", f"https://alice:{SECRETS['url']}@shop/", f"Bearer {JWT}"))]
            lines += [("client", ("echo", "Authorization: Basic " + basic()))]
            patch.setattr(contents, "EXEC", tuple(lines))
            yield record(mesh, own_state / "planted")
    finally:
        mesh.down()


def basic() -> str:
    return base64.b64encode(f"alice:{SECRETS['basic']}".encode()).decode()


def with_secrets(pod: dict[str, object]) -> dict[str, object]:
    made = json.loads(json.dumps(pod))
    variables = [{"name": "DB_PASSWORD", "value": SECRETS["environment"]}, {"name": "TLS_KEY", "value": PEM}]
    applied = {"spec": {"containers": [{"env": [{"name": "DB_PASSWORD", "value": SECRETS["applied"]}]}]}}
    made["metadata"].setdefault("annotations", {}).update(
        {
            "example.org/token": SECRETS["annotation"],
            "kubectl.kubernetes.io/last-applied-configuration": json.dumps(applied),
        }
    )
    for container in made["spec"]["containers"]:
        container["env"] = [*container.get("env", []), *variables]
    return made


def forms(secret: str) -> set[bytes]:
    """How a secret may still stand somewhere: as it is, escaped, percent-encoded, in base64 at any place."""
    raw = secret.encode()
    found = {raw, json.dumps(secret)[1:-1].encode(), urllib.parse.quote(secret, safe="").encode()}
    for shift in range(3):
        inner = base64.b64encode(b"\0" * shift + raw)[4:-4]
        found |= {inner} if len(inner) >= 8 else set()
    return found


def test_no_planted_secret_is_in_any_byte_of_the_recording(planted: Made, tmp_path: Path) -> None:
    seen = b"\n".join(part for item in planted.tee.every for part in (item.raw, item.stderr, item.here.encode()))
    missing = [
        name for name, secret in SECRETS.items() if name != "basic" and not any(f in seen for f in forms(secret))
    ]
    assert missing == [], "planted, but never read: the test would prove nothing"
    files = {path.relative_to(planted.path): path.read_bytes() for path in planted.path.rglob("*") if path.is_file()}
    zipped = tmp_path / "planted.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_STORED) as archive:
        for path, raw in files.items():
            archive.writestr(str(path), raw)
    files[Path("planted.zip")] = zipped.read_bytes()
    found = [
        (str(path), name)
        for path, raw in files.items()
        for name in SECRETS
        if any(f in raw for f in forms(SECRETS[name]))
    ]
    assert found == []
    assert [str(path) for path in files if any(secret in str(path) for secret in SECRETS.values())] == []
    # Decoded as well: what stands in base64 somewhere is no secret either.
    for path, raw in files.items():
        for run in re.findall(rb"[A-Za-z0-9+/]{24,}={0,2}", raw):
            decoded = base64.b64decode(run[: len(run) // 4 * 4])
            assert not any(secret.encode() in decoded for secret in SECRETS.values()), str(path)


def test_overwritten_are_the_listed_places_and_nothing_else(planted: Made) -> None:
    source = RecordingSource(str(planted.path))
    listed: dict[str, set[int]] = {}
    for item in source.manifest.redactions:
        listed.setdefault(item.piece, set()).update(range(item.offset, item.offset + item.length_bytes))
        assert not any(secret in item.what for secret in SECRETS.values())
    pieces = [*source.manifest.pieces, *(item.piece for item in source.manifest.captures)]
    live = [replace(item, query=contents.key(item.query)) for item in planted.tee.every]
    compared = set()
    for piece in pieces:
        held = (planted.path / piece.raw.file).read_bytes()
        originals = [item for item in live if item.time == piece.time and item.query.kind == piece.query.kind]
        originals = [item for item in originals if len(item.raw) == len(held)]
        assert originals, piece.query
        for item in originals:
            differ = {at for at in range(len(held)) if held[at] != item.raw[at]}
            if differ <= listed.get(piece.raw.file, set()):
                compared.add(piece.raw.file)
    assert compared == {piece.raw.file for piece in pieces}
    assert {name.partition("/")[0] for name in listed} >= {"objects", "capture", "exec", "get"}


def test_what_is_no_secret_stays(planted: Made) -> None:
    source = RecordingSource(str(planted.path))
    pods = json.loads(source.fetch(Query("objects", None, ("pods",))).raw)["items"]
    live = [item for item in planted.tee.source.mesh.objects() if item["kind"] == "Pod"]
    assert sorted(pod["metadata"]["name"] for pod in pods) == sorted(pod["metadata"]["name"] for pod in live)
    for pod in pods:
        variables = {item["name"]: item.get("value", "") for item in pod["spec"]["containers"][0]["env"]}
        assert set(variables["DB_PASSWORD"]) == {"x"}
        assert variables["TLS_KEY"].startswith("-----BEGIN RSA PRIVATE KEY-----")
    for item in source.manifest.captures[1:]:
        raw = (planted.path / item.piece.raw.file).read_bytes()
        assert b"user=jason; session=" + b"x" * len(SECRETS["cookie"]) in raw


def test_a_request_with_a_secret_replays_for_whoever_asks_with_it(planted: Made) -> None:
    source = RecordingSource(str(planted.path))
    live = next(item for item in planted.tee.kept if item.query.arguments == PLANTED)
    held = source.fetch(live.query)
    assert held.raw == live.raw
    assert SECRETS["bearer"] not in held.here
    assert "x" * len(SECRETS["bearer"]) in held.here
    with source.capture([Lab(source).point("client")]) as running:
        source.fetch(live.query)
    assert len(pcapng.parse(running.evidence.raw)[1]) > 5


@pytest.mark.skipif(shutil.which("tshark") is None, reason="tshark is not installed")
def test_tshark_reads_the_redacted_captures_as_it_reads_the_live_ones(planted: Made, tmp_path: Path) -> None:
    source = RecordingSource(str(planted.path))
    for live, item in zip((item.evidence for item in planted.tee.captured), source.manifest.captures, strict=True):
        before = tmp_path / "before.pcapng"
        before.write_bytes(live.raw)
        after = planted.path / item.piece.raw.file
        assert summary(before) == summary(after)
        assert len(summary(after)) > 50
        assert cookies(after) == {
            line.replace(SECRETS["cookie"], "x" * len(SECRETS["cookie"])) for line in cookies(before)
        }
    assert any("session" in line for line in cookies(after))


def summary(file: Path) -> list[str]:
    fields = ("frame.interface_name", "frame.time_epoch", "frame.len", "tcp.seq", "tcp.ack", "tcp.checksum.status")
    told = tshark(file, *fields, "_ws.expert.message", checks=True)
    told = [line.replace(SECRETS["query"], "x" * len(SECRETS["query"])) for line in told]
    return [re.sub(r"should be 0x\w+", "should be another", line) for line in told]


def cookies(file: Path) -> set[str]:
    return set(tshark(file, "http.cookie", checks=False)) - {""}


def tshark(file: Path, *fields: str, checks: bool) -> list[str]:
    options = ["-o", f"tcp.check_checksum:{checks}".upper().replace("TCP.CHECK_CHECKSUM", "tcp.check_checksum")]
    named = [word for name in fields for word in ("-e", name)]
    command = ["tshark", "-r", str(file), *options, "-T", "fields", *named]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def test_a_program_that_is_missing_is_named_as_not_held(own_state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mesh = sandbox.up(scenarios.scenario("article"), "missing", keep=False)
    try:
        source = SandboxSource(mesh)
        real = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name, **more: None if name == "nft" else real(name, **more))
        held = recording.record(source, str(own_state / "missing.zip"))
    finally:
        mesh.down()
    assert {item.query.arguments for item in held.not_held} == {("nft",)}
    source = RecordingSource(str(own_state / "missing.zip"))
    with pytest.raises(RecordingError, match="nft is not installed"):
        Lab(source).rules("node", "nft")


def test_a_sandbox_that_ends_meanwhile_leaves_no_recording(own_state: Path) -> None:
    mesh = sandbox.up(scenarios.scenario("article"), "ending", keep=False)
    folder = own_state / "ending"
    folder.mkdir()

    @dataclass
    class Ending(Tee):
        def fetch(self, query: Query) -> Evidence:
            if query.kind == "rules":
                mesh.down()
            return self.source.fetch(query)

    try:
        with pytest.raises(LabError) as error:
            recording.record(Ending(SandboxSource(mesh)), str(folder / "new.zip"))
    finally:
        mesh.down()
    assert "\n" not in str(error.value)
    assert os.listdir(folder) == []


def test_a_recording_is_read_without_anything_of_the_sandbox(made: Made) -> None:
    program = f"""
import sys
from bookinfo_lab.sources.base import Query
from bookinfo_lab.sources.recording import RecordingSource
RecordingSource({str(made.path)!r}).fetch(Query("objects", None, ("pods",)))
print([name for name in sys.modules if name.startswith("bookinfo_lab.sandbox") or name in ("fcntl", "termios", "pwd")])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
