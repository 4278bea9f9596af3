"""TFX's Tuner over a sweep: its trials are told to a keras-tuner that has nothing left to train.

A sweep's trials are trained by processes of their own, on several machines perhaps, which a Tuner inside one TFX
process can't do. What it can do is to leave HyperParameters and TunerResults, with their lineage, in ML Metadata.
"""

# No `from __future__ import annotations`: TFX reads annotations as objects elsewhere in this package.
import dataclasses
import json
import tempfile
from typing import Any

import keras_tuner
from keras_tuner.engine import base_tuner
from tfx.components.tuner.component import Tuner, TunerFnResult
from tfx.dsl.components.common.importer import Importer
from tfx.orchestration import pipeline
from tfx.proto import trainer_pb2
from tfx.types import standard_artifacts

from components.storage.open import open_storage
from components.sweeps import record as records
from components.sweeps.sweep_types import SweepRecord, TrialRecord
from pipelines.tfx.metadata_store import Store
from schemas.tables import SPLITS


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """What the pipeline needs to know.

    Attributes:
        name: DATASET-TASK, as of the runs.
        root: Folder of TFX's outputs.
        store: ML Metadata.
        workspace: Root of the workspace.
        folder: Of the sweep, relative to it.
        examples_dir: The data set as a local folder.
    """

    name: str
    root: str
    store: Store
    workspace: str
    folder: str
    examples_dir: str


def create_sweep_pipeline(config: SweepConfig) -> pipeline.Pipeline:
    """Builds the pipeline of a sweep: the data set, and TFX's Tuner on its train and eval.

    Args:
        config: See there.
    """
    examples = Importer(
        source_uri=config.examples_dir,
        artifact_type=standard_artifacts.Examples,
        properties={"split_names": json.dumps(SPLITS)},
        custom_properties={"payload_format": "FORMAT_TF_EXAMPLE"},
        reimport=False,  # the folder is named by what it holds
    ).with_id("Examples")
    tuner = Tuner(
        tuner_fn="pipelines.tfx.tuner.tuner_fn",
        examples=examples.outputs["result"],
        train_args=trainer_pb2.TrainArgs(splits=["train"]),
        eval_args=trainer_pb2.EvalArgs(splits=["eval"]),
        custom_config={"workspace": config.workspace, "folder": config.folder},
    )
    return pipeline.Pipeline(
        pipeline_name=config.name,
        pipeline_root=config.root,
        components=[examples, tuner],
        enable_cache=True,
        metadata_connection_config=config.store.connection(),
    )


def tuner_fn(fn_args: Any) -> TunerFnResult:
    """Entry point of TFX's Tuner.

    Args:
        fn_args: `tfx.components.trainer.fn_args_utils.FnArgs`; custom_config names workspace and sweep.
    """
    given = fn_args.custom_config
    storage = open_storage(given["workspace"])
    sweep = records.read(storage, given["folder"])
    trials = records.read_trials(storage, given["folder"], sweep)
    return TunerFnResult(tuner=RecordedTuner(sweep, trials), fit_kwargs={"verbose": 0})


class RecordedOracle(keras_tuner.Oracle):
    """Gives out the trials of a sweep that have a result, in their order.

    Args:
        sweep: sweep.json.
        trials: trial.json by number.
    """

    def __init__(self, sweep: SweepRecord, trials: dict[int, TrialRecord]) -> None:
        self.recorded = [trial for trial in sweep.trials if trial.number in trials and trials[trial.number].over]
        super().__init__(
            objective=keras_tuner.Objective(sweep.metric, "max"),
            max_trials=max(1, len(self.recorded)),
            seed=sweep.search.seed + 1,
            max_consecutive_failed_trials=10**9,
        )

    def populate_space(self, trial_id: str) -> dict[str, Any]:
        """Values of the next trial."""
        if int(trial_id) >= len(self.recorded):
            return {"status": "STOPPED"}
        trial = self.recorded[int(trial_id)]
        return {"status": "RUNNING", "values": {"trial": trial.number, "recipe": trial.recipe, **trial.values}}


class RecordedTuner(base_tuner.BaseTuner):
    """Answers each trial with what is recorded of it.

    Args:
        sweep: sweep.json.
        trials: trial.json by number.
    """

    def __init__(self, sweep: SweepRecord, trials: dict[int, TrialRecord]) -> None:
        self._trials, self._metric = trials, sweep.metric
        self._scratch = tempfile.TemporaryDirectory(prefix="histoline-tuner-")
        super().__init__(RecordedOracle(sweep, trials), directory=self._scratch.name, project_name="sweep")

    def run_trial(self, trial: Any, *fit_args: Any, **fit_kwargs: Any) -> dict[str, float]:
        """The recorded result.

        Raises:
            FailedTrialError: The trial has none.
        """
        found = self._trials[int(trial.hyperparameters.values["trial"])]
        if found.state != "done" or found.score is None:
            raise keras_tuner.errors.FailedTrialError(found.error.message if found.error else found.reason)
        return {self._metric: found.score}
