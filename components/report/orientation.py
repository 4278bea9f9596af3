"""For the person in a hurry: what to do now, where to go from here, what the figures mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from components.core.text import number, plural, spaced
from components.metrics.intervals import groups_needed
from components.promotion.champion import Promotion
from components.training.run_types import RunRecord

STAYS = "Nothing: the champion stays. Only more test patients can tell the two apart."

ADVICE = {
    "leaky_split": "Ingest the data with a split by patient: nothing that was made from these is ever promoted.",
    "not_provably_disjoint": "Tell the ingest who the patients of the patches are. Or promote the model by hand, if you"
    " know that no patient is in two splits.",
    "drawn_data": "Nothing: the champion stays. Synthetic data are for trying things out, in a workspace of their own.",
    "below_floors": "Look at the learning curves, then try another recipe or longer training. The floors stand in the"
    " recipe.",
    "does_not_answer": "Train it again. If that ends the same way, it is a fault of histoline: please report it.",
    "baseline_not_beaten": "Get more patients, or try another recipe: colour alone is not shown to say less than this"
    " model does.",
    "too_few_groups": "Get more patients, or let folds decide, which test every patient.",
    "no_interval": "Get more patients, or let folds decide, which test every patient.",
    "weak_evidence": "Get more patients of the rare classes, or let folds decide, which test every patient.",
    "not_distinguishable": STAYS,
    "inferior_to_champion": "The champion stays: this model may be worse by more than its policy allows. Look at what"
    " is new in its training data, then at its recipe.",
    "inferior_to_best_ever": "The champion stays: this model may be worse than the best one ever promoted by more than"
    " its policy allows. Models have come down step by step: look at what has changed since that one.",
    "worse": "Nothing: the champion stays. The surest errors in the gallery say where this model fails.",
}
"""By the code of a refusal."""

_UNSETTLED = {
    "baseline_not_beaten": "baseline", "not_distinguishable": "champion", "inferior_to_champion": "champion",
    "inferior_to_best_ever": "best_ever",
}  # fmt: skip
"""Codes of comparisons that more test groups could settle, and what was compared with."""

MANY = 20
"""So many times as many test groups as there are: beyond that nobody is advised to get them."""

WORST = 3
"""Groups that are named for a look."""

GLOSSARY = {
    "auc": ("AUC", "how often a positive patch gets a higher probability than a negative one; 0.5 is chance"),
    "patient_weighted_auc": ("Patient-weighted AUC", "AUC in which each patient counts the same, however many patches"),
    "pr_auc": ("PR-AUC", "mean precision over all sensitivities; chance is the prevalence"),
    "macro_f1": ("Macro-F1", "mean over the classes of their F1, so that rare ones count the same"),
    "ppv": ("PPV", "of the patches that are called positive, the share that is"),
    "npv": ("NPV", "of those that are called negative, the share that is"),
    "f1": ("F1", "harmonic mean of PPV and sensitivity"),
    "balanced_accuracy": ("Balanced accuracy", "mean of the classes' sensitivities; 0.5 is chance for two"),
    "mcc": ("MCC", "Matthews' correlation of calls and labels, -1 to 1; 0 is chance, whatever the prevalence"),
    "kappa": ("Cohen's kappa", "agreement of calls and labels beyond chance; 1 is perfect"),
    "brier": ("Brier score", "mean squared distance of probability and label; 0 is perfect"),
    "log_loss": ("Log loss", "mean negative logarithm of the label's probability; 0 is perfect"),
    "ece": ("ECE", "expected calibration error: how far probabilities are from the shares that they promise"),
}
"""Metric to its name and what it is."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A link from the page of a run.

    Attributes:
        title: For people.
        address: Relative to the page.
        download: Whether it is a file to keep instead of a page.
    """

    title: str
    address: str
    download: bool = False


def advice(record: RunRecord, worst: Sequence[str] = ()) -> str:
    """What should be done now, in a few sentences; empty where the reason itself says so.

    Args:
        record: run.json.
        worst: Test groups of which the model called the smallest share of patches rightly, worst first.
    """
    if record.state == "failed" or record.code == "evaluation" or record.decision is None:
        return ""
    if record.decision == "unchanged":
        return "Nothing: these data were trained on before, by this recipe and this code."
    if record.decision == "promoted":
        said = [f"Nothing: version {record.version} is what predictions use from now on."]
    else:
        said = [ADVICE.get(record.code, STAYS), _how_many_more(record), _to_look_at(record, worst)]
    return " ".join(filter(None, [*said, _drifted(record)]))


def _how_many_more(record: RunRecord) -> str:
    """How many more test groups would settle a comparison that was too close, if what was measured is true."""
    gate = record.gate
    against = _UNSETTLED.get(record.code)
    found = next((c for c in gate.comparisons if c["against"] == against), None) if gate else None
    difference = found["result"]["difference"] if found else None
    if gate is None or found is None or difference is None or not difference["standard_error"]:
        return ""
    policy = record.policy or {}
    asked = policy.get("baseline" if against == "baseline" else "criterion")
    margin = float(policy.get("margin", 0.0)) if asked == "non-inferior" else 0.0
    groups = int(difference["groups"])
    needed = groups_needed(
        difference["standard_error"], groups, difference["estimate"] + margin, found.get("confidence") or 0.95
    )
    if needed is None:
        return "As measured, no number of test patients would let it pass.".replace("patient", record.group_unit)
    if needed > MANY * groups:
        return f"As measured, even {MANY} times as many test {record.group_unit}s would not show it."
    if needed <= groups:
        return ""
    return (
        f"If the difference is what was measured ({number(difference['estimate'], sign=True)}), about"
        f" {plural(needed - groups, record.group_unit)} more in test would show it (now {groups:,}; 80 % power)."
    )


def _to_look_at(record: RunRecord, worst: Sequence[str]) -> str:
    named = ", ".join(worst[:WORST])
    if not named:
        return ""
    whom = f"{record.group_unit}s" if len(worst) > 1 else record.group_unit
    return f"Look first at {whom} {named}: the smallest shares of right calls."


def _drifted(record: RunRecord) -> str:
    """What is to be said of colours that have moved; a drift that was not accepted has failed the run before."""
    moved = [spaced(name.replace("color/", "")) for name in (record.drift or {}).get("drifted", [])]
    if not moved:
        return ""
    return f"The colours of the data have moved against the champion's ({', '.join(moved)}): see the section on drift."


def ways(record: RunRecord, champion: Promotion | None, before: str = "") -> list[Way]:
    """Pages and files beside a run's page.

    Args:
        record: run.json.
        champion: Of data set and task, as it is now.
        before: RUN_ID of the run before; empty where there is none.
    """
    found = [Way("all runs", "../../../../index.html")]
    same = record.paths.get("same_as", "").rsplit("/", 1)[-1]
    if same:
        found.append(Way("the run that was the same", _page(same)))
    if before and before != same:
        found.append(Way("the run before", _page(before)))
    if champion is not None and champion.run_id not in (record.run_id, same):
        found.append(Way("the champion's run", _page(champion.run_id)))
    found.append(Way("run.json", "../run.json", download=True))
    if record.metrics and record.code != "evaluation":
        found.append(Way("predictions", "../predictions.parquet", download=True))
    if record.gate is not None:
        found.append(Way("comparison", "../comparison.parquet", download=True))
    if record.version is not None:
        version = f"../../../../../models/{record.dataset}/{record.task}/{record.version}"
        found.append(Way("model card", f"{version}/README.md", download=True))
    return found


def _page(run_id: str) -> str:
    return f"../../{run_id}/report/index.html"


def glossary(metrics: Iterable[str]) -> list[tuple[str, str]]:
    """Names and meanings of metrics that not everybody knows, in the order in which they are shown.

    Args:
        metrics: That the page shows.
    """
    return [GLOSSARY[name] for name in metrics if name in GLOSSARY]
