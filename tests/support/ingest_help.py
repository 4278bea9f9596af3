"""Runs ingests for tests: planner, writer and commit one after the other (no Beam), or the command."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.datasets.example import decode_example
from components.datasets.manifest import Manifest, load
from components.datasets.tfrecord import read_records
from components.ingest.commit import commit, move_latest
from components.ingest.config import IngestConfig
from components.ingest.plan import plan_ingest
from components.ingest.shard_jobs import IngestPlan
from components.ingest.shard_writer import write_shard
from components.storage.open import open_storage
from schemas.tables import COLOUR_FEATURES, SPLITS
from tests.support import trees

ROOT = Path(__file__).resolve().parents[2]
FEATURE_KEYS = {
    *COLOUR_FEATURES, "group_id", "image/height", "image/width", "label", "label/name", "magnification", "patch_id",
    "slide_id", "tumor_type", "x", "y",
}  # fmt: skip
"""Features of every Example, the image's own aside."""


def config(root: Path, workspace: Path, dataset: str = "idc", **given: Any) -> IngestConfig:
    """Configuration of an ingest; what is not given is the default."""
    return IngestConfig(dataset=dataset, input_root=str(root), workspace=str(workspace), **given)


def plan(cfg: IngestConfig) -> IngestPlan:
    """The planning part alone."""
    return plan_ingest(cfg, f"test-{uuid.uuid4().hex[:8]}")


def ingest(root: Path, workspace: Path, dataset: str = "idc", **given: Any) -> Result:
    """One ingest without Beam, in this process: what the command does, in milliseconds."""
    cfg = config(root, workspace, dataset, **given)
    planned = plan(cfg)
    if planned.committed:
        manifest = load(open_storage(cfg.workspace), planned.write.dataset_dir)
    else:
        for number in range(len(planned.specs)):
            write_shard(planned.write, number)
        manifest = commit(cfg, planned)
    is_latest = move_latest(cfg, planned, manifest)
    return Result(Path(cfg.workspace) / planned.write.dataset_dir, manifest, is_latest, planned)


class Result:
    """A committed data set, with short ways to its parts."""

    def __init__(self, folder: Path, manifest: Manifest, is_latest: bool, planned: IngestPlan) -> None:
        self.folder, self.manifest, self.is_latest, self.planned = folder, manifest, is_latest, planned
        self.plan_id = manifest.plan_id

    @property
    def patches(self) -> list[dict[str, Any]]:
        """Rows of patches.parquet."""
        return pq.read_table(self.folder / "patches.parquet").to_pylist()

    @property
    def rejects(self) -> dict[str, str]:
        """Path -> code."""
        return reject_codes(self.folder)

    @property
    def ledger(self) -> dict[str, Any]:
        """splits.json."""
        return json.loads((self.folder / "splits.json").read_text())

    @property
    def splits(self) -> dict[str, str]:
        """Group -> split."""
        return self.ledger["splits"]


def reject_codes(folder: Path) -> dict[str, str]:
    """Path -> code of every row of rejects.parquet."""
    table: pa.Table = pq.read_table(folder / "rejects.parquet")
    return dict(zip(table["path"].to_pylist(), table["code"].to_pylist(), strict=True))


def examples(folder: Path) -> dict[str, tuple[str, dict[str, Any]]]:
    """patch_id -> (split, parsed Example) of every record, every checksum verified."""
    found = {}
    for split in SPLITS:
        for shard in sorted((folder / f"Split-{split}").iterdir()):
            for _, record in read_records(shard):
                example = decode_example(record)
                patch_id = example["patch_id"].decode()
                assert patch_id not in found
                found[patch_id] = (split, example)
    return found


def output_bytes(folder: Path, *suffixes: str) -> dict[str, bytes]:
    """Relative name -> content of a data set's files, of those suffixes only if any are given."""
    files = (f for f in sorted(folder.rglob("*")) if f.is_file() and (not suffixes or f.suffix in suffixes))
    return {f.relative_to(folder).as_posix(): f.read_bytes() for f in files}


def everything(folder: Path) -> dict[str, bytes]:
    """All files of a data set but the manifest, which holds times and the input's name."""
    return {name: data for name, data in output_bytes(folder).items() if name != "manifest.json"}


def dataset_dirs(workspace: Path, dataset: str = "idc", task: str = "binary") -> list[Path]:
    """Folders of the data sets in a workspace, committed or not."""
    home = workspace / "datasets" / dataset / task
    return sorted(
        p for p in home.iterdir() if p.is_dir() and not p.name.startswith(".") and p.name != "folds"
    )


def command(*args: object, code: str = "") -> list[str]:
    """argv of the ingest command; `code` runs first in its process (to shorten a wait, to slow a write)."""
    if not code:
        return [sys.executable, "-m", "pipelines.ingest", *map(str, args)]
    main = (
        "import sys; from pipelines import console, ingest; "
        "sys.exit(console.run(lambda: ingest.command.main(standalone_mode=False, prog_name='ingest')))"
    )
    return [sys.executable, "-c", f"{code}\n{main}", *map(str, args)]


def environment(**extra: str) -> dict[str, str]:
    """Environment of a command, without what a user's shell may set."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HISTOLINE_")}
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


def run(
    *args: object, code: str = "", cwd: Path = ROOT, timeout: float = 240, **env: str
) -> subprocess.CompletedProcess[str]:
    """Runs the ingest command in a process of its own."""
    return subprocess.run(
        command(*args, code=code),
        cwd=cwd, env=environment(**env), timeout=timeout, text=True, capture_output=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def start(*args: object, code: str = "", **env: str) -> subprocess.Popen[str]:
    """Starts the ingest command in a process group of its own."""
    return subprocess.Popen(
        command(*args, code=code), cwd=ROOT, env=environment(**env), text=True, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell starts background jobs with Ctrl-C ignored, and children inherit it, also from tests that run so.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def twelve_patients(root: Path) -> Path:
    """Draws twelve patients with both classes, one narrow edge patch, one sliver, one copied text file."""
    trees.idc_tree(root, 12, 3)
    for name, size in (("9000", (50, 41)), ("9001", (1, 50))):
        path = trees.idc_path(name, 0, 951, 951)
        trees.write_images(root, [path], size)
    (root / "notes.txt").write_text("no image")
    return root


def sources(root: Path) -> list[str]:
    """Image files below a folder, sorted."""
    return sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.suffix.lower() in (".png", ".tif"))
