"""Bookinfo's reviews service, v1 to v3: two reviews, with stars from ratings or without.  `python reviews.py PORT`.

The version is its environment, as in Istio's sample: ENABLE_RATINGS=true asks ratings (v2, v3), STAR_COLOR is
black where not given.  Answers as samples/bookinfo/src/reviews (LibertyRestEndpoint.java), down to the texts
"null" for a missing HOSTNAME and CLUSTER_NAME; where HOSTNAME is missing the host's own name is taken first.
"""

import os
import sys

import service
import wire

_HAS_RATINGS = os.environ.get("ENABLE_RATINGS", "").lower() == "true"
_STAR_COLOR = os.environ.get("STAR_COLOR", "black")
_POD = os.environ.get("HOSTNAME") or os.uname().nodename or "null"
_KUBE = os.environ.get("CLUSTER_NAME", "null")
_TIMEOUT_S = 10.0 if _STAR_COLOR == "black" else 2.5
_REVIEWS = (
    ("Reviewer1", "An extremely entertaining play by Shakespeare. The slapstick humour is refreshing!"),
    (
        "Reviewer2",
        "Absolutely fun and entertaining. The play lacks thematic depth when compared to other plays by Shakespeare.",
    ),
)


def _stars(product_id: int, headers: dict[str, str]) -> dict[str, object]:
    """Stars by reviewer; empty where ratings did not answer, which is told on stderr."""
    host, port = service.upstream("ratings")
    try:
        reply = service.get((host, port), f"/ratings/{product_id}", headers, _TIMEOUT_S)
        if reply.status != 200:
            raise ValueError(f"status {reply.status}")
        document = service.from_json(reply.body)
    except (OSError, ValueError) as error:
        service.note(f"ratings at {host}:{port}: {error}")
        return {}
    stars = document.get("ratings") if isinstance(document, dict) else None
    return stars if isinstance(stars, dict) else {}


def reviews(request: wire.Request, segment: str) -> service.Response:
    """The reviews of a product; 404 where the id is not a number."""
    product_id = service.number(segment)
    if product_id is None:
        return service.as_json({"error": "no such path"}, 404)
    stars = _stars(product_id, service.forwarded(request, "end-user")) if _HAS_RATINGS else {}
    listed = []
    for reviewer, text in _REVIEWS:
        review: dict[str, object] = {"reviewer": reviewer, "text": text}
        if _HAS_RATINGS:
            given = stars.get(reviewer)
            if isinstance(given, int) and not isinstance(given, bool):
                review["rating"] = {"stars": given, "color": _STAR_COLOR}
            else:
                review["rating"] = {"error": "Ratings service is currently unavailable"}
        listed.append(review)
    return service.as_json({"id": str(product_id), "podname": _POD, "clustername": _KUBE, "reviews": listed})


def health(_request: wire.Request) -> service.Response:
    """That the service is up."""
    return service.as_json({"status": "Reviews is healthy"})


if __name__ == "__main__":
    service.run((("GET", "/reviews/{}", reviews), ("GET", "/health", health)), sys.argv)
