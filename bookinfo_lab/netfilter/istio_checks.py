"""What a rule of Istio's must hold beside its options' names, so that it is for what its place says.

Pure.  Marks, addresses and ports are those that Istio writes (tools/istio-iptables, cni/pkg/iptables); the proxy's uid
and gid are looked up in the ruleset where there is one.
"""

from .known_rule import Check
from .mark_words import ALL
from .rule import Rule
from .rule_shape import mark, ports, value
from .ruleset import Ruleset

PROXY, OUTBOUND = (1337, ALL), (1338, ALL)  # the marks of TPROXY mode
ZTUNNEL, ZTUNNEL_CONNECTION = (0x539, 0xFFF), (0x111, 0xFFF)
PASSTHROUGH = ("127.0.0.6/32", "::6/128")
LOOPBACK = ("127.0.0.1/32", "::1/128")
OWNERS = ("--uid-owner", "--gid-owner", "--mark")
_OWN_PORTS = (15008, 15020, 15021, 15090)
_ALL_PORTS = (*_OWN_PORTS, 15000, 15001, 15006, 15053)


def is_proxy(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Whether the owner that the rule names is the proxy: the one whose way to its own pod is sent inbound."""
    asked = {(name, value(rule, name)) for name in OWNERS if rule.option(name)}
    if ruleset is None:
        usual = {("--uid-owner", "1337"), ("--gid-owner", "1337")}
        return bool(asked & usual) or mark(rule) == PROXY
    if "nat" not in ruleset.tables or "ISTIO_OUTPUT" not in ruleset.chains("nat"):
        return False
    back = [item for item in ruleset.rules("nat", "ISTIO_OUTPUT") if item.target == "ISTIO_IN_REDIRECT"]
    return bool(asked & {(name, value(item, name)) for item in back for name in OWNERS if item.option(name)})


def is_other_owner(rule: Rule, ruleset: Ruleset | None) -> bool:
    """Whether the owner that the rule names is not the proxy."""
    return not is_proxy(rule, ruleset)


def from_(*addresses: str) -> Check:
    """A check that packets come from one of these."""
    return lambda rule, _: value(rule, "-s") in addresses


def to(*addresses: str) -> Check:
    """A check that what ``-d`` or ``! -d`` names is one of these."""
    return lambda rule, _: value(rule, "-d") in addresses


def names_port(number: int) -> Check:
    """A check that the port is among those of ``--dport`` or ``--dports``, negated or not."""
    return lambda rule, _: number in (*ports(rule, "--dport"), *ports(rule, "--dports"))


def on_lo(rule: Rule, _: Ruleset | None) -> bool:
    """Whether the rule is about loopback."""
    return "lo" in (value(rule, "-o"), value(rule, "-i"))


def own_port(rule: Rule, _: Ruleset | None) -> bool:
    """Whether the port is one at which the proxy itself is called."""
    return any(port in _OWN_PORTS for port in ports(rule, "--dport"))


def sent_to(number: int) -> Check:
    """A check that packets are handed to this port of Istio's, or to one that is none of Istio's."""

    def check(rule: Rule, _: Ruleset | None) -> bool:
        handed = [port for name in ("--to-ports", "--to-port", "--on-port") for port in ports(rule, name)]
        return len(handed) == 1 and (handed[0] == number or handed[0] not in _ALL_PORTS)

    return check


def marked(wanted: tuple[int, int]) -> Check:
    """A check of the (value, mask) that ``--mark`` compares."""
    return lambda rule, _: mark(rule) == wanted


def sets(wanted: tuple[int, int]) -> Check:
    """A check of the (value, mask) of ``--set-xmark``."""
    return lambda rule, _: mark(rule, "--set-xmark") == wanted


def target_has(*options: str) -> Check:
    """A check that the target has these options."""
    return lambda rule, _: {item.name for item in rule.target_options} >= set(options)


def with_tproxy(_: Rule, ruleset: Ruleset | None) -> bool:
    """Whether the ruleset has Istio's TPROXY chains."""
    return ruleset is not None and "mangle" in ruleset.tables and "ISTIO_TPROXY" in ruleset.chains("mangle")


def may_be_a_sidecar(_: Rule, ruleset: Ruleset | None) -> bool:
    """Whether the ruleset, if there is one, has the chain by which a sidecar's outbound traffic goes."""
    return ruleset is None or ("nat" in ruleset.tables and "ISTIO_REDIRECT" in ruleset.chains("nat"))
