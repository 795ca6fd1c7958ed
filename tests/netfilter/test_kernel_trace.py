"""What xtables-monitor prints is read whole, losses are named, and handles are found in nft's listing."""

import os
import shutil
import subprocess
import sys
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab.netfilter import kernel_trace
from bookinfo_lab.netfilter.kernel_trace import Event, Flow, Header, parse, passages, rule_numbers

TABLE = "bookinfo-lab-trace-1"
PATH = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
# Printed by xtables-monitor 1.8.9 on Linux 6.18 for a connection from a client to a NodePort.
NODE_PORT = f"""\
PACKET: 1 011fedaf OUT=lo NFPROTO=2 SRC=127.0.0.1 DST=127.0.0.1 LEN=28 TOS=0x0 TTL=64 ID=14886 DF SPORT=37990 DPORT=1 
 TRACE: 1 011fedaf {TABLE}:own:rule:0x4:JUMP:listening  
 TRACE: 1 011fedaf {TABLE}:listening:rule:0x5:DROP  
PACKET: 1 4792d35d IN=eth0 NFPROTO=2 MACSRC=3a:f3:94:55:b9:d0 MACDST=42:4d:fd:fa:cc:24 MACPROTO=0800 SRC=172.18.0.100 DST=172.18.0.2 LEN=60 TOS=0x0 TTL=64 ID=54927 DF SPORT=48788 DPORT=31380 SYN 
 TRACE: 1 4792d35d {TABLE}:traced:rule:0x6:CONTINUE  
 TRACE: 1 4792d35d {TABLE}:traced:policy:ACCEPT 
PACKET: 2 4792d35d IN=eth0 MACSRC=3a:f3:94:55:b9:d0 SRC=172.18.0.100 DST=172.18.0.2 LEN=60 TOS=0x0 TTL=64 ID=54927 DF SPORT=48788 DPORT=31380 SYN 
 TRACE: 2 4792d35d nat:PREROUTING:rule:0x22:JUMP:KUBE-SERVICES  -4 -t nat -A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
 TRACE: 2 4792d35d nat:KUBE-SERVICES:rule:0x54:GOTO:KUBE-SEP-A  -4 -t nat -A KUBE-SERVICES -m comment --comment "a \\"b\\": -j" -g KUBE-SEP-A
 TRACE: 2 4792d35d nat:KUBE-SEP-A:rule:0x2b:CONTINUE  -4 -t nat -A KUBE-SEP-A -j MARK --set-xmark 0x4000/0x4000
 TRACE: 2 4792d35d nat:KUBE-SEP-A:rule:0x42:ACCEPT  -4 -t nat -A KUBE-SEP-A -p tcp -m tcp -j DNAT --to-destination 10.244.0.17:8080
PACKET: 2 4792d35d IN=eth0 OUT=cali65d0c5d5965 MACSRC=3a:f3:94:55:b9:d0 SRC=172.18.0.100 DST=10.244.0.17 LEN=60 TOS=0x0 TTL=63 ID=54927 DF SPORT=48788 DPORT=8080 SYN MARK=0x4000 
 TRACE: 2 4792d35d filter:FORWARD:rule:0x5:0xfffffffb  -4 -t filter -A FORWARD -p tcp -j RETURN
 TRACE: 2 4792d35d filter:FORWARD:policy:DROP 
PACKET: 1 2ed5f8c2 OUT=lo NFPROTO=2 SRC=127.0.0.1 DST=127.0.0.1 LEN=28 TOS=0x0 TTL=64 ID=14887 DF SPORT=37990 DPORT=2 
 TRACE: 1 2ed5f8c2 {TABLE}:own:rule:0x7:JUMP:finished  
 TRACE: 1 2ed5f8c2 {TABLE}:finished:rule:0x8:DROP  
"""  # noqa: E501, W291 - as printed
LISTING = """\
table ip nat { # handle 2
	set s { # handle 30
		type ipv4_addr
		elements = { 10.0.0.1, 10.0.0.2,
			     10.0.0.3 }
	}

	chain PREROUTING { # handle 1
		type nat hook prerouting priority dstnat; policy accept;
		 counter packets 1 bytes 60 jump KUBE-SERVICES # handle 8
		meta l4proto udp counter packets 0 bytes 0 return comment "# handle 99" # handle 9
	}

	chain KUBE-SERVICES { # handle 5
	}

	chain A { # handle 6
		meta l4proto tcp counter packets 0 bytes 0 dnat to numgen random mod 2 map { 0 : 10.0.0.1,
										1 : 10.0.0.2 } # handle 12
		meta l4proto tcp counter packets 0 bytes 0 # handle 11
	}
}
table ip filter { # handle 3
	chain A { # handle 1
		counter packets 0 bytes 0 accept # handle 8
	}
}
"""  # noqa: E101 - as printed


