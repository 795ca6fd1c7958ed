"""What the differential test runs: a ruleset, where it stands, and the packets that are sent through it.

Values only.  A case is plain text and flows: neither what wrote it nor the walk has a say in what it means.
"""

from dataclasses import dataclass

from kernel.flow import Direction, Flow


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The netns beside its rules: ``commands`` are lines of ``ip``, ``sysctls`` what differs from the room's own.

    ``listeners`` are (port, protocol) of transparent sockets, as TPROXY needs them.
    """

    name: str
    commands: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()
    listeners: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Probe:
    """One packet to send: the first of ``flow``'s connection, the one after the answer, or the answer."""

    flow: Flow
    direction: Direction = "first"


@dataclass(frozen=True, slots=True)
class Case:
    """``text`` is what iptables-restore takes; ``is_saved`` has the walk read what iptables-nft-save prints of it.

    ``name`` says how to make it again: the kind, the seed, its number.
    """

    name: str
    family: int
    text: str
    probes: tuple[Probe, ...]
    surroundings: Surroundings
    is_saved: bool = False
