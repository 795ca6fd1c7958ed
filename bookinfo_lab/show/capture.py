"""A capture: which frames passed where, as pcapng to keep or to open in Wireshark."""

import os

from bookinfo_lab import escape
from bookinfo_lab.errors import LabError
from bookinfo_lab.packets import pcapng
from bookinfo_lab.show import style
from bookinfo_lab.sources.base import Capturing, Evidence


class Capture:
    """What `Lab.capture` gives; everything but ``points`` is there when the ``with`` block has ended."""

    def __init__(self, running: Capturing, points: tuple[str, ...]) -> None:
        self._running, self.points = running, points

    @property
    def evidence(self) -> Evidence:
        """The bytes with their time and command."""
        return self._running.evidence

    @property
    def raw(self) -> bytes:
        """The whole capture as pcapng."""
        return self.evidence.raw

    @property
    def command(self) -> str:
        """The line that captures the same by hand."""
        return self.evidence.command

    @property
    def frame_count(self) -> int:
        """How many frames there are, at all points together."""
        return len(pcapng.parse(self.raw)[1])

    @property
    def frames_at(self) -> dict[str, int]:
        """How many frames each point saw."""
        interfaces, frames = pcapng.parse(self.raw)
        seen = [frame.interface for frame in frames]
        return {item.name: seen.count(number) for number, item in enumerate(interfaces)}

    @property
    def drops(self) -> int:
        """How many frames the kernel could not keep."""
        return sum(item.drops for item in pcapng.parse(self.raw)[0])

    def save(self, path: str) -> str:
        """Write the pcapng to a new file; its path.  LabError where there is a file already or none can be written.

        The file holds what passed, cookies and tokens too: `Lab.record` writes a redacted one.
        """
        try:
            with open(path, "xb") as file:
                file.write(self.raw)
        except OSError as error:
            raise LabError(f"cannot write {path}: {error.strerror}; give a new file in a folder of yours") from None
        return os.path.abspath(path)

    def __repr__(self) -> str:
        return "\n".join([f"$ {escape.text(self._command)}", *self._lines()])

    def _repr_html_(self) -> str:
        body = "\n".join(map(escape.html, self._lines()))
        caption = style.command(escape.html(self._command))
        return f'<figure style="{style.FIGURE}">{caption}<pre style="{style.PRE}">{body}</pre></figure>'

    @property
    def _command(self) -> str:
        return self.command if self._is_over() else f"(capturing at {', '.join(self.points)})"

    def _is_over(self) -> bool:
        try:
            return bool(self.evidence.raw)
        except LabError:
            return False  # the block still runs

    def _lines(self) -> list[str]:
        if not self._is_over():
            return ["the frames are there when the with block has ended"]
        lines = [f"{count:6} frames at {escape.text(name)}" for name, count in self.frames_at.items()]
        return [*lines, *([f"{self.drops:6} frames lost: the kernel's buffer was full"] if self.drops else [])]
