"""Nothing that is named as a file can make a command wait, or fill the memory."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.adapters import group_files, listing
from components.adapters.raw_files import FolderSource
from components.core.regular_files import open_regular, read_regular, read_regular_text
from components.core.rejects import Rejected
from components.errors import TemporaryError, UsageError
from components.ingest import ledger_choice
from components.ingest.pseudonyms import Pseudonymiser, read_path_map
from components.prediction import kaggle
from components.splits.published import read_splits_csv
from components.training.models.torch_file import read_state_dict


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Whoever waits for a writer fails after ten seconds."""

    def fail(*_: Any) -> None:
        raise AssertionError("it waits for somebody to write")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "fifo.png", 0o600)
    return tmp_path / "fifo.png"


def test_only_regular_files_are_opened(tmp_path: Path, fifo: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        for path in (fifo, tmp_path / "s", tmp_path, "/dev/zero", tmp_path / "none"):
            with pytest.raises(OSError, match=r"regular file|No such|directory"):
                open_regular(path)
    (tmp_path / "text").write_bytes(b"a\r\nb")
    (tmp_path / "link").symlink_to("text")
    assert read_regular(tmp_path / "link") == b"a\r\nb" and read_regular_text(tmp_path / "text") == "a\nb"


def test_a_sparse_file_is_refused_by_its_size(tmp_path: Path) -> None:
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(OSError, match="3,221,225,472 bytes"):
        read_regular(tmp_path / "huge")
    assert FolderSource(str(tmp_path)).read_any("huge", 1 << 20) is None


@pytest.mark.parametrize(
    "read",
    [
        group_files.read_groups_csv,
        group_files.read_group_list,
        read_splits_csv,
        kaggle.read_sample,
        ledger_choice._read_named,
        Pseudonymiser.from_file,
        read_path_map,
        lambda path: listing.read_file(str(path.parent), path.name),
    ],
    ids=["groups", "excluded", "splits", "kaggle", "ledger", "key", "path map", "labels"],
)
def test_a_list_that_is_a_fifo_is_wrong_usage(fifo: Path, read: Callable[[Path], Any]) -> None:
    with pytest.raises(UsageError, match="regular file"):
        read(fifo)


def test_weights_that_are_a_fifo_do_not_wait(fifo: Path) -> None:
    with pytest.raises(OSError, match="regular file"):
        read_state_dict(fifo)


def test_an_image_that_became_a_fifo_is_noticed(fifo: Path) -> None:
    source = FolderSource(str(fifo.parent))
    assert source.read_any(fifo.name, 100) is None  # as thumbnails of rejects are read
    with pytest.raises(TemporaryError, match="has changed"):
        list(source.read_many([fifo.name], [10]))


def test_an_image_that_became_a_socket_is_a_reject(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.png"))
        (found,) = FolderSource(str(tmp_path)).read_many(["s.png"], [10])
    assert isinstance(found, Rejected) and found.code == "unreadable"
