"""Tables, rejects and slide maps of a prediction."""

from __future__ import annotations

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.prediction.outputs import beside, file_name, output_schema, output_table, write_slide_maps, write_table
from components.promotion.find_model import ModelSource
from components.promotion.prediction_tables import probability_column

HOSTILE = ["../../etc/passwd", "a/b", ".hidden", "..", 'x"><script>', "a\nb", "=cmd()", "\u00e9" * 200, "C:\\x"]


def model(classes=("negative", "idc"), threshold=0.3):
    facts = {"classes": list(classes), "threshold": threshold if len(classes) == 2 else None}
    return ModelSource("/ws", "models/m", "7", "digest", facts)


def part(probability, labels, slides=None, groups=None):
    n = len(labels)
    return pa.table(
        {
            "patch_id": [f"p{i}" for i in range(n)],
            "group_id": groups or ["g"] * n,
            "slide_id": slides or [""] * n,
            "split": [""] * n,
            "label": pa.array(labels, pa.int32()),
            "path": [f"p{i}.png" for i in range(n)],
            "x": pa.array([50 * i for i in range(n)], pa.int32()),
            "y": pa.array([0] * n, pa.int32()),
            "probability": probability_column(np.array(probability, np.float32)),
        }
    )


def test_labels_follow_from_the_threshold_and_unknown_ones_are_null(tmp_path):
    table = output_table(part([0.1, 0.3, 0.9], [0, -1, 1]), model())
    rows = table.to_pylist()
    assert [row["predicted"] for row in rows] == [0, 0 if np.float32(0.3) < 0.3 else 1, 1]
    assert [row["predicted_name"] for row in rows] == ["negative", "idc", "idc"]
    assert [row["label"] for row in rows] == [0, None, 1]
    assert {row["model_version"] for row in rows} == {"7"}
    assert write_table(tmp_path / "a.parquet", [table, table], output_schema(2), ("negative", "idc")) == 6
    assert pq.read_table(tmp_path / "a.parquet").schema.names == output_schema(2).names


def test_several_classes_get_a_column_each_in_csv(tmp_path):
    classes = ("a", "b", "c")
    table = output_table(part([[0.1, 0.7, 0.2], [0.5, 0.25, 0.25]], [1, -1]), model(classes))
    assert table["predicted_name"].to_pylist() == ["b", "a"]
    write_table(tmp_path / "a.csv", [table], output_schema(3), classes)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert [float(rows[0][f"probability_{name}"]) for name in classes] == pytest.approx([0.1, 0.7, 0.2])
    assert (rows[0]["label"], rows[1]["label"]) == ("1", "")
    write_table(tmp_path / "none.csv", [], output_schema(3), classes)
    assert (tmp_path / "none.csv").read_text().count("\n") == 1


def test_names_beside_an_output():
    assert beside("a.b.csv", "rejects") == "a.b.rejects.csv"
    assert beside("a.csv", "predictions", ".parquet") == "a.predictions.parquet"


def test_slide_maps_of_hostile_ids_stay_in_their_folder(tmp_path):
    folder = tmp_path / "maps"
    count = len(HOSTILE)
    table = output_table(part([0.5] * count, [1, -1] + [0] * (count - 2), slides=HOSTILE), model())
    assert len(write_slide_maps(str(folder), [table], 0.3)) == count
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {file.parent for file in files} == {folder}
    assert len(files) == 2 * count - 1  # one has no label
    assert len({file_name(text) for text in HOSTILE}) == count
    assert max(len(file_name(text)) for text in HOSTILE) < 200


def test_a_slide_map_is_as_wide_as_its_slide(tmp_path):
    table = output_table(part([0.0, 1.0, 0.4], [0, 1, 0], groups=["patient"] * 3), model())
    (told,) = write_slide_maps(str(tmp_path), [table.slice(0, 2), table.slice(2)], 0.3)
    assert told == {"name": "patient", "file": "patient.png", "patches": 3, "positive": 2}
    image = Image.open(tmp_path / "patient.png").convert("RGBA")
    assert image.width == 3 * image.height
    left, right = (np.array(image)[0, x] for x in (0, image.width // 2))
    assert left[2] > left[0] and right[0] > right[2]  # blue is negative, red positive
    assert (tmp_path / "patient.labels.png").is_file()


def test_patches_without_a_place_make_no_map(tmp_path):
    table = part([0.5], [0])
    table = table.set_column(table.schema.get_field_index("x"), "x", pa.array([-1], pa.int32()))
    assert write_slide_maps(str(tmp_path / "maps"), [output_table(table, model())], 0.5) == []
