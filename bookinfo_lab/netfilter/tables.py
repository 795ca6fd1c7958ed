"""Rules as values: table → chains → rules, in the order and form in which iptables-save prints them.

A rule is the text after ``-A CHAIN``.  Text in iptables-save form comes in and goes out; counters and remark
lines are left out both ways.  Nothing here knows what a rule means: a line that is not of the form is refused.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bookinfo_lab.errors import ParseError

# The order of iptables-nft-save: tables as here, base chains in hook order, then the others by name.
BASE_CHAINS = {
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
    "raw": ("PREROUTING", "OUTPUT"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
}
_CHAIN = re.compile(r":(\S+) (ACCEPT|DROP|-)(?: \[\d+:\d+\])?")
_RULE = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+) ?(.*)")


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain and its rules; ``policy`` is ACCEPT or DROP for a base chain, ``-`` for one that is jumped to."""

    name: str
    policy: str
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table with its chains, base chains first, the others by name."""

    name: str
    chains: tuple[Chain, ...]


def table(name: str, rules: Mapping[str, Iterable[str]]) -> Table:
    """The table ``name`` with all its base chains (policy ACCEPT) and the chains that ``rules`` names.

    ``rules`` maps a chain to its rules in order; a chain with none is declared and stays empty.
    """
    base = BASE_CHAINS[name]
    chains = [Chain(chain, "ACCEPT", tuple(rules.get(chain, ()))) for chain in base]
    chains += [Chain(chain, "-", tuple(rules[chain])) for chain in sorted(set(rules).difference(base))]
    return Table(name, tuple(chains))


def merge(*parts: Iterable[Table]) -> tuple[Table, ...]:
    """All tables of ``parts`` as one ruleset, in iptables-save's order.

    A chain that several parts write has the rules of the first, then those of the next that it lacks, and so on: what
    several programs ensure is there once.  A base chain's policy is that of the first part that has the table.
    """
    chains: dict[str, dict[str, list[str]]] = {}
    policies: dict[tuple[str, str], str] = {}
    for part in parts:
        for given in part:
            known = chains.setdefault(given.name, {})
            for chain in given.chains:
                policies.setdefault((given.name, chain.name), chain.policy)
                there = known.setdefault(chain.name, [])
                there += [rule for rule in chain.rules if rule not in there] if there else chain.rules
    return tuple(_with_policies(table(name, chains[name]), policies) for name in BASE_CHAINS if name in chains)


def _with_policies(given: Table, policies: Mapping[tuple[str, str], str]) -> Table:
    chains = (Chain(item.name, policies.get((given.name, item.name), "ACCEPT"), item.rules) for item in given.chains)
    return Table(given.name, tuple(chains))


def format_save(tables: Iterable[Table]) -> str:
    """``tables`` as iptables-save prints them, without remarks and with all counters at zero."""
    lines: list[str] = []
    for item in tables:
        lines.append(f"*{item.name}")
        lines += [f":{chain.name} {chain.policy} [0:0]" for chain in item.chains]
        lines += [f"-A {chain.name} {rule}".rstrip() for chain in item.chains for rule in chain.rules]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def parse_save(text: str, source: str = "iptables-save") -> tuple[Table, ...]:
    """The tables of ``text``, which iptables-save printed, with counters or without, in the text's own order.

    Raises `ParseError` with ``source`` and the line: one that is none of ``*table``, ``:chain``, ``-A``, ``COMMIT`` and
    ``#``, a rule for a chain that was not declared, a table that does not end.
    """
    tables: list[Table] = []
    name = ""
    rules: dict[str, list[str]] = {}
    policies: dict[str, str] = {}
    lines = text.splitlines()
    for position, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("*") and not name:
            name, rules, policies = line[1:].strip(), {}, {}
            if name not in BASE_CHAINS:
                raise ParseError(source, position, line, "not a table of iptables")
        elif name and line.strip() == "COMMIT":
            tables.append(Table(name, tuple(Chain(chain, policies[chain], tuple(rules[chain])) for chain in rules)))
            name = ""
        elif name and (match := _CHAIN.fullmatch(line.strip())):
            rules[match[1]], policies[match[1]] = [], match[2]
        elif name and (match := _RULE.fullmatch(line)):
            if match[1] not in rules:
                raise ParseError(source, position, line, "a rule for a chain that was not declared")
            rules[match[1]].append(match[2])
        else:
            raise ParseError(source, position, line, "not a line of iptables-save")
    if name:
        raise ParseError(source, len(lines), f"*{name}", "the table has no COMMIT: the text is cut off")
    return tuple(tables)


def in_transactions(text: str, limit: int = 100) -> tuple[str, str]:
    """``text`` as what iptables-nft-restore takes first, and what `iptables-nft-restore --noflush` takes after it.

    In a user namespace the kernel refuses a transaction larger than a socket's send buffer ("Message too long", at
    230 rules of one table with the usual 208 KiB), so a table of more than ``limit`` chains and rules is split: the
    first text empties it and declares chains, the second adds the rest, ``limit`` lines a COMMIT.  The second text is
    empty where nothing needs it.  A split table is not replaced in one step: packets can meet it half loaded.
    """
    first: list[Table] = []
    rest: list[str] = []
    for item in parse_save(text):
        others = [chain for chain in item.chains if chain.policy == "-"]
        if len(others) + sum(len(chain.rules) for chain in item.chains) <= limit:
            first.append(item)
            continue
        now = {chain.name for chain in others[:limit]}
        kept = (chain for chain in item.chains if chain.policy != "-" or chain.name in now)
        first.append(Table(item.name, tuple(Chain(chain.name, chain.policy, ()) for chain in kept)))
        lines = [f":{chain.name} - [0:0]" for chain in others[limit:]]
        lines += [f"-A {chain.name} {rule}".rstrip() for chain in item.chains for rule in chain.rules]
        for start in range(0, len(lines), limit):
            rest += [f"*{item.name}", *lines[start : start + limit], "COMMIT"]
    return format_save(first), "".join(f"{line}\n" for line in rest)
