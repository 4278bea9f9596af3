"""Naive Beam: one element for each file, the same decoder, Examples into WriteToTFRecord.

What one writes first. No colour features (they are written as zeros, so records have the same size), no pixel
hashes, checksums, audit or split: less work than the ingest does. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator

STARTED = time.monotonic()

import warnings  # noqa: E402

warnings.simplefilter("ignore")

import apache_beam as beam  # noqa: E402
import bare  # noqa: E402
import numpy as np  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from components.example import ImageEncoder, encode_colour, encode_example  # noqa: E402
from components.features import COLOUR_FEATURES  # noqa: E402
from components.images import decode_rgb8, fit  # noqa: E402
from components.patch import Rejected  # noqa: E402


class ToExample(beam.DoFn):
    """Path of a file -> a serialised Example."""

    def __init__(self, dataset: str) -> None:
        self._dataset = dataset

    def setup(self) -> None:
        """Encodes once what all records share."""
        self._layout = bare.LAYOUTS[self._dataset]
        self._encoder = ImageEncoder("raw", *self._layout.stored_size)
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
        payload = self._encoder.encode(image.tobytes())
        yield encode_example(self._colour, payload, label_name=layout.classes[row["label"]], **row)


def main() -> None:
    """Runs the pipeline once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=sorted(bare.LAYOUTS), default="idc")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    given = parser.parse_args()
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
            | "ToExample" >> beam.ParDo(ToExample(given.dataset)).with_output_types(bytes)
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
