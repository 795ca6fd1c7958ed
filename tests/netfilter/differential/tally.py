"""How often each modelled match and target was met, and both ways.

Pure.  Counted from the kernel's trace and the rules' words alone.  An option counts as failed only where the rule asks
nothing else that may have failed.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from differential.rule_lines import Chains, Line
from kernel.flow import Flow

_ALWAYS = {"comment", "nfacct"}
_PROTOCOLS = {"1": "icmp", "6": "tcp", "17": "udp", "58": "icmpv6", "132": "sctp", "ipv6-icmp": "icmpv6"}
Key = tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """``yes``: the condition held, or the target was reached; ``no``: it failed, or was not reached."""

    yes: Counter[Key] = field(default_factory=Counter)
    no: Counter[Key] = field(default_factory=Counter)

    def add(self, met: Iterable[tuple[str, str, int, bool]], lines: Chains, flow: Flow) -> None:
        """Count one packet's way."""
        for table, chain, number, matched in met:
            line = lines[table, chain][number - 1]
            count = self.yes if matched else self.no
            target = "jump" if (table, line.target) in lines and not line.is_goto else line.target
            target = "goto" if line.is_goto else target or "no target"
            count["target", target] += 1
            for option in line.target_options:
                count["target", target, option] += 1
            count["chain", table, chain if chain in BASES else "of a user"] += 1
            if matched:
                for module, option, negated in line.conditions:
                    self.yes["match", module, option, "!" * negated] += 1
            elif failed := _failed(line, flow):
                self.no["match", *failed] += 1

    def merge(self, other: "Tally") -> None:
        """Add another's counts."""
        self.yes.update(other.yes)
        self.no.update(other.no)


BASES = {"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"}


def _failed(line: Line, flow: Flow) -> Key | None:
    """The one condition that can have failed."""
    proto = _PROTOCOLS.get(line.proto, line.proto)
    deciding = [
        (module, option, "!" * negated)
        for module, option, negated in line.conditions
        if (module not in _ALWAYS or len(line.conditions) == 1)
        and not (option == "-p" and not negated and proto == flow.proto)
    ]
    deciding = [item for item in deciding if item[1] not in _PARTS]
    return deciding[0] if len(deciding) == 1 else None


# Options that say how another of the same match is meant.
_PARTS = {"--mode", "--packet", "--name", "--mask", "--rsource", "--rdest", "--seconds", "--hitcount", "--limit-burst"}
