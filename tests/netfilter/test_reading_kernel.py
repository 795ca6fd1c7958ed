"""What format writes, the kernel loads to the same rules: real files, and every option there is, alone and mixed.

iptables-nft-save is the judge: it prints what the kernel holds, and knows nothing of the package.  What a kernel does
not load is left out and counted; there is a least number of what must have been loaded.
"""

import itertools
import re
import sys
from pathlib import Path
from random import Random

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the room with the kernel in it is the package `kernel` beside this

from kernel.flow import LoadError, RoomError
from kernel.room import Room

from bookinfo_lab.netfilter import vocabulary
from bookinfo_lab.netfilter.ruleset import parse

pytestmark = pytest.mark.sandbox
FIREWALLS = Path(__file__).parents[1] / "data" / "firewalls"
REAL = {
    **{f"cluster/iptables/lab-{number}.iptables-save": 4 for number in (0, 1)},
    **{f"cluster/iptables/lab-{number}.ip6tables-save": 6 for number in (0, 1)},
    **{f"cluster/istio/{name}.iptables-save": 4 for name in ("lab-0", "lab-1", "productpage")},
    "iptables/real_kubeadm_flannel_worker1_20230202.rules": 4,
    "iptables/istio-sidecar-current.save": 4,
    "iptables/istio-ambient-inpod.save": 4,
}


@pytest.fixture(scope="module")
def room():
    with Room() as room:
        yield room


def say(line):
    """Shown by ``-rP``, and where the test fails."""
    sys.stdout.write(f"{line}\n")


class Kernel:
    """Loads text, less what this kernel refuses, and prints what it then holds."""

    def __init__(self, room, family):
        self.room, self.family = room, family

    def holds(self, text):
        """What iptables-nft-save prints once ``text`` is loaded: lines without remarks and counters."""
        self.room.load(text, self.family)
        printed = self.room.run("iptables-nft-save" if self.family == 4 else "ip6tables-nft-save")
        lines = [line for line in printed.splitlines() if not line.startswith("#")]
        return [re.sub(r" \[\d+:\d+\]$", "", line) for line in lines]

    def taken(self, text):
        """``text`` without the rules that the kernel refuses, and those; found by halves."""
        lines = text.splitlines(keepends=True)
        rules = [number for number, line in enumerate(lines) if re.match(r"(\[\d+:\d+\] )?-A ", line)]
        others, refused, left = set(range(len(lines))) - set(rules), set(), [rules]
        while left:
            part = left.pop()
            if not self._takes("".join(lines[number] for number in sorted(others | set(part)))):
                middle = len(part) // 2
                left += [part[:middle], part[middle:]] if middle else []
                refused |= set() if middle else set(part)
        kept = "".join(line for number, line in enumerate(lines) if number not in refused)
        return kept, [lines[number].rstrip("\n") for number in sorted(refused)]

    def _takes(self, text):
        try:
            if "--nfacct-name" in text:  # the room makes the objects that are named
                self.room.load(text, self.family)
            else:
                self.room.run("iptables-nft-restore" if self.family == 4 else "ip6tables-nft-restore", given=text)
        except (LoadError, RoomError):
            return False
        return True


def words_of(text):
    """Policies and rules as values, by place."""
    rules = parse(text)
    places = [(table, chain) for table in rules.tables for chain in rules.chains(table)]
    return {place: (rules.policy(*place), rules.rules(*place)) for place in places if rules.count(*place)}


def round_trip(kernel, text):
    """``text`` through the kernel and back as lines; whatever is written of it loads to the same."""
    held = kernel.holds(text)
    assert kernel.holds(parse(text).format()) == held
    again = "".join(f"{line}\n" for line in held)
    assert kernel.holds(parse(again).format()) == held
    return again


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_a_real_files_rules_go_through_the_kernel_unchanged(room, data_folder, name):
    kernel = Kernel(room, REAL[name])
    text, refused = kernel.taken((data_folder / name).read_text())
    again = round_trip(kernel, text)
    assert words_of(again) == words_of(text)
    count = len(list(parse(text).every_rule()))
    say(f"{name}: {count} rules loaded, {len(refused)} refused")
    if not room.maps(1337, 1337):  # a user without a range of ids of his own cannot name Istio's
        refused = [line for line in refused if "-m owner" not in line]
    assert count >= 8
    assert len(refused) <= count * 0.05, refused


