"""The report's TFX section from made-up findings; with TFX's own in tests/pipelines/test_train.py."""

from __future__ import annotations

import dataclasses
import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.metrics.point import average_precision, log_loss, roc_auc
from components.report import page, tfx_document, tfx_section
from components.report.evidence import Evidence, collect
from components.report.tfx_document import (
    Anomaly,
    Artifact,
    BesideModel,
    Execution,
    FeatureStatistics,
    TfxDocument,
)
from components.storage.open import open_storage
from tests.support.report_help import Studio
from tests.support.schemas import differences

HOSTILE = "<script>alert(1)</script>"


def document(**changes: Any) -> TfxDocument:
    numbers = FeatureStatistics(
        "color/red_mean", "train", "FLOAT", 8, 2, 126.5, 5.25, 115.0, 135.0, None, (1, 4, 3), ()
    )
    texts = FeatureStatistics(
        "label/name", "test", "STRING", 8, 0, None, None, None, None, 2, (6, 2), ("negative", "idc")
    )
    fixed = FeatureStatistics("image/width", "train", "INT", 8, 0, 50.0, 0.0, 50.0, 50.0, None, (4, 4), ())
    facts: dict[str, Any] = {
        "format": 1,
        "store": "/w/metadata/idc-binary.sqlite",
        "executions": (Execution(3, "Trainer", "tfx.Trainer", "COMPLETE", "2026-01-02T03:04:05+00:00", (1,), (2,)),),
        "artifacts": (
            Artifact(1, "Examples", "/w/data", "LIVE", {}),
            Artifact(2, "Model", "/w/model/2", "LIVE", {"blessed": "1"}),
        ),
        "statistics": (numbers, fixed, texts),
        "anomalies": (Anomaly("eval", "x", "It holds what it must not.", "error"),),
        "beside": BesideModel(17, ""),
        "evaluation": "/w/it's/evaluation/9",
    }
    return TfxDocument(**{**facts, **changes})


def floors(evidence: Evidence, **off: float) -> dict[str, Any]:
    """What the Evaluator says of the run, off by so much."""
    test = evidence.test
    assert test is not None
    exact = {"auc": roc_auc, "pr_auc": average_precision, "log_loss": log_loss}
    overall = {name: metric(test.labels, test.probability) + off.get(name, 0.0) for name, metric in exact.items()}
    group = str(test.groups[0])
    mask = test.groups == group
    part = {name: metric(test.labels[mask], test.probability[mask]) for name, metric in exact.items()}
    return {
        "blessed": False, "reason": "AUC", "overall": overall, "champion": {**overall, "auc": 0.875},
        "difference": {"auc": -0.125, "pr_auc": 0.0, "log_loss": 0.0},
        "floors": {
            "auc": {"value": overall["auc"], "bound": 0.9, "direction": "at least", "passed": False, "detail": ""},
        },
        "slices": [{"by": "group", "value": group, "patches": int(mask.sum()), **part}],
    }  # fmt: skip


def seen(evidence: Evidence, told: TfxDocument | None, **off: float) -> Evidence:
    record = dataclasses.replace(evidence.record, floors=floors(evidence, **off))
    return dataclasses.replace(evidence, record=record, tfx=told)


def test_types_and_schema_say_the_same() -> None:
    assert differences(TfxDocument, "tfx.schema.json") == []


