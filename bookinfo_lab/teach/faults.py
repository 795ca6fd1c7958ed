"""Where a notebook of the solutions is not written as the lab's notebooks are.

A notebook's JSON comes in, sentences come out, each with the cell it is about (counted from 1); none means that it is
in order.  What can be seen without running it: the first and the last cell, short cells and functions, a sentence
before each cell, one set-up, the exercises, nothing kept of a run, and nothing that only one cluster has.
"""

import ast
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Address
from typing import Any

from bookinfo_lab.teach.cut import BLANK, Notebook, is_solution, source_of

LONGEST_CELL, LONGEST_MEDIAN, LONGEST_FUNCTION = 15, 4, 6  # lines
_AIM = re.compile(r"(?m)^\d+\. ")
_FENCE = re.compile(r"(?ms)^(```|~~~).*?^\1")
_CHECK = re.compile(r"""\blab\.check\(\s*["']([^"'\n]*)["']""")
_ADDRESS = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.]*\d)")
_NUMBER = re.compile(r"(?<![\w.\-])\d{2,5}(?![\w.\-])")
_CHAIN = re.compile(r"\bKUBE-(?:SVC|SEP|EXT|FW|SVL|XLB)-[A-Z2-7]{16}\b")
_POD = re.compile(r"\b[a-z0-9][-a-z0-9]*-(?:[bcdf-hj-np-tv-z24-9]{6,10}|\d{6,10})-[bcdf-hj-np-tv-z24-9]{5}\b")
_PORTS = {53, 80, 443, *range(1024, 65536)}
Code = tuple[int, str]


def faults(notebook: Notebook, names: Iterable[str] = ()) -> list[str]:
    """What is at fault, in order of the rules; ``names`` are further words that no code cell may hold in a string."""
    cells = notebook["cells"]
    code = [(number, source_of(cell)) for number, cell in enumerate(cells, 1) if cell["cell_type"] == "code"]
    if not code:
        return ["it has no code cell"]
    return [
        *_frame(cells),
        *_lengths(code),
        *_sentences(cells),
        *_setup(code),
        *_exercises(cells),
        *_leftovers(notebook),
        *(f"cell {number}: {what}" for number, source in code for what in _literals(source, frozenset(names))),
    ]


def _frame(cells: list[Any]) -> Iterator[str]:
    """The first cell, the last, and the headings between."""
    if cells[0]["cell_type"] != "markdown" or cells[-1]["cell_type"] != "markdown":
        yield "it does not begin and end with text"
        return
    first, last = source_of(cells[0]), source_of(cells[-1])
    if not first.startswith("# ") or "?" not in first:
        yield "the first cell does not begin with a heading and ask a question"
    if len(_AIM.findall(first)) not in (3, 4):
        yield "the first cell does not number three or four aims"
    if not re.search(r"(?i)\bneeds\b", first) or not re.search(r"(?i)\bminutes\b", first):
        yield "the first cell does not say what the notebook needs and how many minutes it takes"
    if _AIM.findall(last) != _AIM.findall(first):
        yield "the last cell does not answer the aims of the first, one by one"
    texts = [_FENCE.sub("", source_of(cell)) for cell in cells if cell["cell_type"] == "markdown"]
    headings = sum(len(re.findall(r"(?m)^# |<h1|^[^\s#>|-].*\n=+ *$", text)) for text in texts)
    if headings != 1:
        yield f"it has {headings} headings of the first order, not one"


