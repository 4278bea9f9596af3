"""Figures as inline SVG that follow the page's colours, light, dark and printed, and are the same bytes every time."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Drawn in colours that nothing else uses, then replaced by the stylesheet's variables.
INK, MUTED, GRID, PAPER = "#010101", "#020202", "#030303", "#fefefe"
BLUE, ORANGE, GREY, RED = "#040404", "#050505", "#060606", "#070707"
MORE = ("#080808", "#090909", "#0a0a0a", "#0b0b0b")
_VARIABLES = {
    INK: "--ink", MUTED: "--muted", GRID: "--grid", PAPER: "--paper", BLUE: "--c1", ORANGE: "--c2", GREY: "--c3",
    RED: "--c4", **{colour: f"--c{number}" for number, colour in enumerate(MORE, 5)},
}  # fmt: skip
COLOURS = (BLUE, ORANGE, RED, GREY, *MORE)
"""Of classes, in label order."""

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none", "svg.hashsalt": "histoline", "text.parse_math": False, "font.size": 10,
    "font.family": "DejaVu Sans", "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": MUTED,
    "axes.facecolor": "none", "figure.facecolor": "none", "savefig.facecolor": "none", "xtick.color": MUTED,
    "ytick.color": MUTED, "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.8, "axes.axisbelow": True,
    "legend.frameon": False, "legend.fontsize": 9, "lines.linewidth": 1.8, "path.simplify_threshold": 0.3,
    "axes.titlesize": 10, "axes.titleweight": "bold",
}  # fmt: skip


@contextlib.contextmanager
def drawing(width: float = 4.3, height: float = 3.9) -> Iterator[tuple[Figure, Axes]]:
    """A new figure in the report's style, and its axes.

    Args:
        width: Inches, at 72 units an inch.
        height: Likewise.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure, figure.add_subplot()


def inline(figure: Figure, name: str, title: str) -> Markup:
    """The figure as an `<svg>` element to stand inside a page.

    Args:
        figure: Inside its `drawing` block.
        name: Unique on the page; ids begin with it.
        title: What the figure shows, for people who don't see it.
    """
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda found: _variable(found[0]), text)
    text = re.sub(r"<style.*?</style>|font-family: [^;\"]*; ?", "", text, flags=re.DOTALL)
    # matplotlib fixes the size in points; the page decides by the view box.
    head, _, rest = text.partition(">")
    view = re.search(r'viewBox="[^"]+"', head)
    assert view is not None
    label = escape(title)
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {view[0]} role="img" aria-label="{label}">'
    return Markup(re.sub(r"\n\s*", "\n", f"{opening}{rest}".strip()))  # matplotlib escapes text


def standalone(picture: str) -> str:
    """A picture of `inline` as a file of its own, in the page's colours, on paper of its own, light or dark.

    The paper is painted, so that it can be read where the page around it is dark and the reader's system is not.

    Args:
        picture: The `<svg>` element.
    """
    style = (Path(__file__).parent / "templates" / "style.css").read_text(encoding="utf-8")
    light, dark = re.findall(r":root \{([^}]*)\}", style)
    colours = f":root {{{light}}} @media (prefers-color-scheme: dark) {{ :root {{{dark}}} }}"
    opening, _, rest = str(picture).partition(">")  # Markup would escape what is put in
    opening = opening.replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)  # HTML needs no such line
    sheet = f"<style>{colours} text {{ font-family: 'DejaVu Sans', Verdana, sans-serif; }}</style>"
    return f'{opening}>\n{sheet}\n<rect width="100%" height="100%" style="fill: var(--paper)"/>{rest}\n'


def _variable(colour: str) -> str:
    name = _VARIABLES.get(colour)
    return f"var({name})" if name else colour
