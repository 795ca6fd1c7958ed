"""The options of a match or target, taken one by one, so that none is passed over; their values as text.

Pure.  Whoever puts a match into words takes the options that he knows; what is left is written as it was.
"""

from collections.abc import Iterable
from typing import Any

from .rule import Option
from .values import Numbers, PortRange


class Taken:
    """The options of one match or target, handed out by name; `rest` is what nobody asked for."""

    def __init__(self, options: Iterable[Option]) -> None:
        self._options = [*options]

    def take(self, name: str) -> Option | None:
        """The first modelled option of that name, taken out; a negated one stays."""
        return self._taken(name, may_be_negated=False)

    def asked(self, name: str) -> Option | None:
        """The same for a condition, which may be negated."""
        return self._taken(name, may_be_negated=True)

    def flag(self, name: str) -> bool:
        """Whether the option is there, not negated."""
        return self.take(name) is not None

    @property
    def rest(self) -> tuple[str, ...]:
        """The options left, as they are written."""
        return tuple(written(item) for item in self._options)

    def _taken(self, name: str, *, may_be_negated: bool) -> Option | None:
        for option in self._options:
            if option.name == name and option.known and (may_be_negated or not option.negated):
                self._options.remove(option)
                return option
        return None


def written(option: Option) -> str:
    """An option as text, for what is not explained."""
    words = " ".join(text(item) for item in option.values)
    return f"{'! ' * option.negated}{option.name} {words}".strip()


def text(value: Any) -> str:
    """One value as a rule writes it, ranges as ``8000 to 8080``."""
    if isinstance(value, tuple | list):
        return ",".join(text(item) for item in value)
    return numbers(value) if isinstance(value, PortRange | Numbers) else str(value)


def numbers(value: Any) -> str:
    """``80``, or ``8000 to 8080`` for a range."""
    first, last = getattr(value, "first", value), getattr(value, "last", value)
    return str(first) if first == last else f"{first} to {last}"


def flat(option: Option) -> list[str]:
    """An option's values as text, whether they came as several or as one tuple."""
    return [text(item) for value in option.values for item in (value if isinstance(value, tuple | list) else (value,))]
