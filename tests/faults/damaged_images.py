"""Small PNG and TIFF files, drawn by code or real, and damaged with the format in mind.

Chunks keep a right CRC, inflated scanlines are changed and packed again, fields of a TIFF directory get values that
hurt. The same seed and number make the same case.
"""

from __future__ import annotations

import dataclasses
import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

SIDE = (20, 17)
INTERESTING = (0, 1, 2, 3, 7, 8, 9, 16, 127, 128, 255, 256, 257, 32767, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1)


@dataclasses.dataclass(frozen=True)
class Seed:
    """A file that cases are made of.

    Attributes:
        name: For people.
        extension: `.png` or `.tif`.
        data: The file.
    """

    name: str
    extension: str
    data: bytes


def drawn() -> list[Seed]:
    """Small files of every layout that is decoded."""
    width, height = SIDE
    rng = np.random.default_rng(7)
    smooth = (np.add.outer(np.arange(height), np.arange(width))[..., None] * [3, 4, 5]).astype(np.uint8)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(smooth)
    rgba = Image.fromarray(np.dstack([smooth, np.full((height, width), 255, np.uint8)]))
    found = []

    def png(name: str, picture: Image.Image, **options: object) -> None:
        file = io.BytesIO()
        picture.save(file, "PNG", **options)
        found.append(Seed(f"png {name}", ".png", file.getvalue()))

    png("rgb", image)
    png("noise", Image.fromarray(noise))
    png("grey", image.convert("L"))
    png("palette", image.convert("P"))
    png("palette, few colours", image.quantize(5))
    png("palette, transparent", image.quantize(5), transparency=4)
    png("bilevel", image.convert("1"))
    png("rgba", rgba)
    png("grey alpha", rgba.convert("LA"))
    png("transparent colour", image, transparency=(1, 2, 3))
    png("16 bit", Image.fromarray(smooth[..., 0].astype(np.uint16) * 257))
    png("profile", image, icc_profile=bytes(300))
    found += [Seed("png rgb 16", ".png", _png16(smooth)), Seed("png interlaced", ".png", _interlaced(smooth))]

    def tiff(name: str, pixels: np.ndarray, **options: object) -> None:
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, **{"photometric": "rgb", "metadata": None, **options})
        found.append(Seed(f"tiff {name}", ".tif", file.getvalue()))

    tiff("plain", noise)
    tiff("big endian", smooth, byteorder=">")
    for packing in ("lzw", "zlib", "packbits", "jpeg"):
        tiff(packing, smooth, compression=packing)
    tiff("lzw predictor", smooth, compression="lzw", predictor=True)
    tiff("strips", smooth, rowsperstrip=5)
    tiff("strips deflate", smooth, rowsperstrip=5, compression="zlib", predictor=True)
    tiff("tiles", smooth, tile=(16, 16))
    tiff("tiles lzw", smooth, tile=(16, 16), compression="lzw")
    tiff("planes", np.ascontiguousarray(np.moveaxis(smooth, -1, 0)), planarconfig="separate")
    tiff("16 bit", smooth.astype(np.uint16) * 257)
    tiff("grey", smooth[..., 0], photometric="minisblack")
    tiff("white is zero", smooth[..., 0], photometric="miniswhite")
    table = rng.integers(0, 256, (3, 256)).astype(np.uint16) * 257
    tiff("palette", smooth[..., 0], photometric="palette", colormap=table)
    rgba_pixels = np.asarray(rgba)
    tiff("alpha", rgba_pixels, extrasamples=["unassalpha"])
    file = io.BytesIO()
    image.save(file, "TIFF")
    return [*found, Seed("tiff by Pillow", ".tif", file.getvalue())]


