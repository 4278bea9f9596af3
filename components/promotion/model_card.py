"""The model card of a version: Hugging Face's model-card Markdown, short and true."""

from __future__ import annotations

import dataclasses
import html
import re
from typing import Any

from components.datasets.manifest import Manifest
from components.promotion.champion import Promotion
from components.training.run_types import RunRecord

FILE = "README.md"
RESEARCH_ONLY = "Research use only. Not a medical device: not for diagnosis, and not for decisions about patients."
_PROMOTION = "\n## Promotion\n"
_UNITS = {"image": "image (no patient is known)"}


def escape(text: str) -> str:
    """Text as one line of Markdown that shows it and nothing else."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def render(record: RunRecord, manifest: Manifest, entry: Promotion) -> str:
    """The card.

    Args:
        record: run.json of the run that trained the model.
        manifest: Of its data set.
        entry: How the version came to be served.
    """
    return _front_matter(record, manifest) + _body(record, manifest) + promotion_section(entry)


def replace_promotion(card: str, entry: Promotion) -> str:
    """The same card with another end: what a rollback publishes again."""
    return card.partition(_PROMOTION)[0] + promotion_section(entry)


def promotion_section(entry: Promotion) -> str:
    """Who or what promoted the version, when and why."""
    by = "the gate" if entry.promoted_by == "gate" else f"hand ({escape(entry.who)})"
    again = f"- This is version {entry.from_version} published again.\n" if entry.from_version is not None else ""
    lines = f"- Version {entry.version}, promoted by {by} on {entry.when}.\n- Reason: {escape(entry.why)}\n"
    return f"{_PROMOTION}\n{lines}{again}"


def _front_matter(record: RunRecord, manifest: Manifest) -> str:
    import yaml

    values = record.figures()
    metrics = [
        {"type": name, "name": name, "value": round(figure["estimate"], 4)}
        for name, figure in values.items()
        if figure["estimate"] is not None
    ]
    name = f"histoline-{record.dataset}-{record.task}"
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": record.dataset, "type": record.dataset, "split": "test"},
        "metrics": metrics,
    }
    document: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["histopathology", "breast-cancer", "research-use-only", "histoline"],
        "model-index": [{"name": name, "results": [result] if metrics else []}],
    }
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}---\n"


def _body(record: RunRecord, manifest: Manifest) -> str:
    classes = ", ".join(escape(name) for name in manifest.classes)
    width, height = manifest.source_size
    unit = _UNITS.get(manifest.group_unit, manifest.group_unit)
    cut = record.threshold
    decides = f"at a threshold of {cut:.4f} on P({escape(manifest.classes[-1])})" if cut is not None else "by argmax"
    if len(manifest.classes) > 2:
        decides = "by argmax"
    return f"""
# {escape(record.dataset)}, {escape(record.task)}: {escape(record.config.get("model", "model"))}

**{RESEARCH_ONLY}**

## Intended use and limits

- Intended for research on computational pathology: comparing methods, studying errors, ordering patches for a look.
- Not intended for diagnosis, for decisions about patients, or for slides as a whole: it judges single patches.
- Tells patches of breast histopathology, stained with H&E, apart: {classes}.
- Input: RGB patches of {width}x{height} pixels ({_scale(manifest)}), as Examples (`serving_default`) or image files
  (`serve_bytes`).
- Classes are decided {decides}; the threshold and the temperature ({_number(record.temperature)}) were chosen on the
  eval split and are part of the model.
- It has seen one data set. Other scanners, stains, laboratories and tissues were not tested.

## Data

- Data set {escape(record.dataset)}, plan `{record.plan_id}`, content `{record.content_digest}`.
- Split by {unit}: {_splits(manifest)}.
- {_found(manifest)}
{_flags(record)}{_drift(record)}
{_by_class(manifest)}
## Evaluation

On the test split{_looks(record)}. Intervals: 95 %, bootstrap over {manifest.group_unit}s.

| metric | value | 95 % interval |
|---|---|---|
{_rows(record)}
{_against(record)}{_calibration(record)}{_spread(record)}{_warnings(record)}{_slices(record)}
## Training

