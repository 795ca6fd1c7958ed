"""A slice drawn: chains as boxes from top to bottom in the order in which they are entered, rules as rows in them.

Leaf, standard library alone, deterministic.  A box stands right of the one whose rule jumps to it, and the arrow into
it starts below that rule's box.  Colours are the theme's with a legible fallback, and never all that tells two things
apart.  Every text passes `escape`.
"""

from dataclasses import dataclass

from bookinfo_lab import escape
from bookinfo_lab.netfilter.slice import Slice
from bookinfo_lab.show.slice_boxes import Box, Row, boxes
from bookinfo_lab.show.text_width import mono, sans, wrap

WIDTH = 900
_STEP, _DEEPEST, _MARGIN, _GAP = 24, 12, 14, 22
_SIZE, _LINE, _PAD, _NUMBER = 13, 18, 8, 34
_TEXT = "var(--jp-ui-font-color1, #1f2328)"
_BACK = "var(--jp-layout-color1, #ffffff)"
_HEAD = "var(--jp-layout-color2, #eceff2)"
_RULE = "var(--jp-border-color1, #6e7781)"
_SANS = "font-family: var(--jp-ui-font-family, system-ui, sans-serif)"
_MONO = "font-family: var(--jp-code-font-family, monospace)"
_ITALIC = "font-style: italic"
_ENDS = {
    "accept": "var(--jp-success-color1, #2e7d32)",
    "drop": "var(--jp-error-color1, #c62828)",
    "reject": "var(--jp-error-color1, #c62828)",
    "unknown": "var(--jp-warn-color1, #b26a00)",
}


@dataclass(frozen=True, slots=True)
class _Text:
    """One line of text: ``y`` is its base line's, from the top of its box."""

    x: float
    y: float
    text: str
    style: str


@dataclass(frozen=True, slots=True)
class _Laid:
    """A box in its place."""

    box: Box
    x: float
    y: float
    width: float
    height: float
    head: float
    texts: tuple[_Text, ...]
    rules: tuple[float, ...]

    @property
    def end(self) -> float:
        return self.y + self.height


def svg(given: Slice, title: str, most: int | None = None) -> str:
    """The drawing of the first ``most`` lines, `WIDTH` wide, of any height; ``title`` says what it is of."""
    made, left = boxes(given, most)
    laid: list[_Laid] = []
    y = float(_MARGIN)
    for box in made:
        gap = _GAP + (_LINE * len(_condition(box)) if laid else 0)
        y += gap if laid else 0
        laid.append(_lay(box, y))
        y = laid[-1].end
    note = f"… {left:,} more lines" if left else ""
    height = y + _MARGIN + (_LINE if note else 0)
    parts = [
        _opening(height, title),
        f'<rect width="{WIDTH}" height="{height:g}" style="fill: {_BACK}"/>',
    ]
    parts += [_arrow(laid[item.box.source], item) for item in laid if item.box.source >= 0]
    parts += [_drawn(item) for item in laid]
    if note:
        parts.append(_text_at(_MARGIN, height - _MARGIN, note, ""))
    return "".join([*parts, "</svg>"])


def _opening(height: float, title: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" aria-label="{escape.html(title, 400)}" '
        f'style="fill: {_TEXT}; font-size: {_SIZE}px; {_SANS}">'
    )


