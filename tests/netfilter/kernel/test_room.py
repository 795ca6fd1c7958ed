"""The oracle itself, on rule sets whose answer is plain to see."""

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from kernel.flow import Flow, LoadError, Observation, Refused, Tuple
from kernel.room import Room
from kernel.rules import transactions

pytestmark = pytest.mark.sandbox

BASE = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
    "security": ("INPUT", "FORWARD", "OUTPUT"),
}
CLIENT, SERVER, OTHER = (
    {4: "10.1.0.2", 6: "fd00:1::2"},
    {4: "10.2.0.2", 6: "fd00:2::2"},
    {4: "10.3.0.5", 6: "fd00:3::5"},
)
DEVICE = {4: "10.1.0.1", 6: "fd00:1::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
ICMP = {4: "icmp", 6: "icmpv6"}
families = pytest.mark.parametrize("family", [4, 6])


def save(*rules: str, **policies: str) -> str:
    """iptables-save text of rules like ``filter FORWARD -j DROP``; policies like ``FORWARD="DROP"`` are filter's."""
    text = ""
    for table, base in BASE.items():
        mine = [rule.split(" ", 2)[1:] for rule in rules if rule.startswith(f"{table} ")]
        if not mine and not (table == "filter" and policies):
            continue
        names = dict.fromkeys([*base, *(chain for chain, _ in mine)])
        text += f"*{table}\n"
        for name in names:
            policy = "-" if name not in base else policies.get(name, "ACCEPT") if table == "filter" else "ACCEPT"
            text += f":{name} {policy} [0:0]\n"
        text += "".join(f"-A {chain} {rule}\n" for chain, rule in mine) + "COMMIT\n"
    return text


def forwarded(family: int, dport: int = 80, proto: str = "tcp") -> Flow:
    return Flow(CLIENT[family], SERVER[family], dport, proto)


def local(family: int, dport: int = 80, proto: str = "tcp", **more: int) -> Flow:
    return Flow(None, SERVER[family], dport, proto, local=True, **more)


def sent(room: Room, flow: Flow, direction: str = "first") -> Observation:
    seen = room.send(flow, direction)
    assert seen.complete, seen.why
    return seen


@families
@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp", "icmp"])
def test_a_packet_that_no_rule_touches_leaves_as_it_came(room: Room, family: int, proto: str) -> None:
    flow = forwarded(family, 0 if proto == "icmp" else 80, ICMP[family] if proto == "icmp" else proto)
    seen = sent(room, flow)
    assert (seen.verdict, seen.out, seen.visits, seen.answer) == ("left", "out0", (), "")
    assert seen.final == seen.sent == Tuple(CLIENT[family], seen.flow.sport, SERVER[family], flow.dport)


@families
@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp", "icmp"])
def test_a_local_process_s_packet_leaves_from_the_address_routing_chose(room: Room, family: int, proto: str) -> None:
    flow = local(family, 0 if proto == "icmp" else 80, ICMP[family] if proto == "icmp" else proto)
    seen = sent(room, flow)
    address = {4: "10.2.0.1", 6: "fd00:2::1"}[family]
    assert (seen.verdict, seen.out) == ("left", "out0")
    assert seen.final == Tuple(address, seen.flow.sport, SERVER[family], flow.dport)


@families
def test_drop_is_the_rule_s_and_the_rest_is_not_reached(room: Room, family: int) -> None:
    room.load(save("filter FORWARD -p udp -j ACCEPT", "filter FORWARD -p tcp -j DROP", "filter FORWARD -p tcp"), family)
    seen = sent(room, forwarded(family))
    assert (seen.verdict, seen.matched, seen.answer) == ("dropped", (("filter", "FORWARD", 2),), "")
    assert sent(room, forwarded(family, proto="udp")).matched == (("filter", "FORWARD", 1),)


@families
def test_a_policy_drops_what_no_rule_accepts(room: Room, family: int) -> None:
    room.load(save("filter FORWARD -p tcp --dport 80 -j ACCEPT", FORWARD="DROP", INPUT="DROP", OUTPUT="DROP"), family)
    assert sent(room, forwarded(family, 80)).verdict == "left"
    for flow, chain in (
        (forwarded(family, 81), "FORWARD"),
        (replace(forwarded(family), dst=DEVICE[family]), "INPUT"),
        (local(family), "OUTPUT"),
    ):
        seen = sent(room, flow)
        assert (seen.verdict, seen.matched) == ("dropped", ())
        assert [(v.kind, v.chain, v.verdict) for v in seen.visits] == [("policy", chain, "drop")]


def test_a_local_process_is_told_that_its_datagram_was_dropped(room: Room) -> None:
    room.load(save(OUTPUT="DROP"))
    assert sent(room, local(4, 53, "udp")).errno == "EPERM"


@families
def test_dnat_changes_where_the_packet_leaves(room: Room, family: int) -> None:
    target = f"[{OTHER[6]}]:99" if family == 6 else f"{OTHER[4]}:99"
    room.load(save(f"nat PREROUTING -p tcp --dport 80 -j DNAT --to-destination {target}"), family)
    seen = sent(room, forwarded(family))
    final = Tuple(CLIENT[family], seen.flow.sport, OTHER[family], 99)
    assert (seen.verdict, seen.out, seen.final) == ("left", "out1", final)
    assert seen.matched == (("nat", "PREROUTING", 1),)
    assert seen.connection is not None
    assert seen.connection.reply == Tuple(OTHER[family], 99, CLIENT[family], seen.flow.sport)


@families
def test_redirect_delivers_here(room: Room, family: int) -> None:
    room.load(save("nat PREROUTING -p tcp -j REDIRECT --to-ports 15006"), family)
    seen = sent(room, forwarded(family))
    assert (seen.verdict, seen.out) == ("delivered", "local")
    assert seen.final == Tuple(CLIENT[family], seen.flow.sport, DEVICE[family], 15006)


@families
def test_masquerade_takes_the_outgoing_interface_s_address(room: Room, family: int) -> None:
    room.load(save("nat POSTROUTING -o out1 -j MASQUERADE"), family)
    seen = sent(room, replace(forwarded(family), dst=OTHER[family]))
    address = {4: "10.3.0.1", 6: "fd00:3::1"}[family]
    assert (seen.final, seen.out) == (Tuple(address, seen.flow.sport, OTHER[family], 80), "out1")
    plain = sent(room, forwarded(family))
    assert plain.final == plain.sent


@families
def test_a_redirected_local_packet_comes_round_by_lo(room: Room, family: int) -> None:
    rules = [
        "nat OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 15001",
        "raw PREROUTING -i lo -p tcp --dport 15001",
        "filter INPUT -i lo -p tcp --dport 15001 -j ACCEPT",
    ]
    room.load(save(*rules), family)
    seen = sent(room, local(family))
    assert seen.matched == (("nat", "OUTPUT", 1), ("raw", "PREROUTING", 1), ("filter", "INPUT", 1))
    assert (seen.verdict, seen.final.dst, seen.final.dport) == ("delivered", LOOPBACK[family], 15001)
    assert (seen.answer, seen.answer_out, seen.errno) == ("tcp-reset", "socket", "ECONNREFUSED")


REJECTS = {
    4: [
        "icmp-net-unreachable",
        "icmp-host-unreachable",
        "icmp-proto-unreachable",
        "icmp-port-unreachable",
        "icmp-net-prohibited",
        "icmp-host-prohibited",
        "icmp-admin-prohibited",
        "tcp-reset",
    ],
    6: [
        "icmp6-no-route",
        "icmp6-adm-prohibited",
        "icmp6-addr-unreachable",
        "icmp6-port-unreachable",
        "icmp6-policy-fail",
        "icmp6-reject-route",
        "tcp-reset",
    ],
}


@pytest.mark.parametrize(("family", "answer"), [(family, name) for family, names in REJECTS.items() for name in names])
def test_reject_s_answer_is_known_by_name_and_where_it_came_out(room: Room, family: int, answer: str) -> None:
    rule = f"-p tcp --dport 80 -j REJECT --reject-with {answer}"
    room.load(save(*(f"filter {chain} {rule}" for chain in BASE["filter"])), family)
    for flow, chain, out in (
        (forwarded(family), "FORWARD", "in0"),
        (replace(forwarded(family), dst=DEVICE[family]), "INPUT", "in0"),
        (local(family), "OUTPUT", "socket"),
    ):
        seen = sent(room, flow)
        assert (seen.verdict, seen.answer, seen.answer_out) == ("rejected", answer, out), chain
        assert seen.matched == (("filter", chain, 1),)


@families
def test_an_answer_that_a_rule_drops_was_still_made(room: Room, family: int) -> None:
    rules = ["filter FORWARD -p udp -j REJECT", f"filter OUTPUT -p {ICMP[family]} -j DROP"]
    room.load(save(*rules), family)
    seen = sent(room, forwarded(family, 53, "udp"))
    assert seen.answer == {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}[family]
    assert (seen.verdict, seen.answer_out, seen.matched) == ("rejected", "", (("filter", "FORWARD", 1),))


@families
def test_a_closed_port_is_delivery_not_a_reject(room: Room, family: int) -> None:
    seen = sent(room, replace(forwarded(family), dst=DEVICE[family]))
    assert (seen.verdict, seen.answer, seen.answer_out) == ("delivered", "tcp-reset", "in0")


@families
def test_jump_goto_and_return_go_where_the_man_page_says(room: Room, family: int) -> None:
    rules = [
        "filter FORWARD -p tcp -j A",
        "filter FORWARD -p tcp",
        "filter FORWARD -p udp -g B",
        "filter FORWARD -p udp",
        "filter FORWARD -p sctp -j RETURN",
        "filter FORWARD -p sctp",
        "filter A -p tcp -g B",
        "filter A -p tcp",
        "filter B -p tcp --dport 443 -j RETURN",
        "filter B -p tcp --dport 80",
    ]
    room.load(save(*rules, FORWARD="DROP"), family)
    through = [("filter", "FORWARD", 1), ("filter", "A", 1)]
    for flow, matched in (
        (forwarded(family, 80), [*through, ("filter", "B", 2), ("filter", "FORWARD", 2)]),
        (forwarded(family, 443), [*through, ("filter", "B", 1), ("filter", "FORWARD", 2)]),
        (forwarded(family, 53, "udp"), [("filter", "FORWARD", 3)]),
        (forwarded(family, 9, "sctp"), [("filter", "FORWARD", 5)]),
    ):
        seen = sent(room, flow)
        assert (seen.verdict, list(seen.matched)) == ("dropped", matched)
    visits = [(v.kind, v.chain, v.verdict) for v in sent(room, forwarded(family, 80)).visits]
    assert visits == [
        ("rule", "FORWARD", "jump A"),
        ("rule", "A", "goto B"),
        ("rule", "B", "continue"),
        ("end", "B", "return"),
        ("rule", "FORWARD", "continue"),
        ("policy", "FORWARD", "drop"),
    ]


@families
def test_the_mark_is_that_of_the_end_and_each_rule_s_is_told(room: Room, family: int) -> None:
    rules = [
        "mangle PREROUTING -p tcp -j MARK --set-xmark 0x4000/0x4000",
        "mangle FORWARD -m mark --mark 0x4000/0x4000 -j MARK --set-xmark 0x1/0x0",
        "mangle POSTROUTING -m mark --mark 0x4001 -j CONNMARK --save-mark",
    ]
    room.load(save(*rules), family)
    seen = sent(room, forwarded(family))
    assert seen.mark == 0x4001
    assert [v.mark for v in seen.visits if v.kind == "rule"] == [0x4000, 0x4001, 0x4001]
    assert seen.connection is not None
    assert seen.connection.mark == 0x4001


@families
def test_a_local_process_s_socket_mark_is_there_at_once(room: Room, family: int) -> None:
    room.load(save("raw OUTPUT -m mark --mark 0x539/0xfff -j ACCEPT"), family)
    seen = sent(room, local(family, mark=0x1539))
    assert (seen.matched, seen.mark) == ((("raw", "OUTPUT", 1),), 0x1539)


@families
def test_notrack_leaves_no_connection_and_no_nat(room: Room, family: int) -> None:
    rules = [
        "raw PREROUTING -p udp -j NOTRACK",
        "nat PREROUTING -j ACCEPT",
        "filter FORWARD -m conntrack --ctstate UNTRACKED",
    ]
    room.load(save(*rules), family)
    seen = sent(room, forwarded(family, 53, "udp"))
    assert seen.matched == (("raw", "PREROUTING", 1), ("filter", "FORWARD", 1))
    assert seen.connection is None
    tracked = sent(room, forwarded(family))
    assert tracked.matched == (("nat", "PREROUTING", 1),)
    assert tracked.connection is not None


@families
@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp", "icmp"])
def test_the_owner_is_the_socket_s(room: Room, family: int, proto: str) -> None:
    if not room.maps(1337, 1338):
        pytest.skip("uid 1337 is not mapped in this user namespace")
    rules = ["filter OUTPUT -m owner --uid-owner 1337", "filter OUTPUT -m owner --gid-owner 1338 -j DROP"]
    room.load(save(*rules), family)
    dport, proto = (0, ICMP[family]) if proto == "icmp" else (80, proto)
    assert sent(room, local(family, dport, proto)).matched == ()
    both = sent(room, local(family, dport, proto, uid=1337, gid=1338))
    assert (both.matched, both.verdict) == ((("filter", "OUTPUT", 1), ("filter", "OUTPUT", 2)), "dropped")
    assert sent(room, local(family, dport, proto, uid=1337)).verdict == "left"


def test_a_packet_out_of_any_connection_is_invalid_where_conntrack_says_so(room: Room) -> None:
    room.load(save("filter FORWARD -m conntrack --ctstate INVALID -j DROP"))
    assert sent(room, replace(forwarded(4), tcp_flags="SYN,ACK")).matched == (("filter", "FORWARD", 1),)
    assert sent(room, forwarded(4)).matched == ()


def test_what_routing_ends_is_unrouted(room: Room) -> None:
    room.run("ip", "route", "add", "unreachable", "203.0.113.0/24")
    try:
        seen = sent(room, Flow("10.1.0.2", "203.0.113.9", 80))
        assert (seen.verdict, seen.answer, seen.answer_out) == ("unrouted", "icmp-host-unreachable", "in0")
        assert sent(room, Flow(None, "203.0.113.9", 80, local=True)).verdict == "unrouted"
    finally:
        room.run("ip", "route", "del", "unreachable", "203.0.113.0/24")
    martian = sent(room, Flow("10.1.0.2", "127.0.0.1", 80))
    assert (martian.verdict, martian.answer) == ("unrouted", "")


def test_dnat_of_a_loopback_source_finds_no_route(room: Room) -> None:
    room.load(save("nat OUTPUT -p tcp -j N", "nat N -p tcp -j DNAT --to-destination 10.2.0.9:77"))
    seen = sent(room, Flow("127.0.0.1", "127.0.0.1", 80, local=True))
    assert (seen.verdict, seen.matched) == ("unrouted", (("nat", "OUTPUT", 1), ("nat", "N", 1)))
    assert seen.connection is None


def test_route_localnet_lets_a_frame_reach_loopback(room: Room) -> None:
    room.sysctl("net.ipv4.conf.all.route_localnet", "1")
    try:
        assert sent(room, Flow("10.1.0.2", "127.0.0.1", 80)).verdict == "delivered"
    finally:
        room.sysctl("net.ipv4.conf.all.route_localnet", "0")


def test_tproxy_delivers_to_a_listener_with_the_addresses_kept(room: Room) -> None:
    rule = "mangle PREROUTING -p tcp -j TPROXY --on-port 15006 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff"
    room.load(save(rule))
    assert sent(room, forwarded(4)).verdict == "dropped"  # nobody listens
    room.listen(15006, transparent=True)
    room.run("ip", "rule", "add", "fwmark", "1337", "lookup", "133")
    room.run("ip", "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "133")
    try:
        seen = sent(room, forwarded(4))
        assert (seen.verdict, seen.final, seen.mark) == ("delivered", seen.sent, 1337)
    finally:
        room.run("ip", "rule", "del", "fwmark", "1337", "lookup", "133")
        room.run("ip", "route", "flush", "table", "133")


def test_a_frame_can_come_by_every_interface(room: Room) -> None:
    room.load(save(*(f"filter FORWARD -i {name}" for name in ("in0", "out0", "out1"))))
    for number, name in enumerate(("in0", "out0", "out1"), 1):
        assert sent(room, Flow("192.0.2.1", "10.1.0.7", 80, iif=name)).matched == (("filter", "FORWARD", number),)


def test_what_cannot_be_sent_is_refused(room: Room) -> None:
    for flow in (
        replace(forwarded(4), mark=1),
        replace(forwarded(4), uid=0),
        replace(forwarded(4), iif="eth0"),
        replace(forwarded(4), proto="gre"),
        replace(local(4), src="198.51.100.1"),
    ):
        with pytest.raises(Refused):
            room.send(flow)


def test_rules_the_kernel_refuses_are_named(room: Room) -> None:
    with pytest.raises(LoadError, match="NOWHERE"):
        room.load(save("filter FORWARD -j NOWHERE"))


def test_nfacct_objects_are_made(room: Room) -> None:
    room.load(save("filter FORWARD -m nfacct --nfacct-name seen_pkts"))
    assert sent(room, forwarded(4)).matched == (("filter", "FORWARD", 1),)


def test_loading_replaces_all_tables_of_its_family_only(room: Room) -> None:
    room.load(save("raw PREROUTING -j DROP"), 4)
    room.load(save("filter FORWARD -j DROP"), 6)
    room.load(save("filter FORWARD -p tcp"), 4)
    assert sent(room, forwarded(4)).matched == (("filter", "FORWARD", 1),)
    assert sent(room, forwarded(6)).verdict == "dropped"


def test_a_cut_text_has_every_line_once_and_short_transactions() -> None:
    text = save(*(f"filter C{number} -p tcp -j DROP" for number in range(7)), "nat OUTPUT -j ACCEPT")
    parts = list(transactions(text, 4))
    assert all(len(part.splitlines()) <= 6 for part in parts)
    lines = [line for part in parts for line in part.splitlines() if line[0] in ":-"]
    assert lines == [line for line in text.splitlines() if line[0] in ":-"]


@pytest.mark.parametrize("local_process", [False, True])
def test_frequencies_are_those_of_the_statistic_match(room: Room, local_process: bool) -> None:
    chain = "OUTPUT" if local_process else "PREROUTING"
    rules = [
        f"nat {chain} -p tcp -m statistic --mode random --probability 0.5 -j DNAT --to-destination 10.2.0.3:81",
        f"nat {chain} -p tcp -j DNAT --to-destination 10.3.0.4:82",
    ]
    room.load(save(*rules))
    reached = room.frequencies(local(4) if local_process else forwarded(4), 1000)
    assert reached.total() == 1000
    assert set(reached) == {("10.2.0.3", 81), ("10.3.0.4", 82)}
    assert min(reached.values()) > 400  # 6 standard deviations


@pytest.mark.parametrize(("family", "proto"), [(4, "udp"), (4, "sctp"), (6, "tcp"), (6, "udp")])
def test_frequencies_count_every_packet_once(room: Room, family: int, proto: str) -> None:
    for flow in (forwarded(family, 80, proto), local(family, 80, proto)):
        assert room.frequencies(flow, 120) == Counter({(SERVER[family], 80): 120})
    here = replace(forwarded(family, 80, proto), dst=DEVICE[family])
    assert room.frequencies(here, 60) == Counter({(DEVICE[family], 80): 60})
    looped = replace(local(family, 80, proto), dst=LOOPBACK[family])
    assert room.frequencies(looped, 60) == Counter({(LOOPBACK[family], 80): 60})


STATES = [f"filter {chain} -m conntrack --ctstate ESTABLISHED" for chain in BASE["filter"]]


@families
@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp", "icmp"])
@pytest.mark.parametrize("from_here", [False, True])
def test_a_second_packet_is_established_and_meets_no_nat_rule(
    room: Room, family: int, proto: str, from_here: bool
) -> None:
    target = OTHER[family]
    room.load(
        save(
            *STATES,
            *(f"nat {c} -d {SERVER[family]} -j DNAT --to-destination {target}" for c in ("PREROUTING", "OUTPUT")),
        ),
        family,
    )
    dport, proto = (0, ICMP[family]) if proto == "icmp" else (80, proto)
    flow = (local if from_here else forwarded)(family, dport, proto)
    assert sent(room, flow).matched == (("nat", "OUTPUT" if from_here else "PREROUTING", 1),)
    seen = sent(room, flow, "established")
    assert seen.matched == (("filter", "OUTPUT" if from_here else "FORWARD", 1),)
    assert (seen.verdict, seen.out, seen.final.dst) == ("left", "out1", target)


@families
@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp", "icmp"])
@pytest.mark.parametrize("from_here", [False, True])
def test_a_reply_is_translated_back(room: Room, family: int, proto: str, from_here: bool) -> None:
    target = OTHER[family]
    nat = (f"nat {c} -d {SERVER[family]} -j DNAT --to-destination {target}" for c in ("PREROUTING", "OUTPUT"))
    room.load(save(*STATES, *nat, "nat POSTROUTING -j MASQUERADE"), family)
    dport, proto = (0, ICMP[family]) if proto == "icmp" else (80, proto)
    flow = (local if from_here else forwarded)(family, dport, proto)
    seen = sent(room, flow, "reply")
    assert seen.matched == (("filter", "INPUT" if from_here else "FORWARD", 1),)
    assert (seen.sent.src, seen.final.src) == (target, SERVER[family])
    if from_here:
        assert (seen.verdict, seen.out) == ("delivered", "local")
    else:
        assert (seen.verdict, seen.out, seen.final.dst) == ("left", "in0", CLIENT[family])


@families
@pytest.mark.parametrize("proto", ["tcp", "udp", "sctp", "icmp"])
@pytest.mark.parametrize("from_here", [False, True])
def test_the_device_answers_what_is_redirected_to_it(room: Room, family: int, proto: str, from_here: bool) -> None:
    rules = [*STATES, "nat PREROUTING -j REDIRECT", "nat OUTPUT ! -o lo -j REDIRECT"]
    room.load(save(*rules), family)
    dport, proto = (0, ICMP[family]) if proto == "icmp" else (8080, proto)
    flow = (local if from_here else forwarded)(family, dport, proto)
    seen = sent(room, flow, "established")
    established = (("filter", "OUTPUT", 1),) if from_here else ()
    assert seen.matched == (*established, ("filter", "INPUT", 1))
    assert (seen.verdict, seen.final.dst) == ("delivered", (LOOPBACK if from_here else DEVICE)[family])
    answer = sent(room, flow, "reply")
    assert answer.final.src == SERVER[family]
    if from_here:
        assert (answer.verdict, answer.matched) == ("delivered", (("filter", "OUTPUT", 1), ("filter", "INPUT", 1)))
    else:
        assert (answer.verdict, answer.out, answer.matched) == ("left", "in0", (("filter", "OUTPUT", 1),))


def test_nobody_answers_a_dropped_packet(room: Room) -> None:
    room.load(save("filter FORWARD -j DROP"))
    with pytest.raises(Refused, match="dropped"):
        room.send(forwarded(4), "established")


def test_the_trace_says_what_the_rules_counters_say(room: Room) -> None:
    rules = [f"filter FORWARD -p tcp --dport {port}:90 -j C{port % 3}" for port in range(80, 90)]
    rules += [f"filter C{number} -p tcp --dport {port}" for number in range(3) for port in range(80, 91, 2)]
    rules += [
        "filter C1 -m statistic --mode random --probability 0.3 -j DROP",
        "mangle POSTROUTING -j MARK --set-mark 1",
    ]
    room.load(save(*rules))
    seen = room.send_all([forwarded(4, 80 + number % 12) for number in range(240)])
    assert all(one.complete for one in seen)
    traced = Counter(place for one in seen for place in one.matched)
    counted: Counter[tuple[str, str, int]] = Counter()
    number: Counter[tuple[str, str]] = Counter()
    for line in room.run("iptables-nft-save", "-c").splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif rule := re.match(r"\[(\d+):\d+\] -A (\S+)", line):
            number[table, rule[2]] += 1
            counted[table, rule[2], number[table, rule[2]]] += int(rule[1])
    assert +counted == traced
    assert traced.total() > 1000


@pytest.mark.parametrize("direction", ["first", "established", "reply"])
def test_an_overrun_trace_is_never_an_answer(direction: str) -> None:
    with Room() as room:
        room.load(save(*(f"filter FORWARD -p tcp -m comment --comment {number}" for number in range(60))))
        assert len(sent(room, forwarded(4), direction).matched) == 60
        room.shrink_trace_buffer(4096)
        seen = room.send(forwarded(4), direction)
        assert not seen.complete
        assert "overran" in seen.why


def test_the_room_ends_with_its_parent_even_on_sigkill() -> None:
    script = "from kernel.room import Room; room = Room(); print(room.pid, flush=True); input()"
    folder = str(Path(__file__).resolve().parents[1])
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": folder},
    ) as parent:
        assert parent.stdout is not None
        held = int(parent.stdout.readline())
        assert Path(f"/proc/{held}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
        parent.send_signal(signal.SIGKILL)
    end = time.monotonic() + 20
    while _alive(held):
        assert time.monotonic() < end, "the room outlived its parent"
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def test_an_ordinary_user_has_a_room_too(tmp_path: Path) -> None:
    script = """if True:
        from kernel.flow import Flow, Refused
        from kernel.room import Room
        with Room() as room:
            rules = "".join(f"-A FORWARD -p tcp --dport {port} -j DROP\\n" for port in range(1, 400))
            room.load("*filter\\n:FORWARD ACCEPT [0:0]\\n" + rules + "COMMIT\\n")
            seen = room.send(Flow("10.1.0.2", "10.2.0.2", 399))
            assert seen.complete and seen.matched == (("filter", "FORWARD", 399),), seen
            if not room.maps(1337):
                try:
                    room.send(Flow(None, "10.2.0.2", 80, local=True, uid=1337))
                except Refused as error:
                    assert "1337" in str(error)
                else:
                    raise SystemExit("sent as a user that does not exist")
    """
    command = [sys.executable, "-c", script]
    if os.geteuid() == 0:
        user = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
        tried = subprocess.run([*user, "unshare", "--map-root-user", "--net", sys.executable, "-c", ""])
        if tried.returncode:
            pytest.skip("user 65534 cannot run this Python in a user namespace here")
        command = [*user, *command]
    folder = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": folder, "HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr


def test_it_is_fast_enough_for_thousands_of_flows(room: Room, record_property) -> None:
    text = save(*(f"filter C{n % 8} -p tcp --dport {n} -j ACCEPT" for n in range(45)), "filter FORWARD -j C1")
    start = time.perf_counter()
    for _ in range(5):
        room.load(text)
    load_ms = (time.perf_counter() - start) / 5 * 1000
    start = time.perf_counter()
    for _ in range(100):
        sent(room, forwarded(4))
    flow_ms = (time.perf_counter() - start) / 100 * 1000
    sys.stdout.write(f"{load_ms:.1f} ms per load of 46 rules, {flow_ms:.2f} ms per flow\n")
    record_property("load_ms", load_ms)
    record_property("flow_ms", flow_ms)
    assert flow_ms < 25
