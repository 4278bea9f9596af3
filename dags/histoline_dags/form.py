"""The trigger form of a DAG, from the catalogue: fields with ranges, and the command's arguments from their values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import Param
from airflow.sdk.exceptions import ParamValidationError

from histoline_dags.formats import path_format, teach
from histoline_dags.settings import DatasetSettings
from histoline_dags.settings_file import SettingsError

DEFAULT = "default"
SHOWN = ("title", "section", "type", "enum", "values_display", "minimum", "maximum", "maxLength")


def build_form(settings: DatasetSettings, dag: str, roots: tuple[str, ...]) -> dict[str, Param]:
    """Params of a DAG, each with a valid default.

    Args:
        settings: Of the data set.
        dag: Kind of the DAG, such as `train`.
        roots: Data roots.

    Raises:
        SettingsError: A default is not valid.
    """
    form = {}
    for name, field in settings.entry[dag].items():
        schema = {key: field[key] for key in SHOWN if key in field}
        description = field["description"]
        if "pattern" in field:
            schema["format"] = teach(field["words"], field["pattern"])
        if field.get("path"):
            schema["format"] = path_format(roots)
            description += f" Below {' or '.join(roots)}." if roots else ""
        default = settings.defaults[dag][name]
        form[name] = Param(default, description=description, **schema)
        try:
            form[name].resolve()
        except ParamValidationError as error:
            why = str(error).strip().splitlines()[0]
            raise SettingsError(
                f"settings.toml: {settings.place(dag, name)} is {default!r}, which its form would refuse: {why}."
                + (" It must lie in HISTOLINE_DATA_ROOTS." if field.get("path") and roots else "")
            ) from None
    return form


def arguments(fields: Mapping[str, Any], params: Mapping[str, Any], given: Mapping[str, Any] | None) -> list[str]:
    """Options of the command from the form's values; what is empty or `default` is left to the command.

    Args:
        fields: Of the catalogue.
        params: Values by field.
        given: What was posted with the trigger, None for nothing.

    Raises:
        ValueError: Something was posted that is no field.
    """
    unknown = sorted(set(given or {}) - set(fields))
    if unknown:
        raise ValueError(f"There is no field {unknown[0]!r}; there are {', '.join(fields)}.")
    found = []
    for name, field in fields.items():
        value = params[name]
        if value is None or value is False or value in ("", DEFAULT):
            continue
        if isinstance(value, float) and "integer" in field["type"]:
            value = int(value)  # 3.0 is a whole number to JSON schema
        # One argument, so that a value that begins with a hyphen is still a value.
        found.append(field["option"] if value is True else f"{field['option']}={value}")
    return found
