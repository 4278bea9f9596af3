"""Texts of the commands as Airflow shows them: options of the command line are named by the form's fields."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z-]*[a-z])(?:[ =]([A-Za-z][A-Za-z_-]*))?", re.ASCII)


def in_form_words(text: str, fields: Mapping[str, Mapping[str, Any]]) -> str:
    """The text with each option that a form has replaced by the title of its field.

    `--accept-drift REASON` becomes `“Accept a shift of colours because”`, `--on-infeasible train-only` becomes
    `“A class with too few patients”: train-only`.

    Args:
        text: Of a command, for people.
        fields: Of the form, as catalog.json has them.
    """
    by_option = {field["option"]: field for field in fields.values()}

    def named(found: re.Match[str]) -> str:
        option, value = found.groups()
        field = by_option.get(option)
        if field is None:
            return found[0]
        title = f"“{field['title']}”"
        if value is None or value.isupper():  # such as REASON or FILE: what the field itself asks for
            return title
        return f"{title}: {value}" if value in field.get("enum", ()) else f"{title}{found[0][len(option) :]}"

    return OPTION.sub(named, text)
