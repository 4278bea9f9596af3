"""The types of sweep.json and trial.json: what a sweep was asked for, what became of each trial, what was chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any, Literal, get_args

from components.core import json_documents

Oracle = Literal["list", "grid", "random", "hyperband", "bayesian"]
ORACLES: tuple[Oracle, ...] = get_args(Oracle)
ADAPTIVE: tuple[Oracle, ...] = ("hyperband", "bayesian")
"""They draw a trial from the results of those before, so that not all are known at planning."""

TrialState = Literal["running", "done", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Field:
    """A field of the recipe that is searched.

    Attributes:
        name: Dotted, such as `phases.0.learning_rate`.
        kind: `choice`, `int` or `float`.
        choices: Of `choice`: its values as YAML.
        low: Of numbers.
        high: Likewise, included.
        step: From one number to the next; None for all of them.
        log: Whether numbers are drawn evenly on a logarithmic scale.
    """

    name: str
    kind: Literal["choice", "int", "float"]
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    step: float | None = None
    log: bool = False


@dataclasses.dataclass(frozen=True)
class Search:
    """What a sweep looks through, and how.

    Attributes:
        oracle: Draws the trials; `list` takes each recipe once.
        recipes: Names of presets or files.
        fields: That are searched; none under `list`.
        trials: At most so many; None for all there are.
        minutes: Of training, all trials and interruptions together; None for no limit.
        seed: Of the oracle.
    """

    oracle: Oracle
    recipes: tuple[str, ...]
    fields: tuple[Field, ...] = ()
    trials: int | None = None
    minutes: float | None = None
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Trial:
    """A recipe that is tried.

    Attributes:
        number: From 0.
        recipe: Name of the preset or file that it starts from.
        values: Searched field to its value.
        config: The TrainingConfig, seed included; of a recipe that can't be used, what was drawn.
        digest: Of the TrainingConfig.
        epochs: It ends after so many; None for all.
        continues: Trial whose training it goes on with; None for one of its own.
        known: Trials that had ended when it was drawn, in that order.
    """

    number: int
    recipe: str
    values: Mapping[str, Any]
    config: Mapping[str, Any]
    digest: str
    epochs: int | None = None
    continues: int | None = None
    known: tuple[int, ...] = ()

    @property
    def title(self) -> str:
        """The recipe as people know it: a file without its folder."""
        return PurePath(self.recipe).stem if self.recipe.endswith((".yaml", ".yml")) else self.recipe


@dataclasses.dataclass(frozen=True)
class Choice:
    """Which trial was chosen.

    Attributes:
        best: Trial with the best estimate.
        winner: Trial that was chosen.
        reason: Why, in sentences.
        within: Trials within one standard error of the best, the best included.
        differences: Trial (as text) to its primary metric minus that of the best, an interval; best first.
    """

    best: int
    winner: int
    reason: str
    within: tuple[int, ...]
    differences: Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class SweepRecord:
    """sweep.json, field by field in the order of the file; `schemas/sweep.schema.json` is the contract.

    Attributes:
        format: Of the file.
        histoline_version: That began the sweep.
        sweep_id: SWEEP_ID.
        dataset: Data set.
        task: Task.
        created: ISO 8601, UTC.
        updated: Likewise.
        state: `running`, or `done` once a trial is chosen.
        dataset_dir: Folder of the data set, relative to the workspace.
        plan_id: PLAN_ID of the data set.
        content_digest: Of the data set.
        manifest_digest: Of its manifest.
        group_unit: patient, slide or image.
        classes: Class names in label order.
        metric: Primary metric: `auc` or `macro_f1`.
        folds: Number of folds inside train and eval that a trial is scored on; None for the eval split.
        options: What is no part of the search, such as `metadata`.
        search: What is looked through.
        trials: In the order in which they were drawn.
        choice: None until there is one.
        run_id: RUN_ID under which the winner goes to the gate.
        report: The page, relative to the workspace; None before it is made.
    """

    format: int
    histoline_version: str
    sweep_id: str
    dataset: str
    task: str
    created: str
    updated: str
    state: Literal["running", "done"]
    dataset_dir: str
    plan_id: str
    content_digest: str
    manifest_digest: str
    group_unit: Literal["patient", "slide", "image"]
    classes: tuple[str, ...]
    metric: Literal["auc", "macro_f1"]
    folds: int | None
    options: Mapping[str, Any]
    search: Search
    trials: tuple[Trial, ...] = ()
    choice: Choice | None = None
    run_id: str = ""
    report: str | None = None

    @property
    def where(self) -> str:
        """Whose patients trials are compared on."""
        return "eval" if self.folds is None else f"train and eval, in {self.folds} folds"

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> SweepRecord:
        """A document that follows the schema as a record."""
        return json_documents.typed(cls, {k: v for k, v in document.items() if k != json_documents.SEAL})


@dataclasses.dataclass(frozen=True)
class TrialFailure:
    """Why a trial failed.

    Attributes:
        exit_code: As the trial's process ended; negative for a signal.
        message: The error's paragraph.
    """

    exit_code: int
    message: str


@dataclasses.dataclass(frozen=True)
class TrialRecord:
    """trial.json: what became of a trial; `schemas/trial.schema.json` is the contract.

    Attributes:
        format: Of the file.
        number: Of the trial.
        state: `stopped` is one that was ended early.
        started: ISO 8601, UTC.
        updated: Likewise.
        ended: Seconds since 1970; None while it runs.
        seconds: Of training and scoring, interruptions left out.
        epochs_run: Finished epochs.
        epochs: Of the whole recipe with these data; 0 before the first one.
        curve: Primary metric on eval after each epoch.
        score: Primary metric, of the exported model or, where it ended early, the best of the curve; None without.
        figures: Metric to interval on eval, by the exported model.
        patches: That it was scored on.
        groups: Their groups.
        parameters: Weights of the network.
        pixels: Image area that the network works on for one image, over all its views.
        milliseconds: To score one patch on the machine at hand; None where it was not measured.
        run_key: Of recipe and data, see `components.training.trainer.run_key`.
        source_digest: Of the code that trained it.
        reason: Why it was ended early.
        error: Of a failed one.
    """

    format: int
    number: int
    state: TrialState
    started: str
    updated: str
    ended: float | None = None
    seconds: float = 0.0
    epochs_run: int = 0
    epochs: int = 0
    curve: tuple[float, ...] = ()
    score: float | None = None
    figures: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    patches: int = 0
    groups: int = 0
    parameters: int | None = None
    pixels: int | None = None
    milliseconds: float | None = None
    run_key: str = ""
    source_digest: str = ""
    reason: str = ""
    error: TrialFailure | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> TrialRecord:
        """A document that follows the schema as a record."""
        return json_documents.typed(cls, {k: v for k, v in document.items() if k != json_documents.SEAL})

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state != "running"
