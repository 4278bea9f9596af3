"""An exported model on another labelled data set, without training: the same figures as a run's own test split.

The result is a run folder of its own (decision null), so that reports and lists need no second kind of page. Every
patch of a group that the model has not seen counts, whatever split the data set has put it into: in the tables of such
a run they are all `test`.
"""

from __future__ import annotations

import dataclasses
import datetime
import shutil
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.datasets import manifest as manifests
from components.datasets.manifest import Manifest
from components.datasets.sidecars import digest_of_split, read_split
from components.errors import DataError, UsageError
from components.metrics import summary
from components.metrics.bootstrap import BootstrapPlan
from components.prediction.inputs import PredictionPlan, plan_dataset
from components.prediction.job import Work, config_for
from components.prediction.outputs import tables
from components.prediction.work_folder import Workspace
from components.promotion.evaluation import PREDICTIONS
from components.promotion.find_model import ModelSource
from components.promotion.gate_types import GatePolicy
from components.promotion.prediction_tables import predictions_schema, probability_values
from components.promotion.test_set_reuse import count_look, names_of
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import LookCount, RunRecord

CODE = "evaluation"
ROLE = "test"


def new_run_id(version: str) -> str:
    """A RUN_ID that sorts by time and tells the model."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return f"{now:%Y%m%d-%H%M%S}-evaluation-{version}"[:100]


@dataclasses.dataclass(frozen=True)
class Task:
    """What is to be evaluated.

    Attributes:
        model: The model.
        dataset_dir: Folder of the data set, relative to the workspace.
        manifest: Its manifest.
        plan: Records of the groups that the model has not seen.
        facts: What run.json's `options.evaluation` says.
        warnings: Sentences.
    """

    model: ModelSource
    dataset_dir: str
    manifest: Manifest
    plan: PredictionPlan
    facts: Mapping[str, Any]
    warnings: tuple[str, ...]


def prepare(storage: Storage, model: ModelSource, dataset_dir: str, manifest: Manifest) -> Task:
    """Settles what is evaluated, before anything heavy is loaded.

    Args:
        storage: The workspace.
        model: The model.
        dataset_dir: Folder of the data set, relative to the workspace.
        manifest: Its manifest.

    Raises:
        UsageError: Classes or sizes are not the model's, or the model has seen every group.
    """
    where = storage.uri(dataset_dir)
    if manifest.classes != model.classes:
        raise UsageError(
            f"{where} has the classes {', '.join(manifest.classes)}; the model {model.uri} knows"
            f" {', '.join(model.classes)}.",
            "Give a data set of the model's own task.",
        )
    seen, warnings = _seen(storage, model, manifest)
    patches = pq.read_table(storage.local_copy(f"{dataset_dir}/patches.parquet"), columns=["group_id"])["group_id"]
    there = frozenset(patches.unique().to_pylist())
    left_out = there & seen
    plan = plan_dataset(model, storage, dataset_dir, left_out)
    if not plan.parts:
        raise UsageError(
            f"The model {model.uri} was trained on all {len(there)} groups of {where}: nothing is left to evaluate on.",
            "Give a data set that holds other patients.",
        )
    unit = manifest.group_unit
    facts = {
        "model": model.uri,
        "version": model.version,
        "trained_on": {key: model.facts.get(key) for key in ("dataset", "task", "plan_id", "content_digest")},
        "patches": plan.planned,
        "groups": len(there) - len(left_out),
        "left_out_patches": len(patches) - plan.planned,
        "left_out_groups": len(left_out),
    }
    if left_out:
        warnings.append(
            f"{len(left_out):,} {unit}s with {facts['left_out_patches']:,} patches were left out, because the model was"
            " trained or tuned on them."
        )
    warnings += [model.caveat] if model.caveat else []
    warnings += [f"About the data set: {text}." for text in manifest.flag_reasons]
    return Task(model, dataset_dir, manifest, plan, facts, tuple([*plan.warnings, *warnings]))


def _seen(storage: Storage, model: ModelSource, manifest: Manifest) -> tuple[frozenset[str], list[str]]:
    """Groups that the model has seen, and what has to be said where that can't be told."""
    seen = model.train_groups()
    if seen is None:
        text = "The model does not say which groups it was trained on: none could be left out."
        return frozenset(), [text]
    if manifest.content_digest == model.facts.get("content_digest"):
        return seen, []  # its own data set: the names are certainly the same
    key = manifest.key_fingerprint
    own = _own_key(storage, model)
    if key != own and (key or own):
        text = "Ids are pseudonyms of another key than the model's: whether it was trained on these groups is unknown."
        return seen, [text]
    return seen, []


def _own_key(storage: Storage, model: ModelSource) -> str | None:
    """Key fingerprint of the data set that the model was trained on; None where it can't be told."""
    facts = model.facts
    place = f"datasets/{facts['dataset']}/{facts['task']}/{facts.get('plan_id')}"
    if not storage.exists(f"{place}/{manifests.NAME}"):
        return None
    return manifests.load(storage, place).key_fingerprint


def reason(task: Task) -> str:
    """What the run says of itself, in one sentence."""
    facts, unit = task.facts, task.manifest.group_unit
    count = facts["left_out_groups"]
    left = f"; {count:,} {unit}s that it was trained on are left out" if count else ""
    return (
        f"Evaluation only, no decision: model {facts['version']} on {facts['patches']:,} patches of"
        f" {facts['groups']:,} {unit}s of {task.dataset_dir}, without training{left}."
    )


