"""What a real istiod told a real Envoy, beside what `xds` writes: Envoy's dump as resources, and the named differences.

`of_dump` reads a config_dump with endpoints, `written` asks the writer, `differing` names what is not equal by path.
Each of RESOURCES and BOOTSTRAP makes one of `xds.DIFFERENCES` undone in a recording, in place, and may find none of it.
"""

import functools
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from bookinfo_lab.sandbox import xds
from bookinfo_lab.sandbox.xds import bootstrap, listeners

SETTINGS = xds.Settings()
Object = dict[str, Any]
Resources = dict[str, dict[str, Any]]
DYNAMIC = {
    "lds": ("ListenersConfigDump", "dynamic_listeners", ("active_state", "listener")),
    "rds": ("RoutesConfigDump", "dynamic_route_configs", ("route_config",)),
    "cds": ("ClustersConfigDump", "dynamic_active_clusters", ("cluster",)),
    "eds": ("EndpointsConfigDump", "dynamic_endpoint_configs", ("endpoint_config",)),
}
# What Envoy says of itself in its node, whoever configured it.
_ENVOY_S_OWN = ("user_agent_name", "user_agent_build_version", "extensions")


def every_dict(value: Any) -> Iterator[Object]:
    """All the dicts of a JSON document, outermost first."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from every_dict(inner)


def by_name(items: Iterable[Object]) -> Object:
    return {item.get("name") or item["cluster_name"]: item for item in items}


def parts(dump: Object) -> Object:
    """A config_dump by the kind of its parts, copied."""
    return {part["@type"].rpartition(".")[2]: part for part in json.loads(json.dumps(dump))["configs"]}


def of_dump(dump: Object) -> Resources:
    """The resources of a config_dump with endpoints, by kind and name, without what Envoy itself put there."""
    found = parts(dump)
    read: dict[str, list[Object]] = {}
    for kind, (part, field, path) in DYNAMIC.items():
        read[kind] = []
        for item in found.get(part, {}).get(field, ()):
            if path[0] in item:  # a listener that drains, waits or was refused has no such state
                read[kind].append(functools.reduce(dict.__getitem__, path, item))
    read["eds"] = [item for item in read["eds"] if "cluster_name" in item]
    # A listener that drains keeps its routes for as long.
    named = {item.get("route_config_name") for item in every_dict(read["lds"])}
    read["rds"] = [item for item in read["rds"] if item["name"] in named]
    return without_the_dump_s_own({kind: by_name(items) for kind, items in read.items()})


def without_the_dump_s_own(recorded: Resources) -> Resources:
    """What Envoy's dump says that no configuration did: health, and the endpoints of clusters that have no EDS."""
    for item in every_dict(recorded["eds"]):
        if item.get("health_status") == "HEALTHY":
            del item["health_status"]
        item.pop("health_check_config", None)
        item.pop("policy", None)
    dynamic = {name for name, cluster in recorded["cds"].items() if cluster["type"] == "EDS"}
    return recorded | {"eds": {name: item for name, item in recorded["eds"].items() if name in dynamic}}


def in_any_order(assignments: Object, objects: Iterable[Object]) -> None:
    """Put the endpoints of Services with several slices in one order: istiod takes these as a hash map has them."""
    slices = [item["metadata"] for item in objects if item["kind"] == "EndpointSlice"]
    names = [f"{meta['labels']['kubernetes.io/service-name']}.{meta['namespace']}" for meta in slices]
    for name, assignment in assignments.items():
        service = name.rpartition("|")[2].removesuffix(f".svc.{SETTINGS.domain}")
        if names.count(service) > 1:
            for group in assignment.get("endpoints", ()):
                group["lb_endpoints"].sort(key=lambda member: json.dumps(member, sort_keys=True))


def bootstrap_of_dump(dump: Object) -> Object:
    """The bootstrap of a config_dump, without what Envoy says of itself."""
    found = parts(dump)["BootstrapConfigDump"]["bootstrap"]
    for name in _ENVOY_S_OWN:
        found["node"].pop(name, None)
    return _with_ports_read(found)


def _with_ports_read(found: Object) -> Object:
    """The metadata POD_PORTS is a JSON text: its spaces and the order of its keys say nothing."""
    metadata = found["node"]["metadata"]
    return found | {"node": found["node"] | {"metadata": metadata | {"POD_PORTS": json.loads(metadata["POD_PORTS"])}}}


def written(objects: Iterable[Object], pod: Object) -> Resources:
    """What the writer makes of these objects for a pod, as a dump prints it: a field at its default is not there."""
    made = json.loads(json.dumps(xds.resources(objects, pod, SETTINGS)))
    for item in every_dict(made):
        if item.get("lb_policy") == "ROUND_ROBIN":
            del item["lb_policy"]
        if item.get("endpoints") == []:
            del item["endpoints"]
    return {kind: by_name(items) for kind, items in made.items()}


