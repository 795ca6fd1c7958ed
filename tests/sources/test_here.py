"""Every `here` line works as typed: a shell beside the sandbox gets the same bytes by it."""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.kube.places import CLIENT
from bookinfo_lab.lab import Lab
from bookinfo_lab.packets import pcapng
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import base, contents
from bookinfo_lab.sources.base import KINDS, Query
from bookinfo_lab.sources.moving import steady
from bookinfo_lab.sources.sandbox import SandboxSource

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module", params=["sidecar", "article"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        name = "default" if request.param == "sidecar" else "another"
        mesh = sandbox.up(scenarios.scenario(request.param), name, keep=False)
        try:
            yield Lab(SandboxSource(mesh))
        finally:
            mesh.down()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which `bookinfo-lab` is this checkout's."""
    folder = tmp_path_factory.mktemp("bin")
    script = folder / "bookinfo-lab"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m bookinfo_lab.cli "$@"\n')
    script.chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def typed(line: str, path: str) -> subprocess.CompletedProcess[bytes]:
    root = Path(base.__file__).resolve().parents[2]
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(root)}
    return subprocess.run(["sh", "-c", line], capture_output=True, timeout=60, env=env, stdin=subprocess.DEVNULL)


def one_of_each(lab: Lab) -> list[Query]:
    """One query of each kind, of each kind of place and of each argument, from what a recording would ask."""
    held = contents.planned(lab.objects(), has_client=True)
    asked = [*held.queries, *held.requests, *(query for item in held.captures for query in item.requests)]
    chosen: dict[tuple[object, ...], Query] = {}
    for query in asked:
        place = query.place
        chosen.setdefault((query.kind, place and (place.kind, base.is_proxy(place)), query.arguments), query)
    others = [Query("exec", lab.place("ingress"), ("sh", "-c", 'echo "it\'s" $((1+1)); echo no >&2; exit 3'))]
    return [*chosen.values(), *others]


def test_each_line_gives_the_same_bytes(lab: Lab, path: str) -> None:
    kinds = set()
    for query in one_of_each(lab):
        if query.kind == "rules" and shutil.which(query.arguments[0], path=sandbox.search_path()) is None:
            continue
        if query.kind == "get" and shutil.which("curl") is None:
            continue
        evidence = lab.source.fetch(query)
        done = typed(evidence.here, path)
        same = steady(query, evidence.raw) == steady(query, done.stdout)
        if query.kind == "logs" and not same:  # what was logged meanwhile stands at the end
            same = done.stdout.startswith(evidence.raw)
        assert same, f"{evidence.here}\n{done.stderr.decode()}"
        assert done.returncode == evidence.status, evidence.here
        assert done.stderr == evidence.stderr or query.kind != "exec"
        kinds.add(query.kind)
    missing = set(KINDS) - kinds - {"capture", "prove"}  # a proof's line shows what comes by while it runs
    assert missing <= ({"get"} if shutil.which("curl") is None else set())


def test_the_line_of_a_capture_gives_the_frames_that_the_lab_captured_beside_it(
    lab: Lab, path: str, tmp_path: Path
) -> None:
    points = tuple(lab.point(item) for item in ("client", "ingress:lo", "productpage"))
    line = base.here(Query("capture", None, points), lab.source.mesh.name)
    root = Path(base.__file__).resolve().parents[2]
    env = {**os.environ, "PATH": path, "PYTHONPATH": str(root)}
    typed_in = ["sh", "-c", f"exec {line}"]
    out = tmp_path / "typed.pcapng"
    with out.open("wb") as file, subprocess.Popen(typed_in, stdout=file, stderr=subprocess.PIPE, env=env) as running:
        deadline = time.monotonic() + 20
        while out.stat().st_size == 0 and time.monotonic() < deadline:
            time.sleep(0.02)
        with lab.source.capture(points) as capture:
            lab.source.fetch(Query("get", CLIENT, ("/productpage",)))
        time.sleep(0.2)
        running.send_signal(signal.SIGINT)
        assert running.wait(10) == 0
    assert capture.evidence.here == line
    ours, theirs = pcapng.parse(capture.evidence.raw), pcapng.parse(out.read_bytes())
    assert [item.name for item in ours[0]] == [item.name for item in theirs[0]] == list(points)
    seen = {(item.interface, item.raw) for item in theirs[1]}
    assert len(ours[1]) > 20
    assert [item for item in ours[1] if (item.interface, item.raw) not in seen] == []


def test_lines_for_a_cluster_are_shell_words_that_name_the_place(lab: Lab) -> None:
    for query in one_of_each(lab):
        evidence = lab.source.fetch(query) if query.kind != "rules" else None
        line = evidence.on_a_cluster if evidence else base.on_a_cluster(query)
        words = shlex.split(line)
        assert words[0] in ("kubectl", "curl", *base.argv(query)[:1])
        if query.place is not None and query.place.kind != "client":
            assert any(query.place.name in word for word in words), line
