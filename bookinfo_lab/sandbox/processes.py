"""Starts containers: processes with a mount, PID, UTS and IPC namespace of their own in a pod's network namespace.

Edge: forks.  The caller is the sandbox's init, single-threaded and root in its user namespace.  A container
runs either a program (its image's files, found on PATH) or one of this package's own parts, forked without a
new interpreter and shown by `ps` under a title that says what it is.
"""

import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bookinfo_lab.sandbox import image, linux, netns

PATH = "/usr/local/bin:/usr/local/sbin:/usr/bin:/usr/sbin:/bin:/sbin:/opt/bin"
LOGS = "/var/log/pods"
_ROOT = "/run/bookinfo-lab/root"


@dataclass(frozen=True, slots=True)
class Container:
    """What to start: where (netns, own PID namespace or not), as whom, seeing which files, running what.

    ``run`` is a function for the package's own parts (it never returns), ``argv`` a program otherwise; ``keep``
    is the one descriptor beside stdin, stdout and stderr that stays open.
    """

    name: str
    netns: str
    hostname: str
    log: str
    root: image.Root
    argv: Sequence[str] = ()
    run: Callable[[], None] | None = None
    title: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    folder: str = "/"
    uid: int = 0
    own_pids: bool = True
    keep: int = 2


def start(container: Container) -> int:
    """Fork the container's first process; its process id as the sandbox's init sees it."""
    os.makedirs(os.path.dirname(container.log), exist_ok=True)
    log = os.open(container.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    os.fchmod(log, 0o666)  # an Envoy of another uid opens it again as /dev/stdout
    if container.own_pids:
        linux.unshare(linux.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        _become(container, log)
    if container.own_pids:
        linux.setns("/proc/self/ns/pid", linux.CLONE_NEWPID)
    os.close(log)
    return pid


def _become(container: Container, log: int) -> None:
    """In the child: enter the namespaces, put on the root, drop to the uid, run.  Never returns."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.setsid()
        empty = os.open("/dev/null", os.O_RDONLY)
        for source, target in ((empty, 0), (log, 1), (log, 2)):
            os.dup2(source, target)
        linux.setns(netns.path(container.netns), linux.CLONE_NEWNET)
        linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWIPC)
        socket.sethostname(container.hostname)
        os.makedirs(_ROOT, exist_ok=True)
        image.build(_ROOT, container.root)
        image.enter(_ROOT)
        os.chdir(container.folder)
        os.closerange(3, container.keep)
        os.closerange(container.keep + 1, 4096)
        if container.title:
            entitle(container.title)
        become_user(container.uid)
        if container.run is not None:
            container.run()
            os._exit(0)
        os.execvpe(container.argv[0], list(container.argv), environment(container.env))
    except BaseException as error:  # noqa: BLE001 - a forked child must not unwind into the init's code
        os.write(2, f"{container.name} could not start: {error}\n".encode())
    finally:
        os._exit(127)


def become_user(uid: int) -> None:
    """Take on a uid and the gid of the same number; uid 0 stays what the namespace gave it.

    The change hides this process from the sandbox's init, which must be able to enter its namespaces: undo that.
    """
    if uid:
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        linux.set_dumpable()


def environment(more: Mapping[str, str]) -> dict[str, str]:
    """A container's environment variables: nothing of the learner's own shell."""
    base = {"PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1", "PYTHONNOUSERSITE": "1"}
    return base | dict(more)


def entitle(title: str) -> None:
    """Show ``title`` as this process's command line and name."""
    import setproctitle  # a process forked from the init has no argv of its own to show

    setproctitle.setproctitle(title)
    linux.set_name(os.path.basename(title.split()[0]))


def run_inside(
    pid: int, uid: int, argv: Sequence[str], env: Mapping[str, str], prepare: Callable[[], None] = lambda: None
) -> None:
    """Replace this process by ``argv`` beside the process ``pid``, in all its namespaces.  Never returns.

    The caller is a fork of the init that leads its own session; ``prepare`` runs inside, before the program.  It
    starts in the working folder of the container's first process.  A second fork is needed to be in the PID
    namespace; the first process waits for it and passes its status on.
    """
    flags = {"ipc": linux.CLONE_NEWIPC, "uts": linux.CLONE_NEWUTS, "net": linux.CLONE_NEWNET}
    flags |= {"pid": linux.CLONE_NEWPID, "mnt": linux.CLONE_NEWNS}
    opened = {kind: os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in flags}
    for kind, flag in flags.items():
        linux.setns(opened[kind], flag)
    prepare()
    passed_on = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    for number in passed_on:
        signal.signal(number, signal.SIG_IGN)  # they are for the program; this process waits for its status
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        os._exit(code if code >= 0 else 128 - code)
    linux.die_with_parent()
    for number in passed_on:
        signal.signal(number, signal.SIG_DFL)
    try:
        # A node has no process 1 of its own: what /proc shows there is the sandbox's init, of another root.
        os.chdir("/proc/1/cwd" if os.path.samefile("/proc/1/root", "/") else "/")
        become_user(uid)
        os.execvpe(argv[0], list(argv), environment(env))
    except FileNotFoundError:
        os.write(2, f"bookinfo-lab: {argv[0]}: no such program in there\n".encode())
        os._exit(127)
    except OSError as error:
        os.write(2, f"bookinfo-lab: {argv[0]}: {error.strerror}\n".encode())
    os._exit(126)


def stop_on_signal() -> None:
    """Let this forked part end at once on SIGTERM, although it is process 1 of its namespace."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