@pytest.mark.parametrize("name", sorted(path.stem for path in FIREWALLS.glob("*.save")))
def test_a_distributions_rules_go_through_the_kernel_unchanged(room, name):
    kernel = Kernel(room, 6 if name.endswith("-ip6") else 4)
    text, refused = kernel.taken((FIREWALLS / f"{name}.save").read_text())
    again = round_trip(kernel, text)
    assert words_of(again) == words_of(text)
    count = len(list(parse(text).every_rule()))
    say(f"{name}: {count} rules loaded, {len(refused)} refused")
    assert count >= 20
    assert len(refused) <= count * 0.1, refused


# Every option, in values that the kernel takes.  A sample is (module, text); what must stand with it is in NEEDS.

SAMPLES = [
    *(("", text) for text in ("-s 10.1.2.3", "! -s 10.0.0.0/8", "-d 10.1.2.3/255.0.255.0", "-d 0.0.0.0/1")),
    *(("", text) for text in ("-i eth+", "! -i in0", "-p 47", "! -p sctp", "-p all", "-f", "! -f")),
    *(("", text) for text in ("-o out0", "! -o veth+")),
    *(
        ("tcp", text)
        for text in ("--sport 1024:", "--dport 80", "! --dport :1023", "--syn", "! --syn", "--tcp-option 7")
    ),
    *(("tcp", text) for text in ("--tcp-flags SYN,RST,ACK SYN", "! --tcp-flags ALL NONE", "--sport 5 ! --dport 7:9")),
    *((name, text) for name in ("udp", "udplite", "sctp", "dccp") for text in ("--sport 53", "! --dport 1:1023")),
    *(("sctp", text) for text in ("--chunk-types all INIT", "--chunk-types any DATA,SACK")),
    *(("dccp", text) for text in ("--dccp-types REQUEST,RESPONSE", "--dccp-option 5")),
    *(("icmp", f"--icmp-type {value}") for value in ("8", "3/4", "any", "echo-reply", "fragmentation-needed")),
    ("icmp", "! --icmp-type 8"),
    *(("icmp6", f"--icmpv6-type {value}") for value in ("128", "1/3", "neighbour-solicitation", "echo-reply")),
    *(("multiport", f"--{name} 80,443,8000:8010") for name in ("sports", "dports", "ports")),
    ("multiport", "! --dports 1:1024"),
    *(("comment", f"--comment {text}") for text in ("plain", '"two words"', '"\\"it\\\'s\\" 5 \\\\ 6 %"', '"-j DROP"')),
    *(("conntrack", f"--ctstate {text}") for text in ("NEW", "RELATED,ESTABLISHED", "INVALID,UNTRACKED", "SNAT,DNAT")),
    *(("conntrack", f"--ctstatus {text}") for text in ("NONE", "EXPECTED,SEEN_REPLY", "ASSURED", "CONFIRMED")),
    *(("conntrack", text) for text in ("! --ctstate NEW", "--ctproto 6", "! --ctproto udp", "--ctdir ORIGINAL")),
    *(("conntrack", text) for text in ("--ctexpire 5", "! --ctexpire 5:10", "--ctdir REPLY --ctstate ESTABLISHED")),
    *(("conntrack", f"--ct{end} 10.1.2.0/24") for end in ("origsrc", "origdst", "replsrc", "repldst")),
    *(("conntrack", f"! --ct{end} 10.1.2.3") for end in ("origsrc", "repldst")),
    *(("conntrack", f"--ct{end}port 80") for end in ("origsrc", "origdst", "replsrc", "repldst")),
    ("conntrack", "! --ctorigdstport 1000:2000"),
    *(("state", text) for text in ("--state NEW", "! --state RELATED,ESTABLISHED")),
    *(
        (name, text)
        for name in ("mark", "connmark")
        for text in ("--mark 0x4000/0x4000", "! --mark 1337", "--mark 010")
    ),
    *(("addrtype", text) for text in ("--dst-type LOCAL", "! --src-type UNICAST,BROADCAST", "--dst-type MULTICAST")),
    *(("addrtype", f"--dst-type LOCAL --limit-iface-{way}") for way in ("in", "out")),
    *(
        ("owner", text)
        for text in ("--uid-owner 0", "! --gid-owner 0", "--socket-exists", "--gid-owner 0 --suppl-groups")
    ),
    *(("statistic", f"--mode random --probability {text}") for text in ("0.5", "0.33333333349", "0.1", "1")),
    *(("statistic", text) for text in ("--mode random ! --probability 0.2", "--mode nth --every 3 --packet 1")),
    *(("recent", f"--{verb} --name KUBE-SEP-X --rsource") for verb in ("set", "remove", "rcheck")),
    *(
        ("recent", text)
        for text in ("--rcheck --seconds 10800 --reap --name A --rdest", "! --update --hitcount 5 --rttl --name B")
    ),
    ("recent", "--set --name C --mask 255.255.255.0"),
    ("nfacct", "--nfacct-name seen"),
    *(("set", text) for text in ("--match-set pods src,dst", "! --match-set pods src --return-nomatch")),
    *(("set", f"--match-set pods src ! --update-{text}counters") for text in ("", "sub")),
    *(("limit", text) for text in ("--limit 3/min", "--limit 10/sec --limit-burst 20")),
    ("hashlimit", "--hashlimit-upto 3/min --hashlimit-burst 7 --hashlimit-mode srcip,dstport --hashlimit-name a"),
    ("hashlimit", "--hashlimit-above 3/sec --hashlimit-name b --hashlimit-mode srcip --hashlimit-srcmask 24"),
    ("hashlimit", "--hashlimit-upto 1/sec --hashlimit-name c --hashlimit-mode dstip --hashlimit-dstmask 16"),
    (
        "hashlimit",
        "--hashlimit-upto 1/sec --hashlimit-name d --hashlimit-htable-size 64 --hashlimit-htable-max 512",
    ),
    (
        "hashlimit",
        "--hashlimit-upto 1/sec --hashlimit-name f --hashlimit-htable-gcinterval 2000 --hashlimit-htable-expire 20000",
    ),
    ("hashlimit", "--hashlimit 9/sec --hashlimit-name e"),
    *(("connlimit", f"--connlimit-{text}") for text in ("above 5", "upto 3 --connlimit-mask 24 --connlimit-daddr")),
    ("connlimit", "--connlimit-above 2 --connlimit-saddr"),
    *(
        ("physdev", text)
        for text in ("--physdev-in br+", "! --physdev-is-bridged", "--physdev-is-in", "--physdev-is-out")
    ),
    ("physdev", "--physdev-out eth0"),
    *(("rpfilter", text) for text in ("--invert", "--loose --validmark", "--accept-local")),
    *(("socket", text) for text in ("--transparent", "--nowildcard", "--transparent --restore-skmark")),
    *(("pkttype", text) for text in ("--pkt-type broadcast", "! --pkt-type unicast")),
    *(("iprange", text) for text in ("--src-range 10.0.0.1-10.0.0.9", "! --dst-range 10.0.0.7-10.1.0.7")),
    *(("length", text) for text in ("--length 100", "! --length 40:60", "--length 100:65535")),
    *((name, f"--{name}-{how} 5") for name in ("ttl", "hl") for how in ("eq", "gt", "lt")),
    *(("dscp", text) for text in ("--dscp 0x08", "! --dscp 46", "--dscp-class EF")),
    *(("tos", text) for text in ("--tos 0x10/0x3f", "! --tos Minimize-Delay")),
    *(("mac", text) for text in ("--mac-source 02:00:00:00:00:07", "! --mac-source 02:00:00:00:00:07")),
    *(("helper", text) for text in ("--helper ftp", '! --helper "tftp-69"')),
    ("policy", "--dir in --pol none"),
    ("policy", "--dir in --pol ipsec --strict --reqid 1 --spi 0x5 --proto esp --mode transport --next --reqid 2"),
    (
        "policy",
        "--dir in --pol ipsec --strict --mode tunnel --tunnel-src 10.0.0.1/32 --tunnel-dst 10.0.0.2/32",
    ),
    ("rt", "--rt-type 0 --rt-len 24 --rt-0-res"),
    ("rt", "--rt-type 0 --rt-segsleft 1:2"),
    ("rt", "--rt-type 0 --rt-len 24 --rt-0-addrs fd00::1 --rt-0-not-strict"),
]
TARGETS = {
    "filter INPUT": [
        *("ACCEPT", "DROP", "RETURN", "REJECT", "REJECT --reject-with icmp-admin-prohibited", "NFLOG"),
        *('LOG --log-prefix "[UFW BLOCK] "', "LOG --log-level 6 --log-ip-options --log-tcp-options", "LOG"),
        *("LOG --log-tcp-sequence --log-uid --log-macdecode", "NFQUEUE --queue-num 5 --queue-bypass"),
        *("NFQUEUE --queue-balance 0:3 --queue-cpu-fanout", "CONNMARK --set-xmark 0x5/0xff", "USER"),
        *(
            'NFLOG --nflog-prefix "two words" --nflog-group 5 --nflog-size 64 --nflog-threshold 3',
            "SET --add-set pods src",
        ),
        *("SET --del-set pods src,dst", "SET --map-set pods src", "SET --add-set pods src --exist --timeout 5"),
        *("NFLOG --nflog-range 10",),
    ],
    "filter TCP": ["REJECT --reject-with tcp-reset"],
    "raw PREROUTING": [
        *("NOTRACK", "CT --notrack", "CT --zone 5", "CT --zone-orig 5", "CT --zone-reply mark", "TRACE"),
        *("CT --ctevents new,destroy", "CT --expevents new"),
    ],
    "raw UDP": ["CT --helper tftp", "CT --timeout short"],
    "mangle PREROUTING": [
        *(f"MARK --{verb}-mark 0x4000" for verb in ("set", "and", "or", "xor")),
        *("MARK --set-xmark 0x4000/0x0", "MARK --set-mark 0x1/0x3", "CONNMARK --save-mark", "CONNMARK --restore-mark"),
        *(f"CONNMARK --{verb}-mark 0x11" for verb in ("set", "and", "or", "xor")),
        *("CONNMARK --save-mark --nfmask 0xff --ctmask 0xff00", "CONNMARK --restore-mark --mask 0xff"),
        *("DSCP --set-dscp 0x08", "DSCP --set-dscp-class EF", "TOS --set-tos 0x10/0x3f", "TOS --and-tos 0x0f"),
        *("TOS --or-tos 0x04", "TOS --xor-tos 0x04", "TTL --ttl-set 64", "TTL --ttl-dec 1", "TTL --ttl-inc 1"),
        *("HL --hl-set 64", "HL --hl-dec 1", "HL --hl-inc 1"),
    ],
    "mangle TCP": [
        *("TPROXY --on-port 15006 --tproxy-mark 0x539/0xfff", "TPROXY --on-port 15001 --on-ip 127.0.0.1"),
    ],
    "mangle POSTROUTING": ["CLASSIFY --set-class 1:20", "CHECKSUM --checksum-fill"],
    "mangle SYN": ["TCPMSS --set-mss 1360", "TCPMSS --clamp-mss-to-pmtu"],
    "nat TCP": [
        *(f"DNAT --to-destination {text}" for text in ("10.0.0.5", "10.0.0.5:80", "10.0.0.5-10.0.0.9", ":443")),
        *(f"DNAT --to-destination {text}" for text in ("10.0.0.5-10.0.0.9:80-90 --persistent", ":1000-2000 --random")),
        *(
            "DNAT --to-destination 10.0.0.5:80-90/8080",
            "REDIRECT --to-ports 15001",
            "REDIRECT",
            "NETMAP --to 10.5.0.0/16",
        ),
        *("REDIRECT --to-ports 1000-2000 --random",),
    ],
    "nat POSTROUTING": [
        *("MASQUERADE", "MASQUERADE --random-fully", "MASQUERADE --random", "SNAT --to-source 10.0.0.5 --random-fully"),
        *("SNAT --to-source 10.0.0.5-10.0.0.9 --persistent", "SNAT --to-source 10.0.0.5 --random"),
    ],
    "nat POSTROUTING TCP": ["MASQUERADE --to-ports 1024-65535", "SNAT --to-source 10.0.0.5:1024-2048"],
}
# What must stand before a condition for the kernel to take it, and the hooks where it does.
PROTOCOLS = {
    **{name: name for name in ("tcp", "udp", "udplite", "sctp", "dccp", "icmp")},
    "icmp6": "ipv6-icmp",
    "multiport": "tcp",
}
HOOKS = {"owner": "OUTPUT", "-o": "OUTPUT", "--physdev-out": "FORWARD", "--physdev-is-out": "FORWARD"}
HOOKS |= {"--physdev-is-bridged": "FORWARD", "rpfilter": "raw PREROUTING", "socket": "mangle PREROUTING"}
HOOKS |= {"--limit-iface-out": "OUTPUT", "--physdev-in": "FORWARD"}
ONLY = {"icmp6": 6, "hl": 6, "rt": 6, "HL": 6, "icmp": 4, "ttl": 4, "TTL": 4, "-f": 4}
# Nothing of these can be proven here: the kernel of a test machine has them or not.
RARE = {"set", "SET", "helper", "rt", "nfacct", "dccp", "udplite", "policy"}


