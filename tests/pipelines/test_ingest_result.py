"""What ingest tells a scheduler: a result file however it ends, and log lines with a level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import ingest_help as help
from tests.support import trees

pytestmark = pytest.mark.integration


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    trees.idc_tree(tmp_path / "raw")
    return tmp_path / "raw"


def run(raw: Path, tmp_path: Path, *more: str):
    """Exit code, result and log lines of an ingest."""
    result = tmp_path / "result.json"
    result.unlink(missing_ok=True)
    done = help.run(
        "idc", "--input", raw, "--workspace", tmp_path / "w", *more,
        HISTOLINE_RESULT_JSON=str(result), HISTOLINE_LOG_FORMAT="json",
    )  # fmt: skip
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    return done.returncode, json.loads(result.read_text()) if result.exists() else None, lines


def test_committed_then_unchanged(raw: Path, tmp_path: Path) -> None:
    code, first, _ = run(raw, tmp_path)
    assert code == 0 and first["state"] == "committed" and first["is_latest"] is True
    assert Path(first["dataset_dir"], "manifest.json").is_file()
    assert first["task"] == "binary" and first["content_digest"] and first["plan_id"] and first["rejects"] == {}
    code, again, _ = run(raw, tmp_path)
    assert code == 0 and again == {**first, "state": "unchanged"}


def test_failed_data_say_which(raw: Path, tmp_path: Path) -> None:
    (raw / trees.idc_path("9000", 0, 951, 951)).write_bytes(b"")
    code, result, lines = run(raw, tmp_path)
    assert code == 65
    assert result["state"] == "failed" and "empty_file" in result["reason"] and "rejects.parquet" in result["reason"]
    assert [line["msg"] for line in lines if line["level"] == "error"] == [result["reason"]]


def test_wrong_usage_is_told_by_the_log(raw: Path, tmp_path: Path) -> None:
    code, _, lines = run(raw, tmp_path, "--on-duplicate", "keep")
    assert code == 64
    assert "keep-train" in [line["msg"] for line in lines if line["level"] == "error"][-1]
