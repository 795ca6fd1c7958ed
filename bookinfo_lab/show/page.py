"""One HTTP response: its status line and header fields as they came, and the page without its teeth.

Leaf.  The page is shown in a sandboxed frame with a policy that forbids scripts and every request, so a hostile or a
merely ambitious page can load nothing and run nothing.
"""

import html
import http.client
import io

from bookinfo_lab import escape
from bookinfo_lab.errors import ParseError
from bookinfo_lab.show import style
from bookinfo_lab.sources.base import Evidence

LONGEST_PAGE = 200_000
LONGEST_FIELD = 300
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


class Page:
    """A response: ``status``, ``reason``, ``headers`` as (name, value) pairs in order, ``body`` without its framing."""

    def __init__(self, evidence: Evidence) -> None:
        self.evidence, self.command = evidence, evidence.command
        response = http.client.HTTPResponse(_Bytes(evidence.raw), method="GET")  # type: ignore[arg-type]
        try:
            response.begin()
            self.body = response.read()
        except (http.client.HTTPException, ValueError) as error:
            start = evidence.raw[:80].decode("latin-1")
            reason = f"no whole HTTP response ({type(error).__name__})"
            raise ParseError(self.command, 1, escape.text(start, 80), reason) from None
        self.status, self.reason = response.status, response.reason
        self.headers: tuple[tuple[str, str], ...] = tuple(response.getheaders())

    @property
    def text(self) -> str:
        """The body as UTF-8."""
        return self.body.decode("utf-8", "replace")

    def header(self, name: str) -> str:
        """The value of a header field, "" where there is none; several are joined by a comma."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())

    def __repr__(self) -> str:
        fields = [f"{escape.text(key)}: {escape.text(value, LONGEST_FIELD)}" for key, value in self.headers]
        head = f"HTTP {self.status} {escape.text(self.reason)}, {len(self.body):,} bytes"
        return "\n".join([f"$ {escape.text(self.command)}", head, *fields])

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="{style.CELL}">{escape.html(key)}</th>'
            f'<td style="{style.CELL}">{escape.html(value, LONGEST_FIELD)}</td></tr>'
            for key, value in self.headers
        )
        return (
            f'<figure style="{style.FIGURE}">{style.command(escape.html(self.command))}'
            f'<p style="margin: 0.3em 0; {style.TEXT}"><strong>{self.status} {escape.html(self.reason)}</strong>, '
            f"{len(self.body):,} bytes</p>{self._frame()}"
            f'<details style="{style.TEXT}"><summary>{len(self.headers)} header fields</summary>'
            f'<table style="border-collapse: collapse"><tbody>{rows}</tbody></table></details></figure>'
        )

    def _frame(self) -> str:
        if "html" not in self.header("content-type"):
            return f'<pre style="{style.PRE}">{escape.html(self.text, keep=chr(10))}</pre>'
        policy = f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        page = html.escape(policy + self.text[:LONGEST_PAGE])
        return (
            f'<iframe sandbox="" title="the page as it came, without scripts" srcdoc="{page}" '
            'style="width: 100%; height: 22em; border: 1px solid #6e7781; background: white"></iframe>'
        )


class _Bytes:
    """The part of a socket that HTTPResponse reads."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def makefile(self, _: str) -> io.BytesIO:
        """All bytes."""
        return io.BytesIO(self._raw)
