"""What a storage in a bucket does beyond the contract, against a real emulator process."""

from __future__ import annotations

import base64
import datetime
import json
import os
import threading
import types
from pathlib import Path
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth

from components.errors import TemporaryError, UsageError
from components.storage import gcs_client, gcs_lock, local_cache
from components.storage.atomic_files import StorageConflict, StorageMissing
from components.storage.base import ABSENT
from components.storage.gcs import GcsStorage
from components.storage.gcs_client import bucket, conditional_write, crc32c_bytes, crc32c_file, gcs_errors, retry_for
from components.storage.open import open_storage
from tests.support import gcs

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def store(gcs_store: GcsStorage) -> GcsStorage:
    return gcs_store


def raw(store: GcsStorage, path: str) -> Any:
    """The object behind a path, past our own code."""
    return bucket("bucket").blob(f"{store.prefix}/{path}")


# --- files ---


def test_what_a_console_makes_to_show_a_folder_is_no_file(store: GcsStorage) -> None:
    assert not store.is_local
    store.write_atomic("a/b/1", b"1")
    raw(store, "a/b/").upload_from_string(b"")
    assert store.list_files("a") == store.list_files("a/") == [("a/b/1", 1)]
    assert store.list_dirs("a") == ["b"] and store.list_dirs("") == ["a"]


def test_a_bucket_without_prefix_is_a_root(store: GcsStorage) -> None:
    whole = open_storage("gs://bucket/")
    store.write_atomic("a/b", b"1")
    assert (f"{store.prefix}/a/b", 1) in whole.list_files("")
    assert whole.list_dirs(store.prefix) == ["a"] and whole.read_bytes(f"{store.prefix}/a/b") == b"1"
    assert whole.uri("x") == "gs://bucket/x" and whole.uri("") == "gs://bucket"


def test_missing_objects_and_buckets_say_so(store: GcsStorage) -> None:
    for call in (store.read_bytes, store.size, store.local_copy, store.local_tree):
        with pytest.raises(StorageMissing, match="gs://bucket/.*/a/b does not exist"):
            call("a/b")
    assert store.read_versioned("a/b") == (None, ABSENT)
    nowhere = GcsStorage("gs://no-such-bucket/x", retry_seconds=2)
    for call in (
        lambda: nowhere.write_atomic("a", b""),
        lambda: nowhere.list_files(""),
        lambda: nowhere.compare_and_swap("a", b"", ABSENT),
        lambda: nowhere.lock("a", owner="x").__enter__(),
    ):
        with pytest.raises(UsageError, match="bucket no-such-bucket does not exist"):
            call()


def test_a_committed_file_is_moved_and_may_be_committed_again(store: GcsStorage) -> None:
    for size in (9 << 20, 9 << 20, 10):  # above 8 MiB the client uploads in resumable pieces
        file = store.scratch("plan") / "s"
        file.write_bytes(os.urandom(size))
        data = file.read_bytes()
        store.commit_file(file, "plan/Split-train/s")
        assert not file.exists() and store.read_bytes("plan/Split-train/s") == data
    assert store.list_files("") == [("plan/Split-train/s", 10)]
    assert store.sweep("plan", older_than_seconds=3600) == 0 and store.sweep("plan") == 3
    with pytest.raises(StorageMissing):
        store.commit_file(file, "plan/x")


def test_a_damaged_upload_does_not_stay(store: GcsStorage, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "s").write_bytes(b"shard")
    monkeypatch.setattr("components.storage.gcs.crc32c_file", lambda path: "other")
    with pytest.raises(TemporaryError, match="damaged"):
        store.commit_file(tmp_path / "s", "s")
    assert not store.exists("s") and (tmp_path / "s").exists()


def test_a_tree_goes_live_once_and_its_marker_last(store: GcsStorage, monkeypatch: Any) -> None:
    def folder(content: bytes) -> Path:
        new = store.scratch("models")
        (new / "variables").mkdir()
        for name in ("variables/v", "saved_model.pb"):
            (new / name).write_bytes(content)
        return new

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    store.write_atomic("models/7/stray", b"from a try that was killed")
    with monkeypatch.context() as patch:
        patch.setattr("components.storage.gcs.conditional_write", die)
        with pytest.raises(KeyboardInterrupt):
            store.commit_tree(folder(b"zero"), "models/7", last="saved_model.pb")
    assert store.list_files("models") == [("models/7/variables/v", 4)]
    store.commit_tree(folder(b"one"), "models/7", last="saved_model.pb")
    with pytest.raises(StorageConflict, match="exists already"):
        store.commit_tree(folder(b"two"), "models/7", last="saved_model.pb")
    assert store.list_files("models") == [("models/7/saved_model.pb", 3), ("models/7/variables/v", 3)]
    assert store.read_bytes("models/7/variables/v") == b"one"


