"""A value inside an API object, together with where it stands.

`Field` walks plain JSON values; whatever is absent or ``null`` reads as absent, as in the Kubernetes API.  A
value of the wrong type, or one that must be there and is not, is refused with one line that names the object,
the path inside it and the offending value.
"""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from bookinfo_lab.errors import Incomplete, LabError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Field:
    """The JSON ``value`` at ``path`` of the object that ``owner`` describes; ``None`` is absent."""

    owner: str
    path: str
    value: Any

    def __getitem__(self, name: str) -> "Field":
        path = f"{self.path}.{name}" if self.path else name
        if self.value is None:
            return Field(self.owner, path, None)
        if not isinstance(self.value, Mapping):
            raise self.wrong("an object")
        return Field(self.owner, path, self.value.get(name))

    def each(self) -> tuple["Field", ...]:
        """The elements of a list, in order; of an absent one, none."""
        if self.value is None:
            return ()
        if not isinstance(self.value, (list, tuple)):
            raise self.wrong("a list")
        return tuple(Field(self.owner, f"{self.path}[{index}]", item) for index, item in enumerate(self.value))

    def text(self, default: str | None = None) -> str:
        """A string; ``default`` where it is absent, an error where there is no default."""
        return self._read(str, "a string", default)

    def integer(self, default: int | None = None) -> int:
        """An integer; ``default`` where it is absent, an error where there is no default."""
        if isinstance(self.value, bool):  # Python counts True as 1
            raise self.wrong("an integer")
        return self._read(int, "an integer", default)

    def flag(self, default: bool) -> bool:
        """A boolean; ``default`` where it is absent."""
        return self._read(bool, "true or false", default)

    def port(self, default: int | None = None) -> int:
        """A port number from 1 to 65535; 0 and absent give ``default``."""
        if self.value in (None, 0) and default is not None:
            return default
        number = self.integer()
        if not 0 < number <= 65535:
            raise self.wrong("a port number from 1 to 65535")
        return number

    def texts(self) -> tuple[str, ...]:
        """The strings of a list."""
        return tuple(item.text() for item in self.each())

    def labels(self) -> dict[str, str]:
        """A map of strings to strings."""
        if self.value is None:
            return {}
        if not isinstance(self.value, Mapping):
            raise self.wrong("an object")
        return {key: self[key].text("") for key in self.value}

    def address(self) -> Address:
        """An IP address."""
        return self._parsed(ipaddress.ip_address, "an IP address")

    def network(self) -> Network:
        """A CIDR; host bits are masked away, and padding is allowed, as the API server allows it."""
        return self._parsed(lambda text: ipaddress.ip_network(text.strip(), strict=False), "a CIDR")

    def wrong(self, expected: str) -> LabError:
        """The error for a value that is not what the API defines here."""
        shown = repr(self.value)
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        return LabError(
            f"{self.owner}: {self.path or 'the object'} is {shown}, not {expected}; correct it in the objects"
        )

    def missing(self) -> Incomplete:
        """The error for a value that must be there."""
        return Incomplete(
            f"{self.owner}: {self.path} is missing; give the whole object, as kubectl get -o json prints it"
        )

    def _parsed(self, parse: Callable[[str], _Value], expected: str) -> _Value:
        text = self.text()
        try:
            return parse(text)
        except ValueError:
            raise self.wrong(expected) from None

    def _read(self, kind: type[_Value], expected: str, default: _Value | None) -> _Value:
        if self.value is None:
            if default is None:
                raise self.missing()
            return default
        if not isinstance(self.value, kind):
            raise self.wrong(expected)
        return self.value
