"""Keras models, one file each, behind a registry whose entries can be read without Keras."""

from components.models.info import ModelInfo, Option
from components.models.registry import MODELS, build, check_size, info, logits_model
from components.models.weights import fingerprint

__all__ = ["MODELS", "ModelInfo", "Option", "build", "check_size", "fingerprint", "info", "logits_model"]
