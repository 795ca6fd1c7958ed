"""The sandbox and the recordings keep every promise of a source."""

import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import plans
import pytest

from bookinfo_lab import sandbox
from bookinfo_lab.lab import Lab
from bookinfo_lab.sandbox import scenarios
from bookinfo_lab.sources import recording
from bookinfo_lab.sources.recording import RecordingSource
from bookinfo_lab.sources.sandbox import SandboxSource


def neighbour(name: str) -> ModuleType:
    """A module beside this one, which no test run imports by itself."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


PROMISES: tuple[Callable[[Lab], None], ...] = neighbour("protocol").PROMISES
PLANS = {
    "sidecar": lambda: scenarios.scenario("sidecar"),
    "article": lambda: scenarios.scenario("article"),
    "random": lambda: plans.topology(77),
}
SOURCES = [
    *(pytest.param(("sandbox", name), marks=pytest.mark.sandbox, id=f"sandbox-{name}") for name in PLANS),
    *(pytest.param(("recording", name), id=f"recording-{name}") for name in ("sidecar", "article", "cluster")),
]


@pytest.fixture(scope="module", params=SOURCES)
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    kind, name = request.param
    if kind == "recording":
        source = RecordingSource(recording.bundled(name))
        yield Lab(source)
        source.close()
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        mesh = sandbox.up(PLANS[name](), f"promises-{name}", keep=False)
        try:
            yield Lab(SandboxSource(mesh))
        finally:
            mesh.down()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise(lab: Lab, promise: Callable[[Lab], None]) -> None:
    promise(lab)
