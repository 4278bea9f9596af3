"""The leakage gap as a document, a sentence, a picture and a page of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from components.core.text import number, plural, spaced
from components.metrics.leakage import Gap
from components.report.lineage import flatten
from components.report.measures import LOWER_IS_BETTER, TITLES
from components.report.page import environment
from components.report.svg import BLUE, INK, MUTED, ORANGE, PAPER, drawing, inline

Document = Mapping[str, Any]
"""leakage.json: see `schemas/leakage.schema.json`."""


@dataclasses.dataclass(frozen=True)
class Facts:
    """What was compared, beside the figures.

    Attributes:
        dataset: Data set.
        task: Task.
        name: Of the comparison, unique for data, recipe, seeds and code.
        created: ISO 8601, UTC.
        plan_id: Of the data set.
        content_digest: Likewise.
        group_unit: `patient` or `slide`.
        classes: Class names in label order.
        config: The recipe.
        seeds: Of each pair of models.
        sizes: Split to patches, the same for both ways of splitting.
        tested: Groups in the test part of the patient split.
        groups: Groups in all.
        shared: Share of the random splits' test patches whose group is in train or eval too.
        looks: How often the test split was looked at by now.
        epochs: That each model was trained: `patient` and `random`, one number per seed.
        seconds: Of all training.
    """

    dataset: str
    task: str
    name: str
    created: str
    plan_id: str
    content_digest: str
    group_unit: str
    classes: tuple[str, ...]
    config: Mapping[str, Any]
    seeds: tuple[int, ...]
    sizes: Mapping[str, int]
    tested: int
    groups: int
    shared: float
    looks: int
    epochs: Mapping[str, Sequence[int]]
    seconds: float


def document(facts: Facts, gaps: Mapping[str, Gap]) -> dict[str, Any]:
    """All that is known, as plain JSON values; a pure function."""
    metric = "macro_f1" if len(facts.classes) > 2 else "auc"
    return {
        "format": 1,
        **dataclasses.asdict(facts),
        "classes": list(facts.classes),
        "seeds": list(facts.seeds),
        "epochs": {name: list(values) for name, values in facts.epochs.items()},
        "metric": metric,
        "sentence": sentence(metric, gaps[metric], facts.group_unit),
        "metrics": {
            name: {
                **{part: dataclasses.asdict(getattr(gap, part)) for part in ("random", "patient", "gap")},
                "random_seeds": list(gap.random_seeds),
                "patient_seeds": list(gap.patient_seeds),
            }
            for name, gap in gaps.items()
        },
    }


def sentence(metric: str, gap: Gap, unit: str) -> str:
    """What the comparison says, in one sentence."""
    promised, got = number(gap.random.estimate, 2), number(gap.patient.estimate, 2)
    said = f"A random split would have promised {TITLES[metric]} {promised}; new {unit}s get {got}"
    low, high = gap.gap.low, gap.gap.high
    if low is None or high is None:
        return f"{said} (no interval: {spaced(gap.gap.reason)})."
    limits = f"95 % interval {number(low, sign=True)} to {number(high, sign=True)}; {plural(gap.gap.groups, unit)}"
    chance = " that is not told from chance" if low <= 0 <= high else ""
    return f"{said}: a difference of {number(gap.gap.estimate, sign=True)}{chance} ({limits})."


def picture(found: Document, name: str = "gap") -> Markup:
    """Both figures on one axis: each seed, the mean, its interval, and the gap between the means.

    Args:
        found: Of `document`.
        name: Unique on the page.
    """
    metric, unit = found["metric"], found["group_unit"]
    values = found["metrics"][metric]
    # From bottom to top: what new patients get stands below what was promised.
    rows = (
        ("patient", 0.0, BLUE, f"by {unit}:\nwhat new {unit}s get"),
        ("random", 1.0, ORANGE, "at random:\nwhat it promises"),
    )
    with drawing(6.2, 2.7) as (figure, axes):
        for part, height, colour, _ in rows:
            value, seeds = values[part], values[f"{part}_seeds"]
            if value["low"] is not None:
                axes.plot([value["low"], value["high"]], [height] * 2, color=colour, linewidth=7, alpha=0.35,
                          solid_capstyle="butt")  # fmt: skip
            if len(seeds) > 1:
                axes.plot(seeds, [height] * len(seeds), "o", color=colour, markerfacecolor=PAPER, markersize=6)
            axes.plot(value["estimate"], height, "D", color=colour, markersize=9)
            axes.annotate(
                number(value["estimate"]), (value["estimate"], height), xytext=(0, 11), textcoords="offset points",
                ha="center", fontweight="bold", fontsize=12,
            )  # fmt: skip
        low, high = values["patient"]["estimate"], values["random"]["estimate"]
        axes.plot([high, high], [0, 1], color=MUTED, linewidth=0.9, linestyle=(0, (2, 3)), zorder=0)
        axes.annotate("", (low, -0.42), (high, -0.42), arrowprops={"arrowstyle": "->", "color": INK, "linewidth": 1.4})
        axes.annotate(
            f"gap {number(high - low, sign=True)}", ((low + high) / 2, -0.42), xytext=(0, -13),
            textcoords="offset points", ha="center",
        )  # fmt: skip
        axes.set_yticks([height for _, height, _, _ in rows], [label for *_, label in rows])
        axes.set(ylim=(-0.95, 1.6), xlabel=f"{TITLES[metric]} on the test part")
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        title = f"{TITLES[metric]} of one recipe: split at random {number(high)}, split by {unit} {number(low)}"
        return inline(figure, name, title)


def render(found: Document, drawn: bool = False) -> str:
    """The page, self-contained and without scripts.

    Args:
        found: Of `document`.
        drawn: Whether a program drew the images.
    """
    return str(
        environment()
        .get_template("leakage.html")
        .render(
            found=found,
            drawn=drawn,
            unit=found["group_unit"],
            picture=picture(found),
            rows=[(name, found["metrics"][name]) for name in TITLES if name in found["metrics"]],
            recipe=list(flatten(found["config"])),
            lower_is_better=LOWER_IS_BETTER,
        )
    )
