"""A run that decides by folds, with tiny models of known quality: who scores whom, and what the gate compares."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.errors import DataError, UsageError
from components.promotion import champion as champions
from components.promotion import evaluation
from components.promotion.evaluation_inputs import promoted_models
from components.promotion.gate_facts import folds_warning
from components.report import page
from components.report.run_comparison import compare, read
from components.splits.fold_assignment import NAME, FoldAssignment, FoldPlace
from components.training import run_record
from components.training.fold_plan import frozen, read_folds, settle_folds
from components.training.fold_training import fold_dir
from components.training.recipe import TrainingConfig
from tests.support.model_help import Workshop, check_run

FOLDS = 2


def plan(shop: Workshop, holdout: str = "none") -> FoldAssignment:
    config = TrainingConfig(decision="folds", folds=FOLDS, holdout=holdout)
    return settle_folds(shop.storage, shop.dataset_dir, shop.manifest, config)


def fold_run(
    shop: Workshop,
    run_id: str,
    *,
    folds: FoldAssignment | None = None,
    thresholds: tuple[float, ...] = (0.5, 0.5),
    leak: str = "",
    **quality: float,
) -> str:
    """A run whose folds are trained."""
    folds = folds or plan(shop)
    folder = shop.run(run_id, trained_on=folds.groups, **quality)
    config = {**shop.record(folder).config, "decision": "folds", "folds": FOLDS, "holdout": folds.holdout}
    shop.storage.write_atomic(f"{folder}/{NAME}", folds.to_bytes())
    run_record.update(
        shop.storage, folder, decision_by="folds", folds=frozen(folds, "mean"), config=config,
        digests={"folds": folds.digest()},
    )  # fmt: skip
    for fold in range(1, FOLDS + 1):
        model = fold_dir(shop.root / folder, fold) / "model"
        cut = thresholds[fold - 1]
        shutil.copytree(shop.model(**quality) if cut == 0.5 else shop.model(**quality, threshold=cut), model)
        shutil.copytree(shop.root / folder / "model/assets.extra", model / "assets.extra", dirs_exist_ok=True)
        seen = [group for group, split in folds.split_of(fold).items() if split != "test" or group == leak]
        (model / "assets.extra" / "train_groups.json").write_text(json.dumps(seen))
        facts = json.loads((model / "assets.extra" / "histoline.json").read_text())
        facts["threshold"] = cut
        (model / "assets.extra" / "histoline.json").write_text(json.dumps(facts))
    return folder


def pooled(shop: Workshop, folder: str) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(shop.root / folder / evaluation.PREDICTIONS).to_pylist()
    return {row["patch_id"]: row for row in rows}


def test_every_patient_is_scored_by_the_fold_that_has_never_seen_it_and_decides(shop: Workshop) -> None:
    folds = plan(shop)
    assert set(folds.groups) == set(shop.splits) and all(place.test for place in folds.groups.values())
    folder = fold_run(shop, "a", folds=folds)
    other = fold_dir(shop.root / folder, 2) / "model"
    for part in ("saved_model.pb", "variables"):  # fold 2's model is another one
        worse = shop.model(signal=0.2, noise=0.5) / part
        shutil.rmtree(other / part) if worse.is_dir() else (other / part).unlink()
        (shutil.copytree if worse.is_dir() else shutil.copy)(worse, other / part)
    record = shop.evaluate(folder)
    check_run(record)
    rows = pooled(shop, folder)
    assert {row["split"] for row in rows.values()} == {"test"} and len(rows) == shop.manifest.written
    assert all(row["fold"] == folds.groups[row["group_id"]].test for row in rows.values())
    assert record.metrics["test"]["groups"] == len(shop.splits) and "eval" not in record.metrics
    assert record.looks is not None and record.looks.of_groups == len(shop.splits)
    assert (record.decision, record.code, record.decision_by) == ("promoted", "first_model", "folds")
    assert record.folds is not None
    best, worst = record.folds.members
    assert best.test + worst.test == len(shop.splits) and best.patches + worst.patches == len(rows)
    assert best.figure is not None and worst.figure is not None and best.figure > 0.85 > worst.figure
    html = page.write(shop.storage, folder)
    text = (shop.root / html).read_text()
    assert "Out-of-fold figures are of single models" in text and "not measured, as it has seen every patient" in text


def test_a_patient_that_its_own_fold_was_trained_on_refuses_the_run(shop: Workshop) -> None:
    folds = plan(shop)
    leaked = next(group for group, place in folds.groups.items() if place.test == 2)
    record = shop.evaluate(fold_run(shop, "leak", folds=folds, leak=leaked))
    assert (record.decision, record.code) == ("refused", "leaky_split")
    assert "1 patient of the test split" in record.reason


def test_calls_are_made_at_the_threshold_of_the_model_that_scored_the_patch(shop: Workshop) -> None:
    folds = plan(shop)
    record = shop.evaluate(fold_run(shop, "cuts", folds=folds, thresholds=(0.0, 1.0)), blessed=True)
    rows = pooled(shop, "runs/idc/binary/cuts").values()
    first = [row for row in rows if row["fold"] == 1]
    positives = [row for row in rows if row["label"] == 1]
    sensitivity = sum(row["fold"] == 1 for row in positives) / len(positives)
    assert record.figures()["sensitivity"]["estimate"] == pytest.approx(sensitivity)
    assert record.figures()["specificity"]["estimate"] == pytest.approx(
        sum(row["fold"] == 2 and row["label"] == 0 for row in rows) / sum(row["label"] == 0 for row in rows)
    )
    assert first and record.floors["blessed"]


def test_floors_are_checked_on_the_figures_out_of_fold(shop: Workshop) -> None:
    folder = fold_run(shop, "floored")
    run_record.update(shop.storage, folder, config={**shop.record(folder).config, "floors": {"auc": 0.9999}})
    record = shop.evaluate(folder)
    assert record.code == "below_floors" and record.floors["floors"]["auc"]["value"] == pytest.approx(
        record.figures()["auc"]["estimate"]
    )


def test_a_champion_by_folds_is_compared_out_of_fold_on_the_patients_that_both_have(shop: Workshop) -> None:
    folds = plan(shop)
    gone, new = sorted(folds.groups)[:2]
    places = {group: place for group, place in folds.groups.items() if group != new}
    folder = fold_run(shop, "old", folds=dataclasses.replace(folds, groups=places), noise=1.0)
    shop.evaluate(folder)
    version = shop.push(folder)
    assert version is not None
    extra = shop.home / str(version) / "assets.extra"
    assert FoldAssignment.from_bytes((extra / NAME).read_bytes(), "").groups == places
    assert new not in pq.read_table(extra / "out_of_fold.parquet")["group_id"].to_pylist()
    assert shop.champion["decision_by"] == "folds"
    assert "Out-of-fold figures are of single models" in (shop.home / str(version) / "README.md").read_text()

    shop.fresh()
    later = {group: place for group, place in folds.groups.items() if group != gone}
    folder = fold_run(shop, "new", folds=dataclasses.replace(folds, groups=later))
    same = shop.record(folder).folds
    assert same is not None
    run_record.update(shop.storage, folder, folds=dataclasses.replace(same, folds=3))
    record = shop.evaluate(folder)
    against = {each["against"]: each for each in record.gate.comparisons}["champion"]
    assert (record.decision, record.code) == ("promoted", "better")
    assert (against["groups"], against["left_out"], against["unpaired"]) == (len(folds.groups) - 2, 0, 2)
    assert "leaving out 2 that only one of both was measured on" in record.reason
    old, mine = pooled(shop, "runs/idc/binary/old"), pooled(shop, folder)
    table = pq.read_table(shop.root / folder / evaluation.COMPARISON).to_pylist()
    for row in table:
        name = row["patch_id"]
        kept = row["champion_probability"]
        assert np.isnan(kept) if mine[name]["group_id"] == new else kept == old[name]["probability"]
    assert compare(read(shop.storage, ["old", "new"])).differences[0].result is not None
    page.write(shop.storage, folder)
    # It was decided by other folds, and that is said.
    said = f"Version {version} (champion) was decided by 2 folds over all splits, this run by 3 folds over all splits"
    assert [warning for warning in record.warnings if warning.startswith(said)]
    home = shop.home.relative_to(shop.root).as_posix()
    promoted = promoted_models(shop.storage, home, champions.read(shop.storage, home)[0])
    assert folds_warning("champion", promoted["champion"], same) == ""



def test_the_way_of_deciding_changes_by_hand_only(shop: Workshop) -> None:
    first, version = shop.train("split", noise=1.0)
    assert version is not None and first.decision_by == "split"
    folder = fold_run(shop, "folds")
    record = shop.evaluate(folder)
    assert (record.decision, record.code) == ("refused", "other_decision") and "models promote" in record.reason
    assert shop.push(folder) is None
    from components.promotion import publish

    made = publish.promote(shop.storage, folder, reason="more patients decide", clock=lambda: 1_700_000_100.0)
    assert made.decision_by == "folds"
    assert champions.load(shop.storage, "models/idc/binary").current.run_id == "folds"
    shop.fresh()
    back, _ = shop.train("again")
    assert (back.decision, back.code) == ("refused", "other_decision")
    better = shop.evaluate(fold_run(shop, "next"))
    assert better.code == "not_distinguishable" and any("was decided by split" in text for text in better.warnings)


def test_the_served_model_is_measured_on_what_no_fold_saw(shop: Workshop) -> None:
    folds = plan(shop, "test")
    assert set(folds.held_out) == set(shop.groups("test")) and folds.plan.endswith("folds-holdout-test")
    record = shop.evaluate(fold_run(shop, "held", folds=folds))
    check_run(record)
    rows = pooled(shop, "runs/idc/binary/held").values()
    assert {row["group_id"] for row in rows if row["split"] == "holdout"} == set(folds.held_out)
    assert not {row["group_id"] for row in rows if row["split"] == "test"} & set(folds.held_out)
    assert record.metrics["holdout"]["groups"] == len(folds.held_out)
    assert record.figures("holdout")["auc"]["estimate"] > 0.9
    text = (shop.root / page.write(shop.storage, "runs/idc/binary/held")).read_text()
    assert f"on {len(folds.held_out)} held-out patients" in text


def test_what_was_said_out_of_fold_is_what_is_published(shop: Workshop) -> None:
    folder = fold_run(shop, "edited")
    shop.evaluate(folder)
    file = shop.root / folder / "out_of_fold.parquet"
    pq.write_table(pq.read_table(file).slice(1), file)
    with pytest.raises(DataError, match="is not what the run was decided by"):
        shop.push(folder)


def test_folds_follow_the_ledgers_of_the_workspace_and_nobody_moves(shop: Workshop) -> None:
    first = plan(shop)
    ledgers = {file.name: file.read_bytes() for file in (shop.root / "datasets/idc/binary/folds").iterdir()}
    assert sorted(ledgers) == ["1.json", "2.json"] and plan(shop) == first
    assert {f.name: f.read_bytes() for f in (shop.root / "datasets/idc/binary/folds").iterdir()} == ledgers
    assert isinstance(next(iter(first.groups.values())), FoldPlace)
    assert FoldAssignment.from_bytes(first.to_bytes(), "") == first
    damaged = first.to_bytes().replace(b'"holdout": "none"', b'"holdout": "test"')
    with pytest.raises(DataError, match="edited"):
        FoldAssignment.from_bytes(damaged, "folds.json")


def test_a_class_of_too_few_patients_is_refused_with_the_table_or_trained_on(tmp_path: Path) -> None:
    from components.storage.open import open_storage
    from tests.support import ingest_help
    from tests.support.model_help import pixels, write_image
    from tests.support.trees import BREAKHIS_TYPES, breakhis_path

    for label, kind in enumerate(BREAKHIS_TYPES):
        for case in range(2 if label == 0 else 5):
            path = breakhis_path(kind, f"14-{1000 + 20 * label + case}", 40, 1)
            write_image(tmp_path / "raw" / path, pixels(path, label, 8, 700, 460))
    made = ingest_help.ingest(tmp_path / "raw", tmp_path / "ws", "breakhis", task="subtype", on_infeasible="train-only")
    storage = open_storage(tmp_path / "ws")
    config = TrainingConfig(task="subtype", decision="folds", folds=3)
    folder = str(made.folder.relative_to(tmp_path / "ws"))
    with pytest.raises(DataError, match=r"(?s)adenosis.*3") as refused:
        settle_folds(storage, folder, made.manifest, config)
    assert "--on-infeasible train-only" in refused.value.fix and "drop-class" not in refused.value.fix
    folds = settle_folds(storage, folder, made.manifest, config, "train-only")
    assert folds.train_only_classes == ("adenosis",)
    assert sum(place.test == 0 for place in folds.groups.values()) == 2


def test_train_and_ingest_plan_the_same_folds_and_new_patients_join_them(tmp_path: Path) -> None:
    from components.storage.open import open_storage
    from tests.support import ingest_help, trees

    trees.idc_tree(tmp_path / "raw", 12, 2)
    made, storage = ingest_help.ingest(tmp_path / "raw", tmp_path / "ws"), open_storage(tmp_path / "ws")
    config = TrainingConfig(decision="folds", folds=3)
    first = settle_folds(storage, str(made.folder.relative_to(tmp_path / "ws")), made.manifest, config)
    for fold in (1, 3):
        assert ingest_help.ingest(tmp_path / "raw", tmp_path / "ws", fold=fold).splits == first.split_of(fold)
    trees.idc_tree(tmp_path / "raw", 16, 2)
    grown = ingest_help.ingest(tmp_path / "raw", tmp_path / "ws")
    folder = str(grown.folder.relative_to(tmp_path / "ws"))
    second = settle_folds(storage, folder, grown.manifest, config)
    assert len(second.groups) == 16 and second.groups.items() >= first.groups.items()
    assert all(place.test for place in second.groups.values())
    held = settle_folds(storage, folder, grown.manifest, dataclasses.replace(config, holdout="test"))
    assert not set(held.held_out) & set(held.groups) and len(held.held_out) + len(held.groups) == 16
    with pytest.raises(UsageError, match="holds 3 folds"):
        settle_folds(storage, folder, grown.manifest, dataclasses.replace(config, folds=4))


def test_a_run_freezes_its_folds_and_keeps_them(shop: Workshop) -> None:
    from components.training import run_inputs

    config = TrainingConfig(decision="folds", folds=FOLDS)
    data = shop.dataset_dir.rpartition("/")[2]
    inputs = run_inputs.settle(shop.storage, "idc", "binary", data, config, {})
    folder = "runs/idc/binary/frozen"
    record = run_inputs.freeze(shop.storage, folder, inputs)
    check_run(record)
    assert record.decision_by == "folds" and record.folds is not None and record.folds.groups == len(shop.splits)
    assert read_folds(shop.storage, folder) == inputs.folds and record.digests["folds"] == inputs.folds.digest()
    assert run_inputs.freeze(shop.storage, folder, inputs) == record
    # Killed between run.json and what belongs to it, it is begun again.
    run_record.update(shop.storage, folder, decision_by="split", folds=None)
    assert run_inputs.freeze(shop.storage, folder, inputs).decision_by == "folds"


def test_one_fold_is_asked_of_a_run_that_has_folds_and_is_validated(shop: Workshop) -> None:
    from pipelines.fold_step import train_one
    from pipelines.step import command

    shop.run("plain")
    with pytest.raises(UsageError, match="decides by its test split"):
        train_one(shop.storage, "runs/idc/binary/plain", 1, print)
    folder = fold_run(shop, "early")
    with pytest.raises(UsageError, match="validate has not ended well"):
        train_one(shop.storage, folder, 1, print)
    with pytest.raises(UsageError, match="Only `step train` takes --fold"):
        arguments = ["evaluate", "idc", "--run-id", "early", "--fold", "1", "--workspace", str(shop.root)]
        command.main(arguments, standalone_mode=False)
