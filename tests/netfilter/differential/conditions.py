"""Conditions at random, each as iptables takes it, for the hooks and the protocol that a rule may have.

Pure.  What the kernel checks in which hook is in each entry; `Draw` is what an entry may look at.
"""

from collections.abc import Callable
from dataclasses import dataclass

from differential.draw import ALL_HOOKS, IN_HOOKS, OUT_HOOKS, PORT_PROTOCOLS, SOCKET_HOOKS, Draw

Words = tuple[str, str]  # the module ("" for the rule's own options) and the option with its value


def _ports(module: str, option: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        value = draw.source_port() if option == "--sport" else draw.ports()
        return module, f"{draw.negation()}{option} {value}"

    return made


def _port_list(option: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        count = draw.random.randint(1, 5)
        source = option == "--sports"
        listed = [
            draw.random.choice(("33000", "50000", "20000:40000")) if source else draw.ports() for _ in range(count)
        ]
        # multiport takes neither an open range nor one of a single port.
        listed = [item if item[0] != ":" and item[-1] != ":" else "1:90" for item in listed]
        listed = [item.partition(":")[0] if len(set(item.split(":"))) == 1 else item for item in listed]
        return "multiport", f"{draw.negation()}{option} {','.join(listed)}"

    return made


def _source(draw: Draw) -> Words:
    return "", f"{draw.negation()}-s {draw.network()}"


def _destination(draw: Draw) -> Words:
    return "", f"{draw.negation()}-d {draw.network()}"


def _interface(option: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        return "", f"{draw.negation()}{option} {draw.one('in0', 'out0', 'out1', 'lo', 'out+', 'in+', 'eth0', 'l+')}"

    return made


def _fragment(draw: Draw) -> Words:
    return "", f"{draw.negation()}-f"


def _flags(draw: Draw) -> Words:
    mask, wanted = draw.random.choice(
        (
            ("FIN,SYN,RST,ACK", "SYN"),
            ("SYN,ACK", "SYN,ACK"),
            ("SYN,ACK", "ACK"),
            ("SYN,RST", "SYN"),
            ("RST", "RST"),
            ("ALL", "SYN"),
            ("ALL", "NONE"),
            ("FIN,SYN", "FIN,SYN"),
            ("SYN", "NONE"),
            ("ALL", "FIN,PSH,URG"),
        )
    )
    return "tcp", f"{draw.negation()}--tcp-flags {mask} {wanted}"


def _icmp(draw: Draw) -> Words:
    if draw.family == 6:
        return (
            "icmp6",
            f"{draw.negation()}--icmpv6-type {draw.one('128', '128', '129', 'echo-request', '144', '128/0', '1')}",
        )
    kinds = ("8", "echo-request", "0", "13", "17", "8/0", "8/1", "any", "timestamp-request", "3/3")
    return "icmp", f"{draw.negation()}--icmp-type {draw.one(*kinds)}"


def _states(draw: Draw) -> str:
    every = ("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED")
    return ",".join(draw.random.sample(every, draw.random.choice((1, 1, 2, 3))))


def _ctstate(draw: Draw) -> Words:
    states = (
        draw.one("DNAT", "SNAT", "RELATED,ESTABLISHED", "NEW,SNAT") if draw.random.random() < 0.4 else _states(draw)
    )
    return "conntrack", f"{draw.negation()}--ctstate {states}"


def _ctstatus(draw: Draw) -> Words:
    kinds = ("SEEN_REPLY", "CONFIRMED", "NONE", "EXPECTED", "ASSURED", "SEEN_REPLY,CONFIRMED")
    return "conntrack", f"{draw.negation()}--ctstatus {draw.one(*kinds)}"


def _ctproto(draw: Draw) -> Words:
    return "conntrack", f"{draw.negation()}--ctproto {draw.one('tcp', 'udp', 'sctp', '1', '58')}"


def _ctdir(draw: Draw) -> Words:
    return "conntrack", f"--ctdir {draw.one('ORIGINAL', 'REPLY')}"


def _original(option: str, *, is_port: bool) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        if is_port:
            return "conntrack", f"{draw.negation()}{option} {draw.source_port() if 'src' in option else draw.ports()}"
        # A mask that is no prefix is written back as one here (iptables 1.8.9).
        network = draw.network()
        return (
            "conntrack",
            f"{draw.negation()}{option} {draw.address() if '/255' in network or '/0.' in network else network}",
        )

    return made


def _state(draw: Draw) -> Words:
    return "state", f"{draw.negation()}--state {_states(draw)}"


def _mark(module: str) -> Callable[[Draw], Words]:
    return lambda draw: (module, f"{draw.negation()}--mark {draw.mark()}")


def _owner(option: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        value = draw.one("0", "1000", "1337", "1337", "0-999", "1000-1337", "1-1336")
        return "owner", f"{draw.negation()}{option} {value}"

    return made


def _socket_exists(draw: Draw) -> Words:
    return "owner", f"{draw.negation()}--socket-exists"


def _address_type(option: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        kinds = ["LOCAL", "LOCAL", "UNICAST", "MULTICAST", "LOCAL,MULTICAST"]
        kinds += ["BROADCAST", "UNICAST,BROADCAST", "LOCAL,BROADCAST"] if draw.family == 4 else []
        return "addrtype", f"{draw.negation()}{option} {draw.one(*kinds)}"

    return made


def _range(option: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        ranges = {
            4: (
                "10.1.0.2-10.1.0.2",
                "10.1.0.3-10.2.0.2",
                "10.0.0.0-10.2.0.1",
                "172.16.0.0-203.0.113.9",
                "10.2.0.3-10.3.0.4",
            ),
            6: ("fd00:1::2-fd00:1::2", "fd00:1::3-fd00:2::2", "fd00::-fd00:2::1", "2001:db8::-2001:db8:8::"),
        }
        return "iprange", f"{draw.negation()}{option} {draw.one(*ranges[draw.family])}"

    return made


def _comment(draw: Draw) -> Words:
    texts = (
        "plain",
        '"two words"',
        '"it \\"quotes\\" -j DROP"',
        '"a \\\\ b"',
        '"it\'s ! --dport 80"',
        '"KUBE-MARK-MASQ"',
    )
    return "comment", f"--comment {draw.one(*texts)}"


def _accounting(draw: Draw) -> Words:
    return "nfacct", f"--nfacct-name {draw.one('seen', 'localhost_nps_accepted_pkts')}"


def _probability(draw: Draw) -> Words:
    value = draw.one("0.5", "0.33333333349", "0.25", "0.9", "0.10000000009", "0", "1")
    return "statistic", f"--mode random {draw.negation()}--probability {value}"


def _every(draw: Draw) -> Words:
    return "statistic", f"--mode nth {draw.negation()}--every {draw.one('2', '3')} --packet {draw.one('0', '1')}"


def _recent(kind: str) -> Callable[[Draw], Words]:
    def made(draw: Draw) -> Words:
        mask = "255.255.255.255" if draw.family == 4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        limits = (
            draw.one("", "", " --seconds 60", " --seconds 60 --hitcount 2") if kind in ("--rcheck", "--update") else ""
        )
        where = f"--name {draw.one('A', 'B')} --mask {mask} {draw.one('--rsource', '--rdest')}"
        return "recent", f"{draw.negation()}{kind}{limits} {where}"

    return made


def _bridge_port(option: str) -> Callable[[Draw], Words]:
    return lambda draw: (
        "physdev",
        f"{draw.negation()}{option}{' in0' if option in ('--physdev-in', '--physdev-out') else ''}",
    )


def _in_need_of_state(draw: Draw) -> Words:
    module, option = draw.random.choice(
        (
            ("length", "--length 0:60"),
            ("length", "--length 61:65535"),
            ("pkttype", "--pkt-type unicast"),
            ("dscp", "--dscp 0x00"),
            ("tos", "--tos 0x10/0x3f"),
            ("limit", "--limit 1/hour --limit-burst 3"),
            ("connlimit", "--connlimit-above 3"),
        )
    )
    return module, option


@dataclass(frozen=True, slots=True)
class Entry:
    """A condition's writer, the protocols (none: any) and hooks for which the kernel takes it, and how often it comes.

    ``is_open`` where no packet alone decides it: chance, a list, a counter.
    """

    make: Callable[[Draw], Words]
    protos: tuple[str, ...] = ()
    hooks: frozenset[str] = ALL_HOOKS
    weight: float = 1.0
    families: tuple[int, ...] = (4, 6)
    is_open: bool = False


ENTRIES = (
    Entry(_source, weight=2),
    Entry(_destination, weight=3),
    Entry(_interface("-i"), hooks=IN_HOOKS, weight=2),
    Entry(_interface("-o"), hooks=OUT_HOOKS, weight=2),
    Entry(_fragment, weight=0.7, families=(4,)),
    *(
        Entry(_ports(proto, option), (proto,), weight=weight)
        for proto in PORT_PROTOCOLS
        for option, weight in (("--dport", 2.5), ("--sport", 1.5))
    ),
    *(Entry(_port_list(option), PORT_PROTOCOLS, weight=1.3) for option in ("--sports", "--dports", "--ports")),
    Entry(_flags, ("tcp",), weight=1.6),
    Entry(lambda draw: ("tcp", f"{draw.negation()}--syn"), ("tcp",), weight=1.2),
    *(Entry(_icmp, ("icmp", "icmpv6"), weight=2) for _ in range(2)),  # twice: the one condition of their protocol
    Entry(_ctstate, weight=2),
    Entry(_ctstatus, weight=1.6),
    Entry(_ctproto),
    Entry(_ctdir),
    Entry(_original("--ctorigsrc", is_port=False)),
    Entry(_original("--ctorigdst", is_port=False)),
    Entry(_original("--ctorigsrcport", is_port=True), PORT_PROTOCOLS),
    Entry(_original("--ctorigdstport", is_port=True), PORT_PROTOCOLS),
    Entry(_state),
    Entry(_mark("mark"), weight=2.5),
    Entry(_mark("connmark"), weight=1.5),
    Entry(_owner("--uid-owner"), hooks=SOCKET_HOOKS, weight=2.5),
    Entry(_owner("--gid-owner"), hooks=SOCKET_HOOKS, weight=2.5),
    Entry(_socket_exists, hooks=SOCKET_HOOKS, weight=2),
    Entry(_address_type("--src-type"), weight=1.2),
    Entry(_address_type("--dst-type"), weight=1.5),
    Entry(_range("--src-range")),
    Entry(_range("--dst-range")),
    Entry(_comment, weight=0.7),
    Entry(_accounting, weight=0.7),
    Entry(_probability, weight=2, is_open=True),
    Entry(_every, is_open=True),
    *(Entry(_recent(kind), weight=0.6, is_open=True) for kind in ("--set", "--rcheck", "--update", "--remove")),
    *(
        Entry(_bridge_port(option), hooks=ALL_HOOKS - {"OUTPUT"} if "out" in option else ALL_HOOKS, weight=0.3)
        for option in ("--physdev-in", "--physdev-out", "--physdev-is-in", "--physdev-is-out", "--physdev-is-bridged")
    ),
    Entry(_in_need_of_state, weight=0.7, is_open=True),
)


def conditions(draw: Draw, hooks: frozenset[str], count: int, *, left: list[int]) -> str:
    """``count`` conditions, or fewer, on top of the protocol, in an order that iptables takes.

    ``left`` holds how many more may be open; it is counted down.
    """
    fitting = [
        entry
        for entry in ENTRIES
        if (not entry.protos or draw.proto in entry.protos)
        and hooks <= entry.hooks
        and draw.family in entry.families
        and (left[0] > 0 or not entry.is_open)
        and (draw.maps_owners or entry.hooks is not SOCKET_HOOKS)
    ]
    chosen = draw.random.choices(fitting, [entry.weight for entry in fitting], k=count)
    left[0] -= sum(entry.is_open for entry in chosen)
    words = [f"-p {draw.proto}"] if draw.proto else _any_protocol(draw)
    modules: dict[str, list[str]] = {}
    for entry in dict.fromkeys(chosen):
        module, option = entry.make(draw)
        name = option.removeprefix("! ").split()[0]
        there = modules.setdefault(module, [])
        one_only = module in ("addrtype", "iprange", "owner", "conntrack", "tcp", "udp", "sctp", "")
        clashes = any(item.removeprefix("! ").split()[0] == name for item in there) or (there and not one_only)
        # --syn is --tcp-flags by another name.
        if not clashes and not (
            name in ("--syn", "--tcp-flags") and any("--syn" in i or "--tcp-flags" in i for i in there)
        ):
            there.append(option)
    words = [*modules.pop("", ()), *words]
    words += [f"-m {module} {' '.join(options)}" for module, options in modules.items()]
    return " ".join(words)


def _any_protocol(draw: Draw) -> list[str]:
    if draw.random.random() < 0.85:
        return []
    return [f"{draw.negation()}-p {draw.one('tcp', 'udp', 'sctp', 'icmp' if draw.family == 4 else 'icmpv6', '47')}"]
