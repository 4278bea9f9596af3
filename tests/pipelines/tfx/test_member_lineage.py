"""The members of an ensemble in ML Metadata: what its Trainer read, once, also where the store has lost them."""

from __future__ import annotations

from typing import Any

from pipelines.tfx import lineage


def trained(store: Any, run_id: str, uri: str) -> int:
    """A Trainer that made a model, as TFX records it; number of the model."""
    from ml_metadata.proto import metadata_store_pb2 as proto

    mlmd: Any = proto
    model = store.put_artifact_type(mlmd.ArtifactType(name="Model"))
    kind = store.put_execution_type(mlmd.ExecutionType(name="tfx.components.trainer.component.Trainer"))
    contexts = []
    for type_name, name in (("pipeline", "idc-binary"), ("pipeline_run", run_id), ("node", "idc-binary.Trainer")):
        type_id = store.put_context_type(mlmd.ContextType(name=type_name))
        known = store.get_context_by_type_and_name(type_name, name)
        contexts.append(known or mlmd.Context(type_id=type_id, name=name))
    execution = mlmd.Execution(type_id=kind, last_known_state=mlmd.Execution.COMPLETE)
    artifact = mlmd.Artifact(type_id=model, uri=uri, state=mlmd.Artifact.LIVE)
    pairs = [(artifact, mlmd.Event(type=mlmd.Event.OUTPUT))]
    _, (number,), _ = store.put_execution(execution, pairs, contexts)
    return int(number)


def test_members_are_what_the_trainer_of_an_ensemble_read() -> None:
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2 as proto

    connection: Any = proto.ConnectionConfig()
    connection.fake_database.SetInParent()
    store = metadata_store.MetadataStore(connection)
    known = trained(store, "a", "/w/artifacts/a")
    trained(store, "both", "/w/artifacts/both")
    members = {"a": "/w/runs/a/model", "lost": "/w/runs/lost/model"}
    for _ in range(2):  # a stage that is repeated
        lineage.link_members(store, "idc-binary", "both", members)
    executions, artifacts = lineage.read(store, "idc-binary", "both")
    (trainer,) = executions
    places = {artifact.id: artifact.place for artifact in artifacts}
    assert [places[number] for number in trainer.inputs] == ["/w/artifacts/a", "/w/runs/lost/model"]
    assert known in trainer.inputs and len(trainer.outputs) == 1
    assert len(store.get_events_by_execution_ids([trainer.id])) == 3
    lineage.link_members(store, "idc-binary", "nobody", members)
    assert len(store.get_executions()) == 2
