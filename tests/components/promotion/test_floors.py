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
    assert not told["blessed"] and told["floors"]["log_loss"]["passed"]
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


def test_what_tfma_found_stays():
    report = {"blessed": False, "reason": "AUC 0.500 is below the floor of 0.75"}
    asked = {"auc": 0.75, "balanced_accuracy": 0.9}
    told = with_own_floors(report, asked, "binary", figures(balanced_accuracy=0.5), SHARES[:2])
    assert not told["blessed"] and set(told["floors"]) == {"balanced_accuracy"}
    assert told["reason"].split("; ") == [report["reason"], "balanced accuracy 0.500 is below the floor of 0.9"]
    assert with_own_floors(report, {"auc": 0.75}, "binary", {}, SHARES[:2])["reason"] == report["reason"]
