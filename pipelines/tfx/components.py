"""The pipeline's own TFX components: the gates, and a Pusher that publishes what the gate promoted.

Loaded only inside a TFX process. Each executor is a thin shell around a function of `components/` that knows no TFX.
"""

# No `from __future__ import annotations`: TFX reads these annotations as objects.
import json
import os
from pathlib import Path
from typing import Any

from tfx import types
from tfx.components.pusher import executor as pusher_executor
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import standard_artifacts
from tfx.types.artifact import Artifact
from tfx.types.artifact_utils import get_single_instance


class RawPatches(Artifact):
    """The folder or bucket prefix that a data set was ingested from."""

    TYPE_NAME = "RawPatches"


class GateReport(Artifact):
    """What a gate before training found: report.json."""

    TYPE_NAME = "GateReport"


def _report(artifact: Any, document: Any) -> None:
    os.makedirs(artifact.uri, exist_ok=True)
    Path(artifact.uri, "report.json").write_text(
        json.dumps(document, indent=1, allow_nan=False), encoding="utf-8"
    )


@component
def IntactGate(  # components are named like classes
    examples: InputArtifact[standard_artifacts.Examples],
    workspace: Parameter[str],
    dataset_dir: Parameter[str],
    report: OutputArtifact[GateReport],
) -> None:
    """Fails unless every file of the data set is what was committed; see `components.promotion.data_gates`."""
    from components.datasets import manifest as manifests
    from components.promotion.data_gates import check_intact
    from components.storage.open import open_storage

    storage = open_storage(workspace)
    result = check_intact(storage, dataset_dir, manifests.load(storage, dataset_dir))
    _report(report, {"files": result.files, "bytes": result.bytes})


@component
def AnomalyGate(
    anomalies: InputArtifact[standard_artifacts.ExampleAnomalies],
    intact: InputArtifact[GateReport],
    workspace: Parameter[str],
    run_folder: Parameter[str],
    report: OutputArtifact[GateReport],
) -> None:
    """Fails on schema anomalies and on colour drift; see `components.promotion.data_gates`."""
    from components.promotion.data_gates import check_anomalies, drift_gate
    from components.storage.open import open_storage

    check_anomalies(Path(anomalies.uri))
    _report(report, drift_gate(open_storage(workspace), run_folder))


@component
def PromotionGate(
    model: InputArtifact[standard_artifacts.Model],
    examples: InputArtifact[standard_artifacts.Examples],
    workspace: Parameter[str],
    run_folder: Parameter[str],
    blessing: OutputArtifact[standard_artifacts.ModelBlessing],
    evaluation: InputArtifact[standard_artifacts.ModelEvaluation] = None,
    floors: InputArtifact[standard_artifacts.ModelBlessing] = None,
) -> None:
    """Predicts in a fresh process and lets the gate decide; its blessing is what the Pusher obeys.

    Without an evaluation by TFMA the floors are the gate's own figures alone.
    """
    from components.promotion.evaluation import evaluate
    from components.storage.open import open_storage
    from components.training import run_record
    from pipelines.tfx.evaluator import read_evaluation

    storage = open_storage(workspace)
    record = run_record.read(storage, run_folder)
    report: dict[str, Any] = {"blessed": True, "reason": ""}
    if evaluation is not None:
        report = read_evaluation(Path(evaluation.uri), record.task, record.config["floors"])
    decision = evaluate(storage, run_folder, report["blessed"], report).decision
    promoted = decision == "promoted"
    os.makedirs(blessing.uri, exist_ok=True)
    Path(blessing.uri, "BLESSED" if promoted else "NOT_BLESSED").touch()
    blessing.set_int_custom_property("blessed", int(promoted))
    blessing.set_string_custom_property("decision", str(decision))


class GatedPusher(pusher_executor.Executor):
    """Publishes the run's exported model as the next version, where the gate promoted it."""

    def Do(  # TFX's name
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """See the Pusher's own executor; `custom_config` names workspace and run."""
        from components.promotion.publish import push
        from components.storage.open import open_storage
        from pipelines.tfx.baseline import place

        pushed = get_single_instance(output_dict["pushed_model"])
        if not self.CheckBlessing(input_dict):
            self._MarkNotPushed(pushed)
            return
        config = json.loads(exec_properties["custom_config"])
        storage = open_storage(config["workspace"])
        version = push(storage, config["run_folder"])
        if version is None:
            self._MarkNotPushed(pushed)
            return
        _, dataset, task, _ = config["run_folder"].split("/")
        home = f"models/{dataset}/{task}/{version}"
        served = storage.uri(home)
        # Where TFX's own components (BulkInferrer, InfraValidator) look for the model of an artifact.
        place(storage.local_tree(home), Path(pushed.uri))
        Path(pushed.uri, "version.json").write_text(
            json.dumps({"version": version, "path": served}), encoding="utf-8"
        )
        self._MarkPushed(pushed, pushed_destination=served, pushed_version=str(version))
