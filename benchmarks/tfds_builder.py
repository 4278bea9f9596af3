"""A TensorFlow Datasets builder that decodes too: the usual way to make TFRecords from a folder of patches.

A GeneratorBasedBuilder whose generator reads each file, decodes it with the ingest's decoder (so that a damaged
file is noticed), and yields it. `--store bytes` (the default, and the fastest) keeps pixels as one bytes feature,
as the ingest does; `--store image` hands the array to tfds.features.Image, which encodes it as PNG again. Groups
decide on the split. No colour features, pixel hashes or audit. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import zlib
from collections.abc import Iterator
from typing import Any

STARTED = time.monotonic()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import bare  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_datasets as tfds  # noqa: E402
from etils import epath  # noqa: E402

from components.core.rejects import Rejected  # noqa: E402
from components.images.decode import decode_rgb8, fit  # noqa: E402

tfds.disable_progress_bar()

Parsed = tuple[str, str, int, dict[str, Any]]
"""Folder, name, bytes, and what the name says."""


class Patches(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
    """Patches of one folder."""

    VERSION = tfds.core.Version("1.0.0")
    pkg_dir_path = epath.Path(__file__).parent  # TFDS can't find it by itself for a script

    def __init__(self, *, source: str, layout: bare.Layout, store: str, **given: Any) -> None:
        self._source, self._layout, self._store = source, layout, store
        super().__init__(**given)

    def _info(self) -> tfds.core.DatasetInfo:
        width, height = self._layout.stored_size
        shape = (height, width, 3)
        pixels: Any = tfds.features.Image(shape=shape, encoding_format="png")
        if self._store == "bytes":
            pixels = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding=tfds.features.Encoding.BYTES)
        text, number = tfds.features.Text(), tfds.features.Scalar(np.int64)
        features = {name: text for name in ("patch_id", "group_id", "slide_id", "tumor_type")}
        features |= {name: number for name in ("x", "y", "magnification")}
        label = tfds.features.ClassLabel(names=list(self._layout.classes))
        everything = tfds.features.FeaturesDict({"image": pixels, "label": label, **features})
        return self.dataset_info_from_configs(features=everything)

    def _split_generators(self, _: Any) -> dict[str, Any]:
        files: dict[str, list[Parsed]] = {"train": [], "eval": [], "test": []}
        for folder, name, size in bare.list_files(self._source):
            row = self._layout.parse(name)
            if row is not None:
                draw = zlib.crc32(row["group_id"].encode()) % 10
                files["train" if draw < 7 else "eval" if draw < 8 else "test"].append((folder, name, size, row))
        return {split: self._generate_examples(part) for split, part in files.items()}

    def _generate_examples(self, files: list[Parsed]) -> Iterator[tuple[str, dict[str, Any]]]:
        layout = self._layout
        for folder, name, size, row in files:
            try:
                data = bare.read(folder, name, size)
                image = fit(decode_rgb8(data, ".png"), layout.source_size, layout.stored_size)
            except Rejected:
                continue
            yield row["patch_id"], {**row, "image": image}


def main() -> None:
    """Builds the data set once."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=sorted(bare.LAYOUTS), default="idc")
    parser.add_argument("--input", required=True)
    parser.add_argument("--output", required=True)
    parser.add_argument("--store", choices=("bytes", "image"), default="bytes")
    given = parser.parse_args()
    tf.config.set_visible_devices([], "GPU")
    began = time.monotonic()
    builder = Patches(source=given.input, layout=bare.LAYOUTS[given.dataset], store=given.store, data_dir=given.output)
    builder.download_and_prepare(file_format="tfrecord")
    ended = time.monotonic()
    result = {
        "patches": sum(split.num_examples for split in builder.info.splits.values()),
        "bytes": builder.info.dataset_size,
        "import_s": round(began - STARTED, 3),
        "work_s": round(ended - began, 3),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
