"""`histoline leakage`: pairs of models, what they are compared on, and what is left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
from click.testing import CliRunner, Result

from components.datasets import manifest as manifests
from components.datasets.committed import DatasetFiles
from components.errors import UsageError
from components.metrics.leakage import TestPart
from components.promotion import test_set_reuse
from components.training import leakage_trials
from components.training.feature_fit import cache_home
from components.training.leakage_trials import Trial
from pipelines import leakage
from tests.support import ingest_help, model_help


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ingest_help.Result:
    root = tmp_path_factory.mktemp("leak")
    return ingest_help.ingest(model_help.idc(root / "raw", 40, 3), root / "w", ratios=(0.5, 0.2, 0.3))


@pytest.fixture
def workspace(data: ingest_help.Result, tmp_path: Path) -> Path:
    return Path(shutil.copytree(data.folder.parents[3], tmp_path / "w"))


def knows_patients(config: Any, view: DatasetFiles, folder: Path, source: str, *, log: Any) -> Trial:
    """A model that has learnt nothing but to know patients again: it is right where it has seen them."""
    table = view.table("test", ["group_id", "label"])
    labels, groups = table["label"].to_numpy(), np.array(table["group_id"].to_pylist())
    seen = np.isin(groups, view.groups("train"))
    noise = np.random.default_rng(config.seed).normal(0, 1, labels.size)
    # Both splits and all seeds share what runs and sweeps know of an image.
    workspace = next(parent for parent in folder.parents if (parent / "datasets").is_dir())
    assert cache_home(folder) == workspace.resolve() / "cache" / "features"
    log(f"{folder.name}: {seen.mean():.2f} seen")
    return Trial(TestPart(labels, groups, 1 / (1 + np.exp(-noise - 2.4 * seen * (labels - 0.5))), 0.5), 1, 0.5)


def call(workspace: Path, *words: str) -> Result:
    return CliRunner().invoke(leakage.command, ["idc", "--workspace", str(workspace), *words])


def test_what_a_random_split_promises_too_much(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage_trials, "trial", knows_patients)
    done = call(workspace, "--seeds", "2", "--set", "gate.n_resamples=300", "--json")
    assert done.exception is None, done.output
    found = json.loads(done.stdout)
    auc = found["metrics"]["auc"]
    assert auc["gap"]["low"] > 0.1 and auc["patient"]["low"] < 0.5 < auc["patient"]["high"]
    assert found["sentence"].startswith("A random split would have promised AUC 0.9") and found["seeds"] == [0, 1]
    assert found["shared"] > 0.9
    page = Path(found["page"])
    assert page.is_relative_to(workspace / "leakage/idc/binary") and found["sentence"] in page.read_text()
    assert json.loads((page.parent / "leakage.json").read_text())["sentence"] == found["sentence"]
    assert not (workspace / "runs").exists() and not (workspace / "models").exists()
    looks = json.loads((workspace / test_set_reuse.path("idc", "binary")).read_text())
    assert [entry["runs"] for entry in looks["splits"].values()] == [[f"leakage:{page.parent.name}"]]
    file = workspace / "gap.svg"
    again = call(workspace, "--seeds", "2", "--set", "gate.n_resamples=300", "--picture", str(file))
    assert ElementTree.parse(file).getroot().tag.endswith("svg") and str(file) in again.stdout
    colours = file.read_text().split("</style>")[0]
    assert all(f"{name}:" in colours for name in set(re.findall(r"var\((--\w+)\)", file.read_text())))
    assert "prefers-color-scheme: dark" in colours
    nowhere = call(workspace, "--picture", str(workspace / "none/gap.svg")).exception
    assert isinstance(nowhere, UsageError) and "there is no folder" in str(nowhere)
    assert found["sentence"] in again.stdout and "random minus patient" in again.stdout
    assert len(list((workspace / "leakage/idc/binary").iterdir())) == 1, "the same comparison, the same place"


def test_no_split_by_patient_nothing_to_compare(workspace: Path, data: ingest_help.Result) -> None:
    from components.storage.open import open_storage

    storage, folder = open_storage(workspace), f"datasets/idc/binary/{data.plan_id}"
    import dataclasses

    manifest = dataclasses.replace(manifests.load(storage, folder), flags=("not_patient_clustered",))
    storage.write_atomic(f"{folder}/manifest.json", manifests.dump(manifest))
    error = call(workspace, "--data", data.plan_id).exception
    assert isinstance(error, UsageError) and "no split by patient" in str(error)
    assert isinstance(call(workspace, "--data", data.plan_id, "--set", "decision=folds").exception, UsageError)
