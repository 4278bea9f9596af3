"""Takes records out of a shard that has been written: the only change a shard ever sees, and only before the commit."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from components.core import arrow_arrays
from components.datasets.layout import ShardSpec
from components.datasets.sidecars import META_KEY, sidecar_meta, write_sidecar
from components.datasets.tfrecord import footer, header, read_records
from components.ingest.shard_jobs import WriteConfig
from components.storage.open import open_storage


def drop_records(config: WriteConfig, spec: ShardSpec, drops: Mapping[str, tuple[str, str]]) -> None:
    """Rewrites a shard and its sidecar without some records.

    What was dropped stays in the sidecar's metadata with its pixel hash: a later try, after a crash half-way, has to
    see every copy to come to the same decision.

    Args:
        config: The ingest's configuration.
        spec: The shard.
        drops: patch_id -> (code, detail) of what goes.
    """
    storage = open_storage(config.workspace)
    shard, sidecar = f"{config.dataset_dir}/{spec.path}", f"{config.dataset_dir}/{spec.sidecar}"
    table = pq.read_table(storage.local_copy(sidecar))
    meta = sidecar_meta(table.schema)
    ids = table.column("patch_id").to_pylist()
    keep = [i for i, patch_id in enumerate(ids) if patch_id not in drops]
    if len(keep) == len(ids):
        return
    scratch = storage.scratch(config.dataset_dir)
    new_shard, new_sidecar = scratch / "shard", scratch / "sidecar"
    digest, offset, offsets = hashlib.sha256(), 0, []
    kept_rows = set(keep)
    with open(new_shard, "wb") as file:
        for row, (_, record) in enumerate(read_records(storage.local_copy(shard))):
            if row not in kept_rows:
                continue
            framed = header(len(record)) + record + footer(record)
            file.write(framed)
            digest.update(framed)
            offsets.append(offset)
            offset += len(framed)
    gone = table.take(arrow_arrays.numbers([i for i in range(len(ids)) if i not in kept_rows]))
    meta["dropped"] += [
        {
            **{name: row[name] for name in ("patch_id", "path", "group_id", "label")},
            "pixel_hash": row["pixel_hash"].hex(),
            "code": drops[row["patch_id"]][0],
            "detail": drops[row["patch_id"]][1],
        }
        for row in gone.to_pylist()
    ]
    meta.update(count=len(keep), bytes=offset, sha256=digest.hexdigest())
    table = table.take(arrow_arrays.numbers(keep, pa.int64()))
    column = [arrow_arrays.numbers(offsets, pa.int64())]
    table = table.set_column(table.schema.get_field_index("offset"), table.schema.field("offset"), column)
    table = table.replace_schema_metadata({META_KEY: json.dumps(meta).encode()})
    write_sidecar(table, new_sidecar)
    storage.commit_file(new_shard, shard)
    storage.commit_file(new_sidecar, sidecar)
    shutil.rmtree(scratch, ignore_errors=True)
