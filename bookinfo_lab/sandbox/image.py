"""The file system that a container, a node and the sandbox's own init see.

Edge: mounts.  Each root is a small tmpfs with this machine's programs bound into it read-only, an /etc of
its own, and the files of its image.  Nothing of the learner's home is in it but the Python installation and
this package, at their own paths.  `build` mounts below a folder in the caller's mount namespace; `enter`
makes that folder the root.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec

from bookinfo_lab.sandbox import linux

APPLICATIONS = "/opt/microservices"
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives",
    "bash.bashrc",
    "ethertypes",
    "gai.conf",
    "iproute2",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "localtime",
    "nftables.conf",
    "protocols",
    "rpc",
    "services",
    "ssl",
    "terminfo",
    "xtables",
)
_NEEDED = ("dnslib", "setproctitle")  # what the sandbox's own processes import once they have a root of their own
_SCRIPTS = {"pilot-agent": "pilot_request.py"}
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_PASSWD = "root:x:0:0:root:/root:/bin/sh\nistio-proxy:x:1337:1337::/:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n"
_GROUP = "root:x:0:\ntty:x:5:\nistio-proxy:x:1337:\nnogroup:x:65534:\n"


@dataclass(frozen=True, slots=True)
class Root:
    """What one root holds beside the machine's programs: files by path, folders bound read-only (source → place).

    ``folders`` are empty ones that belong to the uid ``owner``, for what its process writes.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    binds: Mapping[str, str] = field(default_factory=dict)
    folders: tuple[str, ...] = ()
    owner: int = 0
    size_mb: int = 64


@cache
def python_folders() -> tuple[str, ...]:
    """The folders this interpreter and this package live in, outside /usr, shortest first, none inside another."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    wanted = {os.path.realpath(sys.base_prefix), sys.prefix, package}
    found = [spec.origin for spec in map(find_spec, _NEEDED) if spec and spec.origin]
    wanted |= {os.path.dirname(os.path.dirname(origin)) for origin in found}
    kept: list[str] = []
    for path in sorted(wanted, key=len):
        if os.path.isdir(path) and not any(_inside(path, parent) for parent in ("/usr", *kept)):
            kept.append(path)
    return tuple(kept)


def _inside(path: str, parent: str) -> bool:
    return path == parent or path.startswith(parent.rstrip("/") + "/")


def closed_to_others(path: str) -> str:
    """The first part of ``path``, from the folder that is bound on, which another user may not enter or run; or ""."""
    for folder in ("/usr", *python_folders()):
        if _inside(path, folder):
            parts = path[len(folder) :].strip("/").split("/")
            steps = [folder, *("/".join([folder, *parts[: number + 1]]) for number in range(len(parts)))]
            return next((step for step in steps if not os.stat(step).st_mode & 0o001), "")
    return "" if os.stat(path).st_mode & 0o001 else path


def build(target: str, root: Root) -> None:
    """Mount everything of ``root`` below the existing folder ``target``; /proc is the caller's PID namespace."""
    linux.mount("tmpfs", target, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"size={root.size_mb}m,mode=0755")
    for folder, mode in (("tmp", 0o1777), ("run", 0o755), ("var/log", 0o755), ("root", 0o755), ("proc", 0o555)):
        _folder(f"{target}/{folder}")
        os.chmod(f"{target}/{folder}", mode)
    os.symlink("/run", f"{target}/var/run")
    for source, inside in (*_system_binds(), *root.binds.items()):
        _bind(source, target + inside)
    _devices(target)
    for path, text in ({"/etc/passwd": _PASSWD, "/etc/group": _GROUP} | dict(root.files)).items():
        _write(target + path, text)
    for path in root.folders:
        _folder(target + path)
        os.chown(target + path, root.owner, root.owner)
    linux.mount("proc", f"{target}/proc", "proc", linux.MS_NOSUID | linux.MS_NODEV)


def enter(target: str) -> None:
    """Make ``target`` (made by `build`) the root of this mount namespace and forget the old one."""
    linux.enter_root(target)


def add_programs(folder: str, links: Mapping[str, str]) -> None:
    """Put ``links`` (name → program) and our own scripts in the folder of /usr that is first on the search path.

    A program that lies outside what every root holds is bound there itself.
    """
    linux.mount("tmpfs", folder, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=1m,mode=0755")
    for name, program in links.items():
        if any(_inside(program, known) for known in ("/usr", *python_folders())):
            os.symlink(program, f"{folder}/{name}")
        else:
            _bind(program, f"{folder}/{name}")
    here = os.path.dirname(os.path.abspath(__file__))
    for name, script in _SCRIPTS.items():
        _write(f"{folder}/{name}", f'#!/bin/sh\nexec python -I -S "{here}/{script}" "$@"\n')
        os.chmod(f"{folder}/{name}", 0o755)


def _system_binds() -> Iterator[tuple[str, str]]:
    for path in _SYSTEM:
        if os.path.exists(path):
            yield path, path
    for name in _ETC:
        if os.path.exists(f"/etc/{name}"):
            yield f"/etc/{name}", f"/etc/{name}"
    for folder in python_folders():
        yield folder, folder


def _bind(source: str, target: str) -> None:
    if os.path.islink(source) and os.path.dirname(source) == "/":
        os.symlink(os.readlink(source), target)  # /bin -> usr/bin
    elif os.path.isdir(source):
        _folder(target)
        linux.bind_read_only(source, target)
    else:
        _folder(os.path.dirname(target))
        _touch(target)
        linux.bind_read_only(os.path.realpath(source), target)


def _devices(target: str) -> None:
    _folder(f"{target}/dev/pts")
    for name in _DEVICES:
        _touch(f"{target}/dev/{name}")
        linux.mount(f"/dev/{name}", f"{target}/dev/{name}", flags=linux.MS_BIND)
    linux.mount("devpts", f"{target}/dev/pts", "devpts", linux.MS_NOSUID, "newinstance,ptmxmode=0666,mode=0620")
    for name, link in (("ptmx", "pts/ptmx"), ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0")):
        os.symlink(link, f"{target}/dev/{name}")
    for name, number in (("stdout", 1), ("stderr", 2)):
        os.symlink(f"/proc/self/fd/{number}", f"{target}/dev/{name}")
    _folder(f"{target}/dev/shm")
    os.chmod(f"{target}/dev/shm", 0o1777)


def _folder(path: str) -> None:
    os.makedirs(path, mode=0o755, exist_ok=True)


def _touch(path: str) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))


def _write(path: str, text: str) -> None:
    _folder(os.path.dirname(path))
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
