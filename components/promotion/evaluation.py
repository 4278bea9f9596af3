"""Evaluation of a run: predictions in a fresh process, metrics with intervals, and the gate's decision in run.json."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.array_types import Array
from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.datasets.sidecars import digest_of_split
from components.errors import DataError
from components.metrics import summary
from components.metrics.bootstrap import BootstrapPlan
from components.promotion import champion as champions
from components.promotion import error_maps, fold_inputs, scoring_process
from components.promotion.evaluation_inputs import EvaluationInputs, read_inputs
from components.promotion.floors import with_own_floors
from components.promotion.fold_inputs import FoldInputs
from components.promotion.fold_scores import keep_out_of_fold, score_folds
from components.promotion.gate import decide
from components.promotion.gate_facts import (
    Making,
    disjointness,
    folds_warning,
    gate_policy,
    opponents,
    other_way,
    real_champion,
    way_warning,
)
from components.promotion.gate_types import GateInputs, GateModel, GatePolicy
from components.promotion.prediction_tables import comparison_table, probability_values
from components.promotion.scores import Scores, colour_baseline
from components.promotion.served_model import model_digest
from components.promotion.test_set_reuse import count_look, names_of
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import LookCount, RunRecord

PREDICTIONS, COMPARISON = "predictions.parquet", "comparison.parquet"


def evaluate(
    storage: Storage,
    run_dir: str,
    blessed: bool,
    floors_report: Mapping[str, Any] | None = None,
    *,
    predictor: scoring_process.Predictor = scoring_process.in_fresh_process,
) -> RunRecord:
    """Scores the exported model, decides whether it is promoted, and writes both into run.json.

    Writes `predictions.parquet`, `comparison.parquet` and, of models that can, `error_maps.parquet` beside it.
    Refusal is a normal end. A run that the gate promoted and that was pushed keeps its decision. The caller holds the
    run's lock.

    Args:
        storage: The workspace.
        run_dir: Folder of the run, relative to the workspace; its run.json names the data set.
        blessed: Whether the Evaluator's floors are met.
        floors_report: What else the Evaluator says, kept as run.json's `floors`; `reason` is the clause that a
            refusal quotes.
        predictor: How predictions are made; tests replace it.

    Returns:
        The run's record.

    Raises:
        DataError: The data set, or a promoted model, is damaged.
    """
    started = time.monotonic()
    record = run_record.read(storage, run_dir)
    manifest = _manifest(storage, record)
    champion = champions.load(storage, champions.home(record.dataset, record.task))
    if champion and champion.pushed(record.run_id) and record.decision == "promoted":
        return record  # against itself it would be refused, although its version is there
    reads = fold_inputs.read_inputs if record.decision_by == "folds" else read_inputs
    inputs = reads(storage, run_dir, record, manifest, champion)
    looks = _count_looks(storage, inputs)
    test_digest = looks.test_digest
    floors = {**(floors_report or {}), "blessed": blessed}
    floors.setdefault("reason", "" if blessed else "the Evaluator did not bless it")
    storage.sweep(run_dir)  # what a killed try left
    scratch = storage.scratch(run_dir)
    try:
        if isinstance(inputs, FoldInputs):
            scores = score_folds(inputs, scratch, predictor)
        else:
            scores = _score(inputs, scratch, predictor)
        changes = judge(inputs, scores, floors, looks.count)
        _commit_tables(storage, run_dir, scratch, inputs, scores)
        out_of_fold = keep_out_of_fold(storage, run_dir, scratch, inputs, scores)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return run_record.update(
        storage,
        run_dir,
        **changes,
        looks=looks,
        digests={"model": model_digest(inputs.model_dir), "test_split": test_digest, **out_of_fold},
        paths={
            "model": f"{run_dir}/model",
            "predictions": f"{run_dir}/{PREDICTIONS}",
            "comparison": f"{run_dir}/{COMPARISON}",
        },
        timings={
            "evaluation": round(time.monotonic() - started, 3),
            "predictions": scores.answers.get("seconds", 0.0),
        },
        versions={key: scores.answers[key] for key in ("tensorflow",) if key in scores.answers},
    )


def _manifest(storage: Storage, record: RunRecord) -> Manifest:
    manifest = manifests.load(storage, record.dataset_dir)
    if manifest.manifest_digest != record.manifest_digest:
        raise DataError(
            f"{storage.uri(record.dataset_dir)} is not the data set that run {record.run_id} was trained on: its"
            " manifest has changed.",
            "Train again on the data set as it is now.",
        )
    return manifest


def _score(inputs: EvaluationInputs, out: Path, predictor: scoring_process.Predictor) -> Scores:
    """Has candidate, champion and best ever scored, and fits the colour baseline."""
    others = {name: str(model.folder) for name, model in inputs.comparable.items()}
    request = scoring_process.Request(
        model_dir=str(inputs.model_dir),
        model_version=inputs.record.run_id,
        classes=inputs.manifest.classes,
        source_size=inputs.manifest.source_size,
        stored_size=inputs.manifest.stored_size,
        shards=inputs.shards,
        others=others,
        out=str(out),
        explain=True,
    )
    predictor(request)
    answers = json.loads((out / scoring_process.ANSWERS).read_text())
    predictions, promoted = None, {}
    if (out / scoring_process.PREDICTIONS).is_file():
        predictions = pq.read_table(out / scoring_process.PREDICTIONS)
        table = pq.read_table(out / scoring_process.OTHERS)
        promoted = {name: probability_values(table.column(name)) for name in others}
    baseline = colour_baseline(inputs.record.config, inputs.train, inputs.test, inputs.n_classes)
    return Scores(answers, predictions, promoted, baseline)


def _count_looks(storage: Storage, inputs: EvaluationInputs) -> LookCount:
    """Counts this run as a look at what is measured; the count of what decides."""

    def count(table: pa.Table) -> LookCount:
        return count_look(
            storage, inputs.record.dataset, inputs.record.task, test_digest=digest_of_split(table),
            groups=_texts(table, "group_id").tolist(), names=names_of(inputs.manifest), run_id=inputs.record.run_id,
        )  # fmt: skip

    if "holdout" in inputs.tables:
        count(inputs.tables["holdout"])
    return count(inputs.test)


def judge(inputs: EvaluationInputs, scores: Scores, floors: Mapping[str, Any], look: int = 1) -> dict[str, Any]:
    """Fields of run.json that follow from the scores; a pure function.

    Args:
        inputs: What was read.
        scores: Of all models.
        floors: The Evaluator's verdict: `blessed`, `reason`, and what else it reports.
        look: Which look at the test split this is.
    """
    policy = gate_policy(inputs.record.config.get("gate") or {}, _making(inputs), _making_of_champion(inputs))
    groups = _texts(inputs.test, "group_id")
    models, warnings = opponents(inputs.comparable, inputs.manifest, scores.promoted, groups)
    warnings += [way_warning(name, model.entry) for name, model in inputs.promoted.items() if name not in models]
    told = (folds_warning(name, model, inputs.record.folds) for name, model in inputs.comparable.items())
    warnings += filter(None, told)
    measured: dict[str, Any] = {"metrics": {}, "per_group": {}, "recognition": {}, "slices": []}
    measured |= {"patient_level": {}, "selective": {}}
    if scores.predictions is not None:
        measured = _measure(inputs, scores.predictions, policy)
        asked = inputs.record.config.get("floors") or {}
        test = np.bincount(inputs.test.column("label").to_numpy(), minlength=inputs.n_classes)
        floors = with_own_floors(
            floors, asked, inputs.record.task, measured["metrics"]["test"]["values"], test,
        )  # fmt: skip
        if isinstance(inputs, FoldInputs):
            measured["folds"] = inputs.measured(_of_split(scores.predictions, "test"))
    decision = decide(_gate_inputs(inputs, scores, floors, groups, models, look), policy)
    entries = {name: model.entry for name, model in inputs.promoted.items()}
    return {
        **measured,
        "decision": decision.decision,
        "code": decision.code,
        "reason": decision.reason,
        "weak_evidence": decision.weak_evidence,
        "smallest_detectable": decision.smallest_detectable,
        "gate": {**decision.to_json(), **champions.versions_of(entries), "answers": scores.answers},
        "policy": dataclasses.asdict(policy),
        "floors": floors,
        "warnings": [*warnings, *_unmet(inputs.record)],
        "temperature": inputs.facts.get("temperature"),
        "bias": inputs.facts.get("bias"),
        "threshold": inputs.facts.get("threshold"),
    }


def _unmet(record: RunRecord) -> list[str]:
    """What has to be said where the sensitivity that the recipe asks for can't be shown."""
    chosen = (record.calibration or {}).get("threshold") or {}
    return [] if chosen.get("met", True) else [record.threshold_note]


