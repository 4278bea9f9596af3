"""Equal input and configuration give byte-identical files, wherever and however the ingest runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough for several shards of 1 MiB, with a copy across splits, a conflict and a faulty file."""
    root = tmp_path_factory.mktemp("raw")
    trees.idc_tree(root, 16, 20)  # 640 patches, 5 MB
    for a, b, label in (("9000", "9001", 0), ("9002", "9003", 0), ("9004", "9005", 1), ("9006", "9007", 0)):
        shutil.copyfile(root / trees.idc_path(a, 0, 1, 101), root / trees.idc_path(b, label, 1, 101))
    (root / trees.idc_path("9008", 0, 5001, 5001)).write_bytes(b"")
    return root


@pytest.fixture(scope="module")
def expected(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    result = ingest(raw, tmp_path_factory.mktemp("workspace"), shard_mb=1)
    assert sum(len(s.shards) for s in result.manifest.splits.values()) >= 6
    assert {"label_conflict", "empty_file"} <= set(result.manifest.rejects)
    return {"plan_id": result.plan_id.encode(), **help.everything(result.folder)}


def by_command(raw: Path, workspace: Path, *flags: object, **env: str) -> dict[str, bytes]:
    done = help.run("idc", "--input", raw, "--workspace", workspace, "--shard-mb", 1, "--json", *flags, **env)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    return {"plan_id": document["plan_id"].encode(), **help.everything(Path(document["dataset_dir"]))}


@pytest.mark.parametrize("seed, workers", [("0", 1), ("12345", 4)])
def test_hash_seed_and_workers(
    raw: Path, expected: dict[str, bytes], tmp_path: Path, seed: str, workers: int
) -> None:
    assert by_command(raw, tmp_path, "--workers", workers, PYTHONHASHSEED=seed) == expected


def test_another_root_folder_locale_and_time_zone(
    raw: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    root = tmp_path / "some where" / "élse"
    shutil.copytree(raw, root, copy_function=shutil.copy2)
    assert by_command(root, tmp_path / "w", LC_ALL="C", TZ="Asia/Tokyo", PYTHONUTF8="0") == expected


@pytest.mark.parametrize("mode", ["multi_threading", "multi_processing"])
def test_beam_workers_of_their_own(raw: Path, expected: dict[str, bytes], tmp_path: Path, mode: str) -> None:
    flags = ("--runner=DirectRunner", f"--direct_running_mode={mode}", "--direct_num_workers=2")
    assert by_command(raw, tmp_path, *flags) == expected


def test_shards_written_in_any_order_and_twice(raw: Path, expected: dict[str, bytes], tmp_path: Path) -> None:
    cfg = help.config(raw, tmp_path, shard_mb=1)
    planned = help.plan(cfg)
    folder = tmp_path / planned.write.dataset_dir
    for number in reversed(range(len(planned.specs))):
        help.write_shard(planned.write, number)
    for number in (2, 0):
        (folder / planned.specs[number].sidecar).unlink()  # so that it is written again, over the first one
        assert not help.write_shard(planned.write, number).resumed
    help.commit(cfg, planned)
    assert help.everything(folder).items() <= expected.items()
