"""What it costs to plan and to commit millions of patches, without an image: time, memory, bytes on disk; JSON lines.

    python benchmarks/bench_planning.py [--rows 1000000 10000000] [--json FILE]

An index as discovery leaves it is drawn (IDC's names, 1,000 patches a patient), then planned and written by the
product's own functions. Then, in a process of its own, sidecars are drawn beside shards that are empty files, and the
product's own commit resolves copies, audits, and writes tables and manifest.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

import common
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import Discovery
from components.adapters.patch_index import INDEX_SCHEMA
from components.core import arrow_arrays
from components.core.rejects import reject_table
from components.datasets.layout import ShardSpec
from components.datasets.sidecars import META_KEY, write_sidecar
from components.ingest import commit as commits
from components.ingest.config import IngestConfig
from components.ingest.given import Given
from components.ingest.ledger_choice import Previous
from components.ingest.plan import EXAMPLE_OVERHEAD, make_plan
from components.ingest.plan_files import read_plan, write_plan
from components.ingest.raw_patches import RawPatches
from components.ingest.shard_jobs import IngestPlan, WriteConfig
from components.storage.open import open_storage
from schemas.tables import COLOUR_FEATURES, PATCHES, sidecar

PER_PATIENT = 1000
PART = 1 << 20
"""Rows that are drawn at once."""


def draw_part(first: int, count: int) -> pa.Table:
    """Rows `first` to `first + count` of the index, sorted by path as long as PER_PATIENT is below 10,000."""
    number = np.arange(first, first + count, dtype=np.int64)
    patient = pc.cast(pa.array(100_000_000 + number // PER_PATIENT), pa.string())
    within = number % PER_PATIENT
    label = (within >= 0.7 * PER_PATIENT).astype(np.int32)
    shown = [pc.cast(pa.array(values), pa.string()) for values in (label, 1000 + within)]
    name = pc.binary_join_element_wise(patient, "_idx5_x", shown[1], "_y1001_class", shown[0], "")
    path = pc.binary_join_element_wise(patient, "/", shown[0], "/", name, ".png", "")
    numbers = {"label": label, "x": 1000 + within, "y": within * 0 + 1001, "magnification": within * 0 - 1}
    columns = {
        "patch_id": name, "path": path, "group_id": patient, "slide_id": patient, "tumor_type": [""] * count,
        "size": 5000 + number % 977, "version": 1_700_000_000_000_000_000 + number, **numbers,
    }  # fmt: skip
    return arrow_arrays.table(columns, INDEX_SCHEMA)


def resident_mb(what: str = "VmHWM") -> float:
    """Resident size of this process in 10^6 bytes: `VmRSS` now, `VmHWM` its peak since it was last set back."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024 / 1e6


def set_peak_back() -> None:
    """Lets the peak start again at what is resident now (Linux: proc(5), clear_refs)."""
    pa.default_memory_pool().release_unused()
    Path("/proc/self/clear_refs").write_text("5")


