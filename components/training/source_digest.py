"""A digest of the code that decides on a model: changed code is neither a cache hit nor `unchanged`."""

from __future__ import annotations

import functools
import hashlib
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = (
    *(
        f"components/{name}"
        for name in ("core", "storage", "images", "datasets", "metrics", "training", "promotion")
    ),
    "schemas",
    "pipelines/tfx",
)
"""What a model and the decision on it can depend on; reports, ingest and the command line are not in it."""

SUFFIXES = (".py", ".json", ".pbtxt")
LIBRARIES = (
    "tensorflow",
    "keras",
    "tfx",
    "tensorflow-model-analysis",
    "apache-beam",
    "numpy",
    "scikit-learn",
)


@functools.cache
def source_digest() -> str:
    """SHA-256 over our own sources and the versions of the libraries that matter."""
    files: list[Path] = []
    for folder in FOLDERS:
        files += [file for file in (ROOT / folder).rglob("*") if file.suffix in SUFFIXES]
    digest = hashlib.sha256(repr(sorted(library_versions().items())).encode())
    for file in sorted(files):
        digest.update(f"\0{file.relative_to(ROOT).as_posix()}\0".encode() + file.read_bytes())
    return digest.hexdigest()


def library_versions() -> dict[str, str]:
    """Versions of the installed libraries by name; those that are missing are left out."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
