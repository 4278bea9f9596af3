"""Pixels of single patches, read from the records by shard and byte offset, as images that a page can hold."""

from __future__ import annotations

import base64
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from components.datasets.example import decode_example, decode_pixels
from components.datasets.layout import shard_path
from components.datasets.tfrecord import CorruptRecord, read_at
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


class DatasetImages:
    """Images of one data set: the only thing that pages still read while they are made, a few at a time.

    Args:
        storage: The workspace.
        dataset_dir: Folder of the data set.
    """

    def __init__(self, storage: Storage, dataset_dir: str) -> None:
        self._storage, self._dataset_dir = storage, dataset_dir

    def pixels(self, shards: Sequence[str], offsets: Sequence[int]) -> list[npt.NDArray[np.uint8] | None]:
        """Pixels of patches, uint8[H, W, 3]; None where the record is gone or damaged.

        Args:
            shards: File name of each patch's shard, [N].
            offsets: Byte offset of its record there, [N].
        """
        files = {shard: self._shard(shard) for shard in sorted(set(shards))}
        return [_read(files[shard], offset) for shard, offset in zip(shards, offsets, strict=True)]

    def thumbnail(self, name: str) -> str | None:
        """A rejected image as a `data:` URI; None where there is none of this name."""
        path = f"{self._dataset_dir}/thumbnails/{name}"
        if not name or "/" in name or not self._storage.exists(path):
            return None
        return data_uri(self._storage.read_bytes(path))

    def _shard(self, shard: str) -> Path | None:
        """A shard as a local file. It bears the name of its split, which may not be the role that it plays here."""
        path = f"{self._dataset_dir}/{shard_path(shard.partition('-')[0], shard)}"
        try:
            return self._storage.local_copy(path) if self._storage.exists(path) else None
        except (OSError, StorageMissing):
            return None


def _read(file: Path | None, offset: int) -> npt.NDArray[np.uint8] | None:
    if file is None:
        return None
    try:
        return decode_pixels(decode_example(read_at(file, offset)))
    except (CorruptRecord, ValueError, KeyError, OSError):
        return None
