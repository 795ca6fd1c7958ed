"""What ``nft list ruleset`` printed on a node, cut down like what iptables-save printed of the same tables.

Pure.  iptables-nft's tables hold the same rules in the same order, so the same places stay; of every other table only
the chains on a hook do, and that they had rules: whoever looks which tables decide learns it as on the node.
"""

from collections.abc import Iterator, Mapping, Sequence

from bookinfo_lab.sources.cluster import rule_words
from bookinfo_lab.sources.cluster.rules_slice import Plan
from bookinfo_lab.sources.cluster.scope import Scope

_LEFT_OUT = "\t\tleft out of the recording"
_HANDLE = "# handle "
_HEADS = ("type", "comment", "policy")


def sliced(text: str, plans: Mapping[str, Plan], scope: Scope) -> str:
    """The text with each chain of these families (ip, ip6) as its plan has it, without words that may name anything."""
    is_numbered = f"{_HANDLE}1" in text
    remark = f"{_LEFT_OUT} {_HANDLE}0\n" if is_numbered else f"{_LEFT_OUT}\n"
    return "".join(rule_words.listed(line, scope) for line in _tables(text, plans, remark))


def _tables(text: str, plans: Mapping[str, Plan], remark: str) -> Iterator[str]:
    plan: Plan = {}
    table = ""
    chain: list[str] | None = None
    for line in text.splitlines(keepends=True):
        words = line.split()
        if words[:1] == ["table"] and not line.startswith("\t"):
            table, plan = words[2], plans.get(words[1], {})
            is_ours = any(name == table for name, _ in plan)
            plan = plan if is_ours else {}
            yield line
        elif line.startswith(("}", "#")):
            yield line
        elif words[:1] == ["chain"] and chain is None:
            chain = [line]
        elif chain is not None:
            chain.append(line)
            if line.rstrip("\n") == "\t}":
                yield from _chain(chain, plan.get((table, chain[0].split()[1])), remark)
                chain = None


def _chain(lines: Sequence[str], places: Sequence[int | str] | None, remark: str) -> Iterator[str]:
    """A chain with the places of its plan; without one its head alone, where it is on a hook."""
    heads = [line for line in lines[1:-1] if line.split()[:1] and line.split()[0] in _HEADS]
    rules = [line for line in lines[1:-1] if line not in heads and line.strip()]
    if places is not None:
        kept = [rules[item] if isinstance(item, int) and item < len(rules) else remark for item in places]
        yield from [lines[0], *heads, *kept, lines[-1]]
    elif heads:
        yield from [lines[0], *heads, *([remark] if rules else []), lines[-1]]
