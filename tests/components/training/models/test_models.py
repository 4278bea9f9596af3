from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from components.errors import UsageError
from components.training import models
from components.training.augmentation import Augmentation
from components.training.fitted_model import training_model
from components.training.models import mobilenet_v2, registry
from components.training.models.views import CropViews, MeanOverViews, TurnedViews, crop_offsets

LARGE = ("resnet50", "convnext_tiny", "efficientnet_v2_b0", "frozen_features")
SMALL = [n for n in models.MODELS if n not in LARGE]
BUILT: dict[str, keras.Model] = {}


def built(name: str) -> keras.Model:
    """Each model once: building takes seconds for the large ones."""
    if name not in BUILT:
        entry = models.info(name)
        BUILT[name] = models.build(name, (*entry.input_size, 3), entry.n_classes, {"weights": "none"})
    return BUILT[name]


def images(name: str, count: int = 3) -> np.ndarray:
    size = models.info(name).input_size
    return np.random.default_rng(1).integers(0, 256, (count, *size, 3)).astype("uint8")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("cnn_105k", 105_234),
        ("simple_cnn", 61_533),
        ("mobilenet_v2", 574_434),
        ("efficientnet_lite", 3_415_586),
        ("efficientnet_v2_b0", 5_921_874),
        ("convnext_tiny", 27_821_666),
        ("resnet50", 23_604_104),
        ("frozen_features", 3_417_474),
        ("pcam_cnn", 147_506),
    ],
)
def test_parameter_counts(name: str, parameters: int) -> None:
    assert built(name).count_params() == models.info(name).parameters == parameters


def test_every_model_is_pinned_and_says_where_it_comes_from() -> None:
    assert set(models.MODELS) == {
        "cnn_105k", "simple_cnn", "mobilenet_v2", "efficientnet_lite", "efficientnet_v2_b0", "convnext_tiny",
        "resnet50", "pcam_cnn", "frozen_features",
    }  # fmt: skip
    for name, entry in models.MODELS.items():
        assert entry.name == name and len(entry.source) > 40 and entry.title


@pytest.mark.parametrize("name", models.MODELS)
def test_contract_of_inputs_and_outputs(name: str) -> None:
    model = built(name)
    x = images(name)
    before = model.get_weights()
    out = model(x)
    # Called without a word on training, nothing may learn (keras.layers.Resizing would switch training on).
    assert all(np.array_equal(a, b) for a, b in zip(model.get_weights(), before, strict=True))
    assert model.name == name and model.layers[-1].name == "probabilities"
    assert keras.backend.standardize_dtype(out.dtype) == "float32"
    np.testing.assert_allclose(np.asarray(out).sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(model(x.astype("float32"))), np.asarray(out))
    logits = np.asarray(models.logits_model(model)(x))
    np.testing.assert_allclose(np.asarray(keras.ops.softmax(logits)), np.asarray(out), atol=1e-6)
    # Each image is judged for itself, whatever stands beside it in the batch.
    np.testing.assert_allclose(np.asarray(model(x[1:2]))[0], np.asarray(out)[1], atol=1e-4)
    assert model(x, training=True).shape == out.shape == (3, models.info(name).n_classes)


def test_architecture_of_cnn_105k() -> None:
    layers = [layer for layer in built("cnn_105k").layers if layer.weights]
    convolutions = [layer for layer in layers if isinstance(layer, keras.layers.Conv2D)]
    assert [c.filters for c in convolutions] == [16, 16, 32, 32, 64, 64]
    assert {(c.kernel_size, c.padding, c.activation.__name__) for c in convolutions} == {((3, 3), "valid", "relu")}
    assert [layer.units for layer in layers if isinstance(layer, keras.layers.Dense)] == [128, 2]
    assert sum(isinstance(layer, keras.layers.MaxPooling2D) for layer in built("cnn_105k").layers) == 3


def test_simple_cnn_is_separable_and_light() -> None:
    model = built("simple_cnn")
    kinds = [type(layer) for layer in model.layers]
    assert kinds.count(keras.layers.SeparableConv2D) == 6 and keras.layers.Conv2D not in kinds
    assert model.count_params() < built("cnn_105k").count_params()


