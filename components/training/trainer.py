"""Trains a recipe on a committed data set: phases, checkpoints, calibration on eval, export.

A run that was killed goes on after its last finished epoch; one that is finished is not done again. The exported
model folder appears last and whole, and holds the result.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.datasets.committed import DatasetFiles, open_dataset
from components.training import models
from components.training.recipe import TrainingConfig

if TYPE_CHECKING:
    from components.training.checkpoints import Position
    from components.training.export import Serving
    from components.training.feature_fit import FeatureFit
    from components.training.loop import Loop
    from components.training.operating_point import Calibrated

RESULT = "training.json"
"""In the exported model's assets.extra: history, calibration, seconds."""

Log = Callable[[str], None]
Watch = Callable[["Position", int], None]
"""Gets where training stands after an epoch, and the epochs of all phases."""
Calibrate = Callable[["Serving", "Loop | FeatureFit", DatasetFiles, "dict[int, float] | None"], "Calibrated"]


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """What came out of training.

    Attributes:
        history: Metric to one number per finished epoch, over all phases and restarts: Keras' names (`loss`,
            `val_auc`, ...), `learning_rate` and `seconds`.
        epochs_run: Finished epochs.
        temperature: Divides the logits; 1 where it has no optimum.
        threshold: P(positive) from which a patch is positive; None for subtype.
        calibration: `before` and `after` temperature and bias, each {ece, log_loss, brier} on eval; `note` of the fit;
            `expected_bias`, which the class weights explain; `threshold`, where it was chosen for a sensitivity.
        seconds: Of the process that finished; the epochs' own times are in the history.
        model_dir: The exported model.
        hardware: One line on devices and precision.
        bias: Added to the divided logits: a number for binary, one per class for subtype; None in models that were
            trained before there was one.
        threshold_note: How `sensitivity=X` was met, or that it was not; else empty.
        parameters: Weights of the network; None in models of before.
        pixels: Image area that the network works on for one image, over all its views; likewise.
        phase_epochs: After how many epochs of each phase its weights were taken; empty in results of before.
    """

    history: dict[str, list[float]]
    epochs_run: int
    temperature: float
    threshold: float | None
    calibration: dict[str, Any]
    seconds: float
    model_dir: Path
    hardware: str = ""
    bias: float | list[float] | None = None
    threshold_note: str = ""
    parameters: int | None = None
    pixels: int | None = None
    phase_epochs: list[int] = dataclasses.field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON values; the model's folder is left out, it is where this lies."""
        return {k: v for k, v in dataclasses.asdict(self).items() if k != "model_dir"}


def read_result(run_dir: Path) -> TrainResult | None:
    """The result of a finished training in a run folder, None where there is none."""
    model_dir = run_dir / "model"
    try:
        document = json.loads((model_dir / "assets.extra" / RESULT).read_text(encoding="utf-8"))
        return TrainResult(**document["result"], model_dir=model_dir)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def train(
    config: TrainingConfig,
    dataset: str | Path | DatasetFiles,
    run_dir: Path,
    *,
    log: Log = lambda line: None,
    watch: Watch | None = None,
    calibrated: Calibrate | None = None,
) -> TrainResult:
    """Trains, calibrates and exports to `run_dir/model`.

    Args:
        config: The recipe.
        dataset: Folder of a committed data set, local or gs://; or one that is open.
        run_dir: Local folder of the run; gets model/, checkpoints/ and tensorboard/.
        log: Takes progress, a line at a time.
        watch: Told after each epoch, whose checkpoint is written by then; what it raises ends the training.
        calibrated: Sets temperature, bias and threshold of the serving graph, and may leave more in the run's folder
            before the model appears there; None: on the eval split.

    Raises:
        UsageError: Recipe, data set and machine do not fit together.
        DataError: Damaged shards, a loss that is no number, or an eval split that can't be calibrated on.
        TemporaryError: The disk is full.
    """
    started = time.monotonic()
    data = dataset if isinstance(dataset, DatasetFiles) else open_dataset(dataset)
    height, width = data.stored_size[1], data.stored_size[0]
    config.check_data(data.name, data.task, height, width, data.label_region)
    key = run_key(config, data)
    done = read_result(run_dir)
    if done is not None and key_of(done.model_dir) == key:
        log(f"{done.model_dir} is trained already ({done.epochs_run} epochs).")
        return done

    from components.training.export import ModelFacts, Serving, float32_copy, save
    from components.training.image_graph import ImageSize
    from components.training.objectives import moved_prior
    from components.training.operating_point import calibrate, describe

    loop = prepare(config, data, run_dir, key, log)
    loop.watch = watch
    position = loop.run()
    history = position.history
    facts = ModelFacts.of(config, data, models.stain_target(loop.model))
    serving = Serving(
        float32_copy(loop.model, config, data), ImageSize(data.source_size, data.stored_size), data.classes
    )
    weights = moved_prior(config, list(loop.train.split.by_class), list(loop.train.by_class))
    if calibrated is None:
        fitted = calibrate(serving, loop.evaluation, data, config, weights)
    else:
        fitted = calibrated(serving, loop, data, weights)
    result = TrainResult(
        history=history,
        epochs_run=len(history["loss"]),
        seconds=time.monotonic() - started,
        model_dir=run_dir / "model",
        hardware=loop.hardware.describe(),
        parameters=loop.model.count_params(),
        pixels=models.pixels_per_image(loop.model),
        phase_epochs=position.kept,
        **dataclasses.asdict(fitted),
    )
    save(serving, result.model_dir, facts, extra={RESULT: {"key": key, "result": result.to_dict()}})
    log(f"{describe(fitted)}; exported to {result.model_dir}")
    return result


