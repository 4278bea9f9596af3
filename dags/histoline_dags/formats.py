"""What a form's text must be, in words: Airflow shows a JSON schema as it stands where a value is refused.

A pattern would be shown as a regular expression. A format is shown by its name, so its name is a sentence here, and
jsonschema is taught what it means, in every process that checks forms (the DAG files and the plugin see to it). Where
it is not taught, anything passes: the commands check again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

END = r"(?![\s\S])"
"""End of the text, for Python and for browsers; `$` would let a line feed follow."""

_SEGMENT = rf"(?!\.\.?(?:/|{END}))[^/\x00-\x1f\x7f]+"


def path_pattern(roots: Sequence[str]) -> str:
    """Pattern of an absolute path without `.` and `..` and control characters, below one of the roots.

    Links are not seen here: the command resolves them and checks again.

    Args:
        roots: Folders or gs:// prefixes; empty for any.
    """
    if not roots:
        return rf"^(?:gs://[a-z0-9][a-z0-9._-]+)?(?:/{_SEGMENT})+/?{END}"
    starts = "|".join(re.sub(r"([.^$*+?()\[\]{}|\\])", r"\\\1", root) for root in roots)
    return rf"^(?:{starts})(?:/{_SEGMENT})*/?{END}"


def path_format(roots: Sequence[str]) -> str:
    """Name of the format of such a path; jsonschema knows it from then on.

    Args:
        roots: As `path_pattern` takes them.
    """
    where = f"below {' or '.join(roots)}" if roots else "that begins with /"
    return teach(f"path {where}, without . and ..", path_pattern(roots))


def teach(words: str, pattern: str) -> str:
    """Makes a format of a pattern, for all checks of this process.

    Args:
        words: Its name: what a text must be.
        pattern: Regular expression.

    Returns:
        The name.
    """
    from jsonschema import FormatChecker

    expression = re.compile(pattern)
    FormatChecker.checkers[words] = (lambda value: not isinstance(value, str) or bool(expression.search(value)), ())
    return words


def teach_all(catalog: Path, roots: Sequence[str]) -> None:
    """Teaches this process every format of the forms.

    Args:
        catalog: catalog.json.
        roots: Data roots.
    """
    path_format(roots)
    known: dict[str, Any] = json.loads(catalog.read_text(encoding="utf-8"))
    for entry in (*known["datasets"].values(), known["workspace"]):
        for part in entry.values():
            for field in part.values() if isinstance(part, dict) else ():
                if isinstance(field, dict) and "pattern" in field:
                    teach(field["words"], field["pattern"])
