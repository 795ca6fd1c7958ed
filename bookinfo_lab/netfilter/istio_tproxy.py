"""The table mangle of a pod with Istio: TPROXY mode, and the dropping of what conntrack cannot place.

Pure.  Follows istio tools/istio-iptables/pkg/capture/run.go; empty where neither is asked for.  The policy route that
leads marked packets to loopback is no rule of iptables and is not written here.
"""

from .istio_settings import Settings
from .rule_text import rule

_OUTBOUND_MARK = "0x53a"  # 1338: what the proxy sends to its own pod
_ALL = "0xffffffff"
_WHOLE_MARK = f"--nfmask {_ALL} --ctmask {_ALL}"
_KNOWN = "conntrack --ctstate RELATED,ESTABLISHED"


def mangle(settings: Settings) -> dict[str, list[str]]:
    """The rules of each chain."""
    drop = {"ISTIO_DROP": [rule("DROP")]} if settings.drop_invalid else {}
    invalid = [rule("ISTIO_DROP", matches=("conntrack --ctstate INVALID",))] if settings.drop_invalid else []
    if settings.mode == "REDIRECT":
        return drop and drop | {"PREROUTING": invalid}
    intercepts = settings.inbound_include != ()
    mark = f"{settings.tproxy_mark:#x}"
    found = {
        "PREROUTING": [
            *(rule("RETURN", in_=name) for name in settings.excluded_interfaces),
            *invalid,
            *([rule("ISTIO_INBOUND", protocol="tcp")] if intercepts else ()),
            rule(f"CONNMARK --save-mark {_WHOLE_MARK}", protocol="tcp", matches=(f"mark --mark {mark}",)),
        ],
        "OUTPUT": _output(settings, mark),
        "ISTIO_INBOUND": [*_spared(mark), *(_inbound(settings) if intercepts else ())],
    }
    return found | drop | (_chains(settings, mark) if intercepts else {})


def _chains(settings: Settings, mark: str) -> dict[str, list[str]]:
    handed = f"TPROXY --on-port {settings.inbound_port} --on-ip 0.0.0.0 --tproxy-mark {mark}/{_ALL}"
    return {
        "ISTIO_DIVERT": [rule(f"MARK --set-xmark {mark}/{_ALL}"), rule("ACCEPT")],
        "ISTIO_TPROXY": [rule(handed, not_destination=settings.loopback, protocol="tcp")],
    }


def _output(settings: Settings, mark: str) -> list[str]:
    back = {"not_destination": settings.loopback, "out": "lo", "protocol": "tcp"}
    marked = f"MARK --set-xmark {_OUTBOUND_MARK}/{_ALL}"
    return [
        *(rule("RETURN", out=name) for name in settings.excluded_interfaces),
        rule("RETURN", out="lo", protocol="tcp", matches=(f"mark --mark {mark}",)),
        rule(marked, **back, matches=(f"owner --uid-owner {settings.proxy_uid}",)),
        rule(marked, **back, matches=(f"owner --gid-owner {settings.proxy_gid}",)),
        rule(f"CONNMARK --restore-mark {_WHOLE_MARK}", protocol="tcp", matches=(f"connmark --mark {mark}",)),
    ]


def _spared(mark: str) -> list[str]:
    """What is not intercepted again: the proxy's own, and what others than the proxy send over loopback."""
    return [
        rule("RETURN", protocol="tcp", matches=(f"mark --mark {mark}",)),
        rule("RETURN", source="127.0.0.6/32", in_="lo", protocol="tcp"),
        rule("RETURN", in_="lo", protocol="tcp", matches=(f"mark ! --mark {_OUTBOUND_MARK}",)),
    ]


def _inbound(settings: Settings) -> list[str]:
    if settings.inbound_include == "*":
        excluded = [
            rule("RETURN", protocol="tcp", matches=(f"tcp --dport {port}",)) for port in settings.inbound_exclude
        ]
        known = rule("ISTIO_DIVERT", protocol="tcp", matches=(_KNOWN,))
        return [*excluded, known, rule("ISTIO_TPROXY", protocol="tcp")]
    return [
        rule(target, protocol="tcp", matches=(f"tcp --dport {port}", *more))
        for port in settings.inbound_include
        for target, more in (("ISTIO_DIVERT", (_KNOWN,)), ("ISTIO_TPROXY", ()))
    ]
