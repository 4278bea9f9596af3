"""Absolute floors: what TFMA's Evaluator can bound, and what only our own figures can."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from components.core.array_types import Array
from components.training.recipe_parts import FLOORS, LOWER_IS_BETTER, OWN_FLOORS

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
        detail = f"{title} {value:.3f} is {'above the ceiling' if lower else 'below the floor'} of {bound:g}"
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
    *,
    every: bool = False,
) -> dict[str, Any]:
    """The Evaluator's report with the floors that TFMA can't decide, on the run's own figures of test.

    `accuracy_over_majority` is the accuracy minus the share of the commonest class, what always naming that class
    would reach.

    Args:
        report: What the Evaluator says: `blessed`, `reason`, and `floors` where it checked any.
        floors: Bound by metric, of the recipe.
        task: `binary` or `subtype`.
        figures: Metric to interval, on test.
        by_class: Test patches of each class, [C].
        every: Whether all floors are decided here, beside what the Evaluator says: of folds it has no figures.
    """
    majority = float(by_class.max() / by_class.sum())

    def value(name: str) -> float | None:
        over = name == "accuracy_over_majority"
        estimate = (figures.get("accuracy" if over else name) or {}).get("estimate")
        if estimate is None or math.isnan(estimate):
            return None
        return float(estimate - majority) if over else float(estimate)

    mine = FLOORS[task] if every else OWN_FLOORS[task]
    own = {name: check_floor(name, value(name), bound) for name, bound in floors.items() if name in mine}
    for name, item in own.items():
        if name == "accuracy_over_majority" and item["detail"]:
            item["detail"] += f" (the commonest class makes up {majority:.3f} of test)"
    failed = [item["detail"] for item in own.values() if not item["passed"]]
    reasons = [str(report["reason"])] if report.get("reason") else []
    return {
        **report,
        "blessed": bool(report["blessed"]) and not failed,
        "reason": "; ".join([*reasons, *failed]),
        "floors": {**report.get("floors", {}), **own},
    }
