"""The types of run.json: what a training run was asked for, how far it came, and what was decided."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

from components.core import json_documents

Stage = Literal["validate", "train", "evaluate", "push", "report"]
STAGES: tuple[Stage, ...] = get_args(Stage)
"""In the order in which they run."""


@dataclasses.dataclass(frozen=True)
class StageEntry:
    """How far one stage came.

    Attributes:
        state: running, done or failed.
        started: ISO 8601, UTC.
        ended: Likewise; None while it runs.
        seconds: That it took; None while it runs.
        inputs: Digest of what it read; equal means that there is nothing to do.
    """

    state: Literal["running", "done", "failed"]
    started: str
    ended: str | None = None
    seconds: float | None = None
    inputs: str = ""


@dataclasses.dataclass(frozen=True)
class Failure:
    """Why a run failed.

    Attributes:
        stage: In which it did.
        exit_code: As the command ended.
        message: The error's paragraph.
    """

    stage: str
    exit_code: int
    message: str


@dataclasses.dataclass(frozen=True)
class LookCount:
    """How many runs were evaluated on the patients of a test split.

    Attributes:
        count: The most that at least half of its groups have had, this one included.
        test_digest: Names the split by its content.
        groups: Groups that have had as many; None in files of before looks were counted by group.
        of_groups: Groups of the split; likewise.
    """

    count: int
    test_digest: str
    groups: int | None = None
    of_groups: int | None = None


@dataclasses.dataclass(frozen=True)
class GateRecord:
    """What the gate decided, and what it compared the model with.

    Attributes:
        decision: promoted or refused.
        code: Of the decision.
        reason: One sentence.
        metric: Primary metric: auc or macro_f1.
        checks: Every condition: `code`, `passed`, `detail`.
        comparisons: Against baseline, champion and best ever: `against`, `name`, `result`, `groups` and more.
        weak_evidence: A comparison that counted was pooled over classes with too few groups.
        smallest_detectable: Smallest difference that the comparison was likely to find.
        becomes_best_ever: Promoted, and not below the best model so far.
        champion_version: That it was compared with; None where there was none.
        best_ever_version: Likewise.
        answers: What the fresh process said of the exported model.
        look: Which look at the test split this was.
        confidence: Of the limits that decided at this look.
        power: How likely a better model would have been promoted: `against`, `chances` and more.
    """

    decision: Literal["promoted", "refused"]
    code: str
    reason: str
    metric: str
    checks: tuple[Mapping[str, Any], ...]
    comparisons: tuple[Mapping[str, Any], ...]
    weak_evidence: bool
    smallest_detectable: float | None
    becomes_best_ever: bool
    champion_version: int | None
    best_ever_version: int | None
    answers: Mapping[str, Any]
    look: int | None = None
    confidence: float | None = None
    power: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True)
class FoldRecord:
    """One fold's model, and how it did on the groups that it has never seen.

    Attributes:
        fold: Its number, from 1.
        train: Groups that it was fitted on.
        eval: Groups that it was stopped, calibrated and cut on.
        test: Groups that it is measured on.
        patches: Of those.
        epochs_run: Epochs that were trained.
        temperature: Of its model.
        threshold: Likewise; None for more than two classes.
        figure: Primary metric on its own test groups; None where it can't be computed.
    """

    fold: int
    train: int
    eval: int
    test: int
    patches: int
    epochs_run: int
    temperature: float
    threshold: float | None
    figure: float | None


@dataclasses.dataclass(frozen=True)
class FoldsRecord:
    """The folds that a run decides by.

    Attributes:
        folds: How many.
        holdout: `test` where the data set's test split takes part in none of them, else `none`.
        serve: `mean` of their models, or one `refit` on everyone.
        plan: Folder of their ledgers, relative to the workspace.
        groups: That are tested, each in one fold.
        train_only: Groups that are in train in every fold.
        train_only_classes: Classes of too few groups, which are in train in every fold.
        held_out: Groups that take part in no fold.
        members: The folds' models; empty before the evaluation.
    """

    folds: int
    holdout: Literal["none", "test"]
    serve: Literal["mean", "refit"]
    plan: str
    groups: int
    train_only: int
    train_only_classes: tuple[str, ...]
    held_out: int
    members: tuple[FoldRecord, ...] = ()


@dataclasses.dataclass(frozen=True)
class RunRecord:
    """run.json, field by field in the order of the file; `schemas/run.schema.json` is the contract.

    What is empty or None was not found out yet. Mappings and entries whose keys are open stay plain JSON values.

    Attributes:
        format: Of the file.
        histoline_version: That began the run.
        run_id: RUN_ID.
        dataset: Data set.
        task: Task.
        created: ISO 8601, UTC.
        updated: Likewise.
        state: running, done or failed.
        stage: The last one that began.
        stages: Name to how far it came.
        error: Of a failed run.
        decision: The gate's, or that nothing has changed; a promotion by hand leaves it.
        code: The gate's.
        reason: One sentence.
        config: The frozen TrainingConfig.
        options: Frozen options that are no part of the recipe, such as `accept_drift`.
        dataset_dir: Folder of the data set, relative to the workspace.
        plan_id: PLAN_ID of the data set.
        content_digest: Of the data set, over pixels, labels, groups and splits.
        manifest_digest: Of its manifest.
        group_unit: patient, slide or image.
        classes: Class names in label order.
        flags: Why nothing made from the data set may be promoted.
        floors: The Evaluator's verdict: `blessed`, `reason`, and what else it reports.
        metrics: Split to patches, groups, warnings and `values`: metric to interval.
        per_group: Split to metric to its spread over groups.
        recognition: Split to magnification to recognition rates (Spanhol et al. 2016).
        patient_level: Split to figures of one decision per patient, as `metrics`; empty where a patient has several
            labels.
        selective: Split to what abstaining on the least certain patches gains: `aurc` and `rows` by coverage.
        slices: Figures of parts of the test split.
        drift: Of the colours against the champion's data.
        history: Quantity to one value per epoch.
        epochs_run: Epochs that were trained.
        temperature: Of the exported model.
        bias: Of the exported model: a number for a binary task, else one per class; None in old runs.
        threshold: Of the exported model; None for more than two classes.
        threshold_note: How `sensitivity=X` was met on eval, or that it was not; else empty.
        calibration: Before and after, on eval; as served.
        gate: The gate's decision, and what the model was compared with.
        policy: What the gate asked for.
        weak_evidence: A comparison that counted was pooled over classes with too few groups.
        looks: At the test split.
        smallest_detectable: Smallest difference that the comparison was likely to find.
        version: Of the pushed model.
        promotion: Its entry in champion.json.
        report: The page, relative to the workspace.
        digests: Name to digest: `inputs`, `source`, `config`, `recipe` (what makes the model), `model`, `test_split`.
        paths: Name to path relative to the workspace.
        timings: Name to seconds.
        versions: Library to version.
        warnings: Sentences.
        decision_by: What the gate decides by: the test `split`, or `folds`, whose pooled figures then stand as `test`.
        folds: Of a run that decides by folds.
        drawn: Whether a program drew the images of the data set.
    """

    format: int
    histoline_version: str
    run_id: str
    dataset: str
    task: str
    created: str
    updated: str
    state: Literal["running", "done", "failed"]
    stage: Stage
    stages: Mapping[str, StageEntry]
    error: Failure | None
    decision: Literal["promoted", "refused", "unchanged"] | None
    code: str
    reason: str
    config: Mapping[str, Any]
    options: Mapping[str, Any]
    dataset_dir: str
    plan_id: str
    content_digest: str
    manifest_digest: str
    group_unit: Literal["patient", "slide", "image"]
    classes: tuple[str, ...]
    flags: tuple[str, ...]
    floors: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    per_group: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    recognition: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    patient_level: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    selective: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    slices: tuple[Mapping[str, Any], ...] = ()
    drift: Mapping[str, Any] | None = None
    history: Mapping[str, list[Any]] = dataclasses.field(default_factory=dict)
    epochs_run: int | None = None
    temperature: float | None = None
    bias: float | tuple[float, ...] | None = None
    threshold: float | None = None
    threshold_note: str = ""
    calibration: Mapping[str, Any] | None = None
    gate: GateRecord | None = None
    policy: Mapping[str, Any] | None = None
    weak_evidence: bool = False
    looks: LookCount | None = None
    smallest_detectable: float | None = None
    version: int | None = None
    promotion: Mapping[str, Any] | None = None
    report: str | None = None
    digests: Mapping[str, str] = dataclasses.field(default_factory=dict)
    paths: Mapping[str, str] = dataclasses.field(default_factory=dict)
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    decision_by: Literal["split", "folds"] = "split"
    folds: FoldsRecord | None = None
    drawn: bool = False

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> RunRecord:
        """A document that follows the schema as a record."""
        return json_documents.typed(cls, {k: v for k, v in document.items() if k != json_documents.SEAL})

    def to_document(self) -> dict[str, Any]:
        """The record as plain JSON values, in the order of the file."""
        return {field.name: json_documents.plain(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def figures(self, split: str = "test") -> Mapping[str, Mapping[str, Any]]:
        """Metric to interval on a split; empty before the evaluation."""
        values: Mapping[str, Mapping[str, Any]] = self.metrics.get(split, {}).get("values", {})
        return values
