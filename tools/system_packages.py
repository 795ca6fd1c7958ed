"""The programs that the sandbox takes from the system: which are missing, and how to get them.

Debian's packages, because Debian is what the project is tried on; elsewhere the line to type names the programs.
Installs only as root or where sudo asks for no password, says so first, and never fails: what is still missing
is returned, and `bookinfo-lab doctor` tells what works without it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SystemPackage:
    """A Debian package, a program that shows it is there, and what needs it."""

    name: str
    program: str
    needed_for: str


WANTED = (
    SystemPackage("iproute2", "ip", "the sandbox's interfaces and routes"),
    SystemPackage("iptables", "iptables-nft", "the sandbox's rules"),
    SystemPackage("uidmap", "newuidmap", "the sidecar's real uid 1337 without root"),
)


def search_path(env: dict[str, str]) -> str:
    """PATH with the system folders that Debian leaves out of an ordinary user's."""
    return ":".join([env.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def missing(env: dict[str, str]) -> tuple[SystemPackage, ...]:
    """The packages whose program is not there; none off Linux, where there is no sandbox."""
    if not sys.platform.startswith("linux"):
        return ()
    return tuple(package for package in WANTED if not shutil.which(package.program, path=search_path(env)))


def venv_package(python: str) -> str:
    """The Debian package that brings ensurepip to a system Python: ``python3-venv``, or one with the version in it."""
    if os.path.realpath("/usr/bin/python3") == os.path.realpath(python):
        return "python3-venv"
    return "python{}.{}-venv".format(*sys.version_info[:2])


def line_to_type(names: list[str]) -> str:
    """The command by which a user gets these packages."""
    if shutil.which("apt-get"):
        return f"sudo apt-get install -y {' '.join(names)}"
    return f"install these with the system's package manager (Debian's names): {' '.join(names)}"


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)


def leave_to_install() -> list[str] | None:
    """What to put before apt-get: nothing as root, ``sudo -n`` where that works, None where neither does."""
    if not shutil.which("apt-get"):
        return None
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and run([sudo, "-n", "true"]).returncode == 0:
        return [sudo, "-n"]
    return None


def install(names: list[str], say: Callable[[str], None]) -> bool:
    """Install Debian packages where the user may; True when apt-get ended with 0."""
    before = leave_to_install()
    if before is None:
        return False
    how = "as root" if not before else "with sudo"
    say(f"installing the Debian packages {' '.join(names)} {how} (apt-get install)")
    apt = [*before, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120"]
    # Packages known from an earlier update are tried first: most machines then need no update.
    for step in (["install"], ["update"], ["install"]):
        arguments = ["-y", "--no-install-recommends", *names] if step == ["install"] else []
        done = run([*apt, *step, *arguments])
        if step == ["install"] and done.returncode == 0:
            return True
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    say(f"apt-get could not install them: {lines[-1]}")
    return False
