"""Deletes what was judged to go: each under its own lock, looked at again, and what somebody works on is left alone."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Sequence

from components.datasets import retention
from components.errors import TemporaryError
from components.pruning import needs
from components.pruning.rules import Rules, Skipped, Verdict, unix_time
from components.storage.base import Storage
from components.storage.local_cache import ABANDONED_SECONDS
from components.storage.open import open_storage
from components.sweeps import record as sweep_record
from components.training import run_record

OWNER = "histoline prune"
_CHANGED = "It has changed since it was looked at."


class Remover:
    """Deletes, and remembers what it did.

    Args:
        storage: The workspace.
        rules: What was asked.

    Attributes:
        removed: What is gone, in that order.
        skipped: What should have gone, and did not.
    """

    def __init__(self, storage: Storage, rules: Rules) -> None:
        self.storage, self.rules = storage, rules
        self.work = open_storage(storage.work_folder())
        self.removed: list[Verdict] = []
        self.skipped: list[Skipped] = []

    def runs(self, verdicts: Iterable[Verdict]) -> None:
        """Deletes whole runs."""
        for verdict in verdicts:
            self._locked(verdict, [f"{verdict.path}/.lock"], run_record.NAME, self._delete)

    def checkpoints(self, verdicts: Iterable[Verdict]) -> None:
        """Deletes checkpoints of runs that stay."""
        for verdict in verdicts:
            run = "/".join(verdict.path.split("/")[:4])
            self._locked(verdict, [f"{run}/.lock"], run_record.NAME, lambda v: self.work.delete_tree(v.path))

    def sweeps(self, verdicts: Iterable[Verdict]) -> None:
        """Deletes whole sweeps, whose trials each have a lock of their own."""
        for verdict in verdicts:
            trials = self.storage.list_dirs(f"{verdict.path}/trials")
            locks = [f"{verdict.path}/.lock", *(f"{verdict.path}/trials/{number}/.lock" for number in trials)]
            self._locked(verdict, locks, sweep_record.NAME, self._delete)

    def datasets(self, verdicts: Sequence[Verdict]) -> None:
        """Deletes data sets; who needs which is asked once more under the lock."""
        known = {verdict.path: verdict for verdict in verdicts}
        for home in sorted({verdict.dataset for verdict in verdicts}):
            dataset, task = home.split("/")
            try:
                gone = retention.prune(
                    self.storage, dataset, task, self.rules.keep_datasets, dry_run=False,
                    needed=functools.partial(needed_now, self.storage, self.rules, dataset, task),
                    young=self.rules.young, wait_seconds=0,
                )  # fmt: skip
            except TemporaryError as error:
                self.skipped += [Skipped(path, error.what) for path, v in known.items() if v.dataset == home]
                continue
            self.removed += [known[info.path] for info in gone if info.path in known]
            left = known.keys() - {info.path for info in gone}
            self.skipped += [Skipped(path, _CHANGED) for path in sorted(left) if known[path].dataset == home]

    def leftovers(self, runs: Iterable[str]) -> None:
        """Removes what killed writers left in `.tmp`: in runs that nobody works on, and in the root what is a day old.

        Args:
            runs: Folders of runs that stay.
        """
        self.storage.sweep("", older_than_seconds=ABANDONED_SECONDS)
        for folder in runs if self.storage.is_local else ():  # an upload leaves nothing in a bucket
            with (
                contextlib.suppress(TemporaryError),
                self.storage.lock(f"{folder}/.lock", owner=OWNER, wait_seconds=0),
            ):
                self.storage.sweep(folder)

    def caches(self, verdicts: Iterable[Verdict]) -> None:
        """Deletes caches that nobody has used since."""
        for verdict in verdicts:
            if self.work.modified(verdict.path) > verdict.changed:
                self.skipped.append(Skipped(verdict.path, _CHANGED))
                continue
            self.work.delete_tree(verdict.path)
            self.removed.append(verdict)

    def _locked(self, verdict: Verdict, locks: Sequence[str], name: str, delete: Callable[[Verdict], None]) -> None:
        try:
            with contextlib.ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(self.storage.lock(lock, owner=OWNER, wait_seconds=0))
                if self._is_as_judged(verdict, name):
                    delete(verdict)
                    self.removed.append(verdict)
                else:
                    self.skipped.append(Skipped(verdict.path, _CHANGED))
        except TemporaryError as error:
            self.skipped.append(Skipped(verdict.path, error.what))

    def _is_as_judged(self, verdict: Verdict, name: str) -> bool:
        folder = "/".join(verdict.path.split("/")[:4])
        if not self.storage.exists(f"{folder}/{name}"):
            return verdict.kind != "checkpoints"
        record = (run_record if name == run_record.NAME else sweep_record).read(self.storage, folder)
        return unix_time(record.updated) == verdict.changed

    def _delete(self, verdict: Verdict) -> None:
        self.storage.delete_tree(verdict.path)
        if not self.storage.is_local:
            self.work.delete_tree(verdict.path)


def needed_now(storage: Storage, rules: Rules, dataset: str = "", task: str = "") -> dict[str, str]:
    """Who needs which data set, as the workspace stands.

    Args:
        storage: The workspace.
        rules: What is asked.
        dataset: Only this one; empty for all.
        task: Only this one; empty for all.

    Raises:
        DataError: Nobody can tell.
    """
    found: dict[str, str] = {}
    for family in needs.families(storage, dataset, task):
        found |= needs.datasets_needed(storage, family, rules)
    return found