def _lay(box: Box, y: float) -> _Laid:
    x = float(_MARGIN + _STEP * min(box.depth, _DEEPEST))
    width = WIDTH - _MARGIN - x
    if box.kind != "chain":
        bold = "font-weight: 600" if box.kind == "outcome" else ""
        lines = _wrapped(box.title, (width - 4 * _PAD) * (0.88 if bold else 1))
        texts = tuple(_Text(2 * _PAD, _PAD + _LINE * (number + 0.75), line, bold) for number, line in enumerate(lines))
        return _Laid(box, x, y, width, 2 * _PAD + _LINE * len(lines), 0, texts, ())
    title = wrap(escape.text(box.title, 200), width - 2 * _PAD, lambda text: mono(text, _SIZE))
    head = _LINE * len(title) + 8
    drawn = [
        _Text(_PAD, 4 + _LINE * (number + 0.75), line, f"{_MONO}; font-weight: 600")
        for number, line in enumerate(title)
    ]
    down, rules = float(head), []
    for row in box.rows:
        rules.append(down)
        found, height = _row(row, down, width)
        drawn += found
        down += height
    return _Laid(box, x, y, width, down, head, tuple(drawn), tuple(rules[1:]))


def _row(row: Row, top: float, width: float) -> tuple[list[_Text], float]:
    lines = _wrapped(row.says, width - _NUMBER - 2 * _PAD)
    changes = wrap(escape.text(row.changes, 300), width - _NUMBER - 2 * _PAD, lambda text: mono(text, _SIZE))
    changes = changes if row.changes else []
    style = _ITALIC if row.is_quiet else ""
    first = top + 5
    drawn = [_Text(_PAD, first + _LINE * 0.75, row.number, _MONO)] if row.number else []
    for number, line in enumerate([*lines, *changes]):
        drawn.append(_Text(_NUMBER, first + _LINE * (number + 0.75), line, style if number < len(lines) else _MONO))
    return drawn, _LINE * (len(lines) + len(changes)) + 10


def _wrapped(text: str, room: float) -> list[str]:
    return wrap(escape.text(text, 1000), room, lambda part: sans(part, _SIZE))


def _condition(box: Box) -> list[str]:
    return _wrapped(box.condition, WIDTH - 2 * _MARGIN - _STEP * min(box.depth, _DEEPEST) - 40) if box.condition else []


def _arrow(source: _Laid, target: _Laid) -> str:
    """Down from a box to one below: boxes between them stand further right, or are drawn above the line."""
    x = max(source.x, target.x) + 10
    tip = f"M{x:g} {target.y:g} l-4 -7 h8 z"
    line = f'<path d="M{x:g} {source.end:g} V{target.y - 6:g}" style="stroke: {_RULE}; stroke-width: 1.5; fill: none"/>'
    said = _condition(target.box)
    texts = [
        _text_at(x + 12, target.y - 8 - _LINE * (len(said) - 1 - number), words, _ITALIC)
        for number, words in enumerate(said)
    ]
    return f'{line}<path d="{tip}" style="fill: {_RULE}"/>{"".join(texts)}'


def _drawn(item: _Laid) -> str:
    box = item.box
    edge = _ENDS.get(box.verdict, _RULE)
    thick = 2.5 if box.kind == "outcome" else 1
    dashes = "; stroke-dasharray: 5 3" if box.kind == "place" else ""
    radius = {"chain": 3, "place": 12, "outcome": 8}[box.kind]
    at = f'x="{item.x:g}" y="{item.y:g}" width="{item.width:g}"'
    border = f"fill: {_BACK}; stroke: {edge}; stroke-width: {thick}{dashes}"
    parts = [f'<rect {at} height="{item.height:g}" rx="{radius}" style="{border}"/>']
    if item.head:
        parts.append(f'<rect {at} height="{item.head:g}" rx="{radius}" style="fill: {_HEAD}; stroke: {_RULE}"/>')
    parts += [
        f'<path d="M{item.x:g} {item.y + y:g} h{item.width:g}" style="stroke: {_HEAD}; stroke-width: 1"/>'
        for y in item.rules
    ]
    parts += [_text_at(item.x + text.x, item.y + text.y, text.text, text.style) for text in item.texts]
    return f"<g>{''.join(parts)}</g>"


def _text_at(x: float, y: float, text: str, style: str) -> str:
    styled = f' style="{style}"' if style else ""
    return f'<text x="{x:g}" y="{y:g}"{styled}>{escape.html(text)}</text>'
