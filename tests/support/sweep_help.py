"""A sweep made by hand: trials that were trained to their end, ended early, failed, or have not begun."""

from __future__ import annotations

import numpy as np

from components.metrics.bootstrap import BootstrapPlan
from components.sweeps import choice
from components.sweeps.sweep_types import Field, Search, SweepRecord, Trial, TrialFailure, TrialRecord

FIELDS = (
    Field("phases.0.learning_rate", "float", low=1e-4, high=1e-2, log=True),
    Field("augmentation", "choice", choices=('"none"', '"standard"')),
)
RECIPES = (("idc_lite0", 3_415_586), ("idc_cnn_105k", 105_234), ("idc_simple_cnn", 61_533))


def sweep(hostile: str = "") -> tuple[SweepRecord, dict[int, TrialRecord]]:
    """sweep.json and trial.json of nine trials, one of them chosen.

    Args:
        hostile: Stands in names and reasons.
    """
    rng = np.random.default_rng(0)
    groups = np.repeat([f"p{i:02d}" for i in range(17)], 30)
    labels = np.tile([0, 1], len(groups) // 2)
    noise = np.repeat(rng.normal(0, 0.5, 17), 30) + rng.normal(0, 0.8, len(labels))
    trials, known, candidates = [], {}, []
    for number in range(9):
        recipe, parameters = RECIPES[number % 3]
        recipe = f"{recipe}{hostile}"
        rate = 10 ** (-4 + number / 4)
        values = {FIELDS[0].name: f"{rate:.6g}", FIELDS[1].name: FIELDS[1].choices[number % 2]}
        config = {"model": recipe, "phases": [{"learning_rate": rate, "epochs": 8}], "augmentation": number % 2}
        trials.append(Trial(number, recipe, values, config, str(number) * 64))
        curve = tuple(0.9 - 0.4 / (epoch + 1) - number / 100 for epoch in range(8))
        made = TrialRecord(1, number, "done", "", "", seconds=200.0 + number, epochs_run=8, epochs=8, curve=curve)
        if number < 5:
            scores = (1.335, 1.3, 1.2, 1.2, 1.1)[number] * labels + noise + rng.normal(0, 0.2, len(labels))
            candidates.append(choice.Candidate(number, recipe, scores, parameters, 80_000))
            known[number] = made
        elif number == 5:
            reason = "clearly behind after 4 of 8 epochs: 0.612, where half of the finished trials had 0.801 or more."
            known[number] = TrialRecord(
                1, 5, "stopped", "", "", seconds=90.0, epochs_run=4, epochs=8, curve=curve[:4], score=0.612,
                reason=reason,
            )  # fmt: skip
        elif number == 6:
            error = TrialFailure(65, f"loss became nan in epoch 1, batch 1{hostile}: the learning rate is 3e-3.")
            known[number] = TrialRecord(1, 6, "failed", "", "", seconds=12.0, error=error)
        elif number == 7:
            known[number] = TrialRecord(1, 7, "running", "", "", seconds=12.0, epochs_run=2, epochs=8, curve=curve[:2])
    ranked = choice.rank(labels, groups, candidates, BootstrapPlan(resamples=300))
    for entry in ranked:
        number, estimate = entry.candidate.number, entry.estimate
        auc = {"estimate": estimate, "low": estimate - 0.04, "high": estimate + 0.03, "standard_error": 0.02}
        figures = {"auc": auc, "f1": {"estimate": 0.7}}
        known[number] = TrialRecord(
            **{**vars(known[number]), "score": estimate, "figures": figures, "patches": len(labels), "groups": 17,
               "parameters": entry.candidate.parameters, "pixels": 80_000, "milliseconds": 3.2}
        )  # fmt: skip
    record = SweepRecord(
        1, "", "sweep-1", "idc", "binary", "2026-11-26T01:02:03+00:00", "", "done", "datasets/idc/binary/abc", "abc",
        "", "", "patient", ("negative", "idc"), "auc", None, {},
        Search("random", tuple(dict.fromkeys(trial.recipe for trial in trials)), FIELDS, 9), tuple(trials),
        choice.choose(ranked, "patient"), "sweep-1-winner",
    )  # fmt: skip
    return record, known
