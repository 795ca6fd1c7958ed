"""What is let in: refuses API objects of which only a part, or nothing, would be in force.

Pure.  Plays Istio's validating webhook and is stricter: a kind, field or value that the writers do not follow is
refused by its name and path, because a policy that is half in force would teach something false.  The answer is the
same for every pod, so that no proxy follows a change that another one refused.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bookinfo_lab.errors import LabError, Unsupported
from bookinfo_lab.kube.fields import Field
from bookinfo_lab.sandbox.xds.clusters import LB_POLICIES
from bookinfo_lab.sandbox.xds.policies import duration

# istiod follows the gateway API as well, and an Ingress of today.
_FOLLOWED_BY_ISTIOD = re.compile(r"(.+\.)?istio\.io|gateway\.networking\.k8s\.io")


def admit(objects: Iterable[Mapping[str, Any]]) -> None:
    """Return where everything that proxies follow can be written as it is given.

    Raises Unsupported for what is not written here, Incomplete for a missing field, LabError for a wrong value.
    """
    hosts: dict[str, str] = {}
    for item in objects:
        kind, group = item["kind"], item.get("apiVersion", "").rpartition("/")[0]
        if kind == "Service":
            _service(_root(item))
        elif (group == "networking.k8s.io" and kind == "Ingress") or _FOLLOWED_BY_ISTIOD.fullmatch(group):
            check = _CHECKS.get(kind) if group.endswith("istio.io") else None
            if check is None:
                known = ", ".join(sorted(_CHECKS))
                raise Unsupported(
                    f"{_owner(item)} ({group}) is not followed by the lab's proxies; they follow: {known}"
                )
            check(_root(item))
            if kind == "DestinationRule":
                _only_rule(item, hosts)


def _owner(item: Mapping[str, Any]) -> str:
    meta = item["metadata"]
    return f"{item['kind']} {meta.get('namespace', 'default')}/{meta['name']}"


def _root(item: Mapping[str, Any]) -> Field:
    return Field(_owner(item), "", item)


def _only(field: Field, *known: str) -> None:
    """Refuse an object with a field that is none of ``known``; one that is empty says nothing."""
    if field.value is None:
        return
    if not isinstance(field.value, Mapping):
        raise field.wrong("an object")
    unknown = sorted(name for name, value in field.value.items() if name not in known and value)
    if unknown:
        raise Unsupported(
            f"{field.owner}: the field {unknown[0]!r} of {field.path} is not supported here; "
            f"supported: {', '.join(known)}"
        )


def _service(root: Field) -> None:
    for port in root["spec"]["ports"].each():
        name = port["appProtocol"].text("") or port["name"].text("")
        if name.lower().startswith("grpc-web"):
            raise Unsupported(f"{root.owner}: the protocol {name!r} of {port.path} needs a filter that is not written")


def _virtual_service(root: Field) -> None:
    spec = root["spec"]
    _only(spec, "hosts", "gateways", "http")
    hosts = spec["hosts"].texts()
    if not hosts:
        raise spec["hosts"].missing()
    wild = [host for host in hosts if host.startswith("*")]
    if wild and "mesh" in (spec["gateways"].texts() or ("mesh",)):
        raise Unsupported(
            f"{root.owner}: the host {wild[0]!r} is written for gateways only; name a Service, or a gateway"
        )
    for rule in spec["http"].each():
        _rule(rule)


def _rule(rule: Field) -> None:
    _only(rule, "name", "match", "route", "timeout", "retries", "fault")
    for match in rule["match"].each():
        _match(match)
    routes = rule["route"].each()
    if not routes:
        raise Unsupported(f"{rule.owner}: {rule.path} without 'route' leads nowhere")
    weights = [_destination(item) for item in routes]
    if len(weights) > 1 and not sum(weights):
        raise LabError(f"{rule.owner}: the weights of {rule.path}.route add up to 0; give them shares of 100")
    _duration(rule["timeout"])
    retries, fault = rule["retries"], rule["fault"]
    _only(retries, "attempts", "perTryTimeout", "retryOn")
    retries["attempts"].integer(0)
    retries["retryOn"].text("")
    _duration(retries["perTryTimeout"])
    _only(fault, "delay", "abort")
    _delay(fault["delay"])
    _abort(fault["abort"])


def _destination(item: Field) -> int:
    """The weight of one of a rule's destinations."""
    _only(item, "destination", "weight")
    destination = item["destination"]
    _only(destination, "host", "port", "subset")
    destination["host"].text()
    destination["subset"].text("")
    _only(destination["port"], "number")
    destination["port"]["number"].port(0) if destination["port"].value else 0
    weight = item["weight"].integer(0)
    if weight < 0:
        raise item["weight"].wrong("a share of 0 or more")
    return weight


