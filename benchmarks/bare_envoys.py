"""The peer of `benchmarks/sandbox.py`: a scenario's Envoys with their agents and configurations, and nothing else.

Run as root of a network and mount namespace of its own; prints the seconds until the last of them is live.  Each
Envoy has a network namespace of its own, since all listen on the same ports, and a folder of its own.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

from bookinfo_lab import sandbox
from bookinfo_lab.sandbox import agent, linux, scenarios, topology, xds


def main() -> None:
    plan = scenarios.scenario(sys.argv[1])
    envoy = sandbox.envoy_binary()
    pods = [pod for pod in plan.pods() if any(topology.is_proxy(item) for item in topology.containers(pod))]
    with tempfile.TemporaryDirectory() as folder:
        jobs = []
        for number, pod in enumerate(pods):
            settings = xds.Settings(folder=f"{folder}/{number}")
            files = xds.files(plan.objects, pod, settings)
            jobs.append((files, settings, [envoy, *xds.command(settings)[1:]]))
        print(start(jobs, folder))


def start(jobs: list[tuple[dict[str, str], xds.Settings, list[str]]], folder: str) -> float:
    """Start every agent and Envoy side by side and kill them when all are live; the seconds in between."""
    began = time.monotonic()
    running = []
    for files, settings, command in jobs:
        linux.unshare(linux.CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        pid = os.fork()
        if pid == 0:
            linux.unshare(linux.CLONE_NEWPID)
            if os.fork() == 0:
                log = os.open(f"{folder}/log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.dup2(log, 1)
                os.dup2(log, 2)
                linux.die_with_parent()
                agent.run(files, settings, command, os.environ, status=False)
            os.wait()
            os._exit(1)
        running.append((pid, os.open("/proc/self/ns/net", os.O_RDONLY)))
    for pid, space in running:
        linux.setns(space, linux.CLONE_NEWNET)
        while not is_live():
            if os.waitpid(pid, os.WNOHANG)[0]:
                sys.exit("an Envoy ended")
            time.sleep(0.005)
    seconds = time.monotonic() - began
    for pid, _ in running:
        os.kill(pid, signal.SIGKILL)  # its PID namespace, and so its Envoy, ends with it
        os.waitpid(pid, 0)
    return seconds


def is_live() -> bool:
    """Whether the admin of the Envoy in this network namespace says LIVE."""
    try:
        with socket.create_connection(("127.0.0.1", 15000), timeout=1) as admin:
            admin.sendall(b"GET /ready HTTP/1.1\r\nHost: admin\r\nConnection: close\r\n\r\n")
            return admin.recv(64).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


if __name__ == "__main__":
    main()
