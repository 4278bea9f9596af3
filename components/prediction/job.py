"""A prediction from its plan to committed files, whoever works off the parts (Beam, or a test)."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.core.rejects import REJECT_SCHEMA
from components.errors import DataError
from components.prediction import kaggle
from components.prediction import outputs as out
from components.prediction.inputs import Plan
from components.prediction.plan import PredictConfig
from components.prediction.raw_images import known_labels
from components.prediction.work_folder import Workspace
from components.promotion.find_model import ModelSource
from components.storage.atomic_files import os_errors, publish
from components.storage.base import Storage
from components.storage.open import open_storage

Work = Callable[[PredictConfig, list[int]], None]
"""Does the parts of these numbers."""


def predict(
    model: ModelSource,
    plan: Plan,
    output: str,
    do_parts: Work,
    *,
    sample: list[str] | None = None,
    slide_maps: str = "",
) -> dict[str, Any]:
    """Predicts a plan and commits its files; what an earlier, killed try has done is not done again.

    Args:
        model: What predicts.
        plan: What is predicted.
        output: Full name of the table (.parquet, .csv); with `sample` of the submission (.csv).
        do_parts: Works off parts.
        sample: Ids of a Kaggle sample submission.
        slide_maps: Folder for slide maps, empty for none.

    Returns:
        The summary that is committed beside the output.

    Raises:
        DataError: No image could be predicted, or one of the sample's was not.
        HistolineError: What `do_parts` raises.
    """
    root, _, name = output.rpartition("/")
    target, work = open_storage(root), Workspace(output)
    table_name = out.beside(name, "predictions", ".parquet") if sample is not None else name
    files = {"table": table_name, "rejects": out.beside(name, "rejects")}
    files["summary"] = out.beside(name, "summary", ".json")
    facts = {**plan.facts, "model": model.digest, "version": model.version}
    with work.locked(f"histoline predict to {output}"):
        key = work.prepare(plan.parts, facts)
        request = hashlib.sha256(json.dumps([key, sample, slide_maps]).encode()).hexdigest()
        standing = _standing(target, [*files.values(), name], files["summary"], request)
        if standing is not None:
            work.clear()
            return {**standing, "state": "unchanged"}
        missing = work.missing(len(plan.parts))
        do_parts(config_for(model, plan, work), missing)
        try:
            rejects = out.rejected(work.storage, len(plan.parts), plan.rejects)
            summary = _summary(model, plan, rejects, request)
            summary["resumed_parts"] = len(plan.parts) - len(missing)
            summary["files"] = {kind: target.uri(file) for kind, file in files.items()} | {"output": output}
            _finish(target, files, name, model, plan, work, rejects, summary, sample, slide_maps)
        except DataError:
            work.clear()  # the same parts would end the same way
            raise
        work.clear()
    return summary


def _finish(
    target: Storage,
    files: dict[str, str],
    name: str,
    model: ModelSource,
    plan: Plan,
    work: Workspace,
    rejects: pa.Table,
    summary: dict[str, Any],
    sample: list[str] | None,
    slide_maps: str,
) -> None:
    """Puts all files together, then commits them."""
    parts = len(plan.parts)
    if not summary["predicted"]:
        told = "; ".join(f"{code} {fact['count']:,}" for code, fact in summary["rejects"].items())
        raise DataError(
            f"None of the {summary['found']:,} images under {plan.name} could be predicted: {told}.",
            f"The model {model.uri} was trained on {model.facts['dataset']} images of"
            f" {'x'.join(map(str, model.source_size))}.",
        )
    scratch = work.storage.scratch("")
    try:
        made = _write(scratch, files, model, work.storage, parts, rejects)
        if made != summary["predicted"]:
            raise DataError(f"The parts hold {made} rows instead of {summary['predicted']}.", "Run again.")
        if sample is not None:
            _write_submission(scratch / name, sample, work.storage, parts, model, plan, rejects)
        if slide_maps:
            pieces = out.tables(work.storage, parts, model)
            summary["slide_maps"] = out.write_slide_maps(slide_maps, pieces, float(model.threshold or 0.5))
        (scratch / files["summary"]).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
        # The summary vouches for the files beside it: the old one goes before they do, the new one comes last.
        target.delete(files["summary"])
        for file in dict.fromkeys([files["rejects"], files["table"], name, files["summary"]]):
            _commit(target, scratch / file, file)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _standing(target: Storage, names: list[str], summary: str, request: str) -> dict[str, Any] | None:
    """The summary of a prediction that was asked for in the same words and is all there."""
    if not all(target.exists(name) for name in names):
        return None
    try:
        told = json.loads(target.read_bytes(summary))
        return dict(told) if told["request"] == request else None
    except (ValueError, KeyError, TypeError):
        return None


def config_for(model: ModelSource, plan: Plan, work: Workspace) -> PredictConfig:
    """What all parts have in common."""
    return PredictConfig(
        input_root=plan.input_root,
        model_root=model.root,
        model_path=model.path,
        model_digest=model.digest,
        work=work.storage.root,
        source_size=model.source_size,
        stored_size=model.stored_size,
    )


def _commit(target: Storage, made: Path, name: str) -> None:
    if target.is_local:
        with os_errors("writing", target.uri(name)):
            publish(made, Path(target.root, name))
    else:
        target.commit_file(made, name)


def _write(
    scratch: Path, files: dict[str, str], model: ModelSource, work: Storage, parts: int, rejects: pa.Table
) -> int:
    with os_errors("writing", files["table"]):
        out.write_table(scratch / files["rejects"], [rejects], REJECT_SCHEMA, ())
        schema = out.output_schema(len(model.classes))
        return out.write_table(scratch / files["table"], out.tables(work, parts, model), schema, model.classes)


def _write_submission(
    file: Path, sample: list[str], work: Storage, parts: int, model: ModelSource, plan: Plan, rejects: pa.Table
) -> None:
    probability: dict[str, float] = {}
    for table in out.tables(work, parts, model):
        probability |= zip(table["patch_id"].to_pylist(), table["probability"].to_pylist())
    why = ""
    if len(rejects):
        first = rejects.slice(0, 1).to_pylist()[0]
        why = f"{len(rejects):,} images were rejected, such as {first['path']!r} ({first['code']}: {first['detail']})."
    kaggle.check_all_there(sample, probability, plan.name, why)
    file.write_bytes(kaggle.submission(sample, probability))


def _summary(model: ModelSource, plan: Plan, rejects: pa.Table, request: str) -> dict[str, Any]:
    read = plan.planned - (len(rejects) - len(plan.rejects))
    trained_on = model.train_groups() or frozenset()
    # A patch without a known patient may have been a group of its own (ingest --group-by image).
    owners = [group or patch for group, patch in zip(plan.column("group_id"), plan.column("patch_id"))]
    return {
        "format": 1,
        "state": "done",
        "input": plan.name,
        "model": model.uri,
        "model_version": model.version,
        "model_digest": model.digest,
        "dataset": model.facts["dataset"],
        "task": model.facts["task"],
        "classes": list(model.classes),
        "threshold": model.threshold,
        "found": plan.planned + len(plan.rejects),
        "predicted": read,
        "rejected": len(rejects),
        "rejects": out.count_codes(rejects),
        "labelled": sum(known_labels(rows) for _, rows in plan.parts),
        "groups": len(set(plan.column("group_id")) - {""}),
        "of_training_groups": sum(owner in trained_on for owner in owners),
        "parts": len(plan.parts),
        "request": request,
        "warnings": plan.warnings,
        "note": "Research use only, not a medical device.",
    }
