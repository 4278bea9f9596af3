"""The figures of a sweep's page: trials with their intervals, figure against size, and what each searched field did."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup

from components.report.svg import BLUE, GREY, MUTED, ORANGE, PAPER, drawing, inline
from components.sweeps.sweep_types import Field

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 40
"""Trials that a figure shows, the best ones."""


def intervals(name: str, rows: Sequence[Mapping[str, Any]], metric: str, unit: str) -> Markup:
    """Trials under one another, best first, each with its interval.

    Args:
        name: Unique on the page.
        rows: `label`, `estimate`, `low`, `high` (None where there is no interval) and `winner`.
        metric: Name of the axis.
        unit: What was drawn.
    """
    rows = rows[:MOST]
    with drawing(8.8, 1.1 + 0.3 * len(rows)) as (figure, axes):
        for y, row in enumerate(rows):
            colour = ORANGE if row["winner"] else BLUE
            if row["low"] is not None:
                axes.plot([row["low"], row["high"]], [y, y], color=colour, linewidth=1.6, solid_capstyle="round")
            axes.plot(row["estimate"], y, "D" if row["winner"] else "o", color=colour, markersize=6)
        axes.axvline(rows[0]["estimate"], color=MUTED, linewidth=0.8, linestyle=(0, (2, 3)))
        axes.set_yticks(range(len(rows)), [str(row["label"]) for row in rows])
        axes.set(xlabel=metric, ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="y", visible=False)
        return inline(figure, name, f"{metric} of each trial with a 95 % interval by {unit}; diamond: chosen")


def cost(name: str, rows: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """Figure against size of the network.

    Args:
        name: Unique on the page.
        rows: `number`, `estimate`, `parameters` and `winner`.
        metric: Name of the axis.
    """
    with drawing(4.3, 3.9) as (figure, axes):
        for row in rows:
            mark, colour = ("D", ORANGE) if row["winner"] else ("o", BLUE)
            axes.plot(row["parameters"], row["estimate"], mark, color=colour, markeredgecolor=PAPER, markersize=8)
            axes.annotate(str(row["number"]), (row["parameters"], row["estimate"]), (5, 4), textcoords="offset points")
        _log_axis(axes)
        axes.set(xlabel="weights of the network", ylabel=metric)
        return inline(figure, name, f"{metric} against the number of weights, a point for each trial")


def slices(name: str, field: Field, rows: Sequence[Mapping[str, Any]], metric: str) -> Markup:
    """What the values of a searched field gave.

    Args:
        name: Unique on the page.
        field: The field.
        rows: `values`, `score`, `done` (trained to its end) and `winner`.
        metric: Name of the axis.
    """
    with drawing(4.3, 3.3) as (figure, axes):
        if field.kind == "choice":
            places: Any = [field.choices.index(row["values"][field.name]) for row in rows]
            axes.set_xticks(range(len(field.choices)), [_short(value) for value in field.choices])
            axes.set_xlim(-0.5, len(field.choices) - 0.5)
        else:
            places = [float(row["values"][field.name]) for row in rows]
            if field.log:
                _log_axis(axes)
        for x, row in zip(np.asarray(places, float), rows):
            colour = ORANGE if row["winner"] else BLUE if row["done"] else GREY
            axes.plot(x, row["score"], "D" if row["winner"] else "o", color=colour, markersize=6,
                      markerfacecolor=colour if row["done"] else "none")  # fmt: skip
        axes.set(xlabel=field.name, ylabel=metric)
        return inline(figure, name, f"{metric} by {field.name}; hollow: ended early; diamond: chosen")


def _log_axis(axes: Axes) -> None:
    """A logarithmic axis whose labels are plain numbers: the page's figures have no mathematics."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:.0e}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _short(value: str) -> str:
    text = str(json.loads(value))
    return text if len(text) <= 14 else f"{text[:13]}…"
