"""The bare loop: what an ingest cannot avoid, with all cores and nothing else.

List, order, and for each shard: read, decode, fit, measure, hash, write Examples as TFRecords, sha256, rename.
It calls the product's decoder, features, Example codec and framing, so both do the same work on a patch, and
none of its driver, planning, storage or commit. Without a split by patient, audit, sidecars, resume or fsync.

Run by bench_ingest.py as a process of its own; prints one JSON line.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import hashlib
import json
import multiprocessing
import os
import re
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

STARTED = time.monotonic()
sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np  # noqa: E402
import xxhash  # noqa: E402
from threadpoolctl import threadpool_limits  # noqa: E402

from components.core.rejects import Rejected  # noqa: E402
from components.datasets.example import ImageEncoder, encode_colour, encode_example  # noqa: E402
from components.datasets.tfrecord import footer, framed_size, header  # noqa: E402
from components.images.colour_features import block_features  # noqa: E402
from components.images.decode import decode_rgb8, fit  # noqa: E402
from schemas.tables import COLOUR_FEATURES  # noqa: E402

File = tuple[str, str, int]
"""Folder, name, bytes."""

SHARD_BYTES = 16 << 20
BLOCK_BYTES = 1 << 18

Shard = tuple[int, str, int, int, list[bytes], int]
"""Number, sha256, bytes, records, their pixel hashes, rejects."""


@dataclass(frozen=True)
class Layout:
    """What the loop knows of a data set: sizes in pixels (width, height) and how to read a file name."""

    classes: tuple[str, str]
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    parse: Callable[[str], dict[str, Any] | None]


_IDC = re.compile(r"(([^_]+)_idx\d+_x(\d+)_y(\d+)_class([01]))\.png$")
_BREAKHIS = re.compile(r"(SOB_?([BM])_?([A-Z]+)-(\d\d)-(\d+)([A-Za-z]*)-(\d+)-\d+)\.png$")


def _idc(name: str) -> dict[str, Any] | None:
    match = _IDC.match(name)
    if match is None:
        return None
    patch, group, x, y, label = match.groups()
    return {
        "patch_id": patch, "group_id": group, "slide_id": "", "label": int(label),
        "x": int(x), "y": int(y), "magnification": -1, "tumor_type": "",
    }  # fmt: skip


def _breakhis(name: str) -> dict[str, Any] | None:
    match = _BREAKHIS.match(name)
    if match is None:
        return None
    patch, kind, tumor, year, case, part, magnification = match.groups()
    return {
        "patch_id": patch, "group_id": f"{year}-{case}", "slide_id": f"{year}-{case}{part}",
        "label": int(kind == "M"), "x": -1, "y": -1, "magnification": int(magnification), "tumor_type": tumor,
    }  # fmt: skip


LAYOUTS = {
    "idc": Layout(("negative", "idc"), (50, 50), (50, 50), _idc),
    "breakhis": Layout(("benign", "malignant"), (700, 460), (350, 230), _breakhis),
}


def list_files(root: str) -> list[File]:
    """Every PNG under a folder."""
    found, folders = [], [root]
    while folders:
        folder = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.endswith(".png"):
                    found.append((folder, entry.name, entry.stat(follow_symlinks=False).st_size))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return found


def read(folder: str, name: str, size: int) -> bytes:
    """The bytes of one file."""
    fd = os.open(f"{folder}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, size + 1)
    finally:
        os.close(fd)


class Loop:
    """Writes shards of one listing; its state is inherited by forked processes, never sent to them."""

    def __init__(self, layout: Layout, files: list[File], given: argparse.Namespace) -> None:
        self.layout, self.files, self.output = layout, files, given.output
        self.features, self.fsync = not given.no_features, given.fsync
        width, height = layout.stored_size
        self.block = max(1, BLOCK_BYTES // (width * height * 3))
        # As many for each worker, so that none waits for another's last shard.
        turns = max(1, round(len(files) * (width * height * 3 + 620) / SHARD_BYTES / given.workers))
        shards = turns * given.workers
        self.cuts = [len(files) * i // shards for i in range(shards + 1)]

    def write(self, number: int) -> Shard:
        """Writes one shard."""
        width, height = self.layout.stored_size
        encoder = ImageEncoder("raw", width, height)
        files = self.files[self.cuts[number] : self.cuts[number + 1]]
        target = f"{self.output}/shard-{number:05d}.tfrecord"
        digest, hashes, offsets, rejected, offset = hashlib.sha256(), [], [], 0, 0
        with open(f"{target}.tmp", "wb", buffering=0) as out:
            for start in range(0, len(files), self.block):
                rows, pixels, refused = self._decode(files[start : start + self.block])
                rejected += refused
                if not rows:
                    continue
                if self.features:
                    colour = encode_colour(block_features(pixels).colour)
                else:
                    colour = encode_colour(np.zeros((len(rows), len(COLOUR_FEATURES)), np.float32))
                parts: list[bytes] = []
                for row, image, measured in zip(rows, pixels, colour, strict=True):
                    record = encode_example(
                        measured,
                        encoder.encode(image.tobytes()),
                        label_name=self.layout.classes[row["label"]],
                        **row,
                    )
                    parts += (header(len(record)), record, footer(record))
                    offsets.append(offset)
                    offset += framed_size(len(record))
                    hashes.append(xxhash.xxh3_128_digest(image))
                joined = b"".join(parts)
                digest.update(joined)
                out.write(joined)
            if self.fsync:
                os.fsync(out.fileno())
        os.rename(f"{target}.tmp", target)
        return number, digest.hexdigest(), offset, len(offsets), hashes, rejected

    def _decode(self, files: list[File]) -> tuple[list[dict[str, Any]], np.ndarray, int]:
        layout = self.layout
        width, height = layout.stored_size
        pixels = np.empty((len(files), height, width, 3), np.uint8)
        rows: list[dict[str, Any]] = []
        for folder, name, size in files:
            row = layout.parse(name)
            if row is None:
                continue
            try:
                image = fit(decode_rgb8(read(folder, name, size), ".png"), layout.source_size, layout.stored_size)
            except Rejected:
                continue
            pixels[len(rows)] = image
            rows.append(row)
        return rows, pixels[: len(rows)], len(files) - len(rows)


def keep_freed_memory() -> None:
    """Lets glibc keep what is freed: else each block's arrays are given back and mapped again, page fault by fault.

    That took half of the features' time; a bare loop that leaves it in would be a poor yardstick.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # absent outside glibc
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3
        mallopt(mmap_threshold, 32 << 20)  # the largest that glibc takes
        mallopt(trim_threshold, 256 << 20)


