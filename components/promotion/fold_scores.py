"""Scores of an evaluation by folds: each fold's model on its own test part, all in one fresh process, then pooled."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.core.array_types import Array
from components.promotion import champion as champions
from components.promotion import error_maps, scoring_process
from components.promotion.evaluation_inputs import EvaluationInputs
from components.promotion.fold_inputs import FoldInputs, kept_out_of_fold
from components.promotion.prediction_tables import predictions_table, probability_values
from components.promotion.scores import Scores, colour_baseline
from components.promotion.scoring_process import COLUMNS, PROBES, Request
from components.storage.base import Storage

OUT_OF_FOLD = champions.OUT_OF_FOLD.rpartition("/")[2]
"""In the run folder: what goes into a version that is made of the run."""


def score_folds(inputs: FoldInputs, out: Path, predictor: scoring_process.Predictor) -> Scores:
    """Has the folds' models and the served one scored, and fits a colour baseline for each fold.

    The served model answers for the patches that no fold saw; where there are none, for a few of the others, only to
    prove that it answers.

    Args:
        inputs: What was read.
        out: Scratch folder; gets predictions.parquet and the maps.
        predictor: Does what a request asks.
    """
    served = inputs.holdout if inputs.holdout is not None else _probes(inputs.test)
    requests = [_request(inputs, inputs.model_dir, served, out / "served", explain=False)]
    for member in inputs.members:
        part = inputs.test.filter(pa.array(inputs.fold == member.fold))
        requests.append(_request(inputs, member.folder, part, out / f"fold-{member.fold}", explain=True))
    first, *others = requests
    predictor(Request(**{**vars(first), "also": tuple(others)}))
    answers = _answers([Path(request.out) for request in requests])
    predictions = None
    if all((Path(request.out) / scoring_process.PREDICTIONS).is_file() for request in requests):
        predictions = _pooled(inputs, requests)
        pq.write_table(predictions, out / scoring_process.PREDICTIONS, compression="zstd")
    _gather_maps([Path(request.out) for request in others], out / error_maps.NAME)
    return Scores(answers, predictions, _promoted(inputs), _baseline(inputs))


def keep_out_of_fold(
    storage: Storage, run_dir: str, scratch: Path, inputs: EvaluationInputs, scores: Scores
) -> dict[str, str]:
    """Commits what was said out of fold, for the version that the run may become; its digest for run.json.

    Args:
        storage: The workspace.
        run_dir: Folder of the run.
        scratch: Folder for the file.
        inputs: What was read.
        scores: Of all models.
    """
    if not isinstance(inputs, FoldInputs) or scores.predictions is None:
        return {}
    rows = scores.predictions.filter(pa.array(np.asarray(scores.predictions["fold"].to_numpy() > 0)))
    table = rows.select(["patch_id", "group_id", "label", "probability", "fold"])
    table = table.append_column("pixel_hash", inputs.test["pixel_hash"])
    pq.write_table(table, scratch / OUT_OF_FOLD, compression="zstd")
    digest = hashlib.sha256((scratch / OUT_OF_FOLD).read_bytes()).hexdigest()
    storage.commit_file(scratch / OUT_OF_FOLD, f"{run_dir}/{OUT_OF_FOLD}")
    return {"out_of_fold": digest}


def _request(inputs: FoldInputs, model_dir: Path, rows: pa.Table, out: Path, *, explain: bool) -> Request:
    out.mkdir(parents=True)
    file = out / "rows.parquet"
    pq.write_table(rows.select([*COLUMNS, "file"]), file)
    return Request(
        model_dir=str(model_dir),
        model_version=inputs.record.run_id,
        classes=inputs.manifest.classes,
        source_size=inputs.manifest.source_size,
        stored_size=inputs.manifest.stored_size,
        shards={},
        others={},
        out=str(out),
        explain=explain,
        chosen={"test": str(file)},
    )


def _probes(test: pa.Table) -> pa.Table:
    return test.take(np.unique(np.linspace(0, len(test) - 1, PROBES).astype(int)))


def _answers(folders: list[Path]) -> dict[str, Any]:
    """One answer for all models: what the served one said, unless a fold's model does not answer."""
    found = [json.loads((folder / scoring_process.ANSWERS).read_text()) for folder in folders]
    merged = {**found[0], "seconds": round(sum(each.get("seconds", 0.0) for each in found), 3)}
    for folder, each in zip(folders[1:], found[1:], strict=True):
        if not each["answers"] and merged["answers"]:
            merged |= {"answers": False, "reason": f"the model of {folder.name.replace('-', ' ')}: {each['reason']}"}
        if each.get("no_maps"):
            merged["no_maps"] = each["no_maps"]
    return merged


def _pooled(inputs: FoldInputs, requests: list[Request]) -> pa.Table:
    """predictions.parquet: in the order of the data set, `test` out of fold; then `holdout` by the served model."""
    served, *members = [pq.read_table(Path(request.out) / scoring_process.PREDICTIONS) for request in requests]
    shape = probability_values(members[0]["probability"]).shape[1:]
    pooled = np.zeros((len(inputs.test), *shape), np.float32)
    for member, table in zip(inputs.members, members, strict=True):
        pooled[inputs.fold == member.fold] = probability_values(table["probability"])
    tables = [_table(inputs, inputs.test, "test", pooled, inputs.fold)]
    if inputs.holdout is not None:
        answers = probability_values(served["probability"])
        tables.append(_table(inputs, inputs.holdout, "holdout", answers, np.zeros(len(answers), int)))
    return pa.concat_tables(tables)


def _table(inputs: FoldInputs, rows: pa.Table, split: str, probability: Array, fold: Array) -> pa.Table:
    columns: dict[str, Any] = {name: rows[name] for name in COLUMNS[:3]}
    columns |= {"split": [split] * len(rows), "label": rows["label"].to_numpy()}
    return predictions_table(columns, probability, inputs.record.run_id, inputs.n_classes, fold)


def _gather_maps(folders: list[Path], file: Path) -> None:
    """Puts the folds' maps together, under the control that says least for them."""
    tables = [pq.read_table(folder / error_maps.NAME) for folder in folders if (folder / error_maps.NAME).is_file()]
    if tables:
        worst = max(tables, key=lambda table: json.loads(table.schema.metadata[error_maps.CONTROL])["correlation"])
        whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
        pq.write_table(whole.replace_schema_metadata(worst.schema.metadata), file)


def _promoted(inputs: FoldInputs) -> dict[str, Array]:
    """What champion and best ever said out of fold of the same patches; nothing of a version that does not say."""
    ids, hashes = (inputs.test[name].to_pylist() for name in ("patch_id", "pixel_hash"))
    found = {}
    for name, model in inputs.comparable.items():
        answers = kept_out_of_fold(model.folder, np.array(ids, object), inputs.test["label"].to_numpy(), hashes)
        shape = (len(ids),) if inputs.n_classes == 2 else (len(ids), inputs.n_classes)
        found[name] = np.full(shape, np.nan, np.float32) if answers is None or answers.shape != shape else answers
    return found


def _baseline(inputs: FoldInputs) -> Array:
    """The colour baseline out of fold: fitted on each fold's training part, asked about its test part."""
    shape = (len(inputs.test),) if inputs.n_classes == 2 else (len(inputs.test), inputs.n_classes)
    pooled = np.zeros(shape)
    for member in inputs.members:
        mine = inputs.fold == member.fold
        part = inputs.test.filter(pa.array(mine))
        pooled[mine] = colour_baseline(inputs.record.config, inputs.fold_train(member.fold), part, inputs.n_classes)
    return pooled
