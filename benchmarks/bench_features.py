"""What colour features and perceptual hash cost for each patch, on one core; JSON lines.

    python benchmarks/bench_features.py [--repeats 5]

Beside the product's whole-block version stands a straightforward one that takes image after image, and the decoding
of the same files: features ought to cost a fraction of it.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy: one core is measured

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bare
import common
import numpy as np

from components.core.rejects import Rejected
from components.images.colour_features import TISSUE_LUMA, block_features
from components.images.decode import decode_rgb8, fit
from components.images.stain_vectors import STAIN_MATRIX
from schemas.tables import COLOUR_FEATURES

CASES = (("idc", 300, (50, 50), (50, 50)), ("pcam", 300, (96, 96), (96, 96)), ("breakhis", 64, (700, 460), (350, 230)))
"""Data set, images, (width, height) in pixels of a file and as stored."""


def naive(image: np.ndarray) -> dict[str, float]:
    """The same features of one image uint8[H, W, 3], written down as one would read them."""
    pixels = image.astype(np.float64)
    features: dict[str, float] = {}
    for channel, name in enumerate(("red", "green", "blue")):
        features[f"color/{name}_mean"] = pixels[..., channel].mean()
        features[f"color/{name}_std"] = pixels[..., channel].std()
    density = -np.log10((pixels + 1) / 256)
    stains = density.reshape(-1, 3) @ np.linalg.inv(np.array(STAIN_MATRIX))
    features["color/hematoxylin_od"], features["color/eosin_od"] = stains[:, 0].mean(), stains[:, 1].mean()
    luma = np.rint(pixels @ (0.299, 0.587, 0.114))
    features["color/tissue_fraction"] = (luma < TISSUE_LUMA).mean()
    inner = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    features["color/sharpness"] = np.abs(inner).mean()
    height, width = luma.shape
    rows, columns = [i * height // 8 for i in range(9)], [i * width // 9 for i in range(10)]
    cells = np.array(
        [
            [luma[a:b, c:d].mean() for c, d in zip(columns[:-1], columns[1:], strict=True)]
            for a, b in zip(rows[:-1], rows[1:], strict=True)
        ]
    )
    bits = (cells[:, :-1] > cells[:, 1:]).ravel()
    features["hash"] = float(int("".join("1" if bit else "0" for bit in bits), 2))
    return features


def timed(work: Callable[[], Any]) -> float:
    """CPU seconds of one call, since others may share the core."""
    started = time.process_time()
    work()
    return time.process_time() - started


def load(
    folder: Path, source: tuple[int, int], stored: tuple[int, int], limit: int
) -> tuple[list[tuple[bytes, str]], np.ndarray]:
    """Files (bytes, extension) and their pixels uint8[N, H, W, 3] at the stored size."""
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".png", ".tif"))[:limit]
    data = [(path.read_bytes(), path.suffix) for path in files]
    kept, images = [], []
    for one in data:
        try:
            images.append(fit(decode_rgb8(*one), source, stored))
        except Rejected:
            continue
        kept.append(one)
    return kept, np.stack(images)


def bench(dataset: str, images: int, source: tuple[int, int], stored: tuple[int, int], repeats: int) -> None:
    """Times both versions and the decoding of one data set, in turn."""
    folder = common.ensure_data(dataset, images)
    files, pixels = load(folder, source, stored, images)
    n, (width, height) = len(pixels), stored
    block = max(1, bare.BLOCK_BYTES // (width * height * 3))
    times: dict[str, list[float]] = {"block_features": [], "naive": [], "decode_and_fit": []}
    for _ in range(repeats):
        blocks = [pixels[i : i + block] for i in range(0, n, block)]
        times["block_features"].append(timed(lambda: [block_features(one) for one in blocks]))  # noqa: B023
        times["naive"].append(timed(lambda: [naive(image) for image in pixels]))
        times["decode_and_fit"].append(timed(lambda: [fit(decode_rgb8(*one), source, stored) for one in files]))
    best = {name: min(seconds) / n * 1e6 for name, seconds in times.items()}
    median = {name: statistics.median(seconds) / n * 1e6 for name, seconds in times.items()}
    common.figure(
        f"features/{dataset}",
        f"colour features and perceptual hash, stored {width}x{height}, per patch and core",
        f"{best['block_features']:.0f} us; decoding {best['decode_and_fit']:.0f} us,"
        f" the same features image after image {best['naive']:.0f} us",
    )
    whole = block_features(pixels)
    plain = [naive(image) for image in pixels]
    pairs = zip(plain, whole.perceptual_hash.tolist(), strict=True)
    expected = np.array([[one[name] for name in COLOUR_FEATURES] for one in plain])
    common.emit(
        dataset=dataset,
        size=f"{width}x{height}",
        images=n,
        block=block,
        us_per_patch_best=best,
        us_per_patch_median=median,
        ratios={
            "naive/block_features": best["naive"] / best["block_features"],
            "block_features/decode_and_fit": best["block_features"] / best["decode_and_fit"],
        },
        largest_difference=dict(zip(COLOUR_FEATURES, np.abs(expected - whole.colour).max(0).tolist(), strict=True)),
        share_of_equal_hashes=float(np.mean([one["hash"] == float(h) for one, h in pairs])),
    )


def main() -> None:
    """Measures all three stored sizes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--default-malloc", action="store_true", help="leave glibc's thresholds alone: page faults")
    common.add_json_option(parser)
    given = parser.parse_args()
    common.environment("bench_features", given.repeats)
    if not given.default_malloc:
        bare.keep_freed_memory()
    for dataset, images, source, stored in CASES:
        bench(dataset, images, source, stored, given.repeats)
    common.leave_figures(given.json)


if __name__ == "__main__":
    main()
