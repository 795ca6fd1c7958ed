"""The sandbox's DNS: the zone as a pure function, messages as bytes, and a server asked by real resolvers."""

import contextlib
import json
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import dnslib
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bookinfo_lab.sandbox import dns, dns_wire, scenarios
from bookinfo_lab.sandbox.zone import Record, Zone, lookup, zone

SVC = "svc.cluster.local."


def service(name, namespace="default", ports=({"name": "http", "port": 80},), **spec):
    meta = {"name": name, "namespace": namespace}
    return {"kind": "Service", "metadata": meta, "spec": {"ports": list(ports), **spec}}


def endpoint_slice(name, *endpoints, namespace="default", ports=({"name": "http", "port": 8080},)):
    meta = {"name": f"{name}-x", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}}
    return {"kind": "EndpointSlice", "metadata": meta, "endpoints": list(endpoints), "ports": list(ports)}


OBJECTS = [
    {"kind": "Namespace", "metadata": {"name": "empty"}},
    service("kube-dns", "kube-system", [{"name": "dns", "port": 53, "protocol": "UDP"}], clusterIP="10.96.0.10"),
    service("web", clusterIP="10.96.0.20", ports=[{"name": "http", "port": 80}, {"name": "tls", "port": 443}]),
    service("dual", clusterIP="10.96.0.21", clusterIPs=["10.96.0.21", "fd00::21"]),
    service("db", clusterIP="None", ports=[{"name": "sql", "port": 5432}]),
    service("nobody", clusterIP="None"),
    service("far", type="ExternalName", externalName="www.example.com"),
    service("near", type="ExternalName", externalName="web.default.svc.cluster.local"),
    service("gone", type="ExternalName", externalName="nope.default.svc.cluster.local"),
    service("self", type="ExternalName", externalName="self.default.svc.cluster.local"),
    service("bogus", type="ExternalName", externalName="a" * 64 + "..x"),
    endpoint_slice("web", {"addresses": ["10.244.0.20"], "conditions": {"ready": True}}),
    endpoint_slice(
        "db",
        {"addresses": ["10.244.0.31"], "hostname": "db-0"},
        {"addresses": ["10.244.0.32"], "conditions": {}},
        {"addresses": ["10.244.0.33"], "conditions": {"ready": False}},
        ports=[{"name": "sql", "port": 5432, "protocol": "TCP"}],
    ),
    endpoint_slice("nobody", {"addresses": ["10.244.0.40"], "conditions": {"ready": False}}),
]


@pytest.fixture(scope="module")
def names() -> Zone:
    return zone(OBJECTS)


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [
        (f"web.default.{SVC}", "A", [("10.96.0.20",)]),
        (f"WEB.Default.{SVC}".upper(), "A", [("10.96.0.20",)]),
        (f"dual.default.{SVC}", "A", [("10.96.0.21",)]),
        (f"dual.default.{SVC}", "AAAA", [("fd00::21",)]),
        (f"db.default.{SVC}", "A", [("10.244.0.31",), ("10.244.0.32",)]),
        (f"db-0.db.default.{SVC}", "A", [("10.244.0.31",)]),
        (f"10-244-0-32.db.default.{SVC}", "A", [("10.244.0.32",)]),
        (f"10-244-0-20.web.default.{SVC}", "A", [("10.244.0.20",)]),
        (f"_http._tcp.web.default.{SVC}", "SRV", [(0, 100, 80, f"web.default.{SVC}")]),
        (f"_tls._tcp.web.default.{SVC}", "SRV", [(0, 100, 443, f"web.default.{SVC}")]),
        (
            f"_sql._tcp.db.default.{SVC}",
            "SRV",
            [(0, 50, 5432, f"db-0.db.default.{SVC}"), (0, 50, 5432, f"10-244-0-32.db.default.{SVC}")],
        ),
        (f"_dns._udp.kube-dns.kube-system.{SVC}", "SRV", [(0, 100, 53, f"kube-dns.kube-system.{SVC}")]),
        ("10-244-0-99.default.pod.cluster.local.", "A", [("10.244.0.99",)]),
        ("20.0.96.10.in-addr.arpa.", "PTR", [(f"web.default.{SVC}",)]),
        ("31.0.244.10.in-addr.arpa.", "PTR", [(f"db-0.db.default.{SVC}",)]),
        ("20.0.244.10.in-addr.arpa.", "PTR", [(f"10-244-0-20.web.default.{SVC}",)]),
        ("1.2." + "0." * 26 + "0.0.d.f.ip6.arpa.", "PTR", [(f"dual.default.{SVC}",)]),
        (f"far.default.{SVC}", "A", [("www.example.com.",)]),
        (f"far.default.{SVC}", "CNAME", [("www.example.com.",)]),
        (f"near.default.{SVC}", "A", [(f"web.default.{SVC}",), ("10.96.0.20",)]),
        ("dns-version.cluster.local.", "TXT", [("1.1.0",)]),
        ("cluster.local.", "NS", [(f"kube-dns.kube-system.{SVC}",)]),
        ("ns.dns.cluster.local.", "A", [("10.96.0.10",)]),
    ],
)
def test_a_name_has_the_records_of_the_specification(names, name, kind, data):
    answer = lookup(names, name, kind)
    assert (answer.rcode, answer.authoritative, answer.authority) == ("NOERROR", True, ())
    assert [record.data for record in answer.answers] == data


