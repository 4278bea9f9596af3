"""What the gate needs to know of a data set, of the promoted models and of the recipe; pure functions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from components.core.array_types import Array
from components.datasets.manifest import Manifest
from components.promotion.champion import Promotion, caveat
from components.promotion.evaluation_inputs import PromotedModel
from components.promotion.gate_types import Disjointness, GateModel, GatePolicy
from components.training.recipe_parts import Gate
from components.training.run_types import FoldsRecord


@dataclasses.dataclass(frozen=True)
class Making:
    """What went into a model.

    Attributes:
        recipe: Digest of what makes a model of a recipe; empty where it was not kept.
        source: Digest of the code; likewise.
        fitted_on: Training groups; None where they are not known.
        names: Unit and key by which the groups are called.
    """

    recipe: str
    source: str
    fitted_on: frozenset[str] | None
    names: tuple[str, str]


def gate_policy(
    given: Mapping[str, Any], candidate: Making | None = None, champion: Making | None = None
) -> GatePolicy:
    """The gate's policy as the run's frozen recipe states it; `auto` is settled here.

    Args:
        given: The recipe's field `gate`.
        candidate: What went into the new model.
        champion: What went into the champion; None where there is none.
    """
    recipe = Gate.read(given)
    criterion, why = recipe.policy, ""
    if criterion == "auto":
        criterion, why = _retraining(candidate, champion)
    # With a margin of 0 not inferior means better.
    return GatePolicy(
        criterion="non-inferior" if criterion == "non-inferior" and recipe.margin else "better",
        margin=recipe.margin or Gate.margin,
        baseline="better" if recipe.baseline == "non-inferior" and not recipe.margin else recipe.baseline,  # type: ignore[arg-type]
        resamples=recipe.n_resamples,
        requested=recipe.policy if why else "",
        why=why,
    )


def _retraining(candidate: Making | None, champion: Making | None) -> tuple[str, str]:
    """Which criterion `auto` means, and why: a mere retraining on more patients need not be shown to be better."""
    if champion is None or candidate is None:
        return "better", "there is no champion"
    if not (champion.recipe and champion.source) or champion.fitted_on is None or candidate.fitted_on is None:
        return "better", "the champion does not say by which recipe and code and on which patients it was made"
    unit = candidate.names[0]
    if candidate.names != champion.names:
        return "better", f"its training {unit}s have other names than the champion's"
    if candidate.recipe != champion.recipe:
        return "better", "its recipe is not the champion's"
    if candidate.source != champion.source:
        return "better", "its code is not the champion's"
    if candidate.fitted_on == champion.fitted_on:
        return "better", f"its training {unit}s are those of the champion and no more"
    if not candidate.fitted_on > champion.fitted_on:
        return "better", f"its training {unit}s do not include all of the champion's"
    more = f"its {len(candidate.fitted_on)} training {unit}s are the champion's {len(champion.fitted_on)} and more"
    return "non-inferior", f"recipe and code are the champion's and {more}"


def disjointness(manifest: Manifest) -> tuple[Disjointness, str]:
    """Whether a data set is provably patient-disjoint, and why it is not, as a clause."""
    reason = "; ".join(manifest.flag_reasons)
    if "leaky" in manifest.flags:
        return "leaky", reason
    return ("unproven", reason) if manifest.flags else ("disjoint", "")


def real_champion(manifest: Manifest, promoted: Mapping[str, PromotedModel]) -> str:
    """The champion that a model of drawn images may not replace; empty where there is none, or images are real."""
    champion = promoted.get("champion")
    return str(champion.entry.version) if manifest.drawn and champion and not champion.entry.drawn else ""


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
        said = caveat(entry.unproven, entry.drawn and not manifest.drawn)
        if said:
            warnings.append(f"Version {entry.version} ({name.replace('_', ' ')}): {said}")
        scored = None
        if entry.decision_by == "folds":  # each patch was answered by a model that has never seen it
            trained_on = frozenset()
            found = scores.get(name)
            scored = None if found is None else ~np.isnan(found.reshape(len(found), -1)).any(axis=1)
        if trained_on is None or (entry.group_unit, entry.group_key) != (manifest.group_unit, manifest.key_fingerprint):
            # Nobody can tell which of today's groups it saw, so it may have seen any.
            trained_on = frozenset(test_groups.tolist())
            warnings.append(
                f"Version {entry.version} ({name.replace('_', ' ')}) does not say, in names that this data set knows,"
                " which groups it was trained on: no test group can be used to compare with it."
            )
        # A model that failed to load leaves no scores of the others; the gate then compares nothing.
        blank = np.zeros(0, np.float32)
        answers, others = scores.get(name, blank), model.groups_beyond(test_groups)
        models[name] = GateModel(str(entry.version), answers, trained_on, model.by_gate, scored, others)
    return models, warnings


def other_way(decision_by: str, champion: PromotedModel | None) -> str:
    """Why a champion can't be compared with what was decided otherwise, as a clause; empty where it can."""
    if champion is None or champion.entry.decision_by == decision_by:
        return ""
    ways = {"split": "by one test split", "folds": "by folds, out of which its figures are"}
    return (
        f"the champion {champion.entry.version} was decided {ways[champion.entry.decision_by]}, this run"
        f" {ways[decision_by].partition(',')[0]}: their figures are not of the same patients, and only histoline models"
        " promote changes the way of deciding"
    )


def way_warning(name: str, entry: Promotion) -> str:
    """What has to be said of a promoted model that is not compared with."""
    return (
        f"Version {entry.version} ({name.replace('_', ' ')}) was decided by {entry.decision_by}, this run was not: no"
        " figure of it is compared with."
    )


def folds_warning(name: str, model: PromotedModel, folds: FoldsRecord | None) -> str:
    """What has to be said of a promoted model that was decided by other folds; empty where they are alike.

    Args:
        name: `champion` or `best_ever`.
        model: The promoted model.
        folds: Of this run; None where it decides by a split.
    """
    if folds is None or model.folds is None or model.folds == (folds.folds, folds.holdout):
        return ""

    def told(count: int, holdout: str) -> str:
        return f"{count} folds {'without the test split' if holdout == 'test' else 'over all splits'}"

    return (
        f"Version {model.entry.version} ({name.replace('_', ' ')}) was decided by {told(*model.folds)}, this run by"
        f" {told(folds.folds, folds.holdout)}: their models learnt from other shares of the patients, so that a"
        " difference is not of the recipes alone."
    )
