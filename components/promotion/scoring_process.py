"""Predictions of exported models in a fresh process: `python -m components.promotion.scoring_process REQUEST.json`.

The process that trained must not be the one that predicts: only what the SavedModel itself says counts. The request
names local files; the answer is three files in its `out` folder: `predictions.parquet` (candidate, eval and test),
`others.parquet` (champion and best ever, test) and `answers.json` (whether the candidate answers as it must); and a
fourth, `error_maps.parquet`, where it is asked for and the candidate can make it.
"""

from __future__ import annotations

import ctypes
import dataclasses
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components import errors
from components.core.array_types import Array, Pixels
from components.core.machine import PR_SET_PDEATHSIG
from components.datasets.sidecars import read_sidecars
from components.promotion import error_maps
from components.promotion.prediction_tables import predictions_table, probability_column
from components.promotion.served_model import TOLERANCE, NotServable, ServedModel, agrees, batches
from components.promotion.worst_errors import BINARY, MULTICLASS, worst_errors

ROOT = Path(__file__).resolve().parents[2]
PREDICTIONS, OTHERS, ANSWERS, ERROR = "predictions.parquet", "others.parquet", "answers.json", "error.json"
SPLITS = ("eval", "test")
COLUMNS = ("patch_id", "group_id", "slide_id", "label", "offset")
PROBES = 33
"""Test patches on which the signatures are compared: 5 alone, then by sevens, and all as image files."""


@dataclasses.dataclass(frozen=True)
class Request:
    """What the fresh process is asked for; every path is local.

    Attributes:
        model_dir: The candidate.
        model_version: Its name in the table: RUN_ID, or VERSION.
        classes: Class names of the data set.
        source_size: (width, height) of regular source images.
        stored_size: (width, height) of the records.
        shards: Split to (shard, sidecar) files, for `eval` and `test`.
        others: Name to folder of the models to score on test, such as `champion`.
        out: Existing folder for the answer.
        explain: Whether maps of the worst errors are wanted.
        chosen: Split to a Parquet file of `COLUMNS` and `file`, in place of `shards`: the records that count, and the
            shard that holds each.
        also: Asked of the same process afterwards, each with an `out` of its own.
    """

    model_dir: str
    model_version: str
    classes: tuple[str, ...]
    source_size: tuple[int, int]
    stored_size: tuple[int, int]
    shards: Mapping[str, list[tuple[str, str]]]
    others: Mapping[str, str]
    out: str
    explain: bool = False
    chosen: Mapping[str, str] = dataclasses.field(default_factory=dict)
    also: tuple[Request, ...] = ()

    @property
    def splits(self) -> tuple[str, ...]:
        """Those that are asked about, `test` always."""
        return tuple(split for split in SPLITS if split in self.shards or split in self.chosen)

    @classmethod
    def from_json(cls, text: str) -> Request:
        """Reads what `to_json` wrote."""
        return cls.from_dict(json.loads(text))

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> Request:
        """Reads plain JSON values."""
        pairs = {split: [(a, b) for a, b in files] for split, files in given["shards"].items()}
        sizes = {key: (given[key][0], given[key][1]) for key in ("source_size", "stored_size")}
        also = tuple(cls.from_dict(each) for each in given.get("also", ()))
        return cls(**{**given, **sizes, "classes": tuple(given["classes"]), "shards": pairs, "also": also})

    def to_json(self) -> str:
        """The request as text."""
        return json.dumps(dataclasses.asdict(self))


Predictor = Callable[[Request], None]
"""Does what a request asks: `in_fresh_process`; tests do it in their own."""


def predict(request: Request) -> None:
    """Scores candidate and others and writes the three files, for each request. Loads TensorFlow.

    Raises:
        DataError: Another model does not answer, or a shard is damaged.
    """
    for each in (request, *request.also):
        _predict_one(each)