def of_family(text, family):
    """The sample with addresses of the family."""
    if family == 4:
        return text
    text = re.sub(r"10\.(\d+)\.(\d+)\.(\d+)/255\.0\.255\.0", r"fd00::\1:\2:\3/ffff::ffff:0:0", text)
    text = re.sub(r"0\.0\.0\.0/1\b", "8000::/1", text)
    text = re.sub(r"255\.255\.255\.0", "ffff:ffff::", text)
    text = re.sub(r"127\.0\.0\.1", "::1", text)
    text = re.sub(r"10\.(\d+)\.(\d+)\.(\d+)/(\d+)", lambda found: f"fd00:{found[1]}::/{int(found[4]) + 16}", text)
    text = re.sub(r"(--to-(?:destination|source) )(10[\d.]+)(-10[\d.]+)?:", r"\1[\2\3]:", text)
    text = re.sub(r"10\.(\d+)\.(\d+)\.(\d+)", r"fd00::\1:\2:\3", text)
    return text.replace("icmp-admin-prohibited", "icmp6-adm-prohibited").replace("fd00:5::/32", "fd00:5::/64")


def place_of(condition):
    """(table, chain) where a condition may stand."""
    module, text = condition
    found = [HOOKS[word] for word in (module, *text.split()) if word in HOOKS] or ["filter INPUT"]
    place = next((item for item in found if " " in item), f"filter {found[0]}")
    return tuple(place.split())


