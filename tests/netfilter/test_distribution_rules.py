"""Rules that Debian's docker.io, ufw, firewalld and shorewall write, as both kinds of iptables' tools print them."""

import re
from pathlib import Path

import pytest

from bookinfo_lab.netfilter.ruleset import parse

FOLDER = Path(__file__).parents[1] / "data" / "firewalls"
NAMES = sorted(path.stem for path in FOLDER.glob("*.save"))
BACKENDS, BOTH = ("nft", "legacy"), ("docker", "ufw", "firewalld")

# What format writes in other letters than iptables-save; the kernel takes both as the same.
ALIKE = [
    (r"(--set-dscp 0x)0(\d)\b", r"\1\2"),
    (r"(--ctorigdst [\d.]+)(?= )", r"\1/32"),
    (r"--name (%\w+)", r'--name "\1"'),
    (r"::ffff:0\.0\.0\.0/96", "::ffff:0:0/96"),
]


def read(name):
    return parse((FOLDER / f"{name}.save").read_text(), f"{name}.save")


def printed(name):
    """The lines that iptables-save printed, without remarks and counters, in the letters that format uses."""
    lines = (FOLDER / f"{name}.save").read_text().splitlines()
    bare = [re.sub(r"^\[\d+:\d+\] |(?<= )\[\d+:\d+\]$", "", line) for line in lines if not line.startswith("#")]
    for pattern, written in ALIKE:
        bare = [re.sub(pattern, written, line) for line in bare]
    return bare


def test_four_firewalls_are_recorded_from_both_kinds_of_tools():
    both = {f"{name}-{backend}{family}" for name in BOTH for backend in BACKENDS for family in ("", "-ip6")}
    assert set(NAMES) == both | {f"shorewall-{backend}" for backend in BACKENDS}
    assert sum(len(list(read(name).every_rule())) for name in NAMES) > 1500


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_can_be_read(name):
    assert read(name).errors() == ()


@pytest.mark.parametrize("name", NAMES)
def test_every_option_is_modelled(name):
    assert read(name).unmodelled() == ()


@pytest.mark.parametrize("name", NAMES)
def test_tool_and_ip_version_are_known(name):
    rules = read(name)
    assert rules.backend == ("nft" if "-nft" in name else "legacy")
    assert rules.version == (6 if name.endswith("-ip6") else 4)
    assert rules.warnings == ()


@pytest.mark.parametrize("name", NAMES)
def test_what_format_writes_is_what_was_printed_word_for_word(name):
    written = [re.sub(r" \[0:0\]$", " ", line) for line in read(name).format().splitlines()]
    assert written == printed(name)


@pytest.mark.parametrize("name", [name for name in NAMES if "-legacy" in name])
def test_the_legacy_tools_printed_counters_and_they_are_kept(name):
    assert all(rule.counters is not None for rule in read(name).every_rule())


@pytest.mark.parametrize("name", [name for name in NAMES if "-nft" in name])
def test_both_kinds_of_tools_printed_the_same_rules(name):
    assert by_chain(read(name)) == by_chain(read(name.replace("-nft", "-legacy")))


def by_chain(rules):
    """Policy and rules of each chain that has any; shorewall also declares two of a new name each time."""
    chains = {(table, chain) for table in rules.tables for chain in rules.chains(table)}
    return {place: (rules.policy(*place), rules.rules(*place)) for place in chains if rules.count(*place)}


@pytest.mark.parametrize(
    ("name", "where", "comment"),
    [
        ("ufw-nft", ("filter", "ufw-user-input"), "'dapp_Bookinfo'"),
        ("firewalld-legacy", ("filter", "INPUT_direct"), "Bookinfo's own"),
        ("shorewall-nft", ("filter", "net-loc"), "the pages of Bookinfo, port 9080"),
    ],
)
def test_quotes_in_comments_are_read_as_they_were_meant(name, where, comment):
    assert comment in [rule.comment for rule in read(name).rules(*where)]