def test_a_deleted_tree_loses_its_commit_point_first(store: GcsStorage, monkeypatch: Any) -> None:
    for name in ("p/manifest.json", "p/Split-train/a", "p/Split-train/b", "pq/b"):
        store.write_atomic(name, b"1")
    order: list[str] = []
    delete = store.delete
    monkeypatch.setattr(store, "delete", lambda path: (order.append(path), delete(path)))
    store.delete_tree("p")
    assert order[0] == "p/manifest.json" and len(order) == 3
    assert store.list_files("") == [("pq/b", 1)]


# --- local copies ---


def test_copies_are_fetched_once_and_proved_at_each_use(
    store: GcsStorage, tmp_path: Path, monkeypatch: Any
) -> None:
    names = [f"Split-train/{i:02d}" for i in range(12)]
    for name in names:
        store.write_atomic(name, name.encode() * 100)
    fetched: list[str] = []
    download = gcs_client.storage.Blob.download_to_filename

    def spy(blob: Any, *arguments: Any, **options: Any) -> Any:
        fetched.append(blob.name.rpartition("/")[2])
        return download(blob, *arguments, **options)

    monkeypatch.setattr(gcs_client.storage.Blob, "download_to_filename", spy)
    copies = store.local_copies(names, tmp_path / "c")
    assert [copy.read_bytes() for copy in copies] == [name.encode() * 100 for name in names]
    assert len(fetched) == 12 and len({copy.parent for copy in copies}) == 1
    fetched.clear()
    damaged = copies[3].read_bytes()[:-1] + b"!"
    copies[3].write_bytes(damaged)  # same size: only the checksum tells
    copies[5].unlink()
    store.write_atomic(names[7], b"x" * len(damaged))
    assert store.local_copies(names, tmp_path / "c") == copies
    assert sorted(fetched) == ["03", "05", "07"]
    assert copies[3].read_bytes() == names[3].encode() * 100 and copies[7].read_bytes() == b"x" * len(damaged)
    assert store.local_copy(names[0], tmp_path / "c") == copies[0]
    assert list((tmp_path / "c" / ".tmp").iterdir()) == []


def test_a_local_tree_holds_exactly_the_bucket(store: GcsStorage) -> None:
    for name in ("d/Split-train/a", "d/Split-eval/b", "d/manifest.json"):
        store.write_atomic(name, b"1")
    tree = store.local_tree("d")
    store.delete("d/Split-train/a")
    store.write_atomic("d/Split-train/c", b"2")
    assert store.local_tree("d") == tree
    found = sorted(p.relative_to(tree).as_posix() for p in tree.rglob("*") if p.is_file())
    assert found == ["Split-eval/b", "Split-train/c", "manifest.json"]


