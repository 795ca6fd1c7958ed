"""Runs `inside` in a process of its own and hears what it finds; nothing of it outlives the call.

Edge: a subprocess.  A step that hangs costs the time limit once: what was heard until then counts.
"""

import json
import os
import signal
import subprocess
import sys

from bookinfo_lab.doctor.findings import Finding
from bookinfo_lab.sandbox import search_path


def run(place: str, envoy: str, limit_s: float) -> dict[str, Finding]:
    """Try everything; ``place`` is an empty folder to mount on, ``envoy`` the binary or empty.

    The findings by name; one named "inside" where the attempts did not come to their own end.
    """
    try:
        process = _start(place, envoy)
    except OSError as error:
        return {"inside": Finding("inside", False, f"no process could be started: {error.strerror}", error.errno or 0)}
    try:
        return _hear(process, limit_s)
    finally:
        _stop(process)


def _start(place: str, envoy: str) -> "subprocess.Popen[bytes]":
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bookinfo_lab.doctor.inside"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd="/",
        env=os.environ
        | {"PATH": search_path(), "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), package]), "LC_ALL": "C"},
        start_new_session=True,
    )
    assert process.stdin is not None
    try:
        process.stdin.write(json.dumps({"parent": os.getpid(), "place": place, "envoy": envoy}).encode())
        process.stdin.close()
    except BrokenPipeError:
        pass  # it ended early: `_hear` says why
    process.stdin = None
    return process


def _hear(process: "subprocess.Popen[bytes]", limit_s: float) -> dict[str, Finding]:
    ended = ""
    try:
        out, err = process.communicate(timeout=limit_s)
        if process.returncode:
            ended = (err.decode(errors="replace").strip().splitlines() or [f"status {process.returncode}"])[-1]
    except subprocess.TimeoutExpired:
        _stop(process)
        out, ended = process.communicate()[0], f"no end within {limit_s:.0f} s"
    found = {}
    for line in out.decode(errors="replace").splitlines():
        try:
            finding = Finding(**json.loads(line))
        except ValueError:
            continue  # the end of a line that was cut off
        found[finding.name] = finding
    return found | ({"inside": Finding("inside", False, ended)} if ended else {})


def _stop(process: "subprocess.Popen[bytes]") -> None:
    # The kernel ends what the attempts made.
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
