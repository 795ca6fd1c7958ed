"""A capture point that cannot be costs no other its place, and without a front door nothing is asked for.

The bundled recordings stand in for a live source, which refuses what is asked here.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bookinfo_lab.errors import LabError
from bookinfo_lab.kube.places import CLIENT
from bookinfo_lab.lab import Lab
from bookinfo_lab.sources import contents, recorder, recording
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query
from bookinfo_lab.sources.recording import RecordingSource

PAGE = Query("get", CLIENT, ("/productpage",))


@dataclass
class Refusing:
    """A live source as far as `record` can tell; ``asked`` is what it was asked, captures as their points.

    ``refused`` are points at which no capture begins, and ``broken`` those at which it breaks off; it has no door where
    ``no_door`` says why.
    """

    held: RecordingSource
    refused: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    fails: Callable[[Query], object] = lambda _: None
    no_door: str = ""
    asked: list[Query] = field(default_factory=list)
    kind = "sandbox"
    description = "something live"
    has_client = True

    def fetch(self, query: Query) -> Evidence:
        self.asked.append(query)
        self.fails(query)
        return self.held.fetch(query)

    @contextmanager
    def capture(self, points: Sequence[str]) -> Iterator[Capturing]:
        self.asked.append(Query("capture", None, tuple(points)))
        for name in points:
            if name in self.refused:
                raise LabError(self.refused[name])
        if len(points) == 1:  # nothing is requested in it, which no recording replays
            yield self  # type: ignore[misc]
            return
        with self.held.capture(points) as running:
            yield running
            for name in points:
                if name in self.broken:
                    raise LabError(self.broken[name])

    def front_door(self) -> FrontDoor:
        if self.no_door:
            raise LabError(self.no_door)
        return self.held.front_door()

    def now(self) -> float:
        return self.held.now()

    def close(self) -> None:
        return

    @property
    def captures(self) -> list[tuple[str, ...]]:
        return [query.arguments for query in self.asked if query.kind == "capture"]


@pytest.fixture(scope="module")
def held() -> RecordingSource:
    return RecordingSource(recording.bundled("article"))


@pytest.fixture
def points(held: RecordingSource) -> tuple[str, ...]:
    return held.manifest.captures[0].piece.query.arguments


def test_a_point_that_cannot_be_is_listed_with_its_reason_and_the_others_are_captured(
    held: RecordingSource, points: tuple[str, ...], tmp_path: Path
) -> None:
    refused = {points[2]: "no container can be put into it", points[-1]: "tcpdump did not begin"}
    made = recording.record(Refusing(held, refused), str(tmp_path / "new"))
    left = tuple(name for name in points if name not in refused)
    assert [item.points for item in made.captures] == [left, left]
    assert {(item.query, item.reason) for item in made.not_held} == {
        (contents.at(name), reason) for name, reason in refused.items()
    }
    assert len(made.not_held) == len(refused)
    assert f"not held: capture {points[-1]}: tcpdump did not begin" in made.lines
    source = RecordingSource(str(tmp_path / "new"))
    with source.capture(left[:2]) as running:
        source.fetch(PAGE)
    assert running.evidence.query.arguments == left[:2]
    why = f"no capture at {points[2]} .no container can be put into it.; it has: "
    with pytest.raises(LabError, match=why), source.capture([points[2]]):
        pass


def test_each_point_is_asked_alone_once_and_no_refused_one_again(
    held: RecordingSource, points: tuple[str, ...], tmp_path: Path
) -> None:
    source = Refusing(held, {points[0]: "no"})
    recording.record(source, str(tmp_path / "new"))
    assert source.captures == [points, *((name,) for name in points), points[1:], points[1:]]


def test_where_no_point_can_be_its_requests_are_made_alone(
    held: RecordingSource, points: tuple[str, ...], tmp_path: Path
) -> None:
    made = recording.record(Refusing(held, dict.fromkeys(points, "nothing is made here")), str(tmp_path / "new"))
    assert made.captures == ()
    assert [query.arguments for query in made.requests] == [*contents.CAPTURED, *contents.REQUESTED]
    assert {item.query for item in made.not_held} == set(map(contents.at, points))
    missing = f"not held: capture {points[0]} and {len(points) - 1} more: nothing is made here"
    assert [line for line in made.lines if line.startswith("not held")] == [missing]


def test_a_capture_that_breaks_off_or_a_request_that_fails_in_it_is_no_points_fault(
    held: RecordingSource, points: tuple[str, ...], tmp_path: Path
) -> None:
    source = Refusing(held, broken={points[1]: "the connection was lost"})
    made = recording.record(source, str(tmp_path / "broken"))
    assert source.captures == [points, points]
    assert {(item.query.arguments, item.reason) for item in made.not_held} == {(points, "the connection was lost")}
    assert [query.arguments for query in made.requests] == [*contents.CAPTURED, *contents.REQUESTED]

    def fails(query: Query) -> None:
        if query == PAGE:
            raise LabError("no pod of it is ready")

    source = Refusing(held, fails=fails)
    made = recording.record(source, str(tmp_path / "failing"))
    assert source.captures == [points, points]
    assert [item.points for item in made.captures] == [points]
    assert {item.reason for item in made.not_held} == {"no pod of it is ready"}


def test_without_a_front_door_the_refusal_comes_before_anything_is_asked(held: RecordingSource, tmp_path: Path) -> None:
    source = Refusing(held, no_door="no Bookinfo is seen here")
    told: list[Sequence[str]] = []
    with pytest.raises(LabError, match=r"^no Bookinfo is seen here$"):
        recording.record(source, str(tmp_path / "new.zip"), told.append)
    with pytest.raises(LabError, match=r"^no Bookinfo is seen here$"):
        recorder.plan(source)
    assert source.asked == []
    assert told == []
    assert os.listdir(tmp_path) == []


def test_the_door_is_the_one_that_was_there_at_first(held: RecordingSource, tmp_path: Path) -> None:
    def fails(query: Query) -> None:
        if query.kind == "logs":
            source.no_door = "it was deleted meanwhile"

    source = Refusing(held, fails=fails)
    recording.record(source, str(tmp_path / "new"))
    assert source.no_door
    assert RecordingSource(str(tmp_path / "new")).front_door() == held.front_door()


def test_no_veth_is_planned_of_a_pod_in_its_nodes_network_namespace(held: RecordingSource) -> None:
    objects = Lab(held).objects()
    pod = next(item for item in objects if item["kind"] == "Pod")
    name = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
    before, after = (
        contents.planned(given, has_client=True).captures[0].points
        for given in (objects, [*(item for item in objects if item is not pod), in_node(pod)])
    )
    assert set(before) - set(after) == {f"{name}:veth"}
    assert {f"{name}:eth0", f"{name}:lo"} <= set(after)


def in_node(pod: dict[str, object]) -> dict[str, object]:
    return {**pod, "spec": {**pod["spec"], "hostNetwork": True}}  # type: ignore[dict-item]
