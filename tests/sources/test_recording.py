"""What a recording is, what it refuses, and how it is written; no sandbox: the bundled recordings stand in for one."""

import errno
import json
import os
import random
import shutil
import struct
import zipfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import pytest

from bookinfo_lab.errors import LabError, RecordingError
from bookinfo_lab.kube import places
from bookinfo_lab.kube.places import CLIENT, Place
from bookinfo_lab.lab import Lab
from bookinfo_lab.sources import archive, contents, manifest, recording
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query
from bookinfo_lab.sources.recording import RecordingSource

PODS = Query("objects", None, ("pods",))
PAGE = Query("get", CLIENT, ("/productpage",))


@dataclass
class Standing:
    """A live source as far as `record` can tell; it answers from a recording, and does ``at`` before each answer."""

    held: RecordingSource
    at: Callable[[Query], object] = lambda _: None
    kind = "sandbox"
    description = "something live"
    has_client = True

    def fetch(self, query: Query) -> Evidence:
        self.at(query)
        return self.held.fetch(query)

    def capture(self, points: Sequence[str]) -> AbstractContextManager[Capturing]:
        return self.held.capture(points)

    def front_door(self) -> FrontDoor:
        return self.held.front_door()

    def now(self) -> float:
        return self.held.now()

    def close(self) -> None:
        return


@pytest.fixture(scope="module")
def live() -> Standing:
    return Standing(RecordingSource(recording.bundled("article")))


