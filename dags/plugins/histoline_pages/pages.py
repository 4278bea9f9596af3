"""The plain pages: what the templates show, taken from documents that anybody may have written.

The templates escape all that they show (autoescape). What has not the type that it should have is left empty here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from histoline_dags.stages import IN_ORDER
from histoline_pages.facts import DagRunFacts

TEMPLATES = Path(__file__).with_name("templates")
FACTS = ("version", "threshold", "temperature", "smallest_detectable", "plan_id", "content_digest", "created")
SEE_LOG = "see the log of this task."

Row = tuple[object, ...]


@cache
def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: "" if value is None else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _render(template: str, **values: object) -> str:
    return _environment().get_template(template).render(values)


def message(title: str, text: str, tone: str = "", facts: DagRunFacts | None = None, extra: str = "") -> str:
    """A page of one sentence.

    Args:
        title: Of the page.
        text: The sentence.
        tone: good, bad, wait or empty.
        facts: A DAG run whose tasks are shown below it.
        extra: HTML of ours to follow.
    """
    return _render("page.html", title=title, text=text, tone=tone, tasks=_task_rows(facts), extra=Markup(extra))


def foreign() -> str:
    """The tab of a DAG that is not ours."""
    return message("No report", "This DAG is not one of histoline's; it has no report.")


def nothing_yet(facts: DagRunFacts, name: str) -> str:
    """The tab of a run of which only Airflow knows something: queued, running, skipped, failed at its start, pruned."""
    task, state = facts.first_bad()
    reason = _text(facts.last_result().get("reason"))
    text, tone = "It left no result.", ""
    if state == "failed":
        text, tone = f"Failed in {task}: {reason or SEE_LOG}", "bad"
    elif state == "up_for_retry":
        text, tone = f"{task} is tried again soon: {reason or SEE_LOG}", "wait"
    elif facts.state == "success" and facts.results and (state != "skipped" or facts.tasks.get("report") == "success"):
        text = f"{reason} What it left is gone by now: pruned, or deleted."
    elif state == "skipped":
        text = f"Skipped: {reason or SEE_LOG}"
    elif facts.state in ("queued", "running"):
        text, tone = "Waiting for its first task." if facts.state == "queued" else "Running: no result yet.", "wait"
    elif facts.state == "failed":
        text, tone = "Failed: see the log of the task that failed.", "bad"
    return message(name, text, tone, facts)


def training(record: Mapping[str, Any], facts: DagRunFacts | None, base: str) -> str:
    """A training run from its run.json, where there is no report: running, failed, unchanged, or not yet reported.

    Args:
        record: The run.json.
        facts: What Airflow knows; None for a run from the command line.
        base: Address of the pages.
    """
    text, tone = _training_verdict(record, facts)
    same_as = _text(_dict(record.get("paths")).get("same_as")).split("/")
    gate = _dict(record.get("gate"))
    return _render(
        "training.html",
        title=_text(record.get("run_id")) or "Run",
        dataset=record.get("dataset"),
        task=record.get("task"),
        text=text,
        tone=tone,
        same_as={"address": _address(base, *same_as[1:]), "run_id": same_as[3]} if len(same_as) == 4 else None,
        stages=_stage_rows(record),
        metrics=_metric_tables(record),
        gate_metric=gate.get("metric", ""),
        comparisons=_comparison_rows(gate),
        tasks=_task_rows(facts),
        facts=_fact_rows(record),
    )


def _training_verdict(record: Mapping[str, Any], facts: DagRunFacts | None) -> tuple[str, str]:
    """The sentence that matters of a training run, and its tone."""
    decision, reason, state = (_text(record.get(key)) for key in ("decision", "reason", "state"))
    error = _dict(record.get("error"))
    task, of_airflow = facts.first_bad() if facts else ("", "")
    if state == "failed":
        return f"Failed in {error.get('stage', 'a stage')}: {error.get('message', '')}", "bad"
    if facts and of_airflow == "failed":
        task_reason = _text((facts.results.get(task) or {}).get("reason"))
        return f"Failed in {task}: {task_reason or SEE_LOG}", "bad"
    if state == "abandoned":
        return reason, "bad"
    if decision == "promoted":
        return reason or "Promoted.", "good"
    if decision:
        return reason or decision, "bad" if decision == "refused" else ""
    return f"Running: {record.get('stage', '')}. Load this page again to see more.", "wait"


def abandoned(record: Mapping[str, Any]) -> str:
    """What is said of a run whose process is gone without a word, killed or with its machine."""
    stage, since = _text(record.get("stage")) or "a stage", _text(record.get("updated"))[:16].replace("T", " ")
    gone = f"Abandoned in {stage}: nobody has worked on it since {since} UTC."
    return f"{gone} The same command goes on where it stopped."


def _address(base: str, dataset: str, task: str, run_id: str) -> str:
    """Address of a run's own page."""
    return "/".join([base, "runs", *(quote(part, safe="") for part in (dataset, task, run_id))])


def _task_rows(facts: DagRunFacts | None) -> list[Row]:
    """State of each task, as far as Airflow is known to this page."""
    places = {task: place for place, task in enumerate(IN_ORDER)}
    rows: list[Row] = list(facts.tasks.items()) if facts else []
    return sorted(rows, key=lambda row: places.get(str(row[0]), len(places)))


