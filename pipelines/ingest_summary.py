"""What an ingest tells when it is over: a table and sentences for people, a document for --json and schedulers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pipelines import console

if TYPE_CHECKING:
    from components.datasets.manifest import Manifest
    from pipelines.ingest_job import Outcome


DRAWN = "SYNTHETIC DATA: a program drew these images; no model made from them replaces one made from real ones"


def summary(outcome: Outcome) -> list[str]:
    """The lines that every ingest ends with."""
    manifest = outcome.manifest
    assert manifest is not None
    kinds: dict[str, list[str]] = {}
    for code, facts in manifest.rejects.items():
        kinds.setdefault(facts.kind, []).append(f"{code} {facts.count:,}")
    rejected = sum(facts.count for facts in manifest.rejects.values())
    lines = [f"{manifest.found:,} images found, {manifest.written:,} written, {rejected:,} rejected"]
    lines += [f"  {kind}: {', '.join(codes)}" for kind, codes in sorted(kinds.items())]
    near = manifest.near_duplicates.pairs_across_splits
    if near:
        example = " and ".join(manifest.near_duplicates.examples[0])
        lines.append(f"near-duplicates across splits: {near:,} pairs, such as {example}")
    absent = manifest.ids_without_file.count
    if absent:
        lines.append(f"ids in the label file without an image: {absent:,}")
    lines += [DRAWN] if manifest.drawn else []
    lines += [f"WARNING: {text}; never promoted" for text in manifest.flag_reasons]
    return lines + [f"warning: {text}" for text in warnings(manifest)]


def warnings(manifest: Manifest) -> list[str]:
    """The manifest's warnings, and whether images of the download are missing."""
    from components.adapters.downloads import shortfall

    rejects = {code: facts.count for code, facts in manifest.rejects.items()}
    missing = "" if manifest.drawn else shortfall(manifest.dataset, manifest.found, rejects)
    return [*manifest.warnings, *([missing] if missing else [])]


def show(outcome: Outcome) -> None:
    """Prints the human summary."""
    if outcome.manifest is None:
        click.echo(outcome.split_table)
        click.echo(f"Fold ledgers are in {outcome.dataset_dir}; write one with --fold 1.")
        return
    _show_splits(outcome.manifest)
    for line in summary(outcome):
        click.echo(line)
    state = {"committed": "Committed", "unchanged": "Nothing to do, the input is unchanged. It stands"}[outcome.state]
    took = f" ({outcome.seconds:.1f} s)" if outcome.seconds else ""
    click.echo(f"{state} in {outcome.dataset_dir}{took}{'' if outcome.is_latest else '; latest.json names another'}")


def _show_splits(manifest: Manifest) -> None:
    """Prints a table with a row for each split; for more than three classes, one for each class."""
    unit, classes, splits = manifest.group_unit, manifest.classes, manifest.splits
    share = {s: f"{splits[s].patches / max(manifest.written, 1):.1%}" for s in splits}
    both = {
        (s, c): f"{splits[s].by_class[c]:,} ({splits[s].groups_by_class[c]:,})" for s in splits for c in classes
    }
    whole = {s: (f"{splits[s].patches:,}", f"{splits[s].groups:,}") for s in splits}
    title = f"{manifest.dataset} {manifest.task}, split by {unit}"
    if len(classes) <= 3:
        columns = ["split", "share", f"{unit}s", "patches", *(f"{c} ({unit}s)" for c in classes)]
        rows = [[s, share[s], whole[s][1], whole[s][0], *(both[s, c] for c in classes)] for s in splits]
    else:
        columns = [f"patches ({unit}s)", *splits]
        rows = [[c, *(both[s, c] for s in splits)] for c in classes]
        rows.append(["all", *(f"{whole[s][0]} ({whole[s][1]}), {share[s]}" for s in splits)])
    console.table(title, columns, rows, right=range(1, len(columns)))


def document(outcome: Outcome) -> dict[str, Any]:
    """What --json prints, and Airflow reads."""
    manifest = outcome.manifest.to_document() if outcome.manifest else {}
    facts = {
        k: manifest.get(k)
        for k in ("dataset", "task", "plan_id", "content_digest", "found", "written", "rejects", "flags")
    }
    facts["drawn"] = manifest.get("drawn", False)
    splits = {s: {k: v for k, v in f.items() if k != "shards"} for s, f in manifest.get("splits", {}).items()}
    return {
        "state": outcome.state,
        "dataset_dir": outcome.dataset_dir,
        "is_latest": outcome.is_latest,
        **facts,
        "splits": splits,
        "near_duplicates": manifest.get("near_duplicates"),
        "ids_without_file": manifest.get("ids_without_file"),
        "warnings": warnings(outcome.manifest) if outcome.manifest else [],
        "timings": {k: round(v, 3) for k, v in outcome.timings.items()},
    }


def small(outcome: Outcome) -> dict[str, Any]:
    """What a scheduler keeps of an ingest: a few hundred bytes."""
    facts = document(outcome)
    wanted = ("state", "dataset_dir", "task", "is_latest", "content_digest", "plan_id", "found", "written")
    rejects = {code: reject["count"] for code, reject in (facts["rejects"] or {}).items()}
    return {**{key: facts[key] for key in wanted}, "rejects": rejects}
