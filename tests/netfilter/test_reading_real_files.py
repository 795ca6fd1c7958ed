"""Rules that real clusters wrote: each line is read, and written back letter by letter."""

import re

import pytest

from bookinfo_lab.errors import ParseError
from bookinfo_lab.netfilter.ruleset import parse

pytestmark = pytest.mark.data
NAMES = [
    *(f"cluster/{kind}/lab-{n}.iptables-save" for kind in ("iptables", "nftables") for n in (0, 1)),
    *(f"cluster/{kind}/lab-{n}.ip6tables-save" for kind in ("iptables", "nftables") for n in (0, 1)),
    *(f"cluster/istio/{name}.iptables-save" for name in ("lab-0", "lab-1", "productpage")),
    "iptables/real_kubeadm_flannel_worker1_20230202.rules",
    "iptables/istio-sidecar-current.save",
    "iptables/istio-ambient-inpod.save",
]
WARNING = "Warning: iptables-legacy tables present, use iptables-legacy-save to see them"


def bare(text):
    """Tables, chains and rules without counters; kube-proxy's nfacct match is printed with a blank too many."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    lines = [re.sub(r"^\[\d+:\d+\] |(?<=\S) \[\d+:\d+\]$", "", line) for line in lines]
    return [line.replace("--nfacct-name  ", "--nfacct-name ") for line in lines]


@pytest.mark.parametrize("name", NAMES)
def test_every_rule_is_read_and_modelled(recorded, name):
    rules = parse(recorded(name), name)
    assert rules.errors() == ()
    assert rules.unmodelled() == ()


@pytest.mark.parametrize("name", NAMES)
def test_what_format_writes_is_what_was_printed_letter_by_letter(recorded, name):
    text = recorded(name)
    assert bare(parse(text, name).format()) == bare(text)


@pytest.mark.parametrize("name", NAMES)
def test_each_rule_stands_at_the_line_that_it_names(recorded, name):
    text = recorded(name)
    lines = text.splitlines()
    rules = list(parse(text, name).every_rule())
    assert len(rules) == sum(line.startswith(("-A ", "[")) for line in lines)
    for rule in rules:
        assert lines[rule.line - 1].partition("-A ")[2] == f"{rule.chain} {rule.text}".rstrip()


@pytest.mark.parametrize("name", NAMES)
def test_a_text_that_is_cut_off_in_a_table_is_refused(recorded, name):
    text = recorded(name)
    inside, position = [], 0
    is_open = False
    for line in text.splitlines(keepends=True):
        is_open = line.startswith("*") or (is_open and line.strip() != "COMMIT")
        position += len(line)
        if is_open:
            inside.append(position)
    for end in inside[:: max(1, len(inside) // 40)]:
        with pytest.raises(ParseError, match="the text is cut off"):
            parse(text[:end])


@pytest.mark.parametrize(
    ("name", "tables", "warnings"),
    [
        ("cluster/iptables/lab-0.iptables-save", ("mangle", "filter", "nat"), ()),
        ("cluster/istio/productpage.iptables-save", ("nat",), (WARNING,)),
        ("iptables/istio-ambient-inpod.save", ("raw", "nat", "mangle"), ()),
    ],
)
def test_tables_and_warnings_are_those_of_the_text(recorded, name, tables, warnings):
    rules = parse(recorded(name), name)
    assert (rules.tables, rules.warnings) == (tables, warnings)


def test_the_tools_backend_and_ip_version_are_read_from_its_remark(recorded):
    four, six = (parse(recorded(f"cluster/iptables/lab-0.{tool}-save")) for tool in ("iptables", "ip6tables"))
    assert (four.backend, four.version, six.backend, six.version) == ("nft", 4, "nft", 6)
