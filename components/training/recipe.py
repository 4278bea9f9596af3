"""One frozen, validated object with everything that training does; read from a preset, a file or JSON.

Nothing here loads Keras. Every error names the field, the value, what is allowed and, on a typo, the nearest key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from components.core.field_checks import as_number, boolean, choice, known_keys, number, wrong
from components.errors import UsageError
from components.metrics.threshold_criterion import sensitivity_target
from components.training import augmentation as aug
from components.training import models

FORMAT = 1
"""Version of the JSON form; part of the digest."""

TASKS = ("binary", "subtype")
OPTIMIZERS = ("adam", "adamw", "sgd")
FLOORS = {
    "binary": {"auc": (0.0, 1.0), "pr_auc": (0.0, 1.0), "log_loss": (0.0, 10.0)},
    "subtype": {"accuracy": (0.0, 1.0), "log_loss": (0.0, 10.0)},
}
"""Metrics that the Evaluator can put a bound on, with the bound's range."""

LOWER_IS_BETTER = frozenset({"log_loss"})
"""For these a floor is the largest value that passes, for all others the smallest."""

POLICIES = ("max_balanced_accuracy", "f1", "youden")
SCHEDULES = ("constant", "cosine", "exponential")
MONITORS = {
    "binary": ("val_auc", "val_loss", "val_accuracy"),
    "subtype": ("val_macro_f1", "val_loss", "val_accuracy"),
}
"""What early stopping may watch, per task; the first is the gate's primary metric."""


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training with one optimizer.

    Attributes:
        epochs: How many.
        learning_rate: At its start; 0 trains nothing but moving statistics.
        schedule: `constant`, or falling to 1 % of the rate at the phase's end: `cosine` or `exponential`.
        trainable: `all`, `head`, or a number N: the head and the last N layers before it that hold weights.
    """

    epochs: int = 1
    learning_rate: float = 1e-3
    schedule: str = "constant"
    trainable: str | int = "all"

    @classmethod
    def read(cls, where: str, given: Any) -> Phase:
        """Checks one element of `phases`; raises UsageError."""
        f = known_keys(where, given, {x.name for x in dataclasses.fields(cls)})
        trainable = f.get("trainable", "all")
        last = re.fullmatch(r"(?:last )?(\d+)", str(trainable))
        if last:
            trainable = number(f"{where}.trainable", int(last[1]), 1, 10_000, integer=True)
        elif trainable not in ("all", "head"):
            raise wrong(f"{where}.trainable", trainable, "head, all, or the number of last layers (`last 20` or 20)")
        return cls(
            epochs=number(f"{where}.epochs", f.get("epochs", 1), 1, 10_000, integer=True),
            learning_rate=number(f"{where}.learning_rate", as_number(f.get("learning_rate", 1e-3)), 0, 10),
            schedule=choice(f"{where}.schedule", f.get("schedule", "constant"), SCHEDULES),
            trainable=trainable,
        )


@dataclasses.dataclass(frozen=True)
class EarlyStopping:
    """Ends a phase early and goes back to its best epoch.

    Attributes:
        monitor: What is watched on the eval split, one of `MONITORS`; empty means no early stopping.
        patience: Epochs without a better value before the phase ends.
    """

    monitor: str = ""
    patience: int = 3

    @classmethod
    def read(cls, given: Any, task: str) -> EarlyStopping:
        """Checks the field `early_stopping`; nothing or `none` switches it off; raises UsageError."""
        if given in (None, "none", False):
            return cls()
        f = known_keys("early_stopping", given, {"monitor", "patience"})
        monitor = f.get("monitor", "")
        return cls(
            monitor=choice("early_stopping.monitor", monitor, MONITORS[task]) if monitor else "",
            patience=number("early_stopping.patience", f.get("patience", 3), 1, 1000, integer=True),
        )

    @property
    def mode(self) -> str:
        """`min` or `max`: which values of the monitor are better."""
        return "min" if self.monitor == "val_loss" else "max"


@dataclasses.dataclass(frozen=True)
class Gate:
    """How a candidate is compared with the champion.

    Attributes:
        policy: `better` (lower bound above 0) or `non-inferior` (lower bound above -margin).
        margin: Of non-inferiority, in units of the primary metric.
        n_resamples: Paired resamples of patients.
    """

    policy: str = "better"
    margin: float = 0.01
    n_resamples: int = 2000

    @classmethod
    def read(cls, given: Any) -> Gate:
        """Checks the field `gate`; raises UsageError."""
        f = known_keys("gate", given or {}, {x.name for x in dataclasses.fields(cls)})
        return cls(
            policy=choice("gate.policy", f.get("policy", cls.policy), ("better", "non-inferior")),
            margin=number("gate.margin", as_number(f.get("margin", cls.margin)), 0, 0.2),
            n_resamples=number("gate.n_resamples", f.get("n_resamples", cls.n_resamples), 200, 100_000, integer=True),
        )


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """Everything that training, evaluation and gate need to know of a recipe.

    Attributes:
        title: One line for people.
        dataset: Data set that the recipe was made for, empty for any.
        task: `binary` or `subtype`.
        model: Name in the registry.
        options: Of the model, complete (`ModelInfo.options`).
        image_size: (height, width) to which the model resizes stored images; None: as stored.
        phases: In order; at least one.
        batch_size: Images per step over all GPUs.
        optimizer: `adam`, `adamw` or `sgd` (Nesterov momentum 0.9).
        weight_decay: Decoupled, of `adamw` and `sgd`; kernels only.
        label_smoothing: Share of the label that is spread over all classes.
        class_weights: `balanced` weighs each class by the inverse of its share of training patches.
        sampling: `balanced` draws classes equally often; not together with class weights.
        early_stopping: See `EarlyStopping`.
        augmentation: See `Augmentation`.
        mixed_precision: `auto` (on a GPU only), `on` or `off`.
        xla: Whether steps are compiled: `auto` (on one GPU, unless `deterministic`), `on` (one device) or `off`.
        seed: Of initial weights, shuffling, dropout and augmentation.
        deterministic: Same seed, same weights, at some cost in speed.
        threshold: How the operating point is chosen on eval: `max_balanced_accuracy`, `f1`, `youden` or
            `sensitivity=X`; binary only.
        floors: Bounds of the Evaluator by metric (`FLOORS`); a ceiling where `LOWER_IS_BETTER`.
        gate: See `Gate`.
    """

    title: str = ""
    dataset: str = ""
    task: str = "binary"
    model: str = "cnn_105k"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    phases: tuple[Phase, ...] = (Phase(),)
    batch_size: int = 64
    optimizer: str = "adam"
    weight_decay: float = 0.0
    label_smoothing: float = 0.0
    class_weights: str = "none"
    sampling: str = "none"
    early_stopping: EarlyStopping = EarlyStopping()
    augmentation: aug.Augmentation = aug.Augmentation()
    mixed_precision: str = "auto"
    xla: str = "auto"
    seed: int = 0
    deterministic: bool = False
    threshold: str = "max_balanced_accuracy"
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gate: Gate = Gate()

    def __post_init__(self) -> None:
        """Checks every field and brings it to its final type; raises UsageError."""

        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("title", "dataset"):
            if not isinstance(getattr(self, name), str):
                raise wrong(name, getattr(self, name), "text")
        choice("task", self.task, TASKS)
        entry = models.info(self.model)
        put("options", entry.check_options(self.options))
        if self.image_size is not None:
            put("image_size", _image_size(self.image_size))
            models.check_size(entry, self.image_size)
        put("phases", _phases(self.phases))
        put("batch_size", number("batch_size", self.batch_size, 1, 65_536, integer=True))
        choice("optimizer", self.optimizer, OPTIMIZERS)
        put("weight_decay", number("weight_decay", as_number(self.weight_decay), 0, 1))
        if self.weight_decay and self.optimizer == "adam":
            raise wrong("weight_decay", self.weight_decay, "0 with the optimizer adam", "Set optimizer to adamw.")
        put("label_smoothing", number("label_smoothing", as_number(self.label_smoothing), 0, 0.5))
        for name in ("class_weights", "sampling"):
            put(name, choice(name, getattr(self, name) or "none", ("none", "balanced")))
        if self.class_weights == self.sampling == "balanced":
            raise wrong("class_weights", "balanced", "none where sampling is balanced: both would correct twice")
        put("early_stopping", EarlyStopping.read(_plain(self.early_stopping), self.task))
        put("augmentation", aug.from_value(self.augmentation))
        # YAML 1.1 reads a bare on or off as a truth value.
        for name in ("mixed_precision", "xla"):
            given: Any = getattr(self, name)
            word = ("off", "on")[bool(given)] if given in (True, False) else given
            put(name, choice(name, word, ("auto", "off", "on")))
        put("seed", number("seed", self.seed, 0, 2**31 - 1, integer=True))
        boolean("deterministic", self.deterministic)
        put("threshold", _threshold(self.threshold))
        put("floors", _floors(self.floors, self.task))
        put("gate", Gate.read(_plain(self.gate)))

    @property
    def epochs(self) -> int:
        """Epochs of all phases."""
        return sum(phase.epochs for phase in self.phases)

    def check_data(
        self, dataset: str, task: str, height: int, width: int, region: tuple[int, int, int, int] | None
    ) -> None:
        """Checks the recipe against the data set that it is to train on.

        Args:
            dataset: Name of the data set.
            task: Task of the ingested data set.
            height: Of the stored images, in pixels.
            width: Likewise.
            region: The adapter's label_region in stored pixels, None for the whole image.

        Raises:
            UsageError: Another data set or task, images too small for the model, or an augmentation or crop that
                could move the label's region out of the image.
        """
        if self.dataset not in ("", dataset):
            raise wrong("dataset", self.dataset, f"{dataset}, which is to be trained on", "Choose another preset.")
        if self.task != task:
            raise wrong("task", self.task, f"{task}, under which {dataset} was ingested", "Choose another preset.")
        seen_height, seen_width = self.image_size or (height, width)
        models.check_size(models.info(self.model), (seen_height, seen_width))
        aug.check_label_region(self.augmentation, height, width, region)
        if region and "crop" in self.options:
            scale_x, scale_y = seen_width / width, seen_height / height
            left, top, wide, high = region
            right, bottom = -int(-(left + wide) * scale_x // 1), -int(-(top + high) * scale_y // 1)
            left, top = int(left * scale_x), int(top * scale_y)
            seen = (left, top, right - left, bottom - top)
            aug.check_label_region(aug.Augmentation(), seen_height, seen_width, seen, crop=int(self.options["crop"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain mappings and lists, every field written out; `from_dict` reads them back."""
        out = dataclasses.asdict(self)
        out["phases"] = list(out["phases"])
        out["image_size"] = list(self.image_size) if self.image_size else None
        out["format"] = FORMAT
        return out

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, every field."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    def digest(self) -> str:
        """SHA-256 over what changes the outcome: all but the title; a weights file counts by its content.

        Raises:
            UsageError: The weights file is gone.
        """
        tree = self.to_dict()
        del tree["title"]
        tree["options"]["weights"] = models.fingerprint(str(self.options["weights"]))
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @classmethod
    def from_dict(cls, given: Any) -> TrainingConfig:
        """Reads what `to_dict` or a YAML file gives.

        Raises:
            UsageError: Unknown fields or values, or written by another version.
        """
        fields = known_keys("", given, {"format", *(f.name for f in dataclasses.fields(cls))})
        if fields.pop("format", FORMAT) != FORMAT:
            raise UsageError(f"this configuration has format {given['format']!r}; this version reads {FORMAT}.")
        return cls(**fields)

    @classmethod
    def from_json(cls, text: str) -> TrainingConfig:
        """Reads what `to_json` wrote.

        Raises:
            UsageError: Not JSON, or not a valid configuration.
        """
        try:
            return cls.from_dict(json.loads(text))
        except json.JSONDecodeError as error:
            raise UsageError(f"the training configuration is not JSON ({error}).") from error


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _phases(given: Any) -> tuple[Phase, ...]:
    if not isinstance(given, (list, tuple)) or not given:
        raise wrong("phases", given, "a list of at least one phase, such as [{epochs: 3, learning_rate: 0.001}]")
    return tuple(Phase.read(f"phases.{i}", _plain(phase)) for i, phase in enumerate(given))


def _image_size(given: Any) -> tuple[int, int]:
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise wrong("image_size", given, "[height, width] in pixels, or null for images as stored")
    high, wide = (number(f"image_size.{i}", side, 8, 4096, integer=True) for i, side in enumerate(given))
    return high, wide


def _threshold(given: Any) -> str:
    target = sensitivity_target(str(given).replace(" ", ""))
    if target is not None:
        return f"sensitivity={target:g}"
    if str(given).startswith("sensitivity"):
        raise wrong("threshold", given, "sensitivity=X with X above 0 and at most 1, such as sensitivity=0.95")
    return choice("threshold", given, POLICIES)


def _floors(given: Any, task: str) -> dict[str, float]:
    floors = known_keys("floors", given or {}, FLOORS[task])
    return {k: number(f"floors.{k}", as_number(floors[k]), *FLOORS[task][k]) for k in sorted(floors)}
