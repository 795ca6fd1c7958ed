"""An API server's answers from a table, over HTTP on loopback: what a real cluster would have to be broken for."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from bookinfo_lab.sources.cluster.api import Api

Answer = tuple[int, Any]
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Server(ThreadingHTTPServer):
    """``answers`` maps a path to what is said in turn, the last one again and again; ``asked`` is what came.

    Questions about rights, which change nothing, are not among it.
    """

    daemon_threads = True

    def __init__(self, answers: dict[str, list[Answer]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers, self.asked = answers, list[tuple[str, str, dict[str, list[str]]]]()


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        if parts.path != REVIEWS:
            self.server.asked.append((self.command, parts.path, parse_qs(parts.query)))
        told = self.server.answers.get(parts.path, [(404, {"message": "the server could not find it"})])
        status, body = told.pop(0) if len(told) > 1 else told[0]
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815 - the names that http.server asks for

    def log_message(self, *given: Any) -> None:
        pass


@contextmanager
def serving(answers: dict[str, list[Answer]]) -> Iterator[tuple[Api, Server]]:
    server = Server(answers)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        configuration = client.Configuration()
        configuration.host = f"http://127.0.0.1:{server.server_port}"
        yield Api(client.ApiClient(configuration), "somewhere", "mine", "v1.34.0"), server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
