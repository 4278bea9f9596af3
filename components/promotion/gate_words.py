"""The gate's findings as people read them: in the reason, in the terminal and on the report's page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.core.text import number
from components.promotion.gate_types import Comparison, GateInputs

CALLED = {"baseline": "colour baseline", "champion": "champion", "best_ever": "best model ever promoted"}
METRICS = {"auc": "AUC", "macro_f1": "macro-F1"}


def metric_of(inputs: GateInputs) -> str:
    """Primary metric: `auc`, or `macro_f1` for several classes."""
    return "macro_f1" if np.ndim(inputs.baseline) == 2 else "auc"


def count(number: int, unit: str) -> str:
    """A number of units, in the plural where it is one."""
    return f"{number} {unit}{'' if number == 1 else 's'}"


def percent(confidence: float) -> str:
    """A confidence as people write it: 95 %, 98.75 %, 99.94 %."""
    return f"{100 * confidence:.4g} %"


def figures(inputs: GateInputs, comparison: Comparison) -> str:
    """Both figures, the difference and the interval that decides, and on how many groups.

    Args:
        inputs: What the gate was given.
        comparison: One that has an interval.
    """
    first, second, difference = (
        comparison.result.first,
        comparison.result.second,
        comparison.result.difference,
    )
    on = count(comparison.groups, inputs.group_unit)
    if comparison.left_out:
        on += f", leaving out {comparison.left_out} that the other model was trained on"
    if comparison.unpaired:
        on += f", leaving out {comparison.unpaired} that only one of both was measured on"
    look = f" at look {comparison.look}" if comparison.look > 1 else ""
    return (
        f"{METRICS[metric_of(inputs)]} {first.estimate:.3f} against {second.estimate:.3f}, difference"
        f" {number(difference.estimate, sign=True)} ({percent(comparison.confidence)} interval{look}"
        f" {number(comparison.low, sign=True)} to {number(comparison.high, sign=True)}; {on})"
    )


def power_line(gate: Mapping[str, Any] | None) -> str:
    """What the decision could have found, in one sentence; empty where that is unknown.

    Args:
        gate: `look`, `confidence`, `metric` and `power`, as run.json keeps them.
    """
    power = gate and gate.get("power")
    if not gate or not power:
        return ""
    # The chances of one and the same comparison rise with the difference, so one list is read off against the other.
    gains = " / ".join(f"{each['difference']:g}" for each in power["chances"])
    chances = " / ".join(_chance(each["chance"]) for each in power["chances"])
    other = f"champion {power['name']}" if power["against"] == "champion" else CALLED[power["against"]]
    margin = f", not inferior by {power['margin']:g}" if power["criterion"] == "non-inferior" else ""
    return (
        f"A model truly better than the {other} by {gains} in {METRICS[gate['metric']]} would have been promoted with a"
        f" chance of {chances} % (look {gate['look']}, limits at {percent(gate['confidence'])}{margin})."
    )


def _chance(value: float) -> str:
    """A probability in percent; never 0 or 100, which it is not."""
    return "<1" if value < 0.01 else ">99" if value > 0.99 else f"{100 * value:.0f}"
