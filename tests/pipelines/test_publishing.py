"""From a promoted run to the version that is served: push, crash, rollback, promotion by hand."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner

from components.errors import DataError, UsageError
from components.promotion import champion as champions
from components.promotion import evaluation, find_model, publish
from components.training import run_record
from pipelines import console
from pipelines.models import command
from tests.support.model_help import check_run, models_command, served

pytestmark = pytest.mark.integration

SECOND = 1_700_000_000
NON_INFERIOR = {"policy": "non-inferior", "margin": 0.02}


def test_two_pushes_within_one_second_and_a_clock_set_back(shop):
    versions = []
    for i, (noise, clock) in enumerate([(1.0, SECOND + 0.2), (0.6, SECOND + 0.9), (0.0, 5.0)]):
        shop.fresh()
        versions.append(shop.train(f"run-{i}", noise=noise, clock=clock)[1])
    assert versions == [SECOND, SECOND + 1, SECOND + 2]
    assert shop.champion["run_id"] == "run-2" and served(shop) == SECOND + 2


def test_pushing_again_gives_the_same_version(shop):
    _, version = shop.train("first")
    folder = "runs/idc/binary/first"
    assert shop.push(folder, SECOND + 99.0) == version == served(shop)
    record = shop.evaluate(folder)
    assert (record.decision, record.version) == ("promoted", version), "not compared with itself"


def test_a_crash_between_rename_and_champion_json_is_repaired_by_the_next_push(shop, monkeypatch):
    shop.train("first", noise=1.0)
    folder = shop.run("second", noise=0.6)
    shop.evaluate(folder)
    load, calls = champions.load, []

    def dies(storage, where):
        calls.append(where)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return load(storage, where)

    with monkeypatch.context() as patch:
        patch.setattr(champions, "load", dies)
        with pytest.raises(KeyboardInterrupt):
            shop.push(folder)
    assert shop.champion["run_id"] == "first" and served(shop) == SECOND + 1
    shop.fresh()
    third = shop.run("third")
    # Compared with the first champion, which is not the one that is served by now.
    monkeypatch.setattr(evaluation.champions, "load", lambda s, h: champions.read(s, h)[0])
    assert shop.evaluate(third).gate.champion_version == SECOND
    monkeypatch.undo()
    assert shop.push(third) == SECOND + 2
    assert [entry["run_id"] for entry in shop.champion["history"]] == ["first", "second", "third"]
    assert shop.record(third).gate.champion_version == SECOND + 1, "evaluated again before it was pushed"
    assert shop.push(folder) == SECOND + 1 and shop.record(folder).version == SECOND + 1


def test_a_champion_that_came_meanwhile_is_compared_with_first(shop):
    shop.train("first", noise=1.0)
    slow = shop.run("slow", noise=0.6)
    assert shop.evaluate(slow).decision == "promoted"
    shop.train("quick")
    assert shop.push(slow) is None
    record = shop.record(slow)
    assert record.decision == "refused" and record.gate.champion_version == shop.champion["version"]
    assert shop.champion["run_id"] == "quick"
    assert shop.evaluate(slow).looks.count == 3, "three runs, however often each was evaluated"


def test_a_lost_champion_json_is_written_again(shop):
    shop.train("first", noise=1.0)
    shop.train("second")
    before = shop.champion
    (shop.home / "champion.json").unlink()
    record, _ = shop.train("third", noise=1.0)
    assert record.gate.champion_version == before["version"] and shop.champion == before


def test_a_changed_model_is_not_pushed(shop):
    folder = shop.run("first")
    shop.evaluate(folder)
    (shop.root / folder / "model/fingerprint.pb").write_bytes(b"other")
    with pytest.raises(DataError, match="not the one that was evaluated"):
        shop.push(folder)
    with pytest.raises(UsageError, match="not evaluated"):
        shop.push(shop.run("second"))


def test_a_champion_whose_files_are_gone_is_an_error(shop):
    shop.train("first")
    shutil.rmtree(shop.home / str(SECOND))
    with pytest.raises(DataError, match="is gone"):
        shop.evaluate(shop.run("second"))


def test_rollback_publishes_the_old_model_under_a_new_version(shop):
    shop.train("first", noise=1.0)
    shop.train("second")
    made = publish.rollback(shop.storage, "idc", "binary", reason="wrong stain", who="ada", clock=lambda: 5.0)
    assert (made.version, made.from_version, made.run_id) == (SECOND + 2, SECOND, "first")
    assert served(shop) == made.version == shop.champion["version"]
    assert (shop.champion["promoted_by"], shop.champion["who"], shop.champion["why"]) == ("hand", "ada", "wrong stain")
    assert shop.champion["best_ever"]["run_id"] == "first", "what was rolled back no longer counts"
    old, new = (shop.home / str(version) for version in (SECOND, made.version))
    for name in ("saved_model.pb", "assets.extra/histoline.json", "variables/variables.index"):
        assert (old / name).read_bytes() == (new / name).read_bytes()
    card = (new / "README.md").read_text()
    assert f"Version {made.version}, promoted by hand (ada)" in card and card.count("## Promotion") == 1
    assert f"This is version {SECOND} published again" in card
    record, _ = shop.train("third")
    assert record.gate.champion_version == made.version and record.code == "better"


def test_rollback_to_where_it_makes_no_sense(shop):
    with pytest.raises(UsageError, match="ever promoted"):
        publish.rollback(shop.storage, "idc", "binary", reason="x")
    shop.train("first", noise=1.0)
    with pytest.raises(UsageError, match="no model before"):
        publish.rollback(shop.storage, "idc", "binary", reason="x")
    shop.train("second")
    for to, said in ((7, "never promoted"), (SECOND + 1, "champion already")):
        with pytest.raises(UsageError, match=said):
            publish.rollback(shop.storage, "idc", "binary", reason="x", to=to)
    with pytest.raises(UsageError, match="needs a reason"):
        publish.rollback(shop.storage, "idc", "binary", reason="  ")
    shutil.rmtree(shop.home / str(SECOND))
    with pytest.raises(UsageError, match="pruned"):
        publish.rollback(shop.storage, "idc", "binary", reason="x")


def test_a_refused_candidate_is_promoted_by_hand_with_a_reason(shop):
    shop.train("first")
    shop.train("second", noise=1.0)
    made = publish.promote(shop.storage, "runs/idc/binary/second", reason="for a comparison", clock=lambda: 5.0)
    assert (made.version, served(shop)) == (SECOND + 1, SECOND + 1)
    champion = shop.champion
    assert (champion["run_id"], champion["promoted_by"], champion["why"]) == ("second", "hand", "for a comparison")
    assert champion["best_ever"]["run_id"] == "first" and champion["who"]
    record = shop.record("runs/idc/binary/second")
    check_run(record)
    assert (record.decision, record.version) == ("refused", made.version), "the gate's word stays"
    with pytest.raises(UsageError, match="champion already"):
        publish.promote(shop.storage, "runs/idc/binary/second", reason="again")
    with pytest.raises(UsageError, match="needs a reason"):
        publish.promote(shop.storage, "runs/idc/binary/first", reason="\n")
    shop.fresh()
    drifting, _ = shop.train("third", gate=NON_INFERIOR, noise=1.0)
    assert drifting.code == "inferior_to_best_ever", "a promotion by hand does not lower the bar"


def test_the_models_command(shop, capsys):
    assert models_command(shop, "list") == []
    shop.train("first", noise=1.0)
    shop.train("second", noise=1.5)
    listed = models_command(shop, "list")
    assert [(r["version"], r["champion"], r["best_ever"], r["kept"]) for r in listed] == [(SECOND, True, True, True)]
    assert "Research use only" in models_command(shop, "show", "idc")["card"]
    made = models_command(shop, "promote", "second", "--reason", "to see it", "--who", "ada")
    assert made["promoted_by"] == "hand" and made["version"] == served(shop)
    back = models_command(shop, "rollback", "idc", "--reason", "seen")
    assert back["from_version"] == SECOND and back["version"] == served(shop)
    assert [r["version"] for r in models_command(shop, "list", "idc", "--task", "binary")][0] == back["version"]
    assert isinstance(models_command(shop, "show", "idc", "--version", "3"), UsageError)
    assert isinstance(models_command(shop, "promote", "nobody", "--reason", "x"), UsageError)
    for text in (["list"], ["show", "idc"]):
        assert CliRunner().invoke(command, [*text, "--workspace", str(shop.root)]).exit_code == 0
    no_reason = ["rollback", "idc", "--workspace", str(shop.root)]
    assert console.run(lambda: command.main(no_reason, standalone_mode=False)) == 64
    assert "--reason" in capsys.readouterr().err


def test_a_run_locked_by_its_step_is_not_promoted_under_its_feet(shop, monkeypatch):
    shop.train("first", noise=1.0)
    shop.train("second", noise=1.5)
    with run_record.lock(shop.storage, "runs/idc/binary/second", "histoline step evaluate"):
        assert models_command(shop, "promote", "second", "--reason", "x") is not None
    assert shop.champion["run_id"] == "first"


def test_a_version_with_a_flipped_bit_is_not_used(shop):
    shop.train("first", noise=1.0)
    shop.train("second")
    assert all(row["vouched"] and not row["findings"] for row in models_command(shop, "verify"))
    damaged, name = shop.home / str(SECOND), "assets.extra/histoline.json"
    data = (damaged / name).read_bytes()
    # Another threshold: everything loads and answers as before.
    (damaged / name).write_bytes(data.replace(b"0.5", b"0.4"))
    assert (damaged / name).read_bytes() != data
    told = models_command(shop, "verify", "idc")
    assert isinstance(told, DataError) and str(SECOND) in told.what
    for use in (
        lambda: publish.rollback(shop.storage, "idc", "binary", reason="x"),
        lambda: find_model.named_model(shop.storage, str(SECOND)),
        lambda: find_model.model_folder(str(damaged)),
        lambda: champions.version_dir(shop.storage, "models/idc/binary", SECOND),
    ):
        with pytest.raises(DataError, match=f"{name} has changed"):
            use()
    (damaged / name).write_bytes(data)
    made = publish.rollback(shop.storage, "idc", "binary", reason="x")
    assert models_command(shop, "verify")[-1] == {
        "path": str(shop.home / str(made.version)), "vouched": True, "findings": [],
    }  # fmt: skip
