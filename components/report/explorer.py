"""The threshold explorer of a report: radio buttons over precomputed steps, so that a page without scripts moves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup

from components.metrics.bootstrap import BootstrapPlan
from components.metrics.threshold_steps import ThresholdStep, threshold_steps
from components.report.evidence import Evidence
from components.report.svg import BLUE, INK, MUTED, ORANGE, drawing, inline

NAME = "thresholds"
"""Of the figure; its marks have the ids `thresholds-at0`, `thresholds-at1`, ..."""


@dataclasses.dataclass(frozen=True)
class Explorer:
    """All that the page needs.

    Attributes:
        steps: By rising threshold.
        start: Number of the one that is shown first: the stored one.
        by_fold: Whether the stored one stands for the own thresholds of several models, each of other patients.
        figure: Curves with bands, and a mark for each step.
        style: Rules that show the panel and the mark of the step that is chosen.
    """

    steps: tuple[ThresholdStep, ...]
    start: int
    by_fold: bool
    figure: Markup
    style: Markup


def explorer(evidence: Evidence, plan: BootstrapPlan) -> Explorer | None:
    """The explorer of a run; None for several classes, and before the evaluation.

    Args:
        evidence: Of the run.
        plan: How resamples are drawn.
    """
    test, cut = evidence.test, evidence.threshold
    if test is None or cut is None or evidence.multiclass:
        return None
    own = evidence.cuts if isinstance(evidence.cuts, np.ndarray) else None
    groups = test.groups.astype(str)
    steps = tuple(threshold_steps(test.labels, test.probability, groups, cut, plan, own=own))
    start = next(i for i, step in enumerate(steps) if step.stored)
    figure = _figure(steps, f"P({evidence.classes[1]})", own is not None)
    return Explorer(steps, start, own is not None, figure, _style(len(steps)))


def _style(steps: int) -> Markup:
    rules = (
        f"#explorer:has(#step-{i}:checked) .step-{i} {{ display: block; }}"
        f" #explorer:has(#step-{i}:checked) #{NAME}-at{i} {{ visibility: visible; }}"
        for i in range(steps)
    )
    return Markup("\n".join(rules))  # numbers alone


def _figure(steps: Sequence[ThresholdStep], stated: str, by_fold: bool) -> Markup:
    # Several thresholds are no point of a curve over one.
    curve = [step for step in steps if not (step.stored and by_fold)]
    cuts = np.array([step.threshold for step in curve])
    with drawing(5.4, 3.6) as (figure, axes):
        for name, colour, line in (("sensitivity", BLUE, "-"), ("specificity", ORANGE, "--")):
            found = [step.figures[name] for step in curve]
            low, high = (np.array([np.nan if v is None else v for v in side]) for side in (
                [one.low for one in found], [one.high for one in found]
            ))  # fmt: skip
            axes.fill_between(cuts, low, high, color=colour, alpha=0.18, linewidth=0)
            axes.plot(cuts, [one.estimate for one in found], color=colour, linestyle=line, label=name)
        for i, step in enumerate(steps):
            axes.axvline(step.threshold, color=INK, linewidth=1.6, gid=f"at{i}")
            if step.stored:
                label = f"stored, {step.threshold:.3f}"
                axes.axvline(step.threshold, color=MUTED, linewidth=1.0, linestyle=(0, (2, 3)), label=label)
        axes.set(xlim=(0, 1), ylim=(-0.02, 1.02), xlabel=f"threshold on {stated}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
        title = "Sensitivity and specificity on the test split as the threshold moves, with 95 % bands"
        return inline(figure, NAME, title)