def begin(storage: Storage, folder: str, task: Task) -> None:
    """Writes run.json of a new evaluation; the same one is gone on with.

    Raises:
        UsageError: Another run has this name.
    """
    options = {"evaluation": dict(task.facts)}
    if run_record.exists(storage, folder):
        record = run_record.read(storage, folder)
        same = record.options == options and record.manifest_digest == task.manifest.manifest_digest
        if record.code != CODE or not same or record.digests.get("model") != task.model.digest:
            raise UsageError(
                f"Run {folder.rsplit('/', 1)[1]!r} exists already, with another purpose, model or data set.",
                "Choose another --run-id, or none.",
            )
        return
    run_record.create(
        storage,
        folder,
        config=dict(task.model.facts.get("config") or {"model": task.model.facts.get("model", "")}),
        dataset_dir=task.dataset_dir,
        manifest=task.manifest,
        options=options,
        digests={"model": task.model.digest},
    )
    run_record.update(
        storage,
        folder,
        code=CODE,
        reason=reason(task),
        warnings=list(task.warnings),
        temperature=task.model.facts.get("temperature"),
        bias=task.model.facts.get("bias"),
        threshold=task.model.threshold,
        paths={"model": task.model.uri},
    )


def evaluate(storage: Storage, folder: str, task: Task, do_parts: Work) -> RunRecord:
    """Predicts, measures, and writes predictions.parquet and run.json. The caller holds the run's lock.

    Args:
        storage: The workspace.
        folder: Of the run, begun.
        task: As `prepare` gives it.
        do_parts: Works off the parts of the prediction.

    Returns:
        run.json.

    Raises:
        DataError: A shard is damaged, or the model does not answer.
    """
    started = time.monotonic()
    work = Workspace(storage.uri(f"{folder}/{PREDICTIONS}"))
    with work.locked(f"histoline evaluate to {storage.uri(folder)}"):
        work.prepare(task.plan.parts, {**task.plan.facts, "model": task.model.digest})
        do_parts(config_for(task.model, task.plan, work), work.missing(len(task.plan.parts)))
        whole = pa.concat_tables(list(tables(work.storage, len(task.plan.parts), task.model)))
        if len(whole) != task.plan.planned:
            raise DataError(
                f"{len(whole):,} of {task.plan.planned:,} records of {storage.uri(task.dataset_dir)} were predicted.",
                "Run `histoline verify` on the data set.",
            )
        place = whole.schema.get_field_index("split")
        role = arrow_arrays.repeat(ROLE, len(whole), pa.string())
        whole = whole.set_column(place, whole.schema.field(place), role)
        table = whole.select(predictions_schema(len(task.model.classes)).names)
        _keep(storage, folder, table)
        work.clear()
    split = _scored(storage, task, table)
    multiclass = len(task.model.classes) > 2
    policy = GatePolicy()
    plan = BootstrapPlan(policy.resamples, policy.confidence, pool=multiclass, seed=policy.seed)
    metrics = summary.with_intervals(split, plan)
    looks, digests = _count_look(storage, folder, task)
    return run_record.update(
        storage,
        folder,
        metrics={ROLE: metrics},
        per_group={ROLE: summary.per_group(split)},
        recognition={ROLE: summary.recognition(split, plan)},
        patient_level={ROLE: summary.patient_level(split, plan)},
        selective={ROLE: summary.selective(split, plan)},
        slices=summary.slices(split, list(task.model.classes)),
        calibration=summary.calibration(
            {ROLE: split}, task.model.facts.get("temperature"), task.model.facts.get("bias")
        ),
        weak_evidence=bool(metrics["weak"]),
        looks=looks,
        digests=digests,
        paths={"predictions": f"{folder}/{PREDICTIONS}"},
        timings={"evaluation": round(time.monotonic() - started, 3)},
    )


def _keep(storage: Storage, folder: str, table: pa.Table) -> None:
    scratch = storage.scratch(folder)
    try:
        pq.write_table(table, scratch / PREDICTIONS, compression="zstd")
        storage.commit_file(scratch / PREDICTIONS, f"{folder}/{PREDICTIONS}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _scored(storage: Storage, task: Task, table: pa.Table) -> summary.ScoredSplit:
    columns = ["patch_id", "magnification", "tumor_type"]
    patches = pq.read_table(storage.local_copy(f"{task.dataset_dir}/patches.parquet"), columns=columns)
    ids = patches["patch_id"].combine_chunks()
    facts = patches.take(pc.index_in(table["patch_id"].combine_chunks(), value_set=ids))
    return summary.ScoredSplit(
        labels=arrow_arrays.values(table["label"]).astype(int),
        groups=np.array(table["group_id"].to_pylist(), object).astype(str),
        probability=probability_values(table["probability"]),
        threshold=task.model.threshold,
        magnification=arrow_arrays.values(facts["magnification"]),
        tumor_type=np.array(facts["tumor_type"].to_pylist(), object).astype(str),
    )


def _count_look(storage: Storage, folder: str, task: Task) -> tuple[LookCount | None, dict[str, str]]:
    """Counts a look at the data set's test split, which this evaluation is too."""
    if not task.manifest.splits["test"].patches:
        return None, {}
    names = ("patch_id", "group_id", "label", "pixel_hash")
    table = read_split(storage, task.dataset_dir, task.manifest, "test", names)
    digest = digest_of_split(table)
    _, dataset, name, run_id = folder.split("/")
    looks = count_look(
        storage, dataset, name, test_digest=digest, groups=table["group_id"].to_pylist(), names=names_of(task.manifest),
        run_id=run_id,
    )  # fmt: skip
    return looks, {"test_split": digest}
