"""What is shown: hostile text is visible and harmless, long text is shortened, and values stay what they are."""

import copy
import importlib.util
import re
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError, ParseError
from bookinfo_lab.kube.places import Place
from bookinfo_lab.show import tables
from bookinfo_lab.show.choose import choose
from bookinfo_lab.show.listing import Listing, Rules
from bookinfo_lab.show.page import Page
from bookinfo_lab.sources.base import Evidence, Query


def neighbour(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


hostile = neighbour("hostile")
THINGS = hostile.shown()
HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")
LONGEST = 120_000


def evidence(kind: str, raw: str, *arguments: str) -> Evidence:
    return Evidence(
        Query(kind, Place("node", "", "n", ""), arguments), raw.encode(), 1.0, "sandbox", f"here {kind}", "there"
    )


@pytest.mark.parametrize("name", THINGS)
def test_nothing_hidden_and_no_markup_of_a_peer_is_in_what_is_shown(name: str) -> None:
    html = hostile.html_of(THINGS[name])
    assert HIDDEN.search(html) is None
    outside = re.sub(r'srcdoc="[^"]*"', "", html)  # the page itself, escaped, in a frame that runs and loads nothing
    assert "<script" not in outside.lower()
    assert "<img" not in outside.lower()
    assert len(html) < LONGEST


@pytest.mark.parametrize("name", [name for name in THINGS if name != "banner"])
def test_the_plain_form_hides_nothing_either(name: str) -> None:
    text = repr(THINGS[name])
    assert HIDDEN.search(text) is None
    assert len(text) < LONGEST


def test_marks_are_spelt_out_and_what_is_left_out_is_counted() -> None:
    assert escape.text("a\x1b[31m\u202eb\tc", keep="\t") == "a\\x1b[31m\\u202eb\tc"
    assert escape.text("x" * 1_000_000, 10) == "xxxxxxxxxx… (999,990 more characters)"
    assert escape.html("<b>&\"'") == "&lt;b&gt;&amp;&quot;&#x27;"
    assert escape.text("grüße, 世界 👍") == "grüße, 世界 👍"


def test_a_megabyte_is_made_safe_in_milliseconds() -> None:
    began = time.perf_counter()
    for _ in range(20):
        escape.html(hostile.NASTY)
    assert time.perf_counter() - began < 2  # a hundred times what it takes: only a whole pass over each would be slower


@given(st.text(st.characters(codec="utf-8")), st.integers(0, 60))
def test_nothing_hidden_survives_in_any_text(value: str, longest: int) -> None:
    assert HIDDEN.search(escape.text(value, longest)) is None
    assert re.search("[<>\"']", escape.html(value, longest)) is None


def test_a_listing_is_the_text_itself_and_greps_as_grep_does() -> None:
    listing = Listing(evidence("exec", "one a.b\ntwo aXb\n\nthree a.b", "x"))
    assert listing.lines == ("one a.b", "two aXb", "", "three a.b")
    assert listing.grep("a.b").lines == ("one a.b", "three a.b")
    assert listing.grep("a.b").grep("one").command == "here exec | grep -F -- a.b | grep -F -- one"
    assert listing.grep("it's").command == """here exec | grep -F -- 'it'"'"'s'"""
    assert len(listing.grep("nothing")) == 0
    assert "(no lines)" in repr(listing.grep("nothing"))
    assert list(listing) == list(listing.lines)


def test_a_long_listing_says_how_much_is_left_out() -> None:
    listing = Listing(evidence("exec", "line\n" * 1000, "x"))
    assert "940 more lines" in repr(listing)
    assert "940 more lines" in listing._repr_html_()
    assert len(listing.text) == 5000


def test_a_failed_program_is_shown_with_its_status_and_words() -> None:
    failed = Evidence(Query("exec"), b"", 1.0, "sandbox", "here", "there", 7, b"no such host\n")
    assert "(exit status 7: no such host)" in repr(Listing(failed))


SAVED = """# Generated
*filter
:INPUT ACCEPT [0:0]
:KUBE-SERVICES - [0:0]
-A INPUT -j KUBE-SERVICES
COMMIT
*nat
:PREROUTING ACCEPT [1:2]
:KUBE-SERVICES - [0:0]
-A PREROUTING -m comment --comment "-j WRONG" -j KUBE-SERVICES
-A KUBE-SERVICES -d 10.0.0.1/32 -j KUBE-SVC-A
-A KUBE-SERVICES -j KUBE-NODEPORTS
COMMIT
"""


def test_rules_are_chains_of_a_table_and_know_their_targets() -> None:
    rules = Rules(evidence("rules", SAVED, "iptables-nft-save"))
    assert rules.chain("nat", "KUBE-SERVICES").targets == ("KUBE-SVC-A", "KUBE-NODEPORTS")
    assert rules.chain("filter", "KUBE-SERVICES").lines == ()
    assert rules.grep("PREROUTING").targets == ("KUBE-SERVICES",)
    assert rules.chain("nat", "KUBE-SERVICES").command == "here rules -t nat | grep -F -- '-A KUBE-SERVICES '"
    table = rules.table()
    assert list(table.columns) == ["table", "chain", "rule", "text"]
    assert table["rule"].tolist() == ["1", "1", "1", "2"]


def test_rules_that_are_cut_off_are_refused_with_the_line() -> None:
    rules = Rules(evidence("rules", SAVED.removesuffix("COMMIT\n"), "iptables-nft-save"))
    with pytest.raises(ParseError, match="COMMIT"):
        rules.table()


def test_ss_and_conntrack_become_columns() -> None:
    head = "Netid State  Recv-Q Send-Q Local Address:Port Peer Address:PortProcess\n"
    sockets = Listing(
        evidence("sockets", f"{head}tcp   LISTEN 0      1            0.0.0.0:80        0.0.0.0:*    users:x\n")
    )
    assert sockets.table().iloc[0].tolist() == ["tcp", "LISTEN", "0", "1", "0.0.0.0:80", "0.0.0.0:*", "users:x"]
    line = "ipv4 2 tcp 6 9 TIME_WAIT src=a dst=b sport=1 dport=2 src=c dst=d sport=3 dport=4 [ASSURED] mark=0\n"
    entries = Listing(
        evidence("conntrack", line + "ipv4 2 icmp 1 9 src=a dst=b type=8 code=0 id=1 src=b dst=a type=0\n")
    )
    assert entries.table().iloc[0].tolist() == ["tcp", "TIME_WAIT", "a", "b", "1", "2", "c", "d", "3", "4"]
    assert entries.table().iloc[1].tolist() == ["icmp", "", "a", "b", "", "", "b", "a", "", ""]


def test_a_table_is_a_dataframe_whenever_it_is_asked_for_more_than_to_be_shown() -> None:
    table = tables.Table(("a", "b"), [("1", "<b>"), ("2", "y")], None, "the command")
    part = table[table["a"] == "1"]
    assert isinstance(part, pandas.DataFrame)
    assert part["b"].iloc[0] == "<b>"
    assert table.loc[1, "b"] == "y"
    assert list(table) == list(table.columns) == ["a", "b"]
    assert len(table) == 2
    assert table.frame.equals(pandas.DataFrame({"a": ["1", "2"], "b": ["<b>", "y"]}))
    for shown in (table, part):
        assert "&lt;b&gt;" in shown._repr_html_()
        assert "$ the command" in repr(shown)
    assert copy.copy(table).rows == table.rows
    with pytest.raises(AttributeError):
        _ = table.no_such_thing


def test_a_table_is_shown_without_pandas() -> None:
    script = (
        "import sys, bookinfo_lab; lab = bookinfo_lab.connect('recording')\n"
        "for table in (lab.pods(), lab.services(), lab.addresses('client'), lab.rules('node').table()):\n"
        "    assert table._repr_html_() and repr(table)\n"
        "assert 'pandas' not in sys.modules and 'ipywidgets' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("raw", "status", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", 200, b"abc"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 3\r\n\r\n", 304, b""),
        (b"HTTP/1.0 404 Not Found\r\n\r\nrest", 404, b"rest"),
    ],
)
def test_a_page_is_its_status_headers_and_body(raw: bytes, status: int, body: bytes) -> None:
    page = Page(Evidence(Query("get"), raw, 1.0, "sandbox", "here", "there"))
    assert (page.status, page.body) == (status, body)
    assert page.header("x-nothing") == ""