def plan(rows: int, home: str) -> None:
    """Draws, plans, writes, and prints what it took."""
    # In one piece, as discovery leaves it.
    parts = [draw_part(first, min(PART, rows - first)) for first in range(0, rows, PART)]
    patches = pa.concat_tables(parts).combine_chunks()
    del parts
    patients = -(-rows // PER_PATIENT)
    left = [PER_PATIENT] * (patients - 1) + [rows - PER_PATIENT * (patients - 1)]
    counts = {str(100_000_000 + k): [int(0.7 * n), n - int(0.7 * n)] for k, n in enumerate(left)}
    raw = RawPatches(Discovery(patches, reject_table([]), counts, "patient"), frozenset(), None, ())
    set_peak_back()
    index = {"index_mb": patches.nbytes / 1e6, "before_mb": resident_mb("VmRSS")}
    started = time.monotonic()
    made, tables = make_plan(IngestConfig("idc", "/raw", home), Given(), Previous(), raw, "attempt")
    planned = time.monotonic()
    write_plan(open_storage(home), made, tables, shards=True)
    written = time.monotonic()
    (Path(home) / "plan.json").write_text(json.dumps(dataclasses.asdict(made)))
    told = {"plan_s": planned - started, "write_s": written - planned, "peak_mb": resident_mb()}
    plan_bytes = (Path(home) / made.write.plan_path).stat().st_size
    more = {"plan_bytes": plan_bytes, "ledger_bytes": len(made.ledger), "shards": len(made.specs)}
    print(json.dumps({**index, **told, **more, "plan_id": made.plan_id}))


def read_back(home: str) -> IngestPlan:
    """The plan that `plan` left."""
    document = json.loads((Path(home) / "plan.json").read_text())
    write = {name: tuple(v) if isinstance(v, list) else v for name, v in document["write"].items()}
    specs = [ShardSpec(**spec) for spec in document["specs"]]
    return IngestPlan(**{**document, "write": WriteConfig(**write), "specs": specs})


def draw_sidecar(made: IngestPlan, number: int, file: Path) -> None:
    """A shard's sidecar with hashes and colours from a generator: no two patches are alike but by chance."""
    spec, batch = read_plan(Path(made.write.workspace) / made.write.plan_path, number)
    rng, n = np.random.default_rng(number), len(batch)
    size = 50 * 50 * 3 + EXAMPLE_OVERHEAD
    columns = {
        **{name: batch.column(batch.schema.get_field_index(name)) for name in PATCHES.names[:9]},
        **{name: [value] * n for name, value in (("split", spec.split), ("shard", spec.file))},
        **{name: np.full(n, 50) for name in ("width", "height", "original_width", "original_height")},
        "offset": np.arange(n) * size, "pixel_hash": arrow_arrays.digests([rng.bytes(16) for _ in range(n)], 16),
        "perceptual_hash": rng.integers(0, 2**63, n).astype(np.uint64), "constant": np.zeros(n, bool),
        **{name: rng.random(n, np.float32) for name in COLOUR_FEATURES},
    }  # fmt: skip
    columns["label_name"] = pc.take(arrow_arrays.strings(made.write.classes), columns["label"])
    meta = {"count": n, "bytes": n * size, "sha256": "0" * 64, "rejects": [], "dropped": []}
    schema = sidecar(COLOUR_FEATURES).with_metadata({META_KEY: json.dumps(meta).encode()})
    write_sidecar(arrow_arrays.table(columns, schema), file)


def commit(home: str) -> None:
    """Draws what shard writers leave, commits and audits it, and prints what it took."""
    made = read_back(home)
    dataset = Path(home) / made.write.dataset_dir
    for number, spec in enumerate(made.specs):
        for place in (dataset / spec.path, dataset / spec.sidecar):
            place.parent.mkdir(parents=True, exist_ok=True)
        (dataset / spec.path).touch()
        draw_sidecar(made, number, dataset / spec.sidecar)
    set_peak_back()
    before, started = resident_mb("VmRSS"), time.monotonic()
    commits.commit(IngestConfig("idc", "/raw", home), made)
    told = {"before_mb": before, "commit_s": time.monotonic() - started, "peak_mb": resident_mb()}
    print(json.dumps({**told, "table_bytes": (dataset / "patches.parquet").stat().st_size}))


def main() -> None:
    """Parses the command line and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--part", nargs=3, metavar=("WHAT", "ROWS", "HOME"), help=argparse.SUPPRESS)
    common.add_json_option(parser)
    options = parser.parse_args()
    if options.part:
        what, rows, home = options.part
        plan(int(rows), home) if what == "plan" else commit(home)
        return
    common.WORK.mkdir(parents=True, exist_ok=True)
    common.environment(Path(__file__).name, 1)
    for rows in options.rows:
        with tempfile.TemporaryDirectory(dir=common.WORK) as home:
            parts = {}
            for what in ("plan", "commit"):
                parts[what] = common.parse_json(common.python([__file__, "--part", what, str(rows), home]))
                common.emit(rows=rows, what=what, **parts[what])
        told = parts["plan"]
        common.figure(
            f"scale/plan {rows}",
            f"planning {rows:,} patches of {-(-rows // PER_PATIENT):,} patients, no image read",
            f"{told['plan_s'] + told['write_s']:.1f} s; memory {told['index_mb']:,.0f} MB for the index and "
            f"{told['peak_mb'] - told['before_mb']:,.0f} MB for planning; plan {told['plan_bytes'] / 1e6:,.0f} MB, "
            f"ledger {told['ledger_bytes'] / 1e6:.2f} MB, {told['shards']:,} shards",
        )
        told = parts["commit"]
        added = (told["peak_mb"] - told["before_mb"]) * 1e6
        common.figure(
            f"scale/commit {rows}",
            f"committing {rows:,} patches from their sidecars: copies, audit, tables, manifest",
            f"{told['commit_s']:.1f} s; memory {added / 1e6:,.0f} MB, {added / rows:.0f} bytes a patch; "
            f"patches.parquet {told['table_bytes'] / 1e6:,.0f} MB",
        )
    common.leave_figures(options.json)


if __name__ == "__main__":
    sys.exit(main())
