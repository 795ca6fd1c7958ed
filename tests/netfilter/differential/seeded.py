"""The seeded bugs themselves: one small change of the package's source each.

Pure.  They stand where the source is wrong most easily: the order of hooks, chains, tracking and NAT, marks,
conditions, routing, chance.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bug:
    """In ``module`` of `bookinfo_lab.netfilter` the text ``old``, which stands there once, becomes ``new``."""

    name: str
    module: str
    old: str
    new: str


_BACK = "def _back(self, state: State) -> State | None:\n        if len(state.stack) == 1:\n            return "
BUGS = (
    # Hooks and their order
    Bug(
        "PREROUTING asks nat before mangle",
        "hooks",
        '"mangle PREROUTING", "nat PREROUTING"',
        '"nat PREROUTING", "mangle PREROUTING"',
    ),
    Bug(
        "FORWARD is INPUT",
        "hooks",
        'FORWARDS = ("mangle FORWARD", "filter FORWARD"',
        'FORWARDS = ("mangle INPUT", "filter INPUT"',
    ),
    Bug("security is not asked on FORWARD", "hooks", '"filter FORWARD", "security FORWARD"', '"filter FORWARD"'),
    Bug(
        "POSTROUTING asks nat before mangle",
        "hooks",
        '"mangle POSTROUTING", "nat POSTROUTING"',
        '"nat POSTROUTING", "mangle POSTROUTING"',
    ),
    Bug("raw is not asked again after lo", "hooks", 'COMES_AGAIN = ("raw PREROUTING", ', "COMES_AGAIN = ("),
    Bug(
        "tracking comes before raw",
        "hooks",
        'ARRIVES = ("raw PREROUTING", "conntrack"',
        'ARRIVES = ("conntrack", "raw PREROUTING"',
    ),
    # Chains
    Bug("goto is a jump", "walk", "if not rule.is_goto:", "if True:"),
    Bug(
        "RETURN from a base chain accepts",
        "walk",
        f"{_BACK}self._policy(state)",
        f"{_BACK}_next(state)",
    ),
    Bug("a policy is ignored", "walk", 'if policy == "ACCEPT":', "if policy:"),
    Bug(
        "a rule is skipped after a jump",
        "walk",
        "below = (*below, (table, chain, position + 1, candidates))",
        "below = (*below, (table, chain, min(position + 2, len(candidates)), candidates))",
    ),
    Bug("an index loses rules without a port", "sieve", "*self._others]", "]"),
    Bug("an index takes a negated port for a port", "sieve", "(?<!! )--dport", "--dport"),
    # Connection tracking and NAT
    Bug(
        "nat is asked about known connections",
        "walk",
        'if state.ct not in ("new", "related"):',
        'if state.ct not in ("new", "related", "established"):',
    ),
    Bug("an established packet is not translated", "walk", "self._translate(state, stage)", "pass"),
    Bug("NOTRACK is forgotten", "walk", 'if state.ct != "untracked":', "if True:"),
    Bug("raw knows the connection", "state", 'else "invalid"  # in raw', "else packet.ct_state  # in raw"),
    Bug(
        "no route is looked up after DNAT",
        "deciding",
        "_reroute(state, state.dnat is not None and state.dnat[0] != state.origin[2])",
        "_reroute(state, False)",
    ),
    Bug(
        "DNAT loses its port",
        "targets",
        '_port(state.dport, wanted.ports, wanted.base), "dnat")',
        'state.dport, "dnat")',
    ),
    Bug(
        "SNAT loses its port",
        "targets",
        'return _to_source(state, new, _source_port(rule, state, wanted.ports), "snat", str(new))',
        'return _to_source(state, new, state.sport, "snat", str(new))',
    ),
    Bug("MASQUERADE takes any address", "routing", "found = fitting or own or all_global", "found = all_global"),
    Bug(
        "REDIRECT of a local packet misses lo",
        "targets",
        '"127.0.0.1" if state.version == 4',
        '"127.0.0.2" if state.version == 4',
    ),
    Bug("NETMAP keeps the wrong half", "targets", "int(network.hostmask)) |", "int(network.netmask)) |"),
    # Marks
    Bug("MARK ors", "targets", "return ((mark & ~mask) ^ value)", "return ((mark & ~mask) | value)"),
    Bug("MARK loses its mask", "targets", "return ((mark & ~mask) ^ value)", "return (mark ^ value)"),
    Bug("CONNMARK does not save", "targets", "state.ctmark = xor(state.ctmark, state.mark & nfmask, ctmask)", "pass"),
    Bug(
        "CONNMARK restores through the wrong masks",
        "targets",
        "xor(state.mark, state.ctmark & ctmask, nfmask)",
        "xor(state.mark, state.ctmark & nfmask, ctmask)",
    ),
    Bug(
        "TPROXY does not mark",
        "targets",
        "state.mark = xor(state.mark, mark.values[0].value, mark.values[0].mask)",
        "pass",
    ),
    Bug(
        "a mark does not change the route",
        "deciding",
        "state.is_remade or state.mark != state.routed_mark",
        "state.is_remade",
    ),
    # Other targets
    Bug(
        "REJECT answers something else",
        "targets",
        'default = "icmp-port-unreachable"',
        'default = "icmp-host-unreachable"',
    ),
    # Conditions
    Bug(
        "negation is lost",
        "matching",
        "return replace(found, negated=not found.negated)\n        return not found",
        "return replace(found, negated=not found.negated)\n        return found",
    ),
    Bug(
        "a port range ends too early",
        "values",
        "return self.first <= port <= self.last",
        "return self.first <= port < self.last or port == self.first",
    ),
    Bug(
        "a uid range begins too late",
        "values",
        "return self.first <= number <= self.last",
        "return self.first < number <= self.last or number == self.last",
    ),
    Bug(
        "eth+ is eth",
        "matching",
        "name == wanted if prefix is None else name.startswith(prefix)",
        "name == wanted if prefix is None else name == prefix",
    ),
    Bug(
        "--mark ignores its mask",
        "matching",
        "lambda state: state.mark & wanted.mask == wanted.value",
        "lambda state: state.mark == wanted.value",
    ),
    Bug(
        "connmark looks at the packet's mark",
        "matching",
        "lambda state: state.ctmark & wanted.mask == wanted.value",
        "lambda state: state.mark & wanted.mask == wanted.value",
    ),
    Bug(
        "--ctorigdst is the destination now",
        "matching",
        "found = state.origin[index]\n",
        "found = (state.src, state.sport, state.dst, state.dport)[index]\n",
    ),
    Bug("--ctstate DNAT is not known", "matching", '{"DNAT"} if state.dnat is not None else set()', "set()"),
    Bug(
        "--gid-owner looks at the uid", "matching", "number = state.uid if is_user else state.gid", "number = state.uid"
    ),
    Bug("--ports looks at one end", "matching", "if one is True or other is True:", "if other is True:"),
    Bug("an address range ends too early", "matching", "low <= number <= high", "low <= number < high"),
    Bug(
        "an ICMP code is ignored",
        "matching",
        "state.icmp_type == wanted.number and wanted.code in (None, state.icmp_code)",
        "state.icmp_type == wanted.number",
    ),
    Bug(
        "--tcp-flags takes more flags than asked",
        "matching",
        "return looked & carried == expected\n",
        "return expected <= looked & carried\n",
    ),
    # Routing
    Bug("nothing comes in again by lo", "deciding", 'if state.out == "lo" and not state.is_second_pass:', "if False:"),
    Bug(
        "a martian destination is let in",
        "deciding",
        'for address, name in ((source, "source"), (destination, "destination")):',
        'for address, name in ((source, "source"),):',
    ),
    Bug("ip_forward is ignored", "deciding", "if forwarding == 0:", "if False:"),
    Bug(
        "the shortest prefix wins",
        "routing",
        "(-route.network.prefixlen, route.metric)",
        "(route.network.prefixlen, route.metric)",
    ),
    Bug(
        "a routing rule's mark has no mask",
        "routing",
        "mark & rule.mark.mask == rule.mark.value",
        "mark == rule.mark.value",
    ),
    # Chance
    Bug(
        "both branches have one chance",
        "walk",
        "other.probability *= 1 - asked.probability",
        "other.probability *= asked.probability",
    ),
    Bug(
        "a chance is upside down",
        "matching",
        "opened = Open(written, chance, probability.negated)",
        "opened = Open(written, 1 - chance, probability.negated)",
    ),
)
