"""Lightweight CNN of separable convolutions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.training.models.info import GREY_MEAN, GREY_STD, ModelInfo, dropout, weights

INFO = ModelInfo(
    name="simple_cnn",
    title="Three blocks of separable convolutions, lightweight",
    source=(
        "Depthwise separable convolutions (Chollet 2017, doi 10.1109/CVPR.2017.195) in blocks of 1, 2 and 3 with 32, "
        "64 and 128 filters, each followed by batch normalisation; global average pooling instead of a large dense "
        "layer."
    ),
    input_size=(50, 50),
    n_classes=2,
    parameters=61_533,
    options=(dropout(0.3), weights("none", imagenet=False)),
    min_size=16,
)


def logits(images: Any, n_classes: int, options: Mapping[str, Any]) -> tuple[Any, None]:
    """Adds the network itself, up to the logits of each view.

    Args:
        images: KerasTensor float32[N, H, W, 3], grey levels 0-255.
        n_classes: Width of the output.
        options: Checked options.

    Returns:
        (logits [N, n_classes] of the layer `head_logits`, no backbone).
    """
    from keras import layers

    x = layers.Rescaling(1 / GREY_STD, offset=-GREY_MEAN / GREY_STD, name="rescale")(images)
    for block, filters in enumerate((32, 64, 128), start=1):
        for i in range(block):
            name = f"block{block}_{i}"
            x = layers.SeparableConv2D(filters, 3, padding="same", use_bias=False, name=f"{name}_conv")(x)
            # Recipes are short: at Keras' momentum of 0.99 the moving statistics would lag behind for epochs.
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
        x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(64, activation="relu", name="head_dense")(x)
    if options["dropout"]:
        x = layers.Dropout(options["dropout"], name="head_dropout")(x)
    return layers.Dense(n_classes, dtype="float32", name="head_logits")(x), None
