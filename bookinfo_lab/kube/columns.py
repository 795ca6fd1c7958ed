"""The columns and cells of ``kubectl get … --all-namespaces -o wide``, from API dicts.

Pure.  Follows kubernetes pkg/printers/internalversion/printers.go and apimachinery's pkg/util/duration.  Dicts are
taken as they come: what is missing or of another type is shown as kubectl shows it, `<none>` or `<unknown>`.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypedDict

import msgspec

from bookinfo_lab.errors import LabError

Item = Mapping[str, Any]
NONE, UNKNOWN = "<none>", "<unknown>"
_MOST_SHOWN = 3  # endpoints and ports of a slice


@dataclass(frozen=True, slots=True)
class Sheet:
    """Column names, and for each object a row of as many cells, by namespace and name."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class _Meta(TypedDict, total=False):
    namespace: Any
    name: Any
    creationTimestamp: Any
    deletionTimestamp: Any


class _Container(TypedDict, total=False):
    name: Any
    restartPolicy: Any


class _Spec(TypedDict, total=False):
    nodeName: Any
    readinessGates: Any
    initContainers: list[_Container] | None
    containers: list[_Container] | None


class _Condition(TypedDict, total=False):
    type: Any
    status: Any
    reason: Any


class _Ran(TypedDict, total=False):
    name: Any
    ready: Any
    started: Any
    restartCount: Any
    state: Any
    lastState: Any


class _Status(TypedDict, total=False):
    phase: Any
    reason: Any
    podIP: Any
    podIPs: Any
    nominatedNodeName: Any
    conditions: list[_Condition] | None
    initContainerStatuses: list[_Ran] | None
    containerStatuses: list[_Ran] | None


class _Pod(TypedDict, total=False):
    metadata: _Meta
    spec: _Spec
    status: _Status


class _Pods(TypedDict):
    items: list[_Pod]


def read(resource: str, raw: bytes) -> list[Item]:
    """The objects of a List in JSON, at least with the fields that columns show: most of a Pod is something else."""
    if resource == "pods":
        try:
            found: Any = msgspec.json.decode(raw, type=_Pods)["items"]
            return list(found)
        except msgspec.DecodeError:
            pass  # something in it is not of its type: it is shown as kubectl shows that
    return list(json.loads(raw)["items"])


def of(resource: str, items: Iterable[Item], now: float) -> Sheet:
    """The sheet of pods, services, endpointslices or nodes; ages count to ``now``, in Unix seconds."""
    if resource not in _SHEETS:
        raise LabError(f"no columns for {resource!r}; there are: {', '.join(_SHEETS)}")
    return _SHEETS[resource](items, now)


def pods(items: Iterable[Item], now: float) -> Sheet:
    """NAMESPACE NAME READY STATUS RESTARTS AGE IP NODE NOMINATED-NODE READINESS-GATES."""
    names = ("NAMESPACE", "NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE", "NOMINATED NODE")
    return Sheet((*names, "READINESS GATES"), tuple(_pod(item, now) for item in _ordered(items)))


def services(items: Iterable[Item], now: float) -> Sheet:
    """NAMESPACE NAME TYPE CLUSTER-IP EXTERNAL-IP PORT(S) AGE SELECTOR."""
    names = ("NAMESPACE", "NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR")
    return Sheet(names, tuple(_service(item, now) for item in _ordered(items)))


def endpointslices(items: Iterable[Item], now: float) -> Sheet:
    """NAMESPACE NAME ADDRESSTYPE PORTS ENDPOINTS AGE."""
    names = ("NAMESPACE", "NAME", "ADDRESSTYPE", "PORTS", "ENDPOINTS", "AGE")
    return Sheet(names, tuple(_slice(item, now) for item in _ordered(items)))


def nodes(items: Iterable[Item], now: float) -> Sheet:
    """NAME STATUS ROLES AGE VERSION INTERNAL-IP EXTERNAL-IP OS-IMAGE KERNEL-VERSION CONTAINER-RUNTIME."""
    names = ("NAME", "STATUS", "ROLES", "AGE", "VERSION", "INTERNAL-IP", "EXTERNAL-IP", "OS-IMAGE", "KERNEL-VERSION")
    return Sheet((*names, "CONTAINER-RUNTIME"), tuple(_node(item, now) for item in _ordered(items)))


_SHEETS: Mapping[str, Callable[[Iterable[Item], float], Sheet]] = {
    "pods": pods,
    "services": services,
    "endpointslices": endpointslices,
    "nodes": nodes,
}


def duration(seconds: float) -> str:
    """`duration.HumanDuration`: 90 s, 5m10s, 23h, 2d3h, 400d, 2y100d."""
    whole = int(seconds)
    if whole < -1:
        return "<invalid>"
    if whole < 0:
        return "0s"
    minutes, hours = whole // 60, whole // 3600
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    days = hours // 24
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if days < 730:
        return f"{days}d"
    years = hours // (24 * 365)
    if years < 8:
        return f"{years}y{days % 365}d" if days % 365 else f"{years}y"
    return f"{years}y"


