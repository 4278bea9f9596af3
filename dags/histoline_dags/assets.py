"""Assets: what ingest and training announce, and which data set a training run that was triggered by one may take."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from airflow.sdk import Asset, AssetAlias
from airflow.sdk.exceptions import AirflowSkipException

Context = Mapping[str, Any]
log = logging.getLogger(__name__)
LOOK_BACK = 50
PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
MAX_MANIFEST_BYTES = 64 * 1024 * 1024


def data_asset(dataset: str) -> Asset:
    """Asset of the committed data of a data set."""
    return Asset(name=f"histoline/{dataset}", uri=f"histoline/{dataset}")


def model_asset(dataset: str) -> Asset:
    """Asset of the champion models of a data set."""
    return Asset(name=f"histoline/{dataset}/model", uri=f"histoline/{dataset}/model")


def recipe_asset(dataset: str) -> Asset:
    """Asset of the recipes that sweeps have chosen for a data set."""
    return Asset(name=f"histoline/{dataset}/recipe", uri=f"histoline/{dataset}/recipe")


def alias(asset: Asset) -> AssetAlias:
    """The alias through which a task may announce an asset, or not."""
    return AssetAlias(f"{asset.name}/announced")


def announce_data(context: Context, result: Mapping[str, Any], dataset: str) -> None:
    """Announces a committed data set if its content is not what was announced last.

    Args:
        context: Of the ingest task.
        result: Result of `histoline ingest`.
        dataset: Name of the data set.

    Raises:
        AirflowSkipException: The input is unchanged, and known.
    """
    if not result.get("is_latest", True):
        log.info("Not announced: latest.json names another data set, so training would not take this one.")
        return
    extra = {key: result[key] for key in ("task", "dataset_dir", "content_digest", "plan_id")}
    # Compared with what this DAG has announced, not with what the try before found: a try that was killed between
    # commit and announcement must not be the end of it.
    last = _last(context, data_asset(dataset), extra["task"])
    if last.get("content_digest") != extra["content_digest"]:
        context["outlet_events"][alias(data_asset(dataset))].add(data_asset(dataset), extra=extra)
    elif result.get("state") == "unchanged":
        raise AirflowSkipException(f"Nothing to do: the input is unchanged. It stands in {extra['dataset_dir']}.")
    else:
        log.info("Not announced: committed anew, with the same pixels, labels and splits as before.")


def announce_model(context: Context, result: Mapping[str, Any], dataset: str) -> None:
    """Announces a model that has just become champion; skips the task where the gate refused it.

    Args:
        context: Of the push task.
        result: Result of `histoline step push`.
        dataset: Name of the data set.

    Raises:
        AirflowSkipException: There is no new champion.
    """
    if result.get("decision") != "promoted" or not result.get("version"):
        raise AirflowSkipException(f"Not promoted: {result.get('reason') or 'the gate refused the model'}")
    extra = {"task": result["task"], "version": result["version"], "metrics": result.get("metrics", {})}
    asset = model_asset(dataset)
    if _last(context, asset, extra["task"]).get("version") != extra["version"]:
        context["outlet_events"][alias(asset)].add(asset, extra=extra)


def announce_recipe(context: Context, result: Mapping[str, Any], dataset: str) -> None:
    """Announces the recipe that a sweep has chosen.

    Args:
        context: Of the choosing task.
        result: Result of `histoline step sweep-choose`.
        dataset: Name of the data set.

    Raises:
        AirflowSkipException: It has chosen none.
    """
    if result.get("winner") is None or not result.get("recipe"):
        raise AirflowSkipException(f"Nothing was chosen: {result.get('reason') or 'no trial has a figure'}")
    extra = {key: result[key] for key in ("task", "sweep_id", "winner", "recipe")}
    asset = recipe_asset(dataset)
    context["outlet_events"][alias(asset)].add(asset, extra=extra)


def _last(context: Context, asset: Asset, task: str) -> dict[str, Any]:
    """What this DAG announced last for a task; events that people posted do not count."""
    ti = context["ti"]
    for event in context["inlet_events"][asset].ascending(False).limit(LOOK_BACK):
        extra = event.extra or {}
        if event.source_dag_id == ti.dag_id and extra.get("task") == task:
            return dict(extra)
    return {}


def choose_data(context: Context, dataset: str, tasks: Mapping[str, Any], workspace: Path) -> tuple[str, str] | None:
    """Task and data set of the newest event that triggered this run, if they can be trusted.

    Whoever may use the UI may post an event, so it is only a hint: the folder must lie where data sets of that task
    lie, and its manifest must carry the digest.

    Args:
        context: Of the task.
        dataset: Name of the data set.
        tasks: Those that it has.
        workspace: The workspace.

    Returns:
        Task and folder; None where nothing or nothing credible triggered the run.
    """
    try:
        events = list(context["triggering_asset_events"][data_asset(dataset)])
    except KeyError:
        return None
    for event in sorted(events, key=lambda e: e.timestamp, reverse=True)[:1]:
        found = _check(event.extra or {}, dataset, tasks, workspace)
        if isinstance(found, tuple):
            return found
        log.warning("The event that triggered this run is ignored (%s); the latest data set is taken.", found)
    return None


def choose_recipe(context: Context, dataset: str, tasks: Mapping[str, Any], workspace: Path) -> tuple[str, str] | None:
    """Task and file of the recipe whose event triggered this run, if it can be trusted: a sweep's own `winner.yaml`.

    Args:
        context: Of the task.
        dataset: Name of the data set.
        tasks: Those that it has.
        workspace: The workspace.
    """
    try:
        events = list(context["triggering_asset_events"][recipe_asset(dataset)])
    except KeyError:
        return None
    for event in sorted(events, key=lambda e: e.timestamp, reverse=True)[:1]:
        task, sweep = ((event.extra or {}).get(key) for key in ("task", "sweep_id"))
        if isinstance(task, str) and task in tasks and isinstance(sweep, str) and PLAIN.fullmatch(sweep):
            # The file is found by its place, whatever path the event names.
            file = workspace / "sweeps" / dataset / task / sweep / "winner.yaml"
            if file.is_file() and file.resolve() == workspace.resolve() / file.relative_to(workspace):
                return task, str(file)
        log.warning("The event of a recipe that triggered this run is ignored: no sweep of the workspace chose it.")
    return None


def _check(extra: Mapping[str, Any], dataset: str, tasks: Mapping[str, Any], workspace: Path) -> tuple[str, str] | str:
    task, folder, digest = (extra.get(key) for key in ("task", "dataset_dir", "content_digest"))
    if not (isinstance(task, str) and isinstance(folder, str) and isinstance(digest, str) and digest):
        return "it does not name task, dataset_dir and content_digest"
    if task not in tasks:
        return f"{dataset} has no task {task!r}"
    try:
        home = (workspace / "datasets" / dataset / task).resolve()
        place = Path(folder).resolve()
        manifest = place / "manifest.json"
        if place.parent != home or manifest.is_symlink() or manifest.stat().st_size > MAX_MANIFEST_BYTES:
            return f"{folder!r} is no data set of the workspace"
        stored = json.loads(manifest.read_text(encoding="utf-8"))
        same = (stored["dataset"], stored["task"], stored["content_digest"]) == (dataset, task, digest)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return f"{folder!r} holds no manifest that can be read"
    return (task, str(place)) if same else "the manifest is not of that data set, task and digest"
