"""The processes of `judge_worker` in pods and on nodes, asked from here through `kubectl exec`.

with posts(world) as (by_pod, by_node): …

Edge.  Their code goes with the first bytes of their standard input and is kept in their memory alone.
"""

import io
import pickle
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import judge_services
import judge_watch
import judge_worker
import kernel
from judge_cluster import World
from judge_services import LISTENING

_STEP = 1500  # ports of one process


class Post:
    """One process; a method of `judge_worker.Post`, or of its `Watch`, is called by its name."""

    def __init__(self, world: World, namespace: str, pod: str, container: str) -> None:
        self.name = pod
        line = [
            "kubectl",
            "--kubeconfig",
            str(world.bed.kubeconfig),
            "exec",
            "-i",
            "-n",
            namespace,
            pod,
            "-c",
            container,
        ]
        self._process = subprocess.Popen(
            [*line, "--", "python3", "-I", "-u", "-c", judge_worker.BOOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**world.bed.environment, "PATH": f"{world.bed.environment.get('PATH', '')}:/usr/sbin:/sbin"},
        )
        code = _code()
        self._write(b"%d\n%s" % (len(code), code))

    def __call__(self, name: str, *arguments: Any) -> Any:
        """What the method returned.  Raises what it raised."""
        self._write(pickle.dumps((name, arguments)))
        assert self._process.stdout is not None
        try:
            kind, value = pickle.load(self._process.stdout)
        except EOFError:
            raise AssertionError(f"the process in {self.name} ended ({self._process.wait(10)})") from None
        if kind == "error":
            raise value
        return value

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with suppress(BrokenPipeError):  # it has ended before
            self._process.stdin.close()
        try:
            self._process.wait(10)
        finally:
            self._process.kill()
            self._process.stdout.close()

    def _write(self, raw: bytes) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(raw)
        self._process.stdin.flush()


@contextmanager
def posts(world: World) -> Iterator[tuple[dict[str, Post], dict[str, Post]]]:
    """A process in each pod, which answers on LISTENING, and one on each node, which watches."""
    with ExitStack() as stack:
        nodes = {name: Post(world, *world.node_pod(name)) for name in world.ground.nodes}
        for post in nodes.values():
            stack.callback(post.close)
            post("start_watching")
            stack.callback(post, "stop_watching")
        # Their listeners end before the nodes forget the connections: one half open sends its answer again.
        pods = {name: Post(world, world.namespace, name, "idle") for name in sorted(world.pods)}
        for post in pods.values():
            stack.callback(post.close)
            post("answer", LISTENING)
        for at, post in enumerate((*pods.values(), *nodes.values())):
            post("start", judge_watch.PORTS[0] + at * _STEP)
        yield pods, nodes


def _code() -> bytes:
    """A zip of the process's own module and of `kernel`."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        for module in (judge_worker, judge_watch, judge_services):
            file.write(str(module.__file__), f"{module.__name__}.py")
        file.writestr("kernel/__init__.py", "")
        for path in sorted(Path(next(iter(kernel.__path__))).glob("*.py")):
            if not path.name.startswith(("conftest", "test_")):
                file.write(path, f"kernel/{path.name}")
    return packed.getvalue()
