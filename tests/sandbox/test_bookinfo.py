"""Bookinfo's services as they run in a pod: own processes, real sockets, no package but the standard library."""

import contextlib
import http.client
import importlib.util
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bookinfo_lab.sandbox

FOLDER = Path(bookinfo_lab.sandbox.__file__).parent / "bookinfo"
# What Istio documents as trace context and Bookinfo copies, written out here on purpose.
COPIED = {
    "x-request-id": "12345678-1234-9234-8234-123456789abc",
    "x-ot-span-context": "9e5393600f00c420;9e5393600f00c420;0000000000000000",
    "x-datadog-trace-id": "1",
    "x-datadog-parent-id": "2",
    "x-datadog-sampling-priority": "1",
    "traceparent": "00-80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-01",
    "tracestate": "a=b,c=d",
    "x-cloud-trace-context": "105445aa7843bc8bf206b120001000/0;o=1",
    "grpc-trace-bin": "AAAA",
    "x-b3-traceid": "80f198ee56343ba864fe8b2a57d3eff7",
    "x-b3-spanid": "e457b5a2e4d86bd1",
    "x-b3-parentspanid": "05e3ac9a4f6e3b90",
    "x-b3-sampled": "1",
    "x-b3-flags": "0",
    "sw8": "1-MQ==",
    "user-agent": "test/1",
    "authorization": "Bearer abc",
    "jwt": "abc",
    "cookie": "theme=dark; user=jason",
}


def free_port() -> int:
    """A port that nobody has, below those that the kernel gives to clients: none can take it meanwhile."""
    while True:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", random.randrange(20000, 32768)))
            return int(probe.getsockname()[1])


class App:
    """One service in a process of its own, started as a pod starts it."""

    def __init__(self, role: str, folder: Path, **env: object) -> None:
        self.port = free_port()
        self.log = folder / f"{role}-{self.port}.log"
        self.errors = folder / f"{role}-{self.port}.err"
        with self.log.open("wb") as out, self.errors.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-S", f"{role}.py", str(self.port)],  # -S: not even the venv's packages are there
                cwd=FOLDER,
                stdout=out,
                stderr=err,
                env={"PYTHONDONTWRITEBYTECODE": "1", **{key: str(value) for key, value in env.items()}},
            )
        wait_for(lambda: self.listens() or self.process.poll() is not None)
        assert self.process.poll() is None, self.errors.read_text()

    def listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(5)

    def get(self, path: str, method: str = "GET", body: bytes | None = None, **headers: str) -> "Answer":
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=15)
        try:
            connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
            reply = connection.getresponse()
            return Answer(reply.status, dict(reply.getheaders()), reply.read())
        finally:
            connection.close()

    def raw(self, sent: bytes) -> bytes:
        """All that comes back for ``sent``, until the service ends the connection."""
        with socket.create_connection(("127.0.0.1", self.port), 10) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: connection.recv(65536), b""))

    def logged(self, count: int) -> list[dict[str, object]]:
        wait_for(lambda: len(self.log.read_text().splitlines()) >= count)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


class Answer:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body
        self.text = body.decode()

    def json(self) -> object:
        assert self.headers["Content-Type"] == "application/json"
        return json.loads(self.body)


