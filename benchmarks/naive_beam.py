"""Naive Beam: one element for each file, the same decoder, Examples into WriteToTFRecord.

What one writes first. No colour features (they are written as zeros, so records have the same size), no pixel
hashes, checksums, audit or split: less work than the ingest does. `--examples tf` (the default) builds each record
as `tf.train.Example`, as one does; `--examples ours` borrows the ingest's encoder. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import warnings
from collections.abc import Iterator
from typing import Any

STARTED = time.monotonic()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

warnings.simplefilter("ignore")

import apache_beam as beam  # noqa: E402
import bare  # noqa: E402
import numpy as np  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from components.core.rejects import Rejected  # noqa: E402
from components.datasets.example import ImageEncoder, encode_colour, encode_example  # noqa: E402
from components.images.decode import decode_rgb8, fit  # noqa: E402
from schemas.tables import COLOUR_FEATURES  # noqa: E402


class ToExample(beam.DoFn):
    """Path of a file -> a serialised Example."""

    def __init__(self, dataset: str, examples: str) -> None:
        self._dataset, self._examples = dataset, examples

    def setup(self) -> None:
        """Encodes once what all records share."""
        self._layout = bare.LAYOUTS[self._dataset]
        self._encoder = ImageEncoder("raw", *self._layout.stored_size)
        self._size = dict(zip(("image/width", "image/height"), self._layout.stored_size, strict=True))
        self._colour = encode_colour(np.zeros((1, len(COLOUR_FEATURES)), np.float32))[0]

    def process(self, path: str) -> Iterator[bytes]:  # type: ignore[override]
        """Yields one record, or nothing for a file that is no patch."""
        layout = self._layout
        row = layout.parse(os.path.basename(path))
        if row is None:
            return
        with open(path, "rb") as file:
            data = file.read()
        try:
            image = fit(decode_rgb8(data, ".png"), layout.source_size, layout.stored_size)
        except Rejected:
            return
        name, pixels = layout.classes[row["label"]], image.tobytes()
        if self._examples == "tf":
            yield tf_example({**row, **COLOURLESS, "label/name": name, "image/raw": pixels, **self._size})
        else:
            yield encode_example(self._colour, self._encoder.encode(pixels), label_name=name, **row)


COLOURLESS = dict.fromkeys(COLOUR_FEATURES, 0.0)


def tf_example(values: dict[str, Any]) -> bytes:
    """A serialised `tf.train.Example` of single values."""
    from tensorflow.train import BytesList, Example, Feature, Features, FloatList, Int64List

    features = {}
    for name, value in values.items():
        if isinstance(value, float):
            features[name] = Feature(float_list=FloatList(value=[value]))
        elif isinstance(value, int):
            features[name] = Feature(int64_list=Int64List(value=[value]))
        else:
            text = value if isinstance(value, bytes) else value.encode()
            features[name] = Feature(bytes_list=BytesList(value=[text]))
    return bytes(Example(features=Features(feature=features)).SerializeToString())


def main() -> None:
    """Runs the pipeline once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=sorted(bare.LAYOUTS), default="idc")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--examples", choices=("tf", "ours"), default="tf")
    given = parser.parse_args()
    if given.examples == "tf":
        import tensorflow  # noqa: F401 - counted as import, like Beam
    began = time.monotonic()
    files = [f"{folder}/{name}" for folder, name, _ in bare.list_files(given.input)]
    layout = bare.LAYOUTS[given.dataset]
    width, height = layout.stored_size
    shards = max(1, round(len(files) * (width * height * 3 + 620) / bare.SHARD_BYTES))
    os.makedirs(given.output)
    with beam.Pipeline(options=PipelineOptions(["--runner=FnApiRunner"])) as pipeline:
        _ = (
            pipeline
            | "Files" >> beam.Create(files)
            | "ToExample" >> beam.ParDo(ToExample(given.dataset, given.examples)).with_output_types(bytes)
            | "Write" >> beam.io.WriteToTFRecord(f"{given.output}/shard", num_shards=shards)
        )
    ended = time.monotonic()
    total = sum(entry.stat().st_size for entry in os.scandir(given.output))
    result = {
        "patches": len(files),
        "bytes": total,
        "import_s": round(began - STARTED, 3),
        "work_s": round(ended - began, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
