"""The model card: its front matter is YAML, its text is true, and nothing typed by a user becomes markup."""

from __future__ import annotations

import dataclasses

import yaml

from components.datasets.manifest import RejectFacts, SplitFacts
from components.promotion.champion import Promotion
from components.promotion.model_card import escape, promotion_section, render, replace_promotion
from components.training.run_types import GateRecord, LookCount, RunRecord
from tests.support import manifests


def entry(**more) -> Promotion:
    facts = {
        "version": 7, "run_id": "run-1", "promoted_by": "gate", "from_version": None,
        "when": "2026-01-01T00:00:00+00:00", "who": "ada", "why": "better", "dataset_dir": "d", "plan_id": "p",
        "content_digest": "c", "group_unit": "patient", "group_key": "", "metric": "auc", "metrics": {},
        "raises_best": True,
    }  # fmt: skip
    return Promotion(**{**facts, **more})


def interval(estimate, low=None, high=None, reason=""):
    return {"estimate": estimate, "low": low, "high": high, "reason": reason}


MANIFEST = manifests.manifest(
    source_size=(50, 40), group_unit="slide", microns_per_pixel=None, found=1012, written=1010,
    rejects={"too_narrow": RejectFacts("fault", 2)},
    splits={
        "train": SplitFacts(1000, {"negative": 900}, {"idc": 4}, (), 5),
        "test": SplitFacts(10, {"negative": 8, "idc": 2}, {"idc": 1}, (), 2),
    },
)  # fmt: skip
RECORD = RunRecord(
    format=1, histoline_version="0.1.0", run_id="run-1", dataset="idc", task="binary", created="", updated="",
    state="running", stage="push", stages={}, error=None, decision="promoted", code="first_model", reason="",
    config={"model": "cnn_105k"}, options={}, dataset_dir="d", plan_id="abc", content_digest="def", manifest_digest="",
    group_unit="slide", classes=("negative", "idc"), flags=(), threshold=0.25, temperature=1.5,
    looks=LookCount(3, "x"), calibration={"served": {"test": {"ece": 0.0312}}},
    per_group={"test": {"auc": {"groups": 2.0, "median": 0.9, "q25": 0.8, "q75": 0.95, "min": 0.7}}},
    gate=GateRecord(
        decision="promoted", code="first_model", reason="", metric="auc", checks=(), weak_evidence=False,
        smallest_detectable=None, becomes_best_ever=True, champion_version=None, best_ever_version=5, answers={},
        comparisons=(
            {"against": "baseline", "name": "colour baseline", "result": {"difference": interval(0.1, 0.05, 0.15)}},
            {"against": "best_ever", "name": "5", "result": {"difference": interval(0.0)}},
        ),
    ),
    slices=(
        {"by": "tumor_type", "value": "DC", "patches": 6, "groups": 2, "metrics": {"accuracy": 0.9}},
        {"by": "tumor_type", "value": "a|b", "patches": 4, "groups": 1, "metrics": {"accuracy": 0.5}},
    ),
    warnings=("Colour drift was accepted: <b>new</b> scanner",),
    metrics={"test": {"warnings": ["Only 2 groups"], "values": {
        "auc": interval(0.91234, 0.9, 0.95), "pr_auc": interval(None), "f1": interval(0.5, reason="too_few_groups")}}},
)  # fmt: skip


def test_the_card():
    card = render(RECORD, MANIFEST, entry())
    _, front, body = card.split("---\n", 2)
    assert body.index("| tumor type | a\\|b | 4 |") < body.index("| tumor type | DC | 6 |")
    told = yaml.safe_load(front)
    assert told["library_name"] == "keras" and "research-use-only" in told["tags"]
    metrics = told["model-index"][0]["results"][0]["metrics"]
    assert [(m["type"], m["value"]) for m in metrics] == [("auc", 0.9123), ("f1", 0.5)]
    for said in (
        "Research use only. Not a medical device", "Intended use and limits", "50x40 pixels", "threshold of 0.2500",
        "| auc | 0.912 | 0.900 to 0.950 |", "| pr_auc | unknown | none |", "| f1 | 0.500 | none (too few groups) |",
        "look 3 at these slides", "train 1,000 patches of 5 slides", "bootstrap over slides", "Only 2 groups",
        "1,012 images found, 1,010 written; left out: 2 too narrow (fault)", "| negative | 900 | 0 | 8 | 0 |",
        "physical size unknown", "auc against the colour baseline: +0.100 (95 % interval +0.050 to +0.150)",
        "as served: 0.031", "median 0.900, quartiles 0.800 to 0.950, lowest 0.700 (2 have one)",
        "Not intended for diagnosis", "&lt;b&gt;new&lt;/b&gt; scanner", "Version 7, promoted by the gate",
    ):  # fmt: skip
        assert said in body, said


def test_without_metrics_and_with_several_classes():
    record = dataclasses.replace(
        RECORD, metrics={}, looks=None, threshold=None, temperature=None, weak_evidence=True, gate=None, slices=(),
        per_group={}, calibration=None,
    )  # fmt: skip
    card = render(record, dataclasses.replace(MANIFEST, classes=("a", "b", "c")), entry())
    assert "by argmax" in card and "Weak evidence" in card and "unknown" in card


def test_a_model_on_unproven_splits_says_so_at_the_top_and_after_a_rollback():
    made = entry(promoted_by="hand", unproven="the *paper* says so")
    card = render(RECORD, MANIFEST, made)
    said = r"because: the \*paper\* says so"
    head = card.partition("\n## Promotion\n")[0]
    assert said in head.partition("## Intended use")[0] and said in card[len(head) :]
    again = replace_promotion(card, dataclasses.replace(made, version=9, from_version=7))
    assert again.count(said) == 2
    assert "not proved" not in render(RECORD, MANIFEST, entry())


def test_bias_margin_and_figures_by_patient():
    record = dataclasses.replace(
        RECORD, bias=-0.25, threshold_note="Sensitivity 0.95 on eval.",
        calibration={**RECORD.calibration, "uncalibrated": {"test": {"ece": 0.2, "log_loss": 0.7}}},
        patient_level={"test": {"values": {"auc": interval(0.8, 0.7, 0.9)}}},
    )  # fmt: skip
    card = render(record, MANIFEST, entry())
    assert "the temperature (1.500) and the\n  bias of the logits (-0.250) were chosen on the eval split" in card
    assert "\n- Sensitivity 0.95 on eval.\n" in card and "auc of one decision per slide (mean logit): 0.800" in card
    assert "0.031 (without temperature and bias 0.200; log loss 0.700)" in card
    several = dataclasses.replace(record, bias=(0.5, -0.25, -0.25), classes=("a", "b", "c"))
    card = render(several, dataclasses.replace(MANIFEST, classes=("a", "b", "c")), entry())
    assert "(+0.500, -0.250, -0.250)" in card


def test_what_a_user_typed_is_shown_as_typed():
    assert escape("<script> *x*\n# [a](b) | c") == r"&lt;script&gt; \*x\* \# \[a\](b) \| c"
    section = promotion_section(entry(promoted_by="hand", who="a|b", why="x\n## Promotion\ny"))
    assert section.count("\n## Promotion\n") == 1 and r"a\|b" in section


def test_a_rollback_changes_the_end_only():
    card = render(RECORD, MANIFEST, entry())
    again = replace_promotion(card, entry(version=9, promoted_by="hand", from_version=7, why="stain"))
    head = card.partition("\n## Promotion\n")[0]
    assert again.startswith(head) and "version 7 published again" in again and "Version 7, promoted" not in again
