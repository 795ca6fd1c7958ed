"""What a program printed, as it printed it: Listing, and Rules for packet-filter rules.

Leaf.  ``text`` and ``lines`` are the evidence itself; only the two representations escape and shorten.  `table` is the
same in columns, by white space, as the tools' own headers name them.
"""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Self

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter import explain, jumps, ruleset, service_paths
from bookinfo_lab.netfilter import tables as netfilter_tables
from bookinfo_lab.netfilter.facts import Facts
from bookinfo_lab.netfilter.packet import Packet
from bookinfo_lab.netfilter.ruleset import Ruleset
from bookinfo_lab.netfilter.service_paths import ServicePath
from bookinfo_lab.show import style
from bookinfo_lab.show.tables import Table
from bookinfo_lab.sources.base import Evidence

if TYPE_CHECKING:
    from bookinfo_lab.show.chain_view import ChainView
    from bookinfo_lab.show.walk import Walk

LONGEST_LINE = 400
MOST_LINES = 60
_SAVE_FORMAT = ("iptables-nft-save", "ip6tables-nft-save", "iptables-legacy-save")


class Listing:
    """Lines of text with the command that prints them; ``evidence`` has the bytes, the time and the exit status."""

    def __init__(self, evidence: Evidence, lines: Sequence[str] | None = None, command: str = "") -> None:
        self.evidence = evidence
        self.lines: tuple[str, ...] = tuple(_lines(evidence.text) if lines is None else lines)
        self.command = command or evidence.command

    @property
    def text(self) -> str:
        """The lines joined again."""
        return "".join(f"{line}\n" for line in self.lines)

    def grep(self, pattern: str) -> Self:
        """The lines that hold ``pattern`` as it stands, as ``grep -F`` finds them."""
        found = [line for line in self.lines if pattern in line]
        return type(self)(self.evidence, found, f"{self.command} | grep -F -- {shlex.quote(pattern)}")

    def table(self) -> Table:
        """The lines as a table: the header's words name the columns, the last column takes what is left over."""
        if self.evidence.query.kind == "conntrack":
            return Table(*_conntrack(self.lines), self.evidence, self.command)
        head, *rest = self.lines or ("",)
        columns = _columns(head)
        cells = [line.split(None, len(columns) - 1) for line in rest]
        rows = [[*row, *[""] * (len(columns) - len(row))] for row in cells]
        return Table(columns, rows, self.evidence, self.command)

    def __len__(self) -> int:
        return len(self.lines)

    def __iter__(self) -> Iterator[str]:
        return iter(self.lines)

    def __repr__(self) -> str:
        body = [escape.text(line, LONGEST_LINE, keep="\t") for line in self.lines[:MOST_LINES]]
        return "\n".join([f"$ {escape.text(self.command)}", *body, *self._notes()])

    def _repr_html_(self) -> str:
        body = self._body([escape.html(line, LONGEST_LINE, keep="\t") for line in self.lines[:MOST_LINES]])
        notes = "".join(f'<p style="margin: 0; {style.QUIET}">{escape.html(note)}</p>' for note in self._notes())
        caption = style.command(escape.html(self.command))
        return f'<figure style="{style.FIGURE}">{caption}{body}{notes}</figure>'

    def _body(self, lines: Sequence[str]) -> str:
        """The lines, escaped already, as HTML: in columns, as the program aligned them."""
        return '<pre style="{}" tabindex="0">{}</pre>'.format(style.PRE, "\n".join(lines)) if lines else ""

    def _notes(self) -> list[str]:
        """What the lines alone do not say: that there are none, more, or that the program failed."""
        notes = [] if self.lines else ["(no lines)"]
        left = len(self.lines) - MOST_LINES
        if left > 0:
            notes.append(f"… {left:,} more lines; .lines has them all")
        if self.evidence.status:
            said = escape.text(self.evidence.stderr.decode("utf-8", "replace").strip(), LONGEST_LINE)
            notes.append(f"(exit status {self.evidence.status}{': ' + said if said else ''})")
        return notes