def conditioned(conditions):
    """The conditions as one rule has them, with the protocol that they need."""
    protocols = list(dict.fromkeys(PROTOCOLS[module] for module, _ in conditions if module in PROTOCOLS))
    own = [f"-p {name}" for name in protocols] + [text for module, text in conditions if not module]
    return " ".join(own + [f"-m {module} {text}" for module, text in conditions if module])


def targeted(place, target):
    """The rule of a target, with the conditions without which the kernel does not take it."""
    words = place.split()
    chain = {"TCP": "PREROUTING", "UDP": "PREROUTING", "SYN": "FORWARD"}.get(words[1], words[1])
    chain = "INPUT" if words[0] == "filter" else chain
    before = {"TCP": "-p tcp ", "UDP": "-p udp ", "SYN": "-p tcp -m tcp --tcp-flags SYN,RST SYN "}.get(words[-1], "")
    return words[0], chain, f"{before}-j {target}"


BASES = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"),
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}


def text_of(rules):
    """A whole text of (table, chain, rule)."""
    found = []
    for table, chains in BASES.items():
        found += [f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in chains), ":USER - [0:0]"]
        found += [f"-A {chain} {rule}" for its, chain, rule in rules if its == table]
        found.append("COMMIT")
    return "".join(f"{line}\n" for line in found)