@pytest.mark.parametrize(("size", "seen"), [((50, 50), (96, 96)), ((40, 60), (96, 144)), ((100, 120), (100, 120))])
def test_mobilenet_sees_at_least_96_pixels(size: tuple[int, int], seen: tuple[int, int]) -> None:
    model = models.build("mobilenet_v2", (*size, 3), 2, {"weights": "none"})
    assert model.get_layer("backbone").input_shape[1:3] == seen


def test_mobilenet_alpha_changes_the_width() -> None:
    wide = models.build("mobilenet_v2", (96, 96, 3), 2, {"weights": "none", "alpha": 0.5})
    assert wide.get_layer("backbone").count_params() > 410_208 == models.info("mobilenet_v2").backbone_parameters


@pytest.mark.parametrize("name", ["cnn_105k", "pcam_cnn"])
def test_float32_output_under_mixed_precision(name: str) -> None:
    keras.config.set_dtype_policy("mixed_float16")
    try:
        entry = models.info(name)
        model = models.build(name, (*entry.input_size, 3), 2)
        assert any(layer.compute_dtype == "float16" for layer in model.layers)
        for end in (model, models.logits_model(model)):
            out = end(images(name))
            assert keras.backend.standardize_dtype(out.dtype) == "float32" and np.isfinite(np.asarray(out)).all()
    finally:
        keras.config.set_dtype_policy("float32")


def test_image_size_resizes_in_the_graph() -> None:
    model = models.build("cnn_105k", (96, 96, 3), 2, image_size=(50, 50))
    assert model.count_params() == 105_234 and model.input_shape == (None, 96, 96, 3)


@pytest.mark.parametrize("name", SMALL)
def test_other_sizes_and_classes(name: str) -> None:
    side = max(64, models.info(name).min_size)
    model = models.build(name, (side, side + 6, 3), 8, {"weights": "none"})
    assert model(np.zeros((2, side, side + 6, 3), "uint8")).shape == (2, 8)
    smallest = models.info(name).min_size
    models.build(name, (smallest, smallest, 3), 2, {"weights": "none"})


def test_what_a_model_cannot_take() -> None:
    for call, said in [
        (lambda: models.build("cnn_105", (50, 50, 3), 2), "Did you mean 'cnn_105k'"),
        (lambda: models.build("cnn_105k", (30, 50, 3), 2), "at least 36 pixels"),
        (lambda: models.build("cnn_105k", (50, 50, 1), 2), "RGB"),
        (lambda: models.build("cnn_105k", (50, 50, 3), 1), "two classes"),
        (lambda: models.build("cnn_105k", (50, 50, 3), 2, {"alpha": 1}), "options.alpha"),
    ]:
        with pytest.raises(UsageError, match=said):
            call()


def test_crop_offsets_cover_the_side() -> None:
    assert crop_offsets(350, 224) == [0, 63, 126]
    assert crop_offsets(230, 224) == [3] and crop_offsets(224, 224) == [0]
    for length in range(252, 700, 7):
        starts = crop_offsets(length, 224)
        assert starts[0] == 0 and starts[-1] == length - 224
        assert max(b - a for a, b in zip(starts, starts[1:], strict=False)) <= 112


