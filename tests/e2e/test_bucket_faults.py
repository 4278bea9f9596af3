"""Buckets over a bad network: a proxy between the commands and a real emulator refuses, delays and cuts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.datasets.manifest import load
from components.storage.open import open_storage
from tests.support import gcs, trees
from tests.support.faulty_proxy import FAULTS, Proxy, proxy

pytestmark = pytest.mark.e2e
ROOT = Path(__file__).resolve().parents[2]
HOME = "datasets/idc/binary/"


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Proxy]:
    """A network without faults yet, with the buckets `raw` and `work` behind it."""
    gcs.binary()
    with proxy() as between, gcs.emulator(f"127.0.0.1:{between.port}") as url:
        between.target = url.removeprefix("http://")
        for name in ("raw", "work"):
            gcs.make_bucket(url, name)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{between.port}")
        monkeypatch.setenv("HISTOLINE_CACHE", str(tmp_path / "cache"))
        trees.idc_tree(tmp_path / "raw", 12, per_class=3)
        gcs.upload(tmp_path / "raw", "gs://raw/idc")
        yield between


def ingest(source: object, workspace: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.ingest", "idc", "--input", str(source)]
    return subprocess.Popen(
        [*command, "--workspace", str(workspace), "--json"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=dict(os.environ),
    )


def result(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return dict(json.loads(out), err=err)


def committed(workspace: object, plan_id: object) -> dict[str, str]:
    """Checksum of each shard's bytes, read from where they lie and equal to what the manifest says."""
    storage = open_storage(str(workspace))
    found = {}
    for split, facts in load(storage, f"{HOME}{plan_id}").splits.items():
        for shard in facts.shards:
            data = storage.read_bytes(f"{HOME}{plan_id}/Split-{split}/{shard.file}")
            found[shard.file] = hashlib.sha256(data).hexdigest()
            assert found[shard.file] == shard.sha256
    return found


def test_what_a_bad_network_brings_is_what_a_good_one_brings(network: Proxy, tmp_path: Path) -> None:
    here = result(ingest(tmp_path / "raw", tmp_path / "w"))
    network.share = 0.2
    there = result(ingest("gs://raw/idc", "gs://work/w"))
    network.share = 0.0
    assert set(network.befallen) >= set(FAULTS), "each fault was made"
    assert "trying again" in str(there["err"]) and "Traceback" not in str(there["err"])
    assert committed("gs://work/w", there["plan_id"]) == committed(tmp_path / "w", here["plan_id"])
    folder = f"gs://work/w/{HOME}{there['plan_id']}"
    assert subprocess.run([sys.executable, "-m", "pipelines.verify", folder], cwd=ROOT, timeout=120).returncode == 0
    assert not [path for path, _ in open_storage("gs://work/w").list_files(HOME) if "/.tmp/" in path]


def test_two_writers_on_a_bad_network_leave_one_data_set(network: Proxy) -> None:
    network.share = 0.1
    both = [ingest("gs://raw/idc", "gs://work/w") for _ in range(2)]
    ends = [(process.communicate(timeout=300), process.returncode) for process in both]
    network.share = 0.0
    assert {code for _, code in ends} <= {0, 75} and 0 in {code for _, code in ends}, ends
    told = next(json.loads(out) for (out, _), code in ends if code == 0)
    storage = open_storage("gs://work/w")
    assert [name for name in storage.list_dirs(HOME) if not name.startswith(".")] == [told["plan_id"]]
    assert committed("gs://work/w", told["plan_id"])
    assert result(ingest("gs://raw/idc", "gs://work/w"))["state"] == "unchanged"


def test_killed_in_mid_upload_nothing_is_half_there_and_the_next_run_has_the_same_bytes(
    network: Proxy, tmp_path: Path
) -> None:
    here = result(ingest(tmp_path / "raw", tmp_path / "w"))
    start = network.requests
    whole = result(ingest("gs://raw/idc", "gs://work/whole"))
    cost = network.requests - start
    storage = open_storage("gs://work/w")
    for share in (0.5, 0.9):
        start = network.requests
        victim = ingest("gs://raw/idc", "gs://work/w")
        while network.requests < start + share * cost and victim.poll() is None:
            time.sleep(0.005)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(victim.pid, signal.SIGKILL)
        victim.communicate()
        assert victim.returncode == -signal.SIGKILL
        for name in storage.list_dirs(HOME):
            if storage.exists(f"{HOME}{name}/manifest.json"):
                committed("gs://work/w", name)
    again = result(ingest("gs://raw/idc", "gs://work/w"))
    assert again["plan_id"] == whole["plan_id"]
    assert committed("gs://work/w", again["plan_id"]) == committed(tmp_path / "w", here["plan_id"])


def test_a_bucket_that_stops_answering_is_temporary_and_is_not_hammered(network: Proxy) -> None:
    network.target = ""
    start = network.requests
    command = "from components.storage.gcs import GcsStorage; GcsStorage('gs://work/w', retry_seconds=6).exists('x')"
    begun = time.monotonic()
    done = subprocess.run([sys.executable, "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert "TemporaryError" in done.stderr and "does not answer" in done.stderr and "trying again" in done.stderr
    assert time.monotonic() - begun < 40
    assert 2 <= network.requests - start <= 30, "waits grow"
