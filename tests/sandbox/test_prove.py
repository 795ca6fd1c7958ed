"""One packet in a live mesh, sent as it says, traced by the kernel, and nothing of it left behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from modes import MODES, runner

from bookinfo_lab import proving, sandbox
from bookinfo_lab.netfilter import attempt, comparable, kernel_trace, proof
from bookinfo_lab.netfilter.attempt import Attempt
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.side_by_side import read_events
from bookinfo_lab.netfilter.tables import Chain, parse_save
from bookinfo_lab.sandbox import Sandbox, prove, scenarios, topology
from bookinfo_lab.sandbox.targets import Target
from bookinfo_lab.trace import Outcome, Step, Trace

pytestmark = pytest.mark.sandbox
NOWHERE = "10.244.77.77"  # a pod address that no pod has


@pytest.fixture(scope="module")
def mesh() -> Iterator[Sandbox]:
    made = sandbox.up(scenarios.scenario("sidecar"), "prove-tests", keep=False)
    yield made
    made.down()


@pytest.fixture(scope="module")
def node(mesh: Sandbox) -> Target:
    return mesh.target("node")


@pytest.fixture(scope="module")
def pod(mesh: Sandbox) -> Target:
    return mesh.target("productpage")


@dataclass(frozen=True)
class Addresses:
    """Who has which address in the mesh, as its objects say."""

    client: str
    node: str
    node_port: int
    pods: dict[str, str]
    services: dict[str, str]


@pytest.fixture(scope="module")
def at(mesh: Sandbox) -> Addresses:
    plan, objects = mesh.topology(), mesh.objects()
    address, port = topology.front_door(plan, objects)
    pods = {
        item["metadata"]["labels"].get("app", ""): item["status"]["podIP"] for item in objects if item["kind"] == "Pod"
    }
    named = {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in objects if item["kind"] == "Service"}
    return Addresses(plan.client, address, port, pods, named)


@dataclass(frozen=True)
class Rules:
    """The part of a Ruleset that a comparison reads."""

    text: str

    def _chains(self, table: str) -> tuple[Chain, ...]:
        return next((item.chains for item in parse_save(self.text) if item.name == table), ())

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(item.name for item in parse_save(self.text))

    def chains(self, table: str) -> tuple[str, ...]:
        return tuple(item.name for item in self._chains(table))

    def policy(self, table: str, chain: str) -> str:
        return next(item.policy for item in self._chains(table) if item.name == chain)

    def lines(self, table: str, chain: str) -> tuple[tuple[int, str], ...]:
        return tuple(enumerate(next(item.rules for item in self._chains(table) if item.name == chain), 1))

    def number(self, table: str, chain: str, *words: str) -> int:
        """The one rule of a chain that holds all of the words."""
        found = [number for number, text in self.lines(table, chain) if all(word in f" {text} " for word in words)]
        assert len(found) == 1, (table, chain, words, found)
        return found[0]

    def line(self, table: str, chain: str, text: str) -> int:
        """The rule of a chain that has this text."""
        return next(number for number, own in self.lines(table, chain) if own == text)

    def jump(self, table: str, chain: str, *words: str) -> str:
        """Where that rule jumps to."""
        return dict(self.lines(table, chain))[self.number(table, chain, *words)].rpartition("-j ")[2]


def save(mesh: Sandbox, target: Target) -> str:
    return mesh.run(target, ["iptables-nft-save"], uid=0).stdout.decode()


def tables(mesh: Sandbox, target: Target) -> str:
    return mesh.run(target, ["nft", "list", "tables"], uid=0).stdout.decode()


def places(made: Attempt) -> list[tuple[str, str]]:
    """(where, verdict) of what the kernel showed, without the tables that hold no rule."""
    trace = kernel_trace.parse(made.trace, made.trace_errors)
    assert made.not_run == ""
    assert trace.losses == ()
    assert kernel_trace.is_watched(trace, made.table), made.trace
    first = kernel_trace.passages(trace, made.table)[0]
    return [(item.where, item.event.verdict) for item in read_events(first, made.handles) if "mangle" not in item.where]


def walk(packet: Packet, steps: list[tuple[str, str]], destination: str, seen_as: str, out: str) -> Trace:
    """A walk written by hand."""
    made = [Step(number, number - 1, *one[:1], "", True, verdict=one[1]) for number, one in enumerate(steps)]
    outcome = Outcome("accept", destination, "", seen_as, 0, out, 1.0, (), "", "", len(made) - 1, "")
    return Trace(str(packet), tuple(made), (outcome,), subject=packet)


def veth(mesh: Sandbox, node: Target, address: str) -> str:
    """The node's end of a pod's cable, as the node's own routes say."""
    routes = json.loads(mesh.run(node, ["ip", "-j", "route", "get", address]).stdout)
    return str(routes[0]["dev"])


