"""Pixels of single patches, read from the records by shard and byte offset, as images that a page can hold."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from components.datasets.example import decode_example, decode_pixels
from components.datasets.tfrecord import CorruptRecord, read_at
from components.report.evidence import Scored
from components.storage.atomic_files import StorageMissing
from components.storage.base import Storage

LOSSLESS_SIDE = 100
"""Patches up to this side are shown as they are; larger ones as JPEG of at most `MAX_SIDE`."""

MAX_SIDE = 256


@dataclasses.dataclass(frozen=True)
class Picture:
    """An image to show.

    Attributes:
        uri: `data:` URI.
        width: Pixels of the image as embedded.
        height: Likewise.
    """

    uri: str
    width: int
    height: int


def data_uri(data: bytes, kind: str = "png") -> str:
    """Image bytes as a `data:` URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def picture(pixels: npt.NDArray[np.uint8]) -> Picture:
    """Pixels as an embedded image: PNG where small, else a JPEG of at most `MAX_SIDE` pixels a side.

    Args:
        pixels: uint8 [H, W, 3].
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    out = io.BytesIO()
    if max(image.size) <= LOSSLESS_SIDE:
        image.save(out, "PNG")
        return Picture(data_uri(out.getvalue()), *image.size)
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    image.save(out, "JPEG", quality=85)
    return Picture(data_uri(out.getvalue(), "jpeg"), *image.size)


def read_pictures(storage: Storage, dataset_dir: str, split: Scored, rows: Sequence[int]) -> list[Picture | None]:
    """Images of patches; None where the record is gone or damaged.

    Args:
        storage: The workspace.
        dataset_dir: Folder of the data set.
        split: With its `facts`, else there is no image at all.
        rows: Positions in the split.
    """
    if split.facts is None:
        return [None] * len(rows)
    shards = {str(split.facts["shard"][row]) for row in rows}
    files: dict[str, Any] = {}
    for shard in sorted(shards):
        folder = shard.partition("-")[0]  # a shard bears the name of its split, which may not be the role it plays here
        path = f"{dataset_dir}/Split-{folder}/{shard}"
        try:
            files[shard] = storage.local_copy(path) if storage.exists(path) else None
        except (OSError, StorageMissing):
            files[shard] = None
    return [_read(files[str(split.facts["shard"][row])], int(split.facts["offset"][row])) for row in rows]


def _read(file: Any, offset: int) -> Picture | None:
    if file is None:
        return None
    try:
        return picture(decode_pixels(decode_example(read_at(file, offset))))
    except (CorruptRecord, ValueError, KeyError, OSError):
        return None
