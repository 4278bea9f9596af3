"""The exported model: a SavedModel that takes records or image files and answers with calibrated probabilities.

It holds everything that serving needs (decoding, the ingest's padding and scaling, averaging over views, temperature,
bias, threshold, class names), in float32 whatever the precision of training, and loads with plain TensorFlow.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from components.datasets.committed import DatasetFiles, facts_json
from components.storage.atomic_files import TMP, fsync_dir
from components.training import models
from components.training.gradient_maps import GradCam
from components.training.image_graph import ImageSize, decode_files, parse_serving
from components.training.recipe import TrainingConfig
from components.training.serving_graph import ServingGraph
from components.training.stain_targets import StainTarget
from components.version import __version__

if TYPE_CHECKING:
    import keras

FACTS = "assets.extra/histoline.json"
"""What the model is and what it was trained on; TensorFlow leaves the folder alone."""

TRAIN_GROUPS = "train_groups.json"
"""Beside it: sorted list of the groups in train and eval, on which the model must not be judged later."""

FITTED_GROUPS = "fitted_groups.json"
"""Beside it: sorted list of the groups in train, of which a retrained model must have more."""

CHUNK_PIXELS = 256 * 96 * 96
"""Image area that runs through the network at once, crops and views counted: larger batches are worked off in parts, or
256 images of 350x230 in six views each would need tens of gigabytes."""


@dataclasses.dataclass(frozen=True)
class ModelFacts:
    """What is written beside an exported model.

    Attributes:
        dataset: Name of the data set; `adapter` is the same name, of the module that reads it.
        adapter: Likewise.
        task: `binary` or `subtype`.
        classes: Class names in label order.
        source_size: (width, height) in pixels of a regular source image, what `serve_bytes` pads to.
        stored_size: (width, height) in pixels of `image/raw`.
        input_size: (height, width) in pixels that the network sees.
        label_region: (left, top, width, height) in source pixels that the label speaks of, None for all.
        plan_id: Of the data set.
        content_digest: Likewise.
        model: Name in the registry.
        config: The whole recipe.
        config_digest: Of the recipe.
        groups: Sorted groups in train and eval.
        fitted: Sorted groups in train.
        stain_target: What stains are normalised to (`StainTarget.to_dict`), None where colours stay as they are.
    """

    dataset: str
    adapter: str
    task: str
    classes: tuple[str, ...]
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    input_size: tuple[int, int]
    label_region: tuple[int, int, int, int] | None
    plan_id: str
    content_digest: str
    model: str
    config: Mapping[str, Any]
    config_digest: str
    groups: Sequence[str]
    fitted: Sequence[str]
    stain_target: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, config: TrainingConfig, data: DatasetFiles, stain_target: StainTarget | None = None
    ) -> ModelFacts:
        """Puts together what recipe, data set and training say."""
        manifest = data.manifest
        return cls(
            dataset=data.name,
            adapter=data.name,
            task=data.task,
            classes=data.classes,
            source_size=data.source_size,
            stored_size=data.stored_size,
            input_size=config.image_size or (data.stored_size[1], data.stored_size[0]),
            label_region=manifest.label_region,
            plan_id=manifest.plan_id,
            content_digest=manifest.content_digest,
            model=config.model,
            config=config.to_dict(),
            config_digest=config.digest(),
            groups=data.groups("train", "eval"),
            fitted=data.groups("train"),
            stain_target=stain_target.to_dict() if stain_target else None,
        )


def float32_copy(model: keras.Model, config: TrainingConfig, data: DatasetFiles) -> keras.Model:
    """The same model with the same weights, computing in float32 on one device."""
    from components.training.hardware import precision

    height, width = data.stored_size[1], data.stored_size[0]
    with precision("float32"):
        options = {**config.options, "weights": "none"}
        copy = models.build(
            config.model, (height, width, 3), len(data.classes), options, image_size=config.image_size,
            views=config.views, stain=models.stain_target(model),
        )  # fmt: skip
    copy.set_weights(model.get_weights())
    return copy


class Serving(ServingGraph):
    """The graph that is exported. It holds variables only: no Keras object goes into the SavedModel.

    Args:
        model: float32 images to probabilities, from the registry.
        size: Of its images.
        classes: Names in label order; two make it binary.
    """

    def __init__(self, model: keras.Model, size: ImageSize, classes: Sequence[str]) -> None:
        super().__init__(classes)
        logits = models.logits_model(model)
        self.weights = [variable.value for variable in model.variables]
        self._size = size
        self._network = _Untracked(logits)
        self._maps = _maps(logits)
        self._chunk = max(1, CHUNK_PIXELS // models.pixels_per_image(model))

    @tf.function(reduce_retracing=True, autograph=False)
    def pixel_logits(self, images: tf.Tensor) -> tf.Tensor:
        """See `ServingGraph`."""
        return self._logits(images)

    @property
    def explains(self) -> bool:
        """Whether the network has feature maps that `explain` can show."""
        return self._maps is not None

    def _logits_of_examples(self, examples: tf.Tensor) -> tf.Tensor:
        return self._logits(parse_serving(examples, self._size))

    def _logits_of_files(self, images: tf.Tensor) -> tf.Tensor:
        return self._logits(decode_files(images, self._size))

    def _maps_of_examples(self, examples: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
        assert self._maps is not None
        return self._maps(parse_serving(examples, self._size), classes)

    def _logits(self, images: tf.Tensor) -> tf.Tensor:
        shape = self._size.shape
        images = tf.ensure_shape(images, [None, *shape])
        count = tf.shape(images)[0]
        whole = count // self._chunk * self._chunk

        def run(part: tf.Tensor) -> tf.Tensor:
            return self._network(tf.cast(part, tf.float32))

        def in_parts() -> tf.Tensor:
            chunks = tf.reshape(images[:whole], (-1, self._chunk, *shape))
            spec = tf.TensorSpec((self._chunk, len(self._names)), tf.float32)
            done = tf.map_fn(run, chunks, parallel_iterations=1, fn_output_signature=spec)
            done = tf.reshape(done, (-1, len(self._names)))
            rest = tf.cond(count > whole, lambda: run(images[whole:]), lambda: done[:0])
            return tf.concat([done, rest], axis=0)

        return tf.cond(count > self._chunk, in_parts, lambda: run(images))


def _maps(logits: keras.Model) -> GradCam | None:
    try:
        return GradCam(logits)
    except ValueError:
        return None


class _Untracked:
    """A network as one function, traced once for all signatures that call it, which makes models smaller and quicker.

    It hides the Keras model from tf.Module's tracking, which would write its layers into the SavedModel.
    """

    def __init__(self, model: keras.Model) -> None:
        spec = tf.TensorSpec(model.input_shape, tf.float32)
        self._run = tf.function(
            lambda images: model(images, training=False), input_signature=[spec], autograph=False
        )

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        return self._run(images)


def logits_of(
    serving: ServingGraph, batches: Iterable[Any]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Labels and logits, which `ServingGraph.probability` makes into what the exported model will give.

    Args:
        serving: The graph; its temperature and bias play no part.
        batches: (uint8[B, H, W, 3], int32[B]) each.

    Returns:
        (int32[N], float32[N, C]).
    """
    labels, answers = [], []
    for images, numbers in batches:
        labels.append(np.asarray(numbers))
        answers.append(serving.pixel_logits(images).numpy())
    return np.concatenate(labels), np.concatenate(answers)


