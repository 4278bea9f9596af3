"""An exported model on data that it was not trained on: figures, left-out groups, report, no decision."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.core import json_documents
from components.errors import UsageError
from components.metrics.point import binary_metrics
from components.prediction import external_evaluation as external
from components.promotion import find_model
from components.promotion.evaluation import PREDICTIONS
from components.storage.open import open_storage
from components.training import run_record
from components.training.run_inputs import find_dataset
from components.training.run_types import RunRecord
from pipelines import evaluate
from pipelines.evaluate import make_report
from tests.support import model_help, predict_help, train_help
from tests.support.cli_help import invoke

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def sites(tmp_path_factory):
    """A workspace with one site's model, and data of another site that shares two patients with it."""
    root = tmp_path_factory.mktemp("sites")
    workspace = root / "ws"
    home = model_help.idc(root / "home", 12, 2)
    own = predict_help.ingest(home, workspace, "idc")
    model = predict_help.export(root / "model", own.folder, threshold=0.5)
    away = model_help.idc(root / "away", 20, 3)
    trained = sorted(group for group, split in own.splits.items() if split != "test")
    for folder in away.iterdir():  # patients of their own, but for two
        if folder.name not in trained[:2]:
            for file in folder.rglob("*.png"):
                name = file.relative_to(away).as_posix().replace(folder.name, f"8{folder.name}")
                (away / name).parent.mkdir(parents=True, exist_ok=True)
                file.rename(away / name)
            shutil.rmtree(folder)
    other = predict_help.ingest(away, workspace, "idc")
    return workspace, model, own, other, trained[:2]


def measured(workspace: Path, model: Path, plan_id: str, run_id: str) -> tuple[RunRecord, Path]:
    storage = open_storage(workspace)
    source = find_model.model_folder(str(model))
    dataset_dir, manifest = find_dataset(storage, "idc", "binary", plan_id)
    task = external.prepare(storage, source, dataset_dir, manifest)
    folder = run_record.run_dir("idc", "binary", run_id)
    with run_record.lock(storage, folder, "test"):
        external.begin(storage, folder, task)
        external.evaluate(storage, folder, task, predict_help.here)
        make_report(storage, folder)
    return run_record.read(storage, folder), workspace / folder


def test_every_unseen_patient_counts_and_no_other(sites):
    workspace, model, _, other, shared = sites
    record, folder = measured(workspace, model, other.plan_id, "away")
    assert json_documents.problem(record.to_document(), run_record.SCHEMA) == ""
    assert record.decision is None and record.gate is None and record.version is None
    result = record.options["evaluation"]
    unseen = [row for row in other.patches if row["group_id"] not in shared]
    assert result["left_out_groups"] == 2 and result["left_out_patches"] == len(other.patches) - len(unseen)
    assert any("2 patients" in text and "left out" in text for text in record.warnings)
    assert "no decision" in record.reason and "2 patients" in record.reason
    rows = {row["patch_id"]: row for row in pq.read_table(folder / PREDICTIONS).to_pylist()}
    assert set(rows) == {row["patch_id"] for row in unseen}
    assert {row["split"] for row in rows.values()} == {"test"}
    by_hand = binary_metrics(
        np.array([row["label"] for row in unseen]),
        np.array([rows[row["patch_id"]]["probability"] for row in unseen]),
        record.threshold,
    )
    values = record.metrics["test"]["values"]
    assert values["auc"]["estimate"] == pytest.approx(by_hand["auc"])
    assert values["f1"]["estimate"] == pytest.approx(by_hand["f1"])
    assert values["auc"]["low"] < values["auc"]["estimate"] < values["auc"]["high"]
    assert record.metrics["test"]["groups"] == result["groups"] == 18
    assert record.slices and record.looks.count == 1


def test_its_report_shows_images_of_every_split(sites):
    workspace, model, _, other, _ = sites
    record, folder = measured(workspace, model, other.plan_id, "pages")
    page = (workspace / record.report).read_text()
    assert "no decision" in page and "18 patients" in page
    assert page.count("data:image/png") > 4
    assert "pages/report/index.html" in (workspace / "runs" / "index.html").read_text()
    assert folder.name in (workspace / "runs" / "index.html").read_text()


def test_on_its_own_data_only_the_test_patients_are_left(sites):
    workspace, model, own, _, _ = sites
    record, folder = measured(workspace, model, own.plan_id, "own")
    test = {row["patch_id"] for row in own.patches if row["split"] == "test"}
    assert set(pq.read_table(folder / PREDICTIONS)["patch_id"].to_pylist()) == test
    assert record.looks.test_digest == record.digests["test_split"]


def test_the_command_and_a_name_that_is_taken(sites, capsys):
    workspace, model, own, other, _ = sites
    given = ("--model", model, "--data", other.folder, "--workspace", workspace, "--run-id", "cli", "--json")
    done = train_help.run("evaluate", *given)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["decision"] is None and result["state"] == "done" and result["evaluation"]["left_out_groups"] == 2
    assert Path(result["report"]).is_file() and result["metrics"]["auc"] is not None
    assert invoke("evaluate", "--model", model, "--data", own.plan_id, *given[4:]) == 64
    assert "exists already" in capsys.readouterr().err


def test_what_can_not_be_evaluated_is_told(sites, tmp_path):
    workspace, model, own, other, _ = sites
    none = {"model": "", "workspace": str(workspace), "data": own.plan_id, "run_id": ""}
    with pytest.raises(UsageError, match="one of the two"):
        evaluate.run("", none, 2, [])
    with pytest.raises(UsageError, match="no version and no run with a model named '77'"):
        evaluate.run("77", none, 2, [])
    every = shutil.copytree(model, tmp_path / "model")
    (every / "assets.extra/train_groups.json").write_text(json.dumps(sorted(own.splits)))
    with pytest.raises(UsageError, match="trained on all 12 groups"):
        evaluate.run("", {**none, "model": str(every)}, 2, [])
    raw = predict_help.raw(tmp_path / "raw", "breakhis")
    foreign = predict_help.ingest(raw, tmp_path / "ws", "breakhis")
    with pytest.raises(UsageError, match="no data set of the workspace"):
        evaluate.run("", {**none, "model": str(model), "data": str(foreign.folder)}, 2, [])
