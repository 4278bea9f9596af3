"""The acts of the fail-at-every-n run: ingest, push, rollback, forgetting and pruning, each on a tiny workspace."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np

from components.core import json_documents
from components.datasets import forgetting, retention
from components.datasets import manifest as manifests
from components.datasets.latest_pointer import read_latest
from components.datasets.layout import lock_path
from components.datasets.verify import verify_bytes
from components.errors import HistolineError
from components.promotion import champion as champions
from components.promotion import evaluation, publish, version_digests
from components.splits.ledger import Ledger
from components.storage.atomic_files import TMP
from components.storage.open import open_storage
from components.training import run_record
from tests.faults.every_n import Act
from tests.support import ingest_help, model_help, report_help, trees
from tests.support.failing_disk import ENDED, FailingDisk, in_child

DATA = "datasets/idc/binary"
MODELS = champions.home("idc", "binary")
MOMENT = "2026-01-01T00:00:00+00:00"
CLOCK = 1_700_000_000.0
LEFT_OUT = ("latest.json", "manifest.json")
"""Of a workspace of data sets: they hold times, and are read instead."""


@contextlib.contextmanager
def one_moment() -> Iterator[None]:
    """Every document says the same time and user."""
    with mock.patch.object(json_documents, "now", lambda: MOMENT), mock.patch.object(publish, "user", lambda: "ada"):
        yield


def files(root: Path) -> dict[str, bytes]:
    """Every file of a workspace and every empty folder, what is temporary in data sets and models too.

    But for lock files, which a kill leaves behind unlocked, and for `.tmp` of the root and of runs: what was killed
    stays there until a pruning finds it, in the root a day later, as all processes share it.
    """
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.endswith(".lock") or (TMP in path.parts and name.startswith((TMP, "runs/"))):
            continue
        if path.is_file():
            found[name] = path.read_bytes()
        elif path.name != TMP and not any(path.iterdir()):
            found[f"{name}/"] = b""
    return found


def datasets_are_whole(workspace: Path) -> Iterable[str]:
    """Whatever is committed verifies, and latest.json names something that is."""
    storage = open_storage(workspace)
    for folder in ingest_help.dataset_dirs(workspace) if (workspace / DATA).is_dir() else []:
        if (folder / manifests.NAME).exists():
            path = folder.relative_to(workspace).as_posix()
            try:
                wrong = verify_bytes(storage, path, manifests.load(storage, path)).findings
            except HistolineError as error:
                wrong = [str(error)]
            yield from (f"{path} is committed and broken: {what}" for what in wrong)
    try:
        latest = read_latest(storage, DATA)
    except HistolineError as error:
        yield f"latest.json: {error}"
        return
    if latest is not None and not (workspace / latest.dataset_dir / "splits.json").exists():
        yield f"latest.json names {latest.dataset_dir}, which is not there"


def stands(before: Path, after: Path, folder: str) -> Iterable[str]:
    """What was in a folder is there as it was."""
    for path in sorted((before / folder).rglob("*")):
        name = path.relative_to(before)
        if path.is_file() and not ((after / name).is_file() and (after / name).read_bytes() == path.read_bytes()):
            yield f"{name} of before does not stand"


def ingested(workspace: Path) -> dict[str, bytes]:
    """All files but those with times in them, of which only what they say counts."""
    storage = open_storage(workspace)
    found = {name: data for name, data in files(workspace).items() if not name.endswith(LEFT_OUT)}
    for folder in ingest_help.dataset_dirs(workspace):
        path = folder.relative_to(workspace).as_posix()
        if (folder / manifests.NAME).exists():
            found[f"{path}/content"] = manifests.load(storage, path).content_digest.encode()
    latest = read_latest(storage, DATA)
    found["latest"] = latest.plan_id.encode() if latest else b""
    return found


def ingest(folder: Path) -> Act:
    """A new patient comes: nine patients are committed, a tenth is there, and copies, a narrow and an empty image."""
    raw, start = folder / "raw", folder / "start"
    trees.idc_tree(raw, 9, 2)
    splits = ingest_help.ingest(raw, start).splits
    trees.idc_tree(raw, [*map(str, range(9000, 9009)), "9100"], 2)
    one, other = (next(group for group, split in splits.items() if split == side) for side in ("train", "test"))
    shutil.copyfile(raw / trees.idc_path(one, 0, 1, 101), raw / trees.idc_path(other, 0, 1, 101))
    model_help.write_image(raw / trees.idc_path("9003", 0, 801, 801), np.full((50, 20, 3), 200, np.uint8))
    (raw / trees.idc_path("9004", 1, 951, 951)).write_bytes(b"")

    def do(workspace: Path) -> None:
        storage = open_storage(workspace)
        with storage.lock(lock_path(DATA), owner="ingest", wait_seconds=0):
            ingest_help.ingest(raw, workspace, max_faults=0.5)

    def check(workspace: Path, before: Path) -> Iterable[str]:
        yield from datasets_are_whole(workspace)
        for old in ingest_help.dataset_dirs(before):
            yield from stands(before, workspace, old.relative_to(before).as_posix())
        if not (workspace / DATA / "latest.json").exists():
            yield "latest.json is gone"

    return Act("ingest", do, check, ingested)


def first_ingest(folder: Path) -> Act:
    """The first ingest of an empty workspace, its folds' ledgers with it."""
    raw = folder / "raw"
    trees.idc_tree(raw, 9, 2)
    (folder / "start").mkdir()

    def do(workspace: Path) -> None:
        with open_storage(workspace).lock(lock_path(DATA), owner="ingest", wait_seconds=0):
            ingest_help.ingest(raw, workspace)

    return Act("first ingest", do, lambda workspace, _: datasets_are_whole(workspace), ingested)