def _at(item: Any, *path: str) -> Any:
    """The value below ``item`` at a path of keys; None where something on the way is missing or no object."""
    for key in path:
        if type(item) is not dict:  # JSON has no other; asking for a Mapping is slow
            return None
        item = item.get(key)
    return item


def _list(item: Any, *path: str) -> Sequence[Any]:
    found = _at(item, *path)
    return found if isinstance(found, list | tuple) else ()


def _text(item: Any, *path: str) -> str:
    found = _at(item, *path)
    if type(found) is str:
        return found
    return "" if found is None or isinstance(found, dict | list) else str(found)


def _number(item: Any, *path: str) -> int:
    found = _at(item, *path)
    return found if isinstance(found, int) and not isinstance(found, bool) else 0


def _ordered(items: Iterable[Item]) -> list[Item]:
    return sorted(items, key=lambda item: (_text(item, "metadata", "namespace"), _text(item, "metadata", "name")))


def _since(when: str, now: float) -> str:
    try:
        then = datetime.fromisoformat(when).timestamp()
    except ValueError:
        return UNKNOWN
    return duration(now - then)


def _age(item: Item, now: float) -> str:
    return _since(_text(item, "metadata", "creationTimestamp"), now)


def _named(item: Item) -> tuple[str, str]:
    return _text(item, "metadata", "namespace"), _text(item, "metadata", "name")


def _pod(item: Item, now: float) -> tuple[str, ...]:
    ready, total, status, restarts = _containers(item, now)
    own = _at(item, "status")
    ips = [_text(entry, "ip") for entry in _list(own, "podIPs")] or [_text(own, "podIP")]
    return (
        *_named(item),
        f"{ready}/{total}",
        status,
        restarts,
        _age(item, now),
        ips[0] or NONE,
        _text(item, "spec", "nodeName") or NONE,
        _text(own, "nominatedNodeName") or NONE,
        _gates(item),
    )


def _gates(item: Item) -> str:
    gates = [_text(gate, "conditionType") for gate in _list(item, "spec", "readinessGates")]
    if not gates:
        return NONE
    true = {_text(one, "type") for one in _list(item, "status", "conditions") if _text(one, "status") == "True"}
    return f"{sum(gate in true for gate in gates)}/{len(gates)}"


def _containers(item: Item, now: float) -> tuple[int, int, str, str]:
    """Ready and all containers, the status word, and restarts with the time since the last one."""
    spec, own = _at(item, "spec"), _at(item, "status")
    sidecars = {_text(one, "name") for one in _list(spec, "initContainers") if _text(one, "restartPolicy") == "Always"}
    total = len(_list(spec, "containers")) + len(sidecars)
    status = _text(own, "reason") or _text(own, "phase")
    for condition in _list(own, "conditions"):
        if _text(condition, "reason") == "SchedulingGated" and _text(condition, "type") == "PodScheduled":
            status = "SchedulingGated"
    inits = _list(own, "initContainerStatuses")
    mains = _list(own, "containerStatuses")
    waiting = _initializing(item, inits, sidecars)
    counted = [one for one in inits if _text(one, "name") in sidecars] if not waiting else list(inits)
    ready = sum(_at(one, "ready") is True for one in inits if _text(one, "name") in sidecars)
    if waiting:
        status = waiting
    if not waiting or any(
        _text(one, "type") == "Initialized" and _text(one, "status") == "True" for one in _list(own, "conditions")
    ):
        counted = [*counted, *mains] if not waiting else list(counted)
        status, ready = _main_status(item, mains, status, ready)
    if _text(item, "metadata", "deletionTimestamp"):
        lost = _text(own, "reason") == "NodeLost"
        phase = _text(own, "phase")
        status = "Unknown" if lost else status if phase in ("Succeeded", "Failed") else "Terminating"
    return ready, total, status, _restarts(counted, now)


def _initializing(item: Item, inits: Sequence[Any], sidecars: set[str]) -> str:
    """The Init: status of a pod whose init containers have not all done their work; else ""."""
    for number, one in enumerate(inits):
        ended, waits = _at(one, "state", "terminated"), _at(one, "state", "waiting")
        if ended is not None and _number(ended, "exitCode") == 0:
            continue
        if _text(one, "name") in sidecars and _at(one, "started") is True:
            continue
        if _text(one, "name") in sidecars and _at(one, "started") is None and _at(one, "ready") is True:
            continue
        if ended is not None:
            return f"Init:{_ending(ended)}"
        if _text(waits, "reason") not in ("", "PodInitializing"):
            return f"Init:{_text(waits, 'reason')}"
        return f"Init:{number}/{len(_list(item, 'spec', 'initContainers'))}"
    return ""


