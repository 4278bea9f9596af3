"""MobileNetV2 backbone with a head of its own; images are resized to at least 96 pixels in the graph."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.errors import UsageError
from components.training.models.info import ModelInfo, Option, dropout, weights
from components.training.models.pooled_head import pooled_logits

if TYPE_CHECKING:
    import keras

ALPHAS = (0.35, 0.5, 0.75, 1.0, 1.3, 1.4)
"""Widths for which keras.applications publishes weights."""

ALPHA = Option("alpha", "choice", 0.35, "Width of the backbone MobileNetV2", choices=ALPHAS)

INFO = ModelInfo(
    name="mobilenet_v2",
    title="MobileNetV2 backbone, ImageNet weights, dense head",
    source=(
        "Sandler et al. 2018 (doi 10.1109/CVPR.2018.00474), backbone and ImageNet weights of keras.applications; the "
        "head is ours: global average pooling, dense, dropout, dense."
    ),
    input_size=(50, 50),
    n_classes=2,
    parameters=574_434,
    backbone_parameters=410_208,
    options=(
        ALPHA,
        Option("resize", "int", 96, "Shorter side to which smaller images are resized, in pixels", 96, 224),
        Option("dense", "int", 128, "Units of the head's first dense layer, 0 for none", 0, 4096),
        dropout(0.2),
        weights("imagenet", imagenet=True),
    ),
    min_size=8,
)


def logits(images: Any, n_classes: int, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Adds the network itself; see `pooled_logits`."""
    return pooled_logits(images, n_classes, options, scaled, backbone)


def scaled(images: Any) -> Any:
    """Grey levels 0-255 as the published weights want them."""
    from keras import layers

    return layers.Rescaling(1 / 127.5, offset=-1.0, name="rescale")(images)


def backbone(options: Mapping[str, Any], size: tuple[int, int]) -> keras.Model:
    """The network without its classifier, with random weights.

    Args:
        options: With `alpha`.
        size: (height, width) in pixels.
    """
    import keras

    return keras.applications.MobileNetV2(
        input_shape=(*size, 3), alpha=options["alpha"], include_top=False, weights=None, name="backbone"
    )


def imagenet_file(options: Mapping[str, Any]) -> str:
    """Address of the published weights without the classifier, made for 224x224 (any size fits)."""
    name = f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(options['alpha'])}_224_no_top.h5"
    return f"https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/{name}"


def check_weights_file(options: Mapping[str, Any]) -> None:
    """Refuses a published file whose name tells that it is of another width, or that it has a classifier.

    Raises:
        UsageError: It does.
    """
    name = os.path.basename(str(options["weights"]))
    told = re.fullmatch(r"mobilenet_v2_(?:weights_tf_dim_ordering_tf_kernels_)?([\d.]+)_\d+(_no_top)?\.h5", name)
    if told is None:
        return
    alpha = float(told[1])
    if alpha != options["alpha"]:
        raise UsageError(
            f"options.weights is {name}, weights of width {alpha:g}; options.alpha is {options['alpha']:g}.",
            f"Set options.alpha to {alpha:g}, or give {imagenet_file(options).rsplit('/', 1)[1]}.",
        )
    if not told[2]:
        raise UsageError(
            f"options.weights is {name}, which holds ImageNet's classifier too.",
            f"Give the file without it: {imagenet_file(options).rsplit('/', 1)[1]}.",
        )
