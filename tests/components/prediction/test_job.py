"""Predictions of exported models: the same from files as from records, resumed where they stopped, nothing lost."""

from __future__ import annotations

import concurrent.futures
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from components.errors import DataError, UsageError
from components.prediction import job, parts
from components.prediction.parts import batch_size, predict_part, raw_example
from tests.support import predict_help, trees

pytestmark = pytest.mark.integration


@pytest.fixture
def made(untrained):
    """Raw folder, committed data set and model of IDC."""
    return untrained("idc")


def rows(file: Path) -> dict[str, dict]:
    return {row["patch_id"]: row for row in pq.read_table(file).to_pylist()}


@pytest.mark.parametrize(
    ("dataset", "options"),
    [("idc", {}), ("idc", {"image_format": "encoded"}), ("breakhis", {"task": "subtype"}), ("pcam", {})],
    ids=["idc", "idc-encoded", "breakhis-halved", "pcam"],
)
def test_an_image_gets_the_probability_of_its_record(tmp_path, untrained, dataset, options):
    raw, data, model = untrained(dataset, **options)
    files = predict_help.run(model, raw, tmp_path / "files.parquet")
    records = predict_help.run(model, data.folder, tmp_path / "records.parquet")
    assert records["predicted"] == data.manifest.written
    assert files["found"] == files["predicted"] + files["rejected"]
    one, two = rows(tmp_path / "files.parquet"), rows(tmp_path / "records.parquet")
    assert set(two) <= set(one)
    # IDC has a padded edge image among others, BreakHis is stored halved, and PCam as it is.
    changed = [patch["original_width"] != patch["width"] for patch in data.patches]
    assert {"idc": any(changed) and not all(changed), "breakhis": all(changed), "pcam": not any(changed)}[dataset]
    for patch_id, row in two.items():
        np.testing.assert_allclose(one[patch_id]["probability"], row["probability"], rtol=0, atol=1e-6)
        assert one[patch_id]["label"] == row["label"]
        assert row["split"] and not one[patch_id]["split"]
        if dataset != "pcam":
            assert one[patch_id]["group_id"] == row["group_id"]
    if dataset == "pcam":  # test/ has no labels, and is predicted all the same
        assert sum(row["label"] is None for row in one.values()) == 3


def test_a_killed_prediction_goes_on_where_it_stopped(tmp_path, made, monkeypatch):
    raw, _, model = made
    monkeypatch.setattr("components.prediction.plan._MAX_ROWS", 16)
    whole = predict_help.run(model, raw, tmp_path / "whole.parquet")
    done: list[int] = []

    def dies(config, numbers):
        for number in numbers[:2]:
            done.append(predict_part(config, number).number)
        raise KeyboardInterrupt

    output = tmp_path / "again.parquet"
    with pytest.raises(KeyboardInterrupt):
        predict_help.run(model, raw, output, work=dies)
    assert [path.name for path in tmp_path.glob("again*")] == ["again.parquet.parts"]
    asked: list[int] = []

    def goes_on(config, numbers):
        asked.extend(numbers)
        predict_help.here(config, numbers)

    again = predict_help.run(model, raw, output, work=goes_on)
    assert done == [0, 1] and asked == list(range(2, whole["parts"]))
    assert again["resumed_parts"] == 2
    assert rows(output) == rows(tmp_path / "whole.parquet")
    assert sorted(path.name for path in tmp_path.glob("again*")) == [
        "again.parquet",
        "again.rejects.parquet",
        "again.summary.json",
    ]


