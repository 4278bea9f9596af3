"""ResNet50 over 224x224 crops: one random crop in training, the mean over fixed crops in evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.training.models.info import ModelInfo, Option, dropout, l2, weights

if TYPE_CHECKING:
    import keras

INFO = ModelInfo(
    name="resnet50",
    title="ResNet50 over 224x224 crops, for BreakHis",
    source=(
        "He et al. 2016 (doi 10.1109/CVPR.2016.90), backbone and ImageNet weights of keras.applications; averaging "
        "over crops as Krizhevsky et al. 2012, on logits. The head is ours: global average pooling, dropout, one "
        "dense layer; L2 on every kernel, and on the head's activity where asked for."
    ),
    input_size=(230, 350),
    n_classes=8,
    parameters=23_604_104,
    backbone_parameters=23_587_712,
    options=(
        Option("crop", "int", 224, "Side of the square crops in pixels; a smaller image is taken whole", 32, 512),
        dropout(0.3),
        l2(1e-4),
        Option("activity_l2", "float", 0.0, "L2 regularisation of the head's activity, its logits", 0.0, 0.1),
        weights("imagenet", imagenet=True),
    ),
)

MEAN_BGR = (103.939, 116.779, 123.68)
"""Channel means of ImageNet that the published weights expect to be taken off, in the order blue, green, red."""


def logits(images: Any, n_classes: int, options: Mapping[str, Any]) -> tuple[Any, Any]:
    """Adds the network itself, up to the logits of each view.

    Args:
        images: KerasTensor float32[N, H, W, 3], grey levels 0-255.
        n_classes: Width of the output.
        options: Checked options.

    Returns:
        (logits [N, n_classes] of the layer `head_logits`, the backbone without weights loaded).
    """
    import keras
    from keras import layers

    from components.training.models.activity import MeanSquaredActivity

    x = scaled(images)
    made = backbone(options, x.shape[1:3])
    decay = keras.regularizers.L2(options["l2"]) if options["l2"] else None
    for weight in made.trainable_weights:
        if weight.name == "kernel":
            weight.regularizer = decay
    x = layers.GlobalAveragePooling2D(name="average")(made(x))
    if options["dropout"]:
        x = layers.Dropout(options["dropout"], name="head_dropout")(x)
    activity = MeanSquaredActivity(options["activity_l2"]) if options["activity_l2"] else None
    return layers.Dense(
        n_classes, kernel_regularizer=decay, activity_regularizer=activity, dtype="float32", name="head_logits"
    )(x), made


def scaled(images: Any) -> Any:
    """Grey levels 0-255 as the published weights want them."""
    from keras import layers, ops

    return layers.Rescaling(1.0, offset=[-mean for mean in MEAN_BGR], name="rescale")(ops.flip(images, axis=-1))


def backbone(options: Mapping[str, Any], size: tuple[int, int]) -> keras.Model:
    """The network without its classifier, with random weights.

    Args:
        options: None are looked at.
        size: (height, width) in pixels.
    """
    import keras

    return keras.applications.ResNet50(input_shape=(*size, 3), include_top=False, weights=None, name="backbone")


def imagenet_file(options: Mapping[str, Any]) -> str:
    """Address of the published weights without the classifier."""
    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    return f"https://storage.googleapis.com/tensorflow/keras-applications/resnet/{name}"