# What the kernel shows


def test_a_node_port_is_walked_as_kube_proxys_rules_say(mesh: Sandbox, node: Target, at: Addresses) -> None:
    rules = Rules(save(mesh, node))
    port = f" --dport {at.node_port} "
    ports = rules.number("nat", "KUBE-SERVICES", "--dst-type LOCAL")
    entries = [n for n, text in rules.lines("nat", "KUBE-NODEPORTS") if port in text and "127.0.0.0/8" not in text]
    (entry,) = entries
    ext = dict(rules.lines("nat", "KUBE-NODEPORTS"))[entry].rpartition("-j ")[2]
    service = ext.replace("EXT", "SVC")
    sep = rules.jump("nat", service, " -> ")
    steps = [
        ("nat PREROUTING 1", "jump KUBE-SERVICES"),
        (f"nat KUBE-SERVICES {ports}", "jump KUBE-NODEPORTS"),
        (f"nat KUBE-NODEPORTS {entry}", f"jump {ext}"),
        (f"nat {ext} 1", "jump KUBE-MARK-MASQ"),
        ("nat KUBE-MARK-MASQ 1", "continue"),
        (f"nat {ext} 2", f"jump {service}"),
        (f"nat {service} {rules.number('nat', service, ' -> ')}", f"jump {sep}"),
        (f"nat {sep} 2", "dnat"),
        ("filter FORWARD 1", "jump KUBE-PROXY-FIREWALL"),
        ("filter FORWARD 2", "jump KUBE-FORWARD"),
        ("filter KUBE-FORWARD 2", "accept"),
        ("nat POSTROUTING 1", "jump KUBE-POSTROUTING"),
        ("nat KUBE-POSTROUTING 2", "continue"),
        ("nat KUBE-POSTROUTING 3", "masquerade"),
    ]
    packet = Packet(at.client, None, at.node, at.node_port, iif="eth0")
    made = prove.prove(mesh, node, packet)
    gateway = at.pods["istio-ingressgateway"]
    trace = walk(packet, steps, f"{gateway}:8080", at.node, veth(mesh, node, gateway))
    found = proof.compare(trace, made, rules)
    assert found.verdict == "agree", found.as_text()
    assert "14 matching rules" in found.reason
    assert made.answer == "connected"
    wrong = walk(packet, [*steps[:7], (f"nat {sep} 1", "jump KUBE-MARK-MASQ"), *steps[8:]], f"{gateway}:8080", "", "")
    assert proof.compare(wrong, made, rules).verdict == "differ"
    assert (
        proof.compare(replace(trace, outcomes=(replace(trace.outcomes[0], seen_as=at.client),)), made, rules).verdict
        == "differ"
    )


def test_the_application_is_redirected_and_the_proxy_is_not(mesh: Sandbox, pod: Target, at: Addresses) -> None:
    own, service = at.pods["productpage"], at.services["details"]
    rules = Rules(save(mesh, pod))
    last = rules.number("nat", "ISTIO_OUTPUT", "-j ISTIO_REDIRECT")
    assert places(prove.prove(mesh, pod, Packet(own, None, service, 9080, local=True, uid=0))) == [
        ("nat OUTPUT 1", "jump ISTIO_OUTPUT"),
        (f"nat ISTIO_OUTPUT {last}", "jump ISTIO_REDIRECT"),
        ("nat ISTIO_REDIRECT 1", "accept"),
        ("policy nat POSTROUTING", "accept"),
    ]
    if mesh.users == "single":
        proxy = Packet(own, None, service, 9080, local=True, mark=0x539)
        returns = rules.line("nat", "ISTIO_OUTPUT", "-m mark --mark 0x539 -j RETURN")
    else:
        proxy = Packet(own, None, service, 9080, local=True, uid=1337, gid=1337)
        returns = rules.line("nat", "ISTIO_OUTPUT", "-m owner --uid-owner 1337 -j RETURN")
    assert places(prove.prove(mesh, pod, proxy)) == [
        ("nat OUTPUT 1", "jump ISTIO_OUTPUT"),
        (f"nat ISTIO_OUTPUT {returns}", "return"),
        ("policy nat OUTPUT", "accept"),
        ("policy nat POSTROUTING", "accept"),
    ]


