"""Untrained exported models and small data sets for tests of prediction."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.metrics import drift
from components.prediction.inputs import plan_input
from components.prediction.job import predict
from components.prediction.parts import predict_part
from components.promotion.find_model import ModelSource, model_folder
from components.storage.open import open_storage
from tests.support import ingest_help, model_help, trees

SMALL = {"idc": (45, 50), "breakhis": (700, 456)}
"""An edge image of each data set that has some, (width, height)."""


def raw(root: Path, dataset: str) -> Path:
    """A raw folder with an edge image, where the data set has some."""
    if dataset == "idc":
        model_help.idc(root, 12, 2)
        path = root / trees.idc_path("9000", 1, 951, 101)
    elif dataset == "breakhis":
        model_help.breakhis(root, 3, 1)
        path = root / trees.breakhis_path("A", "14-1000", 40, 9)
    else:
        trees.pcam_tree(root, 24, test=3)
        return root
    Image.fromarray(trees.pixels(str(path), *SMALL[dataset])).save(path)
    return root


def ingest(root: Path, workspace: Path, dataset: str, **options: Any) -> ingest_help.Result:
    """A committed data set of such a folder."""
    if dataset == "pcam":
        options["group_by"] = "image"
    return ingest_help.ingest(root, workspace, dataset, **options)


def export(folder: Path, data: Path, threshold: float = 0.4) -> Path:
    """An untrained network, exported as training does it."""
    import keras

    from components.datasets.committed import open_dataset
    from components.training import models
    from components.training.export import ModelFacts
    from components.training.recipe import TrainingConfig
    from tests.support.training_help import export_model

    found = open_dataset(data)
    config = TrainingConfig(dataset=found.name, task=found.task)
    keras.utils.set_random_seed(1)
    height, width = found.stored_size[1], found.stored_size[0]
    model = models.build(config.model, (height, width, 3), len(found.classes), {})
    return export_model(model, folder, ModelFacts.of(config, found), 1.3, threshold)


def with_statistics(model: Path, data: ingest_help.Result) -> Path:
    """A model with the colour statistics of its data set as a promoted version carries them, all of it train."""
    from components.promotion.data_gates import STATISTICS, read_group_means

    storage = open_storage(data.folder.parent)
    means = read_group_means(storage, data.folder.name, data.manifest)
    means = dataclasses.replace(
        means, splits=np.full(len(means.splits), "train"), patch_std={"train": means.patch_std["train"]}
    )
    found = drift.statistics(means, {"group_unit": data.manifest.group_unit})
    (model / "assets.extra" / STATISTICS).write_text(json.dumps(found))
    return model


class Untrained:
    """Raw folders, data sets and untrained models of a test session; what is made once is only read.

    Args:
        home: Where they lie.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._made: dict[str, tuple[Path, ingest_help.Result, Path]] = {}

    def __call__(self, dataset: str, **options: Any) -> tuple[Path, ingest_help.Result, Path]:
        """Raw folder, committed data set and exported model.

        Args:
            dataset: Name.
            options: Of the ingest.
        """
        name = "-".join([dataset, *(str(value) for value in options.values())])
        if name not in self._made:
            folder = self._home / name
            images = raw(folder / "raw", dataset)
            data = ingest(images, folder / "ws", dataset, **options)
            self._made[name] = images, data, export(folder / "model", data.folder)
        return self._made[name]


def here(config: Any, numbers: list[int]) -> None:
    """Works off parts in this process, without Beam."""
    for number in numbers:
        predict_part(config, number)


def run(model: Path | ModelSource, given: Path, output: Path, **options: Any) -> dict[str, Any]:
    """One prediction in this process."""
    source = model if isinstance(model, ModelSource) else model_folder(str(model))
    plan = plan_input(source, str(given), options.pop("groups_csv", None))
    return predict(source, plan, str(output), options.pop("work", here), **options)
