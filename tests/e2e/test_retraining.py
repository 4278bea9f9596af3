"""Four weeks on real Airflow servers with real steps: promote, better, nothing new, damaged, worse."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.core import processes

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a demonstration that has ended; the script itself checks each week as it goes."""
    folder = tmp_path_factory.mktemp("weeks") / "retrain"
    command = [sys.executable, str(ROOT / "infra" / "demo_retrain.py"), "--folder", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder.parent)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return folder


def weeks(played: Path) -> list[dict[str, Any]]:
    return list(json.loads((played / "weeks.json").read_text()))


def test_what_happened_each_week(played: Path) -> None:
    found = [(w["week"], w["dag"], w["state"], w["decision"]) for w in weeks(played)]
    assert found == [
        (1, "idc_ingest", "success", None),
        (1, "idc_train", "success", "promoted"),
        (2, "idc_ingest", "success", None),
        (2, "idc_train", "success", "promoted"),
        (3, "idc_ingest", "success", None),
        (3, "idc_train", "success", "unchanged"),
        (4, "idc_ingest", "failed", None),
        (4, "idc_train", "success", "refused"),
    ]


def test_the_better_model_is_better_on_the_same_patients(played: Path) -> None:
    result = weeks(played)[3]["result"]
    record = json.loads((played / "workspace/runs/idc/binary" / result["run_id"] / "run.json").read_text())
    assert record["decision"] == "promoted" and "champion" in record["reason"]
    assert record["content_digest"] == result["content_digest"]


def test_the_champion_of_week_2_stays_and_is_whole(played: Path) -> None:
    found = weeks(played)
    assert len({w["champion"] for w in found[3:]}) == 1
    version = found[3]["champion"]
    assert found[1]["champion"] not in ("", version)
    models = played / "workspace/models/idc/binary"
    assert (models / version / "saved_model.pb").is_file()
    versions = {path.name for path in models.iterdir() if path.is_dir() and path.name.isdigit()}
    assert versions == {version, found[1]["champion"]}, "nothing else was pushed"


def test_damaged_images_are_listed(played: Path) -> None:
    import pyarrow.parquet as pq

    reason = weeks(played)[6]["reason"]
    assert "are faulty" in reason
    listed = Path(reason.split("All are listed in ")[1].split("rejects.parquet")[0] + "rejects.parquet")
    rejects = pq.read_table(listed).to_pylist()
    assert sum(row["kind"] == "fault" for row in rejects) >= 240
    # The data set that training takes is still that of week 2.
    latest = json.loads((played / "workspace/datasets/idc/binary/latest.json").read_text())
    assert latest["content_digest"] == weeks(played)[3]["result"]["content_digest"]


def test_no_process_is_left(played: Path) -> None:
    assert processes.marked(str(played / "airflow")) == set()
