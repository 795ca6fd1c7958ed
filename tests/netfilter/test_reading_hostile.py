"""parse and format undo each other, over every option there is; and no text does more harm than a `ParseError`."""

import ipaddress
import re
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bookinfo_lab.errors import ParseError
from bookinfo_lab.netfilter import kinds, vocabulary
from bookinfo_lab.netfilter.format_rule import format_rule
from bookinfo_lab.netfilter.parse_rule import parse_rule
from bookinfo_lab.netfilter.rule import Match, Option, Rule
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.values import (
    AddressPattern,
    AddressRange,
    IcmpType,
    Masked,
    Numbers,
    PortRange,
    Translation,
)

FIREWALLS = Path(__file__).parents[1] / "data" / "firewalls"
# No database of examples: the checkout may belong to another user than the one who runs the tests.
many = settings(max_examples=250, database=None)
some = settings(max_examples=25, database=None)

NUMBER, BYTE = st.integers(0, 2**32 - 1), st.integers(0, 255)


def ordered(made, first, last=None):
    """``made`` of two values, the smaller first."""
    return st.tuples(first, last or first).map(lambda ends: made(*sorted(ends)))


def prefixes(version, bits):
    numbers = st.tuples(st.integers(0, 2**bits - 1), st.integers(0, bits))
    kind = ipaddress.IPv4Network if version == 4 else ipaddress.IPv6Network
    return numbers.map(lambda pair: kind((pair[0] >> (bits - pair[1]) << (bits - pair[1]), pair[1])))


def is_prefix(mask):
    return "01" not in f"{int(mask):0{mask.max_prefixlen}b}"


def patterns(version):
    """Addresses under a mask that is no prefix."""
    pairs = st.tuples(st.ip_addresses(v=version), st.ip_addresses(v=version).filter(lambda mask: not is_prefix(mask)))
    return pairs.map(lambda pair: AddressPattern(type(pair[0])(int(pair[0]) & int(pair[1])), pair[1]))


def translations(version):
    ends = st.just((None, None)) | st.lists(st.ip_addresses(v=version), min_size=1, max_size=2).map(
        lambda given: (min(given), max(given))
    )
    single = st.builds(lambda port: (PortRange(port, port), None), PORT)
    shifted = st.tuples(PORTS, st.none() | PORT)
    every = st.tuples(ends, st.just((None, None)) | single | shifted)
    return every.filter(lambda found: found != ((None, None), (None, None))).map(
        lambda found: Translation(*found[0], *found[1])
    )


PORT = st.integers(0, 65535)
PORTS = ordered(PortRange, PORT)
NETWORK = prefixes(4, 32) | prefixes(6, 128) | patterns(4) | patterns(6)
MASKED = st.builds(Masked, NUMBER, st.just(2**32 - 1) | NUMBER)
NAME = st.from_regex(r"[A-Za-z0-9_+/.%,:=-][A-Za-z0-9_+/.%,:=!~*-]{0,12}", fullmatch=True)
USER = st.from_regex(r"[a-z_][a-z0-9_-]{0,12}", fullmatch=True)
WORDS = st.lists(st.from_regex(r"[A-Z_]{1,12}", fullmatch=True), min_size=1, max_size=4).map(tuple)
TEXT = st.text(st.characters(exclude_characters="\n", exclude_categories=()), max_size=20)
ICMP = st.builds(IcmpType, BYTE, st.none() | BYTE)
PROTOCOL = st.sampled_from(["all", *kinds.PROTOCOL_NAMES.values(), "gre", "igmp"]) | BYTE.filter(
    lambda number: number and number not in kinds.PROTOCOL_NAMES
).map(str)
# The kernel's steps of 2^-31, and what iptables prints of them.
CHANCE = st.integers(0, 2**31).map(lambda steps: steps / 2**31) | st.integers(0, 10**11).map(lambda n: n / 10**11)


def each(strategy):
    """An option of one value."""
    return strategy.map(lambda value: (value,))


