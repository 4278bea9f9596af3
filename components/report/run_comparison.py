"""Runs side by side: figures with intervals, paired differences on the patients that all may be judged on, recipes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from components.core.array_types import Array
from components.errors import DataError, UsageError
from components.metrics.bootstrap import (
    BootstrapPlan,
    PairedDifference,
    paired_difference,
    percentile_interval,
    plan_resamples,
)
from components.metrics.intervals import Interval
from components.metrics.resampled import weighted_binary
from components.promotion.served_model import TRAIN_GROUPS, read_train_groups
from components.report import figures
from components.report.evidence import SplitPredictions, align, read_predictions
from components.report.lineage import flatten
from components.report.measures import TITLES
from components.report.page import environment, verdict
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import RunRecord

CURVES = ("loss", "auc", "macro_f1")
"""Quantities whose curves are laid over one another, those that the runs have."""

AT_THRESHOLD = ("balanced_accuracy", "f1", "sensitivity", "specificity")
"""Metrics at each run's own threshold whose differences are shown beside that of the primary metric."""


@dataclasses.dataclass(frozen=True)
class Member:
    """A run that is compared.

    Attributes:
        record: run.json.
        test: Its predictions on the test split; None before the evaluation.
        trained_on: Groups that it was fitted or tuned on; None where its model is pruned or does not say.
    """

    record: RunRecord
    test: SplitPredictions | None
    trained_on: frozenset[str] | None


@dataclasses.dataclass(frozen=True)
class Difference:
    """A run against the first one, on the same test patches.

    Attributes:
        run_id: RUN_ID.
        patches: In the test splits of both, of groups that neither was trained on.
        groups: Their groups.
        left_out: Groups of both test splits that one of the two was trained on.
        result: This run minus the first one, of the primary metric; None without common patches.
        at_threshold: Metric to the same difference, each run cut at its own threshold; binary only.
    """

    run_id: str
    patches: int
    groups: int
    left_out: int
    result: PairedDifference | None
    at_threshold: Mapping[str, Interval] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """All that is shown of several runs.

    Attributes:
        members: In the order in which they were named; the first is what the others are compared with.
        metric: Primary metric: `auc` or `macro_f1`.
        metrics: Metric to one interval per run, as run.json holds it; an empty mapping where it has none.
        differences: One for each run but the first.
        recipe: Field of the recipe to its value in each run, only those that are not the same in all.
        notes: What can't be compared, in sentences.
    """

    members: tuple[Member, ...]
    metric: str
    metrics: Mapping[str, tuple[Mapping[str, Any], ...]]
    differences: tuple[Difference, ...]
    recipe: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]

    def to_document(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "runs": [
                {"run_id": r.run_id, "dataset": r.dataset, "task": r.task, "outcome": verdict(r), "plan_id": r.plan_id}
                for r in (member.record for member in self.members)
            ],
            "metric": self.metric,
            "metrics": {name: list(values) for name, values in self.metrics.items()},
            "differences": [dataclasses.asdict(difference) for difference in self.differences],
            "recipe": {name: list(values) for name, values in self.recipe.items()},
            "notes": list(self.notes),
        }


def read(storage: Storage, run_ids: Sequence[str]) -> tuple[Member, ...]:
    """Reads the runs.

    Args:
        storage: The workspace.
        run_ids: Two or more.

    Raises:
        UsageError: Too few or unknown runs, or runs of different data sets, tasks or group units.
        DataError: A run.json is damaged.
    """
    if len(set(run_ids)) < 2:
        raise UsageError("A comparison needs two different runs.", "List them: histoline runs list.")
    members = []
    for run_id in dict.fromkeys(run_ids):
        folder = run_record.find_run(storage, run_id)
        if folder is None:
            raise UsageError(f"There is no run {run_id!r} in {storage.root}.", "List them: histoline runs list.")
        record = run_record.read(storage, folder)
        members.append(
            Member(
                record,
                read_predictions(storage, folder).get("test"),
                _trained_on(storage, folder, record),
            )
        )
    first = members[0].record
    for member in members[1:]:
        other = member.record
        if (first.dataset, first.task, first.classes) != (other.dataset, other.task, other.classes):
            raise UsageError(
                f"Run {other.run_id!r} is of {other.dataset} {other.task}, {first.run_id!r} of {first.dataset}"
                f" {first.task}: their figures do not compare.",
                "Name runs of one data set and task.",
            )
        if first.group_unit != other.group_unit:
            raise UsageError(
                f"Run {other.run_id!r} was split by {other.group_unit}, {first.run_id!r} by {first.group_unit}.",
                "Name runs whose data sets have the same group unit.",
            )
    return tuple(members)


def _trained_on(storage: Storage, folder: str, record: RunRecord) -> frozenset[str] | None:
    if record.decision_by == "folds":  # each patch was scored by a model that has never seen it
        return frozenset()
    path = f"{folder}/model/{TRAIN_GROUPS}"
    if not storage.exists(path):
        return None
    return read_train_groups(Path(storage.local_copy(path)).parents[1])


