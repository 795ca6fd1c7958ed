"""The few styles that every shown thing shares: inline, because a notebook's HTML carries no sheet of ours.

Colours come from Jupyter's theme where there is one, with a fallback that is legible on white.
"""

TEXT = "color: var(--jp-ui-font-color1, #1f2328)"
QUIET = "color: var(--jp-ui-font-color1, #1f2328); font-size: 0.9em"
LINE = "var(--jp-border-color1, #6e7781)"
MONO = "font-family: var(--jp-code-font-family, monospace); font-size: var(--jp-code-font-size, 13px)"
FIGURE = f"margin: 0.3em 0; {TEXT}"
PRE = f"margin: 0; padding: 0.4em 0.6em; border-left: 3px solid {LINE}; overflow-x: auto; white-space: pre; {MONO}"
CELL = (
    f"text-align: left; padding: 0.15em 0.8em 0.15em 0; border-bottom: 1px solid {LINE}; vertical-align: top; "
    f"white-space: nowrap; {MONO}"
)


def command(line: str) -> str:
    """The line that gets some evidence by hand, escaped already, as the caption above it."""
    return f'<figcaption style="{QUIET}"><code>$ {line}</code></figcaption>'