VALUES = {
    kinds.FLAG: st.just(()),
    kinds.TEXT: each(TEXT),
    kinds.NAME: each(NAME),
    kinds.INTEGER: each(NUMBER),
    kinds.HEX: each(NUMBER),
    kinds.NETWORK: each(NETWORK),
    kinds.ADDRESS: each(st.ip_addresses()),
    kinds.ADDRESSES: each(
        ordered(AddressRange, st.ip_addresses(v=4)) | ordered(AddressRange, st.ip_addresses(v=6)),
    ),
    kinds.PROTOCOL: each(PROTOCOL),
    kinds.PORTS: each(PORTS),
    kinds.PORTS_DASH: each(PORTS),
    kinds.PORT_LIST: st.lists(PORTS, min_size=1, max_size=15).map(tuple),
    kinds.MARK: each(MASKED),
    kinds.SET_XMARK: each(MASKED),
    kinds.OWNER: each(ordered(Numbers, NUMBER) | USER),
    kinds.NUMBERS_COLON: each(ordered(Numbers, NUMBER)),
    kinds.WORDS: each(WORDS),
    kinds.TCP_FLAGS: st.tuples(WORDS, WORDS),
    kinds.ICMP_TYPE: each(st.just(IcmpType(None, None)) | ICMP),
    kinds.ICMPV6_TYPE: each(ICMP),
    kinds.PROBABILITY: each(CHANCE),
    kinds.TRANSLATION: each(translations(4) | translations(6)),
    kinds.SET: st.tuples(NAME, NAME),
}
UNKNOWN = st.builds(
    Option,
    st.from_regex(r"--zz-[a-z]{1,8}", fullmatch=True),
    st.lists(TEXT.filter(lambda text: not re.match(r"--?[A-Za-z]|!", text)), max_size=3).map(tuple),
    st.booleans(),
    st.just(False),
)


def own_names(options):
    """Those that are read under their own name; the others are spellings of them."""
    return sorted(name for name in options if vocabulary.ALIASES.get(name, name) == name)


def options(known, is_match=True):
    """Options of one match or target, each at most once, in any order, with one that is not modelled now and then."""
    names = own_names(known)
    negated = st.booleans() if is_match else st.just(False)
    some_of = st.lists(st.sampled_from(names), unique=True, max_size=5) if names else st.just([])
    made = some_of.flatmap(
        lambda chosen: st.tuples(*(st.builds(Option, st.just(name), VALUES[known[name]], negated) for name in chosen))
    )
    return st.tuples(made, st.lists(UNKNOWN if is_match else UNKNOWN.map(plain), max_size=1)).map(
        lambda parts: (*parts[0], *parts[1])
    )


def plain(option):
    return Option(option.name, option.values, False, known=False)


def match(module):
    return options(vocabulary.MATCHES.get(module, {})).map(lambda found: Match(module, found))


def known_only(found):
    return tuple(option for option in found if option.known)


OWN = options(vocabulary.RULE).map(known_only).map(lambda found: (Match("", found),) if found else ())
MODULES = st.sampled_from([*sorted(vocabulary.MATCHES), "string", "zz"])
MATCHES = st.lists(MODULES.flatmap(match), max_size=4).map(tuple)
CHAIN = st.from_regex(r"[A-Za-z0-9_.:+~%][A-Za-z0-9_.:+~%-]{0,27}", fullmatch=True)


def targets(name):
    known = options(vocabulary.TARGETS.get(name, {}), is_match=False)
    return known.map(lambda found: {"target": name, "target_options": found})


TARGET = (
    st.just({})
    | st.sampled_from([*sorted(vocabulary.TARGETS), "SYNPROXY"]).flatmap(targets)
    | st.builds(lambda name, goto: {"target": name, "is_goto": goto}, CHAIN, st.booleans())
)
RULES = st.builds(lambda own, matches, target: Rule("nat", "A", 1, (*own, *matches), **target), OWN, MATCHES, TARGET)


def test_every_kind_of_value_is_tried():
    every = [*vocabulary.MATCHES.values(), *vocabulary.TARGETS.values(), vocabulary.RULE]
    used = {known[name] for known in every for name in own_names(known)}
    assert used == set(VALUES)


def written_and_read(rule):
    return parse_rule(format_rule(rule), rule.table, rule.chain, rule.number)


@many
@given(RULES)
@example(Rule("nat", "A", 1, (Match("policy", (Option("--proto", ("esp",)),)),)))
def test_what_is_written_reads_back_as_the_same_rule(rule):
    assert written_and_read(rule) == rule


