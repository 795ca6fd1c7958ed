"""What kube-proxy writes in the comments of its rules: a Service port's name, and what the rule is for.

Pure.  Rules come in, names come out; "" where no comment says it.  Comments are for people: nothing that a packet meets
depends on them, and large clusters leave most of them out.
"""

import re
from collections.abc import Iterable
from typing import Literal

from .rule import Rule

_NAME = re.compile(r"(?:^| )([a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9]*)(?::([-a-z0-9]*))?(?= |$)")
_KINDS: dict[str, Literal["cluster-ip", "external-ip", "load-balancer"]] = {
    " cluster IP": "cluster-ip",
    " external IP": "external-ip",
    " loadbalancer IP": "load-balancer",
}


def name_in(rules: Iterable[Rule]) -> tuple[str, str]:
    """``namespace/name`` and the port's name, of the first comment that has them; both "" where none does."""
    for rule in rules:
        if found := _NAME.search(rule.comment):
            return found[1], found[2] or ""
    return "", ""


def kind_in(rule: Rule) -> Literal["", "cluster-ip", "external-ip", "load-balancer"]:
    """The kind of entry that a rule's comment ends with."""
    return next((kind for words, kind in _KINDS.items() if rule.comment.endswith(words)), "")


def without_name(comment: str) -> str:
    """``comment`` without the Service port's name that it starts with: ``has no endpoints``."""
    found = _NAME.match(comment)
    return comment[found.end() :].strip() if found else comment
