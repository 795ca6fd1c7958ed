"""The notebooks: they run top to bottom on every source, and are written as the house writes notebooks."""

import ast
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import plans
import pytest
from nbclient import NotebookClient

from bookinfo_lab import connecting, sandbox
from bookinfo_lab.sandbox import Sandbox, scenarios
from bookinfo_lab.sources import recording
from bookinfo_lab.teach import cut

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
SOLUTIONS = sorted((FOLDER / "solutions").glob("*.ipynb"))
COPIES = [FOLDER / path.name for path in SOLUTIONS]
PLANS = {
    "sidecar": lambda: scenarios.scenario("sidecar"),
    "article": lambda: scenarios.scenario("article"),
    "random-meshed": lambda: plans.topology(41),
    "random-2017": lambda: plans.topology(42, meshed=False, layout="2017"),
}

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module", params=[pytest.param(name, marks=pytest.mark.sandbox) for name in PLANS])
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    """A running sandbox."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOOKINFO_LAB_STATE", str(tmp_path_factory.mktemp("state")))
        mesh = sandbox.up(PLANS[request.param](), f"nb-{request.param}", keep=False)
        try:
            yield mesh
        finally:
            mesh.down()


@pytest.fixture(params=["sidecar", "article", "cluster"])
def recorded(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path))
    return f"recording:{recording.bundled(request.param)}"


def executed(path: Path, source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nbformat.NotebookNode:
    """The notebook after a run top to bottom in a fresh kernel; a cell's error is the test's."""
    for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("JUPYTER_PATH", f"{sys.prefix}/share/jupyter")
    monkeypatch.setenv(connecting.VARIABLE, source)
    notebook = nbformat.read(path, 4)
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute()
    return notebook


def verdicts(notebook: nbformat.NotebookNode) -> list[str]:
    """What each `lab.check` showed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "lab.check(" in cell.source]
    return [output.data["text/plain"] for cell in cells for output in cell.outputs if "data" in output]


