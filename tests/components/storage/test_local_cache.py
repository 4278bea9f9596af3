"""The cache of copies: kept below its limit, the longest unused first, never what a running process uses."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.errors import UsageError
from components.storage import local_cache

ROOT = Path(__file__).resolve().parents[3]
HOLD = """
import sys
from pathlib import Path
from components.storage import local_cache
local_cache.use(Path(sys.argv[1]), sys.argv[2:])
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four copies of 100 bytes, `a/1` the longest unused, and a limit of 450 bytes."""
    monkeypatch.setenv(local_cache.LIMIT, "450")
    for age, name in enumerate(("b/2", "b/1", "a/2", "a/1")):
        file = tmp_path / local_cache.COPIES / "bucket" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 100)
        os.utime(file, (1e9 - age, 1e9 - age))
    return tmp_path


def left(cache: Path) -> list[str]:
    top = cache / local_cache.COPIES / "bucket"
    return sorted(path.relative_to(top).as_posix() for path in top.rglob("*") if path.is_file())


def test_the_longest_unused_go_and_no_more_than_must(cache: Path) -> None:
    assert local_cache.make_room(cache, 50) == 0 and len(left(cache)) == 4
    local_cache.touch(cache / "gs/bucket/a/1")
    local_cache._counted.clear()
    assert local_cache.make_room(cache, 250) == 200
    assert left(cache) == ["a/1", "b/2"]


def test_what_a_running_process_uses_stays(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    user = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(cache), "gs/bucket/a", "gs/bucket/b/2"],
        cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert user.stdin and user.stdout and user.stdout.readline() == "held\n"
    caplog.set_level(logging.WARNING, local_cache.__name__)  # libraries of other tests may have quietened all
    assert local_cache.make_room(cache, 400) == 100
    assert left(cache) == ["a/1", "a/2", "b/2"] and "running processes" in caplog.text
    user.kill()
    user.communicate()
    local_cache._counted.clear()
    assert local_cache.make_room(cache, 400) == 300
    assert left(cache) == [] and list((cache / local_cache.USED).iterdir()) == []


def test_what_this_process_uses_stays_for_its_threads_too(cache: Path) -> None:
    local_cache.use(cache, ["gs/bucket/a/1"])
    local_cache.use(cache, ["gs/bucket/a/1", "gs/bucket/b"])
    assert local_cache.make_room(cache, 450) == 100 and left(cache) == ["a/1", "b/1", "b/2"]
    (listed,) = (cache / local_cache.USED).iterdir()
    assert sorted(listed.read_text().split()) == ["gs/bucket/a/1", "gs/bucket/b"]


def test_a_cache_that_was_just_counted_is_not_counted_again(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    local_cache.make_room(cache, 10)
    counts: list[Path] = []
    monkeypatch.setattr(local_cache, "_copies", lambda folder: counts.append(folder) or [])
    local_cache.make_room(cache, 10)
    assert not counts
    local_cache.make_room(cache, 100)  # no longer sure to fit
    assert counts == [cache]


def test_the_limit_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text, size in (("", 10**11), ("0", 0), ("500M", 5 * 10**8), ("1.5 TB", 15 * 10**11), ("20gb", 2 * 10**10)):
        monkeypatch.setenv(local_cache.LIMIT, text)
        assert local_cache.cache_limit() == size
    monkeypatch.setenv(local_cache.LIMIT, "much")
    with pytest.raises(UsageError, match="HISTOLINE_CACHE_LIMIT is 'much'"):
        local_cache.make_room(tmp_path, 1)


def test_the_working_folder_is_one_per_workspace_and_tells_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(local_cache.FOLDER, "/c")
    first, other = (local_cache.work_folder(root) for root in ("gs://b/w/x", "gs://b/w-x"))
    assert first.parent == Path("/c/work") and first.name.startswith("b-w-x-") and first != other
