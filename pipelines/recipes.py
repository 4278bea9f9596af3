"""Where the training recipes of the project lie."""

from __future__ import annotations

from pathlib import Path

PRESETS_FOLDER = Path(__file__).resolve().parent / "presets"
"""One YAML file for each preset, named by what it is."""
