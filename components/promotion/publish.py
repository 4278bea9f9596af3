"""Publishes models: by the gate, by hand, and again by rollback. A live version never changes.

TensorFlow Serving takes the highest version, so every publication, a rollback too, gets a new and higher one. The
folder appears by one rename with its model card and its own entry inside; champion.json follows, and is repaired
from that entry where a crash comes between.
"""

from __future__ import annotations

import dataclasses
import getpass
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from components.core import json_documents
from components.datasets import manifest as manifests
from components.errors import DataError, TemporaryError, UsageError
from components.promotion import champion as champions
from components.promotion import evaluation, model_card, scoring_process, version_digests
from components.promotion.champion import Champion, Promotion
from components.promotion.gate_facts import disjointness
from components.promotion.served_model import model_digest
from components.splits.fold_assignment import NAME
from components.storage.atomic_files import copy_tree
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import GateRecord, RunRecord

Clock = Callable[[], float]
_TRIES = 3


def user() -> str:
    """Name of the user, or the number where it has none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def push(
    storage: Storage,
    run_dir: str,
    *,
    predictor: scoring_process.Predictor = scoring_process.in_fresh_process,
    clock: Clock = time.time,
) -> int | None:
    """Publishes the model of a run that the gate promoted.

    Does nothing for a refused run, and nothing twice: a run that was pushed gives its version again. Where another
    model became champion since the evaluation, the run is evaluated against that one first. The caller holds the
    run's lock.

    Args:
        storage: The workspace.
        run_dir: Folder of the run, relative to the workspace.
        predictor: As for `evaluation.evaluate`.
        clock: Unix time; tests set it back.

    Returns:
        The version, None where the run was refused.

    Raises:
        UsageError: The run was not evaluated.
        DataError: The exported model is not the one that was evaluated.
        TemporaryError: The champion keeps changing.
    """
    for _ in range(_TRIES):
        record, gate = _evaluated(storage, run_dir)
        home = champions.home(record.dataset, record.task)
        with storage.lock(f"{home}/.lock", owner=f"push of run {record.run_id}") as held:
            champion = champions.load(storage, home)
            done = champion.pushed(record.run_id) if champion else None
            if done is not None:
                storage.sweep(home)  # what the push that published it left, where it was killed behind that
                return _record_promotion(storage, run_dir, done).version
            if record.decision != "promoted":
                return None
            compared = champions.versions_of(champions.compared(champion))
            if all(getattr(gate, key) == version for key, version in compared.items()):
                entry = _entry(storage, record, gate, "gate", who=user(), why=record.reason)
                made = _publish_run(storage, home, run_dir, record, champion, entry, clock, held.check)
                return _record_promotion(storage, run_dir, made).version
        evaluation.evaluate(
            storage, run_dir, bool(record.floors.get("blessed")), record.floors, predictor=predictor
        )
    raise TemporaryError(
        f"The champion of {record.dataset} {record.task} changed {_TRIES} times while run {record.run_id} was"
        " compared with it.",
        "Run again when the other runs have ended.",
    )


def promote(
    storage: Storage,
    run_dir: str,
    *,
    reason: str = "",
    accept_unproven: str = "",
    who: str = "",
    clock: Clock = time.time,
) -> Promotion:
    """Publishes the model of an evaluated run by hand, whatever the gate said of its quality.

    Args:
        storage: The workspace.
        run_dir: Folder of the run.
        reason: Why, as champion.json and the model card keep it; `accept_unproven` by default.
        accept_unproven: Why it may be promoted although its data set is not proved to be patient-disjoint; repeated
            wherever the model, or something made from it, is shown.
        who: Who decides; the user by default.
        clock: Unix time.

    Raises:
        UsageError: No reason; the run was not evaluated; it is the champion; its data set is not provably
            patient-disjoint and that was not accepted, or nothing of that kind is to be accepted; its data set is
            leaky, or its model does not answer, or it was trained on drawn images and the champion was not: such models
            are never promoted.
        DataError: The exported model is not the one that was evaluated.
    """
    unproven = " ".join(accept_unproven.split())
    why = _reason(reason or unproven)
    record, gate = _evaluated(storage, run_dir)
    home = champions.home(record.dataset, record.task)
    _check_by_hand(storage, record, gate, unproven)
    with storage.lock(f"{home}/.lock", owner=f"promotion of run {record.run_id}") as held:
        champion = champions.load(storage, home)
        if champion is not None and champion.origin(champion.current).run_id == record.run_id:
            raise UsageError(
                f"Run {record.run_id} is the champion already, as version {champion.current.version}."
            )
        champions.check_drawn(f"Run {record.run_id}", record.drawn, champion)
        entry = _entry(storage, record, gate, "hand", who=who or user(), why=why, unproven=unproven)
        made = _publish_run(storage, home, run_dir, record, champion, entry, clock, held.check)
    return _record_promotion(storage, run_dir, made)


def _check_by_hand(storage: Storage, record: RunRecord, gate: GateRecord, unproven: str) -> None:
    """Refuses what is not promoted by hand either, and a reason to accept what need not be accepted."""
    proof, leak = disjointness(manifests.load(storage, record.dataset_dir))
    failed = {check["code"]: check["detail"] for check in gate.checks if not check["passed"]}
    never = (proof == "leaky" and leak) or failed.get("leaky_split") or failed.get("does_not_answer")
    doubt = (proof == "unproven" and leak) or failed.get("not_provably_disjoint")
    if never or (doubt and not unproven):
        fix = "Train on a data set with known patients, and a model that answers."
        if not never:
            fix += " Or, where you know that no patient is in two splits: --accept-unproven REASON."
        raise UsageError(f"Run {record.run_id} can't be promoted, not by hand either: {never or doubt}.", fix)
    if unproven and not doubt:
        raise UsageError(
            f"The splits of run {record.run_id} are proved to be disjoint by patient: there is nothing to accept.",
            "Leave out --accept-unproven and give --reason.",
        )


def rollback(
    storage: Storage,
    dataset: str,
    task: str,
    *,
    reason: str,
    to: int | None = None,
    who: str = "",
    clock: Clock = time.time,
) -> Promotion:
    """Publishes an earlier model again, under a new version.

    Args:
        storage: The workspace.
        dataset: Data set.
        task: Task.
        reason: Why, as champion.json and the model card keep it.
        to: A version that was promoted once; the one before the champion by default.
        who: Who decides; the user by default.
        clock: Unix time.

    Raises:
        UsageError: No reason; no such version, or it is pruned; nothing to go back to; it is the champion; it was
            trained on drawn images and the champion was not.
        DataError: The version's files are not what was published.
    """
    why = _reason(reason)
    home = champions.home(dataset, task)
    with storage.lock(f"{home}/.lock", owner=f"rollback of {dataset} {task}") as held:
        champion = champions.load(storage, home)
        if champion is None:
            raise UsageError(f"No model of {dataset} {task} was ever promoted.", "Train one first.")
        target = champion.before() if to is None else champion.find(to)
        if target is None:
            known = ", ".join(str(entry.version) for entry in champion.history)
            what = "There is no model before the champion" if to is None else f"Version {to} was never promoted"
            raise UsageError(f"{what}; promoted were {known}.", "Choose one of them with --to.")
        if champion.origin(target) == champion.origin(champion.current):
            raise UsageError(
                f"Version {target.version} is the champion already.", "Choose another with --to."
            )
        champions.check_drawn(f"Version {target.version}", champion.origin(target).drawn, champion)
        source = _kept_copy(storage, home, champion, target)
        entry = dataclasses.replace(
            champion.origin(target), promoted_by="hand", from_version=target.version, raises_best=False,
            when=json_documents.now(), who=who or user(), why=why,
        )  # fmt: skip

        def card(made: Promotion, tree: Path) -> str:
            file = tree / model_card.FILE
            return model_card.replace_promotion(file.read_text() if file.is_file() else "", made)

        return _publish(storage, home, source, champion, entry, card, clock, held.check)


def _reason(reason: str) -> str:
    text = " ".join(reason.split())
    if not text:
        raise UsageError("A promotion by hand needs a reason.", "Give one with --reason.")
    return text


def _evaluated(storage: Storage, run_dir: str) -> tuple[RunRecord, GateRecord]:
    record = run_record.read(storage, run_dir)
    if record.gate is None or record.decision is None:
        raise UsageError(
            f"Run {record.run_id} was not evaluated, so there is nothing to promote.",
            "Run `histoline step evaluate` on it first.",
        )
    return record, record.gate


def _entry(
    storage: Storage, record: RunRecord, gate: GateRecord, by: str, *, who: str, why: str, unproven: str = ""
) -> Promotion:
    """An entry that still lacks its version."""
    manifest = manifests.load(storage, record.dataset_dir)
    values = record.figures()
    return Promotion(
        version=0,
        run_id=record.run_id,
        promoted_by=by,
        from_version=None,
        when=json_documents.now(),
        who=who,
        why=why,
        dataset_dir=record.dataset_dir,
        plan_id=record.plan_id,
        content_digest=record.content_digest,
        group_unit=manifest.group_unit,
        group_key=manifest.key_fingerprint,
        metric=gate.metric,
        metrics={name: figure["estimate"] for name, figure in values.items()},
        raises_best=by == "gate" and gate.becomes_best_ever,
        recipe_digest=record.digests.get("recipe", ""),
        source_digest=record.digests.get("source", ""),
        unproven=unproven,
        decision_by=record.decision_by,
        drawn=record.drawn,
    )


def _publish_run(
    storage: Storage,
    home: str,
    run_dir: str,
    record: RunRecord,
    champion: Champion | None,
    entry: Promotion,
    clock: Clock,
    still_locked: Callable[[], None],
) -> Promotion:
    source = storage.local_tree(f"{run_dir}/model")
    if model_digest(source) != record.digests.get("model"):
        raise DataError(
            f"The model of run {record.run_id} is not the one that was evaluated: its files have changed.",
            "Evaluate the run again (histoline step evaluate).",
        )
    manifest = manifests.load(storage, record.dataset_dir)

    def card(made: Promotion, tree: Path) -> str:
        if record.decision_by == "folds":
            _carry_folds(storage, run_dir, record, tree)
        return model_card.render(record, manifest, made)

    return _publish(storage, home, source, champion, entry, card, clock, still_locked)


def _carry_folds(storage: Storage, run_dir: str, record: RunRecord, tree: Path) -> None:
    """Puts into a version what later candidates are compared with: who was in which fold, and what was said of whom."""
    for name, target in ((Path(champions.OUT_OF_FOLD).name, champions.OUT_OF_FOLD), (NAME, f"assets.extra/{NAME}")):
        data = storage.read_bytes(f"{run_dir}/{name}")
        if name != NAME and hashlib.sha256(data).hexdigest() != record.digests.get("out_of_fold"):
            raise DataError(
                f"{storage.uri(run_dir)}/{name} is not what the run was decided by: it has changed.",
                "Evaluate the run again (histoline step evaluate).",
            )
        (tree / target).write_bytes(data)


def _kept_copy(storage: Storage, home: str, champion: Champion, target: Promotion) -> Path:
    """A folder that still holds the model: the version itself, or another publication of it."""
    origin = champion.origin(target)
    same = [e.version for e in reversed(champion.history) if champion.origin(e) == origin]
    for version in (target.version, *same):
        if storage.exists(f"{home}/{version}/{champions.LIVE}"):
            return champions.version_dir(storage, home, version)
    raise UsageError(f"The files of version {target.version} were pruned.", "Choose another with --to.")


def _publish(
    storage: Storage,
    home: str,
    source: Path,
    champion: Champion | None,
    entry: Promotion,
    card: Callable[[Promotion, Path], str],
    clock: Clock,
    still_locked: Callable[[], None],
) -> Promotion:
    """Makes a version of a model's folder: whole copy, entry and card first, then the rename, then champion.json."""
    known = [entry.version for entry in champion.history] if champion else []
    made = dataclasses.replace(
        entry, version=champions.next_version([*known, *champions.versions(storage, home)], clock())
    )
    storage.sweep(home)
    scratch = storage.scratch(home)
    tree = scratch / "model"
    try:
        copy_tree(source, tree)
        (tree / champions.PROMOTION).parent.mkdir(exist_ok=True)
        (tree / champions.PROMOTION).write_text(json.dumps(json_documents.plain(made), indent=1) + "\n")
        (tree / model_card.FILE).write_text(card(made, tree), encoding="utf-8")
        version_digests.write(tree)
        still_locked()
        storage.commit_tree(tree, f"{home}/{made.version}", last=champions.LIVE)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    # Reads the entry just published from its folder: the same way as after a crash.
    champions.load(storage, home)
    return made


def _record_promotion(storage: Storage, run_dir: str, made: Promotion) -> Promotion:
    warnings = [said] if (said := champions.unproven_caveat(made.unproven)) else []
    run_record.update(storage, run_dir, version=made.version, promotion=json_documents.plain(made), warnings=warnings)
    return made
