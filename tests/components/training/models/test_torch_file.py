"""Files of PyTorch's are written here as PyTorch writes them, since it is not a requirement."""

from __future__ import annotations

import collections
import os
import pickle
import sys
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.training.models import torch_file
from components.training.models.torch_file import read_state_dict


class _Stored:
    def __init__(self, key: str, values: np.ndarray) -> None:
        self.key, self.values = key, values


class _Pickler(pickle.Pickler):
    def persistent_id(self, obj: Any) -> Any:
        if not isinstance(obj, _Stored):
            return None
        return ("storage", sys.modules["torch"].FloatStorage, obj.key, "cpu", obj.values.size)


@pytest.fixture
def torch_names(monkeypatch) -> None:
    """Modules by the names that stand in the files; pickle looks them up when it writes."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    class FloatStorage:
        __module__, __qualname__ = "torch", "FloatStorage"

    def _rebuild_tensor_v2(*_: Any) -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    torch.FloatStorage, utils._rebuild_tensor_v2 = FloatStorage, _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


class _Tensor:
    def __init__(self, stored: _Stored, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> None:
        self.given = (stored, offset, shape, strides, False, collections.OrderedDict())

    def __reduce__(self) -> Any:
        return sys.modules["torch._utils"]._rebuild_tensor_v2, self.given


def write(path: Path, state: Any, stored: list[_Stored], *, archive: bool) -> Path:
    if archive:
        with zipfile.ZipFile(path, "w") as file:
            with file.open("net/data.pkl", "w") as entry:
                _Pickler(entry, 2).dump(state)
            for storage in stored:
                file.writestr(f"net/data/{storage.key}", storage.values.tobytes())
        return path
    with path.open("wb") as file:
        for value in (torch_file._MAGIC, 1001, {"little_endian": True}):
            pickle.dump(value, file, 2)
        _Pickler(file, 2).dump(state)
        pickle.dump([storage.key for storage in stored], file, 2)
        for storage in stored:
            file.write(storage.values.size.to_bytes(8, "little") + storage.values.tobytes())
    return path


@pytest.mark.parametrize("archive", [False, True])
def test_views_of_shared_storages_are_read_by_their_strides(torch_names, tmp_path, archive):
    values = np.arange(24, dtype=np.float32)
    stored = _Stored("7", values)
    state = collections.OrderedDict(
        transposed=_Tensor(stored, 0, (4, 3), (1, 4)),
        part=_Tensor(stored, 12, (2, 3), (6, 2)),
        number=_Tensor(stored, 5, (), ()),
        empty=_Tensor(stored, 24, (0, 3), (3, 1)),
    )
    read = read_state_dict(write(tmp_path / "net.pth", state, [stored], archive=archive))
    assert list(read) == ["transposed", "part", "number", "empty"]
    np.testing.assert_array_equal(read["transposed"], values[:12].reshape(3, 4).T)
    np.testing.assert_array_equal(read["part"], [[12, 14, 16], [18, 20, 22]])
    assert read["number"].shape == () and read["number"] == 5 and read["empty"].shape == (0, 3)
    assert all(array.flags.c_contiguous for array in read.values())


class _Evil:
    def __reduce__(self) -> Any:
        return os.system, ("touch evil",)


@pytest.mark.parametrize("archive", [False, True])
def test_what_no_state_dict_needs_is_refused_and_not_run(torch_names, tmp_path, archive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "net.pth", {"a": _Evil()}, [], archive=archive)
    with pytest.raises(ValueError, match=r"system, which no state dict needs"):
        read_state_dict(path)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize("archive", [False, True])
def test_damage_is_said(torch_names, tmp_path, archive):
    stored = _Stored("0", np.zeros(6, np.float32))
    good = write(tmp_path / "good.pth", {"a": _Tensor(stored, 0, (2, 3), (3, 1))}, [stored], archive=archive)
    cut = tmp_path / "cut.pth"
    cut.write_bytes(good.read_bytes()[:-10])
    past = write(tmp_path / "past.pth", {"a": _Tensor(stored, 1, (2, 3), (3, 1))}, [stored], archive=archive)
    module = write(tmp_path / "module.pth", {"a": 1}, [], archive=archive)
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    for path, why in (
        (cut, "cut.pth is no whole state dict"),
        (past, "past the end"),
        (module, "something else"),
        (text, "text.pth is no whole state dict"),
    ):
        with pytest.raises(ValueError, match=why):
            read_state_dict(path)
