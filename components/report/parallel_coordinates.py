"""Trials as lines across parallel axes: what they were made of at the left, what came of it at the right."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup

from components.core.text import number
from components.report.svg import COLOURS, MUTED, ORANGE, PAPER, drawing, inline
from components.sweeps.sweep_types import Field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 40
"""Trials that are drawn, the best ones."""

FAMILIES = tuple(colour for colour in COLOURS if colour != ORANGE)
"""Colours of recipes; orange is the chosen trial's on the whole page."""

LONGEST = 18
"""Letters of a label."""


@dataclasses.dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title: Above it.
        places: Of each trial, 0 (bottom) to 1; None where it is not known.
        ticks: (place, label) each.
    """

    title: str
    places: tuple[float | None, ...]
    ticks: tuple[tuple[float, str], ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One trial.

    Attributes:
        number: Of the trial.
        family: Its recipe.
        done: It was trained to its end.
        winner: It was chosen.
        best: It has the best figure.
    """

    number: int
    family: str
    done: bool
    winner: bool
    best: bool


def names(title: str, values: Sequence[str], order: Sequence[str] = ()) -> Axis:
    """An axis of names, in the order in which they are met or given, from the top.

    Args:
        title: Of the axis.
        values: Of each trial.
        order: All names that it has.
    """
    known = list(dict.fromkeys([*order, *values]))
    at = {name: 1 - i / (len(known) - 1) if len(known) > 1 else 0.5 for i, name in enumerate(known)}
    return Axis(title, tuple(at[value] for value in values), tuple((place, _short(name)) for name, place in at.items()))


def numbers(title: str, values: Sequence[float | None], *, log: bool = False) -> Axis:
    """An axis of numbers from the smallest to the largest of the trials.

    Args:
        title: Of the axis.
        values: Of each trial; None where it is not known.
        log: Even on a logarithmic scale; all are above 0 then.
    """
    known = [value for value in values if value is not None]
    low, high = min(known), max(known)
    ends = (math.log(low), math.log(high)) if log else (low, high)

    def place(value: float) -> float:
        at = math.log(value) if log else value
        return (at - ends[0]) / (ends[1] - ends[0]) if high > low else 0.5

    middle = math.exp(sum(ends) / 2) if log else sum(ends) / 2
    ticks = tuple((place(value), _figure(value)) for value in dict.fromkeys((low, middle, high)))
    return Axis(title, tuple(None if value is None else place(value) for value in values), ticks)


def searched(field: Field, values: Sequence[str]) -> Axis:
    """The axis of a searched field.

    Args:
        field: The field.
        values: Of each trial, as text of YAML.
    """
    if field.kind == "choice":
        return names(field.name, [str(json.loads(v)) for v in values], [str(json.loads(v)) for v in field.choices])
    return numbers(field.name, [float(value) for value in values], log=field.log)


def draw(name: str, axes: Sequence[Axis], rows: Sequence[Row], metric: str) -> Markup:
    """The figure; colours are recipes, the chosen trial is drawn last and thick, the best one thick.

    Args:
        name: Unique on the page.
        axes: From left to right; the last one is what came of it.
        rows: Trials, best first, in the order of the axes' places.
        metric: What the last axis shows.
    """
    families = list(dict.fromkeys(row.family for row in rows))
    colours = {family: FAMILIES[i % len(FAMILIES)] for i, family in enumerate(families)}
    with drawing(8.8, 4.2) as (figure, canvas):
        both = sum(row.winner or row.best for row in rows) > 1
        for i in reversed(range(min(len(rows), MOST))):
            row = rows[i]
            line = [(x, place) for x, axis in enumerate(axes) if (place := axis.places[i]) is not None]
            xs, ys = [x for x, _ in line], [y for _, y in line]
            strong = row.winner or row.best
            colour = ORANGE if row.winner else colours[row.family]
            canvas.plot(
                xs, ys, color=colour, linewidth=2.8 if strong else 1.2, alpha=1 if strong else 0.55,
                linestyle="-" if row.done else (0, (3, 2)), marker="D" if row.winner else "o",
                markersize=6 if strong else 4, markerfacecolor=colour if row.done else PAPER,
                zorder=4 if row.winner else 3 if row.best else 2,
            )  # fmt: skip
            if strong:
                said = "chosen" if row.winner else "best"
                said = "best, chosen" if row.winner and row.best else said
                # The best is never below the chosen one.
                text = canvas.annotate(
                    f"{row.number} {said}", (xs[-1], ys[-1]), xytext=(42, 0 if not both else 7 if row.best else -7),
                    va="center", textcoords="offset points", color=colour, fontweight="bold",
                )  # fmt: skip
                text.set_in_layout(False)
        _frame(canvas, axes)
        if len(families) > 1:
            _legend(canvas, colours)
        said = ", ".join(axis.title for axis in axes[:-1])
        return inline(figure, name, f"Each trial as a line over {said} and {metric}; thick: the best and the chosen")


def _frame(canvas: Axes, axes: Sequence[Axis]) -> None:
    """The axes themselves, with their titles and labels."""
    for x, axis in enumerate(axes):
        canvas.plot([x, x], [-0.04, 1.04], color=MUTED, linewidth=1, zorder=1)
        height, side = 1.09 if x % 2 else 1.17, "left" if x == 0 else "center"
        canvas.text(x, height, axis.title, ha=side, fontweight="bold", fontsize=9)
        for place, label in axis.ticks:
            canvas.annotate(
                label, (x, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8, zorder=5,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1, "alpha": 0.8},
            )  # fmt: skip
    canvas.set(xlim=(-0.03 * len(axes), len(axes) - 1 + 0.19 * len(axes)), ylim=(-0.06, 1.26))
    canvas.axis("off")


def _legend(canvas: Axes, colours: dict[str, str]) -> None:
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], color=colour, linewidth=2, label=_short(name)) for name, colour in colours.items()]
    canvas.legend(handles=handles, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=min(4, len(handles)))


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _figure(value: float) -> str:
    if value >= 1000:
        return f"{value / 1e6:.3g} M" if value >= 1e6 else f"{value / 1e3:.3g} k"
    return number(value) if 0.01 <= value < 1 else f"{value:.3g}"
