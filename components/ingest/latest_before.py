"""A new data set beside the latest one before it: what must not follow it, and what has to be said."""

from __future__ import annotations

from components.datasets import manifest as manifests
from components.datasets.latest_pointer import read_latest
from components.errors import DataError, UsageError
from components.ingest.config import IngestConfig
from components.splits.ledger import Ledger
from components.storage.base import Storage


def check_drawn(storage: Storage, config: IngestConfig) -> None:
    """Refuses that drawn images become what training takes by default, where real ones are that now.

    Raises:
        UsageError: They would, and `drawn_over_real` was not asked for.
    """
    if not config.moves_latest or config.drawn_over_real:
        return
    try:
        latest = read_latest(storage, config.home)
        before = None if latest is None else manifests.load(storage, latest.dataset_dir)
    except (UsageError, DataError):  # nothing is known of what is damaged, or being repaired at this moment
        return
    if before is not None and not before.drawn:
        raise UsageError(
            f"The images in {config.input_root} are synthetic, and {config.dataset} {config.task} in this workspace is"
            f" real: {storage.uri(config.home)}/latest.json names data set {before.plan_id} of"
            f" {before.written:,} real patches, and training would take the synthetic ones from now on.",
            "Give them a --workspace of their own, or say that this is meant: --drawn-over-real.",
        )


def shares_nobody(latest: Ledger, plan_id: str, ledger: Ledger, groups: set[str]) -> str:
    """The sentence about a data set that has no group in common with the one before; empty where it has one.

    Args:
        latest: Ledger of the latest data set.
        plan_id: Of that data set.
        ledger: Of the new one.
        groups: That the new one holds.
    """
    known = latest.splits.keys() | latest.tombstones
    if (latest.group_unit, latest.key_fingerprint) != (ledger.group_unit, ledger.key_fingerprint) or groups & known:
        return ""
    return manifests.shares_nobody(ledger.group_unit, plan_id)
