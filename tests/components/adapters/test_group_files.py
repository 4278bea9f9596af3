from __future__ import annotations

import pytest

from components.adapters.group_files import patch_key, read_group_list, read_groups_csv
from components.errors import UsageError


def mapping(tmp_path, text: str | bytes):
    file = tmp_path / "groups.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    read = read_groups_csv(file)
    return dict(
        zip(
            read.patch_ids.to_pylist(),
            zip(read.groups.to_pylist(), read.slides.to_pylist(), strict=True),
            strict=True,
        )
    ), read.unit


@pytest.mark.parametrize(
    ("header", "unit"),
    [
        ("patient", "patient"),
        ("patient_id", "patient"),
        ("slide", "slide"),
        ("Slide_ID", "slide"),
        ("wsi", "slide"),
    ],
)
@pytest.mark.parametrize("column", ["id", "patch_id", "Image", "filename", "path"])
def test_headers_say_the_unit(tmp_path, header, unit, column):
    assert mapping(tmp_path, f"{column},{header}\na,007\n")[1] == unit


def test_ids_may_be_names_or_paths_and_zeros_stay(tmp_path):
    rows, _ = mapping(tmp_path, "path,patient\ntrain/0a.tif,007\n0b.PNG,1\n0c,1\n")
    assert rows == {"0a": ("007", ""), "0b": ("1", ""), "0c": ("1", "")}


def test_patient_wins_and_the_slide_is_kept(tmp_path):
    assert mapping(tmp_path, "id,slide,patient\na,s1,p1\n") == ({"a": ("p1", "s1")}, "patient")


@pytest.mark.parametrize(
    "text", [b"\xef\xbb\xbfid,slide\r\na,s\r\n\r\n", b"id;slide\na;s\n", b"x\tid\tslide\n1\ta\ts"]
)
def test_what_spreadsheets_write(tmp_path, text):
    assert mapping(tmp_path, text)[0].keys() == {"a"}


def test_empty_groups_map_nothing_and_repeated_rows_are_fine(tmp_path):
    assert mapping(tmp_path, "id,patient\na,\nb,p\nb,p\nc\n")[0] == {"b": ("p", "")}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("id,patient\na,p\na.png,q\n", "line 3.*'a'.*'q'.*'p'"),
        ("id,patient\n,p\n", "line 2: no patch id"),
        ("id,group\na,p\n", "columns id, group.*patient.*wsi"),
        ("a,p\n", "Its first line must name"),
        ("", r"\(none\)"),
        ("id,id,slide\na,a,s\n", "two columns 'id'"),
        (b"id,slide\n\xff,a\n", "not UTF-8"),
    ],
)
def test_wrong_files_say_what_is_wrong(tmp_path, text, says):
    with pytest.raises(UsageError, match=f"(?s){says}"):
        mapping(tmp_path, text)


def test_missing_file(tmp_path):
    with pytest.raises(UsageError, match="No such file"):
        read_groups_csv(tmp_path / "no.csv")


def test_group_list(tmp_path):
    file = tmp_path / "exclude.txt"
    file.write_bytes(b'\xef\xbb\xbfpatient_id\r\n# withdrawn 2024\r\n007\r\n\r\n "14-22549" \r\n007\r\n')
    assert read_group_list(file) == {"007", "14-22549"}
    file.write_bytes(b"\xff")
    with pytest.raises(UsageError):
        read_group_list(file)


def test_patch_key_takes_image_extensions_only():
    assert [patch_key(text) for text in ("a.b", "a.b.tif", " d/e.PNG ", ".png")] == [
        "a.b",
        "a.b",
        "e",
        ".png",
    ]
