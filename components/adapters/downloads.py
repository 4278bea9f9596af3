"""How many images the known downloads hold, and what to say where fewer were found.

A download that broke off or was unpacked halfway looks like a smaller data set; only the published count tells.
"""

from __future__ import annotations

from collections.abc import Mapping

IMAGES = {
    "idc": 277_524,  # Janowczyk and Madabhushi 2016 (J Pathol Inform 7:29): 198,738 negative, 78,786 positive
    "breakhis": 7_909,  # Spanhol et al. 2016 (IEEE TBME 63:1455): 2,480 benign, 5,429 malignant
    "pcam": 220_025,  # lines of train_labels.csv of Kaggle's histopathologic-cancer-detection; test/ is not counted
}
"""Labelled images of a whole download, by data set."""

_NOT_COUNTED = ("nested_copy", "bad_name", "unlabelled")


def shortfall(dataset: str, found: int, rejects: Mapping[str, int]) -> str:
    """A sentence where a data set's folder holds fewer images than the download; empty where it does not.

    Args:
        dataset: Name of the data set; one without a published count is never short.
        found: Image files found.
        rejects: How many of them were rejected, by code; copies and what has no label are no part of the count.
    """
    images = found - sum(rejects.get(code, 0) for code in _NOT_COUNTED)
    whole = IMAGES.get(dataset, 0)
    if images >= whole:
        return ""
    return (
        f"This is less than the whole download: {images:,} of {whole:,} images, {whole - images:,} are missing."
        " A sample is fine; if you meant all, the download or its unpacking is incomplete."
    )
