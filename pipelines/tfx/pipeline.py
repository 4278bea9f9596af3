"""The TFX pipeline as a pure function of its configuration; `pipelines.tfx.nodes` runs its nodes.

Imports TFX (11 to 14 s): load it only where nodes are about to run.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow_model_analysis as tfma
from tfx.components import Evaluator, ExampleValidator, Pusher, StatisticsGen, Trainer
from tfx.components.schema_gen.import_schema_gen.component import ImportSchemaGen
from tfx.dsl.components.base import executor_spec
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import pipeline
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts

from pipelines.tfx.components import AnomalyGate, GatedPusher, IntactGate, PromotionGate, RawPatches
from pipelines.tfx.evaluator import eval_config
from pipelines.tfx.metadata_store import Store
from schemas.tables import SPLITS

NODES: Mapping[str, tuple[str, ...]] = {
    "validate": (
        "RawPatches", "Examples", "IntactGate", "ImportSchemaGen", "StatisticsGen", "ExampleValidator", "AnomalyGate",
    ),
    "train": ("Trainer",),
    "evaluate": ("Champion", "Evaluator", "PromotionGate"),
    "push": ("Pusher",),
}  # fmt: skip
"""Nodes of each stage of `histoline step`, in order; `Champion` is there where a champion is compared with."""

UNCACHED = ("IntactGate", "AnomalyGate", "PromotionGate", "Pusher")
"""Nodes that look at more than their inputs (files at rest, the champion) and so always run."""


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """What the pipeline needs to know.

    Attributes:
        name: DATASET-TASK.
        workspace: Root of the workspace.
        root: Folder of TFX's outputs, shared by all runs of a name.
        store: ML Metadata.
        raw: What the data set was ingested from.
        dataset_dir: Folder of the data set, relative to the workspace.
        examples_dir: The same as a local folder that TFX reads; it must be named by its content.
        schema_file: TFDV schema, likewise.
        run_folder: Folder of the run, relative to the workspace.
        run_dir: The same as a local folder.
        training: The recipe, as `TrainingConfig.to_dict` gives it.
        floors: Of the training configuration.
        task: `binary` or `subtype`.
        slices: Features to slice the evaluation by.
        source_digest: Of the code, so that changed code is no cache hit.
        baseline: Folder of a model that TFMA shows beside the candidate, named by its content; empty for none.
        beam_args: Flags for Beam.
        folds: Digest of the folds that the gate decides by; empty where it decides by the test split.
        judged: Whether TFMA judges the served model: only where there is a test split that it has not seen.
    """

    name: str
    workspace: str
    root: str
    store: Store
    raw: str
    dataset_dir: str
    examples_dir: str
    schema_file: str
    run_folder: str
    run_dir: str
    training: Mapping[str, Any]
    floors: Mapping[str, float]
    task: str
    slices: tuple[str, ...]
    source_digest: str
    baseline: str = ""
    beam_args: tuple[str, ...] = ("--runner=FnApiRunner",)
    folds: str = ""
    judged: bool = True


def create_pipeline(config: PipelineConfig) -> pipeline.Pipeline:
    """Builds the pipeline: gates, statistics, training, evaluation, promotion.

    Args:
        config: See there.

    Returns:
        The pipeline; nothing has run yet.
    """
    raw = Importer(source_uri=config.raw, artifact_type=RawPatches, reimport=False).with_id("RawPatches")
    examples = Importer(
        source_uri=config.examples_dir,
        artifact_type=standard_artifacts.Examples,
        properties={"split_names": json.dumps(SPLITS)},
        custom_properties={"payload_format": "FORMAT_TF_EXAMPLE"},
        reimport=False,  # the folder is named by what it holds
    ).with_id("Examples")
    intact = IntactGate(
        examples=examples.outputs["result"], workspace=config.workspace, dataset_dir=config.dataset_dir
    )
    schema = ImportSchemaGen(schema_file=config.schema_file)
    statistics = StatisticsGen(examples=examples.outputs["result"], schema=schema.outputs["schema"])
    statistics.add_upstream_node(intact)  # a damaged record can hang a reader
    validator = ExampleValidator(statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"])
    anomaly = AnomalyGate(
        anomalies=validator.outputs["anomalies"],
        intact=intact.outputs["report"],
        workspace=config.workspace,
        run_folder=config.run_folder,
    )
    trainer = Trainer(
        run_fn="components.training.run_fn.run_fn",  # by path: a module file would be built into a wheel with pip
        examples=examples.outputs["result"],
        schema=schema.outputs["schema"],
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={
            "config": dict(config.training), "run_dir": config.run_dir, "source_digest": config.source_digest,
            "workspace": config.workspace, "run_folder": config.run_folder, "folds": config.folds,
        },  # fmt: skip
    )
    trainer.add_upstream_node(anomaly)
    judges: list[Any] = []
    judged: dict[str, Any] = {}
    if config.judged:
        judges = _evaluator(config, examples, trainer, schema)
        judged = {"evaluation": judges[-1].outputs["evaluation"], "floors": judges[-1].outputs["blessing"]}
    gate = PromotionGate(
        model=trainer.outputs["model"],
        examples=examples.outputs["result"],
        workspace=config.workspace,
        run_folder=config.run_folder,
        **judged,
    )
    pusher = Pusher(
        model=trainer.outputs["model"],
        model_blessing=gate.outputs["blessing"],
        custom_executor_spec=executor_spec.ExecutorClassSpec(GatedPusher),
        custom_config={"workspace": config.workspace, "run_folder": config.run_folder},
    )
    nodes: list[Any] = [
        raw,
        examples,
        intact,
        schema,
        statistics,
        validator,
        anomaly,
        trainer,
        *judges,
        gate,
        pusher,
    ]
    return pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.root,
        components=nodes,
        enable_cache=True,
        metadata_connection_config=config.store.connection(),
        beam_pipeline_args=embedded_args(config.beam_args),
    )


def _evaluator(config: PipelineConfig, examples: Any, trainer: Any, schema: Any) -> list[Any]:
    """TFMA's Evaluator on the test split, after the champion where one stands beside the candidate."""
    champion: list[Any] = []
    if config.baseline:
        champion.append(
            Importer(
                source_uri=config.baseline, artifact_type=standard_artifacts.Model, reimport=False
            ).with_id("Champion")
        )
    evaluator = Evaluator(
        examples=examples.outputs["result"],
        example_splits=["test"],
        model=trainer.outputs["model"],
        baseline_model=champion[0].outputs["result"] if champion else None,
        schema=schema.outputs["schema"],
        eval_config=eval_config(tfma, config.task, config.floors, config.slices),
    )
    return [*champion, evaluator]


def embedded_args(beam_args: Sequence[str]) -> list[str]:
    """Beam's flags; keeps TFX from packaging itself for workers that the embedded runner does not have.

    Without a flag that names what workers run, each Beam node copies TFX to a temporary folder, builds a package of it
    (seconds), and leaves both behind. The embedded runner takes no notice of the flag.

    Args:
        beam_args: As they were given.
    """
    embedded = any(flag in ("--runner=FnApiRunner", "FnApiRunner") for flag in beam_args)
    return [*beam_args, *(["--sdk_container_image=embedded"] if embedded else [])]
