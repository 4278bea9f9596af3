"""The model card of a version: Hugging Face's model-card Markdown, short and true.

The text is in `templates/model_card.md`; what needs more than a look-up is made here.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.core.text import number, spaced
from components.datasets.manifest import Manifest
from components.promotion.champion import Promotion
from components.promotion.gate_words import power_line
from components.training.run_types import GateRecord, RunRecord

FILE = "README.md"
RESEARCH_ONLY = "Research use only. Not a medical device: not for diagnosis, and not for decisions about patients."
WEAK_EVIDENCE = "Weak evidence: some classes have too few groups, so all were pooled."
_PROMOTION = "\n## Promotion\n"
_TAGS = ("histopathology", "breast-cancer", "research-use-only", "histoline")


def escape(text: Any) -> str:
    """Text as one line of Markdown that shows it and nothing else."""
    return re.sub(r"([\\`*_{}\[\]#|~])", r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


@functools.cache
def _environment() -> Any:
    """The templates. Markdown has no escaping of its own here: whatever a user typed goes through `md`."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "md": escape,
        "num": functools.partial(number, absent="unknown"),
        "spaced": spaced,
        "thousands": "{:,}".format,
    }
    return made


def render(record: RunRecord, manifest: Manifest, entry: Promotion) -> str:
    """The card.

    Args:
        record: run.json of the run that trained the model.
        manifest: Of its data set.
        entry: How the version came to be served.
    """
    test = record.metrics.get("test", {})
    spread = record.per_group.get("test", {})
    spread_metric = "auc" if spread.get("auc") else "balanced_accuracy"
    by_patient = record.patient_level.get("test", {}).get("values", {})
    card = _environment().get_template("model_card.md").render(
        research_only=RESEARCH_ONLY,
        caveat=entry.caveat,
        front_matter=_front_matter(record),
        run=record,
        manifest=manifest,
        unit=manifest.group_unit,
        rejects=sorted(manifest.rejects.items(), key=lambda item: -item[1].count),
        policies=dataclasses.asdict(manifest.policies),
        drift=record.drift or {},
        figures=record.figures(),
        comparisons=_comparisons(record.gate),
        power=power_line(dataclasses.asdict(record.gate) if record.gate else None),
        ece=((record.calibration or {}).get("served") or {}).get("test", {}).get("ece"),
        uncalibrated=((record.calibration or {}).get("uncalibrated") or {}).get("test"),
        by_patient={name: by_patient[name] for name in ("auc", "macro_f1", "accuracy") if name in by_patient},
        spread=spread.get(spread_metric) or {},
        spread_metric=spread_metric,
        held_out=record.figures("holdout").get(record.gate.metric if record.gate else ""),
        warnings=[
            *test.get("warnings", []), *record.warnings, *([WEAK_EVIDENCE] if record.weak_evidence else []),
        ],
        slices=sorted(record.slices, key=_worst_first),
    )  # fmt: skip
    return str(card) + promotion_section(entry)


def replace_promotion(card: str, entry: Promotion) -> str:
    """The same card with another end: what a rollback publishes again."""
    return card.partition(_PROMOTION)[0] + promotion_section(entry)


def promotion_section(entry: Promotion) -> str:
    """Who or what promoted the version, when and why."""
    return str(_environment().get_template("model_card_promotion.md").render(promotion=entry))


def _front_matter(record: RunRecord) -> str:
    """What the hub reads: YAML."""
    import yaml

    metrics = [
        {"type": name, "name": name, "value": round(figure["estimate"], 4)}
        for name, figure in record.figures().items()
        if figure["estimate"] is not None
    ]
    name = f"histoline-{record.dataset}-{record.task}"
    split = "test" if record.decision_by == "split" else "out of fold"
    result = {
        "task": {"type": "image-classification"},
        "dataset": {"name": record.dataset, "type": record.dataset, "split": split},
        "metrics": metrics,
    }
    document: dict[str, Any] = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": [*_TAGS, *(["synthetic-data"] if record.drawn else [])],
        "model-index": [{"name": name, "results": [result] if metrics else []}],
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def _comparisons(gate: GateRecord | None) -> list[tuple[str, Mapping[str, Any]]]:
    """The models that the gate compared with, as people call them, and the differences."""
    found = []
    for comparison in (gate.comparisons if gate else ()):
        opponents = {"baseline": "the colour baseline", "champion": f"champion {comparison['name']}"}
        if comparison["against"] in opponents:
            found.append((opponents[comparison["against"]], comparison["result"]["difference"]))
    return found


def _worst_first(slice_: Mapping[str, Any]) -> tuple[str, float]:
    """Slices of a kind by accuracy, those that have none last."""
    accuracy = slice_["metrics"].get("accuracy")
    return slice_["by"], 2.0 if accuracy is None else accuracy
