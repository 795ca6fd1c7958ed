"""One proxy alone in a network namespace: its agent and Envoy, and servers that answer with what they were sent.

Run as a script it is process 1 of that namespace: it reads one JSON document a line and answers each with one.
Imported, `Room` starts it and talks to it.  Everything in a room ends when its standard input does.
"""

import http.client
import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import agent, xds

ADMIN = ("127.0.0.1", 15000)
READY_WITHIN_S = 20


class Room:
    """A pod's proxy, ready after ``ready_s`` seconds.

    ``servers`` are the (address, port) that answer, ``addresses`` more addresses of the room, ``rules`` options of
    iptables -t nat, and ``changed`` texts to replace in files, by the file's name.
    """

    def __init__(
        self,
        objects: Sequence[Mapping[str, Any]],
        pod: Mapping[str, Any],
        *,
        owner: str = "uid",
        servers: Sequence[tuple[str, int]] = (),
        addresses: Sequence[str] = (),
        rules: Sequence[str] = (),
        changed: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        # A Unix socket's path has 108 bytes at most: pytest's own folders are too long.
        self.folder = tempfile.mkdtemp(prefix="room")
        self.settings = xds.Settings(owner=owner, folder=f"{self.folder}/proxy")  # type: ignore[arg-type]
        self.pod = pod
        files = xds.files(objects, pod, self.settings)
        for name, (old, new) in (changed or {}).items():
            path = f"{self.settings.folder}/{name}"
            assert old in files[path]
            files[path] = files[path].replace(old, new)
        command = [
            "unshare",
            *(["--map-root-user"] if os.geteuid() else []),
            "--net",
            "--pid",
            "--fork",
            "--kill-child",
        ]
        self.process = subprocess.Popen(
            [*command, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PATH": sandbox.search_path(), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        order = {"files": files, "owner": owner, "folder": self.settings.folder, "servers": servers, "rules": rules}
        try:
            self.ready_s: float = self.ask(order | {"addresses": addresses})
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Room":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=10)
        assert self.process.stdout is not None
        self.process.stdout.close()
        shutil.rmtree(self.folder)

    def ask(self, request: Mapping[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the room ended; its log: {self.log()[-2000:]}"
        reply = json.loads(line)
        assert "error" not in reply, f"{reply['error']}; the log: {self.log()[-2000:]}"
        return reply["answer"]

    def get(self, address: str, port: int, path: str, source: str = "", **headers: str) -> tuple[int, dict[str, Any]]:
        """(status, answer) of one request; the answer of a server is its address, the peer it saw and the header."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        status, body = self.ask({"get": path, "address": address, "port": port, "source": source, "headers": sent})
        return status, json.loads(body) if body.startswith("{") else {"text": body}

    def admin(self, path: str) -> Any:
        """What the admin answers to a GET, decoded."""
        status, answer = self.get(*ADMIN, path)
        assert status == 200
        return answer

    def dump(self) -> dict[str, dict[str, Any]]:
        """The resources that Envoy holds, by kind and name, with the version that it took them in."""
        found: dict[str, dict[str, Any]] = {"lds": {}, "rds": {}, "cds": {}, "eds": {}}
        for part in self.admin("/config_dump?include_eds")["configs"]:
            for item in part.get("dynamic_listeners", ()):
                if "active_state" in item:  # one that was never accepted has an error_state alone
                    found["lds"][item["name"]] = item["active_state"]
            for item in part.get("dynamic_active_clusters", ()):
                found["cds"][item["cluster"]["name"]] = item
            for item in part.get("dynamic_route_configs", ()):
                found["rds"][item["route_config"]["name"]] = item
            for item in part.get("dynamic_endpoint_configs", ()):
                found["eds"][item["endpoint_config"]["cluster_name"]] = item
        return found

    def counters(self, filter_regex: str) -> dict[str, int]:
        found = self.admin(f"/stats?format=json&filter={filter_regex}")["stats"]
        return {item["name"]: item["value"] for item in found if "name" in item}

    def connects(self, place: Mapping[str, Any]) -> bool:
        """Whether a socket listens at an address of the room."""
        return bool(self.ask({"connect": [place["address"], place["port_value"]]}))

    def become(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Replace the files by those of other objects, and tell the agent."""
        self.ask({"replace": xds.files(objects, self.pod, self.settings)})

    def log(self) -> str:
        with open(f"{self.folder}/log", encoding="utf-8") as file:
            return file.read()

    def access_log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers every GET with a JSON document of what arrived."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one segment: the second would wait 40 ms for the first's acknowledgement

    def do_GET(self) -> None:
        answer = {"server": self.server.server_address[0], "peer": self.client_address[0], "path": self.path}
        body = json.dumps(answer | {"header": {name.lower(): value for name, value in self.headers.items()}}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """A server's own log would be read as the room's answer."""


def serve(answer_to: Any) -> None:
    order = json.loads(sys.stdin.readline())
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for address in {*order["addresses"], *(address for address, _ in order["servers"])}:
        subprocess.run(["ip", "address", "add", f"{address}/32", "dev", "lo"], check=True)
    for rule in order["rules"]:
        subprocess.run(["iptables-nft", "-t", "nat", *rule.split()], check=True)
    pid = start_agent(order)
    for address, port in order["servers"]:
        server = http.server.ThreadingHTTPServer((address, port), Echo)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    began = time.monotonic()
    while fetch(*ADMIN, "/ready", "", {})[0] != 200:
        if os.waitpid(pid, os.WNOHANG)[0] or time.monotonic() - began > READY_WITHIN_S:
            raise TimeoutError("Envoy is not ready")
        time.sleep(0.01)
    answer_to({"answer": time.monotonic() - began})
    for line in sys.stdin:
        request = json.loads(line)
        if "connect" in request:
            with socket.socket() as sender:
                sender.settimeout(1)
                answer_to({"answer": sender.connect_ex(tuple(request["connect"])) == 0})
        elif "replace" in request:
            for path, text in request["replace"].items():
                agent.replace(path, text)
            os.kill(pid, signal.SIGHUP)
            answer_to({"answer": True})
        else:
            place = (request["address"], request["port"], request["get"], request["source"])
            answer_to({"answer": fetch(*place, request["headers"])})


def start_agent(order: Mapping[str, Any]) -> int:
    """The agent's process id; it starts Envoy, and both write to the room's log."""
    settings = xds.Settings(owner=order["owner"], folder=order["folder"])
    pid = os.fork()
    if pid:
        return pid
    log = os.open(f"{os.path.dirname(order['folder'])}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    command = [sandbox.envoy_binary(), *xds.command(settings)[1:]]
    agent.run(order["files"], settings, command, os.environ, status=False)
    os._exit(1)


def fetch(address: str, port: int, path: str, source: str, headers: Mapping[str, str]) -> tuple[int, str]:
    """(status, body) of one GET on a connection of its own; status 0 where there is no answer."""
    try:
        connection = http.client.HTTPConnection(address, port, timeout=5, source_address=(source, 0))
        connection.request("GET", path, headers=dict(headers))
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException) as error:
        return 0, f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def answer_with(stream: socket.SocketIO | Any, message: Mapping[str, Any]) -> None:
    stream.write(json.dumps(message) + "\n")
    stream.flush()


def main() -> None:
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a child prints must not be read as an answer
    try:
        serve(lambda message: answer_with(out, message))
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the test that waits is told
        answer_with(out, {"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
