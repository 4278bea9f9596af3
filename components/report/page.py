"""A run's report: one HTML file that holds everything it shows, opens from disk, and runs no script."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from components.core.text import number, spaced
from components.metrics import calibration, selective
from components.metrics import point as m
from components.promotion import gate_words
from components.promotion.champion import unproven_caveat
from components.promotion.model_card import RESEARCH_ONLY
from components.report import (
    dataset_card,
    explorer,
    figures,
    fold_section,
    gallery,
    lineage,
    measures,
    orientation,
    slides,
    tfx_section,
)
from components.report.evidence import Evidence, collect
from components.storage.base import Storage
from components.training import run_record
from components.training.run_types import RunRecord

HERE = Path(__file__).parent
FILE = "report/index.html"
"""Inside the run folder."""

CSP = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; form-action 'none'; base-uri 'none'"
"""A page loads nothing, whatever a hostile name managed to put into it."""

MAX_BYTES = 8_000_000
PANEL = 12
"""Patches of a gallery panel, at most."""

_SHARES = (1.0, 0.5, 0.25, 0.0)


def write(storage: Storage, folder: str) -> str:
    """Makes the report of a run and notes it in run.json.

    The caller holds the run's lock.

    Args:
        storage: The workspace.
        folder: Of the run, relative to it.

    Returns:
        The page, relative to the workspace.

    Raises:
        UsageError: There is no such run.
        DataError: run.json is damaged.
    """
    page = render(collect(storage, folder))
    path = f"{folder}/{FILE}"
    storage.write_atomic(path, page.encode("utf-8", "replace"), tmp_dir=f"{folder}/.tmp")
    run_record.update(storage, folder, report=path)
    return path


def render(evidence: Evidence, limit: int = MAX_BYTES) -> str:
    """The page, with fewer images where it would be too large.

    Args:
        evidence: Of the run.
        limit: Most bytes.
    """
    fixed = _context(evidence)
    text = ""
    for share in _SHARES:
        text = environment().get_template("report.html").render(**fixed, **_images(evidence, share))
        if len(text.encode("utf-8", "replace")) <= limit:
            break
    return text


@functools.cache
def environment() -> Any:
    """The templates, with everything escaped."""
    import jinja2

    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    made.filters |= {
        "num": number, "signed": functools.partial(number, sign=True), "nice": spaced, "percent": percent,
        "level": gate_words.percent,
    }  # fmt: skip
    made.globals |= {
        "csp": CSP,
        "research_only": RESEARCH_ONLY,
        "style": Markup((HERE / "templates" / "style.css").read_text(encoding="utf-8")),
        "metric_titles": measures.TITLES,
    }
    return made


def percent(value: Any) -> str:
    """A share as a percentage."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def _images(evidence: Evidence, share: float) -> dict[str, Any]:
    """What can be left out where the page would be too large."""
    per_panel = math.ceil(PANEL * share)
    panels = gallery.multiclass(evidence, math.ceil(per_panel / 3)) if evidence.multiclass else []
    return {
        "panels": panels or gallery.binary(evidence, per_panel),
        "maps": slides.slide_maps(evidence, math.ceil(slides.WORST * share), math.ceil(slides.BEST * share)),
        "card": dataset_card.card(evidence, math.ceil(dataset_card.PER_CODE * share)),
        "reduced": share < 1,
    }


def _context(evidence: Evidence) -> dict[str, Any]:
    record, test = evidence.record, evidence.test
    sources = [] if record.drawn else published(record.dataset, record.task)
    champion = evidence.champion.current if evidence.champion else None
    shift = record.drift or {}
    slices = measures.slice_tables(evidence)
    caveat = unproven_caveat(str((record.promotion or {}).get("unproven", "")))
    return {
        "run": record,
        "unit": evidence.unit,
        "classes": [spaced(name) for name in evidence.classes],
        "multiclass": evidence.multiclass,
        "primary": evidence.primary,
        "verdict": verdict(record),
        "why": reason(record),
        "is_champion": champion is not None and champion.version == record.version,
        "champion": champion,
        "notes": evidence.notes,
        "advice": orientation.advice(record, measures.worst_groups(slices, evidence.unit)),
        "ways": orientation.ways(record, champion, evidence.before),
        "test": test,
        "prevalence": _prevalence(evidence),
        "size": dataset_card.patch_size(evidence.manifest) if evidence.manifest else "unknown",
        "rows": (rows := measures.headline(evidence, sources)),
        "glossary": orientation.glossary(row.name for row in rows),
        "patient_rows": measures.patient_rows(evidence),
        "monitored": measures.monitored(evidence),
        "rivals": evidence.rivals,
        "sources": sources,
        "evaluation": record.code == "evaluation",
        "region": _region(evidence),
        "heat_control": evidence.error_maps.control if evidence.error_maps else None,
        "comparisons": record.gate.comparisons if record.gate else (),
        "checks": record.gate.checks if record.gate else (),
        "plots": _plots(evidence),
        "explorer": explorer.explorer(evidence, measures.bootstrap_plan(evidence)),
        "confusion": _confusion(evidence),
        "calibration_rows": _calibration_rows(record),
        "slices": slices,
        "drift": shift,
        "drift_rows": _drift_rows(shift),
        "config": list(lineage.flatten(record.config)),
        "options": list(lineage.flatten(record.options)) if record.options else [],
        "links": lineage.lineage(evidence),
        "warnings": [
            *record.metrics.get("test", {}).get("warnings", []), *(text for text in record.warnings if text != caveat)
        ],
        "caveat": caveat,
        "power": gate_words.power_line(dataclasses.asdict(record.gate) if record.gate else None),
        "decided_at": gate_words.percent(record.gate.confidence) if record.gate and record.gate.confidence else "95 %",
        "tfx": tfx_section.section(evidence),
        "folds": fold_section.section(evidence),
    }


