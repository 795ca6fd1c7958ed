"""The banner that says where a Lab's evidence comes from, and why from there."""

import time

from bookinfo_lab import escape
from bookinfo_lab.show import style
from bookinfo_lab.sources.base import Source

_WHAT = {
    "sandbox": "Live: real kernel rules, real Envoys, on this machine, in namespaces of their own.",
    "recording": "Recorded: every answer is what a live sandbox gave then; only what was recorded can be asked.",
}


def as_html(source: Source, why: str) -> str:
    """Which source, why it was chosen, what it is, and where its front door opens in this machine's browser."""
    url = f"{source.published}/productpage" if source.published else ""
    link = f'<br>Its front door, in your browser: <a href="{escape.html(url)}">{escape.html(url)}</a>' if url else ""
    read = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(source.now()))
    reason = f" ({escape.html(why)})" if why else ""
    return (
        f'<div style="padding: 0.5em 0.8em; border: 1px solid {style.LINE}; border-left-width: 5px; {style.TEXT}">'
        f"<strong>{escape.html(source.description)}</strong>{reason}<br>"
        f"{escape.html(_WHAT.get(source.kind, ''))} Ages count to {read}.{link}</div>"
    )
