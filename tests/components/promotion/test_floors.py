"""Floors on our own figures: macro-F1, balanced accuracy, accuracy above the commonest class."""

from __future__ import annotations

import numpy as np
import pytest

from components.promotion.floors import check_floor, with_own_floors

SHARES = np.array([44, 36, 20])


def figures(**values: float) -> dict[str, dict[str, float]]:
    return {name: {"estimate": value} for name, value in values.items()}


def judged(floors: dict[str, float], **values: float) -> dict:
    report = {"blessed": True, "reason": "", "floors": {"log_loss": check_floor("log_loss", 1.0, 2.0)}}
    return with_own_floors(report, floors, "subtype", figures(**values), SHARES)


def test_an_accuracy_of_the_commonest_class_is_not_enough():
    told = judged({"accuracy_over_majority": 0.05}, accuracy=0.45)
    assert not told["blessed"]
    assert told["floors"]["accuracy_over_majority"]["value"] == pytest.approx(0.01)
    assert told["reason"] == (
        "accuracy over majority 0.010 is below the floor of 0.05 (the commonest class makes up 0.440 of test)"
    )
    assert judged({"accuracy_over_majority": 0.05}, accuracy=0.5)["blessed"]


def test_macro_f1_and_balanced_accuracy():
    told = judged({"macro_f1": 0.3, "balanced_accuracy": 0.3}, macro_f1=0.2, balanced_accuracy=0.35)
    assert told["reason"] == "macro-F1 0.200 is below the floor of 0.3"
    assert told["floors"]["balanced_accuracy"]["passed"]
    missing = judged({"macro_f1": 0.1}, macro_f1=float("nan"))
    assert missing["reason"] == "macro-F1 can't be computed" and missing["floors"]["macro_f1"]["value"] is None


def test_the_figures_of_the_table_decide_and_tfma_stands_beside():
    tfma = {"auc": 0.752, "pr_auc": 0.377}
    found = {name: check_floor(name, value, 0.5 if name == "pr_auc" else 0.75) for name, value in tfma.items()}
    report = {"blessed": False, "reason": "PR-AUC 0.377 is below the floor of 0.5", "floors": found, "overall": tfma}
    asked = {"auc": 0.75, "pr_auc": 0.5}
    told = with_own_floors(report, asked, "binary", figures(auc=0.749, pr_auc=0.501), SHARES[:2])
    assert told["reason"] == "AUC 0.749 is below the floor of 0.75" and not told["blessed"]
    assert (told["floors"]["auc"]["value"], told["floors"]["auc"]["tfma"]) == (0.749, 0.752)
    assert told["floors"]["pr_auc"]["passed"] and told["floors"]["pr_auc"]["tfma"] == 0.377
    again = with_own_floors(told, asked, "binary", figures(auc=0.75, pr_auc=0.501), SHARES[:2])
    assert again["blessed"] and again["reason"] == "" and again["floors"]["auc"]["tfma"] == 0.752


def test_an_evaluator_that_checked_no_floor_had_another_reason():
    report = {"blessed": False, "reason": "the Evaluator did not bless it"}
    told = with_own_floors(report, {"auc": 0.5}, "binary", figures(auc=0.9), SHARES[:2])
    assert not told["blessed"] and told["reason"] == report["reason"] and "tfma" not in told["floors"]["auc"]


@pytest.mark.parametrize(("value", "said"), [(0.74996, "0.749960"), (-0.0001, "0.000"), (0.7, "0.700")])
def test_a_figure_is_shown_so_that_it_can_be_seen_to_miss(value, said):
    assert f"AUC {said} is below" in check_floor("auc", value, 0.75)["detail"]
