"""The champion as TFX's Evaluator takes it: an artifact beside the candidate, if both answer the same question.

It decides nothing: no threshold asks for a change against it, and the gate makes a comparison of its own.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.errors import HistolineError
from components.promotion import champion as champions
from components.promotion.served_model import NotServable, model_digest, read_facts
from components.storage.atomic_files import copy_tree
from components.storage.base import Storage

SERVING = "Format-Serving"
"""Where TFX's components look for the SavedModel in a model artifact."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """What stands beside the candidate.

    Attributes:
        folder: Of the artifact, named by version and content; empty for none.
        version: Of the champion; None where nothing was promoted.
        reason: Why there is none, as a clause; empty where there is one.
    """

    folder: str = ""
    version: int | None = None
    reason: str = ""


def choose(
    storage: Storage, dataset: str, task: str, classes: Sequence[str], home: Path, decision_by: str = "split"
) -> Baseline:
    """The champion as an artifact.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        classes: Of the candidate, in label order.
        home: Folder that artifacts are made in.
        decision_by: Of the candidate; a champion decided otherwise may have seen the patients that are evaluated.
    """
    try:
        champion = champions.load(storage, champions.home(dataset, task))
        if champion is None:
            return Baseline(reason="nothing was promoted before")
        version = champion.current.version
        model = champions.version_dir(storage, champions.home(dataset, task), version)
    except HistolineError as error:
        return Baseline(reason=error.what.rstrip("."))
    theirs = champion.current.decision_by
    problem = f"it was decided by {theirs}" if theirs != decision_by else _problem(model, classes)
    if problem:
        return Baseline(version=version, reason=f"champion {version} can't stand beside it: {problem}")
    folder = home / f"{version}-{model_digest(model)[:16]}"
    place(model, folder)
    return Baseline(str(folder), version)


def _problem(model: Path, classes: Sequence[str]) -> str:
    """Why TFMA can't score a model with the candidate's configuration, as a clause; empty where it can."""
    try:
        theirs = read_facts(model)["classes"]
    except NotServable as error:
        return str(error)
    if list(theirs) != list(classes):
        return f"its classes are {', '.join(theirs)}"
    from tensorflow.core.framework import types_pb2
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel()
    try:
        saved.ParseFromString((model / champions.LIVE).read_bytes())
        signature: Any = saved.meta_graphs[0].signature_def["serving_default"]
    except Exception as error:  # protobuf's DecodeError, OSError, no graph at all
        return f"its SavedModel can't be read ({type(error).__name__})"
    inputs = list(signature.inputs.values())
    if len(inputs) != 1 or inputs[0].dtype != types_pb2.DT_STRING or "probability" not in signature.outputs:
        return "its signature does not map serialised Examples to probability"
    rank = len(signature.outputs["probability"].tensor_shape.dim)
    wanted = 1 if len(classes) == 2 else 2
    return "" if rank == wanted else f"its probability has {rank} dimensions"


def place(model: Path, folder: Path) -> None:
    """Puts a model where TFX's components look for it, whole or not at all; does nothing where it is there.

    Its files never change, so they are linked, not copied, where the file system can.

    Args:
        model: SavedModel.
        folder: Gets `Format-Serving`.
    """
    target = folder / SERVING
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    try:
        copy_tree(model, temporary, _link_or_copy)
        os.rename(temporary, target)
    except OSError:
        if not target.exists():  # else another run was faster
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