_loop: Loop | None = None


def _write(number: int) -> Shard:
    assert _loop is not None
    return _loop.write(number)


def main() -> None:
    """Runs the loop once and prints what it did and how long it took."""
    global _loop
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=sorted(LAYOUTS), default="idc")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True, help="New folder for the shards.")
    parser.add_argument("--mode", choices=("processes", "threads"), default="processes")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--no-features", action="store_true")
    parser.add_argument("--fsync", action="store_true", help="Force each shard to disk before its rename.")
    given = parser.parse_args()

    began = time.monotonic()
    keep_freed_memory()
    threadpool_limits(1, "blas")  # as the ingest's helpers: BLAS threads of their own would only wait for each other
    files = list_files(given.input)
    files.sort(key=lambda file: xxhash.xxh3_64_digest(file[1].encode()))
    listed = time.monotonic()
    os.makedirs(given.output)
    _loop = Loop(LAYOUTS[given.dataset], files, given)
    numbers = range(len(_loop.cuts) - 1)
    seen: set[bytes] = set()
    written = rejected = total = 0
    with open(f"{given.output}/manifest.jsonl", "w") as manifest:

        def collect(results: Iterable[Shard]) -> None:
            nonlocal written, rejected, total
            for number, digest, size, records, hashes, refused in results:
                seen.update(hashes)
                written, rejected, total = written + records, rejected + refused, total + size
                line = {"shard": f"shard-{number:05d}", "sha256": digest, "bytes": size, "records": records}
                manifest.write(json.dumps(line) + "\n")

        if given.mode == "threads":
            with ThreadPoolExecutor(given.workers) as pool:
                collect(pool.map(_write, numbers))
        else:
            gc.freeze()  # children collect their own garbage without touching what they share
            with multiprocessing.get_context("fork").Pool(given.workers) as processes:
                collect(processes.imap_unordered(_write, numbers))
    ended = time.monotonic()
    result = {
        "patches": len(files),
        "written": written,
        "rejected": rejected,
        "bytes": total,
        "duplicates": written - len(seen),
        "import_s": round(began - STARTED, 3),
        "list_s": round(listed - began, 3),
        "work_s": round(ended - began, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
