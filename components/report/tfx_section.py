"""The report's section on TFX: floors, TFMA's figures beside our own, TFDV's statistics, and where it all lies."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from markupsafe import Markup

from components.core.text import number, spaced
from components.metrics import point as m
from components.report.evidence import Evidence, SplitPredictions
from components.report.measures import TITLES
from components.report.tfx_document import Anomaly, Execution, FeatureStatistics, TfxDocument

Array = npt.NDArray[Any]

TOLERANCES: dict[str, float | None] = {"auc": 1e-4, "log_loss": 1e-3, "accuracy": 1e-4, "pr_auc": None}
"""How far TFMA's figure and our own may lie apart, beside what `_ties` allows; None where they differ by definition."""

THRESHOLDS = 2_000
"""At which TFMA counts (`pipelines.tfx.evaluator.METRICS`)."""

REASONS = {
    "auc": f"TFMA counts at {THRESHOLDS:,} thresholds, so scores between two of them are ties to it; ours is exact."
    " They agree where no more lies between them than pairs of scores closer than 0.0005 can make",
    "pr_auc": "differs by definition: TFMA interpolates (Davis and Goadrich 2006), ours sums steps (average precision)",
    "log_loss": "TFMA clips probabilities at 1e-7, ours at the precision of their type",
    "accuracy": "",
}
SHOWN = 40
"""Rows of a table of slices, at most; those that lie farthest apart."""

SPLITS = ("train", "eval", "test")


@dataclasses.dataclass(frozen=True)
class Figure:
    """One figure, twice.

    Attributes:
        name: Metric.
        tfma: TFMA's; None where it does not exist.
        ours: Our own, on the same patches; likewise.
        difference: The first less the second; None where one of them does not exist.
        tolerance: How far they may lie apart; None where they differ by definition.
        agrees: Whether it is within the tolerance; None where nothing can be said.
    """

    name: str
    tfma: float | None
    ours: float | None
    difference: float | None
    tolerance: float | None
    agrees: bool | None


@dataclasses.dataclass(frozen=True)
class SliceRow:
    """A slice.

    Attributes:
        value: That its patches share.
        patches: As TFMA counts.
        ours: As our predictions count; None where they do not tell.
        figures: Of the slice.
    """

    value: str
    patches: int
    ours: int | None
    figures: tuple[Figure, ...]


@dataclasses.dataclass(frozen=True)
class SliceTable:
    """Slices by one feature.

    Attributes:
        by: What is sliced by, as people read it.
        rows: The slices that are shown.
        total: How many there are.
        farthest: Largest difference of a metric that should agree; None where there is none to compare.
    """

    by: str
    rows: tuple[SliceRow, ...]
    total: int
    farthest: float | None


@dataclasses.dataclass(frozen=True)
class FeatureRow:
    """A feature in each split.

    Attributes:
        feature: Name.
        kind: TFDV's type, in small letters.
        cells: For each of `SPLITS` what is said of it, and its histogram; None where the split lacks it.
    """

    feature: str
    kind: str
    cells: tuple[tuple[tuple[str, ...], Markup] | None, ...]


@dataclasses.dataclass(frozen=True)
class TfxSection:
    """All that the section shows.

    Attributes:
        floors: Metric to value, bound, direction and passed.
        overall: TFMA's figures of the whole test split.
        champion: TFMA's figure of the champion, and its difference, by metric; empty where none stands beside.
        beside: The champion's version, or why there is none, in a sentence.
        slices: Tables.
        reasons: Why figures may differ, by metric.
        anomalies: TFDV's; None where nothing was validated.
        features: TFDV's statistics.
        splits: Those that the table of features has columns for.
        place: Of TFMA's results; empty where there are none.
        notebook: Lines that load them.
        store: Where ML Metadata lies.
        executions: What it knows.
        artifacts: Number to (type, state, place, properties).
    """

    floors: Mapping[str, Mapping[str, Any]]
    overall: tuple[Figure, ...]
    champion: Mapping[str, tuple[float | None, float | None]]
    beside: str
    slices: tuple[SliceTable, ...]
    reasons: Mapping[str, str]
    anomalies: tuple[Anomaly, ...] | None
    features: tuple[FeatureRow, ...]
    splits: tuple[str, ...]
    place: str
    notebook: str
    store: str
    executions: tuple[Execution, ...]
    artifacts: Mapping[int, Any]


