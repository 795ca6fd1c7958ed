"""Jumps: targets outside of comments, what a chain can lead to, and chances of rules asked in order."""

import re
import shutil
import subprocess
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.netfilter import jumps
from bookinfo_lab.netfilter.tables import parse_save

SAVED = """*filter
:INPUT ACCEPT [0:0]
:A - [0:0]
-A A -j DROP
-A INPUT -j A
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:A - [0:0]
:B - [0:0]
:C - [0:0]
:EMPTY - [0:0]
:UNMET - [0:0]
-A PREROUTING -m comment --comment "-j UNMET --to-destination 9.9.9.9:9" -j A
-A A -p tcp -m tcp --dport 80 -j B
-A A -g C
-A B -j DNAT --to-destination 10.0.0.1:80
-A C -p udp -j DNAT --to-destination 10.0.0.2:53
-A C -j A
-A C -j EMPTY
COMMIT
"""


@pytest.mark.parametrize(
    ("rule", "target"),
    [
        ("-A X -j ACCEPT", ("ACCEPT",)),
        ("-p tcp -m tcp --dport 80 -g CHAIN", ("CHAIN",)),
        ('-m comment --comment "a \\" -j NO" -j YES', ("YES",)),
        ("-m comment --comment x", ()),
        ("-d 10.0.0.1/32 -j MARK --set-xmark 0x4000/0x4000", ("MARK",)),
        ("", ()),
    ],
)
def test_a_rules_target_is_what_it_jumps_or_goes_to_and_never_a_comments_word(
    rule: str, target: tuple[str, ...]
) -> None:
    assert jumps.targets([rule]) == target


def test_reach_follows_jumps_of_one_table_in_order_and_ends() -> None:
    tables = parse_save(SAVED)
    nat = next(table for table in tables if table.name == "nat")
    entry = next(chain.rules for chain in nat.chains if chain.name == "PREROUTING")
    found = jumps.reach(tables, "nat", entry)
    assert found.chains == ("A", "B", "C", "EMPTY")
    assert found.destinations == ("10.0.0.1:80", "10.0.0.2:53")
    assert found.ends == ("EMPTY",)
    assert jumps.reach(tables, "filter", ["-j A"]) == jumps.Reach(("A",), (), ())
    assert jumps.reach(tables, "raw", ["-j A"]) == jumps.Reach((), (), ())


@given(st.integers(1, 40))
def test_kube_proxys_probabilities_give_each_endpoint_the_same_share(count: int) -> None:
    printed = [None if left == 1 else round(1 / left, 10) for left in range(count, 0, -1)]
    chances = jumps.effective(printed)
    assert sum(chances) == pytest.approx(1)
    assert all(chance == pytest.approx(float(Fraction(1, count)), abs=1e-8) for chance in chances)


def test_probabilities_are_read_as_printed() -> None:
    rules = [
        "-m statistic --mode random --probability 0.33333333349 -j A",
        "-j B",
        '-m comment --comment "--probability 1" -j C',
    ]
    assert jumps.probabilities(rules) == (0.33333333349, None, None)
    assert jumps.effective([]) == ()


@pytest.mark.sandbox
@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare makes the namespace, and is not installed")
def test_the_kernel_takes_rules_as_often_as_their_effective_chance_says() -> None:
    """4,000 datagrams through three rules with probabilities, counted by the kernel: five sigma around the chances."""
    script = """set -e
ip link set lo up
iptables-nft -N THREE; iptables-nft -A OUTPUT -p udp --dport 9 -j THREE
iptables-nft -A THREE -m statistic --mode random --probability 0.3333333333 -j ACCEPT
iptables-nft -A THREE -m statistic --mode random --probability 0.5 -j ACCEPT
iptables-nft -A THREE -j ACCEPT
python3 - <<'END'
import socket
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(4000):
    sender.sendto(b"x", ("127.0.0.1", 9))
END
iptables-nft-save -c -t filter"""
    command = ["unshare", "--user", "--map-root-user", "--net", "sh", "-c", f"PATH=$PATH:/usr/sbin:/sbin; {script}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if "-A THREE" in line]
    counts = [int(match[1]) for line in lines for match in [re.match(r"\[(\d+):", line)] if match]
    chances = jumps.effective(jumps.probabilities(lines))
    sent = sum(counts)
    assert sent == 4000
    for count, chance in zip(counts, chances, strict=True):
        assert abs(count - sent * chance) < 5 * (sent * chance * (1 - chance)) ** 0.5
