"""For the person in a hurry: what to do now, where to go from here, what the figures mean."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from components.promotion.champion import Promotion
from components.training.run_types import RunRecord

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
    "worse": "Nothing: the champion stays. The surest errors in the gallery say where this model fails.",
}
"""By the code of a refusal."""

STAYS = "Nothing: the champion stays. Only more patients in the test split can tell the two apart."

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


def advice(record: RunRecord) -> str:
    """What should be done now, in a sentence or two; empty where the reason itself says so.

    Args:
        record: run.json.
    """
    if record.state == "failed" or record.code == "evaluation" or record.decision is None:
        return ""
    if record.decision == "unchanged":
        return "Nothing: these data were trained on before, by this recipe and this code."
    if record.decision == "promoted":
        return f"Nothing: version {record.version} is what predictions use from now on."
    return ADVICE.get(record.code, STAYS)


def ways(record: RunRecord, champion: Promotion | None) -> list[Way]:
    """Pages and files beside a run's page.

    Args:
        record: run.json.
        champion: Of data set and task, as it is now.
    """
    found = [Way("all runs", "../../../../index.html")]
    same = record.paths.get("same_as", "").rsplit("/", 1)[-1]
    if same:
        found.append(Way("the run that was the same", _page(same)))
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
