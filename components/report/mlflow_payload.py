"""What MLflow is told of a run: parameters, metrics per epoch, final metrics with intervals, tags. Pure functions."""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Iterator, Mapping
from typing import Any

from components.report.lineage import flatten
from components.report.page import reason, verdict
from components.training.run_types import RunRecord

LONGEST_PARAMETER, LONGEST_TAG = 6000, 5000
"""Characters that MLflow's servers take."""

RUN_TAG, UPDATED_TAG = "histoline.run_id", "histoline.updated"
"""By which a run is found again, and whether it has changed since it was sent."""


@dataclasses.dataclass(frozen=True)
class Value:
    """One value of a metric.

    Attributes:
        key: Its name.
        value: A finite number.
        step: Epoch, from 1; 0 for what is known once a run is over.
        timestamp: Milliseconds since 1970, UTC.
    """

    key: str
    value: float
    step: int
    timestamp: int


@dataclasses.dataclass(frozen=True)
class Payload:
    """Everything that is sent, apart from files.

    Attributes:
        experiment: Name of the experiment: one for each data set and task.
        name: RUN_ID.
        status: `FINISHED`, `FAILED` or `RUNNING`, as MLflow calls them.
        started: Milliseconds since 1970, UTC.
        ended: Likewise.
        parameters: Fields of the recipe, dotted, to their values as text.
        values: Of metrics, those of epochs first.
        tags: Name to text.
    """

    experiment: str
    name: str
    status: str
    started: int
    ended: int
    parameters: Mapping[str, str]
    values: tuple[Value, ...]
    tags: Mapping[str, str]


def payload(record: RunRecord, workspace: str) -> Payload:
    """What MLflow is told of a run.

    Args:
        record: run.json.
        workspace: Where the run lies.
    """
    started, ended = milliseconds(record.created), milliseconds(record.updated)
    status = {"done": "FINISHED", "failed": "FAILED"}.get(record.state, "RUNNING")
    return Payload(
        experiment=f"histoline {record.dataset} {record.task}",
        name=record.run_id,
        status=status,
        started=started,
        ended=ended,
        parameters={name: value[:LONGEST_PARAMETER] for name, value in flatten(record.config)},
        values=(*_epochs(record, started), *_final(record, ended)),
        tags={name: value[:LONGEST_TAG] for name, value in _tags(record, workspace).items() if value},
    )


def milliseconds(moment: str) -> int:
    """ISO 8601 as milliseconds since 1970."""
    return round(datetime.datetime.fromisoformat(moment).timestamp() * 1000)


def _epochs(record: RunRecord, started: int) -> Iterator[Value]:
    """The curves: Keras' names under `epoch/`, each at the moment at which its epoch had ended."""
    entry = record.stages.get("train")
    clock = milliseconds(entry.started) if entry else started
    seconds = record.history.get("seconds", [])
    ends = [clock + round(1000 * sum(seconds[: k + 1])) for k in range(len(seconds))]
    for name, values in record.history.items():
        for number, value in enumerate(values, 1):
            if _finite(value):
                moment = ends[number - 1] if number <= len(ends) else clock
                yield Value(f"epoch/{name}", float(value), number, moment)


def _final(record: RunRecord, ended: int) -> Iterator[Value]:
    """Figures of eval and test with their limits, what the gate compared, and what is inside the model."""
    found: dict[str, Any] = {}
    for split, measured in record.metrics.items():
        for name, interval in measured.get("values", {}).items():
            found |= _interval(f"{split}/{name}", interval)
        found[f"{split}/patches"], found[f"{split}/groups"] = measured.get("patches"), measured.get("groups")
    for comparison in record.gate.comparisons if record.gate else ():
        difference = (comparison.get("result") or {}).get("difference")
        if difference:
            found |= _interval(f"gate/against_{comparison['against']}", difference)
    found |= {"temperature": record.temperature, "threshold": record.threshold, "epochs_run": record.epochs_run}
    found |= {f"seconds/{name}": value for name, value in record.timings.items()}
    for name, value in found.items():
        if _finite(value):
            yield Value(name, float(value), 0, ended)


def _interval(name: str, interval: Mapping[str, Any]) -> dict[str, Any]:
    return {name: interval.get("estimate"), **{f"{name}/{end}": interval.get(end) for end in ("low", "high")}}


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _tags(record: RunRecord, workspace: str) -> dict[str, str]:
    return {
        RUN_TAG: record.run_id,
        UPDATED_TAG: record.updated,
        "histoline.version": record.histoline_version,
        "histoline.workspace": workspace,
        "dataset": record.dataset,
        "task": record.task,
        "plan_id": record.plan_id,
        "content_digest": record.content_digest,
        "manifest_digest": record.manifest_digest,
        "group_unit": record.group_unit,
        "outcome": verdict(record),
        "code": record.code,
        "model_version": "" if record.version is None else str(record.version),
        "looks": str(record.looks.count) if record.looks else "",
        "mlflow.note.content": reason(record),
        **{f"digest.{name}": value for name, value in record.digests.items()},
        **{f"version.{name}": value for name, value in record.versions.items()},
    }
