"""What kube-proxy was started with, as far as its rules depend on it."""

import ipaddress
from dataclasses import dataclass
from typing import Literal

from bookinfo_lab.errors import LabError

Layout = Literal["today", "2017"]


@dataclass(frozen=True, slots=True)
class Settings:
    """kube-proxy's settings.  Raises `LabError` for a value that kube-proxy would refuse.

    ``cluster_cidr`` is the pods' IPv4 range (empty: kube-proxy does not know it, and leaves out the rules that tell
    pods from others).  ``nfacct`` says whether the kernel lets kube-proxy make its accounting objects.  ``layout`` is
    ``today`` (Kubernetes 1.34) or ``2017`` (1.8).  ``masquerade_bit`` is the bit of the mark that asks for SNAT.  The
    last three are --masquerade-all, --iptables-localhost-nodeports and --conntrack-tcp-be-liberal; 2017 had only the
    first of them.
    """

    cluster_cidr: str
    nfacct: bool = True
    layout: Layout = "today"
    masquerade_bit: int = 14
    masquerade_all: bool = False
    localhost_nodeports: bool = True
    conntrack_tcp_liberal: bool = False

    def __post_init__(self) -> None:
        if self.layout not in ("today", "2017"):
            raise LabError(f"{self.layout!r} is not a layout of kube-proxy's rules; use 'today' or '2017'")
        if not 0 <= self.masquerade_bit <= 31:
            raise LabError(f"masquerade bit {self.masquerade_bit} is not in a 32-bit mark; use 0 to 31")
        if self.cluster_cidr:
            try:
                network = ipaddress.IPv4Network(self.cluster_cidr)
            except ValueError as reason:
                raise LabError(f"cluster CIDR: {reason}; give the pods' IPv4 range, such as 10.244.0.0/16") from None
            if network.prefixlen == 0:
                raise LabError("cluster CIDR 0.0.0.0/0 holds every address; give the pods' range, or none")
