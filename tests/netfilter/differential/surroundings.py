"""The netns that cases stand in, made of the room: further addresses, routes, policy routing, sysctls.

Edge: tells the room, and reads back what a walk is given as facts, by the commands a learner would use.
"""

from differential.case import Surroundings
from kernel.room import Room
from kernel.wiring import ADDRESSES

POD_ROUTES = ("route add 10.244.0.0/24 dev in0", "route add 10.244.1.0/24 via 10.3.0.254 dev out1")
_EXTRA = (
    *POD_ROUTES,
    "addr add 10.2.0.9/24 dev out0",
    "addr add 172.20.0.1/32 dev in0",
    "addr add fd00:2::9/64 dev out0 nodad",
    "-6 route add fd00:244:1::/64 via fd00:3::fe dev out1",
    "route add unreachable 203.0.113.128/25",
    "route add blackhole 198.18.0.0/24",
    "route add prohibit 198.18.1.0/24",
    "-6 route add unreachable 2001:db8:dead::/48",
)
_EXTRA_UNDO = (
    *(line.replace(" add ", " del ") for line in reversed(_EXTRA) if "addr" not in line),
    "addr del 10.2.0.9/24 dev out0",
    "addr del 172.20.0.1/32 dev in0",
    "addr del fd00:2::9/64 dev out0",
)
_POLICY = (
    "route add local 0.0.0.0/0 dev lo table 133",
    "-6 route add local ::/0 dev lo table 133",
    "route add default dev out1 table 134",
    "-6 route add default dev out1 table 134",
    *(
        f"{version} rule add {rule}"
        for version in ("-4", "-6")
        for rule in ("fwmark 0x539 lookup 133 priority 100", "fwmark 0x20/0x20 lookup 134 priority 101")
    ),
)
_POLICY_UNDO = tuple(line.replace(" add ", " del ") for line in reversed(_POLICY))
_LOCALNET = (("net.ipv4.conf.all.route_localnet", "1"),)
_HOST = (("net.ipv4.ip_forward", "0"), ("net.ipv6.conf.all.forwarding", "0"))
_OWN = {
    "net.ipv4.conf.all.route_localnet": "0",
    "net.ipv4.ip_forward": "1",
    "net.ipv6.conf.all.forwarding": "1",
}
_TPROXY = ((15006, "tcp"), (15006, "udp"))

PLAIN = Surroundings("a router")
WIDE = Surroundings("a router with more addresses and routes", _EXTRA, _EXTRA_UNDO, _LOCALNET)
MARKED = Surroundings("routing by mark, transparent listeners", _POLICY, _POLICY_UNDO, listeners=_TPROXY)
HOST = Surroundings("a host that does not forward", sysctls=_HOST)
NODE = Surroundings("a kube node", _EXTRA, _EXTRA_UNDO)
LOCALNET_NODE = Surroundings("a kube node with route_localnet", _EXTRA, _EXTRA_UNDO, _LOCALNET)
POD = Surroundings("a pod", sysctls=_HOST)
TPROXY_POD = Surroundings("a pod whose proxy is transparent", _POLICY, _POLICY_UNDO, (*_HOST, *_LOCALNET), _TPROXY)


def settle(room: Room, wanted: Surroundings, present: Surroundings) -> None:
    """Change the room from ``present`` to ``wanted``."""
    if wanted == present:
        return
    room.unlisten()
    _ip(room, present.undo)
    changed = dict(wanted.sysctls)
    for name, value in _OWN.items():
        if name in changed or name in dict(present.sysctls):
            room.sysctl(name, changed.get(name, value))
    _ip(room, wanted.commands)
    for port, proto in wanted.listeners:
        for address in ("0.0.0.0", "::"):
            room.listen(port, proto, address, transparent=True)


def _ip(room: Room, lines: tuple[str, ...]) -> None:
    for version in ("-4", "-6"):
        mine = [line.removeprefix(f"{version} ") for line in lines if _version(line) == version]
        if mine:
            room.run("ip", version, "-batch", "-", given="".join(f"{line}\n" for line in mine))


def _version(line: str) -> str:
    return "-6" if line.startswith("-6 ") or "fd00:" in line else "-4"


def own(where: Surroundings) -> frozenset[str]:
    """The addresses of the device under test, without those of 127.0.0.0/8."""
    added = (line.split()[2] for line in where.commands if line.startswith("addr add "))
    addresses = (*(item for pair in ADDRESSES.values() for item in pair), *added, "::1/128")
    return frozenset(item.partition("/")[0] for item in addresses)


def described(room: Room, family: int) -> dict[str, str]:
    """The arguments of `bookinfo_lab.netfilter.facts.facts` for the netns as it is now."""
    version = f"-{family}"
    names = ("ip_forward", "conf/all", "conf/default", "conf/in0", "conf/out0", "conf/out1", "conf/lo")
    return {
        "addresses": room.run("ip", "-j", "addr"),
        "routes": room.run("ip", version, "-j", "route", "show", "table", "all"),
        "rules": room.run("ip", version, "-j", "rule"),
        "sysctls": room.run(
            "grep",
            "-rs",
            ".",
            *(f"/proc/sys/net/ipv4/{name}" for name in names),
            "/proc/sys/net/ipv6/conf/all/forwarding",
        ),
    }
