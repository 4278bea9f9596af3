"""All models by name. Reading about a model costs nothing; Keras is loaded when one is built."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from components.core.field_checks import choice
from components.errors import UsageError
from components.training.models import (
    cnn_105k,
    convnext_tiny,
    efficientnet_lite,
    efficientnet_v2_b0,
    frozen_features,
    mobilenet_v2,
    pcam_cnn,
    resnet50,
    simple_cnn,
    weights,
)
from components.training.models.downloads import fetch
from components.training.models.info import FILES, ModelInfo
from components.training.models.info import weights as weights_option
from components.training.stain_targets import StainTarget

if TYPE_CHECKING:
    import keras

_MODULES: dict[str, ModuleType] = {
    module.INFO.name: module
    for module in (
        cnn_105k,
        simple_cnn,
        mobilenet_v2,
        efficientnet_lite,
        efficientnet_v2_b0,
        convnext_tiny,
        resnet50,
        pcam_cnn,
        frozen_features,
    )
}

STAIN_LAYER, VIEWS_LAYER = "stain_normalisation", "turned_views"
"""Names of two layers of every model that has them."""

MODELS: dict[str, ModelInfo] = {name: module.INFO for name, module in _MODULES.items()}
"""Every model of the registry; a new one is one new file and its name above."""


ENSEMBLE = ModelInfo(
    name="ensemble",
    title="Mean of the models of several runs",
    source="Each member's own; the mean is taken of calibrated logits (components/training/mean_model.py)",
    input_size=(0, 0),
    n_classes=2,
    parameters=0,
    options=(weights_option("none", imagenet=False),),
    min_size=1,
)
"""What a recipe with `ensemble` calls its model: nothing that is built, so it stands in no list of models."""


def info(name: str) -> ModelInfo:
    """What is known of a model.

    Raises:
        UsageError: No such model; names the nearest.
    """
    if name == ENSEMBLE.name:
        return ENSEMBLE
    return MODELS[choice("model", name, tuple(MODELS))]


def build(
    name: str,
    input_shape: tuple[int, int, int],
    n_classes: int,
    options: Mapping[str, Any] | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    views: int | None = None,
    stain: StainTarget | None = None,
) -> keras.Model:
    """Builds a model with its starting weights.

    What stands around every network is the same: stain normalisation, resizing, crops, symmetries; then the network;
    then the mean of its logits over crops and symmetries. Augmentation has its place between crops and symmetries
    (`split_model`).

    Args:
        name: A key of `MODELS`.
        input_shape: (height, width, 3) of the stored images.
        n_classes: Number of classes, at least 2 (binary models have two outputs).
        options: See `ModelInfo.options`; defaults where absent.
        image_size: (height, width) to which images are resized in the graph first; None: as stored.
        views: Symmetries that evaluation averages over (`TurnedViews`); None for the model's own number.
        stain: What stains are normalised to; None leaves colours as they are.

    Returns:
        A functional model named after the registry: float32[N, H, W, 3] (or uint8) in grey levels 0-255 to softmax
        probabilities float32[N, n_classes], also under mixed precision. Its last layer is `probabilities`, fed by
        the layer `logits`; layers whose names start with `head` and `logits` are its head.

    Raises:
        UsageError: Unknown model or option, images that the model can't take, or weights that can't be had.
    """
    entry = info(name)
    if entry is ENSEMBLE:
        raise UsageError("An ensemble is put together from trained models; it has no network of its own to train.")
    checked = entry.check_options(options)
    check_size(entry, image_size or input_shape[:2])
    if len(input_shape) != 3 or input_shape[2] != 3 or n_classes < 2:
        raise UsageError(f"{name} takes RGB images and at least two classes, not {input_shape} and {n_classes}.")

    import keras

    from components.training.models.resize import Resize
    from components.training.models.views import CropViews, MeanOverViews, TurnedViews

    images = keras.Input(tuple(input_shape), dtype="float32", name="images")
    x, count = images, 1
    if stain is not None:
        from components.training.stain_normalisation import layer

        x = layer(stain, name=STAIN_LAYER)(x)
    if image_size and tuple(image_size) != tuple(input_shape[:2]):
        x = Resize(*image_size, name="image_size")(x)
    if "crop" in checked:
        crops = CropViews(checked["crop"], name="crops")
        count = crops.count(x.shape)
        x = crops(x)
    turns = TurnedViews(entry.views if views is None else views, name=VIEWS_LAYER)
    count *= turns.count(x.shape)
    module = _MODULES[name]
    if getattr(module, "POOLS_VIEWS", False):
        each, backbone = module.logits(turns(x), n_classes, checked, MeanOverViews(count, name="mean_features"))
        count = 1
    else:
        each, backbone = module.logits(turns(x), n_classes, checked)
    logits = MeanOverViews(count, name="logits")(each)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
    model = keras.Model(images, probabilities, name=name)
    if backbone is not None:
        weights.quicken_normalisation(backbone)
    if getattr(module, "brings_weights", lambda options: False)(checked):
        return model
    published = functools.partial(module.imagenet_file, checked) if backbone is not None else None
    weights.load(model, backbone, entry, checked["weights"], published, getattr(module, "load_published", None))
    return model


def provide_weights(name: str, options: Mapping[str, Any]) -> None:
    """Downloads the published weights that a recipe starts from, if they are not here yet; nothing else is built.

    Args:
        name: Of the model.
        options: Of the recipe, checked.

    Raises:
        TemporaryError: They can't be downloaded.
    """
    place = published_place(name, options)
    if place.startswith("https:"):
        fetch(place, info(name))


def published_place(name: str, options: Mapping[str, Any]) -> str:
    """Address or file of the published weights that a recipe starts from; empty where it starts from none.

    Args:
        name: Of the model.
        options: Of the recipe, checked.

    Raises:
        UsageError: They are in a package that is not installed.
    """
    module = _MODULES.get(name)  # none of an ensemble
    find = getattr(module, "imagenet_file", None)
    own = getattr(module, "brings_weights", lambda options: False)
    if find is None or options.get("weights") != "imagenet" or own(options):
        return ""
    return str(find(dict(options)))


def split_model(model: keras.Model) -> tuple[keras.Model, keras.Model] | None:
    """A model of `build` in two, sharing its layers: what prepares images, and the rest from the symmetries on.

    Returns:
        (images to prepared images, prepared images to probabilities); None for a model made elsewhere.
    """
    import keras

    if all(layer.name != VIEWS_LAYER for layer in model.layers):
        return None
    seam = model.get_layer(VIEWS_LAYER).input
    return keras.Model(model.input, seam, name="prepare"), keras.Model(seam, model.output, name=model.name)


def pixels_per_image(model: keras.Model) -> int:
    """Image area that the network works on for one image, over all its views.

    Args:
        model: Of `build`, or one with a layer `logits`.
    """
    seen = [layer.output.shape[1:3] for layer in model.layers if layer.name in (VIEWS_LAYER, "resize")]
    areas = [int(math.prod(sides)) for sides in (model.input_shape[1:3], *seen)]
    means = [layer for layer in model.layers if layer.name in ("mean_features", "logits")]
    return max(areas[1:] or areas) * math.prod(int(getattr(layer, "count", 1)) for layer in means)


def stain_target(model: keras.Model) -> StainTarget | None:
    """What a model of `build` normalises stains to, None where it leaves colours as they are."""
    found = [layer.target for layer in model.layers if layer.name == STAIN_LAYER]
    return found[0] if found else None


def fingerprints(name: str, options: Mapping[str, Any]) -> dict[str, str]:
    """What stands in a recipe's digest for options that may be files: words as they are, files by their content.

    Args:
        name: Of the model.
        options: Checked options.

    Raises:
        UsageError: A file is gone.
    """
    found = {}
    for option in info(name).options:
        value = str(options[option.name]) if option.kind in FILES else ""
        if option.kind == "weights":
            found[option.name] = weights.fingerprint(value)
        elif option.kind == "file":
            found[option.name] = value if value in option.choices else weights.tree_fingerprint(value)
    return found


def check_weights(name: str, options: Mapping[str, Any]) -> None:
    """Refuses a weights file whose published name does not go with the options.

    Args:
        name: Of the model.
        options: Checked options.

    Raises:
        UsageError: It is of another width, say.
    """
    check = getattr(_MODULES.get(name), "check_weights_file", None)
    if check is not None:
        check(options)


def check_size(entry: ModelInfo, size: tuple[int, ...]) -> None:
    """Checks that images are large enough for a model.

    Args:
        entry: The model.
        size: (height, width) in pixels as the model sees them.

    Raises:
        UsageError: They are not.
    """
    if min(size[:2]) < entry.min_size:
        raise UsageError(
            f"{entry.name} needs images of at least {entry.min_size} pixels on both sides, not {size[0]}x{size[1]}.",
            f"Set image_size to at least [{entry.min_size}, {entry.min_size}] or choose another model.",
        )


def logits_model(model: keras.Model) -> keras.Model:
    """The same model cut before the softmax: images to logits [N, C], sharing weights; for temperature scaling."""
    import keras

    return keras.Model(model.input, model.get_layer("logits").output, name=f"{model.name}_logits")