def written_bootstrap(pod: Object) -> Object:
    """What the writer makes of a pod's bootstrap, as a dump prints it: numbers of 64 bits are text."""
    made = json.loads(json.dumps(bootstrap.document(pod, SETTINGS)))
    for item in every_dict(made["overload_manager"]):
        if "max_active_downstream_connections" in item:
            item["max_active_downstream_connections"] = str(item["max_active_downstream_connections"])
    for item in every_dict(made["static_resources"]["clusters"]):
        if item.get("endpoints") == []:
            del item["endpoints"]
    return _with_ports_read(made)


def differing(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two documents differ, a line each, by path; a list of named things is compared in its order too."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(set(ours) | set(theirs)):
            if key not in theirs:
                yield f"{path}.{key}: only ours: {ours[key]}"
            elif key not in ours:
                yield f"{path}.{key}: only theirs: {theirs[key]}"
            else:
                yield from differing(ours[key], theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (one, other) in enumerate(zip(ours, theirs, strict=True)):
            yield from differing(one, other, f"{path}[{number}]")
    elif ours != theirs:
        yield f"{path}: ours {ours}, theirs {theirs}"


# The named differences of resources.


def rest(recorded: Resources) -> None:
    for item in every_dict(recorded):
        if item.pop("ads", None) is not None:
            item.update(SETTINGS.source())


def plain_text(recorded: Resources) -> None:
    for item in every_dict(recorded):
        item.pop("transport_socket_matches", None)
        if "listener_filters" in item:
            filters = item["listener_filters"]
            item["listener_filters"] = [one for one in filters if not one["name"].endswith("tls_inspector")]
        if "filter_chains" in item:
            item["filter_chains"] = [
                chain
                for chain in item["filter_chains"]
                if "transport_socket" not in chain
                and chain.get("filter_chain_match", {}).get("transport_protocol") != "tls"
            ]
        item.get("filter_metadata", {}).pop("envoy.transport_socket_match", None)


def tracing(recorded: Resources) -> None:
    provider = listeners.tracing()["provider"]
    for item in every_dict(recorded):
        if "tracing" in item:
            item["tracing"] |= {"provider": provider, "random_sampling": {"value": 100}}


def span_tags(recorded: Resources) -> None:
    for item in every_dict(recorded):
        item.pop("custom_tags", None)


def locality(recorded: Resources) -> None:
    for item in every_dict(recorded["cds"]):
        item.get("common_lb_config", {}).pop("locality_weighted_lb_config", None)
    for assignment in recorded["eds"].values():
        groups = assignment.get("endpoints", [])
        if any(group.get("locality") or group.get("priority") for group in groups):
            members = [member for group in groups for member in group["lb_endpoints"]]
            weight = sum(member["load_balancing_weight"] for member in members)
            assignment["endpoints"] = [{"locality": {}, "lb_endpoints": members, "load_balancing_weight": weight}]


RESOURCES: Mapping[str, Callable[[Resources], None]] = {
    "rest": rest,
    "plain text": plain_text,
    "tracing": tracing,
    "span tags": span_tags,
    "locality": locality,
}

# The named differences of the bootstrap.

_OURS_ALONE = ("zipkin", "xds-rest")


def rest_of_the_bootstrap(theirs: Object, ours: Object) -> None:
    """Where configuration is asked for: the two ways have their own static clusters."""
    theirs["dynamic_resources"] = ours["dynamic_resources"]
    asked = ("xds-grpc", "sds-grpc")
    own = [item for item in ours["static_resources"]["clusters"] if item["name"] in _OURS_ALONE]
    others = [item for item in theirs["static_resources"]["clusters"] if item["name"] not in asked]
    theirs["static_resources"]["clusters"] = [*own, *others]


def statistics(theirs: Object, ours: Object) -> None:
    theirs["stats_config"] = ours["stats_config"]
    for item in every_dict(theirs["static_resources"]):
        if "http_filters" in item:
            item["http_filters"] = [one for one in item["http_filters"] if "compressor" not in one["name"]]


def internal_listener(theirs: Object, ours: Object) -> None:
    theirs.pop("bootstrap_extensions", None)


def node_metadata(theirs: Object, ours: Object) -> None:
    told, tells = theirs["node"]["metadata"], ours["node"]["metadata"]
    theirs["node"]["metadata"] = {name: value for name, value in told.items() if name in tells}


BOOTSTRAP: Mapping[str, Callable[[Object, Object], None]] = {
    "rest": rest_of_the_bootstrap,
    "statistics": statistics,
    "internal listener": internal_listener,
    "node metadata": node_metadata,
}