@pytest.mark.parametrize(
    ("name", "kind", "rcode"),
    [
        (f"web.default.{SVC}", "AAAA", "NOERROR"),
        (f"web.default.{SVC}", "MX", "NOERROR"),
        (f"web.default.{SVC}", "ANY", "NOERROR"),
        (f"gone.default.{SVC}", "A", "NOERROR"),
        (f"self.default.{SVC}", "A", "NOERROR"),
        ("10-244-0-99.default.pod.cluster.local.", "AAAA", "NOERROR"),
        ("cluster.local.", "A", "NOERROR"),
        (SVC, "A", "NOERROR"),
        (f"default.{SVC}", "A", "NOERROR"),
        (f"empty.{SVC}", "A", "NOERROR"),
        ("empty.pod.cluster.local.", "A", "NOERROR"),
        (f"nope.default.{SVC}", "A", "NXDOMAIN"),
        (f"web.nope.{SVC}", "A", "NXDOMAIN"),
        (f"nope.{SVC}", "A", "NXDOMAIN"),
        (f"nobody.default.{SVC}", "A", "NXDOMAIN"),
        (f"db-1.db.default.{SVC}", "A", "NXDOMAIN"),
        (f"10-244-0-33.db.default.{SVC}", "A", "NXDOMAIN"),
        (f"_nope._tcp.web.default.{SVC}", "SRV", "NXDOMAIN"),
        (f"_http._udp.web.default.{SVC}", "SRV", "NXDOMAIN"),
        (f"a.b.c.web.default.{SVC}", "A", "NXDOMAIN"),
        ("x.default.pod.cluster.local.", "A", "NXDOMAIN"),
        ("999-1-1-1.default.pod.cluster.local.", "A", "NXDOMAIN"),
        ("web.default.cluster.local.", "A", "NXDOMAIN"),
        ("web\\.default.svc.cluster.local.", "A", "NXDOMAIN"),
    ],
)
def test_what_a_name_lacks_is_denied_with_the_zone_s_soa(names, name, kind, rcode):
    answer = lookup(names, name, kind)
    assert (answer.rcode, answer.answers, answer.authoritative) == (rcode, (), True)
    (soa,) = answer.authority
    assert (soa.owner, soa.kind, soa.data[0]) == ("cluster.local.", "SOA", "ns.dns.cluster.local.")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("www.example.com.", "A"),
        (".", "NS"),
        ("notcluster.local.", "A"),
        ("1.2.3.4.in-addr.arpa.", "PTR"),
        ("x.in-addr.arpa.", "PTR"),
        ("20.0.96.10.in-addr.arpa.", "A"),
    ],
)
def test_a_name_outside_the_zone_ends_as_in_coredns_without_an_upstream(names, name, kind):
    answer = lookup(names, name, kind)
    assert (answer.rcode, answer.answers, answer.authority, answer.authoritative) == ("SERVFAIL", (), (), False)


