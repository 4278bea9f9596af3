"""Options of the command line, as a form's reader knows them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from histoline_dags.words import in_form_words

CATALOG: dict[str, Any] = json.loads((Path(__file__).resolve().parents[2] / "dags" / "catalog.json").read_text())


@pytest.mark.parametrize(
    "kind,text,said",
    [
        ("train", "Say --accept-drift REASON. Nothing", "Say “Accept a shift of colours because”. Nothing"),
        ("train", "give it with --weights FILE (options", "give it with “Weights file” (options"),
        ("train", "from random weights with --weights none.", "from random weights with “Weights file” none."),
        ("train", "Run: histoline step train idc --run-id x", "Run: histoline step train idc --run-id x"),
        ("train", "--ink: #fff; --preset-x", "--ink: #fff; --preset-x"),
        ("ingest", "--on-infeasible train-only (these", "“A class with too few patients”: train-only (these"),
        ("ingest", "more than --max-faults 0.01 allows", "more than “Faulty images allowed” 0.01 allows"),
        ("ingest", "--group-by image.", "“What may not be split”: image."),
        ("ingest", "", ""),
    ],
)
def test_options_become_fields(kind: str, text: str, said: str) -> None:
    assert in_form_words(text, CATALOG["datasets"]["pcam"][kind]) == said
