"""The files that a user gives beside the options, each read once, before anything is planned."""

from __future__ import annotations

import dataclasses

from components.adapters.group_files import GroupMapping, read_group_list, read_groups_csv
from components.ingest.config import IngestConfig
from components.ingest.pseudonyms import Pseudonymiser, withholding
from components.splits.published import SplitsCsv, read_splits_csv


@dataclasses.dataclass(frozen=True)
class Given:
    """Content of the files that an ingest's options name; the ledger to go on from is in `Previous`.

    Attributes:
        pseudonymiser: The key of `--pseudonymise`, None for plain ids.
        excluded: Groups of `--exclude-groups`, under the ids of the raw data.
        groups: Content of `--groups-csv`.
        splits_csv: Rows of `--splits-csv`.
    """

    pseudonymiser: Pseudonymiser | None = None
    excluded: frozenset[str] = frozenset()
    groups: GroupMapping | None = None
    splits_csv: SplitsCsv | None = None

    @property
    def key_fingerprint(self) -> str:
        """Of the pseudonymisation key; empty for plain ids."""
        return self.pseudonymiser.fingerprint if self.pseudonymiser else ""

    @property
    def excluded_ids(self) -> frozenset[str]:
        """`excluded` under the ids that the outputs show."""
        if self.pseudonymiser is None:
            return self.excluded
        return frozenset(self.pseudonymiser.token("group_id", group) for group in self.excluded)


def read_given(config: IngestConfig) -> Given:
    """Reads the files that the options name.

    Raises:
        UsageError: A file is missing, unreadable or not in its format.
    """
    pseudonymiser = Pseudonymiser.from_file(config.pseudonymise) if config.pseudonymise else None
    excluded = read_group_list(config.exclude_groups) if config.exclude_groups else frozenset[str]()
    with withholding(pseudonymiser is not None):
        groups = read_groups_csv(config.groups_csv) if config.groups_csv else None
        splits_csv = read_splits_csv(config.splits_csv) if config.splits_csv else None
    return Given(pseudonymiser, excluded, groups, splits_csv)