def published(dataset: str, task: str) -> list[dict[str, Any]]:
    """Figures from the literature for a data set and task."""
    sources = json.loads((HERE / "published.json").read_text(encoding="utf-8"))
    return list(sources.get(dataset, {}).get(task, []))


def verdict(record: RunRecord) -> str:
    """One word on how a run stands: promoted, refused, unchanged, failed, running or evaluated."""
    if record.state == "failed":
        return "failed"
    return str(record.decision or ("evaluated" if record.metrics else record.state))


def reason(record: RunRecord) -> str:
    """Why, in a sentence."""
    error = record.error
    if record.state == "failed" and error:
        return f"Failed in {error.stage} (exit {error.exit_code}): {error.message}"
    return str(record.reason or f"The run is in stage {record.stage}; there is no decision yet.")


def _prevalence(evidence: Evidence) -> float | None:
    test = evidence.test
    return None if test is None or evidence.multiclass else float((test.labels == 1).mean())


def _region(evidence: Evidence) -> dict[str, float] | None:
    """What of a patch the label speaks of, in percent of its sides; None for all of it."""
    region = evidence.manifest.label_region if evidence.manifest else None
    if not region or evidence.manifest is None:
        return None
    width, height = evidence.manifest.source_size
    sides = {"left": (0, width), "top": (1, height), "width": (2, width), "height": (3, height)}
    return {side: round(100 * region[i] / length, 2) for side, (i, length) in sides.items()}


def _plots(evidence: Evidence) -> dict[str, Markup]:
    test, record = evidence.test, evidence.record
    plots: dict[str, Markup] = {}
    if record.history.get("loss"):
        metric, best = measures.monitored(evidence)
        plots["learning"] = figures.learning("loss", record.history, "loss", best, metric == "loss")
        metric = ("accuracy" if evidence.multiclass else "auc") if metric == "loss" else metric
        if record.history.get(f"val_{metric}"):
            watched = best is not None and measures.monitored(evidence)[0] == metric
            plots["learning_metric"] = figures.learning("learning", record.history, metric, best, watched)
    if test is None:
        return plots
    certain = selective.certainty(test.probability, evidence.cuts)
    curve = selective.risk_coverage(test.labels != test.predicted(evidence.cuts), certain)
    aurc = record.selective.get("test", {}).get("aurc", {}).get("estimate")
    if aurc is not None:
        plots["risk_coverage"] = figures.risk_coverage("risk", *curve, aurc)
    # The served probability with temperature and bias undone is the one before them; out of fold there is no one bias.
    bias = 0.0 if record.bias is None else record.bias
    before = calibration.undo_calibration(test.probability, record.temperature or 1.0, bias)
    if evidence.record.decision_by == "folds":
        before = test.probability
    raw, served = (calibration.reliability_bins(test.labels, p) for p in (before, test.probability))
    if evidence.multiclass:
        for kind in ("roc", "pr"):
            plots[kind] = figures.one_vs_rest(kind, test.labels, test.probability, evidence.classes, kind)
        plots["calibration"] = figures.calibration("cal", raw, served, "probability of the predicted class")
        return plots
    cut = evidence.threshold
    curves = [("this run", test.probability, np.ones(len(test), bool))]
    rivals = [rival for rival in evidence.rivals.values() if rival.usable.any()]
    curves += [(rival.name, rival.probability, rival.usable) for rival in rivals]
    plots["roc"] = figures.roc("roc", test.labels, curves, cut)
    plots["pr"] = figures.precision_recall("pr", test.labels, curves, cut)
    plots["calibration"] = figures.calibration("cal", raw, served, f"predicted P({evidence.classes[1]})")
    plots["histogram"] = figures.histogram("hist", test.labels, test.probability, evidence.classes, cut)
    return plots


def _confusion(evidence: Evidence) -> list[list[tuple[int, float]]] | None:
    """Counts, and each one's share of its row; rows are labels."""
    test = evidence.test
    if test is None or (evidence.threshold is None and not evidence.multiclass):
        return None
    counts = m.confusion_matrix(test.labels, test.predicted(evidence.cuts), len(evidence.classes))
    shares = m.ratio(counts, counts.sum(axis=1, keepdims=True))
    return [[(int(n), float(np.nan_to_num(s))) for n, s in zip(*row)] for row in zip(counts, shares)]


def _calibration_rows(record: RunRecord) -> list[tuple[str, Mapping[str, Any]]]:
    """What is told of probabilities before and after calibration: ECE, log loss, Brier score."""
    calibrated = record.calibration or {}
    rows = [("eval, before", calibrated.get("before")), ("eval, after", calibrated.get("after"))]
    rows.append(("test, before", calibrated.get("uncalibrated", {}).get("test")))
    served = calibrated.get("served", {}).get("test")
    if served is not None:  # runs of before had the ECE alone there
        figures = record.figures()
        served = {**{name: figures.get(name, {}).get("estimate") for name in ("log_loss", "brier")}, **served}
    rows.append(("test, as served", served))
    return [(title, row) for title, row in rows if row is not None]


def _drift_rows(drift: Mapping[str, Any]) -> list[tuple[str, dict[str, Mapping[str, Any]]]]:
    """Feature to its shift in each comparison."""
    rows: dict[str, dict[str, Mapping[str, Any]]] = {}
    for shift in drift.get("shifts", []):
        rows.setdefault(shift["feature"], {})[shift["comparison"]] = shift
    return list(rows.items())