def words(events: tuple[Event, ...]) -> list[tuple[str, ...]]:
    return [(item.table, item.chain, item.kind, item.verdict) for item in events]


def test_each_event_of_the_packet_is_read_in_order() -> None:
    trace = parse(NODE_PORT)
    assert trace.losses == ()
    assert len(trace.events) == 12
    (passage,) = passages(trace, TABLE)
    assert words(passage) == [
        ("nat", "PREROUTING", "rule", "jump KUBE-SERVICES"),
        ("nat", "KUBE-SERVICES", "rule", "goto KUBE-SEP-A"),
        ("nat", "KUBE-SEP-A", "rule", "continue"),
        ("nat", "KUBE-SEP-A", "rule", "accept"),
        ("filter", "FORWARD", "rule", "return"),
        ("filter", "FORWARD", "policy", "drop"),
    ]
    assert [item.handle for item in passage] == [0x22, 0x54, 0x2B, 0x42, 5, 0]


def test_a_rule_is_repeated_as_iptables_save_prints_it() -> None:
    (passage,) = passages(parse(NODE_PORT), TABLE)
    assert passage[0].text == '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'
    assert passage[1].text == '-m comment --comment "a \\"b\\": -j" -g KUBE-SEP-A'
    assert passage[-1].text == ""


def test_the_packet_is_known_as_it_was_at_each_hook() -> None:
    (passage,) = passages(parse(NODE_PORT), TABLE)
    assert passage[0].header == Header("eth0", "", "172.18.0.100", "172.18.0.2", 48788, 31380, 0)
    assert passage[-1].header == Header("eth0", "cali65d0c5d5965", "172.18.0.100", "10.244.0.17", 48788, 8080, 0x4000)


def test_a_monitor_that_read_to_the_end_is_told_from_one_that_did_not() -> None:
    lines = NODE_PORT.splitlines(keepends=True)
    assert kernel_trace.is_watched(parse(NODE_PORT), TABLE)
    for count in range(len(lines)):
        assert not kernel_trace.is_watched(parse("".join(lines[:count])), TABLE)
        assert not kernel_trace.is_watched(parse("".join(lines[-count:] if count else [])), TABLE) or count >= 15


def test_what_was_read_before_the_monitor_was_known_to_listen_is_not_watched() -> None:
    lines = NODE_PORT.splitlines(keepends=True)
    moved = [*lines[3:14], *lines[:3], *lines[14:]]
    assert not kernel_trace.is_watched(parse("".join(moved)), TABLE)
    early = [*lines[:3], *lines[14:], *lines[3:14]]
    assert not kernel_trace.is_watched(parse("".join(early)), TABLE)


@pytest.mark.parametrize(
    ("text", "stderr", "named"),
    [
        (NODE_PORT[:-1], "", "in the middle of line 17"),
        (NODE_PORT + "cannot receive from nfnetlink socket: No buffer space available\n", "", "No buffer space"),
        (NODE_PORT, "cannot receive from nfnetlink socket: No buffer space available\n", "No buffer space"),
        (NODE_PORT + " TRACE: 2 4792d35d nat:PREROUTING:rule:0x\n", "", "without its handle"),
        (NODE_PORT + " TRACE: 2 4792d35d nat\n", "", "line 18 cannot be read"),
        (NODE_PORT + "\x00\xff\n", "", "line 18 cannot be read"),
    ],
)
def test_what_is_cut_off_overrun_or_unreadable_is_named_as_lost(text: str, stderr: str, named: str) -> None:
    losses = parse(text, stderr).losses
    assert len(losses) == 1
    assert named in losses[0]


