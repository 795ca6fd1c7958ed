"""The kubelet's own chains on a node: iptables-save text (IPv4).

Nothing comes in but the layout and the mark bits.  Today these are hints and canaries for others and one guard:
kube-proxy turns route_localnet on, and KUBE-FIREWALL keeps others out of 127.0.0.0/8.  Follows kubernetes
pkg/kubelet/kubelet_network_linux.go (1.34) and pkg/kubelet/kubelet_network.go (1.8).
"""

from bookinfo_lab.errors import LabError

from .layout_2017 import masquerade
from .rule_text import mark_bit, rule
from .settings import Layout
from .tables import Table, format_save, table


def rules(layout: Layout = "today", masquerade_bit: int = 14, drop_bit: int = 15) -> str:
    """What the kubelet writes, in the form of iptables-save.

    In 2017 that included the marks for SNAT (``masquerade_bit``) and for dropping (``drop_bit``).  Raises `LabError`
    where both bits are the same.
    """
    return format_save(tables(layout, masquerade_bit, drop_bit))


def tables(layout: Layout = "today", masquerade_bit: int = 14, drop_bit: int = 15) -> tuple[Table, ...]:
    """The same as tables, to be merged with kube-proxy's."""
    to_firewall = [rule("KUBE-FIREWALL")]
    if layout == "today":
        guard = rule(
            "DROP",
            not_source="127.0.0.0/8",
            destination="127.0.0.0/8",
            comment="block incoming localnet connections",
            matches=("conntrack ! --ctstate RELATED,ESTABLISHED,DNAT",),
        )
        canary: dict[str, list[str]] = {"KUBE-KUBELET-CANARY": []}
        return (
            table("mangle", {"KUBE-IPTABLES-HINT": [], **canary}),
            table("filter", {"INPUT": to_firewall, "OUTPUT": to_firewall, "KUBE-FIREWALL": [guard], **canary}),
            table("nat", canary),
        )
    if masquerade_bit == drop_bit:
        raise LabError(f"bit {drop_bit} cannot mark both for SNAT and for dropping; give two bits")
    masq, drop = mark_bit(masquerade_bit), mark_bit(drop_bit)
    dropped = "kubernetes firewall for dropping marked packets"
    return (
        table(
            "filter",
            {
                "INPUT": to_firewall,
                "OUTPUT": to_firewall,
                "KUBE-FIREWALL": [rule("DROP", comment=dropped, matches=(f"mark --mark {drop}/{drop}",))],
            },
        ),
        table(
            "nat",
            {
                "POSTROUTING": [rule("KUBE-POSTROUTING", comment="kubernetes postrouting rules")],
                "KUBE-POSTROUTING": [masquerade(masq)],
                "KUBE-MARK-MASQ": [rule(f"MARK --set-xmark {masq}/{masq}")],
                "KUBE-MARK-DROP": [rule(f"MARK --set-xmark {drop}/{drop}")],
            },
        ),
    )
