"""`histoline prune`: what goes, what never goes, who is waited for, and what a kill leaves behind."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.storage import local
from components.storage.open import open_storage
from tests.support import gcs
from tests.support.cli_help import invoke, invoke_json
from tests.support.prune_help import HOME, Collected, left, names
from tests.support.storage_help import python

ALL = ("--keep-runs", 1, "--keep-sweeps", 0, "--keep-datasets", 1, "--older-than", "0d")
"""All but the newest, whatever its age."""

GONE = {"runs/older", "runs/old", "sweeps/done", "cache/abc"}
"""What of the workspace may go, but for checkpoints and data sets."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Collected:
    return Collected(tmp_path_factory.mktemp("collected"))


@pytest.fixture
def collected(made: Collected, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made.root, tmp_path / "w"))


def prune(capsys: Any, root: Any, *args: object) -> dict[str, Any]:
    code, document = invoke_json(capsys, "prune", "--workspace", root, *args)
    assert code == 0
    return document


def paths(document: dict[str, Any], key: str = "removed") -> set[str]:
    return {one["path"] for one in document[key]}


def why(document: dict[str, Any], path: str) -> str:
    return next(one["why"] for one in document["kept"] if one["path"] == path)


def test_a_dry_run_tells_what_goes_and_who_needs_the_rest_and_changes_nothing(made, collected, capsys):
    before = left(collected)
    told = prune(capsys, collected, *ALL)
    checkpoints = f"runs/{HOME}/refused/checkpoints"
    # The champion needs the first data set, runs that stay the second, a sweep that is not over the third.
    assert names(paths(told, "would_remove") - {checkpoints}) == GONE and checkpoints in paths(told, "would_remove")
    assert "version 7" in why(told, f"runs/{HOME}/champion") and "champion" in why(told, made.data[0])
    assert "run unchanged" in why(told, f"runs/{HOME}/refused") and "not over" in why(told, f"runs/{HOME}/resumed")
    assert "sweep begun is not over" == why(told, made.data[2]) and "latest" in why(told, made.data[3])
    assert told["bytes"] == sum(one["bytes"] for one in told["would_remove"]) > 0
    assert told["pages"] == ["runs/index.html"]
    assert left(collected) == before
    assert invoke("prune", "--workspace", collected, *ALL) == 0
    assert "add --yes" in capsys.readouterr().out


def test_what_was_told_is_done_and_nothing_is_left_to_do(collected, capsys, monkeypatch, tmp_path):
    told = paths(prune(capsys, collected, *ALL), "would_remove")
    monkeypatch.setenv("HISTOLINE_RESULT_JSON", str(tmp_path / "result.json"))
    done = prune(capsys, collected, *ALL, "--yes")
    assert paths(done) == told and done["skipped"] == []
    assert not any((collected / path).exists() for path in told)
    assert json.loads((tmp_path / "result.json").read_text())["decision"] == "pruned"
    page = (collected / "runs/index.html").read_text()
    links = re.findall(r'href="(idc/[^"]+)"', page)
    assert links and all((collected / "runs" / link).is_file() for link in links), "no link leads to what is gone"
    assert not list(collected.glob(".tmp/*"))
    again = prune(capsys, collected, *ALL, "--yes")
    assert again["removed"] == []


def test_a_sweep_s_page_that_leads_to_what_is_gone_is_made_anew(collected, capsys):
    page = collected / "sweeps/idc/binary/begun/index.html"
    for run in ("old", "deleted-by-a-killed-pruning"):
        page.write_text(f'<a href="../../../../runs/{HOME}/{run}/report/index.html">The winner</a>')
        told = prune(capsys, collected, *ALL)
        assert "sweeps/idc/binary/begun/index.html" in told["pages"]
        assert "winner</a>" in page.read_text(), "told, not done"
        prune(capsys, collected, *ALL, "--yes")
        assert "Research use only" in page.read_text() and f"/{run}/" not in page.read_text()


def test_a_run_s_page_that_leads_to_what_is_gone_is_made_anew_and_its_age_stays(collected, capsys):
    page, record = (collected / f"runs/{HOME}/refused" / name for name in ("report/index.html", "run.json"))
    before = record.read_bytes()
    for run, dangles in (("champion", False), ("old", True), ("deleted-by-a-killed-pruning", True)):
        page.write_text(f'<a href="../../{run}/report/index.html">the champion</a>')
        told = prune(capsys, collected, *ALL, "--yes")
        assert (f"runs/{HOME}/refused/report/index.html" in told["pages"]) is dangles
        assert (f"/{run}/" not in page.read_text()) is dangles
    assert "Research use only" in page.read_text() and record.read_bytes() == before


