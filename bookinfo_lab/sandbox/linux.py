"""System calls that Python 3.11 does not wrap: namespaces, mounts and process attributes.

Thin and literal: each function is one system call (man page in its docstring), raises OSError with
the call's name on failure, and keeps no state.  Everything that decides what to do stands elsewhere.
"""

import ctypes
import os
import platform
import signal
import struct

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_NOSUID = 2
MS_NODEV = 4
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_MOUNT_SETATTR, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = 442, 0x8000, 1

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, call: str) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2): move this process (or, for PID, its future children) into new namespaces."""
    _check(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(namespace: int | str, kind: int = 0) -> None:
    """setns(2): enter the namespace behind a file descriptor or a path such as ``/proc/7/ns/net``."""
    descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC) if isinstance(namespace, str) else namespace
    try:
        _check(_libc.setns(descriptor, kind), f"setns({namespace})")
    finally:
        if isinstance(namespace, str):
            os.close(descriptor)


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """mount(2)."""
    result = _libc.mount(
        source.encode(), target.encode(), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None
    )
    _check(result, f"mount({source} on {target})")


def bind_read_only(source: str, target: str) -> None:
    """Bind ``source`` and every mount below it on ``target``, all of them read-only (mount_setattr(2), Linux 5.12)."""
    mount(source, target, flags=MS_BIND | MS_REC)
    attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
    result = _libc.syscall(_MOUNT_SETATTR, -1, target.encode(), _AT_RECURSIVE, attributes, len(attributes))
    _check(result, f"mount_setattr({target})")


def enter_root(new_root: str) -> None:
    """pivot_root(2): make ``new_root`` (a mount point) the root and drop the old one."""
    os.chdir(new_root)
    number = _PIVOT_ROOT[platform.machine()]
    _check(_libc.syscall(number, b".", b"."), "pivot_root")
    _check(_libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def die_with_parent() -> None:
    """prctl(PR_SET_PDEATHSIG): SIGKILL for this process when the thread that forked it ends."""
    _check(_libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")


def set_dumpable() -> None:
    """prctl(PR_SET_DUMPABLE): let the sandbox's owner reach /proc/PID/root after a change of credentials."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0), "prctl(PR_SET_DUMPABLE)")


def set_name(name: str) -> None:
    """prctl(PR_SET_NAME): the name in ``ps -o comm`` and ``ss -p``; the kernel keeps 15 bytes."""
    _check(_libc.prctl(_PR_SET_NAME, name.encode()[:15], 0, 0, 0), "prctl(PR_SET_NAME)")
