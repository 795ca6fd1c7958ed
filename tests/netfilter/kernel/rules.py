"""Rules under test: replaced through iptables-nft-restore, and numbered as the kernel lists them.

Edge; runs in the device under test.  What is not in the text is gone afterwards: all tables of the family are dropped
first.  Objects that the text names for ``-m nfacct`` are made.  Rules of other families stay.
"""

import errno
import os
import re
import subprocess
from collections.abc import Iterator

from kernel import netlink
from kernel.flow import LoadError

NFT_DELTABLE, NFT_GETRULE, ACCT_NEW = 2, 7, 0
RULE_TABLE, RULE_CHAIN, RULE_HANDLE = 1, 2, 3
RESTORE = {4: "iptables-nft-restore", 6: "ip6tables-nft-restore"}
_ACCOUNT = re.compile(r"--nfacct-name +\"?([^\s\"]+)")

Numbers = dict[tuple[str, str, int], int]


def load(wire: netlink.Netlink, text: str, family: int, limit: int) -> None:
    """Replace the family's tables by ``text``; a transaction has at most ``limit`` chains and rules (0: any number)."""
    wire.batch(NFT_DELTABLE, netlink.FAMILIES[family])
    for name in dict.fromkeys(_ACCOUNT.findall(text)):
        try:
            wire.request(netlink.ACCT, ACCT_NEW, 0, netlink.attribute(1, name.encode() + b"\0"), netlink.CREATE)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EEXIST):
                raise LoadError(f"nfacct add {name}: {os.strerror(error.errno or 0)}") from None
    given = "".join(transactions(text, limit)) if limit else text
    command = [RESTORE[family], "--noflush"]
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode:
        raise LoadError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")


def transactions(text: str, limit: int) -> Iterator[str]:
    """``text`` cut so that no COMMIT closes more than ``limit`` lines; a chain is declared before any rule."""
    table, pending = "", list[str]()
    for line in text.splitlines():
        if line.startswith("*"):
            table, pending = line, []
        elif line.strip() == "COMMIT" or len(pending) == limit:
            yield "".join(f"{part}\n" for part in (table, *pending, "COMMIT"))
            pending = [] if line.strip() == "COMMIT" else [line]
        elif line.strip() and not line.startswith("#"):
            pending.append(line)
    if pending:
        raise LoadError(f"{table} has no COMMIT")


def numbers(wire: netlink.Netlink, family: int) -> Numbers:
    """The number in its chain, from 1, of each rule by (table, chain, handle), as the kernel lists them now."""
    found: Numbers = {}
    last: dict[tuple[str, str], int] = {}
    for rule in wire.dump(netlink.NFTABLES, NFT_GETRULE, netlink.FAMILIES[family]):
        table, chain = netlink.text(rule[RULE_TABLE]), netlink.text(rule[RULE_CHAIN])
        number = last[table, chain] = last.get((table, chain), 0) + 1
        found[table, chain, int.from_bytes(rule[RULE_HANDLE])] = number
    return found
