"""All Kubernetes rules of a node: kube-proxy's and the kubelet's as one ruleset."""

from bookinfo_lab.kube.parse import Given

from . import kube_proxy, kubelet
from .settings import Settings
from .tables import format_save, merge


def rules(given: Given, node: str, settings: Settings) -> str:
    """What iptables-save prints on ``node``, remarks left out, when the kubelet ran first and kube-proxy after it.

    A network plugin's rules are its own affair and not here.  Errors are those of `kube_proxy.rules`.
    """
    of_proxy = kube_proxy.tables(given, node, settings)
    return format_save(merge(of_proxy, kubelet.tables(settings.layout, settings.masquerade_bit)))
