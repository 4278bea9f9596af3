"""An ingest on a full disk, and what is damaged afterwards: the next one mends it.

One that is cut short at any operation is tried in tests/faults/test_every_n.py.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.datasets import manifest as manifests
from components.errors import DataError, HistolineError, TemporaryError, UsageError
from components.storage.open import open_storage
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 600 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = shutil.which("mount") and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", str(folder)], capture_output=True
    )
    if not mounted or mounted.returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def grow(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)


def test_full_disk_is_temporary_and_the_next_run_goes_on(tmp_path: Path, small_disk: Path) -> None:
    trees.idc_tree(tmp_path / "raw", 12, 4)  # 800 KB of pixels
    with pytest.raises((TemporaryError, OSError)) as caught:
        ingest(tmp_path / "raw", small_disk)
    from pipelines.console import user_error

    problem = user_error(caught.value)
    assert problem is not None and problem.exit_code == 75 and "disk is full" in str(problem)
    assert not list(small_disk.rglob("manifest.json"))
    grow(small_disk)
    whole = ingest(tmp_path / "raw", tmp_path / "w")
    assert help.everything(ingest(tmp_path / "raw", small_disk).folder) == help.everything(whole.folder)


class TestRepair:
    @pytest.fixture
    def raw(self, tmp_path: Path) -> Path:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        return tmp_path / "raw"

    @pytest.mark.parametrize(
        "damage, how",
        [
            ("Split-train/train-00000-of-00001.tfrecord", "delete"),
            ("Split-train/train-00000-of-00001.tfrecord", "cut"),
            ("sidecars/test-00000-of-00001.parquet", "delete"),
            ("patches.parquet", "delete"),
            ("rejects.parquet", "delete"),
            ("manifest.json", "delete"),
            ("manifest.json", "cut"),
        ],
    )
    def test_next_ingest_repairs(self, raw: Path, tmp_path: Path, damage: str, how: str) -> None:
        first = ingest(raw, tmp_path / "w")
        before = help.everything(first.folder)
        file = first.folder / damage
        if how == "delete":
            file.unlink()
        else:
            file.write_bytes(file.read_bytes()[:-100])
        second = ingest(raw, tmp_path / "w")
        assert not second.planned.committed and second.plan_id == first.plan_id
        assert help.everything(second.folder) == before
        assert second.manifest.content_digest == first.manifest.content_digest

    def test_only_the_missing_shard_is_written(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path / "w")
        (first.folder / "Split-test" / "test-00000-of-00001.tfrecord").unlink()
        kept = first.folder / "Split-train" / "train-00000-of-00001.tfrecord"
        inode = kept.stat().st_ino
        ingest(raw, tmp_path / "w")
        assert kept.stat().st_ino == inode

    def test_stray_files_in_a_split_folder_are_removed(self, raw: Path, tmp_path: Path) -> None:
        first = ingest(raw, tmp_path / "w")
        stray = first.folder / "Split-eval" / "eval-00001-of-00002.tfrecord"
        shutil.copyfile(first.folder / "Split-eval" / "eval-00000-of-00001.tfrecord", stray)
        second = ingest(raw, tmp_path / "w")
        assert not stray.exists() and not second.planned.committed

    def test_shards_of_another_cut_do_not_stay_beside_new_ones(self, raw: Path, tmp_path: Path) -> None:
        ids = {ingest(raw, tmp_path / "w", shard_mb=mb).folder for mb in (1, 16)}
        assert len(ids) == 2, "another shard size is another data set"


class TestManifests:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        return ingest(tmp_path / "raw", tmp_path / "w").folder / "manifest.json"

    def load(self, file: Path) -> manifests.Manifest:
        workspace = file.parents[4]
        return manifests.load(open_storage(workspace), file.parent.relative_to(workspace).as_posix())

    def test_of_a_newer_version_is_left_alone(self, tmp_path: Path, file: Path) -> None:
        text = json.dumps({**json.loads(file.read_text()), "format": manifests.FORMAT + 1})
        file.write_text(text)
        for read in (lambda: self.load(file), lambda: ingest(tmp_path / "raw", tmp_path / "w")):
            with pytest.raises(UsageError, match="format 2.*Upgrade histoline"):
                read()
        assert file.read_text() == text

    @pytest.mark.parametrize("edit", [{"written": 35}, {"found": 37}, {"input": "/other"}])
    def test_edited_by_hand_is_noticed(self, tmp_path: Path, file: Path, edit: dict) -> None:
        before = json.loads(file.read_text())
        file.write_text(json.dumps({**before, "flags": ["leaky"], **edit}))
        with pytest.raises(DataError, match="changed after the commit"):
            self.load(file)
        again = ingest(tmp_path / "raw", tmp_path / "w").manifest
        times = ("created", "manifest_digest")
        assert {k: v for k, v in again.to_document().items() if k not in times} == {
            k: v for k, v in before.items() if k not in times
        }

    @pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"format": "1"}', "\0"])
    def test_that_is_none_is_told_and_replaced(self, tmp_path: Path, file: Path, text: str) -> None:
        file.write_text(text)
        with pytest.raises(HistolineError):
            self.load(file)
        assert ingest(tmp_path / "raw", tmp_path / "w").manifest.written == 36

    def test_there_is_none_before_the_commit(self, tmp_path: Path) -> None:
        (tmp_path / "d").mkdir()
        with pytest.raises(UsageError, match="not a committed data set"):
            manifests.load(open_storage(tmp_path), "d")
