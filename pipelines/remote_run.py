"""A run whose workspace is a bucket: what of its working folder on this machine goes there, and what comes back.

The working folder has the workspace's own paths (`Storage.work_folder`). In a local workspace both are one, and nothing
here does anything.
"""

from __future__ import annotations

import shutil

from components.promotion.champion import LIVE
from components.promotion.served_model import model_digest
from components.splits.fold_assignment import NAME
from components.storage.atomic_files import copy_tree
from components.storage.base import Storage
from components.training.fold_plan import read_folds
from components.training.fold_training import FOLDS, OUT_OF_FOLD

KEPT = ("tensorboard",)
"""Folders of a run that others may look at while the model is already there."""


def hand_over(storage: Storage, folder: str) -> None:
    """Puts what training left into the bucket; a model that is there already as it is here is not written again.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
    """
    if storage.is_local:
        return
    work = storage.work_folder()
    for file in sorted(path for name in KEPT for path in (work / folder / name).rglob("*") if path.is_file()):
        storage.write_atomic(file.relative_to(work).as_posix(), file.read_bytes())
    model = f"{folder}/model"
    if storage.exists(f"{model}/{LIVE}"):
        if model_digest(storage.local_tree(model)) == model_digest(work / model):
            return
        storage.delete_tree(model)  # of an earlier training of this run, by other code
    scratch = storage.scratch(folder)
    try:
        tree = copy_tree(work / model, scratch / "model")
        storage.commit_tree(tree, model, last=LIVE)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def fetch_back(storage: Storage, folder: str) -> None:
    """Brings a run's exported model back, so that a machine that did not train it need not train.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
    """
    model = storage.work_folder() / folder / "model"
    if storage.is_local or model.exists() or not storage.exists(f"{folder}/model/{LIVE}"):
        return
    tmp = model.with_name(".model.fetched")
    shutil.rmtree(tmp, ignore_errors=True)
    copy_tree(storage.local_tree(f"{folder}/model"), tmp)
    tmp.rename(model)


def bring_folds(storage: Storage, folder: str) -> None:
    """Brings a run's folds.json, and the models of folds that other machines have trained, into the working folder.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
    """
    if storage.is_local:
        return
    work = storage.work_folder()
    folds = read_folds(storage, folder)
    (work / folder).mkdir(parents=True, exist_ok=True)
    (work / folder / NAME).write_bytes(folds.to_bytes())
    for fold in range(1, folds.folds + 1):
        home = f"{folder}/{FOLDS}/{fold}"
        if storage.exists(f"{home}/model/{LIVE}") and not (work / home / "model").exists():
            (work / home).mkdir(parents=True, exist_ok=True)
            (work / home / OUT_OF_FOLD).write_bytes(storage.read_bytes(f"{home}/{OUT_OF_FOLD}"))
            fetch_back(storage, home)


def hand_over_fold(storage: Storage, folder: str) -> None:
    """Puts what the training of one fold left into the bucket.

    Args:
        storage: The workspace.
        folder: Of the fold, relative to it.
    """
    if not storage.is_local:
        path = storage.work_folder() / folder / OUT_OF_FOLD
        storage.write_atomic(f"{folder}/{OUT_OF_FOLD}", path.read_bytes())
        hand_over(storage, folder)


def clear(storage: Storage, folder: str) -> None:
    """Deletes the working folder of a run that is over: the workspace holds all that is still of use.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.
    """
    if not storage.is_local:
        shutil.rmtree(storage.work_folder() / folder, ignore_errors=True)
