"""Training of `frozen_features`: features of every patch, from the cache where they are there, then a head on them.

It stands in the place of `loop.Loop`: the same model goes on to calibration and export, with one epoch of history. A
pass that was killed goes on from the parts that are cached; the head itself takes seconds and is fitted anew.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.core.array_types import Array
from components.datasets.committed import DatasetFiles
from components.errors import UsageError
from components.training import models
from components.training.checkpoints import Position
from components.training.epoch_summaries import write_summaries
from components.training.feature_cache import PART, FeatureCache, image_keys
from components.training.feature_head import Samples, fit_head, log_loss, predict
from components.training.hardware import Hardware
from components.training.input_pipeline import MEMORY_SHARE, Reader, free_memory
from components.training.models.frozen_features import FEATURES_LAYER, HEAD_OPTIONS, stage_widths
from components.training.objectives import class_weights
from components.training.operating_point import split_groups
from components.training.recipe import TrainingConfig

PASS_PIXELS = 256 * 96 * 96
"""Image area that runs through the backbone at once, views counted."""

Extractor = Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]

SAID_EVERY_S = 20.0
"""How often a pass says how far it is."""

TRAINED_IN = ("runs", "sweeps", "leakage")
"""Folders of a workspace in which models are trained; all share one cache."""

CODE = ("models/*.py", "colour_spaces.py", "stain_normalisation.py", "stain_targets.py")
"""What features are made by, in this folder: changed code makes them anew."""


@dataclasses.dataclass
class FeatureFit:
    """One training run.

    Attributes:
        config: The recipe.
        data: The data set.
        model: From the registry; what is exported.
        hardware: Where it runs.
        train: The training split.
        evaluation: The eval split.
        run_dir: Gets tensorboard/.
        key: Of recipe and data.
        log: Takes progress.
        watch: Told at the end where training stands, and that this was the only epoch; may end it by raising.
    """

    config: TrainingConfig
    data: DatasetFiles
    model: keras.Model
    hardware: Hardware
    train: Reader
    evaluation: Reader
    run_dir: Path
    key: str
    log: Callable[[str], None]
    watch: Callable[[Position, int], None] | None = None

    def run(self) -> Position:
        """Fits the head; the model then holds the weights to export.

        Raises:
            UsageError: Several machines, or features that do not fit into memory.
            DataError: The training split holds one class only.
        """
        if self.hardware.cluster is not None:
            raise UsageError(
                f"{self.config.model} fits its head on one machine; TF_CONFIG names several.",
                "Unset TF_CONFIG, or choose a model that is trained by steps.",
            )
        begun = time.perf_counter()
        options, features_of = self.config.options, self._extractor()
        seen = {
            name: self._features(reader, name, features_of)
            for name, reader in (("train", self.train), ("eval", self.evaluation))
        }
        features, labels = seen["train"]
        by_class = class_weights(self.config, np.bincount(labels, minlength=len(self.data.classes)).tolist())
        groups, wanted = split_groups(self.data, "train"), self._members()
        samples = Samples(
            features, labels, groups if wanted is None else groups[wanted],
            None if by_class is None else np.array([by_class[label] for label in labels]),
            stage_widths(self.model, options),
        )  # fmt: skip
        head = fit_head(
            samples, len(self.data.classes), strength=float(options["strength"]),
            units=int(options["units"]) if options["head"] == "mlp" else 0, seed=self.config.seed,
        )  # fmt: skip
        how = f"cross-validated over {head.folds} parts of the patients" if head.scores else "by recipe"
        dense = [layer for layer in self.model.layers if layer.name in ("head_hidden", "head_logits")]
        for layer, values in zip(dense, head.layers, strict=True):
            layer.set_weights(values)
        logs = {
            f"{prefix}{metric}": value
            for prefix, name in (("", "train"), ("val_", "eval"))
            for metric, value in self._metrics(predict(head.layers, seen[name][0]), seen[name][1]).items()
        }
        self.log(
            f"head on {features.shape[1]:,} features of {len(labels):,} patches, penalty {head.strength:g} ({how}): "
            + ", ".join(f"{name} {value:.4f}" for name, value in logs.items())
        )
        write_summaries(self.run_dir, 1, logs, 0.0)
        history = {name: [value] for name, value in logs.items()}
        history |= {"learning_rate": [0.0], "seconds": [time.perf_counter() - begun]}
        position = Position(self.key, epoch=1, phase=1, history=history, kept=[1])
        if self.watch is not None:
            self.watch(position, 1)
        return position

    def _members(self) -> npt.NDArray[np.int64] | None:
        """Which training patches are used; None for all."""
        return None if self.train.capped is None else self.train.capped.members(self.config.seed, 0)

    def _metrics(self, logits: Array, labels: Array) -> dict[str, float]:
        """Loss and metrics under Keras' names."""
        from sklearn.metrics import f1_score, roc_auc_score

        called = logits.argmax(axis=1)
        found = {"loss": log_loss(logits, labels), "accuracy": float(np.mean(called == labels))}
        if self.config.task == "binary":
            both = len(np.unique(labels)) == 2
            found["auc"] = float(roc_auc_score(labels, logits[:, 1] - logits[:, 0])) if both else 0.0
        else:
            numbers = list(range(len(self.data.classes)))
            found["macro_f1"] = float(f1_score(labels, called, labels=numbers, average="macro", zero_division=0))
        return found

    def _extractor(self) -> Extractor:
        """The network up to its features: uint8[N, H, W, 3] to float32[N, F], as it is served."""
        network = keras.Model(self.model.input, self.model.get_layer(FEATURES_LAYER).output)

        def features(images: tf.Tensor) -> tf.Tensor:
            return network(tf.cast(images, tf.float32), training=False)

        shape = [None, *self.model.input_shape[1:]]
        extract = tf.function(features, input_signature=[tf.TensorSpec(shape, tf.uint8)])
        return lambda images: extract(images).numpy()

    def _features(self, reader: Reader, name: str, extract: Extractor) -> tuple[Array, Array]:
        """Features of a split's patches, float32[N, F], and their labels int32[N], in the order of its shards."""
        width = int(self.model.get_layer(FEATURES_LAYER).output.shape[-1])
        wanted = self._members() if name == "train" else None
        count = reader.split.count if wanted is None else len(wanted)
        if 2 * count * width * 4 > MEMORY_SHARE * free_memory():  # the head standardises a copy
            raise UsageError(
                f"{width:,} features of {count:,} patches do not fit into this machine's memory.",
                "Set max_train_per_class, or choose a model that is trained by steps.",
            )
        keys, labels = [], []
        for _, images, numbers in _blocks(reader, wanted):
            keys += image_keys(images)
            labels.append(numbers)
        cache = FeatureCache(cache_home(self.run_dir) / self._preparation(), width)
        features, known = cache.read(keys)
        self.log(f"features of {name}: {int(known.sum()):,} of {count:,} patches are cached")
        if not known.all():
            self._compute(reader, wanted, extract, cache, keys, features, known)
        return features, np.concatenate(labels)

    def _compute(
        self,
        reader: Reader,
        wanted: npt.NDArray[np.int64] | None,
        extract: Extractor,
        cache: FeatureCache,
        keys: list[bytes],
        features: npt.NDArray[np.float32],
        known: npt.NDArray[np.bool_],
    ) -> None:
        """Fills in what the cache did not know, and keeps it part by part."""
        chunk = max(1, PASS_PIXELS // models.pixels_per_image(self.model))
        begun = said = time.monotonic()
        total, done, kept = int(np.sum(~known)), 0, 0
        new: list[int] = []
        for first, images, _ in _blocks(reader, wanted):
            missing = np.flatnonzero(~known[first : first + len(images)])
            for start in range(0, len(missing), chunk):
                places = missing[start : start + chunk]
                features[first + places] = extract(images[places])
                new += (first + places).tolist()
            while len(new) - kept >= PART or (first + len(images) == len(keys) and kept < len(new)):
                part = new[kept : kept + PART]
                cache.add([keys[place] for place in part], features[part])
                kept += len(part)
            done += len(missing)
            if time.monotonic() - said > SAID_EVERY_S:
                said = time.monotonic()
                left = (said - begun) / done * (total - done)
                self.log(f"features: {done:,} of {total:,} patches, about {left:.0f} s left")

    def _preparation(self) -> str:
        """Names what features depend on beside the pixels: the graph, its weights, code and libraries."""
        options = {k: v for k, v in self.config.options.items() if k not in HEAD_OPTIONS}
        options |= models.fingerprints(self.config.model, self.config.options)
        target = models.stain_target(self.model)
        facts = {
            "options": options,
            "views": self.config.views,
            "image_size": self.config.image_size,
            "stain_target": target.to_dict() if target else None,
            "input": self.model.input_shape[1:],
            "versions": {name: metadata.version(name) for name in ("keras", "tensorflow")},
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
        folder = Path(__file__).parent
        for path in sorted(path for pattern in CODE for path in folder.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
        # Random weights too are what they are.
        for layer in self.model.layers:
            if not layer.name.startswith("head"):
                for value in layer.get_weights():
                    digest.update(np.ascontiguousarray(value).tobytes())
        return digest.hexdigest()[:32]


def cache_home(run_dir: Path) -> Path:
    """`cache/features` of the workspace that a run's folder lies in, or of the folder itself elsewhere."""
    for parent in run_dir.resolve().parents:
        if parent.name in TRAINED_IN:
            return parent.parent / "cache" / "features"
    return run_dir / "cache" / "features"


def _blocks(reader: Reader, wanted: npt.NDArray[np.int64] | None) -> Iterator[tuple[int, npt.NDArray[np.uint8], Array]]:
    """The wanted images of a split in the order of its shards: (place of the first, images, labels)."""
    place = read = 0
    for images, labels in reader.evaluation(PART).as_numpy_iterator():
        mine: Any = slice(None)
        if wanted is not None:
            mine = wanted[(wanted >= read) & (wanted < read + len(labels))] - read
        read += len(labels)
        chosen = images[mine]
        if len(chosen):
            yield place, chosen, labels[mine]
        place += len(chosen)
