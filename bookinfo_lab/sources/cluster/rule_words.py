"""The words in rules that people choose: comments, what is logged, chains that are named for a namespace.

Pure.  kube-proxy's, the kubelet's and Istio's own comments are fixed words, or names of what is recorded: they stay.
Of everybody else's each word is overwritten at equal length, and a chain of Calico's that names another namespace gets
another name, the same in rules, listings and traces.
"""

import hashlib
import re

from bookinfo_lab.netfilter.tables import BASE_CHAINS
from bookinfo_lab.sources.cluster.rule_remarks import COMMENT
from bookinfo_lab.sources.cluster.scope import Scope

RULE = re.compile(r"(?:\[\d+:\d+\] )?-A (\S+) ")
OF_SERVICE = re.compile(r"KUBE-(?:SVC|EXT|SVL|FW|XLB|SEP)-[A-Z0-9]{16}\Z")
_JUMP = re.compile(r" -[jg] (\S+)")
# Not all that begin with KUBE-: kube-router and CRI-O have chains of such names, and pods' names in their comments.
_SHARED = frozenset(
    f"KUBE-{name}"
    for name in (
        *("SERVICES", "NODEPORTS", "MARK-MASQ", "MARK-DROP", "POSTROUTING", "EXTERNAL-SERVICES", "PROXY-FIREWALL"),
        *("FORWARD", "FIREWALL", "PROXY-CANARY", "KUBELET-CANARY", "IPTABLES-HINT"),
    )
)
_BASE = frozenset(name for chains in BASE_CHAINS.values() for name in chains)
_NAME = re.compile(r"(?:^|[ \"])([a-z0-9][-a-z0-9]*/[a-z0-9][-a-z0-9]*)(?::[-a-z0-9]*)?(?=[ \"]|$)")
_PREFIX = re.compile(r'(--(?:log|nflog|ulog)-prefix )("(?:[^"\\]|\\.)*"|\S+)')
_LISTED = re.compile(r'(\b(?:comment|prefix) )("(?:[^"\\]|\\.)*")')
_CALICO = re.compile(r"(?P<head>\bcali-pr[io]-)(?P<kind>kns|ksa)\.(?P<name>[a-z0-9][a-z0-9.-]*)")
_DIGITS = 12  # "cali-pri-kns." and these are no longer than the kernel lets a chain's name be


def jump(line: str) -> str:
    """The chain or target of a rule, "" where it has none."""
    found = _JUMP.search(COMMENT.sub("", line))
    return found[1] if found else ""


def is_frame(chain: str, line: str) -> bool:
    """Whether a rule is kube-proxy's, the kubelet's or Istio's: by its chain, in a base chain by where it jumps."""
    return _is_frame(chain) or (chain in _BASE and _is_frame(jump(line)))


def _is_frame(chain: str) -> bool:
    return chain in _SHARED or chain.startswith("ISTIO_") or OF_SERVICE.match(chain) is not None


def names_another(line: str, scope: Scope) -> bool:
    """Whether the comment of a rule names a Service that is not recorded."""
    comment = COMMENT.search(line)
    return comment is not None and any(name not in scope.services for name in _NAME.findall(comment[2]))


def names_one(line: str, scope: Scope) -> bool:
    """Whether the comment of a rule names a recorded Service."""
    comment = COMMENT.search(line)
    return comment is not None and any(name in scope.services for name in _NAME.findall(comment[2]))


def anonymous(line: str, scope: Scope) -> str:
    """A line of iptables-save without words that may name anything."""
    found = RULE.match(line)
    if found is not None and (not is_frame(found[1], line) or names_another(line, scope)):
        line = COMMENT.sub(_overwritten, line)
    return renamed(_PREFIX.sub(_overwritten, line), scope)


def listed(line: str, scope: Scope) -> str:
    """A line of what nft lists without them."""
    return renamed(_LISTED.sub(_overwritten, line), scope)


def renamed(line: str, scope: Scope) -> str:
    """The line with other names for chains of other namespaces."""
    return _CALICO.sub(lambda found: _renamed(found, scope), line) if "cali-" in line else line


def _renamed(found: re.Match[str], scope: Scope) -> str:
    name = found["name"]
    if (name.partition(".")[0] if found["kind"] == "ksa" else name) in scope.namespaces:
        return found[0]
    digest = hashlib.blake2b(name.encode(), key=scope.salt, digest_size=_DIGITS // 2).hexdigest()
    return f"{found['head']}{found['kind']}.{digest}"


def _overwritten(found: re.Match[str]) -> str:
    return found[1] + re.sub(r'\\.|[^"\s]', lambda word: "x" * len(word[0]), found[2])
