"""The banner that says where a Lab's evidence comes from, and why from there."""

import time

from bookinfo_lab import escape
from bookinfo_lab.show import style
from bookinfo_lab.sources.base import Source

_WHAT = {
    "sandbox": "Live: real kernel rules, real Envoys, on this machine, in namespaces of their own.",
    "kubernetes": "A cluster of your own, as its API server answers you; nothing is made in it without leave.",
    "recording": "Recorded: every answer is what its source gave then; only what was recorded can be asked.",
}


def as_text(source: Source, why: str) -> str:
    """The same in a line."""
    around = _surroundings(source)
    return f"{source.description}{f', {around}' if around else ''}{f' ({why})' if why else ''}"


def _surroundings(source: Source) -> str:
    """Of a cluster: mesh, kube-proxy's mode, what may be made in it."""
    if source.kind != "kubernetes":
        return ""
    from bookinfo_lab.doctor import cluster_surroundings

    guests = source.guests  # type: ignore[attr-defined]
    allowed = ", ".join(sorted(guests.allowed)) or "nothing"
    return f"{cluster_surroundings.words(guests.api)}; allowed to be made: {allowed}"


def as_html(source: Source, why: str) -> str:
    """Which source, why it was chosen, what it is, and where its front door opens in this machine's browser."""
    url = f"{source.published}/productpage" if source.published else ""
    link = f'<br>Its front door, in your browser: <a href="{escape.html(url)}">{escape.html(url)}</a>' if url else ""
    read = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(source.now()))
    reason = f" ({escape.html(why)})" if why else ""
    around = _surroundings(source)
    more = f"{escape.html(around)}<br>" if around else ""
    return (
        f'<div style="padding: 0.5em 0.8em; border: 1px solid {style.LINE}; border-left-width: 5px; {style.TEXT}">'
        f"<strong>{escape.html(source.description)}</strong>{reason}<br>{more}"
        f"{escape.html(_WHAT.get(source.kind, ''))} Ages count to {read}.{link}</div>"
    )
