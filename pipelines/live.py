"""A part of the terminal that is drawn anew while a command works; lines of the log scroll by above it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import RenderableType

PER_SECOND = 2.0
"""How often the screen is drawn: training needs the cores."""

BESIDE_TABLE = 10
"""Lines of the terminal that a table leaves for what stands around it."""


def on_terminal() -> bool:
    """Whether there is a terminal to draw on; a pipe, a file and JSON lines get plain lines."""
    dumb = os.environ.get("TERM", "").lower() in ("", "dumb", "unknown")
    return sys.stderr.isatty() and not dumb and os.environ.get("HISTOLINE_LOG_FORMAT") != "json"


class Screen:
    """What is drawn at the foot of the terminal, on stderr, until the block ends; its last state stays there.

    The cursor is never hidden and the terminal's modes are never touched, so there is nothing to put right where the
    command is killed.

    Args:
        draw: Gives what is to be seen; called from another thread.
    """

    def __init__(self, draw: Callable[[], RenderableType]) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)
        self._draw = draw
        self._live: Any = None

    def __enter__(self) -> Screen:
        from rich.live import Live

        self._live = Live(
            get_renderable=self._draw, console=self.console, refresh_per_second=PER_SECOND, redirect_stdout=False
        )
        self._live.start()
        self.console.show_cursor(True)  # rich hides it, and would not come to show it again after SIGKILL
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def print(self, line: str) -> None:
        """Adds a line of the log above."""
        self.console.print(line, markup=False, soft_wrap=True)

    @property
    def rows(self) -> int:
        """How many rows a table may have that is looked at while it grows."""
        return max(3, self.console.height - BESIDE_TABLE)

    @property
    def marks(self) -> dict[str, str]:
        """A sign for each state, in letters where the terminal knows no others."""
        if self.console.encoding.lower().startswith("utf"):
            return {"done": "✓", "running": "▸", "failed": "✗", "waiting": "·", "best": "← best"}
        return {"done": "+", "running": ">", "failed": "x", "waiting": ".", "best": "<- best"}


def grid(*columns: tuple[str, str]) -> Any:
    """An empty table without lines.

    Args:
        columns: Heading and `left` or `right` of each.
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading, side in columns:
        table.add_column(heading, justify="right" if side == "right" else "left", no_wrap=side == "right")
    return table


def duration(seconds: float) -> str:
    """`45 s`, `3 min`, `1 h 20 min`: as exact as an estimate can be."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
