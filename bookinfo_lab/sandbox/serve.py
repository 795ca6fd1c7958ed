"""The control socket of a running sandbox: one request a connection, answered by its init.

Edge.  Requests (`channel` messages): ``status``, ``objects``, ``apply`` and ``delete`` API objects, ``socket``
(a socket of a target's network namespace, as a descriptor), ``exec`` (a program beside a container's, with the
caller's descriptors or a terminal of its own).  An exec ends with its program, or when the caller goes away.
"""

import fcntl
import os
import selectors
import signal
import socket
import struct
import termios
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bookinfo_lab.errors import LabError
from bookinfo_lab.sandbox import channel, configs, netns, processes, topology
from bookinfo_lab.sandbox.topology import Object, Topology

_SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT}


@dataclass(frozen=True, slots=True)
class Target:
    """Something of the sandbox that runs: a pod's container, a node, the client.

    ``pid`` is its first process as the init sees it; ``uid`` the user that `exec` takes on there.
    """

    kind: str
    namespace: str
    name: str
    container: str
    pid: int
    uid: int
    netns: str
    log: str

    def exit_code(self) -> int | None:
        """The exit status of its first process, None while it runs."""
        try:
            found = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return -1
        return None if found is None else found.si_status


class Server:
    """Answers control requests.  The objects it holds are what the sandbox reports as the Kubernetes API's."""

    def __init__(self, plan: Topology, mesh: configs.Mesh, targets: Sequence[Target], started: str) -> None:
        self.plan, self.mesh, self.targets, self.started = plan, mesh, list(targets), started
        self.objects: list[Object] = [topology.created(item, started) for item in plan.objects]
        self._selector = selectors.DefaultSelector()
        self._running: dict[int, socket.socket] = {}
        self._ended: dict[int, int] = {}
        self._handlers = {
            "status": self._status,
            "objects": self._objects,
            "apply": self._apply,
            "delete": self._delete,
            "socket": self._socket,
        }

    def all_ready(self) -> None:
        """Mark every Pod ready: its probes have answered."""
        self.objects = [topology.ready(item, self.started) if item["kind"] == "Pod" else item for item in self.objects]

    def listen(self, path: str) -> None:
        """Open the control socket at ``path``."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(path)
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        """Answer requests and reap children, forever."""
        woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(woken, selectors.EVENT_READ, lambda: self._reap(woken))
        self._reap(None)
        while True:
            for key, _ in self._selector.select():
                key.data()

    def _reap(self, woken: int | None) -> None:
        if woken is not None:
            os.read(woken, 512)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._ended[pid] = os.waitstatus_to_exitcode(status)
            connection = self._running.pop(pid, None)
            if connection is not None:
                self._finish(connection, {"status": self._ended.pop(pid)})

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        connection.settimeout(5)
        descriptors: list[int] = []
        try:
            request, descriptors = channel.receive(connection)
            if request["op"] == "exec":
                self._exec(connection, request, descriptors)
                return
            reply, given = self._handlers[request["op"]](request)
            channel.send(connection, reply, given)
            for descriptor in given:
                os.close(descriptor)
        except LabError as error:
            self._refuse(connection, str(error))
        except (OSError, EOFError, KeyError, ValueError, TypeError) as error:
            self._refuse(connection, f"the request failed in the sandbox: {type(error).__name__}: {error}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        if connection not in self._running.values():
            connection.close()

    def _refuse(self, connection: socket.socket, message: str) -> None:
        try:
            channel.send(connection, {"error": message})
        except OSError:
            return  # the caller has gone; there is nobody to tell

    def _finish(self, connection: socket.socket, message: dict[str, Any]) -> None:
        self._selector.unregister(connection)
        try:
            channel.send(connection, message)
        except OSError:
            pass  # the caller has gone with its program
        connection.close()

    def _status(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        targets = [asdict(item) | {"ended": self._ended.get(item.pid)} for item in self.targets]
        mesh = {"users": self.mesh.users, "nfacct": self.mesh.nfacct, "started": self.started}
        return {"targets": targets, "plan": asdict(self.plan) | {"objects": []}, **mesh}, []

    def _objects(self, _: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        return {"objects": self.objects}, []

    def _apply(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        new = {configs.key(item): item for item in request["objects"]}
        # What is replaced keeps its place: where order decides, as among VirtualServices, the older object stays first.
        kept = [new.pop(configs.key(item), item) for item in self.objects]
        return self._become([*kept, *new.values()])

    def _delete(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        gone = {tuple(item) for item in request["keys"]}
        missing = gone - {configs.key(item) for item in self.objects}
        if missing:
            kind, namespace, name = min(missing)
            raise LabError(f"the sandbox has no {kind} {namespace}/{name}")
        return self._become([item for item in self.objects if configs.key(item) not in gone])

    def _become(self, objects: list[Object]) -> tuple[dict[str, Any], list[int]]:
        """Take ``objects`` as the new truth: rules, proxies' and DNS's files, then what is reported.

        All of it is computed before any of it is changed: objects that cannot be had change nothing.
        """
        chosen = [item for item in objects if item["kind"] != "EndpointSlice"]
        objects = self._dated([*chosen, *topology.endpoint_slices(chosen)])
        rules = configs.node_rules(self.plan, self.mesh, objects)
        places = [(target, (target.namespace, target.name, target.container)) for target in self.targets]
        files = [(target, configs.container_files(self.mesh, objects, place)) for target, place in places]
        netns.load_rules(rules)
        for target, made in files:
            if made and self._ended.get(target.pid) is None:
                configs.replace_files(made, target.pid, target.uid)
        self.objects = objects
        return {"done": True}, []

    def _dated(self, objects: Sequence[Object]) -> list[Object]:
        """The objects with a time of creation: what was there keeps its own."""
        known = {configs.key(item): item["metadata"]["creationTimestamp"] for item in self.objects}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return [topology.created(item, known.get(configs.key(item), now)) for item in objects]

    def _find(self, request: dict[str, Any]) -> Target:
        wanted = (request["kind"], request["namespace"], request["name"], request["container"])
        for item in self.targets:
            if (item.kind, item.namespace, item.name, item.container) == wanted:
                return item
        raise LabError(f"the sandbox has no {request['kind']} {request['namespace']}/{request['name']}")

    def _socket(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[int]]:
        target = self._find(request)
        with netns.entered(target.netns):
            made = socket.socket(request["family"], request["type"], request["proto"])
        return {"done": True}, [made.detach()]

    def _exec(self, connection: socket.socket, request: dict[str, Any], descriptors: list[int]) -> None:
        """Fork a program beside the target's; ``descriptors`` are its stdin, stdout, stderr, none for a terminal."""
        target = self._find(request)
        if self._ended.get(target.pid) is not None:
            raise LabError(f"{target.name} {target.container} has ended; take the sandbox down and up again")
        uid = target.uid if request.get("uid") is None else int(request["uid"])
        if uid and self.mesh.users == "single":
            uid = 0
        child = os.fork()
        if child == 0:
            self._become_program(target, uid, request, descriptors, connection)
        self._running[child] = connection
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._hear(connection, child))

    def _become_program(
        self, target: Target, uid: int, request: dict[str, Any], descriptors: list[int], connection: socket.socket
    ) -> None:
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGPIPE, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.setsid()
            _take(descriptors)

            def prepare() -> None:
                if not descriptors:
                    _take(_terminal(connection, request["size"]))
                os.closerange(3, 4096)

            processes.run_inside(target.pid, uid, request["argv"], request["env"], prepare)
        except BaseException as error:  # noqa: BLE001 - a forked child must not unwind into the server
            os.write(2, f"bookinfo-lab: {error}\n".encode())
        finally:
            os._exit(126)

    def _hear(self, connection: socket.socket, child: int) -> None:
        """A signal to pass on, or the end of the caller, which is the end of its program."""
        if self._running.get(child) is not connection:
            return  # the program ended in the same round, and the connection has been closed
        try:
            message, _ = channel.receive(connection)
            number = signal.Signals(message["signal"])
        except (OSError, EOFError, ValueError, KeyError):
            number = signal.SIGKILL
            self._selector.unregister(connection)
            self._running.pop(child, None)
            connection.close()
        if number == signal.SIGKILL or number in _SIGNALS:
            for send in (os.killpg, os.kill):  # a caller can go before its program leads a group of its own
                try:
                    send(child, number)
                    return
                except ProcessLookupError:
                    pass  # or it ended between the two calls


def _take(descriptors: Sequence[int]) -> None:
    """Make ``descriptors`` this process's stdin, stdout and stderr."""
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor, place)


def _terminal(connection: socket.socket, size: Sequence[int]) -> list[int]:
    """Open a terminal pair, hand the caller its end, make the other this session's: stdin, stdout, stderr."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[0], size[1], 0, 0))
    channel.send(connection, {"terminal": True}, [ours])
    fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
    return [theirs, theirs, theirs]
