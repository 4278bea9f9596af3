"""Finds presets in a folder by name and applies overrides; `recipe` gives them their meaning.

A preset is a YAML file and its name the file's name without `.yaml`. Where the folder is, the caller says.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from components.core.field_checks import as_number, nearest, set_dotted
from components.errors import UsageError
from components.training.models import MODELS
from components.training.recipe import OF_STEPS, TrainingConfig

DEFAULTS = {
    ("idc", "binary"): "idc_features",
    ("breakhis", "binary"): "breakhis_binary_features",
    ("breakhis", "subtype"): "breakhis_subtype_resnet50",
    ("pcam", "binary"): "pcam_features",
}
"""The preset where a data set and a task are given and nothing else."""

SHORT = {"augmentation": "preset", "batchnorm": "mode", "max_train_per_class": "count"}
"""Fields that may be a word or number in place of a mapping, with the key that it stands for."""


@dataclasses.dataclass(frozen=True)
class PresetInfo:
    """What a form shows of a preset.

    Attributes:
        name: File name without `.yaml`.
        title: One line for people.
        dataset: Data set that it was made for, empty for any.
        task: `binary` or `subtype`.
        model: Name in the registry.
    """

    name: str
    title: str
    dataset: str
    task: str
    model: str


def names(folder: Path) -> list[str]:
    """All presets of a folder by name, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def infos(folder: Path) -> list[PresetInfo]:
    """All presets of a folder with what a form shows."""
    out = []
    for name in names(folder):
        c = from_preset(name, folder=folder)
        out.append(PresetInfo(name, c.title, c.dataset, c.task, c.model))
    return out


def from_preset(name_or_path: str, overrides: Mapping[str, str] | None = None, *, folder: Path) -> TrainingConfig:
    """Reads a preset and changes single fields.

    Args:
        name_or_path: Name of a preset, or the path of a YAML file.
        overrides: Dotted names and YAML values, such as `{"phases.0.epochs": "3", "augmentation": "light"}`.
        folder: Where presets lie.

    Raises:
        UsageError: No such preset, or wrong fields.
    """
    return TrainingConfig.from_dict(read(name_or_path, overrides, folder=folder))


def read(name_or_path: str, overrides: Mapping[str, str] | None = None, *, folder: Path) -> dict[str, Any]:
    """Reads a preset as a tree and applies overrides; its fields are not checked yet.

    Args:
        name_or_path: Name of a preset, or the path of a YAML file.
        overrides: Dotted names and YAML values.
        folder: Where presets lie.

    Raises:
        UsageError: No such preset or file, not YAML, or an override that leads nowhere.
    """
    path, known = folder / f"{name_or_path}.yaml", names(folder)
    if name_or_path not in known:
        path = Path(name_or_path).expanduser()
        if path.suffix not in (".yaml", ".yml") or not path.is_file():
            raise UsageError(
                f"there is no preset {name_or_path!r} and no YAML file of that name; presets are {', '.join(known)}.",
                nearest(name_or_path, known),
            )
    try:
        tree = as_number(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not YAML ({' '.join(str(error).split())}).") from error
    if not isinstance(tree, dict):
        raise UsageError(f"{path} holds {type(tree).__name__}, not a mapping of fields.")
    # A name leaves no room for single fields: `augmentation.stain=0.1` starts from the preset that stands there.
    for key, value in sorted((overrides or {}).items(), key=lambda item: item[0] != "model"):
        field = key.split(".")[0]
        if field in SHORT and key != field and isinstance(tree.get(field), (str, int)):
            tree[field] = {SHORT[field]: tree[field]}
        if key.startswith("early_stopping.") and not isinstance(tree.get("early_stopping"), dict):
            tree["early_stopping"] = {}
        # Options belong to a model (that is why it is set first): another model starts from its own defaults.
        if key == "model" and value != tree.get("model"):
            tree["options"] = {}
            if value in MODELS and not MODELS[value].phases:
                tree = {name: given for name, given in tree.items() if name not in OF_STEPS}
        set_dotted(tree, key, value)
    return tree
