"""Storage on Google Cloud Storage: generation preconditions instead of rename, heartbeats instead of flock.

An object appears whole or not at all, so one upload is one commit. With STORAGE_EMULATOR_HOST set, an
emulator is used without credentials. Readers get local files from a cache that is proved by CRC-32C.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from google.api_core import exceptions as api

from components.errors import TemporaryError, UsageError
from components.storage import local_cache
from components.storage.atomic_files import TMP, StorageConflict, StorageMissing, os_errors
from components.storage.base import ABSENT, HeldLock, Storage, check_path
from components.storage.gcs_client import (
    RETRY_SECONDS,
    bucket,
    conditional_write,
    crc32c_bytes,
    crc32c_file,
    gcs_errors,
    read_with_blob,
    retry_for,
)
from components.storage.gcs_lock import GcsLock, hold_gcs_lock
from components.storage.local import sweep_folder
from components.storage.local_lock import once_per_process

PARALLEL = 8  # requests at a time: the client keeps ten connections

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class GcsStorage(Storage):
    """A workspace that is a bucket, or a prefix in one.

    Args:
        root: `gs://bucket[/prefix]`.
        retry_seconds: How long one request is repeated while the network or the service fails.
    """

    is_local = False

    def __init__(self, root: str, *, retry_seconds: float = RETRY_SECONDS) -> None:
        name, _, prefix = root.removeprefix("gs://").rstrip("/").partition("/")
        if not name:
            raise UsageError(f"{root!r} names no bucket.", "Give gs://BUCKET/PREFIX.")
        self.bucket, self.prefix = name, check_path(prefix, prefix=True)
        self.root = f"gs://{name}/{prefix}".rstrip("/")
        self.retry_seconds = retry_seconds

    @property
    def _retry(self) -> Any:
        return retry_for(self.retry_seconds)

    def _key(self, path: str) -> str:
        return posixpath.join(self.prefix, check_path(path))

    def _folder_key(self, prefix: str) -> str:
        key = posixpath.join(self.prefix, check_path(prefix, prefix=True)).rstrip("/")
        return f"{key}/" if key else ""

    def _path(self, key: str) -> str:
        return key[len(self.prefix) + 1 :] if self.prefix else key

    def _meta(self, path: str) -> Any:
        with gcs_errors("reading", self.uri(path)):
            return bucket(self.bucket).get_blob(self._key(path), retry=self._retry)

    def _list(self, prefix: str, *, delimiter: str | None = None) -> Any:
        fields = "items(name,size,crc32c,generation,updated),prefixes,nextPageToken"
        key = self._folder_key(prefix)
        return bucket(self.bucket).list_blobs(
            prefix=key, delimiter=delimiter, fields=fields, retry=self._retry
        )

    def read_bytes(self, path: str) -> bytes:
        """See `Storage.read_bytes`."""
        with gcs_errors("reading", self.uri(path)):
            blob = bucket(self.bucket).blob(self._key(path))
            return bytes(blob.download_as_bytes(checksum="crc32c", retry=self._retry))

    def exists(self, path: str) -> bool:
        """See `Storage.exists`."""
        return self._meta(path) is not None

    def size(self, path: str) -> int:
        """See `Storage.size`."""
        blob = self._meta(path)
        if blob is None:
            raise StorageMissing(f"{self.uri(path)} does not exist.", "Check the path and the bucket.")
        return int(blob.size)

    def list_files(self, prefix: str) -> list[tuple[str, int]]:
        """See `Storage.list_files`."""
        return sorted((self._path(blob.name), int(blob.size)) for blob in self._blobs(prefix))

    def _blobs(self, prefix: str) -> list[Any]:
        with gcs_errors("listing", self.uri(prefix)):
            # Consoles and mounts make empty objects that end in a slash, to show a folder.
            return [blob for blob in self._list(prefix) if not blob.name.endswith("/")]

    def list_dirs(self, prefix: str) -> list[str]:
        """See `Storage.list_dirs`."""
        with gcs_errors("listing", self.uri(prefix)):
            found = self._list(prefix, delimiter="/")
            for _ in found.pages:
                pass
            return sorted(key.rstrip("/").rpartition("/")[2] for key in found.prefixes)

    def modified(self, prefix: str) -> float:
        """See `Storage.modified`."""
        return max((blob.updated.timestamp() for blob in self._blobs(prefix)), default=0.0)

    def delete(self, path: str) -> None:
        """See `Storage.delete`."""
        with gcs_errors("deleting", self.uri(path)), contextlib.suppress(api.NotFound):
            bucket(self.bucket).blob(self._key(path)).delete(retry=self._retry)

    def delete_tree(self, prefix: str) -> None:
        """See `Storage.delete_tree`: level by level from the top, where the commit points are."""
        check_path(prefix)
        paths = [path for path, _ in self.list_files(prefix)]
        for depth in sorted({path.count("/") for path in paths}):
            _parallel(self.delete, [path for path in paths if path.count("/") == depth])

    def finish_deletions(self) -> int:
        """See `Storage.finish_deletions`: every object has its name until it is gone."""
        return 0

    def write_atomic(self, path: str, data: bytes, *, tmp_dir: str = TMP) -> None:
        """See `Storage.write_atomic`."""
        blob = bucket(self.bucket).blob(self._key(path))
        with gcs_errors("writing", self.uri(path)):
            blob.upload_from_string(data, checksum="crc32c", retry=self._retry)
        self._prove(path, blob.crc32c, crc32c_bytes(data))

    def scratch(self, prefix: str) -> Path:
        """See `Storage.scratch`: in the cache folder of this machine."""
        folder = self._scratch(prefix) / uuid.uuid4().hex[:12]
        with os_errors("writing", folder):
            folder.mkdir(parents=True)
        return folder

    def _scratch(self, prefix: str) -> Path:
        return local_cache.default_cache_dir() / "scratch" / hashlib.sha256(self.uri(prefix).encode()).hexdigest()[:16]

    def work_folder(self) -> Path:
        """See `Storage.work_folder`: in the cache folder of this machine."""
        return local_cache.work_folder(self.root)

    def sweep(self, prefix: str, *, older_than_seconds: float = 0) -> int:
        """See `Storage.sweep`: this machine's scratch folders; an upload leaves nothing in the bucket."""
        return sweep_folder(self._scratch(prefix), older_than_seconds)

    def commit_file(self, local_tmp: Path, path: str) -> None:
        """See `Storage.commit_file`."""
        blob = bucket(self.bucket).blob(self._key(path))
        with os_errors("reading", local_tmp):
            crc = crc32c_file(local_tmp)
            with gcs_errors("writing", self.uri(path)):
                blob.upload_from_filename(str(local_tmp), checksum="crc32c", retry=self._retry)
        self._prove(path, blob.crc32c, crc)
        local_tmp.unlink()

    def _prove(self, path: str, stored: str, sent: str) -> None:
        if stored != sent:
            self.delete(path)
            raise TemporaryError(f"{self.uri(path)} was damaged on its way (CRC-32C differs).", "Run again.")

    def commit_tree(self, local_tmp: Path, prefix: str, *, last: str) -> None:
        """See `Storage.commit_tree`."""
        live = f"{check_path(prefix)}/{check_path(last)}"
        conflict = StorageConflict(f"{self.uri(prefix)} exists already; committed folders never change.")
        with os_errors("reading", local_tmp / last):
            marker = (local_tmp / last).read_bytes()
        if self.exists(live):
            raise conflict
        files = {f"{prefix}/{file.relative_to(local_tmp).as_posix()}": file for file in local_tmp.rglob("*")}
        files = {path: file for path, file in files.items() if file.is_file()}
        _parallel(self.delete, [path for path, _ in self.list_files(prefix) if path not in files])
        _parallel(lambda item: self.commit_file(item[1], item[0]), [i for i in files.items() if i[0] != live])
        with gcs_errors("writing", self.uri(live)):
            try:
                conditional_write(bucket(self.bucket), self._key(live), marker, 0, self._retry)
            except api.PreconditionFailed as error:
                raise conflict from error
        shutil.rmtree(local_tmp)

    def local_copies(self, paths: Iterable[str], cache_dir: Path | None = None) -> list[Path]:
        """See `Storage.local_copies`; a copy that is there with the right CRC-32C is not fetched again."""
        wanted = [check_path(path) for path in paths]
        folders = {posixpath.dirname(path) for path in wanted}
        if len(wanted) == 1:
            found = {wanted[0]: self._meta(wanted[0])}
        else:  # one listing of a folder is cheaper than one request for each of its files
            with gcs_errors("listing", self.root):
                found = {
                    self._path(blob.name): blob
                    for name in folders
                    for blob in self._list(name, delimiter="/")
                }
        for path in wanted:
            if found.get(path) is None:
                raise StorageMissing(f"{self.uri(path)} does not exist.", "Check the path and the bucket.")
        local_cache.use(
            cache_dir or local_cache.default_cache_dir(), [self._copy_name(found[path].name) for path in wanted]
        )
        return self._fetch_all([found[path] for path in wanted], cache_dir)

    def local_tree(self, prefix: str, cache_dir: Path | None = None) -> Path:
        """See `Storage.local_tree`; what the bucket no longer holds goes from the cache too."""
        blobs = self._blobs(prefix)
        if not blobs:
            raise StorageMissing(f"{self.uri(prefix)} does not exist.", "Check the path and the bucket.")
        key = self._folder_key(prefix).rstrip("/")
        local_cache.use(cache_dir or local_cache.default_cache_dir(), [self._copy_name(key)])
        copies = set(self._fetch_all(blobs, cache_dir))
        folder = self._cached(key, cache_dir)
        with os_errors("deleting", folder):
            for file in [file for file in folder.rglob("*") if not file.is_dir() and file not in copies]:
                file.unlink(missing_ok=True)
        return folder

    def _cached(self, key: str, cache_dir: Path | None) -> Path:
        # The bucket's names are other people's: one like `../x` must not leave the cache.
        return (cache_dir or local_cache.default_cache_dir()) / self._copy_name(key)

    def _copy_name(self, key: str) -> str:
        return f"{local_cache.COPIES}/{self.bucket}/{check_path(key, prefix=True)}".rstrip("/")

    def _fetch_all(self, blobs: Sequence[Any], cache_dir: Path | None) -> list[Path]:
        folder = cache_dir or local_cache.default_cache_dir()
        missing = [blob for blob in blobs if not self._is_there(blob, self._cached(blob.name, cache_dir))]
        if missing:
            local_cache.make_room(folder, sum(int(blob.size) for blob in missing))
        return _parallel(lambda blob: self._fetch(blob, folder), blobs)

    def _is_there(self, blob: Any, file: Path) -> bool:
        return file.is_file() and file.stat().st_size == blob.size

    def _fetch(self, blob: Any, cache_dir: Path) -> Path:
        file = self._cached(blob.name, cache_dir)
        tmp = cache_dir / TMP / uuid.uuid4().hex
        with os_errors("writing", file):
            if self._is_there(blob, file) and crc32c_file(file) == blob.crc32c:
                local_cache.touch(file)
                return file
            tmp.parent.mkdir(parents=True, exist_ok=True)
            file.parent.mkdir(parents=True, exist_ok=True)
            try:
                with gcs_errors("reading", f"gs://{self.bucket}/{blob.name}"):
                    match = blob.generation
                    blob.download_to_filename(
                        str(tmp), if_generation_match=match, checksum="crc32c", retry=self._retry
                    )
                if crc32c_file(tmp) != blob.crc32c:
                    raise StorageConflict(
                        f"gs://{self.bucket}/{blob.name} changed or was damaged while it was read.",
                        "Run again.",
                    )
                os.replace(tmp, file)
            finally:
                tmp.unlink(missing_ok=True)
        return file

    def read_versioned(self, path: str) -> tuple[bytes | None, str]:
        """See `Storage.read_versioned`: the version is the object's generation."""
        with gcs_errors("reading", self.uri(path)):
            found = read_with_blob(bucket(self.bucket), self._key(path), self._retry)
        return (None, ABSENT) if found is None else (found[0], str(found[1].generation))

    def compare_and_swap(self, path: str, data: bytes, expected_version: str) -> str:
        """See `Storage.compare_and_swap`."""
        store, key = bucket(self.bucket), self._key(path)
        with gcs_errors("writing", self.uri(path)):
            return str(conditional_write(store, key, data, int(expected_version), self._retry))

    @contextlib.contextmanager
    def lock(
        self, path: str, *, owner: str, wait_seconds: float = 60, poll: float = 0.5
    ) -> Iterator[HeldLock]:
        """See `Storage.lock`."""
        with once_per_process(self.uri(path)):
            lock = GcsLock(bucket(self.bucket), self._key(path), owner, min(self.retry_seconds, 30.0))
            with hold_gcs_lock(lock, wait_seconds, poll) as held:
                yield held


def _parallel(work: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    with ThreadPoolExecutor(PARALLEL) as pool:
        return list(pool.map(work, items))