def section(evidence: Evidence) -> TfxSection | None:
    """The section of a run; None where TFX left nothing of it.

    Args:
        evidence: Of the run.
    """
    tfma, document = evidence.record.floors, evidence.tfx
    overall = tfma.get("overall") or {}
    if not overall and document is None:
        return None
    shown = document or TfxDocument(1, "", (), (), (), None, None, "")
    beside = shown.beside is not None and not shown.beside.reason
    candidate = ", model_name='candidate'" if beside else ""
    place = shown.evaluation
    notebook = f"import tensorflow_model_analysis as tfma\nresult = tfma.load_eval_result({place!r}{candidate})"
    return TfxSection(
        floors=tfma.get("floors") or {},
        overall=figures(evidence, overall, None),
        champion=_champion(tfma),
        beside=_beside(shown),
        slices=_slice_tables(evidence, tfma.get("slices") or ()),
        reasons={TITLES[name]: REASONS[name] for name in overall if REASONS.get(name)},
        anomalies=shown.anomalies,
        features=_features(shown.statistics),
        splits=tuple(split for split in SPLITS if any(one.split == split for one in shown.statistics)),
        place=place,
        notebook=notebook if place else "",
        store=shown.store,
        executions=shown.executions,
        artifacts={one.id: one for one in shown.artifacts},
    )


def figures(evidence: Evidence, tfma: Mapping[str, float | None], rows: Array | None) -> tuple[Figure, ...]:
    """TFMA's figures beside our own.

    Args:
        evidence: Of the run.
        tfma: Metric to TFMA's figure.
        rows: Test patches that they speak of, bool [N]; all of them where None.
    """
    test = judged(evidence)
    found = []
    for name, tolerance in TOLERANCES.items():
        if name not in tfma:
            continue
        theirs, ours, difference = tfma[name], None, None
        if test is not None:
            part = slice(None) if rows is None else rows
            labels, probability = test.labels[part], test.probability[part]
            ours = _ours(name, labels, probability)
            if name == "auc" and ours is not None and tolerance is not None:
                tolerance += _ties(labels, probability) / 2
        if theirs is not None and ours is not None:
            difference = theirs - ours
        agrees = None if difference is None or tolerance is None else abs(difference) <= tolerance
        found.append(Figure(name, theirs, ours, difference, tolerance, agrees))
    return tuple(found)


def judged(evidence: Evidence) -> SplitPredictions | None:
    """What TFMA saw: the data set's test split, which of folds is what was held out of them."""
    return evidence.splits.get("holdout") if evidence.record.decision_by == "folds" else evidence.test


def _ours(name: str, labels: Array, probability: Array) -> float | None:
    if not len(labels):
        return None
    if name in ("auc", "pr_auc"):
        if len(np.unique(labels)) < 2:
            return None
        value = (m.roc_auc if name == "auc" else m.average_precision)(labels, probability)
    elif name == "log_loss":
        value = m.log_loss(labels, probability)
    else:
        value = float((probability.argmax(axis=1) == labels).mean())
    return value if math.isfinite(value) else None


def _ties(labels: Array, probability: Array) -> float:
    """Share of the pairs of a positive and a negative that lie closer than TFMA's thresholds; half of it may differ."""
    step = 1 / (THRESHOLDS - 1) + 1e-6
    positive, negative = probability[labels == 1].astype(float), np.sort(probability[labels == 0].astype(float))
    first = np.searchsorted(negative, positive - step, "left")
    last = np.searchsorted(negative, positive + step, "right")
    return float((last - first).sum() / (len(positive) * len(negative)))


def _champion(tfma: Mapping[str, Any]) -> dict[str, tuple[float | None, float | None]]:
    theirs, difference = tfma.get("champion") or {}, tfma.get("difference") or {}
    return {name: (value, difference.get(name)) for name, value in theirs.items()}


