"""The plain pages, as text: all that is shown passes through `Markup.format`, which escapes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from histoline_pages.facts import DagRunFacts

STYLE = Markup("""
:root { color-scheme: light dark; --line: #d5d9de; --soft: #5b6570; --good: #1a7f4b; --bad: #b3261e; --wait: #8a5a00 }
@media (prefers-color-scheme: dark) {
  :root { --line: #3c434b; --soft: #a5afb9; --good: #5fd39a; --bad: #ff8f87; --wait: #f0c060 } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 1.5rem auto; max-width: 62rem; padding: 0 1rem }
h1 { font-size: 1.35rem; margin: 0 0 .25rem; overflow-wrap: anywhere } h2 { font-size: 1.05rem; margin: 1.6rem 0 .4rem }
p { margin: .4rem 0; overflow-wrap: anywhere } .soft { color: var(--soft) }
.said { border-left: 4px solid var(--soft); padding: .3rem .8rem; margin: 1rem 0; font-size: 1.05rem }
.good { border-color: var(--good) } .bad { border-color: var(--bad) } .wait { border-color: var(--wait) }
table { border-collapse: collapse; margin: .4rem 0; display: block; overflow-x: auto }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums }
""")

PAGE = Markup("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head>
<body><main><h1>{title}</h1>{body}<p class="soft">Research use only, not a medical device.</p></main></body></html>
""")

Cell = object
Row = Sequence[Cell]


def page(title: str, *parts: str) -> str:
    """A whole page."""
    return str(PAGE.format(title=title, style=STYLE, body=Markup("").join(parts)))


def said(text: object, tone: str = "") -> Markup:
    """The sentence that matters; `tone` is good, bad, wait or empty."""
    return Markup('<p class="said {}">{}</p>').format(tone, text)


def table(heads: Sequence[str], rows: Iterable[Row], numbers: Sequence[int] = ()) -> Markup:
    """A table; `numbers` are the columns to align right."""

    def line(tag: str, cells: Row) -> Markup:
        return Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup("<{0}{1}>{2}</{0}>").format(
                    Markup(tag), Markup(' class="number"') if n in numbers else "", "" if c is None else c
                )
                for n, c in enumerate(cells)
            )
        )

    head = line("th", heads)
    body = Markup("").join(line("td", row) for row in rows)
    return Markup("<table><thead>{}</thead><tbody>{}</tbody></table>").format(head, body)


def link(base: str, dataset: str, task: str, run_id: str) -> Markup:
    """A link to a run's own page."""
    address = f"{base}/runs/{quote(dataset, safe='')}/{quote(task, safe='')}/{quote(run_id, safe='')}"
    return Markup('<a href="{}">{}</a>').format(address, run_id)


def foreign() -> str:
    """The tab of a DAG that is not ours."""
    return page("No report", said("This DAG is not one of histoline's; it has no report."))


def nothing_yet(facts: DagRunFacts, name: str) -> str:
    """The tab of a run of which only Airflow knows something: queued, running, skipped or failed at its start."""
    task, state = facts.first_bad()
    reason = _text(facts.last_result().get("reason"))
    if state == "failed":
        body = said(f"Failed in {task}: {reason or 'see the log of this task.'}", "bad")
    elif state == "up_for_retry":
        body = said(f"{task} is tried again soon: {reason or 'see the log of this task.'}", "wait")
    elif state == "skipped":
        body = said(f"Skipped: {reason or 'see the log of this task.'}")
    elif facts.state in ("queued", "running"):
        body = said("Waiting for its first task." if facts.state == "queued" else "Running: no result yet.", "wait")
    elif facts.state == "failed":
        body = said("Failed: see the log of the task that failed.", "bad")
    else:
        body = said("It left no result.")
    return page(name, body, tasks_table(facts))


def tasks_table(facts: DagRunFacts | None) -> Markup:
    """State of each task, as far as Airflow is known to this page."""
    if facts is None or not facts.tasks:
        return Markup("")
    return Markup("<h2>Tasks</h2>") + table(("task", "state"), sorted(facts.tasks.items()))


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


def training(record: Mapping[str, Any], facts: DagRunFacts | None, base: str) -> str:
    """A training run from its run.json, where there is no report: running, failed, unchanged, or not yet reported.

    Args:
        record: The run.json.
        facts: What Airflow knows; None for a run from the command line.
        base: Address of the pages.
    """
    decision, reason, state = (_text(record.get(key)) for key in ("decision", "reason", "state"))
    error = _dict(record.get("error"))
    task, of_airflow = facts.first_bad() if facts else ("", "")
    parts: list[str] = [Markup('<p class="soft">{} · {}</p>').format(record.get("dataset"), record.get("task"))]
    if state == "failed":
        parts.append(said(f"Failed in {error.get('stage', 'a stage')}: {error.get('message', '')}", "bad"))
    elif of_airflow == "failed":
        told = _text((facts.results.get(task) or {}).get("reason")) if facts else ""
        parts.append(said(f"Failed in {task}: {told or reason or 'see the log of this task.'}", "bad"))
    elif decision == "promoted":
        parts.append(said(reason or "Promoted.", "good"))
    elif decision:
        parts.append(said(reason or decision, "bad" if decision == "refused" else ""))
    else:
        parts.append(said(f"Running: {record.get('stage', '')}. Load this page again to see more.", "wait"))
    if same := _text(_dict(record.get("paths")).get("same_as")):
        names = same.split("/")
        if len(names) == 4:
            parts.append(Markup("<p>The run with the same data, code and configuration: {}</p>").format(
                link(base, *names[1:])
            ))  # fmt: skip
    parts += [_stages(record), _metrics(record), _gate(record), tasks_table(facts), _facts(record)]
    return page(_text(record.get("run_id")) or "Run", *parts)


