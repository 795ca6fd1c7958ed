"""How wide text is drawn, roughly, and where it is broken to fit.  Leaf, standard library alone.

Fonts differ from machine to machine and cannot be asked here: widths are those of a wide sans-serif font.
"""

import unicodedata
from collections.abc import Callable

# Shares of the font size.
_NARROW, _WIDE = frozenset(" .,:;'|!()[]iljft/I"), frozenset("mwMW@%—…")
_SHARES = (0.36, 0.96, 0.74, 0.62, 1.05)


def sans(text: str, size: float = 1.0) -> float:
    """The width of ``text`` in the unit of ``size``."""
    return size * sum(map(_share, text))


def mono(text: str, size: float = 1.0) -> float:
    """The same in a monospaced font."""
    return size * sum(0.62 if character < "\u1100" else max(0.62, _share(character)) for character in text)


def _share(character: str) -> float:
    narrow, wide, capital, usual, full = _SHARES
    if character in _NARROW:
        return narrow
    if character in _WIDE:
        return wide
    if character.isascii():
        return capital if character.isupper() else usual
    if unicodedata.east_asian_width(character) in "WF":
        return full
    return wide


def wrap(text: str, room: float, width: Callable[[str], float]) -> list[str]:
    """``text`` in lines of at most ``room``, broken at spaces, or inside a word that is wider than a line."""
    lines: list[str] = []
    line = ""
    for word in text.split(" "):
        joined = f"{line} {word}" if line else word
        if width(joined) <= room:
            line = joined
            continue
        if line:
            lines.append(line)
        line = word
        while width(line) > room and len(line) > 1:
            end = _fitting(line, room, width)
            lines.append(line[:end])
            line = line[end:]
    return [*lines, line] if line or not lines else lines


def _fitting(word: str, room: float, width: Callable[[str], float]) -> int:
    """How many characters of a word fit; at least one."""
    end, used = 0, 0.0
    while end < len(word) and (used := used + width(word[end])) <= room:
        end += 1
    return max(1, end)