def _gate_inputs(
    inputs: EvaluationInputs,
    scores: Scores,
    floors: Mapping[str, Any],
    groups: Array,
    models: Mapping[str, GateModel],
    look: int,
) -> GateInputs:
    candidate, problem = None, inputs.problem
    if not scores.answers["answers"]:
        problem = str(scores.answers["reason"]) or "it does not answer"
    if scores.predictions is not None:
        candidate = GateModel(inputs.record.run_id, _of_split(scores.predictions, "test"), inputs.trained_on)
    proof, leak = disjointness(inputs.manifest)
    return GateInputs(
        labels=inputs.test.column("label").to_numpy(),
        groups=groups,
        candidate=candidate,
        baseline=scores.baseline,
        champion=models.get("champion"),
        best_ever=models.get("best_ever"),
        blessed=bool(floors["blessed"]),
        blessing_reason=str(floors["reason"]),
        answers=not problem,
        answers_reason=problem,
        disjointness=proof,
        disjointness_reason=leak,
        group_unit=inputs.manifest.group_unit,
        look=look,
        incomparable=other_way(inputs.record.decision_by, inputs.promoted.get("champion")),
        drawn=inputs.manifest.drawn,
        real_champion=real_champion(inputs.manifest, inputs.promoted),
        remark=inputs.manifest.shares_nobody,
    )


