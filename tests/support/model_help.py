"""Tiny data sets and tiny real SavedModels whose quality can be set, for everything around the gate.

An image has one vertical stripe per class; the stripe of its class is a little brighter, which no colour feature
sees. Each stripe also has a random slope from top to bottom that means nothing: the weight that a model gives to it
makes the model worse.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner
from PIL import Image

from components.core import json_documents
from components.datasets import manifest as manifests
from components.promotion import champion as champions
from components.promotion import evaluation, publish, scoring_process, test_set_reuse
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_record
from components.training.run_types import RunRecord
from components.version import __version__
from pipelines import models
from tests.support import ingest_help
from tests.support.trees import BREAKHIS_TYPES, breakhis_path, idc_path

CLASSES = {"idc": ("negative", "idc")}
SIGNAL, SPREAD = 6.0, 4.0


def stripes(n_classes: int, width: int) -> list[int]:
    """Left edges of the stripes, and the width."""
    return [round(width * k / n_classes) for k in range(n_classes + 1)]


def pixels(key: str, label: int, n_classes: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3] image of a class."""
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    image = np.full((height, width), 128.0) + (rng.normal(0, 1, (height, width)) if width < 100 else 0.0)
    edges = stripes(n_classes, width)
    for k in range(n_classes):
        part = image[:, edges[k] : edges[k + 1]]
        part += SIGNAL * (k == label) + rng.normal(0, SPREAD)
        slope = rng.normal(0, SPREAD)
        part[: height // 2] += slope
        part[height // 2 :] -= slope
    return np.repeat(image.round().clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def write_image(file: Path, image: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file, "PNG", compress_level=1)


def idc(root: Path, patients: int = 40, per_class: int = 6) -> Path:
    """A raw IDC folder."""
    for number in range(patients):
        for label in (0, 1):
            for i in range(per_class):
                path = idc_path(str(9000 + number), label, 50 * i + 1, 101)
                write_image(root / path, pixels(path, label, 2, 50, 50))
    return root


def breakhis(root: Path, cases: int = 5, per_case: int = 2) -> Path:
    """A raw BreakHis folder in which all eight types have the same number of cases."""
    for label, kind in enumerate(BREAKHIS_TYPES):
        for case in range(cases):
            for i in range(per_case):
                path = breakhis_path(kind, f"14-{1000 + 20 * label + case}", 40, i + 1)
                write_image(root / path, pixels(path, label, 8, 700, 460))
    return root


def save_model(
    folder: Path,
    classes: tuple[str, ...],
    size: tuple[int, int],
    source_size: tuple[int, int],
    *,
    noise: float = 0.0,
    signal: float = 1.0,
    skew: float = 0.0,
    threshold: float = 0.5,
) -> Path:
    """Saves a SavedModel as the exporter does, without assets.extra.

    Args:
        folder: Where.
        classes: Class names.
        size: (width, height) as stored.
        source_size: (width, height) of source files.
        noise: Weight of what means nothing.
        signal: Weight of what does.
        skew: Added by `serve_bytes` only, to the last logit.
        threshold: Of a binary model.
    """
    import tensorflow as tf

    width, height = size
    edges, factor = stripes(len(classes), width), source_size[0] // size[0]
    spec = tf.TensorSpec([None], tf.string)

    class Tiny(tf.Module):
        def __init__(self) -> None:
            super().__init__()
            self.names = tf.constant(classes)

        def outputs(self, images: Any, more: float = 0.0) -> dict[str, Any]:
            grey = tf.reduce_mean(tf.cast(images, tf.float32), axis=3)
            logits = []
            for k in range(len(classes)):
                part = grey[:, :, edges[k] : edges[k + 1]]
                means = tf.reduce_mean(part, axis=2)
                top = tf.reduce_mean(means[:, : height // 2], axis=1)
                bottom = tf.reduce_mean(means[:, height // 2 :], axis=1)
                mean = (top + bottom) / 2
                logits.append((signal * (mean - 128.0) + noise * (top - bottom)) / 8.0)
            stack = tf.stack(logits, axis=1) + more * tf.one_hot(len(classes) - 1, len(classes))
            probability = tf.nn.softmax(stack)
            if len(classes) == 2:
                probability = probability[:, 1]
                label = tf.cast(probability >= threshold, tf.int64)
            else:
                label = tf.argmax(probability, axis=1)
            return {"probability": probability, "label": label, "label_name": tf.gather(self.names, label)}

        @tf.function(input_signature=[spec])
        def serving_default(self, examples: Any) -> dict[str, Any]:
            parsed = tf.io.parse_example(examples, {"image/raw": tf.io.FixedLenFeature([], tf.string)})
            flat = tf.io.decode_raw(parsed["image/raw"], tf.uint8)
            return self.outputs(tf.reshape(flat, [-1, height, width, 3]))

        @tf.function(input_signature=[spec])
        def serve_bytes(self, images: Any) -> dict[str, Any]:
            def one(data: Any) -> Any:
                image = tf.image.decode_png(data, 3)
                return tf.reshape(image[::factor, ::factor], [height, width, 3])

            decoded = tf.map_fn(one, images, fn_output_signature=tf.TensorSpec([height, width, 3], tf.uint8))
            return self.outputs(decoded, skew)

    module = Tiny()
    signatures = {"serving_default": module.serving_default, "serve_bytes": module.serve_bytes}
    tf.saved_model.save(module, str(folder), signatures=signatures)
    return folder


class LoadedOnce:
    """`tf.saved_model.load` for tests that score the same few models over and over: each content is loaded once."""

    def __init__(self) -> None:
        import tensorflow as tf

        self._load = tf.saved_model.load
        self._kept: dict[str, Any] = {}

    def __call__(self, folder: str) -> Any:
        files = [file for kind in ("saved_model.*", "variables/*") for file in sorted(Path(folder).glob(kind))]
        digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
        if digest not in self._kept:
            self._kept[digest] = self._load(folder)
        return self._kept[digest]


class Workshop:
    """A workspace with one committed data set, where runs can be made without training.

    Args:
        root: Workspace.
        data: The committed data set, elsewhere; it is copied.
        models: Folder that keeps saved models between tests.
        latest: latest.json to put beside the data set.
    """

    def __init__(self, root: Path, data: ingest_help.Result, models: Path) -> None:
        self.root, self.models = root, models
        self.storage: Storage = open_storage(root)
        self.dataset, self.task = data.manifest.dataset, data.manifest.task
        self.dataset_dir = f"datasets/{self.dataset}/{self.task}/{data.plan_id}"
        shutil.copytree(data.folder, root / self.dataset_dir)
        self.manifest = manifests.load(self.storage, self.dataset_dir)
        self.home = root / "models" / self.dataset / self.task
        self.splits = data.splits

    def groups(self, *splits: str) -> list[str]:
        return sorted(group for group, split in self.splits.items() if split in splits)

    def model(self, **quality: float) -> Path:
        """A SavedModel of this quality, saved once."""
        name = "-".join([self.dataset, *(f"{key}{value:g}" for key, value in sorted(quality.items()))])
        folder = self.models / name
        if not folder.exists():
            made = self.models / f".{name}"
            size, source = self.manifest.stored_size, self.manifest.source_size
            save_model(made, self.manifest.classes, size, source, **quality)
            made.rename(folder)
        return folder

    def run(self, run_id: str, *, gate: dict[str, Any] | None = None, trained_on: Any = None, **quality: float) -> str:
        """A run that has trained; returns its folder."""
        folder = run_record.run_dir(self.dataset, self.task, run_id)
        config = {"model": "tiny", "gate": gate or {}}
        run_record.create(
            self.storage, folder, config=config, dataset_dir=self.dataset_dir, manifest=self.manifest,
            digests={"recipe": "the same", "source": "the same"},
        )  # fmt: skip
        model = self.root / folder / "model"
        shutil.copytree(self.model(**quality), model)
        facts = {
            "dataset": self.dataset, "adapter": self.dataset, "task": self.task,
            "source_size": list(self.manifest.source_size), "stored_size": list(self.manifest.stored_size),
            "classes": list(self.manifest.classes), "threshold": 0.5, "temperature": 1.0,
            "content_digest": self.manifest.content_digest, "histoline_version": __version__,
        }  # fmt: skip
        extra = model / "assets.extra"
        extra.mkdir(exist_ok=True)
        (extra / "histoline.json").write_text(json.dumps(facts))
        groups = self.groups("train", "eval") if trained_on is None else sorted(trained_on)
        (extra / "train_groups.json").write_text(json.dumps(groups))
        (extra / "fitted_groups.json").write_text(json.dumps(self.groups("train")))
        return folder

    def fresh(self) -> None:
        """Forgets all looks at the test split, for what is not about them."""
        self.storage.delete(test_set_reuse.path(self.dataset, self.task))

    def evaluate(self, folder: str, blessed: bool = True, **report: Any) -> RunRecord:
        """Evaluation in this process."""
        return evaluation.evaluate(self.storage, folder, blessed, report, predictor=scoring_process.predict)

    def push(self, folder: str, clock: float = 1_700_000_000.0) -> int | None:
        return publish.push(self.storage, folder, predictor=scoring_process.predict, clock=lambda: clock)

    def train(self, run_id: str, clock: float = 1_700_000_000.0, **given: Any) -> tuple[RunRecord, int | None]:
        """A whole run: its record and version."""
        folder = self.run(run_id, **given)
        self.evaluate(folder)
        version = self.push(folder, clock)
        return self.record(folder), version

    def record(self, folder: str) -> RunRecord:
        return run_record.read(self.storage, folder)

    @property
    def champion(self) -> dict[str, Any]:
        """champion.json."""
        return json.loads((self.home / "champion.json").read_text())

    def edit_manifest(self, **changes: Any) -> None:
        """Seals the manifest again with other facts."""
        made = manifests.dump(dataclasses.replace(self.manifest, **changes))
        self.storage.write_atomic(f"{self.dataset_dir}/manifest.json", made)
        self.manifest = manifests.load(self.storage, self.dataset_dir)


def check_run(record: RunRecord) -> None:
    """The record follows run.json's schema."""
    assert json_documents.problem(record.to_document(), run_record.SCHEMA) == ""


def published(shop: Workshop) -> list[int]:
    """Versions of idc binary, rising."""
    return champions.versions(shop.storage, "models/idc/binary")


def served(shop: Workshop) -> int:
    """What TensorFlow Serving would take: the highest number."""
    return max(int(folder.name) for folder in shop.home.iterdir() if folder.name.isdigit())


def models_command(shop: Workshop, *args: str) -> Any:
    """What `histoline models ... --json` prints."""
    result = CliRunner().invoke(models.command, [*args, "--workspace", str(shop.root), "--json"])
    return json.loads(result.stdout) if result.exit_code == 0 else result.exception
