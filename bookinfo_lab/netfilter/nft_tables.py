"""Which nftables tables decide about packets beside those that iptables-save shows.

Pure.  What ``nft list ruleset`` printed comes in; names such as ``ip kube-proxy`` go out.  iptables-nft keeps its rules
in tables of its own names; a table of another name hooks in beside them, and no iptables tool prints it.
"""

_OURS = frozenset((family, name) for family in ("ip", "ip6") for name in ("raw", "mangle", "nat", "filter", "security"))
_FAMILIES = ("ip", "ip6", "inet")
_LEGACY = "legacy iptables tables"
_WARNING = "-legacy tables present"  # iptables-nft-save's, on stderr, by /proc/net/ip_tables_names
_TRACING = "bookinfo-lab-trace"  # a proof's own, which decides nothing and is there for a moment


def beside(program: str, listing: str, legacy: str | None, said: str = "") -> tuple[tuple[str, ...], str]:
    """What decides beside the rules that ``program`` (iptables-nft-save and so on) prints, and what could not be read.

    ``listing`` is what ``nft list ruleset`` printed, ``legacy`` what the legacy tools' save did, None where there is
    no such tool.  ``said`` is what the program itself printed: it warns of legacy tables that the kernel has.
    """
    version = 6 if program.startswith("ip6") else 4
    if "-legacy-" in program:
        return deciding(listing, version, frozenset()), ""
    found = deciding(listing, version)
    if legacy is None:
        return ((*found, f"{_LEGACY} (no tool here can show them)"), "") if _WARNING in said else (found, _LEGACY)
    has_rules = any(line.startswith("-A ") or (line[:1] == ":" and " DROP" in line) for line in legacy.split("\n"))
    return (*found, *([f"the {_LEGACY}"] if has_rules else [])), ""


def deciding(listing: str, version: int, shown: frozenset[tuple[str, str]] = _OURS) -> tuple[str, ...]:
    """The tables but those ``shown`` with a rule, or a policy that drops, on a hook for packets of this IP version."""
    found: dict[str, None] = {}
    table, is_hooked = "", False
    for line in listing.split("\n"):
        words = line.split()
        if not line.startswith(("\t", " ")) and words[:1] == ["table"] and len(words) > 2:
            family, name = words[1], words[2]
            is_other = family in _FAMILIES and (family, name) not in shown and name != _TRACING
            is_this = family == "inet" or family == {4: "ip", 6: "ip6"}[version]
            table, is_hooked = (f"{family} {name}" if is_other and is_this else ""), False
        elif words[:1] == ["chain"] or words == ["}"]:
            is_hooked = False
        elif words[:1] == ["type"] and "hook" in words:
            is_hooked = True
            if table and words[-2:] == ["policy", "drop;"]:
                found[table] = None
        elif table and is_hooked and words and not words[0].startswith("#"):
            found[table] = None
    return tuple(found)
