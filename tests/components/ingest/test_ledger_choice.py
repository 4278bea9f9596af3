"""What was there before an ingest: each file is opened once, and what is missing or damaged is told."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import DataError, UsageError
from components.ingest.config import IngestConfig
from components.ingest.ledger_choice import Previous, read_previous
from components.ingest.plan import plan_ingest
from components.splits.ledger import Ledger
from components.storage.local import LocalStorage
from tests.support import ingest_help as help
from tests.support import trees

HOME = "datasets/idc/binary"


def config(workspace: Path, **options: Any) -> IngestConfig:
    return IngestConfig("idc", str(workspace / "raw"), str(workspace), **options)


def ledger(**fields: Any) -> Ledger:
    return Ledger(**{"group_unit": "patient", "splits": {"a": "train", "b": "test"}, **fields})


def commit(workspace: Path, latest: Ledger, *, sealed: str | None = None) -> None:
    """A data set that latest.json names, with no more than its ledger and what the manifest says of it."""
    text = latest.to_json()
    folder = workspace / HOME / "plan"
    folder.mkdir(parents=True)
    (folder / "splits.json").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest() if sealed is None else sealed
    (folder / "manifest.json").write_text(json.dumps({"ledger": {"sha256": digest}}))
    pointer = {"dataset_dir": f"{HOME}/plan", "plan_id": "plan", "content_digest": "x"}
    (workspace / HOME / "latest.json").write_text(json.dumps(pointer))


def write_folds(workspace: Path, count: int) -> list[Ledger]:
    ledgers = [ledger(source="fold", fold=i + 1, folds=count) for i in range(count)]
    (workspace / HOME / "folds").mkdir(parents=True)
    for each in ledgers:
        (workspace / HOME / f"folds/{each.fold}.json").write_text(each.to_json())
    return ledgers


def read(workspace: Path, **options: Any) -> Previous:
    return read_previous(LocalStorage(str(workspace)), config(workspace, **options))


def test_a_first_ingest_has_no_past(tmp_path: Path) -> None:
    assert read(tmp_path) == Previous()


def test_the_latest_data_set_s_ledger(tmp_path: Path) -> None:
    commit(tmp_path, ledger(tombstones={"c"}))
    previous = read(tmp_path)
    assert previous.ledger == previous.latest == ledger(tombstones={"c"})
    assert previous.where == f"{tmp_path}/{HOME}/plan/splits.json"


def test_a_named_ledger_goes_before_the_latest_whose_withdrawn_groups_still_count(tmp_path: Path) -> None:
    commit(tmp_path, ledger(tombstones={"c"}))
    mine = ledger(splits={"a": "test"}, tombstones={"d"})
    (tmp_path / "mine.json").write_text(mine.to_json())
    previous = read(tmp_path, ledger=tmp_path / "mine.json")
    assert previous.ledger == mine and previous.where == str(tmp_path / "mine.json")
    assert previous.withdrawn("") == {"c", "d"}
    assert previous.withdrawn("another key") == {"d"}, "tokens of another key mean nothing"


def test_a_leaky_ingest_goes_on_from_nothing_but_leaves_withdrawn_groups_out(tmp_path: Path) -> None:
    commit(tmp_path, ledger(tombstones={"c"}), sealed="of another file")
    previous = read(tmp_path, split_by="image")
    assert previous.ledger is None and previous.withdrawn("") == {"c"}


def test_folds(tmp_path: Path) -> None:
    ledgers = write_folds(tmp_path, 3)
    previous = read(tmp_path, fold=2)
    assert previous.folds == tuple(ledgers) and previous.ledger == ledgers[1]
    assert previous.where.endswith("folds/2.json")
    assert read(tmp_path, folds=3).ledger == ledgers[0]
    with pytest.raises(UsageError, match="holds 3 folds, --folds says 4"):
        read(tmp_path, folds=4)
    with pytest.raises(UsageError, match="--fold 4: there are 3"):
        read(tmp_path, fold=4)


def test_the_first_folds_have_no_past_and_a_fold_without_a_plan_is_an_error(tmp_path: Path) -> None:
    assert read(tmp_path, folds=3) == Previous()
    with pytest.raises(UsageError, match="There are no folds"):
        read(tmp_path, fold=1)


def test_a_ledger_that_was_changed_after_the_commit_is_refused(tmp_path: Path) -> None:
    commit(tmp_path, ledger(), sealed="of another file")
    with pytest.raises(DataError, match="changed after the commit"):
        read(tmp_path)
    (tmp_path / HOME / "plan/manifest.json").unlink()  # a repair under way
    assert read(tmp_path).ledger == ledger()


def test_a_ledger_that_is_gone_is_refused_where_it_is_followed(tmp_path: Path) -> None:
    commit(tmp_path, ledger())
    (tmp_path / HOME / "plan/splits.json").unlink()
    with pytest.raises(DataError, match="names a data set without"):
        read(tmp_path)
    assert read(tmp_path, split_by="image") == Previous()
    assert read(tmp_path, folds=2) == Previous()


@pytest.mark.parametrize("text", ["", "{", "[]"])
def test_a_broken_ledger_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(DataError, match="broken"):
        read(tmp_path, ledger=tmp_path / "mine.json")
    with pytest.raises(UsageError, match="can't be read"):
        read(tmp_path, ledger=tmp_path / "absent.json")


@pytest.mark.parametrize("options", [{}, {"folds": 3}, {"fold": 2}, {"split_by": "image"}])
def test_an_ingest_opens_each_ledger_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    trees.idc_tree(tmp_path / "raw", 12, 2)
    help.ingest(tmp_path / "raw", tmp_path)
    help.plan(config(tmp_path, folds=3))
    opened: collections.Counter[str] = collections.Counter()
    real = LocalStorage.read_bytes

    def counted(self: LocalStorage, path: str) -> bytes:
        opened[path.rpartition("/")[2] if "folds/" not in path else path[path.index("folds/") :]] += 1
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "read_bytes", counted)
    plan_ingest(dataclasses.replace(config(tmp_path), **options), "try")
    ledgers = {name: n for name, n in opened.items() if name.startswith("folds/") or name == "splits.json"}
    wanted = ["splits.json", *(f"folds/{i}.json" for i in (1, 2, 3) if "fold" in options or "folds" in options)]
    assert ledgers == dict.fromkeys(wanted, 1)
    assert opened["latest.json"] == 1
