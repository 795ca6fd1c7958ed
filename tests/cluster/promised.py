"""What every source must do: `tests/sources/protocol.py`, which no test run imports by itself."""

import importlib.util
from pathlib import Path
from types import ModuleType


def _protocol() -> ModuleType:
    path = Path(__file__).resolve().parent.parent / "sources" / "protocol.py"
    spec = importlib.util.spec_from_file_location("protocol", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROTOCOL = _protocol()
