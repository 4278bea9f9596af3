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

from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.datasets.sidecars import digest_of_split, read_split, shard_files
from components.errors import DataError
from components.metrics import summary
from components.metrics.bootstrap import BootstrapPlan
from components.metrics.colour_baseline import fit_baseline
from components.promotion import champion as champions
from components.promotion import scoring_process as fresh
from components.promotion.champion import Champion
from components.promotion.gate import decide
from components.promotion.gate_facts import disjointness, gate_policy, opponents, promoted, version_dir
from components.promotion.gate_types import GateInputs, GateModel, GatePolicy
from components.promotion.prediction_tables import comparison_table, probability_values
from components.promotion.served_model import NotServable, model_digest, read_facts, read_train_groups
from components.promotion.test_set_reuse import count_look
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import RunRecord
from schemas.tables import COLOUR_COLUMNS

PREDICTIONS, COMPARISON = "predictions.parquet", "comparison.parquet"
MEASURED = ("group_id", "label", "magnification", "tumor_type")


@dataclasses.dataclass(frozen=True)
class _Run:
    """What an evaluation reads and never changes."""

    storage: Storage
    folder: str
    record: RunRecord
    manifest: Manifest
    home: str
    champion: Champion | None
    test: pa.Table
    model_dir: Path

    @property
    def n_classes(self) -> int:
        return len(self.manifest.classes)

    def read(self, split: str, columns: tuple[str, ...]) -> pa.Table:
        return read_split(self.storage, self.record.dataset_dir, self.manifest, split, columns)


@dataclasses.dataclass(frozen=True)
class _Scored:
    """What the fresh process found; no predictions where the candidate can't be scored."""

    answers: dict[str, Any]
    predictions: pa.Table | None
    others: dict[str, np.ndarray]


def evaluate(
    storage: Storage,
    run_dir: str,
    blessed: bool,
    floors_report: Mapping[str, Any] | None = None,
    *,
    predictor: fresh.Predictor = fresh.in_fresh_process,
) -> RunRecord:
    """Scores the exported model, decides whether it is promoted, and writes both into run.json.

    Writes `predictions.parquet` and `comparison.parquet` beside it. Refusal is a normal end. A run that the gate
    promoted and that was pushed keeps its decision. The caller holds the run's lock.

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
    run = _open(storage, run_dir)
    record = run.record
    if run.champion and run.champion.pushed(record.run_id) and record.decision == "promoted":
        return record  # against itself it would be refused, although its version is there
    test_digest = digest_of_split(run.test)
    looks = count_look(storage, record.dataset, record.task, test_digest, record.run_id)
    storage.sweep(run_dir)  # what a killed try left
    scratch = storage.scratch(run_dir)
    try:
        scored = _score(run, scratch, predictor)
        baseline = _baseline(run)
        report = {**(floors_report or {}), "blessed": blessed}
        report.setdefault("reason", "" if blessed else "the Evaluator did not bless it")
        changes = _decide(run, scored, baseline, report)
        _keep(run, scratch, scored, baseline)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return run_record.update(
        storage,
        run_dir,
        **changes,
        floors=report,
        looks={"count": looks, "test_digest": test_digest},
        digests={"model": model_digest(run.model_dir), "test_split": test_digest},
        paths={
            "model": f"{run_dir}/model",
            "predictions": f"{run_dir}/{PREDICTIONS}",
            "comparison": f"{run_dir}/{COMPARISON}",
        },
        timings={
            "evaluation": round(time.monotonic() - started, 3),
            "predictions": scored.answers.get("seconds", 0.0),
        },
        versions={key: scored.answers[key] for key in ("tensorflow",) if key in scored.answers},
    )


def _open(storage: Storage, run_dir: str) -> _Run:
    record = run_record.read(storage, run_dir)
    manifest = manifests.load(storage, record.dataset_dir)
    if manifest.manifest_digest != record.manifest_digest:
        raise DataError(
            f"{storage.uri(record.dataset_dir)} is not the data set that run {record.run_id} was trained on: its"
            " manifest has changed.",
            "Train again on the data set as it is now.",
        )
    home = champions.home(record.dataset, record.task)
    columns = ("patch_id", "pixel_hash", *MEASURED, *COLOUR_COLUMNS)
    test = read_split(storage, record.dataset_dir, manifest, "test", columns)
    model_dir = storage.local_tree(f"{run_dir}/model")
    return _Run(storage, run_dir, record, manifest, home, champions.load(storage, home), test, model_dir)


def _score(run: _Run, out: Path, predictor: fresh.Predictor) -> _Scored:
    """Has candidate, champion and best ever scored."""
    shards = {}
    for split in fresh.SPLITS:
        pairs = shard_files(run.manifest, run.record.dataset_dir, split)
        local = [str(path) for path in run.storage.local_copies([name for pair in pairs for name in pair])]
        shards[split] = list(zip(local[::2], local[1::2], strict=True))
    entries = promoted(run.champion)
    others = {name: str(version_dir(run.storage, run.home, e.version)) for name, e in entries.items()}
    source, stored = run.manifest.source_size, run.manifest.stored_size
    request = fresh.Request(
        model_dir=str(run.model_dir),
        model_version=run.record.run_id,
        classes=run.manifest.classes,
        source_size=(source[0], source[1]),
        stored_size=(stored[0], stored[1]),
        shards=shards,
        others=others,
        out=str(out),
    )
    predictor(request)
    answers = json.loads((out / fresh.ANSWERS).read_text())
    if not (out / fresh.PREDICTIONS).is_file():
        return _Scored(answers, None, {})
    table = pq.read_table(out / fresh.OTHERS)
    scores = {name: probability_values(table.column(name)) for name in others}
    return _Scored(answers, pq.read_table(out / fresh.PREDICTIONS), scores)


def _baseline(run: _Run) -> np.ndarray:
    """Probabilities of the colour baseline on the test patches, fitted on train."""
    train = run.read("train", ("label", *COLOUR_COLUMNS))
    fitted = fit_baseline(_features(train), train.column("label").to_numpy(), run.n_classes)
    return fitted.predict(_features(run.test))


def _features(table: pa.Table) -> np.ndarray:
    return np.stack([table.column(name).to_numpy() for name in COLOUR_COLUMNS], axis=1)


def _decide(run: _Run, scored: _Scored, baseline: np.ndarray, report: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of run.json that follow from the scores."""
    groups = _texts(run.test, "group_id")
    facts, trained_on, problem = _facts(run)
    if not scored.answers["answers"]:
        problem = str(scored.answers["reason"]) or "it does not answer"
    policy = gate_policy(run.record.config.get("gate") or {})
    candidate = None
    changes: dict[str, Any] = {"metrics": {}, "per_group": {}, "recognition": {}, "slices": []}
    if scored.predictions is not None:
        candidate = GateModel(run.record.run_id, _of_split(scored.predictions, "test"), trained_on)
        changes = _measure(run, scored.predictions, facts, policy)
    models, warnings = opponents(run.storage, run.home, run.champion, run.manifest, scored.others, groups)
    proof, leak = disjointness(run.manifest)
    inputs = GateInputs(
        labels=run.test.column("label").to_numpy(),
        groups=groups,
        candidate=candidate,
        baseline=baseline,
        champion=models.get("champion"),
        best_ever=models.get("best_ever"),
        blessed=bool(report["blessed"]),
        blessing_reason=str(report["reason"]),
        answers=not problem,
        answers_reason=problem,
        disjointness=proof,
        disjointness_reason=leak,
        group_unit=run.manifest.group_unit,
    )
    decision = decide(inputs, policy)
    return {
        **changes,
        "decision": decision.decision,
        "code": decision.code,
        "reason": decision.reason,
        "weak_evidence": decision.weak_evidence,
        "smallest_detectable": decision.smallest_detectable,
        "gate": {**decision.to_json(), **compared_versions(run.champion), "answers": scored.answers},
        "policy": dataclasses.asdict(policy),
        "warnings": warnings,
        "temperature": facts.get("temperature"),
        "threshold": facts.get("threshold"),
    }


