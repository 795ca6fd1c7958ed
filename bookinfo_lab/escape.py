"""Text from a wire, made safe to show.

`text` makes control characters, terminal escapes and marks that reorder or hide text visible, and shortens what is
long, saying how much is left out; `html` does that and escapes HTML.  Nothing shown in the lab goes around them.
"""

import html as _html
import re
import unicodedata

LONGEST = 2000
_VISIBLE = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
# Cc and Cf hold terminal escapes, bidi and zero-width marks; Co, Cs, Cn have no agreed look; Zl and Zp break lines.
_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_SUSPECT = re.compile(r"[^ -~]")


def text(value: object, longest: int = LONGEST, *, keep: str = "") -> str:
    """``value`` as text with nothing hidden in it, ``longest`` characters of it at most.

    ``keep`` are control characters that may stand as they are: a listing keeps its line ends.
    """
    whole = str(value)
    left = len(whole) - longest
    shown = _SUSPECT.sub(lambda found: _one(found[0], keep), whole[:longest])
    return f"{shown}… ({left:,} more characters)" if left > 0 else shown


def html(value: object, longest: int = LONGEST, *, keep: str = "") -> str:
    """`text`, as HTML."""
    return _html.escape(text(value, longest, keep=keep))


def _one(character: str, keep: str) -> str:
    if character in keep or unicodedata.category(character) not in _HIDDEN:
        return character
    code = ord(character)
    return _VISIBLE.get(character) or (f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}")
