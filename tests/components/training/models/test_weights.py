from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from components.errors import UsageError
from components.training import models
from components.training.models import mobilenet_v2, resnet50, weights


def test_whole_model_from_a_file_by_any_name(tmp_path: Path) -> None:
    source = models.build("cnn_105k", (50, 50, 3), 2)
    x = np.random.default_rng(0).integers(0, 256, (2, 50, 50, 3)).astype("float32")
    for name in ("a.weights.h5", "plain.h5"):
        path = tmp_path / name
        source.save_weights(tmp_path / "a.weights.h5")
        if not path.exists():
            (tmp_path / "a.weights.h5").rename(path)
        loaded = models.build("cnn_105k", (50, 50, 3), 2, {"weights": str(path)})
        np.testing.assert_allclose(np.asarray(loaded(x)), np.asarray(source(x)), atol=1e-6)


def test_backbone_or_whole_model_from_a_file(tmp_path: Path) -> None:
    source = models.build("mobilenet_v2", (50, 50, 3), 2, {"weights": "none"})
    source.save_weights(tmp_path / "whole.weights.h5")
    source.get_layer("backbone").save_weights(tmp_path / "backbone.weights.h5")

    def load(file: str) -> keras.Model:
        return models.build("mobilenet_v2", (50, 50, 3), 2, {"weights": str(tmp_path / file)})

    def same(a: keras.Model, b: keras.Model) -> bool:
        return all(np.array_equal(u, v) for u, v in zip(a.get_weights(), b.get_weights(), strict=True))

    assert same(load("whole.weights.h5"), source)
    backbone = load("backbone.weights.h5")
    assert same(backbone.get_layer("backbone"), source.get_layer("backbone")) and not same(backbone, source)


def test_a_wrong_file_says_what_it_should_fit(tmp_path: Path) -> None:
    other = tmp_path / "other.weights.h5"
    models.build("simple_cnn", (50, 50, 3), 2).save_weights(other)
    text = tmp_path / "text.h5"
    text.write_text("no weights")
    for path in (other, text):
        with pytest.raises(UsageError, match="cnn_105k with 105,234 weights"):
            models.build("cnn_105k", (50, 50, 3), 2, {"weights": str(path)})
        with pytest.raises(UsageError, match="backbone of mobilenet_v2 with 410,208 weights"):
            models.build("mobilenet_v2", (50, 50, 3), 2, {"weights": str(path)})
    with pytest.raises(UsageError, match="no such file"):
        models.build("cnn_105k", (50, 50, 3), 2, {"weights": str(tmp_path / "gone.h5")})
    with pytest.raises(UsageError, match="no ImageNet weights for cnn_105k"):
        models.build("cnn_105k", (50, 50, 3), 2, {"weights": "imagenet"})


def test_without_a_network_the_error_says_how_to_supply_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise Exception("URL fetch failure: no route to host")  # what keras.utils.get_file raises

    monkeypatch.setattr(keras.utils, "get_file", refuse)
    with pytest.raises(UsageError, match=r"mobilenet_v2_.*_0\.35_224_no_top\.h5.*--weights FILE.*--weights none"):
        models.build("mobilenet_v2", (50, 50, 3), 2)


def test_addresses_are_those_of_keras_applications() -> None:
    from keras.src.applications import mobilenet_v2 as keras_mobilenet
    from keras.src.applications import resnet as keras_resnet

    assert mobilenet_v2.imagenet_file({"alpha": 1}).startswith(keras_mobilenet.BASE_WEIGHT_PATH)
    assert mobilenet_v2.imagenet_file({"alpha": 1}).endswith("kernels_1.0_224_no_top.h5")
    assert resnet50.imagenet_file({}) == keras_resnet.BASE_WEIGHTS_PATH + (
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    )


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    path = tmp_path / "w.h5"
    path.write_bytes(b"a")
    first = weights.fingerprint(str(path))
    path.write_bytes(b"b")
    assert len(first) == 64 and weights.fingerprint(str(path)) != first
    assert weights.fingerprint("imagenet") == "imagenet"


@pytest.mark.realdata
def test_published_mobilenet_weights_see_something(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenet_v2_0.35_224_no_top.h5"
    if not path.is_file():
        pytest.skip("no published MobileNetV2 weights in the shared data")
    model = models.build("mobilenet_v2", (50, 50, 3), 2, {"weights": str(path)})
    plain = keras.applications.MobileNetV2((96, 96, 3), 0.35, include_top=False, weights=str(path))
    x = np.random.default_rng(0).random((2, 96, 96, 3)).astype("float32") * 2 - 1
    out = np.asarray(model.get_layer("backbone")(x))
    np.testing.assert_allclose(out, np.asarray(plain(x)), atol=1e-4)
    assert 0.05 < (out > 0).mean() < 0.95 and out.max() > 1
    with pytest.raises(UsageError, match="alpha"):
        models.build("mobilenet_v2", (50, 50, 3), 2, {"weights": str(path), "alpha": 0.5})
