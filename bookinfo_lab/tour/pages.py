"""HTML of a tour: each executed notebook as a page that stands alone, and the index of them.

A page holds no script and nothing that another host would have to send; its content security policy forbids both, so
that not even an output with such a reference in it can make a browser ask; what no policy can forbid, to lead the
browser elsewhere by itself, is made plain text.  A widget is shown as its text/html or plain text.  Links remain links.
"""

import functools
import html
import re
import threading
from datetime import UTC, datetime
from urllib.parse import quote

from jinja2 import DictLoader
from jupyter_core.paths import ENV_JUPYTER_PATH, SYSTEM_JUPYTER_PATH
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from traitlets.config import Config

from bookinfo_lab.tour.report import Report, Run

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:"
_RENDERING = threading.Lock()  # an exporter keeps what belongs to one notebook
_HEADS = ("notebook", "source", "began", "seconds", "code cells", "exercises right", "outcome")
_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 1rem; }
table { border-collapse: collapse; } th, td { text-align: left; padding: 0.2rem 1rem 0.2rem 0; }
pre { overflow-x: auto; }
"""
_LEADING = re.compile(r"<(?=\s*/?(meta|base)\b)", re.IGNORECASE)
_SHOWN = (
    "text/html",
    "image/svg+xml",
    "image/png",
    "image/jpeg",
    "text/markdown",
    "text/plain",
)
_TEMPLATE = """{%- extends 'lab/index.html.j2' -%}
{% block html_head_js %}<meta http-equiv="Content-Security-Policy" content="POLICY">{% endblock %}
{% block jupyter_widgets %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block body_header %}{{ super() }}
<p style="padding: 0 1em">{{ resources.executed | escape_html }} <a href="../index.html">All notebooks</a></p>
{% endblock %}
""".replace("POLICY", _POLICY)


def page(notebook: NotebookNode, run: Run) -> str:
    """An executed notebook as HTML."""
    told = f"Executed on {run.source}, {_moment(run.began)}, in {run.seconds:.1f} s."
    if run.error:
        told += f" It stopped at cell {run.cells}: {run.error}."
    for output in (one for cell in notebook.cells for one in cell.get("outputs", ())):
        if "text/html" in output.get("data", {}):
            output.data["text/html"] = _LEADING.sub("&lt;", output.data["text/html"])
    with _RENDERING:
        body, _ = _exporter().from_notebook_node(notebook, {"executed": told, "metadata": {"name": run.notebook}})
    return str(body)


def index(report: Report) -> str:
    """The page that says what ran where, when, how long and with what result."""
    rows = "\n".join(_row(run) for run in report.runs)
    notes = "".join(f"<p>{html.escape(note)}</p>" for note in report.notes)
    versions = ", ".join(f"{html.escape(name)} {html.escape(version)}" for name, version in report.versions)
    journey = f"<h2>One request</h2><pre>{html.escape(report.journey)}</pre>" if report.journey else ""
    outcome = html.escape(report.fault) if report.fault else "Every notebook ran to its end."
    heads = "".join(f'<th scope="col">{head}</th>' for head in _HEADS)
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<title>bookinfo-lab: the tour</title><style>{_STYLE}</style></head>
<body><main><h1>The tour</h1>
<p>{_moment(report.began)}, {report.seconds:.1f} s. {outcome}</p>
{notes}
<table><thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody></table>
{journey}
<p>{versions}</p>
</main></body></html>
"""


def _row(run: Run) -> str:
    judged = f"{run.right} of {run.judged}" if run.judged else ""
    outcome = f"stopped at cell {run.cells}: {run.error}" if run.error else "ran to its end"
    link = f'<a href="{html.escape(quote(run.page))}">{html.escape(run.notebook)}</a>'
    cells = [link, html.escape(run.source), _moment(run.began), f"{run.seconds:.1f}", str(run.cells), judged]
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in [*cells, html.escape(outcome)]) + "</tr>"


def _moment(unix: float) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


@functools.cache
def _exporter() -> HTMLExporter:
    """What makes pages; the templates are this installation's, whatever the user has put beside them."""
    return HTMLExporter(  # type: ignore[no-untyped-call]
        config=Config({"NbConvertBase": {"display_data_priority": list(_SHOWN)}}),
        template_name="lab",
        template_file="tour.html.j2",
        extra_loaders=[DictLoader({"tour.html.j2": _TEMPLATE})],
        template_data_paths=[f"{place}/nbconvert/templates" for place in (*ENV_JUPYTER_PATH, *SYSTEM_JUPYTER_PATH)],
        embed_images=True,
    )
