"""How one HTTP request moves through a service mesh: the names a learner meets, each imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bookinfo_lab.connecting import connect
    from bookinfo_lab.errors import LabError
    from bookinfo_lab.lab import Lab
    from bookinfo_lab.netfilter.packet import Packet

_HOMES = {"connect": "connecting", "Lab": "lab", "LabError": "errors", "Packet": "netfilter.packet"}
__all__ = ["Lab", "LabError", "Packet", "connect"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
