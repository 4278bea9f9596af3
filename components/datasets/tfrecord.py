"""TFRecord framing, written and checked without TensorFlow (importing it costs seconds and half a gigabyte).

Format: `uint64 length | uint32 masked crc32c(length) | data | uint32 masked crc32c(data)`, little-endian, as in
https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details
"""

from __future__ import annotations

import functools
import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

import google_crc32c

HEADER_BYTES = 12
FOOTER_BYTES = 4
MAX_RECORD_BYTES = 1 << 30

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")


class CorruptRecord(ValueError):
    """A record whose length or data does not match its checksum, or that ends too early."""


def masked_crc32c(data: bytes) -> int:
    """CRC-32C, rotated and offset as TFRecord wants it."""
    crc: int = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@functools.lru_cache(maxsize=65536)
def header(length: int) -> bytes:
    """The 12 bytes that precede a record of `length` bytes; lengths repeat, so they are remembered."""
    packed = _U64.pack(length)
    return packed + _U32.pack(masked_crc32c(packed))


def footer(data: bytes) -> bytes:
    """The 4 bytes that follow a record."""
    return _U32.pack(masked_crc32c(data))


def framed_size(length: int) -> int:
    """Bytes that a record of `length` bytes takes in the file."""
    return HEADER_BYTES + length + FOOTER_BYTES


def read_record(file: BinaryIO | mmap.mmap) -> bytes | None:
    """Reads the record at the file's position; None at the end of the file.

    Raises:
        CorruptRecord: Says at which byte offset, and what is wrong.
    """
    at = file.tell()
    head = file.read(HEADER_BYTES)
    if not head:
        return None
    if len(head) < HEADER_BYTES:
        raise CorruptRecord(f"header cut off at byte {at}")
    if _U32.unpack_from(head, 8)[0] != masked_crc32c(head[:8]):
        raise CorruptRecord(f"length checksum wrong at byte {at}")
    length = _U64.unpack_from(head)[0]
    if length > MAX_RECORD_BYTES:
        raise CorruptRecord(f"record of {length} bytes at byte {at}")
    data = file.read(length)
    tail = file.read(FOOTER_BYTES)
    if len(data) != length or len(tail) != FOOTER_BYTES:
        raise CorruptRecord(f"record cut off at byte {at}")
    if _U32.unpack(tail)[0] != masked_crc32c(data):
        raise CorruptRecord(f"data checksum wrong at byte {at}")
    return data


def read_records(path: str | Path) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, record) of a whole file, every checksum verified.

    Raises:
        CorruptRecord: As `read_record`.
    """
    with open(path, "rb", buffering=1 << 20) as file:
        while True:
            offset = file.tell()
            data = read_record(file)
            if data is None:
                return
            yield offset, data


def read_at(path: str | Path, offset: int) -> bytes:
    """Reads the one record that begins at a byte offset (column `offset` of patches.parquet).

    Raises:
        CorruptRecord: As `read_record`, or nothing stands there.
    """
    with open(path, "rb") as file:
        file.seek(offset)
        data = read_record(file)
    if data is None:
        raise CorruptRecord(f"no record at byte {offset}")
    return data


def read_chosen(path: str | Path, offsets: Iterable[int]) -> Iterator[tuple[int, bytes]]:
    """Yields (byte offset, record) of the records that begin at some offsets, every checksum verified.

    What lies between them is not read, so that few records of a large file cost little.

    Raises:
        CorruptRecord: As `read_at`.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        for offset in offsets:
            memory.seek(offset)
            data = read_record(memory)
            if data is None:
                raise CorruptRecord(f"no record at byte {offset}")
            yield offset, data
