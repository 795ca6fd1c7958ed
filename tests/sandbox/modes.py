"""The command line as each kind of user: root, an ordinary user with newuidmap's range, one with a single uid.

Run by root, the tests become an ordinary user in a private mount namespace whose /etc/subuid gives that user a range,
or none: the machine's own files stay as they are.  Run by an ordinary user, only the mode that applies is there.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import mapping

UID = 65534  # newuidmap serves only users that /etc/passwd names
MODES = ("root", "range", "single")
_CODE = "import sys; from bookinfo_lab.cli import main; sys.exit(main())"
_BECOME = (
    'mount --bind "$SUB" /etc/subuid && mount --bind "$SUB" /etc/subgid && '
    'exec setpriv --reuid "$RUN_UID" --regid "$RUN_UID" --clear-groups "$@"'
)


@dataclass(frozen=True, slots=True)
class Runner:
    """Runs bookinfo-lab as one kind of user, with a state folder of its own."""

    mode: str
    prefix: tuple[str, ...]
    python: str
    env: dict[str, str] = field(repr=False)
    state: str = ""

    def command(self, *arguments: str) -> list[str]:
        return [*self.prefix, self.python, "-P", "-c", _CODE, *arguments]

    def start(self, *arguments: str, **more: Any) -> "subprocess.Popen[str]":
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(self.command(*arguments), env=self.env, text=True, cwd="/", **(pipes | more))

    def run(self, *arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
        settings = {"capture_output": True, "text": True, "timeout": 90, "cwd": "/", "stdin": subprocess.DEVNULL}
        return subprocess.run(self.command(*arguments), env=self.env, check=False, **(settings | more))

    def status(self, name: str) -> dict[str, Any] | None:
        """The record of a sandbox that runs, None where none does."""
        found = json.loads(self.run("status", "--name", name, "--json").stdout)["sandboxes"]
        return found[0] if found else None


def own_mode() -> str:
    """The mode of whoever runs the tests."""
    if mapping.may_make_namespaces():
        return mapping.own_form()
    return "range" if mapping.range_commands(os.getpid()) else "single"


@contextmanager
def runner(mode: str) -> Iterator[Runner]:
    """A Runner of that mode; skips where the tests' own user cannot take it on."""
    folder = tempfile.mkdtemp(prefix="bookinfo-lab-test-", dir="/var/tmp")
    os.chmod(folder, 0o755)
    state = f"{folder}/state"
    os.mkdir(state, 0o755)
    env = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "BOOKINFO_LAB_"))}
    env |= {"BOOKINFO_LAB_STATE": state, "PYTHONDONTWRITEBYTECODE": "1"}
    made = None
    try:
        if mode == own_mode():
            path = os.pathsep.join(filter(None, sys.path))
            made = Runner(mode, (), sys.executable, env | {"PYTHONPATH": path}, state)
        elif os.geteuid() == 0 and own_mode() == "root":
            made = _as_ordinary_user(mode, folder, state, env)
        else:
            pytest.skip(f"run by a user of the mode {own_mode()!r}, which cannot take on {mode!r}")
        yield made
    finally:
        for name in os.listdir(state) if made else ():
            made.run("down", "--name", name)  # a test that failed before its own `down` must leave nothing either
        shutil.rmtree(folder)


def _as_ordinary_user(mode: str, folder: str, state: str, env: dict[str, str]) -> Runner:
    """A Runner that gives up root; its Python and files are ones that anybody may read."""
    if (sys.version_info.major, sys.version_info.minor) != _version("/usr/bin/python3"):
        pytest.skip("the system's Python has another version than the tests': its compiled packages do not fit")
    os.chown(state, UID, UID)
    with open(f"{folder}/sub", "w", encoding="ascii") as file:
        file.write(f"{UID}:200000:65536\n" if mode == "range" else "")
    _copy_packages(f"{folder}/packages")
    prefix = ("unshare", "--mount", "sh", "-c", _BECOME, "sh")
    settings = {"SUB": f"{folder}/sub", "RUN_UID": str(UID), "PYTHONPATH": f"{folder}/packages", "HOME": "/nonexistent"}
    settings |= {"BOOKINFO_LAB_ENVOY": f"{folder}/packages/envoy-binary", "PATH": "/usr/bin:/bin"}
    return Runner(mode, prefix, "/usr/bin/python3", env | settings, state)


def _version(python: str) -> tuple[int, int]:
    code = "import sys; print(sys.version_info.major, sys.version_info.minor)"
    major, minor = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return int(major), int(minor)


def _copy_packages(target: str) -> None:
    """What the command line imports, copied to where an ordinary user can read it, and Envoy beside it."""
    os.mkdir(target)
    skip = shutil.ignore_patterns("__pycache__")
    for name in ("bookinfo_lab", "dnslib", "setproctitle"):
        spec = importlib.util.find_spec(name)
        assert spec is not None, f"{name} is not installed"
        assert spec.submodule_search_locations
        shutil.copytree(spec.submodule_search_locations[0], f"{target}/{name}", ignore=skip)
    envoy = sandbox.envoy_binary()
    try:
        os.link(envoy, f"{target}/envoy-binary")
    except OSError:
        shutil.copy(envoy, f"{target}/envoy-binary")
    for place, folders, files in os.walk(target):
        for name in (*folders, *files):
            path = f"{place}/{name}"
            if name != "envoy-binary" and not os.path.islink(path):
                os.chmod(path, 0o755)
