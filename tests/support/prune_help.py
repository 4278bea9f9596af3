"""A workspace that has collected things: data sets, runs and sweeps of known ages, a champion, a cache."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any

from components.core import json_documents
from components.datasets import manifest as manifests
from components.promotion.champion import Champion
from components.report import index
from components.storage.base import Storage
from components.storage.open import open_storage
from components.sweeps import record as sweeps
from components.sweeps.sweep_types import Search, SweepRecord
from components.training import run_record
from tests.components.promotion.test_champion import promotion
from tests.support import ingest_help, trees

HOME = "idc/binary"


def ago(days: float) -> str:
    """A moment so many days ago, as documents tell it."""
    moment = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=days)
    return moment.isoformat(timespec="seconds")


class Collected:
    """A workspace of `idc binary`.

    Runs by name: `champion` (on the first data set), `refused` (on the second), `unchanged` (found `refused`),
    `resumed` (not over, on the second), `old` and `older` (on the first two), `failed`; sweeps `done` and `begun`.

    Args:
        folder: Where raw images and the workspace are made.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder / "w"
        self.storage: Storage = open_storage(self.root)
        self.data: list[str] = []
        for count in (12, 13, 14, 15):
            trees.idc_tree(folder / "raw", count, per_class=1)
            plan_id = ingest_help.ingest(folder / "raw", self.root).plan_id
            self.data.append(f"datasets/{HOME}/{plan_id}")
        self.run("older", 50, 1, decision="refused")
        self.run("champion", 40, 0, decision="promoted")
        self.run("old", 35, 0, decision="refused")
        self.run("refused", 30, 1, decision="refused")
        self.run("failed", 20, 1, state="failed")
        self.run("unchanged", 3, 1, decision="unchanged", paths={"same_as": f"runs/{HOME}/refused"})
        self.run("resumed", 25, 1, state="running", stage="train")
        for name in ("older", "refused", "resumed"):
            self.storage.write_atomic(f"runs/{HOME}/{name}/checkpoints/epoch-00001.npz", b"weights")
        self.sweep("done", 40, "done", "old")
        self.sweep("begun", 45, "running", "begun-winner")
        entry = promotion(7, run_id="champion", dataset_dir=self.data[0])
        self.storage.write_atomic(f"models/{HOME}/champion.json", Champion((entry,)).dump())
        self.storage.write_atomic("cache/features/abc/part.parquet", b"features")
        index.write(self.storage)

    def run(self, name: str, days: float, data: int, **changes: Any) -> str:
        """A run whose record was last changed so many days ago."""
        folder, place = run_record.run_dir("idc", "binary", name), self.data[data]
        manifest = manifests.load(self.storage, place)
        made = run_record.create(self.storage, folder, config={"model": "tiny"}, dataset_dir=place, manifest=manifest)
        dated = {"state": "done", "created": ago(days + 1), "updated": ago(days), **changes}
        document = json_documents.dump({**made.to_document(), **dated}, run_record.SCHEMA)
        self.storage.write_atomic(f"{folder}/run.json", document)
        self.storage.write_atomic(f"{folder}/report/index.html", b"a page")
        self.storage.write_atomic(f"{folder}/model/saved_model.pb", b"a model")
        return folder

    def sweep(self, name: str, days: float, state: Any, run_id: str) -> None:
        """A sweep on the third data set, with one trial's folder."""
        manifest = manifests.load(self.storage, self.data[2])
        record = SweepRecord(
            1, "", name, "idc", "binary", ago(days), ago(days), state, self.data[2], manifest.plan_id,
            manifest.content_digest, manifest.manifest_digest, "patient", manifest.classes, "auc", None, {},
            Search("list", ("idc_quick",)), (), None, run_id,
        )  # fmt: skip
        folder = f"sweeps/{HOME}/{name}"
        self.storage.write_atomic(
            f"{folder}/sweep.json", json_documents.dump(dataclasses.asdict(record), sweeps.SCHEMA)
        )
        self.storage.write_atomic(f"{folder}/trials/0/model/saved_model.pb", b"a model")


def names(paths: Any) -> set[str]:
    """Last parts of paths, with the top folder before them."""
    return {f"{path.split('/')[0]}/{path.rsplit('/', 1)[1]}" for path in paths}


def left(root: Path) -> set[str]:
    """Every file of a workspace."""
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