def test_the_gid_counts_by_itself(mesh: Sandbox, pod: Target, at: Addresses) -> None:
    if mesh.users == "single":
        pytest.skip("only root's group exists here")
    rules = Rules(save(mesh, pod))
    returns = rules.line("nat", "ISTIO_OUTPUT", "-m owner --gid-owner 1337 -j RETURN")
    packet = Packet(at.pods["productpage"], None, at.services["details"], 9080, local=True, uid=0, gid=1337)
    assert places(prove.prove(mesh, pod, packet))[1] == (f"nat ISTIO_OUTPUT {returns}", "return")


def test_what_comes_into_a_pod_comes_from_the_pod_that_has_the_address(
    mesh: Sandbox, pod: Target, at: Addresses
) -> None:
    own, peer = at.pods["productpage"], at.pods["details"]
    made = prove.prove(mesh, pod, Packet(peer, 45000, own, 9080, iif="eth0"))
    assert [place for place, _ in places(made)] == [
        "nat PREROUTING 1",
        "nat ISTIO_INBOUND 5",
        "nat ISTIO_IN_REDIRECT 1",
        "policy nat INPUT",
    ]
    assert made.conntrack is not None
    assert f"src={peer} dst={own} sport=45000 dport=9080" in made.conntrack[0]
    assert "as its proxy" in made.notes[0]


def test_each_endpoint_that_chance_may_choose_agrees_with_one_branch(
    mesh: Sandbox, node: Target, at: Addresses
) -> None:
    rules = Rules(save(mesh, node))
    service = rules.jump("nat", "KUBE-SERVICES", f"-d {at.services['reviews']}/32")
    endpoints = [(number, text.rpartition("-j ")[2]) for number, text in rules.lines("nat", service) if "-> " in text]
    assert len(endpoints) == 3
    entry = rules.number("nat", "KUBE-SERVICES", f"-d {at.services['reviews']}/32")
    packet = Packet(at.pods["productpage"], None, at.services["reviews"], 9080)
    steps: list[Step] = []
    outcomes = []

    def add(parent: int, where: str, verdict: str) -> int:
        steps.append(Step(len(steps), parent, where, "", True, verdict=verdict))
        return len(steps) - 1

    trunk = add(add(-1, "nat PREROUTING 1", "jump KUBE-SERVICES"), f"nat KUBE-SERVICES {entry}", f"jump {service}")
    for number, sep in endpoints:
        last = add(add(trunk, f"nat {service} {number}", f"jump {sep}"), f"nat {sep} 2", "dnat")
        for place in range(1, 5):
            jumped = ["KUBE-PROXY-FIREWALL", "KUBE-FORWARD", "KUBE-SERVICES", "KUBE-EXTERNAL-SERVICES"][place - 1]
            last = add(last, f"filter FORWARD {place}", f"jump {jumped}")
        last = add(last, "policy filter FORWARD", "accept")
        last = add(add(last, "nat POSTROUTING 1", "jump KUBE-POSTROUTING"), "nat KUBE-POSTROUTING 1", "return")
        last = add(last, "policy nat POSTROUTING", "accept")
        address = dict(rules.lines("nat", sep))[2].rpartition(" ")[2]
        outcomes.append(Outcome("accept", address, "kept", str(packet.src), 0, "", 1 / 3, (), "", "", last, ""))
    trace = Trace(str(packet), tuple(steps), tuple(outcomes), subject=packet)
    seen = set()
    for _ in range(40):
        found = proof.compare(trace, prove.prove(mesh, node, packet), rules)
        assert found.verdict == "agree", found.as_text()
        assert found.branch is not None
        seen.add(found.branch[0])
        if len(seen) == 3:
            break
    assert seen == {1, 2, 3}  # 40 draws of three miss one in a case of four million