def fits(name, family):
    return ONLY.get(name, family) == family


def alone(family):
    """Each sample in a rule of its own."""
    matches = [
        (*place_of((module, text)), of_family(conditioned([(module, text)]), family))
        for module, text in SAMPLES
        if fits(module, family) and fits(text.removeprefix("! "), family)
    ]
    return matches + [
        targeted(place, of_family(target, family))
        for place, targets in TARGETS.items()
        for target in targets
        if fits(target.split()[0], family)
    ]


def mixed(family, count):
    """Rules of several samples: conditions that may stand together, and a target that may stand with them."""
    random = Random(family)
    usual = [item for item in SAMPLES if item[0] not in RARE and fits(item[0], family) and item[1][-2:] != "-f"]
    ends = [
        (place, target)
        for place, found in TARGETS.items()
        for target in found
        if target.split()[0] != "SET" and fits(target.split()[0], family) and "--timeout" not in target
    ]
    made = 0
    while made < count:
        modules = random.sample(sorted({module for module, _ in usual}), random.randint(1, 4))
        conditions = [random.choice([item for item in usual if item[0] == module]) for module in modules]
        places = {place_of(item) for item in conditions} - {("filter", "INPUT")}
        protocols = sum(module in PROTOCOLS or "-p" in text.split() for module, text in conditions)
        if len(places) > 1 or protocols > 1:
            continue
        (table, chain), ending = (
            (*places, ("filter", "INPUT"))[0],
            random.choice(("-j USER", "-g USER", "-j ACCEPT", "")),
        )
        if not places and not protocols:
            table, chain, ending = targeted(*random.choice(ends))
        made += 1
        yield table, chain, of_family(f"{conditioned(conditions)} {ending}".strip(), family)