def compared_versions(champion: Champion | None) -> dict[str, int | None]:
    """`champion_version` and `best_ever_version` as run.json keeps them, to tell later whether they have changed."""
    entries = promoted(champion)
    return {f"{name}_version": entries[name].version if name in entries else None for name in ("champion", "best_ever")}


def _facts(run: _Run) -> tuple[dict[str, Any], frozenset[str], str]:
    """The model's own facts, the groups that it was trained on, and what is wrong with either."""
    try:
        facts = read_facts(run.model_dir)
    except NotServable as error:
        return {}, frozenset(), str(error)
    trained_on = read_train_groups(run.model_dir)
    if trained_on is None:
        return facts, frozenset(), "it does not say which groups it was trained on"
    digest = run.record.content_digest
    same = facts.get("content_digest", digest) == digest
    return facts, trained_on, "" if same else "it says that it was trained on another data set"


def _of_split(table: pa.Table, split: str) -> np.ndarray:
    return probability_values(table.column("probability"))[_texts(table, "split") == split]


def _texts(table: pa.Table, column: str) -> np.ndarray:
    return np.array(table.column(column).to_pylist(), object).astype(str)


def _measure(run: _Run, predictions: pa.Table, facts: Mapping[str, Any], policy: GatePolicy) -> dict[str, Any]:
    """Metrics of eval and test."""
    several = run.n_classes > 2
    plan = BootstrapPlan(policy.resamples, policy.confidence, pool=several, seed=policy.seed)
    made = {}
    for split, table in {"eval": run.read("eval", MEASURED), "test": run.test}.items():
        made[split] = summary.ScoredSplit(
            labels=table.column("label").to_numpy(),
            groups=_texts(table, "group_id"),
            probability=_of_split(predictions, split),
            threshold=None if several else float(facts["threshold"]),
            magnification=table.column("magnification").to_numpy(),
            tumor_type=_texts(table, "tumor_type"),
        )
    return {
        "metrics": {name: summary.with_intervals(split, plan) for name, split in made.items()},
        "per_group": {name: summary.per_group(split) for name, split in made.items()},
        "recognition": {name: summary.recognition(split) for name, split in made.items()},
        "slices": summary.slices(made["test"], list(run.manifest.classes)),
        "calibration": {
            **(run.record.calibration or {}),
            "served": {name: summary.calibration(split) for name, split in made.items()},
        },
    }


def _keep(run: _Run, scratch: Path, scored: _Scored, baseline: np.ndarray) -> None:
    """Commits both tables; the predictions of an earlier try go where there are none now."""
    others: dict[str, np.ndarray | None] = {name: scored.others.get(name) for name in ("champion", "best_ever")}
    table = comparison_table(run.test.column("patch_id"), {**others, "baseline": baseline}, run.n_classes)
    pq.write_table(table, scratch / COMPARISON, compression="zstd")
    run.storage.commit_file(scratch / COMPARISON, f"{run.folder}/{COMPARISON}")
    if scored.predictions is None:
        run.storage.delete(f"{run.folder}/{PREDICTIONS}")
    else:
        run.storage.commit_file(scratch / fresh.PREDICTIONS, f"{run.folder}/{PREDICTIONS}")
