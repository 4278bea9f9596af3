"""Absolute floors: how a figure is checked, and on which figures a run is decided."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from components.core.array_types import Array
from components.core.text import number
from components.training.recipe_parts import FLOORS, LOWER_IS_BETTER

TITLES = {"auc": "AUC", "pr_auc": "PR-AUC", "macro_f1": "macro-F1"}


def check_floor(name: str, value: float | None, bound: float) -> dict[str, Any]:
    """Whether a figure keeps its bound.

    Args:
        name: Of the metric.
        value: None where it can't be computed; then the floor is not met.
        bound: The smallest value that passes, the largest where `LOWER_IS_BETTER`.

    Returns:
        `value`, `bound`, `direction`, `passed` and `detail` (a clause, empty where passed).
    """
    lower = name in LOWER_IS_BETTER
    passed = value is not None and (value <= bound if lower else value >= bound)
    title = TITLES.get(name, name.replace("_", " "))
    detail = ""
    if value is None:
        detail = f"{title} can't be computed"
    elif not passed:
        shown = number(value)
        if float(shown) == bound:  # what only rounding hides
            shown = number(value, 6)
        detail = f"{title} {shown} is {'above the ceiling' if lower else 'below the floor'} of {bound:g}"
    return {
        "value": value,
        "bound": bound,
        "direction": "at most" if lower else "at least",
        "passed": passed,
        "detail": detail,
    }


def with_own_floors(
    report: Mapping[str, Any],
    floors: Mapping[str, float],
    task: str,
    figures: Mapping[str, Mapping[str, Any]],
    by_class: Array,
) -> dict[str, Any]:
    """The Evaluator's report with all floors decided on the run's own figures of test, those that its report shows.

    TFMA's figure stands beside, as `tfma`: it interpolates curves, and two values of one metric decide nothing.
    `accuracy_over_majority` is the accuracy minus the share of the commonest class, what always naming that class
    would reach.

    Args:
        report: What the Evaluator says: `blessed`, `reason`; `floors` where it checked any, and `overall`, its figures.
        floors: Bound by metric, of the recipe.
        task: `binary` or `subtype`.
        figures: Metric to interval, on test.
        by_class: Test patches of each class, [C].
    """
    majority = float(by_class.max() / by_class.sum())

    def value(name: str) -> float | None:
        over = name == "accuracy_over_majority"
        estimate = (figures.get("accuracy" if over else name) or {}).get("estimate")
        if estimate is None or math.isnan(estimate):
            return None
        return float(estimate - majority) if over else float(estimate)

    own = {name: check_floor(name, value(name), bound) for name, bound in floors.items() if name in FLOORS[task]}
    overall = report.get("overall") or {}
    for name, item in own.items():
        if name == "accuracy_over_majority" and item["detail"]:
            item["detail"] += f" (the commonest class makes up {majority:.3f} of test)"
        if name in overall:
            item["tfma"] = overall[name]
    failed = [item["detail"] for item in own.values() if not item["passed"]]
    # An Evaluator that checked floors said no more than they do; one that did not had another reason.
    other = [] if report["blessed"] or report.get("floors") else [str(report["reason"])]
    return {
        **report,
        "blessed": not other and not failed,
        "reason": "; ".join([*filter(None, other), *failed]),
        "floors": own,
    }
