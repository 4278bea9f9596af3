"""The model card of a version: Hugging Face's model-card Markdown, short and true."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from components.champion import Promotion

FILE = "README.md"
RESEARCH_ONLY = "Research use only. Not a medical device: not for diagnosis, and not for decisions about patients."
_PROMOTION = "\n## Promotion\n"
_UNITS = {"image": "image (no patient is known)"}


def escape(text: str) -> str:
    """Text as one line of Markdown that shows it and nothing else."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def render(record: Mapping[str, Any], manifest: Mapping[str, Any], entry: Promotion) -> str:
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


def _front_matter(record: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    import yaml

    values = record["metrics"].get("test", {}).get("values", {})
    metrics = [
        {"type": name, "name": name, "value": round(figure["estimate"], 4)}
        for name, figure in values.items()
        if figure["estimate"] is not None
    ]
    name = f"histoline-{record['dataset']}-{record['task']}"
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": record["dataset"], "type": record["dataset"], "split": "test"},
        "metrics": metrics,
    }
    document: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["histopathology", "breast-cancer", "research-use-only", "histoline"],
        "model-index": [{"name": name, "results": [result] if metrics else []}],
    }
    return f"---\n{yaml.safe_dump(document, sort_keys=False, allow_unicode=True)}---\n"


def _body(record: Mapping[str, Any], manifest: Mapping[str, Any]) -> str:
    classes = ", ".join(escape(name) for name in manifest["classes"])
    width, height = manifest["source_size"]
    unit = _UNITS.get(manifest["group_unit"], manifest["group_unit"])
    cut = record["threshold"]
    decides = f"at a threshold of {cut:.4f} on P({escape(manifest['classes'][-1])})" if cut is not None else "by argmax"
    if len(manifest["classes"]) > 2:
        decides = "by argmax"
    return f"""
# {escape(record["dataset"])}, {escape(record["task"])}: {escape(record["config"].get("model", "model"))}

**{RESEARCH_ONLY}**

## Intended use and limits

- Tells patches of breast histopathology, stained with H&E, apart: {classes}.
- Input: RGB patches of {width}x{height} pixels, as Examples (`serving_default`) or image files (`serve_bytes`).
- Classes are decided {decides}; the threshold and the temperature ({_number(record["temperature"])}) were chosen on the
  eval split and are part of the model.
- It has seen one data set. Other scanners, stains, laboratories and tissues were not tested.
- It judges single patches, not slides or patients.

## Data

- Data set {escape(record["dataset"])}, plan `{record["plan_id"]}`, content `{record["content_digest"]}`.
- Split by {unit}: {_splits(manifest)}.
{_flags(record)}
## Evaluation

On the test split{_looks(record)}. Intervals: 95 %, bootstrap over {manifest["group_unit"]}s.

| metric | value | 95 % interval |
|---|---|---|
{_rows(record)}
{_warnings(record)}
## Training

Run `{record["run_id"]}`, histoline {escape(record["histoline_version"])}; the recipe is in run.json of that run.
"""


def _number(value: Any, sign: str = "") -> str:
    return "unknown" if value is None else format(value, f"{sign}.3f")


def _splits(manifest: Mapping[str, Any]) -> str:
    unit = manifest["group_unit"]
    splits = manifest["splits"].items()
    return ", ".join(f"{name} {facts['patches']:,} patches of {facts['groups']} {unit}s" for name, facts in splits)


def _flags(record: Mapping[str, Any]) -> str:
    return "".join(f"- Flag: {escape(flag.replace('_', ' '))}.\n" for flag in record["flags"])


def _looks(record: Mapping[str, Any]) -> str:
    looks = record["looks"]
    if not looks:
        return ""
    return f" (look {looks['count']} at this split; the more looks, the likelier a lucky figure)"


def _rows(record: Mapping[str, Any]) -> str:
    rows = []
    for name, figure in record["metrics"].get("test", {}).get("values", {}).items():
        limits = "none" if figure["low"] is None else f"{figure['low']:.3f} to {figure['high']:.3f}"
        if figure["low"] is None and figure["reason"]:
            limits = f"none ({figure['reason'].replace('_', ' ')})"
        rows.append(f"| {name} | {_number(figure['estimate'])} | {limits} |")
    return "\n".join(rows)


def _warnings(record: Mapping[str, Any]) -> str:
    told = list(record["metrics"].get("test", {}).get("warnings", [])) + list(record["warnings"])
    if record["weak_evidence"]:
        told.append("Weak evidence: some classes have too few groups, so all were pooled.")
    return "".join(["\n", *(f"- {escape(text)}\n" for text in told)]) if told else ""
