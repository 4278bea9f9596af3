"""What an unattended run uses: settings.toml, overridden by environment variables, checked when it is read."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from histoline_dags.settings_file import DatasetTable, SettingsFile, read_settings_file
from histoline_dags.stages import DAGS, PRUNE, TASKS, WORKSPACE

HERE = Path(__file__).resolve().parents[1]
PROJECT = HERE.parent
DEFAULT_MINUTES = 1440.0


@dataclasses.dataclass(frozen=True)
class DatasetSettings:
    """What the DAGs of a data set use.

    Attributes:
        name: Of the data set.
        entry: What catalog.json says of it.
        defaults: Values of form fields, by DAG (`DAGS`).
        cron: Cron expression (UTC) by DAG, empty for none.
        minutes: After which a task is ended, by task.
    """

    name: str
    entry: Mapping[str, Any]
    defaults: Mapping[str, Mapping[str, Any]]
    cron: Mapping[str, str]
    minutes: Mapping[str, float]

    def place(self, *parts: str) -> str:
        """Where a value stands in settings.toml, such as `idc.train.preset`; all of histoline_prune is in one table."""
        if self.name == WORKSPACE:
            return ".".join((PRUNE, *(part for part in parts if part != PRUNE)))
        return ".".join((self.name, *parts))


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings.

    Attributes:
        workspace: Folder with datasets/, runs/ and models/.
        data_roots: Folders (or gs:// prefixes) that input must lie in; empty for anywhere.
        pool: Airflow pool of the tasks that the next does not hold; it must exist.
        gpu_pool: Airflow pool of the tasks that use the device (`GPU_TASKS`); it must exist.
        queue: Queue of the tasks that the next does not hold; with executors that have workers, one must listen to it.
        gpu_queue: Queue of the tasks that use the device.
        retries: Tries after the first when a step asks for one (exit 75).
        retry_seconds: Before the first of them.
        presets: What catalog.json says of each recipe.
        datasets: By name.
        prune: Of the DAG histoline_prune, in the form of a data set's: `histoline` is its name.
    """

    workspace: Path
    data_roots: tuple[str, ...]
    pool: str
    gpu_pool: str
    queue: str
    gpu_queue: str
    retries: int
    retry_seconds: float
    presets: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, DatasetSettings]
    prune: DatasetSettings


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
    values = read_settings_file(file, environ, known["datasets"], known["workspace"])
    roots = data_roots(environ)
    return Settings(
        workspace=Path(os.path.abspath(environ.get("HISTOLINE_WORKSPACE") or PROJECT / "workspace")),
        data_roots=roots,
        pool=values.pool,
        gpu_pool=values.gpu_pool,
        queue=values.queue,
        gpu_queue=values.gpu_queue,
        retries=values.retries.times,
        retry_seconds=values.retries.seconds,
        presets=known["presets"],
        datasets={
            name: _dataset(name, entry, values.datasets.get(name, DatasetTable()), values, roots)
            for name, entry in known["datasets"].items()
        },
        prune=_prune(known["workspace"], values),
    )


def data_roots(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Folders and gs:// prefixes that HISTOLINE_DATA_ROOTS names; none where it is empty."""
    # The separator is part of gs://, too.
    parts = environ.get("HISTOLINE_DATA_ROOTS", "").replace("gs://", "gs\0//").split(os.pathsep)
    return tuple(part.replace("gs\0//", "gs://").rstrip("/") or "/" for part in parts if part.strip())


def _prune(entry: Mapping[str, Any], values: SettingsFile) -> DatasetSettings:
    """Settings of histoline_prune: those of the file, else the defaults of the catalogue."""
    said = values.prune.model_extra or {}
    defaults = {field: said.get(field, known["default"]) for field, known in entry[PRUNE].items()}
    cron, minutes = {PRUNE: values.prune.cron}, {PRUNE: values.prune.minutes}
    return DatasetSettings(WORKSPACE, entry, {PRUNE: defaults}, cron, minutes)


def _dataset(
    name: str, entry: Mapping[str, Any], own: DatasetTable, common: SettingsFile, roots: tuple[str, ...]
) -> DatasetSettings:
    """Settings of a data set: its own, else those of all, else the defaults of the catalogue."""
    defaults = {
        dag: {field: getattr(own, dag).get(field, known["default"]) for field, known in entry[dag].items()}
        for dag in DAGS
    }
    # A path of the settings may be relative; the form always shows the whole one.
    base = roots[0] if roots else str(PROJECT / "data")
    for dag in DAGS:
        for field, known in entry[dag].items():
            if known.get("path") and defaults[dag][field]:
                defaults[dag][field] = _whole(base, str(defaults[dag][field]))
    defaults["ingest"]["input"] = defaults["ingest"]["input"] or f"{base}/{name}"
    defaults["predict"]["input"] = defaults["predict"]["input"] or f"{base}/{name}-new"
    cron = dict.fromkeys(DAGS, "") | common.cron.model_dump(exclude_none=True) | own.cron.model_dump(exclude_none=True)
    minutes = dict.fromkeys(TASKS, DEFAULT_MINUTES) | common.minutes.by_task() | own.minutes.by_task()
    return DatasetSettings(name, entry, defaults, cron, minutes)


def _whole(base: str, path: str) -> str:
    if "://" in path:
        return path.rstrip("/")
    return f"{base}/{path.rstrip('/')}" if not path.startswith("/") else os.path.normpath(path)
