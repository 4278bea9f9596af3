"""A run takes over the model of a trial that was trained with its recipe, data and code; of no other."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from components.datasets.committed import open_dataset
from components.storage.base import Storage
from components.storage.open import open_storage
from components.sweeps import record
from components.sweeps.sweep_types import Choice, Search, Trial, TrialRecord
from components.training import run_inputs, run_record, trainer
from components.training.recipe import TrainingConfig
from components.training.source_digest import source_digest
from pipelines import stages, sweep_end
from tests.support.training_help import dataset, recipe

SWEEP = "sweeps/idc/binary/s"


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """A workspace with a data set and a sweep, whose one trial was trained to its end; its model is a stub."""
    folder = dataset(tmp_path, per_class=2)
    storage = open_storage(tmp_path / "ws")
    data, config = open_dataset(folder), recipe(1, dataset="idc")
    trial = Trial(0, "r", {}, config.to_dict(), config.digest())
    place = folder.relative_to(storage.root).as_posix()
    record.begin(storage, SWEEP, place, data.manifest, Search("list", ("r",)), None, {}, (trial,))
    key = trainer.run_key(config, data)
    made = TrialRecord(1, 0, "done", "", "", score=0.9, run_key=key, source_digest=source_digest())
    record.write_trial(storage, SWEEP, made)
    extra = Path(storage.root) / SWEEP / "trials/0/model/assets.extra"
    extra.mkdir(parents=True)
    result = trainer.TrainResult({"loss": [1.0]}, 1, 1.0, 0.5, {}, 1.0, extra.parent).to_dict()
    (extra / trainer.RESULT).write_text(json.dumps({"key": key, "result": result}))
    (extra / "histoline.json").write_text(json.dumps({"config": {}, "config_digest": "", "classes": ["a", "b"]}))
    return storage


def begun(storage: Storage, run_id: str, config: TrainingConfig) -> tuple[str, list[str]]:
    folder, lines = run_record.run_dir("idc", "binary", run_id), list[str]()
    run_inputs.freeze(storage, folder, run_inputs.settle(storage, "idc", "binary", "", config, {}))
    stages.Run(storage, folder, lines.append)._take_over()
    return folder, lines


def test_the_model_of_a_trial_with_the_same_recipe_is_taken_over(storage: Storage) -> None:
    config = recipe(1, dataset="idc", title="chosen", gate={"policy": "auto"}, floors={"auc": 0.6})
    folder, lines = begun(storage, "same", config)
    (line,) = lines
    assert "sweeps/idc/binary/s/trials/0 was trained with this recipe" in line
    assert run_record.read(storage, folder).paths["trial"] == f"{SWEEP}/trials/0"
    model = Path(storage.root) / folder / "model"
    facts = json.loads((model / "assets.extra/histoline.json").read_text())
    assert facts["config"]["gate"]["policy"] == "auto" and facts["config_digest"] == config.digest()
    # What matters: training finds the run trained already, and so does not even load TensorFlow.
    said: list[str] = []
    data = storage.uri(run_record.read(storage, folder).dataset_dir)
    assert trainer.train(config, data, model.parent, log=said.append).epochs_run == 1
    assert "trained already" in said[0]


def test_a_chain_of_rungs_has_its_model_in_the_folder_of_its_first_trial(storage: Storage) -> None:
    first = record.read(storage, SWEEP).trials[0]
    record.update(storage, SWEEP, trials=(first, dataclasses.replace(first, number=1, continues=0)))
    rung = record.read_trial(storage, SWEEP, 0)
    assert rung is not None
    record.write_trial(storage, SWEEP, dataclasses.replace(rung, number=1))
    record.write_trial(storage, SWEEP, dataclasses.replace(rung, state="stopped"))
    folder, lines = begun(storage, "last", recipe(1, dataset="idc"))
    assert len(lines) == 1 and (Path(storage.root) / folder / "model").is_dir()


@pytest.mark.parametrize("what", ["recipe", "code", "unfinished", "lost"])
def test_of_no_other(storage: Storage, what: str) -> None:
    trial = record.read_trial(storage, SWEEP, 0)
    assert trial is not None
    if what == "code":
        record.write_trial(storage, SWEEP, dataclasses.replace(trial, source_digest="0" * 64))
    if what == "unfinished":
        record.write_trial(storage, SWEEP, dataclasses.replace(trial, state="stopped"))
    if what == "lost":
        (Path(storage.root) / SWEEP / "trials/0/model/assets.extra" / trainer.RESULT).unlink()
    folder, lines = begun(storage, what, recipe(1, dataset="idc", seed=6 if what == "recipe" else 5))
    assert lines == [] and not (Path(storage.root) / folder / "model").exists()
    assert "trial" not in run_record.read(storage, folder).paths


def test_the_sweeps_page_leads_to_the_run_that_took_its_winner_over(storage: Storage) -> None:
    folder, _ = begun(storage, "scheduled", recipe(1, dataset="idc"))
    run = run_record.read(storage, folder)
    sweep_end.link_winner(storage, run)
    assert record.read(storage, SWEEP).run_id == "s-winner"  # nothing is chosen yet
    (Path(storage.root) / folder / "report").mkdir()
    (Path(storage.root) / folder / "report/index.html").touch()
    record.update(storage, SWEEP, choice=Choice(0, 0, "The only one.", (0,), {}))
    sweep_end.link_winner(storage, run)
    sweep = record.read(storage, SWEEP)
    assert sweep.run_id == "scheduled" and sweep.report is not None
    page = (Path(storage.root) / sweep.report).read_text()
    link = re.search(r'href="([^"]+scheduled/report/index.html)"', page)
    assert link and (Path(storage.root) / SWEEP / link[1]).resolve().is_file()
