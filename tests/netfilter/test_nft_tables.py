"""Tables that no iptables tool prints are found, by the kernel's own listing of real ones."""

import subprocess

import pytest

from bookinfo_lab.netfilter import nft_tables
from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import parse
from bookinfo_lab.netfilter.walk import walk

MADE = {
    "nothing": ("", ()),
    "iptables-nft's own": ("iptables-nft -t nat -A PREROUTING -j ACCEPT", ()),
    "a chain without rules": ("nft 'table inet f { chain i { type filter hook input priority 0; }; }'", ()),
    "a rule on no hook": ("nft 'table inet f { chain i { counter; }; }'", ()),
    "a rule": ("nft 'table inet f { chain i { type filter hook input priority 0; counter; }; }'", ("inet f",)),
    "a policy": ("nft 'table ip f { chain i { type filter hook input priority 0; policy drop; }; }'", ("ip f",)),
    "of the other version": ("nft 'table ip6 f { chain i { type filter hook input priority 0; counter; }; }'", ()),
    "of the bridge": ("nft 'table bridge f { chain i { type filter hook input priority 0; counter; }; }'", ()),
    "a map and a jump": (
        (
            "nft 'table ip k { map m { type ipv4_addr : verdict; }; chain s { }; "
            "chain p { type nat hook prerouting priority -100; ip daddr vmap @m; }; }'"
        ),
        ("ip k",),
    ),
}


@pytest.mark.sandbox
@pytest.mark.parametrize("name", MADE)
def test_tables_that_the_kernel_lists_are_told_apart(name: str) -> None:
    made, expected = MADE[name]
    script = f"{made}\nnft list ruleset"
    done = subprocess.run(["unshare", "-Urn", "sh", "-ec", script], capture_output=True, text=True, check=True)
    assert nft_tables.deciding(done.stdout, 4) == expected
    assert nft_tables.beside("iptables-nft-save", done.stdout, "") == (expected, "")


def test_each_kind_of_tool_is_told_of_the_others_rules() -> None:
    nft = "table ip nat {\n\tchain PREROUTING {\n\t\ttype nat hook prerouting priority -100; policy accept;\n"
    nft += "\t\tcounter packets 0 bytes 0 accept\n\t}\n}\n"
    legacy = "*filter\n:INPUT ACCEPT [0:0]\n-A INPUT -j ACCEPT\nCOMMIT\n"
    assert nft_tables.beside("iptables-legacy-save", nft, None) == (("ip nat",), "")
    assert nft_tables.beside("iptables-nft-save", nft, legacy) == (("the legacy iptables tables",), "")
    assert nft_tables.beside("iptables-nft-save", nft, "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n") == ((), "")
    assert nft_tables.beside("ip6tables-nft-save", nft, "") == ((), "")


def test_without_a_legacy_tool_the_other_tables_are_known_and_the_kernels_warning_counts() -> None:
    """An image of today's Alpine has no iptables-legacy-save."""
    nft = "table inet guard {\n\tchain c {\n\t\ttype filter hook forward priority 0; policy drop;\n\t}\n}\n"
    warning = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    assert nft_tables.beside("iptables-nft-save", nft, None) == (("inet guard",), "legacy iptables tables")
    assert nft_tables.beside("iptables-nft-save", nft, None, warning) == (
        ("inet guard", "legacy iptables tables (no tool here can show them)"),
        "",
    )
    said = "no legacy iptables tables decide beside these"
    assert (
        said in walk(RULES, PACKET, Facts(place="n", other_tables=(), unread_tables="legacy iptables tables")).assumes
    )


RULES = parse("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\nCOMMIT\n")
PACKET = Packet("10.0.0.1", 20001, "10.0.0.2", 80, iif="eth0")


def test_a_walk_beside_other_tables_ends_unknown_and_names_them() -> None:
    found = walk(RULES, PACKET, Facts(place="node/n", other_tables=("ip kube-proxy",)))
    assert {outcome.verdict for outcome in found.outcomes} == {"unknown"}
    assert all("ip kube-proxy" in outcome.why for outcome in found.outcomes)


def test_a_walk_where_it_is_not_known_says_what_it_took_for_granted() -> None:
    said = "no other packet-filter tables decide beside these"
    assert said in walk(RULES, PACKET, Facts(place="node/n")).assumes
    assert said not in walk(RULES, PACKET, Facts(place="node/n", other_tables=())).assumes
    assert said not in walk(RULES, PACKET).assumes


def test_a_walk_of_rules_that_a_recording_cut_says_what_it_took_for_granted() -> None:
    cut = (
        "# Warning: 35 rules of other Services were left out of this recording\n*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n"
    )
    found = walk(parse(cut), PACKET)
    assert (
        "it is for none of those Services: 35 rules of other Services were left out of this recording" in found.assumes
    )
