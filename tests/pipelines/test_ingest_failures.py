"""What must fail well: a bad image is a row with a code, a bad input one clear sentence."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import struct
import subprocess
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets import manifest as manifests
from components.datasets.manifest import RejectFacts
from components.errors import DataError, HistolineError, TemporaryError, UsageError
from components.storage.local import LocalStorage
from components.storage.open import open_storage
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3 * side + 1) * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(kind: str, size: tuple[int, int] = (50, 50)) -> bytes:
    return trees.image_bytes("x", *size, kind=kind)


BAD_PNG = {
    "truncated": ("truncated", encoded("PNG")[:-200]),
    "cut after its header": ("truncated", encoded("PNG")[:40]),
    "zero bytes": ("empty_file", b""),
    "text": ("not_an_image", b"<html>404 Not Found</html>"),
    "jpeg": ("wrong_format", encoded("JPEG")),
    "tiff": ("wrong_format", encoded("TIFF")),
    "bomb": ("bomb", bomb(60_000)),
    "larger": ("wrong_size", encoded("PNG", (51, 50))),
    "sliver": ("too_narrow", encoded("PNG", (1, 50))),
    "below four fifths": ("too_narrow", encoded("PNG", (50, 39))),
}
BAD_TIFF = {
    "truncated": ("truncated", encoded("TIFF", (96, 96))[:9000]),
    "zero bytes": ("empty_file", b""),
    "text": ("not_an_image", b"oops"),
    "png": ("wrong_format", encoded("PNG", (96, 96))),
    "smaller": ("too_narrow", encoded("TIFF", (50, 50))),
    "larger": ("wrong_size", encoded("TIFF", (97, 96))),
}


class TestBadImages:
    @pytest.fixture(scope="class")
    def png(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        root = tmp_path_factory.mktemp("png")
        trees.idc_tree(root, 9, 2)
        paths = {name: trees.idc_path("9000", 0, 50 * i, 7001) for i, name in enumerate(BAD_PNG)}
        for name, path in paths.items():
            (root / path).write_bytes(BAD_PNG[name][1])
        rejects = ingest(root, root / "w", max_faults=0.9).rejects
        assert len(rejects) == len(BAD_PNG)
        return {name: rejects[path] for name, path in paths.items()}

    @pytest.fixture(scope="class")
    def tiff(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        root = tmp_path_factory.mktemp("tiff")
        ids = {name: trees.pcam_id(900 + i) for i, name in enumerate(BAD_TIFF)}
        labels = {trees.pcam_id(i): i % 2 for i in range(20)}
        trees.pcam_tree(root, {**labels, **dict.fromkeys(ids.values(), 1)}, test=0)
        for name, one in ids.items():
            (root / "train" / f"{one}.tif").write_bytes(BAD_TIFF[name][1])
        rejects = ingest(root, root / "w", "pcam", group_by="image", max_faults=0.9).rejects
        assert len(rejects) == len(BAD_TIFF)
        return {name: rejects[f"train/{one}.tif"] for name, one in ids.items()}

    @pytest.mark.parametrize("name", BAD_PNG)
    def test_png(self, png: dict[str, str], name: str) -> None:
        assert png[name] == BAD_PNG[name][0]

    @pytest.mark.parametrize("name", BAD_TIFF)
    def test_tiff(self, tiff: dict[str, str], name: str) -> None:
        assert tiff[name] == BAD_TIFF[name][0]

    def test_more_faults_than_allowed_are_named_and_listed(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        path = trees.idc_path("9003", 1, 951, 951)
        (tmp_path / "raw" / path).write_bytes(b"")
        with pytest.raises(DataError, match=r"1 of 37 images are faulty.*--max-faults") as caught:
            ingest(tmp_path / "raw", tmp_path / "w")
        assert path in str(caught.value) and "empty_file" in str(caught.value)
        (folder,) = help.dataset_dirs(tmp_path / "w")
        assert help.reject_codes(folder) == {path: "empty_file"} and not (folder / "manifest.json").exists()
        (tmp_path / "raw" / path).unlink()
        assert ingest(tmp_path / "raw", tmp_path / "w").manifest.written == 36

    def test_policies_and_exclusions_are_no_faults(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        shutil.copytree(tmp_path / "raw", tmp_path / "raw" / "IDC_regular_ps50_idx5")
        result = ingest(tmp_path / "raw", tmp_path / "w", max_faults=0)
        assert result.manifest.rejects == {"nested_copy": RejectFacts("excluded", 36)}


class TestSplitsThatCannotBe:
    def test_empty_class(self, tmp_path: Path) -> None:
        trees.write_images(tmp_path, [trees.idc_path(str(p), 0, x) for p in range(9) for x in (1, 2)])
        with pytest.raises(DataError, match="Class 'idc' has no patch.*--on-infeasible"):
            ingest(tmp_path, tmp_path / "w")

    @pytest.mark.parametrize("patients", [1, 2])
    @pytest.mark.parametrize("choice", ["fail", "train-only", "drop-class"])
    def test_fewer_patients_than_splits(self, tmp_path: Path, patients: int, choice: str) -> None:
        trees.idc_tree(tmp_path, patients, 4)
        with pytest.raises(DataError, match="patient"):
            ingest(tmp_path, tmp_path / "w", on_infeasible=choice)
        assert not list((tmp_path / "w").rglob("*.tfrecord"))

    def test_says_which_class_lacks_how_many_patients(self, tmp_path: Path) -> None:
        cases = {"TA": ["14-1", "14-2", "14-3"], "F": ["14-4"], "A": ["14-5", "14-6", "14-7"]}
        malignant = {
            k: [f"15-{i}{j}" for j in range(3)] for i, k in enumerate(("DC", "LC", "MC", "PC", "PT"))
        }
        trees.breakhis_tree(tmp_path / "raw", {**cases, **malignant}, (40,))
        with pytest.raises(
            DataError, match=r"(?s)fibroadenoma.*needs 2 patients more.*--on-infeasible train-only"
        ):
            ingest(tmp_path / "raw", tmp_path / "w", "breakhis", task="subtype")
        kept = ingest(
            tmp_path / "raw", tmp_path / "w", "breakhis", task="subtype", on_infeasible="train-only"
        )
        assert {r["split"] for r in kept.patches if r["label_name"] == "fibroadenoma"} == {"train"}
        dropped = ingest(
            tmp_path / "raw", tmp_path / "w2", "breakhis", task="subtype", on_infeasible="drop-class"
        )
        assert set(dropped.rejects.values()) == {"infeasible_class"} and len(dropped.rejects) == 1

    def test_one_patient_with_most_of_the_images(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path, 6, 2)
        trees.idc_tree(tmp_path, ["huge"], 60)
        result = ingest(tmp_path, tmp_path / "w")
        assert result.splits["huge"] == "train" and set(result.splits.values()) == set(help.SPLITS)
        assert any("%" in text for text in result.manifest.warnings), "shares off the target are said"

    def test_filter_that_empties_a_split(self, tmp_path: Path) -> None:
        cases = {"TA": ["14-1", "14-2", "14-3"], "DC": ["14-4", "14-5", "14-6"]}
        trees.breakhis_tree(tmp_path / "raw", cases, (40,))
        splits = ingest(tmp_path / "raw", tmp_path / "w", "breakhis").splits
        at_100 = [(k, c) for k, names in cases.items() for c in names if splits[c] != "test"]
        trees.write_images(tmp_path / "raw", [trees.breakhis_path(k, c, 100) for k, c in at_100], (700, 460))
        with pytest.raises(DataError, match="class benign has no patch left in test"):
            ingest(tmp_path / "raw", tmp_path / "w", "breakhis", magnifications=(100,))


class TestNames:
    def test_unicode_spaces_and_newlines(self, tmp_path: Path) -> None:
        names = [
            "Mañana 1",
            "日本 2",
            "new\nline",
            "tab\t4",
            "quo\"te's",
            "comma,6",
            "back\\slash",
            "%41",
            "e\u0301",
        ]
        written = trees.idc_tree(tmp_path / "raw dir\n", names, 2)
        result = ingest(tmp_path / "raw dir\n", tmp_path / "w ö")
        assert {r["path"] for r in result.patches} == set(written) and result.rejects == {}
        assert result.splits.keys() == set(names)
        assert ingest(tmp_path / "raw dir\n", tmp_path / "w ö").planned.committed

    def test_bytes_that_are_no_text(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        shutil.copyfile(
            tmp_path / "raw" / trees.idc_path("9000", 0, 1, 101),
            os.path.join(os.fsencode(tmp_path / "raw"), b"caf\xe9_idx5_x1_y1_class0.png"),
        )
        result = ingest(tmp_path / "raw", tmp_path / "w", max_faults=0.5)
        assert result.rejects == {"caf\\xe9_idx5_x1_y1_class0.png": "bad_name"}

    def test_names_that_differ_by_case_only(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", ["ab", "AB", *map(str, range(7))], 2)
        upper = tmp_path / "raw" / trees.idc_path("0", 0, 1, 101)
        shutil.copyfile(upper, upper.with_suffix(".PNG"))
        result = ingest(tmp_path / "raw", tmp_path / "w", max_faults=0.5)
        assert {"ab", "AB"} <= result.splits.keys()
        assert len(result.rejects) == 1 and set(result.rejects.values()) == {"duplicate_id"}
        assert result.manifest.written == 36

    def test_links(self, tmp_path: Path) -> None:
        raw = tmp_path / "raw"
        trees.idc_tree(raw, 9, 2)
        outside = trees.write_images(tmp_path / "other", ["secret.png"])[0]
        leads_out, broken, inside = (trees.idc_path("9000", 0, x, 9001) for x in (1, 2, 3))
        (raw / leads_out).symlink_to(tmp_path / "other" / outside)
        (raw / broken).symlink_to("nowhere.png")
        trees.write_images(raw, ["kept/real.png"])
        (raw / inside).symlink_to(raw / "kept" / "real.png")
        (raw / "9001" / "loop").symlink_to(raw, target_is_directory=True)
        result = ingest(raw, tmp_path / "w", max_faults=0.5)
        assert result.rejects == {
            leads_out: "outside_root",
            broken: "unreadable",
            "kept/real.png": "bad_name",
        }
        assert inside in {r["path"] for r in result.patches}
        assert any("loop" in text for text in result.manifest.warnings)


class TestRights:
    """As another user where this one is root: root may read and write everything."""

    @pytest.fixture
    def open_dir(self) -> Iterator[Path]:
        """A folder whose parents everybody may enter, as pytest's may not be."""
        folder = Path(tempfile.mkdtemp())
        folder.chmod(0o777)
        yield folder
        shutil.rmtree(folder)

    @staticmethod
    @contextlib.contextmanager
    def plain_user() -> Iterator[None]:
        me = os.geteuid()
        if me == 0:
            os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(me)

    def test_unreadable_folder(self, open_dir: Path) -> None:
        trees.idc_tree(open_dir / "raw", 9, 2)
        (open_dir / "raw" / "9004").chmod(0)
        with self.plain_user(), pytest.raises(UsageError, match="9004.*Permission denied"):
            ingest(open_dir / "raw", open_dir / "w")
        (open_dir / "raw" / "9004").chmod(0o755)

    def test_unreadable_file_is_a_reject(self, open_dir: Path) -> None:
        (path, *_) = trees.idc_tree(open_dir / "raw", 9, 2)
        (open_dir / "raw" / path).chmod(0)
        with self.plain_user():
            assert ingest(open_dir / "raw", open_dir / "w", max_faults=0.5).rejects == {path: "unreadable"}

    def test_workspace_that_may_not_be_written(self, open_dir: Path) -> None:
        trees.idc_tree(open_dir / "raw", 9, 2)
        (open_dir / "w").mkdir()
        (open_dir / "w").chmod(0o555)
        with self.plain_user(), pytest.raises(UsageError, match="--workspace"):
            ingest(open_dir / "raw", open_dir / "w")


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


