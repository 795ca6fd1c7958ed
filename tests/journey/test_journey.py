"""Journeys from access-log lines: which lines belong to one request, which pair up, what is never guessed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab import journey
from bookinfo_lab.journey import ProxyLog

AGENT = "bookinfo-lab/1"
GATE, PAGE, STARS = ("gate", "10.0.0.1"), ("page", "10.0.0.2"), ("stars", "10.0.0.3")


def line(at_ms: int, local: str, upstream: str, cluster: str, **fields: Any) -> dict[str, Any]:
    """One access-log line with Istio's fields; ``local`` is upstream_local_address."""
    base = {
        "request_id": "id-1",
        "start_time": f"2026-01-01T00:00:00.{at_ms:03}Z",
        "method": "GET",
        "path": "/productpage",
        "response_code": 200,
        "response_flags": "-",
        "duration": 5,
        "upstream_cluster": cluster,
        "upstream_host": upstream,
        "upstream_local_address": local,
        "downstream_local_address": None,
        "downstream_remote_address": None,
        "user_agent": "other",
        "authority": "front",
    }
    return base | fields


def request() -> dict[str, list[dict[str, Any]]]:
    """A request's lines by pod: gateway → page (whose client is named by x-forwarded-for), page → stars."""
    front = {
        "downstream_local_address": "10.0.0.1:8080",
        "downstream_remote_address": "192.0.2.9:1",
        "user_agent": AGENT,
    }
    gate = line(0, "10.0.0.1:4001", "10.0.0.2:9080", "outbound|9080||page", **front)
    came = {"downstream_local_address": "10.0.0.2:9080", "downstream_remote_address": "192.0.2.9:0"}
    page_in = line(1, "127.0.0.6:1", "10.0.0.2:9080", "inbound|9080||", **came)
    page_out = line(2, "10.0.0.2:5001", "10.0.0.3:9080", "outbound|9080||stars", path="/stars")
    asked = {"downstream_local_address": "10.0.0.3:9080", "downstream_remote_address": "10.0.0.2:5001"}
    stars_in = line(3, "127.0.0.6:2", "10.0.0.3:9080", "inbound|9080||", path="/stars", **asked)
    return {"gate": [gate], "page": [page_in, page_out], "stars": [stars_in]}


def logs(lines: dict[str, list[Any]]) -> list[ProxyLog]:
    def text(name: str) -> str:
        return "".join((item if isinstance(item, str) else json.dumps(item)) + "\n" for item in lines.get(name, ()))

    return [ProxyLog(*place, place == GATE, text(place[0])) for place in (GATE, PAGE, STARS)]


def joined(lines: dict[str, list[Any]]) -> journey.Journey:
    found = journey.join(logs(lines), AGENT)
    assert found is not None
    return found


def test_hops_stand_in_the_order_they_were_sent_with_both_halves() -> None:
    found = joined(request())
    assert [(hop.source, hop.destination, hop.depth) for hop in found.hops] == [
        ("gate", "page", 0),
        ("page", "stars", 1),
    ]
    assert all((hop.sent_ms, hop.received_ms) == (5, 5) for hop in found.hops)
    assert (found.request_id, found.client, found.unpaired) == ("id-1", "192.0.2.9:1", 0)


def test_without_the_gateways_line_there_is_no_journey() -> None:
    assert journey.join(logs(request() | {"gate": []}), AGENT) is None
    assert journey.join(logs(request()), "somebody else") is None
    assert journey.join([], AGENT) is None


def test_a_half_that_is_missing_is_counted_and_not_invented() -> None:
    found = joined(request() | {"stars": []})
    assert (found.hops[1].destination, found.hops[1].received_ms) == ("10.0.0.3:9080", None)
    lines = request()
    del lines["page"][1]
    assert [hop.destination for hop in joined(lines).hops] == ["page"]
    assert joined(lines).unpaired == 1


