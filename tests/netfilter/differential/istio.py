"""Istio's rules in a pod, in every mode, with settings at random, and packets of its processes and from outside.

Pure.  REDIRECT mode is written by the package's own writer; TPROXY, DNS capture and ambient by this module, in the
words of istio tools/istio-iptables and cni/pkg/iptables.  The pod is the room: its address is 10.1.0.1 on in0.
"""

from collections.abc import Iterable
from random import Random

from differential import surroundings
from differential.arbitrary import BASE
from differential.case import Case, Probe
from kernel.flow import Flow

from bookinfo_lab.netfilter import istio_iptables

_PORTS = (80, 443, 8080, 9080, 15006, 15008, 15020, 15021, 15090, 15053, 53)
_LOOPBACK = {4: ("127.0.0.1", "127.0.0.6"), 6: ("::1", "::6")}
_POD = {4: "10.1.0.1", 6: "fd00:1::1"}
_PEERS = {
    4: ("10.1.0.2", "192.0.2.9", "169.254.7.127"),
    6: ("fd00:1::2", "2001:db8::9", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"),
}
_OUTSIDE = {
    4: ("10.2.0.2", "10.3.0.5", "203.0.113.9", "10.2.0.53"),
    6: ("fd00:2::2", "fd00:3::5", "2001:db8:1::9", "fd00:2::53"),
}
_RESOLVER = {4: "10.2.0.53/32", 6: "fd00:2::53/128"}
_PROBES = {4: "169.254.7.127/32", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128"}


def case(random: Random, name: str, *, maps_owners: bool = True, probes: int = 16) -> Case:
    """A pod in one of Istio's modes."""
    family = random.choice((4, 4, 6))
    mode = random.choice(("redirect", "redirect", "dns", "tproxy", "ambient"))
    where = surroundings.POD
    has_owners = maps_owners and mode != "ambient"
    if mode == "tproxy" and maps_owners:
        text, where = _tproxy(random, family), surroundings.TPROXY_POD
    elif mode == "ambient":
        text = _ambient(random, family)
    else:
        text = _redirect(random, family, "uid" if maps_owners else "mark")
        if mode == "dns" and maps_owners:
            text = _with_dns(text, family)
    sent = [_probe(random, family, has_owners) for _ in range(probes)]
    if " CT " in text:
        sent = [Probe(probe.flow) for probe in sent]
    return Case(name, family, text, tuple(sent), where, is_saved=random.random() < 0.3)


def _redirect(random: Random, family: int, owner: str) -> str:
    cidrs = ("10.0.0.0/8", "10.2.0.0/16", "203.0.113.9/32", "127.0.0.0/8") if family == 4 else ()
    settings = istio_iptables.Settings(
        owner="uid" if owner == "uid" else "mark",
        inbound_include=random.choice(("*", "*", (80, 9080), ())),
        inbound_exclude=random.choice(((15090, 15021, 15020), (15090, 15021, 15020, 8080), ())),
        outbound_ports_include=random.choice(((), (), (443,))),
        outbound_ports_exclude=random.choice(((), (), (8080, 9080))),
        outbound_cidrs_include=random.choice(("*", "*", tuple(random.sample(cidrs, 2)))) if cidrs else "*",
        outbound_cidrs_exclude=random.choice(((), (), ("10.2.0.2/32",))) if cidrs else (),
    )
    return _in_family(istio_iptables.rules(settings), family)


def _in_family(text: str, family: int) -> str:
    if family == 6:
        text = text.replace("127.0.0.1/32", "::1/128").replace("127.0.0.6/32", "::6/128")
    return text


def _with_dns(text: str, family: int) -> str:
    resolver = _RESOLVER[family]
    zoned = "-m owner --{}-owner 1337 -j CT --zone {}"
    raw = {
        "OUTPUT": [
            *(f"-p udp -m udp --dport 53 {zoned.format(kind, 1)}" for kind in ("uid", "gid")),
            *(f"-p udp -m udp --sport 15053 {zoned.format(kind, 2)}" for kind in ("uid", "gid")),
            f"-d {resolver} -p udp -m udp --dport 53 -j CT --zone 2",
        ],
        "PREROUTING": [f"-s {resolver} -p udp -m udp --sport 53 -j CT --zone 1"],
    }
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("-A OUTPUT"))
    taken = "-j REDIRECT --to-ports 15053"
    # As istio-iptables has it, what is sent to the resolver is taken before all the rest.
    dns = [
        *(f"-A OUTPUT -p udp -m udp --dport 53 -m owner --{kind}-owner 1337 -j RETURN" for kind in ("uid", "gid")),
        f"-A OUTPUT -d {resolver} -p udp -m udp --dport 53 {taken}",
        f"-A ISTIO_OUTPUT -d {resolver} -p tcp -m tcp --dport 53 -m owner ! --gid-owner 1337 {taken}",
    ]
    first = next(number for number, line in enumerate(lines) if line.startswith("-A ISTIO_OUTPUT"))
    lines[first:first] = dns[3:]
    lines[at:at] = dns[:3]
    return _table("raw", raw) + "".join(f"{line}\n" for line in lines)


def _tproxy(random: Random, family: int) -> str:
    here, passed = (f"{address}/{32 if family == 4 else 128}" for address in _LOOPBACK[family])
    excluded = random.sample(_PORTS, random.choice((0, 2)))
    mangle = {
        "PREROUTING": ["-p tcp -j ISTIO_INBOUND", "-p tcp -m mark --mark 0x539 -j CONNMARK --save-mark"],
        "OUTPUT": [
            *(
                f"! -d {here} -o lo -p tcp -m owner --{kind}-owner 1337 -j MARK --set-xmark 0x53a/0xffffffff"
                for kind in ("uid", "gid")
            ),
            "-o lo -p tcp -m mark --mark 0x539 -j RETURN",
            "-p tcp -m connmark --mark 0x539 -j CONNMARK --restore-mark",
        ],
        "ISTIO_INBOUND": [
            "-p tcp -m mark --mark 0x539 -j RETURN",
            f"-s {passed} -i lo -p tcp -j RETURN",
            "-i lo -p tcp -m mark ! --mark 0x53a -j RETURN",
            *(f"-p tcp -m tcp --dport {port} -j RETURN" for port in (22, 15090, 15021, 15020, *excluded)),
            "-p tcp -m conntrack --ctstate RELATED,ESTABLISHED -j ISTIO_DIVERT",
            "-p tcp -j ISTIO_TPROXY",
        ],
        "ISTIO_DIVERT": ["-j MARK --set-xmark 0x539/0xffffffff", "-j ACCEPT"],
        "ISTIO_TPROXY": [f"! -d {here} -p tcp -j TPROXY --on-port 15006 --tproxy-mark 0x539/0xffffffff"],
    }
    nat = _redirect(random, family, "uid")
    nat = nat.replace("-A PREROUTING -p tcp -j ISTIO_INBOUND\n", "").replace(
        "REDIRECT --to-ports 15006", "REDIRECT --to-ports 15006"
    )
    return _table("mangle", mangle) + nat


def _ambient(random: Random, family: int) -> str:
    here = f"{_LOOPBACK[family][0]}/{32 if family == 4 else 128}"
    kubelet, unmarked = _PROBES[family], "-m mark ! --mark 0x539/0xfff"
    redirected = "-j REDIRECT --to-ports"
    has_dns = random.random() < 0.6
    mangle = {
        "PREROUTING": ["-j ISTIO_PRERT"],
        "OUTPUT": ["-j ISTIO_OUTPUT"],
        "ISTIO_PRERT": ["-m mark --mark 0x539/0xfff -j CONNMARK --set-xmark 0x111/0xfff"],
        "ISTIO_OUTPUT": [
            "-m connmark --mark 0x111/0xfff -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"
        ],
    }
    dns = [
        f"! -o lo -p udp {unmarked} -m udp --dport 53 {redirected} 15053",
        f"! -d {here} -p tcp -m tcp --dport 53 {unmarked} {redirected} 15053",
    ]
    nat = {
        "PREROUTING": ["-j ISTIO_PRERT"],
        "OUTPUT": ["-j ISTIO_OUTPUT"],
        "ISTIO_PRERT": [
            f"-s {kubelet} -p tcp -m tcp -j ACCEPT",
            f"! -d {here} -p tcp -m tcp ! --dport 15008 {unmarked} {redirected} 15006",
        ],
        "ISTIO_OUTPUT": [
            f"-d {kubelet} -p tcp -m tcp -j ACCEPT",
            *(dns if has_dns else ()),
            "-p tcp -m mark --mark 0x111/0xfff -j ACCEPT",
            f"! -d {here} -o lo -j ACCEPT",
            f"! -d {here} -p tcp {unmarked} {redirected} 15001",
        ],
    }
    raw = {
        "PREROUTING": ["-j ISTIO_PRERT"],
        "OUTPUT": ["-j ISTIO_OUTPUT"],
        "ISTIO_OUTPUT": ["-p udp -m mark --mark 0x539/0xfff -m udp --dport 53 -j CT --zone 1"],
        "ISTIO_PRERT": [f"-p udp {unmarked} -m udp --sport 53 -j CT --zone 1"],
    }
    return (_table("raw", raw) if has_dns else "") + _table("mangle", mangle) + _table("nat", nat)


def _table(name: str, chains: dict[str, list[str]]) -> str:
    declared = [f":{chain} ACCEPT [0:0]" for chain in BASE[name]]
    declared += [f":{chain} - [0:0]" for chain in chains if chain not in BASE[name]]
    rules = [f"-A {chain} {rule}" for chain, its in chains.items() for rule in its]
    return _lines([f"*{name}", *declared, *rules, "COMMIT"])


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _probe(random: Random, family: int, has_owners: bool) -> Probe:
    proto = random.choices(("tcp", "udp", "icmp" if family == 4 else "icmpv6"), (80, 16, 4))[0]
    dport = 0 if proto.startswith("icmp") else random.choice(_PORTS)
    local = random.random() < 0.6
    if not local:
        src = random.choice(_PEERS[family])
        flow = Flow(src, _POD[family], dport, proto, iif="in0")
        if random.random() < 0.1 and proto == "udp":
            flow = Flow(_OUTSIDE[family][3], _POD[family], dport, proto, sport=53, iif="out0")
        return Probe(flow, random.choices(("first", "established", "reply"), (80, 12, 8))[0])
    uid, gid = random.choice(((1337, 1337), (1337, 1337), (1000, 1000), (0, 0), (1000, 1337), (1337, 0)))
    dst = random.choice((*_OUTSIDE[family], _POD[family], _POD[family], _LOOPBACK[family][0]))
    source: str | None = None
    if random.random() < 0.2:
        source = _LOOPBACK[family][0] if dst.startswith(("127.", "::1")) else _POD[family]
        if family == 4 and dst == _POD[family]:
            source = random.choice((source, "127.0.0.6"))
    owner = (uid, gid) if has_owners else (None, None)
    mark = random.choice((0, 0, 0x539, 0x539, 0x111)) if not has_owners else random.choice((0, 0, 0, 0, 0x539, 0x53A))
    flow = Flow(source, dst, dport, proto, local=True, uid=owner[0], gid=owner[1], mark=mark)
    return Probe(flow, "established" if random.random() < 0.12 else "first")
