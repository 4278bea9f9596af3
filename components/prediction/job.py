"""A prediction from its plan to committed files, whoever works off the parts (Beam, or a test)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from components.core.rejects import REJECT_SCHEMA
from components.errors import DataError
from components.prediction import colours, kaggle
from components.prediction import outputs as out
from components.prediction.inputs import PredictionPlan
from components.prediction.plan import PredictConfig
from components.prediction.raw_images import known_labels
from components.prediction.tally import Tally
from components.prediction.work_folder import Workspace
from components.promotion.champion import DRAWN
from components.promotion.find_model import ModelSource
from components.storage.atomic_files import os_errors, publish
from components.storage.base import Storage
from components.storage.open import open_storage

Work = Callable[[PredictConfig, list[int]], None]
"""Does the parts of these numbers."""

MAX_SLIDES = 500
"""Slides that the summary lists; all of them have their maps."""


def predict(
    model: ModelSource,
    plan: PredictionPlan,
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
    job = _Job(model, plan, work.storage, files, name, sample, slide_maps)
    with work.locked(f"histoline predict to {output}"):
        accepted = {"unproven": model.unproven} if model.unproven else {}
        key = work.prepare(plan.parts, {**plan.facts, "model": model.digest, "version": model.version, **accepted})
        request = hashlib.sha256(json.dumps([key, sample, slide_maps]).encode()).hexdigest()
        standing = _standing(target, [*files.values(), name], files["summary"], request)
        if standing is not None:
            work.clear()
            return {**standing, "state": "unchanged"}
        missing = work.missing(len(plan.parts))
        statistics = colours.read_statistics(model.local())
        config = dataclasses.replace(config_for(model, plan, work), colour_unit=colours.unit_of(statistics))
        do_parts(config, missing)
        try:
            rejects = out.rejected(work.storage, len(plan.parts), plan.rejects)
            summary = _summary(model, plan, rejects, request)
            measured = out.measured(work.storage, len(plan.parts))
            summary["drift"] = colours.report(measured, statistics, model.version)
            summary["resumed_parts"] = len(plan.parts) - len(missing)
            summary["files"] = {kind: target.uri(file) for kind, file in files.items()} | {"output": output}
            _check_any_predicted(model, plan, summary)
            scratch = work.storage.scratch("")
            try:
                summary = _write_files(scratch, job, rejects, summary)
                _commit_files(scratch, target, job)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except DataError:
            work.clear()  # the same parts would end the same way
            raise
        work.clear()
    return summary


@dataclasses.dataclass(frozen=True)
class _Job:
    """What a prediction writes, and from what.

    Attributes:
        model: What predicted.
        plan: What was predicted.
        work: Holds the finished parts.
        files: Kind (table, rejects, summary) to file name.
        output: File name that the user gave.
        sample: Ids of a Kaggle sample submission, else None.
        slide_maps: Folder for slide maps, empty for none.
    """

    model: ModelSource
    plan: PredictionPlan
    work: Storage
    files: Mapping[str, str]
    output: str
    sample: list[str] | None
    slide_maps: str

    def tables(self) -> Iterable[pa.Table]:
        """The finished parts, in order."""
        return out.tables(self.work, len(self.plan.parts), self.model)


def _check_any_predicted(model: ModelSource, plan: PredictionPlan, summary: dict[str, Any]) -> None:
    if not summary["predicted"]:
        codes = "; ".join(f"{code} {fact['count']:,}" for code, fact in summary["rejects"].items())
        raise DataError(
            f"None of the {summary['found']:,} images under {plan.name} could be predicted: {codes}.",
            f"The model {model.uri} was trained on {model.facts['dataset']} images of"
            f" {'x'.join(map(str, model.source_size))}.",
        )


def _write_files(scratch: Path, job: _Job, rejects: pa.Table, summary: dict[str, Any]) -> dict[str, Any]:
    """Puts all files together; gives the summary as it was written."""
    tally = Tally(job.model.classes)
    written = _write_tables(scratch, job, rejects, summary["drift"], tally)
    if written != summary["predicted"]:
        raise DataError(f"The parts hold {written} rows instead of {summary['predicted']}.", "Run again.")
    if job.sample is not None:
        _write_submission(scratch / job.output, job.sample, job, rejects)
    if job.slide_maps:
        maps = out.write_slide_maps(job.slide_maps, job.tables(), float(job.model.threshold or 0.5))
        summary = {**summary, "slide_maps": len(maps), "slides": maps[:MAX_SLIDES]}
    summary = {**summary, **tally.document()}
    (scratch / job.files["summary"]).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    return summary


def _commit_files(scratch: Path, target: Storage, job: _Job) -> None:
    # The summary vouches for the files beside it: the old one goes before they do, the new one comes last.
    target.delete(job.files["summary"])
    for file in dict.fromkeys([job.files["rejects"], job.files["table"], job.output, job.files["summary"]]):
        _commit(target, scratch / file, file)


def _standing(target: Storage, names: list[str], summary: str, request: str) -> dict[str, Any] | None:
    """The summary of a prediction that was asked for in the same words and is all there."""
    if not all(target.exists(name) for name in names):
        return None
    try:
        document = json.loads(target.read_bytes(summary))
        return dict(document) if document["request"] == request else None
    except (ValueError, KeyError, TypeError):
        return None


def config_for(model: ModelSource, plan: PredictionPlan, work: Workspace) -> PredictConfig:
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


def _write_tables(scratch: Path, job: _Job, rejects: pa.Table, drift: Mapping[str, Any], tally: Tally) -> int:
    """Writes rejects and predictions; gives the number of predictions."""
    with os_errors("writing", job.files["table"]):
        out.write_table(scratch / job.files["rejects"], [rejects], REJECT_SCHEMA, ())
        told = {"histoline.drift": json.dumps(drift)}
        told |= {"histoline.unproven": job.model.caveat} if job.model.unproven else {}
        told |= {"histoline.drawn": DRAWN} if job.model.drawn else {}
        schema = out.output_schema(len(job.model.classes)).with_metadata(told)
        return out.write_table(scratch / job.files["table"], tally.watch(job.tables()), schema, job.model.classes)


def _write_submission(file: Path, sample: list[str], job: _Job, rejects: pa.Table) -> None:
    probability: dict[str, float] = {}
    for table in job.tables():
        probability |= zip(table["patch_id"].to_pylist(), table["probability"].to_pylist())
    why = ""
    if len(rejects):
        first = rejects.slice(0, 1).to_pylist()[0]
        why = f"{len(rejects):,} images were rejected, such as {first['path']!r} ({first['code']}: {first['detail']})."
    kaggle.check_all_there(sample, probability, job.plan.name, why)
    file.write_bytes(kaggle.submission(sample, probability))


def _summary(model: ModelSource, plan: PredictionPlan, rejects: pa.Table, request: str) -> dict[str, Any]:
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
        "unproven": model.unproven,
        "drawn": model.drawn,
        "warnings": [*plan.warnings, *([model.caveat] if model.caveat else [])],
        "note": "Research use only, not a medical device.",
    }