def promoted(folder: Path) -> report_help.Studio:
    """A workspace with a champion, in which a better run was evaluated and not pushed yet."""
    raw = model_help.idc(folder / "raw", patients=40, per_class=3)
    with one_moment():
        data = ingest_help.ingest(raw, folder / "start", ratios=(0.4, 0.2, 0.4))
        studio = report_help.Studio(folder / "start", data)
        first = studio.record(studio.run("first", 1.5, clock=CLOCK))
        skills = {"candidate": 6.0, "champion": 1.5, "best_ever": 1.5}
        run = studio.begun("second")
        record = evaluation.evaluate(studio.storage, run, True, {}, predictor=report_help.predictor(skills))
    assert first.decision == record.decision == "promoted", (first.reason, record.reason)
    return studio


def models_are_whole(workspace: Path, before: Path) -> Iterable[str]:
    """The champion can be read, every version that is visible is vouched for, and runs have a record."""
    storage = open_storage(workspace)
    yield from datasets_are_whole(workspace)
    for version in champions.versions(storage, MODELS):
        tree = workspace / MODELS / str(version)
        if not version_digests.is_vouched(tree) or not (tree / champions.LIVE).exists():
            yield f"version {version} is visible and not whole"
        yield from (f"version {version}: {what}" for what in version_digests.findings(tree))
    old = champions.versions(open_storage(before), MODELS)
    for version in old:
        yield from stands(before, workspace, f"{MODELS}/{version}")
    try:
        champion, _ = champions.read(storage, MODELS)
        if champion is None or not (workspace / MODELS / str(champion.current.version) / champions.LIVE).exists():
            yield "the champion is gone"
        for run in storage.list_dirs("runs/idc/binary"):
            run_record.read(storage, f"runs/idc/binary/{run}")
    except HistolineError as error:
        yield str(error)


def push(folder: Path) -> Act:
    """A better model becomes the champion."""
    promoted(folder)

    def do(workspace: Path) -> None:
        storage = open_storage(workspace)
        run = run_record.run_dir("idc", "binary", "second")
        with one_moment(), storage.lock(f"{run}/.lock", owner="push", wait_seconds=0):
            publish.push(storage, run, clock=lambda: CLOCK + 9)

    return Act("push", do, models_are_whole, files)


def rollback(folder: Path) -> Act:
    """The champion before becomes the champion again; where that was done, it is not done twice."""
    studio = promoted(folder)
    with one_moment():
        publish.push(studio.storage, run_record.run_dir("idc", "binary", "second"), clock=lambda: CLOCK + 9)

    def do(workspace: Path) -> None:
        storage = open_storage(workspace)
        champion = champions.load(storage, MODELS)
        if champion is not None and champion.current.from_version is None:
            with one_moment():
                publish.rollback(storage, "idc", "binary", reason="wrong stain", clock=lambda: CLOCK + 20)

    def without_temporaries(workspace: Path) -> dict[str, bytes]:
        """The next publication sweeps them."""
        return {name: data for name, data in files(workspace).items() if TMP not in name.split("/")}

    return Act("rollback", do, models_are_whole, without_temporaries)


def several(folder: Path) -> Path:
    """A workspace with three data sets, each with a patient more."""
    for count in (9, 10, 11):
        trees.idc_tree(folder / "raw", count, 1)
        ingest_help.ingest(folder / "raw", folder / "start")
    return folder / "start"


def forget(folder: Path) -> Act:
    """A patient's consent is withdrawn: no image stays, and no ledger names the patient but as a tombstone."""
    several(folder)
    trees.idc_tree(folder / "raw", 12, 1)

    def killed() -> None:
        with FailingDisk(folder / "start", 90, "kill"):
            ingest_help.ingest(folder / "raw", folder / "start")

    assert in_child(killed)[0] == ENDED
    groups = frozenset({"9003"})

    def do(workspace: Path) -> None:
        forgetting.forget(open_storage(workspace), groups, dry_run=False)

    def check(workspace: Path, before: Path) -> Iterable[str]:
        yield from datasets_are_whole(workspace)
        for file in workspace.rglob("splits.json"):
            try:
                Ledger.from_json(file.read_text(), str(file))
            except HistolineError as error:
                yield str(error)

    return Act("forget", do, check, files)


def prune(folder: Path) -> Act:
    """Old data sets are deleted."""
    several(folder)

    def do(workspace: Path) -> None:
        storage = open_storage(workspace)
        retention.prune(storage, "idc", "binary", 1, dry_run=False, wait_seconds=0)
        storage.finish_deletions()

    def check(workspace: Path, before: Path) -> Iterable[str]:
        yield from datasets_are_whole(workspace)
        latest = read_latest(open_storage(before), DATA)
        assert latest is not None
        yield from stands(before, workspace, latest.dataset_dir)

    return Act("prune", do, check, files)


ACTS: dict[str, Callable[[Path], Act]] = {
    "first ingest": first_ingest, "ingest": ingest, "push": push, "rollback": rollback, "forget": forget,
    "prune": prune,
}  # fmt: skip
