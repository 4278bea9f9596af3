"""Columns of the Parquet tables of a data set, by name and Arrow type."""

from __future__ import annotations

import pyarrow as pa

SPLITS = ("train", "eval", "test")

COLOUR_COLUMNS = (
    "color/red_mean",
    "color/green_mean",
    "color/blue_mean",
    "color/red_std",
    "color/green_std",
    "color/blue_std",
    "color/hematoxylin_od",
    "color/eosin_od",
    "color/tissue_fraction",
    "color/sharpness",
)
"""Colour features in the order of the arrays that the colour baseline and drift checks take, and of statistics.json:
trees break ties by column, and a champion's statistics are compared by position."""

COLOUR_FEATURES = tuple(sorted(COLOUR_COLUMNS))
"""The same in the order in which they are stored: keys of a serialised Example are sorted, and a sidecar's columns
follow them."""

PATCHES = pa.schema(
    [
        pa.field("patch_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),  # relative to --input, POSIX; a token under pseudonymisation
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("label", pa.int32(), nullable=False),
        pa.field("x", pa.int32(), nullable=False),
        pa.field("y", pa.int32(), nullable=False),
        pa.field("magnification", pa.int32(), nullable=False),
        pa.field("tumor_type", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label_name", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),  # as stored, pixels
        pa.field("height", pa.int32(), nullable=False),
        pa.field("original_width", pa.int32(), nullable=False),  # of the source file, before padding and scaling
        pa.field("original_height", pa.int32(), nullable=False),
        pa.field("shard", pa.string(), nullable=False),  # file name inside Split-SPLIT/
        pa.field("offset", pa.int64(), nullable=False),  # byte offset of the record in it
    ]
)
"""patches.parquet: one row per record."""

REPETITIVE = [
    *("group_id", "slide_id", "label", "magnification", "tumor_type", "split", "label_name"),
    *("width", "height", "original_width", "original_height", "shard"),
]
"""Columns of these tables that are worth a dictionary in Parquet; for the others it costs time and space."""

MEASURES = [
    pa.field("pixel_hash", pa.binary(16), nullable=False),  # xxh3-128 of the stored pixels
    pa.field("perceptual_hash", pa.uint64(), nullable=False),
    pa.field("constant", pa.bool_(), nullable=False),
]


def sidecar(colour_features: tuple[str, ...]) -> pa.Schema:
    """A sidecar's columns: those of patches.parquet, the hashes, and one float32 per colour feature."""
    return pa.schema([*PATCHES, *MEASURES, *(pa.field(name, pa.float32(), nullable=False) for name in colour_features)])


REJECTS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("code", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # fault, policy or excluded
        pa.field("detail", pa.string(), nullable=False),
        pa.field("thumbnail", pa.string(), nullable=False),  # file in thumbnails/, empty where there is none
    ]
)
"""rejects.parquet: one row per image that was found and not written."""

PREDICTIONS = pa.schema(
    [
        pa.field("patch_id", pa.string(), nullable=False),
        pa.field("group_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("label", pa.int32()),  # null where unknown
        pa.field("probability", pa.float32()),  # list<float32> for more than two classes
        pa.field("model_version", pa.string(), nullable=False),
    ]
)
"""predictions.parquet of a binary task."""
