"""The shard writer: one shard's plan in, one TFRecord file and its sidecar out.

A shard is the unit of work, of retry and of resume. It may be written twice, by another process or on another
machine, and gives the same bytes each time. Patches are worked on in blocks, so memory does not grow with a shard.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from components.adapters.raw_files import Source, open_source
from components.core import arrow_arrays
from components.core.rejects import Rejected
from components.datasets.example import ImageEncoder, encode_colour, encode_example
from components.datasets.layout import ShardSpec, sha256_file
from components.datasets.sidecars import META_KEY, sidecar_meta, write_sidecar
from components.datasets.tfrecord import footer, framed_size, header
from components.images.colour_features import BlockFeatures, block_features
from components.images.decode import decode_rgb8, fit
from components.ingest.plan_files import read_plan
from components.ingest.pseudonyms import withholding
from components.ingest.shard_jobs import ShardResult, WriteConfig
from components.storage.atomic_files import os_errors
from components.storage.base import Storage
from components.storage.open import open_storage
from schemas import tables

BLOCK_BYTES = 1 << 18
"""Pixels that are decoded before they are measured together: small enough for the cache of one core."""


def write_shard(config: WriteConfig, number: int) -> ShardResult:
    """Writes shard `number` of the plan, or finds it standing.

    Raises:
        UsageError, TemporaryError: Storage can't be written, or a source changed while it was read.
    """
    started = time.monotonic()
    storage = open_storage(config.workspace)
    spec, batch = read_plan(storage.local_copy(config.plan_path), number)
    standing = _standing(storage, config, spec)
    if standing is not None:
        return dataclasses.replace(standing, seconds=time.monotonic() - started)
    scratch = storage.scratch(config.dataset_dir)
    shard_file, sidecar_file = scratch / "shard", scratch / "sidecar"
    try:
        writer = _ShardWriter(config, spec, shard_file)
        with os_errors("writing", spec.path), withholding("source" in batch.schema.names):
            table = writer.write(batch, open_source(config.input_root))
            write_sidecar(table, sidecar_file)
        # The sidecar is published after the shard: a sidecar proves that its shard stands.
        storage.commit_file(shard_file, f"{config.dataset_dir}/{spec.path}")
        storage.commit_file(sidecar_file, f"{config.dataset_dir}/{spec.sidecar}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = time.monotonic() - started
    return ShardResult(spec, len(table), len(writer.rejects), writer.offset, seconds, resumed=False)


def _standing(storage: Storage, config: WriteConfig, spec: ShardSpec) -> ShardResult | None:
    """The result of an earlier try, where its bytes are what its sidecar says; else None."""
    sidecar, shard = f"{config.dataset_dir}/{spec.sidecar}", f"{config.dataset_dir}/{spec.path}"
    if not (storage.exists(sidecar) and storage.exists(shard)):
        return None
    try:
        meta = sidecar_meta(pq.read_schema(storage.local_copy(sidecar)))
    except (pa.ArrowInvalid, KeyError, ValueError):
        return None
    local = storage.local_copy(shard)
    if local.stat().st_size != meta["bytes"] or sha256_file(local) != meta["sha256"]:
        return None
    return ShardResult(spec, meta["count"], len(meta["rejects"]), meta["bytes"], 0.0, resumed=True)


class _ShardWriter:
    """Writes one file; what it learns of the records gathers in lists until the sidecar is made of them."""

    def __init__(self, config: WriteConfig, spec: ShardSpec, path: Path) -> None:
        self.config, self.spec, self.path = config, spec, path
        self.offset = 0
        self.rejects: list[tuple[str, str, str]] = []
        self._digest = hashlib.sha256()
        self._encoder = ImageEncoder(config.image_format, *config.stored_size)
        self._kept: list[int] = []
        self._offsets: list[int] = []
        self._hashes: list[bytes] = []
        self._originals: list[tuple[int, ...]] = []
        self._features: list[BlockFeatures] = []

    def write(self, batch: pa.RecordBatch, source: Source) -> pa.Table:
        """Writes all patches of the plan and returns the sidecar's table."""
        width, height = self.config.stored_size
        rows = max(1, BLOCK_BYTES // (width * height * 3))
        wanted = [name for name in batch.schema.names if name != "version"]
        columns = {name: arrow_arrays.python(batch.column(batch.schema.get_field_index(name))) for name in wanted}
        with open(self.path, "wb", buffering=0) as file:
            for start in range(0, len(batch), rows):
                block = {name: column[start : start + rows] for name, column in columns.items()}
                self._block(start, block, source, file)
        return self._sidecar(batch)

    def _block(self, start: int, columns: dict[str, list[Any]], source: Source, file: io.RawIOBase) -> None:
        width, height = self.config.stored_size
        names = columns.get("source", columns["path"])
        raw = self.config.image_format == "raw"
        pixels = np.empty((len(names), height, width, 3), np.uint8)
        kept: list[int] = []
        payloads: list[bytes] = []
        for row, data in enumerate(source.read_many(names, columns["size"])):
            try:
                if isinstance(data, Rejected):
                    raise data
                image = self._decode(data, "." + names[row].rpartition(".")[2].lower())
                stored = fit(image, self.config.source_size, self.config.stored_size)
            except Rejected as reject:
                self.rejects.append((columns["path"][row], reject.code, reject.detail))
                continue
            pixels[len(kept)] = stored
            payloads.append(pixels[len(kept)].tobytes() if raw else data)
            self._originals.append(image.shape)
            kept.append(row)
        if kept:
            self._kept += [start + row for row in kept]
            self._write_records(columns, kept, pixels[: len(kept)], payloads, file)

    def _decode(self, data: bytes, extension: str) -> npt.NDArray[np.uint8]:
        if self.config.image_format == "encoded" and not is_plain_rgb8_png(data):
            raise Rejected("unsupported", "not a plain 8-bit RGB PNG, and --image-format encoded stores files as is")
        return decode_rgb8(data, extension)

    def _write_records(
        self,
        columns: dict[str, list[Any]],
        kept: list[int],
        block: npt.NDArray[np.uint8],
        payloads: list[bytes],
        file: io.RawIOBase,
    ) -> None:
        features = block_features(block)
        self._features.append(features)
        classes = self.config.classes
        parts: list[bytes] = []
        for row, colour, payload in zip(kept, encode_colour(features.colour), payloads):
            label = columns["label"][row]
            record = encode_example(
                colour,
                self._encoder.encode(payload),
                patch_id=columns["patch_id"][row],
                group_id=columns["group_id"][row],
                slide_id=columns["slide_id"][row],
                label=label,
                label_name=classes[label],
                x=columns["x"][row],
                y=columns["y"][row],
                magnification=columns["magnification"][row],
                tumor_type=columns["tumor_type"][row],
            )
            parts += (header(len(record)), record, footer(record))
            self._offsets.append(self.offset)
            self.offset += framed_size(len(record))
        self._hashes += [xxhash.xxh3_128_digest(image) for image in block]
        joined = b"".join(parts)
        self._digest.update(joined)
        _write_all(file, joined)

    def _sidecar(self, batch: pa.RecordBatch) -> pa.Table:
        schema, n = tables.sidecar(tables.COLOUR_FEATURES), len(self._kept)
        meta = {
            "count": n,
            "bytes": self.offset,
            "sha256": self._digest.hexdigest(),
            "rejects": self.rejects,
            "dropped": [],
        }
        schema = schema.with_metadata({META_KEY: json.dumps(meta).encode()})
        if not n:
            return schema.empty_table()
        batch = batch if n == len(batch) else pc.take(batch, arrow_arrays.numbers(self._kept))
        width, height = self.config.stored_size
        sizes = np.array(self._originals, np.int32)
        colour = np.concatenate([f.colour for f in self._features])
        columns = {
            **{name: batch.column(batch.schema.get_field_index(name)) for name in tables.PATCHES.names[:9]},
            "split": [self.spec.split] * n,
            "width": np.full(n, width, np.int32),
            "height": np.full(n, height, np.int32),
            "original_width": sizes[:, 1],
            "original_height": sizes[:, 0],
            "shard": [self.spec.file] * n,
            "offset": np.array(self._offsets, np.int64),
            "pixel_hash": arrow_arrays.digests(self._hashes, 16),
            "perceptual_hash": np.concatenate([f.perceptual_hash for f in self._features]),
            "constant": np.concatenate([f.constant for f in self._features]),
            **{name: colour[:, i] for i, name in enumerate(tables.COLOUR_FEATURES)},
        }
        columns["label_name"] = pc.take(arrow_arrays.strings(self.config.classes), columns["label"])
        return arrow_arrays.table(columns, schema)


def _write_all(file: io.RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def is_plain_rgb8_png(data: bytes) -> bool:
    """True for an 8-bit RGB PNG without palette or alpha (colour type 2 in IHDR)."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:26] == b"\x08\x02"