class Rules(Listing):
    """Packet-filter rules, as iptables-save or nft prints them.

    ``read_facts`` reads the addresses, routes and sysctls of the same network namespace when a walk asks for them.
    """

    def __init__(
        self,
        evidence: Evidence,
        lines: Sequence[str] | None = None,
        command: str = "",
        read_facts: Callable[[], Facts] | None = None,
    ) -> None:
        super().__init__(evidence, lines, command)
        self._read_facts = read_facts

    @cached_property
    def ruleset(self) -> Ruleset:
        """The rules as parsed values, with the namespace's facts; all of them, whatever ``lines`` were chosen.

        LabError for what is not iptables-save's form.
        """
        if self.evidence.query.arguments[0] not in _SAVE_FORMAT:
            raise LabError(f"{self.command} prints rules in nft's own form: walk what iptables-nft-save prints")
        facts = self._read_facts() if self._read_facts is not None else None
        return ruleset.parse(self.evidence.text, self.command, facts)

    def walk(self, packet: Packet) -> "Walk":
        """Where ``packet`` goes through these rules, and why (`Ruleset.walk`)."""
        from bookinfo_lab.show.walk import Walk

        return Walk(self.ruleset.walk(packet), self.ruleset)

    def services(self) -> tuple[ServicePath, ...]:
        """What kube-proxy's rules among these do for each Service's entry (`netfilter.service_paths`)."""
        return service_paths.service_paths(self.ruleset)

    def view(self, chain: str, table: str = "nat") -> "ChainView":
        """The rules of a chain, each with the sentence that `explain` has for it."""
        from bookinfo_lab.show import chain_view

        return chain_view.view(self.ruleset, table, chain)

    def explain(self, chain: str, table: str = "nat") -> tuple[str, ...]:
        """One sentence for each rule of a chain, in order."""
        return tuple(explain.rule(rule, self.ruleset) for rule in self.ruleset.rules(table, chain))

    @property
    def targets(self) -> tuple[str, ...]:
        """What these lines jump to, each once, in order."""
        return jumps.targets(self.lines)

    def chain(self, table: str, name: str) -> "Rules":
        """The rules of one chain, in order: a chain is a name in a table, and two tables may have the same name."""
        inside, found = "", []
        for line in self.lines:
            inside = line[1:] if line.startswith("*") else inside
            if inside == table and line.startswith(f"-A {name} "):
                found.append(line)
        command = f"{self.command} -t {shlex.quote(table)} | grep -F -- {shlex.quote(f'-A {name} ')}"
        return Rules(self.evidence, found, command, self._read_facts)

    def _body(self, lines: Sequence[str]) -> str:
        """Wrapped, because what a rule does stands at its end."""
        rows = "".join(f'<div style="padding-left: 2em; text-indent: -2em">{line}</div>' for line in lines)
        return f'<div style="{style.PRE}; white-space: pre-wrap; overflow-wrap: anywhere">{rows}</div>' if rows else ""

    def table(self) -> Table:
        """One row a rule: its table, chain, number in the chain (from 1), and the rule's own text."""
        if self.evidence.query.arguments[0] not in _SAVE_FORMAT:
            rows = [("", "", str(number), line) for number, line in enumerate(self.lines, 1)]
            return Table(("table", "chain", "line", "text"), rows, self.evidence, self.command)
        rows = []
        for table in netfilter_tables.parse_save(self.evidence.text, self.command):
            for chain in table.chains:
                rows += [(table.name, chain.name, str(number), rule) for number, rule in enumerate(chain.rules, 1)]
        return Table(("table", "chain", "rule", "text"), rows, self.evidence, self.command)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def _columns(head: str) -> list[str]:
    """The words of a header; ss prints three of its headers as two words each."""
    joined = re.sub(r"\b(Local|Peer) (Address:Port)", r"\1-\2 ", head)
    return joined.split() or [""]


def _conntrack(lines: Sequence[str]) -> tuple[tuple[str, ...], list[list[str]]]:
    """The fields of conntrack entries: the original direction's first, then the reply's."""
    ends = ("src", "dst", "sport", "dport")
    columns = ("protocol", "state", *ends, *(f"reply {name}" for name in ends))
    rows = []
    for line in lines:
        words = line.split()
        pairs = [word.partition("=") for word in words if "=" in word]
        told = [[value for key, _, value in pairs if key == name] for name in ends]
        state = next((word for word in words if re.fullmatch(r"[A-Z][A-Z_0-9]+", word)), "")
        firsts = [values[0] if values else "" for values in told]
        replies = [values[1] if len(values) > 1 else "" for values in told]
        rows.append([words[2] if len(words) > 2 else "", state, *firsts, *replies])
    return columns, rows
