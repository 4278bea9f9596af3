from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from components.training import checkpoints
from components.training.checkpoints import Position


def write(folder: Path, epoch: int, key: str = "k", best: int = 0) -> None:
    position = Position(key, epoch, 1, 2, best, 0.5, {"loss": [1.0] * epoch})
    checkpoints.save(folder, position, [np.full((2, 3), epoch, np.float32), np.array(7, np.uint32)], [np.ones(2)])


def test_what_was_saved_comes_back(tmp_path: Path) -> None:
    write(tmp_path, 3)
    saved = checkpoints.latest(tmp_path, "k")
    assert saved is not None and saved.position == Position("k", 3, 1, 2, 0, 0.5, {"loss": [1.0] * 3})
    assert saved.model[0].tolist() == [[3] * 3] * 2 and saved.model[1].dtype == np.uint32
    assert saved.optimizer[0].tolist() == [1, 1]


def test_only_the_newest_and_the_best_stay(tmp_path: Path) -> None:
    for epoch, best in ((1, 1), (2, 2), (3, 2), (4, 2)):
        write(tmp_path, epoch, best=best)
    assert sorted(p.name for p in tmp_path.glob("*.npz")) == ["epoch-00002.npz", "epoch-00004.npz"]
    assert checkpoints.load(tmp_path, 2).model[0][0, 0] == 2


def test_another_recipe_begins_anew(tmp_path: Path) -> None:
    write(tmp_path, 3)
    assert checkpoints.latest(tmp_path, "other") is None
    assert checkpoints.latest(tmp_path / "absent", "k") is None


def test_a_damaged_file_is_passed_over(tmp_path: Path) -> None:
    write(tmp_path, 2, best=1)
    write(tmp_path, 3, best=2)
    (tmp_path / "epoch-00003.npz").write_bytes(b"PK\3\4 cut")
    saved = checkpoints.latest(tmp_path, "k")
    assert saved is not None and saved.position.epoch == 2


def test_what_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".tmp").mkdir()
    (tmp_path / ".tmp" / "left").write_bytes(b"x" * 100)
    write(tmp_path, 1)
    assert not list((tmp_path / ".tmp").iterdir())


@pytest.mark.parametrize("best", [0, 1])
def test_clear(tmp_path: Path, best: int) -> None:
    write(tmp_path, 1, best=best)
    checkpoints.clear(tmp_path)
    assert checkpoints.latest(tmp_path, "k") is None
