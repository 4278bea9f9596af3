"""The commit: manifest.json comes last, what is damaged or wrong is never committed, strays go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError
from components.ingest.commit import commit
from components.ingest.config import IngestConfig
from components.ingest.shard_jobs import IngestPlan
from components.ingest.shard_writer import write_shard
from components.storage.local import LocalStorage
from tests.support import ingest_help as help
from tests.support import trees


def written(root: Path, **options: Any) -> tuple[IngestConfig, IngestPlan, Path]:
    """All shards of an ingest, not committed."""
    cfg = help.config(root / "raw", root / "w", **options)
    plan = help.plan(cfg)
    for number in range(len(plan.specs)):
        write_shard(plan.write, number)
    return cfg, plan, root / "w" / plan.write.dataset_dir


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    trees.idc_tree(tmp_path / "raw", 10, 3)
    return tmp_path


def test_the_manifest_comes_last(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, plan, folder = written(raw)
    changes: list[str] = []
    for name in ("write_atomic", "commit_file", "delete", "delete_tree", "sweep"):
        real = getattr(LocalStorage, name)

        def noted(self: LocalStorage, *args: Any, _real: Any = real, _name: str = name, **more: Any) -> Any:
            changes.append(args[1] if _name == "commit_file" else args[0])
            assert not (folder / "manifest.json").exists()
            return _real(self, *args, **more)

        monkeypatch.setattr(LocalStorage, name, noted)
    manifest = commit(cfg, plan)
    assert changes[-1].endswith("manifest.json") and changes.count(changes[-1]) == 1
    assert manifest.found == manifest.written == 60
    assert not (folder / ".tmp").exists(), "the plan goes before the commit"


def test_shards_of_another_cut_go(raw: Path) -> None:
    cfg, plan, folder = written(raw)
    stray = folder / "Split-eval" / "eval-00009-of-00010.tfrecord"
    stray.write_bytes(b"of an earlier cut")
    assert commit(cfg, plan).content_digest
    assert not stray.exists()


def test_too_many_faults_leave_the_rejects_and_no_manifest(raw: Path) -> None:
    for file in list((raw / "raw").rglob("*.png"))[:3]:
        file.write_bytes(file.read_bytes()[:60])
    cfg, plan, folder = written(raw)
    with pytest.raises(DataError, match=r"3 of 60 images are faulty \(truncated 3\), more than --max-faults 0.01"):
        commit(cfg, plan)
    assert list(help.reject_codes(folder).values()) == ["truncated"] * 3
    assert not (folder / "manifest.json").exists()


def test_identical_images_under_fail_are_told_and_not_committed(raw: Path) -> None:
    images = sorted((raw / "raw").rglob("*class0.png"))
    for file in images[1:]:
        file.write_bytes(images[0].read_bytes())
    cfg, plan, folder = written(raw, on_duplicate="fail")
    with pytest.raises(DataError, match="identical images break a rule.*--on-duplicate keep-train"):
        commit(cfg, plan)
    assert not (folder / "manifest.json").exists()


def test_a_split_that_lost_a_class_is_not_committed(raw: Path) -> None:
    images = sorted((raw / "raw").rglob("*class0.png"))
    for file in images[1:]:
        file.write_bytes(images[0].read_bytes())
    cfg, plan, folder = written(raw)
    with pytest.raises(DataError, match="was not committed: class .* has no patch left in eval"):
        commit(cfg, plan)
    assert not (folder / "manifest.json").exists() and (folder / "rejects.parquet").exists()