def wait_for(condition, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


def at(role: str, port: int) -> dict[str, object]:
    return {f"{role.upper()}_HOSTNAME": "127.0.0.1", f"{role.upper()}_SERVICE_PORT": port}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[object]:
    """A function that starts a service; all are ended, and none may have written a traceback."""
    folder = tmp_path_factory.mktemp("bookinfo")
    apps: list[App] = []

    def starter(role: str, **env: object) -> App:
        apps.append(App(role, folder, **env))
        return apps[-1]

    yield starter
    for app in apps:
        app.stop()
    assert not [app.errors.read_text() for app in apps if "Traceback" in app.errors.read_text()]


@pytest.fixture(scope="module")
def details(start) -> App:
    return start("details")


@pytest.fixture(scope="module")
def ratings(start) -> App:
    return start("ratings")


@pytest.fixture(scope="module")
def page_of(start, details, ratings):
    """A function that gives a productpage before the given version of reviews."""
    versions = {
        "v1": {"ENABLE_RATINGS": "false"},
        "v2": {"ENABLE_RATINGS": "true"},
        "v3": {"ENABLE_RATINGS": "true", "STAR_COLOR": "red"},
    }
    made: dict[str, App] = {}

    def page(version: str) -> App:
        if version not in made:
            env = versions[version] | at("ratings", ratings.port) | {"HOSTNAME": f"reviews-{version}-abc-x"}
            reviews = start("reviews", **env)
            ports = at("details", details.port) | at("reviews", reviews.port) | at("ratings", ratings.port)
            made[version] = start("productpage", HOSTNAME="productpage-v1-abc-x", **ports)
        return made[version]

    return page


class Upstream:
    """A service written with the standard library's server: what reached it, and what it shall answer."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.delay_s = 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.seen.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
                time.sleep(outer.delay_s)
                status, body = outer.answers.get(self.path.split("/")[1], (200, b"{}"))
                with contextlib.suppress(OSError):
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    made = Upstream()
    yield made
    made.close()


@pytest.fixture
def page_before(start, upstream) -> App:
    """A productpage whose details, reviews and ratings are all ``upstream``."""
    return start(
        "productpage", **at("details", upstream.port), **at("reviews", upstream.port), **at("ratings", upstream.port)
    )


@pytest.fixture(scope="module")
def wire() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bookinfo_wire", FOLDER / "wire.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# What Bookinfo answers


def test_details_answers_as_the_sample_does(details):
    answer = details.get("/details/0")
    assert answer.status == 200
    assert answer.json() == {
        "id": 0,
        "author": "William Shakespeare",
        "year": 1595,
        "type": "paperback",
        "pages": 200,
        "publisher": "PublisherA",
        "language": "English",
        "ISBN-10": "1234567890",
        "ISBN-13": "123-1234567890",
    }


def test_ratings_keeps_what_is_posted_for_one_product(ratings):
    assert ratings.get("/ratings/7").json() == {"id": 7, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}
    posted = ratings.get("/ratings/7", "POST", b'{"Reviewer1": 1, "Reviewer2": 2}')
    assert posted.json() == ratings.get("/ratings/7").json() == {"id": 7, "ratings": {"Reviewer1": 1, "Reviewer2": 2}}
    assert ratings.get("/ratings/8").json() == {"id": 8, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}


@pytest.mark.parametrize("body", [b"", b"{", b"NaN", b"[" * 100_000, b"\xff\xfe\xfd"])
def test_ratings_refuses_what_is_not_json(ratings, body):
    answer = ratings.get("/ratings/9", "POST", body)
    assert (answer.status, answer.json()) == (400, {"error": "please provide valid ratings JSON"})


@pytest.mark.parametrize("product_id", ["x", "-1", "1e3", "%31", "9" * 5000, "0x1"])
def test_an_id_that_is_no_number_is_refused_as_the_sample_does(details, ratings, page_of, product_id):
    assert details.get(f"/details/{product_id}").json() == {"error": "please provide numeric product id"}
    assert ratings.get(f"/ratings/{product_id}").json() == {"error": "please provide numeric product ID"}
    assert page_of("v1").get(f"/api/v1/products/{product_id}").status == 400
    assert page_of("v1").get(f"/api/v1/products/{product_id}/reviews").status == 404


@pytest.mark.parametrize(
    ("version", "ratings_of_reviews"),
    [
        ("v1", [None, None]),
        ("v2", [{"stars": 5, "color": "black"}, {"stars": 4, "color": "black"}]),
        ("v3", [{"stars": 5, "color": "red"}, {"stars": 4, "color": "red"}]),
    ],
)
def test_a_version_of_reviews_shows_its_stars(page_of, version, ratings_of_reviews):
    document = page_of(version).get("/api/v1/products/0/reviews").json()
    assert document["id"] == "0"
    assert document["podname"] == f"reviews-{version}-abc-x"
    assert document["clustername"] == "null"
    assert [review["reviewer"] for review in document["reviews"]] == ["Reviewer1", "Reviewer2"]
    assert [review.get("rating") for review in document["reviews"]] == ratings_of_reviews
    page = page_of(version).get("/productpage").text
    shown = re.findall(r'class="stars" style="color:(\w+)"[^>]*>(★*)(☆*)<', page)
    expected = [(item["color"], "★" * item["stars"], "☆" * (5 - item["stars"])) for item in ratings_of_reviews if item]
    assert shown == expected
    assert f"reviews-{version}-abc-x" in page


def test_the_page_shows_details_reviews_and_who_made_it(page_of):
    answer = page_of("v3").get("/productpage", x_request_id="abc")
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    for text in ("The Comedy of Errors", "Book Details", "PublisherA", "Book Reviews", "productpage-v1-abc-x", "abc"):
        assert text in answer.text


def test_the_page_asks_the_browser_for_nothing_outside(page_of):
    page = page_of("v1")
    text = page.get("/productpage").text + page.get("/").text
    loaded = re.findall(r'<(?:link|script|img|iframe)[^>]*(?:href|src)="([^"]*)"', text)
    assert set(loaded) == {"data:,", "/static/bookinfo.css"}
    style = page.get("/static/bookinfo.css")
    assert style.headers["Content-Type"] == "text/css; charset=utf-8"
    assert "url(" not in style.text
    assert "@import" not in style.text


@pytest.mark.parametrize("path", ["/static/", "/static/x", "/static/..", "/static/../wire.py", "/static/%2e%2e", "//"])
def test_static_serves_only_the_stylesheet(page_of, path):
    assert page_of("v1").get(path).status == 404


def test_health_and_products_answer(page_of, details, ratings):
    page = page_of("v1")
    assert page.get("/health").text == "Product page is healthy"
    assert details.get("/health").json() == {"status": "Details is healthy"}
    assert ratings.get("/health").json() == {"status": "Ratings is healthy"}
    assert [product["title"] for product in page.get("/api/v1/products").json()] == ["The Comedy of Errors"]
    assert page.get("/api/v1/products/0/ratings").json() == {"id": 0, "ratings": {"Reviewer1": 5, "Reviewer2": 4}}


@pytest.mark.parametrize(("version", "seen"), [("v-faulty", {200, 503}), ("v1", {200})])
def test_a_faulty_version_of_ratings_fails_half_of_the_time(start, version, seen):
    app = start("ratings", SERVICE_VERSION=version)
    assert {app.get("/ratings/0").status for _ in range(40)} == seen  # by chance alone: 1 in 2 ** 39


# Signing in


@pytest.mark.parametrize("name", ["jason", "<script>alert(1)</script>", "a\"b'c;d=e", "é字 \r\nX-Evil: 1", "%41"])
def test_signing_in_and_out_shows_and_forgets_the_name(page_of, name):
    from html import escape
    from urllib.parse import urlencode

    page = page_of("v1")
    signed_in = page.get("/login", "POST", urlencode({"username": name, "passwd": "x"}).encode())
    assert (signed_in.status, signed_in.headers["Location"]) == (302, "/productpage")
    assert "X-Evil" not in signed_in.headers
    cookie = signed_in.headers["Set-Cookie"].split(";")[0]
    shown = page.get("/productpage", cookie=cookie).text
    assert f"<span>{escape(name)}</span>" in shown
    assert "<script" not in shown
    signed_out = page.get("/logout", cookie=cookie)
    assert signed_out.status == 302
    assert signed_out.headers["Set-Cookie"].startswith("user=;")
    assert "Max-Age=0" in signed_out.headers["Set-Cookie"]


def test_the_cookie_of_2017_is_understood(page_of):
    assert "<span>jason</span>" in page_of("v1").get("/productpage", cookie="user=jason").text
    assert "Sign in" in page_of("v1").get("/productpage", cookie="notuser=jason").text


# Headers that make spans one trace


def test_productpage_copies_trace_headers_and_names_the_user(page_before, upstream):
    page_before.get("/productpage", **COPIED, x_other="1", **{"end-user": "mallory"})
    assert [path for path, _ in upstream.seen] == ["/details/0", "/reviews/0"]
    for _, headers in upstream.seen:
        assert headers.items() >= COPIED.items()
        assert headers["end-user"] == "jason"
        assert "x-other" not in headers


def test_reviews_copies_trace_headers_and_the_user(start, upstream):
    reviews = start("reviews", ENABLE_RATINGS="true", **at("ratings", upstream.port))
    reviews.get("/reviews/0", **COPIED, x_other="1", **{"end-user": "jason"})
    ((path, headers),) = upstream.seen
    assert path == "/ratings/0"
    assert headers.items() >= (COPIED | {"end-user": "jason"}).items()
    assert "x-other" not in headers


def test_nothing_is_made_up_where_no_trace_header_came(page_before, upstream):
    page_before.raw(b"GET /productpage HTTP/1.0\r\n\r\n")
    assert set(upstream.seen[0][1]) == {"host", "accept", "connection"}


def test_a_repeated_cookie_header_is_joined_as_http_says(page_before, upstream):
    page_before.raw(b"GET /productpage HTTP/1.0\r\nCookie: a=b\r\nCookie: user=jason\r\n\r\n")
    assert upstream.seen[0][1]["cookie"] == "a=b; user=jason"
    assert upstream.seen[0][1]["end-user"] == "jason"


# Failing neighbours


def test_a_page_without_ratings_says_so_and_stays_200(start, details):
    nobody = free_port()
    reviews = start("reviews", ENABLE_RATINGS="true", **at("ratings", nobody))
    page = start("productpage", **at("details", details.port), **at("reviews", reviews.port))
    answer = page.get("/productpage")
    assert answer.status == 200
    assert answer.text.count("Ratings service is currently unavailable") == 2
    assert reviews.get("/reviews/0").json()["reviews"][0]["rating"] == {
        "error": "Ratings service is currently unavailable"
    }


def test_a_page_without_details_and_reviews_says_so_and_stays_200(start):
    nobody = free_port()
    page = start("productpage", **at("details", nobody), **at("reviews", nobody), **at("ratings", nobody))
    answer = page.get("/productpage")
    assert answer.status == 200
    assert "Error fetching product details!" in answer.text
    assert "Sorry, product details are currently unavailable for this book." in answer.text
    assert "Error fetching product reviews!" in answer.text
    assert "Sorry, product reviews are currently unavailable for this book." in answer.text
    for path, what in (("", "details"), ("/reviews", "reviews"), ("/ratings", "ratings")):
        failed = page.get(f"/api/v1/products/0{path}")
        assert failed.status == 500
        assert failed.json() == {"error": f"Sorry, product {what} are currently unavailable for this book."}


def test_a_name_that_does_not_resolve_is_a_service_that_is_away(start):
    page = start("productpage", SERVICES_DOMAIN="invalid", DETAILS_HOSTNAME="a" * 64, REVIEWS_HOSTNAME="-")
    assert "Error fetching product details!" in page.get("/productpage").text


def test_the_status_of_a_failing_service_is_passed_on_and_reviews_are_asked_twice(page_before, upstream):
    upstream.answers = {"details": (404, b"{}"), "reviews": (503, b"no healthy upstream")}
    assert page_before.get("/api/v1/products/0").status == 404
    assert page_before.get("/api/v1/products/0/reviews").status == 503
    assert [path for path, _ in upstream.seen] == ["/details/0", "/reviews/0", "/reviews/0"]


def test_a_silent_service_is_given_up_after_three_seconds(page_before, upstream):
    upstream.delay_s = 4
    began = time.monotonic()
    assert page_before.get("/api/v1/products/0").status == 500
    assert 2.9 < time.monotonic() - began < 3.9


@pytest.mark.parametrize(
    "answer",
    [
        b"not HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n{}",
        b"",
    ],
)
def test_an_answer_that_is_no_http_or_no_json_counts_as_none(start, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=answer_once, daemon=True)
        thread.start()
        page = start("productpage", **at("details", listener.getsockname()[1]))
        assert page.get("/api/v1/products/0").status == 500
        thread.join()


@pytest.mark.parametrize(
    "answer",
    [
        b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\n{"a"\r\n4\r\n: 1}\r\n0\r\nT: 1\r\n\r\n',
        b'HTTP/1.1 103 Early\r\nLink: x\r\n\r\nHTTP/1.1 200\r\ncontent-length:8\r\n\r\n{"a": 1}',
        b'HTTP/1.0 200 OK\r\n\r\n{"a": 1}',
    ],
)
def test_every_framing_of_an_answer_is_read(start, answer):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_slowly() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                for byte in answer:
                    connection.sendall(bytes([byte]))

        thread = threading.Thread(target=answer_slowly, daemon=True)
        thread.start()
        page = start("productpage", **at("details", listener.getsockname()[1]))
        assert page.get("/api/v1/products/0").json() == {"a": 1}
        thread.join()


def test_what_came_off_the_wire_is_escaped(page_before, upstream):
    evil = "</dd><script>alert('x')</script>\"&\ud800"
    names = ("author", "year", "type", "pages", "publisher", "language", "ISBN-10", "ISBN-13")
    review = {"reviewer": evil, "text": evil, "rating": {"stars": 10**9, "color": "red;background:url(//evil)"}}
    failed = {"reviewer": evil, "text": evil, "rating": {"error": evil}}
    reviews = {"podname": "reviews-v2-" + evil, "reviews": [review, failed, evil, None]}
    upstream.answers = {
        "details": (200, json.dumps(dict.fromkeys(names, evil)).encode()),
        "reviews": (200, json.dumps(reviews).encode()),
    }
    text = page_before.get("/productpage", cookie=f"user={evil[:-1]}", x_request_id="<script>").text
    assert "<script" not in text
    assert "style=" not in text
    assert "alert(" in text  # it is shown, as text
    assert text.count("★") == 5


@pytest.mark.parametrize("document", [b"[]", b'"x"', b"null", b"1", b'{"reviews": 5}', b'{"reviews": [{"rating": 5}]}'])
def test_a_document_of_another_shape_does_not_break_the_page(page_before, upstream, document):
    upstream.answers = {"details": (200, document), "reviews": (200, document)}
    answer = page_before.get("/productpage")
    assert answer.status == 200
    assert "Book Details" in answer.text


@pytest.mark.parametrize("document", [b"[]", b"null", b'{"ratings": 5}', b'{"ratings": {"Reviewer1": "5"}}', b"["])
def test_ratings_of_another_shape_count_as_unavailable(start, upstream, document):
    upstream.answers = {"ratings": (200, document)}
    reviews = start("reviews", ENABLE_RATINGS="true", **at("ratings", upstream.port))
    assert "error" in reviews.get("/reviews/0").json()["reviews"][0]["rating"]


# HTTP itself, with the standard library's client and bytes by hand


def test_one_connection_serves_many_requests(details):
    connection = http.client.HTTPConnection("127.0.0.1", details.port, timeout=5)
    connection.connect()
    first = connection.sock.getsockname()
    for product_id in range(5):
        connection.request("GET", f"/details/{product_id}")
        assert json.loads(connection.getresponse().read())["id"] == product_id
        assert connection.sock.getsockname() == first
    connection.close()


def test_pipelined_requests_are_answered_in_order(details):
    got = details.raw(b"".join(b"GET /details/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(3)))
    assert re.findall(rb'"id": (\d)', got) == [b"0", b"1", b"2"]


def test_head_is_get_without_the_body(page_of):
    page = page_of("v1")
    got, head = page.get("/health"), page.get("/health", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == got.headers["Content-Length"] == str(len(got.body))
    two = page.raw(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\nGET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n")
    assert two.count(b"HTTP/1.1 ") == 2
    assert b"healthy" not in two


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", True),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n", False),
        (b"GET /health HTTP/1.0\r\n\r\n", False),
        (b"GET /health HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True),
        (b"GET /health HTTP/1.1\nHost: x\n\n", True),
        (b"\r\nGET http://details:9080/health?x=y HTTP/1.1\r\nHost: x\r\n\r\n", True),
    ],
)
def test_the_connection_is_kept_as_the_client_wishes(details, head, kept):
    with socket.create_connection(("127.0.0.1", details.port), 5) as connection:
        connection.sendall(head)
        reply = http.client.HTTPResponse(connection)
        reply.begin()
        assert reply.status == 200
        reply.read()
        connection.settimeout(0.05 if kept else 5)
        if kept:
            with pytest.raises(TimeoutError):
                connection.recv(1)
        else:
            assert connection.recv(1) == b""
        reply.close()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET  /health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET health HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost : x\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n folded\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n", 400),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nnocolon\r\n\r\n", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n0\r\n\r\n", 400),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: %s\r\n" % (b"a" * 10_000) * 7 + b"\r\n", 431),
        (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"BREW /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    ],
)
def test_a_bad_request_gets_its_status_and_the_service_goes_on(ratings, sent, status):
    reply = ratings.raw(sent + b"GET /evil HTTP/1.1\r\nHost: x\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 %d " % status)
    if status not in (404, 405):
        assert (
            len(re.findall(rb"HTTP/1\.1 \d", reply)) == 1
        )  # what follows a request that was not understood is not acted on
    assert ratings.get("/health").status == 200


def test_a_refused_method_is_told_the_allowed_ones(ratings):
    answer = ratings.get("/ratings/0", "DELETE")
    assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD, POST")


def test_a_chunked_body_arrives_whole_also_byte_by_byte(ratings):
    body = b'7\r\n{"Revie\r\n00B\r\nwer1": 3}  \r\n0\r\nX: y\r\n\r\n'
    sent = b"POST /ratings/3 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: Chunked\r\n\r\n" + body
    with socket.create_connection(("127.0.0.1", ratings.port), 5) as connection:
        for byte in sent:
            connection.sendall(bytes([byte]))
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.endswith(b'{"id": 3, "ratings": {"Reviewer1": 3}}')


def test_an_expecting_client_is_told_to_go_on(ratings):
    with socket.create_connection(("127.0.0.1", ratings.port), 5) as connection:
        connection.sendall(b"POST /ratings/4 HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"{}")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_large_refused_body_does_not_eat_the_answer(ratings):
    with socket.create_connection(("127.0.0.1", ratings.port), 5) as connection:
        # More than the socket's buffers hold: the client is still sending when it is refused.
        head = b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 12000000\r\n\r\n"
        connection.sendall(head + b"x" * 12_000_000)
        assert connection.recv(100).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_hangs_up_leaves_no_traceback(start):
    app = start("ratings")
    for sent in (
        b"",
        b"GE",
        b"GET / HTTP/1.1\r\nHo",
        b"POST /ratings/0 HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
    ):
        with socket.create_connection(("127.0.0.1", app.port), 5) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # close with a reset
            connection.sendall(sent)
    assert app.get("/health").status == 200
    assert app.errors.read_text() == ""


def test_fifty_clients_at_once_are_all_answered(page_of):
    page = page_of("v2")
    statuses: list[int] = []
    threads = [threading.Thread(target=lambda: statuses.append(page.get("/productpage").status)) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 50


# The process


def test_each_request_is_one_line_of_json_without_cookies(start):
    app = start("details")
    app.get("/details/1?a=b", cookie="user=jason", authorization="Bearer secret", x_request_id='a"b')
    app.raw(b"nonsense\r\n\r\n")
    first, second = app.logged(2)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", first["time"])
    assert re.fullmatch(r"127\.0\.0\.1:\d+", first["peer"])
    assert {**first, "time": "", "peer": "", "duration_us": 0} == {
        "time": "",
        "method": "GET",
        "path": "/details/1?a=b",
        "status": 200,
        "request_id": 'a"b',
        "peer": "",
        "duration_us": 0,
    }
    assert 0 < first["duration_us"] < 1_000_000
    assert (second["status"], second["method"]) == (400, None)
    assert "jason" not in app.log.read_text()
    assert "secret" not in app.log.read_text()


def test_sigterm_ends_a_busy_service_at_once_and_frees_its_port(start):
    app = start("details")
    with socket.create_connection(("127.0.0.1", app.port), 5) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        connection.recv(65536)
        began = time.monotonic()
        assert app.stop() == 128 + 15
        assert time.monotonic() - began < 0.5
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("0.0.0.0", app.port))


@pytest.mark.parametrize("arguments", [[], ["x"], ["0"], ["65536"], ["1", "2"]])
def test_bad_use_is_one_line_and_status_2(arguments):
    done = subprocess.run([sys.executable, "-S", "details.py", *arguments], cwd=FOLDER, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "usage: details.py PORT\n")


def test_a_taken_port_is_one_line_and_status_2(details):
    command = [sys.executable, "-S", "ratings.py", str(details.port)]
    done = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (2, f"ratings.py: port {details.port}: Address already in use\n")


@pytest.mark.parametrize("role", ["productpage", "details", "reviews", "ratings"])
def test_starting_imports_nothing_heavy(role):
    script = f"import sys; sys.argv = ['x']; import {role}; print(*sys.modules)"
    env = {"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=FOLDER, capture_output=True, text=True, env=env)
    loaded = set(done.stdout.split())
    assert role in loaded
    assert not loaded & {"http", "email", "html", "dataclasses", "inspect", "typing", "asyncio", "ssl", "bookinfo_lab"}


# The parser


PIECES = st.sampled_from([b"GET / HTTP/1.1", b"HTTP/1.1 200 OK", b"\r\n", b"\n", b"Host: x", b":", b" ", b"0", b"\r"])


@given(st.binary(max_size=400) | st.lists(PIECES, max_size=12).map(b"".join))
@settings(max_examples=150)
def test_no_bytes_make_the_parser_fail_otherwise_than_it_says(wire, data):
    for read in (wire.read_request, wire.read_reply):
        stream = io.BytesIO(data)
        try:
            message = read(stream)
            if isinstance(message, wire.Request):
                wire.read_request_body(stream, message)
        except (wire.MalformedError, ConnectionError):
            pass


TOKENS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40)


@given(TOKENS, st.dictionaries(TOKENS.map(str.lower), VALUES, max_size=6))
@settings(max_examples=100)
def test_a_formatted_request_reads_back_the_same(wire, method, fields):
    fields = {name: value for name, value in fields.items() if name not in {"connection", "transfer-encoding", "host"}}
    data = wire.format_request(method, "/a?b", {"Host": "x", **fields})
    request = wire.read_request(io.BytesIO(data))
    assert (request.method, request.target, request.path) == (method, "/a?b", "/a")
    assert request.headers == {"host": "x"} | {name: value.strip(" \t") for name, value in fields.items()}


@pytest.mark.parametrize("value", ["a\r\nX: y", "a\nb", "a\rb", "a\0b"])
def test_a_line_end_never_gets_into_a_formatted_head(wire, value):
    with pytest.raises(ValueError, match="line end"):
        wire.format_response(200, [("Location", value)])
