"""A notebook on a cluster goes on where something may not be shown: a box says what is missing and what allows it.

Leaf.  `install` has IPython put a guard around every later cell.  What a cell would have named and could not is absent;
a cell that builds on it is not run past that, and says so: an absent thing is never taken for an answer.
"""

import ast
import sys
from typing import Any

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError, NotShown
from bookinfo_lab.show import style

_GUARD, _ERROR = "__bookinfo_lab_guard", "__bookinfo_lab_error"


class Missing:
    """What is not shown, and why."""

    def __init__(self, why: str) -> None:
        self.why = why

    def __repr__(self) -> str:
        return f"Not shown: {escape.text(self.why)}"

    def _repr_html_(self) -> str:
        return (
            f'<div role="note" style="padding: 0.5em 0.8em; border: 1px dashed {style.LINE}; {style.TEXT}">'
            f"<strong>Not shown</strong>: {escape.html(self.why)}</div>"
        )


class Guard:
    """What happens where a cell ends with an error: `absent` maps the names that no cell could give to the reason.

    Called with the error and the cell's names, each with the last line of the statement that would have given it.
    """

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self.absent: dict[str, str] = {}

    def __call__(self, error: Exception, names: tuple[tuple[str, int], ...]) -> bool:
        """Show the box; False where the error is another one, which goes on."""
        why = self._why(error)
        if not why:
            return False
        line = _line_of(error)
        for name, at in names:
            if at >= line:
                self._shell.user_ns.pop(name, None)  # of an earlier run: it would be taken for this one's
                self.absent[name] = why
        from IPython.display import display

        said = f"this needs {error.name!r}, which is missing above" if isinstance(error, NameError) else why
        display(Missing(said))  # type: ignore[no-untyped-call]
        return True

    def _why(self, error: Exception) -> str:
        if is_refusal(error):
            return str(error)
        return self.absent.get(str(error.name), "") if isinstance(error, NameError) else ""


def is_refusal(error: Exception) -> bool:
    """Whether leave, a right or a part of the cluster is missing."""
    if not isinstance(error, LabError):
        return False
    from bookinfo_lab.sources.cluster.api import Refused

    return isinstance(error, NotShown) or (isinstance(error, Refused) and error.status == 403)


def _line_of(error: Exception) -> int:
    """The cell's line that the error came from: the outermost frame that is a cell's own."""
    found, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_name == "<module>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


class _Guarded(ast.NodeTransformer):
    """A cell in a try statement; its last expression is still displayed."""

    def visit_Module(self, node: ast.Module) -> ast.Module:
        """The module of one cell."""
        if not node.body or (isinstance(node.body[0], ast.ImportFrom) and node.body[0].module == "__future__"):
            return node
        named = [
            (item.id, statement.end_lineno or statement.lineno)
            for statement in node.body
            for item in ast.walk(statement)
            if isinstance(item, ast.Name) and isinstance(item.ctx, ast.Store)
        ]
        names = tuple(sorted(set(named)))
        body = list(node.body)
        last = body[-1]
        if isinstance(last, ast.Expr):
            body[-1] = _parsed("__import__('sys').displayhook(None)", last)
            body[-1].value.args = [last.value]  # type: ignore[attr-defined]
        handler = f"try: pass\nexcept Exception as {_ERROR}:\n    if not {_GUARD}({_ERROR}, {names!r}): raise"
        made: Any = _parsed(handler, node.body[0])
        made.body = body
        return ast.Module([made], node.type_ignores)


def _parsed(text: str, where: ast.stmt) -> Any:
    """A statement of our own, at the place of one of the cell's."""
    made = ast.parse(text).body[0]
    for item in ast.walk(made):
        if "lineno" in item._attributes:
            ast.copy_location(item, where)
    return made


def install() -> None:
    """Guard every later cell of this notebook; elsewhere nothing happens."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None or _GUARD in shell.user_ns:
        return
    shell.user_ns_hidden[_GUARD] = shell.user_ns[_GUARD] = Guard(shell)
    shell.ast_transformers.append(_Guarded())