@pytest.mark.parametrize("module", ["", *sorted(vocabulary.MATCHES)])
@some
@given(data=st.data())
def test_each_matchs_options_read_back(module, data):
    known = vocabulary.MATCHES[module] if module else vocabulary.RULE
    for name in own_names(known):
        option = Option(name, data.draw(VALUES[known[name]]), data.draw(st.booleans()))
        rule = Rule("nat", "A", 1, (Match(module, (option,)),), "ACCEPT")
        assert written_and_read(rule) == rule
    drawn = data.draw(match(module) if module else OWN.filter(bool).map(lambda found: found[0]))
    rule = Rule("nat", "A", 1, (drawn,), "ACCEPT")
    assert written_and_read(rule) == rule


@pytest.mark.parametrize("target", sorted(vocabulary.TARGETS))
@some
@given(data=st.data())
def test_each_targets_options_read_back(target, data):
    known = vocabulary.TARGETS[target]
    for name in own_names(known):
        option = Option(name, data.draw(VALUES[known[name]]))
        rule = Rule("nat", "A", 1, (), target, target_options=(option,))
        assert written_and_read(rule) == rule
    rule = Rule("nat", "A", 1, (), target, target_options=data.draw(options(known, is_match=False)))
    assert written_and_read(rule) == rule


@settings(max_examples=25, database=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["raw", "mangle", "nat", "filter", "security"]),
            st.dictionaries(CHAIN, st.tuples(st.sampled_from(["ACCEPT", "DROP", "-"]), st.lists(RULES, max_size=3))),
        ),
        unique_by=lambda pair: pair[0],
        max_size=3,
    )
)
def test_a_whole_text_reads_back_as_the_same_ruleset(tables):
    lines = []
    for name, chains in tables:
        lines += [f"*{name}", *(f":{chain} {policy} [0:0]" for chain, (policy, _) in chains.items())]
        for chain, (_, rules) in chains.items():
            lines += [f"-A {chain} {format_rule(rule)}".rstrip(" ") for rule in rules]
        lines.append("COMMIT")
    text = "".join(f"{line}\n" for line in lines)
    read = parse(text)
    assert read.format() == text
    found = [(rule.matches, rule.target, rule.is_goto, rule.target_options) for rule in read.every_rule()]
    assert found == [
        (rule.matches, rule.target, rule.is_goto, rule.target_options)
        for _, chains in tables
        for _, rules in chains.values()
        for rule in rules
    ]


# Text that nothing has printed

HOSTILE = [
    "\0",
    "\r",
    "\r\n",
    "\v",
    "\x1c",
    "\x85",
    "\u2028",
    "\ud800",
    "\ufeff",
    "²",
    "８０",
    "٣",
    '"',
    "\\",
    '\\"',
    "!",
    "! ",
    " ! ! ",
    "-",
    "--",
    " -A ",
    "COMMIT",
    "\nCOMMIT\n",
    "\n*nat\n",
    "\n#",
    "[",
    "[0:0] ",
    ":x# y\n",
    "9" * 5000,
    "0x" + "f" * 5000,
    "/" * 50,
    "::",
    "%",
    "_",
    "e400",
    "nan",
    "-9",
    '"' * 501,
    '\\"' * 500,
    " " * 5000,
]


def bases():
    names = ("docker-nft.save", "ufw-legacy.save", "firewalld-nft-ip6.save", "shorewall-nft.save")
    return [(FIREWALLS / name).read_text() for name in names]


@st.composite
def mutated(draw):
    """A recorded text after one to five changes: a character, a span, a line; lost, doubled, moved or overwritten."""
    text = draw(st.sampled_from(bases()))
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(text) - 1, 0)))
        end = min(len(text), at + draw(st.sampled_from([1, 1, 2, 5, 40, 400])))
        kind = draw(st.sampled_from(["flip", "insert", "insert", "delete", "double", "move", "line", "cut"]))
        if kind == "flip":
            bit = 1 << draw(st.integers(0, 7))
            text = text[:at] + chr(ord(text[at]) ^ bit if at < len(text) else bit) + text[at + 1 :]
        elif kind == "insert":
            text = text[:at] + draw(st.sampled_from(HOSTILE) | st.text(max_size=3)) + text[at:]
        elif kind == "delete":
            text = text[:at] + text[end:]
        elif kind == "double":
            text = text[:end] + text[at:]
        elif kind == "move":
            to = draw(st.integers(0, len(text)))
            rest = text[:at] + text[end:]
            text = rest[:to] + text[at:end] + rest[to:]
        elif kind == "line":
            lines = text.splitlines(keepends=True)
            number = draw(st.integers(0, max(len(lines) - 1, 0)))
            lines[number : number + 1] = lines[number : number + 1] * draw(st.sampled_from([0, 2, 3]))
            text = "".join(lines)
        else:
            text = text[:at]
    return text


