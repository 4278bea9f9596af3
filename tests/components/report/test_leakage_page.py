"""leakage.json and its page: one sentence that says what was found, and a picture of it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from components.core import json_documents
from components.metrics.intervals import Interval
from components.metrics.leakage import Gap
from components.report import leakage_page
from components.report.page import CSP

FACTS = leakage_page.Facts(
    dataset="idc", task="binary", name="cnn_105k-0123", created="2026-11-26T00:00:00+00:00", plan_id="0" * 16,
    content_digest="0" * 64, group_unit="patient", classes=("negative", "idc"), config={"model": "cnn_105k"},
    seeds=(0, 1), sizes={"train": 700, "eval": 100, "test": 200}, tested=12, groups=60, shared=0.995, looks=3,
    epochs={"patient": [3, 3], "random": [3, 2]}, seconds=71.5,
)  # fmt: skip


def gap(promised: float, got: float, half: float = 0.02, **given: Any) -> Gap:
    def around(value: float, groups: int) -> Interval:
        return Interval(value, value - half, value + half, half / 2, groups=groups)

    parts = around(promised, 60), around(got, 12), around(promised - got, 12)
    made = Gap(*parts, random_seeds=(promised, promised), patient_seeds=(got - 0.01, got + 0.01))
    return dataclasses.replace(made, **given)


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (gap(0.97, 0.88), "promised AUC 0.97; new patients get 0.88: a difference of +0.090 (95 % interval +0.070 to"),
        (gap(0.885, 0.88), "a difference of +0.005 that is not told from chance (95 % interval -0.015 to +0.025; 12"),
        (gap(0.97, 0.88, gap=Interval(0.09, reason="too_few_groups")), "get 0.88 (no interval: too few groups)."),
    ],
)
def test_the_sentence(found: Gap, said: str) -> None:
    assert said in leakage_page.sentence("auc", found, "patient")


def test_document_and_page() -> None:
    found = leakage_page.document(FACTS, {"auc": gap(0.97, 0.88), "log_loss": gap(0.2, 0.4)})
    assert json_documents.problem(json_documents.plain(found), "leakage.schema.json") == ""
    page = leakage_page.render(json_documents.plain(found))
    assert found["sentence"] in page.replace("&#39;", "'") and "99.5 %" in page and "look 3" in page
    assert "Log loss (lower is better)" in page and "<svg" in page and "<script" not in page
    assert CSP.replace("'", "&#39;") in page
    picture = leakage_page.picture(json_documents.plain(found))
    assert "0.970" in picture and "0.880" in picture and "gap +0.090" in picture
    assert picture == leakage_page.picture(json_documents.plain(found)), "the same bytes every time"


def test_several_classes_and_no_interval() -> None:
    none = Interval(0.5, reason="too_few_groups")
    facts = dataclasses.replace(FACTS, classes=("a", "b", "c"), seeds=(0,), config={"title": "<b>bold</b>"})
    bare = Gap(none, none, Interval(float("nan"), reason="too_few_groups"), (0.5,), (0.5,))
    found = json_documents.plain(leakage_page.document(facts, {"macro_f1": bare}))
    assert found["metric"] == "macro_f1" and json_documents.problem(found, "leakage.schema.json") == ""
    assert "Synthetic data" in leakage_page.render(found, drawn=True)
    page = leakage_page.render(found)
    assert "Synthetic data" not in page
    assert "no interval: too few groups" in page and "<b>" not in page