def test_random_crops_in_training_fixed_ones_otherwise() -> None:
    place = np.arange(14 * 20).reshape(14, 20)
    x = np.repeat(np.stack([place] * 3, axis=-1)[None], 64, axis=0).astype("float32")
    layer = CropViews(8, seed=3)
    cropped = np.asarray(layer(x, training=True))
    assert cropped.shape == (64, 8, 8, 3)
    corners = cropped[:, 0, 0, 0].astype(int)
    assert set(corners // 20) == set(range(7)) and set(corners % 20) == set(range(13))
    for image, corner in zip(cropped, corners, strict=True):
        top, left = divmod(corner, 20)
        np.testing.assert_array_equal(image[..., 0], place[top : top + 8, left : left + 8])
    views = np.asarray(layer(x[:2]))
    assert layer.count(x.shape) == 12 and views.shape == (24, 8, 8, 3)
    assert sorted(views[::2, 0, 0, 0]) == [20 * r + c for r in crop_offsets(14, 8) for c in crop_offsets(20, 8)]
    np.testing.assert_array_equal(views, np.asarray(layer(x[:2])))
    assert CropViews(50)(x, training=True).shape == x.shape and CropViews(50).count(x.shape) == 1


def test_mean_over_views_puts_each_image_together_again() -> None:
    logits = np.arange(12, dtype="float32").reshape(6, 2)  # 3 views of 2 images: rows 0, 2, 4 are the first image
    np.testing.assert_allclose(np.asarray(MeanOverViews(3)(logits)), [[4, 5], [6, 7]])
    np.testing.assert_array_equal(np.asarray(MeanOverViews(3)(logits, training=True)), logits)


@pytest.mark.parametrize(
    ("views", "side", "n"), [(8, 5, 8), (4, 5, 4), (2, 5, 2), (1, 5, 1), (8, 6, 4), (4, 6, 4), (2, 6, 2)]
)
def test_turned_views_are_all_different(views: int, side: int, n: int) -> None:
    x = np.random.default_rng(0).random((2, 5, side, 3)).astype("float32")
    out = np.asarray(TurnedViews(views)(x))
    assert len(out) == 2 * n and len({v.tobytes() for v in out}) == 2 * n
    turned = [np.rot90(x[0], k) for k in range(4)]
    group = {v.tobytes() for t in turned for v in (t, t[:, ::-1])}
    assert {v.tobytes() for v in out[::2]} <= group
    np.testing.assert_array_equal(np.asarray(TurnedViews(views)(x, training=True)), x)


@pytest.mark.parametrize(("name", "size"), [("cnn_105k", (50, 50)), ("simple_cnn", (24, 40)), ("pcam_cnn", (48, 48))])
def test_every_model_averages_logits_over_the_symmetries(name: str, size: tuple[int, int]) -> None:
    keras.utils.set_random_seed(1)
    one = models.build(name, (*size, 3), 2, views=1)
    eight = models.build(name, (*size, 3), 2, views=8)
    one.set_weights([3 * weight for weight in one.get_weights()])  # fresh ones of simple_cnn give almost nothing
    eight.set_weights(one.get_weights())
    x = np.random.default_rng(1).integers(0, 256, (2, *size, 3)).astype("float32")
    turned = [np.rot90(x, k, axes=(1, 2)) for k in ((0, 1, 2, 3) if size[0] == size[1] else (0, 2))]
    each = [np.asarray(models.logits_model(one)(v)) for t in turned for v in (t, t[:, :, ::-1])]
    np.testing.assert_allclose(np.asarray(models.logits_model(eight)(x)), np.mean(each, axis=0), rtol=1e-4, atol=1e-4)
    assert np.ptp(each, axis=0).max() > 1e-2
    # In training there is one view of each image, whatever evaluation does.
    assert eight(x, training=True).shape == (2, 2)
    assert models.pixels_per_image(eight) == len(each) * size[0] * size[1] == len(each) * models.pixels_per_image(one)


@pytest.mark.parametrize("views", [4, 8])
def test_pcam_cnn_is_invariant_to_quarter_turns(views: int) -> None:
    model = models.logits_model(models.build("pcam_cnn", (96, 96, 3), 2, views=None if views == 4 else views))
    x = images("pcam_cnn").astype("float32")
    wanted = np.asarray(model(x))
    for turns in (1, 2, 3):
        np.testing.assert_allclose(np.asarray(model(np.rot90(x, turns, axes=(1, 2)))), wanted, atol=1e-4)
    mirrored = np.asarray(model(x[:, :, ::-1]))
    assert np.allclose(mirrored, wanted, atol=1e-4) == (views == 8)


def test_resnet50_averages_logits_over_its_crops_and_regularises_kernels() -> None:
    model = models.build("resnet50", (230, 350, 3), 8, {"weights": "none"})
    x = images("resnet50", 2)
    first = keras.Model(model.input, model.get_layer("head_logits").output)
    each = np.asarray(first(x)).reshape(3, 2, 8)
    np.testing.assert_allclose(np.asarray(models.logits_model(model)(x)), each.mean(axis=0), atol=1e-5)
    assert len(model.losses) == 54  # 53 convolutions and the head
    assert models.pixels_per_image(model) == 3 * 224 * 224
    assert not models.build("resnet50", (64, 64, 3), 2, {"weights": "none", "l2": 0}).losses


def test_activity_regularisation_is_per_image_and_follows_the_logits() -> None:
    model = models.build(
        "resnet50", (64, 64, 3), 2, {"weights": "none", "l2": 0, "activity_l2": 0.01, "dropout": 0}, views=2
    )
    training = training_model(model, Augmentation(), 0)
    x = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3)).astype("float32")
    first = keras.Model(model.input, model.get_layer("head_logits").output)
    squares = np.sum(np.asarray(first(x)) ** 2) / 8
    assert squares > 0
    for batch in (x, np.concatenate([x, x])):  # no heavier for a larger batch
        training(batch)
        (loss,) = training.losses
        np.testing.assert_allclose(float(loss), 0.01 * squares, rtol=1e-3)


