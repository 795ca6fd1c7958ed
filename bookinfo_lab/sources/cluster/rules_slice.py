"""What iptables-save printed on a node, cut down to the rules that the recorded Services reach.

Pure.  kube-proxy's own framework stays, and every chain that is no Service's; rules and chains of other Services go,
with their names and addresses, and rules that name the API server.  Where some went `rule_remarks` says so: a walk that
would have met them ends there as unknown, and is never told that there was no rule.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bookinfo_lab.sources.cluster import rule_remarks, rule_words, text_slice
from bookinfo_lab.sources.cluster.rule_remarks import Match, Taken
from bookinfo_lab.sources.cluster.scope import Scope

_CHAIN = re.compile(r":(\S+) ")
_ENDPOINT, _FIREWALL = "KUBE-SEP-", "KUBE-FW-"
_REFUSING = ("KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL")  # kube-proxy's chains
_LAST = "KUBE-NODEPORTS"  # what kube-proxy's last rule jumps to

Plan = Mapping[tuple[str, str], Sequence["int | str"]]
"""What a chain (of a table) holds now: the places, from 0, of rules that it held, and rules that say what went."""


@dataclass(slots=True)
class _Table:
    """The lines of one table: what stands before its rules, and the rules by chain, in the text's order."""

    name: str
    head: list[str]
    rules: dict[str, list[str]] = field(default_factory=dict)


def sliced(text: str, scope: Scope) -> tuple[str, int]:
    """The text without rules of Services outside ``scope``, and how many rules went."""
    made, plan = planned(text, scope)
    held = sum(len(chain) for table in _tables(text) for chain in table.rules.values())
    return made, held - sum(isinstance(item, int) for places in plan.values() for item in places)


def planned(text: str, scope: Scope) -> tuple[str, Plan]:
    """The text without them, and for each chain that stays what it holds now."""
    made: list[str] = []
    plan: dict[tuple[str, str], Sequence[int | str]] = {}
    every = _tables(text)
    tables, taken = iter(every), rule_remarks.taken(_refusals(every, scope), scope)
    table: _Table | None = None
    for line in text.splitlines(keepends=True):
        if line.startswith("*"):
            table = next(tables)
        elif table is not None and line.strip() == "COMMIT":
            chains = _chains(table, scope)
            cut = _cut(table, chains, scope, taken)
            plan |= {(table.name, chain): places for chain, places in cut.items()}
            made += [rule_words.renamed(item, scope) for item in table.head if not _declares_foreign(item, chains)]
            made += [_line(table, chain, item, scope) for chain, places in cut.items() for item in places]
            made.append(line)
            table = None
        elif table is None:
            made.append(line)
    return "".join(made), plan


def _tables(text: str) -> list[_Table]:
    tables: list[_Table] = []
    is_inside = False
    for line in text.splitlines(keepends=True):
        if line.startswith("*"):
            tables.append(_Table(line[1:].strip(), [line]))
            is_inside = True
        elif line.strip() == "COMMIT":
            is_inside = False
        elif is_inside:
            found = rule_words.RULE.match(line)
            if found:
                tables[-1].rules.setdefault(found[1], []).append(line)
            else:
                tables[-1].head.append(line)
    return tables


def _line(table: _Table, chain: str, item: int | str, scope: Scope) -> str:
    if isinstance(item, str):
        return rule_words.renamed(item, scope)
    return rule_words.anonymous(table.rules[chain][item], scope)


def _cut(table: _Table, chains: set[str], scope: Scope, taken: Taken) -> dict[str, Sequence[int | str]]:
    """What each chain that stays holds now."""
    found: dict[str, Sequence[int | str]] = {}
    for chain, lines in table.rules.items():
        if _is_foreign_chain(chain, chains):
            continue
        gone = {
            place: rule_remarks.match(line)
            for place, line in enumerate(lines)
            if _is_foreign(chain, line, chains, scope)
        }
        found[chain] = list(_places(chain, lines, gone, taken)) if gone else range(len(lines))
    return found


def _places(chain: str, lines: Sequence[str], gone: Mapping[int, Match], taken: Taken) -> Iterator[int | str]:
    """The places that stay, a remark before each that a rule which went might have kept a packet from, and after all.

    kube-proxy's last rule stays the last.
    """
    kept = [place for place in range(len(lines)) if place not in gone]
    last = [place for place in kept[-1:] if rule_words.jump(lines[place]) == _LAST]
    matches = {place: rule_remarks.match(lines[place]) for place in kept if place not in last}
    exact: dict[Match, int] = {item: place for place, item in matches.items() if item.is_exact}
    loose = {place: item for place, item in matches.items() if not item.is_exact}
    said: set[str] = set()
    for place in range(len(lines)):
        if place in gone:
            item = gone[place]
            behind = [other for at, other in (loose if item.is_exact else matches).items() if at > place]
            if item.is_exact and exact.get(item, -1) > place:
                behind.append(item)
            fresh = [line for line in rule_remarks.in_place(chain, item, behind, taken) if line not in said]
            said.update(fresh)
            yield from fresh
        elif place not in last:
            yield place
    yield from rule_remarks.remarks(chain, list(gone.values()), taken)
    yield from last


def _chains(table: _Table, scope: Scope) -> set[str]:
    """The Services' chains that stay: those of recorded ones, and the endpoints that these jump to."""
    chains = set(scope.chains)
    for chain in scope.chains & table.rules.keys():
        chains |= {to for line in table.rules[chain] if (to := rule_words.jump(line)).startswith(_ENDPOINT)}
    return chains


def _is_foreign_chain(chain: str, chains: set[str]) -> bool:
    return rule_words.OF_SERVICE.match(chain) is not None and chain not in chains


def _is_foreign(chain: str, line: str, chains: set[str], scope: Scope) -> bool:
    """Whether a rule is about another Service, by the chain it jumps to or the name in its comment, or the API server.

    The API server's address could only be overwritten, and a rule with no address would be none.
    """
    if _is_foreign_chain(rule_words.jump(line), chains) or text_slice.names_api(line, scope):
        return True
    if chain in chains:
        return False
    return rule_words.is_frame(chain, line) and rule_words.names_another(line, scope)


def _declares_foreign(line: str, chains: set[str]) -> bool:
    found = _CHAIN.match(line)
    return found is not None and _is_foreign_chain(found[1], chains)


def _refusals(tables: Sequence[_Table], scope: Scope) -> Iterator[str]:
    """Rules by which kube-proxy refuses recorded Services, in table filter or by what returns to the chain in nat."""
    for table in tables:
        for chain in _REFUSING:
            for line in table.rules.get(chain, ()):
                to = rule_words.jump(line)
                is_refused = to in ("REJECT", "DROP") if table.name == "filter" else to.startswith(_FIREWALL)
                if is_refused and rule_words.names_one(line, scope):
                    yield line
