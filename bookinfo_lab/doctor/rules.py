"""The matches and targets that the lab's rules use, each as one small rule to be loaded on its own.

Pure.  ``needed`` are those in the rules of both scenarios; the others belong to Services and features that a
learner may add.  Modules are named as the kernel names them, for the mending line.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Extension:
    """A match or target: ``rule`` goes to ``chain`` of ``table`` in the form of iptables-save."""

    name: str
    table: str
    chain: str
    rule: str
    module: str
    needed: bool = True
    without: str = ""

    @property
    def text(self) -> str:
        """What iptables-restore is given; it replaces the table."""
        return f"*{self.table}\n-A {self.chain} {self.rule}\nCOMMIT\n"


NFACCT_OBJECT = "bookinfo_lab_doctor"
PROXY_MARK = 0x539

EXTENSIONS = (
    Extension("match comment", "nat", "OUTPUT", '-m comment --comment "doctor" -j RETURN', "xt_comment"),
    Extension("match tcp", "nat", "OUTPUT", "-p tcp -m tcp --dport 9 -j RETURN", "xt_tcpudp"),
    Extension("match udp", "nat", "OUTPUT", "-p udp -m udp --dport 9 -j RETURN", "xt_tcpudp"),
    Extension("match addrtype", "nat", "OUTPUT", "-m addrtype --dst-type LOCAL -j RETURN", "xt_addrtype"),
    Extension(
        "match statistic", "nat", "OUTPUT", "-m statistic --mode random --probability 0.5 -j RETURN", "xt_statistic"
    ),
    Extension(
        "match conntrack",
        "filter",
        "FORWARD",
        "-m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT",
        "xt_conntrack",
    ),
    Extension("match mark", "nat", "OUTPUT", "-m mark ! --mark 0x4000/0x4000 -j RETURN", "xt_mark"),
    Extension("target MARK", "nat", "OUTPUT", "-j MARK --set-xmark 0x4000/0x4000", "xt_mark"),
    Extension("target DNAT", "nat", "OUTPUT", "-p tcp -m tcp -j DNAT --to-destination 192.0.2.2:80", "xt_nat"),
    Extension("target REDIRECT", "nat", "OUTPUT", "-p tcp -j REDIRECT --to-ports 15001", "xt_REDIRECT"),
    Extension("target MASQUERADE", "nat", "POSTROUTING", "-j MASQUERADE --random-fully", "xt_MASQUERADE"),
    Extension(
        "target REJECT",
        "filter",
        "OUTPUT",
        "-p tcp -m tcp -j REJECT --reject-with icmp-port-unreachable",
        "ipt_REJECT",
        needed=False,
        without="all but a Service without endpoints: its rules would not load",
    ),
    Extension(
        "match recent",
        "nat",
        "OUTPUT",
        "-m recent --set --name doctor --mask 255.255.255.255 --rsource",
        "xt_recent",
        needed=False,
        without="all but a Service with sessionAffinity ClientIP: its rules would not load",
    ),
    Extension(
        "match sctp",
        "nat",
        "OUTPUT",
        "-p sctp -m sctp --dport 9 -j RETURN",
        "xt_sctp",
        needed=False,
        without="all but a Service with an SCTP port: its rules would not load",
    ),
    Extension(
        "target TPROXY",
        "mangle",
        "PREROUTING",
        "-p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff",
        "xt_TPROXY",
        needed=False,
        without="all: interception is by REDIRECT, Istio's default",
    ),
)

OWNER_BY_UID = Extension(
    "match owner", "nat", "OUTPUT", "-m owner --uid-owner 1337 -m owner --gid-owner 1337 -j RETURN", "xt_owner"
)
OWNER_BY_MARK = Extension("owner by mark", "nat", "OUTPUT", f"-m mark --mark {PROXY_MARK:#x} -j RETURN", "xt_mark")
NFACCT = Extension(
    "match nfacct",
    "filter",
    "OUTPUT",
    f"-m nfacct --nfacct-name {NFACCT_OBJECT} -j ACCEPT",
    "xt_nfacct",
    needed=False,
    without="all: kube-proxy leaves its accounting matches out, as it does on such a kernel",
)
TRACE = Extension(
    "target TRACE",
    "raw",
    "OUTPUT",
    "-p udp -j TRACE",
    "xt_TRACE",
    needed=False,
    without="rules are read and walked; the kernel's own trace of a packet cannot be set beside the walk",
)
