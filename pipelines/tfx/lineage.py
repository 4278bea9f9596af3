"""What ML Metadata knows of a run: its executions, their artifacts, and the ingest that its data came from."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from components.report.tfx_document import Artifact, Execution

INGEST_TYPE, DATASET_TYPE = "histoline.Ingest", "histoline.DataSet"

HIDDEN = frozenset({"tfx_version", "name", "state", "is_external", "payload_format", "producer_component"})
"""Properties that tell nothing that type, place and state do not."""

LONGEST = 200
"""Characters of a property."""


def read(store: Any, pipeline: str, run_id: str) -> tuple[tuple[Execution, ...], tuple[Artifact, ...]]:
    """Executions of a run, with the ingest of its data first, and the artifacts that they read and made.

    Args:
        store: A `ml_metadata.MetadataStore`.
        pipeline: TFX's name of the pipeline.
        run_id: RUN_ID.

    Returns:
        (executions, artifacts), oldest first; both empty where the store does not know the run.
    """
    from ml_metadata.proto import metadata_store_pb2 as proto

    mlmd: Any = proto
    wanted = (("pipeline", pipeline), ("pipeline_run", run_id))
    contexts = [store.get_context_by_type_and_name(kind, name) for kind, name in wanted]
    if None in contexts:
        return (), ()
    of_pipeline, of_run = ({e.id: e for e in store.get_executions_by_context(c.id)} for c in contexts)
    found = [execution for number, execution in sorted(of_run.items()) if number in of_pipeline]
    made = (mlmd.Event.OUTPUT, mlmd.Event.DECLARED_OUTPUT)
    events = store.get_events_by_execution_ids([e.id for e in found]) if found else []
    ingests = _ingests(store, {event.artifact_id for event in events}, made)
    if ingests:
        events = [*events, *store.get_events_by_execution_ids([e.id for e in ingests])]
    kinds = {kind.id: kind.name for kind in store.get_execution_types()}
    contexts_of = {kind.id: kind.name for kind in store.get_context_types()}
    executions = []
    for execution in [*ingests, *found]:
        of_this = [event for event in events if event.execution_id == execution.id]
        started = datetime.datetime.fromtimestamp(execution.create_time_since_epoch / 1000, datetime.timezone.utc)
        executions.append(
            Execution(
                id=execution.id,
                node=_node(store, execution, contexts_of, pipeline) or kinds[execution.type_id].rpartition(".")[2],
                type=kinds[execution.type_id],
                state=mlmd.Execution.State.Name(execution.last_known_state),
                started=started.isoformat(timespec="seconds"),
                inputs=_numbers(e.artifact_id for e in of_this if e.type not in made),
                outputs=_numbers(e.artifact_id for e in of_this if e.type in made),
            )
        )
    return tuple(executions), _artifacts(store, _numbers(event.artifact_id for event in events))


def link_members(store: Any, pipeline: str, run_id: str, members: Mapping[str, str]) -> None:
    """Makes the models of an ensemble inputs of its Trainer; TFX itself gives a Trainer none of them.

    Args:
        store: A `ml_metadata.MetadataStore`.
        pipeline: TFX's name of the pipeline.
        run_id: RUN_ID of the ensemble.
        members: RUN_ID of each member to the place of its model, for one that the store does not know.
    """
    from ml_metadata.proto import metadata_store_pb2 as proto

    mlmd: Any = proto
    trainer = _trainer(store, pipeline, run_id)
    if trainer is None:
        return
    read_already = {e.artifact_id for e in store.get_events_by_execution_ids([trainer]) if e.type == mlmd.Event.INPUT}
    events = []
    for number, (member, place) in enumerate(members.items()):
        execution = _trainer(store, pipeline, member)
        made = store.get_events_by_execution_ids([execution]) if execution is not None else []
        found = store.get_artifacts_by_id([e.artifact_id for e in made if e.type == mlmd.Event.OUTPUT]) if made else []
        kind = store.get_artifact_type("Model").id
        models = [artifact.id for artifact in found if artifact.type_id == kind]
        if not models:
            known = [artifact.id for artifact in store.get_artifacts_by_uri(place)]
            model = mlmd.Artifact(type_id=kind, uri=place, state=mlmd.Artifact.LIVE)
            models = known or store.put_artifacts([model])
        if max(models) not in read_already:
            steps = [mlmd.Event.Path.Step(key="members"), mlmd.Event.Path.Step(index=number)]
            path = mlmd.Event.Path(steps=steps)
            events.append(
                mlmd.Event(artifact_id=max(models), execution_id=trainer, type=mlmd.Event.INPUT, path=path)
            )
    if events:
        store.put_events(events)


def _trainer(store: Any, pipeline: str, run_id: str) -> int | None:
    """The newest execution of a run's Trainer; None where the store knows none."""
    found = []
    for kind, name in (("pipeline_run", run_id), ("node", f"{pipeline}.Trainer")):
        context = store.get_context_by_type_and_name(kind, name)
        found.append({e.id for e in store.get_executions_by_context(context.id)} if context else set())
    return max(found[0] & found[1], default=None)


def _numbers(values: Any) -> tuple[int, ...]:
    return tuple(sorted(set(values)))


def _ingests(store: Any, artifacts: set[int], made: Sequence[int]) -> list[Any]:
    """The ingests that any of these artifacts came from."""
    known = {e.id: e for e in store.get_executions_by_type(INGEST_TYPE)}
    if not known or not artifacts:
        return []
    events = store.get_events_by_artifact_ids(sorted(artifacts))
    return [known[n] for n in _numbers(e.execution_id for e in events if e.type in made) if n in known]


def _node(store: Any, execution: Any, names: Mapping[int, str], pipeline: str) -> str:
    for context in store.get_contexts_by_execution(execution.id):
        if names[context.type_id] == "node":
            return str(context.name).removeprefix(f"{pipeline}.")
    return ""


def _artifacts(store: Any, numbers: Sequence[int]) -> tuple[Artifact, ...]:
    from ml_metadata.proto import metadata_store_pb2 as proto

    mlmd: Any = proto
    kinds = {kind.id: kind.name for kind in store.get_artifact_types()}
    return tuple(
        Artifact(
            id=artifact.id,
            type=kinds[artifact.type_id],
            place=artifact.uri,
            state=mlmd.Artifact.State.Name(artifact.state),
            properties=_properties(artifact),
        )
        for artifact in sorted(store.get_artifacts_by_id(list(numbers)) if numbers else [], key=lambda a: a.id)
    )


def _properties(artifact: Any) -> dict[str, str]:
    found = {}
    for name, value in sorted([*artifact.properties.items(), *artifact.custom_properties.items()]):
        if name in HIDDEN or name.startswith("current_model"):
            continue
        kind = value.WhichOneof("value")
        if kind == "struct_value":
            continue
        text = str(getattr(value, kind)) if kind else ""
        if text.startswith("["):
            try:
                text = ", ".join(map(str, json.loads(text)))
            except ValueError:
                pass
        if text:
            found[name] = text[:LONGEST]
    return found
