"""The page of a run: what it says, that it loads nothing, and that no string becomes markup."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from components.core.text import number
from components.report import evidence, measures, orientation, page
from components.report.evidence import Evidence, collect
from components.storage.open import open_storage
from components.training.run_types import Failure
from tests.support import report_help
from tests.support.report_help import Studio

HOSTILE = "\"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>{{ 7*7 }}$\\frac{x}$"


def sections(text: str) -> list[str]:
    return re.findall(r'<section id="([a-z]+)"', text)


def test_a_refused_run_from_the_decision_to_the_lineage(poor: Evidence, poor_page: str) -> None:
    text = poor_page
    assert sections(text) == [
        "figures", "gate", "curves", "learning", "slices", "gallery", "maps", "data", "drift", "looks", "configuration",
        "lineage",
    ]  # fmt: skip
    for said in (
        poor.record.reason, "threshold of 0.4000", "Prevalence", "unknown (50 x 50 pixels)", "champion 1700000000",
        "colour baseline", "doi:10.1117/12.2043872", "Comparability", "1 of 1 shown", "too narrow", "A tiny recipe",
        "2 runs have been evaluated on this test split", "decided by limits at 97.5 %",
        "A model truly better than the champion 1700000000 by 0.01 / 0.02 / 0.05 in AUC", "(97.5 %)",
        "than a champion that the gate found to be. The smallest",
        "look 2 at these test patients", "Research use only. Not a medical device", "patient maps",
        poor.record.content_digest, poor.record.digests["test_split"], "5" * 64, "not pushed",
    ):  # fmt: skip
        assert said.lower() in re.sub(r"&#3[49];", "'", text).lower(), said


def test_it_holds_all_that_it_shows_and_no_script(poor_page: str, types: Evidence) -> None:
    for text in (poor_page, page.render(types)):
        assert f'content="{page.CSP}"'.replace("'", "&#39;") in text
        assert "<script" not in text and "@import" not in text and "javascript:" not in text
        loaded = re.findall(r'(?:src|href|srcset|action)="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
        beside = [way.address for way in orientation.ways(types.record, None)] + ["../../good/report/index.html"]
        assert loaded and all(target.startswith(("data:image/", "#")) or target in beside for target in loaded)
        assert len(text.encode()) < page.MAX_BYTES
        ids = re.findall(r'\bid="([^"]+)"', text)
        assert len(ids) == len(set(ids))


def test_what_to_do_now_and_where_to_go(binary: Studio, poor: Evidence, poor_page: str) -> None:
    good = collect(binary.storage, "runs/idc/binary/good")
    good_page = page.render(good)
    assert "What now?" in poor_page and poor.record.code in ("worse", "not_distinguishable")
    assert orientation.advice(poor.record).startswith("Nothing: the champion stays.")
    assert f"version {good.record.version} is what predictions use" in good_page
    assert '<a href="../../good/report/index.html">the champion&#39;s run</a>' in poor_page
    for name in ("run.json", "predictions.parquet", "comparison.parquet"):
        assert f'<a href="../{name}" download>' in poor_page
    assert "expected calibration error" in poor_page and "Matthews" in poor_page
    card = f"../../../../../models/idc/binary/{good.record.version}/README.md"
    assert f'<a href="{card}" download>model card</a>' in good_page
    assert "from the champion that it was likely to detect" in poor_page
    same = dataclasses.replace(poor.record, decision="unchanged", paths={"same_as": "runs/idc/binary/good"})
    assert orientation.Way("the run that was the same", "../../good/report/index.html") in orientation.ways(same, None)
    failed = dataclasses.replace(poor.record, state="failed", decision=None)
    assert orientation.advice(failed) == ""


def close(evidence: Evidence, code: str, estimate: float, error: float = 0.01, **policy: Any) -> Any:
    """A record that was refused for a difference to the champion, on 30 patients."""
    gate = evidence.record.gate
    assert gate is not None
    difference = {"estimate": estimate, "standard_error": error, "groups": 30}
    comparison = {"against": "champion", "confidence": 0.95, "result": {"difference": difference}}
    gate = dataclasses.replace(gate, comparisons=(comparison,))
    asked = {"criterion": "better", "baseline": "better", "margin": 0.01, **policy}
    return dataclasses.replace(evidence.record, decision="refused", code=code, gate=gate, policy=asked, drift=None)


def test_the_advice_names_patients_how_many_more_are_needed_and_drift(poor: Evidence, poor_page: str) -> None:
    worst = measures.worst_groups(measures.slice_tables(poor), "patient")
    assert worst and f"Look first at patients {', '.join(worst[:3])}" in poor_page
    refused = close(poor, "not_distinguishable", 0.02)
    # 30 * (2.92188 * 0.01 / 0.02)^2 = 64.03
    assert "(+0.020), about 35 patients more in test would show it (now 30; 80 % power)" in orientation.advice(refused)
    assert "Look first at patient a: " in orientation.advice(refused, ["a"])
    assert "no number of test patients" in orientation.advice(close(poor, "not_distinguishable", -0.001))
    assert "even 20 times as many test patients" in orientation.advice(close(poor, "not_distinguishable", 0.001))
    assert " more in test" not in orientation.advice(close(poor, "worse", -0.02))
    inferior = orientation.advice(close(poor, "inferior_to_champion", 0.01, criterion="non-inferior"))
    assert orientation.STAYS not in inferior and "worse by more than its policy allows" in inferior
    assert "about 35 patients more" in inferior, "the margin is added"
    moved = dataclasses.replace(refused, drift={"drifted": ["color/mean_r"], "accepted": "new scanner"})
    assert "have moved against the champion's (mean r)" in orientation.advice(moved)


def test_the_run_before_is_linked(binary: Studio, poor: Evidence, tmp_path: Path) -> None:
    found = orientation.ways(poor.record, None, "good")
    assert orientation.Way("the run before", "../../good/report/index.html") in found
    storage, folder = open_storage(tmp_path), "runs/idc/binary/good"
    shutil.copytree(Path(binary.storage.root, folder), tmp_path / folder)
    storage.write_atomic(f"{folder}/report/index.html", b"its page")
    for created, before in (("2000-01-01T00:00:00+00:00", ""), ("2999-01-01T00:00:00+00:00", "good")):
        assert evidence._before(storage, dataclasses.replace(poor.record, created=created)) == before
    storage.delete(f"{folder}/report/index.html")
    assert evidence._before(storage, dataclasses.replace(poor.record, created="2999-01-01T00:00:00+00:00")) == ""


def test_synthetic_data_are_said_to_be_and_nothing_published_stands_beside_them(poor: Evidence, poor_page: str) -> None:
    assert "synthetic data" not in poor_page and "Cruz-Roa" in poor_page
    text = page.render(dataclasses.replace(poor, record=dataclasses.replace(poor.record, drawn=True)))
    assert '<span class="badge drawn">synthetic data</span>' in text and "A program drew these images" in text
    assert "Cruz-Roa" not in text and ">published<" not in text and "these images are synthetic" in text


def test_every_refusal_of_the_gate_has_its_advice() -> None:
    source = (Path(page.__file__).parents[1] / "promotion" / "gate.py").read_text()
    codes = set(re.findall(r'check\(\n? *"(\w+)"', source)) | set(re.findall(r'Check\(\n? *"(\w+)",\n? *False', source))
    assert {"leaky_split", "below_floors", "weak_evidence", "worse"} <= codes
    assert codes <= set(orientation.ADVICE)


def test_the_same_run_gives_the_same_bytes(poor: Evidence, poor_page: str) -> None:
    assert page.render(poor) == poor_page


def test_the_subtype_page(types: Evidence) -> None:
    text = page.render(types)
    assert "Macro-F1" in text and "argmax" in text and "Threshold" not in text
    assert text.count("called adenosis") >= 1 and "tubular adenoma" in text
    assert types.record.code == "too_few_groups" and "would have been promoted" not in text
    assert types.record.gate is not None
    weak = dataclasses.replace(types.record, weak_evidence=True)
    assert "On this evidence no model" in page.render(dataclasses.replace(types, record=weak))
    assert types.record.floors["floors"]["accuracy_over_majority"]["passed"] and types.record.bias[:2] == (0.5, -0.5)
    assert "moved class by class (adenosis +0.50, fibroadenoma -0.50, " in text and "test, before" in text
    assert "One decision per patient" in text and types.record.patient_level["test"]["groups"] == 8
    rate = types.record.recognition["test"]["all"]["patient_interval"]
    assert f"{number(rate['low'])} to {number(rate['high'])}" in text and "Cohen&#39;s kappa" in text
    assert "Recognition rates" in text and "10.1109/TBME.2015.2496264" in text


def test_patient_weighted_auc_and_what_abstaining_gains(poor: Evidence, poor_page: str) -> None:
    test, kept = poor.test, poor.record.selective["test"]
    assert test is not None and "One decision per" not in poor_page  # its patients have patches of both labels
    weight = 1 / np.array([(test.groups == name).sum() for name in test.groups])
    expected = roc_auc_score(test.labels, test.probability, sample_weight=weight)
    assert f">Patient-weighted AUC</th><td class=\"n\">{number(expected)}</td>" in poor_page
    assert kept["rows"][-1]["patches"] == len(test) // 2 and 'id="risk-' in poor_page
    assert f"risk-coverage curve {number(kept['aurc']['estimate'])}" in poor_page


@pytest.mark.parametrize(
    ("monitor", "said", "marks"),
    [
        ("", "No early stopping: the last epoch was exported.", 0),
        ("val_accuracy", "Early stopping watched accuracy on eval; its best epoch, 2, is marked.", 2),
        ("val_loss", "Early stopping watched loss on eval; its best epoch, 1, is marked.", 2),
    ],
)
def test_learning_curves_show_what_was_monitored(poor: Evidence, monitor: str, said: str, marks: int) -> None:
    history = {**report_help.HISTORY, "val_loss": [0.4, 0.45]}
    config = {**poor.record.config, "early_stopping": {"monitor": monitor, "patience": 3}}
    record = dataclasses.replace(poor.record, config=config, history=history)
    text = page.render(dataclasses.replace(poor, record=record))
    assert said in text and len(re.findall("best epoch [0-9]</text>", text)) == marks
    shown = "accuracy" if monitor == "val_accuracy" else "auc"
    assert f"Learning curve: {shown} per epoch" in text


def test_a_run_from_before_the_bias_and_an_unmet_sensitivity(poor: Evidence, poor_page: str) -> None:
    assert "then moved by -0.500; the class weights of training alone explain -0.40" in poor_page
    old = {"before": {"ece": 0.2, "log_loss": 0.5}, "served": {"test": {"ece": 0.3}}}
    record = dataclasses.replace(poor.record, bias=None, calibration=old, threshold_note="It can't be shown.")
    text = page.render(dataclasses.replace(poor, record=record))
    assert "moved by" not in text and "test, as served" in text and "It can" in text


def hostile(evidence: Evidence) -> Evidence:
    """The same run with names and texts that try to become markup."""
    test = evidence.test
    assert test is not None and evidence.rejects is not None and evidence.manifest is not None
    facts = {**(test.facts or {}), "tumor_type": np.array([HOSTILE, "b"] * len(test), object)[: len(test)]}
    split = dataclasses.replace(
        test,
        patch_id=np.array([f"{name}{HOSTILE}" for name in test.patch_id], object),
        groups=np.array([f"{name}{HOSTILE}" for name in test.groups], object),
        facts=facts,
    )
    rows = [{**row, "path": HOSTILE, "detail": HOSTILE} for row in evidence.rejects.to_pylist()]
    record = dataclasses.replace(
        evidence.record, reason=HOSTILE, warnings=(HOSTILE,), options={"accept_drift": HOSTILE},
        config={**evidence.record.config, "model": HOSTILE, "title": HOSTILE, HOSTILE: HOSTILE},
        error=Failure("train", 70, HOSTILE),
    )  # fmt: skip
    manifest = dataclasses.replace(evidence.manifest, warnings=(HOSTILE,), input=HOSTILE)
    rejects = type(evidence.rejects).from_pylist(rows, schema=evidence.rejects.schema)
    return dataclasses.replace(
        evidence, record=record, manifest=manifest, splits={**evidence.splits, "test": split}, rejects=rejects,
        notes=(HOSTILE,),
    )  # fmt: skip


@pytest.mark.parametrize("state", ["done", "failed"])
def test_no_string_becomes_markup(poor: Evidence, poor_page: str, state: str) -> None:
    evidence = hostile(poor)
    evidence = dataclasses.replace(evidence, record=dataclasses.replace(evidence.record, state=state))
    text = page.render(evidence)
    assert "<script" not in text and "<img src=http" not in text
    assert text.count("&lt;script&gt;alert(1)") > 20
    assert "{{ 7*7 }}" in text
    assert poor_page.count("<img ") == text.count("<img ")


def test_a_pruned_data_set_is_said_in_place_of_images(binary: Studio, tmp_path: Path) -> None:
    root = Path(shutil.copytree(binary.root, tmp_path / "w"))
    shutil.rmtree(root / binary.dataset_dir)
    evidence = collect(report_help.open_storage(root), "runs/idc/binary/poor")
    text = page.render(evidence)
    assert "is no longer there" in text and "no pixels" in text
    assert "<img" not in text and 'id="maps"' not in text
    assert "By patient" in text and 'id="curves"' in text  # what the prediction tables hold is shown all the same


def test_the_part_that_the_label_speaks_of_is_framed(poor: Evidence, poor_page: str) -> None:
    assert poor.manifest is not None and "frame marks" not in poor_page
    manifest = dataclasses.replace(poor.manifest, source_size=(96, 96), label_region=(32, 32, 32, 32))
    text = page.render(dataclasses.replace(poor, manifest=manifest))
    assert "left: 33.33%;top: 33.33%;width: 33.33%;height: 33.33%;" in text and "frame marks" in text


def test_an_evaluation_elsewhere_says_what_it_is(poor: Evidence) -> None:
    record = dataclasses.replace(
        poor.record, decision=None, code="evaluation", reason="Evaluation only.", gate=None,
        smallest_detectable=None, drift=None, policy=None, history={}, calibration=None,
    )  # fmt: skip
    text = page.render(dataclasses.replace(poor, record=record, rivals={}))
    assert 'class="badge evaluated"' in text and "Figures on the patches that were evaluated" in text
    assert "compares with no other model" in text and 'id="gate"' not in text


def test_what_was_accepted_and_what_auto_applied_is_said(poor: Evidence) -> None:
    assert poor.record.looks is not None and poor.record.gate is not None
    record = dataclasses.replace(
        poor.record, promotion={"promoted_by": "hand", "who": "ada", "why": "x", "unproven": f"read the {HOSTILE}"},
        policy={**(poor.record.policy or {}), "requested": "auto", "criterion": "better", "why": "its code is another"},
        looks=dataclasses.replace(poor.record.looks, groups=1, of_groups=2),
    )  # fmt: skip
    text = page.render(dataclasses.replace(poor, record=record))
    assert "because: read the" in text and "<script" not in text and "Policy auto applied better" in text
    assert "evaluated on 1 of the 2 patients of this test split" in text
    old = dataclasses.replace(poor.record.gate, power=None, confidence=None, look=None, comparisons=())
    looks = dataclasses.replace(poor.record.looks, groups=None, of_groups=None)
    text = page.render(dataclasses.replace(poor, record=dataclasses.replace(poor.record, gate=old, looks=looks)))
    assert "2 runs have been evaluated on this test split" in text and "what decides" not in text


def test_damaged_shards_leave_gaps_only(binary: Studio, tmp_path: Path) -> None:
    root = Path(shutil.copytree(binary.root, tmp_path / "w"))
    for shard in (root / binary.dataset_dir / "Split-test").iterdir():
        shard.write_bytes(b"\0" * shard.stat().st_size)
    text = page.render(collect(report_help.open_storage(root), "runs/idc/binary/poor"))
    assert "no pixels" in text and 'class="map"' in text


def test_failed_unchanged_and_running_runs_have_pages(binary: Studio, tmp_path: Path) -> None:
    studio = Studio(Path(shutil.copytree(binary.root, tmp_path / "w")), binary.data)
    error = {"stage": "train", "exit_code": 65, "message": "The loss is no number.\n\nLower the learning rate."}
    folder = studio.begun("failed", state="failed", error=error)
    text = page.render(collect(studio.storage, folder))
    assert "Failed in train (exit 65): The loss is no number." in text and 'class="badge failed"' in text
    assert 'id="learning"' in text and 'id="data"' in text and 'id="figures"' not in text
    folder = studio.begun("again", decision="unchanged", reason="Unchanged: as in run good.", state="done")
    assert "Unchanged: as in run good." in page.render(collect(studio.storage, folder))
    folder = studio.begun("halfway")
    assert "there is no decision yet" in page.render(collect(studio.storage, folder))


def test_a_page_that_would_be_too_large_shows_fewer_images(poor: Evidence, poor_page: str) -> None:
    whole = poor_page
    less = page.render(poor, limit=len(whole.encode()) - 1)
    assert "fewer images are shown" in less and "fewer images" not in whole
    assert 0 < less.count("<img") < whole.count("<img")
    assert page.render(poor, limit=1).count("<img") == 0


def test_writing_notes_the_page_in_the_record(binary: Studio, tmp_path: Path) -> None:
    studio = Studio(Path(shutil.copytree(binary.root, tmp_path / "w")), binary.data)
    path = page.write(studio.storage, "runs/idc/binary/good")
    assert path == "runs/idc/binary/good/report/index.html"
    assert studio.record("runs/idc/binary/good").report == path
    assert "champion" in (studio.root / path).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("value", "said"), [(None, "–"), (float("nan"), "–"), (0.12345, "0.123"), (1, "1.000")]
)
def test_numbers(value: Any, said: str) -> None:
    assert number(value) == said


def test_published_figures_name_source_and_comparability() -> None:
    for dataset, task in (("idc", "binary"), ("pcam", "binary"), ("breakhis", "binary")):
        for source in page.published(dataset, task):
            assert source["source"] and source["comparable"] and re.fullmatch(r"10\.\d{4,}/\S+", source["doi"])
            assert all(0 < value < 1 for value in source["figures"].values())
    assert page.published("breakhis", "subtype") == [] == page.published("unheard", "of")
