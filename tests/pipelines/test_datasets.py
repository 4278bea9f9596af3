"""What may go, what must go, and what must stay."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.components.promotion.test_champion import history, promotion
from tests.support import ingest_help, trees
from tests.support.cli_help import invoke, invoke_json


@pytest.fixture
def workspace(tmp_path) -> Path:
    trees.idc_tree(tmp_path / "raw", 12, per_class=2)
    ingest_help.ingest(tmp_path / "raw", tmp_path / "w")
    return tmp_path / "w"


def grow(workspace: Path, n: int) -> ingest_help.Result:
    trees.idc_tree(workspace.parent / "raw", [str(8000 + i) for i in range(n)], per_class=2)
    return ingest_help.ingest(workspace.parent / "raw", workspace)


def paths(told: list[dict]) -> dict[str, str]:
    return {row["plan_id"]: row["state"] for row in told}


def test_list_and_show(workspace, capsys):
    second = grow(workspace, 2)
    (workspace / "datasets/idc/binary/0123456789abcdef/Split-train").mkdir(parents=True)
    code, result = invoke_json(capsys, "datasets", "list", "--workspace", workspace)
    assert code == 0 and sorted(paths(result).values()) == ["committed", "latest", "unfinished"]
    assert paths(result)[second.plan_id] == "latest"
    code, shown = invoke_json(capsys, "datasets", "show", "idc", "--workspace", workspace)
    assert shown["plan_id"] == second.plan_id and shown["written"] == 56
    assert invoke("datasets", "list", "--workspace", workspace) == 0
    assert invoke("datasets", "show", "idc", "--workspace", workspace) == 0
    assert second.plan_id in capsys.readouterr().out


def test_an_empty_workspace_says_what_to_do(tmp_path, capsys):
    assert invoke("datasets", "list", "--workspace", tmp_path) == 0
    assert "run histoline ingest first" in capsys.readouterr().out
    assert invoke("datasets", "show", "idc", "--workspace", tmp_path) == 64


def test_prune_keeps_the_latest_and_tells_before_it_does(workspace, capsys):
    first = next(p.name for p in (workspace / "datasets/idc/binary").iterdir() if p.is_dir() and p.name[0] != ".")
    second = grow(workspace, 1)
    code, result = invoke_json(capsys, "datasets", "prune", "--workspace", workspace)
    assert result["would_delete"] == [f"datasets/idc/binary/{first}"]
    assert (workspace / result["would_delete"][0] / "manifest.json").exists()
    assert invoke("datasets", "prune", "--workspace", workspace, "--keep", 2, "--yes") == 0
    assert (workspace / result["would_delete"][0]).exists()
    assert invoke("datasets", "prune", "--workspace", workspace, "--yes") == 0
    assert not (workspace / result["would_delete"][0]).exists() and second.folder.exists()
    assert invoke("datasets", "prune", "--workspace", workspace, "--keep", 0) == 64


def test_prune_spares_what_a_champion_was_trained_on(workspace, capsys):
    first = next(p.name for p in (workspace / "datasets/idc/binary").iterdir() if p.is_dir() and p.name[0] != ".")
    champion = workspace / "models/idc/binary/champion.json"
    champion.parent.mkdir(parents=True)
    champion.write_bytes(history(promotion(1, dataset_dir=f"datasets/idc/binary/{first}")).dump())
    grow(workspace, 1)
    prune = ("datasets", "prune", "--workspace", workspace, "--yes")
    assert invoke_json(capsys, *prune)[1]["deleted"] == []
    champion.write_text("{}")
    assert invoke(*prune) == 65, "nobody can tell which data set the champion needs"
    assert (workspace / f"datasets/idc/binary/{first}/manifest.json").exists()


def test_forget_purges_and_the_next_ingest_remembers(workspace, capsys, tmp_path):
    folder = next(p for p in (workspace / "datasets/idc/binary").iterdir() if p.is_dir() and p.name[0] != ".")
    before = json.loads((folder / "splits.json").read_text())["splits"]
    (tmp_path / "gone.txt").write_text("9003\n")
    run = workspace / "runs/idc/binary/r1"
    run.mkdir(parents=True)
    (run / "run.json").write_text(json.dumps({"dataset_dir": f"datasets/idc/binary/{folder.name}"}))
    args = ("datasets", "forget", "--groups", tmp_path / "gone.txt", "--workspace", workspace)
    _, result = invoke_json(capsys, *args)
    assert result["would_purge"] == {f"datasets/idc/binary/{folder.name}": ["9003"]}
    assert result["trained_on_them"] == ["runs/idc/binary/r1"]
    assert (folder / "manifest.json").exists()
    assert invoke(*args, "--yes") == 0
    left = [p.name for p in folder.rglob("*") if p.is_file()]
    assert left == ["splits.json"], "records, tables and thumbnails of the patient must be gone"
    again = ingest_help.ingest(tmp_path / "raw", workspace)
    assert again.ledger["tombstones"] == ["9003"] and "9003" not in again.splits
    assert set(again.rejects.values()) == {"excluded_group"}
    assert {g: s for g, s in before.items() if g != "9003"} == again.splits, "everybody else stays where he was"
    _, result = invoke_json(capsys, *args)
    assert result["would_purge"] == {}


def test_forget_searches_pseudonymised_data_sets_with_the_key(tmp_path, capsys):
    trees.idc_tree(tmp_path / "raw", 12, per_class=2)
    key = tmp_path / "key"
    key.write_text("0123456789abcdef0123456789abcdef")
    key.chmod(0o600)
    made = ingest_help.ingest(tmp_path / "raw", tmp_path / "w", pseudonymise=key)
    (tmp_path / "gone.txt").write_text("9003\n")
    args = ("datasets", "forget", "--groups", tmp_path / "gone.txt", "--workspace", tmp_path / "w")
    _, result = invoke_json(capsys, *args)
    assert result["would_purge"] == {} and result["not_searched"] == [f"datasets/idc/binary/{made.plan_id}"]
    _, result = invoke_json(capsys, *args, "--pseudonymise", key)
    assert list(result["would_purge"]) == [f"datasets/idc/binary/{made.plan_id}"]


def test_show_verify_and_audit_take_a_name_a_plan_id_or_a_folder(workspace, capsys):
    first = next(p.name for p in (workspace / "datasets/idc/binary").iterdir() if p.is_dir() and p.name[0] != ".")
    second = grow(workspace, 1)
    for given, plan_id in (("idc", second.plan_id), (first, first), (workspace / "datasets/idc/binary" / first, first)):
        code, shown = invoke_json(capsys, "datasets", "show", given, "--workspace", workspace)
        assert code == 0 and shown["plan_id"] == plan_id
        code, checked = invoke_json(capsys, "verify", given, "--workspace", workspace)
        assert code == 0 and checked["dataset_dir"].endswith(plan_id)
    code, checked = invoke_json(capsys, "audit", first, "--workspace", workspace)
    assert code == 0 and checked["dataset_dir"].endswith(first)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("0123456789abcdef", "No data set with the PLAN_ID 0123456789abcdef is committed in"),
        ("idcc", "neither a name (idc, breakhis, pcam), nor a PLAN_ID, nor a folder"),
        ("pcam", "No pcam binary data set is committed in"),
    ],
)
def test_what_is_no_data_set_is_said_in_the_words_that_were_typed(tmp_path, capsys, given, said):
    for command in (("datasets", "show"), ("verify",), ("audit",)):
        assert invoke(*command, given, "--workspace", tmp_path) == 64
        text = capsys.readouterr().err
        assert said in text and "//" not in text


@pytest.mark.parametrize("command", ["ingest", "synth"])
def test_a_negative_seed_is_refused(tmp_path, capsys, command):
    named = ["--output", tmp_path / "o"] if command == "synth" else ["--input", tmp_path, "--workspace", tmp_path / "w"]
    assert invoke(command, "idc", *named, "--seed", "-1") == 64
    assert "0<=x<=2147483647" in capsys.readouterr().err
