"""A `Rule` to the text that iptables-restore takes, from its parsed values alone.  Pure."""

from collections.abc import Iterable, Mapping

from . import vocabulary
from .kinds import Kind, quoted
from .rule import Option, Rule


def format_rule(rule: Rule) -> str:
    """The rule after ``-A CHAIN``; `parse_rule` reads the same values back from it."""
    found: list[str] = []
    for match in rule.matches:
        if match.module:
            found += ["-m", match.module]
        found += _options(match.options, vocabulary.MATCHES.get(match.module, {}) if match.module else vocabulary.RULE)
    if rule.target:
        found += ["-g" if rule.is_goto else "-j", rule.target]
        found += _options(rule.target_options, vocabulary.TARGETS.get(rule.target, {}))
    return " ".join(found)


def _options(options: Iterable[Option], kinds: Mapping[str, Kind]) -> list[str]:
    found: list[str] = []
    for option in options:
        written = kinds[option.name].write(*option.values) if option.known else map(quoted, option.values)
        found += [*(["!"] if option.negated else []), option.name, *written]
    return found
