"""What TFX's Trainer calls: trains the run that it is told of, and copies the model to where TFX wants it."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any

from components.datasets.committed import open_dataset
from components.storage.atomic_files import TMP, copy_tree
from components.storage.open import open_storage
from components.training.assembly import assemble
from components.training.cluster import read_cluster
from components.training.ensemble import member_folders
from components.training.fold_training import FOLDS, fold_lock, train_folds
from components.training.recipe import TrainingConfig
from components.training.tfx_arguments import check_schema, dataset_folder
from components.training.trainer import train
from components.training.training_process import train_apart


def run_fn(fn_args: Any) -> None:
    """Entry point of TFX's Trainer (`run_fn='components.training.run_fn.run_fn'`).

    Args:
        fn_args: `tfx.components.trainer.fn_args_utils.FnArgs`. Its files name the data set, which must be as its schema
            says; custom_config holds `config` (as `TrainingConfig.to_dict` gives it), `run_dir`, `workspace` and
            `run_folder`, where the members of an ensemble and the locks of folds are, and `source_digest` and `folds`,
            which are there for TFX's cache key only.

    Raises:
        UsageError, DataError: See `train` and `components.training.tfx_arguments`.
    """
    given = fn_args.custom_config
    run_dir = Path(given["run_dir"])
    dataset_dir = dataset_folder(fn_args.train_files, fn_args.eval_files)
    if fn_args.schema_path:
        check_schema(fn_args.schema_path, open_dataset(dataset_dir))
    config = TrainingConfig.from_dict(given["config"])

    def log(line: str) -> None:
        print(line, flush=True)

    cluster = read_cluster()
    if config.ensemble:
        data = open_dataset(dataset_dir)
        members = member_folders(open_storage(given["workspace"]), data.name, data.task, config)
        result = assemble(config, data, run_dir, members, log=log)
    elif config.decision == "folds":
        lock = fold_lock(open_storage(given["workspace"]), given["run_folder"])
        result = train_folds(config, open_dataset(dataset_dir), run_dir, log=log, lock=lock)
    else:
        if cluster is not None:
            train_apart(config, dataset_dir, run_dir, cluster, log=log)
        result = train(config, dataset_dir, run_dir, log=log)
    _copy_tree(result.model_dir, Path(fn_args.serving_model_dir))
    curves = {"": run_dir, **{f"fold-{fold.name}": fold for fold in (run_dir / FOLDS).glob("[0-9]*")}}
    for name, home in curves.items():
        if (home / "tensorboard").is_dir():
            _copy_tree(home / "tensorboard", Path(fn_args.model_run_dir, name))


def _copy_tree(source: Path, target: Path) -> None:
    """Copies a folder so that the target, if it is there, is whole."""
    tmp = target.parent / TMP / uuid.uuid4().hex
    tmp.parent.mkdir(parents=True, exist_ok=True)
    copy_tree(source, tmp)
    if target.exists():
        shutil.rmtree(target)
    os.rename(tmp, target)
    tmp.parent.rmdir()
