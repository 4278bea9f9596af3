"""What has to be true after a soak, and how it is measured: each check has a name, whether it held, what was found."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from soak import Soak

ROOT = Path(__file__).resolve().parents[1]
HOME = "idc/binary"
WARM_UP = 0.2
"""Share of the cycles before memory is looked at: caches fill, allocators settle."""

MOST_KIB, MOST_FILES = 64.0, 0.02
"""Growth in a cycle that still counts as flat: resident memory in KiB, open files."""

Row = tuple[str, bool, str]


def moved(workspace: Path, known: dict[str, str]) -> list[str]:
    """Patients that the newest ledger has on another side than any before; it is added to what is known.

    Args:
        workspace: The workspace.
        known: Patient to side.
    """
    latest = json.loads((workspace / f"datasets/{HOME}/latest.json").read_text(encoding="utf-8"))
    splits = json.loads((workspace / latest["dataset_dir"] / "splits.json").read_text(encoding="utf-8"))["splits"]
    changed = [f"{g}: {side} to {splits.get(g)}" for g, side in known.items() if splits.get(g) != side]
    known.update(splits)
    return changed


def usage(pid: int) -> tuple[float, int]:
    """Resident memory in KiB, and open files, of a process."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    resident = re.search(r"VmRSS:\s+(\d+) kB", status)
    return float(resident[1]) if resident else 0.0, len(os.listdir(f"/proc/{pid}/fd"))


def size(folder: Path, without: str = "") -> int:
    """Bytes of all files below a folder; one that has several names counts once."""
    seen: dict[tuple[int, int], int] = {}
    for top, folders, names in os.walk(folder):
        if Path(top) == folder and without in folders:
            folders.remove(without)
        for name in names:
            stat = os.lstat(os.path.join(top, name))
            seen[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(seen.values())


def slope(points: list[tuple[int, float]]) -> float:
    """Growth in a cycle, by least squares."""
    count = len(points)
    x, y = sum(p[0] for p in points) / count, sum(p[1] for p in points) / count
    spread = sum((p[0] - x) ** 2 for p in points)
    return sum((p[0] - x) * (p[1] - y) for p in points) / spread if spread else 0.0


def check(soak: Soak) -> list[Row]:
    """Every check of a soak that has ended."""
    work = soak.workspace
    rows: list[Row] = [
        ("nobody moved between splits", not soak.moved, f"{len(soak.splits)} patients, {len(soak.moved)} moved"),
        _temporaries(work),
    ]
    rows += [_flat(name, samples) for name, samples in soak.samples.items()]
    rows += [_promise(work, soak), _index(work), *_metadata(work), *_champion(soak)]
    return rows


def _temporaries(work: Path) -> Row:
    left = [path for folder in work.rglob(".tmp") for path in folder.rglob("*") if path.is_file()]
    left += [path for path in work.rglob("*.lock") if path.is_file()]
    shown = ", ".join(path.relative_to(work).as_posix() for path in left[:5])
    return "nothing is left in .tmp, no lock", not left, shown or "nothing"


def _flat(name: str, samples: list[tuple[int, float, int]]) -> Row:
    late = samples[int(len(samples) * WARM_UP) :]
    memory = slope([(number, resident) for number, resident, _ in late])
    files = slope([(number, float(count)) for number, _, count in late])
    first, last = late[0], late[-1]
    found = f"{memory:+.1f} KiB and {files:+.3f} files a cycle; {first[1] / 1024:.1f} to {last[1] / 1024:.1f} MiB, "
    found += f"{first[2]} to {last[2]} files"
    # A few cycles tell nothing of a slope: then only the files are asked for, which do not depend on an allocator.
    few = len(late) < 10
    held = last[2] - first[2] <= 1 if few else memory <= MOST_KIB and files <= MOST_FILES
    return f"flat: {name}", held, found + (" (too few cycles for a slope of memory)" if few else "")


def _promise(work: Path, soak: Soak) -> Row:
    """What prune says that it keeps is what is there, and a second one finds nothing."""
    command = [sys.executable, "-m", "pipelines.prune", f"--workspace={work}", *soak.kept, "--json"]
    told = json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout)
    runs = {path.relative_to(work).as_posix() for path in (work / f"runs/{HOME}").iterdir() if path.is_dir()}
    kept = {one["path"] for one in told["kept"] if one["kind"] == "runs"}
    data = [one for one in told["kept"] if one["kind"] == "datasets"]
    held = not told["would_remove"] and runs == kept
    found = f"{len(runs)} runs of {soak.cycles}, {len(data)} data sets, {soak.disk[-1][2] / 1e6:.1f} MB beside models"
    return "disk is what prune promises", held, found