def test_srv_brings_the_addresses_along(names):
    answer = lookup(names, f"_sql._tcp.db.default.{SVC}", "SRV")
    assert answer.additional == (
        Record(f"db-0.db.default.{SVC}", "A", ("10.244.0.31",)),
        Record(f"10-244-0-32.db.default.{SVC}", "A", ("10.244.0.32",)),
    )


def test_another_cluster_domain_is_another_zone():
    other = zone(OBJECTS, "Kube.Example.")
    assert lookup(other, "web.default.svc.kube.example.", "A").answers[0].data == ("10.96.0.20",)
    assert lookup(other, f"web.default.{SVC}", "A").rcode == "SERVFAIL"


@pytest.mark.parametrize("scenario", sorted(scenarios.SCENARIOS))
def test_every_service_of_a_scenario_resolves_to_its_cluster_ip(scenario):
    objects = scenarios.scenario(scenario).objects
    built = zone(objects)
    services = [item for item in objects if item["kind"] == "Service"]
    assert len(services) >= 6
    for item in services:
        name = f"{item['metadata']['name']}.{item['metadata']['namespace']}.{SVC}"
        assert lookup(built, name, "A").answers == (Record(name, "A", (item["spec"]["clusterIP"],)),)


# Messages


def ask(names: Zone, query: dnslib.DNSRecord, transport: str = "udp") -> dnslib.DNSRecord:
    exchange = dns_wire.exchange_of(bytes(query.pack()), names, transport)
    assert exchange is not None
    return dnslib.DNSRecord.parse(exchange.reply)


def test_a_reply_repeats_id_question_and_case(names):
    query = dnslib.DNSRecord.question(f"wEb.dEfault.{SVC}")
    reply = ask(names, query)
    assert (reply.header.id, reply.header.qr, reply.header.aa, reply.header.ra) == (query.header.id, 1, 1, 0)
    assert reply.header.rd == query.header.rd
    assert str(reply.q.qname) == str(reply.a.rname) == f"wEb.dEfault.{SVC}"
    assert reply.a.ttl == 30


def test_edns_is_answered_and_a_long_reply_is_truncated_only_over_udp():
    many = [{"addresses": [f"10.244.{number // 250}.{number % 250 + 1}"]} for number in range(200)]
    names = zone([service("big", clusterIP="None"), endpoint_slice("big", *many)])
    plain = dnslib.DNSRecord.question(f"big.default.{SVC}")
    roomy = dnslib.DNSRecord.question(f"big.default.{SVC}")
    roomy.add_ar(dnslib.EDNS0(udp_len=4096, flags="do"))
    short = ask(names, plain)
    assert (short.header.tc, len(short.rr), short.ar) == (1, 0, [])
    full = ask(names, roomy)
    assert (full.header.tc, len(full.rr)) == (0, 200)
    assert (full.ar[0].edns_len, full.ar[0].edns_do, full.ar[0].edns_ver) == (4096, 1, 0)
    assert len(ask(names, plain, "tcp").rr) == 200


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (dnslib.DNSRecord(dnslib.DNSHeader(opcode=4, rd=1), q=dnslib.DNSQuestion("x.y")), "NOTIMP"),
        (dnslib.DNSRecord(dnslib.DNSHeader(), q=dnslib.DNSQuestion("version.bind", 16, 3)), "REFUSED"),
        (dnslib.DNSRecord(dnslib.DNSHeader(rd=1)), "FORMERR"),
        (dnslib.DNSRecord(dnslib.DNSHeader(), questions=[dnslib.DNSQuestion("x.y")] * 2), "FORMERR"),
        (dnslib.DNSRecord.question(f"bogus.default.{SVC}"), "SERVFAIL"),
        (dnslib.DNSRecord.question(f"web.default.{SVC}", "TYPE65"), "NOERROR"),
    ],
)
def test_what_cannot_be_answered_is_refused_by_its_rcode(names, query, rcode):
    reply = ask(names, query)
    assert dnslib.RCODE[reply.header.rcode] == rcode
    assert (reply.header.id, reply.rr) == (query.header.id, [])