def _stage_rows(record: Mapping[str, Any]) -> list[Row]:
    stages = ((name, _dict(stage)) for name, stage in _dict(record.get("stages")).items())
    return [(name, stage.get("state"), _number(stage.get("seconds"), 1)) for name, stage in stages]


def _metric_tables(record: Mapping[str, Any]) -> list[tuple[str, list[Row]]]:
    """Heading and rows for each split that has metrics."""
    tables: list[tuple[str, list[Row]]] = []
    unit = _text(record.get("group_unit")) or "group"
    for split in ("test", "eval"):
        metrics = _dict(_dict(record.get("metrics")).get(split))
        if metrics:
            heading = f"{split}: {_number(metrics.get('patches'))} patches of {_number(metrics.get('groups'))} {unit}s"
            tables.append((heading, [(name, _interval(v)) for name, v in _dict(metrics.get("values")).items()]))
    return tables


def _comparison_rows(gate: Mapping[str, Any]) -> list[Row]:
    comparisons = [_dict(comparison) for comparison in _list(gate.get("comparisons"))]
    return [(c.get("name"), _interval(_dict(c.get("result")).get("difference")), c.get("groups")) for c in comparisons]


def _fact_rows(record: Mapping[str, Any]) -> list[Row]:
    values = ((name, record[name]) for name in FACTS if record.get(name))
    return [(name, _number(value) if isinstance(value, float) else value) for name, value in values]


def ingest(manifest: Mapping[str, Any], facts: DagRunFacts, name: str) -> str:
    """An ingest run from the manifest that it committed, or found unchanged."""
    result = facts.last_result()
    same = result.get("state") in ("unchanged", "skipped") or facts.tasks.get("ingest") == "skipped"
    found, written = manifest.get("found"), manifest.get("written")
    rejected = found - written if isinstance(found, int) and isinstance(written, int) else None
    classes = [str(label) for label in _list(manifest.get("classes"))]
    splits = ((split, _dict(counts)) for split, counts in _dict(manifest.get("splits")).items())
    rejects = ((code.replace("_", " "), _dict(counts)) for code, counts in _dict(manifest.get("rejects")).items())
    return _render(
        "ingest.html",
        title=name,
        text=_text(result.get("reason")) or ("Unchanged: the data set stood already." if same else "Committed."),
        tone="" if same else "good",
        dataset=manifest.get("dataset"),
        task=manifest.get("task"),
        plan_id=manifest.get("plan_id"),
        counts=[_number(count) for count in (found, written, rejected)],
        split_heads=("split", "patches", f"{_text(manifest.get('group_unit')) or 'group'}s", *classes),
        splits=[
            (split, _number(counts.get("patches")), _number(counts.get("groups")))
            + tuple(_number(_dict(counts.get("by_class")).get(label)) for label in classes)
            for split, counts in splits
        ],
        rejects=[(code, counts.get("kind"), _number(counts.get("count"))) for code, counts in rejects],
        warnings=_list(manifest.get("warnings")),
    )


def pruning(facts: DagRunFacts, name: str) -> str:
    """A pruning that has ended: what went, what stayed because of whom, what was left for the next time."""
    result = facts.last_result()
    done = result.get("decision") == "pruned"
    names = ("removed_by_reason", "removed", "kept_by_reason", "skipped")
    removed, places, kept, skipped = ([_dict(one) for one in _list(result.get(name))] for name in names)
    return _render(
        "pruning.html",
        title=name,
        text=_text(result.get("reason")) or "It left no result.",
        tone="good" if done else "",
        done=done,
        removed=[_reason_row(one) for one in removed],
        places=[(one.get("path"), _megabytes(one)) for one in places],
        kept=[_reason_row(one) for one in kept],
        skipped=[(one.get("path"), one.get("why")) for one in skipped],
    )


def _reason_row(one: Mapping[str, Any]) -> Row:
    return one.get("kind"), _number(one.get("count")), _megabytes(one), one.get("why")


def _megabytes(one: Mapping[str, Any]) -> str:
    size = one.get("bytes")
    return f"{size / 1e6:,.1f}" if isinstance(size, int) else ""


def live(runs: Sequence[Mapping[str, Any]], base: str) -> str:
    """Runs that are not over, as a part of a page: running, or abandoned.

    Args:
        runs: Their run.json.
        base: Address of the pages.
    """
    rows = [
        {
            "started": _text(run.get("created"))[:16].replace("T", " "),
            "data": f"{run.get('dataset')} {run.get('task')}",
            "address": _address(base, str(run.get("dataset")), str(run.get("task")), str(run.get("run_id"))),
            "run_id": str(run.get("run_id")),
            "text": _training_verdict(run, None)[0],
        }
        for run in runs
    ]
    return _render("live.html", runs=rows) if rows else ""


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dict(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _list(value: object) -> Sequence[Any]:
    return value if isinstance(value, list) else ()


def _number(value: object, digits: int = 3) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}f}"


def _interval(value: object) -> str:
    """An estimate with its interval, where it has one."""
    interval = _dict(value)
    estimate, low, high = (_number(interval.get(key)) for key in ("estimate", "low", "high"))
    return f"{estimate} ({low} to {high})" if low and high else estimate
