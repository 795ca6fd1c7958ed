"""One plain sentence for a rule, or for a step of a walk: what is asked, what is done, what it is for.

Pure.  A Rule or a Step comes in, text comes out.  What a rule asks and does is true for its exact options, whoever
wrote it; what kube-proxy, the kubelet or Istio want with it follows after a dash, and only where its content is theirs.
"""

from bookinfo_lab.trace import Step

from . import istio_words, kube_words
from .match_words import phrases, subject
from .rule import Rule
from .ruleset import Ruleset
from .target_words import action


def rule(given: Rule, ruleset: Ruleset | None = None) -> str:
    """What ``given`` does, as one sentence.

    With the ``ruleset`` it stands in, targets are told from chains, and its purpose is claimed only where the rest of
    the rules bears it out.  Options that are not modelled are named as not explained.  A comment is not repeated.
    """
    purpose = kube_words.purpose(given, ruleset) or istio_words.purpose(given, ruleset)
    return f"{meaning(given, ruleset)}{f' — {purpose}' if purpose else ''}."


def step(given: Step, ruleset: Ruleset) -> str:
    """What happened at one step of a walk through ``ruleset``, as one sentence.

    A rule that matched has its own sentence, with the packet's changes; one that did not says why.
    """
    place = given.where.split()
    why = f": {given.why}" if given.why else ""
    if place[0] not in ruleset.tables or len(place) != 3:
        return _closed(f"{_elsewhere(place)}{why or _leads_to(given.verdict)}")
    table, chain, number = place
    if given.matched is False:
        numbers = f"Rules {number} of {table} {chain} do" if not number.isdigit() else f"Rule {number} of {chain} does"
        return _closed(f"{numbers} not match{why}")
    said = rule(ruleset.rule(given.where), ruleset).removesuffix(".")
    if given.matched is None:
        return _closed(f"It cannot be told whether this matches{why or ''}; the rule: {said}")
    before = dict(given.before)
    changes = [
        f"{name} {before.get(name, 'none')} → {value}" for name, value in given.after if before.get(name) != value
    ]
    return _closed(f"{said} ({', '.join(changes)})" if changes else said)


def meaning(given: Rule, ruleset: Ruleset | None = None) -> str:
    """A rule's sentence without its purpose and the full stop."""
    asked = phrases(given.matches)
    does = action(given, _is_chain(given, ruleset))
    if not asked:
        return f"{subject(given.matches)} {does}"
    if len(asked) == 1:
        return f"{subject(given.matches)} {asked[0]} {does}"
    return f"{subject(given.matches)} {', '.join(asked)}, {does}"


def _is_chain(given: Rule, ruleset: Ruleset | None) -> bool | None:
    if ruleset is None or given.table not in ruleset.tables:
        return None
    return given.target in ruleset.chains(given.table)


def _elsewhere(place: list[str]) -> str:
    if place[0] == "policy" and len(place) == 3:
        return f"No rule of {place[2]} ended it, and the chain's policy counts"
    if place[0] == "return" and len(place) == 3:
        return f"Chain {place[2]} has no more rules, and the packet goes back to the chain it came from"
    return " ".join(place).capitalize()


def _leads_to(verdict: str) -> str:
    return f": {verdict}" if verdict else ""


def _closed(text: str) -> str:
    return text if text.endswith(".") else f"{text}."
