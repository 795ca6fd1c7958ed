"""Evidence from a live sandbox: each question is answered by the program that a reader would type there.

Edge: the sandbox's control socket, and a socket of the client's network namespace for requests.  Nothing is kept:
every `fetch` reads again.
"""

import http.client
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar

from bookinfo_lab.errors import LabError, SourceError
from bookinfo_lab.sandbox import Sandbox, search_path, targets, topology
from bookinfo_lab.sandbox.targets import Target
from bookinfo_lab.sources import base, one_request
from bookinfo_lab.sources.base import Capturing, Evidence, FrontDoor, Query

_KINDS_OF = {"pods": "Pod", "services": "Service", "endpointslices": "EndpointSlice", "nodes": "Node"}
_REQUEST_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class SandboxSource:
    """A sandbox that runs; ``is_own`` says that closing the source ends it."""

    mesh: Sandbox
    is_own: bool = False
    kind: ClassVar[str] = "sandbox"
    has_client: ClassVar[bool] = True

    @property
    def description(self) -> str:
        """Which sandbox this is."""
        return f"sandbox {self.mesh.name!r}, scenario {self.mesh.scenario}"

    @property
    def published(self) -> str:
        """The front door's URL on this machine's loopback, or "" where the sandbox was made without one."""
        return f"http://127.0.0.1:{self.mesh.published}" if self.mesh.published else ""

    def now(self) -> float:
        """The time of this machine, whose clock the sandbox shares."""
        return time.time()

    def close(self) -> None:
        """End the sandbox where this source started it."""
        if self.is_own:
            self.mesh.down()

    def front_door(self) -> FrontDoor:
        """The Service that the scenario names as its entry, as it is now."""
        plan = self.mesh.topology()
        address, port = topology.front_door(plan, self.mesh.objects())
        return FrontDoor(*plan.front_door, address, port)

    def fetch(self, query: Query) -> Evidence:
        """Read the answer now."""
        base.check(query)
        if query.kind == "objects":
            return self._evidence(query, as_list(self.mesh.objects(), _KINDS_OF[query.arguments[0]]))
        if query.kind == "get":
            return self._get(query)
        if query.place is None or query.kind == "capture":
            raise LabError(f"{query.kind} needs a place, and is not fetched but captured")
        target = targets.at(query.place, self.mesh.targets())
        if query.kind == "prove":
            return self._prove(query, target)
        if query.kind == "logs":
            return self._evidence(query, self.mesh.logs(target).encode())
        return self._run(query, target)

    def capture(self, points: Sequence[str]) -> AbstractContextManager[Capturing]:
        """Capture at ``points`` as long as the block lasts (`sandbox.sniff`)."""
        from bookinfo_lab.sandbox import sniff

        query = Query("capture", None, tuple(points))
        return sniff.capturing(self.mesh, points, lambda raw: self._evidence(query, raw))

    def _prove(self, query: Query, target: Target) -> Evidence:
        from bookinfo_lab.netfilter import attempt
        from bookinfo_lab.sandbox import prove

        return self._evidence(query, attempt.write(prove.prove(self.mesh, target, attempt.packet(query.arguments))))

    def _run(self, query: Query, target: Target) -> Evidence:
        done = self.mesh.run(target, self._argv(query), uid=0 if base.is_of_netns(query) else None)
        if done.returncode and query.kind != "exec" and not _is_partial(query, done.stdout):
            message = done.stderr.decode("utf-8", "replace").removeprefix("bookinfo-lab: ")
            raise SourceError(base.here(query, self.mesh.name), done.returncode, message)
        status = done.returncode if query.kind == "exec" else 0
        return self._evidence(query, done.stdout, status, done.stderr)

    def _argv(self, query: Query) -> tuple[str, ...]:
        words = base.argv(query)
        if query.kind in ("rules", "processes", "sockets") and shutil.which(words[0], path=search_path()) is None:
            raise LabError(f"{words[0]} is not installed on this machine, so no sandbox has it either: {query}")
        return words

    def _get(self, query: Query) -> Evidence:
        door = self.front_door()
        with self.mesh.open_socket(self.mesh.target("client")) as connection:
            try:
                connection.settimeout(_REQUEST_TIMEOUT_S)
                connection.connect((door.address, door.node_port))
                raw = one_request.ask(connection, f"{door.address}:{door.node_port}", *query.arguments)
            except (OSError, http.client.HTTPException) as error:
                command = base.here(query, self.mesh.name, door)
                raise SourceError(command, 1, str(error) or type(error).__name__, "do its pods run?") from None
        return self._evidence(query, raw, door=door)

    def _evidence(
        self, query: Query, raw: bytes, status: int = 0, stderr: bytes = b"", door: FrontDoor | None = None
    ) -> Evidence:
        here, there = base.here(query, self.mesh.name, door), base.on_a_cluster(query, door)
        return Evidence(query, raw, time.time(), self.description, here, there, status, stderr)


def as_list(objects: Iterable[Mapping[str, Any]], kind: str) -> bytes:
    """The objects of one kind as kubectl prints them with ``-o json``, by namespace and name."""
    chosen = [item for item in objects if item["kind"] == kind]
    chosen.sort(key=lambda item: (item["metadata"].get("namespace", ""), item["metadata"]["name"]))
    listed = {"apiVersion": "v1", "items": chosen, "kind": "List", "metadata": {"resourceVersion": ""}}
    return json.dumps(listed, indent=4, sort_keys=True).encode() + b"\n"


def _is_partial(query: Query, stdout: bytes) -> bool:
    """Whether a program that read many files failed on some only: grep says 2 for one sysctl that it may not read."""
    return query.kind == "sysctls" and bool(stdout)