def test_a_service_without_endpoints_is_seen_to_be_rejected(mesh: Sandbox, node: Target, at: Addresses) -> None:
    port = {"name": "http", "port": 80, "targetPort": 80, "nodePort": 32123}
    mesh.apply(
        [topology.service("empty", "default", "10.96.77.1", [port], selector={"app": "nobody"}, kind="NodePort")]
    )
    try:
        made = prove.prove(mesh, node, Packet(at.client, None, at.node, 32123, iif="eth0"))
        assert places(made)[-1][0].startswith("filter KUBE-EXTERNAL-SERVICES ")
        assert places(made)[-1][1] == "drop"
        assert made.answer == "Connection refused"
        assert made.conntrack == ()
    finally:
        mesh.delete("Service", "default", "empty")


def test_rules_that_change_between_walk_and_proof_are_noticed(mesh: Sandbox, node: Target, at: Addresses) -> None:
    rules, packet = Rules(save(mesh, node)), Packet(at.client, None, at.node, at.node_port, iif="eth0")
    port = {"name": "http", "port": 80, "targetPort": 9080}
    mesh.apply([topology.service("newcomer", "default", "10.96.77.2", [port], selector={"app": "details"})])
    try:
        made = prove.prove(mesh, node, packet)
        found = proof.compare(walk(packet, places(made), "", "", ""), made, rules)
        assert found.verdict == "differ"
        assert "the rules changed after the walk, in nat KUBE-SERVICES" in found.reason
    finally:
        mesh.delete("Service", "default", "newcomer")


# How it is sent


@pytest.mark.parametrize("proto", ["udp", "icmp", "sctp"])
def test_other_protocols_are_sent_and_seen_too(mesh: Sandbox, node: Target, at: Addresses, proto: str) -> None:
    ports = (None, None) if proto == "icmp" else (None, 999)
    made = prove.prove(mesh, node, Packet(at.client, ports[0], at.node, ports[1], proto=proto, iif="eth0"))
    assert places(made)[0] == ("nat PREROUTING 1", "jump KUBE-SERVICES")
    assert made.flow is not None
    assert made.flow.proto == proto
    assert made.flow.sport


def test_a_later_packet_of_a_connection_meets_no_nat_rule(mesh: Sandbox, node: Target, at: Addresses) -> None:
    dns = at.services["kube-dns"]
    for packet in (
        Packet(at.client, None, at.node, at.node_port, ct_state="established"),
        Packet(at.pods["productpage"], None, dns, 53, proto="udp", ct_state="established"),
    ):
        assert places(prove.prove(mesh, node, packet)) == [
            ("filter FORWARD 2", "jump KUBE-FORWARD"),
            ("filter KUBE-FORWARD 3", "accept"),
        ]


def test_one_source_port_can_be_used_again_at_once_and_is_new_each_time(
    mesh: Sandbox, node: Target, at: Addresses
) -> None:
    packet = Packet(at.client, 45123, at.node, at.node_port, iif="eth0")
    found = [places(prove.prove(mesh, node, packet)) for _ in range(3)]
    assert found[0] == found[1] == found[2]
    assert ("nat PREROUTING 1", "jump KUBE-SERVICES") in found[0]


def test_a_local_packet_carries_its_mark_and_may_have_a_low_port(mesh: Sandbox, pod: Target, at: Addresses) -> None:
    uid = None if mesh.users == "single" else 1337
    packet = Packet(at.pods["productpage"], 81, NOWHERE, 4321, local=True, uid=uid, mark=0x77)
    made = prove.prove(mesh, pod, packet)
    assert " MARK=0x77 " in made.trace
    assert f"SRC={packet.src} " in made.trace
    assert "SPORT=81 DPORT=4321" in made.trace


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"src": "198.51.100.7"}, "198.51.100.7 is nobody's address"),
        ({"src": "NODE"}, "own address"),
        ({"mark": 4}, "no packet brings one in"),
        ({"ct_state": "invalid"}, "no socket sends"),
        ({"dst": "NODE", "dport": 32099, "ct_state": "established"}, "no connection came about"),
        ({"proto": "dccp"}, "dccp"),
        ({"src": "198.51.100.7", "iif": None, "local": True}, "cannot send from 198.51.100.7"),
        ({"dst": "192.0.2.1"}, "Network is unreachable"),
    ],
)
def test_what_cannot_be_sent_is_not_run_and_says_why(
    mesh: Sandbox, node: Target, at: Addresses, change: dict[str, Any], why: str
) -> None:
    fields = {"src": at.client, "sport": None, "dst": at.node, "dport": 999, "iif": "eth0"} | change
    fields |= {name: at.node for name in ("src", "dst") if fields[name] == "NODE"}
    made = prove.prove(mesh, node, Packet(**fields))
    assert why in made.not_run
    assert made.trace == ""
    assert "\n" not in made.not_run


