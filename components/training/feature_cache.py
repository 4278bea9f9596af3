"""Features of images, kept in a folder by what the image is: an image is looked up by a hash of its pixels.

No part of a data set's layout is in the key, so splits, folds and a data set that has grown share what is there. A part
is a Parquet file named by the digest of its bytes: it is whole or absent, what is damaged is noticed and made anew, and
two processes that work side by side do each other no harm.
"""

from __future__ import annotations

import contextlib
import io
import os
import uuid
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from components.core.array_types import Array
from components.storage.atomic_files import TMP, os_errors, publish

PART = 256
"""Images in a part: what a kill may cost."""

SUFFIX = ".parquet"


def image_keys(images: npt.NDArray[np.uint8]) -> list[bytes]:
    """What each image is looked up by, 16 bytes of a hash over its pixels.

    Args:
        images: uint8[N, H, W, 3], all of one size.
    """
    return [xxhash.xxh3_128_digest(np.ascontiguousarray(image).data) for image in images]


class FeatureCache:
    """Features under one preparation of images and one backbone.

    Args:
        folder: Of this preparation; made where it is not there.
        width: Features of an image.
    """

    def __init__(self, folder: Path, width: int) -> None:
        self._folder = folder
        self._width = width

    def read(self, keys: Sequence[bytes]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        """What is known of some images.

        Args:
            keys: Of `image_keys`, [N].

        Returns:
            (float32[N, width], bool[N] where it is known; what is not known is 0).
        """
        places: dict[bytes, list[int]] = {}
        for place, key in enumerate(keys):
            places.setdefault(key, []).append(place)
        features = np.zeros((len(keys), self._width), np.float32)
        known = np.zeros(len(keys), bool)
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            part = self._part(path)
            if part is None:
                with contextlib.suppress(OSError):
                    path.unlink()
                continue
            for key, row in zip(*part, strict=True):
                mine = places.get(key, [])
                features[mine], known[mine] = row, True
            with contextlib.suppress(OSError):
                os.utime(path)  # `histoline prune` deletes what was not used for long
        return features, known

    def add(self, keys: Sequence[bytes], features: Array) -> None:
        """Keeps what is known of some images now.

        Args:
            keys: Of `image_keys`, [N].
            features: float32[N, width].

        Raises:
            HistolineError: The disk is full or can't be written to.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        rows = [row.tobytes() for row in np.ascontiguousarray(features, "<f4")]
        table = pa.table(
            {
                "key": pa.array(list(keys), pa.binary(16)),
                # As bytes: a list of a fixed size takes four times as long to read.
                "features": pa.array(rows, pa.binary(4 * self._width)),
            }
        )
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", use_dictionary=False, write_statistics=False)
        data = buffer.getvalue()
        path = self._folder / f"{xxhash.xxh3_128_hexdigest(data)}{SUFFIX}"
        with os_errors("writing", path):
            tmp = self._folder / TMP / uuid.uuid4().hex
            tmp.parent.mkdir(parents=True, exist_ok=True)
            tmp.write_bytes(data)
            publish(tmp, path)

    def _part(self, path: Path) -> tuple[list[bytes], npt.NDArray[np.float32]] | None:
        """Keys and features of a part; None where it is not what was written, or of another width."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            data = path.read_bytes()
            if f"{xxhash.xxh3_128_hexdigest(data)}{SUFFIX}" != path.name:
                return None
            table = pq.read_table(pa.BufferReader(data))
            rows = b"".join(table["features"].to_pylist())
            return table["key"].to_pylist(), np.frombuffer(rows, "<f4").reshape(-1, self._width)
        except (OSError, pa.ArrowInvalid, KeyError, ValueError):
            return None
