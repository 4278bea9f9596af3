"""Where a training run stands, written after every epoch so that a killed run goes on from there.

One file an epoch: all variables of model, optimizer and average, and the position as JSON. A file is complete or
absent.
"""

from __future__ import annotations

import dataclasses
import json
import re
import uuid
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from components.core.array_types import Array
from components.storage.atomic_files import TMP, os_errors, publish

PARTS = ("model_", "optimizer_", "average_")
"""How the names of a checkpoint's arrays begin, in the order of `Saved`."""

_NAME = re.compile(r"epoch-(\d{5})\.npz")


@dataclasses.dataclass(frozen=True)
class Position:
    """Where training stands.

    Attributes:
        key: Of configuration and data; a checkpoint of another one is not gone on from.
        epoch: Finished epochs of all phases.
        phase: Index of the phase that is under way.
        phase_epoch: Finished epochs of this phase.
        best_epoch: Epoch (counted like `epoch`) with the best monitored value of all phases, 0 where there is none.
        best_value: That value.
        history: One number per finished epoch and metric.
        kept: Of each phase that is over, after how many of its epochs its weights were taken.
    """

    key: str
    epoch: int = 0
    phase: int = 0
    phase_epoch: int = 0
    best_epoch: int = 0
    best_value: float = 0.0
    history: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    kept: list[int] = dataclasses.field(default_factory=list)

    @property
    def waited(self) -> int:
        """Epochs of this phase since the best one, which an earlier phase may have had."""
        return min(self.phase_epoch, self.epoch - self.best_epoch) if self.best_epoch else 0


@dataclasses.dataclass(frozen=True)
class Saved:
    """What a checkpoint holds.

    Attributes:
        position: Where training stood.
        model: Values of the training model's variables, in its order.
        optimizer: Values of the optimizer's variables, in its order.
        average: What a `WeightAverage` holds; empty where there is none.
    """

    position: Position
    model: list[Array]
    optimizer: list[Array]
    average: list[Array] = dataclasses.field(default_factory=list)


def save(
    folder: Path, position: Position, model: list[Array], optimizer: list[Array], average: list[Array] | None = None
) -> Path:
    """Writes a checkpoint and deletes all others but the best.

    Raises:
        HistolineError: The disk is full or can't be written to.
    """
    arrays = {f"model_{i:05d}": value for i, value in enumerate(model)}
    arrays |= {f"optimizer_{i:05d}": value for i, value in enumerate(optimizer)}
    arrays |= {f"average_{i:05d}": value for i, value in enumerate(average or [])}
    encoded = np.frombuffer(json.dumps(dataclasses.asdict(position), sort_keys=True).encode(), np.uint8)
    path = file_of(folder, position.epoch)
    with os_errors("writing", path):
        tmp = folder / TMP / uuid.uuid4().hex
        tmp.parent.mkdir(parents=True, exist_ok=True)
        with open(tmp, "wb") as file:
            np.savez(file, position=encoded, **arrays)
        publish(tmp, path)
        for number, other in _all(folder):
            if number not in (position.epoch, position.best_epoch):
                other.unlink(missing_ok=True)
        for left in (folder / TMP).iterdir():  # of a killed run
            left.unlink(missing_ok=True)
    return path


def load(folder: Path, epoch: int) -> Saved:
    """Reads the checkpoint of an epoch.

    Raises:
        OSError: There is none.
        ValueError: It is no checkpoint.
    """
    return parse(file_of(folder, epoch))


def file_of(folder: Path, epoch: int) -> Path:
    """The checkpoint of an epoch, whether it is there or not."""
    return folder / f"epoch-{epoch:05d}.npz"


def parse(source: Path | IO[bytes]) -> Saved:
    """Reads a checkpoint.

    Raises:
        OSError: There is none.
        ValueError: It is no checkpoint.
    """
    try:
        with np.load(source, allow_pickle=False) as file:
            fields: dict[str, Any] = json.loads(file["position"].tobytes())
            names = sorted(file.files)
            parts = [[file[name] for name in names if name.startswith(p)] for p in PARTS]
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"no checkpoint: {error}") from error
    return Saved(Position(**fields), *parts)


def latest(folder: Path, key: str) -> Saved | None:
    """The newest checkpoint of this configuration and data, None where there is none."""
    for number, _ in reversed(_all(folder)):
        try:
            saved = load(folder, number)
        except (OSError, ValueError, TypeError):
            continue
        if saved.position.key == key:
            return saved
    return None


def clear(folder: Path) -> None:
    """Deletes every checkpoint."""
    for _, path in _all(folder):
        path.unlink(missing_ok=True)


def _all(folder: Path) -> list[tuple[int, Path]]:
    if not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.iterdir()]
    return sorted((int(match[1]), path) for match, path in found if match)