def test_a_proof_takes_well_under_a_second(mesh: Sandbox, node: Target, at: Addresses) -> None:
    took = sorted(prove.prove(mesh, node, Packet(at.client, None, at.node, at.node_port)).took_ms for _ in range(5))
    assert took[2] < 1000, took


def test_a_record_of_a_live_attempt_is_read_as_it_was(mesh: Sandbox, node: Target, at: Addresses) -> None:
    made = prove.prove(mesh, node, Packet(at.client, None, at.node, at.node_port))
    assert attempt.read(attempt.write(made)) == made


# What stays


def test_no_rule_and_no_table_is_changed(mesh: Sandbox, node: Target, at: Addresses) -> None:
    before = comparable.without_remarks(comparable.without_counters(save(mesh, node))), tables(mesh, node)
    made = prove.prove(mesh, node, Packet(at.client, None, at.node, at.node_port))
    assert made.table in made.handles
    assert (comparable.without_remarks(comparable.without_counters(save(mesh, node))), tables(mesh, node)) == before


def is_clean(mesh: Sandbox, target: Target, seconds: float = 5.0) -> bool:
    """Whether no table of a proof and no monitor is there, after some time for the kernel to remove them."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        sockets = mesh.run(target, ["cat", "/proc/net/netlink"], uid=0).stdout.decode()
        listening = [line for line in sockets.splitlines() if re.match(r"\S+ +12 +\d+ +00000100 ", line)]
        if proving.TABLE not in tables(mesh, target) and not listening:
            return True
        time.sleep(0.02)
    return False


class _Stop(BaseException):
    """What a Ctrl-C in the middle is to the code: an exception that is no Exception."""


@pytest.mark.parametrize("place", ["_wait_until_listening", "_wait_until_read", "_conntrack"])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, _Stop])
def test_an_interrupt_leaves_nothing(
    mesh: Sandbox, node: Target, at: Addresses, monkeypatch: pytest.MonkeyPatch, place: str, kind: type[BaseException]
) -> None:
    there = []

    def interrupted(*_: object) -> None:
        there.append(proving.TABLE in tables(mesh, node))
        raise kind

    monkeypatch.setattr(proving, place, interrupted)
    with pytest.raises(kind):
        prove.prove(mesh, node, Packet(at.client, None, at.node, at.node_port))
    assert there == [True]
    assert is_clean(mesh, node)


KILLED = """
import sys, time
from bookinfo_lab import sandbox
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab import proving
from bookinfo_lab.sandbox import prove
def stay(*_):
    print("there", flush=True)
    time.sleep(60)
