"""The split ledger: which group is in which split, for good (`splits.json`)."""

from __future__ import annotations

import collections
import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

from components.core import json_documents
from components.errors import DataError, UsageError
from schemas.tables import SPLITS

DEFAULT_RATIOS = (0.7, 0.1, 0.2)
FORMAT_VERSION = 1
ALGORITHM_VERSION = 1
"""Raised whenever `components.splits.planner` would plan another ledger from the same input."""

SMALLEST_RATIO = 0.005  # keeps the planner's integers inside 64 bits; smaller splits measure nothing anyway
SOURCES = {
    "planned": "planned by histoline",
    "csv": "published split, taken as it is",
    "csv+eval": "published split without eval groups; eval was cut out of its train groups",
    "fold": "one fold of a cross-validation",
}
SCHEMA = "splits.schema.json"


@dataclasses.dataclass(frozen=True)
class Ledger:
    """Group-to-split map of a data set, with all that a later ingest needs to extend it.

    Attributes:
        group_unit: What a group is: `patient`, `slide` or `image`.
        splits: Group -> `train`, `eval` or `test`; also groups that are no longer in the data. Kept sorted.
        seed: Seed of the choice between equally good places.
        ratios: Target shares of (train, eval, test); they add up to 1.
        algorithm_version: Version of the planner that placed the newest groups.
        tombstones: Groups whose consent was withdrawn: never in `splits`, never to be written again.
        key_fingerprint: Fingerprint of the pseudonymisation key of the ids; empty for plain ids.
        source: A key of `SOURCES`.
        fold: Number of the fold, 1 to `folds`; 0 where the ledger is no fold.
        folds: Number of folds; 0 where the ledger is no fold.

    Raises:
        ValueError: A field contradicts the above.
    """

    group_unit: str
    splits: Mapping[str, str]
    seed: int = 0
    ratios: tuple[float, float, float] = DEFAULT_RATIOS
    algorithm_version: int = ALGORITHM_VERSION
    tombstones: frozenset[str] = frozenset()
    key_fingerprint: str = ""
    source: str = "planned"
    fold: int = 0
    folds: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "splits", dict(sorted(self.splits.items())))
        object.__setattr__(self, "tombstones", frozenset(self.tombstones))
        object.__setattr__(self, "ratios", check_ratios(self.ratios))
        if not self.group_unit:
            raise ValueError("group_unit is empty")
        if "" in self.splits or "" in self.tombstones:
            raise ValueError("a group id is empty")
        strange = sorted(set(self.splits.values()) - set(SPLITS))
        if strange:
            raise ValueError(f"unknown split {strange[0]!r}: only {', '.join(SPLITS)} are known")
        risen = sorted(self.tombstones.intersection(self.splits))
        if risen:
            raise ValueError(f"group {risen[0]!r} is both in a split and withdrawn")
        if self.source not in SOURCES:
            raise ValueError(f"unknown source {self.source!r}")
        if self.folds == 1 or not (self.fold == self.folds == 0 or 1 <= self.fold <= self.folds):
            raise ValueError(f"there is no fold {self.fold} of {self.folds}")
        if (self.source == "fold") != (self.folds > 0):
            raise ValueError(f"source {self.source!r} contradicts fold {self.fold} of {self.folds}")

    def groups(self, split: str) -> list[str]:
        """Sorted groups of a split."""
        return [group for group, place in self.splits.items() if place == split]

    def to_json(self) -> str:
        """Serialises to the text of `splits.json`: same ledger, same bytes; one group a line, ASCII only."""
        document: dict[str, Any] = {"format_version": FORMAT_VERSION}
        document.update({f.name: getattr(self, f.name) for f in dataclasses.fields(self)})
        document["ratios"] = dict(zip(SPLITS, self.ratios, strict=True))
        document["tombstones"] = sorted(self.tombstones)
        document["splits"] = document.pop("splits")  # last, where its length hides nothing
        # ASCII: ids from undecodable file names hold lone surrogates, which no UTF-8 file can hold.
        return json.dumps(document, indent=1, ensure_ascii=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> Ledger:
        """Reads the text of a `splits.json`.

        Args:
            text: Content of the file.
            where: Path of the file, for the message.

        Raises:
            UsageError: The file is of a newer version.
            DataError: It is damaged, or hand-edited into a contradiction.
        """
        fix = "Restore the file from a backup, or name another ledger with --ledger."
        try:
            document = json.loads(text, object_pairs_hook=_unique_keys)
            if not isinstance(document, dict):
                raise ValueError("it holds no JSON object")
            _check_version(document, where)
            problem = json_documents.problem(document, SCHEMA)
            if problem:
                raise ValueError(problem)
            return cls(**_fields(document))
        except RecursionError:
            raise DataError(f"The split ledger {where} is broken: it is nested too deeply.", fix) from None
        except ValueError as error:
            raise DataError(f"The split ledger {where} is broken: {error}.", fix) from error

    def require(self, group_unit: str, key_fingerprint: str, where: str) -> None:
        """Makes sure that this ledger speaks of the same groups as the data at hand.

        Args:
            group_unit: Unit of the data at hand.
            key_fingerprint: Fingerprint of the key in use, empty without pseudonymisation.
            where: Path of the ledger, for the message.

        Raises:
            UsageError: Unit or key differ; extending the ledger would put one patient into two splits.
        """
        if self.group_unit != group_unit:
            raise UsageError(
                f"The split ledger {where} splits by {self.group_unit}, this ingest by {group_unit}.",
                "Ingest with the same grouping as before, or name a ledger of this grouping with --ledger.",
            )
        if self.key_fingerprint != key_fingerprint:
            mine, theirs = (f"key {f}" if f else "plain ids" for f in (key_fingerprint, self.key_fingerprint))
            raise UsageError(
                f"The split ledger {where} was made with {theirs}, this ingest uses {mine}.",
                "Pass the same --pseudonymise KEYFILE as before, or name a matching ledger with --ledger.",
            )


def check_ratios(ratios: Iterable[float]) -> tuple[float, float, float]:
    """Checks the target shares of (train, eval, test).

    Raises:
        ValueError: Not three numbers of at least `SMALLEST_RATIO` that add up to 1 (within 1e-6).
    """
    shares = tuple(float(ratio) for ratio in ratios)
    if len(shares) != 3 or not all(math.isfinite(share) and share >= SMALLEST_RATIO for share in shares):
        raise ValueError(f"ratios must be three numbers of at least {SMALLEST_RATIO}, not {shares}")
    if abs(math.fsum(shares) - 1) > 1e-6:
        raise ValueError(f"ratios must add up to 1, not to {math.fsum(shares):g}")
    return shares


def parse_ratios(text: str) -> tuple[float, float, float]:
    """Reads ratios as people write them: `70/10/20`, `0.7,0.1,0.2` or `7:1:2`, always train, eval, test.

    Raises:
        UsageError: Not three positive numbers; a split below half a percent.
    """
    try:
        numbers = [float(part) for part in text.replace("/", ",").replace(":", ",").split(",")]
        total = math.fsum(numbers)
        return check_ratios(round(number / total, 9) for number in numbers)
    except (ValueError, ZeroDivisionError, OverflowError):
        raise UsageError(
            f"The ratio {text!r} is not three positive shares for train, eval and test.",
            "Write it as 70/10/20; each split needs at least 0.5 %.",
        ) from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuses what `json` would hide: a group that a hand edit put into two splits."""
    document = dict(pairs)
    if len(document) != len(pairs):
        twice = next(key for key, n in collections.Counter(key for key, _ in pairs).items() if n > 1)
        raise ValueError(f"{twice!r} appears twice")
    return document


def _check_version(document: Mapping[str, Any], where: str) -> None:
    for key, newest in (("format_version", FORMAT_VERSION), ("algorithm_version", ALGORITHM_VERSION)):
        version = document.get(key)
        if type(version) is not int or version < 1:
            raise ValueError(f"{key} is missing or is no positive integer")
        if version > newest:
            raise UsageError(
                f"The split ledger {where} is of a newer histoline ({key} {version}, known here: {newest}).",
                "Update histoline, or name another ledger with --ledger.",
            )


def _fields(document: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a `Ledger`, which itself checks what no schema can say, from a document that follows its schema."""
    fields = {key: value for key, value in document.items() if key != "format_version"}
    # To a schema 1.0 is an integer; written again it must be 1.
    fields.update({key: int(fields[key]) for key in ("seed", "fold", "folds")})
    fields["ratios"] = tuple(fields["ratios"][split] for split in SPLITS)
    fields["tombstones"] = frozenset(fields["tombstones"])
    return fields
