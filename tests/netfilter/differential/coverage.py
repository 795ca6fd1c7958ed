"""What a run must have met: each match option, plain and negated, and each target, that the walk models, both ways.

The list is the walk's own tables, so that what is modelled later is asked for too.  What the kernel or the room cannot
show stands in `CANNOT` with the reason; nothing else may be missing.
"""

from differential.tally import Key, Tally

from bookinfo_lab.netfilter import matching, targets, vocabulary

LEAST = 20
CANNOT: dict[Key, str] = {
    ("match", "udplite"): "iptables 1.8.9 has no such match, and Linux no such protocol since 6.18",
    ("match", "dccp"): "Linux has had no DCCP since 6.16: nothing tracks or sends it",
    ("match", "set"): "needs an ipset, which the room does not make",
    ("match", "conntrack", "--ctdir", "!"): "iptables takes no negation here",
    ("match", "comment", "--comment", "!"): "iptables takes no negation here",
    ("match", "nfacct", "--nfacct-name", "!"): "iptables takes no negation here",
    ("target", "SET"): "needs an ipset, which the room does not make",
    ("target", "NFQUEUE"): "hands the packet to a program; the walk's answer is that it cannot be told",
    ("target", "QUEUE"): "hands the packet to a program; iptables-nft refuses it",
    ("target", "ULOG"): "gone from Linux since 3.17",
    ("target", "AUDIT"): "the kernel's audit log belongs to the whole machine",
    ("target", "RATEEST"): "iptables-nft cannot make its estimator",
    ("target", "CT", "--helper"): "helpers are modules that need not be there; the walk keeps them unmodelled",
    ("target", "CT", "--timeout"): "needs a timeout policy made by nfct",
    ("target", "CT", "--ctevents"): "changes what is told of the connection only",
    ("target", "CT", "--expevents"): "changes what is told of the connection only",
    ("target", "HL", "--hl-dec"): "as --hl-set",
    ("target", "HL", "--hl-inc"): "as --hl-set",
    ("target", "TTL", "--ttl-dec"): "as --ttl-set",
    ("target", "TTL", "--ttl-inc"): "as --ttl-set",
    ("target", "DSCP", "--set-dscp-class"): "iptables prints it as --set-dscp",
    ("target", "TCPMSS", "--set-mss"): "as --clamp-mss-to-pmtu",
    ("target", "TOS", "--and-tos"): "iptables prints it as --set-tos",
    ("target", "TOS", "--or-tos"): "iptables prints it as --set-tos",
    ("target", "TOS", "--xor-tos"): "iptables prints it as --set-tos",
    **{
        ("target", "LOG", option): "changes what is logged only"
        for option in ("--log-tcp-sequence", "--log-tcp-options", "--log-ip-options", "--log-macdecode")
    },
    **{
        ("target", "NFLOG", option): "changes what is logged only"
        for option in ("--nflog-range", "--nflog-size", "--nflog-threshold")
    },
}
_PHYSDEV = tuple(f"--physdev-{name}" for name in ("in", "out", "is-in", "is-out", "is-bridged"))
# Where one side alone can come: whether it is that the condition holds (True) or fails, and why.
ONE_SIDED: dict[Key, tuple[bool, str]] = {
    ("match", "", "-f", ""): (False, "the room sends no fragments, and tracking would put them together"),
    ("match", "", "-f", "!"): (True, "the room sends no fragments, and tracking would put them together"),
    ("match", "comment", "--comment", ""): (True, "it always holds"),
    ("match", "nfacct", "--nfacct-name", ""): (True, "it always holds"),
    ("match", "recent", "--set", ""): (True, "it always holds"),
    ("match", "recent", "--set", "!"): (False, "it never holds"),
    **{("match", "physdev", name, ""): (False, "the room has no bridge") for name in _PHYSDEV},
    **{("match", "physdev", name, "!"): (True, "the room has no bridge") for name in _PHYSDEV},
    ("target", "no target"): (True, "nothing is or is not done"),
}
_OF_WHOLE = {
    "comment": ("--comment",),
    "nfacct": ("--nfacct-name",),
    "statistic": ("--probability", "--every"),
    "recent": ("--set", "--rcheck", "--update", "--remove"),
    "set": ("--match-set",),
}
WALK_OWN = ("ACCEPT", "DROP", "RETURN", "jump", "goto", "no target")


def required() -> tuple[Key, ...]:
    """Keys of a `Tally`, of everything that the walk models and the kernel can show."""
    assert set(_OF_WHOLE) == set(matching._WHOLE), "a match that is modelled as a whole is not listed here"
    options = [*matching._MAKERS, *((module, name) for module, names in _OF_WHOLE.items() for name in names)]
    keys: list[Key] = [("match", module, name, sign) for module, name in options for sign in ("", "!")]
    every = (targets.WITHOUT_EFFECT - {""}) | set(targets._TRANSLATE) | set(targets._OTHERS)
    for target in (*WALK_OWN, *sorted(every)):
        keys.append(("target", target))
        keys += [("target", target, option) for option in vocabulary.TARGETS.get(target, ())]
    return tuple(key for key in keys if not cannot(key))


def cannot(key: Key) -> str:
    """Why a key cannot be met, "" if it can."""
    found = (CANNOT[key[:length]] for length in (2, 3, 4) if key[:length] in CANNOT)
    return next(found, "")


def lacking(tally: Tally, least: int = LEAST) -> list[str]:
    """What was met fewer than ``least`` times one way or the other, as lines; empty where nothing was."""
    found = []
    for key in required():
        both = (tally.yes[key], tally.no[key])
        if key in ONE_SIDED:
            side = both[0] if ONE_SIDED[key][0] else both[1]
            both = (side, side)
        if min(both) < least:
            held = ("reached", "not reached") if key[0] == "target" else ("held", "failed")
            found.append(f"{' '.join(part for part in key if part)}: {held[0]} {both[0]}, {held[1]} {both[1]} times")
    return found