Run `{record.run_id}`, histoline {escape(record.histoline_version)}; the recipe is in run.json of that run.
"""


def _number(value: Any, sign: str = "") -> str:
    return "unknown" if value is None else format(value, f"{sign}.3f")


def _splits(manifest: Manifest) -> str:
    unit = manifest.group_unit
    splits = manifest.splits.items()
    return ", ".join(f"{name} {facts.patches:,} patches of {facts.groups} {unit}s" for name, facts in splits)


def _scale(manifest: Manifest) -> str:
    scale = manifest.microns_per_pixel
    return "physical size unknown" if scale is None else f"{scale:g} micrometres a pixel"


def _found(manifest: Manifest) -> str:
    """How many images were found and why some were not written."""
    rejects = sorted(manifest.rejects.items(), key=lambda item: -item[1].count)
    counts = ", ".join(f"{facts.count:,} {escape(code.replace('_', ' '))} ({facts.kind})" for code, facts in rejects)
    chosen = dataclasses.asdict(manifest.policies).items()
    policies = ", ".join(f"{key.replace('_', ' ')}: {escape(value)}" for key, value in chosen)
    left = f"left out: {counts}" if counts else "none left out"
    return f"{manifest.found:,} images found, {manifest.written:,} written; {left}. Policies: {policies}."


def _by_class(manifest: Manifest) -> str:
    """Table of patches and groups by class and split."""
    splits, unit = manifest.splits, manifest.group_unit
    heads = " | ".join(f"{name} patches | {unit}s" for name in splits)
    lines = [f"| class | {heads} |", "|---|" + "--:|" * (2 * len(splits))]
    for name in manifest.classes:
        cells = " | ".join(
            f"{facts.by_class.get(name, 0):,} | {facts.groups_by_class.get(name, 0):,}" for facts in splits.values()
        )
        lines.append(f"| {escape(name)} | {cells} |")
    return "\n".join(lines) + "\n"


def _drift(record: RunRecord) -> str:
    drift = record.drift or {}
    if not drift.get("drifted"):
        return ""
    accepted = f", accepted: {escape(drift['accepted'])}" if drift.get("accepted") else ""
    return f"- Colours differ from the champion's data in {escape(', '.join(drift['drifted']))}{accepted}.\n"


def _against(record: RunRecord) -> str:
    """What the gate compared the model with."""
    if record.gate is None:
        return ""
    lines = []
    for one in record.gate.comparisons:
        difference = one["result"]["difference"]
        limits = "no interval"
        if difference["low"] is not None:
            limits = f"95 % interval {difference['low']:+.3f} to {difference['high']:+.3f}"
        name = {"baseline": "the colour baseline", "champion": f"champion {one['name']}"}.get(one["against"])
        if name:
            metric = record.gate.metric
            lines.append(f"- {metric} against {escape(name)}: {_number(difference['estimate'], '+')} ({limits}).\n")
    return "".join(["\n", *lines]) if lines else ""


def _calibration(record: RunRecord) -> str:
    ece = ((record.calibration or {}).get("served") or {}).get("test", {}).get("ece")
    return "" if ece is None else f"- Expected calibration error on test, as served: {ece:.3f}.\n"


def _spread(record: RunRecord) -> str:
    """The primary metric over single patients."""
    spread = record.per_group.get("test", {})
    told = spread.get("auc") or spread.get("balanced_accuracy") or {}
    if told.get("median") is None:
        return ""
    name = "auc" if spread.get("auc") else "balanced_accuracy"
    return (
        f"- {name} of single {record.group_unit}s: median {told['median']:.3f}, quartiles {told['q25']:.3f} to"
        f" {told['q75']:.3f}, lowest {told['min']:.3f} ({told['groups']:.0f} have one).\n"
    )


def _slices(record: RunRecord) -> str:
    """Slices of the test split, the worst accuracy of each kind first."""
    if not record.slices:
        return ""
    unit = record.group_unit
    rows = sorted(record.slices, key=lambda one: (one["by"], _last(one["metrics"].get("accuracy"))))
    body = "".join(
        f"| {escape(one['by'].replace('_', ' '))} | {escape(one['value'])} | {one['patches']:,} | {one['groups']:,} |"
        f" {_number(one['metrics'].get('accuracy'))} |\n"
        for one in rows
    )
    head = f"| slice | value | patches | {unit}s | accuracy |\n|---|---|--:|--:|--:|\n"
    return f"\n### Slices of the test split, worst first\n\n{head}{body}"


def _last(value: float | None) -> float:
    return 2.0 if value is None else value


def _flags(record: RunRecord) -> str:
    return "".join(f"- Flag: {escape(flag.replace('_', ' '))}.\n" for flag in record.flags)


def _looks(record: RunRecord) -> str:
    looks = record.looks
    if not looks:
        return ""
    return f" (look {looks.count} at this split; the more looks, the likelier a lucky figure)"


def _rows(record: RunRecord) -> str:
    rows = []
    for name, figure in record.figures().items():
        limits = "none" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"
        if figure["low"] is None and figure["reason"]:
            limits = f"none ({figure['reason'].replace('_', ' ')})"
        rows.append(f"| {name} | {_number(figure['estimate'])} | {limits} |")
    return "\n".join(rows)


def _warnings(record: RunRecord) -> str:
    told = list(record.metrics.get("test", {}).get("warnings", [])) + list(record.warnings)
    if record.weak_evidence:
        told.append("Weak evidence: some classes have too few groups, so all were pooled.")
    return "".join(["\n", *(f"- {escape(text)}\n" for text in told)]) if told else ""
