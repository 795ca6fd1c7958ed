"""A program that runs somewhere and is talked to: what it has printed so far, and waiting until that is enough.

Edge's vocabulary.  A subclass moves the bytes: over pipes of a sandbox, over the API server of a cluster.
"""

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

_NUDGE_S = 0.005


class Ended(Exception):
    """The program ended, or said nothing in time."""


class Program(ABC):
    """A running program: ``text`` is what it has printed so far, ``nudge_s`` how often it is worth nudging."""

    nudge_s = _NUDGE_S

    def __init__(self, name: str) -> None:
        self._name = name
        self._printed = b""
        self._lines = 0

    @property
    def text(self) -> str:
        """Everything it has printed so far, as far as it was heard."""
        return self._printed.decode("utf-8", "replace")

    @property
    @abstractmethod
    def errors(self) -> str:
        """Everything on its standard error so far."""

    @abstractmethod
    def write(self, text: str) -> None:
        """Give it input; `Ended` where it reads no more."""

    @abstractmethod
    def receive(self, seconds: float) -> bytes | None:
        """What it printed next, None where that is nothing within the time; `Ended` where it has ended."""

    def hear(self, is_enough: Callable[[str], bool], seconds: float, nudge: Callable[[], None] | None = None) -> None:
        """Read until ``text`` is enough; ``nudge`` is called again and again meanwhile.

        Raises `Ended` where the program ends before, or the time is over.
        """
        deadline = time.monotonic() + seconds
        while not is_enough(self.text):
            if nudge is not None:
                nudge()
            left = deadline - time.monotonic()
            if left < 0:
                raise Ended(f"{self._name} did not say in {seconds:g} s what was waited for")
            self._printed += self.receive(min(left, self.nudge_s) if nudge else left) or b""

    def line(self, seconds: float) -> dict[str, Any]:
        """The next line, a JSON object; an empty one where the program ended or the time is over."""
        wanted = self._lines + 1
        try:
            self.hear(lambda text: text.count("\n") >= wanted, seconds)
        except Ended:
            return {}
        self._lines = wanted
        found: dict[str, Any] = json.loads(self.text.split("\n")[wanted - 1])
        return found
