"""The DNS names of a Kubernetes cluster: from API objects to answers.

Pure.  `zone` makes a Zone of Services, EndpointSlices and Namespaces, `lookup` answers one question from it as
CoreDNS' kubernetes plugin does with kubeadm's settings (`pods insecure`, `ttl 30`, `fallthrough in-addr.arpa
ip6.arpa`) and no plugin after it: names inside the zone end in NOERROR or NXDOMAIN with the zone's SOA; all
others, and reverse names that no Service has, in SERVFAIL, which is what a plugin chain that ends gives.
Sources: kubernetes/dns docs/specification.md; coredns plugin/kubernetes (parse.go, kubernetes.go, reverse.go)
and plugin/backend_lookup.go.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

SCHEMA_VERSION = "1.1.0"
TTL_S = 30
_VERSION_TTL_S = 28800
_CNAME_DEPTH = 8
_FAMILY = {"A": 4, "AAAA": 6}


@dataclass(frozen=True, slots=True)
class Record:
    """A resource record: ``owner`` an absolute name, ``data`` its fields in the order of the master file format."""

    owner: str
    kind: str
    data: tuple[str | int, ...]
    ttl_s: int = TTL_S


@dataclass(frozen=True, slots=True)
class Answer:
    """What to reply: ``rcode`` by its name and the three sections; ``authoritative`` is the flag aa."""

    rcode: str
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = True


@dataclass(frozen=True, slots=True)
class Port:
    """A named port of a Service or of one of its endpoints; ``number`` is None where an object has no ports."""

    name: str
    protocol: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One ready address behind a Service: ``hostname`` is its own or the address with dashes."""

    hostname: str
    address: str
    ports: tuple[Port, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """A Service as DNS sees it: an external name, cluster IPs, or (headless) neither."""

    name: str
    external_name: str
    cluster_ips: tuple[str, ...]
    ports: tuple[Port, ...]
    endpoints: tuple[Endpoint, ...]


@dataclass(frozen=True, slots=True)
class Zone:
    """All that can be asked: ``domain`` is absolute, ``services`` by (namespace, name), ``names`` by IP address."""

    domain: str
    serial: int
    namespaces: frozenset[str]
    services: Mapping[tuple[str, str], Service]
    names: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class _Found:
    """One thing a name leads to: ``host`` an IP address or an external name, ``owner`` its own name for SRV."""

    owner: str
    host: str
    port: int | None


def zone(objects: Iterable[Mapping[str, Any]], cluster_domain: str = "cluster.local", serial: int = 1) -> Zone:
    """The Zone of Kubernetes API objects; kinds other than Namespace, Service and EndpointSlice are not needed.

    An endpoint counts where its condition ``ready`` is true or missing.  ``serial`` is the SOA's.
    """
    items = list(objects)
    domain = cluster_domain.strip(".").lower() + "."
    namespaces = {item["metadata"]["name"] for item in items if item["kind"] == "Namespace"}
    services: dict[tuple[str, str], Service] = {}
    behind: dict[tuple[str, str], list[Endpoint]] = {}
    for item in items:
        if item["kind"] == "EndpointSlice":
            meta = item["metadata"]
            owner = meta.get("labels", {}).get("kubernetes.io/service-name", "")
            behind.setdefault((meta["namespace"], owner), []).extend(_endpoints(item))
    for item in items:
        if item["kind"] == "Service":
            namespace, name = item["metadata"]["namespace"], item["metadata"]["name"]
            namespaces.add(namespace)
            endpoints = behind.get((namespace, name), [])
            services[namespace, name] = _service(item["spec"], f"{name}.{namespace}.svc.{domain}", endpoints)
    return Zone(domain, serial, frozenset(namespaces), services, _names(services.values()))


def _service(spec: Mapping[str, Any], name: str, endpoints: Sequence[Endpoint]) -> Service:
    if spec.get("type") == "ExternalName":
        return Service(name, spec["externalName"].strip(".").lower() + ".", (), (), ())
    addresses = spec.get("clusterIPs") or [spec.get("clusterIP") or "None"]
    ports = tuple(
        Port(port.get("name") or "", port.get("protocol", "TCP"), port["port"]) for port in spec.get("ports") or ()
    )
    cluster_ips = tuple(address for address in addresses if address != "None")
    return Service(name, "", cluster_ips, ports or (Port("", "", None),), tuple(endpoints))


def _port(item: Mapping[str, Any]) -> Port:
    return Port(item.get("name") or "", item.get("protocol") or "TCP", item.get("port"))


def _endpoints(item: Mapping[str, Any]) -> Iterable[Endpoint]:
    ports = tuple(
        Port(port.get("name") or "", port.get("protocol") or "TCP", port.get("port"))
        for port in item.get("ports") or ()
    )
    for endpoint in item.get("endpoints") or ():
        if (endpoint.get("conditions") or {}).get("ready") is False:
            continue
        for address in endpoint["addresses"]:
            hostname = endpoint.get("hostname") or address.replace(".", "-").replace(":", "-")
            yield Endpoint(hostname.lower(), address, ports or (Port("", "", None),))


def _names(services: Iterable[Service]) -> dict[str, tuple[str, ...]]:
    """Names by address, for PTR: a cluster IP's Service, else an endpoint under each Service it is behind."""
    names: dict[str, tuple[str, ...]] = {}
    listed = list(services)
    for service in listed:
        for endpoint in service.endpoints:
            name = f"{endpoint.hostname}.{service.name}"
            if name not in names.get(endpoint.address, ()):
                names[endpoint.address] = (*names.get(endpoint.address, ()), name)
    return names | {address: (service.name,) for service in listed for address in service.cluster_ips}


def lookup(zone: Zone, name: str, kind: str) -> Answer:
    """The answer to a question of class IN.

    ``name`` is absolute, in presentation format (a dot or backslash inside a label is escaped), in any case;
    ``kind`` is a type's name such as ``A``.  Records about the name carry it in lower case.
    """
    name = name.lower()
    if name != zone.domain and not name.endswith("." + zone.domain):
        return _reverse(zone, name) if kind == "PTR" else Answer("SERVFAIL", authoritative=False)
    special = _special(zone, name, kind)
    if special is not None:
        return special
    found = _find(zone, name)
    if found is None:
        return _negative(zone, "NXDOMAIN")
    additional: tuple[Record, ...] = ()
    answers: tuple[Record, ...] = ()
    if kind in _FAMILY:
        answers = _addresses(zone, name, kind, found, _CNAME_DEPTH)
    elif kind == "SRV":
        answers, additional = _srv(name, found)
    elif kind == "CNAME":
        answers = tuple(Record(name, "CNAME", (item.host,)) for item in found if not _is_address(item.host))
    return Answer("NOERROR", answers, additional=additional) if answers else _negative(zone, "NOERROR")


def _negative(zone: Zone, rcode: str) -> Answer:
    return Answer(rcode, authority=(_soa(zone),))


def _soa(zone: Zone) -> Record:
    names = (f"ns.dns.{zone.domain}", f"hostmaster.{zone.domain}")
    return Record(zone.domain, "SOA", (*names, zone.serial, 7200, 1800, 86400, TTL_S))


def _special(zone: Zone, name: str, kind: str) -> Answer | None:
    """Names that stand for no Service: the zone itself, its name server, the schema's version."""
    server = zone.services.get(("kube-system", "kube-dns"))
    if name == f"dns-version.{zone.domain}" and kind == "TXT":
        return Answer("NOERROR", (Record(name, "TXT", (SCHEMA_VERSION,), _VERSION_TTL_S),))
    if name == f"ns.dns.{zone.domain}" and server:
        found = [_Found(server.name, address, None) for address in server.cluster_ips]
        answers = _addresses(zone, name, kind, found, 0) if kind in _FAMILY else ()
        return Answer("NOERROR", answers) if answers else _negative(zone, "NOERROR")
    if name == zone.domain and kind == "SOA":
        return Answer("NOERROR", (_soa(zone),))
    if name == zone.domain and kind == "NS" and server and server.cluster_ips:
        additional = tuple(_address(server.name, address) for address in server.cluster_ips)
        return Answer("NOERROR", (Record(name, "NS", (server.name,)),), additional=additional)
    return None


def _find(zone: Zone, name: str) -> list[_Found] | None:
    """What a name in the zone leads to; None where it does not exist, empty where it exists and holds nothing."""
    labels = name[: -len(zone.domain)].split(".")[:-1]
    match labels:
        case [] | ["svc"] | ["pod"]:
            return []
        case [*_, ("svc" | "pod")] if labels[-2] not in zone.namespaces:
            return None
        case [_, ("svc" | "pod")]:
            return []
        # A pod's name is not looked up: any address in an existing namespace has one, as with `pods insecure`.
        case [*_, pod, _, "pod"] if len(labels) <= 5:
            return _pod(name, pod)
        case [service, namespace, "svc"]:
            return _of_service(zone.services.get((namespace, service)))
        case [endpoint, service, namespace, "svc"]:
            return _of_service(zone.services.get((namespace, service)), endpoint=endpoint)
        case [port, protocol, service, namespace, "svc"]:
            wanted = (port.removeprefix("_"), protocol.removeprefix("_"))
            return _of_service(zone.services.get((namespace, service)), port=wanted)
    return None


def _pod(name: str, label: str) -> list[_Found] | None:
    is_v4 = label.count("-") == 3 and "--" not in label
    address = label.replace("-", "." if is_v4 else ":")
    return [_Found(name, address, None)] if _is_address(address) else None


def _of_service(service: Service | None, endpoint: str = "", port: tuple[str, str] = ("", "")) -> list[_Found] | None:
    if service is None:
        return None
    if service.external_name:
        return None if endpoint else [_Found(service.name, service.external_name, None)]
    if endpoint or not service.cluster_ips:
        found = [
            _Found(f"{item.hostname}.{service.name}", item.address, offered.number)
            for item in service.endpoints
            if endpoint in ("", item.hostname)
            for offered in item.ports
            if _offers(offered, port)
        ]
    else:
        found = [
            _Found(service.name, address, offered.number)
            for offered in service.ports
            if _offers(offered, port)
            for address in service.cluster_ips
        ]
    return found or None


def _offers(port: Port, wanted: tuple[str, str]) -> bool:
    name, protocol = wanted
    return name in ("", port.name.lower()) and protocol in ("", port.protocol.lower())


def _addresses(zone: Zone, name: str, kind: str, found: Iterable[_Found], depth: int) -> tuple[Record, ...]:
    """Address records of ``name``; an external name is followed as far as the zone reaches."""
    records: dict[Record, None] = {}
    for item in found:
        if _is_address(item.host):
            if ip_address(item.host).version == _FAMILY[kind]:
                records[_address(name, item.host)] = None
            continue
        alias = Record(name, "CNAME", (item.host,))
        if not item.host.endswith("." + zone.domain):
            records[alias] = None
            continue
        further = _addresses(zone, item.host, kind, _find(zone, item.host) or (), depth - 1) if depth else ()
        records |= dict.fromkeys((alias, *further) if further else ())
    return tuple(records)


def _srv(name: str, found: Sequence[_Found]) -> tuple[tuple[Record, ...], tuple[Record, ...]]:
    inside = [item for item in found if _is_address(item.host)]
    weight = max(1, 100 // len(inside)) if inside else 0
    with_port = [item for item in inside if item.port is not None]
    answers = dict.fromkeys(Record(name, "SRV", (0, weight, item.port or 0, item.owner)) for item in with_port)
    additional = dict.fromkeys(_address(item.owner, item.host) for item in with_port)
    return tuple(answers), tuple(additional)


def _reverse(zone: Zone, name: str) -> Answer:
    names = zone.names.get(_reversed_address(name), ())
    if not names:
        return Answer("SERVFAIL", authoritative=False)
    return Answer("NOERROR", tuple(Record(name, "PTR", (target,)) for target in names))


def _reversed_address(name: str) -> str:
    if name.endswith(".in-addr.arpa."):
        text = ".".join(reversed(name.removesuffix(".in-addr.arpa.").split(".")))
    else:
        digits = "".join(reversed(name.removesuffix(".ip6.arpa.").split(".")))
        text = ":".join(digits[at : at + 4] for at in range(0, len(digits), 4))
    return str(ip_address(text)) if _is_address(text) else ""


def _address(owner: str, address: str) -> Record:
    return Record(owner, "A" if ip_address(address).version == 4 else "AAAA", (address,))


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
