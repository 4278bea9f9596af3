"""What a sweep looks through: recipes, and fields of them that are searched; every recipe is checked before it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from components.core.field_checks import as_number, known_keys, number, wrong
from components.datasets.manifest import Manifest
from components.errors import UsageError
from components.sweeps.sweep_types import Field
from components.training import presets
from components.training.recipe import TrainingConfig

KINDS = ("choice", "int", "float")


def default_recipes(dataset: str, task: str, folder: Path) -> list[str]:
    """All presets that were made for a data set and task, those that only show how things run apart.

    Args:
        dataset: Data set.
        task: Task.
        folder: Where presets lie.

    Raises:
        UsageError: There is none.
    """
    made = [i.name for i in presets.infos(folder) if (i.dataset, i.task) == (dataset, task)]
    found = [name for name in made if not name.endswith("_quick")]
    if not found:
        raise UsageError(f"There is no recipe for {dataset} {task}.", "Name some with --recipes.")
    return found


def read_file(path: Path) -> tuple[tuple[str, ...], tuple[Field, ...]]:
    """Reads a search file: `recipes` (a name or a list) and `fields`.

    Args:
        path: YAML.

    Returns:
        Recipes, none where the file names none, and fields.

    Raises:
        UsageError: Not such a file.
    """
    try:
        tree = as_number(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise UsageError(f"--search {path} can't be read: {error.strerror}.", "Give a YAML file.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"--search {path} is not YAML ({' '.join(str(error).split())}).") from None
    given = known_keys("", tree, {"recipes", "fields"})
    recipes = given.get("recipes") or []
    recipes = [recipes] if isinstance(recipes, str) else recipes
    if not isinstance(recipes, list) or not all(isinstance(name, str) for name in recipes):
        raise wrong("recipes", recipes, "the name of a preset or a file, or a list of them")
    fields = given.get("fields")
    if not isinstance(fields, Mapping) or not fields:
        raise wrong("fields", fields, "a mapping of fields of the recipe to what is searched", "See docs/sweeps.md.")
    return tuple(recipes), tuple(_field(str(name), value) for name, value in fields.items())


def _field(name: str, given: Any) -> Field:
    where = f"fields.{name}"
    entry = known_keys(where, given, {*KINDS, "log", "step"})
    kinds = [kind for kind in KINDS if kind in entry]
    if len(kinds) != 1:
        raise wrong(where, given, f"one of {', '.join(KINDS)}", f"For example: {name}: {{choice: [A, B]}}.")
    kind = kinds[0]
    if kind == "choice":
        values = entry["choice"]
        if not isinstance(values, list) or not values or {"log", "step"} & entry.keys():
            raise wrong(f"{where}.choice", values, "a list of values, without log or step")
        return Field(name, "choice", choices=tuple(json.dumps(value) for value in values))
    ends = entry[kind]
    if not isinstance(ends, list) or len(ends) != 2:
        raise wrong(f"{where}.{kind}", ends, "its two ends, such as [1, 8]")
    low, high = (number(f"{where}.{kind}", end, -1e12, 1e12, integer=kind == "int") for end in ends)
    step, log = entry.get("step"), entry.get("log", False)
    if not low < high:
        raise wrong(f"{where}.{kind}", ends, "the smaller end first")
    if not isinstance(log, bool) or (log and (low <= 0 or step is not None)):
        raise wrong(f"{where}.log", log, "true or false; true only for ends above 0 and without step")
    if step is not None:
        step = number(f"{where}.step", step, 1 if kind == "int" else 1e-12, high - low, integer=kind == "int")
    return Field(name, "int" if kind == "int" else "float", low=low, high=high, step=step, log=log)


def grid_values(field: Field) -> list[str]:
    """All values of a field as YAML, for a grid.

    Raises:
        UsageError: It has no steps.
    """
    if field.kind == "choice":
        return list(field.choices)
    assert field.low is not None and field.high is not None
    step = field.step or (1 if field.kind == "int" and not field.log else None)
    if step is None:
        raise UsageError(
            f"fields.{field.name} has no steps, which a grid needs.",
            "Give it a step or a choice, or search with --oracle random.",
        )
    count = int((field.high - field.low) / step + 1e-9) + 1
    values = [field.low + step * i for i in range(count)]
    return [json.dumps(int(value) if field.kind == "int" else round(value, 12)) for value in values]


def ends(field: Field) -> list[str]:
    """Values of a field as YAML that show whether recipes can take it: all choices, or both ends."""
    if field.kind == "choice":
        return list(field.choices)
    return [json.dumps(int(end) if field.kind == "int" else end) for end in (field.low, field.high) if end is not None]


def recipe(name: str, values: Mapping[str, Any], folder: Path) -> TrainingConfig:
    """The recipe of a trial.

    Args:
        name: Of a preset, or a file.
        values: Searched field to its value as YAML.
        folder: Where presets lie.

    Raises:
        UsageError: No such preset, or a value that the recipe can't take.
    """
    return presets.from_preset(name, {field: str(value) for field, value in values.items()}, folder=folder)


def check(recipes: Sequence[str], fields: Sequence[Field], manifest: Manifest, folder: Path) -> None:
    """Checks every recipe, with every choice and end of every field, against the data set.

    Args:
        recipes: Names of presets or files.
        fields: That are searched.
        manifest: Of the data set.
        folder: Where presets lie.

    Raises:
        UsageError: The first that can't be trained; names recipe and field.
    """
    for name in recipes:
        for values in _corners(fields):
            try:
                fits(recipe(name, values, folder), manifest)
            except UsageError as error:
                with_ = "".join(f" with {field}={value}" for field, value in values.items())
                raise UsageError(f"Recipe {name!r}{with_}: {error.what}", error.fix) from None


def fits(config: TrainingConfig, manifest: Manifest) -> None:
    """Checks a recipe against a data set; see `TrainingConfig.check_data`."""
    width, height = manifest.stored_size
    config.check_data(manifest.dataset, manifest.task, height, width, manifest.label_region)


def _corners(fields: Sequence[Field]) -> Iterator[dict[str, str]]:
    yield {}
    for field in fields:
        for value in ends(field):
            yield {field.name: value}