def test_a_newer_edns_is_refused(names):
    query = dnslib.DNSRecord.question(f"web.default.{SVC}")
    query.add_ar(dnslib.EDNS0(version=1, udp_len=1232))
    reply = ask(names, query)
    assert reply.ar[0].edns_rcode << 4 | reply.header.rcode == 16


HEADER = struct.pack("!HHHHHH", 7, 0x0100, 1, 0, 0, 0)


@pytest.mark.parametrize(
    "query",
    [
        b"",
        HEADER[:11],
        struct.pack("!HHHHHH", 7, 0x8180, 1, 0, 0, 0) + b"\1x\0\0\1\0\1",
    ],
)
def test_noise_and_responses_get_no_reply(names, query):
    assert dns_wire.exchange_of(query, names, "udp") is None


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"\3we",
        b"\3web\0\0\1",
        b"\xc0\x0c\0\1\0\1",  # a pointer to itself
        b"\x05\x01a\xc0\x14\xc0\x0e\xc0\x0d" + b"\0\1\0\1",  # pointers in a circle
        b"\xc0\xff\0\1\0\1",  # a pointer forwards
        b"\x40" + b"a" * 64 + b"\0\0\1\0\1",  # a label of 64 bytes
        (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1",  # a name of 257 bytes
        b"\1\xff\0\0\1\0\1",
    ],
)
def test_a_name_that_cannot_be_read_is_a_format_error(names, rest):
    exchange = dns_wire.exchange_of(HEADER + rest, names, "udp")
    assert exchange is not None
    reply = dnslib.DNSRecord.parse(exchange.reply)
    assert (reply.header.id, dnslib.RCODE[reply.header.rcode]) == (7, "FORMERR")


def test_a_chain_of_pointers_deeper_than_the_stack_is_a_format_error(names):
    header = struct.pack("!HHHHHH", 7, 0x0100, 1, 1, 0, 1)
    question = b"\0\0\1\0\1"
    start = len(header) + len(question) + 11
    chain = b"\0" + b"".join(struct.pack("!H", 0xC000 | max(start, start - 1 + 2 * step)) for step in range(4000))
    carrier = b"\0" + struct.pack("!HHIH", 16, 1, 0, len(chain)) + chain
    last = struct.pack("!HHHIH", 0xC000 | start + len(chain) - 2, 1, 1, 0, 0)
    exchange = dns_wire.exchange_of(header + question + carrier + last, names, "tcp")
    assert exchange is not None
    assert exchange.outcome.startswith("FORMERR")


def test_a_dot_inside_a_label_is_no_dot_between_labels(names):
    exchange = dns_wire.exchange_of(HEADER + b"\x0bweb.default\3svc\7cluster\5local\0\0\1\0\1", names, "udp")
    assert exchange is not None
    assert exchange.outcome.startswith("NXDOMAIN")


@given(st.binary(max_size=120), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=300)
def test_no_bytes_stop_the_server(rest, questions, additional):
    header = struct.pack("!HHHHHH", 7, 0x0100, questions, 0, 0, additional)
    exchange = dns_wire.exchange_of(header + rest, zone(OBJECTS[:2]), "udp")
    assert exchange is not None
    assert "\n" not in exchange.asked
    assert dnslib.DNSRecord.parse(exchange.reply).header.id == 7


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=4))
@settings(max_examples=200)
def test_no_label_can_pass_for_another_name_or_break_the_log(labels):
    wire_name = b"".join(bytes([len(label)]) + label for label in labels) + b"\7cluster\5local\0"
    exchange = dns_wire.exchange_of(HEADER + wire_name + b"\0\1\0\1", zone(OBJECTS), "udp")
    assert exchange is not None
    assert exchange.asked.isprintable()
    assert "NOERROR" not in exchange.outcome or labels[-1].lower() in (b"svc", b"pod")


