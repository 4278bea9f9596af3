"""The figures of a report that run.json does not hold: rivals beside the candidate, ECE with an interval, slices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.metrics import point as m
from components.metrics.bootstrap import BootstrapPlan, percentile_interval, plan_resamples
from components.metrics.calibration import calibration_gaps, expected_calibration_error
from components.metrics.patient_level import patient_weighted_auc_point
from components.metrics.per_group import group_index, per_group_metrics
from components.report.evidence import Evidence, Rival, SplitPredictions

Array = npt.NDArray[Any]

TITLES = {
    "auc": "AUC", "patient_weighted_auc": "Patient-weighted AUC", "pr_auc": "PR-AUC",
    "macro_f1": "Macro-F1", "macro_auc": "Macro one-vs-rest AUC",
    "sensitivity": "Sensitivity", "specificity": "Specificity", "ppv": "PPV", "npv": "NPV", "f1": "F1",
    "balanced_accuracy": "Balanced accuracy", "accuracy": "Accuracy", "mcc": "MCC", "kappa": "Cohen's kappa",
    "brier": "Brier score", "log_loss": "Log loss", "ece": "ECE",
}  # fmt: skip
"""Metrics in the order in which the page shows them, as people write them."""

LOWER_IS_BETTER = frozenset({"brier", "log_loss", "ece"})
NEEDS_CUT = frozenset(m.THRESHOLD_METRICS)


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the headline table.

    Attributes:
        name: Metric.
        title: As people write it.
        interval: Of the candidate: estimate, low, high, reason.
        rivals: Rival to its figure, None where it has none.
        published: Figures from the literature: number of the source, from 1, and what it states.
    """

    name: str
    title: str
    interval: Mapping[str, Any]
    rivals: Mapping[str, float | None]
    published: tuple[tuple[int, float], ...]


