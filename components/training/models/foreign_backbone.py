"""Backbones that users have as files: a SavedModel or a Keras model, asked for its features only."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from components.errors import UsageError

if TYPE_CHECKING:
    import keras

SCALINGS: dict[str, tuple[Any, Any]] = {
    "none": (1.0, 0.0),
    "unit": (1 / 255, 0.0),
    "signed": (1 / 127.5, -1.0),
    "imagenet": (
        [1 / (255 * deviation) for deviation in (0.229, 0.224, 0.225)],
        [-mean / deviation for mean, deviation in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)],
    ),
}
"""Word of `options.scaling` -> factor and offset for grey levels 0-255; the last by the usual figures of ImageNet."""

ENDPOINTS = ("serving_default", "serve")
"""Of a SavedModel: the first of these that it has is asked."""

FIX = "Give a SavedModel folder, or a .keras or .h5 file, that takes float32[N, H, W, 3] and answers with features."


def pooled_features(images: Any, path: str, resize: int, scaling: str) -> Any:
    """Adds a backbone from a file, frozen, and pools what it answers.

    Args:
        images: KerasTensor float32[N, H, W, 3], grey levels 0-255.
        path: SavedModel folder or Keras file.
        resize: Shorter side to which smaller images are resized, where the file leaves the size open; else they are
            brought to its size.
        scaling: A key of `SCALINGS`.

    Returns:
        KerasTensor float32[N, F]: vectors as they are, the mean over places of feature maps, the first of tokens.

    Raises:
        UsageError: No such file, or one that does not take images or answers with something else.
    """
    from keras import layers

    from components.training.models.resize import Resize, enlarged

    network, size = _load(os.path.expanduser(path))
    if size is None:
        x = enlarged(images, resize)
    else:
        x = images if tuple(images.shape[1:3]) == size else Resize(*size, name="resize")(images)
    factor, offset = SCALINGS[scaling]
    x = layers.Rescaling(factor, offset=offset, name="rescale")(x)
    try:
        answer = network(x)
    except Exception as error:  # whatever the file's own graph raises
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"options.backbone is {path!r}, which does not take images: {reason}", FIX) from error
    if isinstance(answer, dict):
        if len(answer) != 1:
            raise UsageError(f"options.backbone is {path!r}, which answers with {', '.join(sorted(answer))}.", FIX)
        (answer,) = answer.values()
    rank = len(getattr(answer, "shape", ()))
    if rank == 4:
        return layers.GlobalAveragePooling2D(dtype="float32", name="average")(answer)
    if rank not in (2, 3):
        raise UsageError(f"options.backbone is {path!r}, whose answer has {rank} dimensions.", FIX)
    return answer[:, 0] if rank == 3 else answer


def _load(path: str) -> tuple[keras.Layer, tuple[int, int] | None]:
    """A file as a layer, and the (height, width) that it insists on."""
    import keras

    if not os.path.exists(path):
        raise UsageError(
            f"options.backbone is {path!r}: there is no such file.",
            "Check the path, or give the name of a backbone, such as efficientnet_lite0.",
        )
    try:
        if os.path.isdir(path):
            return _saved_model(path)
        model = keras.models.load_model(path, compile=False)
    except UsageError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(f"options.backbone is {path!r}, which can't be loaded: {reason}", FIX) from error
    model.trainable = False
    return model, _size(getattr(model, "input_shape", None))


def _saved_model(path: str) -> tuple[keras.Layer, tuple[int, int] | None]:
    import keras

    layer, error = None, None
    for endpoint in ENDPOINTS:
        try:
            layer = keras.layers.TFSMLayer(path, call_endpoint=endpoint, trainable=False, name="backbone")
            break
        except ValueError as missing:
            error = missing
    if layer is None:
        raise UsageError(
            f"options.backbone is {path!r}, a SavedModel without {' or '.join(ENDPOINTS)}.", FIX
        ) from error
    _, inputs = getattr(layer.call_endpoint_fn, "structured_input_signature", ((), {}))
    shapes = [spec.shape.as_list() for spec in (inputs or {}).values() if spec.shape.rank is not None]
    return layer, _size(shapes[0] if len(shapes) == 1 else None)


def _size(shape: Any) -> tuple[int, int] | None:
    """(height, width) of an input shape; None where they are open."""
    if not isinstance(shape, (list, tuple)) or len(shape) != 4 or None in shape[1:3]:
        return None
    return int(shape[1]), int(shape[2])
