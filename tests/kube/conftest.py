import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def recorded_objects(data_folder: Path) -> Callable[[str], Any]:
    """Reads an API object file of the recorded data."""
    return lambda name: json.loads((data_folder / name).read_text())