def headline(evidence: Evidence, published: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The candidate's metrics on test, beside its rivals and the literature.

    Args:
        evidence: Of the run.
        published: Sources, as published.json lists them.
    """
    values = dict(evidence.record.figures())
    test = evidence.test
    if test is not None and "ece" not in values:
        values["ece"] = ece_interval(test, bootstrap_plan(evidence))
    others = {
        key: point_metrics(test, rival, evidence.multiclass)
        for key, rival in evidence.rivals.items()
        if test is not None
    }
    return [
        Row(
            name, title, values[name], {key: _number(figures.get(name)) for key, figures in others.items()},
            tuple((i, source["figures"][name]) for i, source in enumerate(published, 1) if name in source["figures"]),
        )
        for name, title in TITLES.items()
        if name in values
    ]  # fmt: skip


def patient_rows(evidence: Evidence) -> list[tuple[str, Mapping[str, Any]]]:
    """Figures of one decision per patient on test: title and interval; empty where a patient has several labels."""
    values = evidence.record.patient_level.get("test", {}).get("values", {})
    return [(title, values[name]) for name, title in TITLES.items() if name in values]


def monitored(evidence: Evidence) -> tuple[str, int | None]:
    """What early stopping watched, as Keras calls it on train, and its best epoch, from 1.

    Without early stopping the primary metric where it was followed, and no epoch: the last one was exported.
    """
    history, stopping = evidence.record.history, evidence.record.config.get("early_stopping") or {}
    watched = str(stopping.get("monitor") or "")
    values = [v for v in history.get(watched, []) if v is not None]
    if not values:
        names = (evidence.primary, "accuracy")
        return next((name for name in names if history.get(f"val_{name}")), names[-1]), None
    # The first of the best, as training has it.
    best = min(values) if watched == "val_loss" else max(values)
    return watched.removeprefix("val_"), 1 + list(history[watched]).index(best)


def bootstrap_plan(evidence: Evidence) -> BootstrapPlan:
    """How the run's own figures were resampled."""
    policy = evidence.record.policy or {}
    chosen = {key: policy[key] for key in ("resamples", "confidence", "seed") if key in policy}
    return BootstrapPlan(pool=evidence.multiclass, **chosen)


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def point_metrics(test: SplitPredictions, rival: Rival, multiclass: bool) -> dict[str, float]:
    """A rival's metrics on the patches that it may be judged on; none that would need a cut that it doesn't have."""
    rows = rival.usable
    if not rows.any():
        return {}
    y, p = test.labels[rows], rival.probability[rows]
    ece = {"ece": expected_calibration_error(y, p)}
    if multiclass:
        return {**m.multiclass_metrics(y, p), **ece}
    ece["patient_weighted_auc"] = patient_weighted_auc_point(y, p, test.groups[rows].astype(str))
    found = m.binary_metrics(y, p, math.nan if rival.threshold is None else rival.threshold)
    if rival.threshold is None:
        found = {name: value for name, value in found.items() if name not in NEEDS_CUT}
    return {**found, **ece}


def ece_interval(split: SplitPredictions, plan: BootstrapPlan, bins: int = 15) -> dict[str, Any]:
    """ECE with its interval over groups, on the resamples that the other metrics have.

    Args:
        split: With labels and probabilities.
        plan: How resamples are drawn.
        bins: As in `expected_calibration_error`.
    """
    y, p = split.labels, np.asarray(split.probability, float)
    resamples = plan_resamples(y, split.groups.astype(str), 2 if p.ndim == 1 else p.shape[1], plan)
    gap = calibration_gaps(y, p, resamples.index, resamples.groups, bins)
    patches = np.bincount(resamples.index, minlength=resamples.groups)
    weights = resamples.weights.astype(float)
    values = m.ratio(np.abs(weights @ gap).sum(axis=1), weights @ patches)
    return dataclasses.asdict(percentile_interval(expected_calibration_error(y, p, bins), values, resamples))


@dataclasses.dataclass(frozen=True)
class Slice:
    """One patient, slide, class, magnification or tumour type of the test split.

    Attributes:
        name: Its name.
        patches: Number of patches.
        groups: Number of groups; None where it is one by definition.
        positives: Positive patches; None for several classes.
        right: Share of patches called rightly: what the worst are told by.
        figures: Further metrics, None where undefined.
    """

    name: str
    patches: int
    groups: int | None
    positives: int | None
    right: float
    figures: Mapping[str, float | None]


@dataclasses.dataclass(frozen=True)
class SliceTable:
    """Slices of one kind, worst first.

    Attributes:
        by: What they are.
        rows: Those shown.
        total: How many there are.
        columns: Metrics that exist there, in the order shown.
    """

    by: str
    rows: tuple[Slice, ...]
    total: int
    columns: tuple[str, ...]


BINARY_COLUMNS = ("auc", "sensitivity", "specificity", "ppv", "f1")
MULTICLASS_COLUMNS = ("balanced_accuracy", "macro_f1")


def slice_tables(evidence: Evidence, limit: int = 20) -> list[SliceTable]:
    """Slices of the test split by patient, slide, class, magnification and tumour type, each worst first.

    Args:
        evidence: Of the run.
        limit: Most rows of a table.
    """
    test = evidence.test
    if test is None or (evidence.threshold is None and not evidence.multiclass):
        return []
    names = np.array(evidence.classes, object)[test.labels]
    # Where every image is its own group, a group says no more than the gallery does.
    kinds: list[tuple[str, Array]] = [] if evidence.unit == "image" else [(evidence.unit, test.groups.astype(str))]
    if not np.array_equal(test.slides, test.groups) and evidence.unit != "slide":
        kinds.append(("slide", test.slides.astype(str)))
    kinds.append(("class", names.astype(str)))
    if test.facts is not None:
        kinds.append(("magnification", test.facts["magnification"].astype(str)))
        kinds.append(("tumour type", test.facts["tumor_type"].astype(str)))
    tables = [_slices(evidence, test, by, column, limit) for by, column in kinds]
    return [table for table in tables if table.total > 1]


def worst_groups(tables: Sequence[SliceTable], unit: str) -> list[str]:
    """Groups with a wrong call, the smallest share of right ones first; empty where each image is a group.

    Args:
        tables: As `slice_tables` gives them.
        unit: What a group is.
    """
    return [row.name for table in tables if table.by == unit for row in table.rows if row.right < 1]


def _slices(evidence: Evidence, test: SplitPredictions, by: str, column: Array, limit: int) -> SliceTable:
    known = ~np.isin(column, ("", "-1"))
    columns: tuple[str, ...] = MULTICLASS_COLUMNS if evidence.multiclass else BINARY_COLUMNS
    if not known.any():
        return SliceTable(by, (), 0, columns)
    labels, probability, of = test.labels[known], test.probability[known], column[known]
    cuts = evidence.cuts
    own = cuts[known] if isinstance(cuts, np.ndarray) else float(np.float32(cuts or 0.0))
    cut = None if evidence.multiclass else own
    names, figures = per_group_metrics(labels, probability, of, cut)
    _, index = group_index(of)
    whole = by in (evidence.unit, "slide")
    held = None if whole else _distinct(index, test.groups[known].astype(str))
    order = np.lexsort((-figures["patches"], figures["accuracy"]))
    if not evidence.multiclass:
        # Among patches of one class a precision says nothing of the model.
        single = (figures["positives"] == 0) | (figures["positives"] == figures["patches"])
        figures |= {name: np.where(single, np.nan, figures[name]) for name in ("ppv", "f1")}
    shown = order[:limit]
    columns = tuple(name for name in columns if by != "class" and not np.isnan(figures[name][shown]).all())
    rows = tuple(
        Slice(
            name=str(names[i]),
            patches=int(figures["patches"][i]),
            groups=None if held is None else int(held[i]),
            positives=int(figures["positives"][i]) if "positives" in figures else None,
            right=float(figures["accuracy"][i]),
            figures={name: _number(figures[name][i]) for name in columns},
        )
        for i in shown
    )
    return SliceTable(by, rows, len(names), columns)


def _distinct(index: Array, groups: Array) -> Array:
    """Number of distinct groups in each slice."""
    _, group = np.unique(groups, return_inverse=True)
    pairs = np.unique(np.stack([index, group.reshape(-1)]), axis=1)
    return np.bincount(pairs[0])
