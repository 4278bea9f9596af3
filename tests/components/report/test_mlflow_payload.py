"""What MLflow is told of a run follows from run.json alone."""

from __future__ import annotations

import dataclasses
import json

import pytest

from components.report.mlflow_payload import LONGEST_PARAMETER, milliseconds, payload
from components.training.run_types import StageEntry
from tests.support.report_help import HISTORY, Studio


def test_a_run_with_curves_figures_and_digests(binary: Studio) -> None:
    record = binary.record("runs/idc/binary/good")
    stages = {**record.stages, "train": StageEntry("done", "2026-11-26T01:00:00+00:00")}
    sent = payload(dataclasses.replace(record, stages=stages, state="done"), "/w")
    assert (sent.experiment, sent.name, sent.status) == ("histoline idc binary", "good", "FINISHED")
    assert sent.parameters["model"] == "tiny" and sent.parameters["phases.0.epochs"] == "2"
    curve = [v for v in sent.values if v.key == "epoch/val_auc"]
    assert [v.value for v in curve] == HISTORY["val_auc"] and [v.step for v in curve] == [1, 2]
    # An epoch took a second each.
    start = milliseconds("2026-11-26T01:00:00+00:00")
    assert [v.timestamp - start for v in curve] == [1000, 2000]
    final = {v.key: v.value for v in sent.values if v.step == 0}
    auc = record.figures()["auc"]
    for name, end in (("test/auc", "estimate"), ("test/auc/low", "low"), ("test/auc/high", "high")):
        assert final[name] == pytest.approx(auc[end])
    assert "eval/auc" in final and "eval/auc/low" not in final, "too few patients for an interval"
    assert final["gate/against_baseline/low"] > 0 and final["threshold"] == 0.4
    assert sent.tags["digest.source"] == "5" * 64 and sent.tags["content_digest"] == record.content_digest
    assert sent.tags["outcome"] == "promoted" and sent.tags["mlflow.note.content"] and sent.started <= sent.ended
    json.dumps(dataclasses.asdict(sent), allow_nan=False)


def test_what_is_missing_not_finite_or_long(binary: Studio) -> None:
    record = binary.record("runs/idc/binary/poor")
    bare = dataclasses.replace(
        record, state="failed", metrics={}, gate=None, version=None, looks=None, config={"title": "x" * 9000},
        history={"loss": [float("nan"), 0.5, None], "seconds": [1.0]}, timings={}, temperature=None, threshold=None,
    )  # fmt: skip
    sent = payload(bare, "/w")
    assert sent.status == "FAILED" and len(sent.parameters["title"]) == LONGEST_PARAMETER
    loss = [v for v in sent.values if v.key == "epoch/loss"]
    assert [(v.value, v.step) for v in loss] == [(0.5, 2)]
    assert "model_version" not in sent.tags and "looks" not in sent.tags
    assert payload(dataclasses.replace(bare, state="running"), "/w").status == "RUNNING"
