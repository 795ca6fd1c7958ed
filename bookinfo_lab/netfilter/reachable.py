"""Which endpoints a node may use for a Service port, under its traffic policies.

A portal and the node come in; the endpoints for policy Cluster, those for Local, and all that need a chain come out.
Ready endpoints count; where there is none, for each policy on its own, serving ones that terminate.  Topology hints
narrow policy Cluster.  Follows kubernetes pkg/proxy/topology.go (1.34, PreferSameTrafficDistribution on).
"""

from collections.abc import Callable
from dataclasses import dataclass

from .portals import Backend, Portal


@dataclass(frozen=True, slots=True)
class Reachable:
    """The endpoints usable on this node; ``any`` says whether a usable one exists on any node."""

    cluster: tuple[Backend, ...]
    local: tuple[Backend, ...]
    all: tuple[Backend, ...]
    any: bool


def reachable(portal: Portal, node: str, zone: str) -> Reachable:
    """The endpoints of ``portal`` that ``node``, in topology ``zone``, may use; each list in the portal's order."""
    ready = tuple(backend for backend in portal.backends if backend.is_ready)
    ending = tuple(
        backend for backend in portal.backends if not backend.is_ready and backend.is_serving and backend.is_terminating
    )
    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()
    # External traffic from this node's own pods takes Cluster endpoints even where the external policy is Local.
    if portal.is_external or not portal.internal_policy_local:
        hinted = _hinted(ready, node, zone)
        cluster = tuple(backend for backend in ready if hinted(backend)) or ending
    if portal.internal_policy_local or (portal.external_policy_local and portal.is_external):
        local = tuple(backend for backend in ready if backend.is_local)
        local = local or tuple(backend for backend in ending if backend.is_local)
    chosen = {backend.text for backend in (*cluster, *local)}
    return Reachable(
        cluster,
        local,
        tuple(backend for backend in portal.backends if backend.text in chosen),
        bool(ready or ending),
    )


def _hinted(ready: tuple[Backend, ...], node: str, zone: str) -> Callable[[Backend], bool]:
    if all(backend.node_hints for backend in ready) and any(node in backend.node_hints for backend in ready):
        return lambda backend: node in backend.node_hints
    if all(backend.zone_hints for backend in ready) and any(zone in backend.zone_hints for backend in ready):
        return lambda backend: zone in backend.zone_hints
    return lambda _: True
