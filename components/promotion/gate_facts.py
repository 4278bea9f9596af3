"""What the gate has to be told of a data set, of the promoted models and of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from components.datasets.manifest import Manifest
from components.errors import DataError
from components.promotion import champion as champions
from components.promotion.champion import Champion, Promotion
from components.promotion.gate_types import Disjointness, GateModel, GatePolicy
from components.promotion.served_model import read_train_groups
from components.storage.base import Storage


def gate_policy(given: Mapping[str, Any]) -> GatePolicy:
    """The gate's policy as the run's configuration states it.

    Args:
        given: `policy`, `margin` and `n_resamples`, as in `training_config.Gate`.
    """
    criterion, margin = given.get("policy", "better"), float(given.get("margin", GatePolicy.margin))
    # With a margin of 0 not inferior means better.
    if criterion == "better" or margin == 0:
        return GatePolicy(resamples=int(given.get("n_resamples", GatePolicy.resamples)))
    return GatePolicy(criterion, margin, resamples=int(given.get("n_resamples", GatePolicy.resamples)))


def disjointness(manifest: Manifest) -> tuple[Disjointness, str]:
    """Whether a data set is provably patient-disjoint, and why it is not, as a clause."""
    reason = "; ".join(manifest.flag_reasons)
    if "leaky" in manifest.flags:
        return "leaky", reason
    return ("unproven", reason) if manifest.flags else ("disjoint", "")


def promoted(champion: Champion | None) -> dict[str, Promotion]:
    """`champion` and `best_ever`, those that there are, with their entries."""
    if champion is None:
        return {}
    best = champion.best_ever
    return {"champion": champion.current, **({"best_ever": best} if best else {})}


def version_dir(storage: Storage, home: str, version: int) -> Path:
    """Local folder of a promoted version.

    Raises:
        DataError: It is gone.
    """
    if not storage.exists(f"{home}/{version}/{champions.LIVE}"):
        raise DataError(
            f"The promoted model {storage.uri(f'{home}/{version}')} is gone, so nothing can be compared with it.",
            "Restore the folder, or roll back to a version that exists (histoline models rollback).",
        )
    return storage.local_tree(f"{home}/{version}")


def opponents(
    storage: Storage,
    home: str,
    champion: Champion | None,
    manifest: Manifest,
    scores: Mapping[str, np.ndarray],
    test_groups: np.ndarray,
) -> tuple[dict[str, GateModel], list[str]]:
    """Champion and best ever as the gate takes them, and what has to be said of them.

    Args:
        storage: The workspace.
        home: Folder of the models.
        champion: None where there is none.
        manifest: Of the data set at hand.
        scores: Name to probabilities on its test patches; empty where the candidate could not be scored.
        test_groups: Groups of the test patches.
    """
    models, warnings = {}, []
    key = manifest.key_fingerprint
    for name, entry in promoted(champion).items():
        trained_on = read_train_groups(version_dir(storage, home, entry.version))
        if trained_on is None or (entry.group_unit, entry.group_key) != (manifest.group_unit, key):
            # Nobody can tell which of today's groups it saw, so it may have seen any.
            trained_on = frozenset(test_groups.tolist())
            warnings.append(
                f"Version {entry.version} ({name.replace('_', ' ')}) does not say, in names that this data set knows,"
                " which groups it was trained on: no test group can be used to compare with it."
            )
        # A model that failed to load leaves no scores of the others; the gate then compares nothing.
        blank = np.zeros(0, np.float32)
        models[name] = GateModel(str(entry.version), scores.get(name, blank), trained_on)
    return models, warnings
