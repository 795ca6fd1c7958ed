import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bookinfo_lab.netfilter.tables import in_transactions

_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
MAPPED = ["unshare", "--map-root-user", "--map-auto", "--net"]
_LOAD = """
first=$1 rest=$2; shift 2
for name in "$@"; do nfacct add "$name" || exit; done
iptables-nft-restore < "$first" && iptables-nft-restore --noflush < "$rest" && iptables-nft-save
"""


@pytest.fixture(scope="session")
def recorded(data_folder: Path) -> Callable[[str], str]:
    """Reads a file of the recorded data."""
    return lambda name: (data_folder / name).read_text()


@pytest.fixture(scope="session")
def api() -> SimpleNamespace:
    """Writers of small API objects: ``node``, ``service`` and ``endpoints`` (an EndpointSlice of a Service)."""

    def node(name: str = "lab-0", address: str = "172.18.0.2", **labels: str) -> dict[str, Any]:
        return {
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }

    def service(
        name: str = "web", *, ports: Sequence[dict[str, Any]] = ({"name": "http", "port": 80},), **spec: Any
    ) -> dict[str, Any]:
        return {
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {
                "clusterIP": "10.96.0.7",
                "ports": list(ports),
                **{k: v for k, v in spec.items() if k != "ingress"},
            },
            "status": {"loadBalancer": {"ingress": spec.get("ingress", [])}},
        }

    def endpoints(
        *given: tuple[str, str, str] | dict[str, Any], service: str = "web", name: str = "web-1", port: Any = None
    ) -> dict[str, Any]:
        conditions = {
            "ready": {"ready": True, "serving": True, "terminating": False},
            "ending": {"ready": False, "serving": True, "terminating": True},
            "down": {"ready": False, "serving": False, "terminating": False},
        }
        return {
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4",
            "ports": [port or {"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                item
                if isinstance(item, dict)
                else {"addresses": [item[0]], "nodeName": item[1], "conditions": conditions[item[2]]}
                for item in given
            ],
        }

    return SimpleNamespace(node=node, service=service, endpoints=endpoints)


@pytest.fixture(scope="session")
def maps_uids() -> bool:
    """Whether this user can map more user ids than his own: without, the kernel refuses a match on uid 1337."""
    return os.geteuid() == 0 or _works(MAPPED)


@pytest.fixture(scope="session")
def load_and_save(tmp_path_factory: pytest.TempPathFactory, maps_uids: bool) -> Callable[..., str]:
    """Loads rules in a network namespace of their own, and gives what iptables-nft-save prints, without remarks.

    Raises RuntimeError with what iptables-nft-restore said where it or the kernel refuses the rules.
    """
    if shutil.which("nfacct", path=_PATH) is None:
        pytest.skip("nfacct is not installed: no accounting objects for the rules that name them")
    enter = (
        ["unshare", "--net"] if os.geteuid() == 0 else MAPPED if maps_uids else ["unshare", "--map-root-user", "--net"]
    )

    def load(text: str, accounting: Sequence[str] = ()) -> str:
        folder = tmp_path_factory.mktemp("rules")
        parts = [folder / "first", folder / "rest"]
        for part, written in zip(parts, in_transactions(text), strict=True):
            part.write_text(written)
        command = [*enter, "sh", "-c", _LOAD, "load", *map(str, parts), *accounting]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=_environment())
        if done.returncode:
            raise RuntimeError(f"{done.stderr}\n{text}")
        return "".join(line for line in done.stdout.splitlines(keepends=True) if not line.startswith("#"))

    return load


def _works(enter: list[str]) -> bool:
    return subprocess.run([*enter, "true"], capture_output=True, timeout=20, env=_environment()).returncode == 0


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": _PATH}
