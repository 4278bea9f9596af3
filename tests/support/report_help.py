"""Evaluated runs without TensorFlow: a real data set, stub models, and probabilities that are made up."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.datasets import manifest as manifests
from components.datasets.sidecars import read_sidecars
from components.promotion import evaluation, publish, scoring_process
from components.promotion.prediction_tables import predictions_table, probability_column
from components.storage.base import Storage
from components.storage.open import open_storage
from components.training import run_record
from components.training.run_types import RunRecord
from tests.support import ingest_help, model_help

HISTORY = {
    "loss": [0.6, 0.4], "val_loss": [0.5, 0.45], "auc": [0.7, 0.8], "val_auc": [0.72, 0.78],
    "accuracy": [0.6, 0.7], "val_accuracy": [0.6, 0.65], "learning_rate": [1e-3, 1e-4], "seconds": [1.0, 1.0],
}  # fmt: skip


def answer(ids: list[str], labels: np.ndarray, n_classes: int, skill: float) -> np.ndarray:
    """Probabilities that follow from patch id, label and skill alone."""
    noise = np.array([np.random.default_rng(zlib.crc32(name.encode())).normal(0, 1, n_classes) for name in ids])
    scores = noise + skill * np.eye(n_classes)[labels]
    odds = np.exp(scores - scores.max(axis=1, keepdims=True))
    probability = (odds / odds.sum(axis=1, keepdims=True)).astype(np.float32)
    return probability[:, 1] if n_classes == 2 else probability


def predictor(skills: dict[str, float]) -> scoring_process.Predictor:
    """A predictor that loads no model: `candidate` and every other model answer with their skill."""

    def predict(request: scoring_process.Request) -> None:
        out, n_classes, tables = Path(request.out), len(request.classes), []
        for split, pairs in request.shards.items():
            columns = ("patch_id", "group_id", "slide_id", "label")
            table = read_sidecars([Path(sidecar) for _, sidecar in pairs], columns)
            labels = table["label"].to_numpy()
            probability = answer(table["patch_id"].to_pylist(), labels, n_classes, skills["candidate"])
            made = {name: table[name] for name in columns[:3]} | {"split": [split] * len(table), "label": labels}
            if split in scoring_process.SPLITS:
                tables.append(predictions_table(made, probability, request.model_version, n_classes))
            if split == "test":
                others = {"patch_id": table["patch_id"]}
                for name in request.others:
                    said = answer(table["patch_id"].to_pylist(), labels, n_classes, skills[name])
                    others[name] = probability_column(said)
                pq.write_table(pa.table(others), out / scoring_process.OTHERS)
        pq.write_table(pa.concat_tables(tables), out / scoring_process.PREDICTIONS)
        told = {"answers": True, "reason": "", "largest_difference": {"serving_default": 0.0}, "seconds": 0.1}
        (out / scoring_process.ANSWERS).write_text(json.dumps(told))

    return predict


class Studio:
    """A workspace with one data set, in which runs are evaluated and pushed without a model.

    Args:
        root: Workspace.
        data: The committed data set, in that workspace.
    """

    def __init__(self, root: Path, data: ingest_help.Result) -> None:
        self.root, self.data = root, data
        self.storage: Storage = open_storage(root)
        self.dataset, self.task = data.manifest.dataset, data.manifest.task
        self.dataset_dir = f"datasets/{self.dataset}/{self.task}/{data.plan_id}"
        self.manifest = manifests.load(self.storage, self.dataset_dir)

    def begun(self, run_id: str, **changes: Any) -> str:
        """A run that was frozen and has trained; its folder."""
        folder = run_record.run_dir(self.dataset, self.task, run_id)
        config = {
            "model": "tiny", "title": "A tiny recipe", "gate": {"n_resamples": 200}, "phases": [{"epochs": 2}],
            "floors": {"balanced_accuracy": 0.3, "accuracy_over_majority": 0.05},
        }  # fmt: skip
        run_record.create(
            self.storage, folder, config=config, dataset_dir=self.dataset_dir, manifest=self.manifest,
            digests={"source": "5" * 64},
        )  # fmt: skip
        run_record.update(
            self.storage, folder, history=HISTORY, epochs_run=2, timings={"training": 2.0},
            calibration={
                "before": {"ece": 0.2, "log_loss": 0.5, "brier": 0.2},
                "after": {"ece": 0.1, "log_loss": 0.4, "brier": 0.1},
                "note": "", "expected_bias": [-0.4],
            },
            **changes,
        )  # fmt: skip
        extra = self.root / folder / "model" / "assets.extra"
        extra.mkdir(parents=True)
        (extra.parent / "saved_model.pb").write_bytes(b"a stub")
        facts = {
            "classes": list(self.manifest.classes), "temperature": 1.5,
            "bias": -0.5 if len(self.manifest.classes) == 2 else [0.5, -0.5] + [0.0] * (len(self.manifest.classes) - 2),
            "threshold": 0.4 if len(self.manifest.classes) == 2 else None,
        }  # fmt: skip
        (extra / "histoline.json").write_text(json.dumps(facts))
        trained = sorted(group for group, split in self.data.splits.items() if split != "test")
        (extra / "train_groups.json").write_text(json.dumps(trained))
        return folder

    def run(self, run_id: str, skill: float, champion: float = 0.0, clock: float = 1_700_000_000.0) -> str:
        """A whole run of a model of this skill; its folder."""
        folder = self.begun(run_id)
        told = {"candidate": skill, "champion": champion, "best_ever": champion}
        evaluation.evaluate(self.storage, folder, True, {}, predictor=predictor(told))
        publish.push(self.storage, folder, predictor=predictor(told), clock=lambda: clock)
        return folder

    def record(self, folder: str) -> RunRecord:
        """run.json."""
        return run_record.read(self.storage, folder)


def binary(root: Path) -> Studio:
    """IDC with coordinates and a reject, and two runs: `good`, promoted, then `poor`, refused."""
    raw = model_help.idc(root / "raw", patients=30, per_class=5)
    narrow = raw / "9000/0/9000_idx5_x2001_y2001_class0.png"
    model_help.write_image(narrow, np.full((50, 20, 3), 200, np.uint8))
    studio = Studio(root / "w", ingest_help.ingest(raw, root / "w", max_faults=0.5))
    studio.run("good", 3.0)
    studio.run("poor", 0.5, champion=3.0)
    return studio


def subtype(root: Path) -> Studio:
    """BreakHis subtypes with one run, `types`."""
    raw = model_help.breakhis(root / "raw", cases=7, per_case=2)
    studio = Studio(root / "w", ingest_help.ingest(raw, root / "w", "breakhis", task="subtype"))
    studio.run("types", 2.0)
    return studio
