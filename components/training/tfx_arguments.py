"""What TFX's Trainer hands to `run_fn`: the data set that its file patterns mean, and whether its schema is of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.datasets.committed import DatasetFiles
from components.errors import DataError, UsageError


def dataset_folder(train_files: Sequence[str], eval_files: Sequence[str]) -> str:
    """The data set whose splits TFX names.

    Training reads exactly the shards that the manifest names; the patterns only tell where it lies.

    Args:
        train_files: Patterns such as `DATASET_DIR/Split-train/*`, local or gs://.
        eval_files: Likewise, of eval.

    Raises:
        UsageError: They are not the train and eval split of one data set.
    """
    found = set()
    for split, patterns in (("train", train_files), ("eval", eval_files)):
        for pattern in patterns or ("",):
            home, _, last = pattern.rpartition("/")
            folder, _, name = home.rpartition("/")
            if not folder or name != f"Split-{split}" or "*" not in last:
                raise UsageError(
                    f"TFX names {pattern or 'no files'!r} as its {split} split, which is no split of a data set.",
                    f"Import a folder that holds Split-train/ and Split-eval/, and set {split}_args to {split}.",
                )
            found.add(folder)
    if len(found) > 1:
        raise UsageError(
            f"TFX names splits of several data sets: {', '.join(sorted(found))}.",
            "Train on one data set; ingest merges folders.",
        )
    return found.pop()


def check_schema(file: str | Path, data: DatasetFiles) -> None:
    """Refuses a TFDV schema that speaks of other data than the model is about to be built for.

    Args:
        file: The schema as protobuf text.
        data: The data set.

    Raises:
        DataError: Classes, image format or stored size differ.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    schema = text_format.Parse(Path(file).read_text(encoding="utf-8"), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    names = [domain.value for domain in schema.string_domain if domain.name == "label_names"]

    def side(name: str) -> Any:
        domain = features[name].int_domain if name in features else None
        return domain.min if domain is not None and domain.min == domain.max else "any"

    compared = {
        "classes": (tuple(names[0]) if names else (), data.classes),
        "image format": ("raw" if "image/raw" in features else "encoded", data.image_format),
        "width": (side("image/width"), data.stored_size[0]),
        "height": (side("image/height"), data.stored_size[1]),
    }
    for what, (schemas, ours) in compared.items():
        if schemas != ours:
            raise DataError(
                f"The schema {file} is not of {data.folder}: its {what} is {schemas}, the manifest's {ours}.",
                "Run `histoline step validate` again: it writes the schema that belongs to the data set.",
            )
