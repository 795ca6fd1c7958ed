"""What the lab makes in a reader's cluster, as API objects, and what a pod says of them.

Pure.  A pod on a node carries the label OWNED with its owner's id and ends by itself; an ephemeral container cannot
carry one: it is known by its name, which begins with PREFIX and ends with the owner's id.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

from bookinfo_lab.kube.places import OWNED

PREFIX = "bookinfo-lab-"
LIFETIME_S = 3600
IDLE_S = 600
IMAGE_VARIABLE = "BOOKINFO_LAB_IMAGE"
# A node pod counts its idle steps of ten seconds down; FULL, run in it, starts the count anew, and so do programs that
# run in it (where it sees its own processes alone).
FULL = f"echo {IDLE_S // 10} > /tmp/idle-left"
KEEP = f"""trap 'exit 0' TERM
{FULL}
while left=$(cat /tmp/idle-left) && [ "${{left:-1}}" -gt 0 ]; do
  echo $((${{left:-1}} - 1)) > /tmp/idle-left
  set -- /proc/[0-9]*
  [ "$ALONE" != yes ] || [ $# -le 1 ] || {FULL}
  sleep 10 & wait $!
done"""


def node_pod(
    name: str, owner: str, node: str, container: str, image: str, more: Collection[str] = ()
) -> dict[str, Any]:
    """A Pod in a node's network namespace, and with ``more`` capabilities in its process namespace too."""
    made = {
        "name": container,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", KEEP],
        "env": [{"name": "ALONE", "value": "no" if more else "yes"}],
        "securityContext": _as_root(*more),
    }
    spec = {
        "nodeName": node,
        "hostNetwork": True,
        **({"hostPID": True} if more else {}),
        "restartPolicy": "Never",
        "activeDeadlineSeconds": LIFETIME_S,
        "terminationGracePeriodSeconds": 1,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "tolerations": [{"operator": "Exists"}],
        "containers": [made],
    }
    labels = {OWNED: owner, "sidecar.istio.io/inject": "false"}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}


def ephemeral(name: str, target: str, image: str) -> dict[str, Any]:
    """An ephemeral container in the process namespace of the pod's container ``target``."""
    return {
        "name": name,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sleep", "infinity"],
        "env": [{"name": IMAGE_VARIABLE, "value": image}],
        "targetContainerName": target,
        "securityContext": _as_root("SYS_PTRACE"),  # ss names the programs of other users by it
    }


def _as_root(*more: str) -> dict[str, Any]:
    return {"capabilities": {"add": ["NET_ADMIN", "NET_RAW", *more]}, "runAsUser": 0, "runAsNonRoot": False}


def image_of(container: Mapping[str, Any]) -> str:
    """The image that was asked for: a policy may have put another registry's into its place."""
    every = container.get("env") or ()
    return next(
        (str(item.get("value")) for item in every if item.get("name") == IMAGE_VARIABLE), str(container.get("image"))
    )


def is_of(container: str, owner: str) -> bool:
    """Whether an ephemeral container's name is one that this owner's lab gives."""
    return re.search(rf"-{re.escape(owner)}(-\d+)?$", container) is not None


def state_of(pod: Mapping[str, Any], statuses: str, name: str) -> Mapping[str, Any]:
    """The state of a container of that name: {"running": {…}}, {"waiting": {…}} or {"terminated": {…}}; {} of none."""
    every = (pod.get("status") or {}).get(statuses) or ()
    return next((item.get("state") or {} for item in every if item.get("name") == name), {})


def state_in(pod: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The same of an ephemeral container."""
    return state_of(pod, "ephemeralContainerStatuses", name)


def guests_in(pod: Mapping[str, Any], target: str) -> list[Mapping[str, Any]]:
    """The ephemeral containers of the lab's, of any owner, beside ``target``."""
    given = (pod.get("spec") or {}).get("ephemeralContainers") or ()
    return [item for item in given if item["name"].startswith(PREFIX) and item.get("targetContainerName") == target]
