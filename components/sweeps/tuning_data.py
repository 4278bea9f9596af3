"""A data set as a sweep sees it: train and eval. The test split is looked at once, by the winner, through the gate."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NoReturn

from components.datasets.committed import DatasetFiles, open_dataset
from components.errors import UsageError
from schemas.tables import SPLITS

HIDDEN = "test"


class _Hiding(dict[str, Any]):
    """A mapping by split that has no test split, and says why."""

    def __missing__(self, name: str) -> NoReturn:
        if name == HIDDEN:
            raise refused()
        raise KeyError(name)


@dataclasses.dataclass(frozen=True)
class TuningFiles(DatasetFiles):
    """A committed data set without its test split: neither its shards nor its groups can be asked for."""

    def groups(self, *splits: str) -> list[str]:
        """Sorted groups of train or eval; see `DatasetFiles.groups`.

        Raises:
            UsageError: The test split was asked for.
        """
        if HIDDEN in splits:
            raise refused()
        return super().groups(*splits)


def refused() -> UsageError:
    """What whoever asks for the test split of a sweep is told."""
    return UsageError(
        "A sweep can't open the test split: recipes are compared on train and eval.",
        "Send the chosen recipe through `histoline train`: the gate looks at the test split once.",
    )


def without_test(data: DatasetFiles) -> TuningFiles:
    """The data set without its test split.

    Args:
        data: As `open_dataset` gives it.
    """
    kept = [name for name in SPLITS if name != HIDDEN]
    facts = _Hiding({name: data.manifest.splits[name] for name in kept})
    manifest = dataclasses.replace(data.manifest, splits=facts)
    return TuningFiles(data.folder, manifest, _Hiding({name: data.splits[name] for name in kept}))


def open_tuning(dataset_dir: str | Path) -> TuningFiles:
    """Opens a committed data set without its test split; see `open_dataset`."""
    return without_test(open_dataset(dataset_dir))