def _beside(document: TfxDocument) -> str:
    beside = document.beside
    if beside is None:
        return ""
    if beside.reason:
        return f"No champion stands beside it: {beside.reason}."
    return (
        f"Beside it stands champion {beside.version}, on every test patch, those of groups that it was trained on too:"
        " the gate leaves such groups out, and it alone decides."
    )


def _slice_tables(evidence: Evidence, slices: Sequence[Mapping[str, Any]]) -> tuple[SliceTable, ...]:
    tables = []
    for by in dict.fromkeys(str(one["by"]) for one in slices):
        column = _column(evidence, by)
        rows = []
        for one in (one for one in slices if one["by"] == by):
            mask = None if column is None else column == str(one["value"])
            tfma = {name: one[name] for name in TOLERANCES if name in one}
            both = figures(evidence, tfma, mask) if mask is not None else ()
            known = both or tuple(Figure(name, value, None, None, None, None) for name, value in tfma.items())
            ours = None if mask is None else int(mask.sum())
            rows.append(SliceRow(str(one["value"]), int(one["patches"]), ours, known))
        apart = [_apart(row) for row in rows]
        farthest = max((value for value in apart if value is not None), default=None)
        kept = sorted(rows, key=lambda row: -(_apart(row) or 0.0))[:SHOWN] if len(rows) > SHOWN else rows
        title = evidence.unit if by == "group" else spaced(by)
        tables.append(SliceTable(title, tuple(kept), len(rows), farthest))
    return tuple(tables)


def _apart(row: SliceRow) -> float | None:
    found = [abs(f.difference) for f in row.figures if f.difference is not None and TOLERANCES[f.name] is not None]
    return max(found, default=None)


def _column(evidence: Evidence, by: str) -> Array | None:
    """What each test patch is in a slicing, as text; None where that is no longer known."""
    test = judged(evidence)
    if test is None:
        return None
    if by == "group":
        return test.groups.astype(str)
    if by == "class":
        return np.array(evidence.classes, object)[test.labels].astype(str)
    return None if test.facts is None else test.facts[by].astype(str)


def _features(statistics: Sequence[FeatureStatistics]) -> tuple[FeatureRow, ...]:
    found: dict[str, dict[str, FeatureStatistics]] = {}
    for one in statistics:
        found.setdefault(one.feature, {})[one.split] = one
    splits = [split for split in SPLITS if any(one.split == split for one in statistics)]
    return tuple(
        FeatureRow(
            name,
            next(iter(by_split.values())).kind.lower(),
            tuple((_figures_of(by_split[s]), sparkline(by_split[s])) if s in by_split else None for s in splits),
        )
        for name, by_split in found.items()
    )


def _figures_of(one: FeatureStatistics) -> tuple[str, ...]:
    lines = []
    if one.mean is not None and one.low == one.high:
        lines.append(f"always {one.low:g}")
    elif one.mean is not None:
        lines.append(f"{number(one.mean)} ± {number(one.deviation)}")
        whole = one.kind == "INT"
        lines.append(f"{number(one.low, 0 if whole else 3)} to {number(one.high, 0 if whole else 3)}")
    elif one.labels:
        lines.append(", ".join(f"{label or '(empty)'}: {count:,.0f}" for label, count in zip(one.labels, one.bars)))
    elif one.unique is not None:
        lines.append(f"{one.unique:,} different")
    if one.missing:
        lines.append(f"{one.missing:,} missing")
    return tuple(lines)


def sparkline(one: FeatureStatistics) -> Markup:
    """The histogram of a feature in a split, a few letters high; empty where it would show nothing."""
    top = max(one.bars, default=0.0)
    if top <= 0 or len(one.bars) < 2 or (one.mean is not None and one.low == one.high) or one.unique == one.count:
        return Markup("")
    step, heights = 96 / len(one.bars), [22 * bar / top for bar in one.bars]
    bars = "".join(
        f'<rect x="{i * step:.1f}" y="{22 - height:.1f}" width="{step - 1:.1f}" height="{height:.1f}"/>'
        for i, height in enumerate(heights)
    )
    opening = Markup('<svg class="spark" viewBox="0 0 96 22" role="img" aria-label="Histogram of {}, {} split">')
    return opening.format(one.feature, one.split) + Markup(bars) + Markup("</svg>")
