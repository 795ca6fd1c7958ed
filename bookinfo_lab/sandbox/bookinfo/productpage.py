"""Bookinfo's product page: asks details and reviews and shows one HTML page.  `python productpage.py PORT`.

Paths, documents, messages and retries as Istio's samples/bookinfo/src/productpage/productpage.py.  Differences:
the user is the plain cookie `user=` that the 2017 sample set (today's signs a session cookie), from which the
header end-user is made; a request without trace headers gets none (the sample begins a trace of its own); sign-in
leads to /productpage, not to whatever Referer says; there is no /metrics and no FLOOD_FACTOR.
"""

import os
import sys

import page
import service
import wire

_POD = os.environ.get("HOSTNAME") or os.uname().nodename
_TIMEOUT_S = 3.0
_USER_BYTES = 256
_STATIC = {"bookinfo.css": "text/css; charset=utf-8"}
_PRODUCTS = (
    {
        "id": 0,
        "title": "The Comedy of Errors",
        "descriptionHtml": '<a href="https://en.wikipedia.org/wiki/The_Comedy_of_Errors">Wikipedia Summary</a>: '
        "The Comedy of Errors is one of <b>William Shakespeare's</b> early plays. It is his shortest and one of his "
        "most farcical comedies, with a major part of the humour coming from slapstick and mistaken identity, in "
        "addition to puns and word play.",
    },
)


def _user_cookie(request: wire.Request) -> str:
    """The value of the cookie `user` as it was sent, percent-encoded; empty where nobody is signed in."""
    for pair in request.headers.get("cookie", "").split(";"):
        name, _, value = pair.strip().partition("=")
        if name == "user":
            return value.strip('"')
    return ""


def _user(request: wire.Request) -> str:
    cookie = _user_cookie(request)
    if "%" not in cookie:
        return cookie
    from urllib.parse import unquote  # 6 ms that only a name with special characters needs

    return unquote(cookie, errors="replace")


def _forwarded(request: wire.Request) -> dict[str, str]:
    """The header fields for calls on behalf of ``request``; end-user is made of the cookie, never passed on."""
    headers = service.forwarded(request)
    if cookie := _user_cookie(request):
        headers["end-user"] = cookie
    return headers


def _ask(role: str, what: str, product_id: str, headers: dict[str, str], attempts: int = 1) -> tuple[int, object]:
    """Status and document of another service; where it is not 200, an error document as the sample words it."""
    address = service.upstream(role)
    status = 500
    for _ in range(attempts):
        try:
            reply = service.get(address, f"/{role}/{product_id}", headers, _TIMEOUT_S)
            status = reply.status
            if status == 200:
                return 200, service.from_json(reply.body)
        except (OSError, ValueError) as error:
            status = 500
            service.note(f"{role} at {address[0]}:{address[1]}: {error}")
    return status, {"error": f"Sorry, product {what} are currently unavailable for this book."}


def _details(product_id: str, headers: dict[str, str]) -> tuple[int, object]:
    return _ask("details", "details", product_id, headers)


def _reviews(product_id: str, headers: dict[str, str]) -> tuple[int, object]:
    # Two attempts, on purpose: Istio's task on fault injection depends on the six seconds that they may take.
    return _ask("reviews", "reviews", product_id, headers, attempts=2)


def _ratings(product_id: str, headers: dict[str, str]) -> tuple[int, object]:
    return _ask("ratings", "ratings", product_id, headers)


def _html(document: str) -> service.Response:
    return service.Response(200, document.encode("utf-8", "replace"), "text/html; charset=utf-8")


def index(request: wire.Request) -> service.Response:
    """The entrance page."""
    calls = (("productpage", "details"), ("productpage", "reviews"), ("reviews", "ratings"))
    addressed = tuple((caller, callee, "{}:{}".format(*service.upstream(callee))) for caller, callee in calls)
    return _html(page.index_page(addressed, _user(request)))


def productpage(request: wire.Request) -> service.Response:
    """The page; its status is 200 also where details or reviews failed, and it says so."""
    headers = _forwarded(request)
    details = _details("0", headers)
    reviews = _reviews("0", headers)
    product = {key: str(value) for key, value in _PRODUCTS[0].items()}
    request_id = request.headers.get("x-request-id")
    return _html(page.product_page(product, details, reviews, _user(request), _POD, request_id))


def login(request: wire.Request) -> service.Response:
    """Set the cookie `user` from the form field username; there is no password to check."""
    from urllib.parse import parse_qs, quote

    form = parse_qs(request.body.decode("utf-8", "replace"), max_num_fields=20)
    cookie = quote(form.get("username", [""])[0], safe="@+")
    if len(cookie) > _USER_BYTES:
        return service.as_json({"error": f"the user name is longer than {_USER_BYTES} bytes"}, 400)
    return _to_page(f"user={cookie}; Path=/; HttpOnly; SameSite=Lax")


def logout(_request: wire.Request) -> service.Response:
    """Expire the cookie `user`."""
    return _to_page("user=; Path=/; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=0; HttpOnly; SameSite=Lax")


def _to_page(cookie: str) -> service.Response:
    headers = (("Location", "/productpage"), ("Set-Cookie", cookie))
    return service.Response(302, b"", "text/html; charset=utf-8", headers)


def health(_request: wire.Request) -> service.Response:
    """That the service is up."""
    return service.Response(200, b"Product page is healthy", "text/html; charset=utf-8")


def static(_request: wire.Request, name: str) -> service.Response:
    """One of the page's own files."""
    if name not in _STATIC:
        return service.as_json({"error": "no such path"}, 404)
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "static", name), "rb") as file:
        # Kept by the browser, so that a reload of the page is one request and not two.
        return service.Response(200, file.read(), _STATIC[name], (("Cache-Control", "public, max-age=3600"),))


def products(_request: wire.Request) -> service.Response:
    """The list of products."""
    return service.as_json(_PRODUCTS)


def product_details(request: wire.Request, product_id: str) -> service.Response:
    """What details answers for the product."""
    status, document = _details(product_id, _forwarded(request))
    return service.as_json(document, status)


def product_reviews(request: wire.Request, product_id: str) -> service.Response:
    """What reviews answers for the product."""
    status, document = _reviews(product_id, _forwarded(request))
    return service.as_json(document, status)


def product_ratings(request: wire.Request, product_id: str) -> service.Response:
    """What ratings answers for the product."""
    status, document = _ratings(product_id, _forwarded(request))
    return service.as_json(document, status)


if __name__ == "__main__":
    service.run(
        (
            ("GET", "/", index),
            ("GET", "/index.html", index),
            ("GET", "/productpage", productpage),
            ("POST", "/login", login),
            ("GET", "/logout", logout),
            ("GET", "/health", health),
            ("GET", "/static/{}", static),
            ("GET", "/api/v1/products", products),
            ("GET", "/api/v1/products/{}", product_details),
            ("GET", "/api/v1/products/{}/reviews", product_reviews),
            ("GET", "/api/v1/products/{}/ratings", product_ratings),
        ),
        sys.argv,
    )