def test_text_cut_off_anywhere_is_either_shorter_by_whole_lines_or_lost() -> None:
    for size in range(len(NODE_PORT)):
        text = NODE_PORT[:size]
        assert bool(parse(text).losses) == bool(text and not text.endswith("\n")), text[-80:]


@given(st.text(alphabet=st.sampled_from(" TRACE:PACKET20x\n-nat:rule=Aé\x00"), max_size=200) | st.text(max_size=200))
def test_no_text_is_too_odd_to_be_read_or_lost(text: str) -> None:
    trace = parse(text)
    kernel_trace.is_watched(trace, TABLE)
    read = sum(line.startswith(("PACKET:", "NEWGEN:", " EVENT:")) or not line.strip() for line in text.split("\n"))
    assert len(trace.events) + len(trace.losses) + read >= len(text.split("\n")) - 1


def test_other_packets_and_the_same_one_sent_again_are_left_out() -> None:
    lines = NODE_PORT.splitlines(keepends=True)
    other = [line.replace("4792d35d", "00000001").replace(f"{TABLE}:traced", "other:traced") for line in lines[3:14]]
    mixed = [*lines[:3], *(line for pair in zip(lines[3:14], other, strict=True) for line in pair), *lines[14:]]
    again = [*mixed[:-3], *lines[3:14], *mixed[-3:]]
    expected = words(passages(parse(NODE_PORT), TABLE)[0])
    assert words(passages(parse("".join(mixed)), TABLE)[0]) == expected
    assert words(passages(parse("".join(again)), TABLE)[0]) == expected
    assert passages(parse("".join(again)), "another-table") == ()


def test_what_left_by_lo_and_came_in_again_is_a_second_passage() -> None:
    text = f"""\
PACKET: 1 ee01d0c4 OUT=lo NFPROTO=2 SRC=127.0.0.1 DST=127.0.0.1 LEN=60 SPORT=44444 DPORT=5555 SYN 
 TRACE: 1 ee01d0c4 {TABLE}:traced:rule:0x3:CONTINUE  
PACKET: 2 ee01d0c4 OUT=lo SRC=127.0.0.1 DST=127.0.0.1 LEN=60 SPORT=44444 DPORT=5555 SYN 
 TRACE: 2 ee01d0c4 nat:OUTPUT:rule:0x8:ACCEPT  -4 -t nat -A OUTPUT -p tcp -j DNAT --to-destination 127.0.0.1:999
PACKET: 2 36922e7b IN=lo LOOPBACK SRC=127.0.0.1 DST=127.0.0.1 LEN=60 SPORT=44444 DPORT=999 SYN 
 TRACE: 2 36922e7b filter:INPUT:policy:ACCEPT 
"""  # noqa: W291 - as printed
    first, second = passages(parse(text), TABLE)
    assert words(first) == [("nat", "OUTPUT", "rule", "accept")]
    assert words(second) == [("filter", "INPUT", "policy", "accept")]


def test_a_handle_is_one_rule_of_one_table_whatever_its_text() -> None:
    assert rule_numbers(LISTING) == {
        ("ip", "nat", 8): ("PREROUTING", 1),
        ("ip", "nat", 9): ("PREROUTING", 2),
        ("ip", "nat", 12): ("A", 1),
        ("ip", "nat", 11): ("A", 2),
        ("ip", "filter", 8): ("A", 1),
    }
    assert rule_numbers("") == {}


# What nft, xtables-monitor and the kernel really do, in a network namespace of the test's own