def _index(work: Path) -> Row:
    pages = [work / "runs/index.html", *work.glob(f"runs/{HOME}/*/report/index.html")]
    found = {(page, link) for page in pages for link in re.findall(r'href="([^"#]+[.]html)"', page.read_text("utf-8"))}
    broken = [link for page, link in found if not (page.parent / link).is_file()]
    said = f"{len(found)} links of {len(pages)} pages, {len(broken)} broken"
    return "every link between pages of runs leads somewhere", len(found) >= len(pages) and not broken, said


def _metadata(work: Path) -> list[Row]:
    file = work / "metadata" / "idc-binary.sqlite"
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as base:
        whole = base.execute("PRAGMA integrity_check").fetchone()[0]
        artifacts = base.execute("SELECT uri, state FROM Artifact").fetchall()
        executions = base.execute(
            "SELECT c.name, e.id FROM Execution e JOIN Association a ON a.execution_id = e.id"
            " JOIN Context c ON c.id = a.context_id JOIN Type t ON t.id = c.type_id WHERE t.name = 'pipeline_run'"
        ).fetchall()
        stray = base.execute(
            "SELECT count(*) FROM Event WHERE artifact_id NOT IN (SELECT id FROM Artifact)"
            " OR execution_id NOT IN (SELECT id FROM Execution)"
        ).fetchone()[0]
    ours = [(uri, state) for uri, state in artifacts if uri and uri.startswith(f"{work}/artifacts/")]
    live, deleted = 2, 4  # ml_metadata.proto.Artifact.State
    wrong = [uri for uri, state in ours if (state == live) != os.path.exists(uri) and state in (live, deleted)]
    there = {path.name for path in (work / f"runs/{HOME}").iterdir()}
    done = {name for name, _ in executions if name not in there and " (pruned " not in name}
    return [
        ("the metadata file is whole", whole == "ok" and not stray, f"{whole}, {stray} stray events"),
        (
            "ML Metadata and the disk agree on TFX's outputs",
            not wrong and not done,
            f"{sum(s == live for _, s in ours)} live, {sum(s == deleted for _, s in ours)} deleted, {len(wrong)} wrong;"
            f" {len(done)} runs that are gone have their names",
        ),
    ]


def _champion(soak: Soak) -> list[Row]:
    place = f"--workspace={soak.workspace}"
    verified = soak.once("verification of versions", ("models", "verify", "idc", place))
    output = soak.folder / "probabilities.parquet"
    answers = 0
    if soak.once("prediction", ("predict", "idc", f"--input={soak.raw}", f"--output={output}", place)) == 0:
        import pyarrow.parquet as pq

        answers = pq.read_table(output).num_rows
    images = sum(1 for _ in soak.raw.rglob("*.png"))
    whole = soak.once("verification", ("verify", "idc", place))
    return [
        ("every version is whole", verified == 0, f"exit {verified}"),
        ("the champion loads and answers", answers == images, f"{answers} probabilities of {images} images"),
        ("the latest data set is whole", whole == 0, f"exit {whole}"),
    ]


def show(soak: Soak, rows: list[Row], seconds: float) -> None:
    """Prints the summary.

    Args:
        soak: That has ended.
        rows: Of `check`.
        seconds: That it took.
    """
    from pipelines import console

    kills = ", ".join(f"{name} {count}" for name, count in sorted(soak.kills.items()))
    decisions = ", ".join(f"{name} {count}" for name, count in sorted(soak.decisions.items()))
    print(f"\n{soak.cycles} cycles in {seconds / 60:.1f} min: {decisions}.\nKilled: {kills or 'nobody'}.")
    sizes = [(number, runs, f"{taken / 1e6:.1f}") for number, runs, taken in soak.disk]
    console.table("\nAfter each pruning", ("cycle", "runs", "MB beside models"), sizes, right=(0, 1, 2))
    console.table("\nAt the end", ("", "what has to be true", "found"),
                  [("held" if held else "BROKEN", name, found) for name, held, found in rows])  # fmt: skip