@pytest.fixture(scope="module")
def written(live: Standing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one recording in it, as a folder and as a zip."""
    folder = tmp_path_factory.mktemp("written")
    recording.record(live, str(folder / "article"))
    recording.record(live, str(folder / "article.zip"))
    return folder


@pytest.fixture(params=["article", "article.zip"])
def path(request: pytest.FixtureRequest, written: Path) -> str:
    return str(written / request.param)


def test_a_recording_holds_every_piece_and_says_of_what_and_when(live: Standing, path: str) -> None:
    source = RecordingSource(path)
    assert source.kind == "recording"
    assert "something live" in source.description
    assert source.now() == live.now()
    assert source.has_client
    assert source.front_door() == live.front_door()
    assert len(source.manifest.pieces) == len(live.held.manifest.pieces)
    for piece in live.held.manifest.pieces:
        was, now = live.fetch(piece.query), source.fetch(piece.query)
        assert (now.raw, now.time, now.here, now.stderr) == (was.raw, was.time, was.here, was.stderr)


def test_nothing_else_lies_beside_a_new_recording_and_it_is_as_readable_as_any_file(written: Path) -> None:
    assert sorted(os.listdir(written)) == ["article", "article.zip"]
    umask = os.umask(0)
    os.umask(umask)
    assert (written / "article").stat().st_mode & 0o777 == 0o777 & ~umask
    assert (written / "article" / manifest.NAME).stat().st_mode & 0o777 == 0o666 & ~umask


def test_its_files_have_readable_names(written: Path) -> None:
    names = {str(file.relative_to(written / "article")) for file in (written / "article").rglob("*") if file.is_file()}
    with zipfile.ZipFile(written / "article.zip") as opened:
        assert set(opened.namelist()) == names
    assert {"manifest.json", "objects/pods.json", "rules/node-192.168.3.24.iptables-nft-save.txt"} <= names
    assert len({name.lower() for name in names}) == len(names)


def test_a_netns_answers_for_each_container_of_its_pod() -> None:
    source = RecordingSource(recording.bundled("sidecar"))
    every = places.places(Lab(source).objects("pods"), has_client=False)
    beside = [(one, other) for one in every for other in every if one < other and str(one) == str(other)]
    assert len(beside) >= 6
    for one, other in beside:
        rules = [source.fetch(Query("rules", place, ("iptables-nft-save",))) for place in (one, other)]
        assert [item.query.place for item in rules] == [one, other]
        assert rules[0].raw == rules[1].raw
        assert b"ISTIO_REDIRECT" in rules[0].raw


def test_opening_reads_no_piece(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "article", tmp_path / "hollow")
    for file in (tmp_path / "hollow").rglob("*"):
        if file.is_file() and file.name != manifest.NAME:
            file.write_bytes(b"?" * file.stat().st_size)
    source = RecordingSource(str(tmp_path / "hollow"))
    with pytest.raises(RecordingError, match=r"objects/pods\.json is damaged"):
        source.fetch(PODS)


@pytest.mark.parametrize("name", ["there", "there.zip", "dangling", "file"])
def test_what_exists_is_never_written_over(live: Standing, tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there.zip").write_bytes(b"mine")
    (tmp_path / "file").write_bytes(b"mine")
    (tmp_path / "dangling").symlink_to("nowhere")
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(RecordingError, match="exists already"):
        recording.record(Standing(live.held, at=unread), str(tmp_path / name))
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "there.zip").read_bytes() == b"mine"


def unread(query: Query) -> None:
    raise AssertionError(f"{query} was read before the refusal")


@pytest.mark.parametrize("name", ["absent/new", "file/new.zip", "a\0b", "n" * 300])
def test_a_folder_that_cannot_be_written_is_one_line_before_anything_is_read(
    live: Standing, tmp_path: Path, name: str
) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RecordingError) as refusal:
        recording.record(Standing(live.held, at=unread), f"{tmp_path}/{name}")
    assert "\n" not in str(refusal.value)
    assert os.listdir(tmp_path) == ["file"]


def test_a_full_disk_is_one_line_and_leaves_nothing(
    live: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(RecordingError, match="No space left"):
        recording.record(live, str(tmp_path / "new.zip"))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["new", "new.zip"])
@pytest.mark.parametrize("kind", ["objects", "rules", "get", "conntrack", "envoy"])
def test_an_interrupt_leaves_nothing(live: Standing, tmp_path: Path, name: str, kind: str) -> None:
    def interrupted(query: Query) -> None:
        if query.kind == kind:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recording.record(Standing(live.held, at=interrupted), str(tmp_path / name))
    assert os.listdir(tmp_path) == []


def test_an_interrupt_while_the_files_are_written_leaves_nothing(
    live: Standing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, count = zipfile.ZipFile.writestr, iter(range(1000))

    def interrupted(*given: object) -> None:
        if next(count) == 20:
            raise KeyboardInterrupt
        real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(zipfile.ZipFile, "writestr", interrupted)
    with pytest.raises(KeyboardInterrupt):
        recording.record(live, str(tmp_path / "new.zip"))
    assert os.listdir(tmp_path) == []


def test_the_listing_is_told_before_anything_is_written_or_recorded_of_the_places(
    live: Standing, tmp_path: Path
) -> None:
    asked: list[str] = []
    told: list[str] = []

    def listed(lines: Sequence[str]) -> None:
        assert set(asked) == {"objects", "addresses", "routes", "rules"}
        assert not (tmp_path / "new").exists()
        told.extend(lines)

    source = Standing(live.held, at=lambda query: asked.append(query.kind))
    assert set(recording.listing(source)) == set(recording.plan(source).lines)
    recording.record(source, str(tmp_path / "new"), on_listing=listed)
    assert told == list(recording.listing(source))
    assert any("iptables-nft-save" in line for line in told)
    assert any("26 points around get /productpage" in line for line in told)


def test_what_a_source_cannot_answer_is_listed_with_its_reason(live: Standing, tmp_path: Path) -> None:
    def refused(query: Query) -> None:
        if query.kind == "sockets":
            raise LabError("ss is not installed on this machine")

    held = recording.record(Standing(live.held, at=refused), str(tmp_path / "new"))
    assert {item.query.kind for item in held.not_held} == {"sockets"}
    assert any("not held: sockets" in line and "ss is not installed" in line for line in held.lines)
    source = RecordingSource(str(tmp_path / "new"))
    with pytest.raises(RecordingError, match="ss is not installed"):
        source.fetch(held.not_held[0].query)


def test_a_recording_is_not_recorded_again(live: Standing, tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="copy it"):
        recording.record(live.held, str(tmp_path / "new"))
    assert os.listdir(tmp_path) == []


def test_a_capture_replays_at_any_of_its_points_for_the_requests_of_its_block(path: str) -> None:
    source = RecordingSource(path)
    points = source.manifest.captures[0].piece.query.arguments
    with source.capture(points[3:5]) as running:
        with pytest.raises(LabError, match="before its with block ends"):
            _ = running.evidence
        source.fetch(PAGE)
    assert running.evidence.query.arguments == points[3:5]
    assert running.evidence.here.split()[-2:] == list(points[3:5])
    with source.capture(points[:1]) as first, source.capture(points[1:2]) as second:
        source.fetch(PAGE)
    assert first.evidence.query.arguments != second.evidence.query.arguments
    with pytest.raises(ZeroDivisionError), source.capture(points[:1]):
        _ = 1 / 0
    with source.capture(points[:1]):  # the block that failed is not heard any more
        source.fetch(PAGE)


@pytest.mark.parametrize(
    ("requests", "words"),
    [
        ([], ["no request", "/productpage with Cookie: user=jason"]),
        ([Query("get", CLIENT, ("/api/v1/products",))], ["/api/v1/products", "/productpage"]),
        ([PAGE, PAGE], ["/productpage, /productpage"]),
    ],
)
def test_a_capture_around_other_requests_is_an_error_that_names_those_it_has(
    path: str, requests: list[Query], words: list[str]
) -> None:
    source = RecordingSource(path)
    capture = source.capture(["client:eth0"])
    capture.__enter__()
    for query in requests:
        source.fetch(query)
    with pytest.raises(RecordingError) as refusal:
        capture.__exit__(None, None, None)
    assert [word for word in words if word not in str(refusal.value)] == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query("get", CLIENT, ("/nowhere",)), ["GET /nowhere", "/productpage", "with Cookie: user=jason", "/api/v1"]),
        (Query("get", CLIENT, ("/productpage", "Cookie: user=eve")), ["Cookie: user=eve", "/productpage"]),
        (Query("rules", Place("pod", "default", "gone", "app"), ("nft",)), ["default/gone", "node/192.168.3.24"]),
        (Query("exec", Place("node", "", "192.168.3.24", ""), ("uname",)), ["exec", "it holds", "rules"]),
        (Query("envoy", Place("pod", "default", "gone", "app"), ("stats",)), ["envoy of", "istio-ingress"]),
        (Query("logs", Place("node", "", "192.168.3.24", "")), ["logs", "productpage"]),
    ],
)
def test_evidence_that_is_not_held_is_one_line_that_names_what_is(path: str, query: Query, words: list[str]) -> None:
    with pytest.raises(RecordingError) as refusal:
        RecordingSource(path).fetch(query)
    message = str(refusal.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_an_admin_path_that_is_not_held_names_those_of_that_proxy(path: str) -> None:
    source = RecordingSource(path)
    proxy = next(piece.query.place for piece in source.manifest.pieces if piece.query.kind == "envoy")
    with pytest.raises(RecordingError, match=r"stats\?filter=x; of envoy there it holds: config_dump"):
        source.fetch(Query("envoy", proxy, ("stats?filter=x",)))


def test_what_no_source_answers_is_refused_as_by_every_source(path: str) -> None:
    with pytest.raises(LabError, match="not on the list"):
        RecordingSource(path).fetch(Query("envoy", None, ("quitquitquit",)))


def test_a_capture_point_that_is_not_held_names_those_that_are(path: str) -> None:
    with (
        pytest.raises(RecordingError, match=r"no capture at default/gone:eth0; it has: client:eth0"),
        RecordingSource(path).capture(["default/gone:eth0"]),
    ):
        pass


def test_a_bundled_recording_that_is_not_there_names_those_that_are() -> None:
    for name in ("moon", "../recordings/sidecar", ""):
        with pytest.raises(RecordingError, match="article, cluster, sidecar"):
            recording.bundled(name)


# What was done to a recording afterwards, and what its refusal must name.


def changed(folder: Path, **fields: object) -> None:
    file = folder / manifest.NAME
    told = json.loads(file.read_bytes())
    file.write_text(json.dumps(told | fields))


def of_first_piece(folder: Path, **fields: object) -> None:
    told = json.loads((folder / manifest.NAME).read_bytes())
    told["pieces"][0]["raw"] |= fields
    changed(folder, pieces=told["pieces"])


def flipped(file: Path) -> None:
    raw = bytearray(file.read_bytes())
    raw[len(raw) // 2] ^= 1
    file.write_bytes(bytes(raw))


def linked(folder: Path) -> None:
    (folder / "objects/pods.json").rename(folder.parent / "pods.json")
    (folder / "objects/pods.json").symlink_to(folder.parent / "pods.json")


def linked_above(folder: Path) -> None:
    (folder / "objects").rename(folder.parent / "objects")
    (folder / "objects").symlink_to(folder.parent / "objects")


DAMAGE: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "a changed piece": (lambda it: flipped(it / "objects/pods.json"), ["objects/pods.json", "damaged", "again"]),
    "a cut piece": (lambda it: (it / "objects/pods.json").write_bytes(b"{"), ["objects/pods.json", "1 bytes", "again"]),
    "a lost piece": (lambda it: (it / "objects/pods.json").unlink(), ["half a recording", "objects/pods.json"]),
    "no manifest": (lambda it: (it / manifest.NAME).unlink(), ["no manifest.json", "copied in part"]),
    "half a manifest": (
        lambda it: (it / manifest.NAME).write_bytes((it / manifest.NAME).read_bytes()[:5000]),
        ["manifest.json", "truncated"],
    ),
    "an empty manifest": (lambda it: (it / manifest.NAME).write_bytes(b""), ["manifest.json", "no recording's"]),
    "deep JSON": (lambda it: (it / manifest.NAME).write_bytes(b"[" * 100000), ["manifest.json", "no recording's"]),
    "no text": (lambda it: (it / manifest.NAME).write_bytes(b"\xff\xfe\0{"), ["manifest.json", "no recording's"]),
    "another tool's": (lambda it: changed(it, what="a web archive"), ["'a web archive'", "no recording"]),
    "a newer format": (
        lambda it: changed(it, format=7, tool="bookinfo-lab 9.1"),
        ["format 7", "bookinfo-lab 9.1", "update"],
    ),
    "a newer format with other fields": (lambda it: changed(it, format=2, pieces="elsewhere"), ["format 2", "update"]),
    "a field of another type": (lambda it: changed(it, made="today"), ["damaged", "made"]),
    "a field too few": (lambda it: changed(it, pieces=[{}]), ["damaged", "pieces[0]"]),
    "a name that leads out": (lambda it: of_first_piece(it, file="../../etc/passwd"), ["'../../etc/passwd'"]),
    "an absolute name": (lambda it: of_first_piece(it, file="/etc/passwd"), ["'/etc/passwd'"]),
    "another system's name": (lambda it: of_first_piece(it, file="..\\..\\boot.ini"), ["boot.ini"]),
    "a hidden name": (lambda it: of_first_piece(it, file=".ssh/id"), ["'.ssh/id'"]),
    "a wrong checksum": (lambda it: of_first_piece(it, sha256="0" * 64), ["objects/pods.json", "damaged"]),
    "a negative length": (lambda it: of_first_piece(it, length_bytes=-1), ["objects/pods.json"]),
}
IN_FOLDERS = {
    "a link": (linked, ["objects/pods.json"]),
    "a linked folder": (linked_above, ["objects/pods.json", "link"]),
    "a piece that is a folder": (
        lambda it: ((it / "objects/pods.json").unlink(), (it / "objects/pods.json").mkdir()),
        ["objects/pods.json"],
    ),
}


def zipped(folder: Path, *, top: str = "", how: int = zipfile.ZIP_DEFLATED) -> Path:
    made = folder.with_suffix(".zip")
    with zipfile.ZipFile(made, "w", how) as opened:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                opened.write(file, top + str(file.relative_to(folder)))
    return made


def refusal(path: Path) -> str:
    """What a user reads who opens a damaged recording and asks for something of it."""
    with pytest.raises(RecordingError) as error:
        RecordingSource(str(path)).fetch(PODS)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("form", ["folder", "zip"])
@pytest.mark.parametrize("name", [*DAMAGE, *IN_FOLDERS])
def test_a_damaged_recording_is_one_line_that_says_what_and_where(
    written: Path, tmp_path: Path, name: str, form: str
) -> None:
    if form == "zip" and name in IN_FOLDERS:
        return
    do, words = {**DAMAGE, **IN_FOLDERS}[name]
    shutil.copytree(written / "article", tmp_path / "hurt")
    do(tmp_path / "hurt")
    message = refusal(tmp_path / "hurt" if form == "folder" else zipped(tmp_path / "hurt"))
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda at: at / "nowhere", ["nowhere", "No such file", "bookinfo-lab record"]),
        (lambda at: Path("/dev/null"), ["neither a folder nor a zip"]),
        (lambda at: put(at / "text.zip", b"hello"), ["neither a folder nor a zip"]),
        (lambda at: put(at / "empty.zip", b""), ["neither a folder nor a zip"]),
        (lambda at: put(at / "empty.zip", b"PK\5\6" + bytes(18)), ["no manifest.json"]),
        (lambda at: other_zip(at / "photos.zip"), ["no manifest.json", "no recording"]),
        (lambda at: at, ["no manifest.json", "no recording"]),
    ],
)
def test_what_is_no_recording_is_refused_in_one_line(
    tmp_path: Path, make: Callable[[Path], Path], words: list[str]
) -> None:
    message = refusal(make(tmp_path))
    assert [word for word in words if word not in message] == []


def put(file: Path, raw: bytes) -> Path:
    file.write_bytes(raw)
    return file


def other_zip(file: Path) -> Path:
    with zipfile.ZipFile(file, "w") as opened:
        opened.writestr("beach.jpg", b"\xff\xd8")
    return file


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_zip_that_was_cut_short_is_refused_in_one_line(written: Path, tmp_path: Path, share: float) -> None:
    raw = (written / "article.zip").read_bytes()
    message = refusal(put(tmp_path / "cut.zip", raw[: int(len(raw) * share)]))
    assert "damaged or cut short" in message


def test_bytes_changed_at_random_end_in_an_error_of_a_line_or_the_very_bytes_that_were_recorded(
    written: Path, tmp_path: Path
) -> None:
    raw = (written / "article.zip").read_bytes()
    right = RecordingSource(str(written / "article.zip")).fetch(PODS).raw
    chance = random.Random(7)
    refusals = []
    for _ in range(300):
        hurt = bytearray(raw)
        for _ in range(chance.randint(1, 40)):
            hurt[chance.randrange(len(hurt) - 20000 if chance.random() < 0.5 else 0, len(hurt))] = chance.randrange(256)
        file = put(tmp_path / "hurt.zip", bytes(hurt))
        try:
            assert RecordingSource(str(file)).fetch(PODS).raw == right
        except RecordingError as error:
            refusals.append(str(error))
    assert len(refusals) > 30
    assert [text for text in refusals if "\n" in text] == []


def test_a_zip_made_by_hand_of_the_folder_is_read(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "article", tmp_path / "mine")
    for top in ("", "mine/"):
        assert RecordingSource(str(zipped(tmp_path / "mine", top=top))).fetch(PODS).raw


def test_a_piece_larger_than_any_is_refused_before_it_is_read(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "article", tmp_path / "large")
    size = archive.PIECE_LIMIT_BYTES + 1
    with open(tmp_path / "large/objects/pods.json", "wb") as file:
        file.truncate(size)
    of_first_piece(tmp_path / "large", length_bytes=size)
    assert "larger than any recording" in refusal(tmp_path / "large")


def test_a_zip_that_lies_about_a_piece_s_size_gives_no_more_than_it_said(written: Path, tmp_path: Path) -> None:
    shutil.copytree(written / "article", tmp_path / "bomb")
    size = (tmp_path / "bomb/objects/pods.json").stat().st_size
    (tmp_path / "bomb/objects/pods.json").write_bytes(b"0" * 50_000_000)
    raw = zipped(tmp_path / "bomb").read_bytes()
    hurt = raw.replace(struct.pack("<I", 50_000_000), struct.pack("<I", size))
    assert hurt != raw
    assert "objects/pods.json" in refusal(put(tmp_path / "bomb.zip", hurt))


def test_an_encrypted_zip_is_refused_in_one_line(written: Path, tmp_path: Path) -> None:
    raw = bytearray((written / "article.zip").read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = raw.find(mark)
        while at >= 0:
            raw[at + offset] |= 1
            at = raw.find(mark, at + 1)
    assert "encrypted" in refusal(put(tmp_path / "locked.zip", bytes(raw)))


def test_the_plan_asks_for_each_place_once_and_for_all_capture_points(live: Standing) -> None:
    objects = Lab(live).objects()
    plan = contents.planned(objects, has_client=True)
    keys = [contents.key(query) for query in plan.queries]
    assert len(set(keys)) == len(keys)
    pods = [f"{item['metadata']['namespace']}/{item['metadata']['name']}" for item in objects if item["kind"] == "Pod"]
    expected = {f"{pod}:{point}" for pod in pods for point in ("eth0", "lo", "veth")}
    assert set(plan.captures[0].points) == expected | {"client:eth0", "node/192.168.3.24:eth0"}
    without = contents.planned(objects, has_client=False)
    assert not any(query.place == CLIENT for query in without.queries)
    assert "client:eth0" not in without.captures[0].points
