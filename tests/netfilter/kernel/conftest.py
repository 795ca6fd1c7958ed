import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the oracle is the package `kernel` beside the tests

from kernel.room import Room


@pytest.fixture(scope="session")
def kernel_room() -> Iterator[Room]:
    """One room for all tests of the session."""
    with Room() as room:
        yield room


@pytest.fixture
def room(kernel_room: Room) -> Room:
    """The room without rules and listeners."""
    kernel_room.unlisten()
    kernel_room.load("", 4)
    kernel_room.load("", 6)
    return kernel_room
