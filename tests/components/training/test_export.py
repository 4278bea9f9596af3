from __future__ import annotations

import io
import json
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.datasets.committed import open_dataset
from components.metrics.calibration import apply_calibration
from components.training import export, models
from components.training.hardware import precision
from components.training.image_graph import ImageSize
from components.training.stain_targets import StainTarget
from tests.support import ingest_help
from tests.support.training_help import dataset, export_model, python, recipe

SIZES = (1, 7, 256)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("idc"))


def facts(classes: tuple[str, ...] = ("negative", "idc"), **given: object) -> export.ModelFacts:
    config = recipe()
    fields = {
        "dataset": "idc", "adapter": "idc", "task": "binary" if len(classes) == 2 else "subtype", "classes": classes,
        "source_size": (50, 50), "stored_size": (50, 50), "input_size": (50, 50), "label_region": None,
        "plan_id": "0" * 16, "content_digest": "0" * 64, "model": "cnn_105k", "config": config.to_dict(),
        "config_digest": config.digest(), "groups": ["b", "a"], "fitted": ["a"], **given,
    }  # fmt: skip
    return export.ModelFacts(**fields)  # type: ignore[arg-type]


def images(count: int, height: int = 50, width: int = 50, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def record(key: str, value: bytes) -> bytes:
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
    return tf.train.Example(features=tf.train.Features(feature={key: feature})).SerializeToString()


def raw(pixels: np.ndarray) -> list[bytes]:
    return [record("image/raw", image.tobytes()) for image in pixels]


def answers(loaded: tf.Module, name: str, values: list[bytes]) -> dict[str, np.ndarray]:
    argument = "examples" if name == "serving_default" else "images"
    return {k: v.numpy() for k, v in loaded.signatures[name](**{argument: tf.constant(values)}).items()}


def built(classes: int = 2, shape: tuple[int, int] = (50, 50), name: str = "cnn_105k") -> keras.Model:
    keras.utils.set_random_seed(2)
    return models.build(name, (*shape, 3), classes)


def test_binary_model_answers_both_signatures_in_batches_of_any_size(tmp_path: Path) -> None:
    model = built()
    loaded = tf.saved_model.load(str(export_model(model, tmp_path / "model", facts(), 2.0, 0.45, bias=-0.7)))
    pixels = images(264)
    plain = model.predict(pixels.astype("float32"), verbose=0)
    wanted = apply_calibration(plain[:, 1], 2.0, -0.7)
    place = 0
    for size in SIZES:
        part = pixels[place : place + size]
        for name, values in (("serving_default", raw(part)), ("serve_bytes", [png(p) for p in part])):
            out = answers(loaded, name, values)
            assert out["probability"].dtype == np.float32 and out["probability"].shape == (size,)
            np.testing.assert_allclose(out["probability"], wanted[place : place + size], atol=1e-5)
            assert out["label"].dtype == np.int64
            np.testing.assert_array_equal(out["label"], out["probability"] >= np.float32(0.45))
            np.testing.assert_array_equal(out["label_name"], np.array([b"negative", b"idc"])[out["label"]])
        place += size


def test_several_classes(tmp_path: Path) -> None:
    names = ("a", "b", "c", "d")
    model = built(4)
    bias = [1.0, 0.5, -0.5, -1.0]
    out = export_model(model, tmp_path / "model", facts(names), 0.5, 0.5, bias=bias)
    assert json.loads((out / export.FACTS).read_text())["bias"] == bias
    loaded = tf.saved_model.load(str(out))
    pixels = images(9)
    out = answers(loaded, "serving_default", raw(pixels))
    plain = model.predict(pixels.astype("float32"), verbose=0)
    np.testing.assert_allclose(out["probability"], apply_calibration(plain, 0.5, bias), atol=1e-5)
    np.testing.assert_array_equal(out["label"], out["probability"].argmax(axis=1))
    assert json.loads((tmp_path / "model" / export.FACTS).read_text())["threshold"] is None


@pytest.mark.integration
@pytest.mark.parametrize("method", ["reinhard", "macenko"])
def test_files_are_prepared_as_at_ingest_and_large_batches_are_worked_off_in_parts(tmp_path: Path, method: str) -> None:
    # 96x64 sources stored at half size; parts of 8 images at most, so 21 images need three.
    rows = {"reinhard": ((60.0, 20.0, -10.0), (12.0, 9.0, 6.0)), "macenko": ((0.6, 0.7, 0.4), (0.2, 0.9, 0.4))}
    target = StainTarget(method, rows[method], (1.5, 1.0) if method == "macenko" else ())
    keras.utils.set_random_seed(2)
    model = models.build("simple_cnn", (32, 48, 3), 2, views=4, stain=target)
    model.set_weights([2 * weight for weight in model.get_weights()])
    given = facts(source_size=(96, 64), stored_size=(48, 32), model="simple_cnn", stain_target=target.to_dict())
    serving = export.Serving(model, ImageSize((96, 64), (48, 32)), given.classes)
    assert serving._chunk == export.CHUNK_PIXELS // (4 * 32 * 48)
    serving._chunk = 8
    loaded = tf.saved_model.load(str(export.save(serving, tmp_path / "model", given)))
    sources = images(21, 60, 90)
    sources[20] = 255  # glass
    from components.images.decode import fit

    stored = np.stack([fit(image, (96, 64), (48, 32)) for image in sources])
    by_file = answers(loaded, "serve_bytes", [png(image) for image in sources])["probability"]
    by_record = answers(loaded, "serving_default", raw(stored))["probability"]
    singles = (answers(loaded, "serving_default", raw(stored[i : i + 1])) for i in range(21))
    alone = np.concatenate([single["probability"] for single in singles])
    np.testing.assert_allclose(by_file, by_record, atol=1e-6)
    np.testing.assert_allclose(by_record, alone, atol=1e-6)
    plain = keras.Model(model.input, model.get_layer("probabilities").output)(stored.astype("float32"))
    np.testing.assert_allclose(by_record, np.asarray(plain)[:, 1], atol=1e-5)
    assert np.ptp(alone) > 0.01 and np.isfinite(alone).all()
    assert json.loads((tmp_path / "model" / export.FACTS).read_text())["stain_target"] == target.to_dict()


def test_float32_also_after_mixed_precision(folder: Path, tmp_path: Path) -> None:
    config, data = recipe(mixed_precision="on", views=2), open_dataset(folder)
    target = StainTarget("reinhard", ((60.0, 20.0, -10.0), (12.0, 9.0, 6.0)))
    with precision("mixed_float16"):
        half = models.build("cnn_105k", (50, 50, 3), 2, config.options, views=2, stain=target)
    assert half.get_layer("conv16_a").compute_dtype == "float16"
    copy = export.float32_copy(half, config, data)
    assert all(layer.compute_dtype == "float32" for layer in copy.layers)
    exact = models.build("cnn_105k", (50, 50, 3), 2, config.options, views=2, stain=target)
    exact.set_weights(half.get_weights())
    pixels = images(4).astype("float32")
    np.testing.assert_allclose(copy.predict(pixels, verbose=0), exact.predict(pixels, verbose=0), atol=1e-6)


def test_what_is_written_beside_the_model(folder: Path, tmp_path: Path) -> None:
    config, data = recipe(), open_dataset(folder)
    out = export_model(
        built(), tmp_path / "model", export.ModelFacts.of(config, data), 1.5, 0.25, extra={"more.json": [1]}
    )
    told = json.loads((out / export.FACTS).read_text())
    for key, value in {
        "classes": ["negative", "idc"], "task": "binary", "dataset": "idc", "adapter": "idc", "source_size": [50, 50],
        "stored_size": [50, 50], "input_size": [50, 50], "plan_id": data.manifest.plan_id,
        "content_digest": data.manifest.content_digest, "temperature": 1.5, "bias": 0.0, "threshold": 0.25,
        "model": "cnn_105k", "config_digest": config.digest(), "trained_on_groups": "train_groups.json",
    }.items():  # fmt: skip
        assert told[key] == value, key
    splits = json.loads((folder / "splits.json").read_text())["splits"]
    groups = json.loads((out / "assets.extra" / "train_groups.json").read_text())
    assert groups == sorted(g for g, s in splits.items() if s != "test")
    fitted = json.loads((out / "assets.extra" / "fitted_groups.json").read_text())
    assert fitted == sorted(g for g, s in splits.items() if s == "train") and "fitted" not in told
    assert json.loads((out / "assets.extra" / "more.json").read_text()) == [1]
    assert not list((tmp_path / ".tmp").iterdir())


def test_an_older_model_is_replaced(tmp_path: Path) -> None:
    for threshold in (0.25, 0.75):
        export_model(built(), tmp_path / "model", facts(), 1.0, threshold)
    assert json.loads((tmp_path / "model" / export.FACTS).read_text())["threshold"] == 0.75


def test_records_of_the_ingest_are_answered_alone_and_with_nothing_but_the_image(folder: Path, tmp_path: Path) -> None:
    loaded = tf.saved_model.load(str(export_model(built(), tmp_path / "model", facts(), 1.0, 0.5)))
    whole, bare = [], []
    from components.datasets.tfrecord import read_records

    for shard in sorted((folder / "Split-test").iterdir()):
        whole += [data for _, data in read_records(shard)]
    for _, example in (v for v in ingest_help.examples(folder).values() if v[0] == "test"):
        bare.append(record("image/raw", example["image/raw"]))
    a, b = (np.sort(answers(loaded, "serving_default", x)["probability"]) for x in (whole, bare))
    np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.integration
def test_a_fresh_process_needs_neither_our_code_nor_keras_layers(tmp_path: Path) -> None:
    out = export_model(built(), tmp_path / "model", facts(), 1.0, 0.5)
    (tmp_path / "image.png").write_bytes(png(images(1)[0]))
    code = """
import sys
sys.path[:] = [p for p in sys.path if p not in ("", sys.argv[3])]
import tensorflow as tf
model = tf.saved_model.load(sys.argv[1])
print(model.signatures["serve_bytes"](images=tf.constant([open(sys.argv[2], "rb").read()]))["label_name"].numpy()[0])
assert "components" not in sys.modules
"""
    from tests.support.training_help import ROOT

    done = python(code, out, tmp_path / "image.png", ROOT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("b'negative'", "b'idc'")
    from tensorflow.core.protobuf import saved_model_pb2

    saved = saved_model_pb2.SavedModel.FromString((out / "saved_model.pb").read_bytes())
    kinds = {node.user_object.identifier for node in saved.meta_graphs[0].object_graph_def.nodes}
    assert not [kind for kind in kinds if "keras" in kind]