def _main_status(item: Item, mains: Sequence[Any], status: str, ready: int) -> tuple[str, int]:
    has_running = False
    for one in reversed(mains):
        ended, waits = _at(one, "state", "terminated"), _at(one, "state", "waiting")
        if _text(waits, "reason"):
            status = _text(waits, "reason")
        elif ended is not None:
            status = _ending(ended)
        elif _at(one, "ready") is True and _at(one, "state", "running") is not None:
            has_running = True
            ready += 1
    if status == "Completed" and has_running:
        is_ready = any(
            _text(one, "type") == "Ready" and _text(one, "status") == "True"
            for one in _list(item, "status", "conditions")
        )
        status = "Running" if is_ready else "NotReady"
    return status, ready


def _ending(ended: Any) -> str:
    if _text(ended, "reason"):
        return _text(ended, "reason")
    number = _number(ended, "signal")
    return f"Signal:{number}" if number else f"ExitCode:{_number(ended, 'exitCode')}"


def _restarts(statuses: Sequence[Any], now: float) -> str:
    count = sum(_number(one, "restartCount") for one in statuses)
    ends = [_text(one, "lastState", "terminated", "finishedAt") for one in statuses]
    last = max((when for when in ends if when), default="")
    return f"{count} ({_since(last, now)} ago)" if count and last else str(count)


def _service(item: Item, now: float) -> tuple[str, ...]:
    kind = _text(item, "spec", "type") or "ClusterIP"
    cluster_ips = [str(one) for one in _list(item, "spec", "clusterIPs")] or [_text(item, "spec", "clusterIP")]
    return (
        *_named(item),
        kind,
        cluster_ips[0] or NONE,
        _external(item, kind),
        ",".join(map(_port, _list(item, "spec", "ports"))) or NONE,
        _age(item, now),
        _selector(item),
    )


def _external(item: Item, kind: str) -> str:
    if kind == "ExternalName":
        return _text(item, "spec", "externalName")
    own = [str(one) for one in _list(item, "spec", "externalIPs")]
    if kind != "LoadBalancer":
        return ",".join(own) or NONE
    ingress = _list(item, "status", "loadBalancer", "ingress")
    given = sorted({_text(one, "ip") or _text(one, "hostname") for one in ingress} - {""})
    return ",".join([*given, *own]) or "<pending>"


def _port(port: Any) -> str:
    node = _number(port, "nodePort")
    protocol = _text(port, "protocol") or "TCP"
    return f"{_number(port, 'port')}:{node}/{protocol}" if node else f"{_number(port, 'port')}/{protocol}"


def _selector(item: Item) -> str:
    chosen = _at(item, "spec", "selector")
    return (
        ",".join(f"{key}={chosen[key]}" for key in sorted(chosen)) if isinstance(chosen, Mapping) and chosen else NONE
    )


def _slice(item: Item, now: float) -> tuple[str, ...]:
    ports = [_slice_port(port) for port in _list(item, "ports")]
    addresses = [str(one) for entry in _list(item, "endpoints") for one in _list(entry, "addresses")]
    kind = _text(item, "addressType")
    return (*_named(item), kind, _some(ports, "<unset>"), _some(addresses, "<unset>"), _age(item, now))


def _slice_port(port: Any) -> str:
    """A slice's port: its number, without one its name, and where it has neither it is every port."""
    return _text(port, "port") or ("*" if _at(port, "name") is None else _text(port, "name"))


def _some(words: Sequence[str], none: str) -> str:
    more = len(words) - _MOST_SHOWN
    shown = ",".join(words[:_MOST_SHOWN]) + (f" + {more} more..." if more > 0 else "")
    return shown or none


def _node(item: Item, now: float) -> tuple[str, ...]:
    info = _at(item, "status", "nodeInfo")
    return (
        _text(item, "metadata", "name"),
        ",".join(_node_status(item)),
        ",".join(_roles(item)) or NONE,
        _age(item, now),
        _text(info, "kubeletVersion"),
        _address(item, "InternalIP"),
        _address(item, "ExternalIP"),
        _text(info, "osImage") or UNKNOWN,
        _text(info, "kernelVersion") or UNKNOWN,
        _text(info, "containerRuntimeVersion") or UNKNOWN,
    )


def _node_status(item: Item) -> Iterator[str]:
    ready = [_text(one, "status") for one in _list(item, "status", "conditions") if _text(one, "type") == "Ready"]
    yield "Unknown" if not ready else "Ready" if ready[-1] == "True" else "NotReady"
    if _at(item, "spec", "unschedulable") is True:
        yield "SchedulingDisabled"


def _roles(item: Item) -> list[str]:
    labels = _at(item, "metadata", "labels")
    found = set()
    for key, value in (labels if isinstance(labels, Mapping) else {}).items():
        prefix, _, role = str(key).partition("node-role.kubernetes.io/")
        if not prefix and role:
            found.add(role)
        elif key == "kubernetes.io/role" and value:
            found.add(str(value))
    return sorted(found)


def _address(item: Item, kind: str) -> str:
    found = [_text(one, "address") for one in _list(item, "status", "addresses") if _text(one, "type") == kind]
    return found[0] if found else NONE
