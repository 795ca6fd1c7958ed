"""The record of a proof cut down like the rules that it proved: so both still name the same rules by the same numbers.

Pure.  An `attempt` document comes in and goes out.
"""

from collections.abc import Iterator
from dataclasses import replace

from bookinfo_lab.netfilter import attempt
from bookinfo_lab.sources.cluster import nft_slice, rule_words, rules_slice
from bookinfo_lab.sources.cluster.scope import Scope


def sliced(raw: bytes, scope: Scope) -> tuple[bytes, int]:
    """The record without rules of Services outside ``scope``, and how many went."""
    made = attempt.read(raw)
    rules, plan = rules_slice.planned(made.rules, scope)
    _, count = rules_slice.sliced(made.rules, scope)
    family = "ip6" if "ip6tables" in made.rules.partition("\n")[0] else "ip"
    trace = "".join(_own(made.trace, scope))
    handles = nft_slice.sliced(made.handles, {family: plan}, scope)
    return attempt.write(replace(made, rules=rules, handles=handles, trace=trace)), count


def _own(trace: str, scope: Scope) -> Iterator[str]:
    """The trace without packets of others, which somebody else may trace just then, and without changes of rules."""
    foreign: set[str] = set()
    for line in trace.splitlines(keepends=True):
        words = line.split()
        if line.startswith("PACKET:") and len(words) > 2:
            pairs = dict(word.split("=", 1) for word in words if "=" in word)
            if not scope.admits((pairs.get("SRC", ""), 0), (pairs.get("DST", ""), 0)):
                foreign.add(words[2])
        is_foreign = len(words) > 2 and words[0] in ("PACKET:", "TRACE:") and words[2] in foreign
        if not is_foreign and not line.startswith(("NEWGEN:", " EVENT:")):
            yield _anonymous(line, scope)


def _anonymous(line: str, scope: Scope) -> str:
    """A line of the trace, which repeats the rule, as the cut rules have it."""
    head, repeated, rule = line.partition(" -A ")
    words = f" {rule_words.anonymous(f'-A {rule}', scope)}" if repeated else ""
    return rule_words.renamed(head, scope) + words