def _match(match: Field) -> None:
    _only(match, "name", "uri", "method", "authority", "headers", "ignoreUriCase")
    match["ignoreUriCase"].flag(False)
    headers = match["headers"]
    fields = [headers[name] for name in headers.value] if isinstance(headers.value, Mapping) else []
    for text in (match["uri"], match["method"], match["authority"], *fields):
        _only(text, "exact", "prefix", "regex")
        values = [text[kind].text() for kind in ("exact", "prefix", "regex") if text[kind].value is not None]
        if len(values) > 1:
            raise text.wrong("one of exact, prefix, regex")


def _delay(delay: Field) -> None:
    _only(delay, "percentage", "fixedDelay")
    if delay.value:
        delay["fixedDelay"].text()
        _duration(delay["fixedDelay"])
        _percentage(delay["percentage"])


def _abort(abort: Field) -> None:
    _only(abort, "percentage", "httpStatus")
    if abort.value:
        if not 200 <= abort["httpStatus"].integer() <= 599:
            raise abort["httpStatus"].wrong("a status from 200 to 599")
        _percentage(abort["percentage"])


def _percentage(field: Field) -> None:
    _only(field, "value")
    value = field["value"].value
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100):
        raise field["value"].wrong("a percentage from 0 to 100")


def _duration(field: Field) -> None:
    if field.value is not None:
        try:
            duration(field.text())
        except Unsupported:
            raise field.wrong("a duration such as 10s, 500ms or 1m30s") from None


def _destination_rule(root: Field) -> None:
    spec = root["spec"]
    _only(spec, "host", "subsets", "trafficPolicy")
    if spec["host"].text().startswith("*"):
        raise Unsupported(f"{root.owner}: the host {spec['host'].value!r} is for many Services; name one")
    _traffic_policy(spec["trafficPolicy"])
    names = set()
    for subset in spec["subsets"].each():
        _only(subset, "name", "labels", "trafficPolicy")
        name = subset["name"].text()
        if name in names:
            raise subset["name"].wrong("a name of its own")
        names.add(name)
        subset["labels"].labels()
        _traffic_policy(subset["trafficPolicy"])


def _traffic_policy(policy: Field) -> None:
    # Plain text is what this mesh speaks anyway.
    asked = Field(policy.owner, policy.path, policy.value)
    if isinstance(policy.value, Mapping) and policy.value.get("tls") == {"mode": "DISABLE"}:
        asked = Field(policy.owner, policy.path, {name: policy.value[name] for name in policy.value if name != "tls"})
    _only(asked, "loadBalancer")
    balancer = asked["loadBalancer"]
    _only(balancer, "simple")
    simple = balancer["simple"].text("")
    if simple not in LB_POLICIES:
        known = ", ".join(name for name in LB_POLICIES if name)
        raise Unsupported(f"{policy.owner}: {balancer.path}.simple {simple!r} is none of {known}")


def _only_rule(item: Mapping[str, Any], hosts: dict[str, str]) -> None:
    """Refuse a second DestinationRule for a host: istiod merges them, and the first one's words win."""
    meta, host = item["metadata"], item["spec"]["host"]
    full = host if "." in host else f"{host}.{meta['namespace']}"
    if full in hosts:
        raise Unsupported(f"{_owner(item)}: the host {host!r} has a rule, {hosts[full]}; give that one the subsets")
    hosts[full] = _owner(item)


def _gateway(root: Field) -> None:
    spec = root["spec"]
    _only(spec, "selector", "servers")
    spec["selector"].labels()
    for server in spec["servers"].each():
        protocol = server["port"]["protocol"].text()
        if protocol.upper() not in ("HTTP", "HTTP2") or server["tls"].value:
            raise Unsupported(f"{root.owner}: {server.path}: only plain HTTP servers are written, not {protocol}")
        _only(server, "port", "hosts", "name")
        _only(server["port"], "number", "name", "protocol")
        server["port"]["number"].port()
        if not server["hosts"].texts():
            raise server["hosts"].missing()


def _peer_authentication(root: Field) -> None:
    spec = root["spec"]
    _only(spec, "mtls", "selector")
    mode = spec["mtls"]["mode"].text("UNSET")
    if mode != "DISABLE":
        raise Unsupported(f"{root.owner}: mtls mode {mode}: no TLS is written here, only DISABLE")


_CHECKS: Mapping[str, Callable[[Field], None]] = {
    "VirtualService": _virtual_service,
    "DestinationRule": _destination_rule,
    "Gateway": _gateway,
    "PeerAuthentication": _peer_authentication,
}
