"""A bucket's listing against a real emulator process."""

from __future__ import annotations

import pytest

from components.storage import gcs_listing
from components.storage.gcs import GcsStorage
from components.storage.gcs_client import bucket, retry_for

pytestmark = pytest.mark.integration


def test_prefixes_listed_side_by_side_come_in_the_order_of_one_listing(
    gcs_store: GcsStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = gcs_store.prefix
    names = [f"p/{patient}/{label}/{i}" for patient in "10 8 9".split() for label in "01" for i in range(2)]
    # A slash sorts after a hyphen and a dot, and before letters; consoles make the folder's own object.
    for name in [*names, "p-1", "p.csv", "p/8-", "p/8.png", "p/80", "p/8/", "p//odd", "pé/ü", "z"]:
        bucket("bucket").blob(f"{top}/{name}").upload_from_string(b"12")
    for enough in (1, 3, gcs_listing.ENOUGH):
        monkeypatch.setattr(gcs_listing, "ENOUGH", enough)
        for prefix, count in ((f"{top}/", 21), (f"{top}/p/", 17), (f"{top}/none/", 0)):
            plain = [(blob.name, blob.size, blob.generation) for blob in bucket("bucket").list_blobs(prefix=prefix)]
            assert list(gcs_listing.list_objects(bucket("bucket"), prefix, retry_for(5))) == plain
            assert len(plain) == count
