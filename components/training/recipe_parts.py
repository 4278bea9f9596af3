"""The parts of a recipe, each checked where it is read: phases, early stopping, the gate's policy, bounds.

Nothing here loads Keras. Every error names the field, the value, what is allowed and, on a typo, the nearest key.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from components.core.field_checks import as_number, choice, known_keys, number, wrong
from components.metrics.threshold_criterion import sensitivity_target

TASKS = ("binary", "subtype")
OPTIMIZERS = ("adam", "adamw", "sgd")
TFMA_FLOORS = {
    "binary": {"auc": (0.0, 1.0), "pr_auc": (0.0, 1.0), "log_loss": (0.0, 10.0)},
    "subtype": {"accuracy": (0.0, 1.0), "log_loss": (0.0, 10.0)},
}
"""Metrics that TFMA's Evaluator can put a bound on, with the bound's range."""

OWN_FLOORS = {
    "binary": {"balanced_accuracy": (0.0, 1.0), "accuracy_over_majority": (0.0, 1.0)},
    "subtype": {"macro_f1": (0.0, 1.0), "balanced_accuracy": (0.0, 1.0), "accuracy_over_majority": (0.0, 1.0)},
}
"""Metrics that are bounded on our own figures, as TFMA has none at a model's own threshold or by argmax."""

FLOORS = {task: {**TFMA_FLOORS[task], **OWN_FLOORS[task]} for task in TASKS}
"""All that a recipe can put a bound on."""

LOWER_IS_BETTER = frozenset({"log_loss"})
"""For these a floor is the largest value that passes, for all others the smallest."""

DECISION = {"decision": ("split", "folds"), "holdout": ("none", "test"), "serve": ("mean", "refit")}
"""Fields that say what the gate decides by, each with its words; the first is the default."""

MOST_FOLDS = 20
POLICIES = ("max_balanced_accuracy", "f1", "youden")
VIEWS = (1, 2, 4, 8)
SCHEDULES = ("constant", "cosine", "exponential")
BATCHNORM_MODES = ("follow", "frozen")
REDRAWS = ("epoch", "never")
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


GATE_POLICIES = ("better", "non-inferior", "auto")
GATE_BASELINES = ("better", "non-inferior", "report")


@dataclasses.dataclass(frozen=True)
class BatchNorm:
    """What thawed BatchNormalization layers of a model's body do in training; frozen layers always keep everything.

    Attributes:
        mode: `follow` normalises by each batch and moves the statistics; `frozen` normalises by the statistics that
            the weights came with, while scale and offset still learn.
        momentum: Share of the old statistics that a step keeps under `follow`; None: what the model was built with.
    """

    mode: str = "follow"
    momentum: float | None = None

    @classmethod
    def read(cls, given: Any) -> BatchNorm:
        """Checks the field `batchnorm`, a mode or a mapping; raises UsageError."""
        if isinstance(given, str) or given is None:
            given = {"mode": given or cls.mode}
        f = known_keys("batchnorm", given, {"mode", "momentum"})
        mode = choice("batchnorm.mode", f.get("mode", cls.mode), BATCHNORM_MODES)
        momentum = f.get("momentum")
        if momentum is None:
            return cls(mode)
        if mode == "frozen":
            raise wrong("batchnorm.momentum", momentum, "nothing where batchnorm is frozen: no statistics move")
        return cls(mode, number("batchnorm.momentum", as_number(momentum), 0.5, 0.9999))


@dataclasses.dataclass(frozen=True)
class ClassCap:
    """How many training patches of each class are used; eval and test stay whole.

    Attributes:
        count: Of each class, spread evenly over patients; 0 means all.
        redraw: `epoch` draws anew for every epoch, `never` draws once for the whole run.
    """

    count: int = 0
    redraw: str = "epoch"

    @classmethod
    def read(cls, given: Any) -> ClassCap:
        """Checks the field `max_train_per_class`, a number or a mapping; raises UsageError."""
        if given in (None, "none", False):
            return cls()
        f = known_keys(
            "max_train_per_class", {"count": given} if isinstance(given, (int, float)) else given, {"count", "redraw"}
        )
        return cls(
            number("max_train_per_class.count", f.get("count", 0), 0, 10**9, integer=True),
            choice("max_train_per_class.redraw", f.get("redraw", cls.redraw), REDRAWS),
        )