def _stages(record: Mapping[str, Any]) -> Markup:
    rows = [
        (name, _dict(one).get("state"), _number(_dict(one).get("seconds"), 1))
        for name, one in _dict(record.get("stages")).items()
    ]
    return Markup("<h2>Stages</h2>") + table(("stage", "state", "seconds"), rows, numbers=(2,)) if rows else Markup("")


def _interval(value: object) -> str:
    one = _dict(value)
    low, high = _number(one.get("low")), _number(one.get("high"))
    return f"{_number(one.get('estimate'))} ({low} to {high})" if low and high else _number(one.get("estimate"))


def _metrics(record: Mapping[str, Any]) -> Markup:
    parts = [Markup("")]
    for split in ("test", "eval"):
        one = _dict(_dict(record.get("metrics")).get(split))
        if not one:
            continue
        rows = [(name, _interval(value)) for name, value in _dict(one.get("values")).items()]
        unit = _text(record.get("group_unit")) or "group"
        heading = f"{split}: {_number(one.get('patches'))} patches of {_number(one.get('groups'))} {unit}s"
        parts.append(Markup("<h2>{}</h2>").format(heading) + table(("metric", "value (95 % interval)"), rows, (1,)))
    return Markup("").join(parts)


def _gate(record: Mapping[str, Any]) -> Markup:
    gate = _dict(record.get("gate"))
    rows = [
        (_dict(c).get("name"), _interval(_dict(_dict(c).get("result")).get("difference")), _dict(c).get("groups"))
        for c in _list(gate.get("comparisons"))
    ]
    if not rows:
        return Markup("")
    heading = Markup("<h2>Compared on the same test patches ({})</h2>").format(gate.get("metric", ""))
    return heading + table(("against", "difference (95 % interval)", "groups"), rows, numbers=(1, 2))


def _facts(record: Mapping[str, Any]) -> Markup:
    wanted = ("version", "threshold", "temperature", "smallest_detectable", "plan_id", "content_digest", "created")
    rows = [
        (name, _number(v) if isinstance(v := record.get(name), float) else v) for name in wanted if record.get(name)
    ]
    return Markup("<h2>Facts</h2>") + table(("", ""), rows) if rows else Markup("")


def ingest(manifest: Mapping[str, Any], facts: DagRunFacts, name: str) -> str:
    """An ingest run from the manifest that it committed, or found unchanged."""
    result = facts.last_result()
    same = result.get("state") in ("unchanged", "skipped") or facts.tasks.get("ingest") == "skipped"
    tone = "" if same else "good"
    default = "Unchanged: the data set stood already." if same else "Committed."
    parts: list[str] = [
        said(_text(result.get("reason")) or default, tone),
        Markup('<p class="soft">{} · {} · data set {}</p>').format(
            manifest.get("dataset"), manifest.get("task"), manifest.get("plan_id")
        ),
        table(
            ("found", "written", "rejected"),
            [
                tuple(
                    _number(n)
                    for n in (manifest.get("found"), manifest.get("written"), _rejected(manifest))
                )
            ],
            numbers=(0, 1, 2),
        ),
    ]  # fmt: skip
    classes = [str(c) for c in _list(manifest.get("classes"))]
    unit = _text(manifest.get("group_unit")) or "group"
    rows = [
        (split, _number(one.get("patches")), _number(one.get("groups")))
        + tuple(_number(_dict(one.get("by_class")).get(c)) for c in classes)
        for split, one in ((split, _dict(value)) for split, value in _dict(manifest.get("splits")).items())
    ]
    heads = ("split", "patches", f"{unit}s", *classes)
    parts.append(Markup("<h2>Splits</h2>") + table(heads, rows, numbers=range(1, len(heads))))
    rejects = [(code, _dict(one).get("kind"), _number(_dict(one).get("count")))
               for code, one in _dict(manifest.get("rejects")).items()]  # fmt: skip
    parts.append(Markup("<h2>Rejected</h2>"))
    parts.append(table(("code", "kind", "images"), rejects, (2,)) if rejects else Markup("<p>None.</p>"))
    warnings = [Markup("<p>{}</p>").format(text) for text in _list(manifest.get("warnings"))]
    return page(name, *parts, *([Markup("<h2>Warnings</h2>"), *warnings] if warnings else []))


def _rejected(manifest: Mapping[str, Any]) -> int | None:
    found, written = manifest.get("found"), manifest.get("written")
    return found - written if isinstance(found, int) and isinstance(written, int) else None


def index(runs: Sequence[Mapping[str, Any]], total: int, base: str, has_overview: bool) -> str:
    """All runs of the workspace, newest first."""
    rows = [
        (
            _text(run.get("created"))[:16].replace("T", " "),
            f"{run.get('dataset')} {run.get('task')}",
            link(base, str(run.get("dataset")), str(run.get("task")), str(run.get("run_id"))),
            _text(run.get("decision")) or _text(run.get("state")),
            _text(_dict(run.get("error")).get("message")) or _text(run.get("reason")),
        )
        for run in runs
    ]
    parts: list[str] = []
    if has_overview:
        parts.append(Markup('<p><a href="{}/runs/index.html">All runs, with the primary metric over time</a></p>')
                     .format(base))  # fmt: skip
    if total > len(rows):
        parts.append(Markup("<p>The newest {} of {} runs.</p>").format(len(rows), total))
    parts.append(table(("started (UTC)", "data", "run", "decision", "reason"), rows) if rows else said("No run yet."))
    return page("Model reports", *parts)
