"""Plain CNN with 105,234 parameters for IDC patches of 50x50."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.training.models.info import GREY_MEAN, GREY_STD, ModelInfo, dropout, weights

INFO = ModelInfo(
    name="cnn_105k",
    title="Plain CNN, six convolutions, 105,234 parameters at 50x50",
    source=(
        "VGG-like stack (Simonyan and Zisserman 2015, arXiv:1409.1556) at the scale usual for IDC patches: pairs of "
        "valid 3x3 convolutions with 16, 32 and 64 filters, a dense layer of 128 and a softmax."
    ),
    input_size=(50, 50),
    n_classes=2,
    parameters=105_234,
    options=(dropout(0.0), weights("none", imagenet=False)),
    min_size=36,
)


def logits(images: Any, n_classes: int, options: Mapping[str, Any]) -> tuple[Any, None]:
    """Adds the network itself, up to the logits of each view.

    Args:
        images: KerasTensor float32[N, H, W, 3], grey levels 0-255; H and W at least 36 by the valid convolutions.
        n_classes: Width of the output.
        options: Checked options.

    Returns:
        (logits [N, n_classes] of the layer `head_logits`, no backbone).
    """
    from keras import layers

    x = layers.Rescaling(1 / GREY_STD, offset=-GREY_MEAN / GREY_STD, name="rescale")(images)
    for filters in (16, 32, 64):
        x = layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal", name=f"conv{filters}_a")(x)
        x = layers.Conv2D(filters, 3, activation="relu", kernel_initializer="he_normal", name=f"conv{filters}_b")(x)
        x = layers.MaxPooling2D(name=f"pool{filters}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="head_dense")(x)
    if options["dropout"]:
        x = layers.Dropout(options["dropout"], name="head_dropout")(x)
    return layers.Dense(n_classes, dtype="float32", name="head_logits")(x), None
