"""What istio-init is told, as the settings of the rules that it writes.

Pure.  In: a Pod as the sidecar injector left it, and the name servers of its resolv.conf, which istio-init reads.
Out: `Settings`.  Options and the variables that stand in for them follow istio tools/istio-iptables/pkg/cmd/root.go:
an option goes before its variable.  What would change the rules and is not written is refused by its name.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from bookinfo_lab.errors import LabError, Unsupported

from .istio_settings import Settings

_CONTAINER = "istio-init"
# Long options, their short forms, and the variables that say the same; the later variable wins, as Istio has it.
_OPTIONS = {
    "envoy-port": ("p", ()),
    "inbound-capture-port": ("z", ("INBOUND_CAPTURE_PORT",)),
    "inbound-tunnel-port": ("e", ("INBOUND_TUNNEL_PORT",)),
    "proxy-uid": ("u", ("PROXY_UID",)),
    "proxy-gid": ("g", ("PROXY_GID",)),
    "istio-inbound-interception-mode": ("m", ("ISTIO_INBOUND_INTERCEPTION_MODE",)),
    "istio-inbound-ports": ("b", ("ISTIO_INBOUND_PORTS",)),
    "istio-local-exclude-ports": ("d", ("ISTIO_LOCAL_EXCLUDE_PORTS",)),
    "istio-exclude-interfaces": ("c", ("ISTIO_EXCLUDE_INTERFACES",)),
    "istio-service-cidr": ("i", ("ISTIO_SERVICE_CIDR",)),
    "istio-service-exclude-cidr": ("x", ("ISTIO_SERVICE_EXCLUDE_CIDR",)),
    "istio-outbound-ports": ("q", ("ISTIO_OUTBOUND_PORTS",)),
    "istio-local-outbound-ports-exclude": ("o", ("ISTIO_LOCAL_OUTBOUND_PORTS_EXCLUDE",)),
    "kube-virt-interfaces": ("k", ("KUBE_VIRT_INTERFACES",)),
    "istio-inbound-tproxy-mark": ("t", ("ISTIO_INBOUND_TPROXY_MARK",)),
    "istio-inbound-tproxy-route-table": ("r", ("ISTIO_INBOUND_TPROXY_ROUTE_TABLE",)),
}
_SWITCHES = {
    "redirect-dns": ("REDIRECT_DNS", "ISTIO_META_DNS_CAPTURE"),
    "capture-all-dns": ("CAPTURE_ALL_DNS",),
    "drop-invalid": ("DROP_INVALID", "INVALID_DROP"),
    "native-nftables": ("NATIVE_NFTABLES",),
    "skip-rule-apply": ("SKIP_RULE_APPLY",),
    "cleanup-only": ("CLEANUP_ONLY",),
    "dry-run": ("DRY_RUN",),
}
_NOT_WRITTEN = ("native-nftables", "skip-rule-apply", "cleanup-only", "dry-run")
_SHORT = {short: name for name, (short, _) in _OPTIONS.items()} | {"n": "dry-run"}
_ON = ("1", "t", "T", "true", "TRUE", "True")  # Go's strconv.ParseBool


def of_pod(pod: Mapping[str, Any], name_servers: Sequence[str] = ()) -> Settings | None:
    """The settings of a pod's istio-init; None where it has none (no injection, istio-cni, interception NONE)."""
    for container in pod["spec"].get("initContainers") or ():
        if container["name"] == _CONTAINER:
            told = {item["name"]: item.get("value", "") for item in container.get("env") or ()}
            return settings([*(container.get("command") or ()), *(container.get("args") or ())], told, name_servers)
    return None


