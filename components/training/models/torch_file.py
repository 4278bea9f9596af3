"""Reads the weights in a file of PyTorch's (`torch.save` of a state dict) without PyTorch.

Both forms are read: the one that was written before PyTorch 1.6 (pickles, then the storages one after another) and
the ZIP archive of today. A file is a pickle, so only the few names that a state dict needs are let through; anything
else in it is refused, not run.
"""

from __future__ import annotations

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from components.core.array_types import Array
from components.core.regular_files import read_regular

_TYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
}
_MAGIC = 0x1950A86A20F9469CFC6C
"""First pickle of the older form (torch/serialization.py)."""

_ARCHIVE = b"PK"


class _Tensor(NamedTuple):
    """A view of a storage: its key, the first element, and both shape and strides in elements."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def read_state_dict(path: str | Path) -> dict[str, Array]:
    """Reads the tensors of a state dict.

    Args:
        path: The file.

    Returns:
        Name to array, C-contiguous and of the tensor's own shape, in the order of the file.

    Raises:
        ValueError: The file is no state dict, is damaged, or names things that a state dict does not hold.
    """
    data = read_regular(path, 16 << 30)
    try:
        tensors, storages = _archive(data) if data.startswith(_ARCHIVE) else _pickles(data)
        return {name: _array(tensor, storages) for name, tensor in tensors.items()}
    except Exception as error:  # a damaged pickle may raise nearly anything
        raise ValueError(f"{Path(path).name} is no whole state dict of PyTorch: {error}") from error


def _pickles(data: bytes) -> tuple[dict[str, _Tensor], dict[str, Array]]:
    """The older form: magic number, protocol, machine, state dict, keys of the storages, storages."""
    file = io.BytesIO(data)
    if _Unpickler(file).load() != _MAGIC:
        raise ValueError("it does not begin as a file of PyTorch does")
    for _ in range(2):  # protocol and sizes of C types
        _Unpickler(file).load()
    types: dict[str, np.dtype[Any]] = {}
    tensors = _state(_Unpickler(file, types).load())
    storages = {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        kind = types[key]
        storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind, count)
    return tensors, storages


def _archive(data: bytes) -> tuple[dict[str, _Tensor], dict[str, Array]]:
    """Today's form: `NAME/data.pkl` and a file for each storage, uncompressed."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entry = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if entry is None:
            raise ValueError("the archive holds no data.pkl")
        types: dict[str, np.dtype[Any]] = {}
        tensors = _state(_Unpickler(io.BytesIO(archive.read(entry)), types).load())
        home = entry[: -len("data.pkl")] + "data/"
        return tensors, {key: np.frombuffer(archive.read(home + key), kind) for key, kind in types.items()}


def _state(loaded: Any) -> dict[str, _Tensor]:
    if not isinstance(loaded, dict) or not all(isinstance(value, _Tensor) for value in loaded.values()):
        raise ValueError("it holds something else than named tensors")
    return loaded


def _array(tensor: _Tensor, storages: dict[str, Array]) -> Array:
    """The tensor as an array of its own. Tensors ported from TensorFlow are transposed views: strides count."""
    storage = storages[tensor.storage]
    last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
    if math.prod(tensor.shape) and not 0 <= tensor.offset <= last < len(storage):
        raise ValueError("a tensor reaches past the end of its storage")
    steps = tuple(step * storage.itemsize for step in tensor.strides)
    view: Array = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, steps)
    return np.ascontiguousarray(view).reshape(tensor.shape)


def _rebuild_tensor(storage: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> _Tensor:
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: _Tensor, *_: Any) -> _Tensor:
    return tensor


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Takes `_ALLOWED` and the names of storages, nothing else; notes the type of each storage in `types`."""

    def __init__(self, file: io.BytesIO, types: dict[str, np.dtype[Any]] | None = None) -> None:
        super().__init__(file)
        self._storage_types = {} if types is None else types

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _TYPES:
            return _TYPES[name]
        if (module, name) not in _ALLOWED:
            raise ValueError(f"it names {module}.{name}, which no state dict needs")
        return _ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> str:
        _, kind, key = pid[:3]
        self._storage_types[str(key)] = kind
        return str(key)
