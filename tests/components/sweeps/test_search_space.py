"""What may be searched: read from YAML, checked against recipes and data set before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.errors import UsageError
from components.sweeps import plan, search_space
from components.sweeps.sweep_types import Field, Search
from pipelines.recipes import PRESETS_FOLDER
from tests.support import manifests

MANIFEST = manifests.manifest()


def read(tmp_path: Path, text: str) -> Any:
    file = tmp_path / "search.yaml"
    file.write_text(text)
    return search_space.read_file(file)


def test_a_search_file_names_recipes_and_fields(tmp_path: Path) -> None:
    recipes, fields = read(
        tmp_path,
        """
recipes: [idc_cnn_105k, idc_simple_cnn]
fields:
  phases.0.learning_rate: {float: [1e-4, 1e-2], log: true}
  batch_size: {int: [16, 64], step: 16}
  image_size: {choice: [[50, 50], [64, 64], null]}
""",
    )
    assert recipes == ("idc_cnn_105k", "idc_simple_cnn")
    assert fields == (
        Field("phases.0.learning_rate", "float", low=1e-4, high=1e-2, log=True),
        Field("batch_size", "int", low=16, high=64, step=16),
        Field("image_size", "choice", choices=("[50, 50]", "[64, 64]", "null")),
    )
    assert search_space.grid_values(fields[1]) == ["16", "32", "48", "64"]
    with pytest.raises(UsageError, match="no steps, which a grid needs"):
        search_space.grid_values(fields[0])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("field: {}", "Did you mean 'fields'"),
        ("fields: {batch_size: {choise: [1]}}", "Did you mean 'choice'"),
        ("fields: {batch_size: {int: [64, 16]}}", "smaller end first"),
        ("fields: {batch_size: {int: [16.5, 64]}}", "whole number"),
        ("fields: {ema: {float: [0, 1], log: true}}", "ends above 0"),
        ("fields: {ema: {choice: []}}", "a list of values"),
        ("fields: []", "mapping of fields"),
        ("{", "not YAML"),
    ],
)
def test_what_can_not_be_searched_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("recipes", "field", "message"),
    [
        (["idc_cnn_105"], None, "idc_cnn_105k"),
        (["pcam_cnn"], None, r"Recipe 'pcam_cnn': dataset is 'pcam'"),
        (["idc_cnn_105k"], Field("batch_sise", "choice", choices=("16",)), "Did you mean 'batch_size'"),
        (["idc_cnn_105k"], Field("batch_size", "int", low=0, high=64), "with batch_size=0: batch_size is 0"),
        (["idc_cnn_105k"], Field("phases.3.epochs", "choice", choices=("1",)), "the list has the elements 0 to"),
    ],
)
def test_every_recipe_is_checked_with_every_end(recipes: list[str], field: Field | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        search_space.check(recipes, [field] if field else [], MANIFEST, PRESETS_FOLDER)


def test_the_default_recipes_are_those_that_were_made_for_the_data_set() -> None:
    found = search_space.default_recipes("idc", "binary", PRESETS_FOLDER)
    assert {"idc_cnn_105k", "idc_simple_cnn", "idc_mobilenet_v2", "idc_lite0"} <= set(found)
    assert not {"idc_quick", "pcam_cnn"} & set(found)
    with pytest.raises(UsageError, match="no recipe for pcam subtype"):
        search_space.default_recipes("pcam", "subtype", PRESETS_FOLDER)


def test_a_list_and_a_grid_are_known_before_they_run(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("idc_cnn_105k", "idc_simple_cnn")
    listed = plan.known_trials(Search("list", names), MANIFEST, PRESETS_FOLDER)
    assert [(trial.number, trial.recipe) for trial in listed] == [(0, names[0]), (1, names[1])]
    fields = (Field("seed", "int", low=1, high=2), Field("label_smoothing", "choice", choices=("0", "0.1")))
    grid = plan.known_trials(Search("grid", names, fields), MANIFEST, PRESETS_FOLDER)
    assert len(grid) == 8 and len({trial.digest for trial in grid}) == 8
    assert grid[1].values == {"seed": "1", "label_smoothing": "0.1"}
    assert (grid[1].config["seed"], grid[1].config["label_smoothing"]) == (1, 0.1)
    assert len(plan.known_trials(Search("grid", names, fields, trials=3), MANIFEST, PRESETS_FOLDER)) == 3
    assert plan.known_trials(Search("bayesian", names, fields), MANIFEST, PRESETS_FOLDER) == ()
    monkeypatch.setattr(plan, "MOST", 5)
    many = (Field("seed", "int", low=1, high=2000),)
    with pytest.raises(UsageError, match="more than 5 trials"):
        plan.known_trials(Search("grid", names, many), MANIFEST, PRESETS_FOLDER)
