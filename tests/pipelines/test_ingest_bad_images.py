"""A bad image is a row with a code: damaged, foreign and hostile files."""

from __future__ import annotations

import contextlib
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.datasets.manifest import RejectFacts
from components.errors import DataError
from tests.support import ingest_help as help
from tests.support import trees
from tests.support.ingest_help import ingest


def bomb(side: int) -> bytes:
    """A PNG of a few kilobytes that claims side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    pixels = zlib.compress(bytes(3 * side + 1) * 64)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def encoded(kind: str, size: tuple[int, int] = (50, 50)) -> bytes:
    return trees.image_bytes("x", *size, kind=kind)


BAD_PNG = {
    "truncated": ("truncated", encoded("PNG")[:-200]),
    "cut after its header": ("truncated", encoded("PNG")[:40]),
    "zero bytes": ("empty_file", b""),
    "text": ("not_an_image", b"<html>404 Not Found</html>"),
    "jpeg": ("wrong_format", encoded("JPEG")),
    "tiff": ("wrong_format", encoded("TIFF")),
    "bomb": ("bomb", bomb(60_000)),
    "larger": ("wrong_size", encoded("PNG", (51, 50))),
    "sliver": ("too_narrow", encoded("PNG", (1, 50))),
    "below four fifths": ("too_narrow", encoded("PNG", (50, 39))),
}


BAD_TIFF = {
    "truncated": ("truncated", encoded("TIFF", (96, 96))[:9000]),
    "zero bytes": ("empty_file", b""),
    "text": ("not_an_image", b"oops"),
    "png": ("wrong_format", encoded("PNG", (96, 96))),
    "smaller": ("too_narrow", encoded("TIFF", (50, 50))),
    "larger": ("wrong_size", encoded("TIFF", (97, 96))),
}


class TestBadImages:
    @pytest.fixture(scope="class")
    def png(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        root = tmp_path_factory.mktemp("png")
        trees.idc_tree(root, 9, 2)
        paths = {name: trees.idc_path("9000", 0, 50 * i, 7001) for i, name in enumerate(BAD_PNG)}
        for name, path in paths.items():
            (root / path).write_bytes(BAD_PNG[name][1])
        rejects = ingest(root, root / "w", max_faults=0.9).rejects
        assert len(rejects) == len(BAD_PNG)
        return {name: rejects[path] for name, path in paths.items()}

    @pytest.fixture(scope="class")
    def tiff(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
        root = tmp_path_factory.mktemp("tiff")
        ids = {name: trees.pcam_id(900 + i) for i, name in enumerate(BAD_TIFF)}
        labels = {trees.pcam_id(i): i % 2 for i in range(20)}
        trees.pcam_tree(root, {**labels, **dict.fromkeys(ids.values(), 1)}, test=0)
        for name, one in ids.items():
            (root / "train" / f"{one}.tif").write_bytes(BAD_TIFF[name][1])
        rejects = ingest(root, root / "w", "pcam", group_by="image", max_faults=0.9).rejects
        assert len(rejects) == len(BAD_TIFF)
        return {name: rejects[f"train/{one}.tif"] for name, one in ids.items()}

    @pytest.mark.parametrize("name", BAD_PNG)
    def test_png(self, png: dict[str, str], name: str) -> None:
        assert png[name] == BAD_PNG[name][0]

    @pytest.mark.parametrize("name", BAD_TIFF)
    def test_tiff(self, tiff: dict[str, str], name: str) -> None:
        assert tiff[name] == BAD_TIFF[name][0]

    def test_more_faults_than_allowed_are_named_and_listed(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        path = trees.idc_path("9003", 1, 951, 951)
        (tmp_path / "raw" / path).write_bytes(b"")
        with pytest.raises(DataError, match=r"1 of 37 images are faulty.*--max-faults") as caught:
            ingest(tmp_path / "raw", tmp_path / "w")
        assert path in str(caught.value) and "empty_file" in str(caught.value)
        (folder,) = help.dataset_dirs(tmp_path / "w")
        assert help.reject_codes(folder) == {path: "empty_file"} and not (folder / "manifest.json").exists()
        (tmp_path / "raw" / path).unlink()
        assert ingest(tmp_path / "raw", tmp_path / "w").manifest.written == 36

    def test_policies_and_exclusions_are_no_faults(self, tmp_path: Path) -> None:
        trees.idc_tree(tmp_path / "raw", 9, 2)
        shutil.copytree(tmp_path / "raw", tmp_path / "raw" / "IDC_regular_ps50_idx5")
        result = ingest(tmp_path / "raw", tmp_path / "w", max_faults=0)
        assert result.manifest.rejects == {"nested_copy": RejectFacts("excluded", 36)}


def test_bomb_is_refused_without_being_decoded() -> None:
    data = bomb(60_000)
    assert len(data) < 20_000
    with contextlib.suppress(Image.DecompressionBombError):
        assert np.prod(Image.open(__import__("io").BytesIO(data)).size) == 3_600_000_000
