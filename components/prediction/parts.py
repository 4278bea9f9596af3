"""One part of a prediction: read, decode and prepare as the ingest does, ask `serving_default`, write a table.

A part may be done twice, by another thread, process or machine, and appears by one rename. Several parts run at a time
in one process: while one waits for the model, the next is decoded, so no queue is needed between the two.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from components.adapters.raw_files import open_source
from components.core import arrow_arrays
from components.core.rejects import Rejected
from components.datasets.example import encode_feature
from components.datasets.tfrecord import CorruptRecord, read_record
from components.errors import DataError
from components.images.decode import decode_rgb8, fit
from components.prediction.colours import PartColours, group_names, to_meta
from components.prediction.plan import META_KEY, PLAN, PredictConfig, part_file, read_part
from components.promotion.prediction_tables import probability_column
from components.promotion.served_model import NotServable, ServedModel, model_digest
from components.storage.atomic_files import os_errors
from components.storage.base import Storage
from components.storage.open import open_storage

KEPT = ("patch_id", "group_id", "slide_id", "split", "label", "path", "x", "y")
"""Columns that go from the plan into a part's table, before `probability`."""

BATCH_PIXELS = 1 << 20
MAX_BATCH = 128
"""Measured on cnn_105k, 50x50: 128 is the fastest batch, with little between 64 and 512."""

_models: dict[tuple[str, str, str], ServedModel] = {}
_loading = threading.Lock()


@dataclasses.dataclass(frozen=True)
class PartResult:
    """What became of a part.

    Attributes:
        number: Of the part.
        predicted: Rows with a probability.
        rejected: Images without one.
        seconds: Time that it took.
        resumed: True where it stood already.
    """

    number: int
    predicted: int
    rejected: int
    seconds: float
    resumed: bool


