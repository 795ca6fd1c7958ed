"""One rule as iptables-save prints it: the order of the parts, numbers as the kernel stores them.

iptables prints addresses first, then the protocol, then the matches in the order in which they were given, then the
target.  Whoever writes rules through `rule` therefore reads back what he wrote.
"""

import math
from collections.abc import Iterable


def rule(
    target: str,
    *,
    source: str = "",
    not_source: str = "",
    destination: str = "",
    not_destination: str = "",
    in_: str = "",
    out: str = "",
    protocol: str = "",
    comment: str = "",
    matches: Iterable[str] = (),
) -> str:
    """A rule's text after ``-A CHAIN``.

    ``source`` and ``destination`` are CIDRs (an address with /32), ``in_`` and ``out`` interfaces, ``matches`` the
    text after each ``-m``, ``target`` the text after ``-j``; an empty target makes a rule that only counts.
    """
    words = []
    if source or not_source:
        words.append(f"-s {source}" if source else f"! -s {not_source}")
    if destination or not_destination:
        words.append(f"-d {destination}" if destination else f"! -d {not_destination}")
    if in_:
        words.append(f"-i {in_}")
    if out:
        words.append(f"-o {out}")
    if protocol:
        words.append(f"-p {protocol}")
    if comment:
        words.append(f'-m comment --comment "{comment}"')
    words += [f"-m {match}" for match in matches]
    if target:
        words.append(f"-j {target}")
    return " ".join(words)


def one_of(remaining: int, digits: int) -> str:
    """The statistic match that takes one of ``remaining`` endpoints, as it reads back.

    kube-proxy writes 1/n with ``digits`` decimals; the kernel keeps a multiple of 2**-31 (libxt_statistic.c), and
    iptables-save prints that with 11 decimals: 0.3333333333 reads back as 0.33333333349.
    """
    steps = math.floor(float(f"{1 / remaining:.{digits}f}") * 2**31 + 0.5)
    return f"statistic --mode random --probability {steps / 2**31:.11f}"


def mark_bit(bit: int) -> str:
    """The mark that has only ``bit`` set, as iptables prints it (bit 14 is 0x4000)."""
    return f"{1 << bit:#x}"
