"""The shard writer: one shard's plan in, one TFRecord file and its sidecar out.

A shard is the unit of work, of retry and of resume. It may be written twice, by another process or on another
machine, and gives the same bytes each time. Patches are worked on in blocks, so memory does not grow with a shard.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from components.example import ImageEncoder, encode_colour, encode_example
from components.features import COLOUR_FEATURES, block_features
from components.images import decode_rgb8, fit
from components.patch import Rejected
from components.sources import Source, open_source
from components.storage import Storage, open_storage
from components.tfrecord import footer, framed_size, header
from schemas import tables

BLOCK_BYTES = 1 << 20
"""Pixels that are decoded before they are measured together: small enough for the cache of one core."""

META_KEY = b"histoline"


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """Which file a shard becomes.

    Attributes:
        split: `train`, `eval` or `test`.
        index: Position within the split.
        of: Number of shards in the split.
    """

    split: str
    index: int
    of: int

    @property
    def stem(self) -> str:
        """Name without folder and extension."""
        return f"{self.split}-{self.index:05d}-of-{self.of:05d}"

    @property
    def file(self) -> str:
        """File name of the records."""
        return f"{self.stem}.tfrecord"

    @property
    def path(self) -> str:
        """Path of the records, relative to the data set's folder."""
        return f"Split-{self.split}/{self.file}"

    @property
    def sidecar(self) -> str:
        """Path of the sidecar, relative to the data set's folder."""
        return f"sidecars/{self.stem}.parquet"


@dataclasses.dataclass(frozen=True)
class WriteConfig:
    """What every shard of one ingest has in common; travels with each job.

    Attributes:
        input_root: Folder or gs:// prefix of the raw images.
        workspace: Storage root.
        dataset_dir: Folder of the data set, relative to the workspace.
        plan_path: Arrow file with one record batch per shard, relative to the workspace.
        classes: Class names in label order.
        source_size: (width, height) in pixels of a regular source image.
        stored_size: (width, height) in pixels as stored.
        image_format: `raw` or `encoded`.
    """

    input_root: str
    workspace: str
    dataset_dir: str
    plan_path: str
    classes: tuple[str, ...]
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    image_format: str = "raw"


@dataclasses.dataclass(frozen=True)
class ShardResult:
    """What a shard's job reports; everything else is in the sidecar.

    Attributes:
        spec: The shard.
        written: Records.
        rejected: Images that were not written.
        bytes: Size of the file.
        seconds: Time that the job took.
        resumed: True where the shard stood already, intact.
    """

    spec: ShardSpec
    written: int
    rejected: int
    bytes: int
    seconds: float
    resumed: bool


