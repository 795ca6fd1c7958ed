"""Where rules lead: the targets that rules jump to, and the addresses that a chain can end in.

Pure.  Rules come in as iptables-save prints them.  This follows jumps only; it does not ask whether a packet matches,
so it says where a chain *can* lead, not where one packet goes.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .tables import Table

_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_JUMP = re.compile(r"(?:^| )(?:-j|-g) (\S+)")
_DNAT = re.compile(r"(?:^| )--to-destination (\S+)")
_PROBABILITY = re.compile(r"(?:^| )--probability (\S+)")


@dataclass(frozen=True, slots=True)
class Reach:
    """What a chain can lead to: ``chains`` in the order met, ``destinations`` of DNAT as ``IP:PORT``.

    ``ends`` are chains among them that hold no rule: nothing leads on from there.
    """

    chains: tuple[str, ...]
    destinations: tuple[str, ...]
    ends: tuple[str, ...]


def targets(rules: Iterable[str]) -> tuple[str, ...]:
    """What these rules jump or go to (``-j``, ``-g``), each once, in order; quoted comments are not looked into."""
    found = (_JUMP.search(_QUOTED.sub('""', rule)) for rule in rules)
    return tuple(dict.fromkeys(match[1] for match in found if match))


def probabilities(rules: Iterable[str]) -> tuple[float | None, ...]:
    """For each rule the probability that its ``-m statistic`` prints, None where it has none."""
    found = (_PROBABILITY.search(_QUOTED.sub('""', rule)) for rule in rules)
    return tuple(float(match[1]) if match else None for match in found)


def effective(printed: Sequence[float | None]) -> tuple[float, ...]:
    """The chance that a packet that meets these rules in order takes each of them.

    A printed probability holds only for packets that no earlier rule took; a rule without one takes all that are left.
    """
    left, chances = 1.0, []
    for probability in printed:
        chances.append(left * (1.0 if probability is None else probability))
        left -= chances[-1]
    return tuple(chances)


def reach(tables: Iterable[Table], table: str, rules: Iterable[str]) -> Reach:
    """Everything that ``rules`` of ``table`` can lead to by jumps inside that table, depth first, in order."""
    chains = {chain.name: chain.rules for item in tables if item.name == table for chain in item.chains}
    met: dict[str, None] = {}
    destinations: dict[str, None] = {}
    waiting = [*rules][::-1]
    while waiting:
        rule = waiting.pop()
        destination = _DNAT.search(_QUOTED.sub('""', rule))
        if destination:
            destinations[destination[1]] = None
        for target in targets([rule]):
            if target in chains and target not in met:
                met[target] = None
                waiting += chains[target][::-1]
    return Reach(tuple(met), tuple(destinations), tuple(chain for chain in met if not chains[chain]))