def save(serving: ServingGraph, out_dir: Path, facts: ModelFacts, *, extra: Mapping[str, Any] | None = None) -> Path:
    """Writes a SavedModel; the folder appears whole or not at all, and replaces one that is there.

    Args:
        serving: The graph, with its temperature, bias and threshold set.
        out_dir: Where to.
        facts: Goes into `assets.extra/histoline.json`.
        extra: More files for `assets.extra`: name to JSON value.

    Returns:
        out_dir.
    """
    tmp = out_dir.parent / TMP / f"{out_dir.name}-{uuid.uuid4().hex}"
    tmp.parent.mkdir(parents=True, exist_ok=True)
    signatures = {
        "serving_default": serving.serve_examples.get_concrete_function(),
        "serve_bytes": serving.serve_bytes.get_concrete_function(),
        "bulk_inference": serving.bulk_inference.get_concrete_function(),
    }
    # Only what is an attribute of the saved object is saved: calibration's own function stays behind.
    bare = tf.Module(name="histoline")
    bare.weights, bare.constants, bare.threshold = serving.weights, serving.constants, serving.threshold
    bare.temperature, bare.bias = serving.temperature, serving.bias
    if serving.explains:
        bare.explain = serving.explain
    tf.saved_model.save(bare, os.fspath(tmp), signatures=signatures)
    binary = len(facts.classes) == 2
    temperature, bias_set = serving.calibration()
    own_facts = {
        **{k: v for k, v in dataclasses.asdict(facts).items() if k not in ("groups", "fitted")},
        "code_version": __version__,
        "temperature": temperature,
        "bias": bias_set,
        "threshold": float(serving.threshold.numpy()) if binary else None,
        "trained_on_groups": TRAIN_GROUPS,
        "signatures": sorted(signatures),
        "note": "Research use only, not a medical device.",
    }
    groups = {TRAIN_GROUPS: sorted(facts.groups), FITTED_GROUPS: sorted(facts.fitted)}
    files = {Path(FACTS).name: own_facts, **groups, **(extra or {})}
    (tmp / "assets.extra").mkdir(exist_ok=True)
    for name, value in files.items():
        (tmp / "assets.extra" / name).write_text(facts_json(value), encoding="utf-8")
    _sync(tmp)
    if out_dir.exists():
        shutil.rmtree(out_dir)
    os.rename(tmp, out_dir)
    fsync_dir(out_dir.parent)
    return out_dir


def _sync(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            with open(path, "rb") as file:
                os.fsync(file.fileno())
