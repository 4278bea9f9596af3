"""The one configuration of an ingest: validated when it is built, stored in the manifest, part of PLAN_ID."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

from components.adapters.base import Adapter, DiscoverOptions
from components.adapters.group_files import GroupMapping
from components.adapters.registry import get_adapter
from components.datasets.duplicates import ON_CONFLICT, ON_DUPLICATE
from components.errors import UsageError
from components.splits.planner import ON_INFEASIBLE

DEFAULT_SHARD_MB = 16
DEFAULT_MAX_FAULTS = 0.01


@dataclasses.dataclass(frozen=True)
class IngestConfig:
    """What the user asked for.

    Attributes:
        dataset: Adapter's name.
        input_root: Folder or gs:// prefix with the raw images.
        workspace: Folder or gs:// prefix of the workspace.
        task: `binary` or `subtype`.
        size: (width, height) as stored, None for the adapter's own; source size divided by a whole number.
        image_format: `raw` or `encoded`.
        seed: Of the split and the order of records.
        ratios: Shares of train, eval, test; None for the ledger's own, else 70/10/20.
        split_by: `group`, or `image` (leaky, to measure leakage).
        group_by: Empty, or `image` where no patient is known.
        groups_csv: Patch id to patient or slide.
        unmapped: `reject` or `train`.
        splits_csv: A published split.
        ledger: Ledger to go on from, instead of the one of the latest data set.
        folds: Number of folds to plan, 0 for none.
        fold: Fold to write (1 to K), 0 for none.
        magnifications: Filter.
        max_per_class: Cap.
        exclude_groups: File with groups that must not be written.
        on_infeasible: `fail`, `train-only` or `drop-class`.
        on_duplicate: `keep-train` or `fail`.
        on_conflict: `reject-all` or `fail`.
        max_faults: Share of found images that may be faulty.
        shard_mb: Size at which shards are cut, MiB.
        pseudonymise: Key file.
        path_map: Token-to-path map; beside the key by default.
        rehash: Content instead of modification times in PLAN_ID.
        set_latest: Move latest.json also for a filtered or fold data set.
        drawn_over_real: Move it to drawn images although it names real ones.
    """

    dataset: str
    input_root: str
    workspace: str
    task: str = "binary"
    size: tuple[int, int] | None = None
    image_format: str = "raw"
    seed: int = 0
    ratios: tuple[float, float, float] | None = None
    split_by: str = "group"
    group_by: str = ""
    groups_csv: Path | None = None
    unmapped: str = "reject"
    splits_csv: Path | None = None
    ledger: Path | None = None
    folds: int = 0
    fold: int = 0
    magnifications: tuple[int, ...] = ()
    max_per_class: int = 0
    exclude_groups: Path | None = None
    on_infeasible: str = "fail"
    on_duplicate: str = "keep-train"
    on_conflict: str = "reject-all"
    max_faults: float = DEFAULT_MAX_FAULTS
    shard_mb: int = DEFAULT_SHARD_MB
    pseudonymise: Path | None = None
    path_map: Path | None = None
    rehash: bool = False
    set_latest: bool = False
    drawn_over_real: bool = False

    def __post_init__(self) -> None:
        adapter = self.adapter
        adapter.classes(self.task)
        if self.size:
            from components.images.decode import shrink_factor  # loads the decoders

            shrink_factor(adapter.source_size, self.size)
        choices = {
            "image-format": (self.image_format, ("raw", "encoded")),
            "split-by": (self.split_by, ("group", "image")),
            "group-by": (self.group_by, ("", "image")),
            "unmapped": (self.unmapped, ("reject", "train")),
            "on-infeasible": (self.on_infeasible, ON_INFEASIBLE),
            "on-duplicate": (self.on_duplicate, ON_DUPLICATE),
            "on-conflict": (self.on_conflict, ON_CONFLICT),
        }
        for name, (value, allowed) in choices.items():
            if value not in allowed:
                raise UsageError(
                    f"--{name} {value!r} is unknown.", f"Choose one of {', '.join(filter(None, allowed))}."
                )
        if not 1 <= self.shard_mb <= 1024:
            raise UsageError(f"--shard-mb {self.shard_mb} is out of range.", "Choose 1 to 1024.")
        if not 0 <= self.max_faults <= 1:
            raise UsageError(
                f"--max-faults {self.max_faults} is no share.", "Choose 0 to 1 (0.01 is one in a hundred)."
            )
        if self.image_format == "encoded" and (
            adapter.extensions != {".png"} or self.stored_size != adapter.source_size
        ):
            raise UsageError(
                f"--image-format encoded needs PNG sources that are stored unscaled; {self.dataset} is "
                f"stored at {self.stored_size[0]}x{self.stored_size[1]} from {', '.join(sorted(adapter.extensions))}.",
                "Leave it out.",
            )
        if self.unmapped == "train" and self.groups_csv is None:
            raise UsageError(
                "--unmapped train means nothing without --groups-csv.", "Give the mapping, or leave it out."
            )
        if self.group_by and self.groups_csv:
            raise UsageError("--group-by image and --groups-csv contradict each other.", "Keep one of them.")
        if self.fold < 0 or self.folds < 0 or self.folds == 1 or (self.folds and self.fold > self.folds):
            raise UsageError(
                f"--folds {self.folds} --fold {self.fold} is out of range.", "At least 2 folds, counted from 1."
            )
        planned = [name for name in ("ledger", "splits_csv") if getattr(self, name)]
        planned += ["fold"] if self.fold or self.folds else []
        if len(planned) > 1:
            raise UsageError(f"--{' and --'.join(planned)} each say where groups go.", "Keep one of them.")
        if self.path_map and not self.pseudonymise:
            raise UsageError("--path-map means nothing without --pseudonymise.", "Give the key file, or leave it out.")

    @property
    def adapter(self) -> Adapter:
        """The data set's adapter."""
        return get_adapter(self.dataset)

    @property
    def stored_size(self) -> tuple[int, int]:
        """(width, height) in pixels as stored."""
        return self.size or self.adapter.stored_size

    @property
    def home(self) -> str:
        """Folder of the data set and task, relative to the workspace."""
        return f"datasets/{self.dataset}/{self.task}"

    @property
    def moves_latest(self) -> bool:
        """Only a plain ingest becomes what training takes by default."""
        plain = not self.fold and not self.magnifications and not self.max_per_class
        return self.split_by != "image" and (plain or self.set_latest)

    @property
    def path_map_file(self) -> Path | None:
        """Where the token-to-path map goes; None without pseudonyms."""
        return self.path_map or (self.pseudonymise.with_suffix(".paths.csv") if self.pseudonymise else None)

    @property
    def plans_folds_only(self) -> bool:
        """True where fold ledgers are wanted and no shards."""
        return bool(self.folds) and not self.fold

    def discover_options(self, groups: GroupMapping | None, excluded: frozenset[str]) -> DiscoverOptions:
        """The part that discovery needs.

        Args:
            groups: Content of `groups_csv`.
            excluded: Groups that must not be written.
        """
        return DiscoverOptions(
            task=self.task,
            groups=groups,
            unmapped=self.unmapped,
            group_by=self.group_by,
            magnifications=self.magnifications,
            max_per_class=self.max_per_class,
            exclude_groups=excluded,
            seed=self.seed,
        )

    def identity(self, groups_digest: str, key_fingerprint: str) -> dict[str, Any]:
        """What decides on the bytes of the data set, files and splits apart; part of PLAN_ID and the manifest.

        Args:
            groups_digest: SHA-256 of `groups_csv`, empty without.
            key_fingerprint: Of the pseudonymisation key, empty without.
        """
        return {
            "dataset": self.dataset,
            "task": self.task,
            "size": list(self.stored_size),
            "image_format": self.image_format,
            "seed": self.seed,
            "split_by": self.split_by,
            "group_by": self.group_by,
            "groups_csv": groups_digest,
            "unmapped": self.unmapped,
            "magnifications": list(self.magnifications),
            "max_per_class": self.max_per_class,
            "on_infeasible": self.on_infeasible,
            "on_duplicate": self.on_duplicate,
            "on_conflict": self.on_conflict,
            "max_faults": self.max_faults,
            "shard_mb": self.shard_mb,
            "rehash": self.rehash,
            "key_fingerprint": key_fingerprint,
        }


def parse_size(text: str) -> tuple[int, int]:
    """`350x230` -> (350, 230).

    Raises:
        UsageError: Anything else.
    """
    match = re.fullmatch(r"(\d{1,5})x(\d{1,5})", text.strip().lower())
    if not match:
        raise UsageError(f"--size {text!r} is not WIDTHxHEIGHT.", "For example 350x230.")
    return int(match[1]), int(match[2])
