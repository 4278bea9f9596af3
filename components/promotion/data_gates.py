"""The gates of one run: what they read from and write to its folder. Called by the pipeline's components."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.datasets import manifest
from components.metrics import drift
from components.promotion import anomaly_gate, champion
from components.storage.base import Storage
from components.training import run_record

STATISTICS = "statistics.json"
"""Colour statistics of a run's data set, in the run folder and in `assets.extra/` of a version."""


def drift_gate(storage: Storage, run_folder: str) -> dict[str, Any]:
    """Writes the run's statistics.json and compares its colours with the champion's data.

    Args:
        storage: The workspace.
        run_folder: Of the run, relative to it.

    Returns:
        What run.json keeps under `drift`.

    Raises:
        DriftError: Colours have shifted and nobody accepted it.
    """
    record = run_record.read(storage, run_folder)
    dataset_dir = record["dataset_dir"]
    now = anomaly_gate.read_group_means(storage, dataset_dir, manifest.load(storage, dataset_dir))
    facts = {key: record[key] for key in ("dataset", "task", "plan_id", "content_digest", "group_unit")}
    text = json.dumps(drift.statistics(now, facts), indent=1, allow_nan=False) + "\n"
    storage.write_atomic(f"{run_folder}/{STATISTICS}", text.encode(), tmp_dir=f"{run_folder}/.tmp")
    version, theirs = champion_statistics(storage, record["dataset"], record["task"])
    options = record["options"]
    accepted = str(options.get("accept_drift") or "")
    try:
        told = anomaly_gate.check_drift(now, theirs, version, accepted, options.get("drift_thresholds"))
    except anomaly_gate.DriftError as error:
        run_record.update(storage, run_folder, drift=error.drift)
        raise
    changes: dict[str, Any] = {"drift": told}
    if told["drifted"]:
        names = ", ".join(told["drifted"])
        changes["warnings"] = [f"Colour drift against champion {version} ({names}) was accepted: {accepted}"]
    run_record.update(storage, run_folder, **changes)
    return told


def champion_statistics(storage: Storage, dataset: str, task: str) -> tuple[str, Mapping[str, Any] | None]:
    """Version and colour statistics of the champion; an empty version where there is none, None where it has none."""
    folder = champion.home(dataset, task)
    found = champion.load(storage, folder)
    if found is None:
        return "", None
    version = found.current.version
    for path in (
        f"{folder}/{version}/assets.extra/{STATISTICS}",
        f"{run_record.run_dir(dataset, task, found.current.run_id)}/{STATISTICS}",
    ):
        if storage.exists(path):
            try:
                theirs = json.loads(storage.read_bytes(path))
            except ValueError:
                continue
            if isinstance(theirs, dict):
                return str(version), theirs
    return str(version), None


def promotion_gate(storage: Storage, run_folder: str, evaluation_dir: Path) -> str:
    """Reads the Evaluator's verdict, then lets the gate decide.

    Args:
        storage: The workspace.
        run_folder: Of the run, relative to it.
        evaluation_dir: The Evaluator's output `evaluation`.

    Returns:
        `promoted` or `refused`.
    """
    from components.promotion.evaluation import evaluate
    from pipelines.tfx.evaluator import read_evaluation

    record = run_record.read(storage, run_folder)
    report = read_evaluation(evaluation_dir, record["task"], record["config"]["floors"])
    return str(evaluate(storage, run_folder, report["blessed"], report)["decision"])
