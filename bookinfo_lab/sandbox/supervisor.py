"""The process that a sandbox lives and dies with: `python -m bookinfo_lab.sandbox.supervisor`.

Edge: namespaces.  It reads its order (JSON) from stdin, makes the user namespace where it is not root, forks
the sandbox's init into a new PID namespace, and waits.  When it ends, by whatever signal, the kernel ends the
init and with it every process, mount and network namespace of the sandbox.  It reports to whoever ordered the
sandbox by JSON lines on a pipe; while that pipe's owner has not let go, the owner's end is the sandbox's end.
"""

import json
import os
import select
import signal
import subprocess
import sys
import time
import traceback
from typing import Any

from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.sandbox import init, linux, mapping, state

LET_GO = b"D"


def main() -> None:
    """Make the sandbox that stdin orders and stay until it ends."""
    order: dict[str, Any] = json.load(sys.stdin)
    status, owner = int(order["status_fd"]), int(order["owner_fd"])
    os.umask(0o022)
    woken, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    record = {
        "name": order["name"],
        "scenario": order["topology"]["scenario"],
        "pid": os.getpid(),
        "started": time.time(),
        "published": order.get("published"),
    }
    child = 0
    try:
        state.write(order["folder"], record)
        record["users"] = _user_namespace()
        child = _fork_init(order, record, status)
        state.write(order["folder"], record | {"init": child})
        os.close(status)
        _stay(owner, woken, child)
    except LabError as error:
        _say(status, {"error": str(error)})
    except OSError as error:
        _say(status, {"error": f"cannot make the sandbox's namespaces: {error}; see bookinfo-lab doctor"})
    finally:
        if child:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        state.remove(state.Claim(order["name"], order["folder"], int(order["lock_fd"])))
    sys.exit(0)


def _user_namespace() -> str:
    """Enter a user namespace unless we may make the others already; how users are mapped."""
    if mapping.may_make_namespaces():
        return mapping.own_form()
    return mapping.enter_user_namespace()


def _fork_init(order: dict[str, Any], record: dict[str, Any], status: int) -> int:
    """Fork process 1 of the sandbox; its process id out here."""
    linux.unshare(linux.CLONE_NEWPID)
    alive, held = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(alive)
        os.set_inheritable(held, False)
        return child
    try:
        linux.die_with_parent()
        os.close(held)
        if select.select([alive], [], [], 0)[0]:
            os._exit(1)  # the supervisor ended before the line above could bind us to it
        os.close(int(order["owner_fd"]))
        os.close(int(order["lock_fd"]))
        init.run(order, record, status)
    except LabError as error:
        _say(status, {"error": str(error)})
    except (OSError, subprocess.SubprocessError) as error:
        _say(status, {"error": f"the sandbox could not be made: {error}; see bookinfo-lab doctor"})
    except BaseException as error:  # noqa: BLE001 - a forked child must not unwind into the supervisor
        traceback.print_exc()  # to the log: whoever ordered the sandbox listens only until it is ready
        sys.stderr.flush()
        _say(status, {"error": f"the sandbox failed: {type(error).__name__}: {error}"})
    finally:
        os._exit(1)


def _stay(owner: int, woken: int, child: int) -> None:
    """Wait for the init's end, a signal that asks for ours, or an owner that ends without letting go."""
    watched = [owner, woken]
    while True:
        readable, _, _ = select.select(watched, [], [])
        if woken in readable and _asked_to_stop(os.read(woken, 64), child):
            return
        if owner in readable:
            if os.read(owner, 1) != LET_GO:
                return
            watched.remove(owner)


def _asked_to_stop(signals: bytes, child: int) -> bool:
    if signal.SIGTERM in signals or signal.SIGHUP in signals:
        return True
    return signal.SIGCHLD in signals and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _say(status: int, message: dict[str, Any]) -> None:
    try:
        os.write(status, json.dumps(message).encode() + b"\n")
    except OSError as error:
        raise Unsupported(f"nobody listens any more: {error.strerror}") from None


if __name__ == "__main__":
    main()