def test_parts_of_another_input_or_model_do_not_count(tmp_path, made, monkeypatch):
    raw, data, model = made
    monkeypatch.setattr("components.prediction.plan._MAX_ROWS", 16)
    mine = shutil.copytree(raw, tmp_path / "raw")

    def dies(config, numbers):
        predict_part(config, numbers[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        predict_help.run(model, mine, tmp_path / "a.parquet", work=dies)
    next(mine.rglob("*.png")).unlink()
    asked: list[int] = []

    def work(config, numbers):
        asked.extend(numbers)
        predict_help.here(config, numbers)

    told = predict_help.run(model, mine, tmp_path / "a.parquet", work=work)
    assert asked == list(range(told["parts"]))


def test_the_same_prediction_twice_is_done_once(tmp_path, made):
    raw, _, model = made
    first = predict_help.run(model, raw, tmp_path / "a.csv")

    def work(config, numbers):
        raise AssertionError("nothing is left to do")

    second = predict_help.run(model, raw, tmp_path / "a.csv", work=work)
    assert (first["state"], second["state"]) == ("done", "unchanged")
    assert not (tmp_path / "a.csv.parts").exists()
    (tmp_path / "a.csv").unlink()
    assert first["unproven"] == "" and predict_help.run(model, raw, tmp_path / "a.csv")["state"] == "done"


def test_what_was_accepted_with_the_model_is_said_of_its_predictions(tmp_path, made):
    raw, _, model = made
    accepted = shutil.copytree(model, tmp_path / "7")
    (accepted / "assets.extra/promotion.json").write_text('{"version": 7, "unproven": "read the paper"}')
    told = predict_help.run(accepted, raw, tmp_path / "a.parquet")
    assert told["unproven"] == "read the paper" and "because: read the paper" in told["warnings"][-1]
    assert "read the paper" in pq.read_schema(tmp_path / "a.parquet").metadata[b"histoline.unproven"].decode()


@pytest.fixture(scope="module")
def told(untrained, tmp_path_factory):
    """The model again, with the statistics of its data as a promoted version carries them."""
    _, data, model = untrained("idc")
    known = shutil.copytree(model, tmp_path_factory.mktemp("told") / "8")
    return predict_help.with_statistics(known, data)


def test_colours_are_those_of_ingest_however_the_work_is_cut(tmp_path, made, told, monkeypatch):
    raw, data, _ = made
    whole = predict_help.run(told, raw, tmp_path / "whole.parquet")
    kept = json.loads(pq.read_schema(tmp_path / "whole.parquet").metadata[b"histoline.drift"])
    assert kept == whole["drift"] == json.loads((tmp_path / "whole.summary.json").read_text())["drift"]
    assert (kept["skipped"], kept["drifted"], kept["unit"]) == ("", [], "patient")
    monkeypatch.setattr("components.prediction.plan._MAX_ROWS", 16)
    monkeypatch.setattr("components.prediction.colours.BLOCK", 5)
    asked: list[int] = []

    def two_workers(config, numbers):
        asked.extend(numbers)
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda number: predict_part(config, number), reversed(numbers)))

    cut = predict_help.run(told, raw, tmp_path / "cut.parquet", work=two_workers)
    assert len(asked) > 1 == whole["parts"]
    records = predict_help.run(told, data.folder, tmp_path / "records.parquet")
    assert records["predicted"] == cut["predicted"] == whole["predicted"]
    for other in (cut["drift"], records["drift"]):
        assert len(other["shifts"]) == len(whole["drift"]["shifts"]) == 2 * 10
        for one, two in zip(whole["drift"]["shifts"], other["shifts"]):
            near = {"now": pytest.approx(one["now"], rel=1e-9)}
            assert two == {**one, **near, "difference": pytest.approx(one["difference"], abs=1e-9)}


def test_a_stain_of_another_hue_is_told(tmp_path, made, told):
    raw, _, model = made
    other = shutil.copytree(raw, tmp_path / "raw")
    for file in other.rglob("*.png"):
        with Image.open(file) as image:
            pixels = np.asarray(image.convert("RGB"))
        Image.fromarray(np.clip(pixels.astype(int) * [1.0, 0.45, 0.45], 0, 255).astype(np.uint8)).save(file)
    found = predict_help.run(told, other, tmp_path / "a.csv")["drift"]
    assert {"color/green_mean", "color/blue_mean"} <= set(found["drifted"]) and "color/red_mean" not in found["drifted"]
    assert "model 8" in found["text"]
    none = predict_help.run(model, other, tmp_path / "b.csv")
    assert none["drift"]["skipped"].startswith("no statistics to compare with")
    assert sum(none["called"].values()) == sum(none["histogram"]) == none["predicted"]


def test_a_crash_among_the_commits_never_vouches_for_old_files(tmp_path, made, monkeypatch):
    raw, data, model = made
    predict_help.run(model, raw, tmp_path / "a.csv")
    old, real = (tmp_path / "a.csv").read_bytes(), job._commit

    def dies(target, file, name):
        if name == "a.csv":
            raise KeyboardInterrupt
        real(target, file, name)

    monkeypatch.setattr(job, "_commit", dies)
    with pytest.raises(KeyboardInterrupt):
        predict_help.run(model, data.folder, tmp_path / "a.csv")
    assert (tmp_path / "a.csv").read_bytes() == old
    monkeypatch.setattr(job, "_commit", real)
    told = predict_help.run(model, data.folder, tmp_path / "a.csv", work=lambda config, numbers: numbers and 1 / 0)
    assert (told["state"], told["resumed_parts"]) == ("done", told["parts"])
    assert (tmp_path / "a.csv").read_bytes() != old