def read_plan(local_plan: str | Path, number: int) -> tuple[ShardSpec, pa.RecordBatch]:
    """Reads one shard's plan; the file is mapped, so only that part of it is touched."""
    with pa.memory_map(str(local_plan)) as source:
        reader = pa.ipc.open_file(source)
        specs = json.loads(reader.schema.metadata[META_KEY])["shards"]
        return ShardSpec(*specs[number]), reader.get_batch(number)


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
        table = writer.write(batch, open_source(config.input_root))
        pq.write_table(table, sidecar_file, compression="zstd", write_statistics=False)
        # The sidecar is published after the shard: a sidecar proves that its shard stands.
        storage.commit_file(shard_file, f"{config.dataset_dir}/{spec.path}")
        storage.commit_file(sidecar_file, f"{config.dataset_dir}/{spec.sidecar}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    seconds = time.monotonic() - started
    return ShardResult(spec, len(table), len(writer.rejects), writer.offset, seconds, resumed=False)


def sidecar_meta(schema: pa.Schema) -> dict[str, Any]:
    """What a sidecar says of its shard: count, bytes, sha256, rejects, dropped."""
    meta: dict[str, Any] = json.loads((schema.metadata or {})[META_KEY])
    return meta


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


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


class _ShardWriter:
    """Writes one file; `offset` and `rejects` (path, code, detail) fill as it goes."""

    def __init__(self, config: WriteConfig, spec: ShardSpec, path: Path) -> None:
        self.config, self.spec, self.path = config, spec, path
        self.offset = 0
        self.rejects: list[tuple[str, str, str]] = []
        self._digest = hashlib.sha256()
        self._encoder = ImageEncoder(config.image_format, *config.stored_size)

    def write(self, batch: pa.RecordBatch, source: Source) -> pa.Table:
        """Writes all patches of the plan and returns the sidecar's table."""
        width, height = self.config.stored_size
        rows = max(1, BLOCK_BYTES // (width * height * 3))
        parts: list[pa.Table] = []
        with open(self.path, "wb", buffering=0) as file:
            for start in range(0, len(batch), rows):
                part = self._block(batch.slice(start, rows), source, file)
                if part is not None:
                    parts.append(part)
        schema = tables.sidecar(COLOUR_FEATURES)
        meta = {
            "count": sum(map(len, parts)),
            "bytes": self.offset,
            "sha256": self._digest.hexdigest(),
            "rejects": self.rejects,
            "dropped": [],
        }
        schema = schema.with_metadata({META_KEY: json.dumps(meta).encode()})
        return pa.concat_tables(parts).cast(schema) if parts else schema.empty_table()

    def _block(self, batch: pa.RecordBatch, source: Source, file: io.RawIOBase) -> pa.Table | None:
        width, height = self.config.stored_size
        columns = {name: batch.column(name) for name in batch.schema.names}
        names = columns["source" if "source" in columns else "path"].to_pylist()
        shown = columns["path"].to_pylist()
        pixels = np.empty((len(names), height, width, 3), np.uint8)
        kept: list[int] = []
        originals: list[tuple[int, int]] = []
        encoded: list[bytes] = []
        for row, data in enumerate(source.read_many(names, columns["size"].to_pylist())):
            extension = os.path.splitext(names[row])[1].lower()
            try:
                if isinstance(data, Rejected):
                    raise data
                image = self._decode(data, extension)
                pixels[len(kept)] = fit(image, self.config.source_size, self.config.stored_size)
            except Rejected as reject:
                self.rejects.append((shown[row], reject.code, reject.detail))
                continue
            originals.append(image.shape[:2])
            kept.append(row)
            if self.config.image_format == "encoded":
                assert isinstance(data, bytes)
                encoded.append(data)
        if not kept:
            return None
        block = pixels[: len(kept)]
        batch = batch if len(kept) == len(names) else batch.take(pa.array(kept))
        return self._write_block(batch, block, encoded or [p.tobytes() for p in block], originals, file)

    def _decode(self, data: bytes, extension: str) -> npt.NDArray[np.uint8]:
        if self.config.image_format == "encoded" and not is_plain_rgb8_png(data):
            raise Rejected("unsupported", "not a plain 8-bit RGB PNG, and --image-format encoded stores files as is")
        return decode_rgb8(data, extension)

    def _write_block(
        self,
        batch: pa.RecordBatch,
        block: npt.NDArray[np.uint8],
        payloads: list[bytes],
        originals: list[tuple[int, int]],
        file: io.RawIOBase,
    ) -> pa.Table:
        features = block_features(block)
        colours = encode_colour(features.colour)
        classes = self.config.classes
        fields = ("patch_id", "group_id", "slide_id", "label", "x", "y", "magnification", "tumor_type")
        rows = zip(*(batch.column(name).to_pylist() for name in fields))
        parts: list[bytes] = []
        offsets, hashes = [], []
        for i, (patch_id, group_id, slide_id, label, x, y, magnification, tumor_type) in enumerate(rows):
            record = encode_example(
                colours[i],
                self._encoder.encode(payloads[i]),
                patch_id=patch_id,
                group_id=group_id,
                slide_id=slide_id,
                label=label,
                label_name=classes[label],
                x=x,
                y=y,
                magnification=magnification,
                tumor_type=tumor_type,
            )
            parts += (header(len(record)), record, footer(record))
            offsets.append(self.offset)
            self.offset += framed_size(len(record))
            hashes.append(xxhash.xxh3_128_digest(block[i]))
        joined = b"".join(parts)
        self._digest.update(joined)
        _write_all(file, joined)
        return self._sidecar_rows(batch, features, offsets, hashes, originals)

    def _sidecar_rows(self, batch, features, offsets, hashes, originals) -> pa.Table:  # type: ignore[no-untyped-def]
        n = len(offsets)
        width, height = self.config.stored_size
        sizes = np.array(originals, np.int32)
        label_names = pa.array(self.config.classes).take(batch.column("label"))
        columns = {
            **{name: batch.column(name) for name in tables.PATCHES.names[:9]},
            "split": pa.array([self.spec.split] * n),
            "label_name": label_names,
            "width": np.full(n, width, np.int32),
            "height": np.full(n, height, np.int32),
            "original_width": sizes[:, 1],
            "original_height": sizes[:, 0],
            "shard": pa.array([self.spec.file] * n),
            "offset": pa.array(offsets, pa.int64()),
            "pixel_hash": pa.array(hashes, pa.binary(16)),
            "perceptual_hash": features.perceptual_hash,
            "constant": features.constant,
            **{name: features.colour[:, i] for i, name in enumerate(COLOUR_FEATURES)},
        }
        schema = tables.sidecar(COLOUR_FEATURES)
        return pa.Table.from_arrays([pa.array(columns[name], schema.field(name).type) for name in schema.names], schema=schema)


def _write_all(file: io.RawIOBase, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def is_plain_rgb8_png(data: bytes) -> bool:
    """True for an 8-bit RGB PNG without palette or alpha (colour type 2 in IHDR)."""
    return data[:8] == b"\x89PNG\r\n\x1a\n" and data[24:26] == b"\x08\x02"
