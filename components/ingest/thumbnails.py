"""Small pictures of rejected images, for the report."""

from __future__ import annotations

import collections
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pyarrow as pa

from components.adapters.raw_files import open_source
from components.core.rejects import Rejected
from components.images.decode import decode_rgb8
from components.storage.base import Storage

SIDE = 96
PER_CODE = 50
MAX_BYTES = 8 << 20


def thumbnail(data: bytes, extension: str) -> bytes | None:
    """PNG of up to 96 pixels a side; None where the image can't be decoded."""
    try:
        image = decode_rgb8(data, extension)
    except Rejected:
        return None
    height, width = image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    done, png = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))
    return bytes(png) if done else None


def write_thumbnails(storage: Storage, home: str, input_root: str, rejects: pa.Table) -> dict[str, str]:
    """Writes thumbnails of the first images of each reject code that decode.

    Args:
        storage: The workspace.
        home: Folder of the data set.
        input_root: Where the raw images lie.
        rejects: Rows of `REJECT_SCHEMA`, sorted.

    Returns:
        Path of the reject -> file name in thumbnails/.
    """
    by_code: dict[str, list[str]] = collections.defaultdict(list)
    for path, code in zip(rejects.column("path").to_pylist(), rejects.column("code").to_pylist()):
        if len(by_code[code]) < 4 * PER_CODE:
            by_code[code].append(path)
    source = open_source(input_root)
    shown: dict[str, str] = {}
    pictures: dict[str, bytes] = {}
    for paths in by_code.values():
        made = 0
        for path in paths:
            data = source.read_any(path, MAX_BYTES)
            png = thumbnail(data, os.path.splitext(path)[1].lower()) if data else None
            if png is None:
                continue
            name = f"{hashlib.sha256(path.encode()).hexdigest()[:24]}.png"
            pictures[f"{home}/thumbnails/{name}"] = png
            shown[path] = name
            made += 1
            if made == PER_CODE:
                break
    with ThreadPoolExecutor(16) as pool:  # each write waits for the disk
        list(pool.map(storage.write_atomic, pictures, pictures.values()))
    return shown
