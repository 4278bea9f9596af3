"""Compact CNN for PCam: looks at the centre that the label speaks of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.training.models.info import GREY_MEAN, GREY_STD, ModelInfo, dropout, weights

INFO = ModelInfo(
    name="pcam_cnn",
    title="Compact CNN for 96x96 with a separate look at the centre",
    source=(
        "Ours: seven 3x3 convolutions with batch normalisation; centre and whole are pooled apart, since a PCam "
        "label speaks of the centre 32x32 only (Veeling et al. 2018, doi 10.1007/978-3-030-00934-2_24). In place of "
        "their group convolutions, evaluation averages the logits over four turned views (a recipe's `views`), which "
        "makes the model invariant to quarter turns."
    ),
    input_size=(96, 96),
    n_classes=2,
    parameters=147_506,
    options=(
        dropout(0.3),
        weights("none", imagenet=False),
    ),
    min_size=48,
    views=4,
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
    for block, (filters, depth) in enumerate(((16, 2), (32, 2), (64, 2), (128, 1)), start=1):
        if block > 1:
            x = layers.MaxPooling2D(name=f"block{block}_pool")(x)
        for i in range(depth):
            name = f"block{block}_{i}"
            # Half resolution from the start: three quarters of the work would lie in the first block otherwise.
            stride = 2 if name == "block1_0" else 1
            x = layers.Conv2D(filters, 3, strides=stride, padding="same", use_bias=False, name=f"{name}_conv")(x)
            x = layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
            x = layers.Activation("relu", name=f"{name}_relu")(x)
    # The middle third of the map (2x2 of 6x6 at 96x96) is what lies under the label.
    rows, columns = x.shape[1] // 3, x.shape[2] // 3
    centre = layers.Cropping2D(((rows, rows), (columns, columns)), name="centre")(x)
    x = layers.Concatenate(name="features")(
        [
            layers.GlobalMaxPooling2D(name="centre_max")(centre),
            layers.GlobalAveragePooling2D(name="average")(x),
        ]
    )
    if options["dropout"]:
        x = layers.Dropout(options["dropout"], name="head_dropout")(x)
    return layers.Dense(n_classes, dtype="float32", name="head_logits")(x), None