def _predict_one(request: Request) -> None:
    out, started = Path(request.out), time.monotonic()
    for name in (PREDICTIONS, OTHERS, ANSWERS, error_maps.NAME):
        (out / name).unlink(missing_ok=True)
    reason = ""
    try:
        model = ServedModel(Path(request.model_dir))
        if model.classes != list(request.classes):
            raise NotServable(f"its classes are {', '.join(model.classes)}, not {', '.join(request.classes)}")
        by_split = {split: _score(model, request, split) for split in request.splits}
    except NotServable as error:
        _answer(out, False, str(error), {}, started)
        return
    _write_predictions(request, by_split, out / PREDICTIONS)
    try:
        differences = _compare_signatures(model, request, by_split["test"][1])
        worst = max(differences, key=lambda name: differences[name])
        if differences[worst] > TOLERANCE:
            reason = f"{worst} differs from its own predictions by {differences[worst]:.2g}"
    except NotServable as error:
        differences, reason = {}, str(error)
    no_maps = ""
    if request.explain and model.explains and not reason:
        no_maps = _explain(model, request, *by_split["test"], out / error_maps.NAME)
    del model
    _write_others(request, by_split["test"][0], out / OTHERS)
    _answer(out, not reason, reason, differences, started, no_maps)


def _answer(
    out: Path, answers: bool, reason: str, differences: Mapping[str, float], started: float, no_maps: str = ""
) -> None:
    import tensorflow as tf

    document = {
        **({"no_maps": no_maps} if no_maps else {}),
        "answers": answers,
        "reason": reason,
        "largest_difference": differences,
        "tensorflow": tf.__version__,
        "seconds": round(time.monotonic() - started, 3),
    }
    (out / ANSWERS).write_text(json.dumps(document))


