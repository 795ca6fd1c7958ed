"""What a user asked of the API server, by the server's own log: (verb, resource, subresource)."""

import json
import secrets
import time
from pathlib import Path
from typing import Any

from bookinfo_lab.sources.cluster.api import Api

Request = tuple[str, str, str]
# Every user that the server knows may ask these.
ANYONE: frozenset[Request] = frozenset(
    {("get", "/version", ""), ("create", "selfsubjectaccessreviews", ""), ("create", "selfsubjectreviews", "")}
)


def events(log: Path, user: str, since: int = 0) -> list[dict[str, Any]]:
    """The user's events behind byte ``since``; the last line may be half written."""
    with log.open("rb") as file:
        file.seek(since)
        lines = file.read().splitlines(keepends=True)
    every = [json.loads(line) for line in lines if line.endswith(b"\n")]
    return [event for event in every if event["user"].get("username") == user]


def request(event: dict[str, Any]) -> Request:
    about = event.get("objectRef") or {}
    if not about.get("resource"):
        return (event["verb"], event["requestURI"].partition("?")[0], "")
    return (event["verb"], about["resource"], about.get("subresource", ""))


def requests(log: Path, user: str, since: int = 0) -> set[Request]:
    return {request(event) for event in events(log, user, since)}


def settle(log: Path, api: Api) -> None:
    """Return when everything that this process has asked before is in the log: a last request is waited for."""
    mark = secrets.token_hex(8)
    api.get("/version", mark=mark)
    deadline = time.monotonic() + 10
    while mark.encode() not in log.read_bytes():
        assert time.monotonic() < deadline, "the log does not show a request after 10 s"
        time.sleep(0.05)


def check(asked: set[Request], allowed: frozenset[Request]) -> None:
    """Nothing outside the list was asked."""
    outside = asked - allowed
    assert not outside, f"asked outside the allow-list: {sorted(outside)}"