def real(folder: Path, each: int = 12) -> list[Seed]:
    """Some real patches of the subsets that a person has, if any."""
    found = []
    for pattern in ("idc/*/*/*.png", "pcam/*/*.tif"):
        files = sorted(folder.glob(pattern))
        chosen = files[:: max(1, len(files) // each)][:each]
        found += [Seed(file.relative_to(folder).as_posix(), file.suffix, file.read_bytes()) for file in chosen]
    return found


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG chunk with the right CRC."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """(type, body) of a PNG's chunks."""
    found, at = [], 8
    while at + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def assemble(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of these chunks."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in parts)


def _png16(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + (row.astype(">u2") * 257).astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return assemble([(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def _interlaced(pixels: np.ndarray) -> bytes:
    height, width, _ = pixels.shape
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    rows = b"".join(b"\0" + row.tobytes() for x, y, dx, dy in passes for row in pixels[y::dy, x::dx])
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 1)
    return assemble([(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")])


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Flips, sets, cuts, doubles or inserts a few bytes."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        if not changed:
            break
        at = rng.randrange(len(changed))
        what = rng.randrange(6)
        if what == 0:
            changed[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            changed[at] = rng.randrange(256)
        elif what == 2:
            size = rng.choice((1, 2, 4))
            value = rng.choice(INTERESTING) & ((1 << 8 * size) - 1)
            changed[at : at + size] = value.to_bytes(size, rng.choice(("big", "little")))
        elif what == 3:
            del changed[at : at + rng.choice((1, 2, 4, 16, 200))]
        elif what == 4:
            end = at + rng.choice((1, 4, 32))
            changed[at:at] = changed[at:end]
        elif len(changed) > 1 and rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)


def change_png(data: bytes, rng: random.Random) -> bytes:
    """Changes chunks; most of the time their CRC is right again."""
    parts = chunks(data)
    at = rng.randrange(len(parts))
    kind, body = parts[at]
    what = rng.randrange(6)
    if what == 0:
        parts[at] = (kind, change_bytes(body, rng))
    elif what == 1 and len(parts) > 1:
        other = rng.randrange(len(parts))
        parts[at], parts[other] = parts[other], parts[at]
    elif what == 2:
        del parts[at]
    elif what == 3:
        parts.insert(at, parts[rng.randrange(len(parts))])
    elif what == 4:  # the header: sizes, depth, colour type, interlacing
        head = bytearray(parts[0][1][:13].ljust(13, b"\0"))
        place = rng.choice((3, 7, 8, 9, 10, 11, 12))
        head[place] = rng.choice((0, 1, 2, 3, 4, 6, 8, 16, 17, 20, 255))
        parts[0] = (b"IHDR", bytes(head))
    else:  # scanlines, packed again
        packed = b"".join(body for kind, body in parts if kind == b"IDAT")
        try:
            rows = zlib.decompress(packed)
        except zlib.error:
            rows = b""
        body = zlib.compress(change_bytes(rows, rng), rng.randrange(1, 10))
        if rng.random() < 0.2:
            body = change_bytes(body, rng)
        first = next((i for i, part in enumerate(parts) if part[0] == b"IDAT"), len(parts))
        parts = [part for part in parts if part[0] != b"IDAT"]
        parts.insert(min(first, len(parts)), (b"IDAT", body))
    made = assemble(parts)
    return change_bytes(made, rng) if rng.random() < 0.1 else made


def change_tiff(data: bytes, rng: random.Random) -> bytes:
    """Changes a field of the first directory, which has the offsets, counts, types and layout."""
    changed = bytearray(data)
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, start)
    except struct.error:
        return change_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 2, 3))):
        entry = start + 2 + 12 * rng.randrange(max(1, entries))
        place, kind = rng.choice(((0, "H"), (2, "H"), (4, "I"), (8, "I"), (8, "H"), (8, "B")))
        if entry + 12 > len(changed):
            continue
        (old,) = struct.unpack_from(order + kind, changed, entry + place)
        most = (1 << 8 * struct.calcsize(kind)) - 1
        near = (old + rng.choice((-2, -1, 1, 2, 8))) & most
        flipped = old ^ (1 << rng.randrange(8))
        value = rng.choice((near, rng.choice(INTERESTING) & most, rng.randrange(most + 1), flipped))
        struct.pack_into(order + kind, changed, entry + place, value & most)
    return bytes(changed)


def case(corpus: list[Seed], seed: int, number: int) -> tuple[Seed, bytes]:
    """The case of this number: what it was made of, and its bytes."""
    rng = random.Random(f"{seed}-{number}")
    chosen = rng.choice(corpus)
    data = chosen.data
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        ways = [change_bytes, change_png if chosen.extension == ".png" else change_tiff]
        data = rng.choices(ways, (1, 2))[0](data, rng) if len(data) > 8 else data
        if chosen.extension == ".png" and not data.startswith(b"\x89PNG") or len(data) < 30:
            break
    return chosen, data