def proofs(notebook: nbformat.NotebookNode) -> list[str]:
    """How each `lab.prove` ended: what the line below its command begins with."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and "lab.prove(" in cell.source]
    shown = [output.data["text/plain"] for cell in cells for output in cell.outputs if "data" in output]
    assert len(shown) == len(cells)
    return [re.split("[,:]", text.splitlines()[1])[0] for text in shown]


def complaints(notebook: nbformat.NotebookNode) -> list[str]:
    """What was written to stderr."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return [output.text for output in outputs if output.output_type == "stream" and output.name == "stderr"]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_run_and_are_right_in_every_live_mesh(
    path: Path, live: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = executed(path, f"sandbox:{live.name}", tmp_path, monkeypatch)
    told = verdicts(notebook)
    assert len(told) >= 2
    assert [line for line in told if ": right." not in line] == []
    assert set(proofs(notebook)) <= {"agree"}
    assert complaints(notebook) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_run_and_are_right_on_the_bundled_recordings(
    path: Path, recorded: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = executed(path, recorded, tmp_path, monkeypatch)
    assert [line for line in verdicts(notebook) if ": right." not in line] == []
    assert set(proofs(notebook)) <= {"agree"}
    assert complaints(notebook) == []


@pytest.mark.parametrize("path", COPIES, ids=lambda path: path.stem)
def test_blanks_are_not_answered_yet_and_the_notebook_goes_on(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOKINFO_LAB_STATE", str(tmp_path))
    notebook = executed(path, "recording", tmp_path, monkeypatch)
    told = verdicts(notebook)
    assert len(told) >= 2
    assert [line for line in told if ": not answered yet." not in line] == []


@pytest.mark.parametrize(("number", "at_least"), [("02", 2), ("03", 5)])
def test_what_a_notebook_says_about_rules_the_kernel_has_proven(number: str, at_least: int) -> None:
    (path,) = [item for item in SOLUTIONS if item.name.startswith(number)]
    assert "\n".join(code_cells(cut.read(path))).count("lab.prove(") >= at_least


def test_the_learners_copies_are_what_the_command_cuts() -> None:
    assert cut.cut_all(FOLDER, write=False) == []


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
def test_solutions_are_kept_without_outputs_or_state(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text == cut.as_text(cut.stripped(cut.read(path)))
    nbformat.validate(nbformat.read(path, 4))


@pytest.mark.parametrize(("solution", "copy"), [*zip(SOLUTIONS, COPIES, strict=True)], ids=lambda path: path.stem)
def test_a_copy_holds_nothing_of_a_solution(solution: Path, copy: Path) -> None:
    cells = [cell for cell in cut.read(solution)["cells"] if cut.TAG in cell["metadata"].get("tags", ())]
    assert cells
    text = copy.read_text(encoding="utf-8")
    for cell in cells:
        own = [line for line in cut.source_of(cell).splitlines() if line.startswith("answer = ")]
        assert [line for line in own if line in text] == []


# How notebooks are written.


def code_cells(notebook: dict[str, Any]) -> list[str]:
    return [cut.source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "code"]


@pytest.mark.parametrize("path", SOLUTIONS, ids=lambda path: path.stem)
class TestStyle:
    def test_code_cells_are_short_and_each_has_a_sentence_before_it(self, path: Path) -> None:
        notebook = cut.read(path)
        lengths = [len(source.splitlines()) for source in code_cells(notebook)]
        assert max(lengths) <= 15
        assert statistics.median(lengths) <= 4
        kinds = [cell["cell_type"] for cell in notebook["cells"]]
        assert [n for n in range(1, len(kinds)) if kinds[n] == kinds[n - 1] == "code"] == []
        assert kinds[0] == kinds[-1] == "markdown"

    def test_functions_are_at_most_six_lines(self, path: Path) -> None:
        trees = [ast.parse(source) for source in code_cells(cut.read(path))]
        functions = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        assert [node.name for node in functions if node.end_lineno - node.lineno >= 6] == []

    def test_the_first_cell_has_the_question_aims_needs_and_minutes_and_the_last_the_answers(self, path: Path) -> None:
        first, *_, last = [cut.source_of(cell) for cell in cut.read(path)["cells"]]
        aims = re.findall(r"(?m)^\d\. ", first)
        assert "?" in first
        assert 3 <= len(aims) <= 4
        assert "*Needs:*" in first
        assert re.search(r"\*Time:\*.* minutes", first)
        assert re.findall(r"(?m)^\d\. ", last) == aims

    def test_there_is_one_h1_one_connect_and_two_to_four_exercises(self, path: Path) -> None:
        notebook = cut.read(path)
        prose = [cut.source_of(cell) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
        code = code_cells(notebook)
        assert len(re.findall(r"(?m)^# ", "\n".join(prose))) == 1
        assert "\n".join(code).count("connect(") == 1
        checked = re.findall(r'lab\.check\("(\d\d-\d)"', "\n".join(code))
        headed = re.findall(r"(?m)^### Exercise (\d\d-\d)$", "\n".join(prose))
        assert checked == headed == [f"{path.name[:2]}-{number}" for number in range(1, len(checked) + 1)]
        assert 2 <= len(checked) <= 4

    def test_each_piece_of_evidence_is_predicted_somewhere(self, path: Path) -> None:
        prose = [cut.source_of(cell) for cell in cut.read(path)["cells"] if cell["cell_type"] == "markdown"]
        assert sum(text.count("*Predict:*") for text in prose) >= 2

    def test_no_code_cell_holds_an_address_a_port_or_a_name_of_one_source(self, path: Path) -> None:
        for source in code_cells(cut.read(path)):
            assert not re.search(r"\d+\.\d+\.\d+\.\d+", source), source
            assert not re.search(r"(?<![\w./])\d{2,5}(?![\w-])", re.sub(r'"\d\d-\d"', "", source)), source
            assert not re.search(r"KUBE-(SVC|SEP|EXT|FW|SVL)-\w{16}", source), source
            names = {item["metadata"]["name"] for item in scenarios.scenario("sidecar").objects}
            names |= {item["metadata"]["name"] for item in scenarios.scenario("article").objects}
            words = set(re.findall(r"[a-z0-9_][-a-z0-9_.]+", re.sub(r'"/[\w/]*"', "", source)))
            assert words & (names - {"default", "gateway"}) == set(), source