proving._wait_until_read = stay
mesh = sandbox.attach(sys.argv[1])
prove.prove(mesh, mesh.target("node"), Packet(sys.argv[2], None, sys.argv[3], int(sys.argv[4])))
"""


def test_a_kill_leaves_nothing(mesh: Sandbox, node: Target, at: Addresses) -> None:
    command = [sys.executable, "-c", KILLED, mesh.name, at.client, at.node, str(at.node_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        assert proving.TABLE in tables(mesh, node)
        os.kill(process.pid, signal.SIGKILL)
    assert is_clean(mesh, node)


def test_two_proofs_side_by_side_do_not_disturb_each_other(mesh: Sandbox, node: Target, at: Addresses) -> None:
    from concurrent.futures import ThreadPoolExecutor

    packets = [Packet(at.client, 46000 + number, at.node, at.node_port) for number in range(4)]
    with ThreadPoolExecutor(2) as pool:
        made = list(pool.map(lambda packet: prove.prove(mesh, node, packet), packets))
    assert len({str(places(one)) for one in made}) == 1
    assert [one.flow.sport for one in made if one.flow] == [46000, 46001, 46002, 46003]
    assert is_clean(mesh, node)


# A monitor that does not see


@pytest.mark.parametrize(
    ("reader", "verdict"),
    [
        ("exec xtables-monitor --trace", "agree"),
        ("xtables-monitor --trace | sed -u '/listening:rule/q'", "not seen"),
        ("xtables-monitor --trace | sed -u '/nat:KUBE-MARK-MASQ/d'", "not seen"),
        ("xtables-monitor --trace | sed -u '/finished:rule/Q'", "not seen"),
        ("xtables-monitor --trace | sed -u 's/^PACKET: 2/PICKET: 2/'", "not seen"),
        ("echo 'No buffer space available' >&2; exec xtables-monitor --trace", "not seen"),
        ("exit 1", "not run"),
    ],
)
def test_a_monitor_that_ends_or_loses_a_line_is_never_agreement(
    mesh: Sandbox, node: Target, at: Addresses, monkeypatch: pytest.MonkeyPatch, reader: str, verdict: str
) -> None:
    packet = Packet(at.client, None, at.node, at.node_port)
    steps = places(prove.prove(mesh, node, packet))
    real = prove.running

    def wrapped(mesh: Sandbox, target: Target, argv: list[str], **more: Any) -> Any:
        return real(mesh, target, ["sh", "-c", reader] if argv[0] == "xtables-monitor" else argv, **more)

    monkeypatch.setattr(prove, "running", wrapped)
    monkeypatch.setattr(proving, "_STEP_S", 1.0)
    made = prove.prove(mesh, node, packet)
    found = proof.compare(walk(packet, steps, "", "", ""), made, Rules(save(mesh, node)))
    assert found.verdict == verdict, found.as_text()


# As each kind of user


AS_USER = """
import json
from bookinfo_lab import sandbox
from bookinfo_lab.netfilter import kernel_trace
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.side_by_side import read_events
from bookinfo_lab.sandbox import prove, topology
mesh = sandbox.attach("users")
node, pod = mesh.target("node"), mesh.target("productpage")
plan, objects = mesh.topology(), mesh.objects()
address, port = topology.front_door(plan, objects)
pods = {item["metadata"]["labels"].get("app"): item["status"]["podIP"] for item in objects if item["kind"] == "Pod"}
own, peer = pods["productpage"], pods["details"]
tried = {
    "node port": (node, Packet(plan.client, None, address, port)),
    "app": (pod, Packet(own, None, peer, 9080, local=True)),
    "uid": (pod, Packet(own, None, peer, 9080, local=True, uid=1337)),
    "mark": (pod, Packet(own, None, peer, 9080, local=True, mark=0x539)),
    "inbound": (pod, Packet(peer, None, own, 9080)),
}
found = {}
for name, (target, packet) in tried.items():
    made = prove.prove(mesh, target, packet)
    trace = kernel_trace.parse(made.trace, made.trace_errors)
    passages = kernel_trace.passages(trace, made.table)
    seen = [item.where for passage in passages for item in read_events(passage, made.handles)]
    found[name] = [made.not_run, kernel_trace.is_watched(trace, made.table), seen, made.notes]
print(json.dumps(found))
"""


@pytest.mark.parametrize("mode", MODES)
def test_each_kind_of_user_can_prove_and_is_told_whose_packet_it_was(mode: str) -> None:
    with runner(mode) as lab:
        done = lab.run("up", "--name", "users")
        assert done.returncode == 0, done.stderr
        argv = lab.command()
        argv[argv.index("-c", argv.index("-P")) + 1 :] = [AS_USER]
        done = subprocess.run(argv, env=lab.env, capture_output=True, text=True, check=False, timeout=60, cwd="/")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert {name: one[:2] for name, one in found.items()} == {name: ["", True] for name in found}
        assert "nat KUBE-MARK-MASQ 1" in found["node port"][2]
        assert "nat ISTIO_REDIRECT 1" in found["app"][2]
        assert "nat ISTIO_IN_REDIRECT 1" in found["inbound"][2]
        is_redirected = {name: "nat ISTIO_REDIRECT 1" in found[name][2] for name in ("uid", "mark")}
        assert is_redirected == {"uid": mode == "single", "mark": mode != "single"}
        assert ("does not exist in this sandbox" in found["uid"][3][0]) == (mode == "single")
