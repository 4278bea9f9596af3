"""What a row of the fault list is: a name, how the fault is made, and what must happen."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from pipelines.console import user_error
from tests.faults import acts
from tests.support import cli_help, ingest_help, trees
from tests.support.failing_disk import in_child

SECONDS = 60
"""No fault may take longer to be told: what waits for ever is one of them."""


class Skipped(Exception):
    """This machine lacks what the fault needs."""


@dataclasses.dataclass(frozen=True)
class Fault:
    """A row of the list.

    Attributes:
        name: What is wrong, for people.
        act: Makes the fault and does what meets it, in a place of its own: exit code and what was said, or raises what
            the command would tell.
        code: Exit code that must come of it.
        says: Regular expression that is found in what is said.
        left: What is wrong afterwards, a clause each.
        slow: Whether it needs processes or seconds.
    """

    name: str
    act: Callable[[Place], tuple[int, str] | None]
    code: int = 0
    says: str = ""
    left: Callable[[Place], Iterable[str]] = lambda place: ()
    slow: bool = False

    def problems(self, place: Place) -> list[str]:
        """What did not hold; empty where all did.

        Raises:
            Skipped: The fault can't be made here.
        """
        code, said = told(lambda: self.act(place))
        found = [] if code == self.code else [f"exit code {code} instead of {self.code}: {said[-500:]}"]
        if not re.search(self.says, said, re.DOTALL):
            found.append(f"{self.says!r} is not in {said[-300:]!r}")
        if "Traceback" in said or "a bug in histoline" in said:
            found.append(f"a traceback, or a bug: {said[-500:]}")
        return [*found, *self.left(place)]


def told(act: Callable[[], tuple[int, str] | None]) -> tuple[int, str]:
    """Exit code and words that a user would get of something that may raise."""
    try:
        return act() or (0, "")
    except Skipped:
        raise
    except Exception as error:
        problem = user_error(error)
        return (problem.exit_code, str(problem)) if problem else (70, traceback.format_exc())


class Ground:
    """Workspaces that places are copies of, each made once.

    Args:
        folder: Where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        trees.idc_tree(folder / "data/raw", 9, 2)
        self.data = ingest_help.ingest(folder / "data/raw", folder / "data/w")
        acts.promoted(folder / "models")
        (folder / "models/start").rename(folder / "models/w")
        self.count = 0

    @contextlib.contextmanager
    def place(self) -> Iterator[Place]:
        """A place for one fault; deleted afterwards."""
        self.count += 1
        folder = self.folder / f"place-{self.count}"
        shutil.copytree(self.folder / "data", folder)
        shutil.copytree(self.folder / "models/w", folder / "m")
        try:
            yield Place(folder, self.data.plan_id)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


class Place:
    """A folder for one fault: `raw` images of nine patients, ingested in workspace `w`; `m` has a champion and a run.

    Attributes:
        root: The folder.
        dataset: Folder of the data set in workspace `w`.
        latest: What names it.
        version: Folder of the champion in workspace `m`.
        run: Folder of the run `second`, evaluated and not pushed, in workspace `m`.
    """

    def __init__(self, root: Path, plan_id: str) -> None:
        self.root = root
        self.raw, self.w, self.m = root / "raw", root / "w", root / "m"
        self.latest = self.w / acts.DATA / "latest.json"
        self.dataset = self.w / acts.DATA / plan_id
        self.version = self.m / acts.MODELS / str(int(acts.CLOCK))
        self.run = self.m / "runs/idc/binary/second"

    def image(self, name: str = "9000") -> Path:
        """A place for one more image of a patient."""
        return self.raw / trees.idc_path(name, 0, 951, 951)

    def ingest(self, workspace: str = "new", **given: Any) -> ingest_help.Result:
        """An ingest of the raw images, by default into a new workspace."""
        return ingest_help.ingest(self.raw, self.root / workspace, max_faults=0.5, **given)

    def rejects(self) -> tuple[int, str]:
        """Codes and details of the rejects of an ingest, as something said."""
        import pyarrow.parquet as pq

        rows = pq.read_table(self.ingest().folder / "rejects.parquet").to_pylist()
        return 0, "\n".join(f"{row['path']}: {row['kind']} {row['code']}: {row['detail']}" for row in rows)

    def same_bytes(self, workspace: str = "new") -> Iterable[str]:
        """Whether another ingest gives the same bytes as in `w`."""
        if ingest_help.everything(self.ingest(workspace).folder) != ingest_help.everything(self.dataset):
            yield "the bytes are not those of an undisturbed ingest"


def command(module: str, *arguments: object) -> tuple[int, str]:
    """A command in this process; what it said on both streams."""
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        code = cli_help.invoke(module, *arguments)
    return code, out.getvalue() + error.getvalue()


def flip(file: Path, at: float = 0.5) -> None:
    """Flips a bit of a file, at a share of its length."""
    data = bytearray(file.read_bytes())
    data[min(len(data) - 1, int(len(data) * at))] ^= 4
    file.write_bytes(data)


def apart(work: Callable[[], object]) -> tuple[int, str]:
    """Something in a fork of this process, which gives its words by standard error: for limits that can't be undone."""

    def child() -> None:
        code, said = told(lambda: (0, str(work())))
        os.write(2, said.encode())
        os._exit(code)

    return in_child(child, SECONDS)