@pytest.mark.parametrize("raw", [b"", b"nonsense", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc", b"HTTP/1.1 20"])
def test_half_a_response_is_one_line(raw: bytes) -> None:
    with pytest.raises(ParseError) as refusal:
        Page(Evidence(Query("get"), raw, 1.0, "sandbox", "here", "there"))
    assert "\n" not in str(refusal.value)


class TestChooser:
    def test_untouched_it_shows_the_first_and_follows_its_value(self) -> None:
        asked: list[str] = []
        chooser = choose(["a", "b", "a"], lambda name: asked.append(name) or name.upper())
        assert chooser.names == ("a", "b")
        assert "A" in chooser._repr_mimebundle_()["text/plain"]
        chooser.value = "b"
        assert asked[-1] == "b"
        assert "'B'" in str(chooser._answer.outputs)

    def test_what_the_function_cannot_answer_is_a_line_and_not_a_traceback(self) -> None:
        def refuse(name: str) -> None:
            raise LabError(f"no {name} <b>")

        bundle = choose(["a"], refuse)._repr_mimebundle_()
        assert "no a &lt;b&gt;" in bundle["text/html"]
        assert "Traceback" not in str(bundle)

    def test_it_has_a_text_and_an_html_form_beside_the_widget(self) -> None:
        bundle = choose(["a", "b"], str)._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html", "application/vnd.jupyter.widget-view+json"}
        assert "<li>b</li>" in bundle["text/html"]

    def test_a_name_that_is_not_there_and_no_names_at_all_are_refused(self) -> None:
        with pytest.raises(LabError, match="there are: a"):
            choose(["a"], str).value = "c"
        with pytest.raises(LabError, match="nothing to choose"):
            choose([], str)