@pytest.mark.parametrize("alpha", [0.5, 1.3])
def test_names_of_published_weights_are_what_keras_asks_for(alpha: float, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.applications import mobilenet_v2 as keras_mobilenet

    asked: list[str] = []

    def note(name: str, origin: str, **_: object) -> str:
        asked.append(origin)
        raise ConnectionError

    monkeypatch.setattr(keras_mobilenet.file_utils, "get_file", note)
    with pytest.raises(ConnectionError):
        keras.applications.MobileNetV2((224, 224, 3), alpha, include_top=False, weights="imagenet")
    assert asked == [mobilenet_v2.imagenet_file({"alpha": alpha})]
    name = asked[0].rsplit("/", 1)[1]
    mobilenet_v2.check_weights_file({"alpha": alpha, "weights": f"/some/where/{name}"})
    with pytest.raises(UsageError, match=f"weights of width {alpha:g}.*Set options.alpha to {alpha:g}"):
        mobilenet_v2.check_weights_file({"alpha": 0.35, "weights": name})
    with pytest.raises(UsageError, match="classifier"):
        mobilenet_v2.check_weights_file({"alpha": alpha, "weights": name.replace("_no_top", "")})


def test_head_of_mobilenet_is_dense_dropout_dense() -> None:
    head = [layer for layer in built("mobilenet_v2").layers if layer.name.startswith("head")]
    assert [layer.name for layer in head] == ["head_dense", "head_dropout", "head_logits"]
    assert (head[0].units, head[1].rate, head[2].units) == (128, 0.2, 2)
    bare = models.build("mobilenet_v2", (32, 32, 3), 2, {"weights": "none", "dense": 0})
    assert bare.count_params() == 412_770


def test_models_and_augmentation_use_no_tensorflow() -> None:
    from pathlib import Path

    folder = Path(registry.__file__).parent
    for path in [
        *folder.glob("*.py"),
        folder.parent / "augmentation.py",
        *(folder.parent / f"{name}.py" for name in ("augmentation_layers", "augment", "colour_spaces")),
        *(folder.parent / f"{name}.py" for name in ("stain_augmentation", "stain_normalisation", "stain_targets")),
    ]:
        text = path.read_text(encoding="utf-8")
        assert "import tensorflow" not in text and "tf." not in text.replace("tf_dim", ""), path.name


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet50"])
def test_moving_statistics_of_backbones_follow_a_short_training(name: str) -> None:
    layers = built(name).get_layer("backbone").layers
    momenta = {layer.momentum for layer in layers if isinstance(layer, keras.layers.BatchNormalization)}
    assert momenta == {0.9}
