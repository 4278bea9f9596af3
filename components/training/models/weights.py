"""Weights to start from: published ones where a network exists, or a file."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from components.core.regular_files import open_regular
from components.errors import UsageError
from components.training.models.downloads import fetch
from components.training.models.info import ModelInfo

if TYPE_CHECKING:
    import keras

WORDS = ("imagenet", "none")
"""What `options.weights` may say instead of a file."""

Reader = Callable[["keras.Model", str], None]
"""Loads a file that is not of Keras' own into a backbone; ValueError where it does not fit."""


def load(
    model: keras.Model,
    backbone: keras.Model | None,
    info: ModelInfo,
    weights: str,
    published: Callable[[], str] | None = None,
    reader: Reader | None = None,
) -> None:
    """Loads weights into a freshly built model.

    Args:
        model: The whole model.
        backbone: The part of it that published weights fit, None where there is none.
        info: Its registry entry, for messages.
        weights: `none`, `imagenet`, or a file with weights of the backbone or of the whole model.
        published: Tells where the published weights are: an address or a file.
        reader: Of published files that are not HDF5; None where they are.

    Raises:
        UsageError: No published weights, no such file, or a file that fits neither.
        TemporaryError: Published weights can't be downloaded.
    """
    if weights == "none":
        return
    if weights == "imagenet":
        if backbone is None or published is None:
            raise UsageError(
                f"there are no ImageNet weights for {info.name}.", "Set options.weights to none or to a file."
            )
        place = published()
        path = fetch(place, info) if place.startswith("https:") else place
        _read(backbone, None, info, path, reader)
        return
    _read(backbone or model, model if backbone is not None else None, info, check_file(weights), reader)


def quicken_normalisation(backbone: keras.Model, momentum: float = 0.9) -> None:
    """Lets the moving statistics of a published backbone follow a short fine-tuning.

    MobileNetV2 comes with a momentum of 0.999, ResNet50 with 0.99, for hundreds of thousands of steps: after a few
    hundred, thawed layers would still be evaluated with the statistics of ImageNet. Frozen ones are not touched.

    Args:
        backbone: A plain functional model.
        momentum: Share of the old statistics that is kept at each step.
    """
    import keras

    for layer in backbone.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = momentum


def check_file(weights: str) -> str:
    """Gives back the path of a weights file.

    Raises:
        UsageError: There is no such file; says which words are possible.
    """
    path = os.path.expanduser(weights)
    if not os.path.isfile(path):
        raise UsageError(
            f"options.weights is {weights!r}: there is no such file.",
            "Give imagenet, none, or the path of a weights file (.h5, .weights.h5; .pth for EfficientNet-Lite).",
        )
    return path


def fingerprint(weights: str) -> str:
    """SHA-256 of a weights file, so that a cache notices other content under the same name; the word itself else.

    Raises:
        UsageError: There is no such file.
    """
    return weights if weights in WORDS else _sha256(check_file(weights)).hexdigest()


def tree_fingerprint(path: str) -> str:
    """SHA-256 of a file, or of the names and contents of all files in a folder, such as a SavedModel.

    Raises:
        UsageError: There is neither.
    """
    path = os.path.expanduser(path)
    if os.path.isfile(path):
        return _sha256(path).hexdigest()
    files = sorted(file for file in Path(path).rglob("*") if file.is_file())
    if not files:
        raise UsageError(f"{path!r} is neither a file nor a folder with files.", "Check the path.")
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.relative_to(path).as_posix()}\0".encode() + _sha256(str(file)).digest())
    return digest.hexdigest()


def _sha256(path: str) -> hashlib._Hash:
    digest = hashlib.sha256()
    with open_regular(path) as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            digest.update(block)
    return digest


def _read(part: keras.Model, whole: keras.Model | None, info: ModelInfo, path: str, reader: Reader | None) -> None:
    """Loads a file into the part that it fits."""
    import h5py

    foreign = reader if reader is not None and not h5py.is_hdf5(path) else None
    reasons = []
    for model in [part] + ([whole] if whole is not None and foreign is None else []):
        try:
            (foreign or _load_file)(model, path)
            return
        except Exception as error:  # ValueError, KeyError, OSError, by format and by what is wrong
            reasons.append(f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    wanted = f"{info.name} with {(whole or part).count_params():,} weights"
    if info.backbone_parameters:
        wanted = f"the backbone of {info.name} with {part.count_params():,} weights, or {wanted}"
    raise UsageError(
        f"options.weights is {path!r}, a file that does not fit: {reasons[0]}. It should hold {wanted}.",
        "Check that file and options (such as alpha) belong together.",
    )


def _load_file(model: keras.Model, path: str) -> None:
    """Keras tells its own format by the file's name alone; here a file in that format may be called anything."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            native = "layer_names" not in file.attrs and "model_weights" not in file
    except OSError as error:
        raise ValueError(f"{Path(path).name} is no HDF5 file") from error
    if not native or path.endswith(".weights.h5"):
        model.load_weights(path)
        return
    with tempfile.TemporaryDirectory() as folder:
        named = Path(folder) / "named.weights.h5"
        named.symlink_to(Path(path).resolve())
        model.load_weights(str(named))
