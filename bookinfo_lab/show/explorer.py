"""A chain explorer: choose a table and a chain, read its rules, follow a jump, go back.

Leaf; ipywidgets is imported when an explorer is made.  Given a walk it begins where that began and says of each rule
whether the walk met it.  Nothing but the page in view is parsed, and no list offers more than `MOST_CHAINS` names.
Controls are never disabled, so that the keyboard's focus is not lost.  Where no widgets are, its HTML is one page.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError
from bookinfo_lab.netfilter.ruleset import Ruleset
from bookinfo_lab.show import chain_view, style
from bookinfo_lab.show.chain_view import PAGE, ChainView
from bookinfo_lab.show.met import Met

if TYPE_CHECKING:
    from bookinfo_lab.show.walk import Walk

MOST_CHAINS = 200
_WIDGET = "application/vnd.jupyter.widget-view+json"
_WIDE = {"width": "max-content", "max_width": "100%"}
_FIRST = ("PREROUTING", "OUTPUT", "INPUT", "FORWARD")


class Explorer:
    """Controls over the page of one chain; ``walk`` marks the rules that it met.

    `open`, `follow`, `turn` and `back` do what the controls do.  Raises `LabError` for a ruleset without chains.
    """

    def __init__(self, ruleset: Ruleset, walk: "Walk | None" = None, table: str = "", chain: str = "") -> None:
        self.ruleset, self.walk = ruleset, walk
        self._met = Met(walk.trace) if walk is not None else None
        self._been: list[tuple[str, str, int]] = []
        self._is_setting = False
        start = (table, chain) if chain else self._start(table)
        self._at = (*start, self._first(*start))
        self.view = self._view()
        self._build()
        self._show()

    @property
    def place(self) -> tuple[str, str]:
        """(table, chain) of the chain in view."""
        return self._at[0], self._at[1]

    def open(self, table: str, chain: str, number: int | None = None) -> None:
        """Go to a chain, to the page with rule ``number``; by default the first that the walk matched, or the first."""
        self._go((table, chain, self._first(table, chain) if number is None else _page_of(number)))

    def follow(self, number: int) -> None:
        """Go to the chain that rule ``number`` of the page jumps to."""
        targets = {entry.number: entry.target for entry in self.view.entries if entry.target}
        if number not in targets:
            have = ", ".join(map(str, targets)) or "none does"
            raise LabError(f"rule {number} leads to no chain from this page; those that do: {have}")
        self.open(self._at[0], targets[number])

    def turn(self, pages: int) -> None:
        """Go ``pages`` pages on in the chain, back where that is negative; as far as it has rules."""
        last = _page_of(max(1, self.view.count))
        self._at = (*self.place, max(1, min(self._at[2] + pages * PAGE, last)))
        self._show()

    def back(self) -> None:
        """Go to where the last step was taken from; at the beginning it stays."""
        if self._been:
            self._at = self._been.pop()
            self._show()

    def _go(self, place: tuple[str, str, int]) -> None:
        self.ruleset.count(place[0], place[1])  # an unknown chain is refused before anything changes
        if place != self._at:
            self._been.append(self._at)
            self._at = place
        self._show()

    def _start(self, table: str) -> tuple[str, str]:
        """Where the walk began; else the first base chain with rules, nat's before others'."""
        if self._met and self._met.chains and not table:
            return self._met.chains[0]
        tables = [table] if table else sorted(self.ruleset.tables, key=lambda name: name != "nat")
        all_of_them = [(name, chain) for name in tables for chain in (*_FIRST, *islice(self.ruleset.chains(name), 1))]
        known = [place for place in all_of_them if place[1] in self.ruleset.chains(place[0])]
        if not known:
            raise LabError(f"{self.ruleset.source} has no chain to show" + (f" in table {table!r}" if table else ""))
        return next((place for place in known if self.ruleset.count(*place)), known[0])

    def _first(self, table: str, chain: str) -> int:
        matched = self._met.matched(table, chain) if self._met else ()
        return _page_of(matched[0]) if matched else 1

    def _view(self) -> ChainView:
        return chain_view.view(self.ruleset, *self._at, met=self._met)

    # Controls

    def _build(self) -> None:
        import ipywidgets

        def labelled(kind: type, text: str, **given: Any) -> Any:
            return kind(description=text, style={"description_width": "initial"}, layout=_WIDE, **given)

        self._table = labelled(ipywidgets.Dropdown, "Table:", options=list(self.ruleset.tables))
        self._part = labelled(ipywidgets.Text, "Chain names with:", continuous_update=False)
        self._chain = labelled(ipywidgets.Dropdown, "Chain:")
        self._jump = labelled(ipywidgets.Dropdown, "Jump:")
        self._from = labelled(ipywidgets.BoundedIntText, "From rule:", min=1, max=1, continuous_update=False)
        self._html = ipywidgets.HTML()
        buttons = [
            self._button("Follow the jump", self._follow_chosen),
            self._button("Back", self.back),
            self._button("Earlier rules", lambda: self.turn(-1)),
            self._button("Later rules", lambda: self.turn(1)),
        ]
        wrap = ipywidgets.Layout(flex_flow="row wrap")
        self.widget = ipywidgets.VBox(
            [
                ipywidgets.HBox([self._table, self._part, self._chain], layout=wrap),
                ipywidgets.HBox([self._jump, *buttons, self._from], layout=wrap),
                self._html,
            ]
        )
        self._table.observe(lambda change: self._chosen(lambda: self._go((change.new, *self._in(change.new)))), "value")
        self._part.observe(lambda _: self._chosen(self._show), "value")
        self._chain.observe(lambda change: self._chosen(lambda: self.open(self._at[0], change.new)), "value")
        self._from.observe(lambda change: self._chosen(lambda: self._turn_to(change.new)), "value")

    def _button(self, text: str, action: Any) -> Any:
        import ipywidgets

        made = ipywidgets.Button(description=text, layout=_WIDE)
        made.on_click(lambda _: action())
        return made

    def _in(self, table: str) -> tuple[str, int]:
        chain = self._start(table)[1]
        return chain, self._first(table, chain)

    def _turn_to(self, number: int) -> None:
        self._at = (*self.place, number)
        self._show()

    def _follow_chosen(self) -> None:
        if self._jump.value:
            self.follow(self._jump.value)

    def _chosen(self, action: Any) -> None:
        if not self._is_setting:
            action()

    @contextmanager
    def _setting(self) -> Iterator[None]:
        """What is set here is not taken for a choice."""
        self._is_setting = True
        try:
            yield
        finally:
            self._is_setting = False

    def _show(self) -> None:
        self.view = self._view()
        table, chain, first = self._at
        with self._setting():
            self._table.value = table
            names, left = self._names(table, chain)
            self._chain.options = names
            self._chain.value = chain
            self._chain.description = f"Chain ({left:,} more not listed):" if left else "Chain:"
            targets = [entry for entry in self.view.entries if entry.target]
            options = [(f"rule {entry.number} → {escape.text(entry.target, 120)}", entry.number) for entry in targets]
            self._jump.options = options or [("none on this page", 0)]
            self._jump.value = self._likely([entry.number for entry in targets])
            self._from.max = max(1, self.view.count)
            self._from.value = first
        self._html.value = self.view._repr_html_()

    def _likely(self, numbers: list[int]) -> int:
        """The jump that the walk took, the first of several; else the first of the page."""
        taken = set(self.view.matched or ())
        return next((number for number in numbers if number in taken), numbers[0] if numbers else 0)

    def _names(self, table: str, chain: str) -> tuple[list[tuple[str, str]], int]:
        """What the list of chains offers, the walk's first, and how many chains it leaves out."""
        part = self._part.value.strip().lower()
        met = [name for of, name in (self._met.chains if self._met else ()) if of == table]
        every = dict.fromkeys((*met, *self.ruleset.chains(table)))
        found = [name for name in every if part in name.lower()]
        shown = dict.fromkeys((*found[:MOST_CHAINS], chain))
        is_met = set(met)
        options = [(escape.text(name, 120) + (" (met)" if name in is_met else ""), name) for name in shown]
        return options, max(0, len(found) - MOST_CHAINS)

    # Shown

    def __repr__(self) -> str:
        return f"Chain explorer\n{self.view!r}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        shown = self.widget._repr_mimebundle_() or {}
        widget = {_WIDGET: shown[_WIDGET]} if _WIDGET in shown else {}
        note = "Other chains can be chosen, and jumps followed, in a live notebook."
        html = f'{self.view._repr_html_()}<p style="margin: 0; {style.QUIET}">{note}</p>'
        return {"text/plain": repr(self), "text/html": html, **widget}


def _page_of(number: int) -> int:
    """The first rule of the page that a rule is on."""
    return (number - 1) // PAGE * PAGE + 1
