"""The real subsets with default flags: what is written and rejected, and what an independent reader says of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from components.datasets.manifest import RejectFacts
from tests.support.ingest_help import Result, ingest

pytestmark = [pytest.mark.realdata, pytest.mark.integration]


def check(shared_data: Path, raw: Path, result: Result) -> str:
    """Runs the reader that shares no code with us over every record; returns what it says."""
    tool = shared_data.parent / "tools" / "check_dataset.py"
    if not tool.is_file():
        pytest.skip("tools/check_dataset.py is not beside the real data")
    done = subprocess.run(
        [sys.executable, tool, result.folder, raw, "--sample", "0"],
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0 and done.stdout.endswith("ok\n"), done.stdout + done.stderr
    return done.stdout


def test_idc(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "idc"
    result = ingest(raw, tmp_path)
    manifest = result.manifest
    assert (manifest.found, manifest.written) == (5771, 5737)
    assert manifest.rejects == {"too_narrow": RejectFacts("fault", 34)}
    assert manifest.group_unit == "patient" and len(result.splits) == 165 and manifest.flags == ()
    assert result.is_latest
    for split, share in (("train", 0.7), ("eval", 0.1), ("test", 0.2)):
        assert abs(manifest.splits[split].patches / manifest.written - share) < 0.02
        assert all(n > 0 for n in manifest.splits[split].by_class.values())
    check(shared_data, raw, result)


def test_breakhis(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "breakhis"
    result = ingest(raw, tmp_path, "breakhis")
    manifest = result.manifest
    assert (manifest.found, manifest.written, manifest.rejects) == (80, 80, {})
    assert manifest.group_unit == "patient" and manifest.stored_size == (350, 230)
    assert "14-13412" in result.splits, "one group, though it shows two types"
    check(shared_data, raw, result)


def test_breakhis_subtype_keeps_a_case_of_two_types_together(shared_data: Path, tmp_path: Path) -> None:
    result = ingest(
        shared_data / "breakhis", tmp_path, "breakhis", task="subtype", on_infeasible="train-only"
    )
    case = [r for r in result.patches if r["group_id"] == "14-13412"]
    assert {r["tumor_type"] for r in case} == {"DC", "LC"} and len({r["split"] for r in case}) == 1
    check(shared_data, shared_data / "breakhis", result)


def test_pcam(shared_data: Path, tmp_path: Path) -> None:
    raw = shared_data / "pcam"
    result = ingest(raw, tmp_path, "pcam", group_by="image")
    manifest = result.manifest
    assert (manifest.found, manifest.written) == (1600, 1446)
    assert manifest.rejects == {"unlabelled": RejectFacts("excluded", 154)}
    assert manifest.flags == ("not_patient_clustered",) and manifest.label_region == (32, 32, 32, 32)
    check(shared_data, raw, result)
