"""Any text without names of the API server and of other namespaces, and without certificates: all at equal length.

Pure.  The API server is named by its sockets, its host name, and its address alone where that is no node's and nothing
recorded has it.  An address alone stays in what is read as a structure and would not be one without it (rules, routes):
`names_api` tells which rules must go as a whole.
"""

import functools
import re
from collections import Counter

from bookinfo_lab.sources.cluster.scope import Scope, is_address

_CERTIFICATE = re.compile(
    r"-----BEGIN [A-Z ]*CERTIFICATE-----[^-]*(?:-----END [A-Z ]*CERTIFICATE-----)?"
    r"|LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS[\w+/=-]*"  # the same in base64
)


def masked(text: str, scope: Scope, *, keeps_addresses: bool = False) -> tuple[str, Counter[str]]:
    """The text without them, and how many of each there were."""
    gone: Counter[str] = Counter()
    pattern = _sockets(scope) if keeps_addresses else _every(scope)
    text, gone["names of the API server"] = pattern.subn(_overwritten, text)
    text, gone["certificates"] = _CERTIFICATE.subn(_overwritten, text)
    text, gone["names of other namespaces, overwritten"] = scope.masked(text)
    return text, +gone


def names_api(rule: str, scope: Scope) -> bool:
    """Whether a rule has the API server's address, alone or with its port."""
    return _in_rules(scope).search(rule) is not None


def _overwritten(found: re.Match[str]) -> str:
    return "x" * len(found[0])


@functools.lru_cache(maxsize=4)
def _sockets(scope: Scope) -> re.Pattern[str]:
    return _any_of(_named(scope))


@functools.lru_cache(maxsize=4)
def _every(scope: Scope) -> re.Pattern[str]:
    # An address with the length of a prefix is a network, and has to stay one where it is read as such.
    return _any_of([*_named(scope), *(rf"{word}(?!/\d)" for word in _alone(scope))])


@functools.lru_cache(maxsize=4)
def _in_rules(scope: Scope) -> re.Pattern[str]:
    return _any_of([*_named(scope), *_alone(scope)])


def _any_of(words: list[str]) -> re.Pattern[str]:
    # Names of hosts are equal whatever their case, and programs quote them as a kubeconfig has them.
    return re.compile(rf"(?<![\w.-])(?:{'|'.join(words) or '(?!)'})", re.IGNORECASE)


def _named(scope: Scope) -> list[str]:
    """Its sockets, in the forms in which programs write them, and its host name."""
    words = []
    for host, port in sorted(scope.api):
        words += [f"[{host}]:{port}" if ":" in host else f"{host}:{port}", f"host='{host}', port={port}"]
    names = {host for host, _ in scope.api if re.search(r"[A-Za-z]", host) and ":" not in host and host != "localhost"}
    return [rf"{re.escape(word)}(?![\w-])" for word in (*words, *sorted(names))]


def _alone(scope: Scope) -> list[str]:
    """Its addresses that are no node's and nobody's who is recorded."""
    hosts = sorted({host for host, _ in scope.api if is_address(host) and not scope.knows(host)})
    return [
        rf"(?<!:){re.escape(host)}(?![\w-]|:[0-9a-f]|\.\d)" if ":" in host else rf"{re.escape(host)}(?![\w-]|\.\d)"
        for host in hosts
    ]
