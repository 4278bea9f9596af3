"""Ingest, push and their like on a disk that fails at its n-th operation: some n here, every n in `make faults`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.storage import atomic_files
from components.storage.local import LocalStorage
from tests.faults.acts import ACTS
from tests.faults.every_n import Trial
from tests.support.failing_disk import ENDED, KINDS, FailingDisk, in_child


def some(name: str, folder: Path, step: int) -> tuple[int, list[str]]:
    """Lets every step-th operation of an act fail in each way, others in each; how many, and what did not hold."""
    trial, tried, broken = Trial(ACTS[name](folder), folder / "start", folder), 0, []
    for number, kind in enumerate(KINDS):
        count, wrong = trial.every(kind, step, first=1 + number * step // len(KINDS))
        tried, broken = tried + count, broken + [str(each) for each in wrong]
    return tried, broken


@pytest.mark.parametrize("name, step, least", [("ingest", 97, 9), ("push", 37, 8)])
def test_at_some_n(name: str, step: int, least: int, tmp_path: Path) -> None:
    tried, broken = some(name, tmp_path, step)
    assert broken == [] and tried >= least


@pytest.mark.e2e
@pytest.mark.parametrize("name", ACTS)
def test_at_every_41st_n(name: str, tmp_path: Path) -> None:
    tried, broken = some(name, tmp_path, 41)
    assert broken == [] and tried >= 4


def not_atomic(self: LocalStorage, path: str, data: bytes, *, tmp_dir: str = "") -> None:
    file = Path(self.root, path)
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as out:
        out.write(data)


def not_synced(tmp: Path, dst: Path, *, synced: bool = False) -> None:
    dst.parent.mkdir(parents=True, exist_ok=True)
    os.replace(tmp, dst)
    atomic_files.fsync_dir(dst.parent)


@pytest.mark.e2e
@pytest.mark.parametrize("kind", ["kill", "cut"])
def test_a_commit_that_is_none_is_seen(kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the temporary file a kill leaves half a file behind, without fsync a power cut leaves an empty one."""
    act = ACTS["first ingest"](tmp_path)
    if kind == "kill":
        monkeypatch.setattr(LocalStorage, "write_atomic", not_atomic)
    else:
        monkeypatch.setattr("components.storage.local.publish", not_synced)
    trial = Trial(act, tmp_path / "start", tmp_path)
    broken = [each for n in range(trial.operations - 7, trial.operations + 1) for each in trial.one(kind, n) or []]
    assert any("latest.json" in each.what for each in broken), broken


@pytest.mark.parametrize("kind", KINDS)
def test_the_disk_fails_as_it_should(kind, tmp_path: Path) -> None:
    """The third operation is the second write of a file: open, write, write, then a rename and an unlink."""
    work, seen = tmp_path / "work", tmp_path / "seen"
    work.mkdir()

    def act() -> None:
        with FailingDisk(work, 3, kind) as disk:
            try:
                with open(work / "a", "wb", buffering=0) as file:
                    file.write(b"1234")
                    file.write(b"5678")
            except OSError as error:
                seen.write_text(f"{error.errno} {disk.failed}")
            os.unlink(work / "a")  # needs no room
            if kind == "ENOSPC":
                with pytest.raises(OSError, match="No space"):
                    (work / "b").mkdir()

    code, said = in_child(act)
    if kind in ("kill", "cut"):
        assert (code, said) == (ENDED, "write a\n")
        assert (work / "a").read_bytes() == (b"123456" if kind == "kill" else b"")
    else:
        assert code == 0, said
        assert seen.read_text() == f"{5 if kind == 'EIO' else 28} write a" and not (work / "a").exists()
