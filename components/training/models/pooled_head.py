"""The small head that several backbones carry: pooled features, a dense layer where asked for, dropout, logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Scale = Callable[[Any], Any]
"""Grey levels 0-255 to what the published weights want."""

Backbone = Callable[[Mapping[str, Any], tuple[int, int]], Any]
"""Options and (height, width) to the network without its classifier."""


def pooled_logits(
    images: Any, n_classes: int, options: Mapping[str, Any], scaled: Scale, backbone: Backbone
) -> tuple[Any, Any]:
    """Adds a network on enlarged images, up to the logits of each view.

    Args:
        images: KerasTensor float32[N, H, W, 3], grey levels 0-255.
        n_classes: Width of the output.
        options: Checked options; `resize`, `dropout`, and `dense` where the model has it.
        scaled: See `Scale`.
        backbone: See `Backbone`.

    Returns:
        (logits [N, n_classes] of the layer `head_logits`, the backbone without weights loaded).
    """
    from keras import layers

    from components.training.models.resize import enlarged

    x = scaled(enlarged(images, options["resize"]))
    made = backbone(options, x.shape[1:3])
    x = layers.GlobalAveragePooling2D(name="average")(made(x))
    if options.get("dense"):
        x = layers.Dense(options["dense"], activation="relu", name="head_dense")(x)
    if options["dropout"]:
        x = layers.Dropout(options["dropout"], name="head_dropout")(x)
    return layers.Dense(n_classes, dtype="float32", name="head_logits")(x), made
