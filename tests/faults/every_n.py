"""The fail-at-every-n run: each act of the product on a disk that fails at its n-th operation, for every n.

    python -m tests.faults.every_n                 # every act, every kind of failure, every n; prints the count

After each failure what is visible must be whole, what stood before must stand, the error must be one paragraph with an
exit code that says "try again", and doing the same again must lead to the bytes of an undisturbed run.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path

from components.errors import EXIT_BUG, EXIT_TEMPORARY
from pipelines.console import user_error
from tests.support.failing_disk import ENDED, KINDS, FailingDisk, Kind, in_child

UNHURT = 98
"""Exit code of a child whose act was over before the n-th operation."""

MOST = 5000
"""Operations that no act has."""


@dataclasses.dataclass(frozen=True)
class Act:
    """Something that changes a workspace and may be cut short.

    Attributes:
        name: For people.
        do: Does it in a workspace.
        check: What is wrong in a workspace where it was cut short, a clause each, given the workspace from before.
        result: The bytes that have to be the same whenever it was done, by path.
    """

    name: str
    do: Callable[[Path], object]
    check: Callable[[Path, Path], Iterable[str]]
    result: Callable[[Path], dict[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Broken:
    """A failure that did not hold."""

    act: str
    kind: Kind
    n: int
    operation: str
    what: str

    def __str__(self) -> str:
        return f"{self.act}, {self.kind} at {self.n} ({self.operation}): {self.what}"


class Trial:
    """Tries one act from one starting point.

    Args:
        act: The act.
        start: The workspace before it.
        folder: For copies.
    """

    def __init__(self, act: Act, start: Path, folder: Path) -> None:
        self.act, self.start, self.folder = act, start, folder
        whole = self._copy("whole")
        with FailingDisk(whole) as disk:
            act.do(whole)
        self.operations = disk.count
        self.wanted = act.result(whole)
        shutil.rmtree(whole)

    def one(self, kind: Kind, n: int) -> list[Broken] | None:
        """Lets the n-th operation fail, once; None where there is no n-th operation."""
        workspace = self._copy(f"{kind}-{n}")
        code, said = in_child(lambda: self._child(workspace, kind, n))
        lines = said.strip().splitlines() or [""]
        try:
            if code == UNHURT:
                return None
            found = [f"unexpected: {clause}" for clause in self._ended_badly(kind, code, said)]
            found += self.act.check(workspace, self.start)
            found += self._again(workspace)
            return [Broken(self.act.name, kind, n, lines[0], what) for what in found]
        finally:
            shutil.rmtree(workspace)
            shutil.rmtree(f"{workspace}.before", ignore_errors=True)

    def every(self, kind: Kind, step: int = 1, first: int = 1) -> tuple[int, list[Broken]]:
        """Lets each n-th operation fail until there is none; how many, and what did not hold.

        Args:
            kind: How it fails.
            step: 1 for every n.
            first: The first n.
        """
        tried, broken = 0, []
        for n in range(first, MOST, step):
            found = self.one(kind, n)
            if found is None:
                return tried, broken
            tried += 1
            broken += found
        raise AssertionError(f"{self.act.name} does not come to an end")

    def _copy(self, name: str) -> Path:
        return Path(shutil.copytree(self.start, self.folder / name, symlinks=True))

    def _child(self, workspace: Path, kind: Kind, n: int) -> None:
        code = 0
        with FailingDisk(workspace, n, kind) as disk:
            try:
                self.act.do(workspace)
            except Exception as error:
                problem = user_error(error)
                code = problem.exit_code if problem else EXIT_BUG
                os.write(2, f"{disk.failed}\n{problem or traceback.format_exc()}\n".encode())
        if not disk.failed and not code:
            code = UNHURT if disk.count < n else 0
        os._exit(code)

    def _ended_badly(self, kind: Kind, code: int, said: str) -> Iterable[str]:
        """An error must be one that says "try again"; one that was of no consequence is no error."""
        fine = (ENDED,) if kind in ("kill", "cut") else (0, EXIT_TEMPORARY)
        if code not in fine:
            yield f"it ended with {code}: {said.strip()[-600:]}"

    def _again(self, workspace: Path) -> Iterable[str]:
        """Does it again, undisturbed."""
        try:
            self.act.do(workspace)
        except Exception as error:
            yield f"doing it again fails: {error!r}"
            return
        made = self.act.result(workspace)
        if made != self.wanted:
            names = sorted(name for name in {*made, *self.wanted} if made.get(name) != self.wanted.get(name))
            kinds = ["gone" if n not in made else "more" if n not in self.wanted else "other bytes" for n in names]
            yield "doing it again gives " + ", ".join(map(" ".join, list(zip(kinds, names, strict=True))[:4]))


def everything(names: Iterable[str] = (), kinds: Iterable[Kind] = KINDS, step: int = 1) -> tuple[int, int]:
    """Tries acts, and prints what did not hold; how many were tried, and how many held.

    Args:
        names: Of the acts; none for all.
        kinds: Ways to fail.
        step: 1 for every n.
    """
    from tests.faults.acts import ACTS

    tried, failed = 0, 0
    for name in names or ACTS:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            trial = Trial(ACTS[name](folder), folder / "start", folder)
            for kind in kinds:
                count, broken = trial.every(kind, step)
                wrong = len({each.n for each in broken})
                tried, failed = tried + count, failed + wrong
                for each in broken:
                    print(each)
                print(f"{name}, {kind}: {count} tried, {count - wrong} held", flush=True)
    return tried, tried - failed


def main() -> int:
    """Prints what was tried, and what did not hold; 1 where something did not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--act", action="append", help="only this one; may be given often")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this one; may be given often")
    parser.add_argument("--step", type=int, default=1, help="1 for every n")
    options = parser.parse_args()
    tried, held = everything(options.act or (), options.kind or KINDS, options.step)
    print(f"fail at every n: {tried:,} tried, {held:,} held")
    return int(held != tried)


if __name__ == "__main__":
    sys.exit(main())
