"""A Kubernetes cluster for a test run: started, asked with kubectl, given accounts, ended.

    with running(folder) as bed: …

`folder` holds `up`, which prints the shell line that points kubectl at a cluster, and `down`, which ends it.  It gets a
state folder and a port of its own, and is ended also where this process is killed.  `own/` beside this file is such a
folder for a cluster that was there before: nothing may be assumed of that, and nothing outside our namespaces changed.
"""

import base64
import json
import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bookinfo_lab.sources.base import DEBUG_IMAGE

ROOT = Path(__file__).resolve().parent.parent.parent
ROLES = ROOT / "deploy" / "rbac"
OWN = Path(__file__).resolve().parent / "own"
START_S = 1500.0  # the first time its programs are built
CLUSTER_ROLE = "bookinfo-lab-reader"
PREFIX = "bookinfo-lab-test-"
_BED_IMAGE = "lab.local/base:1"


@dataclass(frozen=True, slots=True)
class Bed:
    """A cluster that runs.

    ``audit_log`` is None where it cannot be read; ``is_ours``: all of it may be changed; ``images``: the folder whose
    programs bring images to it, None where it has a registry.
    """

    kubeconfig: Path
    environment: dict[str, str]
    image: str
    audit_log: Path | None
    is_ours: bool
    folder: Path
    images: Path | None

    def tried(self, *words: str, given: str = "", kubeconfig: Path | None = None) -> "subprocess.CompletedProcess[str]":
        """What became of a kubectl line."""
        command = ["kubectl", "--kubeconfig", str(kubeconfig or self.kubeconfig), *words]
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=90, env=self.environment)

    def kubectl(self, *words: str, given: str = "", kubeconfig: Path | None = None) -> str:
        """What kubectl printed; an AssertionError with what it said where it failed."""
        done = self.tried(*words, given=given, kubeconfig=kubeconfig)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr.strip()}"
        return done.stdout

    def objects(self, *words: str) -> Any:
        """What `kubectl get … -o json` printed."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def apply(self, *objects: dict[str, Any]) -> None:
        self.kubectl("apply", "-f", "-", given=json.dumps({"apiVersion": "v1", "kind": "List", "items": [*objects]}))

    def account(self, namespace: str, name: str, roles: Sequence[str] = (), duration: str = "1h") -> Path:
        """The kubeconfig of a new service account that has roles of deploy/rbac/, its context in that namespace."""
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}
        self.apply(account, *(item for role in roles for item in bound(role, namespace, name)))
        token = self.kubectl("create", "token", "-n", namespace, name, f"--duration={duration}").strip()
        config = json.loads(self.kubeconfig.read_text())
        config["users"] = [{"name": name, "user": {"token": token}}]
        config["contexts"][0]["context"] |= {"user": name, "namespace": namespace}
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        path.write_text(json.dumps(config))
        path.chmod(0o600)
        return path

    def asked_by(self, kubeconfig: Path) -> str:
        """The user of an account's kubeconfig, as the API server knows it."""
        token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"].split(".")[1]
        return str(json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))["sub"])

    @contextmanager
    def namespace(self, **labels: str) -> Iterator[str]:
        """A new namespace, and a pod `web` that answers HTTP on 8080 behind a Service `productpage`."""
        name = f"{PREFIX}{secrets.token_hex(3)}"
        self.apply(
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}},
            *web(name, self.image),
        )
        try:
            self.kubectl("wait", "-n", name, "--for=condition=Ready", "pod/web", "--timeout=60s")
            yield name
        finally:
            self.kubectl("delete", "namespace", name, "--wait=false")
            bindings = self.objects("clusterrolebindings")["items"]
            left = [item["metadata"]["name"] for item in bindings if name in json.dumps(item.get("subjects"))]
            if left:
                self.kubectl("delete", "clusterrolebinding", *left)


def bound(role: str, namespace: str, account: str) -> list[dict[str, Any]]:
    """A file of deploy/rbac/ and the binding that gives it to an account."""
    made = yaml.safe_load((ROLES / f"{role}.yaml").read_text())
    kind = made["kind"]
    place = {"namespace": namespace} if kind == "Role" else {}
    made["metadata"] |= place
    binding = {
        "apiVersion": made["apiVersion"],
        "kind": f"{kind}Binding",
        "metadata": {"name": f"{namespace}-{role}-{account}", **place},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": made["metadata"]["name"]},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
    }
    return [made, binding]


def web(namespace: str, image: str) -> list[dict[str, Any]]:
    """The Pod and the Service."""
    container = {
        "name": "web",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", "echo started; cd /tmp && exec python3 -m http.server 8080"],
        "readinessProbe": {"tcpSocket": {"port": 8080}, "periodSeconds": 1},
    }
    meta = {"namespace": namespace, "labels": {"app": "productpage", "sidecar.istio.io/inject": "false"}}
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "web", **meta},
            "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "productpage", **meta},
            "spec": {"selector": {"app": "productpage"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        },
    ]


@contextmanager
def running(folder: Path, *words: str) -> Iterator[Bed]:
    """Start the cluster of ``folder``, two nodes and Istio unless ``words`` say otherwise; end it."""
    kept = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/var/tmp"))
    state = kept / "state"
    own = {"BOOKINFO_CLUSTER_STATE": str(state), "BOOKINFO_CLUSTER_PORT": str(_free_port())}
    environment = {**os.environ, **own, "KUBECACHEDIR": str(kept / "kubectl")}
    # It waits for its input to end, which the kernel sees to also where this process is killed.
    ender = subprocess.Popen(
        ["bash", "-c", 'cat >/dev/null; "$0/down"; rm -rf "$1"', str(folder), str(kept)],
        stdin=subprocess.PIPE,
        start_new_session=True,
        env=environment,
    )
    try:
        bed = _started(folder, kept, environment, words or ("--nodes", "2", "--istio"))
        had = bed.kubectl("get", "clusterrole", CLUSTER_ROLE, "--ignore-not-found")
        yield bed
        if not bed.is_ours and not had:
            bed.kubectl("delete", "clusterrole", CLUSTER_ROLE, "--ignore-not-found")
    finally:
        assert ender.stdin is not None
        ender.stdin.close()
        ender.wait(60)
        shutil.rmtree(kept, ignore_errors=True)


def _started(folder: Path, kept: Path, environment: dict[str, str], words: Sequence[str]) -> Bed:
    is_ours = folder.resolve() != OWN
    script = 'folder=$1; shift; out=$("$folder/up" "$@") && eval "$out" && env -0'
    done = subprocess.run(
        ["bash", "-c", script, "up", str(folder), *(words if is_ours else ())],
        capture_output=True,
        timeout=START_S,
        env=environment,
    )
    if done.returncode:
        raise RuntimeError(f"{folder}/up: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    after = dict(line.split("=", 1) for line in done.stdout.decode().split("\0") if "=" in line)
    log = Path(environment["BOOKINFO_CLUSTER_STATE"]) / "log" / "audit.log"
    image = os.environ.get("BOOKINFO_LAB_IMAGE") or (_BED_IMAGE if is_ours else DEBUG_IMAGE)
    # A list of files is one kubeconfig for kubectl alone; the current context of it is what the tests use.
    merged = subprocess.run(
        ["kubectl", "config", "view", "--raw", "--minify", "-o", "json"], capture_output=True, env=after, check=True
    )
    path = kept / "kubeconfig"
    path.write_bytes(merged.stdout)
    path.chmod(0o600)
    return Bed(path, after, image, log if log.exists() else None, is_ours, kept, folder if is_ours else None)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
