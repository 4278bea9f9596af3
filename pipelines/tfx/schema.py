"""The schema that ExampleValidator holds a data set to: the one of `schemas/`, made exact by the manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path

from components.datasets.manifest import Manifest
from components.errors import UsageError
from schemas import HERE


def schema_text(manifest: Manifest) -> str:
    """The TFDV schema of a data set, as protobuf text.

    Args:
        manifest: Tells data set, classes in label order, image format and stored size.

    Raises:
        UsageError: The data set has no schema.
    """
    from google.protobuf import text_format
    from tensorflow_metadata.proto.v0 import schema_pb2

    file = HERE / f"{manifest.dataset}.pbtxt"
    if not file.is_file():
        raise UsageError(
            f"There is no schema for data set {manifest.dataset!r}.", f"Write schemas/{file.name}."
        )
    schema = text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    features = {feature.name: feature for feature in schema.feature}
    wanted, other = f"image/{manifest.image_format}", "image/raw"
    if wanted == other:
        other = "image/encoded"
    features[wanted].presence.min_fraction = 1.0
    features[wanted].presence.min_count = 1
    schema.feature.remove(features[other])
    features["label"].int_domain.max = len(manifest.classes) - 1
    width, height = manifest.stored_size
    for name, side in (("image/width", width), ("image/height", height)):
        features[name].int_domain.min = features[name].int_domain.max = side
    names = next(domain for domain in schema.string_domain if domain.name == "label_names")
    names.value[:] = manifest.classes
    return str(text_format.MessageToString(schema))


def write_schema(manifest: Manifest, folder: Path) -> Path:
    """Writes the schema into a folder under a name that tells its content, so that TFX's cache can trust the path.

    Args:
        manifest: See `schema_text`.
        folder: Created where missing.

    Returns:
        The file.
    """
    text = schema_text(manifest)
    file = folder / hashlib.sha256(text.encode()).hexdigest()[:16] / "schema.pbtxt"
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    return file
