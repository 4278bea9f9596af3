"""A frozen backbone under a small head that is fitted on its pooled features, computed once per image.

The backbone is one of the other models', or a SavedModel or Keras file of the user's own (`foreign_backbone`). The
graph is an ordinary model of the registry, so that everything behind training takes it as any other; only how the head
gets its weights is another way (`components.training.feature_fit`).
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

from components.training.models import convnext_tiny, efficientnet_lite, efficientnet_v2_b0, mobilenet_v2, resnet50
from components.training.models.info import ModelInfo, Option, weights

BACKBONES: dict[str, tuple[ModuleType, dict[str, Any]]] = {
    **{f"efficientnet_lite{variant}": (efficientnet_lite, {"variant": variant}) for variant in (0, 1, 2)},
    "mobilenet_v2": (mobilenet_v2, {}),
    "resnet50": (resnet50, {}),
    "efficientnet_v2_b0": (efficientnet_v2_b0, {}),
    "convnext_tiny": (convnext_tiny, {}),
}
"""Word of `options.backbone` -> (module with `scaled`, `backbone` and `imagenet_file`, its options)."""

FEATURES_LAYER = "features"
"""Of the model: the pooled features of an image, the mean over its views, [N, F]."""

PROJECTIONS = ("project_bn", ".bn2")
"""How the last layers of inverted residual blocks are called, by keras.applications and by our EfficientNet-Lite."""

SMALLEST_VARIANCE = 1e-6

POOLS_VIEWS = True
"""The views of an image come together in its features, before the head: for a linear head that is the mean of their
logits, and of any head it makes one row to fit on of every image."""

HEAD_OPTIONS = ("head", "units", "strength")
"""Options that do not change the features."""

INFO = ModelInfo(
    name="frozen_features",
    title="Frozen backbone, regularised head on its pooled features; trained in minutes",
    source=(
        "The usual linear probe (Alain and Bengio 2016, arXiv 1610.01644) on backbones of the other models or a file "
        "of the user's own; features of every symmetry are computed once and kept, and the strength of the L2 penalty "
        "is chosen by cross-validation over patients."
    ),
    input_size=(50, 50),
    n_classes=2,
    parameters=3_417_474,
    backbone_parameters=3_413_024,
    options=(
        Option("backbone", "file", "efficientnet_lite0", "Frozen backbone", choices=tuple(BACKBONES)),
        mobilenet_v2.ALPHA,
        Option("resize", "int", 96, "Shorter side to which smaller images are resized, in pixels", 32, 1024),
        Option(
            "scaling", "choice", "unit", "What a backbone from a file takes: grey levels 0-255 as they are, 0 to 1, -1"
            " to 1, or by mean and deviation of ImageNet", choices=("none", "unit", "signed", "imagenet"),
        ),
        Option("stages", "int", 8, "Stages of the backbone whose pooled features are taken, from the last on", 1, 8),
        Option(
            "spread", "int", 4, "Lowest of these stages of which the deviation over places is taken too", 0, 8
        ),
        Option("head", "choice", "linear", "Head on the features", choices=("linear", "mlp")),
        Option("units", "int", 64, "Hidden units of the head mlp", 1, 4096),
        Option("strength", "float", 0.0, "L2 penalty of the head, per patch; 0: by cross-validation", 0.0, 1e6),
        weights("imagenet", imagenet=True),
    ),
    min_size=8,
    phases=False,
)  # fmt: skip


def brings_weights(options: Mapping[str, Any]) -> bool:
    """Whether the backbone comes from a file, with its weights."""
    return options["backbone"] not in BACKBONES


def logits(images: Any, n_classes: int, options: Mapping[str, Any], mean: Any) -> tuple[Any, Any]:
    """Adds the network itself, up to the logits of each image.

    Args:
        images: KerasTensor float32[N, H, W, 3], grey levels 0-255.
        n_classes: Width of the output.
        options: Checked options.
        mean: Layer that averages over the views of each image.

    Returns:
        (logits [N, n_classes] of the layer `head_logits`, the backbone without weights loaded; None where it comes
        from a file with its weights).
    """
    from keras import layers

    from components.training.models.resize import enlarged

    made = None
    if options["backbone"] in BACKBONES:
        module, more = BACKBONES[options["backbone"]]
        x = module.scaled(enlarged(images, options["resize"]))
        made = module.backbone({**options, **more}, x.shape[1:3])
        made.trainable = False
        maps = staged(made, options["stages"])(x)
        pooled = [layers.GlobalAveragePooling2D(name=f"average_{i}")(part) for i, part in enumerate(maps)]
        pooled += [_deviation(part) for part in lowest(maps, options)]
    else:
        from components.training.models.foreign_backbone import pooled_features

        pooled = [pooled_features(images, options["backbone"], options["resize"], options["scaling"])]
    x = layers.Concatenate(name="stages")(pooled) if len(pooled) > 1 else pooled[0]
    x = layers.Identity(dtype="float32", name=FEATURES_LAYER)(mean(x))
    if options["head"] == "mlp":
        x = layers.Dense(options["units"], activation="relu", dtype="float32", name="head_hidden")(x)
    return layers.Dense(n_classes, dtype="float32", name="head_logits")(x), made


def staged(backbone: Any, stages: int) -> Any:
    """A backbone with feature maps of its lower stages beside its own.

    A stage ends with the last block of one width and size: with a residual sum, or with a projection where a block has
    none.

    Args:
        backbone: A functional model of feature maps.
        stages: How many, its own output included; fewer where it has fewer.

    Returns:
        A model that shares its layers: list of maps, the deepest first.
    """
    import keras

    ends: dict[tuple[int, ...], Any] = {}
    for operation in backbone.operations:
        # The sum may be a layer or a plus sign.
        if type(operation).__name__ == "Add" or operation.name.lower().endswith(PROJECTIONS):
            shape = tuple(operation.output.shape[1:])
            ends.pop(shape, None)
            ends[shape] = operation.output
    ends.pop(tuple(backbone.output.shape[1:]), None)
    maps = [backbone.output, *reversed(ends.values())]
    return keras.Model(backbone.input, maps[:stages], name="backbone")


def lowest(maps: list[Any], options: Mapping[str, Any]) -> list[Any]:
    """Those of a backbone's maps, the deepest first, of which the deviation is taken too."""
    return maps[max(0, len(maps) - int(options["spread"])) :]


def _deviation(maps: Any) -> Any:
    """Standard deviation over places, [N, C]; its slope stays finite where a map is the same everywhere."""
    from keras import ops

    return ops.sqrt(ops.var(maps, axis=(1, 2)) + SMALLEST_VARIANCE)


def stage_widths(model: Any, options: Mapping[str, Any]) -> tuple[int, ...]:
    """How many of a model's features come from each stage, in their order; empty for a backbone from a file."""
    if brings_weights(options):
        return ()
    maps = list(model.get_layer("backbone").output)
    return tuple(int(part.shape[-1]) for part in [*maps, *lowest(maps, options)])


def imagenet_file(options: Mapping[str, Any]) -> str:
    """Where the published weights of the chosen backbone are."""
    module, more = BACKBONES[options["backbone"]]
    return str(module.imagenet_file({**options, **more}))


def load_published(model: Any, path: str) -> None:
    """Loads a published file that is not HDF5 into the backbone; raises ValueError where it does not fit."""
    efficientnet_lite.load_published(model, path)


def check_weights_file(options: Mapping[str, Any]) -> None:
    """Refuses a weights file whose name does not go with the backbone; raises UsageError."""
    if options["backbone"] == "mobilenet_v2":
        mobilenet_v2.check_weights_file(options)
