"""Which runs may be one model: found, the same data, nobody of the test split, and what was there before."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, UsageError
from components.training import ensemble, run_record
from components.training.recipe import TrainingConfig
from components.training.recipe_parts import Gate, Member
from tests.support import ingest_help, model_help
from tests.support.report_help import Studio

CONFIG = TrainingConfig(threshold="f1", floors={"auc": 0.6}, gate=Gate(margin=0.02), sampling="balanced", seed=3)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    root = tmp_path_factory.mktemp("members")
    raw = model_help.idc(root / "raw", patients=15, per_class=2)
    studio = Studio(root / "w", ingest_help.ingest(raw, root / "w"))
    for run_id in ("a", "b"):
        folder = studio.begun(run_id)
        run_record.update(studio.storage, folder, config=json.loads(CONFIG.to_json()))
        extra = studio.root / folder / "model/assets.extra"
        fitted = sorted(group for group, split in studio.data.splits.items() if split == "train")
        (extra / "fitted_groups.json").write_text(json.dumps(fitted))
    return studio


@pytest.fixture
def studio(made: Studio, tmp_path: Path) -> Studio:
    return Studio(Path(shutil.copytree(made.root, tmp_path / "w")), made.data)


def settle(studio: Studio, *run_ids: str) -> TrainingConfig:
    recipe = ensemble.recipe_of(studio.storage, "idc", "binary", run_ids)
    return ensemble.settle_members(studio.storage, "idc", "binary", studio.dataset_dir, studio.manifest, recipe)


def model(studio: Studio, run_id: str) -> Path:
    return studio.root / "runs/idc/binary" / run_id / "model"


def test_the_recipe_is_judged_as_its_first_member_and_names_the_models(studio: Studio) -> None:
    found = settle(studio, "a", "b")
    for field in ("threshold", "floors", "gate", "sampling", "seed"):
        assert getattr(found, field) == getattr(CONFIG, field)
    assert [member.run_id for member in found.ensemble] == ["a", "b"] and found.model == "ensemble"
    assert found.ensemble[0].model == ensemble.model_digest(model(studio, "a"))
    assert TrainingConfig.from_json(found.to_json()) == found
    other = dataclasses.replace(found, ensemble=(found.ensemble[0], Member("b", "0" * 64)))
    assert other.digest() != found.digest() and other.making_digest() != found.making_digest()
    folders = ensemble.member_folders(studio.storage, "idc", "binary", found)
    assert folders == [model(studio, "a"), model(studio, "b")]


def test_a_member_that_is_gone_or_has_changed(studio: Studio) -> None:
    found = settle(studio, "a", "b")
    (model(studio, "b") / "saved_model.pb").write_bytes(b"another")
    for check in (
        lambda: ensemble.settle_members(
            studio.storage, "idc", "binary", studio.dataset_dir, studio.manifest, found
        ),
        lambda: ensemble.member_folders(studio.storage, "idc", "binary", found),
    ):
        with pytest.raises(UsageError, match="'b' is not the one that was there"):
            check()
    run_record.update(studio.storage, "runs/idc/binary/a", digests={"model": "0" * 64})
    with pytest.raises(UsageError, match="'a' is not the one that was there"):
        settle(studio, "a", "b")
    shutil.rmtree(model(studio, "b"))
    with pytest.raises(UsageError, match="'b' has no model any more"):
        settle(studio, "b", "a")
    named = dataclasses.replace(found, ensemble=(Member("b"), Member("a")))
    with pytest.raises(UsageError, match="'b' has no model any more"):
        ensemble.member_folders(studio.storage, "idc", "binary", named)


def trained_on(studio: Studio, run_id: str, change: Any) -> None:
    for name in ("train_groups.json", "fitted_groups.json"):
        file = model(studio, run_id) / "assets.extra" / name
        file.write_text(json.dumps(sorted(change(set(json.loads(file.read_text()))))))


def test_members_of_other_patients(studio: Studio) -> None:
    tested = min(group for group, split in studio.data.splits.items() if split == "test")
    trained_on(studio, "b", lambda groups: groups | {tested})
    with pytest.raises(UsageError, match=f"1 patient of the test split, such as {tested}"):
        settle(studio, "a", "b")
    trained_on(studio, "b", lambda groups: groups - {tested, min(groups - {tested})})
    with pytest.raises(UsageError, match="'b' was trained on other patients"):
        settle(studio, "a", "b")
    (model(studio, "b") / "assets.extra/train_groups.json").unlink()
    with pytest.raises(DataError, match="does not say which patients"):
        settle(studio, "a", "b")


def test_members_of_other_data_or_none_at_all(studio: Studio) -> None:
    run_record.update(studio.storage, "runs/idc/binary/b", content_digest="0" * 64)
    with pytest.raises(UsageError, match="'b' was trained on other patients, or other patches"):
        settle(studio, "a", "b")
    for names, words in ((("a",), "two different"), (("a", "a"), "two different"), (("a", "lost"), "no run 'lost'")):
        with pytest.raises(UsageError, match=words):
            settle(studio, *names)
    elsewhere = studio.root / "runs/pcam/binary/c"
    shutil.copytree(studio.root / "runs/idc/binary/a", elsewhere)
    with pytest.raises(UsageError, match="'c' is in runs/pcam/binary/c, not of idc binary"):
        settle(studio, "a", "c")


def test_trials_of_a_sweep_are_members_too(studio: Studio) -> None:
    trial = studio.root / "sweeps/idc/binary/s1/trials/4/model"
    shutil.copytree(model(studio, "a"), trial)
    facts = {"config": CONFIG.to_dict(), "content_digest": studio.manifest.content_digest}
    (trial / "assets.extra/histoline.json").write_text(json.dumps(facts))
    found = settle(studio, "s1/4", "b")
    assert found.threshold == CONFIG.threshold and found.ensemble[0] == Member("s1/4", ensemble.model_digest(trial))
    assert ensemble.member_folders(studio.storage, "idc", "binary", found)[0] == trial
    facts["content_digest"] = "0" * 64
    (trial / "assets.extra/histoline.json").write_text(json.dumps(facts))
    with pytest.raises(UsageError, match="'s1/4' was trained on other patients, or other patches"):
        settle(studio, "s1/4", "b")
    for name in ("s1/5", "s1/..", "s2/4", "../4"):
        with pytest.raises(UsageError):
            settle(studio, name, "b")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"ensemble": ["a", "b"]}, "model"),
        ({"model": "ensemble"}, "at least two RUN_IDs"),
        ({"model": "ensemble", "ensemble": ["a"]}, "at least two different"),
        ({"model": "ensemble", "ensemble": ["a", "a"]}, "at least two different"),
        ({"model": "ensemble", "ensemble": ["a", 7]}, "ensemble.1"),
        ({"model": "ensemble", "ensemble": [{"run_id": "a"}, {"run": "b"}]}, "run"),
    ],
)
def test_wrong_recipes(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        TrainingConfig.from_dict(given)


def test_a_recipe_file_may_name_runs_alone() -> None:
    found = TrainingConfig.from_dict({"model": "ensemble", "ensemble": ["a", {"run_id": "b"}]})
    assert found.ensemble == (Member("a"), Member("b"))
    from components.training import models

    assert "ensemble" not in models.MODELS, "it is none that a form could offer"
    with pytest.raises(UsageError, match="put together from trained models"):
        models.build("ensemble", (50, 50, 3), 2)