def looked_at(text):
    """All of a text's rules read, or None where the text is refused; nothing but a `ParseError` may be raised.

    In processor time, since other work on the machine is not the parser's.
    """
    start = time.process_time()
    try:
        rules = parse(text)
    except ParseError as error:
        rules = None
        check_error(error, text)
    if rules is not None:
        for error in rules.errors():
            check_error(error, text)
    assert time.process_time() - start < 1
    return rules


def check_error(error, text):
    """An error points at the line it is about."""
    assert text.split("\n")[error.position - 1].rstrip("\r") == error.text.rstrip("\r")


def rule_lines(text):
    """(number, line) of what begins as a rule does, told without the parser."""
    found = enumerate(text.split("\n"), 1)
    return [(number, line) for number, line in found if re.match(r"(\[\d+:\d+\] )?-A ", line)]


def check_whole(rules, text):
    """Nothing that stands in the text is missing, and what could be read reads back from `format`."""
    found = [
        (number, kept)
        for table in rules.tables
        for chain in rules.chains(table)
        for number, kept in rules.lines(table, chain)
    ]
    given_lines = rule_lines(text)
    assert sorted(number for number, _ in found) == [number for number, _ in given_lines]
    for (_, kept), (_, line) in zip(sorted(found), given_lines, strict=True):
        assert line.rstrip("\r").endswith(kept)
    kept_lines = [line for line in text.split("\n") if line.strip() and not line.startswith("#")]
    others = [line for line in kept_lines if line.startswith(("*", ":")) or line.strip() == "COMMIT"]
    assert len(kept_lines) == len(given_lines) + len(others)
    if not rules.errors():
        again = parse(rules.format())
        assert list(again.every_rule()) == list(rules.every_rule())
        assert again.format() == rules.format()


@settings(max_examples=250, database=None)
@given(mutated())
@example("*nat\n:A - [0:0]\n:x# foo\nCOMMIT\n")
@example("*nat\n:A - [0:0]\n-A A -p tcp\n[1:1] # x\nCOMMIT\n")
@example("*nat\n:A - [0:0]\njunk:B - [0:0]\n-A A -p tcp\nCOMMIT\n")
def test_damaged_text_gives_a_value_or_a_parse_error_and_loses_no_line(text):
    rules = looked_at(text)
    if rules is not None:
        check_whole(rules, text)


PIECES = st.sampled_from(
    [
        *HOSTILE,
        *(
            "*nat\n",
            ":A - [0:0]\n",
            ":OUTPUT ACCEPT [1:2]\n",
            "COMMIT\n",
            "# x\n",
            "\n",
            "-A A ",
            "-A OUTPUT ",
            "[3:4] -A A ",
        ),
        *("-p tcp ", "-m tcp ", "--dport 80 ", "-j ", "-g ", "A", '-m comment --comment "', '" ', "-s ", "10.0.0.0/8 "),
        *("--to-destination ", "[::1]:80", "-m mark --mark ", "0x1/0x1 ", "-m multiport --dports 1,2:3 "),
    ]
)


@settings(max_examples=400, database=None)
@given(st.lists(PIECES, max_size=20).map("".join))
def test_pieces_of_text_in_any_order_give_a_value_or_a_parse_error(text):
    for given_text in (text, f"*nat\n:A - [0:0]\n-A A {text}\nCOMMIT\n"):
        rules = looked_at(given_text)
        if rules is not None:
            check_whole(rules, given_text)


@settings(max_examples=300, database=None)
@given(st.text(max_size=60))
def test_any_text_at_all_gives_a_value_or_a_parse_error(text):
    looked_at(text)


LONG = 30_000