def test_what_was_written_is_read_and_damage_is_no_document(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    assert tfx_document.read(storage, "runs/a") is None
    for told in (document(), document(anomalies=None, beside=None, evaluation="", statistics=())):
        tfx_document.write(storage, "runs/a", told)
        assert tfx_document.read(storage, "runs/a") == told
    (tmp_path / "runs/a/tfx.json").write_text('{"format": 1}')
    assert tfx_document.read(storage, "runs/a") is None


def test_the_page_shows_what_tfx_found(poor: Evidence) -> None:
    text = page.render(seen(poor, document()))
    section = text[text.index('<section id="tfx">') : text.index('<section id="data">')]
    assert '<td class="n">at least 0.900</td><td class="bad">no</td>' in section
    assert "champion 17" in section and "0.8750" in section and "-0.1250" in section
    assert "differs by definition" in section and "Davis and Goadrich" in section and "no, not within" not in section
    assert "TFMA&#39;s slices by patient: 1" in section or "TFMA's slices by patient: 1" in section
    assert "It holds what it must not." in section and "126.500 ± 5.250" in section and "2 missing" in section
    assert "always 50" in section and "negative: 6, idc: 2" in section
    assert section.count('<svg class="spark"') == 2, "a feature that never changes has no histogram"
    assert "Google Charts" in section
    lineage = text[text.index('<section id="lineage">') :]
    assert "#2 Model (LIVE)" in lineage and "/w/model/2" in lineage and "blessed 1" in lineage
    assert '<a href="#tfx">' in text and "<script" not in text


def test_the_lines_for_a_notebook_are_python(poor: Evidence) -> None:
    text = page.render(seen(poor, document()))
    lines = html.unescape(re.findall(r'<pre class="code" id="tfma-lines">(.*?)</pre>', text, re.DOTALL)[0])
    assert lines.endswith("""load_eval_result("/w/it's/evaluation/9", model_name='candidate')""")
    compile(lines, "notebook", "exec")
    alone = tfx_section.section(seen(poor, document(beside=BesideModel(None, "nothing was promoted before"))))
    assert alone is not None and "model_name" not in alone.notebook
    assert alone.beside == "No champion stands beside it: nothing was promoted before."


@pytest.mark.parametrize("name", ["auc", "log_loss"])
def test_figures_that_lie_apart_are_marked(poor: Evidence, name: str) -> None:
    told = tfx_section.section(seen(poor, document(), **{name: 0.02}))
    assert told is not None
    assert {figure.name: figure.agrees for figure in told.overall} == {
        "auc": name != "auc", "log_loss": name != "log_loss", "pr_auc": None,
    }  # fmt: skip
    assert all(figure.agrees is not False for table in told.slices for row in table.rows for figure in row.figures)
    assert "no, not within" in page.render(seen(poor, document(), **{name: 0.02}))


def test_ties_of_tfmas_thresholds_widen_the_tolerance_of_auc(poor: Evidence) -> None:
    test = poor.test
    assert test is not None
    near = dataclasses.replace(test, probability=np.float32(0.5) + test.probability * np.float32(1e-4))
    both = [
        tfx_section.figures(dataclasses.replace(poor, splits={"test": split}), {"auc": 0.5}, None)[0].tolerance
        for split in (test, near)
    ]
    assert both[0] < 0.01 and both[1] == pytest.approx(0.5, abs=1e-3)


def test_no_name_becomes_markup(poor: Evidence) -> None:
    told = document(
        store=HOSTILE,
        artifacts=(Artifact(1, HOSTILE, HOSTILE, HOSTILE, {HOSTILE: HOSTILE}), Artifact(2, "M", HOSTILE, "LIVE", {})),
        anomalies=(Anomaly(HOSTILE, HOSTILE, HOSTILE, "error"),),
        statistics=tuple(dataclasses.replace(one, feature=HOSTILE, labels=(HOSTILE,)) for one in document().statistics),
        evaluation=HOSTILE,
        beside=BesideModel(None, HOSTILE),
    )
    text = page.render(seen(poor, told))
    assert "<script" not in text and text.count("&lt;script&gt;alert(1)") > 10


def test_a_run_without_tfx_has_no_section(poor: Evidence, poor_page: str, binary: Studio) -> None:
    assert tfx_section.section(poor) is None and 'id="tfx"' not in poor_page
    # An older run kept the Evaluator's figures in run.json, and nothing else.
    text = page.render(seen(poor, None))
    assert 'id="tfx"' in text and "In a notebook" not in text and "TFDV" not in text


def test_the_document_beside_run_json_is_found(binary: Studio) -> None:
    folder = "runs/idc/binary/good"
    tfx_document.write(binary.storage, folder, document())
    try:
        assert collect(binary.storage, folder).tfx == document()
    finally:
        binary.storage.delete(f"{folder}/{tfx_document.NAME}")
