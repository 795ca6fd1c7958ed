"""What a ruleset holds, counted: tables, Services, what is not modelled, and every line that cannot be read.

Pure.  It reads every rule.  Lines that cannot be read do not stop it: they are listed, and what depends on them (the
Services) is left out and said to be.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bookinfo_lab.errors import ParseError

from .outcome_words import chance
from .rule import Rule
from .ruleset import Ruleset
from .service_paths import ServicePath, service_paths
from .service_ways import PathEndpoint

_WARNING = "# Warning: "


@dataclass(frozen=True, slots=True)
class Table:
    """A table with the number of its chains and rules."""

    name: str
    chains: int
    rules: int


@dataclass(frozen=True, slots=True)
class Noted:
    """Something to know about a line: ``where`` is the rule's place, "" where it is at none."""

    line: int
    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Summary:
    """See `summarise`.  ``services`` is None where a line that cannot be read hides them."""

    source: str
    tables: tuple[Table, ...]
    services: tuple[ServicePath, ...] | None
    unmodelled: tuple[Noted, ...]
    warnings: tuple[Noted, ...]
    errors: tuple[ParseError, ...]

    def as_document(self) -> dict[str, Any]:
        """The summary as one JSON document."""
        return {
            "source": self.source,
            "tables": [asdict(table) for table in self.tables],
            "services": None if self.services is None else [asdict(path) for path in self.services],
            "unmodelled": [asdict(item) for item in self.unmodelled],
            "warnings": [{"line": item.line, "what": item.what} for item in self.warnings],
            "errors": [{"line": item.position, "text": item.text, "what": str(item)} for item in self.errors],
        }


def summarise(ruleset: Ruleset, text: str = "") -> Summary:
    """What ``ruleset`` holds; ``text``, which it was parsed from, tells on which lines its warnings stand."""
    errors = ruleset.errors()
    tables = []
    for name in ruleset.tables:
        chains = ruleset.chains(name)
        tables.append(Table(name, len(chains), sum(ruleset.count(name, chain) for chain in chains)))
    services = None
    try:
        services = service_paths(ruleset)
    except ParseError:
        if not errors:
            raise
    unmodelled = [Noted(rule.line, rule.where, what) for rule in _readable(ruleset, errors) for what in rule.unmodelled]
    warnings = _warnings(ruleset, text)
    return Summary(ruleset.source, tuple(tables), services, tuple(unmodelled), tuple(warnings), errors)


def _readable(ruleset: Ruleset, errors: tuple[ParseError, ...]) -> Iterator[Rule]:
    if not errors:
        yield from ruleset.every_rule()
        return
    bad = {error.position for error in errors}
    for table in ruleset.tables:
        for chain in ruleset.chains(table):
            for number, (line, _) in enumerate(ruleset.lines(table, chain), 1):
                if line not in bad:
                    yield ruleset.rule(f"{table} {chain} {number}")


def _warnings(ruleset: Ruleset, text: str) -> Iterator[Noted]:
    at = [number for number, line in enumerate(text.split("\n"), 1) if line.startswith(_WARNING)]
    for number, warning in enumerate(ruleset.warnings):
        yield Noted(at[number] if number < len(at) else 0, "", warning)


def as_lines(summary: Summary) -> Iterator[str]:
    """The summary as text, not escaped."""
    rules = sum(table.rules for table in summary.tables)
    yield f"{summary.source}: {_count(len(summary.tables), 'table')}, {_count(rules, 'rule')}"
    width = max((len(table.name) for table in summary.tables), default=0)
    for table in summary.tables:
        yield f"  {table.name:{width}}  {_count(table.chains, 'chain')}, {_count(table.rules, 'rule')}"
    if summary.services is None:
        yield "Services: not told, because lines cannot be read"
    elif summary.services:
        yield f"Services: {_count(len(summary.services), 'entry', 'entries')}"
        for path in summary.services:
            yield from _service(path)
    yield from _noted("Not modelled", summary.unmodelled)
    yield from _noted("Warnings", summary.warnings)
    if summary.errors:
        yield f"Cannot be read: {_count(len(summary.errors), 'line')}"
        yield from (f"  {error}" for error in summary.errors)


def _service(path: ServicePath) -> Iterator[str]:
    name = f"{path.service or '(no name)'}{f':{path.port_name}' if path.port_name else ''}"
    at = f"{path.address} " if path.address else ""
    parts = [
        f"{name}  {path.kind} {at}port {path.port}/{path.protocol}",
        f"policy {path.policy}" if path.policy else "",
        f"affinity {path.affinity_s} s" if path.affinity_s else "",
        f"masquerade {path.masquerade}" if path.masquerade else "",
        f"only from {', '.join(path.source_ranges)}" if path.source_ranges else "",
    ]
    yield f"  {', '.join(part for part in parts if part)}"
    for endpoint in path.endpoints:
        yield f"    {_endpoint(endpoint)}"
    for refusal in path.refusals:
        yield f"    otherwise {refusal.verdict}{f' with {refusal.answer}' if refusal.answer else ''}: {refusal.why}"
    if path.unclear:
        yield f"    not understood: {', '.join(path.unclear)}"


def _endpoint(endpoint: PathEndpoint) -> str:
    address = f"[{endpoint.ip}]:{endpoint.port}" if ":" in endpoint.ip else f"{endpoint.ip}:{endpoint.port}"
    return f"{address}  {chance(endpoint.probability)}"


def _noted(title: str, items: tuple[Noted, ...]) -> Iterator[str]:
    if items:
        yield f"{title}: {len(items):,}"
    for item in items:
        at = f"line {item.line}" if item.line else "no line"
        yield f"  {at}{f' ({item.where})' if item.where else ''}: {item.what}"


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