def _batch_size(request: Request) -> int:
    # About 12 MB of pixels a batch: enough to keep every core busy, little enough for large images and many views.
    return max(1, min(256, (1 << 22) // (request.stored_size[0] * request.stored_size[1])))


def _records(request: Request, split: str, table: pa.Table) -> Iterator[bytes]:
    """Records of a split; proves on the way that they are those of the sidecars."""
    from components.datasets.tfrecord import CorruptRecord, read_records

    if split in request.chosen:
        yield from _chosen_records(table)
        return
    offsets, row = table.column("offset").to_pylist(), 0
    for shard, _ in request.shards[split]:
        try:
            for offset, record in read_records(shard):
                if row >= len(offsets) or offsets[row] != offset:
                    raise CorruptRecord(f"its sidecar knows no record at byte {offset}")
                row += 1
                yield record
        except (CorruptRecord, OSError) as error:
            raise errors.DataError(
                f"{shard} is damaged: {error}.", "Run `histoline verify` on the data set and ingest it again."
            ) from error
    if row != len(offsets):
        raise errors.DataError(
            f"The {split} split holds {row} records, but its sidecars list {len(offsets)}.",
            "Run `histoline verify` on the data set and ingest it again.",
        )


def _chosen_records(table: pa.Table) -> Iterator[bytes]:
    """The records that a table of chosen ones names, in its order."""
    from components.datasets.tfrecord import CorruptRecord, read_chosen

    rows = zip(table.column("file").to_pylist(), table.column("offset").to_pylist(), strict=True)
    for shard, found in itertools.groupby(rows, key=lambda row: row[0]):
        try:
            for _, record in read_chosen(shard, [offset for _, offset in found]):
                yield record
        except (CorruptRecord, OSError, ValueError) as error:
            raise errors.DataError(
                f"{shard} is damaged: {error}.", "Run `histoline verify` on the data set and ingest it again."
            ) from error


def _table(request: Request, split: str) -> pa.Table:
    if split in request.chosen:
        return pq.read_table(request.chosen[split])
    return read_sidecars([Path(sidecar) for _, sidecar in request.shards[split]], COLUMNS)


def _score(model: ServedModel, request: Request, split: str) -> tuple[pa.Table, Array]:
    table = _table(request, split)
    records = _records(request, split, table)
    return table, model.probabilities(batches(records, _batch_size(request)))


def _write_predictions(
    request: Request, by_split: Mapping[str, tuple[pa.Table, Array]], file: Path
) -> None:
    made = []
    for split, (table, probability) in by_split.items():
        columns: dict[str, Any] = {name: table.column(name) for name in COLUMNS[:3]}
        columns |= {"split": [split] * len(table), "label": table.column("label").to_numpy()}
        made.append(predictions_table(columns, probability, request.model_version, len(request.classes)))
    pq.write_table(pa.concat_tables(made), file, compression="zstd")


def _compare_signatures(model: ServedModel, request: Request, predicted: Array) -> dict[str, float]:
    """Largest difference of each signature, in other batches, from the predictions of the test split."""
    from components.datasets.example import decode_example, decode_pixels

    table = _table(request, "test")
    chosen = np.unique(np.linspace(0, len(table) - 1, PROBES).astype(int))
    wanted = set(chosen.tolist())
    records = [record for row, record in enumerate(_records(request, "test", table)) if row in wanted]
    expected = predicted[chosen]
    alone = [[record] for record in records[:5]]
    again = model.probabilities([*alone, *batches(records[5:], 7)])
    factor = request.source_size[0] // request.stored_size[0]
    files = [_png(decode_pixels(decode_example(record)), factor) for record in records]
    served = [model.answer("serve_bytes", batch).probability for batch in ([files[0]], files[1:]) if batch]
    return {"serving_default": agrees(again, expected), "serve_bytes": agrees(np.concatenate(served), expected)}


def _explain(model: ServedModel, request: Request, table: pa.Table, probability: Array, file: Path) -> str:
    """Writes maps of the worst errors on test, where there are any; says why not where that fails.

    They decide nothing, so a failure is no error.
    """
    labels, groups = table.column("label").to_numpy(), np.array(table.column("group_id").to_pylist(), object)
    count = BINARY if probability.ndim == 1 else MULTICLASS
    kinds = worst_errors(labels, groups, probability, model.facts.get("threshold"), count)
    called = {int(row): kind.called for kind in kinds for row in kind.worst}
    if not called:
        return ""
    wanted = sorted(called)
    records = [record for row, record in enumerate(_records(request, "test", table)) if row in called]
    names = table.column("patch_id").take(wanted).to_pylist()
    # The backward pass keeps what every layer gave.
    batch = max(1, _batch_size(request) // 8)
    try:
        error_maps.write(model, records, names, np.array([called[row] for row in wanted]), batch, file)
    except NotServable as error:
        return str(error)
    return ""


def _png(pixels: Pixels, factor: int) -> bytes:
    """A PNG file that the ingest would have stored as these pixels: each one repeated, so that the mean is itself."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.fromarray(pixels.repeat(factor, axis=0).repeat(factor, axis=1)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def _write_others(request: Request, table: pa.Table, file: Path) -> None:
    columns = {"patch_id": table.column("patch_id")}
    for name, folder in request.others.items():
        try:
            model = ServedModel(Path(folder))
            if model.classes != list(request.classes):
                raise NotServable(f"its classes are {', '.join(model.classes)}")
            columns[name] = probability_column(_score(model, request, "test")[1])
        except NotServable as error:
            raise errors.DataError(
                f"The promoted model {folder} ({name.replace('_', ' ')}) does not answer on the test split: {error}.",
                "Roll back to a version that does (histoline models rollback), then evaluate again.",
            ) from error
    pq.write_table(pa.table(columns), file, compression="zstd")


def in_fresh_process(request: Request) -> None:
    """Runs `predict` in a Python process of its own.

    Raises:
        HistolineError: As the process ended; TemporaryError where it was killed.
    """
    out = Path(request.out)
    (out / ERROR).unlink(missing_ok=True)
    file = out / "request.json"
    file.write_text(request.to_json())
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The process that trained may still hold most of the GPU's memory.
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "components.promotion.scoring_process", str(file)],
        cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    if done.returncode == 0:
        return
    if done.returncode < 0:
        raise errors.TemporaryError(
            f"The process that scores the models was killed by signal {-done.returncode}, as happens when memory runs"
            " out.",
            "Run again, with more memory where it happens twice.",
        )
    kinds = {kind.exit_code: kind for kind in (errors.UsageError, errors.DataError, errors.TemporaryError)}
    if done.returncode in kinds and (out / ERROR).is_file():
        error = json.loads((out / ERROR).read_text())
        raise kinds[done.returncode](error["what"], error["fix"])
    tail = done.stderr.decode(errors="replace")[-2000:]
    raise RuntimeError(f"the process that scores the models ended with {done.returncode}:\n{tail}")


def main(argv: list[str]) -> int:
    """Entry point of the fresh process; errors go to `error.json` and the exit code."""
    if sys.platform == "linux":
        # A step that is killed must not leave this process working for nobody.
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    request = Request.from_json(Path(argv[0]).read_text())
    try:
        predict(request)
    except errors.HistolineError as error:
        (Path(request.out) / ERROR).write_text(json.dumps({"what": error.what, "fix": error.fix}))
        return error.exit_code
    return errors.EXIT_OK


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
