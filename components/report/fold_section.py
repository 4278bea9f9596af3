"""The report's section on folds: which figure belongs to which model, in plain words and one table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from components.report.evidence import Evidence
from components.report.measures import TITLES
from components.training.run_types import FoldRecord, FoldsRecord


@dataclasses.dataclass(frozen=True)
class FoldSection:
    """What is said of the folds.

    Attributes:
        folds: Of the run.
        members: Of the folds' models.
        served: What is served, in words.
        own: The served model's own figures by title; empty where nothing is left that it has not seen.
        own_on: Groups and patches that those are of.
        primary: Title of the primary metric.
    """

    folds: FoldsRecord
    members: tuple[FoldRecord, ...]
    served: str
    own: tuple[tuple[str, Mapping[str, Any]], ...]
    own_on: tuple[int, int]
    primary: str


def section(evidence: Evidence) -> FoldSection | None:
    """The section of a run; None where it decides by a test split.

    Args:
        evidence: Of the run.
    """
    folds = evidence.record.folds
    if folds is None:
        return None
    held = evidence.record.metrics.get("holdout", {})
    values = held.get("values", {})
    wanted = (evidence.primary, "accuracy", "balanced_accuracy", "sensitivity", "specificity")
    names = [name for name in wanted if name in values]
    return FoldSection(
        folds=folds,
        members=folds.members,
        served=served_words(folds),
        own=tuple((TITLES.get(name, name), values[name]) for name in names),
        own_on=(held.get("groups", 0), held.get("patches", 0)),
        primary=TITLES[evidence.primary],
    )


def served_words(folds: FoldsRecord) -> str:
    """What is served, as a noun."""
    if folds.serve == "refit":
        return "one model that was trained again on everyone"
    return f"the mean of the {folds.folds} folds' models"
