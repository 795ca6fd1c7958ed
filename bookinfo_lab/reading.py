"""Edge.  Text of a file that a command was given, or of its standard input.

What cannot be read, is no text, or is larger than any rules are is refused in one line.
"""

from typing import BinaryIO

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError

MOST_BYTES = 512 * 1024 * 1024  # a node of 100,000 Services has fewer
_PIECE = 1 << 20


def name_of(path: str) -> str:
    """What messages call the file."""
    return "standard input" if path == "-" else escape.text(path, 200)


def text_of(path: str) -> str:
    """The file's text as UTF-8, a byte that is none kept as a surrogate; ``-`` is standard input.

    Raises `LabError` for a file that cannot be opened, is larger than `MOST_BYTES` or holds a NUL byte.
    """
    name = name_of(path)
    try:
        with open(0 if path == "-" else path, "rb", closefd=path != "-") as file:
            raw = _all_of(file, name)
    except (OSError, ValueError) as error:  # a path with a NUL in it is a ValueError
        reason = getattr(error, "strerror", None) or str(error)
        raise LabError(
            f"cannot read {name}: {reason}; give a file that you may read, or - for standard input"
        ) from None
    if (at := raw.find(b"\0")) >= 0:
        line = raw.count(b"\n", 0, at) + 1
        raise LabError(
            f"{name}, line {line}: this is no text, it has a NUL byte; give what iptables-save or ip printed"
        )
    return raw.decode("utf-8", "surrogateescape").replace("\r\n", "\n")


def _all_of(file: BinaryIO, name: str) -> bytes:
    pieces, size = [], 0
    while piece := file.read(_PIECE):
        size += len(piece)
        if size > MOST_BYTES:
            raise LabError(f"{name} is larger than {MOST_BYTES:,} bytes: no rules are that; give another file")
        pieces.append(piece)
        if b"\0" in piece:  # no text: there is nothing to wait for
            break
    return b"".join(pieces)