@pytest.mark.parametrize(
    "noise",
    [
        "[2026-01-01][warning] not JSON",
        '{"request_id": "id-1", "start_time": "2026-01-01T00:00:00.0',
        "{}",
        "[1, 2]",
        '"text"',
        '{"request_id": "id-9", "start_time": "2026-01-01T00:00:00.000Z", "upstream_cluster": "inbound|1||"}',
    ],
)
def test_other_lines_change_nothing(noise: str) -> None:
    lines = request()
    assert joined({name: [noise, *own, noise] for name, own in lines.items()}) == joined(lines)


@pytest.mark.parametrize(
    "wrong",
    [
        {"start_time": "noon"},
        {"start_time": "2026-01-01T00:00:00"},
        {"start_time": 5},
        {"duration": "long"},
        {"response_code": "x"},
        {"upstream_host": 7},
    ],
)
def test_a_line_with_a_field_of_another_kind_is_no_crash(wrong: dict[str, Any]) -> None:
    lines = request()
    lines["stars"] = [lines["stars"][0] | wrong]
    lines["page"][1] |= wrong
    assert journey.join(logs(lines), AGENT) is not None


def test_two_calls_to_the_same_place_are_two_hops() -> None:
    lines = request()
    again = {"start_time": "2026-01-01T00:00:00.010Z", "upstream_local_address": "10.0.0.2:5002"}
    lines["page"].append(lines["page"][1] | again)
    received = {"start_time": "2026-01-01T00:00:00.011Z", "downstream_remote_address": "10.0.0.2:5002", "duration": 9}
    lines["stars"].append(lines["stars"][0] | received)
    assert [hop.received_ms for hop in joined(lines).hops] == [5, 5, 9]


@given(st.permutations(range(4)))
def test_the_order_of_the_lines_of_a_log_does_not_matter(order: list[int]) -> None:
    lines = request()
    noise = [json.dumps({"request_id": str(number), "start_time": "2026-01-01T00:00:00.000Z"}) for number in order]
    mixed = {
        name: [item for pair in zip(noise, own * 4, strict=False) for item in pair][: 2 * len(own)]
        for name, own in lines.items()
    }
    assert joined({name: list(reversed(own)) for name, own in mixed.items()}) == joined(lines)


def test_what_came_off_the_wire_is_escaped_and_shortened() -> None:
    lines = request()
    lines["gate"][0] |= {"path": "/\x1b[31m\u202e" + "a" * 1000, "authority": "<b>\n"}
    text = journey.as_text(joined(lines))
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<b>\\n" in text
    assert max(map(len, text.splitlines())) < 400


def test_a_route_that_nobody_has_ends_at_nobody() -> None:
    lines = request()
    lines["gate"][0] |= {"upstream_host": None, "upstream_cluster": None, "response_code": 404, "response_flags": "NR"}
    found = joined({"gate": lines["gate"]})
    assert (found.hops[0].status, found.hops[0].flags, found.unpaired) == (404, "NR", 0)
    assert "nobody" in journey.as_text(found)
    assert json.loads(json.dumps(journey.as_document(found)))["hops"][0]["status"] == 404


def test_a_line_separator_inside_a_field_does_not_cut_the_line() -> None:
    lines = request()
    raw = json.dumps(lines["stars"][0] | {"path": "/a\u2028b\u0085c"}, ensure_ascii=False)
    assert joined(lines | {"stars": [raw]}).unpaired == 0


def test_a_line_nested_too_deep_is_passed_over() -> None:
    assert joined(request() | {"stars": [request()["stars"][0], '{"a":' + "[" * 200000]}).unpaired == 0


def test_a_caller_stands_before_whom_it_asks_when_times_are_equal() -> None:
    lines = {
        name: [item | {"start_time": "2026-01-01T00:00:00.000Z"} for item in own] for name, own in request().items()
    }
    every = logs(lines)
    for order in (every, every[::-1]):
        found = journey.join(order, AGENT)
        assert found is not None
        assert [hop.source for hop in found.hops] == ["gate", "page"]
