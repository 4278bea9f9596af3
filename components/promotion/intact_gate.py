"""The gate before anything is read as records: a data set is byte for byte what was committed.

TFX reads whatever lies in a Split folder, and a TFRecord reader can hang on a damaged record.
"""

from __future__ import annotations

from typing import Any

from components.datasets.verify import Verified, verify_bytes
from components.errors import DataError
from components.storage.base import Storage


def check_intact(storage: Storage, dataset_dir: str, manifest: dict[str, Any]) -> Verified:
    """Compares every file with its checksum in the manifest.

    Files that no step reads (outside the Split folders, not in the manifest) are no reason to stop.

    Args:
        storage: Where the data set lies.
        dataset_dir: Its folder, relative to the storage.
        manifest: As `manifest.load` gave it.

    Returns:
        What was read.

    Raises:
        DataError: A file is missing, changed, or too many in a Split folder.
    """
    result = verify_bytes(storage, dataset_dir, manifest)
    findings = [finding for finding in result.findings if not finding.endswith("is not in the manifest")]
    if findings:
        more = f" (and {len(findings) - 3} more)" if len(findings) > 3 else ""
        raise DataError(
            f"{storage.uri(dataset_dir)} is not what was committed: {'; '.join(findings[:3])}{more}.",
            "Run the same ingest again: it writes missing and damaged shards anew from the raw folder. Nothing was"
            " trained.",
        )
    return result
