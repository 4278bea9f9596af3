"""Opens a workspace: on a local disk or on Google Cloud Storage."""

from __future__ import annotations

import os

from components.errors import UsageError
from components.storage.base import Storage


def open_storage(root: str | os.PathLike[str]) -> Storage:
    """Returns the storage of a workspace; touches neither disk nor network.

    Args:
        root: Local folder (need not exist) or `gs://bucket[/prefix]`.

    Raises:
        UsageError: For an empty root, another scheme, or a root that is a file.
    """
    name = os.fspath(root)
    if name.startswith("gs://"):
        from components.storage.gcs import GcsStorage

        return GcsStorage(name)
    if not name.strip() or "://" in name or "\0" in name:
        raise UsageError(f"{name!r} is not a workspace.", "Give a local folder or gs://BUCKET/PREFIX.")
    from components.storage.local import LocalStorage

    return LocalStorage(name)
