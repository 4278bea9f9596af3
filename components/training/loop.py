"""The epochs of a run: phases, early stopping, a checkpoint after every epoch, TensorBoard."""

from __future__ import annotations

import dataclasses
import io
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from components.core.array_types import Array
from components.errors import DataError, UsageError
from components.training import checkpoints, phases, workers
from components.training.callbacks import EpochCallbacks, EpochLine, NanGuard, SeedPerEpoch
from components.training.checkpoints import Position
from components.training.epoch_summaries import write_summaries
from components.training.fitted_model import FittedModel
from components.training.hardware import Hardware
from components.training.input_pipeline import Reader
from components.training.objectives import class_weights
from components.training.recipe import TrainingConfig
from components.training.weight_average import EvaluateAverage, WeightAverage

EXPONENT_LIMIT = 1e30
"""An early-stopping value beyond this is no measurement."""


@dataclasses.dataclass
class Loop:
    """One training run.

    Attributes:
        config: The recipe.
        model: From the registry; what is exported.
        training: What is fitted: augmentation and `model`.
        hardware: Where it runs.
        train: The training split.
        evaluation: The eval split.
        run_dir: Gets checkpoints/ and tensorboard/.
        key: Of recipe and data, see `checkpoints.Position`.
        log: Takes progress.
        watch: Told after each epoch where training stands, and the epochs of all phases; may end it by raising.
    """

    config: TrainingConfig
    model: keras.Model
    training: FittedModel
    hardware: Hardware
    train: Reader
    evaluation: Reader
    run_dir: Path
    key: str
    log: Callable[[str], None]
    watch: Callable[[Position, int], None] | None = None

    def run(self) -> Position:
        """Trains all phases from where the run stands; the model then holds the weights to export.

        Raises:
            DataError: A loss or monitored value that is no number.
        """
        saved = self._shared(lambda: checkpoints.latest(self.folder, self.key))
        if saved is not None and saved.position.key != self.key:
            raise UsageError(
                "The chief trains with other data or another recipe than this worker.",
                "Start the same command with the same installation on every machine.",
            )
        if saved is None:
            checkpoints.clear(self.folder)
            position = Position(self.key)
        else:
            position = saved.position
            self.log(f"going on after epoch {position.epoch} of {self.epochs}")
        while position.phase < len(self.config.phases):
            self._compile(position.phase)
            if saved is not None:
                self._restore(saved)
                saved = None
            guard = NanGuard(position.epoch - position.phase_epoch)
            while not self._over(position):
                position = self._epoch(position, guard)
            position = self._end_phase(position)
        return position

    def _shared(self, find: Callable[[], checkpoints.Saved | None]) -> checkpoints.Saved | None:
        """A checkpoint; with several workers the chief looks for it and tells the others."""
        if self.hardware.cluster is None:
            return find()
        saved = find() if self.hardware.writes else None
        data = checkpoints.file_of(self.folder, saved.position.epoch).read_bytes() if saved is not None else None
        received = workers.broadcast(self.hardware.strategy, data)
        return None if received is None else checkpoints.parse(io.BytesIO(received))

    @property
    def folder(self) -> Path:
        """Where checkpoints lie."""
        return self.run_dir / "checkpoints"

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return self.train.steps(self.config.batch_size)

    @property
    def epochs(self) -> int:
        """Of all phases, with these data."""
        return sum(self.phase_epochs(index) for index in range(len(self.config.phases)))

    def phase_epochs(self, index: int) -> int:
        """Of one phase, with these data."""
        return phases.phase_epochs(self.config, self.config.phases[index], self.steps)

    def _compile(self, index: int) -> None:
        with self.hardware.scope():
            learnt = phases.compile_phase(
                self.model, self.training, self.config, index,
                steps_per_epoch=self.steps, jit_compile=self.hardware.jit_compile, scaled=self.hardware.scaled,
                steps_per_execution=self.hardware.steps_at_once(self.config),
            )  # fmt: skip
            self.training.optimizer.build(self.training.trainable_variables)
            if self.hardware.cluster is not None:
                workers.make_fittable(self.hardware.strategy, self.training, self.train.size.shape)
            if self.config.ema and self.training.average is None:
                self.training.average = WeightAverage(self.model, self.config.ema)
        self.log(
            f"phase {index + 1}/{len(self.config.phases)}: {self.phase_epochs(index)} epochs, "
            f"{learnt.parameters:,} parameters in {learnt.layers} layers learn, {learnt.frozen} layers are frozen"
        )

    def _epoch(self, position: Position, guard: NanGuard) -> Position:
        """Fits one epoch; an epoch of its own has a last execution of steps that is as short as it must be."""
        config = self.config
        batches = self.train.training(
            config.batch_size,
            config.seed,
            epochs=range(position.epoch, position.epoch + 1),
            balanced=config.sampling == "balanced",
        )
        evaluation = self.evaluation.evaluation(config.batch_size)
        weights, looks = class_weights(config, list(self.train.by_class)), None
        if self.hardware.cluster is not None:
            batches = workers.own_part(self.hardware.strategy, batches, weights)
            evaluation, weights = workers.whole(self.hardware.strategy, evaluation), None
            looks = -(-self.evaluation.split.count // config.batch_size)
        begun = time.perf_counter()
        fitted = self.training.fit(
            batches,
            initial_epoch=position.phase_epoch,
            epochs=position.phase_epoch + 1,
            steps_per_epoch=self.steps,
            validation_data=evaluation,
            validation_steps=looks,
            class_weight=weights,
            verbose=0,
            callbacks=EpochCallbacks(self._callbacks(position, guard), self.training),
        )
        logs = {name: values[-1] for name, values in fitted.history.items()}
        return self.note(position, logs, time.perf_counter() - begun)

    def _callbacks(self, position: Position, guard: NanGuard) -> list[keras.callbacks.Callback]:
        config, first = self.config, position.epoch - position.phase_epoch
        average = self.training.average
        return [
            SeedPerEpoch(config.seed, first),
            guard,
            *([EvaluateAverage(average)] if average is not None else []),
            EpochLine(
                self.steps * config.batch_size, self.epochs,
                phases=len(config.phases), phase=position.phase, first_epoch=first, emit=self.log,
            ),
        ]  # fmt: skip

    def _over(self, position: Position) -> bool:
        """Whether a phase has had all its epochs, or has waited long enough for a better one."""
        stopping = self.config.early_stopping
        tired = bool(stopping.monitor) and position.waited >= stopping.patience
        long = position.phase_epoch * self.steps >= self.config.min_steps
        return position.phase_epoch >= self.phase_epochs(position.phase) or (tired and long)

    def _end_phase(self, position: Position) -> Position:
        if position.best_epoch and position.best_epoch != position.epoch:
            self.log(
                f"back to epoch {position.best_epoch}: {self.config.early_stopping.monitor} {position.best_value:.4f}"
            )
            best = self._shared(lambda: checkpoints.load(self.folder, position.best_epoch))
            assert best is not None
            self._restore(best, optimizer=False)
        if self.training.average is not None:
            self.training.average.keep()
            self.training.average.start()
        # The best so far stays the one to beat: a first epoch of fine-tuning is not better for being the first.
        first = position.epoch - position.phase_epoch
        kept = max(0, position.best_epoch - first) if position.best_epoch else position.phase_epoch
        following = dataclasses.replace(
            position, phase=position.phase + 1, phase_epoch=0, kept=[*position.kept, kept]
        )
        if following.phase < len(self.config.phases):
            # Written only where another phase follows, with its weights to start from: the last phase's own
            # checkpoint stays, from which a run that was killed before the export finds its best epoch again.
            self._save(following, optimizer=False)
        return following

    def note(self, position: Position, logs: dict[str, float], seconds: float) -> Position:
        """Takes an epoch's figures into the position, then writes TensorBoard and the checkpoint."""
        history = {name: list(values) for name, values in position.history.items()}
        rate = float(np.asarray(self.training.optimizer.learning_rate))
        for name, value in {**logs, "learning_rate": rate, "seconds": seconds}.items():
            history.setdefault(name, []).append(float(value))
        position = dataclasses.replace(
            position, epoch=position.epoch + 1, phase_epoch=position.phase_epoch + 1, history=history
        )
        position = self._judge(position, logs)
        if self.hardware.writes:
            write_summaries(self.run_dir, position.epoch, logs, rate)
        self._save(position)
        if self.watch is not None:
            self.watch(position, self.epochs)
        return position

    def _judge(self, position: Position, logs: dict[str, float]) -> Position:
        stopping = self.config.early_stopping
        if not stopping.monitor:
            return position
        value = float(logs[stopping.monitor])
        if not math.isfinite(value) or abs(value) > EXPONENT_LIMIT:
            raise DataError(f"{stopping.monitor} is {value} after epoch {position.epoch}.", "Lower the learning rate.")
        better = value < position.best_value if stopping.mode == "min" else value > position.best_value
        if position.best_epoch and not better:
            return position
        return dataclasses.replace(position, best_epoch=position.epoch, best_value=value)

    def _save(self, position: Position, optimizer: bool = True) -> None:
        if not self.hardware.writes:
            return
        state = _values(self.training.optimizer.variables) if optimizer else []
        average = self.training.average
        held = average.arrays() if average is not None else []
        checkpoints.save(self.folder, position, _values(self.training.variables), state, held)

    def _restore(self, saved: checkpoints.Saved, optimizer: bool = True) -> None:
        _assign(self.training.variables, saved.model)
        if optimizer and saved.optimizer:
            _assign(self.training.optimizer.variables, saved.optimizer)
        if self.training.average is not None:
            self.training.average.assign(saved.average)


def _values(variables: list[Any]) -> list[Array]:
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def _assign(variables: list[Any], values: list[Array]) -> None:
    """Sets variables from a checkpoint.

    Raises:
        DataError: They are of another model.
    """
    shapes = [tuple(variable.shape) for variable in variables]
    if shapes != [value.shape for value in values]:
        raise DataError(
            "The checkpoint was written by another version of this model.",
            "Delete the run's checkpoints folder to begin anew.",
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
