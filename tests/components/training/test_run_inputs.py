"""What a run starts from: found, checked and frozen before anything heavy is loaded."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.errors import UsageError
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_inputs, run_record
from components.training.source_digest import source_digest
from pipelines.recipes import PRESETS_FOLDER
from tests.support import ingest_help, trees

FOLDER = "runs/idc/binary/one"
choose = functools.partial(run_inputs.choose_config, folder=PRESETS_FOLDER)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A workspace with one data set."""
    root = tmp_path_factory.mktemp("inputs")
    trees.idc_tree(root / "raw", patients=12, per_class=2)
    ingest_help.ingest(root / "raw", root / "w")
    return open_storage(root / "w")


def settled(
    storage: Storage, options: dict[str, Any] | None = None, data: str = "", **changes: str
) -> run_inputs.Inputs:
    """Inputs with the quick recipe."""
    config = choose("idc", "binary", "idc_quick", overrides=changes)
    return run_inputs.settle(storage, "idc", "binary", data, config, options or {})


def test_the_latest_data_set_is_taken_unless_one_is_named(workspace: Storage) -> None:
    inputs = settled(workspace)
    plan = inputs.manifest.plan_id
    assert inputs.dataset_dir == f"datasets/idc/binary/{plan}"
    whole = Path(workspace.root) / inputs.dataset_dir
    assert (
        settled(workspace, data=plan).dataset_dir
        == settled(workspace, data=f"{whole}/").dataset_dir
        == inputs.dataset_dir
    )


def test_where_there_is_no_data_set_the_way_to_one_is_told(tmp_path: Path, workspace: Storage) -> None:
    with pytest.raises(UsageError, match="histoline ingest idc --input DIR"):
        settled(open_storage(tmp_path))
    with pytest.raises(UsageError, match="no data set of the workspace"):
        settled(workspace, data=str(tmp_path))


def test_the_recipe_follows_preset_model_and_default() -> None:
    assert choose("idc", "binary").model == "frozen_features"
    assert choose("idc", "binary", model="mobilenet_v2").title.startswith("IDC, MobileNetV2")
    assert choose(
        "pcam", "binary", model="pcam_cnn"
    ).early_stopping.monitor  # the real recipe, not the quick one
    assert choose("idc", "binary", "idc_quick", overrides={"phases.0.epochs": "9"}).epochs == 9
    with pytest.raises(UsageError, match="cnn_105k"):
        choose("idc", "binary", model="cnn_105")


def test_a_recipe_for_other_data_is_refused(workspace: Storage) -> None:
    with pytest.raises(UsageError, match="dataset"):
        run_inputs.settle(workspace, "idc", "binary", "", choose("pcam", "binary"), {})


def test_inputs_differ_with_recipe_and_code_but_not_with_the_title(
    workspace: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = settled(workspace).digest()
    assert (
        digest
        == settled(workspace, title="another").digest()
        == settled(workspace, {"accept_drift": "x"}).digest()
    )
    assert digest != settled(workspace, seed="1").digest()
    monkeypatch.setattr(run_inputs, "source_digest", lambda: "other code")
    assert digest != settled(workspace).digest()


def test_the_source_digest_is_stable_and_covers_the_models(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert source_digest() == source_digest() and len(source_digest()) == 64
    from components.training import source_digest as module

    assert all((module.ROOT / name).is_dir() for name in module.FOLDERS)
    for name in ("components", "pipelines", "schemas"):
        shutil.copytree(module.ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(module, "ROOT", tmp_path)
    digest = module.source_digest.__wrapped__
    first = digest()
    assert first == source_digest()
    for name in (
        "components/report/page.py", "components/prediction/slide_maps.py", "components/ingest/plan.py",
        "pipelines/synthetic/draw.py", "pipelines/cli.py", "pipelines/local_airflow/control.py",
    ):
        (tmp_path / name).write_text("edited")
        assert digest() == first, f"{name} can't change a model"
    for name in (
        "components/training/models/simple_cnn.py", "components/metrics/bootstrap.py", "components/datasets/example.py",
        "components/promotion/gate.py", "components/images/decode.py", "components/storage/local.py",
        "components/core/json_documents.py", "schemas/classes.json", "schemas/idc.pbtxt", "pipelines/tfx/evaluator.py",
    ):
        before = digest()
        with open(tmp_path / name, "a") as file:
            file.write(" ")
        assert digest() != before, f"{name} can change a model or the decision on it"


@pytest.fixture
def runs(workspace: Storage) -> Storage:
    """The workspace without runs."""
    workspace.delete_tree("runs")
    return workspace


def test_freezing_twice_is_harmless_and_other_inputs_are_refused(runs: Storage) -> None:
    inputs = settled(runs)
    first = run_inputs.freeze(runs, FOLDER, inputs)
    assert first.digests["inputs"] == inputs.digest() and first.versions["tensorflow"]
    assert run_inputs.freeze(runs, FOLDER, inputs) == first
    run_inputs.freeze(runs, FOLDER, settled(runs, {"accept_drift": "new scanner"}))  # nothing was trained yet
    assert run_record.read(runs, FOLDER).options == {"accept_drift": "new scanner"}
    with run_record.stage(runs, FOLDER, "train"):
        pass
    with pytest.raises(UsageError, match="Choose another --run-id"):
        run_inputs.freeze(runs, FOLDER, settled(runs, {"accept_drift": "new scanner"}, seed="5"))


def finish(storage: Storage, name: str, inputs: run_inputs.Inputs, **fields: Any) -> None:
    """Freezes a run and gives it an end."""
    folder = f"runs/idc/binary/{name}"
    run_inputs.freeze(storage, folder, inputs)
    run_record.update(storage, folder, **fields)


def test_only_a_decided_run_with_the_same_inputs_makes_a_run_unchanged(runs: Storage) -> None:
    inputs = settled(runs)
    finish(runs, "failed", inputs, state="failed")
    finish(runs, "copied", inputs, state="done", decision="unchanged")
    finish(runs, "halfway", inputs, state="running", decision="promoted")
    finish(runs, "other", settled(runs, seed="7"), state="done", decision="refused")
    assert run_inputs.find_same(runs, FOLDER, inputs.digest()) is None
    finish(runs, "decided", inputs, state="done", decision="refused")
    runs.write_atomic("runs/idc/binary/damaged/run.json", b"{")
    found = run_inputs.find_same(runs, FOLDER, inputs.digest())
    assert found is not None and found.run_id == "decided"
    assert run_inputs.find_same(runs, "runs/idc/binary/decided", inputs.digest()) is None


def test_run_ids_are_valid_and_differ() -> None:
    ids = {run_inputs.new_run_id("cnn_105k") for _ in range(20)}
    assert len(ids) == 20 and all(run_record.check_run_id(i) for i in ids)
