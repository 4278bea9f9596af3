from __future__ import annotations

import os
from pathlib import Path

import pytest

from components.adapters import listing
from components.adapters.listing import list_images, read_file
from components.errors import UsageError

PNG = frozenset({".png"})


def touch(root: Path, *names: str | bytes, content: bytes = b"x") -> None:
    for name in names:
        file = os.path.join(os.fsencode(root), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(file), exist_ok=True)
        with open(file, "wb") as out:
            out.write(content)


def paths(found: listing.Listing) -> list[str]:
    return found.files["path"].to_pylist()


def codes(found: listing.Listing) -> dict[str, str]:
    return {path: code for path, code, _ in found.rejects}


def found_by_walking(root: Path) -> int:
    names = (name for _, _, files in os.walk(root) for name in files)
    return sum(os.path.splitext(name)[1].lower() in listing.IMAGE_EXTENSIONS for name in names)


def test_columns_are_relative_posix_paths_sorted_with_size_and_mtime(tmp_path):
    touch(tmp_path, "b/2.png", "a.png", "b/1.PNG", "a/z.png", content=b"12345")
    os.utime(tmp_path / "a.png", ns=(7, 1_234_567_890_123_456_789))
    files = list_images(str(tmp_path), PNG).files
    assert files["path"].to_pylist() == ["a.png", "a/z.png", "b/1.PNG", "b/2.png"]
    assert files["size"].to_pylist() == [5] * 4
    assert files["version"][0].as_py() == 1_234_567_890_123_456_789


def test_other_files_are_counted_and_other_images_rejected(tmp_path):
    touch(tmp_path, "a.png", "b.tif", "c.TIFF", "labels.csv", "d/readme", ".png", "e.jpg")
    found = list_images(str(tmp_path), PNG)
    assert paths(found) == ["a.png"]
    assert codes(found) == {"b.tif": "wrong_format", "c.TIFF": "wrong_format"}
    assert found.ignored == 4


def test_hidden_images_and_macos_side_files_are_rejected_not_dropped(tmp_path):
    touch(tmp_path, "a.png", "._a.png", ".cache/b.png", "__MACOSX/x/a.png", ".DS_Store", ".cache/notes.txt")
    found = list_images(str(tmp_path), PNG)
    assert paths(found) == ["a.png"]
    assert codes(found) == dict.fromkeys(["._a.png", ".cache/b.png", "__MACOSX/x/a.png"], "bad_name")
    assert found.ignored == 2
    assert len(found.files) + len(found.rejects) == found_by_walking(tmp_path)


def test_links(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "root-elsewhere"
    touch(root, "d/real.png", content=b"123")
    touch(elsewhere, "far.png")
    (root / "inside.png").symlink_to("d/real.png")
    (root / "outside.png").symlink_to(elsewhere / "far.png")
    (root / "broken.png").symlink_to("nowhere.png")
    (root / "self.png").symlink_to("self.png")
    (root / "d" / "loop").symlink_to(root)
    (root / "notes.txt").symlink_to("nowhere.txt")
    found = list_images(str(root), PNG)
    assert paths(found) == ["d/real.png", "inside.png"]
    assert found.files["size"].to_pylist() == [3, 3]
    assert codes(found) == {
        "outside.png": "outside_root",
        "broken.png": "unreadable",
        "self.png": "unreadable",
    }
    assert found.ignored == 1
    assert len(found.warnings) == 1 and "d/loop" in found.warnings[0]


def test_root_may_be_a_link_itself(tmp_path):
    touch(tmp_path / "real", "d/a.png")
    (tmp_path / "real" / "b.png").symlink_to("d/a.png")
    (tmp_path / "link").symlink_to("real")
    assert paths(list_images(str(tmp_path / "link"), PNG)) == ["b.png", "d/a.png"]


def test_a_pipe_named_like_an_image_is_unreadable_and_never_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    assert codes(list_images(str(tmp_path), PNG)) == {"pipe.png": "unreadable"}


def test_names_that_are_not_utf8_are_rejected_under_an_escaped_path(tmp_path):
    touch(tmp_path, b"good.png", b"b\xffd.png", b"d\xe9/a.png", content=b"12")
    found = list_images(str(tmp_path), PNG)
    assert paths(found) == ["good.png"]
    assert found.files["size"].to_pylist() == [2]
    assert codes(found) == {r"b\xffd.png": "bad_name", r"d\xe9/a.png": "bad_name"}


def test_any_utf8_path_is_fine(tmp_path):
    names = ["Zürich ß/a b.png", "new\nline/c.png", "漢字/d.png", "case/A.png", "case/a.png"]
    touch(tmp_path, *names)
    assert paths(list_images(str(tmp_path), PNG)) == sorted(names)


def test_chunks_lose_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_CHUNK", 3)
    names = [f"d{i % 4}/{i:02}.png" for i in range(25)]
    touch(tmp_path, *names)
    assert paths(list_images(str(tmp_path), PNG)) == sorted(names)


def test_missing_root_file_as_root_and_unreadable_folder(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match="does not exist"):
        list_images(str(tmp_path / "no"), PNG)
    touch(tmp_path, "a.png", "locked/b.png")
    with pytest.raises(UsageError, match="is not a folder"):
        list_images(str(tmp_path / "a.png"), PNG)
    real = os.scandir

    def scandir(folder):  # permissions do not stop root, under which containers run tests
        if "locked" in str(folder):
            raise PermissionError(13, "Permission denied", folder)
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UsageError, match=r"locked.*Permission denied"):
        list_images(str(tmp_path), PNG)


def test_read_file(tmp_path):
    touch(tmp_path, "d/x.csv", content=b"id")
    assert read_file(str(tmp_path), "d/x.csv") == b"id"
    assert read_file(str(tmp_path), "y.csv") is None
    with pytest.raises(UsageError):
        read_file(str(tmp_path), "d")


def test_a_url_without_bucket_is_refused():
    with pytest.raises(UsageError, match="names no bucket"):
        list_images("gs://", PNG)


def test_no_file_is_lost_between_links_and_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(listing, "_CHUNK", 3)
    touch(tmp_path, *(f"a{i}.png" for i in range(10)))
    for i in range(7):
        (tmp_path / f"l{i}.png").symlink_to(tmp_path / f"a{i}.png")
    assert sorted(paths(list_images(str(tmp_path), PNG))) == sorted(p.name for p in tmp_path.iterdir())