def test_a_run_that_goes_lets_its_data_set_go(made, collected, capsys):
    shutil.rmtree(collected / "sweeps")
    kept = prune(capsys, collected, *ALL)
    assert made.data[2] in paths(kept, "would_remove"), "only the sweep needed it"
    for name in ("unchanged", "failed"):
        shutil.rmtree(collected / f"runs/{HOME}/{name}")
    args = ("--keep-runs", 0, *ALL[2:], "--abandoned-after", "20d")
    told = prune(capsys, collected, *args)
    assert {f"runs/{HOME}/resumed", f"runs/{HOME}/refused", made.data[1]} <= paths(told, "would_remove")
    assert made.data[1] in paths(prune(capsys, collected, *args, "--yes"))
    narrow = prune(capsys, collected, *ALL, "--only", "datasets")
    assert narrow["would_remove"] == []


def test_age_and_count_both_keep(collected, capsys):
    told = prune(capsys, collected, "--keep-runs", 0, "--older-than", "32d", "--only", "runs")
    assert names(paths(told, "would_remove")) == {"runs/older", "runs/old"}
    told = prune(capsys, collected, "--keep-runs", 5, "--older-than", "0d", "--only", "runs")
    assert names(paths(told, "would_remove")) == {"runs/older"}, "unchanged runs do not count among the five"
    told = prune(capsys, collected)
    assert {one["kind"] for one in told["would_remove"]} == {"checkpoints"}, "by default ten runs stay"


def test_sizes_ages_and_wrong_usage(collected, capsys):
    assert invoke("prune", "--workspace", collected, "--older-than", "soon") == 64
    assert invoke("prune", "--workspace", collected, "--keep-datasets", 0) == 64
    assert invoke("prune", "--workspace", collected, "--task", "binary") == 64
    assert invoke("prune", "idcc", "--workspace", collected) == 64 and "nothing of idcc" in capsys.readouterr().err
    assert invoke("prune", "--workspace", collected / "empty") == 0
    (collected / f"models/{HOME}/champion.json").write_text("{}")
    assert invoke("prune", "--workspace", collected, *ALL, "--yes") == 65, "nobody can tell what the champion needs"
    assert (collected / f"runs/{HOME}/old/run.json").exists()


HOLD = """
    import contextlib, sys
    from components.storage.open import open_storage
    with contextlib.ExitStack() as stack:
        for path in sys.argv[2:]:
            stack.enter_context(open_storage(sys.argv[1]).lock(path, owner="a step"))
        print("ready", flush=True)
        sys.stdin.read()
"""


def test_what_somebody_works_on_is_left_for_the_next_time(made, collected, capsys):
    shutil.rmtree(collected / "sweeps/idc/binary/begun")
    locks = [f"runs/{HOME}/old/.lock", f"sweeps/{HOME}/done/trials/0/.lock", f"datasets/{HOME}/.lock"]
    holder = python(HOLD, collected, *locks)
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    done = prune(capsys, collected, *ALL, "--yes")
    left_alone = {f"runs/{HOME}/old", f"sweeps/{HOME}/done", made.data[2]}
    assert {one["path"] for one in done["skipped"]} == left_alone
    assert all("a step" in one["why"] for one in done["skipped"]) and all((collected / p).is_dir() for p in left_alone)
    assert f"runs/{HOME}/older" in paths(done)
    holder.communicate("", timeout=60)
    assert paths(prune(capsys, collected, *ALL, "--yes")) == left_alone


