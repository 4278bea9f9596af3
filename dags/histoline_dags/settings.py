"""What an unattended run uses: settings.toml, overridden by environment variables, checked when it is read."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomllib

HERE = Path(__file__).resolve().parents[1]
PROJECT = HERE.parent
PREFIX = "HISTOLINE_"
STAGES = ("validate", "train", "evaluate", "push", "report")
TASKS = ("ingest", *STAGES)
DAGS = ("ingest", "train")
MAX_MINUTES = 14 * 24 * 60


class SettingsError(Exception):
    """A setting that can't be used: where it stands, what is wrong, what is allowed."""


@dataclasses.dataclass(frozen=True)
class DatasetSettings:
    """What the pair of DAGs of a data set uses.

    Attributes:
        name: Of the data set.
        entry: What catalog.json says of it.
        defaults: Values of form fields, by `ingest` and `train`.
        cron: Cron expression (UTC) by `ingest` and `train`, empty for none.
        minutes: After which a task is ended, by task.
    """

    name: str
    entry: Mapping[str, Any]
    defaults: Mapping[str, Mapping[str, Any]]
    cron: Mapping[str, str]
    minutes: Mapping[str, float]


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings.

    Attributes:
        workspace: Folder with datasets/, runs/ and models/.
        data_roots: Folders (or gs:// prefixes) that input must lie in; empty for anywhere.
        pool: Airflow pool of the tasks; it must exist.
        retries: Tries after the first when a step asks for one (exit 75).
        retry_seconds: Before the first of them.
        presets: What catalog.json says of each recipe.
        datasets: By name.
    """

    workspace: Path
    data_roots: tuple[str, ...]
    pool: str
    retries: int
    retry_seconds: float
    presets: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, DatasetSettings]


def load(environ: Mapping[str, str] | None = None, catalog: Path = HERE / "catalog.json") -> Settings:
    """Reads settings.toml (or the file that HISTOLINE_SETTINGS names), environment and catalogue.

    Args:
        environ: Variables; those of this process by default.
        catalog: What `histoline catalog` wrote.

    Raises:
        SettingsError: A file or a value can't be used.
    """
    environ = os.environ if environ is None else environ
    file = Path(environ.get("HISTOLINE_SETTINGS") or HERE / "settings.toml")
    known = json.loads(catalog.read_text(encoding="utf-8"))
    try:
        tree = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file} is not TOML: {error}.") from None
    values = _Values(file, environ, tree, known)
    values.check_names()
    roots = _roots(environ.get("HISTOLINE_DATA_ROOTS", ""))
    return Settings(
        workspace=Path(os.path.abspath(environ.get("HISTOLINE_WORKSPACE") or PROJECT / "workspace")),
        data_roots=roots,
        pool=str(values.get("pool", default="default_pool")),
        retries=int(values.number("retries", "times", default=5, low=0, high=20)),
        retry_seconds=values.number("retries", "seconds", default=30, low=0, high=3600),
        presets=known["presets"],
        datasets={name: _dataset(values, name, entry, roots) for name, entry in known["datasets"].items()},
    )


def _roots(text: str) -> tuple[str, ...]:
    # The separator is part of gs://, too.
    parts = text.replace("gs://", "gs\0//").split(os.pathsep)
    return tuple(part.replace("gs\0//", "gs://").rstrip("/") or "/" for part in parts if part.strip())


def _dataset(values: _Values, name: str, entry: Mapping[str, Any], roots: tuple[str, ...]) -> DatasetSettings:
    defaults: dict[str, dict[str, Any]] = {}
    for dag in DAGS:
        defaults[dag] = {
            field: values.get(name, dag, field, default=told["default"]) for field, told in entry[dag].items()
        }
    # A path of the settings may be relative; the form always shows the whole one.
    base = roots[0] if roots else str(PROJECT / "data")
    for field, told in entry["ingest"].items():
        if told.get("path") and defaults["ingest"][field]:
            defaults["ingest"][field] = _whole(base, str(defaults["ingest"][field]))
    if not defaults["ingest"]["input"]:
        defaults["ingest"]["input"] = f"{base}/{name}"
    cron = {dag: str(values.get(name, "cron", dag, default=values.get("cron", dag, default=""))) for dag in DAGS}
    minutes = {}
    for task in TASKS:
        common = values.number("minutes", task, default=1440, low=0.01, high=MAX_MINUTES)
        minutes[task] = values.number(name, "minutes", task, default=common, low=0.01, high=MAX_MINUTES)
    return DatasetSettings(name, entry, defaults, cron, minutes)


def _whole(base: str, path: str) -> str:
    if "://" in path:
        return path.rstrip("/")
    return f"{base}/{path.rstrip('/')}" if not path.startswith("/") else os.path.normpath(path)


class _Values:
    """Single values of the tree, overridden by the environment.

    Args:
        file: Where the tree comes from, for messages.
        environ: Variables.
        tree: Of settings.toml.
        catalog: Of catalog.json.
    """

    def __init__(
        self, file: Path, environ: Mapping[str, str], tree: dict[str, Any], catalog: Mapping[str, Any]
    ) -> None:
        self._file, self._environ, self._tree, self._catalog = file, environ, tree, catalog
        self._places = [("pool",), ("retries", "times"), ("retries", "seconds")]
        self._places += [("cron", dag) for dag in DAGS] + [("minutes", task) for task in TASKS]
        for name, entry in catalog["datasets"].items():
            self._places += [(name, dag, field) for dag in DAGS for field in entry[dag]]
            self._places += [(name, "cron", dag) for dag in DAGS] + [(name, "minutes", task) for task in TASKS]

    def check_names(self) -> None:
        """Refuses names that mean nothing, in the file and in the environment.

        Raises:
            SettingsError: Names the nearest that does.
        """
        known = {".".join(place) for place in self._places}
        for path in _leaves(self._tree):
            if path not in known:
                raise SettingsError(f"{self._file} has no setting {path}. {_nearest(path, known)}")
        variables = {_variable(place) for place in self._places}
        ours = tuple(f"{PREFIX}{name.upper()}_" for name in (*self._catalog["datasets"], "retries", "minutes", "cron"))
        for name in self._environ:
            if name.startswith(ours) and name not in variables:
                raise SettingsError(f"The environment variable {name} is no setting. {_nearest(name, variables)}")

    def get(self, *place: str, default: Any) -> Any:
        """The value of a place: environment, file, default."""
        text = self._environ.get(_variable(place))
        if text is not None:
            return self._typed(place, text)
        node: Any = self._tree
        for key in place:
            if not isinstance(node, dict):
                raise SettingsError(f"{self._file}: {'.'.join(place[:-1])} must be a table.")
            if key not in node:
                return default
            node = node[key]
        return node

    def number(self, *place: str, default: float, low: float, high: float) -> float:
        """A number within bounds.

        Raises:
            SettingsError: It is none.
        """
        value = self.get(*place, default=default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise SettingsError(
                f"{self._file} (or {_variable(place)}): {'.'.join(place)} is {value!r},"
                f" but it takes a number from {low:g} to {high:g}."
            )
        return value

    def _typed(self, place: tuple[str, ...], text: str) -> Any:
        """An environment variable's text as what the place takes."""
        field = self._catalog["datasets"].get(place[0], {}).get(place[1], {}).get(place[2]) if len(place) == 3 else None
        types = field["type"] if field else "number" if place[-1] in (*TASKS, "times", "seconds") else "string"
        types = [types] if isinstance(types, str) else types
        if place[0] == "cron" or (len(place) == 3 and place[1] == "cron") or "string" in types:
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
