"""Which patient is where in each fold of a cross-validation, as a run freezes it (`folds.json`)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Collection, Mapping, Sequence

from components.core import json_documents
from components.splits.ledger import Ledger

FORMAT = 1
NAME = "folds.json"
SCHEMA = "folds.schema.json"


@dataclasses.dataclass(frozen=True)
class FoldPlace:
    """Where one group is.

    Attributes:
        test: Fold that tests it; 0 where none does, and it is in train in all of them.
        eval: Folds whose eval part it is in; in all others but `test` it is in train.
    """

    test: int
    eval: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class FoldAssignment:
    """The folds of one data set, frozen; `schemas/folds.schema.json` is the contract of the file.

    Attributes:
        format: Of the file.
        folds: How many.
        holdout: `test` where the data set's own test split takes part in no fold, else `none`.
        plan: Folder of the ledgers that this follows, relative to the workspace.
        group_unit: patient, slide or image.
        key_fingerprint: Of the pseudonymisation key that names the groups; empty for plain ids.
        held_out: Sorted groups that take part in no fold.
        train_only_classes: Classes of too few groups, which are in train in every fold.
        groups: The other groups of the data set, sorted.
    """

    format: int
    folds: int
    holdout: str
    plan: str
    group_unit: str
    key_fingerprint: str
    held_out: tuple[str, ...]
    train_only_classes: tuple[str, ...]
    groups: Mapping[str, FoldPlace]

    @classmethod
    def of(
        cls,
        ledgers: Sequence[Ledger],
        present: Collection[str],
        *,
        plan: str,
        held_out: Collection[str] = (),
        train_only_classes: Sequence[str] = (),
    ) -> FoldAssignment:
        """What ledgers say of the groups that a data set holds.

        Args:
            ledgers: Of all folds, in order.
            present: Groups of the data set.
            plan: Folder of the ledgers.
            held_out: Groups that must take part in no fold, whatever the ledgers say.
            train_only_classes: Classes of too few groups.
        """
        groups = {}
        for group in sorted(set(present) - set(held_out)):
            places = [ledger.splits.get(group) for ledger in ledgers]
            if None in places:
                continue  # of a class that was dropped, or withdrawn
            test = places.index("test") + 1 if "test" in places else 0
            groups[group] = FoldPlace(test, tuple(n for n, place in enumerate(places, 1) if place == "eval"))
        return cls(
            format=FORMAT,
            folds=len(ledgers),
            holdout="test" if held_out else "none",
            plan=plan,
            group_unit=ledgers[0].group_unit,
            key_fingerprint=ledgers[0].key_fingerprint,
            held_out=tuple(sorted(held_out)),
            train_only_classes=tuple(train_only_classes),
            groups=groups,
        )

    def split_of(self, fold: int) -> dict[str, str]:
        """Group to its split in one fold, from 1."""
        return {
            group: "test" if place.test == fold else "eval" if fold in place.eval else "train"
            for group, place in self.groups.items()
        }

    def fold_of(self) -> dict[str, int]:
        """Group to the fold that tests it, for those that one does."""
        return {group: place.test for group, place in self.groups.items() if place.test}

    def to_bytes(self) -> bytes:
        """The bytes of folds.json: same folds, same bytes."""
        return json_documents.dump(dataclasses.asdict(self), SCHEMA)

    def digest(self) -> str:
        """SHA-256 over the file."""
        return hashlib.sha256(self.to_bytes()).hexdigest()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> FoldAssignment:
        """Reads what `to_bytes` gave.

        Args:
            data: The file's bytes.
            where: Full name of the file, for messages.

        Raises:
            UsageError: It is of a newer format.
            DataError: It is damaged, or was edited.
        """
        fix = "Start a new run: it plans and freezes its folds again."
        return json_documents.typed(cls, json_documents.parse(data, SCHEMA, where, fix))
