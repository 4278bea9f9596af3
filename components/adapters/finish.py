"""From labelled patches to a Discovery: groups, counts, exclusions, filters and caps of every data set."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.adapters.base import Adapter, DiscoverOptions, Discovery, largest_file
from components.adapters.group_files import GroupMapping
from components.adapters.listing import Listing
from components.adapters.patch_index import ABSENT_NUMBER, INDEX_SCHEMA
from components.adapters.repeated_ids import reject_repeated_ids
from components.adapters.sieve import Sieve, constant
from components.core import arrow_arrays
from components.core.array_types import Integers
from components.errors import UsageError

UNMAPPED_PREFIX = "unmapped:"
"""Begins the ids of groups that `--unmapped train` makes up, one for each patch."""


def finish(
    sieve: Sieve, adapter: Adapter, options: DiscoverOptions, listing: Listing, warnings: list[str]
) -> Discovery:
    """Groups, counts, exclusions, filters and caps: all that is the same for every data set.

    Args:
        sieve: Table with path, size, version, patch_id, label, and those of group_id, slide_id, x, y,
            magnification and tumor_type that the data set knows.
        adapter: The adapter.
        options: What the user asked for.
        listing: The listing that the sieve began with.
        warnings: What the adapter has to tell.

    Raises:
        UsageError: A group that is to be excluded is a slide here.
    """
    warnings = [*listing.warnings, *warnings]
    sieve.reject_large(largest_file(adapter.source_size))
    _fill_absent(sieve)
    copies = reject_repeated_ids(sieve)
    if copies:
        warnings.append(f"{copies} patches are in the nested copy only and were taken from there.")
    unit, unmapped = adapter.group_unit, frozenset[str]()
    if options.group_by == "image":
        unit = "image"
        sieve.set("group_id", sieve.table["patch_id"])
        warnings.append("Every patch is its own group: the splits are not patient-clustered.")
    elif options.groups:
        unit = options.groups.unit
        unmapped = _map_groups(sieve, options.groups, options.unmapped, warnings)
    classes = len(adapter.classes(options.task))
    counts = count_groups(sieve.table["group_id"], sieve.table["label"], classes)
    _exclude(sieve, options.exclude_groups, counts, warnings)
    if options.magnifications:
        wanted_values = arrow_arrays.numbers(options.magnifications, pa.int32())
        keep = pc.is_in(sieve.table["magnification"], value_set=wanted_values)
        wanted = ", ".join(map(str, sorted(set(options.magnifications))))
        sieve.reject(pc.invert(keep), "filtered", f"magnification is not {wanted}")
    if options.max_per_class:
        over = over_cap(sieve.table, options.max_per_class, options.seed)
        sieve.reject(over, "over_cap", f"its class has more than {options.max_per_class} patches")
    return Discovery(
        patches=arrow_arrays.table(
            {name: sieve.table[name] for name in INDEX_SCHEMA.names}, INDEX_SCHEMA
        ).combine_chunks(),
        rejects=sieve.reject_table(),
        group_counts=counts,
        group_unit=unit,
        unmapped_groups=unmapped,
        ignored=listing.ignored,
        warnings=warnings,
        fingerprint=listing.fingerprint,
        drawn=listing.drawn,
    )


def _fill_absent(sieve: Sieve) -> None:
    count = len(sieve.table)
    for field in INDEX_SCHEMA:
        if field.name not in sieve.table.column_names:
            sieve.set(
                field.name,
                constant("" if pa.types.is_string(field.type) else ABSENT_NUMBER, count, field.type),
            )


def _map_groups(sieve: Sieve, mapping: GroupMapping, unmapped: str, warnings: list[str]) -> frozenset[str]:
    """Sets group_id and slide_id from a mapping; returns the groups that were made up."""
    ids = sieve.table["patch_id"].combine_chunks()
    at = pc.index_in(ids, value_set=mapping.patch_ids)
    groups, slides = mapping.groups.take(at), mapping.slides.take(at)
    used = pc.count_distinct(at, mode="only_valid").as_py()
    if spare := len(mapping.patch_ids) - used:
        warnings.append(f"The groups CSV names {spare} patches that are not here.")
    if not used:
        first = ids[0].as_py() if len(ids) else ""
        raise UsageError(
            f"The groups CSV names none of the {len(ids)} patches.",
            f"Its ids must be file stems, such as {first!r}.",
        )
    made: frozenset[str] = frozenset()
    if unmapped == "train" and groups.null_count:
        own = pc.binary_join_element_wise(UNMAPPED_PREFIX, ids, "")
        made = frozenset(own.filter(pc.is_null(groups)).to_pylist())
        groups = pc.coalesce(groups, own)
        warnings.append(f"{len(made)} patches have no group: the data set is not provably patient-disjoint.")
    sieve.set("group_id", groups)
    if mapping.unit == "slide":
        slides = pc.if_else(pc.is_valid(at), groups, "")
    # Where the file knows no slide, what the data set itself says stays.
    slides = pc.if_else(pc.equal(pc.fill_null(slides, ""), ""), sieve.table["slide_id"].combine_chunks(), slides)
    sieve.set("slide_id", slides)
    sieve.reject(pc.is_null(groups), "no_group", "the groups CSV gives it no group")
    return made


def count_groups(groups: Any, labels: Any, classes: int) -> dict[str, list[int]]:
    """Patches per class of each group, sorted by group."""
    encoded = pc.dictionary_encode(groups)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    names = encoded.dictionary.to_pylist()
    cells = arrow_arrays.values(encoded.indices).astype(np.int64) * classes + arrow_arrays.values(labels)
    table = np.bincount(cells, minlength=len(names) * classes).reshape(-1, classes)
    return dict(sorted(zip(names, table.tolist(), strict=True)))


def _exclude(sieve: Sieve, groups: frozenset[str], counts: dict[str, list[int]], warnings: list[str]) -> None:
    absent = sorted(groups - counts.keys())
    # A withdrawn consent that names the slide would otherwise have no effect and nobody would see it.
    named = pc.is_in(sieve.table["slide_id"], value_set=arrow_arrays.strings(absent))
    slides = pc.filter(sieve.table.select(["slide_id", "group_id"]), named)
    if len(slides):
        slide, group = slides["slide_id"][0].as_py(), slides["group_id"][0].as_py()
        raise UsageError(f"{slide!r} in --exclude-groups is a slide of group {group!r}.", "Name the group.")
    if absent:
        warnings.append(f"{len(absent)} of {len(groups)} groups to be excluded have no patch here.")
    if groups:
        mask = pc.is_in(sieve.table["group_id"], value_set=arrow_arrays.strings(sorted(groups)))
        sieve.reject(mask, "excluded_group", "its group is excluded")


def over_cap(table: pa.Table, cap: int, seed: int) -> Integers:
    """Patches beyond a cap per class, chosen so that every group keeps its share.

    Groups, in an order drawn from the seed, give one patch in turn until the class is full; within a group
    the order is drawn too. It depends on ids only, never on the order of rows.

    Returns:
        Boolean mask over the table.
    """
    labels = table["label"].to_numpy()
    groups = table["group_id"].combine_chunks().dictionary_encode()
    group = _draw(groups.dictionary.to_pylist(), seed)[groups.indices.to_numpy()]
    patch = _draw(table["patch_id"].to_pylist(), seed)
    order = np.lexsort((patch, group, labels))
    starts = np.ones(len(order), bool)
    starts[1:] = (labels[order][1:] != labels[order][:-1]) | (group[order][1:] != group[order][:-1])
    position = np.arange(len(order))
    turn = np.empty(len(order), np.int64)
    turn[order] = position - np.maximum.accumulate(np.where(starts, position, 0))
    over = np.zeros(len(order), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        over[rows[np.lexsort((patch[rows], group[rows], turn[rows]))[cap:]]] = True
    return over


def _draw(names: list[str], seed: int) -> Integers:
    """Rank of each (unique) name in a seeded order; ranks, unlike hashes, cannot collide."""
    salt = f"{seed}\0".encode()
    keys = [(hashlib.blake2b(salt + name.encode(), digest_size=8).digest(), name) for name in names]
    rank = np.empty(len(names), np.int64)
    rank[sorted(range(len(names)), key=keys.__getitem__)] = np.arange(len(names))
    return rank
