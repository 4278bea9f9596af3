"""The raw folder as the plan needs it: discovered, under the ids that the outputs show, without withdrawn groups."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from components.adapters.base import Discovery
from components.adapters.raw_files import open_source
from components.adapters.registry import discover
from components.core import arrow_arrays
from components.core.rejects import REJECT_SCHEMA, reject_table
from components.errors import DataError, HistolineError
from components.ingest.config import IngestConfig
from components.ingest.given import Given
from components.ingest.ledger_choice import Previous
from components.ingest.pseudonyms import PathMap, Pseudonymiser, withholding
from components.splits.published import published_splits


@dataclasses.dataclass(frozen=True)
class RawPatches:
    """What there is to plan.

    Attributes:
        found: What discovery found, under the ids that the outputs show; under pseudonyms its patches have a column
            `source` with the real path.
        tombstones: Groups that must not be written, under the same ids.
        published: Group -> split of `--splits-csv`, under the same ids; None without.
        warnings: Sentences for the summary.
        path_map: Only under pseudonyms.
    """

    found: Discovery
    tombstones: frozenset[str]
    published: Mapping[str, str] | None
    warnings: tuple[str, ...]
    path_map: PathMap | None = None


def find_patches(config: IngestConfig, given: Given, previous: Previous) -> RawPatches:
    """Lists the raw folder.

    Raises:
        UsageError: The folder, or the published split, does not fit.
        DataError: There is nothing to write.
    """
    key = given.pseudonymiser
    tombstones = given.excluded_ids | previous.withdrawn(given.key_fingerprint)
    hidden = given.excluded if key else tombstones  # of the groups that are known by a token only, more below
    published: Mapping[str, str] | None = None
    with withholding(key is not None):
        found = discover(config.adapter, config.input_root, config.discover_options(given.groups, hidden))
        warnings = list(found.warnings)
        if given.splits_csv:
            known = [group for group in found.group_counts if group not in hidden]
            splits = published_splits(given.splits_csv, known, found.group_unit)
            published = splits.splits
            warnings += splits.warnings
        if config.rehash:
            found = dataclasses.replace(found, patches=_rehash(config.input_root, found.patches))
    path_map = None
    if key:
        found, path_map = _pseudonymised(found, key)
        found = _without(found, tombstones)
        published = published and {key.token("group_id", group): split for group, split in published.items()}
        warnings = [f"{len(warnings)} warnings of discovery quote ids and are not shown"] if warnings else []
    if not len(found.patches):
        raise _nothing_to_write(config, found)
    return RawPatches(found, tombstones, published, tuple(warnings), path_map)


def _pseudonymised(found: Discovery, key: Pseudonymiser) -> tuple[Discovery, PathMap]:
    """Replaces ids and paths by tokens; the real path stays in column `source` for the shard writer alone."""
    patches = found.patches
    source = patches.column("path")
    for name in ("patch_id", "group_id", "slide_id", "path"):
        patches = patches.set_column(patches.schema.get_field_index(name), name, key.column(name, patches.column(name)))
    patches = patches.append_column("source", source)
    rejected = found.rejects.column("path")
    hidden = key.column("path", rejected)
    path_map = PathMap(
        tokens=pa.concat_arrays([arrow_arrays.flat(patches.column("path")), hidden]),
        paths=pa.concat_arrays([arrow_arrays.flat(source), arrow_arrays.flat(rejected)]),
    )
    rejects = found.rejects.set_column(0, REJECT_SCHEMA.field("path"), hidden)
    # A detail may quote a name; only the code is safe to tell.
    rejects = rejects.set_column(3, REJECT_SCHEMA.field("detail"), arrow_arrays.strings([""] * len(rejects)))
    tokens = dataclasses.replace(
        found,
        patches=patches,
        rejects=rejects,
        group_counts={key.token("group_id", g): c for g, c in found.group_counts.items()},
        unmapped_groups=frozenset(key.token("group_id", g) for g in found.unmapped_groups),
        ids_without_file=[key.token("patch_id", i) for i in found.ids_without_file],
    )
    return tokens, path_map


def _without(found: Discovery, tombstones: frozenset[str]) -> Discovery:
    """Takes out groups that an earlier ledger holds as withdrawn under their token."""
    patches = found.patches
    dead = pc.is_in(patches.column("group_id"), arrow_arrays.strings(sorted(tombstones)))
    if not pc.any(dead).as_py():
        return found
    paths = patches.filter(dead).column("path").to_pylist()
    rejects = pa.concat_tables([found.rejects, reject_table([(p, "excluded_group", "") for p in paths])])
    return dataclasses.replace(found, patches=patches.filter(pc.invert(dead)), rejects=rejects)


def _rehash(root: str, patches: pa.Table) -> pa.Table:
    """Content hashes in place of modification times."""
    source = open_source(root)
    paths, sizes = patches.column("path").to_pylist(), patches.column("size").to_pylist()

    def hashes(part: slice) -> list[int]:
        read = source.read_many(paths[part], sizes[part])
        return [xxhash.xxh3_64_intdigest(d) >> 1 if isinstance(d, bytes) else 0 for d in read]

    parts = [slice(i, i + 512) for i in range(0, len(paths), 512)]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        values = [h for part in pool.map(hashes, parts) for h in part]
    column = arrow_arrays.numbers(values, pa.int64())
    return patches.set_column(patches.schema.get_field_index("version"), "version", column)


def _nothing_to_write(config: IngestConfig, found: Discovery) -> HistolineError:
    """The error where every image found was rejected before decoding."""
    codes = found.rejects.column("code").value_counts().to_pylist()
    counts = ", ".join(f"{c['values']} {c['counts']}" for c in codes)
    example = found.rejects.slice(0, 1).to_pylist()
    first = f" For example {example[0]['path']!r}: {example[0]['detail'] or example[0]['code']}." if example else ""
    return DataError(
        f"None of the {found.found} images in {config.input_root} can be written: {counts}.{first}",
        "Check the folder, the data set's name and the filters.",
    )
