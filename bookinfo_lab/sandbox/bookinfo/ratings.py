"""Bookinfo's ratings service: stars by reviewer, kept in memory.  `python ratings.py PORT`.

Answers as Istio's samples/bookinfo/src/ratings/ratings.js, with its faulty versions by SERVICE_VERSION:
v-faulty (half of the answers are 503), v-delayed (half come after 7 s), v-unavailable (503 every other minute)
and v-unhealthy (503 and a failing /health every other quarter of an hour).  Left out: v2 and its databases.
"""

import os
import random
import sys
import time

import service
import wire

_VERSION = os.environ.get("SERVICE_VERSION", "v1")
_BEGAN = time.monotonic()
_given: dict[int, object] = {}
_DELAY_S = 7.0
_TURN_S = {"v-unavailable": 60.0, "v-unhealthy": 900.0}


def _is_away() -> bool:
    turn_s = _TURN_S.get(_VERSION)
    return turn_s is not None and int((time.monotonic() - _BEGAN) / turn_s) % 2 == 1


def ratings(_request: wire.Request, segment: str) -> service.Response:
    """The product's ratings: the ones last posted, else five and four stars."""
    product_id = service.number(segment)
    if product_id is None:
        return service.as_json({"error": "please provide numeric product ID"}, 400)
    fails = random.random() < 0.5
    if _is_away() or (_VERSION == "v-faulty" and fails):
        return service.as_json({"error": "Service unavailable"}, 503)
    if _VERSION == "v-delayed" and fails:
        time.sleep(_DELAY_S)
    stars = _given.get(product_id, {"Reviewer1": 5, "Reviewer2": 4})
    return service.as_json({"id": product_id, "ratings": stars})


def rate(request: wire.Request, segment: str) -> service.Response:
    """Keep the posted JSON document as the product's ratings and answer them."""
    product_id = service.number(segment)
    if product_id is None:
        return service.as_json({"error": "please provide numeric product ID"}, 400)
    try:
        _given[product_id] = service.from_json(request.body)
    except ValueError:
        return service.as_json({"error": "please provide valid ratings JSON"}, 400)
    return service.as_json({"id": product_id, "ratings": _given[product_id]})


def health(_request: wire.Request) -> service.Response:
    """That the service is up."""
    if _VERSION == "v-unhealthy" and _is_away():
        return service.as_json({"status": "Ratings is not healthy"}, 500)
    return service.as_json({"status": "Ratings is healthy"})


if __name__ == "__main__":
    service.run((("GET", "/ratings/{}", ratings), ("POST", "/ratings/{}", rate), ("GET", "/health", health)), sys.argv)
