"""The http section of a VirtualService, rule by rule, as Envoy routes.

Pure.  Follows istio pilot/pkg/networking/core/route.  What Bookinfo's policies use is written: matches on path, method,
authority and header fields, weights, timeouts, retries, faults.  Any other field was refused by `admission`.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from bookinfo_lab.errors import Unsupported
from bookinfo_lab.sandbox.xds.services import outbound_cluster
from bookinfo_lab.sandbox.xds.settings import typed
from bookinfo_lab.sandbox.xds.view import View

_RETRY_ON = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes"
_PREVIOUS_HOSTS = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": typed("extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"),
}
_FAULT = "envoy.filters.http.fault"
_SECONDS = {"h": "3600", "m": "60", "s": "1", "ms": "0.001", "us": "0.000001", "ns": "0.000000001"}


def routes(mesh: View, policy: Mapping[str, Any], listening: int, *, edge: bool = False) -> list[dict[str, Any]]:
    """The routes of a VirtualService on a port, one a match, in its order; what follows a catch-all is left out.

    ``edge``: for a gateway, where a destination without a port means its Service's only one; in the mesh it means
    the port that the request was sent to.
    """
    found = []
    for rule in policy["spec"].get("http") or ():
        for match in rule.get("match") or [{}]:
            found.append(_route(mesh, policy, rule, match, listening, edge))
            if is_catch_all(found[-1]):
                return found
    return found


def is_catch_all(route: Mapping[str, Any]) -> bool:
    """Whether a route takes every request that reaches it."""
    return route["match"].get("prefix") == "/" and "headers" not in route["match"]


def default_retries() -> dict[str, Any]:
    """Istio's retry policy where no VirtualService gives one."""
    return {
        "retry_on": _RETRY_ON,
        "num_retries": 2,
        "retry_host_predicate": [_PREVIOUS_HOSTS],
        "host_selection_retry_max_attempts": "5",
    }


def duration(text: str) -> str:
    """A Go duration such as ``1m30s`` or ``500ms`` as protobuf's JSON writes it: ``90s``, ``0.500s``.

    Raises Unsupported for text that is none.
    """
    parts = re.findall(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|us|ns|s)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise Unsupported(f"{text!r} is not a duration; write it like 10s, 500ms or 1m30s")
    seconds = sum((Decimal(number) * Decimal(_SECONDS[unit]) for number, unit in parts), Decimal(0))
    for digits in (0, 3, 6):
        if seconds == round(seconds, digits):
            return f"{seconds:.{digits}f}s"
    return f"{seconds:.9f}s"


def _route(
    mesh: View, policy: Mapping[str, Any], rule: Mapping[str, Any], match: Mapping[str, Any], listening: int, edge: bool
) -> dict[str, Any]:
    meta = policy["metadata"]
    timeout = duration(rule.get("timeout", "0s"))
    action, target = _destinations(mesh, policy, rule, listening, edge)
    action |= {"timeout": timeout, "max_grpc_timeout": timeout} | _retries(rule.get("retries"))
    path = f"/apis/networking.istio.io/v1/namespaces/{meta['namespace']}/virtual-service/{meta['name']}"
    found = {
        "match": _match(match),
        "route": action,
        "metadata": {"filter_metadata": {"istio": {"config": path}}},
        "decorator": {"operation": target + _operation(match.get("uri") or {})},
    }
    if rule.get("fault"):
        found["typed_per_filter_config"] = {_FAULT: _fault(rule["fault"])}
    name = f"{rule.get('name', '')}.{match['name']}" if match.get("name") else rule.get("name")
    return found | ({"name": name} if name else {})


def _destinations(
    mesh: View, policy: Mapping[str, Any], rule: Mapping[str, Any], listening: int, edge: bool
) -> tuple[dict[str, Any], str]:
    """The part of a route action that names clusters, and what a trace calls them: host:port where there is one."""
    meta = policy["metadata"]
    found = []
    for item in rule["route"]:
        destination = item["destination"]
        host = mesh.full_host(destination["host"], meta["namespace"])
        ports = mesh.ports_of(host) if edge else ()
        number = (destination.get("port") or {}).get("number") or (ports[0].number if len(ports) == 1 else listening)
        found.append((host, int(number), destination.get("subset", ""), item.get("weight", 0)))
    if len(found) == 1:
        host, number, subset, _ = found[0]
        return {"cluster": outbound_cluster(number, subset, host)}, f"{host}:{number}"
    weighted = [
        {"name": outbound_cluster(number, subset, host), "weight": weight}
        for host, number, subset, weight in found
        if weight
    ]
    return {"weighted_clusters": {"clusters": weighted}}, f"{meta['name']}:{listening}"


def _retries(given: Mapping[str, Any] | None) -> dict[str, Any]:
    found = default_retries()
    if given is not None:
        if not given.get("attempts"):
            return {}
        found["num_retries"] = given["attempts"]
        if "perTryTimeout" in given:
            found["per_try_timeout"] = duration(given["perTryTimeout"])
        if "retryOn" in given:
            found |= _retry_on(given["retryOn"])
    return {"retry_policy": found}


def _retry_on(text: str) -> dict[str, Any]:
    """Envoy's conditions; a number among them is a status code, which Envoy keeps in another field."""
    words = [word for word in map(str.strip, text.split(",")) if word]
    codes = [int(word) for word in words if word.isdigit()]
    names = [word for word in words if not word.isdigit()]
    if not codes:
        return {"retry_on": ",".join(names)}
    if "retriable-status-codes" not in names:
        names.append("retriable-status-codes")
    return {"retry_on": ",".join(names), "retriable_status_codes": codes}


def _fault(given: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if delay := given.get("delay"):
        found["delay"] = {"fixed_delay": duration(delay["fixedDelay"]), **_share(delay)}
    if abort := given.get("abort"):
        found["abort"] = {"http_status": abort["httpStatus"], **_share(abort)}
    return typed("extensions.filters.http.fault.v3.HTTPFault", **found)


def _share(given: Mapping[str, Any]) -> dict[str, Any]:
    """A percentage as Istio writes it for Envoy: in millionths.  Without one there is none, and no request is meant."""
    if "percentage" not in given:
        return {}
    share = {"numerator": int((given["percentage"] or {}).get("value", 0) * 10_000), "denominator": "MILLION"}
    return {"percentage": share}


def _operation(uri: Mapping[str, str]) -> str:
    return uri.get("exact") or uri.get("regex") or uri.get("prefix", "/") + "*"


def _match(match: Mapping[str, Any]) -> dict[str, Any]:
    headers = [_header(name, value) for name, value in sorted((match.get("headers") or {}).items())]
    headers += [_header(f":{name}", match[name]) for name in ("method", "authority") if name in match]
    path = _path(match.get("uri") or {})
    if not match:
        return path
    return path | {"case_sensitive": not match.get("ignoreUriCase", False)} | ({"headers": headers} if headers else {})


def _path(uri: Mapping[str, str]) -> dict[str, Any]:
    if "exact" in uri:
        return {"path": uri["exact"]}
    if "regex" in uri:
        return {"safe_regex": {"regex": uri["regex"]}}
    return {"prefix": uri.get("prefix", "/")}


def _header(name: str, value: Mapping[str, str]) -> dict[str, Any]:
    """A match on one header field; Istio's empty one asks that it be there."""
    if "regex" in value:
        return {"name": name, "string_match": {"safe_regex": {"regex": value["regex"]}}}
    for kind in ("exact", "prefix"):
        if kind in value:
            return {"name": name, "string_match": {kind: value[kind]}}
    return {"name": name, "present_match": True}
