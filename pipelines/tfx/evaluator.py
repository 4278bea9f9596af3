"""The Evaluator's configuration (absolute floors, slices) and what it found, without its 'NaN' strings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.promotion.floors import check_floor
from components.training.recipe_parts import LOWER_IS_BETTER

MAX_GROUP_SLICES = 1_000
"""Slices by group are made up to so many groups in the test split; beyond, they are a table nobody reads."""

METRICS: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "binary": {
        # As many thresholds as TFMA needs for an AUC that agrees with the exact one to 1e-3.
        "auc": ("AUC", {"num_thresholds": 2000}),
        "pr_auc": ("AUCPrecisionRecall", {"num_thresholds": 2000}),
        "log_loss": ("BinaryCrossEntropy", {}),
    },
    "subtype": {
        "accuracy": ("SparseCategoricalAccuracy", {}),
        "log_loss": ("SparseCategoricalCrossentropy", {}),
    },
}
"""Task -> our name -> TFMA's class and its settings. None depends on a threshold: figures at a threshold are computed
from predictions at the stored one."""

SLICE_FEATURES = {
    "class": "label/name",
    "magnification": "magnification",
    "tumor_type": "tumor_type",
    "group": "group_id",
}
"""What is sliced by, and the feature that holds it."""


def slices_for(test_groups: int, magnifications: int, tumor_types: int) -> tuple[str, ...]:
    """What to slice a test split by: what has only one value is the whole.

    Args:
        test_groups: Groups in the test split.
        magnifications: Different magnifications.
        tumor_types: Different tumour types.
    """
    chosen = ["class"]
    chosen += ["magnification"] if magnifications > 1 else []
    chosen += ["tumor_type"] if tumor_types > 1 else []
    chosen += ["group"] if test_groups <= MAX_GROUP_SLICES else []
    return tuple(chosen)


def eval_config(tfma: Any, task: str, floors: Mapping[str, float], slices: Sequence[str]) -> Any:
    """Builds TFMA's EvalConfig.

    Args:
        tfma: The module `tensorflow_model_analysis`, which takes seconds to import.
        task: `binary` or `subtype`.
        floors: Bound by metric; holds for the whole test split, not for slices.
        slices: Keys of `SLICE_FEATURES`.
    """

    def threshold(name: str) -> Any:
        if name not in floors:
            return None
        side = "upper_bound" if name in LOWER_IS_BETTER else "lower_bound"
        bound = tfma.GenericValueThreshold(**{side: {"value": float(floors[name])}})
        return [
            tfma.PerSliceMetricThreshold(
                slicing_specs=[tfma.SlicingSpec()], threshold=tfma.MetricThreshold(value_threshold=bound)
            )
        ]

    plain = ["ExampleCount"] + (["MeanLabel"] if task == "binary" else [])
    metrics = [tfma.MetricConfig(class_name=name) for name in plain] + [
        tfma.MetricConfig(
            class_name=kind,
            config=json.dumps({**settings, "name": name}),
            per_slice_thresholds=threshold(name),
        )
        for name, (kind, settings) in METRICS[task].items()
    ]
    return tfma.EvalConfig(
        model_specs=[
            tfma.ModelSpec(signature_name="serving_default", label_key="label", prediction_key="probability")
        ],
        slicing_specs=[tfma.SlicingSpec()]
        + [tfma.SlicingSpec(feature_keys=[SLICE_FEATURES[name]]) for name in slices],
        metrics_specs=[tfma.MetricsSpec(metrics=metrics)],
    )


def candidate_name(folder: Path) -> str | None:
    """What TFMA calls the candidate in an evaluation: None where it stands alone.

    Args:
        folder: URI of the Evaluator's output `evaluation`.
    """
    config = json.loads((folder / "eval_config.json").read_text(encoding="utf-8"))
    return "candidate" if len(config["modelLocations"]) > 1 else None


def read_evaluation(folder: Path, task: str, floors: Mapping[str, float]) -> dict[str, Any]:
    """What the Evaluator found.

    The verdict is taken from the figures, not from TFMA's blessing file, which is missing where no floor was asked for;
    a floor on a figure that is not a number is not met.

    Args:
        folder: URI of its output `evaluation`.
        task: `binary` or `subtype`.
        floors: Of the recipe; those that TFMA can't decide are left to `components.promotion.floors`.

    Returns:
        `blessed`, `reason` (a clause, empty where blessed), `overall` (metric -> value), `champion` and `difference`
        (likewise, None where none was compared with), `floors` (metric -> value, bound, passed), `slices` (a list of
        by, value, patches and metrics).
    """
    import tensorflow_model_analysis as tfma

    candidate = candidate_name(folder)
    known = {feature: name for name, feature in SLICE_FEATURES.items()}
    overall: dict[str, float | None] = {}
    slices: list[dict[str, Any]] = []
    difference: dict[str, float | None] | None = None
    for key, count, figures, against in _slices(tfma.load_eval_result(str(folder), model_name=candidate), task):
        if not key:
            overall, difference = figures, against if candidate else None
            continue
        ((feature, value),) = key
        slices.append({"by": known[feature], "value": str(value), "patches": count, **figures})
    champion = None
    if candidate:
        beside = tfma.load_eval_result(str(folder), model_name="baseline")
        champion = next(figures for key, _, figures, _ in _slices(beside, task) if not key)
    checked = {name: check_floor(name, overall.get(name), b) for name, b in floors.items() if name in METRICS[task]}
    failed = [item["detail"] for item in checked.values() if not item["passed"]]
    order = list(SLICE_FEATURES)
    slices.sort(key=lambda s: (order.index(str(s["by"])), str(s["value"])))
    return {
        "blessed": not failed,
        "reason": "; ".join(failed),
        "overall": overall,
        "champion": champion,
        "difference": difference,
        "floors": checked,
        "slices": slices,
    }


def _slices(
    result: Any, task: str
) -> Iterator[tuple[tuple[tuple[str, Any], ...], int, dict[str, float | None], dict[str, float | None]]]:
    """Of each slice: key (empty for the whole), number of examples, our names to figures and to differences."""
    for key, by_output in result.slicing_metrics:
        found = {name: _number(value) for name, value in by_output[""][""].items()}
        figures = {name: found.get(name) for name in METRICS[task]}
        if found.get("mean_label") in (0.0, 1.0):  # TFMA says 0 where a class is missing
            figures |= {"auc": None, "pr_auc": None}
        against = {name: None if figures[name] is None else found.get(f"{name}_diff") for name in METRICS[task]}
        yield key, int(found.get("example_count") or 0), figures, against


def _number(value: Any) -> float | None:
    """A figure of `load_eval_result`, where NaN is the string 'NaN' and zeros may be missing."""
    if not isinstance(value, Mapping):
        return None
    found = value.get("doubleValue", 0.0 if not value else None)
    if isinstance(found, str) or found is None:
        return None
    return float(found) if math.isfinite(found) else None

