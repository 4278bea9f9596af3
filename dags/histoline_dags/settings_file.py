"""settings.toml and the environment variables that overrule it, as validated tables.

A place in the file, such as [idc.train] preset, is the variable HISTOLINE_IDC_TRAIN_PRESET. Fields of forms hold any
value here: the form that they are for checks them (`form.py`).
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import tomllib
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from histoline_dags.stages import DAGS, PRUNE, TASKS

PREFIX = "HISTOLINE_"
MAX_MINUTES = 14 * 24 * 60
COMMON_TABLES = ("retries", "minutes", "cron", "prune")

Minutes = Annotated[float, Field(ge=0.01, le=MAX_MINUTES)]
# A worker is told its queues as one list with commas.
Queue = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class SettingsError(Exception):
    """A setting that can't be used: where it stands, what is wrong, what is allowed."""


class Table(BaseModel):
    """A table of the file: nothing is converted, unknown names are refused."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Retries(Table):
    """Tries after the first when a step asks for one, and seconds before the first of them."""

    times: Annotated[int, Field(ge=0, le=20)] = 5
    seconds: Annotated[float, Field(ge=0, le=3600)] = 30.0


class Cron(Table):
    """Cron expression (UTC) of each DAG, empty for none; None where nothing is said."""

    ingest: str | None = None
    train: str | None = None
    predict: str | None = None
    sweep: str | None = None


class Limits(Table):
    """Minutes after which a task is ended; None where nothing is said."""

    ingest: Minutes | None = None
    validate_: Annotated[Minutes | None, Field(alias="validate")] = None  # BaseModel has a method of that name
    fold: Minutes | None = None
    train: Minutes | None = None
    evaluate: Minutes | None = None
    push: Minutes | None = None
    report: Minutes | None = None
    predict: Minutes | None = None
    plan: Minutes | None = None
    trial: Minutes | None = None
    choose: Minutes | None = None

    def by_task(self) -> dict[str, float]:
        """Minutes of the tasks that are named."""
        return self.model_dump(by_alias=True, exclude_none=True)


class DatasetTable(Table):
    """What is said of one data set: values of form fields by DAG, cron, minutes."""

    ingest: dict[str, Any] = {}
    train: dict[str, Any] = {}
    predict: dict[str, Any] = {}
    sweep: dict[str, Any] = {}
    cron: Cron = Cron()
    minutes: Limits = Limits()


class PruneTable(Table):
    """What is said of histoline_prune: values of its form's fields beside cron (empty for none) and minutes."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True)

    cron: str = ""
    minutes: Minutes = 240.0


class SettingsFile(Table):
    """The whole file; `cron` and `minutes` are those of every data set that names none itself."""

    pool: str = "default_pool"
    gpu_pool: str = "default_pool"
    queue: Queue = "default"
    gpu_queue: Queue = "default"
    retries: Retries = Retries()
    cron: Cron = Cron()
    minutes: Limits = Limits()
    prune: PruneTable = PruneTable()
    datasets: dict[str, DatasetTable] = {}


def read_settings_file(
    file: Path, environ: Mapping[str, str], datasets: Mapping[str, Mapping[str, Any]], workspace: Mapping[str, Any]
) -> SettingsFile:
    """Reads the file and lays the environment's values over it.

    Args:
        file: A settings.toml.
        environ: Variables.
        datasets: What catalog.json says of each data set.
        workspace: What it says of the workspace's own DAG.

    Raises:
        SettingsError: The file can't be read, or a name or a value can't be used.
    """
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}.") from None
    types = _types(datasets, workspace)
    _check_names(file, tree, environ, types, datasets)
    for place, kinds in types.items():
        text = environ.get(_variable(place))
        if text is not None:
            _put(tree, place, _typed(text, kinds))
    tree["datasets"] = {name: tree.pop(name) for name in datasets if name in tree}
    try:
        return SettingsFile.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        place = tuple(str(part) for part in first["loc"] if part != "datasets")
        why = first["msg"].replace("Input", "it", 1)
        raise SettingsError(
            f"{file} (or {_variable(place)}): {'.'.join(place)} is {first['input']!r}, but {why}."
        ) from None


def _types(datasets: Mapping[str, Mapping[str, Any]], workspace: Mapping[str, Any]) -> dict[tuple[str, ...], list[str]]:
    """JSON schema types that each place of the file takes."""
    names = ("pool", "gpu_pool", "queue", "gpu_queue")
    types: dict[tuple[str, ...], list[str]] = {(name,): ["string"] for name in names}
    types |= {("retries", name): ["number"] for name in Retries.model_fields}
    for above in ((), *((name,) for name in datasets)):
        types |= {(*above, "cron", dag): ["string"] for dag in DAGS}
        types |= {(*above, "minutes", task): ["number"] for task in TASKS}
    fields = {(name, dag): entry[dag] for name, entry in datasets.items() for dag in DAGS}
    for place, known in (*fields.items(), ((PRUNE,), workspace[PRUNE])):
        for field, schema in known.items():
            types[(*place, field)] = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    types |= {(PRUNE, "cron"): ["string"], (PRUNE, "minutes"): ["number"]}
    return types


def _check_names(
    file: Path,
    tree: Mapping[str, Any],
    environ: Mapping[str, str],
    places: Iterable[tuple[str, ...]],
    datasets: Iterable[str],
) -> None:
    """Refuses names that mean nothing, in the file and in the environment, and names the nearest that does."""
    known = {".".join(place) for place in places}
    for path in _leaves(tree):
        if path not in known:
            raise SettingsError(f"{file} has no setting {path}. {_nearest(path, known)}")
    variables = {_variable(place) for place in places}
    ours = tuple(f"{PREFIX}{name.upper()}_" for name in (*datasets, *COMMON_TABLES))
    for name in environ:
        if name.startswith(ours) and name not in variables:
            raise SettingsError(f"The environment variable {name} is no setting. {_nearest(name, variables)}")


def _put(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    *tables, name = place
    for table in tables:
        tree = tree.setdefault(table, {})
    tree[name] = value


def _typed(text: str, types: list[str]) -> Any:
    """An environment variable's text as what its place takes."""
    if "string" in types:
        return None if not text and "null" in types else text
    try:
        return json.loads(text)
    except ValueError:
        return text  # the check of the value says what is wrong


def _variable(place: Iterable[str]) -> str:
    return PREFIX + "_".join(place).upper()


def _leaves(tree: Mapping[str, Any], above: str = "") -> list[str]:
    found = []
    for key, value in tree.items():
        path = f"{above}.{key}" if above else key
        found += _leaves(value, path) if isinstance(value, dict) else [path]
    return found


def _nearest(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f"Did you mean {near[0]}?" if near else f"There are {', '.join(sorted(known)[:5])}, ..."