class Stopped(BaseException):
    """Stands for a SIGKILL, but for clean-up in `finally`, which the tests of real kills do without."""


class TestCrashes:
    """Whatever instant an ingest stops at, the next one comes to the same bytes."""

    @pytest.fixture(scope="class")
    def raw(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        root = tmp_path_factory.mktemp("raw")
        trees.idc_tree(root, 9, 2)
        splits = ingest(root, root / "first").splits
        shutil.rmtree(root / "first")
        one, other = (next(g for g, s in splits.items() if s == split) for split in ("train", "test"))
        shutil.copyfile(root / trees.idc_path(one, 0, 1, 101), root / trees.idc_path(other, 0, 1, 101))
        (root / trees.idc_path("9004", 1, 951, 951)).write_bytes(b"")
        return root

    @pytest.mark.integration
    @pytest.mark.parametrize("name", ["commit_file", "write_atomic", "delete_tree"])
    def test_before_and_after_each_change_of_the_workspace(
        self, raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        whole = help.everything(ingest(raw, tmp_path / "whole", max_faults=0.5).folder)
        real: Callable[..., object] = getattr(LocalStorage, name)
        stops = 0
        for after in (False, True):
            for stop in range(40):
                calls = iter(range(100))

                def stopping(
                    *args: object,
                    stop: int = stop,
                    after: bool = after,
                    calls: Iterator[int] = calls,
                    **kw: object,
                ):
                    mine = next(calls)
                    if mine == stop and not after:
                        raise Stopped
                    result = real(*args, **kw)
                    if mine == stop:
                        raise Stopped
                    return result

                workspace = tmp_path / f"{after}-{stop}"
                monkeypatch.setattr(LocalStorage, name, stopping)
                try:
                    ingest(raw, workspace, max_faults=0.5)
                    break
                except Stopped:
                    stops += 1
                finally:
                    monkeypatch.setattr(LocalStorage, name, real)
                result = ingest(raw, workspace, max_faults=0.5)
                assert help.everything(result.folder) == whole and result.is_latest, (stop, after)
                assert not list(result.folder.rglob(".tmp"))
        assert stops > 1


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


def test_bomb_is_refused_without_being_decoded() -> None:
    data = bomb(60_000)
    assert len(data) < 20_000
    with contextlib.suppress(Image.DecompressionBombError):
        assert np.prod(Image.open(__import__("io").BytesIO(data)).size) == 3_600_000_000
