"""Values that options of rules hold, where plain numbers, text and `ipaddress` objects do not say enough.  Pure."""

from dataclasses import dataclass

from bookinfo_lab.kube.fields import Address


@dataclass(frozen=True, slots=True)
class PortRange:
    """The ports from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers (uids, gids, lengths …) from ``first`` to ``last``, both included."""

    first: int
    last: int

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


@dataclass(frozen=True, slots=True)
class Masked:
    """A 32-bit number of which only the bits in ``mask`` count."""

    value: int
    mask: int


@dataclass(frozen=True, slots=True)
class AddressPattern:
    """An address of which only the bits in ``mask`` count, for masks that are no prefix."""

    address: Address
    mask: Address


@dataclass(frozen=True, slots=True)
class AddressRange:
    """The addresses from ``first`` to ``last``, both included."""

    first: Address
    last: Address


@dataclass(frozen=True, slots=True)
class IcmpType:
    """An ICMP type and code; ``number`` None is any type, ``code`` None any code."""

    number: int | None
    code: int | None


@dataclass(frozen=True, slots=True)
class Translation:
    """What DNAT or SNAT writes: one address from ``first`` to ``last``, one of ``ports``; None changes nothing.

    ``base`` is the port that becomes the first of ``ports``, those after it the next ones; None where none is named.
    """

    first: Address | None
    last: Address | None
    ports: PortRange | None
    base: int | None = None
