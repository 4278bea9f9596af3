"""Arrow arrays from Python and NumPy values without `pa.array`.

`pa.array` imports pandas where it is installed: half a second and 40 MB for every helper process, and most of the
time that an ingest with nothing to do takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def strings(values: Iterable[str]) -> pa.Array:
    """string[N].

    Raises:
        UnicodeEncodeError: A value holds a lone surrogate (a file name that is not UTF-8).
    """
    data = [value.encode() for value in values]
    offsets = np.zeros(len(data) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, data), np.int32, len(data)), out=offsets[1:])
    return pa.Array.from_buffers(pa.string(), len(data), [None, pa.py_buffer(offsets), pa.py_buffer(b"".join(data))])


def numbers(values: npt.ArrayLike, kind: pa.DataType | None = None) -> pa.Array:
    """Number or bool [N] as an Arrow array of the same or the given type.

    Args:
        values: One-dimensional.
        kind: Arrow type to convert to; None for the values' own.
    """
    array = np.asarray(values)
    if kind is not None and not (pa.types.is_boolean(kind) or array.dtype == bool):
        array = array.astype(kind.to_pandas_dtype())
    if array.ndim != 1:
        raise ValueError(f"expected one dimension, got {list(array.shape)}")
    if array.dtype == bool:
        bits = np.packbits(array, bitorder="little")
        return pa.Array.from_buffers(pa.bool_(), len(array), [None, pa.py_buffer(bits)])
    own = pa.from_numpy_dtype(array.dtype)
    return pa.Array.from_buffers(own, len(array), [None, pa.py_buffer(np.ascontiguousarray(array))])


def digests(values: Sequence[bytes], width: int) -> pa.Array:
    """fixed_size_binary(width)[N]."""
    return pa.Array.from_buffers(pa.binary(width), len(values), [None, pa.py_buffer(b"".join(values))])


def flat(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def values(column: pa.Array | pa.ChunkedArray) -> npt.NDArray[Any]:
    """A number or bool column without nulls as a NumPy array, which may not be written to.

    Raises:
        ValueError: It holds nulls, or is neither.
    """
    whole = flat(column)
    if isinstance(whole, pa.ChunkedArray):  # combine_chunks of no chunk at all
        whole = whole.chunk(0) if whole.num_chunks else None
    if whole is None or not len(whole):
        return np.empty(0, np.dtype(column.type.to_pandas_dtype()))
    kind = whole.type
    if whole.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise ValueError(f"expected numbers without nulls, got {kind} with {whole.null_count} nulls")
    if pa.types.is_boolean(kind):
        bits = np.unpackbits(np.frombuffer(whole.buffers()[1], np.uint8), bitorder="little")
        return bits[whole.offset : whole.offset + len(whole)].astype(bool)
    dtype = np.dtype(kind.to_pandas_dtype())
    return np.frombuffer(whole.buffers()[1], dtype)[whole.offset : whole.offset + len(whole)]


def python(column: pa.Array) -> list[Any]:
    """A string or number column without nulls as a list; ten times as fast as `to_pylist`.

    Raises:
        ValueError: It holds nulls, or is neither.
    """
    if not pa.types.is_string(column.type):
        return list(values(column).tolist())
    if column.null_count:
        raise ValueError(f"expected strings without nulls, got {column.null_count} nulls")
    if not len(column):
        return []
    _, offsets, data = column.buffers()
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].tolist()
    text = memoryview(data)[ends[0] : ends[-1]].tobytes() if data is not None else b""
    first = ends[0]
    if text.isascii():
        whole = text.decode("ascii")
        return [whole[a - first : b - first] for a, b in zip(ends, ends[1:])]
    return [text[a - first : b - first].decode() for a, b in zip(ends, ends[1:])]


def repeat(value: str | int, count: int, kind: pa.DataType) -> pa.Array:
    """A column that holds one value."""
    single = strings([str(value)]) if pa.types.is_string(kind) else numbers([value], kind)
    return pc.take(single, numbers(np.zeros(count, np.int32)))


def table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """A table from columns of Arrow arrays, NumPy arrays or lists of str, cast to its schema's types."""
    arrays = []
    for field in schema:
        values = columns[field.name]
        if not isinstance(values, (pa.Array, pa.ChunkedArray)):
            values = strings(values) if pa.types.is_string(field.type) else numbers(values, field.type)
        arrays.append(values if values.type == field.type else pc.cast(values, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)