@dataclasses.dataclass(frozen=True)
class Gate:
    """How a candidate is compared with the champion and with the colour baseline.

    Attributes:
        policy: `better` (lower bound above 0), `non-inferior` (lower bound above -margin), or `auto`: `non-inferior`
            where recipe and code are the champion's and the training patients all of its own and more, else `better`.
        margin: Of non-inferiority, in units of the primary metric.
        baseline: `better` or `non-inferior` likewise, against the colour baseline; `report` decides nothing.
        n_resamples: Paired resamples of patients.
    """

    policy: str = "better"
    margin: float = 0.01
    baseline: str = "better"
    n_resamples: int = 2000

    @classmethod
    def read(cls, given: Any) -> Gate:
        """Checks the field `gate`; raises UsageError."""
        f = known_keys("gate", given or {}, {x.name for x in dataclasses.fields(cls)})
        return cls(
            policy=choice("gate.policy", f.get("policy", cls.policy), GATE_POLICIES),
            margin=number("gate.margin", as_number(f.get("margin", cls.margin)), 0, 0.2),
            baseline=choice("gate.baseline", f.get("baseline", cls.baseline), GATE_BASELINES),
            n_resamples=number("gate.n_resamples", f.get("n_resamples", cls.n_resamples), 200, 100_000, integer=True),
        )


@dataclasses.dataclass(frozen=True)
class Member:
    """A run whose model is part of an ensemble.

    Attributes:
        run_id: RUN_ID, of the same data set and task.
        model: Digest of its exported model; empty until the recipe is settled.
    """

    run_id: str
    model: str = ""

    @classmethod
    def read(cls, where: str, given: Any) -> Member:
        """Checks one element of `ensemble`, a RUN_ID or a mapping; raises UsageError."""
        f = known_keys(where, {"run_id": given} if isinstance(given, str) else plain(given), {"run_id", "model"})
        run_id, model = f.get("run_id", ""), f.get("model", "")
        if not isinstance(run_id, str) or not run_id:
            raise wrong(where, given, "the RUN_ID of a run")
        return cls(run_id, str(model))


def members(given: Any, model: str) -> tuple[Member, ...]:
    """Checks the field `ensemble`; raises UsageError."""
    if given in (None, "none", (), []):
        if model == "ensemble":
            raise wrong("ensemble", given, "a list of at least two RUN_IDs where model is ensemble")
        return ()
    found = [Member.read(f"ensemble.{i}", m) for i, m in enumerate(given)] if isinstance(given, (list, tuple)) else []
    if len(found) < 2 or len({m.run_id for m in found}) < len(found):
        raise wrong("ensemble", given, "a list of at least two different RUN_IDs")
    if model != "ensemble":
        raise wrong("model", model, "ensemble where the recipe names the runs of one")
    return tuple(found)


def plain(value: Any) -> Any:
    """A part as the mapping that its `read` takes; anything else as it is."""
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def phases(given: Any) -> tuple[Phase, ...]:
    """Checks the field `phases`; raises UsageError."""
    if not isinstance(given, (list, tuple)) or not given:
        raise wrong("phases", given, "a list of at least one phase, such as [{epochs: 3, learning_rate: 0.001}]")
    return tuple(Phase.read(f"phases.{i}", plain(phase)) for i, phase in enumerate(given))


def image_size(given: Any) -> tuple[int, int]:
    """Checks the field `image_size`; raises UsageError."""
    if not isinstance(given, (list, tuple)) or len(given) != 2:
        raise wrong("image_size", given, "[height, width] in pixels, or null for images as stored")
    high, wide = (number(f"image_size.{i}", side, 8, 4096, integer=True) for i, side in enumerate(given))
    return high, wide


def views(options: Any, given: Any, default: int) -> tuple[Any, int]:
    """Checks the field `views`.

    Args:
        options: The field `options`, unchecked; `views` may still stand there.
        given: The field `views`.
        default: The model's own number.

    Returns:
        (the options without it, how many).

    Raises:
        UsageError: No such number, or two that disagree.
    """
    field = "views"
    if isinstance(options, Mapping) and "views" in options:
        older = options["views"]
        if given is not None and as_number(older) != as_number(given):
            raise wrong("options.views", older, f"left out: views is {given}", "Set views only; every model has it.")
        field, given = "options.views", older
        options = {name: value for name, value in options.items() if name != "views"}
    number_of = default if given is None else as_number(given)
    if isinstance(number_of, bool) or number_of not in VIEWS:
        raise wrong(field, given, f"one of {', '.join(map(str, VIEWS))}")
    return options, int(number_of)


def threshold(given: Any) -> str:
    """Checks the field `threshold`; raises UsageError."""
    target = sensitivity_target(str(given).replace(" ", ""))
    if target is not None:
        return f"sensitivity={target:g}"
    if str(given).startswith("sensitivity"):
        raise wrong("threshold", given, "sensitivity=X with X above 0 and at most 1, such as sensitivity=0.95")
    return choice("threshold", given, POLICIES)


def floors(given: Any, task: str) -> dict[str, float]:
    """Checks the field `floors`; raises UsageError."""
    found = known_keys("floors", given or {}, FLOORS[task])
    return {k: number(f"floors.{k}", as_number(found[k]), *FLOORS[task][k]) for k in sorted(found)}
