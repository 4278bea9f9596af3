"""What Airflow's forms offer is what the code takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.training.presets import DEFAULTS, names
from pipelines import catalog, ingest, predict, step, sweep_steps
from pipelines.recipes import PRESETS_FOLDER
from tests.support.cli_help import invoke

COMMANDS = {"ingest": ingest.command, "train": step.command, "predict": predict.command, "sweep": sweep_steps.plan}


def test_the_committed_file_is_up_to_date() -> None:
    assert catalog.FILE.read_text(encoding="utf-8") == catalog.text(), "run `histoline catalog` and commit the file"


def test_a_stale_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "c.json"
    assert invoke("catalog", "--output", file) == 0
    assert invoke("catalog", "--check", "--output", file) == 0
    file.write_text("{}")
    assert invoke("catalog", "--check", "--output", file) == 65
    assert "histoline catalog" in capsys.readouterr().err


def fields() -> list[Any]:
    found = []
    for dataset, entry in catalog.build()["datasets"].items():
        for stage in COMMANDS:
            found += [(dataset, stage, name, field) for name, field in entry[stage].items()]
    return found


@pytest.mark.parametrize("dataset,stage,name,field", fields())
def test_every_field_is_an_option_of_its_command(dataset: str, stage: str, name: str, field: dict[str, Any]) -> None:
    options = [text for parameter in COMMANDS[stage].params for text in parameter.opts]
    assert field["option"] in options
    assert field["description"] and field["title"] and field["section"]
    if "enum" in field:
        assert field["default"] in field["enum"]


def test_all_that_there_is_is_offered() -> None:
    made = catalog.build()
    assert set(made["presets"]) == set(names(PRESETS_FOLDER))
    assert json.loads(json.dumps(made)) == made
    for (dataset, task), preset in DEFAULTS.items():
        entry = made["datasets"][dataset]
        assert entry["presets"][task] == preset
        assert preset in entry["train"]["preset"]["enum"]
        assert task in entry["ingest"]["task"]["enum"]
