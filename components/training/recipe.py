"""One frozen, validated object with everything that training does; read from a preset, a file or JSON.

Nothing here loads Keras. Every error names the field, the value, what is allowed and, on a typo, the nearest key.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from typing import Any

from components.core.field_checks import as_number, boolean, choice, known_keys, number, wrong
from components.errors import UsageError
from components.training import augmentation as aug
from components.training import models
from components.training import recipe_parts as parts
from components.training.stain_targets import AUGMENTATIONS, NORMALISATIONS

FORMAT = 1
"""Version of the JSON form; part of the digest."""

FRACTIONS = {"ema": 0.99999, "label_smoothing": 0.5, "focal": 10.0, "mixup": 10.0}
"""Fields that 0 or `none` switches off, with their largest value."""

COUNTS = {"warmup_steps": 0, "min_steps": 0, "steps_per_execution": 1}
"""Fields that hold numbers of steps, with their smallest value."""

OF_STEPS = (
    "phases", "optimizer", "weight_decay", "batchnorm", "ema", "warmup_steps", "min_steps", "label_smoothing", "focal",
    "mixup", "sampling", "early_stopping", "augmentation", "stain_augmentation",
)  # fmt: skip
"""Fields that mean nothing for a model whose head is fitted at once."""


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
        views: Symmetries of each image whose logits evaluation and serving average: 1, 2, 4 or 8; None for the
            model's own number. Under `options` it is read too, where it stood before every model had it.
        stain_normalisation: What training and serving do to stains first (`Reinhard`, `Macenko`): `none`, `reinhard`
            or `macenko`, with a target measured on the training split.
        phases: In order; at least one.
        batch_size: Images per step over all GPUs.
        optimizer: `adam`, `adamw` or `sgd` (Nesterov momentum 0.9).
        weight_decay: Decoupled, of `adamw` and `sgd`; kernels only.
        batchnorm: See `BatchNorm`; `follow` where `options.weights` is none.
        ema: Decay of an exponential moving average of the weights, which is then what is evaluated, kept and
            exported; 0 for none.
        warmup_steps: Steps over which the learning rate rises to its value at the start of each phase.
        min_steps: A phase has as many epochs more as it takes to reach so many steps.
        label_smoothing: Share of the label that is spread over all classes.
        focal: Exponent gamma of the focal loss, which takes weight from what is classified well; 0 for none.
        mixup: Alpha of mixup: training images and labels are blended pairwise, by shares from Beta(alpha, alpha);
            0 for none.
        class_weights: `balanced` weighs each class by the inverse of its share of training patches.
        sampling: `balanced` draws classes equally often; not together with class weights.
        max_train_per_class: See `ClassCap`.
        early_stopping: See `EarlyStopping`.
        augmentation: See `Augmentation`.
        stain_augmentation: Random stains in training (`RandomStain`), drawn in `lab`, in `hed`, or in either of
            `both`; `none` for none.
        mixed_precision: `auto` (on a GPU only), `on` or `off`.
        xla: Whether steps are compiled: `auto` (on one GPU, unless `deterministic`), `on` (one device) or `off`.
        steps_per_execution: Steps that are handed to the device at once.
        seed: Of initial weights, shuffling, dropout and augmentation.
        deterministic: Same seed, same weights, at some cost in speed.
        threshold: How the operating point is chosen on eval: `max_balanced_accuracy`, `f1`, `youden` or
            `sensitivity=X`; binary only.
        floors: Bounds of the Evaluator by metric (`FLOORS`); a ceiling where `LOWER_IS_BETTER`.
        gate: See `Gate`.
        decision: What the gate decides by: the one test `split`, or `folds` by patient, of which each tests with a
            model that trained on the others.
        folds: How many, for `decision: folds`.
        holdout: `test` keeps the data set's test split out of all folds, to measure the served model on; or `none`.
        serve: What is served after folds: the `mean` of their models, or one `refit` on everyone.
        ensemble: Runs whose models are averaged, in place of training, where `model` is `ensemble`.
    """

    title: str = ""
    dataset: str = ""
    task: str = "binary"
    model: str = "cnn_105k"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    image_size: tuple[int, int] | None = None
    views: int | None = None
    stain_normalisation: str = "none"
    phases: tuple[parts.Phase, ...] = (parts.Phase(),)
    batch_size: int = 64
    optimizer: str = "adam"
    weight_decay: float = 0.0
    batchnorm: parts.BatchNorm = parts.BatchNorm()
    ema: float = 0.0
    warmup_steps: int = 0
    min_steps: int = 0
    label_smoothing: float = 0.0
    focal: float = 0.0
    mixup: float = 0.0
    class_weights: str = "none"
    sampling: str = "none"
    max_train_per_class: parts.ClassCap = parts.ClassCap()
    early_stopping: parts.EarlyStopping = parts.EarlyStopping()
    augmentation: aug.Augmentation = aug.Augmentation()
    stain_augmentation: str = "none"
    mixed_precision: str = "auto"
    xla: str = "auto"
    steps_per_execution: int = 1
    seed: int = 0
    deterministic: bool = False
    threshold: str = "max_balanced_accuracy"
    floors: Mapping[str, float] = dataclasses.field(default_factory=dict)
    gate: parts.Gate = parts.Gate()
    decision: str = "split"
    folds: int = 5
    holdout: str = "none"
    serve: str = "mean"
    ensemble: tuple[parts.Member, ...] = ()

    def __post_init__(self) -> None:
        """Checks every field and brings it to its final type; raises UsageError."""

        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name in ("title", "dataset"):
            if not isinstance(getattr(self, name), str):
                raise wrong(name, getattr(self, name), "text")
        choice("task", self.task, parts.TASKS)
        entry = models.info(self.model)
        options, views = parts.views(self.options, self.views, entry.views)
        put("views", views)
        put("options", entry.check_options(options))
        models.check_weights(self.model, self.options)
        for name, words in (("stain_normalisation", NORMALISATIONS), ("stain_augmentation", AUGMENTATIONS)):
            put(name, choice(name, getattr(self, name) or "none", words))
        if self.image_size is not None:
            put("image_size", parts.image_size(self.image_size))
            models.check_size(entry, self.image_size)
        put("phases", parts.phases(self.phases))
        put("batch_size", number("batch_size", self.batch_size, 1, 65_536, integer=True))
        choice("optimizer", self.optimizer, parts.OPTIMIZERS)
        put("weight_decay", number("weight_decay", as_number(self.weight_decay), 0, 1))
        if self.weight_decay and self.optimizer == "adam":
            raise wrong("weight_decay", self.weight_decay, "0 with the optimizer adam", "Set optimizer to adamw.")
        put("batchnorm", parts.BatchNorm.read(parts.plain(self.batchnorm)))
        if self.batchnorm.mode == "frozen" and self.options["weights"] == "none":
            put("batchnorm", parts.BatchNorm())  # without weights to start from there are no statistics to keep
        for name, high in FRACTIONS.items():
            given = getattr(self, name)
            put(name, number(name, 0 if given in (None, "none") else as_number(given), 0, high))
        for name, low in COUNTS.items():
            put(name, number(name, getattr(self, name), low, 10**6, integer=True))
        put("max_train_per_class", parts.ClassCap.read(parts.plain(self.max_train_per_class)))
        for name in ("class_weights", "sampling"):
            put(name, choice(name, getattr(self, name) or "none", ("none", "balanced")))
        if self.class_weights == self.sampling == "balanced":
            raise wrong("class_weights", "balanced", "none where sampling is balanced: both would correct twice")
        put("early_stopping", parts.EarlyStopping.read(parts.plain(self.early_stopping), self.task))
        put("augmentation", aug.from_value(self.augmentation))
        # YAML 1.1 reads a bare on or off as a truth value.
        for name in ("mixed_precision", "xla"):
            value: Any = getattr(self, name)
            word = ("off", "on")[bool(value)] if value in (True, False) else value
            put(name, choice(name, word, ("auto", "off", "on")))
        put("seed", number("seed", self.seed, 0, 2**31 - 1, integer=True))
        boolean("deterministic", self.deterministic)
        put("threshold", parts.threshold(self.threshold))
        put("floors", parts.floors(self.floors, self.task))
        put("gate", parts.Gate.read(parts.plain(self.gate)))
        for name, allowed in parts.DECISION.items():
            put(name, choice(name, getattr(self, name) or allowed[0], allowed))
        put("folds", number("folds", self.folds, 2, parts.MOST_FOLDS, integer=True))
        if self.decision == "split" and self.holdout == "test":
            raise wrong("holdout", "test", "none where decision is split: its test split is always held out")
        if not entry.phases:
            defaults = {field.name: field.default for field in dataclasses.fields(self)}
            for name in OF_STEPS:
                if getattr(self, name) != defaults[name]:
                    raise wrong(
                        name, parts.plain(getattr(self, name)), f"left out: the head of {self.model} is fitted at once"
                    )
        put("ensemble", parts.members(self.ensemble, self.model))
        if self.ensemble and self.decision == "folds":
            raise wrong("decision", "folds", "split for an ensemble: its members have each seen most of the folds")

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
            moved = dataclasses.replace(self.augmentation, flip=False, rotate90=False)
            aug.check_label_region(moved, seen_height, seen_width, seen, crop=int(self.options["crop"]))

    def to_dict(self) -> dict[str, Any]:
        """Plain mappings and lists, every field written out; `from_dict` reads them back."""
        out = dataclasses.asdict(self)
        for name in ("phases", "ensemble"):
            out[name] = list(out[name])
        out["image_size"] = list(self.image_size) if self.image_size else None
        out["format"] = FORMAT
        return out

    def to_json(self) -> str:
        """Canonical JSON: sorted keys, every field."""
        return json.dumps(self.to_dict(), sort_keys=True, allow_nan=False)

    def digest(self) -> str:
        """SHA-256 over what changes the outcome: all but the title; files count by their content.

        Raises:
            UsageError: A file is gone.
        """
        tree = self.to_dict()
        del tree["title"]
        tree["options"] |= models.fingerprints(self.model, self.options)
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    def making_digest(self) -> str:
        """SHA-256 over what makes the model: not its title, nor how it is judged (`gate`, `floors`).

        Raises:
            UsageError: A file is gone.
        """
        default = TrainingConfig()
        return dataclasses.replace(self, gate=default.gate, floors=default.floors).digest()

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