def batch_size(stored_size: tuple[int, int]) -> int:
    """Images that the model is asked about at once."""
    return max(16, min(MAX_BATCH, BATCH_PIXELS // (stored_size[0] * stored_size[1])))


def served_model(config: PredictConfig) -> ServedModel:
    """The model, loaded once in a process however many threads and parts ask for it.

    Raises:
        DataError: It can't be loaded, or its files are not those that the plan was made for.
    """
    key = (config.model_root, config.model_path, config.model_digest)
    with _loading:
        if key not in _models:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
            storage = open_storage(config.model_root)
            folder = storage.local_tree(config.model_path)
            if model_digest(folder) != config.model_digest:
                raise DataError(
                    f"The model {storage.uri(config.model_path)} has changed since the prediction began.", "Run again."
                )
            _models.clear()  # a second model in one process is rare, two in memory are too many
            try:
                _models[key] = ServedModel(folder)
            except NotServable as error:
                raise _unusable(config, error) from error
        return _models[key]


def _unusable(config: PredictConfig, error: NotServable) -> DataError:
    where = open_storage(config.model_root).uri(config.model_path)
    return DataError(f"The model {where} can't predict: {error}.", "Choose another model.")


def predict_part(config: PredictConfig, number: int) -> PartResult:
    """Predicts part `number` of the plan, or finds it done.

    Raises:
        DataError: The model does not answer, or a shard is damaged.
        TemporaryError: A source has changed since it was listed.
    """
    started = time.monotonic()
    work = open_storage(config.work)
    standing = finished_part(work, number)
    if standing is not None:
        return dataclasses.replace(standing, seconds=time.monotonic() - started)
    shard, batch = read_part(work.local_copy(PLAN), number)
    model = served_model(config)
    rejects: list[tuple[str, str, str]] = []
    colours = PartColours(group_names(batch, config.colour_unit)) if config.colour_unit else None
    examples = _records(config, shard, batch, colours) if shard else _images(config, batch, rejects, colours)
    rows: list[int] = []
    answers: list[npt.NDArray[np.float32]] = []
    try:
        for places, block in _in_batches(examples, batch_size(config.stored_size)):
            answers.append(model.answer("serving_default", block).probability)
            rows += places
    except NotServable as error:
        raise _unusable(config, error) from error
    multiclass = len(model.classes) > 2
    empty = np.zeros((0, len(model.classes)) if multiclass else 0, np.float32)
    table = _table(batch, rows, np.concatenate(answers) if answers else empty)
    meta: dict[str, Any] = {"predicted": len(rows), "rejects": rejects}
    if colours is not None:
        meta["colours"] = to_meta(colours.sums)
    table = table.replace_schema_metadata({META_KEY: json.dumps(meta).encode()})
    scratch = work.scratch("")
    try:
        with os_errors("writing", part_file(number)):
            pq.write_table(table, scratch / "part", compression="zstd", write_statistics=False)
        work.commit_file(scratch / "part", part_file(number))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return PartResult(number, len(rows), len(rejects), time.monotonic() - started, resumed=False)


def finished_part(work: Storage, number: int) -> PartResult | None:
    """The result of an earlier try; None where there is none."""
    if not work.exists(part_file(number)):
        return None
    meta = part_meta(work.local_copy(part_file(number)))
    return PartResult(number, meta["predicted"], len(meta["rejects"]), 0.0, resumed=True)


def part_meta(file: Path) -> dict[str, Any]:
    """What a part says of itself: `predicted`, `rejects` as (path, code, detail), `colours` where measured."""
    meta: dict[str, Any] = json.loads(pq.read_schema(file).metadata[META_KEY])
    return meta


def _table(batch: pa.RecordBatch, rows: list[int], probability: npt.NDArray[np.float32]) -> pa.Table:
    kept = batch if len(rows) == len(batch) else pc.take(batch, arrow_arrays.numbers(np.array(rows, np.int64)))
    columns = {name: kept.column(kept.schema.get_field_index(name)) for name in KEPT}
    return pa.table({**columns, "probability": probability_column(probability)})


def _in_batches(items: Iterator[tuple[int, bytes]], size: int) -> Iterator[tuple[list[int], list[bytes]]]:
    rows: list[int] = []
    block: list[bytes] = []
    for row, item in items:
        rows.append(row)
        block.append(item)
        if len(rows) == size:
            yield rows, block
            rows, block = [], []
    if rows:
        yield rows, block


@functools.lru_cache(maxsize=8)
def _frame(size: int) -> bytes:
    """What stands before `size` bytes of pixels in an Example that holds `image/raw` alone."""
    whole = encode_feature("image/raw", bytes(size))
    length, n = bytearray(), len(whole)
    while n > 127:
        length.append(n & 127 | 128)
        n >>= 7
    length.append(n)
    return b"\x0a" + bytes(length) + whole[: len(whole) - size]


def raw_example(pixels: npt.NDArray[np.uint8]) -> bytes:
    """A serialised Example with the pixels as `image/raw`, uint8[H, W, 3]: the least that `serving_default` takes."""
    payload = pixels.tobytes()
    return _frame(len(payload)) + payload


def _images(
    config: PredictConfig, batch: pa.RecordBatch, rejects: list[tuple[str, str, str]], colours: PartColours | None
) -> Iterator[tuple[int, bytes]]:
    names = batch.schema.names
    paths = arrow_arrays.python(batch.column(names.index("path")))
    sizes = arrow_arrays.python(batch.column(names.index("size")))
    for row, data in enumerate(open_source(config.input_root).read_many(paths, sizes)):
        try:
            if isinstance(data, Rejected):
                raise data
            image = decode_rgb8(data, "." + paths[row].rpartition(".")[2])
            pixels = fit(image, config.source_size, config.stored_size)
        except Rejected as reject:
            rejects.append((paths[row], reject.code, reject.detail))
            continue
        if colours is not None:
            colours.see(row, pixels)
        yield row, raw_example(pixels)
    if colours is not None:
        colours.flush()


def _records(
    config: PredictConfig, shard: str, batch: pa.RecordBatch, colours: PartColours | None
) -> Iterator[tuple[int, bytes]]:
    offsets = arrow_arrays.python(batch.column(batch.schema.names.index("offset")))
    storage = open_storage(config.input_root)
    if colours is not None:
        colours.see_records(storage, shard, offsets)
    try:
        with open(storage.local_copy(shard), "rb") as file:
            for row, offset in enumerate(offsets):
                if file.tell() != offset:
                    file.seek(offset)
                record = read_record(file)
                if record is None:
                    raise CorruptRecord(f"it ends before byte {offset}")
                yield row, record
    except (CorruptRecord, OSError) as error:
        raise DataError(
            f"{storage.uri(shard)} is damaged: {error}.", "Run `histoline verify` on the data set and ingest it again."
        ) from error
