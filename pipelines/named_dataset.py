"""A committed data set as people name it: by its data set's name, its PLAN_ID, or its folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from components.errors import UsageError
from pipelines.options import open_workspace, task_option, workspace_option

if TYPE_CHECKING:
    from components.datasets.manifest import Manifest
    from components.storage.base import Storage

METAVAR = "NAME|PLAN_ID|FOLDER"
_PLAN_ID = re.compile(r"[0-9a-f]{16}")


def dataset_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """The argument `dataset` with the options that a name or a PLAN_ID needs."""
    for add in (workspace_option("Where a name or a PLAN_ID is looked for."), task_option("Of a NAME's latest.")):
        command = add(command)
    return click.argument("dataset", metavar=METAVAR)(command)


def open_dataset(given: str, workspace: str, task: str) -> tuple[Storage, str, Manifest]:
    """Opens a committed data set.

    Args:
        given: Name of a data set (its latest), a PLAN_ID, or the folder that holds manifest.json, local or gs://.
        workspace: Where a name or a PLAN_ID is looked for.
        task: Of a name.

    Returns:
        Storage, folder relative to it, manifest.

    Raises:
        UsageError: There is none; says what was looked for, and where.
        DataError: Its manifest is damaged.
    """
    from components.adapters.registry import ADAPTERS
    from components.datasets import manifest as manifests
    from components.datasets.latest_pointer import read_latest

    if given in ADAPTERS:
        storage = open_workspace(workspace)
        ADAPTERS[given].classes(task)
        home = f"datasets/{given}/{task}"
        latest = read_latest(storage, home)
        if latest is None:
            raise UsageError(f"No {given} {task} data set is committed in {workspace}.", "Run histoline ingest first.")
        return storage, f"{home}/{latest.plan_id}", manifests.load(storage, f"{home}/{latest.plan_id}")
    if _PLAN_ID.fullmatch(given) and not os.path.isdir(given):
        storage = open_workspace(workspace)
        homes = [f"datasets/{name}/{one}/{given}" for name in ADAPTERS for one in ADAPTERS[name].tasks]
        for path in homes:
            if storage.exists(f"{path}/{manifests.NAME}"):
                return storage, path, manifests.load(storage, path)
        raise UsageError(
            f"No data set with the PLAN_ID {given} is committed in {workspace}.", "See histoline datasets list."
        )
    return _folder(given, list(ADAPTERS))


def _folder(given: str, names: list[str]) -> tuple[Storage, str, Manifest]:
    from components.datasets import manifest as manifests
    from components.storage.open import open_storage

    remote = given.startswith("gs://")
    whole = given.rstrip("/") if remote else str(Path(given).resolve())
    root, _, name = whole.rpartition("/")
    if not name or not root or (not remote and not os.path.isdir(whole)):
        raise UsageError(
            f"{given!r} is no data set: neither a name ({', '.join(names)}), nor a PLAN_ID, nor a folder.",
            "See histoline datasets list.",
        )
    storage = open_storage(root)
    return storage, name, manifests.load(storage, name)
