"""A list to choose a pod from: calls a function with the chosen one and shows what it answers.

Leaf; ipywidgets is imported when a chooser is shown or used.  The drop-down's value is the only state.  Untouched it
shows the first pod's answer; where no widgets are (an executed page, GitHub) its HTML says the same without a choice.
"""

from collections.abc import Callable, Sequence
from typing import Any

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError
from bookinfo_lab.show import style

Function = Callable[[str], Any]
_WIDGET = "application/vnd.jupyter.widget-view+json"


class Chooser:
    """A labelled drop-down list over an area for the answer; ``value`` is the chosen name, and may be set."""

    def __init__(self, names: Sequence[str], function: Function, label: str) -> None:
        if not names:
            raise LabError("there is nothing to choose from: the lab has no pods")
        import ipywidgets

        self.names, self.function, self.label = tuple(names), function, label
        self._list = ipywidgets.Dropdown(
            options=[(escape.text(name, 120), name) for name in self.names],
            value=self.names[0],
            description=label,
            style={"description_width": "initial"},
            layout={"width": "max-content", "max_width": "100%"},
        )
        self._answer = ipywidgets.Output()
        self.widget = ipywidgets.VBox([self._list, self._answer])
        self._list.observe(lambda _: self._show(), names="value")

    @property
    def value(self) -> str:
        """The chosen name."""
        return str(self._list.value)

    @value.setter
    def value(self, name: str) -> None:
        if name not in self.names:
            raise LabError(f"no {escape.text(name, 80)!r} to choose; there are: {', '.join(self.names)}")
        self._list.value = name

    @property
    def answer(self) -> Any:
        """What the function answers to the chosen name, now; a LabError's line where it cannot."""
        try:
            return self.function(self.value)
        except LabError as error:
            return _Refusal(str(error))

    def _show(self) -> None:
        """Replace the shown answer."""
        data = _bundle(self.answer)
        self._answer.outputs = ({"output_type": "display_data", "data": data, "metadata": {}},)

    def __repr__(self) -> str:
        return f"{self.label} {escape.text(self.value)} (of {len(self.names)})\n{self.answer!r}"

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        answer = _bundle(self.answer)
        self._answer.outputs = ({"output_type": "display_data", "data": answer, "metadata": {}},)
        shown = self.widget._repr_mimebundle_() or {}
        widget = {_WIDGET: shown[_WIDGET]} if _WIDGET in shown else {}
        return {
            "text/plain": f"{self.label} {escape.text(self.value)} (of {len(self.names)})\n{answer['text/plain']}",
            "text/html": self._fallback(answer),
            **widget,
        }

    def _fallback(self, answer: dict[str, str]) -> str:
        others = "".join(f"<li>{escape.html(name, 120)}</li>" for name in self.names if name != self.value)
        body = (
            answer.get("text/html")
            or f'<pre style="{style.PRE}">{escape.html(answer["text/plain"], keep=chr(10))}</pre>'
        )
        return (
            f'<div style="{style.TEXT}"><strong>{escape.html(self.label)}</strong> {escape.html(self.value, 120)}{body}'
            f"<details><summary>Others to choose, in a live notebook</summary><ul>{others}</ul></details></div>"
        )


class _Refusal:
    """Why there is no answer, as one line."""

    def __init__(self, message: str) -> None:
        self._message = message

    def __repr__(self) -> str:
        return escape.text(self._message)

    def _repr_html_(self) -> str:
        return f'<p style="{style.TEXT}">{escape.html(self._message)}</p>'


def choose(names: Sequence[str], function: Function, label: str = "Pod:") -> Chooser:
    """A Chooser over ``names``, each once, in the order given."""
    return Chooser(tuple(dict.fromkeys(names)), function, label)


def _bundle(answer: Any) -> dict[str, str]:
    """The answer as text and, where it has any, as HTML."""
    as_html = getattr(answer, "_repr_html_", None)
    html = {"text/html": as_html()} if callable(as_html) else {}
    return {"text/plain": repr(answer) if html else escape.text(repr(answer), 20_000, keep="\n"), **html}
