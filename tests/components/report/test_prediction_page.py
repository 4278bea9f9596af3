"""The page of a prediction: what it says of drift and rejects, and that a file's name stays a name."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

from components.metrics.drift import Shift
from components.report import prediction_page

HOSTILE = "<script>alert(1)</script>.png"


def summary(drifted: bool = True) -> dict[str, Any]:
    shift = Shift("scored", "color/eosin_od", 4.2 if drifted else 0.1, 2.2, 0.31, 0.12, 6)
    told = {
        "version": "7", "skipped": "", "unit": "patient", "groups": 6, "metric": "",
        "drifted": ["color/eosin_od"] if drifted else [], "text": "The colours have shifted." if drifted else "",
        "shifts": [{**shift.__dict__, "drifted": drifted}],
    }  # fmt: skip
    return {
        "dataset": "idc", "task": "binary", "model_version": "7", "classes": ["negative", "idc"], "threshold": 0.4,
        "found": 12, "predicted": 10, "rejected": 2, "rejects": {"truncated": {"kind": "fault", "count": 2}},
        "called": {"negative": 7, "idc": 3}, "histogram": [5, 2, 0, 3], "groups": 6, "of_training_groups": 0,
        "warnings": [], "input": "/data/new", "files": {"output": "/out/p.parquet"}, "drift": told,
        "slides": [{"name": HOSTILE, "file": "a.png", "patches": 10, "positive": 3}], "slide_maps": 1,
    }  # fmt: skip


def test_it_says_what_was_found_and_runs_no_script(tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    (tmp_path / "maps/a.png").write_bytes(b"\x89PNG")
    rejects = [{"path": f"{n}/{HOSTILE}", "code": "truncated", "detail": "ends early"} for n in range(5)]
    page = tmp_path / "deep" / "index.html"
    prediction_page.write(summary(), rejects, str(tmp_path / "maps"), str(page))
    assert list(page.parent.iterdir()) == [page]
    text = page.read_text()
    assert "<script" not in text and text.count("alert(1)") == prediction_page.MAX_EXAMPLES + 2
    for said in ("The colours have shifted.", "10 of 12 images scored", "eosin od", "+4.20", "data:image/png"):
        assert said in text
    assert "70.0 %" in text and 'class="badge refused"' in text and "Not a medical device" in text


@pytest.mark.parametrize("kind", ["fine", "unknown", "subtype"])
def test_without_drift_statistics_or_a_threshold(kind: str) -> None:
    told = copy.deepcopy(summary(drifted=False))
    if kind == "unknown":
        told["drift"] |= {"skipped": "no statistics to compare with: model 7 carries none", "shifts": [], "groups": 0}
    if kind == "subtype":
        told |= {"threshold": None, "classes": ["a", "b", "c"], "called": {"a": 1, "b": 2, "c": 7}}
        del told["histogram"], told["slides"], told["slide_maps"]
    text = prediction_page.render(told)
    assert ("no drift" in text) is (kind != "unknown") and 'class="n bad"' not in text
    assert ("no statistics to compare with" in text) is (kind == "unknown")
    assert ('id="thresh' in text or "<svg" in text) is (kind != "subtype")