def take_part(config: TrainingConfig, dataset_dir: str | Path, scratch: Path, *, log: Log = lambda line: None) -> None:
    """Trains as a worker of a cluster that is not its chief: nothing is kept here.

    Args:
        config: The recipe.
        dataset_dir: Folder of a committed data set.
        scratch: Local folder.
        log: Takes progress, a line at a time.

    Raises:
        HistolineError: See `train`.
    """
    data = open_dataset(dataset_dir)
    prepare(config, data, scratch, run_key(config, data), log).run()


def run_key(config: TrainingConfig, data: DatasetFiles) -> str:
    """Tells whether a checkpoint or a finished model belongs to this recipe (judged as it may be) and these data."""
    text = f"{config.making_digest()}:{data.manifest.content_digest}:{data.manifest.plan_id}"
    text += f":{data.part}" if data.part else ""
    return hashlib.sha256(text.encode()).hexdigest()


def prepare(config: TrainingConfig, data: DatasetFiles, run_dir: Path, key: str, log: Log) -> Loop | FeatureFit:
    """Reads the data and builds the model and what trains it; the first thing that loads TensorFlow."""
    import keras
    import tensorflow as tf

    from components.training import stain_statistics, workers
    from components.training.fitted_model import training_model
    from components.training.hardware import find_hardware, precision, separate_replicas
    from components.training.input_pipeline import fits, open_split
    from components.training.loop import Loop

    keras.utils.set_random_seed(config.seed)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    hardware = find_hardware(config)
    cache = None
    if hardware.cluster is not None:
        log(f"{hardware.cluster.describe()}: all workers are there")
        # Read from memory an epoch has another order than streamed.
        cache = workers.all_say(hardware.strategy, fits(data, "train"))
    readers = {
        "train": open_split(data, "train", cache=cache, cap=config.max_train_per_class),
        "eval": open_split(data, "eval"),
    }
    log(
        f"{data.name} {data.task}: {sum(readers['train'].by_class):,} patches to train on, "
        f"{readers['eval'].split.count:,} to tune on; {config.model} on {hardware.describe()}"
    )
    sample = (readers["train"].split, data.image_format, readers["train"].size)
    target = stain_statistics.target(*sample, config.stain_normalisation)
    stains = stain_statistics.spreads(*sample, config.stain_augmentation)
    shape = (data.stored_size[1], data.stored_size[0], 3)
    around: dict[str, Any] = {"image_size": config.image_size, "views": config.views, "stain": target}
    if not models.info(config.model).phases:
        from components.training.feature_fit import FeatureFit

        with precision("float32"):  # the served graph's own, so that the head sees its features
            model = models.build(config.model, shape, len(data.classes), config.options, **around)
        return FeatureFit(config, data, model, hardware, readers["train"], readers["eval"], run_dir, key, log)
    with hardware.scope(), precision(hardware.policy):
        model = models.build(config.model, shape, len(data.classes), config.options, **around)
        training = training_model(model, config.augmentation, config.seed, config.mixup, stains)
        if hardware.replicas > 1:
            separate_replicas(training)
    return Loop(config, model, training, hardware, readers["train"], readers["eval"], run_dir, key, log)


def key_of(model_dir: Path) -> str:
    """Which recipe and data an exported model is of, as `run_key` gives it."""
    document = json.loads((model_dir / "assets.extra" / RESULT).read_text(encoding="utf-8"))
    return str(document["key"])
