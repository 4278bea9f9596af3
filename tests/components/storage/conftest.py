"""Storages to test on: a folder, and a bucket of a real emulator process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from components.storage.base import Storage
from components.storage.open import open_storage
from tests.support import gcs


@pytest.fixture(scope="session")
def emulator() -> Iterator[str]:
    """URL of an emulator with a bucket named `bucket`, for all tests of this folder."""
    gcs.binary()
    with gcs.emulator() as url:
        gcs.make_bucket(url, "bucket")
        yield url


@pytest.fixture
def local_store(tmp_path: Path) -> Storage:
    """An empty folder that is not there yet."""
    return open_storage(tmp_path / "workspace")


@pytest.fixture
def gcs_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty prefix of a bucket."""
    from components.storage.gcs import GcsStorage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("emulator"))
    monkeypatch.setenv("HISTOLINE_CACHE", str(tmp_path / "cache"))
    return GcsStorage(f"gs://bucket/ws-{uuid.uuid4().hex[:8]}", retry_seconds=10)