def test_the_log_line_is_coredns(names):
    query = dnslib.DNSRecord.question("Kube-dns.kube-system.svc.cluster.local")
    query.header.id = 29008
    exchange = dns_wire.exchange_of(bytes(query.pack()), names, "udp")
    assert exchange is not None
    # Sizes as CoreDNS prints them, without name compression: 12 + (40 + 4) and as much again + 10 + 4 - 4.
    assert exchange.asked == '29008 "A IN kube-dns.kube-system.svc.cluster.local. udp 56 false 512"'
    assert exchange.outcome == "NOERROR qr,aa,rd 110"


# The server


def free_port() -> int:
    """A port free for both transports, below those that the kernel gives to clients: none can take it meanwhile."""
    while True:
        port = random.randrange(20000, 32768)
        with (
            socket.socket() as tcp,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            contextlib.suppress(OSError),
        ):
            tcp.bind(("", port))
            udp.bind(("", port))
            return port


class Server:
    def __init__(self, folder: Path) -> None:
        self.objects = folder / "objects.json"
        self.replace(OBJECTS)
        self.log = folder / "log"
        self.port = free_port()
        script = f"""
            from bookinfo_lab.sandbox import dns, zone
            dns.serve_forever(dns.following({str(self.objects)!r}, zone.zone([])), "127.0.0.1", {self.port})
        """
        with self.log.open("wb") as log:
            command = [sys.executable, "-c", textwrap.dedent(script)]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        end = time.monotonic() + 10
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end
            time.sleep(0.005)

    def replace(self, objects: object) -> None:
        new = self.objects.with_suffix(".new")
        new.write_text(json.dumps(objects))
        new.replace(self.objects)

    def ask(self, name: str, kind: str = "A", *, tcp: bool = False) -> dnslib.DNSRecord:
        query = dnslib.DNSRecord.question(name, kind)
        return dnslib.DNSRecord.parse(query.send("127.0.0.1", self.port, tcp=tcp, timeout=5))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("dns"))
    yield made
    made.process.terminate()
    assert made.process.wait(5) == 0
    assert "Traceback" not in made.log.read_text()


@pytest.mark.parametrize("tcp", [False, True])
def test_the_server_answers_over_both_transports(server, tcp):
    reply = server.ask(f"db.default.{SVC}", tcp=tcp)
    assert sorted(str(record.rdata) for record in reply.rr) == ["10.244.0.31", "10.244.0.32"]


def test_one_tcp_connection_carries_many_queries_also_byte_by_byte(server):
    query = bytes(dnslib.DNSRecord.question(f"web.default.{SVC}").pack())
    with socket.create_connection(("127.0.0.1", server.port), 5) as connection, connection.makefile("rb") as stream:
        for _ in range(3):
            for byte in struct.pack("!H", len(query)) + query:
                connection.sendall(bytes([byte]))
            (length,) = struct.unpack("!H", stream.read(2))
            assert str(dnslib.DNSRecord.parse(stream.read(length)).a.rdata) == "10.96.0.20"


