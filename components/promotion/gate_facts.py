"""What the gate needs to know of a data set, of the promoted models and of the recipe; pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from components.core.array_types import Array
from components.datasets.manifest import Manifest
from components.promotion.evaluation_inputs import PromotedModel
from components.promotion.gate_types import Disjointness, GateModel, GatePolicy
from components.training.recipe_parts import Gate


def gate_policy(given: Mapping[str, Any]) -> GatePolicy:
    """The gate's policy as the run's frozen recipe states it.

    Args:
        given: The recipe's field `gate`.
    """
    asked = Gate.read(given)
    # With a margin of 0 not inferior means better.
    if asked.policy == "better" or asked.margin == 0:
        return GatePolicy(resamples=asked.n_resamples)
    return GatePolicy("non-inferior", asked.margin, resamples=asked.n_resamples)


def disjointness(manifest: Manifest) -> tuple[Disjointness, str]:
    """Whether a data set is provably patient-disjoint, and why it is not, as a clause."""
    reason = "; ".join(manifest.flag_reasons)
    if "leaky" in manifest.flags:
        return "leaky", reason
    return ("unproven", reason) if manifest.flags else ("disjoint", "")


def opponents(
    promoted: Mapping[str, PromotedModel],
    manifest: Manifest,
    scores: Mapping[str, Array],
    test_groups: Array,
) -> tuple[dict[str, GateModel], list[str]]:
    """Champion and best ever as the gate takes them, and warnings about them.

    Args:
        promoted: Those that there are.
        manifest: Of the data set at hand.
        scores: Name to probabilities on its test patches; empty where the candidate could not be scored.
        test_groups: Groups of the test patches.
    """
    models, warnings = {}, []
    for name, model in promoted.items():
        entry, trained_on = model.entry, model.trained_on
        if trained_on is None or (entry.group_unit, entry.group_key) != (manifest.group_unit, manifest.key_fingerprint):
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