def settings(
    words: Sequence[str], environment: Mapping[str, str] | None = None, name_servers: Sequence[str] = ()
) -> Settings:
    """The settings that a command line of istio-iptables and its environment ask for.

    ``words`` may begin with the program.  ``name_servers`` are IPv4 addresses in resolv.conf's order; they count only
    where DNS is captured.  Unsupported for what is not written here, LabError for a value that is no number and for
    what `Settings` refuses.
    """
    told = environment or {}
    given = {name: value for name, (_, names) in _OPTIONS.items() if (value := _last(told, names)) is not None}
    given |= {name: value for name, names in _SWITCHES.items() if (value := _last(told, names)) is not None}
    given |= _read(words)
    for name in _NOT_WRITTEN:
        if given.get(name) in _ON:
            raise Unsupported(f"istio-iptables --{name}: no rules are written here for that")
    uid = _number(given, "proxy-uid", 1337)
    mode = given.get("istio-inbound-interception-mode") or "REDIRECT"
    return Settings(
        proxy_uid=uid,
        proxy_gid=_number(given, "proxy-gid", uid),
        mode="TPROXY" if mode == "TPROXY" else "REDIRECT",
        tproxy_mark=_number(given, "istio-inbound-tproxy-mark", 1337),
        outbound_port=_number(given, "envoy-port", 15001),
        inbound_port=_number(given, "inbound-capture-port", 15006),
        tunnel_port=_number(given, "inbound-tunnel-port", 15008),
        inbound_include=_numbers_or_all(given.get("istio-inbound-ports", ""), "istio-inbound-ports"),
        inbound_exclude=_numbers(given.get("istio-local-exclude-ports", ""), "istio-local-exclude-ports"),
        outbound_ports_include=_numbers(given.get("istio-outbound-ports", ""), "istio-outbound-ports"),
        outbound_ports_exclude=_numbers(
            given.get("istio-local-outbound-ports-exclude", ""), "istio-local-outbound-ports-exclude"
        ),
        outbound_cidrs_include=_ranges_or_all(given.get("istio-service-cidr", "")),
        outbound_cidrs_exclude=_ranges(given.get("istio-service-exclude-cidr", "")),
        outbound_groups_include=_numbers_or_all(told.get("ISTIO_OUTBOUND_OWNER_GROUPS", "*"), "owner groups"),
        outbound_groups_exclude=_numbers(told.get("ISTIO_OUTBOUND_OWNER_GROUPS_EXCLUDE", ""), "owner groups"),
        dns_servers=_captured(given, name_servers),
        virtual_interfaces=_split(given.get("kube-virt-interfaces", "")),
        excluded_interfaces=_split(given.get("istio-exclude-interfaces", "")),
        drop_invalid=given.get("drop-invalid") in _ON,
        loopback=told.get("ISTIO_OUTBOUND_IPV4_LOOPBACK_CIDR", "127.0.0.1/32"),
    )


def _last(told: Mapping[str, str], names: Iterable[str]) -> str | None:
    return next((told[name] for name in reversed(list(names)) if name in told), None)


def _read(words: Sequence[str]) -> dict[str, str]:
    """The options of a command line by their long names; options of the log and words that are none are passed over."""
    found = {}
    left = list(words)
    while left:
        word = left.pop(0)
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            continue
        if not word.startswith("--"):
            # -p 15001, -p=15001, -p15001
            value, equals, name = (value, equals, name) if equals else (name[1:], name[1:], name[:1])
            name = _SHORT.get(name, name)
        if name in _SWITCHES:
            found[name] = value if equals else "true"
        elif name in _OPTIONS:
            if not equals and not left:
                raise LabError(f"istio-iptables: the option {word} has no value")
            found[name] = value if equals else left.pop(0)
    return found


def _captured(given: Mapping[str, str], name_servers: Sequence[str]) -> tuple[str, ...] | Literal["*"]:
    if given.get("redirect-dns") not in _ON:
        return ()
    if given.get("capture-all-dns") in _ON:
        return "*"
    return tuple(address for address in name_servers if ":" not in address)


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    return _to_number(given[name], name) if given.get(name) else default


def _to_number(text: str, name: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise LabError(f"istio-iptables: {text!r} is no number for {name}")
    return int(text)


def _numbers(text: str, name: str) -> tuple[int, ...]:
    return tuple(_to_number(word, name) for word in _split(text))


def _numbers_or_all(text: str, name: str) -> tuple[int, ...] | Literal["*"]:
    return "*" if text == "*" else _numbers(text, name)


def _ranges(text: str) -> tuple[str, ...]:
    """The IPv4 ranges of a list: those of IPv6 are for other rules."""
    if text == "*":
        raise LabError("istio-iptables: every range is excluded ('*'), which it refuses")
    return tuple(word for word in _split(text) if ":" not in word)


def _ranges_or_all(text: str) -> tuple[str, ...] | Literal["*"]:
    return "*" if text == "*" else _ranges(text)