def test_copies_stay_below_the_limit_of_the_cache(store: GcsStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HISTOLINE_CACHE_LIMIT", "250")
    for name in ("old/1", "old/2", "new/1"):
        store.write_atomic(name, b"x" * 100)
    old = store.local_tree("old")
    local_cache._held.clear()  # as if the process that had asked for it were gone
    assert store.local_copy("new/1").read_bytes() == b"x" * 100
    assert sum(file.stat().st_size for file in old.rglob("*") if file.is_file()) == 100
    (cached,) = store.local_tree("new").iterdir()
    store.local_tree("old")
    assert cached.is_file(), "a copy that this process uses was evicted"


def test_an_object_named_to_escape_the_cache_is_refused(store: GcsStorage, tmp_path: Path) -> None:
    raw(store, "d/../../../../../evil").upload_from_string(b"x")
    with pytest.raises(UsageError, match="not a path inside"):
        store.local_tree("d")
    assert not list(tmp_path.rglob("evil"))


# --- compare and swap ---


def test_a_repeated_request_knows_its_own_success(store: GcsStorage, monkeypatch: Any) -> None:
    upload = gcs_client.storage.Blob.upload_from_string

    def answer_lost(blob: Any, *arguments: Any, **options: Any) -> None:
        upload(blob, *arguments, **options)
        upload(blob, *arguments, **options)  # what the client's retry does when the first answer was lost

    monkeypatch.setattr(gcs_client.storage.Blob, "upload_from_string", answer_lost)
    version = store.compare_and_swap("c", b"1", ABSENT)
    assert store.read_versioned("c") == (b"1", version)
    with pytest.raises(StorageConflict):
        store.compare_and_swap("c", b"1", ABSENT)


# --- locks ---

def elsewhere(store: GcsStorage) -> None:
    """A lock whose holder lives, or lived, on another machine."""
    said = {
        "owner": "far",
        "pid": 1,
        "host": "h",
        "started": "s",
        "process": "boot/pid:[1]/1/1",
        "token": "t",
    }
    conditional_write(bucket("bucket"), f"{store.prefix}/l", json.dumps(said).encode(), 0, retry_for(5))


def test_a_silent_lock_of_another_machine_is_taken_over_when_stale(
    store: GcsStorage, monkeypatch: Any
) -> None:
    elsewhere(store)
    with pytest.raises(TemporaryError, match="locked by far"):
        store.lock("l", owner="me", wait_seconds=0).__enter__()
    monkeypatch.setattr(gcs_lock, "STALE_SECONDS", 0.3)
    with store.lock("l", owner="me", wait_seconds=5, poll=0.1):
        assert json.loads(store.read_bytes("l"))["owner"] == "me"
        assert store.list_files("") == [("l", store.size("l"))]


def test_a_wrong_clock_here_takes_no_lock_away(store: GcsStorage, monkeypatch: Any) -> None:
    elsewhere(store)

    class Ahead(datetime.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.datetime(2100, 1, 1, tzinfo=tz)

    ahead = types.SimpleNamespace(datetime=Ahead, timezone=datetime.timezone)
    monkeypatch.setattr(gcs_lock, "datetime", ahead)
    with pytest.raises(TemporaryError, match="locked by far"):
        store.lock("l", owner="me", wait_seconds=0).__enter__()
    assert len(store.list_files("")) == 1


def test_a_beating_lock_does_not_go_stale_and_a_robbed_holder_knows(
    store: GcsStorage, monkeypatch: Any
) -> None:
    monkeypatch.setattr(gcs_lock, "BEAT_SECONDS", 0.05)
    with store.lock("l", owner="me") as held:
        first = store.read_versioned("l")[1]
        wait_for(lambda: store.read_versioned("l")[1] != first)
        held.check()
        raw(store, "l").upload_from_string(b'{"owner": "robber", "token": "other"}')
        wait_for(lambda: held.lost)  # type: ignore[attr-defined]
        with pytest.raises(TemporaryError, match="was lost"):
            held.check()
    assert json.loads(store.read_bytes("l"))["owner"] == "robber"


def test_a_holder_that_slept_too_long_is_told(store: GcsStorage, monkeypatch: Any) -> None:
    with store.lock("l", owner="me") as held:
        now = gcs_lock._seconds()
        monkeypatch.setattr(gcs_lock, "_seconds", lambda: now + gcs_lock.STALE_SECONDS)
        with pytest.raises(TemporaryError, match="was lost"):
            held.check()


def wait_for(condition: Any) -> None:
    event = threading.Event()
    for _ in range(600):
        if condition():
            return
        event.wait(0.05)
    raise AssertionError("waited in vain")


def test_an_unreadable_lock_is_still_a_lock(store: GcsStorage) -> None:
    for garbage in (b"", b"{", b"[1]", b"7", b"\xff"):
        store.write_atomic("l", garbage)
        with pytest.raises(TemporaryError, match="unknown owner"):
            store.lock("l", owner="x", wait_seconds=0).__enter__()


# --- errors ---


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (api.Forbidden("no"), UsageError, "Storage Object Admin on the bucket b"),
        (api.Unauthorized("no"), UsageError, "refused"),
        (api.BadRequest("bad name"), UsageError, "not possible: bad name"),
        (api.PreconditionFailed("412"), StorageConflict, "changed by somebody else"),
        (api.ServiceUnavailable("503"), TemporaryError, "does not answer"),
        (api.TooManyRequests("429"), TemporaryError, "does not answer"),
        (api.RetryError("timeout", ValueError()), TemporaryError, "does not answer"),
        (requests.ConnectionError("refused"), TemporaryError, "Check the network"),
        (auth.DefaultCredentialsError("none"), UsageError, "gcloud auth application-default login"),
        (auth.TransportError("unreachable"), TemporaryError, "Run again"),
        (ValueError("a bug"), ValueError, "a bug"),
    ],
)
def test_each_refusal_has_its_sentence(error: Exception, kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=words), gcs_errors("writing", "gs://b/x"):
        raise error


def test_an_unreachable_service_is_temporary(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{gcs.free_port()}")
    store = GcsStorage("gs://bucket/x", retry_seconds=0.5)
    (tmp_path / "s").write_bytes(b"1")
    for call in (
        lambda: store.write_atomic("a", b""),
        lambda: store.read_bytes("a"),
        lambda: store.list_files(""),
        lambda: store.commit_file(tmp_path / "s", "a"),
        lambda: store.lock("a", owner="x").__enter__(),
    ):
        with pytest.raises(TemporaryError, match="does not answer"):
            call()
    assert (tmp_path / "s").exists()


def test_the_checksum_is_googles(tmp_path: Path) -> None:
    # RFC 3720 B.4 gives `aa 36 91 8a` (low byte first) for 32 zero bytes; Google writes the high byte first.
    assert crc32c_bytes(bytes(32)) == base64.b64encode(bytes.fromhex("8a9136aa")).decode()
    (tmp_path / "zeros").write_bytes(bytes(32))
    assert crc32c_file(tmp_path / "zeros") == crc32c_bytes(bytes(32))