def inside(script: str, *arguments: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    for program in ("nft", "xtables-monitor"):
        if shutil.which(program, path=PATH) is None:
            pytest.skip(f"{program} is not installed")
    options = ["--net"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--net"]
    command = ["unshare", *options, "sh", "-c", f"ip link set lo up; {script}", "sh", *arguments]
    environment = {**os.environ, "PATH": PATH}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, cwd=folder, env=environment, stdin=subprocess.DEVNULL
    )


FLOWS = [
    Flow("tcp", ip_address("10.0.0.1"), 40000, ip_address("10.0.0.2"), 80),
    Flow("udp", ip_address("fd00::1"), 40000, ip_address("fd00::2"), 53),
    Flow("sctp", ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2),
    Flow("udplite", ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2),
    Flow("icmp", ip_address("10.0.0.1"), 7, ip_address("10.0.0.2"), None, 8),
    Flow("icmp", ip_address("10.0.0.1"), None, ip_address("10.0.0.2"), None, 3, 1),
    Flow("icmpv6", ip_address("fd00::1"), 7, ip_address("fd00::2"), None, 128),
]


@pytest.mark.sandbox
@pytest.mark.parametrize("flow", FLOWS, ids=lambda flow: f"{flow.proto}-{flow.src}")
@pytest.mark.parametrize("is_local", [True, False])
@pytest.mark.parametrize("is_established", [True, False])
def test_nft_takes_the_table_that_asks_for_a_trace(
    flow: Flow, is_local: bool, is_established: bool, tmp_path: Path
) -> None:
    order = kernel_trace.tracing_table(TABLE, "own-1", flow, is_local=is_local, is_established=is_established)
    done = inside('nft "$1; list table inet $2"', order, TABLE, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "flags owner" in done.stdout
    assert ("hook prerouting" in done.stdout) != is_local


FLOOD = """
import os, signal, socket, sys, time
monitor, sender = int(sys.argv[1]), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
deadline = time.monotonic() + 20
while not os.path.getsize("printed") and time.monotonic() < deadline:
    sender.sendto(b"", ("127.0.0.1", 9))
    time.sleep(0.005)
os.kill(monitor, signal.SIGSTOP)
for _ in range(3000):
    sender.sendto(b"", ("127.0.0.1", 9))
os.kill(monitor, signal.SIGCONT)
"""
OVERRUN = """set -e
nft 'add table inet t { chain o { type filter hook output priority -350; udp dport 9 meta nftrace set 1; }; }'
xtables-monitor --trace > printed 2> said & monitor=$!
"$1" -c "$2" $monitor; wait $monitor || echo $?
"""


@pytest.mark.sandbox
def test_a_monitor_that_the_kernel_overran_says_so_and_that_is_a_loss(tmp_path: Path) -> None:
    done = inside(OVERRUN, sys.executable, FLOOD, folder=tmp_path)
    assert done.stdout.strip() != "0", done.stderr
    losses = parse((tmp_path / "printed").read_text(), (tmp_path / "said").read_text()).losses
    assert len(losses) == 1
    assert "No buffer space" in losses[0]


TWINS = """set -e
iptables-nft-restore <<'RULES'
*filter
:OUTPUT ACCEPT [0:0]
:A - [0:0]
-A OUTPUT -p udp -j A
-A OUTPUT -p udp -j A
-A A -p tcp
-A A -p udp
-A A -p udp -j RETURN
COMMIT
RULES
nft 'add table inet bookinfo-lab-trace-1 {
    chain traced { type filter hook output priority -350; udp dport 9 meta nftrace set 1; }; }'
xtables-monitor --trace > printed 2> said & monitor=$!
"$1" -c "$2"
kill $monitor
nft --handle list ruleset > listed
"""
ONE_BY_ONE = """
import socket, time
sender, deadline = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), time.monotonic() + 20
while "filter:OUTPUT:policy" not in open("printed").read() and time.monotonic() < deadline:
    sender.sendto(b"", ("127.0.0.1", 9))
    time.sleep(0.005)
"""


@pytest.mark.sandbox
def test_two_rules_of_one_text_are_told_apart_in_a_real_trace(tmp_path: Path) -> None:
    done = inside(TWINS, sys.executable, ONE_BY_ONE, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    numbers = rule_numbers((tmp_path / "listed").read_text())
    passage = passages(parse((tmp_path / "printed").read_text()), TABLE)[0]
    found = [(numbers["ip", "filter", item.handle], item.verdict) for item in passage if item.kind == "rule"]
    once = [(("A", 2), "continue"), (("A", 3), "return")]
    assert found == [(("OUTPUT", 1), "jump A"), *once, (("OUTPUT", 2), "jump A"), *once]