@pytest.mark.parametrize("family", [4, 6])
def test_every_option_goes_through_the_kernel_unchanged(room, family):
    kernel = Kernel(room, family)
    text, refused = kernel.taken(text_of(alone(family)))
    again = round_trip(kernel, text)
    assert parse(again).unmodelled() == () == parse(text).unmodelled()
    count = len(list(parse(text).every_rule()))
    say(f"IPv{family}: {count} rules loaded, refused: {refused}")
    assert count >= 200


@pytest.mark.parametrize("family", [4, 6])
def test_options_mixed_in_one_rule_go_through_the_kernel_unchanged(room, family):
    kernel = Kernel(room, family)
    given = list(mixed(family, 150))
    text, refused = kernel.taken(text_of(given))
    round_trip(kernel, text)
    count = len(given) - len(refused)
    say(f"IPv{family}: {count} rules loaded, {len(refused)} refused")
    assert count >= 100


def test_there_is_a_sample_of_every_option():
    named = {(module, name) for module, text in SAMPLES for name in re.findall(r"(?<!\S)--?[a-z][\w-]*", text)}
    for target in itertools.chain.from_iterable(TARGETS.values()):
        named |= {(target.split()[0], name) for name in re.findall(r"(?<!\S)--?[a-z][\w-]*", target)}
    assert {("", name) for name in vocabulary.RULE} <= named
    missing = {
        (name, option)
        for known in (vocabulary.MATCHES, vocabulary.TARGETS)
        for name, options in known.items()
        for option in options
    } - named
    assert missing == set()
