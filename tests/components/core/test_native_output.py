"""Warnings of native libraries stay off the terminal."""

from __future__ import annotations

import os
import struct
import zlib
from typing import Any

from components.core.native_output import LIMIT, caught_output
from components.images.decode import decode_rgb8


def test_what_is_written_below_python_is_caught(capfd: Any) -> None:
    with caught_output() as said:
        os.write(2, b"PNG warning: odd\n\n" + b"x" * 2 * LIMIT)
    os.write(2, b"after\n")
    assert said[0] == "PNG warning: odd" and len("".join(said)) <= LIMIT
    assert capfd.readouterr().err == "after\n"


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_libpng_does_not_write_to_the_terminal(capfd: Any) -> None:
    header, pixels = struct.pack(">II5B", 8, 8, 8, 2, 0, 0, 0), zlib.compress(bytes(8 * 25))
    body = chunk(b"IHDR", header) + chunk(b"tRNS", bytes(40)) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    assert decode_rgb8(b"\x89PNG\r\n\x1a\n" + body, ".png").shape == (8, 8, 3)
    assert capfd.readouterr().err == ""