def test_a_run_that_has_changed_since_it_was_looked_at_stays(made, collected, monkeypatch):
    import time

    from components.pruning.removal import Remover
    from components.pruning.rules import Rules
    from components.training import run_record
    from pipelines.prune import Pruning

    storage = open_storage(collected)
    rules = Rules(keep_runs=0, older_than=0.0, now=time.time())
    (verdict,) = [v for v in Pruning(storage, rules, None).judge() if v.path == f"runs/{HOME}/old"]
    run_record.update(storage, verdict.path, reason="promoted by hand in between")
    remover = Remover(storage, rules)
    remover.runs([verdict])
    assert remover.removed == [] and "changed" in remover.skipped[0].why and (collected / verdict.path).is_dir()


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def kill_at(moment: int, patch: pytest.MonkeyPatch) -> None:
    """Kills before the n-th rename of a folder or removal of one."""
    count = 0

    def counted(real: Any) -> Any:
        def step(*args: Any) -> Any:
            nonlocal count
            count += 1
            if count == moment:
                raise Killed
            return real(*args)

        return step

    patch.setattr("components.storage.local._remove", counted(local._remove))
    patch.setattr("os.rename", counted(os.rename))


def test_killed_at_any_moment_it_ends_as_if_it_had_not_been(made, collected, capsys, tmp_path, monkeypatch):
    prune(capsys, collected, *ALL, "--yes")
    wanted = left(collected)
    moments = 0
    while True:
        moments += 1
        other = Path(shutil.copytree(made.root, tmp_path / f"w{moments}"))
        with monkeypatch.context() as patch:
            kill_at(moments, patch)
            try:
                invoke("prune", "--workspace", other, *ALL, "--yes")
                break
            except Killed:
                pass
        prune(capsys, other, *ALL, "--yes")
        assert left(other) == wanted, f"killed at moment {moments}"
        shutil.rmtree(other)
    assert moments == 2 * 5 + 1, "each of five deletions is a rename and a removal"


def test_the_ledger_of_a_forgotten_patient_stays_for_the_next_ingest(collected, capsys, made):
    (collected / "gone.txt").write_text("9003\n")
    assert invoke("datasets", "forget", "--groups", collected / "gone.txt", "--workspace", collected, "--yes") == 0
    assert made.data[3] not in paths(prune(capsys, collected, *ALL), "would_remove")
    for command in (("datasets", "prune"), ("prune", *ALL)):
        assert invoke(*command, "--workspace", collected, "--yes") == 0
        assert (collected / made.data[3] / "splits.json").exists(), "without it patients would change sides"


def test_what_killed_writers_left_goes_where_nobody_works(collected, capsys):
    places = (f"runs/{HOME}/refused", f"runs/{HOME}/resumed", ".")
    kept, busy, root = (collected / place / ".tmp/x" for place in places)
    for file in (kept, busy, root):
        file.parent.mkdir(exist_ok=True)
        file.write_text("half of it")
    os.utime(root, (1, 1))
    holder = python(HOLD, collected, f"runs/{HOME}/resumed/.lock")
    assert holder.stdout is not None and holder.stdout.readline() == "ready\n"
    prune(capsys, collected, "--yes")
    assert (kept.exists(), busy.exists(), root.exists()) == (False, True, False)
    holder.communicate("", timeout=60)


@pytest.mark.integration
def test_a_bucket_is_pruned_as_a_folder_is(made, collected, capsys, tmp_path, monkeypatch):
    kinds = ("--only", "runs", "--only", "sweeps", "--only", "datasets")
    told = paths(prune(capsys, collected, *ALL, *kinds), "would_remove")
    with gcs.buckets(monkeypatch, tmp_path / "cache", "bucket"):
        gcs.upload(collected, "gs://bucket/w")
        storage = open_storage("gs://bucket/w")
        # What a killed deletion leaves in a bucket: deep files without the record.
        storage.write_atomic(f"runs/{HOME}/halfway/model/variables/x", b"1")
        done = prune(capsys, "gs://bucket/w", *ALL, "--yes")
        assert paths(done) == told | {f"runs/{HOME}/halfway"} and done["skipped"] == []
        there = {path for path, _ in storage.list_files("")}
        assert not [path for path in there if any(path.startswith(f"{gone}/") for gone in paths(done))]
        assert not [path for path in there if path.endswith(".lock")]
        assert b"older" not in storage.read_bytes("runs/index.html")


def test_a_young_folder_without_a_record_may_be_a_run_that_begins(collected, capsys):
    storage = open_storage(collected)
    storage.write_atomic(f"runs/{HOME}/new/tensorboard/x", b"1")
    new, hour = f"runs/{HOME}/new", ("--older-than", "1h")
    assert new not in paths(prune(capsys, collected, *ALL, *hour), "would_remove")
    assert new in paths(prune(capsys, collected, *ALL), "would_remove")
