"""The page of a prediction: what was scored, what was rejected, whether colours have shifted, and the slides' maps."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from components.core.text import plural
from components.report import figures
from components.report.page import environment
from components.report.pixels import data_uri
from components.storage.atomic_files import TMP
from components.storage.base import Storage
from components.storage.open import open_storage

MAX_MAPS = 60
MAX_MAP_BYTES = 5_000_000
"""Of all maps on the page; what is left out lies in the folder of maps."""

MAX_EXAMPLES = 3
"""Rejected files named for each code."""


@dataclasses.dataclass(frozen=True)
class MapShown:
    """A slide's map.

    Attributes:
        name: Of the slide, or of the group where no slide is known.
        patches: With coordinates.
        share: Of them called positive.
        picture: PNG as a data URI.
    """

    name: str
    patches: int
    share: float
    picture: str


def write(summary: Mapping[str, Any], rejects: Sequence[Mapping[str, str]], maps: str, page: str) -> None:
    """Makes the page of a prediction.

    Args:
        summary: As it was committed beside the output.
        rejects: Rows of its rejects: path, code, detail.
        maps: Folder (or gs:// prefix) of slide maps, empty where none were drawn.
        page: File to write (or gs:// object).

    Raises:
        HistolineError: It can't be written.
    """
    shown = _maps(open_storage(maps), summary.get("slides", ())) if maps else []
    root, _, name = page.rpartition("/")
    storage = open_storage(root)
    storage.write_atomic(name, render(summary, rejects, shown).encode("utf-8", "replace"))
    if storage.is_local:
        with contextlib.suppress(OSError):  # somebody else's files are in it
            os.rmdir(os.path.join(storage.root, TMP))


def render(summary: Mapping[str, Any], rejects: Sequence[Mapping[str, str]] = (), maps: Sequence[MapShown] = ()) -> str:
    """The page, self-contained and without scripts.

    Args:
        summary: Of the prediction.
        rejects: Rows of its rejects.
        maps: Those shown.
    """
    drift = summary["drift"]
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for shift in drift["shifts"]:
        rows.setdefault(shift["feature"], {})[shift["comparison"]] = shift
    return str(
        environment()
        .get_template("prediction.html")
        .render(
            told=summary,
            drift=drift,
            verdict="drifted" if drift["drifted"] else "not compared" if drift["skipped"] else "no drift",
            units=plural(drift["groups"], drift["unit"]),
            drift_rows=list(rows.items()),
            rejected=[
                (code, fact, [row for row in rejects if row["code"] == code][:MAX_EXAMPLES])
                for code, fact in summary["rejects"].items()
            ],
            histogram=_histogram(summary),
            maps=maps,
            all_maps=summary.get("slide_maps", 0),
        )
    )


def _histogram(summary: Mapping[str, Any]) -> Markup | None:
    counts = summary.get("histogram")
    if not counts:
        return None
    return figures.scores("scores", np.asarray(counts), summary["classes"][1], summary["threshold"])


def _maps(storage: Storage, slides: Sequence[Mapping[str, Any]]) -> list[MapShown]:
    shown, left = [], MAX_MAP_BYTES
    for slide in slides[:MAX_MAPS]:
        if not storage.exists(slide["file"]):
            continue
        picture = data_uri(storage.read_bytes(slide["file"]))
        left -= len(picture)
        if left < 0:
            break
        shown.append(MapShown(slide["name"], slide["patches"], slide["positive"] / slide["patches"], picture))
    return shown