def compare(members: Sequence[Member]) -> Comparison:
    """Compares runs; a pure function of what was read.

    Args:
        members: Of `read`.

    Raises:
        DataError: A patch has another label in one run than in another.
    """
    first, *others = members
    metric = "macro_f1" if len(first.record.classes) > 2 else "auc"
    figured = [member.record.figures() for member in members]
    notes = [
        f"Run {member.record.run_id} has no predictions on its test split ({verdict(member.record)})."
        for member in members
        if member.test is None
    ]
    notes += [
        f"The model of run {member.record.run_id} is no longer there, or does not say which"
        f" {member.record.group_unit}s it was trained on; the ledger keeps them out of its own test split only."
        for member in members
        if member.test is not None and member.trained_on is None
    ]
    recipes = [dict(flatten(member.record.config)) for member in members]
    fields = {field: tuple(recipe.get(field, "") for recipe in recipes) for recipe in recipes for field in recipe}
    return Comparison(
        members=tuple(members),
        metric=metric,
        metrics={
            name: tuple(values.get(name, {}) for values in figured)
            for name in TITLES
            if any(name in values for values in figured)
        },
        differences=tuple(_difference(first, other) for other in others),
        recipe={field: values for field, values in sorted(fields.items()) if len(set(values)) > 1},
        notes=tuple(notes),
    )


def _difference(first: Member, other: Member) -> Difference:
    run_id = other.record.run_id
    if first.test is None or other.test is None:
        return Difference(run_id, 0, 0, 0, None)
    common = np.intersect1d(first.test.patch_id.astype(str), other.test.patch_id.astype(str))
    rows = [_rows(member.test, common) for member in (first, other) if member.test is not None]
    labels = first.test.labels[rows[0]]
    if not np.array_equal(labels, other.test.labels[rows[1]]):
        raise DataError(
            f"Runs {first.record.run_id!r} and {run_id!r} tested patches of the same name under different labels.",
            "Their data sets differ in more than their splits; compare runs of one data set.",
        )
    groups = first.test.groups[rows[0]].astype(str)
    seen = (first.trained_on or frozenset()) | (other.trained_on or frozenset())
    keep = ~np.isin(groups, sorted(seen)) if seen else np.ones(groups.size, bool)
    left_out = int(np.unique(groups[~keep]).size)
    count = int(np.unique(groups[keep]).size)
    if not keep.any():
        return Difference(run_id, 0, 0, left_out, None)
    plan = BootstrapPlan(pool=len(first.record.classes) > 2)
    probabilities = other.test.probability[rows[1]][keep], first.test.probability[rows[0]][keep]
    result = paired_difference(labels[keep], *probabilities, groups[keep], plan)
    cuts = other.record.threshold, first.record.threshold
    more = _at_threshold(labels[keep], probabilities, groups[keep], cuts, plan)
    return Difference(run_id, int(keep.sum()), count, left_out, result, more)


def _at_threshold(
    labels: Array,
    probabilities: tuple[Array, Array],
    groups: Array,
    cuts: tuple[float | None, float | None],
    plan: BootstrapPlan,
) -> dict[str, Interval]:
    """Paired differences of the metrics that depend on the threshold, on the resamples of the primary one."""
    if None in cuts:
        return {}
    resamples = plan_resamples(labels, groups, 2, plan)
    once = np.ones((1, resamples.groups))
    metrics = [
        weighted_binary(labels, p, resamples.index, resamples.groups, float(np.float32(cut)))
        for p, cut in zip(probabilities, cuts, strict=True)
        if cut is not None
    ]
    (point, other_point), (values, other_values) = ([of(w) for of in metrics] for w in (once, resamples.weights))
    return {
        name: percentile_interval(
            float(point[name][0] - other_point[name][0]), values[name] - other_values[name], resamples
        )
        for name in AT_THRESHOLD
    }


def _rows(test: SplitPredictions, names: Array) -> Array:
    rows = align(test.patch_id.astype(str), names)
    assert rows is not None, "names come from these predictions"
    return rows


def verdict_of(difference: Interval) -> str:
    """What an interval of a difference says, in words: better, worse, or not told apart."""
    if difference.low is None or difference.high is None:
        return f"no interval: {difference.reason.replace('_', ' ')}"
    return "better" if difference.low > 0 else "worse" if difference.high < 0 else "not told apart"


def render(comparison: Comparison) -> str:
    """The page, self-contained and without scripts."""
    return str(
        environment()
        .get_template("comparison.html")
        .render(
            comparison=comparison,
            runs=[member.record for member in comparison.members],
            verdicts=[verdict(member.record) for member in comparison.members],
            verdict_of=verdict_of,
            at_threshold=AT_THRESHOLD,
            curves=_curves(comparison.members),
            roc=_roc(comparison.members),
            unit=comparison.members[0].record.group_unit,
        )
    )


def _roc(members: Sequence[Member]) -> Markup | None:
    """ROC curves on the test patches that all runs have and may be judged on; None where that is no curve."""
    tests = [(member.record.run_id, member.test) for member in members if member.test is not None]
    if len(tests) < 2 or len(members[0].record.classes) > 2:
        return None
    common = tests[0][1].patch_id.astype(str)
    for _, test in tests[1:]:
        common = np.intersect1d(common, test.patch_id.astype(str))
    first = tests[0][1]
    rows = _rows(first, common)
    seen: set[str] = set().union(*(member.trained_on or () for member in members))
    keep = ~np.isin(first.groups[rows].astype(str), sorted(seen))
    labels = first.labels[rows][keep]
    if np.unique(labels).size < 2:
        return None
    curves = [(name, test.probability[_rows(test, common)][keep]) for name, test in tests]
    return figures.overlaid_roc("roc", labels, curves)


def _curves(members: Sequence[Member]) -> dict[str, Markup]:
    histories = [(member.record.run_id, member.record.history) for member in members]
    return {
        name: figures.overlaid(f"curve-{name}", histories, f"val_{name}")
        for name in CURVES
        if sum(bool(history.get(f"val_{name}")) for _, history in histories) > 1
    }
