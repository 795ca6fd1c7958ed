"""kube-proxy's chain names: KUBE-SVC-, KUBE-EXT-, KUBE-SVL-, KUBE-FW-, KUBE-XLB- and KUBE-SEP-.

The name of a Service port, its protocol and, for KUBE-SEP-, the endpoint come in, a chain name comes out: prefix and
the first 16 letters of base32(sha256(text)).  Follows kubernetes pkg/proxy/iptables/proxier.go.
"""

import base64
import hashlib


def service_port_name(namespace: str, service: str, port: str) -> str:
    """What kube-proxy calls a Service port today: ``ns/service:port``, without the colon where the port is unnamed."""
    return f"{namespace}/{service}:{port}" if port else f"{namespace}/{service}"


def service_port_name_2017(namespace: str, service: str, port: str) -> str:
    """The same in 2017, when the colon stayed also for an unnamed port, and so went into the hash."""
    return f"{namespace}/{service}:{port}"


def service_chain(kind: str, name: str, protocol: str) -> str:
    """The chain ``kind`` (SVC, EXT, SVL, FW or XLB) of the Service port ``name``; all share one hash.

    >>> service_chain("SVC", "istio-system/istio-ingress:http", "tcp")
    'KUBE-SVC-JSIH6CCNAROIS6ON'
    """
    return f"KUBE-{kind}-{_hash(name + protocol)}"


def endpoint_chain(name: str, protocol: str, endpoint: str) -> str:
    """The chain of one endpoint, ``ip:port``, of the Service port ``name``.

    >>> endpoint_chain("istio-system/istio-ingress:http", "tcp", "172.20.100.164:80")
    'KUBE-SEP-XMEMPNNJN7A5AOTI'
    """
    return f"KUBE-SEP-{_hash(name + protocol + endpoint)}"


def _hash(text: str) -> str:
    return base64.b32encode(hashlib.sha256(text.encode()).digest())[:16].decode()
