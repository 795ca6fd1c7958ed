"""What is in a cluster, to compare before and after: objects by kind, namespace, name and uid; what is on its nodes."""

import re
import subprocess
import time
from collections.abc import Callable

from bed import Bed

KINDS = "pods,services,configmaps,serviceaccounts,deployments,replicasets,daemonsets,jobs,roles,rolebindings"
_PROGRAMS = "for one in /proc/[0-9]*; do cat $one/comm; done 2>/dev/null"


def objects(bed: Bed) -> set[tuple[str, ...]]:
    """Every object of KINDS."""
    found = bed.objects("-A", KINDS)["items"]
    metas = [(item["kind"], item["metadata"]) for item in found]
    return {(kind, meta.get("namespace", ""), meta["name"], meta["uid"]) for kind, meta in metas}


def before(bed: Bed) -> set[tuple[str, ...]]:
    """The same, once none of them is being deleted any more: what an earlier test removed would go meanwhile."""
    until(lambda: not _is_one_going(bed), 40)
    return objects(bed)


def _is_one_going(bed: Bed) -> bool:
    found = [*bed.objects("-A", KINDS)["items"], *bed.objects("namespaces")["items"]]
    return any("deletionTimestamp" in item["metadata"] for item in found)


def of_a_lab(bed: Bed) -> list[str]:
    """The names of every lab's pods."""
    return [item["metadata"]["name"] for item in bed.objects("pods", "-A", "-l", "bookinfo-lab.dev/owner")["items"]]


def guests(bed: Bed, namespace: str, pod: str) -> list[str]:
    """The ephemeral containers of a pod."""
    given = bed.objects("pod", pod, "-n", namespace)["spec"].get("ephemeralContainers") or ()
    return [item["name"] for item in given]


def all_guests(bed: Bed) -> set[tuple[str, str]]:
    """Every ephemeral container of the cluster, by its pod's uid."""
    pods = bed.objects("pods", "-A")["items"]
    return {
        (pod["metadata"]["uid"], item["name"]) for pod in pods for item in pod["spec"].get("ephemeralContainers", ())
    }


def programs(bed: Bed, namespace: str, pod: str, container: str) -> list[str]:
    """The names of the programs that run in a container's process namespace, the question's own left out."""
    told = bed.kubectl("exec", "-n", namespace, pod, "-c", container, "--", "sh", "-c", _PROGRAMS)
    return sorted(word for word in told.split() if word != "cat")


_ON_NODE = """nft list ruleset
echo '# programs'
pids=$(ip netns pids {node})  # before the pipe's own programs are there
for one in $pids; do tr '\\0' ' ' </proc/$one/cmdline; echo; done 2>/dev/null | sort -u
echo '# files'
find /etc /opt /root /srv /usr/local /var/lib/cni -newer {mark} ! -path '/root/.*' -type f 2>/dev/null | sort"""


def on_nodes(bed: Bed, mark: str) -> dict[str, list[str]]:
    """Each node's rules, the programs in its network namespace, and its files that are younger than the file ``mark``.

    Counters and what a list of addresses remembers apart.  Empty for a cluster that is not the tests' own.
    """
    if bed.images is None:
        return {}
    found = {}
    for name in (item["metadata"]["name"] for item in bed.objects("nodes")["items"]):
        words = [str(bed.images / "node"), name, "sh", "-c", _ON_NODE.format(node=name, mark=mark)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, env=bed.environment, check=True)
        found[name] = [re.sub(r"packets \d+ bytes \d+", "", line) for line in done.stdout.splitlines()]
    return found


def at_rest(bed: Bed, seconds: float = 40.0) -> None:
    """Return once no namespace is being deleted and no node's rules have changed for three seconds.

    kube-proxy goes on writing when Services went, and a walk of rules that change is one to walk again.
    """
    deadline, since, before = time.monotonic() + seconds, time.monotonic(), ""
    while time.monotonic() < deadline:
        now = "\n".join(line for lines in on_nodes(bed, "/").values() for line in lines if "KUBE-" in line)
        ending = [item for item in bed.objects("namespaces")["items"] if item["status"]["phase"] != "Active"]
        if now != before or ending:
            since, before = time.monotonic(), now
        elif time.monotonic() - since > 3:
            return
        time.sleep(0.5)


def until(holds: Callable[[], bool], seconds: float = 15.0) -> bool:
    """Whether something holds, at the latest after that long."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True
