"""ConvNeXt-Tiny of keras.applications with a small head; images are resized in the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.training.models.info import ModelInfo, Option, dropout, weights
from components.training.models.pooled_head import pooled_logits

if TYPE_CHECKING:
    import keras

INFO = ModelInfo(
    name="convnext_tiny",
    title="ConvNeXt-Tiny backbone, ImageNet weights to download, small head",
    source=(
        "Liu et al. 2022 (arXiv 2201.03545), backbone and ImageNet weights of keras.applications; the head is ours: "
        "global average pooling, dropout, one dense layer."
    ),
    input_size=(50, 50),
    n_classes=2,
    parameters=27_821_666,
    backbone_parameters=27_820_128,
    options=(
        Option("resize", "int", 96, "Shorter side to which smaller images are resized, in pixels", 32, 512),
        dropout(0.3),
        weights("imagenet", imagenet=True),
    ),
    min_size=8,
)


def logits(images: Any, n_classes: int, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Adds the network itself; see `pooled_logits`."""
    return pooled_logits(images, n_classes, options, scaled, backbone)


def scaled(images: Any) -> Any:
    """Grey levels 0-255 as the published weights want them: the backbone itself scales them."""
    return images


def backbone(options: Mapping[str, Any], size: tuple[int, int]) -> keras.Model:
    """The network without its classifier, with random weights.

    Args:
        options: None are looked at.
        size: (height, width) in pixels.
    """
    import keras

    return keras.applications.ConvNeXtTiny(input_shape=(*size, 3), include_top=False, weights=None, name="backbone")


def imagenet_file(options: Mapping[str, Any]) -> str:
    """Address of the published weights without the classifier."""
    return "https://storage.googleapis.com/tensorflow/keras-applications/convnext/convnext_tiny_notop.h5"