@pytest.mark.parametrize(
    "rule",
    [
        '-m comment --comment "' + '\\"' * LONG,
        '-m comment --comment "' + '\\"' * LONG + '"',
        '-m comment --comment "' + "\\\\" * LONG,
        '"\\" ' * LONG,
        'a"' * LONG + "\\",
        '"' * (LONG + 1),
        " " * LONG + "x",
        "-m tcp " * LONG + "--dport 80",
        "-m tcp " * LONG + "--zz x " * LONG,
        "-p tcp " * LONG,
        "! " * LONG,
        "-m zz --zz " + "x " * LONG,
        "-m mark --mark " + "1" * LONG,
        "-m mark --mark 0x" + "1" * LONG,
        "-m mark --mark 0" + "7" * LONG,
        "-s " + "1." * LONG,
        "-s " + ":" * LONG,
        "-s 10.0.0.0/" + "1" * LONG,
        "-p " + "a-" * LONG + "!",
        "-m multiport --dports " + "1," * LONG,
        "-m multiport --dports " + ":" * LONG,
        "-m statistic --probability 0." + "1" * LONG,
        "-m statistic --probability 1e" + "9" * LONG,
        "-m conntrack --ctstate " + "A," * LONG,
        "-m icmp --icmp-type " + "8/" * LONG,
        "-j DNAT --to-destination " + "[" * LONG,
        "-j DNAT --to-destination [" + "::1-" * LONG + "]:80",
        "-j DNAT --to-destination " + "1.2.3.4-" * LONG,
        "-j DNAT --to-destination 1.2.3.4:" + "1-" * LONG,
        "-j " + "A" * LONG,
    ],
    ids=lambda rule: rule[:40],
)
def test_a_long_line_is_read_or_refused_in_a_moment(rule):
    text = f"*nat\n:A - [0:0]\n-A A {rule}\nCOMMIT\n"
    rules = looked_at(text)
    assert rules.count("nat", "A") == 1


MANY = 20_000
ALL = [f":C{number} - [0:0]\n" for number in range(MANY)]
RETURNS = [f"-A C{number} -j RETURN\n" for number in range(MANY)]


@pytest.mark.parametrize(
    "text",
    [
        "*nat\n" + "\n" * 10 * MANY,
        "*nat\nCOMMIT\n" * MANY,
        "*nat\n" + "".join(ALL) + ":X - [5:5]\nCOMMIT\n",
        "*nat\n" + "#\n".join(ALL) + "COMMIT\n",
        "*nat\n" + " ".join(ALL) + "COMMIT\n",
        "*nat\n" + "".join(f"{declared}{rule}" for declared, rule in zip(ALL, RETURNS, strict=True)) + "COMMIT\n",
        "*nat\n" + "".join(ALL) + "#\n".join(RETURNS) + "COMMIT\n",
        "*nat\n" + "".join(ALL) + "[1:1] ".join(RETURNS) + "COMMIT\n",
        "*nat\n:A - [0:0]\n" + "-A A -j RETURN\nCOMMITTED\n" * MANY,
        "*nat\n:A ACCEPT" + " " * 10 * MANY + "x\nCOMMIT\n",
        "*nat\n:A ACCEPT [" + "1" * 10 * MANY + ":0]\n[" + "1" * 10 * MANY + ":0] -A A -j X\nCOMMIT\n",
        "*nat\n:" + "A" * 10 * MANY + " - [0:0]\n-A " + "A" * 10 * MANY + " -j X\nCOMMIT\n",
    ],
    ids=range(12),
)
def test_many_lines_of_an_odd_form_are_indexed_or_refused_in_a_moment(text):
    start = time.process_time()
    try:
        rules = parse(text)
        for chain in list(rules.chains("nat"))[-3:]:
            rules.lines("nat", chain)
    except ParseError:
        pass
    assert time.process_time() - start < 1


def test_two_chains_in_turns_are_taken_apart_in_a_moment():
    rules = parse("*nat\n:A - [0:0]\n:B - [0:0]\n" + "-A A -j RETURN\n-A B -j RETURN\n" * MANY + "COMMIT\n")
    start = time.process_time()
    lines = rules.lines("nat", "A")
    assert time.process_time() - start < 1
    assert lines[0][0] == 4
    assert lines[-1][0] == 4 + 2 * (MANY - 1)
