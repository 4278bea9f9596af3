"""Data roots: where input may be read from, when somebody else's form or API names it (HISTOLINE_DATA_ROOTS)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from components.errors import UsageError

VARIABLE = "HISTOLINE_DATA_ROOTS"


def read_roots(environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """Folders and gs:// prefixes of HISTOLINE_DATA_ROOTS, separated as in PATH; empty where any place will do.

    Args:
        environ: Variables; those of this process by default.
    """
    text = (os.environ if environ is None else environ).get(VARIABLE, "")
    # The separator is part of gs://, too.
    parts = text.replace("gs://", "gs\0//").split(os.pathsep)
    return tuple(part.replace("gs\0//", "gs://").rstrip("/") or "/" for part in parts if part.strip())


def check_root(option: str, path: str | Path | None, environ: Mapping[str, str] | None = None) -> None:
    """Refuses input outside the data roots, links resolved; without roots, or without a path, nothing is refused.

    Args:
        option: That named the path, for the message.
        path: File, folder or gs:// prefix.
        environ: Variables; those of this process by default.

    Raises:
        UsageError: It lies elsewhere.
    """
    roots = read_roots(environ)
    if not roots or path is None or str(path) == "":
        return
    name = str(path)
    if not any(_lies_in(name, root) for root in roots):
        raise UsageError(
            f"{option} {name!r} is not in a data root (links are followed); {VARIABLE} names {', '.join(roots)}.",
            "Move the data there, or let whoever runs this machine add the folder.",
        )


def _lies_in(name: str, root: str) -> bool:
    if name.startswith("gs://") or root.startswith("gs://"):
        plain = ".." not in name.split("/") and "." not in name.split("/")
        return plain and f"{name.rstrip('/')}/".startswith(f"{root}/")
    return Path(name).resolve().is_relative_to(Path(root).resolve())