def _making(inputs: EvaluationInputs) -> Making:
    digests, manifest = inputs.record.digests, inputs.manifest
    fitted_on = frozenset(_texts(inputs.train, "group_id").tolist())
    names = (manifest.group_unit, manifest.key_fingerprint)
    return Making(digests.get("recipe", ""), digests.get("source", ""), fitted_on, names)


def _making_of_champion(inputs: EvaluationInputs) -> Making | None:
    champion = inputs.promoted.get("champion")
    if champion is None:
        return None
    entry = champion.entry
    names = (entry.group_unit, entry.group_key)
    return Making(entry.recipe_digest, entry.source_digest, champion.fitted_on, names)


def _of_split(table: pa.Table, split: str) -> Array:
    of_split: Array = probability_values(table.column("probability"))[_texts(table, "split") == split]
    return of_split


def _texts(table: pa.Table, column: str) -> Array:
    return np.array(table.column(column).to_pylist(), object).astype(str)


def _measure(inputs: EvaluationInputs, predictions: pa.Table, policy: GatePolicy) -> dict[str, Any]:
    """Metrics of eval and test."""
    multiclass = inputs.n_classes > 2
    plan = BootstrapPlan(policy.resamples, policy.confidence, pool=multiclass, seed=policy.seed)
    splits = {}
    for name, table in inputs.tables.items():
        splits[name] = summary.ScoredSplit(
            labels=table.column("label").to_numpy(),
            groups=_texts(table, "group_id"),
            probability=_of_split(predictions, name),
            threshold=inputs.threshold(name),
            magnification=table.column("magnification").to_numpy(),
            tumor_type=_texts(table, "tumor_type"),
        )
    return {
        "metrics": {name: summary.with_intervals(split, plan) for name, split in splits.items()},
        "per_group": {name: summary.per_group(split) for name, split in splits.items()},
        "recognition": {name: summary.recognition(split, plan) for name, split in splits.items()},
        "patient_level": {name: summary.patient_level(split, plan) for name, split in splits.items()},
        "selective": {name: summary.selective(split, plan) for name, split in splits.items()},
        "slices": summary.slices(splits["test"], list(inputs.manifest.classes)),
        "calibration": {
            **(inputs.record.calibration or {}),
            **summary.calibration(
                splits, None, None, {name: inputs.uncalibrated(name, s.probability) for name, s in splits.items()}
            ),
        },
    }


def _commit_tables(storage: Storage, folder: str, scratch: Path, inputs: EvaluationInputs, scores: Scores) -> None:
    """Commits the tables; predictions and maps of an earlier try go where there are none now."""
    others = {name: scores.promoted.get(name) for name in ("champion", "best_ever")}
    columns = {**others, "baseline": scores.baseline}
    table = comparison_table(inputs.test.column("patch_id"), columns, inputs.n_classes)
    pq.write_table(table, scratch / COMPARISON, compression="zstd")
    storage.commit_file(scratch / COMPARISON, f"{folder}/{COMPARISON}")
    if scores.predictions is None:
        storage.delete(f"{folder}/{PREDICTIONS}")
    else:
        storage.commit_file(scratch / scoring_process.PREDICTIONS, f"{folder}/{PREDICTIONS}")
    if (scratch / error_maps.NAME).is_file():
        storage.commit_file(scratch / error_maps.NAME, f"{folder}/{error_maps.NAME}")
    else:
        storage.delete(f"{folder}/{error_maps.NAME}")
