"""Keras models, one file each, behind a registry whose entries can be read without Keras."""

from components.training.models.info import ModelInfo, Option
from components.training.models.registry import (
    MODELS,
    build,
    check_size,
    check_weights,
    fingerprints,
    info,
    logits_model,
    pixels_per_image,
    provide_weights,
    published_place,
    split_model,
    stain_target,
)

__all__ = [
    "MODELS",
    "ModelInfo",
    "Option",
    "build",
    "check_size",
    "check_weights",
    "fingerprints",
    "info",
    "logits_model",
    "pixels_per_image",
    "provide_weights",
    "published_place",
    "split_model",
    "stain_target",
]