def test_noise_on_both_transports_does_not_stop_the_server(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as noise:
        for length in (0, 1, 11, 12, 13, 500):
            noise.sendto(os.urandom(length), ("127.0.0.1", server.port))
    for sent in (b"\0", b"\0\5ab", b"\xff\xff" + b"x" * 100, b"\0\0"):
        with socket.create_connection(("127.0.0.1", server.port), 5) as connection:
            connection.sendall(sent)
    assert str(server.ask(f"web.default.{SVC}").a.rdata) == "10.96.0.20"


def test_changed_objects_change_the_answers_and_broken_ones_do_not(server):
    added = service("late", clusterIP="10.96.0.77")
    server.replace([*OBJECTS, added])
    assert str(server.ask(f"late.default.{SVC}").a.rdata) == "10.96.0.77"
    server.replace([{"kind": "Service"}])
    assert str(server.ask(f"late.default.{SVC}").a.rdata) == "10.96.0.77"
    server.replace(OBJECTS)
    assert server.ask(f"late.default.{SVC}").header.rcode == dnslib.RCODE.NXDOMAIN


def test_each_query_is_one_line_of_the_log(server):
    server.ask("a b\n[INFO] x.example.com")
    end = time.monotonic() + 5
    while not (lines := [line for line in server.log.read_text().splitlines() if "x.example" in line]):
        assert time.monotonic() < end, "no such line"
        time.sleep(0.002)
    (line,) = lines
    pattern = r'\[INFO\] 127\.0\.0\.1:\d+ - \d+ "A IN (\S+) udp \d+ false 512" SERVFAIL qr,rd \d+ 0\.\d{9}s'
    found = re.fullmatch(pattern, line)
    assert found
    assert found[1] == r"a\032b\010[info]\032x.example.com."


def test_dig_reads_the_answers(server):
    if shutil.which("dig") is None:
        pytest.skip("dig is not installed (apt-get install dnsutils)")
    command = ["dig", "+noall", "+answer", "@127.0.0.1", "-p", str(server.port), f"_sql._tcp.db.default.{SVC}", "SRV"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    rows = [line.split() for line in done.stdout.splitlines() if line and not line.startswith(";")]
    assert [row[3:] for row in rows] == [
        ["SRV", "0", "50", "5432", f"db-0.db.default.{SVC}"],
        ["SRV", "0", "50", "5432", f"10-244-0-32.db.default.{SVC}"],
    ]


@pytest.mark.sandbox
def test_the_c_library_resolves_short_names_by_the_search_path(tmp_path):
    """In namespaces of its own: port 53, a pod's resolv.conf, getaddrinfo."""
    resolv = tmp_path / "resolv.conf"
    resolv.write_text(
        "nameserver 127.0.0.1\nsearch default.svc.cluster.local svc.cluster.local cluster.local\noptions ndots:5\n"
    )
    nsswitch = tmp_path / "nsswitch.conf"
    nsswitch.write_text("hosts: files dns\n")
    (tmp_path / "objects.json").write_text(json.dumps(OBJECTS))
    server = f"""
        import json, os, socket, sys
        from bookinfo_lab.sandbox import dns, zone
        udp, tcp = (dns.bound("127.0.0.1", 53, kind) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        names = zone.zone(json.load(open({str(tmp_path / "objects.json")!r})))
        child = os.fork()
        if child == 0:
            os.dup2(2, 1)
            dns.serve(names, udp, tcp)
        found = {{}}
        for name in ("web", "db.default", "near", "nope", "www.example.com"):
            try:
                found[name] = sorted({{item[4][0] for item in socket.getaddrinfo(name, 80)}})
            except socket.gaierror as error:
                found[name] = error.errno
        os.kill(child, 9)
        print(json.dumps(found))
    """
    mounts = (
        f"mount --bind {resolv} /etc/resolv.conf && mount --bind {nsswitch} /etc/nsswitch.conf && ip link set lo up"
    )
    script = f'{mounts} && exec "$0" -c "$1"'
    inside = ["unshare", "--user", "--map-root-user", "--net", "--mount", "sh", "-c", script, sys.executable]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [*inside, textwrap.dedent(server)], capture_output=True, text=True, timeout=30, env=environment
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    # The last name tried is the bare one, outside the zone; C libraries differ in which failure then counts.
    assert found.pop("nope") in (socket.EAI_NONAME, socket.EAI_AGAIN)
    assert found == {
        "web": ["10.96.0.20"],
        "db.default": ["10.244.0.31", "10.244.0.32"],
        "near": ["10.96.0.20"],
        "www.example.com": socket.EAI_AGAIN,
    }


def test_a_taken_port_is_an_error(server):
    with pytest.raises(OSError, match="in use"):
        dns.bound("127.0.0.1", server.port, socket.SOCK_STREAM)


def test_importing_the_module_does_not_import_dnslib():
    script = "import sys, bookinfo_lab.sandbox.dns; print('dnslib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n"