def test_every_image_is_predicted_or_listed(tmp_path, made):
    _, _, model = made
    raw = tmp_path / "raw"
    trees.write_images(raw, ["a.png", "b.tif", "sub/a.png", ".c.png"])
    trees.write_images(raw, ["narrow.png"], (30, 50))
    trees.write_images(raw, ["large.png"], (96, 96))
    (raw / "empty.png").write_bytes(b"")
    (raw / "cut.png").write_bytes(trees.image_bytes("x")[:-20])
    told = predict_help.run(model, raw, tmp_path / "a.csv")
    with open(tmp_path / "a.rejects.csv") as file:
        codes = {row["path"]: row["code"] for row in csv.DictReader(file)}
    assert codes.pop("sub/a.png") in ("duplicate_id", "nested_copy")
    assert codes == {
        ".c.png": "bad_name",
        "cut.png": "truncated",
        "empty.png": "empty_file",
        "large.png": "wrong_size",
        "narrow.png": "too_narrow",
    }
    with open(tmp_path / "a.csv") as file:
        assert [row["patch_id"] for row in csv.DictReader(file)] == ["a", "b"]
    assert (told["found"], told["predicted"], told["rejected"]) == (8, 2, 6)


def test_nothing_to_predict_is_an_error_that_says_why(tmp_path, made):
    _, _, model = made
    trees.write_images(tmp_path / "raw", ["a.png", "b.png"], (96, 96))
    with pytest.raises(DataError, match="None of the 2 images .* wrong_size 2"):
        predict_help.run(model, tmp_path / "raw", tmp_path / "a.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_a_data_set_of_another_size_is_refused(tmp_path, untrained, made):
    _, _, model = made
    _, data, _ = untrained("pcam")
    with pytest.raises(UsageError, match="96x96.*takes 50x50.*--size 50x50"):
        predict_help.run(model, data.folder, tmp_path / "a.csv")


def test_a_damaged_shard_is_no_prediction(tmp_path, made):
    _, data, model = made
    folder = shutil.copytree(data.folder, tmp_path / "data")
    shard = next((folder / "Split-test").iterdir())
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DataError, match="is damaged"):
        predict_help.run(model, folder, tmp_path / "a.csv")


def test_a_kaggle_submission_has_the_samples_order(tmp_path, untrained):
    raw, _, model = untrained("pcam")
    ids = [trees.pcam_id(10_000 + i) for i in (2, 0, 1)]
    told = predict_help.run(model, raw / "test", tmp_path / "sub.csv", sample=ids)
    lines = (tmp_path / "sub.csv").read_text().splitlines()
    assert lines[0] == "id,label" and [line.split(",")[0] for line in lines[1:]] == ids
    table = rows(tmp_path / "sub.predictions.parquet")
    assert [np.float32(line.split(",")[1]) for line in lines[1:]] == [table[one]["probability"] for one in ids]
    assert told["files"]["output"].endswith("sub.csv") and told["files"]["table"].endswith("sub.predictions.parquet")
    (raw / "test" / f"{ids[0]}.tif").write_bytes(b"II*\0")
    with pytest.raises(DataError, match=f"1 of the 3 ids .*'{ids[0]}'.*1 images were rejected"):
        predict_help.run(model, raw / "test", tmp_path / "other.csv", sample=ids)
    assert not (tmp_path / "other.csv").exists()


def test_the_model_is_loaded_once_and_checked(tmp_path, made, monkeypatch):
    raw, _, model = made
    mine = shutil.copytree(model, tmp_path / "model")
    loads: list[Path] = []
    real = parts.ServedModel
    monkeypatch.setattr(parts, "ServedModel", lambda folder: loads.append(folder) or real(folder))
    monkeypatch.setattr("components.prediction.plan._MAX_ROWS", 16)
    told = predict_help.run(mine, raw, tmp_path / "a.csv")
    assert told["parts"] > 2 and len(loads) == 1

    def changes(config, numbers):
        facts = json.loads((mine / "assets.extra/histoline.json").read_text())
        (mine / "assets.extra/histoline.json").write_text(json.dumps({**facts, "threshold": 0.9}))
        parts._models.clear()
        predict_help.here(config, numbers)

    with pytest.raises(DataError, match="has changed since the prediction began"):
        predict_help.run(mine, raw, tmp_path / "b.csv", work=changes)


def test_the_smallest_example_is_a_real_one():
    import tensorflow as tf

    pixels = trees.pixels("x", 50, 40)
    parsed = tf.train.Example.FromString(raw_example(pixels))
    assert parsed.features.feature["image/raw"].bytes_list.value[0] == pixels.tobytes()
    assert batch_size((50, 50)) == 128 and batch_size((350, 230)) == 16
