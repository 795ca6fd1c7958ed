"""Marks in words: which bits a match compares, and which bits a target sets, clears or toggles.

Pure.  A value and a mask of 32 bits come in, part of a sentence goes out.  The kernel compares ``mark & mask == value``
and sets ``(mark & ~mask) ^ value``: a mask of 0 therefore toggles (xt_mark.c, xt_connmark.c).
"""

ALL = 0xFFFFFFFF


def bits(number: int) -> str:
    """``bit 14 (0x4000)``, ``bits 0 and 3 (0x9)``, ``the bits of 0xfff`` where there are more than three."""
    places = [str(place) for place in range(32) if number >> place & 1]
    if len(places) > 3:
        return f"the bits of {number:#x}"
    return f"bit{'s' * (len(places) > 1)} {listed(places, 'and')} ({number:#x})"


def compared(what: str, value: int, mask: int, negated: bool) -> str:
    """What ``--mark value/mask`` asks of the mark that ``what`` names: ``whose mark has bit 14 (0x4000) set``."""
    if mask == ALL:
        return f"{what} is {'not ' * negated}{value:#x}"
    if value & ~mask & ALL:
        return f"{what}, masked with {mask:#x}, is {'not ' * negated}{value:#x} (which it never is)"
    if mask == 0:
        return f"{what} is {'not ' * negated}anything (the mask 0x0 compares no bit)"
    several = mask & (mask - 1) != 0
    if value in (mask, 0):
        state = "set" if value else "clear"
        if negated:
            return f"{what} does not have {bits(mask)} {'all ' * several}{state}"
        return f"{what} has {bits(mask)} {state}"
    return f"{what}, masked with {mask:#x}, is {'not ' * negated}{value:#x}"


def changed(whose: str, value: int, mask: int) -> str:
    """What ``--set-xmark value/mask`` does to ``whose`` mark: ``has bit 14 (0x4000) of its mark toggled (XOR)``."""
    sets, clears, toggles = value & mask, mask & ~value & ALL, value & ~mask & ALL
    if mask == ALL:
        return f"has {whose} set to {value:#x}"
    if sets and clears and not toggles:
        return f"has {bits(mask)} of {whose} set to {sets:#x}"
    parts = [
        f"{bits(number)} of {whose} {word}"
        for number, word in ((sets, "set"), (clears, "cleared"), (toggles, "toggled (XOR)"))
        if number
    ]
    return f"has {listed(parts, 'and')}" if parts else f"keeps {whose} as it is"


def listed(words: list[str], last: str) -> str:
    """``a``, ``a and b``, ``a, b and c``."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}" if words else ""