def _lengths(code: list[Code]) -> Iterator[str]:
    lines = {number: len(source.splitlines()) for number, source in code}
    yield from (f"cell {number}: {length} lines, not at most 15" for number, length in lines.items() if length > 15)
    median = statistics.median(lines.values())
    if median > LONGEST_MEDIAN:
        yield f"its code cells have {median:g} lines in the median, not at most {LONGEST_MEDIAN}"
    for number, source in code:
        for node in ast.walk(_parsed(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > LONGEST_FUNCTION:
                    yield f"cell {number}: function {node.name} has {length} lines, not at most {LONGEST_FUNCTION}"


def _sentences(cells: list[Any]) -> Iterator[str]:
    """A cell of code stands below text that ends as a sentence does."""
    for number, (before, cell) in enumerate(zip([None, *cells], cells, strict=False), 1):
        if cell["cell_type"] == "code":
            text = source_of(before).rstrip() if before and before["cell_type"] == "markdown" else ""
            last = text.splitlines()[-1] if text else ""
            if last.startswith("#") or not last.rstrip("*_)`").endswith((".", ":", "?", "!", "。", "：", "？", "！")):
                yield f"cell {number}: no sentence before it"


def _setup(code: list[Code]) -> Iterator[str]:
    """One cell imports the package and connects; what else is imported is a part of the package."""
    trees = [(number, _parsed(source)) for number, source in code]
    yield from (f"cell {number}: it is not Python" for number, source in code if not _is_python(source))
    calls = [number for number, tree in trees for node in ast.walk(tree) if _is_connect(node)]
    imports = [(number, name) for number, tree in trees for name in _imported(tree)]
    first = [name for number, name in imports if number == code[0][0]]
    if calls != [code[0][0]] or first != ["bookinfo_lab"]:
        yield "its first code cell is not one import of bookinfo_lab and the only connect()"
    for number, name in imports:
        if name.partition(".")[0] != "bookinfo_lab" or (number, name) in [(n, "bookinfo_lab") for n, _ in code[1:]]:
            yield f"cell {number}: imports {name}; a notebook sets up once, and uses what the lab has"


def _exercises(cells: list[Any]) -> Iterator[str]:
    found: list[str] = []
    for number, cell in enumerate(cells, 1):
        ids = _CHECK.findall(source_of(cell)) if cell["cell_type"] == "code" else []
        found += ids
        if ids and not is_solution(cell):
            yield f"cell {number}: checks {ids[0]} and is not tagged as a solution"
        if cell["cell_type"] == "code" and is_solution(cell):
            yield from (f"cell {number}: {what}" for what in _blank(cell, ids))
    if not 2 <= len(found) <= 4:
        yield f"it has {len(found)} exercises, not two to four"
    prefix = found[0].partition("-")[0] if found else ""
    if found != [f"{prefix}-{number}" for number in range(1, len(found) + 1)]:
        yield f"its exercises are not numbered one by one: {', '.join(found)}"


def _blank(cell: Mapping[str, Any], ids: list[str]) -> Iterator[str]:
    blank = cell["metadata"].get(BLANK)
    if not isinstance(blank, str):
        yield f"tagged as a solution without a text under {BLANK!r}"
        return
    open_places = [node for node in ast.walk(_parsed(blank)) if isinstance(node, ast.Constant) and node.value is ...]
    if not _is_python(blank) or not open_places:
        yield "its blank leaves no place open with `...`"
    if _CHECK.findall(blank) != ids:
        yield "its blank checks another exercise than its solution"
    own = [ast.dump(node) for node in _parsed(source_of(cell)).body if not _CHECK.search(ast.unparse(node))]
    if any(ast.dump(node) in own for node in _parsed(blank).body):
        yield "its blank holds a line of the solution"


def _leftovers(notebook: Notebook) -> Iterator[str]:
    """What a run, or an editor, left in the file."""
    for number, cell in enumerate(notebook["cells"], 1):
        kept = [name for name in ("outputs", "execution_count", "attachments") if cell.get(name)]
        yield from (f"cell {number}: {name} are kept" for name in kept)
    if "widgets" in notebook["metadata"]:
        yield "the state of widgets is kept"


def _literals(source: str, names: frozenset[str]) -> Iterator[str]:
    """What stands in a cell and is so on one cluster only."""
    text = _CHECK.sub("", source)
    for found in _ADDRESS.findall(text):
        if _is_address(found):
            yield f"holds the address {found}"
    yield from (f"holds the port {found}" for found in _NUMBER.findall(_ADDRESS.sub("", text)) if int(found) in _PORTS)
    yield from (f"holds the chain {found}" for found in _CHAIN.findall(text))
    yield from (f"holds the pod {found}" for found in _POD.findall(text))
    for node in ast.walk(_parsed(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.strip() in names:
            yield f"holds the name {node.value.strip()}"


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True


def _is_connect(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "connect"


def _imported(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names)


def _is_python(source: str) -> bool:
    try:
        ast.parse(source)
    except (SyntaxError, ValueError):
        return False
    return True


def _parsed(source: str) -> ast.Module:
    """The cell's tree, an empty one where it is not Python: that is a fault of its own."""
    return ast.parse(source if _is_python(source) else "")
