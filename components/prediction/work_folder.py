"""The folder in which a prediction gathers its parts, so that a killed one goes on where it stopped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from components.prediction.plan import PLAN, part_file, write_plan
from components.storage.atomic_files import os_errors
from components.storage.open import open_storage


class Workspace:
    """The folder `OUTPUT.parts` beside an output, for plan and finished parts; gone when all is committed.

    Args:
        output: Full name of the output.
    """

    def __init__(self, output: str) -> None:
        self.storage = open_storage(f"{output}.parts")

    @contextlib.contextmanager
    def locked(self, owner: str) -> Iterator[None]:
        """Holds its lock; afterwards the folder goes, if it is empty."""
        try:
            with self.storage.lock(".lock", owner=owner):
                yield
        finally:
            if self.storage.is_local:
                with contextlib.suppress(OSError):
                    os.rmdir(self.storage.root)

    def prepare(self, parts: list[tuple[str, pa.Table]], facts: dict[str, Any]) -> str:
        """Writes the plan; parts that an earlier try made for another one go.

        Returns:
            Digest of the plan.
        """
        self.storage.sweep("")
        scratch = self.storage.scratch("")
        try:
            with os_errors("writing", PLAN):
                key = write_plan(scratch / PLAN, parts, facts)
            if self._key() != key:
                self._delete()
                self.storage.commit_file(scratch / PLAN, PLAN)
                self.storage.write_atomic("key", key.encode())
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
        return key

    def _key(self) -> str:
        both = self.storage.exists(PLAN) and self.storage.exists("key")
        return self.storage.read_bytes("key").decode(errors="replace") if both else ""

    def missing(self, parts: int) -> list[int]:
        """Numbers of the parts that are still to be done."""
        there = {name for name, _ in self.storage.list_files("")}
        return [number for number in range(parts) if part_file(number) not in there]

    def clear(self) -> None:
        """Deletes everything but the lock."""
        self._delete()
        self.storage.sweep("")

    def _delete(self) -> None:
        if self._key():
            self.storage.delete("key")  # first, so that nothing half deleted is gone on with
        for path, _ in self.storage.list_files(""):
            if path != ".lock":
                self.storage.delete(path)
