"""The whole ingest on gs://, raw images and workspace, against a real emulator process."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.adapters.listing import list_images
from components.datasets.manifest import Manifest, load
from components.errors import UsageError
from components.storage.open import open_storage
from tests.support import gcs, trees

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def emulator(monkeypatch, tmp_path) -> Iterator[str]:
    with gcs.buckets(monkeypatch, tmp_path / "cache", "raw", "work") as url:
        yield url


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=dict(os.environ))


def digests(manifest: Manifest) -> dict[str, str]:
    return {shard.file: shard.sha256 for facts in manifest.splits.values() for shard in facts.shards}


def test_raw_images_and_workspace_in_buckets(emulator, tmp_path):
    trees.idc_tree(tmp_path / "raw", 12, per_class=3)
    (tmp_path / "raw" / "9000" / "0" / "9000_idx5_x9_y9_class0.png").write_bytes(b"text")
    gcs.upload(tmp_path / "raw", "gs://raw/idc")
    command = [
        "pipelines.ingest",
        "idc",
        "--input",
        "gs://raw/idc",
        "--workspace",
        "gs://work/w",
        "--max-faults",
        "0.1",
        "--json",
    ]
    done = run(*command)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["state"] == "committed" and result["rejects"]["not_an_image"]["count"] == 1
    assert result["written"] + 1 == result["found"] == 73

    local = run(
        "pipelines.ingest",
        "idc",
        "--input",
        str(tmp_path / "raw"),
        "--workspace",
        str(tmp_path / "w"),
        "--max-faults",
        "0.1",
        "--json",
    )
    there = json.loads(local.stdout)
    remote, here = open_storage("gs://work/w"), open_storage(str(tmp_path / "w"))
    home = "datasets/idc/binary/"
    mine, theirs = load(remote, home + result["plan_id"]), load(here, home + there["plan_id"])
    assert digests(mine) == digests(theirs), "bytes depend on where they were written"
    assert mine.content_digest == theirs.content_digest
    first = mine.splits["train"].shards[0]
    stored = remote.read_bytes(f"{home}{result['plan_id']}/Split-train/{first.file}")
    assert hashlib.sha256(stored).hexdigest() == first.sha256
    assert not [path for path, _ in remote.list_files(home) if "/.tmp/" in path], "temporaries were left"

    again = run(*command)
    assert json.loads(again.stdout)["state"] == "unchanged", again.stderr
    folder = f"gs://work/w/{home}{result['plan_id']}"
    assert run("pipelines.verify", folder, "--deep", "--sample", "0").returncode == 0
    assert run("pipelines.audit", folder).returncode == 0


def test_a_bucket_that_is_not_there_is_a_usage_error(emulator):
    done = run("pipelines.ingest", "idc", "--input", "gs://absent/idc", "--workspace", "gs://work/w")
    assert done.returncode == 64 and "absent" in done.stderr and "Traceback" not in done.stderr


def test_listing_a_bucket(emulator):
    storage = open_storage("gs://raw")
    for name in ("data/b.png", "data/a.png", "data/x.csv", "data/.h/c.png", "data/t.tif", "database/z.png"):
        storage.write_atomic(name, b"1")
    found = list_images("gs://raw/data/", {".png"})
    assert found.files["path"].to_pylist() == ["a.png", "b.png"]
    assert min(found.files["version"].to_pylist()) > 0, "generations tell versions apart"
    assert {path: code for path, code, _ in found.rejects} == {".h/c.png": "bad_name", "t.tif": "wrong_format"}
    assert found.ignored == 1
    with pytest.raises(UsageError):
        list_images("gs://nobody", {".png"})
